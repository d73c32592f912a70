/* clock - the time of this process, see api.h. */
#include "master/api/api.h"

#include <time.h>

uint64_t clock_ns(void)
{
    struct timespec t;
    MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_ms(void)
{
    return clock_ns() / 1000000;
}
