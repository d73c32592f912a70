/*
 * move - the moves of lanes between this node and others: what the rest of the master sees of them.
 *
 * Owner:  the master's loop; one thread.
 * Input:  operators' orders, frames of other masters, answers of workers and netd, time.
 * Output: orders to workers, frames to masters, requests to netd, changes of the lane table.
 * Never:  starts a lane without netd's word that the address is here, or takes one without the
 *         owner's COMMITTED.
 *
 * Everything is repeated until it is answered, so a call that could not be served is lost without
 * harm. Before moves_open and after moves_close all calls do nothing.
 */
#ifndef MASTER_MOVE_MOVE_H
#define MASTER_MOVE_MOVE_H

#include "base/net.h"
#include "base/span.h"
#include "proto/control.h"

struct lane_record;
struct master;
struct proc;

/* What is left on the wire of a lane that changed its owner. */
struct move_tail {
    bool giver;                      /* its open connections are ours; else: forward them to peer */
    uint32_t epoch;                  /* of the connections: their source ports are its slice */
    char peer[LIMIT_NAME_BYTES + 1]; /* giver: the owner; else: who has the connections */
};

/* Reads the moves that are not over from state.db; the lane table must be there. 0 or -errno. */
NODISCARD int moves_open(struct master *m);
void moves_close(struct master *m);

/* Once a turn, after all input of the turn: what is due, what was gathered, in one transaction and
   in few frames. */
void moves_turn(struct master *m);
/* When moves_turn wants to be called at the latest (monotonic ms), 0: no matter when. */
uint64_t moves_deadline(const struct master *m);

/* A LANE frame of a worker (SET_DONE, PROGRESS, READY, TAIL, COPY_FAILED). */
void move_on_lane(struct master *m, struct proc *p, const struct control_lane_order *o);
/* A MOVE frame of another node's master: opaque bytes of the cluster's channel. */
void move_on_frame(struct master *m, const char *node, struct span bytes);
/* The node's master can be reached, or not any more. */
void moves_on_peer(struct master *m, const char *node, bool up);
/* A worker holds its shards now (RECOVERED): what was ordered from its predecessor is repeated. */
void moves_on_worker(struct master *m, struct proc *p);

/* Is there a tail of this lane (our number)? Asked for netd's START and when an address is acquired
   again: such a lane keeps its forwarding, or its address on lo. */
bool moves_tail_of(const struct master *m, uint32_t lane, struct move_tail *out);
/* Does a move bring this lane of ours here, or back? Then the move asks for its address, and lets
   it run when both worker and netd have said so: nobody else does. */
bool moves_bring(const struct master *m, const struct lane_record *r);

/*
 * One of the verbs below as this node alone can answer it: what another node's master asks. A new
 * object and its HTTP-like status; NULL when there is no memory. `forward`, unless NULL, gets the
 * node that must be asked instead (then the status is 421), or "".
 */
struct json_t; /* jansson */
struct json_t *moves_answer(struct master *m, const struct control_frame *f, int *status,
                            char forward[LIMIT_NAME_BYTES + 1]);
/* The same for `who`, another node's master: an order stands in the audit log afterwards. */
struct json_t *moves_asked(struct master *m, const char *who, const struct control_frame *f,
                           int *status);
/* Is it one of these verbs? */
bool moves_has_verb(const char *verb);
/* The verbs "move", "move_abort", "moves", "node_drain", "node_undrain": answers the api, now or
   when the owner's master has answered. */
void moves_verb(struct master *m, const struct control_frame *f);

#endif
