/*
 * metrics - Prometheus text exposition of the counters pages, see pages.h.
 *
 * Invariant: all samples of a metric stand together under one HELP and one TYPE line, as the format
 * demands; so the loops run over fields first and over workers second.
 */
#include "master/api/fields.h"
#include "master/api/pages.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Buckets of the page that are exposed: 32 us to 16.8 s by powers of two. */
enum { BUCKET_FIRST = 10, BUCKET_LAST = 48, BUCKET_STEP = 2 };

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_fields(FILE *f, const struct pages *p)
{
    size_t count;
    const struct stats_field *fields = stats_fields(&count);
    for (size_t i = 0; i < count; i++) {
        char name[96];
        (void)snprintf(name, sizeof name, "mochila_%s%s", fields[i].name,
                       fields[i].counter ? "_total" : "");
        head(f, name, fields[i].counter ? "counter" : "gauge", fields[i].help);
        for (unsigned w = 0; w < p->count; w++)
            fprintf(f, "%s{worker=\"%u\"} %" PRIu64 "\n", name, w,
                    stats_field_read(p->page[w], &fields[i]));
    }
}

static void put_workers(FILE *f, const struct pages *p, uint64_t now_ns)
{
    head(f, "mochila_build_info", "gauge", "Always 1; version and node are labels.");
    fprintf(f, "mochila_build_info{version=\"%s\",node=\"%s\"} 1\n", MOCHILA_VERSION, p->node);
    head(f, "mochila_worker_generation", "gauge", "Generation of the configuration in use.");
    for (unsigned w = 0; w < p->count; w++)
        fprintf(f, "mochila_worker_generation{worker=\"%u\"} %" PRIu64 "\n", w,
                LOAD(p->page[w]->generation));
    head(f, "mochila_worker_heartbeat_age_seconds", "gauge",
         "Time since the worker's loop last turned.");
    for (unsigned w = 0; w < p->count; w++) {
        uint64_t beat = LOAD(p->page[w]->heartbeat_ns);
        if (beat == 0)
            continue; /* never started: an age of decades would only raise alarms */
        double age = now_ns > beat ? (double)(now_ns - beat) / 1e9 : 0;
        fprintf(f, "mochila_worker_heartbeat_age_seconds{worker=\"%u\"} %.3f\n", w, age);
    }
}

/*
 * The page keeps buckets and no sum. The format wants one, so it is estimated from the middle of
 * each bucket (they are a factor of 1.41 wide); the help text says so.
 */
static void put_histogram(FILE *f, const struct pages *p, unsigned w)
{
    static const char name[] = "mochila_accept_latency_seconds";
    uint64_t below = 0;
    double sum = 0;

    for (unsigned i = 0; i < ARRAY_COUNT(p->page[w]->accept_us); i++) {
        uint64_t n = LOAD(p->page[w]->accept_us[i]);
        below += n;
        sum += (double)n * exp2((i - 0.5) / 2) / 1e6;
        if (i >= BUCKET_FIRST && i <= BUCKET_LAST && i % BUCKET_STEP == 0)
            fprintf(f, "%s_bucket{worker=\"%u\",le=\"%.9g\"} %" PRIu64 "\n", name, w,
                    exp2(i / 2.0) / 1e6, below);
    }
    fprintf(f, "%s_bucket{worker=\"%u\",le=\"+Inf\"} %" PRIu64 "\n", name, w, below);
    fprintf(f, "%s_sum{worker=\"%u\"} %.6f\n", name, w, sum);
    fprintf(f, "%s_count{worker=\"%u\"} %" PRIu64 "\n", name, w, below);
}

enum lane_field {
    LANE_DELIVERED,
    LANE_DEFERRED,
    LANE_BOUNCED,
    LANE_ATTEMPTS,
    LANE_QUEUED,
    LANE_OPEN
};

static const struct {
    const char *name;
    const char *type;
    const char *help;
} lane_fields[] = {
    [LANE_DELIVERED] = {"mochila_lane_delivered_total", "counter", "Recipients delivered."},
    [LANE_DEFERRED] = {"mochila_lane_deferred_total", "counter", "Attempts deferred."},
    [LANE_BOUNCED] = {"mochila_lane_bounced_total", "counter", "Recipients that failed for good."},
    [LANE_ATTEMPTS] = {"mochila_lane_attempts_total", "counter", "Delivery attempts begun."},
    [LANE_QUEUED] = {"mochila_lane_queued", "gauge", "Recipients in the lane's queue."},
    [LANE_OPEN] = {"mochila_lane_open_out", "gauge", "Open outbound connections."},
};

static uint64_t lane_value(const struct stats_lane *l, enum lane_field field)
{
    switch (field) {
    case LANE_DELIVERED:
        return LOAD(l->delivered);
    case LANE_DEFERRED:
        return LOAD(l->deferred);
    case LANE_BOUNCED:
        return LOAD(l->bounced);
    case LANE_ATTEMPTS:
        return LOAD(l->attempts);
    case LANE_QUEUED:
        return LOAD(l->queued);
    case LANE_OPEN:
        return LOAD(l->open_out);
    }
    return 0;
}

static void put_lanes(FILE *f, const struct pages *p)
{
    for (size_t field = 0; field < ARRAY_COUNT(lane_fields); field++) {
        head(f, lane_fields[field].name, lane_fields[field].type, lane_fields[field].help);
        for (unsigned w = 0; w < p->count; w++) {
            for (unsigned i = 0; i < LIMIT_LANES; i++) {
                const struct stats_lane *l = &p->page[w]->lanes[i];
                uint32_t number = LOAD(l->lane);
                char lane[IP_TEXT];
                if (number == 0)
                    continue;
                pages_lane_text(p, number, lane);
                fprintf(f, "%s{worker=\"%u\",lane=\"%s\"} %" PRIu64 "\n", lane_fields[field].name,
                        w, lane, lane_value(l, (enum lane_field)field));
            }
        }
    }
}

char *pages_metrics(const struct pages *p, uint64_t now_ns, size_t *n)
{
    char *out = NULL;
    FILE *f = open_memstream(&out, n);
    if (f == NULL)
        return NULL;
    put_workers(f, p, now_ns);
    put_fields(f, p);
    head(f, "mochila_accept_latency_seconds", "histogram",
         "Time from the end of data to 250; the sum is estimated from the buckets.");
    for (unsigned w = 0; w < p->count; w++)
        put_histogram(f, p, w);
    put_lanes(f, p);
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        free(out);
        return NULL;
    }
    return out;
}
