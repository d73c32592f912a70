/*
 * scan - one segment file read back; see the decision table in scan.c. Private to worker/spool.
 */
#ifndef WORKER_SPOOL_SCAN_H
#define WORKER_SPOOL_SCAN_H

#include "worker/spool/spool_impl.h"

enum { SCAN_WINDOW_BYTES = 4 << 20 };
static_assert((int)SCAN_WINDOW_BYTES >= 2 * (int)LIMIT_BATCH_BYTES,
              "a batch fits the window wherever it begins");

struct batch_head {
    uint64_t first;
    uint32_t bytes, records;
};

struct scan {
    struct spool *s;
    struct segment *seg;
    uint8_t *buf; /* [buf_at, buf_at + buf_n) of the segment */
    uint64_t buf_at, buf_n;
    uint32_t buf_room;    /* at most SCAN_WINDOW_BYTES; a whole segment when that is smaller */
    uint64_t at;          /* block where a batch should begin */
    uint64_t applied_end; /* of the last record that counts */
    uint64_t expected;    /* sequence; 0 = not known */
    uint64_t
        previous;   /* sequence with which the segment just before this one ends; 0 = not known */
    uint64_t limit; /* sequence with which a younger segment begins */
    bool limit_proves; /* nothing was recycled between the two */
    uint32_t batches, damaged;
};

/* The bytes of the segment from `at`, at most n; fewer at its end. Valid until the next call. */
struct span scan_window(struct scan *c, uint64_t at, uint64_t n);
/* A batch head in `block`, read from `seg`. With `shard` NULL it must be ours; else whose it is
 * comes back there. */
bool scan_batch_head(const struct spool *s, const struct segment *seg, struct span block,
                     struct batch_head *out, uint64_t *shard);
bool scan_batch_head_at(struct scan *c, uint64_t at, struct batch_head *out);
/* Recovers c->seg from its footer. 0; otherwise nothing was delivered and it is to be scanned. */
NODISCARD int scan_index(struct scan *c);
/* Recovers c->seg batch by batch, up to c->limit. */
void scan_log(struct scan *c);

/* The decision table, apart for its test. */
enum scan_head { HEAD_NONE, HEAD_OK };
enum scan_order { ORDER_BEYOND, ORDER_BEHIND, ORDER_NEXT, ORDER_AHEAD };
enum scan_body { BODY_BROKEN, BODY_WHOLE };
enum scan_proof { PROOF_NONE, PROOF_LATER };
enum scan_action { ACTION_NEXT, ACTION_SALVAGE, ACTION_SKIP, ACTION_END };
struct scan_verdict {
    enum scan_action action;
    bool report; /* something acknowledged is missing or unreadable */
};
struct scan_verdict scan_decide(enum scan_head head, enum scan_order order, enum scan_body body,
                                enum scan_proof proof);

#endif
