/*
 * room_impl - what the files of the room share; nobody else includes this.
 */
#ifndef MASTER_MOVE_ROOM_IMPL_H
#define MASTER_MOVE_ROOM_IMPL_H

#include "master/move/room.h"

/* How a machine reaches the room; its ctx is the room. */
extern const struct move_env_ops room_env_ops;
/* An item for a node; leaves at the end of the turn. */
void room_queue(struct room *r, const char *node, const struct move_item *item);
/* A lane that was made by a PREPARE says its first words. */
void room_enter_fresh(struct lane_move *l);
/* PROGRESS of a lane's worker. */
void room_progress(struct room *r, struct lane_move *l, const struct control_lane_order *o);
/* Takes the lanes that are over out of the active ones. */
void room_sweep(struct room *r);

#endif
