/*
 * source_work - which message is sent next, and when: new numbers at the asked rate, and retries.
 *
 * Owner:  one source. Every job taken comes back by exactly one of done or later.
 */
#ifndef BENCH_SOURCE_WORK_H
#define BENCH_SOURCE_WORK_H

#include "bench/rcpt_set.h"
#include "bench/timer.h"

struct job {
    uint64_t number;
    struct rcpt_set pending; /* recipients that have no final answer yet */
    uint32_t attempts;       /* ended so far */
};

struct source_work {
    uint64_t next_number;
    uint64_t count_max; /* numbers 0..count_max-1 */
    uint64_t start_ns;
    uint64_t end_ns; /* no new numbers from here on; UINT64_MAX = none */
    double rate;     /* new messages a second; 0 = as fast as connections take them */
    uint32_t rcpts;
    uint64_t open;    /* jobs taken and not back */
    uint64_t waiting; /* jobs in the heap */
    struct timer_heap retries;
};

enum work_answer { WORK_JOB, WORK_WAIT, WORK_NONE };

void source_work_fini(struct source_work *w);
/* WORK_JOB fills *out; WORK_WAIT fills *due_ns; WORK_NONE: nothing new, and no retry waits. */
NODISCARD enum work_answer source_work_take(struct source_work *w, uint64_t at_ns, struct job *out,
                                            uint64_t *due_ns);
/* When the next job can be taken: at_ns or earlier = now, UINT64_MAX = nothing to come by itself.
 */
uint64_t source_work_due_ns(const struct source_work *w, uint64_t at_ns);
void source_work_done(struct source_work *w);
/* To be sent again from due_ns on. */
void source_work_later(struct source_work *w, const struct job *job, uint64_t due_ns);
/* No new numbers any more; what is open or waits for a retry goes on. */
void source_work_stop(struct source_work *w);
/* Nothing open, nothing waiting, nothing new. */
bool source_work_is_over(const struct source_work *w, uint64_t at_ns);

#endif
