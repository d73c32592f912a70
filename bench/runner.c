#include "bench/runner.h"

#include "bench/figures.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/rounds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct runner_options {
    struct measure_options measure; /* first: set_* work on it */
    uint64_t rounds;
    const char *scenario;
    const char *json;
    const char *out;
    bool list;
    unsigned subjects; /* ROUNDS_* */
};

static int set_set(void *target, const char *text)
{
    struct runner_options *o = target;

    if (strchr(text, '=') == NULL || o->measure.set_count == SUBJECT_SET_MAX - 1)
        return -EINVAL;
    o->measure.sets[o->measure.set_count++] = text;
    return 0;
}

static int set_to(void *target, const char *text)
{
    return endpoint_parse(span_str(text), &((struct runner_options *)target)->measure.listen);
}

static int set_sink(void *target, const char *text)
{
    return endpoint_parse(span_str(text), &((struct runner_options *)target)->measure.sink);
}

static int set_subject(void *target, const char *text)
{
    struct runner_options *o = target;

    if (strcmp(text, subject_name(SUBJECT_NODE)) == 0)
        o->subjects = ROUNDS_NODE;
    else if (strcmp(text, subject_name(SUBJECT_POSTFIX)) == 0)
        o->subjects = ROUNDS_POSTFIX;
    else
        return -EINVAL;
    return 0;
}

#define FIELD(f)   offsetof(struct runner_options, f)
#define MEASURE(f) offsetof(struct runner_options, measure.f)
/* clang-format off */
static const struct option options[] = {
    {"scenario", OPTION_TEXT, FIELD(scenario), "NAME", .help = "what to measure (e2e-2k); --list"},
    {"list", OPTION_FLAG, FIELD(list), NULL, .help = "the scenarios"},
    {"subject", OPTION_CALL, 0, "NAME", .help = "only this one: mochila or postfix",
     .parse = set_subject},
    {"rounds", OPTION_U64, FIELD(rounds), "N", .help = "measurements of each (1; compare: 3)",
     .max = 100},
    {"dir", OPTION_TEXT, MEASURE(dir), "DIR",
     .help = "file system to measure on (/var/tmp); a directory is made there and removed"},
    {"count", OPTION_U64, MEASURE(count), "N", .help = "messages", .max = UINT32_MAX},
    {"connections", OPTION_U64, MEASURE(connections), "N", .help = "of the source",
     .max = SOURCE_CONNECTION_MAX},
    {"rcpts", OPTION_U64, MEASURE(rcpts), "N", .help = "recipients of a message", .max = 128},
    {"domains", OPTION_U64, MEASURE(domains), "N", .help = "recipient domains (100)"},
    {"size", OPTION_TEXT, MEASURE(sizes), "LIST", .help = "of a message"},
    {"workers", OPTION_U64, MEASURE(workers), "N", .help = "of our node (one a core)", .max = 64},
    {"lanes", OPTION_U64, MEASURE(lanes), "N", .help = "of our node (8)", .max = 1000},
    {"set", OPTION_CALL, 0, "KEY=VALUE",
     .help = "a key of our node's configuration; several times", .parse = set_set},
    {"config", OPTION_TEXT, MEASURE(config), "FILE",
     .help = "configuration of our node in place of the generated one; with --to and --sink"},
    {"to", OPTION_CALL, 0, "HOST:PORT", .help = "with --config: where it listens",
     .parse = set_to},
    {"sink", OPTION_CALL, 0, "HOST:PORT", .help = "with --config: where it delivers to",
     .parse = set_sink},
    {"timeout", OPTION_MS, MEASURE(timeout_ms), "TIME", .help = "of one measurement (10m)"},
    {"json", OPTION_TEXT, FIELD(json), "FILE", .help = "all rounds, medians, ratios; - for stdout"},
    {"out", OPTION_TEXT, FIELD(out), "FILE", .help = "figures: the table as Markdown (stdout)"},
    {"keep", OPTION_FLAG, MEASURE(keep), NULL, .help = "leave the working directory"},
    {"quiet", OPTION_FLAG, MEASURE(quiet), NULL, .help = "no progress of the source"},
};
/* clang-format on */

static const struct option_table run_table = {
    .command = "run",
    .summary = "start a node, load it, count at the sink: one command, one table",
    .example = "mochila-bench run --scenario e2e-2k --count 50k",
    .options = options,
    .count = ARRAY_COUNT(options),
};
static const struct option_table compare_table = {
    .command = "compare",
    .summary = "the same work for our node and for Postfix, in turn",
    .example = "mochila-bench compare --scenario e2e-2k --rounds 3",
    .options = options,
    .count = ARRAY_COUNT(options),
};
static const struct option_table figures_table = {
    .command = "figures",
    .summary = "all scenarios, as a Markdown table with the project's goals",
    .example = "mochila-bench figures --dir /var/tmp --rounds 3 --out results.md",
    .options = options,
    .count = ARRAY_COUNT(options),
};

static int check(const struct runner_options *o)
{
    const struct measure_options *m = &o->measure;

    if (m->config != NULL && (m->listen.port == 0 || m->sink.port == 0)) {
        fprintf(stderr, "mochila-bench: --config wants --to and --sink as well\n");
        return -EINVAL;
    }
    if (o->rounds == 0 || m->lanes == 0) {
        fprintf(stderr, "mochila-bench: --rounds and --lanes are at least 1\n");
        return -EINVAL;
    }
    return 0;
}

/* Parses; -1 = go on, else the exit status. */
static int prepare(const struct option_table *t, int argc, char **argv, struct runner_options *o)
{
    measure_options_init(&o->measure);
    o->scenario = "e2e-2k";
    int rc = options_parse(t, argc, argv, o);

    if (rc == OPTIONS_HELP_SHOWN || (rc == 0 && o->list)) {
        printf("\nScenarios:\n");
        scenario_list();
        return EXIT_SUCCESS;
    }
    if (rc < 0 || check(o) < 0)
        return 2;
    o->measure.scenario = scenario_find(o->scenario);
    return o->measure.scenario != NULL ? -1 : 2;
}

static int run_rounds(const struct runner_options *o)
{
    json_t *result = NULL;

    if (rounds_run(&o->measure, o->rounds, o->subjects, &result) < 0)
        return EXIT_FAILURE;
    bool clean = rounds_are_clean(result);
    if (o->json == NULL || strcmp(o->json, "-") != 0)
        rounds_print(result);
    if (o->json != NULL && report_write(json_incref(result), o->json) < 0)
        clean = false;
    json_decref(result);
    return clean ? EXIT_SUCCESS : EXIT_FAILURE;
}

int run_main(int argc, char **argv)
{
    struct runner_options o = {.rounds = 1, .subjects = ROUNDS_NODE};
    int status = prepare(&run_table, argc, argv, &o);

    return status >= 0 ? status : run_rounds(&o);
}

int compare_main(int argc, char **argv)
{
    struct runner_options o = {.rounds = 3, .subjects = ROUNDS_BOTH};
    int status = prepare(&compare_table, argc, argv, &o);

    if (status >= 0)
        return status;
    if (!o.measure.scenario->has_peer) {
        fprintf(stderr, "mochila-bench compare: Postfix has no like of \"%s\"; try e2e-2k\n",
                o.measure.scenario->name);
        return 2;
    }
    return run_rounds(&o);
}

int figures_main(int argc, char **argv)
{
    struct runner_options o = {.rounds = 3};
    int status = prepare(&figures_table, argc, argv, &o);

    if (status >= 0)
        return status;
    return figures_write(&o.measure, o.rounds, o.out) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
