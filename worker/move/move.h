/*
 * move - the worker's room of moves between nodes: carries out what the master orders for a lane,
 * and gives frames of other nodes' workers to whom they concern.
 *
 * Owner:  the worker; one, and none on a node without a cluster. Holds the carrier, the copies from
 *         and to here (source, replica), hand-overs (hand), and what is asked for (ask).
 * Input:  LANE and CARRIER frames of the master, payloads of the carrier, events of the roles.
 * Never:  decides who owns a lane; keeps an order over a restart: the master repeats it.
 */
#ifndef WORKER_MOVE_H
#define WORKER_MOVE_H

#include "proto/control.h"
#include "worker/lane/queue.h"

struct move;

struct move_settings {
    struct queue *queue;
    uint32_t slot; /* of this worker */
    /* Sends a LANE frame to the master. */
    void (*tell)(void *ctx, const struct control_lane_order *o);
    void *ctx;
};
/* 0 or -errno. Takes the queue's role events and copy hooks. */
NODISCARD int move_create(struct move **out, const struct move_settings *s);
/* Before the shards are closed, with move_open_count 0 or the process about to end. */
void move_destroy(struct move **m);

/* The worker's end of a stream socket to the link; taken over. */
void move_attach(struct move *m, int fd);
void move_order(struct move *m, const struct control_lane_order *o);
/* All shards of this worker are read: from now on other nodes are told what is not here. */
void move_recovered(struct move *m);
/* Nothing new begins; what is under way ends soon, or is cut. */
void move_drain(struct move *m);
/* What must end before the shards are closed. */
unsigned move_open_count(const struct move *m);

/* Once a turn, behind the queue and before the shards. */
void move_turn(struct move *m);
/* Milliseconds until move_turn has something to do, at most max. */
uint64_t move_next_ms(const struct move *m, uint64_t max);

#endif
