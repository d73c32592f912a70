/* Whatever the message: the outcome holds no octet above 127, ends no DATA early, and a second pass
 * changes nothing. */
#include "proto/data_scan.h"
#include "proto/mime_downgrade.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_safe(struct span out, uint64_t dots)
{
    uint64_t seen = 0;
    for (size_t i = 0; i < out.n; i++) {
        MUST(out.p[i] < 0x80);
        bool first = i == 0 || (i >= 2 && out.p[i - 1] == '\n' && out.p[i - 2] == '\r');
        if (!first || out.p[i] != '.')
            continue;
        seen++;
        MUST(i + 1 < out.n); /* a doubled dot, never the one that ends the message */
        MUST(out.p[i + 1] != '\r' || (i + 2 < out.n && out.p[i + 2] != '\n'));
    }
    MUST(seen == dots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *wire = malloc(2 * size + 4);
    uint8_t state = 0;
    MUST(wire != NULL);
    size_t n = wire_form(span_of(data, size), true, true, &state, wire);
    if (n < 2 || wire[n - 2] != '\r' || wire[n - 1] != '\n') {
        wire[n++] = '\r';
        wire[n++] = '\n';
    }
    size_t room = mime_downgrade_room(n);
    uint8_t *out = malloc(room);
    MUST(out != NULL);
    struct writer w = writer_of(out, room);
    uint64_t dots = 0;
    int r = mime_downgrade(span_of(wire, n), &w, &dots);
    MUST(r != -ENOSPC);
    if (r == 0) {
        check_safe(span_of(out, w.n), dots);
        uint8_t *again = malloc(mime_downgrade_room(w.n));
        MUST(again != NULL);
        struct writer v = writer_of(again, mime_downgrade_room(w.n));
        uint64_t more = 0;
        MUST(mime_downgrade(span_of(out, w.n), &v, &more) == 0);
        MUST(span_eq(span_of(again, v.n), span_of(out, w.n)));
        free(again);
    }
    free(out);
    free(wire);
    return 0;
}
