/*
 * follow - stays with moves until they are over: live on a terminal, a line a second elsewhere.
 *
 * Only looks. ^C ends the looking and never a move; a node that restarts meanwhile is waited for.
 */
#ifndef CTL_FOLLOW_H
#define CTL_FOLLOW_H

#include "ctl/cli.h"

/*
 * `moves` is an array of moves as the node answered them; its elements are replaced by newer ones.
 * Returns CLI_OK when all were done, CLI_ERROR when one was not, or was not seen to the point
 * where all lanes are across.
 */
int follow_moves(struct cli *c, json_t *moves);
/* Says how to look at these moves again and how to end them. */
void follow_explain(const struct view *v, const json_t *moves);

#endif
