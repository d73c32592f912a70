/*
 * io - the kernel side of a worker: one io_uring, one turn at a time.
 *
 * Owner:  the worker; exactly one per process, one thread.
 * Input:  operations of conn.h, listener.h, disk.h and poll watches; all completions are dispatched
 * by table from io_turn() and nowhere else.
 * Never:  blocks outside io_turn's wait; hands out a kernel descriptor that it still uses.
 *
 * Everything above this folder sees the kernel through conn.h, disk.h, wheel.h and this header
 * only, so that tests link a simulated side instead (tests/sim/), and a second backend stays
 * possible.
 */
#ifndef WORKER_IO_H
#define WORKER_IO_H

#include "base/check.h"

struct io;

struct io_settings {
    uint32_t conn_count_max;    /* slots, in and out together: 16..1,000,000 */
    uint32_t recv_buffer_count; /* 2 KB each, a power of two 64..32768 */
    bool restrict_ops;          /* allow only the opcodes in use */
};

/*
 * Makes the ring, disabled: call before privileges are dropped. 0, or -errno; -EPERM / -ENOSYS mean
 * that the host refuses io_uring (sysctl kernel.io_uring_disabled, seccomp): io_explain(err) says
 * so with the remedy.
 */
NODISCARD int io_create(struct io **out, const struct io_settings *settings);
/* Restrictions and enable, in the process and thread that will use it. */
NODISCARD int io_enable(struct io *io);
void io_destroy(struct io **io);
const char *io_explain(int err);

/*
 * One turn: flushes queued output (one send a connection), submits all, waits until something
 * happens or wait_ns_max has passed, dispatches the completions. Updates the clock of io_now_*.
 */
void io_turn(struct io *io, uint64_t wait_ns_max);

/* Time at the start of this turn's dispatch. */
uint64_t io_now_ns(const struct io *io);      /* monotonic */
uint64_t io_now_unix_ms(const struct io *io); /* wall clock */

/* Readiness of a foreign descriptor (control socket, DNS socket, eventfd): level-triggered,
 * re-armed inside. */
struct io_watch {
    void (*on_ready)(struct io_watch *w, unsigned events); /* POLLIN | POLLOUT | ... */
    int fd;
    uint32_t slot;       /* private */
    uint32_t generation; /* private */
    unsigned events;     /* private */
};
NODISCARD int io_watch_start(struct io *io, struct io_watch *w, int fd, unsigned events);
/* After this no on_ready comes for w, which may be freed at once. */
void io_watch_stop(struct io *io, struct io_watch *w);

/* Counters for metrics: turns, sqes, cqes, bytes. */
struct io_counts {
    uint64_t turns, submissions, completions, bytes_in, bytes_out, accepts, connects;
    uint64_t accept_errors, recv_nobufs, conns_open;
};
const struct io_counts *io_counts(const struct io *io);

#endif
