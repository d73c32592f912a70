/* Hostile names and addresses in our Received field: it stays one field of bounded lines. */
#include "proto/limits.h"
#include "proto/trace_field.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_field(struct span field)
{
    size_t line = 0;
    MUST(field.n <= LIMIT_TRACE_BYTES);
    MUST(field.n > 12);
    for (size_t i = 0; i < field.n; i++) {
        uint8_t c = field.p[i];
        if (c == '\r') {
            MUST(i + 1 < field.n);
            MUST(field.p[i + 1] == '\n');
            MUST(i + 2 == field.n || field.p[i + 2] == '\t');
            MUST(line > 0);
            MUST(line <= 998);
            line = 0;
            i += i + 2 == field.n ? 1 : 2;
            continue;
        }
        MUST(c >= 0x20);
        MUST(c != 0x7f);
        line++;
    }
    MUST(line == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char room[LIMIT_TRACE_BYTES + 1];
    struct text t = text_of(room, sizeof room);
    struct cursor c = cursor_of(span_of(data, size));
    uint8_t bits = cursor_u8(&c);
    struct trace_facts f = {.with = trace_with(bits & 1, bits & 2, bits & 4, bits & 8),
                            .by = span_str("mx.ours.test")};
    f.time_unix_s = cursor_u64(&c);
    struct span ip = cursor_bytes(&c, sizeof f.client.b);
    f.id = cursor_id(&c);
    f.helo = cursor_str16(&c);
    f.rdns = cursor_str16(&c);
    f.only_rcpt = cursor_str16(&c);
    if (c.bad)
        return 0;
    memcpy(f.client.b, ip.p, ip.n);
    trace_field_put(&t, &f);
    MUST(!t.cut);
    check_field(text_span(&t));
    return 0;
}
