/*
 * move_impl - what the files of the master's end of moves share; nobody else includes this.
 */
#ifndef MASTER_MOVE_MOVE_IMPL_H
#define MASTER_MOVE_MOVE_IMPL_H

#include "master/master.h"
#include "master/move/move.h"
#include "master/move/room.h"

#include <jansson.h>

enum { MOVE_ANSWERS_MAX = LIMIT_LANES };

/* An answer of netd's that is ours to give: with driver none there is nothing to ask. */
struct moves {
    struct master *master;
    struct room room;
    struct arbiter arbiter;
    struct lane_move *answers[MOVE_ANSWERS_MAX];
    uint32_t answer_count;
    uint64_t news_ms;
};

/* A part that another node gives us: NULL, or why not. */
const char *move_refuses(struct master *m, const char *node, const struct move_item *item);

#endif
