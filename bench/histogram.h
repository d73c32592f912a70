/*
 * histogram - latencies in log-linear buckets: 3 % resolution from 1 ns to 584 years, 15 KB.
 *
 * Owner:  whoever embeds it; one writer.
 * Input:  durations in nanoseconds.
 * Never:  allocates, saturates or forgets the exact maximum.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include "base/check.h"

enum {
    HISTOGRAM_SUB_BITS = 5,
    HISTOGRAM_SUB_COUNT = 1 << HISTOGRAM_SUB_BITS,
    HISTOGRAM_BUCKET_COUNT = (64 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB_COUNT,
};

struct histogram {
    uint64_t count;
    uint64_t max_ns;
    double sum_ns;
    uint64_t buckets[HISTOGRAM_BUCKET_COUNT];
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
/*
 * The smallest bucket bound below which at least `per_100k` of 100000 values lie, never above the
 * exact maximum; 0 when empty. per_100k is 0..100000: p99.9 is 99900.
 */
uint64_t histogram_percentile_ns(const struct histogram *h, uint32_t per_100k);
double histogram_mean_ns(const struct histogram *h);

#endif
