/*
 * io_private - what the files of worker/io share: the one struct io and the handlers of
 * completions.
 *
 * Every operation is made in the sync phase at the start of a turn, from lists of what has changed
 * ("dirty"); so calls of sessions only write down what they want, and no operation can name a
 * descriptor that was closed after the call.
 */
#ifndef WORKER_IO_PRIVATE_H
#define WORKER_IO_PRIVATE_H

#include "base/pool.h"
#include "worker/io/conn.h"
#include "worker/io/io.h"
#include "worker/io/ring.h"
#include "worker/io/wheel.h"

#include <poll.h>

enum {
    IO_WATCHES_MAX = 4096,
    IO_LISTENERS_MAX = 256,
    IO_OUT_BUFFERS_MIN = 256, /* 4 KB each */
    IO_OUT_BUFFERS_MAX = 65536,
    IO_SYNC_ROUNDS_MAX =
        4, /* callbacks in the sync phase may make new work: so often it is looked at */
};

struct watch_slot {
    struct io_watch *watch; /* NULL: stopped, waiting for its last completion */
    uint32_t generation;
    uint32_t next; /* in the free or dirty list */
    int fd;
    unsigned events;
    bool posted;
    bool dirty;
};

struct listener_slot {
    struct listener *listener; /* NULL: free, or stopped and waiting for the last completion */
    struct io *io;
    struct timer retry;
    uint32_t generation;
    bool posted;
    bool cancelled;
};

struct out_pools {
    struct pool queues;  /* struct out_queue */
    struct pool buffers; /* struct out_buffer */
    /* A few of each are kept aside, since the pools clear what they hand out. */
    void *spare_queues[64];
    void *spare_buffers[64];
    uint32_t spare_queue_count;
    uint32_t spare_buffer_count;
};

/* disk.c hangs itself in here, so that a program with a simulated disk does not pull it in. */
struct io_disk_hooks {
    void (*on_event)(void *ctx, const struct ring_event *e);
    void (*sync)(void *ctx);
    bool (*has_waiting)(void *ctx);
    void (*destroy)(void *ctx);
};

struct io {
    struct ring ring;
    struct io_settings settings;
    struct io_counts counts;
    struct wheel wheel;
    uint64_t now_ns;
    uint64_t now_unix_ms;
    bool enabled;
    bool called_back; /* a callback ran in the sync phase: do not sleep in this turn */

    struct pool conns;
    uint32_t *conn_generations; /* by index, survives the reuse of a slot */
    uint32_t conn_dirty;        /* list heads, by index; 0 = empty */
    uint32_t conn_dirty_tail;
    struct timer conn_look; /* time to look for ends that no receive told */
    uint32_t conn_look_at;  /* the slot looked at last */
    bool conn_look_due;
    struct out_pools out;
    uint8_t scratch[4096]; /* output of a connection that is already lost */

    struct watch_slot *watches; /* index 0 unused */
    uint32_t watch_touched;
    uint32_t watch_free;
    uint32_t watch_dirty;

    struct listener_slot *listeners; /* index 0 unused */
    bool listeners_dirty;

    struct io_disk_hooks disk_hooks;
    void *disk_ctx;
};

/* conn*.c */
NODISCARD int conns_init(struct io *io);
void conns_fini(struct io *io);
void conns_sync(struct io *io);
bool conns_have_work(const struct io *io);
void conn_on_connect(struct io *io, const struct ring_event *e);
void conn_on_recv_multi(struct io *io, const struct ring_event *e);
void conn_on_recv_one(struct io *io, const struct ring_event *e);
void conn_on_send(struct io *io, const struct ring_event *e);

/* listener.c */
NODISCARD int listeners_init(struct io *io);
void listeners_fini(struct io *io);
void listeners_sync(struct io *io);
void listener_on_accept(struct io *io, const struct ring_event *e);

/* watch.c */
NODISCARD int watches_init(struct io *io);
void watches_fini(struct io *io);
void watches_sync(struct io *io);
void watch_on_event(struct io *io, const struct ring_event *e);

#endif
