/*
 * args - from argv to a struct cli, by the tables of command.c.
 *
 * Options may stand anywhere after the program's name; -f before the command names a configuration
 * file. Every mistake gets a line that says what would be right.
 */
#ifndef CTL_ARGS_H
#define CTL_ARGS_H

#include "ctl/cli.h"

/* 0, or CLI_USAGE after an explanation on stderr. c is all zero before. */
NODISCARD int args_parse(struct cli *c, int argc, char **argv);
/* The options that every command takes. */
const struct cli_option *args_globals(size_t *count);

#endif
