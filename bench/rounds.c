#include "bench/rounds.h"

#include "bench/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS_MAX = 100, DISTURBED_PERCENT = 15 };

struct figure {
    const char *name; /* in the result */
    const char *title;
    double scale;
    int decimals;
    int better; /* 1 = more is, -1 = less is, 0 = no ratio */
};

static const struct figure figures[] = {
    {"accepted", "accepted", 1, 0, 0},
    {"delivered", "delivered", 1, 0, 0},
    {"lost", "lost", 1, 0, 0},
    {"duplicated", "duplicated", 1, 0, 0},
    {"ledger_accepted", "ledger: accepted", 1, 0, 0},
    {"ledger_delivered", "ledger: delivered", 1, 0, 0},
    {"ledger_queued", "ledger: queued", 1, 0, 0},
    {"ledger_balance", "ledger: balance", 1, 0, 0},
    {"up", "connections up", 1, 0, 0},
    {"accept_per_s", "accept/s", 1, 0, 1},
    {"e2e_per_s", "end to end/s", 1, 0, 1},
    {"accept_p50_us", "accept p50 ms", 1e-3, 2, -1},
    {"accept_p99_us", "accept p99 ms", 1e-3, 2, -1},
    {"accept_max_us", "accept max ms", 1e-3, 2, 0},
    {"e2e_p50_us", "end to end p50 ms", 1e-3, 2, -1},
    {"e2e_p99_us", "end to end p99 ms", 1e-3, 2, -1},
    {"cpu_s_per_1000", "CPU s a 1000", 1, 3, -1},
    {"rss_peak_bytes", "RSS peak MB", 1e-6, 1, -1},
    {"pss_peak_bytes", "PSS peak MB", 1e-6, 1, -1},
    {"processes", "processes", 1, 0, 0},
    {"bytes_per_message", "RSS bytes a message", 1, 0, 0},
    {"pss_bytes_per_message", "PSS bytes a message", 1, 0, 0},
    {"restart_serving_s", "restart: serving s", 1, 2, 0},
    {"restart_lanes_s", "restart: all lanes s", 1, 2, 0},
    {"recovery_serving_s", "after SIGKILL: serving s", 1, 2, 0},
    {"recovery_lanes_s", "after SIGKILL: all lanes s", 1, 2, 0},
    {"others_percent", "others % of CPU", 1, 1, 0},
};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The lower median, so that it is always a measured value. False when no round has the figure. */
static bool median(const json_t *rounds, const char *subject, const char *name, double *out)
{
    double values[ROUNDS_MAX];
    size_t n = 0;
    size_t i;
    json_t *round;

    json_array_foreach((json_t *)(uintptr_t)rounds, i, round)
    {
        const char *whose = json_string_value(json_object_get(round, "subject"));
        const json_t *value = json_object_get(round, name);
        if (value != NULL && whose != NULL && strcmp(whose, subject) == 0 && n < ROUNDS_MAX)
            values[n++] = json_number_value(value);
    }
    if (n == 0)
        return false;
    qsort(values, n, sizeof values[0], ascending);
    *out = values[(n - 1) / 2];
    return true;
}

static json_t *medians(const json_t *rounds, const char *subject)
{
    json_t *o = json_object();
    double value;

    for (size_t i = 0; i < ARRAY_COUNT(figures); i++)
        if (median(rounds, subject, figures[i].name, &value))
            json_object_set_new(o, figures[i].name, json_real(value));
    return o;
}

static json_t *ratios(const json_t *ours, const json_t *peers)
{
    json_t *o = json_object();

    for (size_t i = 0; i < ARRAY_COUNT(figures); i++) {
        double a = report_number(ours, figures[i].name);
        double b = report_number(peers, figures[i].name);
        if (figures[i].better == 0 || a <= 0 || b <= 0)
            continue;
        json_object_set_new(o, figures[i].name, json_real(figures[i].better > 0 ? a / b : b / a));
    }
    return o;
}

static json_t *conclude(const struct scenario *s, json_t *rounds, unsigned subjects)
{
    json_t *o = json_object();
    json_t *all = json_object();
    json_t *ours = medians(rounds, subject_name(SUBJECT_NODE));
    json_t *peers = medians(rounds, subject_name(SUBJECT_POSTFIX));

    json_object_set_new(o, "scenario", json_string(s->name));
    json_object_set_new(o, "title", json_string(s->title));
    json_object_set(o, "rounds", rounds);
    if (subjects == ROUNDS_BOTH)
        json_object_set_new(o, "ratio", ratios(ours, peers));
    if ((subjects & ROUNDS_NODE) != 0)
        json_object_set(all, subject_name(SUBJECT_NODE), ours);
    if ((subjects & ROUNDS_POSTFIX) != 0)
        json_object_set(all, subject_name(SUBJECT_POSTFIX), peers);
    json_object_set_new(o, "median", all);
    json_decref(ours);
    json_decref(peers);
    return o;
}

static int one(const struct measure_options *o, enum subject_kind kind, json_t *rounds)
{
    json_t *result = NULL;

    fprintf(stderr, "%s: %s\n", o->scenario->name, subject_name(kind));
    int rc = measure(o, kind, &result);
    if (rc < 0)
        return rc;
    if (report_number(result, "others_percent") > DISTURBED_PERCENT)
        fprintf(stderr, "%s: disturbed: others used %.0f %% of the machine\n", o->scenario->name,
                report_number(result, "others_percent"));
    return json_array_append_new(rounds, result) == 0 ? 0 : -ENOMEM;
}

int rounds_run(const struct measure_options *o, uint64_t rounds, unsigned subjects, json_t **out)
{
    json_t *all = json_array();
    int rc = rounds >= 1 && rounds <= ROUNDS_MAX ? 0 : -EINVAL;

    for (uint64_t i = 0; i < rounds && rc == 0; i++) {
        if ((subjects & ROUNDS_NODE) != 0)
            rc = one(o, SUBJECT_NODE, all);
        if (rc == 0 && (subjects & ROUNDS_POSTFIX) != 0)
            rc = one(o, SUBJECT_POSTFIX, all);
    }
    if (rc == 0)
        *out = conclude(o->scenario, all, subjects);
    json_decref(all);
    return rc;
}

/* Balanced, and not less than the source has been told. */
static bool ledger_fits(const json_t *round)
{
    double balance = report_number(round, "ledger_balance");

    if (json_object_get(round, "ledger_accepted") == NULL)
        return true;
    return !(balance > 0 || balance < 0) &&
           report_number(round, "ledger_accepted") >= report_number(round, "accepted");
}

bool rounds_are_clean(const json_t *result)
{
    json_t *rounds = json_object_get(result, "rounds");
    size_t i;
    json_t *round;

    json_array_foreach(rounds, i, round)
    {
        const char *whose = json_string_value(json_object_get(round, "subject"));
        if (whose == NULL || strcmp(whose, subject_name(SUBJECT_NODE)) != 0)
            continue;
        if (report_number(round, "lost") > 0 || report_number(round, "duplicated") > 0)
            return false;
        if (!ledger_fits(round))
            return false;
    }
    return true;
}

static void print_cell(const json_t *o, const struct figure *f)
{
    if (json_object_get(o, f->name) == NULL)
        printf(" %12s", "");
    else
        printf(" %12.*f", f->decimals, report_number(o, f->name) * f->scale);
}

/* Of the last round: which client addresses the sink has seen. */
static void print_sources(const json_t *result)
{
    json_t *rounds = json_object_get(result, "rounds");
    json_t *sources = json_object_get(json_array_get(rounds, 0), "sources");
    const char *ip;
    json_t *o;

    if (sources == NULL)
        return;
    printf("\n%-28s %12s %12s\n", "seen by the sink from", "recipients", "connections");
    json_object_foreach(sources, ip, o)
        printf("%-28s %12.0f %12.0f\n", ip, report_number(o, "recipients"),
               report_number(o, "connections"));
}

static void print_head(const json_t *result, const json_t *all)
{
    const char *subject;
    json_t *o;

    printf("\n%s: medians of %zu measurements\n%-28s",
           json_string_value(json_object_get(result, "title")),
           json_array_size(json_object_get(result, "rounds")), "");
    json_object_foreach((json_t *)(uintptr_t)all, subject, o) printf(" %12s", subject);
    if (json_object_get(result, "ratio") != NULL)
        printf(" %12s", "times better");
    printf("\n");
}

void rounds_print(const json_t *result)
{
    const json_t *all = json_object_get(result, "median");
    const json_t *ratio = json_object_get(result, "ratio");
    const char *subject;
    json_t *o;

    print_head(result, all);
    for (size_t i = 0; i < ARRAY_COUNT(figures); i++) {
        struct figure times = figures[i];
        bool is_there = false;
        json_object_foreach((json_t *)(uintptr_t)all, subject, o) is_there =
            is_there || json_object_get(o, times.name) != NULL;
        if (!is_there)
            continue;
        printf("%-28s", times.title);
        json_object_foreach((json_t *)(uintptr_t)all, subject, o) print_cell(o, &figures[i]);
        times.scale = 1;
        times.decimals = 1;
        if (ratio != NULL)
            print_cell(ratio, &times);
        printf("\n");
    }
    print_sources(result);
}
