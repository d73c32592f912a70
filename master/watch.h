/*
 * watch - finds workers that live but do not work: an endless loop, a call that never returns.
 *
 * A worker at work writes the time into its counters page at least once a second. One that has been
 * silent for WATCH_SILENCE_MS is killed, its successor recovers, and the message it was at counts
 * as the cause (poison.h).
 * Never:  watches a worker that is still recovering; that has a deadline of its own.
 */
#ifndef MASTER_WATCH_H
#define MASTER_WATCH_H

#include <stdint.h>

struct master;

enum { WATCH_SILENCE_MS = 60 * 1000, WATCH_ROUNDS = 12 /* looks within that time */ };

/* Looks when it is time to. */
void watch_tick(struct master *m);

#endif
