/*
 * flow_state - what a lane knows of its sites, so that a new owner goes on where the old one was:
 * back-off, suspension, failures, complaints, tokens, by site.
 *
 * Written by the owner at the end of a copy, kept by the replica in the log (RECORD_STATE), applied
 * when the lane is taken over: at once to sites that are known, later to those that come to be.
 * Encoded as protobuf (proto/lane.proto, FlowStates): times are durations, as no clock is shared.
 */
#ifndef WORKER_FLOW_STATE_H
#define WORKER_FLOW_STATE_H

#include "worker/lane/queue.h"

/* What is worth telling of the lane's flows; malloc'd. 0 or -ENOMEM. */
NODISCARD int flow_state_export(struct queue *q, const struct lane *l, uint8_t **out, size_t *n);
/* The lane becomes ours: lane->state is applied to the flows that exist. */
void flow_state_apply(struct queue *q, struct lane *l);
/* A flow has just been made: takes its part of lane->state, if there is one. */
void flow_state_new(struct queue *q, struct flow *f);
void flow_state_free(struct lane *l);

#endif
