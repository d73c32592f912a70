/*
 * weights - a fixed order over weighted things, so that the n-th choice depends on n alone.
 *
 * A cycle as long as the sum of the weights holds each thing as often as it weighs, spread evenly.
 */
#ifndef BENCH_WEIGHTS_H
#define BENCH_WEIGHTS_H

#include "base/check.h"

enum { WEIGHT_MAX = 10000, WEIGHT_CYCLE_MAX = 1 << 24 };

struct weights {
    uint32_t *cycle; /* NULL: all weigh the same */
    uint32_t cycle_count;
};

/* Each weight 1..WEIGHT_MAX, count >= 1. 0, -ENOMEM, or -E2BIG when the sum is too large. */
NODISCARD int weights_init(struct weights *w, const uint32_t *weight, uint32_t count);
NODISCARD int weights_init_equal(struct weights *w, uint32_t count);
void weights_fini(struct weights *w);
/* The index of the n-th choice. */
static inline uint32_t weights_pick(const struct weights *w, uint64_t n)
{
    uint32_t place = (uint32_t)(n % w->cycle_count);

    return w->cycle != NULL ? w->cycle[place] : place;
}

#endif
