/*
 * due - entries waiting for their next attempt: a two-level wheel of seconds over lists of entry
 * indices.
 *
 * Costs nothing per entry beyond the entry's own links. Wall-clock seconds, because due times
 * outlive the process. A clock that steps forward makes entries due; one that steps back makes them
 * wait until it has come there again: neither loses anything, and neither makes a storm.
 */
#ifndef WORKER_DUE_H
#define WORKER_DUE_H

#include "worker/lane/store.h"

enum { DUE_SLOTS = 4096 };
struct due {
    struct qlist near[DUE_SLOTS]; /* second s: slot s % DUE_SLOTS, when within DUE_SLOTS of now */
    struct qlist far[DUE_SLOTS];  /* block s / DUE_SLOTS: slot of that % DUE_SLOTS (194 days) */
    uint32_t now_s;
    uint32_t count, near_count;
    void (*on_due)(void *ctx, struct qentry *e);
    void *ctx;
};

/* on_due is called for each entry that has become due, in no list any more. */
void due_init(struct due *d, uint32_t now_s, void (*on_due)(void *ctx, struct qentry *e),
              void *ctx);
/* Files e under e->due_s; what is due already fires at the next advance. */
void due_add(struct due *d, const struct store *s, struct qentry *e);
void due_remove(struct due *d, const struct store *s, struct qentry *e);
/*
 * Calls on_due for up to `most` entries that are due at now_s. Returns how many; when it equals
 * `most` more may be waiting: call again next turn.
 */
uint32_t due_advance(struct due *d, const struct store *s, uint32_t now_s, uint32_t most);
/* Seconds until something may be due, at most `max`. */
uint32_t due_next_s(const struct due *d, uint32_t max);

#endif
