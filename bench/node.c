/* Our own node as the subject: its configuration, its programs, its state. */
#include "bench/subject.h"

#include "bench/report.h"
#include "bench/timer.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_LANE = 11, STATUS_POLL_MS = 20, LEDGER_MS = 5000 };
enum { COMMAND_BYTES = 3 * SUBJECT_PATH_BYTES };

int node_binary(const char *name, char out[SUBJECT_PATH_BYTES])
{
    char self[SUBJECT_PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n < 0)
        return -errno;
    self[n] = '\0';
    int used = snprintf(out, SUBJECT_PATH_BYTES, "%s/%s", dirname(self), name);
    if (used >= SUBJECT_PATH_BYTES)
        return -ENAMETOOLONG;
    if (access(out, X_OK) == 0)
        return 0;
    fprintf(stderr, "mochila-bench: %s: %s; it is looked for beside mochila-bench\n", out,
            strerror(errno));
    return -ENOENT;
}

static void config_path(const struct subject *s, char out[SUBJECT_PATH_BYTES + 16])
{
    snprintf(out, SUBJECT_PATH_BYTES + 16, "%s/mochila.yaml", s->dir);
}

static void write_lanes(FILE *f, const struct subject *s)
{
    fprintf(f, "pools:\n  bench:\n    lanes:\n");
    for (uint32_t i = 0; i < s->lanes; i++)
        fprintf(f, "      - {address: 127.0.%u.%u, ehlo: lane%u.bench.invalid}\n",
                (FIRST_LANE + i) / 250, (FIRST_LANE + i) % 250, i);
}

/* The whole configuration of a node that relays all to the sink. */
static void write_config(FILE *f, const struct subject *s)
{
    char listen[IP_TEXT];
    char sink[ENDPOINT_TEXT];

    ip_format(&s->listen.ip, listen);
    endpoint_format(&s->sink, sink);
    fprintf(f, "node: bench\nhostname: bench.mochila.invalid\n");
    fprintf(f, "spool: %s/spool\nrun: %s/run\nlog: %s/log\nworkers: %llu\n", s->dir, s->dir, s->dir,
            (unsigned long long)s->workers);
    fprintf(f, "listen:\n  - {address: \"%s\", port: %u, role: relay}\n", listen, s->listen.port);
    fprintf(f, "relay_from: [127.0.0.0/8, \"::1\"]\n");
    write_lanes(f, s);
    fprintf(f,
            "routes:\n  - {domain: \"*\", via: \"%s\", limits: {connections: 20,"
            " messages_per_connection: 0, messages_per_s: 0}}\n",
            sink);
    fprintf(f, "smtp: {connections_per_ip: 0, connections_per_net: 0, accept_per_s_per_ip: 0,"
               " check_sender_domain: false, check_recipient_null_mx: false}\n");
    fprintf(f, "queue: {hold: %s}\ndns: {enabled: false}\n", s->hold ? "true" : "false");
}

int node_prepare(struct subject *s)
{
    char path[SUBJECT_PATH_BYTES + 16];

    if (s->config != NULL)
        return 0;
    config_path(s, path);
    FILE *f = fopen(path, "we");
    if (f == NULL) {
        fprintf(stderr, "mochila-bench: %s: %s\n", path, strerror(errno));
        return -errno;
    }
    write_config(f, s);
    return fclose(f) == 0 ? 0 : -errno;
}

int node_exec(const struct subject *s)
{
    char binary[SUBJECT_PATH_BYTES];
    char path[SUBJECT_PATH_BYTES + 16];
    char *argv[4 + 2 * SUBJECT_SET_MAX];
    unsigned n = 0;

    if (node_binary("mochilad", binary) < 0)
        return -ENOENT;
    config_path(s, path);
    argv[n++] = binary;
    argv[n++] = (char *)(uintptr_t) "-f";
    argv[n++] = s->config != NULL ? (char *)(uintptr_t)s->config : path;
    for (uint32_t i = 0; i < s->set_count; i++) {
        argv[n++] = (char *)(uintptr_t) "--set";
        argv[n++] = (char *)(uintptr_t)s->sets[i];
    }
    argv[n] = NULL;
    execv(binary, argv);
    return -errno;
}

/* The answer of `mochila COMMAND --json`, or NULL. */
static json_t *ask(const struct subject *s, const char *command)
{
    char line[COMMAND_BYTES];
    char binary[SUBJECT_PATH_BYTES];

    if (node_binary("mochila", binary) < 0)
        return NULL;
    if (s->config != NULL)
        snprintf(line, sizeof line, "'%s' -f '%s' %s --json 2>/dev/null", binary, s->config,
                 command);
    else
        snprintf(line, sizeof line, "'%s' --socket '%s/run/api.sock' %s --json 2>/dev/null", binary,
                 s->dir, command);
    FILE *f = popen(line, "re");
    if (f == NULL)
        return NULL;
    json_t *answer = json_loadf(f, 0, NULL);
    pclose(f);
    return answer;
}

static double queued_in_lanes(const struct subject *s)
{
    json_t *lanes = ask(s, "lanes");
    double sum = 0;
    size_t i;
    json_t *lane;

    json_array_foreach(json_object_get(lanes, "rows"), i, lane) sum +=
        report_number(lane, "queued");
    json_decref(lanes);
    return sum;
}

int node_wait_lanes(const struct subject *s, uint64_t expected, uint64_t ms)
{
    uint64_t end_ns = now_ns() + ms * ns_per_ms;
    struct timespec nap = {0, STATUS_POLL_MS * 1000000};

    while (queued_in_lanes(s) < (double)expected) {
        if (now_ns() > end_ns)
            return -ETIMEDOUT;
        nanosleep(&nap, NULL);
    }
    return 0;
}

json_t *node_ledger(const struct subject *s, bool until_empty)
{
    uint64_t end_ns = now_ns() + LEDGER_MS * ns_per_ms;
    struct timespec nap = {0, STATUS_POLL_MS * 1000000};

    for (;;) {
        json_t *ledger = ask(s, "ledger");
        bool is_empty = ledger != NULL && report_number(ledger, "queued") <= 0;
        if (!until_empty || is_empty || now_ns() > end_ns)
            return ledger;
        json_decref(ledger);
        nanosleep(&nap, NULL);
    }
}
