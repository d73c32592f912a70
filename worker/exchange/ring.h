/*
 * ring - one-way queue of frames between two processes: single producer, single consumer, shared
 * memory.
 *
 * A frame is a run of bytes of at most RING_FRAME_MAX; it stands in one piece, so that the consumer
 * reads it in place. The producer learns that the ring is full (-ENOBUFS); nothing ever blocks.
 * What the other side wrote is checked before it is believed.
 */
#ifndef WORKER_RING_H
#define WORKER_RING_H

#include "base/span.h"
#include "proto/limits.h"

enum { RING_FRAME_MAX = LIMIT_RECORD_BYTES + 4096 };

struct ring {
    struct ring_shared *shared;
    uint8_t *data;
    uint64_t data_bytes; /* a power of two */
    size_t map_bytes;
};

/* Maps a memfd of EXCHANGE_RING_BYTES; -errno. The descriptor may be closed afterwards. */
NODISCARD int ring_map(struct ring *r, int fd);
void ring_unmap(struct ring *r);

/* Producer: up to four parts make one frame. -ENOBUFS: full now. `urgent` may use the quarter that
   others must leave free: what answers a frame of the other side, so that two full rings cannot
   wait for each other. */
NODISCARD int ring_put(struct ring *r, const struct span *parts, unsigned count, bool urgent);
/* Producer: true when the consumer sleeps and has to be woken (once). */
bool ring_wants_wake(struct ring *r);

/* Producer: nothing more will come. */
void ring_close(struct ring *r);
/* Consumer: what is in the ring now is the last. */
bool ring_closed(const struct ring *r);

/* Consumer: the next frame, in place until ring_next; false: empty. -> *bad when the other side
   broke the form. */
bool ring_peek(struct ring *r, struct span *frame, bool *bad);
void ring_next(struct ring *r, struct span frame);
/* Consumer, before it waits: true when still empty, and from now on the producer will wake. */
bool ring_sleep(struct ring *r);
void ring_awake(struct ring *r);

#endif
