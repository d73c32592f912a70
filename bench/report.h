/* report - results as JSON and as progress lines. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/histogram.h"

#include <jansson.h>

/* {"count", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"} */
json_t *report_latency(const struct histogram *h);
/* Writes to FILE, or stdout for "-"; steals the reference. 0 or -errno after saying why. */
NODISCARD int report_write(json_t *result, const char *path);
/* A file written by report_write, or NULL after saying why. */
json_t *report_read(const char *path);
/* Numbers out of nested objects: "latency.p99_us"; 0 when there is none. */
double report_number(const json_t *o, const char *path);

/* One line: rewritten in place on a terminal, else one every few seconds. */
struct progress {
    uint64_t next_ns;
    uint64_t step_ns;
    bool is_tty;
    bool is_shown;
};
void progress_init(struct progress *p, bool quiet, uint64_t at_ns);
/* True when it is time for a line. */
bool progress_due(struct progress *p, uint64_t at_ns);
void progress_line(struct progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
void progress_end(struct progress *p);

#endif
