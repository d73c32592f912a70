/* Any stream, in two splits: the same replies come out of both, and all bounds hold. */
#include "base/crc.h"
#include "proto/classify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    uint32_t replies;
    uint32_t crc; /* over codes and texts */
    bool broken;
};

static void check_reply(const struct smtp_reply *r, struct outcome *out)
{
    struct smtp_offer offer;
    MUST(r->code >= 200);
    MUST(r->code <= 599);
    MUST(r->text_bytes <= LIMIT_REPLY_KEPT_BYTES);
    MUST(strlen(r->text) == r->text_bytes);
    MUST(r->lines >= 1);
    MUST(r->lines <= LIMIT_REMOTE_REPLY_LINES);
    MUST(r->enhanced.class_ == 0 || r->enhanced.class_ == r->code / 100);
    for (unsigned i = 0; i < 5; i++) {
        struct span line = smtp_reply_text_line(r, i);
        MUST(line.n <= r->text_bytes);
    }
    smtp_offer_parse(r, &offer);
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        struct classification c;
        classify_reply((enum smtp_stage)stage, r, r->code & 1, &c);
        MUST(c.status.class_ != 0);
    }
    out->replies++;
    out->crc = crc32c(out->crc, span_of(&r->code, sizeof r->code));
    out->crc = crc32c(out->crc, span_of(r->text, r->text_bytes));
}

static struct outcome run(struct span in, size_t step)
{
    static struct smtp_reply_reader reader;
    struct outcome out = {0};
    smtp_reply_reader_reset(&reader);
    while (in.n > 0 && !out.broken) {
        struct span part = span_of(in.p, in.n < step ? in.n : step);
        in = span_skip(in, part.n);
        while (part.n > 0 && !out.broken) {
            switch (smtp_reply_feed(&reader, &part)) {
            case SMTP_REPLY_MORE:
                MUST(part.n == 0);
                break;
            case SMTP_REPLY_DONE:
                check_reply(&reader.reply, &out);
                break;
            case SMTP_REPLY_BROKEN:
                out.broken = true;
                break;
            }
        }
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct span in = span_of(data + 1, size - 1);
    struct outcome whole = run(in, in.n + 1);
    struct outcome split = run(in, 1 + data[0] % 16);
    MUST(whole.replies == split.replies);
    MUST(whole.crc == split.crc);
    MUST(whole.broken == split.broken);
    return 0;
}
