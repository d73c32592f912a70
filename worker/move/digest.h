/*
 * digest - the states of a message's recipients in 64 bits, so that two nodes can tell whether
 * theirs agree without sending them.
 *
 * Both sides use this one function: the owner on its entries as they stand, the replica on its
 * copies. What the log does not say (which list an entry is in, what it waits for) is left out.
 */
#ifndef WORKER_DIGEST_H
#define WORKER_DIGEST_H

#include "worker/lane/queue.h"

/* Over index, state, attempts and, when it is still to come, the time of the next attempt. */
uint64_t move_digest(const struct queue *q, const struct qmsg *m);

#endif
