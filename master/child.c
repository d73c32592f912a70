/* child - see child.h. */
#include "master/child.h"

#include "proto/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NO_PROGRAM = 127, FD_PARK = 10 };

/* Names that are passed on when they are set. */
static const char *const kept[] = {
    "PATH", "TZ", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS",
#ifdef MOCHILA_FAULTS
    "MOCHILA_FAULT", /* worker/fault.h */
#endif
};
enum { KEPT = ARRAY_COUNT(kept), ENTRY_BYTES = 1024 };

struct environment {
    char text[KEPT][ENTRY_BYTES];
    char *list[KEPT + 1];
};

/* Built before fork: what runs between fork and exec shall need no memory. */
static void environment_make(struct environment *e)
{
    unsigned count = 0;
    for (unsigned i = 0; i < KEPT; i++) {
        const char *value = getenv(kept[i]);
        if (value == NULL)
            continue;
        int n = snprintf(e->text[count], ENTRY_BYTES, "%s=%s", kept[i], value);
        if (n > 0 && n < ENTRY_BYTES) {
            e->list[count] = e->text[count];
            count++;
        }
    }
    e->list[count] = NULL;
}

/* Moves a descriptor out of the way of 0..4; -1 on failure. */
static int park(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, FD_PARK);
}

/* In the child, until exec; only calls that are safe after fork. */
_Noreturn static void become(const char *program, int control, int log, int null,
                             char *const *environment)
{
    sigset_t none;
    char *const argv[] = {(char *)(uintptr_t)program, NULL};
    control = park(control);
    log = park(log);
    null = park(null);
    bool ok = control >= 0 && log >= 0 && null >= 0;
    ok = ok && dup2(null, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0;
    ok = ok && dup2(log, STDERR_FILENO) >= 0 && dup2(control, CONTROL_FD) >= 0;
    ok = ok && dup2(log, CONTROL_LOG_FD) >= 0;
    /* A Ctrl-C at a terminal is for the master, who drains. */
    (void)setpgid(0, 0);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (ok)
        execve(program, argv, environment);
    static const char sorry[] = "mochilad: a child could not be executed\n";
    ssize_t ignored = write(STDERR_FILENO, sorry, sizeof sorry - 1);
    (void)ignored;
    _exit(EXIT_NO_PROGRAM);
}

int child_spawn(const char *program, int log_fd, pid_t *pid, int *control)
{
    static struct environment environment;
    int ends[2];
    environment_make(&environment);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        int rc = -errno;
        close(null);
        return rc;
    }
    *pid = fork();
    if (*pid == 0)
        become(program, ends[1], log_fd, null, environment.list);
    int rc = *pid < 0 ? -errno : 0;
    close(null);
    close(ends[1]);
    if (rc < 0)
        close(ends[0]);
    *control = rc < 0 ? -1 : ends[0];
    return rc;
}

void child_describe(int wait_status, char *out, size_t cap)
{
    if (WIFSIGNALED(wait_status))
        snprintf(out, cap, "signal %d (%s)", WTERMSIG(wait_status),
                 strsignal(WTERMSIG(wait_status)));
    else if (WEXITSTATUS(wait_status) == EXIT_NO_PROGRAM)
        snprintf(out, cap, "the program could not be executed");
    else
        snprintf(out, cap, "exit status %d", WEXITSTATUS(wait_status));
}
