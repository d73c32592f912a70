/*
 * mochila-api - the admin API: HTTP + JSON for people and programs, /metrics for Prometheus.
 *
 * A child of mochilad: descriptor 3 is the control socket, 4 the log. One thread, one poll; it has
 * no mail and no state, so it can die at any moment and is started again.
 */
#include "base/log.h"
#include "master/api/api.h"
#include "master/api/control_link.h"
#include "master/api/http.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

enum {
    EXIT_OK = 0,
    EXIT_BROKEN = 1,
    EXIT_USAGE = 2,
    LAST_ANSWERS_MS = 1000, /* to send answers after the master has ended */
};

static volatile sig_atomic_t terminated;

static void on_terminate(int number)
{
    (void)number;
    terminated = 1;
}

/* One step of every scan; true when one has more to do. */
static bool step_traces(struct api *a, uint64_t now_ms)
{
    bool more = false;
    struct request *next;
    for (struct request *r = a->waiting; r != NULL; r = next) {
        next = r->next;
        if (r->wait != WAIT_TRACE)
            continue;
        if (trace_step(r->trace, now_ms)) {
            trace_answer(r->trace, &r->answer);
            http_resume(a, r);
        } else {
            more = true;
        }
    }
    return more;
}

/* Answers what waited too long; returns milliseconds to the next deadline, or -1. */
static int expire_queries(struct api *a, uint64_t now_ms)
{
    int least = -1;
    struct request *next;
    for (struct request *r = a->waiting; r != NULL; r = next) {
        next = r->next;
        if (r->wait != WAIT_QUERY)
            continue;
        if (now_ms >= r->query.deadline_ms) {
            query_answer(&r->query, a->pages.count, "no answer in time", &r->answer);
            http_resume(a, r);
            continue;
        }
        int left = (int)(r->query.deadline_ms - now_ms);
        if (least < 0 || left < least)
            least = left;
    }
    return least;
}

/* The end, mostly because the master is gone: that is what `stop` asked for, and an error for all
 * else. */
static void end_queries(struct api *a)
{
    struct request *next;
    for (struct request *r = a->waiting; r != NULL; r = next) {
        next = r->next;
        if (r->wait != WAIT_QUERY)
            continue;
        if (strcmp(r->query.verb->name, "stop") == 0)
            answer_json(&r->answer, 200, json_pack("{s:s}", "text", "the node has stopped"));
        else
            answer_error(&r->answer, 503, "the node is ending: there will be no answer");
        http_resume(a, r);
    }
}

static int earlier(int a, int b)
{
    if (a < 0 || b < 0)
        return a < 0 ? b : a;
    return a < b ? a : b;
}

/* Waits at most timeout_ms for the master or a client. 0 or -errno. */
static int wait_events(const struct api *a, int timeout_ms)
{
    struct pollfd polls[1 + HTTP_SERVERS_MAX] = {{.fd = a->control_fd, .events = POLLIN}};
    int fds[HTTP_SERVERS_MAX];
    unsigned n = http_descriptors(a->http, fds);

    for (unsigned i = 0; i < n; i++)
        polls[1 + i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    if (a->ended)
        polls[0].fd = -1;
    timeout_ms = earlier(timeout_ms, http_timeout_ms(a->http));
    struct timespec wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    sigset_t none; /* SIGTERM comes in here only, so that it cannot slip in before the wait */
    (void)sigemptyset(&none);
    int r = ppoll(polls, 1 + n, timeout_ms < 0 ? NULL : &wait, &none);
    return r < 0 && errno != EINTR ? -errno : 0;
}

/*
 * One turn: serve, move what waits, wait, read the master's frames. 0, 1 = ended, -errno.
 *
 * The order matters: serving begins queries and scans, so deadlines are looked at after it; and
 * resuming wakes no descriptor in this mode of MHD, so nothing is waited for after a resume.
 */
static int turn(struct api *a, int timeout_ms)
{
    http_run(a->http);
    unsigned resumed = a->resumed_ever;
    uint64_t now = clock_ms();
    bool busy = step_traces(a, now);
    timeout_ms = earlier(timeout_ms, expire_queries(a, now));
    if (busy || resumed != a->resumed_ever)
        timeout_ms = 0;
    int r = wait_events(a, timeout_ms);
    return r < 0 || a->ended ? r : control_link_read(a);
}

static int serve(struct api *a)
{
    int r;
    do
        r = turn(a, -1);
    while (r == 0 && terminated == 0);
    if (r < 0)
        return r;
    log_note("%s", r == 1 ? "the master has ended" : "told to end");
    a->ended = true;
    end_queries(a);
    uint64_t stop = clock_ms() + LAST_ANSWERS_MS;
    for (unsigned i = 0; i < 1000 && clock_ms() < stop && a->resumed > 0; i++)
        (void)turn(a, 10);
    return 0;
}

static void set_signals(void)
{
    struct sigaction action = {.sa_handler = on_terminate};
    sigset_t term;

    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &term, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    /* An interrupt from the terminal goes to the whole group: only the master decides about it. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    struct api a = {.control_fd = CONTROL_FD, .next_id = 1};
    int type;
    socklen_t n = sizeof type;

    (void)argv;
    if (argc != 1 || getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &n) < 0 ||
        type != SOCK_SEQPACKET) {
        fputs("mochila-api is a part of mochilad and is started by it. To talk to a node use "
              "`mochila`.\n",
              stderr);
        return EXIT_USAGE;
    }
    if (fcntl(CONTROL_LOG_FD, F_GETFD) >= 0)
        log_open(CONTROL_LOG_FD, LOG_NOTE, "api");
    else
        log_open(STDERR_FILENO, LOG_NOTE, "api");
    set_signals();
    a.http = http_create(&a);
    MUST(a.http != NULL);
    int r = serve(&a);
    http_destroy(&a.http);
    pages_unmap(&a.pages);
    config_free(&a.config);
    return r < 0 ? EXIT_BROKEN : EXIT_OK;
}
