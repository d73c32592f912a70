/*
 * conn_private - the connection slot, shared by conn.c (life), conn_recv.c, conn_out.c and
 * listener.c.
 *
 * `want` and the output queue say what the session asked for; `ops` says what the kernel is doing.
 * Between the two stands the sync phase of a turn, which posts and cancels until they agree.
 */
#ifndef WORKER_IO_CONN_PRIVATE_H
#define WORKER_IO_CONN_PRIVATE_H

#include "worker/io/io_private.h"

#include <assert.h>
#include <string.h>

enum {
    CONN_FLUSH_MS_MAX = 30000, /* conn_close waits so long for a slow reader */
    CONN_LINGER_MS_MAX =
        2000, /* and so long for the peer's own end, so that no reset eats our last reply */
    CONN_NUDGE_MS = 1000, /* a cancel that found nothing is repeated */
    CONN_SEND_BYTES_MAX = 1 << 30,
    CONN_LOOK_MS = 1000, /* so often, at so many connections, it is looked for missed ends */
    CONN_LOOK_COUNT = 512,
};

enum conn_state {
    CONN_CONNECTING,
    CONN_OPEN,
    CONN_FLUSHING,  /* conn_close was called: output first */
    CONN_LINGERING, /* our end is sent; what the peer still sends is dropped until its end */
    CONN_ENDING,    /* waits for the operations in flight, then closes */
    CONN_STATES
};

enum conn_want { CONN_WANT_NOTHING, CONN_WANT_COMMANDS, CONN_WANT_BODY };

/* Operations in flight, as bits. */
enum { CONN_OP_CONNECT = 1, CONN_OP_MULTI = 2, CONN_OP_ONE = 4, CONN_OP_SEND = 8 };

struct out_queue; /* conn_out.c */

/* Source ports of a slice that are still to be tried while it connects. */
struct conn_ports {
    struct port_slice slice;
    uint16_t next;
    uint16_t left; /* tries; 0: none, or the kernel chooses */
};

struct conn {
    struct io *io;
    const struct conn_events *events;
    void *owner;
    struct listener *listener;
    struct out_queue *out; /* NULL while nothing is queued */
    uint8_t *body;         /* where the next byte goes */
    size_t body_left;
    size_t body_got;
    struct timer timer; /* connect, flush, linger, nudge: by state */
    uint32_t generation;
    uint32_t dirty_next;
    int fd;
    int err;           /* why it is broken; 0 = it is not */
    uint8_t state;     /* enum conn_state */
    uint8_t want;      /* enum conn_want */
    uint8_t ops;       /* in flight */
    uint8_t cancelled; /* those of them that were cancelled */
    bool dirty;
    bool body_exact;
    bool seen_data; /* a receive was posted before: no use in polling first */
    bool eof;       /* nothing more can be received */
    bool eof_told;
    bool timed_out;
    bool peer_known;
    uint16_t peer_port;
    struct conn_ports ports;
    struct ip peer;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } target; /* of the connect, which reads it after the call */
    socklen_t target_bytes;
};

static_assert(sizeof(struct conn) <= 320, "an idle connection is small");

/* The connection that a completion is about; the bit is no longer in flight unless more follows. */
struct conn *conn_of_event(struct io *io, const struct ring_event *e, uint8_t op);
void conn_mark_dirty(struct conn *c);
/* Output failed: nothing more can be sent, and what is being received comes to its end. */
void conn_lose(struct conn *c, int err);
static inline uint64_t conn_tag(const struct conn *c, enum ring_kind kind)
{
    return ring_tag(kind, c->generation, pool_index(&c->io->conns, c));
}
/* A submission entry for this connection; NULL: not now. */
static inline struct io_uring_sqe *conn_sqe(const struct conn *c, enum ring_kind kind)
{
    return ring_sqe(&c->io->ring, conn_tag(c, kind));
}
/* Takes a slot for an accepted or connecting socket; NULL when there is none. The descriptor is
 * owned from then on. */
struct conn *conn_new(struct io *io, int fd);
/* A new connection of a listener: hands it to on_accept. False when there is no slot (the socket is
 * closed). */
bool conn_accepted(struct io *io, struct listener *l, int fd);

/* conn_source.c */
/* Options, source address and port of the new socket c->fd. 0 or -errno; c keeps the descriptor. */
NODISCARD int conn_source_set(struct conn *c, const struct conn_target *t);
/* The port is taken for this destination: another socket with another one. False: none is left. No
   operation may be in flight. */
bool conn_source_next(struct conn *c);

/* conn_recv.c; both return false when the kernel takes no entry just now. */
bool conn_sync_recv(struct conn *c);
bool conn_cancel(struct conn *c, enum ring_kind kind, uint8_t op);

/* conn_out.c */
NODISCARD int conn_out_init(struct io *io);
void conn_out_fini(struct io *io);
bool conn_sync_send(struct conn *c);
/* Drops everything queued; no send may be in flight. */
void conn_out_drop(struct conn *c);

#endif
