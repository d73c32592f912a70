/*
 * deliver - takes entries from flows and gives them to SMTP connections from the lane's address.
 *
 * Owner:  the queue. One `outbound` per connection: its hosts and addresses to try, its client, the
 * transaction under way.
 * Never:  starts anything for a flow that is held, suspended, backed off or over a limit; lets two
 *         transactions share an entry.
 */
#ifndef WORKER_DELIVER_H
#define WORKER_DELIVER_H

#include "worker/lane/queue.h"

NODISCARD int deliver_create(struct deliver **out, struct queue *q);
void deliver_destroy(struct deliver **d);
/* Starts what may start in this flow now. */
void deliver_run(struct deliver *d, struct flow *f);
/* No new transactions; idle connections quit. What is under way finishes. */
void deliver_drain(struct deliver *d);
/* The lane is about to be frozen: idle connections quit, those that are not connected yet end, what
   has not been begun goes back. Entries of transactions under way become tails. */
void deliver_freeze(struct deliver *d, struct lane *l);
/* Connections that exist, and those with a transaction under way. */
uint32_t deliver_open(const struct deliver *d);
uint32_t deliver_busy(const struct deliver *d);

#endif
