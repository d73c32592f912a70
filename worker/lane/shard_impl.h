/* shard_impl - shared by shard*.c only. */
#ifndef WORKER_SHARD_IMPL_H
#define WORKER_SHARD_IMPL_H

#include "worker/lane/shard.h"

enum { ENQ_HEAD_TAKEN_OVER = 1 /* record flag: came from another shard or node */ };

void shard_owner(struct shard *s, struct spool_owner *out);
/* After recovery: places every entry, decides what is in doubt, logs what was found. */
void shard_start_lanes(struct shard *s);
/* The durable message of x into the store, counted and placed. NULL: placing it has ended it. */
struct qmsg *msg_insert(struct shard *s, struct enqueue *x);
void msg_live(struct queue *q, const struct qmsg *m, int sign);
/* Keeps a malloc'd list of places; 0: no memory. */
uint32_t chunks_keep(struct queue *q, struct record_place *places, uint16_t count);
/* Frees the index and returns the places. */
struct record_place *chunks_take(struct queue *q, uint32_t i);
void ledger_count(struct ledger *l, enum fate fate, uint64_t n);
/* Compaction: shard_copy.c */
bool shard_copy(void *ctx, struct msg_id id, uint64_t segment);
void shard_copies_free(struct shard *s);
/* Index of a lane by number, made as `gone` when the configuration lost it. */
struct lane *shard_lane(struct shard *s, uint32_t number);

#endif
