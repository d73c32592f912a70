/*
 * counters - the shared page of each worker (proto/stats.h): made once, given to every process of
 * the slot and to the api; it lives as long as the master.
 */
#ifndef MASTER_COUNTERS_H
#define MASTER_COUNTERS_H

struct master;

#include "base/check.h"

/* For m->workers workers; 0 or -errno. */
NODISCARD int counters_init(struct master *m);
void counters_fini(struct master *m);

#endif
