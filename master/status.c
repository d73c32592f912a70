/* status - the node at a glance, as JSON; see verbs.h. */
#include "master/generation.h"
#include "master/verbs.h"

#include <stdio.h>

static json_int_t seconds_since(const struct master *m, uint64_t ms)
{
    return ms == 0 || ms > m->now_ms ? 0 : (json_int_t)((m->now_ms - ms) / 1000);
}

static json_t *child_json(const struct master *m, const struct proc *p)
{
    const struct slot *s = &p->slot;
    bool alive = slot_has_process(s);
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "name", s->name, "state",
                          slot_state_word(s->state), "pid", (json_int_t)p->pid, "restarts",
                          (json_int_t)s->restarts, "uptime_s",
                          alive ? seconds_since(m, s->spawned_ms) : 0, "last_exit", s->last_exit);
    if (o == NULL || p->kind != PROC_WORKER)
        return o;
    (void)json_object_set_new(o, "slot", json_integer(p->index));
    (void)json_object_set_new(o, "generation", json_integer((json_int_t)p->generation->number));
    (void)json_object_set_new(o, "holds_shards", json_boolean(slot_serves(s) && s->recovered));
    (void)json_object_set_new(o, "core", json_integer(p->generation->cores[p->index]));
    return o;
}

static json_t *children_json(const struct master *m)
{
    json_t *list = json_array();
    const struct generation *order[] = {m->leaving, m->current, m->next};
    for (size_t i = 0; i < ARRAY_COUNT(order); i++) {
        for (uint32_t w = 0; order[i] != NULL && w < order[i]->workers; w++)
            (void)json_array_append_new(list, child_json(m, order[i]->procs[w]));
    }
    (void)json_array_append_new(list, child_json(m, m->api));
    /* Those that no cluster calls for are not missed. */
    if (m->link->slot.state != SLOT_EMPTY)
        (void)json_array_append_new(list, child_json(m, m->link));
    if (m->netd->slot.state != SLOT_EMPTY)
        (void)json_array_append_new(list, child_json(m, m->netd));
    return list;
}

static json_t *lanes_json(const struct generation *g)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < g->lane_count; i++) {
        const struct control_lane *l = &g->lanes[i];
        char address[IP_TEXT];
        ip_format(&l->address, address);
        (void)json_array_append_new(
            list, json_pack("{s:I, s:s, s:I, s:I, s:I, s:b}", "lane", (json_int_t)l->lane,
                            "address", address, "shard", (json_int_t)l->shard, "worker",
                            (json_int_t)l->worker, "epoch", (json_int_t)l->epoch, "configured",
                            i < g->source->config->lane_count));
    }
    return list;
}

json_t *status_holds(const struct master *m)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < m->hold_count; i++) {
        const struct control_hold *h = &m->holds[i];
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I}", "kind", h->kind,
                                                    "value", h->value, "why", h->why, "since",
                                                    (json_int_t)h->since));
    }
    return list;
}

/* Adds "NAME TEXT". */
static void warn(json_t *list, const char *name, const char *text)
{
    (void)json_array_append_new(list, json_sprintf("%s %s", name, text));
}

static void warn_of_child(const struct master *m, const struct proc *p, json_t *list)
{
    const struct slot *s = &p->slot;
    if (s->state == SLOT_BACKOFF)
        warn(list, s->name, s->last_exit[0] != '\0' ? s->last_exit : "waits to be started again");
    if (s->state == SLOT_READY && s->must_recover && !s->recovered)
        warn(list, s->name, "is still waiting for its shards, or recovering them");
    if (p->kind == PROC_API && s->state == SLOT_READY && p->acknowledged < m->current->number)
        warn(list, s->name, "still serves the configuration before the last reload");
}

static json_t *warnings_json(const struct master *m)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < m->proc_count; i++)
        warn_of_child(m, m->procs[i], list);
    if (m->reload_failed)
        warn(list, "the last reload failed:", m->reload_text);
    if (m->poisoned > 0)
        (void)json_array_append_new(
            list, json_sprintf("%u messages were parked since the start because they killed a "
                               "worker twice; mochila queue --by message state=parked shows them",
                               m->poisoned));
    for (uint32_t i = 0; i < m->hold_count; i++) {
        if (strcmp(m->holds[i].kind, "all") == 0)
            warn(list, "all delivery is held:", m->holds[i].why);
    }
    return list;
}

const char *status_word(const struct master *m)
{
    if (m->mode == MODE_STOPPING)
        return "stopping";
    if (m->mode == MODE_DRAINED)
        return generation_is_empty(m->current) ? "drained" : "draining";
    if (m->next != NULL)
        return "reloading";
    for (uint32_t w = 0; w < m->workers; w++) {
        if (master_holder(m, w) == NULL)
            return "degraded";
    }
    return "running";
}

json_t *status_json(const struct master *m)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:o, s:o}", "node",
                     m->current->source->config->node, "version", MOCHILA_VERSION, "generation",
                     (json_int_t)m->current->number, "boot", (json_int_t)m->boot, "uptime_s",
                     seconds_since(m, m->started_ms), "state", status_word(m), "config",
                     m->current->source->name, "children", children_json(m), "lanes",
                     lanes_json(m->current), "holds", status_holds(m), "warnings",
                     warnings_json(m));
}
