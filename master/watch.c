/* watch - see watch.h. */
#include "master/watch.h"

#include "base/log.h"
#include "master/proc.h"

static uint64_t silence_ms(const struct master *m)
{
    return m->options->silence_ms != 0 ? m->options->silence_ms : WATCH_SILENCE_MS;
}

static void look_at(struct proc *p)
{
    const struct master *m = p->master;
    const struct stats_page *page = m->pages[p->index];
    if (p->kind != PROC_WORKER || !slot_serves(&p->slot) || !p->slot.recovered)
        return;
    /* Nothing of its own there yet. */
    if (page->pid != (uint64_t)p->pid || page->heartbeat_ns == 0)
        return;
    uint64_t beat_ms = page->heartbeat_ns / 1000000;
    if (beat_ms + silence_ms(m) > m->now_ms)
        return;
    log_err("%s pid=%d gives no sign of life: killed silent_ms=%llu", p->slot.name, (int)p->pid,
            (unsigned long long)(m->now_ms - beat_ms));
    proc_event(p, SLOT_EV_BAD_FRAME);
}

void watch_tick(struct master *m)
{
    if (m->now_ms < m->watch_ms)
        return;
    m->watch_ms = m->now_ms + silence_ms(m) / WATCH_ROUNDS;
    for (unsigned i = 0; i < m->proc_count; i++)
        look_at(m->procs[i]);
}
