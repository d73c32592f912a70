/* loop - the one poll loop of mochilad: signals, frames, deadlines. */
#ifndef MASTER_LOOP_H
#define MASTER_LOOP_H

struct master;

#include "base/check.h"

/* Blocks the signals and opens m->signal_fd; before any child exists. 0 or -errno. */
NODISCARD int loop_init(struct master *m);
/* Until everything has stopped. */
void loop_run(struct master *m);
void loop_fini(struct master *m);

#endif
