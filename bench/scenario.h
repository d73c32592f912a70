/* scenario - the measurements by name, and what the project wants of each, as tables. */
#ifndef BENCH_SCENARIO_H
#define BENCH_SCENARIO_H

#include "bench/source.h"

enum scenario_kind {
    SCENARIO_RELAY,  /* source -> subject -> sink, until all is delivered */
    SCENARIO_ACCEPT, /* delivery held */
    SCENARIO_IDLE,   /* connections that say nothing */
    SCENARIO_HELD,   /* delivery held; memory a message, then restarts with the queue full */
};

struct scenario {
    const char *name;
    const char *title;
    enum scenario_kind kind;
    uint64_t count;
    uint64_t connections;
    const char *sizes;
    enum source_mode mode;
    uint64_t window;
    bool has_peer;   /* Postfix can do the same work */
    const char *set; /* --set for our node, or NULL */
};

/* What a figure should be: at least (more_is_better) or at most. */
struct goal {
    const char *scenario;
    const char *title;
    const char *path; /* in the result of the scenario: "median.mochila.x", "ratio.x" */
    double scale;     /* the figure is the number there times this */
    const char *unit;
    double bar;
    double aim;
    bool more_is_better;
};

const struct scenario *scenario_table(size_t *count);
const struct goal *goal_table(size_t *count);
/* NULL after naming the nearest on stderr. */
const struct scenario *scenario_find(const char *name);
void scenario_list(void);

#endif
