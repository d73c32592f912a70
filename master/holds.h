/*
 * holds - what the operator keeps in the queue on purpose: durable in state.db, known to every
 * worker.
 *
 * A change is in state.db before it is answered, and pushed to all workers; a worker that starts
 * gets all of them.
 */
#ifndef MASTER_HOLDS_H
#define MASTER_HOLDS_H

#include "master/master.h"

/* Reads them from state.db; `queue.hold` adds a hold of all. 0 or -errno. */
NODISCARD int holds_init(struct master *m, const struct config *c);
/* As the operator wrote it; NULL = not given. */
struct hold_request {
    const char *kind, *value, *why;
};
/*
 * Checks scope and value, writes them in their one form into *out. 0, or -EINVAL with a sentence in
 * `error`. The value of `all` is empty.
 */
NODISCARD int holds_parse(const struct config *c, const struct hold_request *r,
                          struct control_hold *out, struct text *error);
/* Adds or replaces; 0 or -errno with a sentence. */
NODISCARD int holds_add(struct master *m, const struct control_hold *h, struct text *error);
/* As it was written, or NULL; NULL for a NULL kind or value of another than `all`. */
const struct control_hold *holds_find(const struct master *m, const char *kind, const char *value);
/* What keeps this lane's mail: a hold of the lane itself, or of all. NULL: nothing. */
const struct control_hold *holds_of_lane(const struct master *m, const struct ip *address);
/*
 * A lane came here with its hold, or without one, or left (NULL): what this node has of it is
 * replaced. `since` and `why` of `h` count. 0 or -errno.
 */
NODISCARD int holds_replace_lane(struct master *m, const struct ip *address,
                                 const struct control_hold *h);
/* -ENOENT: there is none. */
NODISCARD int holds_remove(struct master *m, const struct control_hold *h, struct text *error);

#endif
