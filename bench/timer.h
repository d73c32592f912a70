/*
 * timer - a heap of deadlines on CLOCK_MONOTONIC, embedded in what they serve.
 *
 * Owner:  one event loop. An item may be in one heap at most and must be removed before it is
 * freed.
 */
#ifndef BENCH_TIMER_H
#define BENCH_TIMER_H

#include "base/check.h"

struct timer {
    uint64_t due_ns;
    uint32_t place; /* index in the heap + 1; 0 = not set */
};
struct timer_heap {
    struct timer **items;
    uint32_t count;
    uint32_t cap;
};

static const uint64_t ns_per_s = 1000000000;
static const uint64_t ns_per_ms = 1000000;

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);
void timer_heap_fini(struct timer_heap *h);
/* Sets or moves the deadline. Ends the process when there is no memory for a pointer. */
void timer_set(struct timer_heap *h, struct timer *t, uint64_t due_ns);
/* Takes the deadline back; no effect when none was set. */
void timer_clear(struct timer_heap *h, struct timer *t);
/* Removes and returns the earliest item that is due, or NULL. */
struct timer *timer_take_due(struct timer_heap *h, uint64_t at_ns);
/* The earliest deadline, or `otherwise` when there is none or it is later. */
uint64_t timer_next_ns(const struct timer_heap *h, uint64_t otherwise);
static inline bool timer_is_set(const struct timer *t)
{
    return t->place != 0;
}

#endif
