/*
 * pair - one nanomsg NN_PAIR on ipc://, in the working directory of the process.
 *
 * All of nanomsg is confined here. A pair lives exactly as long as one tunnel: a pair that outlived
 * it would carry frames of the old connection into the new one.
 *
 * Never:  a routable address; a message beyond LIMIT_LINK_MESSAGE_BYTES; blocks, but for the time
 *         that nanomsg's worker thread takes to open and close.
 */
#ifndef LINK_PAIR_H
#define LINK_PAIR_H

#include "base/span.h"

struct pair {
    int socket;              /* of nanomsg, or -1 */
    int receive_fd, send_fd; /* to poll for POLLIN only: readable means that a call will succeed */
};
#define PAIR_CLOSED ((struct pair){-1, -1, -1})

/* Binds to a fresh socket file `name`. 0 or -errno. */
NODISCARD int pair_open(struct pair *p, const char *name);
void pair_close(struct pair *p);
/* A buffer to fill and send, or NULL. */
void *pair_buffer(size_t n);
/* The same buffer, with only its first n bytes. */
void *pair_shrink(void *buffer, size_t n);
/* Sends the buffer and takes it, whatever the result: 0, -EAGAIN (not connected, or full), -errno.
 */
NODISCARD int pair_send(struct pair *p, void *buffer);
/* Gives a buffer back unsent. */
void pair_drop(void *buffer);
/* 1 with the next message (to be freed with pair_drop), 0 when there is none, or -errno. */
NODISCARD int pair_receive(struct pair *p, struct span *out);

#endif
