/*
 * flow - one lane at one site: its fair queues, limits, back-off and suspension.
 */
#ifndef WORKER_FLOW_H
#define WORKER_FLOW_H

#include "worker/lane/queue.h"

/* Entries enter and leave the fair queue of their tenant and class. */
NODISCARD int flow_push(struct queue *q, struct flow *f, struct qentry *e, bool front);
void flow_remove(struct queue *q, struct flow *f, struct qentry *e);
/* As flow_remove, for an attempt: charges the tenant's share. */
void flow_take(struct queue *q, struct flow *f, struct qentry *e);
/* The entry that is next by class share and deficit round robin, still in its list; NULL: none that
 * may go. */
struct qentry *flow_next(struct queue *q, struct flow *f);

/* Asks for flow_run at the end of the turn. */
void flow_mark(struct queue *q, struct flow *f);
/* Runs every marked flow once. */
void flow_run_marked(struct queue *q);

enum flow_permit { FLOW_GO, FLOW_WAIT };
/* May a message / a connection start now? FLOW_WAIT sets f->why and a timer that marks the flow
 * again. */
enum flow_permit flow_may_send(struct queue *q, struct flow *f);
enum flow_permit flow_may_connect(struct queue *q, struct flow *f);
/* A message / connection started: takes its token. */
void flow_took_message(struct queue *q, struct flow *f);
void flow_took_connect(struct queue *q, struct flow *f);

/*
 * No host took a connection, or a new one ended before its first message: no new connection for a
 * while, twice as long each time, with jitter. Connections that work go on. True: it is a new
 * failure; false: one of a wave that has been counted already.
 */
bool flow_failed(struct queue *q, struct flow *f, enum reason why, struct span reply);
/*
 * What a reply says about this lane at this site (scope PAIR or SITE): no attempts at all for a
 * while; a refusal for good or one that says it will last means the longest pause. Other scopes
 * change nothing.
 */
void flow_judge(struct queue *q, struct flow *f, const struct classification *c, struct span reply);
/*
 * A transaction begun at started_ms was answered on a connection begun at opened_ms: forgives
 * failures and complaints that are older.
 */
void flow_succeeded(struct queue *q, struct flow *f, uint64_t opened_ms, uint64_t started_ms);
/* Is there an entry that is not of a held tenant? */
bool flow_has_work(const struct queue *q, const struct flow *f);
/* Frees the flow when it holds nothing and is not needed for a limit or a back-off any more. */
void flow_release(struct queue *q, struct flow *f);
uint32_t flow_index(const struct queue *q, const struct flow *f);
bool flow_is_held(const struct queue *q, const struct flow *f);

#endif
