/*
 * Names in the result: accepted delivered lost duplicated accept_per_s e2e_per_s accept_p50_us
 * accept_p99_us e2e_p50_us e2e_p99_us cpu_s_per_1000 rss_peak_bytes pss_peak_bytes processes
 * others_percent seconds ledger_*; idle: up; held: bytes_per_message pss_bytes_per_message
 * restart_*.
 */
#include "bench/measure_private.h"

#include "bench/report.h"
#include "bench/timer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SAMPLE_MS = 250, STOP_MS = 10000, IDLE_HOLD_MS = 6000, LANE_PRESET = 8 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

void measure_options_init(struct measure_options *o)
{
    *o = (struct measure_options){.dir = "/var/tmp", .lanes = LANE_PRESET, .timeout_ms = 600000};
}

void measure_put(struct measuring *m, const char *name, double value)
{
    json_object_set_new(m->out, name, json_real(value));
}

void measure_memory(struct measuring *m)
{
    if (proc_tree_memory(m->subject.child.pid, &m->last) < 0)
        return;
    if (m->last.rss_bytes > m->peak.rss_bytes)
        m->peak.rss_bytes = m->last.rss_bytes;
    if (m->last.pss_bytes > m->peak.pss_bytes)
        m->peak.pss_bytes = m->last.pss_bytes;
    if (m->last.processes > m->peak.processes)
        m->peak.processes = m->last.processes;
}

int measure_before(struct measuring *m)
{
    m->start_ns = now_ns();
    m->busy_first_s = proc_machine_busy_s();
    measure_memory(m);
    m->first = m->last;
    return proc_tree_cpu(m->subject.child.pid, &m->cpu_first_s);
}

void measure_after(struct measuring *m)
{
    double cpu_s = 0;

    measure_memory(m);
    if (proc_tree_cpu(m->subject.child.pid, &cpu_s) == 0)
        m->cpu_s = cpu_s - m->cpu_first_s;
    m->busy_s = proc_machine_busy_s() - m->busy_first_s;
    m->wall_s = (double)(now_ns() - m->start_ns) / 1e9;
}

int measure_wait(struct measuring *m, struct child *c, const char *role, bool may_fail)
{
    uint64_t end_ns = now_ns() + m->options->timeout_ms * ns_per_ms;
    int status;

    while (child_wait(c, SAMPLE_MS, &status) == 0) {
        measure_memory(m);
        if (interrupted != 0)
            return -EINTR;
        if (now_ns() > end_ns) {
            fprintf(stderr, "mochila-bench: the %s has not ended within %llu ms\n", role,
                    (unsigned long long)m->options->timeout_ms);
            child_stop(c, SIGTERM, STOP_MS);
            return -ETIMEDOUT;
        }
    }
    if (status == 0 || may_fail)
        return 0;
    fprintf(stderr, "mochila-bench: the %s failed\n", role);
    return -EIO;
}

static uint64_t or_else(uint64_t given, uint64_t otherwise)
{
    return given != 0 ? given : otherwise;
}

int measure_start_source(struct measuring *m)
{
    const struct measure_options *o = m->options;
    struct source_options *so = m->source_options;

    source_options_init(so);
    so->to = m->subject.listen;
    so->count = or_else(o->count, m->scenario->count);
    so->connections = or_else(o->connections, m->scenario->connections);
    so->rcpts = or_else(o->rcpts, 1);
    so->domain_count = or_else(o->domains, 100);
    so->sizes = o->sizes != NULL ? o->sizes : m->scenario->sizes;
    so->mode = m->scenario->mode;
    so->window = m->scenario->window;
    so->retry = true;
    so->quiet = o->quiet;
    if (m->scenario->kind == SCENARIO_IDLE) {
        so->idle = true;
        so->duration_ms = IDLE_HOLD_MS;
    }
    return child_source(&m->source, so, m->subject.dir);
}

static int start_sink(struct measuring *m)
{
    struct sink_options *so = m->sink_options;

    sink_options_init(so);
    so->listen_fd = endpoint_listen(&m->subject.sink, 0);
    if (so->listen_fd < 0)
        return so->listen_fd;
    so->expect = or_else(m->options->count, m->scenario->count) * or_else(m->options->rcpts, 1);
    int rc = child_sink(&m->sink, so, m->subject.dir);
    close(so->listen_fd);
    return rc;
}

static int measure_relay(struct measuring *m)
{
    int rc = subject_start(&m->subject, MEASURE_START_MS);

    if (rc == 0)
        rc = measure_before(m);
    if (rc == 0)
        rc = measure_start_source(m);
    if (rc == 0)
        rc = measure_wait(m, &m->source, "source", false);
    if (rc < 0)
        return rc;
    /* A sink that gave up still tells what it has: lost mail is a figure, not a failure. */
    rc = measure_wait(m, &m->sink, "sink", true);
    measure_after(m);
    return rc == -ETIMEDOUT ? 0 : rc;
}

/* Nothing to deliver: accept-only and idle. */
static int measure_inbound(struct measuring *m)
{
    int rc = subject_start(&m->subject, MEASURE_START_MS);

    if (rc == 0)
        rc = measure_before(m);
    if (rc == 0)
        rc = measure_start_source(m);
    if (rc == 0)
        rc = measure_wait(m, &m->source, "source", false);
    if (rc == 0)
        measure_after(m);
    return rc;
}

static int choose_endpoints(struct measuring *m)
{
    const struct measure_options *o = m->options;
    struct subject *s = &m->subject;

    if (o->config != NULL) {
        s->listen = o->listen;
        s->sink = o->sink;
        return 0;
    }
    if (ip_parse(span_str("127.0.0.1"), &s->listen.ip) < 0)
        return -EINVAL;
    s->sink = s->listen;
    s->listen.port = workdir_free_port();
    s->sink.port = workdir_free_port();
    return s->listen.port != 0 && s->sink.port != 0 ? 0 : -EADDRNOTAVAIL;
}

static int set_up(struct measuring *m, enum subject_kind kind)
{
    const struct measure_options *o = m->options;
    struct subject *s = &m->subject;

    s->kind = kind;
    s->lanes = (uint32_t)o->lanes;
    s->workers = o->workers;
    s->config = o->config;
    s->hold = m->scenario->kind == SCENARIO_ACCEPT || m->scenario->kind == SCENARIO_HELD;
    if (m->scenario->set != NULL)
        s->sets[s->set_count++] = m->scenario->set;
    for (uint32_t i = 0; i < o->set_count && s->set_count < SUBJECT_SET_MAX; i++)
        s->sets[s->set_count++] = o->sets[i];
    m->out = json_object();
    m->source_options = calloc(1, sizeof *m->source_options);
    m->sink_options = calloc(1, sizeof *m->sink_options);
    if (m->out == NULL || m->source_options == NULL || m->sink_options == NULL)
        return -ENOMEM;
    int rc = choose_endpoints(m);
    if (rc == 0)
        rc = workdir_make(o->dir, s->dir);
    if (rc == 0 && m->scenario->kind == SCENARIO_RELAY)
        rc = start_sink(m); /* first: the port of the sink is part of the configuration */
    return rc == 0 ? subject_prepare(s) : rc;
}

static int load(struct measuring *m)
{
    switch (m->scenario->kind) {
    case SCENARIO_RELAY:
        return measure_relay(m);
    case SCENARIO_ACCEPT:
    case SCENARIO_IDLE:
        return measure_inbound(m);
    case SCENARIO_HELD:
        return measure_held(m);
    }
    return -EINVAL;
}

static void put_source(struct measuring *m)
{
    measure_put(m, "up", report_number(m->sent, "connections_up_max"));
    if (m->scenario->kind == SCENARIO_IDLE)
        return;
    measure_put(m, "accepted", report_number(m->sent, "recipients_accepted"));
    measure_put(m, "accept_per_s", report_number(m->sent, "accepted_per_s"));
    measure_put(m, "accept_p50_us", report_number(m->sent, "latency.p50_us"));
    measure_put(m, "accept_p99_us", report_number(m->sent, "latency.p99_us"));
    measure_put(m, "accept_max_us", report_number(m->sent, "latency.max_us"));
    measure_put(m, "answered_4xx", report_number(m->sent, "answered_4xx"));
    measure_put(m, "connections_lost", report_number(m->sent, "connections_lost"));
}

static void put_sink(struct measuring *m)
{
    double accepted = report_number(m->sent, "recipients_accepted");
    double unique = report_number(m->got, "unique");
    double begin_ns = report_number(m->sent, "first_ns");
    double seconds = (report_number(m->got, "last_ns") - begin_ns) / 1e9;

    measure_put(m, "delivered", unique);
    measure_put(m, "lost", accepted > unique ? accepted - unique : 0);
    measure_put(m, "duplicated", report_number(m->got, "duplicated"));
    measure_put(m, "e2e_per_s", seconds > 0 ? unique / seconds : 0);
    measure_put(m, "e2e_p50_us", report_number(m->got, "latency.p50_us"));
    measure_put(m, "e2e_p99_us", report_number(m->got, "latency.p99_us"));
    json_object_set(m->out, "sources", json_object_get(m->got, "sources"));
}

/* CPU of the machine in this time that neither the subject nor the generator used. */
static double others_percent(const struct measuring *m)
{
    double ours = m->cpu_s + report_number(m->sent, "cpu_s") + report_number(m->got, "cpu_s");
    double all = m->wall_s * (double)sysconf(_SC_NPROCESSORS_ONLN);

    return all > 0 && m->busy_s > ours ? 100 * (m->busy_s - ours) / all : 0;
}

/* The node's own books beside ours: they must balance, and hold no less than was acknowledged. */
static void put_ledger(struct measuring *m)
{
    static const char *const names[] = {"accepted", "delivered", "queued", "balance"};
    char name[32];

    if (m->subject.kind != SUBJECT_NODE || m->scenario->kind == SCENARIO_IDLE)
        return;
    json_t *ledger = node_ledger(&m->subject, m->scenario->kind == SCENARIO_RELAY);
    if (ledger == NULL)
        fprintf(stderr, "mochila-bench: the node does not tell its ledger\n");
    for (size_t i = 0; i < ARRAY_COUNT(names) && ledger != NULL; i++) {
        snprintf(name, sizeof name, "ledger_%s", names[i]);
        measure_put(m, name, report_number(ledger, names[i]));
    }
    json_decref(ledger);
}

static void put_result(struct measuring *m)
{
    put_ledger(m);
    m->sent = child_result(&m->source);
    if (m->scenario->kind == SCENARIO_RELAY)
        m->got = child_result(&m->sink);
    json_object_set_new(m->out, "subject", json_string(subject_name(m->subject.kind)));
    json_object_set_new(m->out, "scenario", json_string(m->scenario->name));
    put_source(m);
    if (m->got != NULL)
        put_sink(m);
    double accepted = report_number(m->sent, "recipients_accepted");
    if (accepted > 0)
        measure_put(m, "cpu_s_per_1000", m->cpu_s / accepted * 1000);
    measure_put(m, "cpu_s", m->cpu_s);
    measure_put(m, "rss_first_bytes", (double)m->first.rss_bytes);
    measure_put(m, "rss_peak_bytes", (double)m->peak.rss_bytes);
    measure_put(m, "pss_peak_bytes", (double)m->peak.pss_bytes);
    measure_put(m, "processes", m->peak.processes);
    measure_put(m, "seconds", m->wall_s);
    measure_put(m, "others_percent", others_percent(m));
}

static void tear_down(struct measuring *m)
{
    child_stop(&m->source, SIGTERM, STOP_MS);
    subject_stop(&m->subject);
    child_stop(&m->sink, SIGTERM, STOP_MS);
    if (m->subject.dir[0] != '\0') {
        if (m->options->keep)
            fprintf(stderr, "mochila-bench: kept: %s\n", m->subject.dir);
        else
            workdir_remove(m->subject.dir);
    }
    json_decref(m->sent);
    json_decref(m->got);
    json_decref(m->out);
    free(m->source_options);
    free(m->sink_options);
    free(m);
}

int measure(const struct measure_options *o, enum subject_kind kind, json_t **out)
{
    struct measuring *m = calloc(1, sizeof *m);
    struct sigaction action = {.sa_handler = on_interrupt};

    if (m == NULL)
        return -ENOMEM;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    m->options = o;
    m->scenario = o->scenario;
    int rc = set_up(m, kind);
    if (rc == 0)
        rc = load(m);
    if (rc == -EINTR)
        fprintf(stderr, "mochila-bench: interrupted\n");
    if (rc == 0) {
        put_result(m);
        *out = json_incref(m->out);
    }
    tear_down(m);
    return rc;
}
