/*
 * carrier - the workers of this node on the bulk channels of all peers.
 *
 * Owner:  the link process. Each worker's end is a stream socket that the master made.
 * Input:  frames of workers (proto/carrier_frame.h), frames of peers (proto/link_bulk.h).
 * Never:  keeps anything over a loss; looks into payloads; lets one worker that does not read stop
 *         the others for ever.
 *
 * Waves. Whenever something may have been lost (the bulk channel is a new connection, a worker has
 * a new descriptor, a queue was thrown away) this side begins a new wave with the peer: it tells
 * the number to the peer's link, and to both nodes' workers that the peer is up (again). Parts
 * carry the number of the receiver's wave as the sender last heard it, and are dropped where it is
 * not the current one. Frames of workers carry the number of the last UP that they heard, likewise.
 * So what a worker gets after an UP was sent after the sender's own UP, and nothing of it is
 * missing.
 */
#ifndef LINK_CARRIER_H
#define LINK_CARRIER_H

#include "proto/carrier_frame.h"
#include "proto/link_bulk.h"

#include <poll.h>

enum {
    CARRIER_IN_BYTES = 2 << 20,      /* read and not yet sent, of a worker */
    CARRIER_HELD_BYTES = 8 << 20,    /* from here on nobody's frames are acknowledged */
    CARRIER_QUEUED_BYTES = 32 << 20, /* from here on a worker's queue is thrown away */
    CARRIER_STUCK_MS = 5000,         /* and when a queue that holds all up has not moved so long */
};

struct link;
struct peer;
struct channel;
struct carrier_chunk { /* frames that a worker's socket did not take yet */
    struct carrier_chunk *next;
    size_t from, to;
    size_t split; /* bytes of the first frame's rest; frames are whole from there on */
    uint8_t bytes[];
};
struct carrier_slot {
    int fd; /* -1: none */
    unsigned number;
    uint8_t *in; /* from..to: not yet sent */
    size_t from, to;
    struct peer *waits_for; /* the next frame needs room in its session */
    struct carrier_chunk *first, *last;
    size_t queued;
    uint64_t moved_ms; /* its socket last took something, or the queue was empty */
    int poll_at;       /* its entry, -1: none */
};
struct carrier_peer {
    uint32_t ours;   /* our wave; 0: none yet */
    uint32_t theirs; /* the peer's; 0: not begun, the peer is not up */
    uint32_t told;   /* UPs told to our workers */
    bool begin_due;  /* our wave has not been told to the peer */
};
struct carriers {
    struct carrier_slot slots[LIMIT_WORKERS];
    bool renew; /* something was lost here: all peers are to begin anew */
};

void carriers_init(struct link *l);
void carriers_fini(struct link *l);
/* The worker that holds the shards of this slot; takes the descriptor over. 0 or -errno. */
NODISCARD int carriers_attach(struct link *l, unsigned slot, int fd);

/* Entries to poll for, at most LIMIT_WORKERS; *timeout_ms is lowered to what is due. */
unsigned carriers_polls(struct link *l, struct pollfd *out, int *timeout_ms);
/* After poll: takes what workers have for peers, and gives them what waits. */
void carriers_run(struct link *l, const struct pollfd *polled);

/* A peer's bulk channel. */
void carriers_up(struct channel *c);
void carriers_down(struct channel *c);
/* 0, or -errno: the peer is wrong, or there is no memory. */
NODISCARD int carriers_deliver(struct channel *c, struct span payload);
/* Workers take what comes: the peer's frames may be acknowledged. */
bool carriers_take(const struct link *l);

#endif
