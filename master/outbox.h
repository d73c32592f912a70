/*
 * outbox - frames that wait until a child reads.
 *
 * A frame goes out at once when nothing waits and the socket takes it; otherwise its bytes and
 * duplicates of its descriptors are kept, in order, up to OUTBOX_BYTES_MAX.
 * Never:  blocks.
 */
#ifndef MASTER_OUTBOX_H
#define MASTER_OUTBOX_H

#include "proto/control.h"

enum { OUTBOX_BYTES_MAX = 32 << 20 };

struct outbox_frame;
struct outbox {
    struct outbox_frame *head, *tail;
    size_t bytes;
};

/* 0; -ENOBUFS: the child does not read; -EPIPE: it is gone; other -errno. fds stay the caller's. */
NODISCARD int outbox_send(struct outbox *o, int fd, const struct control_frame *f, const int *fds,
                          unsigned fd_count);
/* The same with a frame that is encoded already. */
NODISCARD int outbox_send_bytes(struct outbox *o, int fd, struct span bytes, const int *fds,
                                unsigned fd_count);
/* Sends what the socket takes now. 0 or -errno as above. */
NODISCARD int outbox_flush(struct outbox *o, int fd);
static inline bool outbox_waits(const struct outbox *o)
{
    return o->head != NULL;
}
void outbox_fini(struct outbox *o);

#endif
