/* measure_private - what the kinds of measurement share. */
#ifndef BENCH_MEASURE_PRIVATE_H
#define BENCH_MEASURE_PRIVATE_H

#include "bench/measure.h"
#include "bench/proc_stat.h"
#include "bench/workdir.h"

enum { MEASURE_START_MS = 60000 };

struct measuring {
    const struct measure_options *options;
    const struct scenario *scenario;
    struct subject subject;
    struct source_options *source_options;
    struct sink_options *sink_options;
    struct child source;
    struct child sink;
    struct proc_memory first; /* before the load */
    struct proc_memory peak;
    struct proc_memory last;
    uint64_t start_ns;
    double cpu_first_s;
    double cpu_s;
    double busy_first_s;
    double busy_s;
    double wall_s;
    json_t *sent; /* the source's result */
    json_t *got;  /* the sink's, or NULL */
    json_t *out;
};

/* Takes CPU and memory before the load. */
NODISCARD int measure_before(struct measuring *m);
/* Takes what the load has used. */
void measure_after(struct measuring *m);
void measure_memory(struct measuring *m);
NODISCARD int measure_start_source(struct measuring *m);
/* Waits for a child with memory sampled; -ETIMEDOUT, or -EIO when it failed (unless allowed). */
NODISCARD int measure_wait(struct measuring *m, struct child *c, const char *role, bool may_fail);
void measure_put(struct measuring *m, const char *name, double value);

/* measure_held.c */
NODISCARD int measure_held(struct measuring *m);

#endif
