/*
 * mochila-link - frames to and from the other nodes, over nanomsg inside TLS 1.3.
 *
 * A child of mochilad: descriptor 3 is the control socket, 4 the log; see control_link.h for what
 * is said there. It holds no mail and no state that outlives it: it can die at any moment, delivery
 * goes on, and the next one resumes where the masters stand. One thread and one poll, besides
 * nanomsg's own worker thread.
 */
#include "base/log.h"
#include "master/link/carrier.h"
#include "master/link/control_link.h"
#include "master/link/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { POLLS = 1 + LIMIT_WORKERS + PEERS_POLLS };
enum { EXIT_OK = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

static volatile sig_atomic_t terminated;

static void on_terminate(int number)
{
    (void)number;
    terminated = 1;
}

static uint64_t clock_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + 1;
}

/* Waits for the master, the peers, or the next time something is due. 0 or -errno. */
static int wait_events(struct link *l, struct pollfd polls[POLLS])
{
    int timeout_ms = -1;
    sigset_t none; /* SIGTERM comes in here only, so that it cannot slip in before the wait */

    polls[0] = (struct pollfd){.fd = l->control_fd, .events = POLLIN};
    if (l->blocked)
        polls[0].events |= POLLOUT;
    unsigned n = 1 + LIMIT_WORKERS + peers_polls(l, polls + 1 + LIMIT_WORKERS, &timeout_ms);
    unsigned used = carriers_polls(l, polls + 1, &timeout_ms);
    for (unsigned i = used; i < LIMIT_WORKERS; i++)
        polls[1 + i] = (struct pollfd){.fd = -1};
    struct timespec wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    (void)sigemptyset(&none);
    int r = ppoll(polls, n, timeout_ms < 0 ? NULL : &wait, &none);
    return r < 0 && errno != EINTR ? -errno : 0;
}

/* One turn. The peers are heard before the time is judged: a process that was stopped for a second
 * finds frames waiting, and no silence. 0, 1 = to end, -errno. */
static int turn(struct link *l)
{
    static struct pollfd polls[POLLS];
    int r = wait_events(l, polls);
    if (r < 0)
        return r;
    l->now_ms = clock_ms();
    r = control_link_read(l);
    if (r != 0)
        return r;
    if (l->config != NULL) {
        carriers_run(l, polls + 1);
        peers_run(l, polls + 1 + LIMIT_WORKERS);
    }
    return control_link_flush(l);
}

static int serve(struct link *l)
{
    int r;
    do
        r = turn(l);
    while (r == 0 && terminated == 0);
    if (r < 0)
        return r;
    if (l->drained)
        r = control_link_flush(l);
    log_note("%s", terminated != 0 ? "told to end"
                   : l->drained    ? "drained"
                                   : "the master has ended");
    return r < 0 ? r : 0;
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

/* Bulk frames come and go by the quarter megabyte: mapping and clearing each anew costs a fifth. */
static void keep_memory(void)
{
    enum { MAP_FROM_BYTES = 4 << 20, KEEP_BYTES = 64 << 20 };
    (void)mallopt(M_MMAP_THRESHOLD, MAP_FROM_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
}

int main(int argc, char **argv)
{
    static struct link l = {.control_fd = CONTROL_FD, .listen_fd = -1};
    int type;
    socklen_t n = sizeof type;

    (void)argv;
    if (argc != 1 || getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &n) < 0 ||
        type != SOCK_SEQPACKET) {
        fputs("mochila-link is a part of mochilad and is started by it. To see a cluster use "
              "`mochila cluster`.\n",
              stderr);
        return EXIT_USAGE;
    }
    bool own_log = fcntl(CONTROL_LOG_FD, F_GETFD) >= 0;
    log_open(own_log ? CONTROL_LOG_FD : STDERR_FILENO, LOG_NOTE, "link");
    set_signals();
    keep_memory();
    l.now_ms = clock_ms();
    carriers_init(&l);
    int r = serve(&l);
    peers_fini(&l);
    carriers_fini(&l);
    control_link_fini(&l);
    config_free(&l.config);
    return r < 0 ? EXIT_BROKEN : EXIT_OK;
}
