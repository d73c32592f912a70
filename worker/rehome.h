/*
 * rehome - mail of a lane that is gone moves to a lane of another shard.
 *
 * Owner:  the worker. Message by message, when an entry is due: read from the log here, submitted
 * to the new lane's owner like a message from a client, and ended here as "handed over" when it is
 * durable there. It gets a new id, because the two logs may meet in one worker; the event says
 * which.
 * Never:  ends anything here before the other side has committed; a crash between the two leaves
 *         both, so at most the hand-overs under way are delivered twice.
 */
#ifndef WORKER_REHOME_H
#define WORKER_REHOME_H

#include "worker/intake.h"

struct rehome;

NODISCARD int rehome_create(struct rehome **out, struct queue *q, struct intake *in);
/* No read and no submission may be under way any more, or the process ends. */
void rehome_destroy(struct rehome **r);
/* ctx is a struct rehome. False: no lane takes it, the entry is as it was (ENTRY_NEW). True: taken,
 * or put to wait for a free place. */
bool rehome_take(void *ctx, struct qentry *e);
/* Hand-overs under way. */
unsigned rehome_open_count(const struct rehome *r);

#endif
