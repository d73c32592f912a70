#include "bench/figures.h"

#include "bench/machine.h"
#include "bench/report.h"
#include "bench/rounds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LONG_ROUNDS = 1 };

static bool peer_is_here(void)
{
    return geteuid() == 0 && access("/usr/lib/postfix/sbin/master", X_OK) == 0;
}

/* A million messages take a while, and their figures hardly move: one round. */
static uint64_t rounds_of(const struct scenario *s, uint64_t rounds)
{
    return s->kind == SCENARIO_HELD || s->kind == SCENARIO_IDLE ? LONG_ROUNDS : rounds;
}

static json_t *measure_all(const struct measure_options *given, uint64_t rounds, int *rc)
{
    struct measure_options o = *given;
    json_t *all = json_object();
    size_t count;
    const struct scenario *s = scenario_table(&count);

    for (size_t i = 0; i < count; i++) {
        json_t *result = NULL;
        o.scenario = &s[i];
        unsigned subjects = s[i].has_peer && peer_is_here() ? ROUNDS_BOTH : ROUNDS_NODE;
        if (rounds_run(&o, rounds_of(&s[i], rounds), subjects, &result) < 0) {
            fprintf(stderr, "%s: failed\n", s[i].name);
            *rc = -EIO;
            continue;
        }
        if (!rounds_are_clean(result))
            *rc = -EIO;
        rounds_print(result);
        fflush(stdout);
        json_object_set_new(all, s[i].name, result);
    }
    return all;
}

static void write_head(FILE *f, const struct measure_options *o, uint64_t rounds)
{
    struct machine m;

    machine_describe(&m, o->dir);
    fprintf(f, "# mochila %s: figures\n\n", MOCHILA_VERSION);
    fprintf(f, "%s. %ld cores (%s), %.0f GB, %s. Spool on %s.\n", m.date, m.cores, m.cpu,
            m.memory_gb, m.kernel, m.file_system);
    fprintf(f, "Commit mode: durable (a 250 leaves after its commit is on disk; Postfix: after"
               " fsync of the queue file).\n");
    fprintf(f,
            "Generator, sink and MTA share the machine, over loopback. Medians of %llu rounds,"
            " the node and Postfix in turn\nin each round; held and idle: one round.%s\n\n",
            (unsigned long long)rounds,
            peer_is_here() ? "" : " Postfix was not at hand: no ratios.");
}

/* Whether a path leads to a number. */
static bool lookup(const json_t *all, const struct goal *g, double *out)
{
    json_t *result = json_object_get(all, g->scenario);

    *out = report_number(result, g->path) * g->scale;
    return result != NULL && *out > 0;
}

static const char *judge(const struct goal *g, double value)
{
    bool meets_aim = g->more_is_better ? value >= g->aim : value <= g->aim;
    bool meets_bar = g->more_is_better ? value >= g->bar : value <= g->bar;

    return meets_aim ? "aim" : meets_bar ? "bar" : "**missed**";
}

static void write_goals(FILE *f, const json_t *all)
{
    size_t count;
    const struct goal *g = goal_table(&count);
    double value;

    fprintf(f, "| goal | bar | aim | measured | reached |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        fprintf(f, "| %s | %g %s | %g %s |", g[i].title, g[i].bar, g[i].unit, g[i].aim, g[i].unit);
        if (lookup(all, &g[i], &value))
            fprintf(f, " %.*f %s | %s |\n", value < 100 ? 2 : 0, value, g[i].unit,
                    judge(&g[i], value));
        else
            fprintf(f, " - | not measured |\n");
    }
}

static const struct {
    const char *name;
    const char *title;
    double scale;
    int decimals;
} columns[] = {
    {"accept_per_s", "accept/s", 1, 0},
    {"e2e_per_s", "e2e/s", 1, 0},
    {"cpu_s_per_1000", "CPU s/1000", 1, 3},
    {"accept_p50_us", "accept p50 ms", 1e-3, 2},
    {"accept_p99_us", "accept p99 ms", 1e-3, 2},
    {"e2e_p50_us", "e2e p50 ms", 1e-3, 2},
    {"rss_peak_bytes", "RSS MB", 1e-6, 0},
    {"pss_peak_bytes", "PSS MB", 1e-6, 0},
    {"lost", "lost", 1, 0},
    {"duplicated", "dup", 1, 0},
    {"others_percent", "others %", 1, 0},
};

static void write_medians(FILE *f, const json_t *result)
{
    const char *subject;
    json_t *o;

    json_object_foreach(json_object_get(result, "median"), subject, o)
    {
        fprintf(f, "| %s | %s |", json_string_value(json_object_get(result, "scenario")), subject);
        for (size_t i = 0; i < ARRAY_COUNT(columns); i++) {
            if (json_object_get(o, columns[i].name) == NULL)
                fprintf(f, " - |");
            else
                fprintf(f, " %.*f |", columns[i].decimals,
                        report_number(o, columns[i].name) * columns[i].scale);
        }
        fprintf(f, "\n");
    }
}

static void write_details(FILE *f, const json_t *all)
{
    const char *name;
    json_t *result;

    fprintf(f, "\n| scenario | |");
    for (size_t i = 0; i < ARRAY_COUNT(columns); i++)
        fprintf(f, " %s |", columns[i].title);
    fprintf(f, "\n|---|---|");
    for (size_t i = 0; i < ARRAY_COUNT(columns); i++)
        fprintf(f, "---|");
    fprintf(f, "\n");
    json_object_foreach((json_t *)(uintptr_t)all, name, result) write_medians(f, result);
    fprintf(f, "\nRead ratios, not absolutes: \"others\" is what else ran on the machine.\n");
}

int figures_write(const struct measure_options *o, uint64_t rounds, const char *path)
{
    int rc = 0;
    FILE *f = path != NULL ? fopen(path, "we") : stdout;

    if (f == NULL) {
        fprintf(stderr, "mochila-bench figures: %s: %s\n", path, strerror(errno));
        return -errno;
    }
    json_t *all = measure_all(o, rounds, &rc);
    write_head(f, o, rounds);
    write_goals(f, all);
    write_details(f, all);
    json_decref(all);
    if (path != NULL && fclose(f) != 0)
        rc = -errno;
    return rc;
}
