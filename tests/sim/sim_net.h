/*
 * sim_net - inside the simulated network: what sim_io.c (io.h, the clock, the test's side),
 * sim_conn.c (conn.h) and sim_turn.c (what a turn does to a connection) share. Tests include
 * sim_conn.h only.
 */
#ifndef TESTS_SIM_NET_H
#define TESTS_SIM_NET_H

#include "base/rng.h"
#include "tests/sim/sim_conn.h"

enum {
    SPAN_BYTES = 2048,
    PUT_BYTES_MAX = 65536,
    REFS_MAX = 8,
    FLUSH_MS = 30000,
    LINGER_MS = 2000,
    TURNS_MAX = 100000,
};

enum sim_state { CONNECTING, OPEN, FLUSHING, LINGERING, CLOSED };
enum sim_want { WANT_NOTHING, WANT_COMMANDS, WANT_BODY };
enum verdict { UNDECIDED, ACCEPTED, REFUSED };

struct bytes {
    uint8_t *p;
    size_t n;
};

struct sim_peer {
    struct io *io;
    struct conn *c; /* NULL: closed */
    struct sim_peer *next;
    struct listener *listener;
    struct conn_target target;
    char device[32];
    enum verdict verdict;
    int refusal;
    bool shown; /* by sim_next_connect */
    struct ip ip;
    uint16_t port;
    struct bytes in;  /* towards the session */
    struct bytes out; /* from it */
    size_t window;
    bool in_eof, reset, ended;
};

struct piece {
    struct piece *next;
    bool is_ref;
    const uint8_t *ref;
    size_t n;
    size_t sent;
    uint8_t own[];
};

struct conn {
    struct io *io;
    struct conn *next;
    struct sim_peer *peer;
    const struct conn_events *events;
    void *owner;
    struct listener *listener;
    enum sim_state state;
    enum sim_want want;
    uint64_t deadline_ns; /* of connect, flush, linger; 0 = none */
    struct piece *out;
    size_t in_flight; /* bytes of a posted send */
    uint8_t *body;
    size_t body_left, body_got;
    bool body_exact;
    bool eof_told;
    bool broken;
    int open_err;
    struct ip local;
};

struct io {
    struct rng rng;
    bool calm, no_slots, no_memory, busy;
    uint64_t now_ns, now_unix_ms;
    struct conn *conns;
    struct sim_peer *peers;
    struct listener *listeners[64];
    struct io_watch *watches[256];
    unsigned ready[256];
    void (*script)(void *ctx, struct sim_peer *p);
    void *script_ctx;
    uint8_t scratch[4096];
    struct io_counts counts;
};

void sim_add_bytes(struct bytes *b, const void *p, size_t n);
void sim_drop_bytes(struct bytes *b, size_t n);
/* How much of n happens now: at least 1. */
size_t sim_some(struct io *io, size_t n);
/* One in n, never when calm. */
bool sim_chance(struct io *io, uint64_t one_in);
struct conn *sim_add_conn(struct io *io, struct sim_peer *p);
struct sim_peer *sim_add_peer(struct io *io);
void sim_drop_output(struct conn *c);
void sim_remove_conn(struct conn *c);
/* Moves a connection a little, by state. May end it. */
void sim_turn(struct conn *c);

#endif
