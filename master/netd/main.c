/*
 * mochila-netd - brings lanes' addresses to this host and takes them away.
 *
 * A child of mochilad: descriptor 3 is the control socket, 4 the log. The only process with rights
 * over the network, and the smallest one. One thread, one ppoll.
 *
 * Ends: SIGTERM - an orderly stop: every address of ours goes at once. End of the control socket,
 * or a crash: the addresses stay for NETD_LIFETIME_S, in which a successor may take them over.
 */
#include "base/log.h"
#include "master/netd/control_link.h"
#include "master/netd/driver.h"
#include "master/netd/request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_OK = 0,
    EXIT_BROKEN = 1,
    EXIT_USAGE = 2,
    ANSWERS_BYTES = 8 << 20, /* of NETD_LANES lanes at once, as the kernel counts them */
    POLLS_MAX = 2 + NIC_COUNT_MAX * NIC_FDS + NETD_HOOKS_MAX,
};

static volatile sig_atomic_t terminated;

static void on_terminate(int number)
{
    (void)number;
    terminated = 1;
}

static void on_change(void *ctx, const struct ip *ip)
{
    request_stir(ctx, ip);
}

static unsigned fill_polls(const struct netd *n, struct pollfd *p)
{
    unsigned count = 0;
    p[count++] = (struct pollfd){.fd = n->control_fd, .events = POLLIN};
    p[count++] = (struct pollfd){.fd = n->rtnl.watch_fd, .events = POLLIN};
    for (unsigned i = 0; i < NIC_COUNT_MAX; i++) {
        for (unsigned k = 0; n->nics.list[i].ifindex != 0 && k < NIC_FDS; k++)
            p[count++] = (struct pollfd){.fd = n->nics.list[i].fds[k], .events = POLLIN};
    }
    for (uint32_t i = 0; n->hook_count > 0 && i < n->lane_count; i++) {
        if (n->lanes[i].hook_pid != 0)
            p[count++] = (struct pollfd){.fd = n->lanes[i].hook_fd, .events = POLLIN};
    }
    MUST(count <= POLLS_MAX);
    return count;
}

static int wait_events(const struct netd *n)
{
    struct pollfd polls[POLLS_MAX];
    unsigned count = fill_polls(n, polls);
    uint64_t now = netd_now_ns(), next = n->started ? request_next_ns(n) : UINT64_MAX;
    uint64_t left = next > now ? next - now : 0;
    struct timespec t = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
    sigset_t none; /* SIGTERM comes in here only, so that it cannot slip in before the wait */

    (void)sigemptyset(&none);
    int r = ppoll(polls, count, next == UINT64_MAX ? NULL : &t, &none);
    return r < 0 && errno != EINTR ? -errno : 0;
}

/* Who claims addresses on the segments that lanes are on. */
static void listen_all(struct netd *n)
{
    struct arp_claim c;
    for (unsigned i = 0; i < NIC_COUNT_MAX * NIC_FDS; i++) {
        const struct nic *nic = &n->nics.list[i / NIC_FDS];
        while (nic->ifindex != 0 && nic_hear(nic, nic->fds[i % NIC_FDS], &c)) {
            struct lane *l = request_lane_of(n, &c.ip);
            if (l != NULL && l->place.driver == NETD_L2)
                driver_l2_claim(n, l, &c);
            /* The address of a peer is no lane's: those that probe want to know its MAC. */
            for (uint32_t k = 0; l == NULL && k < n->lane_count; k++) {
                if (n->lanes[k].state == LANE_BUSY && n->lanes[k].phase == PHASE_PROBE)
                    driver_l2_claim(n, &n->lanes[k], &c);
            }
        }
    }
}

static void look_at_hooks(struct netd *n)
{
    for (uint32_t i = 0; n->hook_count > 0 && i < n->lane_count; i++) {
        if (n->lanes[i].hook_pid != 0)
            n->lanes[i].stirred = true; /* its step asks without waiting */
    }
    for (unsigned i = 0; i < NETD_HOOKS_MAX; i++) {
        if (n->orphans[i] != 0 && waitpid(n->orphans[i], NULL, WNOHANG) != 0)
            n->orphans[i] = 0;
    }
}

/* 0, 1 = the master has ended, -errno. */
static int turn(struct netd *n)
{
    int r = wait_events(n);
    if (r < 0)
        return r;
    n->now_ns = netd_now_ns();
    r = rtnl_watch(&n->rtnl);
    if (r < 0)
        return r;
    listen_all(n);
    look_at_hooks(n);
    if (n->started)
        request_turn(n);
    return control_link_read(n);
}

static bool keep_none(void *ctx, const struct nl_address *a)
{
    (void)ctx;
    (void)a;
    return false;
}

/* An orderly stop: the host has no lane any more, and nothing that would say so. */
static void drop_all(struct netd *n)
{
    int removed = rtnl_remove_others(&n->rtnl, keep_none, NULL);
    log_note("told to end: addresses removed=%d", removed);
    if (!n->can_forward)
        return;
    forward_begin(&n->forward);
    forward_flush(&n->forward);
    if (forward_commit(&n->forward) < 0)
        log_warn("the forward rules could not be removed");
}

static int serve(struct netd *n)
{
    int r;
    do
        r = turn(n);
    while (r == 0 && terminated == 0);
    for (uint32_t i = 0; i < n->lane_count; i++) {
        if (n->lanes[i].hook_pid != 0)
            driver_exec.abandon(n, &n->lanes[i]);
    }
    if (terminated != 0)
        drop_all(n);
    else
        log_note("%s: addresses end within %d s unless somebody takes them over",
                 r == 1 ? "the master has ended" : strerror(-r), NETD_LIFETIME_S);
    return r < 0 && terminated == 0 ? r : 0;
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

static bool is_child(int argc)
{
    int type;
    socklen_t n = sizeof type;
    return argc == 1 && getsockopt(NETD_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &n) == 0 &&
           type == SOCK_SEQPACKET;
}

int main(int argc, char **argv)
{
    static struct netd n; /* megabytes */

    (void)argv;
    if (!is_child(argc)) {
        fputs("mochila-netd is a part of mochilad and is started by it.\n", stderr);
        return EXIT_USAGE;
    }
    bool has_log = fcntl(NETD_LOG_FD, F_GETFD) >= 0;
    log_open(has_log ? NETD_LOG_FD : STDERR_FILENO, LOG_NOTE, "netd");
    /* What a hook inherits is standard error alone. */
    (void)fcntl(NETD_CONTROL_FD, F_SETFD, FD_CLOEXEC);
    if (has_log)
        (void)fcntl(NETD_LOG_FD, F_SETFD, FD_CLOEXEC);
    set_signals();
    n.control_fd = NETD_CONTROL_FD;
    /* An answer that has no room is lost, and its lane waits until the master asks again. */
    int bytes = ANSWERS_BYTES;
    (void)setsockopt(NETD_CONTROL_FD, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    nics_init(&n.nics);
    int r = rtnl_open(&n.rtnl, on_change, &n);
    if (r < 0)
        log_err("netlink: %s", strerror(-r));
    if (r == 0)
        r = forward_open(&n.forward);
    if (r == 0)
        r = serve(&n);
    forward_close(&n.forward);
    nics_close(&n.nics);
    rtnl_close(&n.rtnl);
    table_fini(&n.by_number);
    table_fini(&n.by_address);
    return r < 0 ? EXIT_BROKEN : EXIT_OK;
}
