/*
 * probe - asks the kernel, before anything is started, for what the workers cannot do without.
 *
 * Without it every worker would fail in turn, and the reason would stand in the log only. The
 * answer is for the person at the terminal, and names the remedy.
 * Never:  keeps anything open.
 */
#ifndef MASTER_PROBE_H
#define MASTER_PROBE_H

#include "base/text.h"

/* Can a ring be made the way the workers make theirs? 0, or -errno and one line in `errors`. */
NODISCARD int probe_ring(struct text *errors);

#endif
