#include "bench/subject.h"

#include "bench/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STOP_MS = 60000, GREETING_MS = 1000, GROUP_MS = 5000, POLL_MS = 2 };

/* What differs between the kinds, and nothing else. */
static const struct {
    const char *name;
    int (*prepare)(struct subject *s);
    int (*exec)(const struct subject *s); /* in the child; returns only when it fails */
} kinds[] = {
    [SUBJECT_NODE] = {"mochila", node_prepare, node_exec},
    [SUBJECT_POSTFIX] = {"postfix", postfix_prepare, postfix_exec},
};

const char *subject_name(enum subject_kind kind)
{
    return kinds[kind].name;
}

int subject_prepare(struct subject *s)
{
    return kinds[s->kind].prepare(s);
}

static void redirect(const struct subject *s)
{
    char path[SUBJECT_PATH_BYTES + 16];

    snprintf(path, sizeof path, "%s/output.txt", s->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        dup2(fd, 1);
        dup2(fd, 2);
    }
    if (null >= 0)
        dup2(null, 0);
}

static int launch(struct subject *s)
{
    fflush(NULL);
    s->child.pid = fork();
    if (s->child.pid < 0)
        return -errno;
    if (s->child.pid > 0)
        return 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setsid(); /* Postfix's master signals its whole process group when it ends */
    redirect(s);
    int rc = kinds[s->kind].exec(s);
    dprintf(2, "%s: %s\n", kinds[s->kind].name, strerror(-rc));
    _exit(127);
}

/* True when a connection is greeted with 220. */
static bool greets(const struct endpoint *e)
{
    struct sockaddr_storage ss;
    socklen_t n;
    char reply[4] = "";
    int family = ip_is_v4(&e->ip) ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    ip_to_sockaddr(&e->ip, e->port, &ss, &n);
    if (connect(fd, (struct sockaddr *)&ss, n) == 0) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, GREETING_MS) == 1 && recv(fd, reply, 3, MSG_WAITALL) == 3 &&
            send(fd, "QUIT\r\n", 6, MSG_NOSIGNAL) != 6)
            reply[0] = '\0';
    }
    close(fd);
    return strcmp(reply, "220") == 0;
}

int subject_wait_greeting(struct subject *s, uint64_t ms)
{
    uint64_t end_ns = now_ns() + ms * ns_per_ms;
    struct timespec nap = {0, POLL_MS * 1000000};
    int status;

    while (!greets(&s->listen)) {
        if (child_wait(&s->child, 0, &status) == 1)
            return -ECHILD;
        if (now_ns() > end_ns)
            return -ETIMEDOUT;
        nanosleep(&nap, NULL);
    }
    return 0;
}

int subject_start(struct subject *s, uint64_t ms)
{
    char address[ENDPOINT_TEXT];
    int rc = launch(s);

    if (rc == 0)
        rc = subject_wait_greeting(s, ms);
    if (rc == 0)
        return 0;
    endpoint_format(&s->listen, address);
    fprintf(stderr, "%s: %s on %s; its output is in %s/output.txt\n", kinds[s->kind].name,
            rc == -ECHILD ? "ended before it greeted" : "did not greet", address, s->dir);
    subject_stop(s);
    return rc;
}

/* Its children share its process group: waits until the last has gone, at last kills them. */
static void wait_for_group(pid_t group)
{
    uint64_t end_ns = now_ns() + GROUP_MS * ns_per_ms;
    struct timespec nap = {0, POLL_MS * 1000000};

    while (kill(-group, 0) == 0) {
        if (now_ns() > end_ns)
            kill(-group, SIGKILL);
        nanosleep(&nap, NULL);
    }
}

void subject_stop(struct subject *s)
{
    pid_t group = s->child.pid;

    if (group == 0)
        return;
    child_stop(&s->child, SIGTERM, STOP_MS);
    wait_for_group(group);
}

void subject_kill(struct subject *s)
{
    pid_t group = s->child.pid;

    MUST(group > 0);
    kill(-group, SIGKILL);
    child_stop(&s->child, SIGKILL, STOP_MS);
    wait_for_group(group);
}
