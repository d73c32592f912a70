#include "bench/source_private.h"

#include "base/rng.h"
#include "bench/cpu.h"
#include "bench/report.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_A_TURN = 256, START_SPACING_US = 40, LINGER_S = 2 };

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen++;
}

void source_options_init(struct source_options *o)
{
    *o = (struct source_options){
        .mode = SOURCE_PIPELINED,
        .connections = 50,
        .rcpts = 1,
        .domain_count = 100,
        .sizes = "2k",
        .from = "load@bench.test",
        .ehlo = "bench.test",
        .window = 1,
        .retry_delay_ms = 200,
        .timeout_ms = 300000,
        .give_up_ms = 60000,
    };
}

static size_t group_bytes_max(const struct source *s)
{
    const struct source_options *o = s->options;
    size_t domain = 0;

    /* Longest domain of one cycle; the text of the list bounds the named ones. */
    domain = o->domains != NULL ? strlen(o->domains) : 24;
    domain = domain < 255 ? domain : 255;
    return strlen(o->from) + 80 + o->rcpts * (domain + 24);
}

static int open_record(struct source *s)
{
    if (s->options->record == NULL)
        return 0;
    s->record = fopen(s->options->record, "we");
    if (s->record != NULL)
        return 0;
    fprintf(stderr, "source: --record: %s: %s\n", s->options->record, strerror(errno));
    return -errno;
}

static int init(struct source *s, const struct source_options *o)
{
    struct message_spec spec = {o->sizes, o->eml_dir, o->domains, o->domain_count, o->from};

    *s = (struct source){.options = o, .epoll = -1};
    s->run = o->run != 0 ? (uint32_t)o->run : (uint32_t)rng_entropy();
    s->group_bytes_max = group_bytes_max(s);
    int rc = message_plan_create(&spec, &s->plan);
    if (rc == 0)
        rc = open_record(s);
    if (rc == 0)
        rc = pool_init(&s->conns, "connections", sizeof(struct source_conn),
                       (uint32_t)o->connections);
    if (rc < 0)
        return rc;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        return -errno;
    s->at_ns = now_ns();
    s->work = (struct source_work){
        .count_max = o->count != 0 ? o->count : UINT32_MAX,
        .start_ns = s->at_ns,
        .end_ns = o->duration_ms != 0 ? s->at_ns + o->duration_ms * ns_per_ms : UINT64_MAX,
        .rate = o->rate,
        .rcpts = (uint32_t)o->rcpts,
    };
    return 0;
}

static int fini(struct source *s)
{
    int rc = 0;

    if (s->record != NULL && fclose(s->record) != 0) {
        rc = -errno;
        fprintf(stderr, "source: --record: %s: %s\n", s->options->record, strerror(-rc));
    }
    if (s->epoll >= 0)
        close(s->epoll);
    pool_fini(&s->conns);
    timer_heap_fini(&s->timers);
    source_work_fini(&s->work);
    message_plan_destroy(&s->plan);
    return rc;
}

static void start_connections(struct source *s)
{
    for (uint32_t i = 0; i < s->options->connections; i++) {
        struct source_conn *c = pool_get(&s->conns);
        MUST(c != NULL);
        c->source = s;
        c->fd = -1;
        c->address = s->options->address_count > 0 ? i % s->options->address_count : 0;
        c->link = LINK_WAITING;
        timer_set(&s->timers, &c->timer, s->at_ns + i * START_SPACING_US * 1000ULL);
    }
}

static struct source_conn *conn_at(const struct source *s, uint32_t i)
{
    return pool_at(&s->conns, i + 1);
}

/* Once a second: connections that have not moved for the time allowed. */
static void sweep(struct source *s)
{
    uint64_t allowed = s->options->timeout_ms * ns_per_ms;

    for (uint32_t i = 0; i < s->options->connections; i++) {
        struct source_conn *c = conn_at(s, i);
        bool waits = c->link == LINK_CONNECTING || c->await != AWAIT_NOTHING;
        if (waits && c->fd >= 0 && s->at_ns > c->active_ns + allowed)
            source_conn_lost(c, "time-out");
    }
    if (s->record != NULL)
        fflush(s->record);
}

static void show(const struct source *s, struct progress *p)
{
    static const double us = 1000;
    const struct source_stats *stats = &s->stats;
    double elapsed = (double)(s->at_ns - s->work.start_ns) / 1e9;
    double mean = elapsed > 0 ? (double)stats->messages_accepted / elapsed : 0;

    progress_line(p,
                  "source: %llu accepted, %.0f/s, %u connections, p50 %.0f us, p99 %.0f us, "
                  "4xx %llu, 5xx %llu, lost connections %llu",
                  (unsigned long long)stats->messages_accepted, mean, s->up,
                  (double)histogram_percentile_ns(&stats->latency, 50000) / us,
                  (double)histogram_percentile_ns(&stats->latency, 99000) / us,
                  (unsigned long long)stats->messages_temporary,
                  (unsigned long long)stats->messages_permanent,
                  (unsigned long long)stats->connections_lost);
}

static void end_all(struct source *s)
{
    s->is_ending = true;
    for (uint32_t i = 0; i < s->options->connections; i++) {
        struct source_conn *c = conn_at(s, i);
        source_conn_unpark(c);
        if (c->link == LINK_UP && c->await == AWAIT_NOTHING) {
            source_dialog_pump(c);
            source_conn_flush(c);
        } else if (c->link == LINK_WAITING || c->link == LINK_CONNECTING) {
            source_conn_end(c);
        }
    }
}

static bool has_stalled(const struct source *s)
{
    uint64_t last = s->stats.last_ns != 0 ? s->stats.last_ns : s->work.start_ns;

    /* At a slow rate silence is normal as long as the server is there. */
    if (s->options->rate > 0 && s->up > 0)
        return false;
    return !s->options->idle && s->options->give_up_ms != 0 &&
           s->at_ns > last + s->options->give_up_ms * ns_per_ms;
}

/* True when the load is over: everything done, time over in idle mode, given up, or a signal. */
static bool is_over(struct source *s)
{
    if (signals_seen == 1)
        source_work_stop(&s->work);
    if (signals_seen > 1)
        return true;
    if (s->options->idle)
        return s->at_ns >= s->work.end_ns;
    if (source_work_is_over(&s->work, s->at_ns))
        return true;
    if (has_stalled(s)) {
        fprintf(stderr, "source: nothing accepted for %llu ms: giving up\n",
                (unsigned long long)s->options->give_up_ms);
        return true;
    }
    return false;
}

static void wake_parked(struct source *s)
{
    while (s->parked != NULL && source_work_due_ns(&s->work, s->at_ns) <= s->at_ns) {
        struct source_conn *c = s->parked;
        source_conn_unpark(c);
        source_dialog_pump(c);
        source_conn_flush(c);
    }
}

static void turn(struct source *s, uint64_t until_ns)
{
    struct epoll_event events[EVENTS_A_TURN];
    uint64_t next = timer_next_ns(&s->timers, until_ns);
    uint64_t due = s->parked != NULL ? source_work_due_ns(&s->work, s->at_ns) : UINT64_MAX;
    uint64_t at = now_ns();
    struct timer *t;

    next = due < next ? due : next;
    uint64_t wait = next > at ? next - at : 0;
    struct timespec ts = {(time_t)(wait / ns_per_s), (long)(wait % ns_per_s)};
    int n = epoll_pwait2(s->epoll, events, EVENTS_A_TURN, &ts, NULL);

    s->at_ns = now_ns();
    for (int i = 0; i < n; i++)
        source_conn_event(events[i].data.ptr, events[i].events);
    while ((t = timer_take_due(&s->timers, s->at_ns)) != NULL)
        source_conn_due(
            (struct source_conn *)(void *)((char *)t - offsetof(struct source_conn, timer)));
    wake_parked(s);
}

static void loop(struct source *s)
{
    struct progress progress;
    uint64_t sweep_ns = s->at_ns + ns_per_s;

    progress_init(&progress, s->options->quiet, s->at_ns);
    while (!is_over(s)) {
        turn(s, sweep_ns);
        if (s->at_ns >= sweep_ns) {
            sweep(s);
            sweep_ns = s->at_ns + ns_per_s;
        }
        if (progress_due(&progress, s->at_ns))
            show(s, &progress);
    }
    uint64_t end_ns = s->at_ns + LINGER_S * ns_per_s;
    end_all(s);
    while (s->up > 0 && s->at_ns < end_ns)
        turn(s, end_ns);
    if (progress.is_shown)
        show(s, &progress);
    progress_end(&progress);
}

static void put(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

static json_t *codes(const struct source_stats *stats)
{
    json_t *o = json_object();
    char name[8];

    for (unsigned code = 0; code < SOURCE_CODES; code++) {
        if (stats->codes[code] == 0)
            continue;
        snprintf(name, sizeof name, "%u", code);
        put(o, name, stats->codes[code]);
    }
    return o;
}

static void put_counts(json_t *o, const struct source *s)
{
    const struct source_stats *stats = &s->stats;

    put(o, "accepted", stats->messages_accepted);
    put(o, "recipients_accepted", stats->recipients_accepted);
    put(o, "bytes", stats->bytes_accepted);
    put(o, "answered_4xx", stats->messages_temporary);
    put(o, "answered_5xx", stats->messages_permanent);
    put(o, "recipients_4xx", stats->recipients_temporary);
    put(o, "recipients_5xx", stats->recipients_permanent);
    put(o, "retries", stats->retries);
    put(o, "given_up", stats->given_up + s->work.open + s->work.waiting);
    put(o, "in_doubt", stats->in_doubt);
    put(o, "connections_opened", stats->connections_opened);
    put(o, "connect_errors", stats->connect_errors);
    put(o, "connections_lost", stats->connections_lost);
    put(o, "protocol_errors", stats->protocol_errors);
}

static json_t *result(const struct source *s)
{
    static const char *const modes[] = {"bare", "pipelined", "chunking"};
    const struct source_stats *stats = &s->stats;
    json_t *o = json_object();
    char run[16];
    double seconds = (double)(stats->last_ns - stats->first_ns) / 1e9;
    double rate = seconds > 0 ? (double)stats->messages_accepted / seconds : 0;

    snprintf(run, sizeof run, "%08x", s->run);
    json_object_set_new(o, "role", json_string("source"));
    json_object_set_new(o, "run", json_string(run));
    json_object_set_new(o, "mode", json_string(modes[s->options->mode]));
    put(o, "connections", s->options->connections);
    put(o, "connections_up_max", stats->up_max);
    put(o, "first_ns", stats->first_ns);
    put(o, "last_ns", stats->last_ns);
    json_object_set_new(o, "seconds", json_real(seconds));
    json_object_set_new(o, "accepted_per_s", json_real(rate));
    put_counts(o, s);
    json_object_set_new(o, "codes", codes(stats));
    json_object_set_new(o, "latency", report_latency(&stats->latency));
    json_object_set_new(o, "cpu_s", json_real(cpu_seconds_self()));
    if (stats->first_error[0] != '\0')
        json_object_set_new(o, "first_error", json_string(stats->first_error));
    return o;
}

int source_run(const struct source_options *o)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct source *s = malloc(sizeof *s);

    if (s == NULL)
        return -ENOMEM;
    signals_seen = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int rc = init(s, o);
    if (rc == 0) {
        start_connections(s);
        loop(s);
        rc = report_write(result(s), o->json != NULL ? o->json : "-");
    }
    int closing = fini(s);
    free(s);
    return rc < 0 ? rc : closing;
}
