/* poison - see poison.h. */
#include "master/poison.h"

#include "base/log.h"

void poison_examine(struct proc *p, bool crash)
{
    struct master *m = p->master;
    struct stats_page *page = m->pages[p->index];
    char text[ID_TEXT + 1];
    uint32_t deaths;

    /* During a reload two processes share the page; the marker is that of the one named in it. */
    if (page->pid != (uint64_t)p->pid)
        return;
    struct msg_id id = page->marker.id;
    uint32_t stage = page->marker.stage;
    page->marker = (struct stats_marker){0};
    page->heartbeat_ns = 0;
    if (!crash || id_is_none(id))
        return;
    id_format(id, text);
    if (state_poison_death(m->state, id, &deaths) < 0) {
        log_err("%s died at message %s stage=%u, which could not be remembered", p->slot.name, text,
                stage);
        return;
    }
    if (deaths < STATE_POISON_DEATHS) {
        log_warn("%s died at message %s stage=%u: it gets another chance", p->slot.name, text,
                 stage);
        return;
    }
    m->poisoned++;
    log_warn("%s died at message %s stage=%u deaths=%u: the message is parked", p->slot.name, text,
             stage, deaths);
}
