#include "bench/source_work.h"

#include <stdlib.h>

struct retry {
    struct timer timer; /* first: the heap gives back its address */
    struct job job;
};

void source_work_fini(struct source_work *w)
{
    struct timer *t;

    while ((t = timer_take_due(&w->retries, UINT64_MAX)) != NULL)
        free((struct retry *)(void *)t);
    timer_heap_fini(&w->retries);
}

static bool has_new(const struct source_work *w, uint64_t at_ns)
{
    return w->next_number < w->count_max && at_ns < w->end_ns;
}

static uint64_t new_due_ns(const struct source_work *w)
{
    if (w->rate <= 0)
        return 0;
    return w->start_ns + (uint64_t)((double)w->next_number * 1e9 / w->rate);
}

static bool take_retry(struct source_work *w, uint64_t at_ns, struct job *out)
{
    struct timer *t = timer_take_due(&w->retries, at_ns);

    if (t == NULL)
        return false;
    struct retry *r = (struct retry *)(void *)t;
    *out = r->job;
    free(r);
    w->waiting--;
    return true;
}

uint64_t source_work_due_ns(const struct source_work *w, uint64_t at_ns)
{
    uint64_t due = has_new(w, at_ns) ? new_due_ns(w) : UINT64_MAX;

    return timer_next_ns(&w->retries, due);
}

enum work_answer source_work_take(struct source_work *w, uint64_t at_ns, struct job *out,
                                  uint64_t *due_ns)
{
    if (take_retry(w, at_ns, out)) {
        w->open++;
        return WORK_JOB;
    }
    *due_ns = source_work_due_ns(w, at_ns);
    if (*due_ns > at_ns)
        return *due_ns == UINT64_MAX ? WORK_NONE : WORK_WAIT;
    *out = (struct job){.number = w->next_number++, .pending = rcpt_set_first(w->rcpts)};
    w->open++;
    return WORK_JOB;
}

void source_work_done(struct source_work *w)
{
    MUST(w->open > 0);
    w->open--;
}

void source_work_later(struct source_work *w, const struct job *job, uint64_t due_ns)
{
    struct retry *r = calloc(1, sizeof *r);

    MUST(w->open > 0);
    MUST(r != NULL);
    r->job = *job;
    w->open--;
    w->waiting++;
    timer_set(&w->retries, &r->timer, due_ns);
}

void source_work_stop(struct source_work *w)
{
    w->end_ns = 0;
}

bool source_work_is_over(const struct source_work *w, uint64_t at_ns)
{
    return w->open == 0 && w->waiting == 0 && !has_new(w, at_ns);
}
