#include "bench/sink_private.h"

#include "bench/report.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { EVENTS_A_TURN = 256, ACCEPTS_A_TURN = 64, SLOW_RCVBUF_BYTES = 4096 };

void sink_options_init(struct sink_options *o)
{
    *o = (struct sink_options){
        .listen_fd = -1,
        .offer_pipelining = true,
        .offer_chunking = true,
        .offer_8bitmime = true,
        .offer_size = true,
        .offer_smtputf8 = true,
        .offer_enhanced = true,
        .offer_ehlo = true,
        .hostname = "sink.test",
        .size_max = 100 << 20,
        .settle_ms = 500,
        .stats_every_ms = 0,
    };
}

static void build_texts(struct sink *s)
{
    const struct sink_options *o = s->options;
    char size[32];
    const char *words[8];
    unsigned n = 0;
    size_t used = 0;

    snprintf(size, sizeof size, "SIZE %llu", (unsigned long long)o->size_max);
    words[n++] = o->hostname;
    if (o->offer_pipelining)
        words[n++] = "PIPELINING";
    if (o->offer_8bitmime)
        words[n++] = "8BITMIME";
    if (o->offer_size)
        words[n++] = size;
    if (o->offer_smtputf8)
        words[n++] = "SMTPUTF8";
    if (o->offer_chunking)
        words[n++] = "CHUNKING";
    if (o->offer_enhanced)
        words[n++] = "ENHANCEDSTATUSCODES";
    for (unsigned i = 0; i < n; i++)
        used += (size_t)snprintf(s->ehlo + used, sizeof s->ehlo - used, "250%c%s\r\n",
                                 i + 1 < n ? '-' : ' ', words[i]);
    snprintf(s->banner, sizeof s->banner, "220 %s ESMTP mochila-bench sink\r\n", o->hostname);
}

static int watch_add(struct sink *s, struct watch *w)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = w};

    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, w->fd, &e) < 0 ? -errno : 0;
}

static int add_listener(struct sink *s, int fd)
{
    struct watch *w = &s->listeners[s->listener_count++];

    *w = (struct watch){WATCH_LISTENER, fd};
    return watch_add(s, w);
}

static int listen_all(struct sink *s)
{
    const struct sink_options *o = s->options;
    int rcvbuf = o->slow_reader > 0 ? SLOW_RCVBUF_BYTES : 0;
    char text[ENDPOINT_TEXT];

    if (o->listen_fd >= 0 && add_listener(s, o->listen_fd) < 0)
        return -EINVAL;
    for (uint32_t i = 0; i < o->listen_count; i++) {
        struct endpoint e = o->listen[i];
        int fd = endpoint_listen(&e, rcvbuf);
        endpoint_format(&e, text);
        if (fd < 0) {
            fprintf(stderr, "sink: --listen %s: %s\n", text, strerror(-fd));
            return fd;
        }
        int rc = add_listener(s, fd);
        if (rc < 0)
            return rc;
        fprintf(stderr, "sink: listening on %s\n", text);
    }
    return 0;
}

static int watch_signals(struct sink *s)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signals = (struct watch){WATCH_SIGNAL, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
    return s->signals.fd < 0 ? -errno : watch_add(s, &s->signals);
}

static int open_record(FILE **f, const char *option, const char *path)
{
    if (path == NULL)
        return 0;
    *f = fopen(path, "we");
    if (*f != NULL)
        return 0;
    fprintf(stderr, "sink: %s: %s: %s\n", option, path, strerror(errno));
    return -EINVAL;
}

static int close_record(FILE *f, const char *option, const char *path)
{
    if (f == NULL || fclose(f) == 0)
        return 0;
    int rc = -errno;
    fprintf(stderr, "sink: %s: %s: %s\n", option, path, strerror(-rc));
    return rc;
}

static int open_files(struct sink *s)
{
    const struct sink_options *o = s->options;

    if (o->script != NULL && sink_script_load(&s->script, o->script) < 0)
        return -EINVAL;
    int rc = open_record(&s->record, "--record", o->record);
    return rc < 0 ? rc
                  : open_record(&s->record_connections, "--record-connections",
                                o->record_connections);
}

static int allocate(struct sink *s)
{
    s->book = book_create();
    s->greylist = s->options->greylist_ms > 0 ? greylist_create() : NULL;
    s->in = malloc(2 * SINK_READ_BYTES);
    if (s->book == NULL || s->in == NULL)
        return -ENOMEM;
    if (s->options->greylist_ms > 0 && s->greylist == NULL)
        return -ENOMEM;
    return pool_init(&s->sessions, "sessions", sizeof(struct sink_session), SINK_SESSION_MAX);
}

static int init(struct sink *s, const struct sink_options *o)
{
    *s = (struct sink){.options = o, .end_ns = UINT64_MAX, .signals = {WATCH_SIGNAL, -1}};
    s->at_ns = now_ns();
    rng_seed(&s->rng, o->seed != 0 ? o->seed : rng_entropy());
    build_texts(s);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = s->epoll < 0 ? -errno : open_files(s);
    if (rc == 0)
        rc = allocate(s);
    if (rc == 0)
        rc = watch_signals(s);
    return rc == 0 ? listen_all(s) : rc;
}

static int fini(struct sink *s)
{
    const struct sink_options *o = s->options;
    int rc = close_record(s->record, "--record", o->record);
    int other = close_record(s->record_connections, "--record-connections", o->record_connections);

    for (uint32_t i = 0; i < s->listener_count; i++)
        close(s->listeners[i].fd);
    if (s->signals.fd >= 0)
        close(s->signals.fd);
    if (s->epoll >= 0)
        close(s->epoll);
    /* Sessions still open go with the process: the pool knows no list of them. */
    pool_fini(&s->sessions);
    timer_heap_fini(&s->timers);
    sink_peers_fini(&s->peers);
    sink_script_fini(&s->script);
    greylist_destroy(&s->greylist);
    book_destroy(&s->book);
    free(s->in);
    return rc < 0 ? rc : other;
}

static void take_connections(struct sink *s, struct watch *w)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage ss;
        socklen_t n = sizeof ss;
        int fd = accept4(w->fd, (struct sockaddr *)&ss, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct ip ip;
        uint16_t port;
        ip_from_sockaddr(&ss, &ip, &port);
        sink_session_open(s, fd, &ip, port);
    }
}

static void dispatch(struct sink *s, struct watch *w, uint32_t events)
{
    switch (w->kind) {
    case WATCH_LISTENER:
        take_connections(s, w);
        return;
    case WATCH_SESSION:
        sink_session_event((struct sink_session *)(void *)w, events);
        return;
    case WATCH_SIGNAL:
        s->end_ns = s->at_ns;
        return;
    }
}

static void turn(struct sink *s, uint64_t until_ns)
{
    struct epoll_event events[EVENTS_A_TURN];
    uint64_t next = timer_next_ns(&s->timers, until_ns);
    uint64_t at = now_ns();
    uint64_t wait = next > at ? next - at : 0;
    struct timespec ts = {(time_t)(wait / ns_per_s), (long)(wait % ns_per_s)};
    struct timer *t;
    int n = epoll_pwait2(s->epoll, events, EVENTS_A_TURN, &ts, NULL);

    s->at_ns = now_ns();
    for (int i = 0; i < n; i++)
        dispatch(s, events[i].data.ptr, events[i].events);
    while ((t = timer_take_due(&s->timers, s->at_ns)) != NULL)
        sink_session_due(
            (struct sink_session *)(void *)((char *)t - offsetof(struct sink_session, timer)));
}

static void show(const struct sink *s, struct progress *p, uint64_t *last, uint64_t step_ns)
{
    uint64_t unique = book_unique(s->book);
    double rate = (double)(unique - *last) * 1e9 / (double)step_ns;

    *last = unique;
    progress_line(p,
                  "sink: %llu delivered, %.0f/s, %llu duplicated, %llu unidentified, %u sessions",
                  (unsigned long long)unique, rate, (unsigned long long)s->stats.duplicated,
                  (unsigned long long)s->stats.unidentified, s->sessions.used);
}

static void look_for_end(struct sink *s)
{
    const struct sink_options *o = s->options;

    if (o->expect != 0 && s->end_ns == UINT64_MAX && book_unique(s->book) >= o->expect)
        s->end_ns = s->at_ns + o->settle_ms * ns_per_ms;
}

static void loop(struct sink *s)
{
    const struct sink_options *o = s->options;
    struct progress progress;
    uint64_t last = 0;

    progress_init(&progress, o->quiet || o->stats_every_ms == 0, s->at_ns);
    if (o->stats_every_ms != 0)
        progress.step_ns = o->stats_every_ms * ns_per_ms;
    while (s->at_ns < s->end_ns) {
        uint64_t tick = s->at_ns + ns_per_s;
        uint64_t until = s->end_ns < progress.next_ns ? s->end_ns : progress.next_ns;
        turn(s, until < tick ? until : tick);
        look_for_end(s);
        if (progress_due(&progress, s->at_ns))
            show(s, &progress, &last, progress.step_ns);
    }
    progress_end(&progress);
}

int sink_run(const struct sink_options *o)
{
    struct sink *s = malloc(sizeof *s);
    int status = 0;

    if (s == NULL)
        return -ENOMEM;
    int rc = init(s, o);
    if (rc == 0) {
        loop(s);
        json_t *result = sink_result(s, &status);
        rc = report_write(result, o->json != NULL ? o->json : "-");
    }
    int closing = fini(s);
    free(s);
    if (rc == 0)
        rc = closing;
    return rc < 0 ? rc : status;
}
