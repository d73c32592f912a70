/*
 * fuzz_lane - any bytes as a payload between workers of two nodes.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/lane_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t encode(const struct lane_frame *f, uint8_t *out)
{
    size_t n;
    MUST(lane_frame_head(f, out, LIMIT_CARRIER_PAYLOAD_BYTES, &n) == 0);
    struct writer w = writer_of(out + n, LIMIT_CARRIER_PAYLOAD_BYTES - n);
    put_bytes(&w, f->meta);
    put_bytes(&w, f->rest);
    MUST(!w.bad);
    return n + w.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t first[LIMIT_CARRIER_PAYLOAD_BYTES], second[LIMIT_CARRIER_PAYLOAD_BYTES];
    struct span in = span_of(data, n);
    struct lane_frame f, again;
    while (lane_frame_next(&in, &f) == 1) {
        struct span s = span_of(first, encode(&f, first));
        size_t bytes = s.n;
        MUST(lane_frame_next(&s, &again) == 1);
        MUST(s.n == 0);
        MUST(span_eq(span_of(second, encode(&again, second)), span_of(first, bytes)));
        lane_frame_free(&again);
        lane_frame_free(&f);
    }
    return 0;
}
