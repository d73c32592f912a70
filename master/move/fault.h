/*
 * fault - deaths of processes at numbered steps of a move, so that tests see what follows.
 *
 * Exists only where MOCHILA_FAULTS is defined: debug and sanitizer builds, never a release.
 *
 *     MOCHILA_FAULT_MOVE=STEP[-]:SIDE[:ACTION][:FILE]
 *
 * STEP 1..11 as below; with "-" right before the step's effect instead of right after it. SIDE: a
 * (giver) or b (taker). ACTION: kill-master (preset), kill-worker, kill-link, kill-netd, stop (the
 * master stops itself by SIGSTOP). It fires once in the life of the master; with FILE only if that
 * file does not exist, and then it is made, so that the next master goes on.
 *
 *   1 a  the move is recorded             7 a  the swap is durable; before: about to be made
 *   2 a  PREPARE_OK heard; b the worker   8 a  TAKEN heard; before: COMMITTED about to be said
 *        has the replica                    b  the lane runs
 *   3 a  about to freeze                  9 a  the worker has GIVEN
 *   4 a  FROZEN is durable; before as 3  10 a  no open attempt is left
 *   5 b  READY heard                     11 a  everything is over
 *   6 a  released; before: COMMITREQ heard
 */
#ifndef MASTER_MOVE_FAULT_H
#define MASTER_MOVE_FAULT_H

#include "master/move/machine.h"

struct master;

#ifdef MOCHILA_FAULTS
void fault_move(struct master *m, const struct lane_move *l, unsigned step, bool after);
#endif

#endif
