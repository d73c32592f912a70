#include "bench/scenario.h"

#include "base/suggest.h"

#include <stdio.h>

/* clang-format off */
static const struct scenario scenarios[] = {
    {"e2e-2k", "end to end, 2 KB",
     SCENARIO_RELAY, 20000, 50, "2k", SOURCE_PIPELINED, 1, true, NULL},
    {"e2e-10k", "end to end, 10 KB",
     SCENARIO_RELAY, 10000, 50, "10k", SOURCE_PIPELINED, 1, true, NULL},
    {"e2e-100k", "end to end, 100 KB",
     SCENARIO_RELAY, 3000, 20, "100k", SOURCE_PIPELINED, 1, true, NULL},
    {"accept-2k", "accept only, 2 KB, delivery held",
     SCENARIO_ACCEPT, 200000, 50, "2k", SOURCE_PIPELINED, 1, false, NULL},
    {"one", "accept only, 2 KB, one connection, pipelined",
     SCENARIO_ACCEPT, 20000, 1, "2k", SOURCE_PIPELINED, 1, false, NULL},
    {"one-chunking", "accept only, 2 KB, one connection, BDAT, 8 under way",
     SCENARIO_ACCEPT, 50000, 1, "2k", SOURCE_CHUNKING, 8, false, NULL},
    {"idle", "idle connections",
     SCENARIO_IDLE, 0, 10000, "2k", SOURCE_PIPELINED, 1, false, NULL},
    {"held", "1,000,000 held, then restarts",
     SCENARIO_HELD, 1000000, 50, "2k", SOURCE_PIPELINED, 1, false, "queue.cache=0"},
};

static const struct goal goals[] = {
    {"e2e-2k", "end to end, 2 KB, against Postfix",
     "ratio.e2e_per_s", 1, "x", 10, 20, true},
    {"e2e-10k", "end to end, 10 KB, against Postfix",
     "ratio.e2e_per_s", 1, "x", 10, 18, true},
    {"e2e-100k", "end to end, 100 KB, against Postfix",
     "ratio.e2e_per_s", 1, "x", 6, 10, true},
    {"e2e-2k", "CPU a 1000 messages, 2 KB",
     "median.mochila.cpu_s_per_1000", 1, "s", 0.15, 0.08, false},
    {"accept-2k", "accept only, 2 KB",
     "median.mochila.accept_per_s", 1, "/s", 20000, 35000, true},
    {"accept-2k", "p99 of accept, 50 connections",
     "median.mochila.accept_p99_us", 1e-3, "ms", 10, 4, false},
    {"one", "one connection, pipelined, accept",
     "median.mochila.accept_per_s", 1, "/s", 3000, 6000, true},
    {"held", "memory a queued message",
     "median.mochila.bytes_per_message", 1, "B", 300, 150, false},
    {"held", "restart with the queue full: serving",
     "median.mochila.restart_serving_s", 1, "s", 2, 1, false},
    {"held", "restart with the queue full: all lanes run",
     "median.mochila.restart_lanes_s", 1, "s", 6, 3, false},
    {"idle", "10,000 idle connections, RSS of the node",
     "median.mochila.rss_peak_bytes", 1e-6, "MB", 400, 150, false},
};
/* clang-format on */

const struct scenario *scenario_table(size_t *count)
{
    *count = ARRAY_COUNT(scenarios);
    return scenarios;
}

const struct goal *goal_table(size_t *count)
{
    *count = ARRAY_COUNT(goals);
    return goals;
}

const struct scenario *scenario_find(const char *name)
{
    const char *names[ARRAY_COUNT(scenarios)];

    for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++) {
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
        names[i] = scenarios[i].name;
    }
    const char *near = suggest_nearest(name, names, ARRAY_COUNT(scenarios));
    fprintf(stderr, "mochila-bench: there is no scenario \"%s\"", name);
    if (near != NULL)
        fprintf(stderr, "; did you mean %s?", near);
    fputc('\n', stderr);
    return NULL;
}

void scenario_list(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++)
        printf("  %-14s %s\n", scenarios[i].name, scenarios[i].title);
}
