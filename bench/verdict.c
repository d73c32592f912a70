#include "bench/verdict.h"

#include "bench/options.h"
#include "bench/report.h"

#include <stdio.h>

struct verdict_options {
    const char *source;
    const char *sink;
};

#define FIELD(f) offsetof(struct verdict_options, f)
static const struct option options[] = {
    {"source", OPTION_TEXT, FIELD(source), "FILE", .help = "what `source --json FILE` wrote"},
    {"sink", OPTION_TEXT, FIELD(sink), "FILE", .help = "what `sink --json FILE` wrote"},
};
static const struct option_table table = {
    .command = "verdict",
    .summary = "hold a source's result against a sink's; status 1 when mail was lost or doubled",
    .example = "mochila-bench verdict --source source.json --sink sink.json",
    .options = options,
    .count = ARRAY_COUNT(options),
};

static void print_sources(const json_t *sink)
{
    const char *address;
    json_t *one;
    printf("\nby source address, as the sink saw it:\n");
    json_object_foreach(json_object_get(sink, "sources"), address, one)
    {
        printf("  %-40s %10.0f messages %6.0f connections\n", address,
               report_number(one, "messages"), report_number(one, "connections"));
    }
}

/* Returns the exit status. */
static int print(const json_t *source, const json_t *sink)
{
    double accepted = report_number(source, "recipients");
    double delivered = report_number(sink, "unique");
    double doubled = report_number(sink, "duplicated");
    double lost = accepted - delivered;
    double seconds = (report_number(sink, "last_ns") - report_number(source, "first_ns")) / 1e9;

    if (accepted == 0)
        accepted = report_number(source, "accepted");
    lost = accepted - delivered;
    printf("\n%-14s %12.0f\n%-14s %12.0f\n%-14s %12.0f\n%-14s %12.0f\n", "accepted", accepted,
           "delivered", delivered, "lost", lost, "duplicated", doubled);
    printf("%-14s %12.0f\n%-14s %12.0f\n", "accept/s", report_number(source, "accepted_per_s"),
           "end-to-end/s", seconds > 0 ? delivered / seconds : 0);
    printf("%-14s %9.1f ms p50 %9.1f ms p99\n", "accept",
           report_number(source, "latency.p50_us") / 1e3,
           report_number(source, "latency.p99_us") / 1e3);
    printf("%-14s %9.1f ms p50 %9.1f ms p99\n", "end to end",
           report_number(sink, "latency.p50_us") / 1e3,
           report_number(sink, "latency.p99_us") / 1e3);
    print_sources(sink);
    bool good = accepted > 0 && lost == 0 && doubled == 0;
    printf("\n%s\n", good ? "every message arrived exactly once"
                          : "NOT GOOD: messages were lost, doubled, or none was accepted");
    return good ? 0 : 1;
}

int verdict_main(int argc, char **argv)
{
    struct verdict_options o = {0};
    int rc = options_parse(&table, argc, argv, &o);
    if (rc != 0)
        return rc == OPTIONS_HELP_SHOWN ? 0 : 2;
    if (o.source == NULL || o.sink == NULL) {
        fprintf(stderr, "mochila-bench verdict: --source and --sink are both needed\n");
        return 2;
    }
    json_t *source = report_read(o.source);
    json_t *sink = report_read(o.sink);
    int status = source != NULL && sink != NULL ? print(source, sink) : 1;
    json_decref(source);
    json_decref(sink);
    return status;
}
