/*
 * measure - one measurement of one subject: directory, sink, subject, load, figures, clean-up.
 *
 * Output: a flat JSON object; see measure.c for its names. Times are seconds or microseconds and
 * memory is bytes, as the names say.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "bench/scenario.h"
#include "bench/subject.h"

struct measure_options {
    const struct scenario *scenario;
    const char *dir; /* where working directories are made: the file system under test */
    /* In place of the scenario's own; 0 or NULL = the scenario's. */
    uint64_t count;
    uint64_t connections;
    uint64_t rcpts;
    uint64_t domains;
    const char *sizes;
    uint64_t timeout_ms;
    uint64_t lanes;
    uint64_t workers;
    const char *sets[SUBJECT_SET_MAX];
    uint32_t set_count;
    const char *config; /* with listen and sink given */
    struct endpoint listen;
    struct endpoint sink;
    bool keep;
    bool quiet;
};

void measure_options_init(struct measure_options *o);
/* 0 and *out (the caller's), or -errno after saying why. */
NODISCARD int measure(const struct measure_options *o, enum subject_kind kind, json_t **out);

#endif
