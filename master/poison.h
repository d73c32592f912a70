/*
 * poison - which message a worker was at when it died, and what its successor must leave alone.
 *
 * A worker names the message it works on in its counters page. A message at which a worker died
 * STATE_POISON_DEATHS times is parked: START names it to the successor, which does not try it
 * again.
 */
#ifndef MASTER_POISON_H
#define MASTER_POISON_H

#include "master/master.h"

/* Reads and clears the marker of a dead worker; a crash is counted in state.db. */
void poison_examine(struct proc *p, bool crash);

#endif
