/* rng - seeded pseudo-random numbers (xoshiro256**): jitter, shuffles, simulations. Not for
 * secrets. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include "base/check.h"

struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
/* Uniform in 0..bound-1; bound >= 1. */
uint64_t rng_below(struct rng *r, uint64_t bound);
/* A seed from the kernel. */
uint64_t rng_entropy(void);

#endif
