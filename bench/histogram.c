/*
 * Buckets: values below 32 have one each; above, every power of two is cut into 32 equal parts.
 * Index and bound are inverse to each other: bound(index(v)) >= v, within 1/32.
 */
#include "bench/histogram.h"

enum { PER_ALL = 100000 };

static uint32_t bucket_index(uint64_t ns)
{
    if (ns < HISTOGRAM_SUB_COUNT)
        return (uint32_t)ns;
    uint32_t top = 63 - (uint32_t)__builtin_clzll(ns);
    uint32_t shift = top - HISTOGRAM_SUB_BITS;
    uint32_t sub = (uint32_t)(ns >> shift) - HISTOGRAM_SUB_COUNT;

    return (shift + 1) * HISTOGRAM_SUB_COUNT + sub;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_bound_ns(uint32_t index)
{
    if (index < HISTOGRAM_SUB_COUNT)
        return index;
    uint32_t shift = index / HISTOGRAM_SUB_COUNT - 1;
    uint64_t first = (uint64_t)(HISTOGRAM_SUB_COUNT + index % HISTOGRAM_SUB_COUNT) << shift;

    return first + ((1ULL << shift) - 1);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    uint32_t index = bucket_index(ns);

    MUST(index < HISTOGRAM_BUCKET_COUNT);
    h->buckets[index]++;
    h->count++;
    h->sum_ns += (double)ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

uint64_t histogram_percentile_ns(const struct histogram *h, uint32_t per_100k)
{
    MUST(per_100k <= PER_ALL);
    if (h->count == 0)
        return 0;
    uint64_t rank = (uint64_t)((double)h->count * per_100k / PER_ALL + 0.999999);
    uint64_t seen = 0;

    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++) {
        seen += h->buckets[i];
        if (seen >= rank && seen > 0) {
            uint64_t bound = bucket_bound_ns(i);
            return bound < h->max_ns ? bound : h->max_ns;
        }
    }
    return h->max_ns;
}

double histogram_mean_ns(const struct histogram *h)
{
    return h->count == 0 ? 0.0 : h->sum_ns / (double)h->count;
}
