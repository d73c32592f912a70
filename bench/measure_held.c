/* A full queue: what a message costs in memory, and how long restarts take. */
#include "bench/measure_private.h"

#include "bench/timer.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

enum { SETTLE_S = 2, LANES_MS = 60000 };

static double seconds_since(uint64_t start_ns)
{
    return (double)(now_ns() - start_ns) / 1e9;
}

static void put_growth(struct measuring *m)
{
    double count = (double)m->source_options->count;
    double rss = (double)m->last.rss_bytes - (double)m->first.rss_bytes;
    double pss = (double)m->last.pss_bytes - (double)m->first.pss_bytes;

    measure_put(m, "bytes_per_message", rss / count);
    measure_put(m, "pss_bytes_per_message", pss / count);
}

/* Starts the stopped subject again; figures get the given names. */
static int restart(struct measuring *m, const char *serving, const char *lanes)
{
    uint64_t start_ns = now_ns();
    int rc = subject_start(&m->subject, MEASURE_START_MS);

    if (rc < 0)
        return rc;
    measure_put(m, serving, seconds_since(start_ns));
    rc = node_wait_lanes(&m->subject, m->source_options->count, LANES_MS);
    if (rc == 0)
        measure_put(m, lanes, seconds_since(start_ns));
    else
        fprintf(stderr, "mochila-bench: the lanes do not hold all mail after the restart: %s\n",
                strerror(-rc));
    return rc;
}

int measure_held(struct measuring *m)
{
    struct timespec settle = {SETTLE_S, 0};
    int rc = subject_start(&m->subject, MEASURE_START_MS);

    if (rc == 0)
        rc = measure_before(m);
    if (rc == 0)
        rc = measure_start_source(m);
    if (rc == 0)
        rc = measure_wait(m, &m->source, "source", false);
    if (rc < 0)
        return rc;
    nanosleep(&settle, NULL);
    measure_after(m);
    put_growth(m);
    subject_stop(&m->subject);
    rc = restart(m, "restart_serving_s", "restart_lanes_s");
    if (rc < 0)
        return rc;
    subject_kill(&m->subject);
    return restart(m, "recovery_serving_s", "recovery_lanes_s");
}
