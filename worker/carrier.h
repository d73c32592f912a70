/*
 * carrier - bytes to and from the workers of other nodes, through the link process.
 *
 * Owner:  the worker; one. Underneath: a stream socket that the master made between this process
 *         and mochila-link; frames of a head (proto/carrier_frame.h) and a payload.
 * Input:  what the link brings, what the socket takes.
 * A channel to a peer is in order and loses nothing while it is up. When it goes down everything
 * under way is lost at once, and both ends hear it: whoever streams begins anew after on_up.
 * Never:  blocks; keeps anything over a loss; interprets payloads.
 */
#ifndef WORKER_CARRIER_H
#define WORKER_CARRIER_H

#include "base/span.h"
#include "proto/limits.h"
#include "worker/io/io.h"

struct carrier;

struct carrier_events {
    /* A payload of the worker that holds `slot` at `node`; valid during the call. */
    void (*on_frame)(void *ctx, const char *node, uint32_t slot, struct span payload);
    /* From now on frames can go to and come from this node; again without on_down between when the
       peer's link began anew: what was under way is lost then too. */
    void (*on_up)(void *ctx, const char *node);
    void (*on_down)(void *ctx, const char *node);
    /* There is room again after carrier_send said -EAGAIN. */
    void (*on_room)(void *ctx);
};

NODISCARD int carrier_create(struct carrier **out, struct io *io, const struct carrier_events *ev,
                             void *ctx);
void carrier_destroy(struct carrier **c);
/* A new descriptor from the master; taken over. An earlier one is closed, every peer goes down
   first. */
void carrier_attach(struct carrier *c, int fd);
/*
 * Queues a payload of 1..LIMIT_CARRIER_PAYLOAD_BYTES for the worker of that slot. 0; -EAGAIN:
 * enough waits already (CARRIER_WAITING_BYTES), on_room follows; -ENOTCONN: that node is not
 * reached; -E2BIG. The slot's holder may be away: the payload is lost then, and on_up or the peer's
 * own frames say when it is back.
 */
NODISCARD int carrier_send(struct carrier *c, const char *node, uint32_t slot,
                           struct span payload);
/* The same in pieces, without copying them together first. */
NODISCARD int carrier_send_parts(struct carrier *c, const char *node, uint32_t slot,
                                 const struct span *parts, unsigned count);
bool carrier_is_up(const struct carrier *c, const char *node);
/* Once a turn, at its end: writes what was queued. */
void carrier_flush(struct carrier *c);

enum { CARRIER_WAITING_BYTES = 4 << 20 };

#endif
