#include "bench/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool all_equal(const uint32_t *weight, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (weight[i] != weight[0])
            return false;
    return true;
}

int weights_init_equal(struct weights *w, uint32_t count)
{
    MUST(count >= 1);
    *w = (struct weights){.cycle_count = count};
    return 0;
}

struct turn {
    double at; /* where in 0..1 of the cycle this turn lies */
    uint32_t index;
};

static int by_place(const void *a, const void *b)
{
    const struct turn *x = a;
    const struct turn *y = b;

    if (x->at < y->at)
        return -1;
    if (x->at > y->at)
        return 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* A thing of weight w takes the places (k + 1/2) / w, k = 0..w-1: evenly spread, and sorted. */
static int spread(struct weights *w, const uint32_t *weight, uint32_t count)
{
    struct turn *turns = calloc(w->cycle_count, sizeof *turns);
    uint32_t n = 0;

    if (turns == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < weight[i]; k++)
            turns[n++] = (struct turn){(k + 0.5) / weight[i], i};
    MUST(n == w->cycle_count);
    qsort(turns, n, sizeof *turns, by_place);
    for (uint32_t i = 0; i < n; i++)
        w->cycle[i] = turns[i].index;
    free(turns);
    return 0;
}

int weights_init(struct weights *w, const uint32_t *weight, uint32_t count)
{
    uint64_t sum = 0;

    MUST(count >= 1);
    if (all_equal(weight, count))
        return weights_init_equal(w, count);
    for (uint32_t i = 0; i < count; i++) {
        MUST(weight[i] >= 1);
        sum += weight[i];
    }
    *w = (struct weights){0};
    if (sum > WEIGHT_CYCLE_MAX)
        return -E2BIG;
    w->cycle = calloc(sum, sizeof *w->cycle);
    if (w->cycle == NULL)
        return -ENOMEM;
    w->cycle_count = (uint32_t)sum;
    int rc = spread(w, weight, count);
    if (rc < 0)
        weights_fini(w);
    return rc;
}

void weights_fini(struct weights *w)
{
    free(w->cycle);
    *w = (struct weights){0};
}
