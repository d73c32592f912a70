/*
 * mochila-worker - started by mochilad only: descriptor 3 is the control socket, 4 the log.
 */
#include "worker/worker.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static struct worker worker;

static void pin(int core)
{
    if (core < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        log_warn("core %d cannot be used: %s", core, strerror(errno));
}

/* Every connection is a descriptor: take what the host allows. */
static void raise_limits(const struct config *c)
{
    struct rlimit r;
    rlim_t want = (rlim_t)c->smtp.connections_max + c->client.connections_max + 256;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= want)
        return;
    if (want > r.rlim_max) { /* root may raise it */
        struct rlimit more = {want, want};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            return;
        log_warn("descriptors are limited to %llu, the connection limits would need %llu",
                 (unsigned long long)r.rlim_max, (unsigned long long)want);
        want = r.rlim_max;
    }
    r.rlim_cur = want;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0)
        log_warn("the limit of descriptors cannot be raised: %s", strerror(errno));
}

/* After the ring exists (its memory is charged to root then) and before anything of the world is
   read. */
static int drop_privileges(const struct config *c)
{
    if (geteuid() != 0 || c->user[0] == '\0')
        return 0;
    const struct passwd *pw = getpwnam(c->user);
    if (pw == NULL) {
        log_err("user %s does not exist on this host", c->user);
        return -ENOENT;
    }
    gid_t gid = pw->pw_gid;
    if (c->group[0] != '\0') {
        const struct group *gr = getgrnam(c->group);
        if (gr == NULL) {
            log_err("group %s does not exist on this host", c->group);
            return -ENOENT;
        }
        gid = gr->gr_gid;
    }
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 ||
        setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) != 0) {
        log_err("privileges cannot be dropped to %s: %s", c->user, strerror(errno));
        return -EPERM;
    }
    MUST(setuid(0) != 0);
    return 0;
}

static uint32_t recv_buffers(const struct config *c)
{
    uint32_t n = 1024;
    while (n < 8192 && n < c->smtp.connections_max / 4)
        n *= 2;
    return n;
}

static int make_ring(struct worker *w)
{
    const struct config *c = w->config;
    struct io_settings set = {.conn_count_max = c->smtp.connections_max + c->client.connections_max,
                              .recv_buffer_count = recv_buffers(c),
                              .restrict_ops = true};
    int r = io_create(&w->io, &set);
    if (r != 0)
        log_err("%s", io_explain(r));
    return r;
}

int main(int argc, char **argv)
{
    (void)argv;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* from a terminal it reaches all; the master decides */
    if (argc != 1 || fcntl(CONTROL_FD, F_GETFD) < 0) {
        fprintf(stderr, "mochila-worker is started by mochilad, not by hand\n");
        return 2;
    }
    log_open(CONTROL_LOG_FD, LOG_NOTE, "worker");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    struct start start;
    int r = start_receive(&start);
    if (r != 0) {
        log_err("no usable START from the master: %s", strerror(-r));
        return 1;
    }
    struct worker *w = &worker;
    pin(start.frame.core);
    r = worker_config(w, &start);
    if (r == 0) {
        raise_limits(w->config);
        r = make_ring(w);
    }
    if (r == 0)
        r = drop_privileges(w->config);
    if (r == 0)
        r = io_enable(w->io);
    if (r == 0)
        r = worker_create(w, &start);
    start_free(&start);
    if (r != 0) {
        log_err("cannot start: %s", strerror(-r));
        return 1;
    }
    int status = worker_run(w);
    worker_destroy(w);
    return status;
}
