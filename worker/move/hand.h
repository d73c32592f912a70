/*
 * hand - mail that lies at the wrong node goes to the owner of its lane: strays, and attempts that
 * were open when the lane was given away and came back. Both sides of it.
 *
 * Owner:  the worker's room of moves. Message by message: HAND ->, <- TAKEN when it is durable at
 *         the owner; it ends here after that. Everything may be lost and is repeated; the owner
 *         knows by the id what it has, or has had (adopted.h).
 * Input:  frames of other workers, lanes with strays, changes of roles, time.
 * Never:  ends a message here that is not durable there; takes a message twice; takes one for a
 *         lane that is not owned here, or is frozen.
 */
#ifndef WORKER_HAND_H
#define WORKER_HAND_H

#include "proto/lane_frame.h"
#include "worker/carrier.h"
#include "worker/lane/adopted.h"
#include "worker/lane/role.h"

struct hand;

/* Whom a frame came from. */
struct lane_from {
    const char *node;
    uint32_t slot;
};

NODISCARD int hand_create(struct hand **out, struct queue *q, struct carrier *c);
/* No read may be under way any more, or the process ends. */
void hand_destroy(struct hand **h);

/* HAND, CHUNK with `hand`, TAKEN, NOT_OWNER and TAIL_DONE. */
void hand_on_frame(struct hand *h, const struct lane_from *from, const struct lane_frame *f);
/* What was under way with this node is lost. */
void hand_on_loss(struct hand *h, const char *node);

/* The lane has strays, or its owner has become known or another one. */
void hand_on_lane(struct hand *h, struct lane *l);
/* An attempt that was open at the freeze has ended here: the new owner hears of it. */
void hand_on_tail_done(struct hand *h, struct lane *l, struct msg_id id, uint16_t index);
/* Before a change of role: nothing of the lane is under way any more, until hand_resume. */
void hand_pause(struct hand *h, struct lane *l);
void hand_resume(struct hand *h, struct lane *l);

/* Nothing new begins; what can be given up at once is. */
void hand_drain(struct hand *h);

/* Once a turn. */
void hand_turn(struct hand *h);
/* Messages under way, in both directions, and reads that nobody waits for any more. */
unsigned hand_open_count(const struct hand *h);

#endif
