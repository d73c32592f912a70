/*
 * The wheel. Invariants, with `cursor` the time up to which everything has fired:
 *   - a timer on level 0 is due within the cursor's block of 256 ms, after the cursor; its slot is
 * one millisecond;
 *   - a timer on level L has the bits above level L in common with the cursor, and a later slot on
 * L;
 *   - the top level is a circle: a slot "behind" the cursor is the next round, the cursor's own
 * slot a whole round away. So the first occupied slot of the lowest occupied level is what happens
 * next, and the cursor may jump there in one step: an idle hour costs nothing.
 *
 * Outside wheel_advance cursor == now. Inside, `now` is already the time that was asked for, and
 * delays count from it: a timer that is set by another one's on_due must not fire early only
 * because the cursor lags.
 */
#include "worker/io/wheel.h"

#include <string.h>

enum { SLOT_BITS = 8, SLOT_MASK = WHEEL_SLOTS - 1, TOP = WHEEL_LEVELS - 1 };

static const uint64_t delay_ms_max = 1ull << (SLOT_BITS * WHEEL_LEVELS);

static uint32_t slot_of(uint64_t ms, int level)
{
    return (uint32_t)(ms >> (SLOT_BITS * level)) & SLOT_MASK;
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    memset(w, 0, sizeof *w);
    w->cursor_ms = now_ms;
    w->now_ms = now_ms;
}

static void push(struct timer **head, struct timer *t)
{
    t->next = *head;
    t->link = head;
    if (t->next != NULL)
        t->next->link = &t->next;
    *head = t;
}

/* Clears the bit of a slot when `link` is its head and it has become empty. */
static void clear_if_empty(struct wheel *w, struct timer **link)
{
    uintptr_t offset = (uintptr_t)link - (uintptr_t)&w->slots[0][0];
    if (*link != NULL || offset >= sizeof w->slots)
        return;
    size_t i = offset / sizeof(struct timer *);
    w->occupied[i / WHEEL_SLOTS][i % WHEEL_SLOTS / 64] &= ~(1ull << (i % 64));
}

static void unlink_timer(struct wheel *w, struct timer *t)
{
    struct timer **link = t->link;
    *link = t->next;
    if (t->next != NULL)
        t->next->link = link;
    t->next = NULL;
    t->link = NULL;
    clear_if_empty(w, link);
}

/* Files a timer that is due after the cursor. */
static void place(struct wheel *w, struct timer *t)
{
    MUST(t->due_ms > w->cursor_ms);
    uint64_t differs = t->due_ms ^ w->cursor_ms;
    int level = (63 - __builtin_clzll(differs)) / SLOT_BITS;
    if (level > TOP)
        level = TOP;
    uint32_t slot = slot_of(t->due_ms, level);
    push(&w->slots[level][slot], t);
    w->occupied[level][slot / 64] |= 1ull << (slot % 64);
}

void timer_set(struct wheel *w, struct timer *t, uint64_t delay_ms)
{
    MUST(t->on_due != NULL);
    timer_stop(w, t);
    if (delay_ms > delay_ms_max)
        delay_ms = delay_ms_max;
    t->due_ms = w->now_ms + delay_ms;
    if (delay_ms == 0)
        push(&w->soon, t);
    else
        place(w, t);
    w->count++;
}

void timer_stop(struct wheel *w, struct timer *t)
{
    if (t->link == NULL)
        return;
    unlink_timer(w, t);
    MUST(w->count > 0);
    w->count--;
}

/* The first occupied slot at or after `from`, or -1. */
static int first_slot(const struct wheel *w, int level, uint32_t from)
{
    for (uint32_t word = from / 64; word < WHEEL_SLOTS / 64; word++) {
        uint64_t bits = w->occupied[level][word];
        if (word == from / 64)
            bits &= ~0ull << (from % 64);
        if (bits != 0)
            return (int)(word * 64 + (uint32_t)__builtin_ctzll(bits));
    }
    return -1;
}

struct next_slot {
    int level; /* -1: no timer at all */
    uint32_t slot;
    uint64_t at_ms; /* the begin of the slot */
};

static struct next_slot find_next(const struct wheel *w)
{
    for (int level = 0; level < TOP; level++) {
        uint32_t here = slot_of(w->cursor_ms, level);
        int slot = here == SLOT_MASK ? -1 : first_slot(w, level, here + 1);
        if (slot < 0)
            continue;
        uint64_t block = w->cursor_ms >> (SLOT_BITS * (level + 1)) << (SLOT_BITS * (level + 1));
        return (struct next_slot){level, (uint32_t)slot,
                                  block + ((uint64_t)slot << (SLOT_BITS * level))};
    }
    uint32_t here = slot_of(w->cursor_ms, TOP);
    int slot = here == SLOT_MASK ? -1 : first_slot(w, TOP, here + 1);
    if (slot < 0)
        slot = first_slot(w, TOP, 0);
    if (slot < 0)
        return (struct next_slot){-1, 0, UINT64_MAX};
    uint64_t ahead = ((uint32_t)slot - here - 1) % WHEEL_SLOTS + 1;
    uint64_t at = ((w->cursor_ms >> (SLOT_BITS * TOP)) + ahead) << (SLOT_BITS * TOP);
    return (struct next_slot){TOP, (uint32_t)slot, at};
}

/* Fires a list that is due. Timers in it may be stopped by the callbacks of others. */
static void fire(struct wheel *w, struct timer **list)
{
    while (*list != NULL) {
        struct timer *t = *list;
        unlink_timer(w, t);
        w->count--;
        t->on_due(t);
    }
}

static void take_slot(struct timer **from, struct timer **to)
{
    *to = *from;
    *from = NULL;
    if (*to != NULL)
        (*to)->link = to;
}

/* Spreads the timers of a slot whose begin the cursor has reached over the lower levels. */
static void cascade(struct wheel *w, struct timer **list, struct timer **due)
{
    while (*list != NULL) {
        struct timer *t = *list;
        unlink_timer(w, t);
        if (t->due_ms <= w->cursor_ms)
            push(due, t);
        else
            place(w, t);
    }
}

void wheel_advance(struct wheel *w, uint64_t now_ms)
{
    MUST(w->cursor_ms == w->now_ms);
    if (now_ms > w->now_ms)
        w->now_ms = now_ms;
    struct timer *due;
    take_slot(&w->soon, &due);
    fire(w, &due);
    for (;;) {
        struct next_slot next = find_next(w);
        if (next.level < 0 || next.at_ms > w->now_ms)
            break;
        w->cursor_ms = next.at_ms;
        struct timer *list;
        struct timer **head = &w->slots[next.level][next.slot];
        take_slot(head, &list);
        clear_if_empty(w, head);
        if (next.level == 0) {
            fire(w, &list);
            continue;
        }
        due = NULL;
        cascade(w, &list, &due);
        fire(w, &due);
    }
    w->cursor_ms = w->now_ms;
}

uint64_t wheel_next_ms(const struct wheel *w, uint64_t max)
{
    if (w->soon != NULL)
        return 0;
    struct next_slot next = find_next(w);
    if (next.level < 0)
        return max;
    uint64_t left = next.at_ms > w->now_ms ? next.at_ms - w->now_ms : 0;
    return left < max ? left : max;
}
