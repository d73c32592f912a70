/*
 * sim_conn - conn.h, io.h and a clock without a kernel: the test is the network.
 *
 * A program links tests/sim/sim_conn.o in place of worker/io/{io,conn*,listener,watch,ring}.o.
 * io_create and io_enable work as usual; io_turn never sleeps, does one step of every connection in
 * an order drawn from the seed, and is the only place from which callbacks come. Bytes are split
 * and joined at random, sends complete late and in parts, so what a session must not rely on does
 * not happen twice.
 *
 * The other end of each connection is a sim_peer, owned by the test until sim_peer_free.
 *
 *     struct io *io; io_create(&io, &settings); io_enable(io); sim_seed(io, seed);
 *     struct sim_peer *p = sim_client(io, &listener, "192.0.2.9", 4711);
 *     sim_push(p, span_str("EHLO x\r\n")); sim_run(io); ... sim_output(p) ...; sim_eof(p);
 * sim_run(io); sim_clock_advance(io, 300000); wheel_advance(&wheel, io_now_ns(io) / 1000000);
 */
#ifndef TESTS_SIM_CONN_H
#define TESTS_SIM_CONN_H

#include "base/span.h"
#include "worker/io/conn.h"
#include "worker/io/wheel.h"

struct sim_peer;

/* Order, splits and delays from now on. Without it they are those of seed 1. */
void sim_seed(struct io *io, uint64_t seed);
/* Bytes come as they were pushed (up to 2 KB at once) and sends complete whole, in the next turn.
 */
void sim_calm(struct io *io, bool calm);
/* Both clocks; they stand still otherwise. The monotonic one begins at 1,000 s. */
void sim_clock_advance(struct io *io, uint64_t ms);
void sim_clock_set_unix_ms(struct io *io, uint64_t ms);
/* Turns until a turn has nothing left to do (at most 100,000). Returns the number of turns. */
int sim_run(struct io *io);
/* Time passes by `ms` in steps of what the wheel and the connections wait for, with turns between.
 */
void sim_run_for(struct io *io, struct wheel *wheel, uint64_t ms);

/* A client connects; on_accept comes from the next turn. */
struct sim_peer *sim_client(struct io *io, struct listener *l, const char *ip, uint16_t port);
/*
 * The next connect that nobody has decided yet, NULL when there is none; it hangs until sim_accept
 * or sim_refuse, or its time is up. With a script, that decides at once instead: called from the
 * turn for each connect.
 */
struct sim_peer *sim_next_connect(struct io *io);
void sim_on_connect(struct io *io, void (*script)(void *ctx, struct sim_peer *p), void *ctx);
const struct conn_target *sim_target(const struct sim_peer *p);
void sim_accept(struct sim_peer *p);
void sim_refuse(struct sim_peer *p, int err);

/* Towards the session. */
void sim_push(struct sim_peer *p, struct span bytes);
void sim_push_text(struct sim_peer *p, const char *text);
void sim_eof(struct sim_peer *p);
/* What was pushed before is still received; output is refused from now on. */
void sim_reset(struct sim_peer *p);
/* From the session: all that arrived and was not taken yet. */
struct span sim_output(const struct sim_peer *p);
void sim_take(struct sim_peer *p, size_t bytes);
/* Only so many more bytes are accepted (a slow reader); SIZE_MAX: no limit, as at first. */
void sim_window(struct sim_peer *p, size_t bytes);
/* The session's end has arrived, after all its output. */
bool sim_peer_ended(const struct sim_peer *p);
/* Nothing is left on our side. */
bool sim_peer_closed(const struct sim_peer *p);
/* The peer must be closed, or the io gone. */
void sim_peer_free(struct sim_peer *p);

/* Faults: connects return NULL; conn_put returns NULL. */
void sim_no_slots(struct io *io, bool on);
void sim_no_output_memory(struct io *io, bool on);

/* A watched descriptor becomes ready: on_ready comes once, from the next turn. */
void sim_watch_ready(struct io *io, struct io_watch *w, unsigned events);

#endif
