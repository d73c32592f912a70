/* figures - all scenarios in one go, as a Markdown table beside the project's goals. */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include "bench/measure.h"

/*
 * Measures on the file system of o->dir (o->scenario is ignored); writes to `path`, or stdout when
 * NULL. A scenario that fails is a row that says so, and -EIO at the end.
 */
NODISCARD int figures_write(const struct measure_options *o, uint64_t rounds, const char *path);

#endif
