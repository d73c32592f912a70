/*
 * Invariant: head <= tail <= head + data_bytes; bytes between head and tail are whole frames: u64
 * length, bytes, padding to 8. A frame that would cross the end of the data is preceded by a skip
 * mark that fills the rest.
 */
#include "worker/exchange/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const uint64_t skip_mark = UINT64_MAX;
enum { URGENT_SHARE = 4 };

struct ring_shared {
    _Atomic uint64_t head;     /* consumer */
    uint8_t pad1[56];
    _Atomic uint64_t tail;     /* producer */
    uint8_t pad2[56];
    _Atomic uint32_t sleeping; /* consumer waits for a wake */
    _Atomic uint32_t closed;   /* the producer has left */
    uint8_t pad3[56];
};

int ring_map(struct ring *r, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size < 2 * LIMIT_BLOCK_BYTES)
        return -EINVAL;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    r->map_bytes = (size_t)st.st_size;
    r->shared = p;
    r->data = (uint8_t *)p + LIMIT_BLOCK_BYTES;
    r->data_bytes = 1;
    while (r->data_bytes * 2 <= r->map_bytes - LIMIT_BLOCK_BYTES)
        r->data_bytes *= 2;
    return 0;
}

void ring_unmap(struct ring *r)
{
    if (r->shared != NULL)
        munmap(r->shared, r->map_bytes);
    memset(r, 0, sizeof *r);
}

static uint64_t frame_room(uint64_t bytes)
{
    return 8 + ((bytes + 7) & ~UINT64_C(7));
}

static void copy_parts(uint8_t *to, const struct span *parts, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].n > 0)
            memcpy(to, parts[i].p, parts[i].n);
        to += parts[i].n;
    }
}

int ring_put(struct ring *r, const struct span *parts, unsigned count, bool urgent)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += parts[i].n;
    if (bytes == 0 || bytes > RING_FRAME_MAX)
        return -E2BIG;
    uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
    uint64_t at = tail & (r->data_bytes - 1);
    uint64_t to_end = r->data_bytes - at;
    bool wrap = frame_room(bytes) > to_end;
    /* Empty: begin anew, so that a quiet ring stays in few pages. Only from the second half on:
       until the consumer has passed the skip, the room before it is all there is. */
    if (head == tail && at > r->data_bytes / 2)
        wrap = true;
    uint64_t skip = wrap ? to_end : 0;
    uint64_t kept = urgent ? 0 : r->data_bytes / URGENT_SHARE;
    if (head == tail)
        kept = 0; /* a frame that wraps an empty ring needs all of it */
    if (head > tail || tail - head > r->data_bytes ||
        r->data_bytes - (tail - head) < skip + frame_room(bytes) + kept)
        return -ENOBUFS;
    if (skip > 0) {
        memcpy(r->data + at, &skip_mark, 8);
        at = 0;
    }
    memcpy(r->data + at, &bytes, 8);
    copy_parts(r->data + at + 8, parts, count);
    atomic_store_explicit(&r->shared->tail, tail + skip + frame_room(bytes), memory_order_release);
    return 0;
}

bool ring_wants_wake(struct ring *r)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&r->shared->sleeping, memory_order_relaxed) != 0 &&
           atomic_exchange_explicit(&r->shared->sleeping, 0, memory_order_acq_rel) != 0;
}

void ring_close(struct ring *r)
{
    atomic_store_explicit(&r->shared->closed, 1, memory_order_release);
}

bool ring_closed(const struct ring *r)
{
    return atomic_load_explicit(&r->shared->closed, memory_order_acquire) != 0;
}

bool ring_peek(struct ring *r, struct span *frame, bool *bad)
{
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
    *bad = false;
    if (head == tail)
        return false;
    uint64_t at = head & (r->data_bytes - 1);
    uint64_t bytes;
    memcpy(&bytes, r->data + at, 8);
    if (bytes == skip_mark) {
        head += r->data_bytes - at;
        atomic_store_explicit(&r->shared->head, head, memory_order_release);
        if (head == tail)
            return false;
        at = 0;
        memcpy(&bytes, r->data, 8);
    }
    if (tail < head || bytes == 0 || bytes > RING_FRAME_MAX || frame_room(bytes) > tail - head ||
        at + frame_room(bytes) > r->data_bytes) {
        *bad = true;
        return false;
    }
    *frame = span_of(r->data + at + 8, bytes);
    return true;
}

void ring_next(struct ring *r, struct span frame)
{
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_relaxed);
    atomic_store_explicit(&r->shared->head, head + frame_room(frame.n), memory_order_release);
}

bool ring_sleep(struct ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&r->shared->head, memory_order_relaxed) ==
           atomic_load_explicit(&r->shared->tail, memory_order_acquire);
}

void ring_awake(struct ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
}
