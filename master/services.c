/* services - see services.h. */
#include "master/services.h"

#include "master/generation.h"
#include "master/proc.h"

#include <errno.h>
#include <unistd.h>

int services_init(struct master *m)
{
    m->link = proc_create(m, NULL, PROC_LINK, 0);
    m->netd = proc_create(m, NULL, PROC_NETD, 0);
    return m->link != NULL && m->netd != NULL ? 0 : -ENOMEM;
}

void services_fini(struct master *m)
{
    proc_free(&m->link);
    proc_free(&m->netd);
}

static const struct config *config_of(const struct master *m)
{
    return m->current->source->config;
}

static bool wants_link(const struct master *m)
{
    return config_of(m)->cluster.name[0] != '\0';
}

static bool wants_netd(const struct master *m)
{
    return wants_link(m) || config_of(m)->cluster.driver != CLUSTER_DRIVER_NONE;
}

/*
 * Ended by the end of its descriptor, which it obeys at once, and restarted as after any death: the
 * addresses that netd keeps are there for its successor, as they would not be after SIGTERM.
 */
static void renew(struct proc *p)
{
    if (p->control_fd < 0)
        return;
    close(p->control_fd);
    p->control_fd = -1;
    outbox_fini(&p->outbox);
    p->slot.deadline_ms = p->master->now_ms + SLOT_TERM_MS;
}

static void step(struct proc *p, bool wanted)
{
    const struct master *m = p->master;
    enum slot_state s = p->slot.state;
    if (wanted && s == SLOT_EMPTY) {
        proc_event(p, SLOT_EV_SPAWN);
        return;
    }
    if (!wanted && s != SLOT_EMPTY && s != SLOT_KILLING) {
        proc_event(p, SLOT_EV_STOP);
        return;
    }
    if (s == SLOT_READY && p->configured < m->cluster_since)
        renew(p);
}

void services_step(struct master *m)
{
    if (m->mode == MODE_STOPPING)
        return;
    step(m->link, wants_link(m));
    step(m->netd, wants_netd(m));
}

bool services_stop(struct master *m)
{
    struct proc *all[] = {m->link, m->netd};
    bool empty = true;
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        enum slot_state s = all[i]->slot.state;
        if (s != SLOT_EMPTY && s != SLOT_KILLING)
            proc_event(all[i], SLOT_EV_STOP);
        empty = empty && all[i]->slot.state == SLOT_EMPTY;
    }
    return empty;
}
