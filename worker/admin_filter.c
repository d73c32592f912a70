/*
 * Which entries a question is about.
 */
#include "worker/admin_impl.h"

#include "worker/lane/flow.h"
#include "worker/lane/role.h"

#include <strings.h>

uint32_t entry_site(const struct queue *q, const struct qentry *e)
{
    if (e->flow != 0)
        return flow_at(q, e->flow)->site;
    return domain_at(q, e->domain)->site;
}

enum reason lane_why(const struct lane *l)
{
    return l->role == LANE_OWNER    ? REASON_ADDRESS
           : l->role == LANE_FROZEN ? REASON_MOVING
                                    : REASON_STRAY;
}

enum reason entry_why(const struct queue *q, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    if (e->state == ENTRY_STRAY || (e->state == ENTRY_READY && !lane_runs(&q->lanes[m->lane])))
        return lane_why(&q->lanes[m->lane]);
    if (e->state != ENTRY_READY)
        return (enum reason)e->reason;
    if (q->held_all)
        return REASON_HELD_ALL;
    if (q->lanes[m->lane].held)
        return REASON_HELD_LANE;
    if (q->tenants[m->tenant].held)
        return REASON_HELD_TENANT;
    const struct flow *f = flow_at(q, e->flow);
    if (site_at(q, f->site)->held)
        return REASON_HELD_SITE;
    if (q->draining)
        return REASON_DRAINING;
    if (f->suspended_until_ms > queue_now_ms(q))
        return REASON_SUSPENDED;
    if (f->backoff_until_ms > queue_now_ms(q))
        return REASON_BACKOFF;
    return f->why != 0 ? (enum reason)f->why : REASON_CONNECTIONS;
}

static bool read_lane(struct task *t, const char *v)
{
    struct queue *q = task_queue(t);
    struct ip ip;
    uint64_t n;
    struct lane *l = NULL;
    if (ip_parse(span_str(v), &ip) == 0)
        l = lane_by_address(q, &ip);
    else if (span_to_u64(span_str(v), &n) == 0 && n <= UINT32_MAX)
        l = lane_by_number(q, (uint32_t)n);
    if (l == NULL) {
        task_fail(t, 404, "no lane \"%s\" here: give its address or number", v);
        return false;
    }
    t->filter.lane = l->index;
    t->filter.any_lane = false;
    return true;
}

static bool read_tenant(struct task *t, const char *v)
{
    const struct queue *q = task_queue(t);
    for (uint32_t i = 0; i < q->tenant_count; i++) {
        if (strcmp(q->tenants[i].name, v) != 0)
            continue;
        t->filter.tenant = (uint16_t)i;
        t->filter.any_tenant = false;
        return true;
    }
    task_fail(t, 404, "no tenant \"%s\"", v);
    return false;
}

static bool read_domain(struct task *t, const char *v)
{
    struct queue *q = task_queue(t);
    t->filter.any_domain = false;
    t->filter.nothing = true;
    for (uint32_t at = 0, i; (i = table_next(&q->domain_by_name, &at)) != 0;) {
        if (domain_at(q, i)->name == NULL || strcasecmp(domain_at(q, i)->name, v) != 0)
            continue;
        t->filter.domain = i;
        t->filter.nothing = false;
    }
    return true;
}

static bool read_site(struct task *t, const char *v)
{
    snprintf(t->filter.site, sizeof t->filter.site, "%s", v);
    t->filter.any_site = false;
    return true;
}

static bool read_state(struct task *t, const char *v)
{
    for (uint8_t i = ENTRY_NEW; i < ENTRY_STATE_COUNT; i++) {
        if (strcmp(entry_state_word((enum entry_state)i), v) != 0)
            continue;
        t->filter.state = i;
        t->filter.any_state = false;
        t->filter.copies = i == ENTRY_REPLICA || i == ENTRY_TAIL;
        return true;
    }
    task_fail(t, 400,
              "state=%s: expected ready, waiting, resolving, in-flight, held, parked, "
              "bounce-due, stray, replica or tail",
              v);
    return false;
}

static bool read_reason(struct task *t, const char *v)
{
    for (uint8_t i = 0; i < REASON_COUNT; i++) {
        if (strcmp(reason_word((enum reason)i), v) != 0)
            continue;
        t->filter.reason = i;
        t->filter.any_reason = false;
        return true;
    }
    task_fail(t, 400, "no reason \"%s\": `mochila queue --by reason` shows those in use", v);
    return false;
}

static bool read_id(struct task *t, const char *v)
{
    if (id_parse(span_str(v), &t->filter.id) != 0) {
        task_fail(t, 400, "\"%s\" is not a message id: %d letters and digits", v, ID_TEXT);
        return false;
    }
    t->filter.any_id = false;
    return true;
}

bool filter_read(struct task *t, const struct control_frame *f)
{
    static const struct {
        const char *key;
        bool (*read)(struct task *t, const char *v);
    } keys[] = {{"lane", read_lane},     {"tenant", read_tenant}, {"site", read_site},
                {"domain", read_domain}, {"state", read_state},   {"reason", read_reason},
                {"id", read_id}};
    struct filter *x = &t->filter;
    x->any_lane = x->any_tenant = x->any_site = x->any_domain = true;
    x->any_state = x->any_reason = x->any_id = true;
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        const char *v = control_arg(f, keys[i].key);
        if (v != NULL && v[0] != '\0' && !keys[i].read(t, v))
            return false;
    }
    return true;
}

static bool site_matches(const struct queue *q, const char *want, uint32_t site)
{
    if (site == 0)
        return false;
    const struct site *s = site_at(q, site);
    if (strcasecmp(s->key, want) == 0 ||
        (s->provider != NULL && strcasecmp(s->provider, want) == 0))
        return true;
    for (uint16_t i = 0; i < s->host_count; i++)
        if (strcasecmp(s->hosts[i].name, want) == 0)
            return true;
    return false;
}

bool filter_matches(const struct queue *q, const struct filter *f, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    if (!f->copies && (e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL))
        return false; /* not ours, unless they are asked for */
    return !f->nothing && (f->any_id || id_eq(m->id, f->id)) &&
           (f->any_lane || m->lane == f->lane) && (f->any_tenant || m->tenant == f->tenant) &&
           (f->any_domain || e->domain == f->domain) && (f->any_state || e->state == f->state) &&
           (f->any_site || site_matches(q, f->site, entry_site(q, e))) &&
           (f->any_reason || (uint8_t)entry_why(q, e) == f->reason);
}
