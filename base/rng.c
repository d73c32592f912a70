/* rng - xoshiro256** by Blackman and Vigna, seeded through splitmix64. */
#include "base/rng.h"

#include <sys/random.h>

__extension__ typedef unsigned __int128 wide;

void rng_seed(struct rng *r, uint64_t seed)
{
    for (size_t i = 0; i < ARRAY_COUNT(r->s); i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t z = seed;
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        r->s[i] = z ^ z >> 31;
    }
}

static uint64_t rotate_left(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t bound)
{
    MUST(bound >= 1);
    /* Lemire's method: the low half below 2^64 mod bound is the uneven rest; draw again. */
    uint64_t uneven = (0 - bound) % bound;
    for (;;) {
        wide product = (wide)rng_u64(r) * bound;
        if ((uint64_t)product >= uneven)
            return (uint64_t)(product >> 64);
    }
}

uint64_t rng_entropy(void)
{
    uint64_t v;
    MUST(getrandom(&v, sizeof v, 0) == (ssize_t)sizeof v);
    return v;
}
