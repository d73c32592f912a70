/*
 * verb - the words of the admin API, as the api process and the command line agree on them.
 *
 * One table: who answers, whether it changes something (POST), which arguments it takes. An unknown
 * argument is an error and never ignored: a mistyped filter of `delete` would delete everything.
 */
#ifndef PROTO_VERB_H
#define PROTO_VERB_H

#include "base/span.h"

enum verb_scope {
    VERB_MASTER,  /* the master's own objects */
    VERB_WORKERS, /* asked of every worker, answers are merged */
    VERB_API      /* answered by the api process from counters pages and event files */
};
enum { VERB_ARGS_MAX = 16, VERB_LIMIT_PRESET = 100, VERB_LIMIT_MAX = 10000 };

struct verb {
    const char *name;
    enum verb_scope scope;
    bool changes;        /* POST; the others are GET */
    bool needs_a_filter; /* refused without any filter unless all=1 is said */
    bool sums;           /* numbers at the top of the workers' answers are added up */
    unsigned seconds;    /* answered within this time, plus the argument `seconds` if given */
    const char *args[VERB_ARGS_MAX];     /* NULL-ended */
    const char *required[VERB_ARGS_MAX]; /* NULL-ended */
};

/* The whole table. */
const struct verb *verb_table(size_t *count);
/* NULL when there is no such verb. */
const struct verb *verb_find(const char *name);
/* The verb nearest to a mistyped one, or NULL. */
const char *verb_suggest(const char *name);
/* True when the verb takes an argument of this name. */
bool verb_takes(const struct verb *v, const char *arg);
/* True for the arguments that select queue entries (lane, site, ...), of which one is enough. */
bool verb_arg_is_filter(const char *arg);

#endif
