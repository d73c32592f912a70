/*
 * state_moves - the moves in state.db: what they are, and how each lane of them ended.
 *
 * A row exists before the move's first word and before a record names it. Lanes that are open have
 * no state here: the lane's record has it. The 500 newest moves are kept.
 */
#ifndef MASTER_STATE_MOVES_H
#define MASTER_STATE_MOVES_H

#include "master/move/room.h"
#include "master/state.h"

/* Makes the tables if there are none, and reads the newest moves into the room, oldest first. 0,
   -EIO, -ENOMEM. */
NODISCARD int state_moves_load(struct state *s, struct room *r);
/* Writes the move, and those of its lanes whose row is not up to date. 0, -EIO, -ENOSPC. */
NODISCARD int state_move_save(struct state *s, const struct move *v);
/* A number that no move of this node had before. */
NODISCARD int state_move_number(struct state *s, uint64_t *out);

#endif
