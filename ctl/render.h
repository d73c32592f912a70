/*
 * render - answers of the API as people read them; one function for each row of the command table.
 *
 * All take any JSON object and never fail on a missing or odd field: an older or newer node may be
 * on the other side. They return an exit status.
 */
#ifndef CTL_RENDER_H
#define CTL_RENDER_H

#include "ctl/cli.h"

int render_done(struct cli *c, const json_t *answer);
int render_leave(struct cli *c, const json_t *answer);
int render_status(struct cli *c, const json_t *answer);
int render_holds(struct cli *c, const json_t *answer);
int render_audit(struct cli *c, const json_t *answer);
int render_queue(struct cli *c, const json_t *answer);
int render_why(struct cli *c, const json_t *answer);
int render_show(struct cli *c, const json_t *answer);
int render_trace(struct cli *c, const json_t *answer);
int render_ledger(struct cli *c, const json_t *answer);
int render_sites(struct cli *c, const json_t *answer);
int render_lanes(struct cli *c, const json_t *answer);
int render_moves(struct cli *c, const json_t *answer);
int render_abort(struct cli *c, const json_t *answer);
int render_cluster(struct cli *c, const json_t *answer);
/* What `ledger --cluster` is answered; render_ledger passes it on. */
int render_cluster_ledger(struct cli *c, const json_t *answer);

/* One event on one line. */
void render_event(const struct view *v, const json_t *event);
/* The message rows of `queue --by message` and of a preview. */
void render_messages(const struct view *v, const json_t *rows);

#endif
