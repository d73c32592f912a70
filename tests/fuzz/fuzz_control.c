/*
 * fuzz_control - any bytes as a control frame.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/control.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct control_frame f, again;
    static uint8_t first[LIMIT_FRAME_BYTES], second[LIMIT_FRAME_BYTES];
    size_t first_n, second_n;

    if (control_decode(span_of(data, n), &f) < 0)
        return 0;
    for (uint32_t i = 0; i < f.arg_count; i++)
        MUST(strchr(f.args[i], '=') != NULL);
    /* A frame at the limit may grow past it: presets that were absent become explicit. */
    if (control_encode(&f, first, sizeof first, &first_n) == 0) {
        MUST(control_decode(span_of(first, first_n), &again) == 0);
        MUST(control_encode(&again, second, sizeof second, &second_n) == 0);
        MUST(span_eq(span_of(first, first_n), span_of(second, second_n)));
        control_free(&again);
    }
    control_free(&f);
    return 0;
}
