/*
 * replica - takes in the copies of lanes that other nodes own, so that this one can go on with
 * them.
 *
 * Owner:  the worker; one. Per lane that is LANE_REPLICA a stream from the worker that owns it
 *         (worker/move/source.h).
 * Input:  frames of the source. What they say goes into the log of the lane's shard here and is
 *         acknowledged when it is durable.
 * Frames are applied in their order; a gap, another beginning, a lane that is no replica here (yet)
 * or a log that takes nothing ends the stream with REFUSED: the source begins anew.
 * Never:  acknowledges what is not durable; says READY before everything before it is.
 */
#ifndef WORKER_REPLICA_H
#define WORKER_REPLICA_H

#include "proto/lane_frame.h"
#include "worker/carrier.h"
#include "worker/lane/queue.h"

struct replica;

struct replica_events {
    void *ctx;
    /* LANE_OP_READY: all of the lane in this move and epoch is durable here. */
    void (*on_ready)(void *ctx, const struct control_lane_order *o);
};
struct replica_settings {
    struct queue *queue;
    struct carrier *carrier;
    struct replica_events events;
};

NODISCARD int replica_create(struct replica **out, const struct replica_settings *s);
/* Nothing of ours may be under way: the shards are idle, or their disk is dead. */
void replica_destroy(struct replica **r);

/* From the carrier: BEGIN, CHANGE, DROP, END, and CHUNK and ENQ that are not handed over. */
void replica_frame(struct replica *r, const char *node, uint32_t slot,
                   const struct lane_frame *f);
/* The node's link began anew, or went down: its streams are over. */
void replica_up(struct replica *r, const char *node);
void replica_down(struct replica *r, const char *node);

/* Once a turn, after frames came and before shard_turn. */
void replica_turn(struct replica *r);
/* There is work that waits for nobody: do not sleep. */
bool replica_busy(const struct replica *r);

#endif
