/*
 * ring - one io_uring: set-up, restrictions, submission entries, the shared receive buffers.
 *
 * Private to worker/io. Made disabled (SINGLE_ISSUER | DEFER_TASKRUN | R_DISABLED), so that it can
 * be created with privileges and enabled by the thread that uses it.
 *
 * Owner:  struct io.
 * Never:  dispatches; knows connections, files or watches.
 */
#ifndef WORKER_IO_RING_H
#define WORKER_IO_RING_H

#include "base/check.h"

#include <liburing.h>

enum {
    RING_SQ_ENTRIES = 1024,
    RING_CQ_ENTRIES_MIN = 16384,
    RING_CQ_ENTRIES_MAX = 131072,
    RING_BUFFER_BYTES = 2048,
    RING_FIXED_BUFFERS = 32, /* registered memory regions */
    RING_IOWQ_WORKERS = 2,
};

/* What a completion is about; the index into the dispatch table of io.c. */
enum ring_kind {
    RING_IGNORED,
    RING_ACCEPT,
    RING_CONNECT,
    RING_RECV_MULTI,
    RING_RECV_ONE,
    RING_SEND,
    RING_WATCH,
    RING_DISK,
    RING_KINDS
};

/* user_data = kind (8) | generation (24) | slot (32): never a pointer. */
enum { RING_GENERATION_MASK = 0xffffff };
static inline uint64_t ring_tag(enum ring_kind kind, uint32_t generation, uint32_t slot)
{
    return (uint64_t)kind << 56 | (uint64_t)(generation & RING_GENERATION_MASK) << 32 | slot;
}

/* A completion, taken apart. */
struct ring_event {
    uint32_t slot;
    uint32_t generation;
    int32_t res;
    uint32_t flags;
};

struct ring_settings {
    uint32_t cq_entries;
    uint32_t buffer_count; /* a power of two */
    bool restrict_ops;
};

struct ring {
    struct io_uring uring;
    struct io_uring_buf_ring *buffers;
    uint8_t *buffer_memory;
    uint32_t buffer_count;
    uint16_t returned; /* buffers added since the last ring_buffers_publish */
    bool has_fixed;    /* the table of registered memory exists */
    bool fixed_used[RING_FIXED_BUFFERS];
};

/* Makes the ring, disabled. 0 or -errno. */
NODISCARD int ring_init(struct ring *r, const struct ring_settings *s);
/* Enables it for the calling thread. 0 or -errno. */
NODISCARD int ring_enable(struct ring *r);
void ring_fini(struct ring *r);

/*
 * An empty submission entry with its user_data set, or NULL when the kernel takes none just now
 * (-EBUSY, -EAGAIN): keep what is to be done and try in the next turn.
 */
struct io_uring_sqe *ring_sqe(struct ring *r, uint64_t tag);
/* Submits everything and waits for one completion or wait_ns. Returns the number submitted. */
uint32_t ring_submit_and_wait(struct ring *r, uint64_t wait_ns);

static inline uint8_t *ring_buffer(const struct ring *r, uint32_t flags)
{
    return r->buffer_memory + (size_t)(flags >> IORING_CQE_BUFFER_SHIFT) * RING_BUFFER_BYTES;
}
/* Gives the buffer named by the flags of a completion back; the kernel sees it after
 * ring_buffers_publish. */
void ring_buffer_return(struct ring *r, uint32_t flags);
void ring_buffers_publish(struct ring *r);

/* Registers memory for fixed reads and writes: its index, or -errno when the kernel or
 * RLIMIT_MEMLOCK refuses. */
NODISCARD int ring_fix_memory(struct ring *r, void *p, size_t bytes);
void ring_unfix_memory(struct ring *r, int index);

#endif
