/*
 * source - one configuration as a generation uses it: its text, sealed in a memfd, and what was
 * read from it.
 *
 * Master and children load the same text, so they agree; with `--set` that text is the whole
 * configuration written out.
 */
#ifndef MASTER_SOURCE_H
#define MASTER_SOURCE_H

#include "config/config.h"
#include "master/options.h"

struct source {
    struct config *config;
    char name[256]; /* for messages */
    int fd;         /* sealed memfd with the text */
};

/* 0, or -errno with lines for people in `errors`. */
NODISCARD int source_load(const struct options *o, struct source **out, struct text *errors);
void source_free(struct source **s);

#endif
