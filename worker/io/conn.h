/*
 * conn - one TCP connection on the ring, in or out.
 *
 * Owner:  the session that attached itself; the slot is reused only when no operation is in flight.
 * Input:  calls from the session; completions from io_turn.
 * Output: queued with conn_put / conn_put_ref and flushed once, at the end of the turn, in order:
 * one send in flight.
 * Never:  interprets bytes; calls back from inside a call of the session (every callback comes from
 *         io_turn).
 *
 * Two ways to receive. Command mode: multishot receive into shared 2 KB buffers, given as spans.
 * Body mode: single receives straight into memory of the session, which is also how back-pressure
 * is made (no receive posted, nothing read). A mode is switched by calling the other function, also
 * from inside on_data.
 */
#ifndef WORKER_IO_CONN_H
#define WORKER_IO_CONN_H

#include "base/net.h"
#include "base/span.h"
#include "proto/port_slice.h"
#include "worker/io/io.h"

struct conn;

struct conn_events {
    /* Outgoing only: 0 = connected, else -errno (-ETIMEDOUT, -ECONNREFUSED, -EADDRNOTAVAIL: the
       source address is not here, or has no port left for this destination, ...). After an error
       only on_closed follows. */
    void (*on_open)(void *owner, struct conn *c, int res);
    /* Command mode. The span is valid during the call only. */
    void (*on_data)(void *owner, struct conn *c, struct span data);
    /* Body mode: bytes received into the buffer, > 0. */
    void (*on_filled)(void *owner, struct conn *c, size_t bytes);
    /* All queued output has left to the kernel (once for each time the queue became empty); memory
     * given by conn_put_ref is free again. */
    void (*on_sent)(void *owner, struct conn *c);
    /* The peer closed (0) or the connection failed (-errno). The session still has to call
     * conn_close. */
    void (*on_eof)(void *owner, struct conn *c, int res);
    /* The last word: nothing is in flight any more, `c` is gone. Comes once, after conn_close or a
     * failed connect. */
    void (*on_closed)(void *owner);
};

/* Listening: `on_accept` must attach a session or close. One multishot accept; EMFILE and an empty
 * slot pool back off. */
struct listener {
    void (*on_accept)(struct listener *l, struct conn *c);
    int fd;
    uint32_t slot;            /* private */
    uint64_t paused_until_ns; /* private */
    struct io *io;            /* private */
};
NODISCARD int listener_start(struct io *io, struct listener *l, int fd);
/* Stops accepting; on_accept comes no more. The descriptor stays open (the master holds it too). */
void listener_stop(struct listener *l);

struct conn_target {
    struct ip to;
    uint16_t to_port;
    bool bind_source; /* bind to `from` before connecting */
    struct ip from;
    struct port_slice from_ports; /* the source port is one of these; low 0: the kernel chooses */
    uint16_t from_first;          /* of them, tried first: random */
    const char *device;  /* SO_BINDTODEVICE, or NULL */
    uint32_t timeout_ms; /* of the connect, 1..300000 */
};
/* Begins to connect. NULL when the slot pool or the descriptors are exhausted: retry later,
 * nobody's fault. */
struct conn *conn_connect(struct io *io, const struct conn_target *t, const struct conn_events *ev,
                          void *owner);

void conn_attach(struct conn *c, const struct conn_events *ev, void *owner);
/* Command mode from now on. */
void conn_recv(struct conn *c);
/* Body mode: one receive of 1..n bytes (exactly n, or less at EOF, when `exact`) into buf, which
   the session keeps until on_filled, on_eof or on_closed. One at a time. Bytes that multishot had
   already taken are copied into buf first, so on_data does not come between this call and its
   on_filled; what they have more than n comes after on_filled, in the way that the session chose
   there (conn_recv_into again, or on_data). */
void conn_recv_into(struct conn *c, void *buf, size_t n, bool exact);
/* No more receives until conn_recv / conn_recv_into; on_data may still come for what is already
   here, and so may the on_filled of a receive into memory of the session, which stays posted. Costs
   a cancel: for a wait of a few turns it is cheaper to keep what on_data brings. */
void conn_recv_pause(struct conn *c);

/* Room for n bytes of output (1..4096), to be written before the turn ends; NULL when output memory
   is short (64 KB a connection): close, or wait for on_sent. On a connection that is closing or
   broken the bytes go nowhere. */
NODISCARD uint8_t *conn_put(struct conn *c, size_t n);
/* Queues memory of the session; it must stay unchanged until on_sent or on_closed. At most 8 pieces
   may be queued; -ENOBUFS beyond. */
NODISCARD int conn_put_ref(struct conn *c, struct span s);
/* Bytes queued or in flight. */
size_t conn_out_bytes(const struct conn *c);

/* Sends what is queued, then shuts down, waits for every operation, closes; on_closed follows from
   io_turn. With `now` queued output is dropped. May be called twice. Of all callbacks only
   on_closed comes after this call; output queued later goes nowhere. Without `now` an accepted
   connection reads and drops what the peer still sends until its end (at most 2 s), so that no
   reset eats the last reply; flushing takes at most 30 s. */
void conn_close(struct conn *c, bool now);

void conn_peer(const struct conn *c, struct ip *ip, uint16_t *port);
void conn_local(const struct conn *c, struct ip *ip, uint16_t *port);
/* The listener that accepted it; NULL for outgoing ones. */
struct listener *conn_listener(const struct conn *c);

#endif
