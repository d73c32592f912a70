/*
 * source - copies lanes of this node to their replicas on other nodes, for as long as the master
 * wants it.
 *
 * Owner:  the worker; one. Per lane a stream of frames (proto/lane_frame.h) to the worker that
 *         holds the lane there.
 * Input:  orders of the master (COPY, COPY_STOP), frames of the replica, what the queue tells of
 *         its lanes (copy_hooks), the log.
 * A disruption of any kind begins the stream anew: the replica says what it has, the rest is sent.
 * Never:  changes an entry; takes more than a slice of a turn; lets more than SOURCE_WINDOW_BYTES
 *         be under way to a peer.
 */
#ifndef WORKER_SOURCE_H
#define WORKER_SOURCE_H

#include "proto/lane_frame.h"
#include "worker/carrier.h"
#include "worker/lane/queue.h"

struct source;

enum { SOURCE_WINDOW_BYTES = 8 << 20 };

/* Calls back from source_turn and from reads; orders are not to be given from within. */
struct source_events {
    void *ctx;
    /* PROGRESS of a lane, about every 100 ms and when it was asked for. */
    void (*on_progress)(void *ctx, const struct control_lane_order *o);
    /* COPY_FAILED: `why` says what to do. The stream rests until it is ordered again. */
    void (*on_failed)(void *ctx, const struct control_lane_order *o);
};
struct source_settings {
    struct queue *queue;
    struct carrier *carrier;
    struct source_events events;
};

/* Takes the queue's copy_hooks. 0 or -ENOMEM. */
NODISCARD int source_create(struct source **out, const struct source_settings *s);
/* When the shards are idle. With reads under way, at the end of a process, their memory stays. */
void source_destroy(struct source **s);

/* COPY: begins, or goes on with another rate or to another place. 0; -ENOENT: no such lane here;
   -EINVAL: it is not ours in this epoch; -ENOMEM. */
NODISCARD int source_copy(struct source *s, const struct control_lane_order *o);
/* COPY_STOP; also when nothing is copied. */
void source_stop(struct source *s, uint32_t lane);
/* PROGRESS of the lane at once, if it is copied. True: it was. */
bool source_report(struct source *s, uint32_t lane);

/* From the carrier: INVENTORY, ACK and REFUSED are ours. */
void source_frame(struct source *s, const char *node, uint32_t slot, const struct lane_frame *f);
void source_up(struct source *s, const char *node);
void source_down(struct source *s, const char *node);

/* Once a turn, before carrier_flush. */
void source_turn(struct source *s);
/* There is work that waits for nobody: do not sleep. */
bool source_busy(const struct source *s);
/* Milliseconds until source_turn has something to do by the clock, at most max. */
uint64_t source_next_ms(const struct source *s, uint64_t max);

#endif
