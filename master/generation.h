/*
 * generation - the workers of one configuration: made together, serving together, leaving together.
 *
 * generation_create settles everything that can fail (lanes and their places, shard directories,
 * cores) before a process exists.
 */
#ifndef MASTER_GENERATION_H
#define MASTER_GENERATION_H

#include "master/master.h"

/* Takes over *source, also on failure. 0, or -errno with a line in errors. */
NODISCARD int generation_create(struct master *m, struct source **source, struct generation **out,
                                struct text *errors);
/* None of its procs may have a process. */
void generation_free(struct generation **g);
/* The same event for every worker. */
void generation_event(struct generation *g, enum slot_event e);
void generation_drain(struct generation *g, uint32_t seconds);
bool generation_all_ready(const struct generation *g);
/* No process left, and none to come. */
bool generation_is_empty(const struct generation *g);

/* lanes.c: the configured lanes get numbers and shards, in state.db and in g->lanes. */
NODISCARD int lanes_place(struct master *m, const struct config *c, struct generation *g,
                          struct text *errors);
/* cores.c: a core for each worker, or -1. */
void cores_assign(const struct config *c, struct generation *g);
/* Cores that this process may run on, 1..LIMIT_WORKERS. */
uint32_t cores_count(void);

#endif
