/*
 * services - link and netd: the processes beside the workers that a configuration may call for.
 *
 * Level-triggered: once a turn what is needed is compared with what is there. A service whose part
 * of the configuration a reload has changed is ended, and started again with the new one.
 */
#ifndef MASTER_SERVICES_H
#define MASTER_SERVICES_H

#include "base/check.h"

struct master;

/* Places for both. -ENOMEM. */
NODISCARD int services_init(struct master *m);
void services_fini(struct master *m);
/* Starts what is needed and not there, ends what is not needed any more. */
void services_step(struct master *m);
/* Ends both; true when nothing is left. To be called until then. */
bool services_stop(struct master *m);

#endif
