/*
 * options - the command line of one subcommand as a table: parsed, explained and checked from it.
 *
 * Forms: `--name value`, `--name=value`, `--flag`. A wrong name is answered with the nearest right
 * one, a wrong value with what is allowed.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "base/check.h"

enum option_kind {
    OPTION_FLAG,     /* bool: true when given */
    OPTION_FLAG_OFF, /* bool: false when given */
    OPTION_U64,      /* uint64_t, 0..max; k and M are 1000 and 1000000 */
    OPTION_MS,       /* uint64_t milliseconds; ms, s, m, h; a bare number is in `bare_ms` units */
    OPTION_NUMBER,   /* double, 0..max */
    OPTION_TEXT,     /* const char * */
    OPTION_CALL,     /* parse(target, text), may be given several times */
};

struct option {
    const char *name;
    enum option_kind kind;
    size_t offset;   /* of the field in the target */
    const char *arg; /* how help names the value */
    const char *help;
    uint64_t max;     /* 0 = none */
    uint64_t bare_ms; /* OPTION_MS: what a bare number counts; 0 = 1000 */
    int (*parse)(void *target, const char *text); /* 0 or -EINVAL */
};

struct option_table {
    const char *command;
    const char *summary;
    const char *example;
    const struct option *options;
    size_t count;
};

enum { OPTIONS_HELP_SHOWN = 1 };

/* argv[0] is the subcommand. 0, OPTIONS_HELP_SHOWN, or -EINVAL after saying on stderr what is
 * wrong. */
NODISCARD int options_parse(const struct option_table *t, int argc, char **argv, void *target);
void options_help(const struct option_table *t);
/* `12`, `12k`, `3M`; kilo is 1000 or 1024. -EINVAL when it is no number. */
NODISCARD int options_count(const char *text, uint64_t kilo, uint64_t *out);

#endif
