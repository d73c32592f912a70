/*
 * One turn of the worker: sync (lists of changed things become submission entries), submit and
 * wait, dispatch by table, return of the receive buffers, own timers.
 */
#include "worker/io/io_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void on_ignored(struct io *io, const struct ring_event *e)
{
    (void)io;
    (void)e;
}

static void on_disk(struct io *io, const struct ring_event *e)
{
    MUST(io->disk_hooks.on_event != NULL);
    io->disk_hooks.on_event(io->disk_ctx, e);
}

typedef void handler(struct io *io, const struct ring_event *e);
static handler *const table[RING_KINDS] = {
    [RING_IGNORED] = on_ignored,        [RING_ACCEPT] = listener_on_accept,
    [RING_CONNECT] = conn_on_connect,   [RING_RECV_MULTI] = conn_on_recv_multi,
    [RING_RECV_ONE] = conn_on_recv_one, [RING_SEND] = conn_on_send,
    [RING_WATCH] = watch_on_event,      [RING_DISK] = on_disk,
};

static void read_clocks(struct io *io)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    io->now_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    clock_gettime(CLOCK_REALTIME, &ts);
    io->now_unix_ms = (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

/* Room for two completions a connection and one a buffer, so that the overflow list is the
 * exception. */
static uint32_t cq_entries(const struct io_settings *s)
{
    uint64_t want = 2ull * s->conn_count_max + s->recv_buffer_count + RING_SQ_ENTRIES;
    uint32_t n = RING_CQ_ENTRIES_MIN;
    while (n < want && n < RING_CQ_ENTRIES_MAX)
        n *= 2;
    return n;
}

int io_create(struct io **out, const struct io_settings *settings)
{
    MUST(settings->conn_count_max >= 16 && settings->conn_count_max <= 1000000);
    *out = NULL;
    struct io *io = calloc(1, sizeof *io);
    if (io == NULL)
        return -ENOMEM;
    io->settings = *settings;
    read_clocks(io);
    wheel_init(&io->wheel, io->now_ns / 1000000u);
    struct ring_settings rs = {.cq_entries = cq_entries(settings),
                               .buffer_count = settings->recv_buffer_count,
                               .restrict_ops = settings->restrict_ops};
    int err = ring_init(&io->ring, &rs);
    if (err == 0)
        err = conns_init(io);
    if (err == 0)
        err = watches_init(io);
    if (err == 0)
        err = listeners_init(io);
    if (err < 0) {
        io_destroy(&io);
        return err;
    }
    *out = io;
    return 0;
}

int io_enable(struct io *io)
{
    MUST(!io->enabled);
    int err = ring_enable(&io->ring);
    io->enabled = err == 0;
    return err;
}

void io_destroy(struct io **iop)
{
    struct io *io = *iop;
    *iop = NULL;
    if (io == NULL)
        return;
    /* The ring goes first: its end waits for writes in flight and drops everything else. */
    ring_fini(&io->ring);
    if (io->disk_hooks.destroy != NULL)
        io->disk_hooks.destroy(io->disk_ctx);
    conns_fini(io);
    watches_fini(io);
    listeners_fini(io);
    free(io);
}

const char *io_explain(int err)
{
    switch (err < 0 ? -err : err) {
    case EPERM:
        return "this host refuses io_uring: set sysctl kernel.io_uring_disabled=0, or (in a "
               "container) allow io_uring in "
               "its seccomp profile";
    case ENOSYS:
        return "this kernel has no io_uring: Linux 6.1 or newer, built with CONFIG_IO_URING, is "
               "needed";
    case EINVAL:
        return "this kernel's io_uring is too old: Linux 6.1 or newer is needed";
    case ENOMEM:
        return "not enough lockable memory for io_uring: set LimitMEMLOCK=64M or more (ulimit -l), "
               "or start as root";
    case EMFILE:
    case ENFILE:
        return "no file descriptor left for io_uring: raise LimitNOFILE (ulimit -n)";
    default:
        return strerror(err < 0 ? -err : err);
    }
}

static void sync_all(struct io *io)
{
    for (int round = 0; round < IO_SYNC_ROUNDS_MAX; round++) {
        conns_sync(io);
        if (!conns_have_work(io))
            break;
    }
    listeners_sync(io);
    watches_sync(io);
    if (io->disk_hooks.sync != NULL)
        io->disk_hooks.sync(io->disk_ctx);
}

/* How long this turn may sleep: not at all when work is left or a callback may have changed the
 * caller's mind. */
static uint64_t wait_ns(const struct io *io, uint64_t wait_ns_max)
{
    bool waiting = io->disk_hooks.has_waiting != NULL && io->disk_hooks.has_waiting(io->disk_ctx);
    if (io->called_back || waiting || conns_have_work(io) || io->watch_dirty != 0 ||
        io->listeners_dirty)
        return 0;
    uint64_t ms_max = wait_ns_max / 1000000u + 1;
    uint64_t ms = wheel_next_ms(&io->wheel, ms_max);
    return ms < ms_max ? ms * 1000000u : wait_ns_max;
}

/* Takes what is there now; what comes during the dispatch belongs to the next turn. */
static void dispatch(struct io *io)
{
    struct io_uring *uring = &io->ring.uring;
    uint32_t left = io_uring_cq_ready(uring);
    io->counts.completions += left;
    while (left > 0) {
        struct io_uring_cqe *cqe;
        uint32_t head;
        uint32_t batch = 0;
        io_uring_for_each_cqe(uring, head, cqe)
        {
            uint64_t tag = cqe->user_data;
            struct ring_event e = {.slot = (uint32_t)tag,
                                   .generation = (uint32_t)(tag >> 32) & RING_GENERATION_MASK,
                                   .res = cqe->res,
                                   .flags = cqe->flags};
            MUST(tag >> 56 < RING_KINDS);
            table[tag >> 56](io, &e);
            if (++batch == left)
                break;
        }
        io_uring_cq_advance(uring, batch);
        left -= batch;
    }
}

void io_turn(struct io *io, uint64_t wait_ns_max)
{
    MUST(io->enabled);
    io->called_back = false;
    sync_all(io);
    io->counts.submissions += ring_submit_and_wait(&io->ring, wait_ns(io, wait_ns_max));
    io->counts.turns++;
    read_clocks(io);
    dispatch(io);
    ring_buffers_publish(&io->ring);
    wheel_advance(&io->wheel, io->now_ns / 1000000u);
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_now_unix_ms(const struct io *io)
{
    return io->now_unix_ms;
}

const struct io_counts *io_counts(const struct io *io)
{
    return &io->counts;
}
