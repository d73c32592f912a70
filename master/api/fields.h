/*
 * fields - the names of the counters page, with a sentence for each: from proto/stats.h.
 *
 * `help` is never NULL. A counter that proto/stats.h gained without a sentence here shows its name.
 */
#ifndef API_FIELDS_H
#define API_FIELDS_H

#include "proto/stats.h"

enum { STATS_FIELDS_MAX = 128 };

struct stats_field {
    const char *name;
    const char *help;
    size_t offset; /* of a uint64_t in struct stats_page */
    bool counter;  /* else a gauge */
};

const struct stats_field *stats_fields(size_t *count);
/* One load: the worker may be writing. */
uint64_t stats_field_read(const struct stats_page *page, const struct stats_field *f);

#endif
