/*
 * wheel - timers of a worker: hashed hierarchical wheel, 1 ms ticks, O(1) set and stop.
 *
 * A timer is embedded in what it serves. A timer never fires early; late by at most one turn. No
 * kernel timers: io_turn waits until wheel_next_ms at most.
 */
#ifndef WORKER_IO_WHEEL_H
#define WORKER_IO_WHEEL_H

#include "base/check.h"

struct timer {
    struct timer *next, **link; /* private; link == NULL: not set */
    uint64_t due_ms;
    void (*on_due)(struct timer *t); /* may set it again, set or stop others, free its owner */
};
enum { WHEEL_LEVELS = 5, WHEEL_SLOTS = 256 };
struct wheel {
    struct timer *slots[WHEEL_LEVELS][WHEEL_SLOTS];
    uint64_t occupied[WHEEL_LEVELS]
                     [WHEEL_SLOTS / 64]; /* private: one bit a slot that holds a timer */
    struct timer *soon;                  /* private: due at the next wheel_advance */
    uint64_t cursor_ms;                  /* private: how far wheel_advance has come */
    uint64_t now_ms;
    uint32_t count;
};

void wheel_init(struct wheel *w, uint64_t now_ms);
/* (Re)sets t to fire at now + delay_ms (0 = next wheel_advance); delay up to 2^40 ms is kept
 * exactly. */
void timer_set(struct wheel *w, struct timer *t, uint64_t delay_ms);
void timer_stop(struct wheel *w, struct timer *t);
static inline bool timer_is_set(const struct timer *t)
{
    return t->link != NULL;
}
/* Fires everything due up to now_ms, in order of time within the resolution. A step back of the
 * clock is ignored. */
void wheel_advance(struct wheel *w, uint64_t now_ms);
/* Milliseconds from the wheel's now until something may fire (a lower bound), at most `max`. */
uint64_t wheel_next_ms(const struct wheel *w, uint64_t max);

#endif
