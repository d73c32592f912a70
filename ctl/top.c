/* top - see top.h. */
#include "ctl/top.h"

#include "ctl/grid.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

static const char *const by_words[] = {
    [TOP_LANE] = "lane", [TOP_SITE] = "site", [TOP_TENANT] = "tenant"};

const char *top_by_word(enum top_by by)
{
    return by_words[by];
}

static double seconds_between(const struct top_frame *f)
{
    if (f->before == NULL)
        return 0;
    return (json_number(f->now, "now_ms", 0) - json_number(f->before, "now_ms", 0)) / 1000;
}

/* Per second; 0 when there is no earlier value, or when the counters began anew. */
static double rate(const json_t *before, const json_t *now, const char *field, double seconds)
{
    double a = json_number(before, field, -1);
    double b = json_number(now, field, 0);
    return a >= 0 && seconds > 0 && b > a ? (b - a) / seconds : 0;
}

double top_quantile(const json_t *before, const json_t *now, double share)
{
    double counts[64];
    double sum = 0;
    size_t n = json_array_size(now);
    if (n > ARRAY_COUNT(counts))
        n = ARRAY_COUNT(counts);
    for (size_t i = 0; i < n; i++) {
        double a = json_number_value(json_array_get(before, i));
        double b = json_number_value(json_array_get(now, i));
        counts[i] = b > a ? b - a : 0;
        sum += counts[i];
    }
    double below = 0;
    for (size_t i = 0; i < n && sum > 0; i++) {
        below += counts[i];
        if (below >= share * sum)
            return exp2((double)i / 2) / 1e6;
    }
    return 0;
}

static void put_pair(const struct view *v, bool first, const char *label, const char *value)
{
    view_fmt(v, "%s%s ", first ? "" : "   ", label);
    view_colour(v, COLOUR_BOLD);
    view_fmt(v, "%s", value);
    view_colour(v, COLOUR_NONE);
}

static void put_rates(const struct view *v, const struct top_frame *f, double seconds)
{
    static const char *const pairs[][2] = {
        {"accept/s", "accepted_recipients"},
        {"deliver/s", "delivered"},
        {"defer/s", "deferred"},
        {"bounce/s", "bounced"},
        {"attempt/s", "attempts"},
        {"reject/s", "rejected_recipients"},
    };
    const json_t *a = json_object_get(f->before, "total");
    const json_t *b = json_object_get(f->now, "total");
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++) {
        char number[VIEW_NUMBER_BYTES];
        put_pair(v, i == 0, pairs[i][0], unit_rate(rate(a, b, pairs[i][1], seconds), number));
    }
    view_fmt(v, "\n");
}

static void put_gauges(const struct view *v, const struct top_frame *f)
{
    static const char *const pairs[][2] = {
        {"queued", "queued"}, {"ready", "ready"},         {"waiting", "waiting"},
        {"held", "held"},     {"in flight", "in_flight"}, {"bounce due", "bounce_due"},
        {"parked", "parked"},
    };
    const json_t *total = json_object_get(f->now, "total");
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++) {
        char number[VIEW_NUMBER_BYTES];
        put_pair(v, i == 0, pairs[i][0], unit_count(json_number(total, pairs[i][1], 0), number));
    }
    view_fmt(v, "\n");
}

static void put_machine(const struct view *v, const struct top_frame *f, double seconds)
{
    const json_t *a = json_object_get(f->before, "total");
    const json_t *b = json_object_get(f->now, "total");
    const json_t *x = json_object_get(f->before, "accept_us");
    const json_t *y = json_object_get(f->now, "accept_us");
    char number[VIEW_NUMBER_BYTES];
    char latency[VIEW_NUMBER_BYTES];

    put_pair(v, true, "in", unit_count(json_number(b, "open_in", 0), number));
    put_pair(v, false, "out", unit_count(json_number(b, "open_out", 0), number));
    double p50 = top_quantile(x, y, 0.5);
    double p99 = top_quantile(x, y, 0.99);
    if (p99 > 0)
        (void)snprintf(latency, sizeof latency, "%.1f/%.1f ms", 1000 * p50, 1000 * p99);
    else
        (void)snprintf(latency, sizeof latency, "-");
    put_pair(v, false, "accept p50/p99", latency);
    put_pair(v, false, "commit/s", unit_rate(rate(a, b, "commits", seconds), number));
    put_pair(v, false, "written/s", unit_bytes(rate(a, b, "commit_bytes", seconds), number));
    put_pair(v, false, "spool", unit_bytes(json_number(b, "spool_live_bytes", 0), number));
    view_fmt(v, "\n");
}

static const json_t *worker_before(const struct top_frame *f, const json_t *worker)
{
    const json_t *list = json_object_get(f->before, "workers");
    size_t i;
    const json_t *w;
    json_array_foreach(list, i, w)
    {
        if (json_number(w, "slot", -1) == json_number(worker, "slot", -2))
            return json_object_get(w, "values");
    }
    return NULL;
}

static const struct grid_column worker_columns[] = {
    {"WORKER", "slot", GRID_COUNT, GRID_FIXED},
    {"PID", "pid", GRID_TEXT, GRID_FIXED},
    {"ACCEPT/S", "accept", GRID_RATE, GRID_FIXED},
    {"DELIVER/S", "deliver", GRID_RATE, GRID_FIXED},
    {"DEFER/S", "defer", GRID_RATE, GRID_FIXED},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"IN FLIGHT", "in_flight", GRID_COUNT, GRID_FIXED},
    {"IN", "open_in", GRID_COUNT, GRID_FIXED},
    {"OUT", "open_out", GRID_COUNT, GRID_FIXED},
    {"COMMIT/S", "commits", GRID_RATE, GRID_FIXED},
    {"TURN/S", "turns", GRID_RATE, GRID_FIXED},
    {"SILENT", "silent", GRID_SECONDS, GRID_OPTIONAL},
};

static json_t *worker_rows(const struct top_frame *f, double seconds)
{
    json_t *rows = json_array();
    size_t i;
    const json_t *w;
    json_array_foreach(json_object_get(f->now, "workers"), i, w)
    {
        const json_t *b = json_object_get(w, "values");
        const json_t *a = worker_before(f, w);
        double silent = json_number(w, "heartbeat_age_ms", 0) / 1000;
        (void)json_array_append_new(
            rows, json_pack("{s:O?, s:O?, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                            "slot", json_object_get(w, "slot"), "pid", json_object_get(w, "pid"),
                            "accept", rate(a, b, "accepted_recipients", seconds), "deliver",
                            rate(a, b, "delivered", seconds), "defer",
                            rate(a, b, "deferred", seconds), "queued", json_number(b, "queued", 0),
                            "in_flight", json_number(b, "in_flight", 0), "open_in",
                            json_number(b, "open_in", 0), "open_out", json_number(b, "open_out", 0),
                            "commits", rate(a, b, "commits", seconds), "turns",
                            rate(a, b, "turns", seconds), "silent", silent > 2 ? silent : 0.0));
    }
    return rows;
}

static const struct grid_column lane_columns[] = {
    {"LANE", "lane", GRID_TEXT, GRID_FIXED},
    {"WORKER", "worker", GRID_COUNT, GRID_FIXED},
    {"DELIVER/S", "deliver", GRID_RATE, GRID_FIXED},
    {"DEFER/S", "defer", GRID_RATE, GRID_FIXED},
    {"BOUNCE/S", "bounce", GRID_RATE, GRID_FIXED},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"CONNECTIONS", "open_out", GRID_COUNT, GRID_FIXED},
    {"DELIVERED", "delivered", GRID_COUNT, GRID_FIXED},
};

/* {"number:worker": lane} of the earlier sample: 4,096 lanes are too many to search per lane. */
static json_t *index_lanes(const json_t *stats)
{
    json_t *index = json_object();
    size_t i;
    json_t *lane;
    json_array_foreach(json_object_get(stats, "lanes"), i, lane)
    {
        char key[64];
        (void)snprintf(key, sizeof key, "%.0f:%.0f", json_number(lane, "number", 0),
                       json_number(lane, "worker", 0));
        (void)json_object_set(index, key, lane);
    }
    return index;
}

/* Most delivered per second first, then the longest queue. */
static int busiest_first(const void *a, const void *b)
{
    static const char *const fields[] = {"deliver", "queued", "delivered"};
    const json_t *x = *(json_t *const *)a;
    const json_t *y = *(json_t *const *)b;
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        double p = json_number(x, fields[i], 0);
        double q = json_number(y, fields[i], 0);
        if (p > q || p < q)
            return p > q ? -1 : 1;
    }
    return strcmp(json_word(x, "lane", ""), json_word(y, "lane", ""));
}

static json_t *lane_rows(const struct top_frame *f, double seconds, size_t limit)
{
    const json_t *lanes = json_object_get(f->now, "lanes");
    size_t n = json_array_size(lanes);
    json_t *index = index_lanes(f->before);
    json_t **list = calloc(n > 0 ? n : 1, sizeof(json_t *));
    json_t *rows = json_array();
    size_t i;
    json_t *b;

    MUST(list != NULL);
    json_array_foreach(lanes, i, b)
    {
        char key[64];
        (void)snprintf(key, sizeof key, "%.0f:%.0f", json_number(b, "number", 0),
                       json_number(b, "worker", 0));
        const json_t *a = json_object_get(index, key);
        list[i] = json_pack(
            "{s:O?, s:O?, s:f, s:f, s:f, s:f, s:f, s:f}", "lane", json_object_get(b, "lane"),
            "worker", json_object_get(b, "worker"), "deliver", rate(a, b, "delivered", seconds),
            "defer", rate(a, b, "deferred", seconds), "bounce", rate(a, b, "bounced", seconds),
            "queued", json_number(b, "queued", 0), "open_out", json_number(b, "open_out", 0),
            "delivered", json_number(b, "delivered", 0));
        MUST(list[i] != NULL);
    }
    qsort(list, n, sizeof(json_t *), busiest_first);
    for (i = 0; i < n; i++) {
        if (i < limit)
            (void)json_array_append(rows, list[i]);
        json_decref(list[i]);
    }
    free(list);
    json_decref(index);
    return rows;
}

static const struct grid_column group_columns[] = {
    {"", "key", GRID_TEXT, GRID_FLEX},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"READY", "ready", GRID_COUNT, GRID_FIXED},
    {"WAITING", "waiting", GRID_COUNT, GRID_FIXED},
    {"HELD", "held", GRID_COUNT, GRID_OPTIONAL},
    {"IN FLIGHT", "in_flight", GRID_COUNT, GRID_FIXED},
    {"OLDEST", "oldest_s", GRID_SECONDS, GRID_FIXED},
    {"REASONS", "reasons", GRID_REASONS, GRID_FLEX},
};

static void put_groups(const struct view *v, const struct top_frame *f, size_t limit)
{
    struct grid_column columns[ARRAY_COUNT(group_columns)];
    const json_t *all = json_object_get(f->queue, "rows");
    json_t *rows = json_array();
    size_t i;
    json_t *row;

    json_array_foreach(all, i, row)
    {
        if (i < limit)
            (void)json_array_append(rows, row);
    }
    memcpy(columns, group_columns, sizeof columns);
    columns[0].title = f->by == TOP_TENANT ? "TENANT" : "SITE";
    if (json_array_size(rows) > 0)
        view_fmt(v, "\n");
    (void)grid_print(v, columns, ARRAY_COUNT(columns), rows);
    json_decref(rows);
}

static void put_head(const struct view *v, const struct top_frame *f)
{
    char clock[16] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (localtime_r(&now, &tm) != NULL)
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    view_fmt(v, "mochila top   node ");
    view_put(v, json_word(f->now, "node", "?"));
    view_fmt(v, "   %s%s\n", clock, f->rows > 0 ? "   q quit   l lanes   s sites   t tenants" : "");
}

void top_draw(const struct view *v, const struct top_frame *f)
{
    enum { HEAD_LINES = 5, TABLE_EXTRA = 2 };
    double seconds = seconds_between(f);
    json_t *workers = worker_rows(f, seconds);
    size_t left = 2 * TOP_ROWS;

    if (f->rows > 0) {
        size_t used = HEAD_LINES + TABLE_EXTRA + json_array_size(workers) + TABLE_EXTRA;
        left = f->rows > used ? f->rows - used : 0;
    }
    put_head(v, f);
    put_rates(v, f, seconds);
    put_gauges(v, f);
    put_machine(v, f, seconds);
    view_fmt(v, "\n");
    (void)grid_print(v, worker_columns, ARRAY_COUNT(worker_columns), workers);
    /* Lanes fill the screen alone, or take at most the half of what the groups leave. */
    size_t lanes_max = f->by == TOP_LANE ? left : left / 2;
    json_t *lanes = lane_rows(f, seconds, lanes_max);
    if (json_array_size(lanes) > 0)
        view_fmt(v, "\n");
    (void)grid_print(v, lane_columns, ARRAY_COUNT(lane_columns), lanes);
    size_t shown = json_array_size(lanes);
    if (f->by != TOP_LANE && left > shown + TABLE_EXTRA)
        put_groups(v, f, f->rows > 0 ? left - shown - TABLE_EXTRA : TOP_ROWS);
    json_decref(lanes);
    json_decref(workers);
}
