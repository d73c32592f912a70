/*
 * move_view - a move of lanes as people read it: the live block, one line, the report.
 *
 * Pure: one element of the answer's `moves` in, text out. Takes any JSON object: fields that are
 * missing or odd are left out or zero. Text of the node goes through view_put.
 */
#ifndef CTL_MOVE_VIEW_H
#define CTL_MOVE_VIEW_H

#include "ctl/view.h"

enum { MOVE_VIEW_LANES = 8 }; /* rows of lanes when nothing bounds the screen */

/* Done, aborted, refused or failed: nothing more will happen to it. */
bool move_view_over(const json_t *move);
/* Not over, but each lane has its new owner: what is left are deliveries that were open. */
bool move_view_across(const json_t *move);
/* Done, with all of its lanes. */
bool move_view_good(const json_t *move);
/* "1.2 GiB of 3.4 GiB ..." on one line, with the time in front, for logs and pipes. */
void move_view_line(const struct view *v, const json_t *move);
/* The live picture: at most `lane_rows` rows of the lanes that are under way. */
void move_view_block(const struct view *v, const json_t *move, unsigned lane_rows);
/* What became of it: figures of a finished move, reasons and advice for one that was not. */
void move_view_report(const struct view *v, const json_t *move);
/* What a dry run found. */
void move_view_plan(const struct view *v, const json_t *move);
/* What an operator can do about a refusal of this text, or NULL. */
const char *move_view_advice(const char *reason);

#endif
