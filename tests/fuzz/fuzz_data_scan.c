/* data_scan against the naive reference, in a split that the input chooses; and wire_form. */
#include "tests/naive_scan.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct data_scan *s, const struct naive *want)
{
    const char *difference = naive_difference(s, &want->facts);
    if (difference != NULL)
        fprintf(stderr, "differs: %s\n", difference);
    MUST(difference == NULL);
}

static void check_data(struct span in, size_t step)
{
    struct naive want = naive_scan(in, true);
    struct data_scan s;
    size_t stored = 0, consumed = 0;
    bool done = false;

    data_scan_init(&s);
    while (consumed < in.n && !done) {
        size_t left = in.n - consumed;
        struct data_scan_result r =
            data_scan_feed(&s, span_of(in.p + consumed, left < step ? left : step));
        MUST(r.excess <= stored + r.message_bytes);
        stored += r.message_bytes - r.excess;
        consumed += r.consumed;
        done = r.done;
    }
    MUST(done == want.done);
    MUST(stored == want.message_bytes);
    MUST(consumed == want.consumed);
    check_same(&s, &want);
}

static void check_bdat(struct span in, size_t step)
{
    struct naive want = naive_scan(in, false);
    struct data_scan s;
    data_scan_init(&s);
    for (size_t at = 0; at < in.n; at += step)
        bdat_scan_feed(&s, span_of(in.p + at, in.n - at < step ? in.n - at : step));
    check_same(&s, &want);
}

/* Nothing that is sent ends early, holds a bare CR or LF after normalising, or fails to come back.
 */
static void check_wire(struct span in, size_t step)
{
    uint8_t *out = malloc(2 * in.n + 2);
    uint8_t state = 0;
    size_t n = 0;
    MUST(out != NULL);
    for (size_t at = 0; at < in.n; at += step)
        n += wire_form(span_of(in.p + at, in.n - at < step ? in.n - at : step), false, true, &state,
                       out + n);
    MUST(n <= 2 * in.n + 2);
    MUST(!naive_scan(span_of(out, n), true).done);
    MUST(wire_unstuff(span_of(out, n), out) == in.n);
    MUST(in.n == 0 || memcmp(out, in.p, in.n) == 0);
    /* A message as it came by DATA, then as it came by BDAT. */
    struct span message = span_of(in.p, naive_scan(in, true).message_bytes);
    for (int stuff = 0; stuff < 2; stuff++) {
        struct span from = stuff ? in : message;
        state = 0;
        n = wire_form(from, true, stuff, &state, out);
        struct naive facts = naive_scan(span_of(out, n), true);
        MUST(!facts.done);
        MUST(facts.facts.bare_lf == 0);
        MUST(facts.facts.bare_cr == 0);
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct span in = span_of(data + 1, size - 1);
    size_t step = 1 + data[0] % 40;
    check_data(in, step);
    check_bdat(in, step);
    check_wire(in, step);
    return 0;
}
