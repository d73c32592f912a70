/* options - the command line of mochilad; nothing else reads argv. */
#ifndef MASTER_OPTIONS_H
#define MASTER_OPTIONS_H

#include "base/text.h"

enum { OPTIONS_SETS_MAX = 64 };

enum options_action { OPTIONS_RUN, OPTIONS_CHECK, OPTIONS_VERSION, OPTIONS_HELP };

struct options {
    enum options_action action;
    const char *file;                   /* NULL: the built-in configuration */
    const char *sets[OPTIONS_SETS_MAX]; /* "key=value", over what the file says */
    unsigned set_count;
    bool allow_volatile_spool;
    /* For tests only. */
    const char *worker, *api; /* other programs for the children; api "none": no api */
    uint32_t ready_ms;        /* 0 = as in supervise.h */
    uint32_t silence_ms;      /* 0 = as in watch.h */
};

/* 0, or -EINVAL with one line in errors. Keeps pointers into argv. */
NODISCARD int options_parse(int argc, char **argv, struct options *out, struct text *errors);
const char *options_help(void);

#endif
