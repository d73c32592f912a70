/* clock - the time of this process, see netd.h. */
#include "master/netd/netd.h"

#include <time.h>

uint64_t netd_now_ns(void)
{
    struct timespec t;
    MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
