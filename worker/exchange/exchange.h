/*
 * exchange - messages between the workers of a node: shared-memory rings, one eventfd a process.
 *
 * Owner:  the worker. Peers come and go by frames of the master. A peer that holds shards has a
 *         slot; others only send to us.
 * Input:  frames of peers (drained once a turn), the eventfd when we slept.
 * Never:  blocks, or wakes a peer that is awake.
 */
#ifndef WORKER_EXCHANGE_H
#define WORKER_EXCHANGE_H

#include "base/span.h"
#include "worker/io/io.h"

struct exchange;
struct peer;

enum exchange_kind { EXCHANGE_ENQ = 1, EXCHANGE_CHUNK, EXCHANGE_DROP, EXCHANGE_ACK };

struct exchange_frame {
    uint8_t kind;      /* enum exchange_kind */
    uint64_t token;    /* the sender's; an ACK carries it back */
    uint32_t lane;     /* stable number */
    int32_t res;       /* ACK: 0 or -errno */
    uint16_t rcpt_count;
    uint16_t ordinal;  /* CHUNK */
    uint32_t meta_bytes;
    struct span meta;  /* ENQ: envelope; CHUNK: message id */
    struct span rest;
};

struct exchange_events {
    void *ctx;
    void (*on_frame)(void *ctx, struct peer *p, const struct exchange_frame *f);
    /* The peer is gone: answers to what was sent to it will not come. */
    void (*on_down)(void *ctx, struct peer *p);
    /* A holder of a slot appeared. */
    void (*on_up)(void *ctx, struct peer *p);
};

NODISCARD int exchange_create(struct exchange **out, struct io *io,
                              const struct exchange_events *ev);
/* The context of the callbacks, when it is made after the exchange. */
void exchange_set_context(struct exchange *x, void *ctx);
void exchange_destroy(struct exchange **x);
/* fds: ring to the peer, ring from the peer, eventfd of the peer, our eventfd; closed here. slot:
   CONTROL_NO_SLOT when it holds none. */
NODISCARD int exchange_peer_up(struct exchange *x, uint64_t incarnation, uint32_t slot,
                               const int fds[4]);
void exchange_peer_down(struct exchange *x, uint64_t incarnation);
/* The peer that holds the shards of this slot, or NULL. */
struct peer *exchange_holder(struct exchange *x, uint32_t slot);
/* -ENOBUFS: its ring is full now. */
NODISCARD int exchange_send(struct peer *p, const struct exchange_frame *f);
/* Drains a bounded number of frames from each peer. True: more is waiting. */
bool exchange_drain(struct exchange *x);
/* End of a turn: wakes the peers that sleep and have something. */
void exchange_flush(struct exchange *x);
/* Before an orderly end: peers hear of it at once, also when no master is left to tell them. */
void exchange_leave(struct exchange *x);
/* Before waiting: true when all rings are empty and producers will wake us. */
bool exchange_sleep(struct exchange *x);
void exchange_awake(struct exchange *x);

#endif
