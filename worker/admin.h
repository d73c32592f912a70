/*
 * admin - answers the operator's questions about this worker's queue, and carries out what changes
 * it.
 *
 * Owner:  the worker. A question that looks at every entry is worked off in slices, a little each
 *         turn, so that a million entries do not stop the mail. Answers are JSON texts, sent in
 *         pieces.
 * Never:  reads spool files but through the shard.
 */
#ifndef WORKER_ADMIN_H
#define WORKER_ADMIN_H

#include "proto/control.h"

struct admin;
struct worker;

NODISCARD int admin_create(struct admin **out, struct worker *w);
void admin_destroy(struct admin **a);
void admin_query(struct admin *a, const struct control_frame *f);
/* Once a turn. True: more to do at once. */
bool admin_turn(struct admin *a);

#endif
