/* cmd - commands that do more than ask a verb and render its answer: `run` of command.c's rows. */
#ifndef CTL_CMD_H
#define CTL_CMD_H

#include "ctl/cli.h"

int run_check(struct cli *c);
int run_show_config(struct cli *c);
int run_show_keys(struct cli *c);
int run_cluster_init(struct cli *c);
int run_cluster_issue(struct cli *c);
int run_cluster_join(struct cli *c);
int run_cluster_status(struct cli *c);
int run_move(struct cli *c);  /* pool move, lane move */
int run_drain(struct cli *c); /* node drain, node undrain */
int run_move_status(struct cli *c);
int run_help(struct cli *c);
int run_version(struct cli *c);
int run_show(struct cli *c);
int run_hold(struct cli *c);
int run_retry(struct cli *c);
int run_delete(struct cli *c);
int run_events(struct cli *c);
int run_top(struct cli *c);
/* After a refusal of an order about lanes and nodes: which name was meant, and what to do. */
void advise_move(struct cli *c, const char *error);

#endif
