#include "bench/timer.h"

#include <stdlib.h>
#include <time.h>

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * ns_per_s + (uint64_t)ts.tv_nsec;
}

void timer_heap_fini(struct timer_heap *h)
{
    free(h->items);
    *h = (struct timer_heap){0};
}

static void put_at(struct timer_heap *h, uint32_t index, struct timer *t)
{
    h->items[index] = t;
    t->place = index + 1;
}

static void sift_up(struct timer_heap *h, uint32_t index, struct timer *t)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (h->items[parent]->due_ns <= t->due_ns)
            break;
        put_at(h, index, h->items[parent]);
        index = parent;
    }
    put_at(h, index, t);
}

static void sift_down(struct timer_heap *h, uint32_t index, struct timer *t)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1]->due_ns < h->items[child]->due_ns)
            child++;
        if (t->due_ns <= h->items[child]->due_ns)
            break;
        put_at(h, index, h->items[child]);
        index = child;
    }
    put_at(h, index, t);
}

void timer_clear(struct timer_heap *h, struct timer *t)
{
    if (t->place == 0)
        return;
    uint32_t index = t->place - 1;
    MUST(index < h->count);
    MUST(h->items[index] == t);
    struct timer *last = h->items[--h->count];

    t->place = 0;
    if (last == t)
        return;
    if (index > 0 && h->items[(index - 1) / 2]->due_ns > last->due_ns)
        sift_up(h, index, last);
    else
        sift_down(h, index, last);
}

void timer_set(struct timer_heap *h, struct timer *t, uint64_t due_ns)
{
    timer_clear(h, t);
    if (h->count == h->cap) {
        uint32_t cap = h->cap == 0 ? 256 : h->cap * 2;
        struct timer **items = realloc(h->items, cap * sizeof(struct timer *));
        MUST(items != NULL);
        h->items = items;
        h->cap = cap;
    }
    t->due_ns = due_ns;
    sift_up(h, h->count++, t);
}

struct timer *timer_take_due(struct timer_heap *h, uint64_t at_ns)
{
    if (h->count == 0 || h->items[0]->due_ns > at_ns)
        return NULL;
    struct timer *t = h->items[0];

    timer_clear(h, t);
    return t;
}

uint64_t timer_next_ns(const struct timer_heap *h, uint64_t otherwise)
{
    return h->count > 0 && h->items[0]->due_ns < otherwise ? h->items[0]->due_ns : otherwise;
}
