/*
 * rounds - a scenario measured several times, subjects in turn, and its medians and ratios.
 *
 * Output: {"scenario", "title", "rounds": [...], "median": {"mochila": {...}, "postfix": {...}},
 *         "ratio": {...}}; a ratio is how many times better the node is than Postfix. Rounds in
 *         which others took more than a share of the machine are marked, not left out.
 */
#ifndef BENCH_ROUNDS_H
#define BENCH_ROUNDS_H

#include "bench/measure.h"

enum { ROUNDS_NODE = 1, ROUNDS_POSTFIX = 2, ROUNDS_BOTH = 3 };

/* subjects is of ROUNDS_*. 0 and *out (the caller's), or -errno after saying why. */
NODISCARD int rounds_run(const struct measure_options *o, uint64_t rounds, unsigned subjects,
                         json_t **out);
/* True when no round of our node lost or doubled mail, or has a ledger that does not balance. */
bool rounds_are_clean(const json_t *result);
/* The table of one result, for people. */
void rounds_print(const json_t *result);

#endif
