/*
 * report - a move as JSON, for the verb "moves" and for the other node.
 */
#ifndef MASTER_MOVE_REPORT_H
#define MASTER_MOVE_REPORT_H

#include "master/move/room.h"

#include <jansson.h>

/* A new object; with or without the array of its lanes. NULL: no memory. */
json_t *move_report(const struct move *v, bool with_lanes);

#endif
