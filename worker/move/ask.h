/*
 * ask - what this node keeps because another one may still repeat it is asked for, until that one
 * has forgotten it: adopted ids, and entries whose attempt is open at the lane's last owner.
 *
 * Owner:  the worker's room of moves. About once a second ASK -> to each node concerned, <- GONE
 *         with the ids that it has nothing of any more; GONE without ids: it lives, and has all.
 * Never:  says GONE before that is durable here, or while something is not recovered; forgets an id
 *         because nobody answers.
 */
#ifndef WORKER_ASK_H
#define WORKER_ASK_H

#include "worker/move/hand.h"

/* In lane_item.digest of ASK and GONE: it is about this one recipient, whose attempt was open. */
enum { LANE_ITEM_TAIL = 1 };

struct ask;

NODISCARD int ask_create(struct ask **out, struct queue *q, struct carrier *c);
void ask_destroy(struct ask **a);
/* ASK and GONE. `recovered`: all shards of this worker are read. */
void ask_on_frame(struct ask *a, const struct lane_from *from, const struct lane_frame *f,
                  bool recovered);
/* This worker of that node has just shown that it holds the lane there. */
void ask_learn(struct ask *a, const struct lane_from *from, const struct ip *lane);
/* A node can be reached (again): asked soon. */
void ask_on_up(struct ask *a);
/* Once a turn. */
void ask_turn(struct ask *a);

#endif
