/* rcpt_set - a set of recipient indices of one message, 0..RCPT_SET_MAX-1. */
#ifndef BENCH_RCPT_SET_H
#define BENCH_RCPT_SET_H

#include "base/check.h"

enum { RCPT_SET_MAX = 128 };

struct rcpt_set {
    uint64_t w[RCPT_SET_MAX / 64];
};

static inline struct rcpt_set rcpt_set_first(uint32_t count)
{
    struct rcpt_set s = {{0}};

    MUST(count <= RCPT_SET_MAX);
    for (uint32_t i = 0; i < count; i++)
        s.w[i / 64] |= 1ULL << i % 64;
    return s;
}
static inline void rcpt_set_add(struct rcpt_set *s, uint32_t i)
{
    s->w[i / 64] |= 1ULL << i % 64;
}
static inline struct rcpt_set rcpt_set_or(struct rcpt_set a, struct rcpt_set b)
{
    return (struct rcpt_set){{a.w[0] | b.w[0], a.w[1] | b.w[1]}};
}
static inline bool rcpt_set_is_empty(const struct rcpt_set *s)
{
    return (s->w[0] | s->w[1]) == 0;
}
static inline uint32_t rcpt_set_count(const struct rcpt_set *s)
{
    return (uint32_t)(__builtin_popcountll(s->w[0]) + __builtin_popcountll(s->w[1]));
}
/* The first member that is >= from, or RCPT_SET_MAX. */
static inline uint32_t rcpt_set_next(const struct rcpt_set *s, uint32_t from)
{
    if (from < 64 && s->w[0] >> from != 0)
        return from + (uint32_t)__builtin_ctzll(s->w[0] >> from);
    uint32_t high = from < 64 ? 0 : from - 64;
    if (high < 64 && s->w[1] >> high != 0)
        return 64 + high + (uint32_t)__builtin_ctzll(s->w[1] >> high);
    return RCPT_SET_MAX;
}

#endif
