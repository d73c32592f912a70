/*
 * adopted - messages that other nodes handed over and may hand over again: their ids are kept, also
 * after the message has ended, until the node they came from has said that it forgot them.
 *
 * Owner:  the queue. Recovered from the ENQ records (handed_by) and from RECORD_ADOPTED, which the
 *         snapshot at the start of each segment repeats.
 * Never:  forgets an id that its origin might send again: that would be a second delivery.
 */
#ifndef WORKER_ADOPTED_H
#define WORKER_ADOPTED_H

#include "worker/lane/queue.h"

struct shard;
struct record_view;

struct adopted_item {
    struct msg_id id;
    uint32_t lane; /* number */
    char origin[LIMIT_NAME_BYTES + 1];
};
/* 0 or -ENOMEM. What is there already, of the same origin, stays as it is. In memory only: its
   record is an ENQ (handed_by), or adopted_keep. */
NODISCARD int adopted_add(struct queue *q, const struct adopted_item *item);
/* Makes room: adopting it will not fail now. 0 or -ENOMEM. */
NODISCARD int adopted_room(struct queue *q, const struct adopted_item *item);
/* adopted_add, and appends RECORD_ADOPTED for it: 0, -ENOMEM or what the spool says. */
NODISCARD int adopted_keep(struct shard *s, const struct adopted_item *item);
/* Of any origin. */
bool adopted_has(const struct queue *q, struct msg_id id);
bool adopted_from(const struct queue *q, struct msg_id id, const char *origin);
void adopted_remove(struct queue *q, struct msg_id id, const char *origin);
/* Walks all of them; *at begins as 0. False: the end. Adding and removing between steps is fine. */
bool adopted_next(const struct queue *q, uint32_t *at, struct adopted_item *out);
uint32_t adopted_count(const struct queue *q);
/* Writes RECORD_ADOPTED for the items of the shard's lanes: 0 or what the spool says. */
NODISCARD int adopted_snapshot(struct shard *s);
/* Recovery: reads such a record. */
void adopted_apply(struct shard *s, const struct record_view *v);
void adopted_free(struct queue *q);

#endif
