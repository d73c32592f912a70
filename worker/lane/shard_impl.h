/* shard_impl - shared by shard*.c only. */
#ifndef WORKER_SHARD_IMPL_H
#define WORKER_SHARD_IMPL_H

#include "worker/lane/shard.h"

/* Flags in the head of a record. */
enum {
    ENQ_HEAD_TAKEN_OVER = 1, /* ENQ: came from another shard or node */
    ENQ_HEAD_REPLICA = 2,    /* ENQ: a copy of what another node owns; not counted */
    DEFER_HEAD_TAKEN = 1     /* DEFER: these recipients are ours from now on: counted */
};

/* A dot was sent and no fate is in the log: the tenant's policy decides. The entry is ENTRY_NEW. */
void shard_settle_doubt(struct queue *q, struct qentry *e);
void shard_owner(struct shard *s, struct spool_owner *out);
/* After recovery: places every entry, decides what is in doubt, logs what was found. */
void shard_start_lanes(struct shard *s);
/* The durable message of x into the store, counted and placed. NULL: placing it has ended it. */
struct qmsg *msg_insert(struct shard *s, struct enqueue *x);
/* The copied message of x, appended, into the store. */
void msg_insert_copy(struct shard *s, struct enqueue *x);
/* Takes the message out again; nothing is recorded. */
void msg_unmake(struct queue *q, struct qmsg *m);
void msg_live(struct queue *q, const struct qmsg *m, int sign);
/* Keeps a malloc'd list of places; 0: no memory. */
uint32_t chunks_keep(struct queue *q, struct record_place *places, uint16_t count);
/* Frees the index and returns the places. */
struct record_place *chunks_take(struct queue *q, uint32_t i);
void ledger_count(struct ledger *l, enum fate fate, uint64_t n);
/* Recovery of roles: role_log.c. A mark, a list of tails, the flows of another owner. */
void role_apply(struct shard *s, const struct record_view *v);
/* The message that an ENQ in the log has made: what its entries must know until recovery ends. */
void role_apply_enq(struct queue *q, const struct qmsg *m, const struct enq *e,
                    const struct record_head *h);
/* After recovery: what the log says of the lane is in force. */
void role_recovered(struct shard *s, struct lane *l);
/* After recovery: what has become of the entry. True: it is to be settled and placed as any. */
bool role_settle(struct queue *q, struct qentry *e);
/* After all entries: lanes of which the master says more than the log go there. */
void role_catch_up(struct shard *s);
/* Marks of the shard's lanes, flows of other owners, adopted ids. */
void role_snapshot(struct shard *s);
/* Epoch and head flags of a message's records as it stands now. False: it is to be let go, and no
   copy of it may be written. */
bool role_copy_head(const struct queue *q, const struct qmsg *m, uint32_t *epoch, uint8_t *flags);
/* Compaction: shard_copy.c */
bool shard_copy(void *ctx, struct msg_id id, uint64_t segment);
void shard_copies_free(struct shard *s);
/* Index of a lane by number, made as `gone` when the configuration lost it. */
struct lane *shard_lane(struct shard *s, uint32_t number);

#endif
