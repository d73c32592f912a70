#include "bench/direct.h"

#include "bench/child.h"
#include "bench/options.h"
#include "bench/report.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WAIT_MS_MAX = 600000, STOP_MS = 5000 };

struct direct_options {
    uint64_t count;
    uint64_t connections;
    uint64_t rcpts;
    uint64_t window;
    const char *sizes;
    enum source_mode mode;
    bool json;
};

static int set_mode(void *target, const char *text)
{
    static const char *const names[] = {"bare", "pipelined", "chunking"};
    struct direct_options *o = target;

    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            o->mode = (enum source_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}

#define FIELD(f) offsetof(struct direct_options, f)
static const struct option options[] = {
    {"count", OPTION_U64, FIELD(count), "N", .help = "messages (300k)", .max = UINT32_MAX},
    {"connections", OPTION_U64, FIELD(connections), "N", .help = "at once (50)",
     .max = SOURCE_CONNECTION_MAX},
    {"rcpts", OPTION_U64, FIELD(rcpts), "N", .help = "recipients of a message (1)", .max = 128},
    {"size", OPTION_TEXT, FIELD(sizes), "LIST", .help = "of a message (2k)"},
    {"mode", OPTION_CALL, 0, "MODE", .help = "bare, pipelined or chunking", .parse = set_mode},
    {"window", OPTION_U64, FIELD(window), "N", .help = "chunking: messages under way (1)",
     .max = SOURCE_WINDOW_MAX},
    {"json", OPTION_FLAG, FIELD(json), NULL, .help = "print both results as JSON"},
};

static const struct option_table table = {
    .command = "direct",
    .summary = "source against sink: is the generator the bottleneck?",
    .example = "mochila-bench direct --size 2k --count 500k",
    .options = options,
    .count = ARRAY_COUNT(options),
};

static void print(const json_t *source, const json_t *sink)
{
    double n = report_number(sink, "unique");
    double begin = report_number(source, "first_ns");
    double seconds = (report_number(sink, "last_ns") - begin) / 1e9;
    double cpu = report_number(source, "cpu_s") + report_number(sink, "cpu_s");

    printf("messages     %.0f acknowledged, %.0f delivered, %.0f lost, %.0f duplicated\n",
           report_number(source, "accepted"), n, report_number(sink, "lost"),
           report_number(sink, "duplicated"));
    printf("rate         %.0f/s\n", seconds > 0 ? n / seconds : 0);
    printf("CPU          %.1f us a message (source %.1f, sink %.1f)\n", cpu / n * 1e6,
           report_number(source, "cpu_s") / n * 1e6, report_number(sink, "cpu_s") / n * 1e6);
    printf("latency      p50 %.0f us, p99 %.0f us, max %.0f us\n",
           report_number(source, "latency.p50_us"), report_number(source, "latency.p99_us"),
           report_number(source, "latency.max_us"));
}

static int finish(struct child *source, struct child *sink, bool as_json)
{
    int status = -1;

    if (child_wait(source, WAIT_MS_MAX, &status) == 0 || status != 0)
        return -EIO;
    if (child_wait(sink, STOP_MS, &status) == 0) {
        child_stop(sink, SIGTERM, STOP_MS);
        status = -1;
    }
    json_t *sent = child_result(source);
    json_t *got = child_result(sink);
    if (sent != NULL && got != NULL && as_json) {
        json_t *both = json_pack("{s:O,s:O}", "source", sent, "sink", got);
        status = report_write(both, "-") < 0 ? -1 : status;
    } else if (sent != NULL && got != NULL) {
        print(sent, got);
    } else {
        status = -1;
    }
    json_decref(sent);
    json_decref(got);
    unlink(source->json);
    unlink(sink->json);
    return status == 0 ? 0 : -EIO;
}

static int run(const struct direct_options *d, const char *dir)
{
    struct source_options *so = calloc(1, sizeof *so);
    struct sink_options *si = calloc(1, sizeof *si);
    struct endpoint e = {.port = 0};
    struct child source = {0};
    struct child sink = {0};
    int rc = -ENOMEM;

    if (so == NULL || si == NULL || ip_parse(span_str("127.0.0.1"), &e.ip) < 0)
        goto out;
    sink_options_init(si);
    source_options_init(so);
    si->listen_fd = endpoint_listen(&e, 0);
    rc = si->listen_fd < 0 ? si->listen_fd : 0;
    if (rc < 0)
        goto out;
    so->to = e;
    so->count = d->count;
    so->connections = d->connections;
    so->rcpts = d->rcpts;
    so->sizes = d->sizes;
    so->mode = d->mode;
    so->window = d->window;
    si->expect = d->count * d->rcpts;
    rc = child_sink(&sink, si, dir);
    if (rc == 0)
        rc = child_source(&source, so, dir);
    close(si->listen_fd);
    if (rc == 0)
        rc = finish(&source, &sink, d->json);
    child_stop(&source, SIGTERM, STOP_MS);
    child_stop(&sink, SIGTERM, STOP_MS);
out:
    free(so);
    free(si);
    return rc;
}

int direct_main(int argc, char **argv)
{
    struct direct_options o = {.count = 300000,
                               .connections = 50,
                               .rcpts = 1,
                               .window = 1,
                               .sizes = "2k",
                               .mode = SOURCE_PIPELINED};
    char dir[] = "/tmp/mochila-direct.XXXXXX";
    int rc = options_parse(&table, argc, argv, &o);

    if (rc == OPTIONS_HELP_SHOWN)
        return EXIT_SUCCESS;
    if (rc < 0)
        return 2;
    if (mkdtemp(dir) == NULL) {
        perror("mochila-bench direct: /tmp");
        return EXIT_FAILURE;
    }
    rc = run(&o, dir);
    rmdir(dir);
    if (rc < 0)
        fprintf(stderr, "mochila-bench direct: failed: %s\n", strerror(-rc));
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
