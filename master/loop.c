/*
 * loop - see loop.h.
 *
 * One turn: wait, signals, frames of every process, deadlines, then the steps of reload and stop. A
 * proc is freed in the last part only.
 */
#include "master/loop.h"

#include "base/log.h"
#include "base/text.h"
#include "master/cluster.h"
#include "master/lifecycle.h"
#include "master/move/move.h"
#include "master/netd_client.h"
#include "master/proc.h"
#include "master/verbs.h"
#include "master/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TURN_MS_MAX = 60 * 1000, SIGNALS_PER_TURN = 16, ERRORS_BYTES = 16 << 10 };

uint64_t clock_monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t master_next_incarnation(struct master *m)
{
    return ++m->incarnation;
}

struct proc *master_holder(const struct master *m, uint32_t slot)
{
    struct proc *found = NULL;
    for (unsigned i = 0; i < m->proc_count; i++) {
        struct proc *p = m->procs[i];
        if (p->kind != PROC_WORKER || p->index != slot || !slot_serves(&p->slot) ||
            !p->slot.recovered)
            continue;
        /* The lock has one holder; a younger one means that the elder is about to be reaped. */
        if (found == NULL || p->incarnation > found->incarnation)
            found = p;
    }
    return found;
}

int loop_init(struct master *m)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    (void)signal(SIGPIPE, SIG_IGN);
    m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return m->signal_fd < 0 ? -errno : 0;
}

void loop_fini(struct master *m)
{
    if (m->signal_fd >= 0)
        close(m->signal_fd);
    m->signal_fd = -1;
}

static void reap(struct master *m)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < m->proc_count; i++) {
            if (m->procs[i]->pid == pid) {
                proc_reaped(m->procs[i], status);
                break;
            }
        }
    }
}

static void reload_by_signal(struct master *m)
{
    char *text = malloc(ERRORS_BYTES);
    if (text == NULL)
        return;
    struct text errors = text_of(text, ERRORS_BYTES);
    int rc = lifecycle_reload(m, &errors);
    verbs_audit(m, "signal", "reload", rc == 0 ? "under way" : "refused");
    if (rc < 0)
        log_err("reload refused: %s", text);
    free(text);
}

static void on_signal(struct master *m, const struct signalfd_siginfo *s)
{
    switch (s->ssi_signo) {
    case SIGCHLD:
        reap(m);
        break;
    case SIGHUP:
        reload_by_signal(m);
        break;
    default:
        verbs_audit(m, "signal", "stop", m->stop_signals == 0 ? "under way" : "at once");
        lifecycle_stop(m);
    }
}

static void read_signals(struct master *m)
{
    struct signalfd_siginfo s;
    for (unsigned i = 0; i < SIGNALS_PER_TURN; i++) {
        if (read(m->signal_fd, &s, sizeof s) != sizeof s)
            return;
        on_signal(m, &s);
    }
}

static void earlier(uint64_t *first, uint64_t deadline)
{
    if (deadline != 0 && (*first == 0 || deadline < *first))
        *first = deadline;
}

static int wait_ms(const struct master *m)
{
    uint64_t first = fanout_deadline(&m->fanout);
    earlier(&first, m->watch_ms);
    earlier(&first, cluster_deadline(m));
    earlier(&first, netd_client_deadline(m));
    earlier(&first, moves_deadline(m));
    for (unsigned i = 0; i < m->proc_count; i++)
        earlier(&first, m->procs[i]->slot.deadline_ms);
    uint64_t now = clock_monotonic_ms();
    if (first == 0 || first > now + TURN_MS_MAX)
        return TURN_MS_MAX;
    return first <= now ? 0 : (int)(first - now);
}

static void wait_for_events(const struct master *m, struct pollfd *fds)
{
    fds[0] = (struct pollfd){.fd = m->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < m->proc_count; i++) {
        const struct proc *p = m->procs[i];
        short events = outbox_waits(&p->outbox) ? POLLIN | POLLOUT : POLLIN;
        fds[i + 1] = (struct pollfd){.fd = p->control_fd, .events = events};
    }
    if (poll(fds, m->proc_count + 1, wait_ms(m)) < 0) {
        MUST(errno == EINTR || errno == ENOMEM);
        for (unsigned i = 0; i <= m->proc_count; i++)
            fds[i].revents = 0;
    }
}

static void run_deadlines(struct master *m)
{
    for (unsigned i = 0; i < m->proc_count; i++) {
        struct proc *p = m->procs[i];
        if (p->slot.deadline_ms != 0 && p->slot.deadline_ms <= m->now_ms)
            proc_event(p, SLOT_EV_TIMEOUT);
    }
    fanout_tick(m);
    watch_tick(m);
    netd_client_tick(m);
    cluster_tick(m);
}

/* The procs of this turn are those that were polled: none is made or freed while frames are read.
 */
static bool turn(struct master *m)
{
    struct pollfd fds[MASTER_PROCS + 1];
    wait_for_events(m, fds);
    m->now_ms = clock_monotonic_ms();
    unsigned polled = m->proc_count;
    for (unsigned i = 0; i < polled; i++) {
        if ((fds[i + 1].revents & POLLOUT) != 0)
            proc_writable(m->procs[i]);
        if ((fds[i + 1].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            proc_readable(m->procs[i]);
    }
    if ((fds[0].revents & POLLIN) != 0)
        read_signals(m);
    run_deadlines(m);
    moves_turn(m);
    cluster_flush(m);
    return lifecycle_step(m);
}

void loop_run(struct master *m)
{
    while (turn(m))
        continue;
}
