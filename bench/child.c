#include "bench/child.h"

#include "bench/report.h"
#include "bench/timer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 2 };

static int start(struct child *c, const char *dir, const char *role)
{
    snprintf(c->json, sizeof c->json, "%s/%s.json", dir, role);
    unlink(c->json);
    fflush(NULL);
    c->pid = fork();
    if (c->pid < 0)
        return -errno;
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_DFL);
    }
    return 0;
}

int child_sink(struct child *c, struct sink_options *o, const char *dir)
{
    int rc = start(c, dir, "sink");

    if (rc < 0 || c->pid > 0)
        return rc;
    o->json = c->json;
    _exit(sink_run(o) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

int child_source(struct child *c, struct source_options *o, const char *dir)
{
    int rc = start(c, dir, "source");

    if (rc < 0 || c->pid > 0)
        return rc;
    o->json = c->json;
    _exit(source_run(o) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

int child_wait(struct child *c, uint64_t ms, int *status)
{
    uint64_t end_ns = now_ns() + ms * ns_per_ms;
    struct timespec nap = {0, POLL_MS * 1000000};

    MUST(c->pid > 0);
    for (;;) {
        pid_t got = waitpid(c->pid, status, WNOHANG);
        if (got == c->pid || (got < 0 && errno == ECHILD)) {
            c->pid = 0;
            return 1;
        }
        if (now_ns() >= end_ns)
            return 0;
        nanosleep(&nap, NULL);
    }
}

void child_stop(struct child *c, int number, uint64_t ms)
{
    int status;

    if (c->pid == 0)
        return;
    kill(c->pid, number);
    if (child_wait(c, ms, &status) == 1)
        return;
    kill(c->pid, SIGKILL);
    child_wait(c, 5000, &status);
}

json_t *child_result(const struct child *c)
{
    return report_read(c->json);
}
