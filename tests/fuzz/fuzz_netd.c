/*
 * fuzz_netd - any bytes as a frame between the master and netd.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/netd_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct netd_frame f, again;
    /* Absent fields become explicit: a frame at the limit may grow past it. */
    static uint8_t first[2 * LIMIT_FRAME_BYTES], second[LIMIT_FRAME_BYTES];
    size_t first_n, second_n;

    if (netd_decode(span_of(data, n), &f) < 0)
        return 0;
    if (netd_encode(&f, first, sizeof first, &first_n) < 0)
        return 0;
    MUST(netd_decode(span_of(first, first_n), &again) == 0);
    MUST(netd_encode(&again, second, sizeof second, &second_n) == 0);
    MUST(span_eq(span_of(first, first_n), span_of(second, second_n)));
    return 0;
}
