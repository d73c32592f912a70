/* cpu - CPU seconds of this process, for results. */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <sys/resource.h>

static inline double cpu_seconds_self(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

#endif
