/*
 * proc_stat - CPU time and memory of a process with all its descendants, out of /proc.
 *
 * CPU counts reaped children too (as their parents' cutime), so that short-lived processes are in
 * it; resolution is a clock tick (10 ms) a process. Memory: RSS counts shared pages once a process,
 * PSS shares them out.
 */
#ifndef BENCH_PROC_STAT_H
#define BENCH_PROC_STAT_H

#include "base/check.h"

#include <sys/types.h>

enum { PROC_TREE_MAX = 4096 };

struct proc_memory {
    uint64_t rss_bytes;
    uint64_t pss_bytes;
    uint32_t processes;
};

/* CPU seconds of the tree so far. -ESRCH when root is not there. */
NODISCARD int proc_tree_cpu(pid_t root, double *seconds);
/* pss costs the kernel a walk over all pages: not more often than a few times a second. */
NODISCARD int proc_tree_memory(pid_t root, struct proc_memory *out);
/* CPU seconds of the whole machine that were not idle. */
double proc_machine_busy_s(void);
/* Of one line of /proc/PID/stat. False when it is none. */
struct proc_stat {
    pid_t pid;
    pid_t parent;
    uint64_t ticks; /* user and system, with those of reaped children */
};
bool proc_stat_parse(const char *line, struct proc_stat *out);

#endif
