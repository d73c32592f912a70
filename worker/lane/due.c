#include "worker/lane/due.h"

/* Invariant: an entry with due time t stands in near[t % SLOTS] when t's block is the block of now, or in
 * far[block % SLOTS] otherwise; times in the past are filed under now. Entries remember their filed second in due_s. */

static uint32_t block_of(uint32_t s)
{
    return s / DUE_SLOTS;
}

void due_init(struct due *d, uint32_t now_s)
{
    memset(d, 0, sizeof *d);
    d->now_s = now_s;
}

static struct qlist *list_for(struct due *d, uint32_t due_s)
{
    uint32_t block = block_of(due_s);
    if (block == block_of(d->now_s))
        return &d->near[due_s % DUE_SLOTS];
    return &d->far[block % DUE_SLOTS];
}

void due_add(struct due *d, const struct store *s, struct qentry *e)
{
    uint32_t last = d->now_s + (DUE_SLOTS - 2u) * DUE_SLOTS;
    if (e->due_s < d->now_s)
        e->due_s = d->now_s;
    if (e->due_s > last)
        e->due_s = last;
    qlist_push(s, list_for(d, e->due_s), e);
    d->count++;
}

void due_remove(struct due *d, const struct store *s, struct qentry *e)
{
    qlist_remove(s, list_for(d, e->due_s), e);
    d->count--;
}

/* Moves the entries of a new block from its far list to the near slots. */
static void open_block(struct due *d, const struct store *s, uint32_t now_s)
{
    d->now_s = now_s;
    struct qlist *far = &d->far[block_of(now_s) % DUE_SLOTS];
    struct qentry *e;
    while ((e = qlist_first(s, far)) != NULL) {
        qlist_remove(s, far, e);
        MUST(block_of(e->due_s) == block_of(now_s));
        qlist_push(s, &d->near[e->due_s % DUE_SLOTS], e);
    }
}

uint32_t due_advance(struct due *d, const struct store *s, uint32_t now_s, uint32_t most,
                     void (*fn)(void *ctx, struct qentry *e), void *ctx)
{
    uint32_t fired = 0;
    while (fired < most) {
        struct qlist *slot = &d->near[d->now_s % DUE_SLOTS];
        struct qentry *e = qlist_first(s, slot);
        if (e != NULL) {
            qlist_remove(s, slot, e);
            d->count--;
            fired++;
            fn(ctx, e);
            continue;
        }
        if (d->now_s >= now_s)
            break;
        uint32_t next = d->count == 0 ? now_s : d->now_s + 1;
        if (block_of(next) != block_of(d->now_s))
            open_block(d, s, next);
        else
            d->now_s = next;
    }
    return fired;
}

uint32_t due_next_s(const struct due *d, uint32_t max)
{
    if (d->count == 0)
        return max;
    for (uint32_t i = 0; i < max; i++) {
        uint32_t at = d->now_s + i;
        if (block_of(at) != block_of(d->now_s) || d->near[at % DUE_SLOTS].count > 0)
            return i;
    }
    return max;
}
