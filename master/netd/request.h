/*
 * request - the lanes of this host, and what the master wants done with them.
 *
 * A table {lane state} x {event} says what happens; drivers do it. One request of a lane at a time:
 * a second one is answered `retry`. A request of an epoch that is over is answered `failed`.
 */
#ifndef NETD_REQUEST_H
#define NETD_REQUEST_H

#include "master/netd/netd.h"

enum lane_event {
    EV_PREPARE,
    EV_RELEASE,
    EV_ACQUIRE,
    EV_VERIFY,
    EV_END_TAIL,
    EV_DONE,   /* the driver has done it */
    EV_UNDONE, /* it has not, or the deadline has passed */
    EV_GONE,   /* what the state promises is not there any more */
    LANE_EVENT_COUNT
};

/* Answers at once, or later out of request_turn. */
void request_take(struct netd *n, const struct netd_request *r);
/* A lane that this host may still have. -EBADMSG: twice, or no room. */
NODISCARD int request_hold(struct netd *n, const struct netd_place *p);
/*
 * After the last of them: removes every tagged address that nobody named, restores the forward
 * rules, lets go of what is not there. Returns how many addresses were removed, or -errno.
 */
NODISCARD int request_settle(struct netd *n);
/* Looks at what was stirred, at deadlines, announcements and renewals. */
void request_turn(struct netd *n);
/* Nanoseconds to the next of them, UINT64_MAX: none. */
uint64_t request_next_ns(const struct netd *n);
/* The lane with that address, or NULL. */
struct lane *request_lane_of(struct netd *n, const struct ip *ip);
/* Marks the lane for request_turn; all of them with NULL. */
void request_stir(struct netd *n, const struct ip *ip);

/* For tests: what a cell of the table does. */
const char *request_cell_name(enum lane_state s, enum lane_event e);

#endif
