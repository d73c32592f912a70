/*
 * driver - how a lane's address comes to a host and leaves it.
 *
 * Every call is idempotent and returns at once. DRIVER_PENDING: `step` is called whenever something
 * may have changed, until it returns something else or the request's deadline passes. On
 * DRIVER_RETRY and DRIVER_FAILED lane->reason says why, for people.
 *
 * A driver acts on lane->request and lane->place; it does not change the lane's state, nor send.
 */
#ifndef NETD_DRIVER_H
#define NETD_DRIVER_H

#include "master/netd/netd.h"

struct driver {
    const char *name;
    enum driver_result (*begin[NETD_ACTION_COUNT])(struct netd *n, struct lane *l);
    enum driver_result (*step)(struct netd *n, struct lane *l);
    /* The request is over without success: undoes what would outlive it. */
    void (*abandon)(struct netd *n, struct lane *l);
    /* Is what the state promises still there? Asked when something changed. */
    bool (*holds)(struct netd *n, const struct lane *l);
    /* Every NETD_RENEW_MS, in LANE_HELD and LANE_TAIL, and while a request is under way from them.
     */
    void (*renew)(struct netd *n, struct lane *l);
    /* Work at lane->announce_ns. */
    void (*announce)(struct netd *n, struct lane *l);
};

extern const struct driver driver_none, driver_l2, driver_exec;

/* Sets the lane's reason; always returns `result`. */
enum driver_result driver_say(struct lane *l, enum driver_result result, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* driver_l2.c, for START: the forward rules of all lanes that hold one, in one transaction. */
NODISCARD int driver_l2_restore(struct netd *n);
/* driver_l2.c: another host said on this interface that it has ip. */
void driver_l2_claim(struct netd *n, struct lane *l, const struct arp_claim *c);

#endif
