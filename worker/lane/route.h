/*
 * route - recipient -> tenant -> pool -> lane, sticky.
 *
 * A tenant's mail to a domain keeps its lane (weighted rendezvous hashing), so that adding or
 * removing a lane moves only that lane's share, and a retry keeps its source address (greylisting).
 */
#ifndef WORKER_ROUTE_H
#define WORKER_ROUTE_H

#include "worker/lane/queue.h"

/* The lanes of the node, from the master; call once, before recovery. Lanes unknown to the
 * configuration are marked gone. */
NODISCARD int route_set_lanes(struct queue *q, const struct control_lane *lanes, uint32_t count,
                              uint32_t own_slot);
/* Tenant of a client: the listener's, or by network, or the default; index into q->tenants. */
uint16_t route_tenant(const struct queue *q, const struct config_listener *l,
                      const struct ip *client);
/* May this client relay? */
bool route_may_relay(const struct config *c, const struct config_listener *l,
                     const struct ip *client);
/* Is this recipient domain ours to accept from anybody (listener role mx)? */
bool route_is_served(const struct config *c, struct span domain);
/* The lane for a tenant's mail to a domain: owned by any worker; held lanes only when all are held.
 * NULL: the pool has none. */
struct lane *route_lane(struct queue *q, uint16_t tenant, struct span domain);
/* The lane of e's message is gone: chooses again within the same shard. True: the entry waits, and
 * goes there with its message when the log says so (shard_move). */
bool route_again(struct queue *q, struct qentry *e);
/* The same, because only a lane of this family can reach the site. False: the shard has none that
 * is not held. */
bool route_by_family(struct queue *q, struct qentry *e, bool v4);

#endif
