/*
 * lifecycle - reload by generation, drain, stop.
 *
 * Reload: the new generation starts beside the old one. When all of it is READY, the old one is
 * told to finish; a new worker holds its shards when the old one has left. If one of the new ones
 * fails before, all of them are stopped, the old ones never noticed, and the operator gets the
 * text.
 */
#ifndef MASTER_LIFECYCLE_H
#define MASTER_LIFECYCLE_H

#include "master/master.h"

/* 0: under way, the outcome goes to the log and to who asked; -errno: refused, with text in errors.
 */
NODISCARD int lifecycle_reload(struct master *m, struct text *errors);
/* Workers stop accepting, finish and leave; master and api stay. */
void lifecycle_drain(struct master *m, uint32_t seconds);
/* Ends everything; the second time at once. */
void lifecycle_stop(struct master *m);
/* Once a turn: takes the steps that are due. False: nothing is left, the master may exit. */
bool lifecycle_step(struct master *m);

#endif
