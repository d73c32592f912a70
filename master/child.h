/*
 * child - starting a process: fork and exec with exactly the descriptors it may have.
 *
 * The child gets: 0 /dev/null, 1 and 2 and CONTROL_LOG_FD the log, CONTROL_FD its end of a
 * SOCK_SEQPACKET pair; an own process group, no blocked signals, an environment of a few names.
 */
#ifndef MASTER_CHILD_H
#define MASTER_CHILD_H

#include "base/check.h"

#include <sys/types.h>

/* Starts `program`; *control is our end. 0 or -errno. A program that cannot be executed exits 127.
 */
NODISCARD int child_spawn(const char *program, int log_fd, pid_t *pid, int *control);
/* How a process ended, for people: "exit status 1", "signal 11 (Segmentation fault)". */
void child_describe(int wait_status, char *out, size_t cap);

#endif
