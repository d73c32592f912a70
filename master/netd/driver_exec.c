/*
 * driver_exec - a program of the operator moves the address: clouds, switches, firewall managers.
 *
 * `HOOK ACTION`, without a shell, with LANE, ADDRESS, EPOCH, FROM, TO, POOL and ACTION in its
 * environment and nothing else but PATH. Exit 0: done; 75 (EX_TEMPFAIL): retry; anything else:
 * failed. What it writes goes to the log. It has the two rights that netd has, so `ip addr` works;
 * new ones it cannot get (no set-user-id programs).
 *
 * It leads a process group of its own: at the time limit all of it is killed.
 */
#include "master/netd/driver.h"

#include "base/log.h"
#include "master/netd/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { ENV_COUNT = 8, ENV_BYTES = 128, EXIT_NO_EXEC = 127 };

static const char *const action_names[NETD_ACTION_COUNT] = {
    [NETD_PREPARE] = "prepare", [NETD_RELEASE] = "release",   [NETD_ACQUIRE] = "acquire",
    [NETD_VERIFY] = "verify",   [NETD_END_TAIL] = "end_tail",
};

/* NULL, or why it may not be run: what others may write would run with our rights. */
static const char *examine_hook(const char *path)
{
    struct stat st;
    if (path[0] == '\0')
        return "none is configured";
    if (stat(path, &st) < 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "it is not a file";
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "others than its owner may write it";
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return "it belongs neither to root nor to the service's user";
    return access(path, X_OK) < 0 ? "it cannot be executed" : NULL;
}

/* In the child. Descriptors of ours are all close-on-exec. */
_Noreturn static void run(const char *path, const char *action, char **environment)
{
    char *arguments[] = {(char *)(uintptr_t)path, (char *)(uintptr_t)action, NULL};
    sigset_t none;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    (void)setpgid(0, 0);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        _exit(EXIT_NO_EXEC);
    /* Without them the hook may still call a provider. */
    (void)privilege_lend();
    execve(path, arguments, environment);
    _exit(EXIT_NO_EXEC);
}

static void fill_environment(const struct netd_request *r, char (*text)[ENV_BYTES], char **list)
{
    char ip[IP_TEXT];
    ip_format(&r->place.address, ip);
    (void)snprintf(text[0], ENV_BYTES, "LANE=%u", r->place.lane);
    (void)snprintf(text[1], ENV_BYTES, "ADDRESS=%s", ip);
    (void)snprintf(text[2], ENV_BYTES, "EPOCH=%u", r->place.epoch);
    (void)snprintf(text[3], ENV_BYTES, "FROM=%s", r->from);
    (void)snprintf(text[4], ENV_BYTES, "TO=%s", r->to);
    (void)snprintf(text[5], ENV_BYTES, "POOL=%s", r->pool);
    (void)snprintf(text[6], ENV_BYTES, "ACTION=%s", action_names[r->action]);
    (void)snprintf(text[7], ENV_BYTES, "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    for (unsigned i = 0; i < ENV_COUNT; i++)
        list[i] = text[i];
    list[ENV_COUNT] = NULL;
}

static int spawn(struct netd *n, struct lane *l)
{
    char text[ENV_COUNT][ENV_BYTES], *list[ENV_COUNT + 1];
    fill_environment(&l->request, text, list);
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        run(n->hook, action_names[l->request.action], list);
    (void)setpgid(pid, pid); /* whoever of both is first */
    l->hook_pid = pid;
    l->hook_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (l->hook_fd < 0) {
        int e = errno;
        (void)kill(-pid, SIGKILL);
        (void)waitpid(pid, NULL, 0); /* it has hardly begun */
        l->hook_pid = 0;
        return -e;
    }
    n->hook_count++;
    return 0;
}

static enum driver_result begin(struct netd *n, struct lane *l)
{
    const char *why = examine_hook(n->hook);
    if (why != NULL)
        return driver_say(l, DRIVER_FAILED, "hook %.80s: %s", n->hook, why);
    if (n->hook_count == NETD_HOOKS_MAX)
        return driver_say(l, DRIVER_RETRY, "%d hooks are running already", NETD_HOOKS_MAX);
    int e = spawn(n, l);
    if (e < 0)
        return driver_say(l, DRIVER_RETRY, "the hook cannot be started: %s", strerror(-e));
    uint64_t limit = n->now_ns + n->hook_ms * 1000000ull;
    if (limit < l->deadline_ns)
        l->deadline_ns = limit;
    return DRIVER_PENDING;
}

static void forget(struct netd *n, struct lane *l)
{
    close(l->hook_fd);
    l->hook_fd = -1;
    l->hook_pid = 0;
    n->hook_count--;
}

static enum driver_result step(struct netd *n, struct lane *l)
{
    int status;
    if (l->hook_pid == 0 || waitpid(l->hook_pid, &status, WNOHANG) != l->hook_pid)
        return DRIVER_PENDING;
    forget(n, l);
    if (!WIFEXITED(status))
        return driver_say(l, DRIVER_FAILED, "the hook was ended by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == 0)
        return DRIVER_OK;
    if (WEXITSTATUS(status) == EX_TEMPFAIL)
        return driver_say(l, DRIVER_RETRY, "the hook asks for a retry");
    return driver_say(l, DRIVER_FAILED, "the hook ended with status %d", WEXITSTATUS(status));
}

static void abandon(struct netd *n, struct lane *l)
{
    if (l->hook_pid == 0)
        return;
    (void)kill(-l->hook_pid, SIGKILL);
    /* Never wait for it: one that hangs in the kernel would hold up every other lane. */
    for (unsigned i = 0; i < NETD_HOOKS_MAX; i++) {
        if (n->orphans[i] == 0) {
            n->orphans[i] = l->hook_pid;
            break;
        }
    }
    forget(n, l);
}

static bool always(struct netd *n, const struct lane *l)
{
    (void)n;
    (void)l;
    return true;
}

static void nothing(struct netd *n, struct lane *l)
{
    (void)n;
    (void)l;
}

const struct driver driver_exec = {
    .name = "exec",
    .begin = {[NETD_PREPARE] = begin,
              [NETD_RELEASE] = begin,
              [NETD_ACQUIRE] = begin,
              [NETD_VERIFY] = begin,
              [NETD_END_TAIL] = begin},
    .step = step,
    .abandon = abandon,
    .holds = always,
    .renew = nothing,
    .announce = nothing,
};
