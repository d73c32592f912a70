/*
 * arbiter - who says whose a lane is: the one place where a change of owner is decided.
 *
 * Five calls, so that another arbiter can take the place of `static`, for which state.db of the
 * lane's owner decides. A change is made only if owner and epoch are as expected, is durable when
 * it is answered, and several changes are all made or none.
 * Never:  answered by hearsay: what another node says of a lane is no reason to change ours.
 */
#ifndef MASTER_MOVE_ARBITER_H
#define MASTER_MOVE_ARBITER_H

#include "master/lane_table.h"

struct arbiter;
struct arbiter_ops {
    const char *name;
    /* The record as it is decided now; NULL: not a lane of ours. */
    struct lane_record *(*read)(struct arbiter *a, const struct ip *lane);
    /* 0, -ESTALE (then nothing was changed), -EIO or -ENOSPC (nothing as far as is known). */
    int (*swap)(struct arbiter *a, const struct lane_change *changes, uint32_t count);
    /* Keeps this node's right to own lanes: milliseconds until it must be renewed, 0: never. */
    uint64_t (*session)(struct arbiter *a);
    /* Tells `changed` when a record is changed by others; 0, or -ENOTSUP: nobody else can. */
    int (*watch)(struct arbiter *a, void (*changed)(void *ctx, const struct ip *lane), void *ctx);
    /* Shuts a dead node out for good, so that its lanes may be taken; -ENOTSUP: only it gives. */
    int (*fence)(struct arbiter *a, const char *node);
};
struct arbiter {
    const struct arbiter_ops *ops;
    struct master *master;
};

/* state.db of this node, through the lane table. */
void arbiter_static(struct arbiter *a, struct master *m);

#endif
