#include "worker/lane/due.h"

/* Invariant: an entry with due time t stands in near[t % SLOTS] when t's block is the block of now,
 * or in far[block % SLOTS] otherwise; times in the past are filed under now. Entries remember their
 * filed second in due_s. */

enum { STEP_BACK_S = 60 /* less than this is waited for */ };

static uint32_t block_of(uint32_t s)
{
    return s / DUE_SLOTS;
}

void due_init(struct due *d, uint32_t now_s, void (*on_due)(void *ctx, struct qentry *e), void *ctx)
{
    memset(d, 0, sizeof *d);
    d->now_s = now_s;
    d->on_due = on_due;
    d->ctx = ctx;
}

static bool is_near(const struct due *d, uint32_t due_s)
{
    return block_of(due_s) == block_of(d->now_s);
}

static struct qlist *list_for(struct due *d, uint32_t due_s)
{
    return is_near(d, due_s) ? &d->near[due_s % DUE_SLOTS] : &d->far[block_of(due_s) % DUE_SLOTS];
}

static void file(struct due *d, const struct store *s, struct qentry *e)
{
    uint32_t reach = (DUE_SLOTS - 2u) * DUE_SLOTS;
    uint32_t last = d->now_s < UINT32_MAX - reach ? d->now_s + reach : UINT32_MAX;
    if (e->due_s < d->now_s)
        e->due_s = d->now_s;
    if (e->due_s > last)
        e->due_s = last;
    qlist_push(s, list_for(d, e->due_s), e);
    d->near_count += is_near(d, e->due_s);
}

void due_add(struct due *d, const struct store *s, struct qentry *e)
{
    file(d, s, e);
    d->count++;
}

void due_remove(struct due *d, const struct store *s, struct qentry *e)
{
    qlist_remove(s, list_for(d, e->due_s), e);
    d->near_count -= is_near(d, e->due_s);
    d->count--;
}

/* Moves the entries of a new block from its far list to the near slots. */
static void open_block(struct due *d, const struct store *s, uint32_t now_s)
{
    MUST(d->near_count == 0);
    d->now_s = now_s;
    struct qlist *far = &d->far[block_of(now_s) % DUE_SLOTS];
    struct qentry *e;
    while ((e = qlist_first(s, far)) != NULL) {
        qlist_remove(s, far, e);
        MUST(is_near(d, e->due_s));
        file(d, s, e);
    }
}

/* The clock has stepped back far: every entry is filed anew, with its own due time. */
static void rewind_to(struct due *d, const struct store *s, uint32_t now_s)
{
    struct qlist all = {0};
    for (uint32_t i = 0; i < 2 * DUE_SLOTS; i++) {
        struct qlist *from = i < DUE_SLOTS ? &d->near[i] : &d->far[i - DUE_SLOTS];
        struct qentry *e;
        while ((e = qlist_first(s, from)) != NULL) {
            qlist_remove(s, from, e);
            qlist_push(s, &all, e);
        }
    }
    d->now_s = now_s;
    d->near_count = 0;
    struct qentry *e;
    while ((e = qlist_first(s, &all)) != NULL) {
        qlist_remove(s, &all, e);
        file(d, s, e);
    }
}

/* One second on, or to the next block or to now when nothing is due before. */
static void step(struct due *d, const struct store *s, uint32_t now_s)
{
    uint32_t next = d->now_s + 1;
    if (d->count == 0)
        next = now_s;
    else if (d->near_count == 0 && block_of(d->now_s) < block_of(now_s))
        next = (block_of(d->now_s) + 1) * DUE_SLOTS;
    else if (d->near_count == 0)
        next = now_s;
    if (block_of(next) != block_of(d->now_s))
        open_block(d, s, next);
    else
        d->now_s = next;
}

uint32_t due_advance(struct due *d, const struct store *s, uint32_t now_s, uint32_t most)
{
    uint32_t fired = 0;
    if (now_s < d->now_s && d->now_s - now_s > STEP_BACK_S)
        rewind_to(d, s, now_s);
    if (now_s < d->now_s)
        return 0; /* what is filed under now_s of the wheel is not due yet by the clock */
    while (fired < most) {
        struct qentry *e = qlist_first(s, &d->near[d->now_s % DUE_SLOTS]);
        if (e != NULL) {
            due_remove(d, s, e);
            fired++;
            d->on_due(d->ctx, e);
        } else if (d->now_s < now_s) {
            step(d, s, now_s);
        } else {
            break;
        }
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
