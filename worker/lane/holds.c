/*
 * Holds of the operator: flags on lanes, tenants, sites and domains, so that holding a million
 * messages is one assignment; a held message is taken out of its list.
 */
#include "worker/lane/site.h"

#include "worker/lane/flow.h"
#include "worker/lane/shard.h"

#include <stdlib.h>
#include <strings.h>

enum { SWEEP_PER_TURN = 20000 };

static bool is_kind(const struct control_hold *h, const char *kind)
{
    return strcmp(h->kind, kind) == 0;
}

/* The list is sorted: a thousand holds over a million domains must not stop the worker. */
static int by_kind_and_value(const void *a, const void *b)
{
    const struct control_hold *x = a, *y = b;
    int r = strcmp(x->kind, y->kind);
    return r != 0 ? r : strcasecmp(x->value, y->value);
}

static bool is_listed(const struct queue *q, const char *kind, const char *value)
{
    uint32_t from = 0, to = q->hold_count;
    while (from < to) {
        uint32_t mid = from + (to - from) / 2;
        int r = strcmp(q->holds[mid].kind, kind);
        if (r == 0)
            r = strcasecmp(q->holds[mid].value, value);
        if (r == 0)
            return true;
        if (r < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return false;
}

static bool has_hold(const struct queue *q, const char *kind, const char *value, const char *other)
{
    return is_listed(q, kind, value) || (other != NULL && is_listed(q, kind, other));
}

bool hold_applies_to_message(const struct queue *q, struct msg_id id)
{
    char text[ID_TEXT + 1];
    id_format(id, text);
    return has_hold(q, "message", text, NULL);
}

static void mark_flows(struct queue *q)
{
    for (uint32_t i = 0; q->flow_by_pair.slots != NULL && i <= q->flow_by_pair.mask; i++)
        if (q->flow_by_pair.slots[i].value != 0)
            flow_mark(q, flow_at(q, q->flow_by_pair.slots[i].value));
}

static void hold_entry(struct queue *q, struct qentry *e)
{
    entry_unlist(q, e);
    e->reason = REASON_HELD_MESSAGE;
    entry_set_state(q, e, ENTRY_HELD);
    shard_tell_copy(q, e);
}

static bool is_movable(const struct qentry *e)
{
    return e->state != ENTRY_IN_FLIGHT && e->state != ENTRY_BOUNCE_DUE &&
           e->state != ENTRY_PARKED && e->state != ENTRY_NEW && e->state != ENTRY_REPLICA &&
           e->state != ENTRY_TAIL && (e->state != ENTRY_STRAY || e->cancel == 0);
}

/* Single messages: held at once, each found by its id. */
static void hold_messages(struct queue *q)
{
    for (uint32_t i = 0; i < q->hold_count; i++) {
        struct msg_id id;
        if (!is_kind(&q->holds[i], "message") || id_parse(span_str(q->holds[i].value), &id) != 0)
            continue;
        const struct qmsg *m = store_find(&q->store, id);
        for (uint32_t k = m == NULL ? 0 : m->first; k != 0;) {
            struct qentry *e = store_entry(&q->store, k);
            k = e->sibling;
            bool frozen = e->state == ENTRY_STRAY && entry_lane(q, e)->role == LANE_FROZEN;
            if (is_movable(e) && e->state != ENTRY_HELD && !frozen)
                hold_entry(q, e);
        }
    }
}

static void apply_to_entry(struct queue *q, struct qentry *e)
{
    /* What is held because of doubt after a crash is not the business of holds. */
    bool by_hold = e->state == ENTRY_HELD && e->reason == REASON_HELD_MESSAGE;
    bool by_domain = e->state == ENTRY_WAITING && e->reason == REASON_HELD_SITE;
    bool about_to_go = e->state == ENTRY_READY || e->state == ENTRY_RESOLVING;
    if (by_hold && hold_applies_to_message(q, store_msg(&q->store, e->msg)->id))
        return;
    if (!by_hold && !(domain_at(q, e->domain)->held ? about_to_go : by_domain))
        return;
    entry_unlist(q, e);
    e->due_s = 0;
    shard_tell_copy(q, e);
    entry_place(q, e);
}

/*
 * After a change of holds all entries are looked at, some in each turn: those of domains that are
 * held now, and those that are held no longer. What is in flight meets its hold in entry_place when
 * its attempt ends.
 */
void holds_turn(struct queue *q)
{
    uint32_t end = store_entry_end(&q->store);
    for (uint32_t i = 0; q->hold_sweep_at != 0 && i < SWEEP_PER_TURN; i++) {
        if (q->hold_sweep_at >= end) {
            q->hold_sweep_at = 0;
            return;
        }
        struct qentry *e = store_peek(&q->store, q->hold_sweep_at++);
        if (e != NULL && is_movable(e))
            apply_to_entry(q, e);
    }
}

bool hold_applies_to_site(const struct queue *q, const struct site *s)
{
    return q->hold_count > 0 && has_hold(q, "site", s->key, s->provider);
}

static void holds_apply(struct queue *q)
{
    q->held_all =
        false; /* queue.hold is an entry of the master's list, so that a release ends it */
    for (uint32_t i = 0; i < q->hold_count; i++)
        q->held_all = q->held_all || is_kind(&q->holds[i], "all");
    q->held_some = false;
    for (uint32_t i = 0; i < q->hold_count; i++)
        q->held_some = q->held_some || is_kind(&q->holds[i], "message");
    for (uint32_t i = 0; i < q->lane_count; i++) {
        char number[16];
        snprintf(number, sizeof number, "%u", q->lanes[i].number);
        q->lanes[i].held = has_hold(q, "lane", q->lanes[i].name, number);
    }
    for (uint32_t i = 0; i < q->tenant_count; i++)
        q->tenants[i].held = has_hold(q, "tenant", q->tenants[i].name, NULL);
    for (uint32_t at = 0, i; (i = table_next(&q->site_by_key, &at)) != 0;)
        site_at(q, i)->held = hold_applies_to_site(q, site_at(q, i));
    for (uint32_t at = 0, i; (i = table_next(&q->domain_by_name, &at)) != 0;)
        domain_at(q, i)->held = hold_applies_to_domain(q, domain_at(q, i));
    q->lanes_version++;
    mark_flows(q);
}

void queue_set_holds(struct queue *q, const struct control_hold *holds, uint32_t count)
{
    free(q->holds);
    q->holds = NULL;
    q->hold_count = 0;
    if (count > 0) {
        q->holds = malloc(count * sizeof *q->holds);
        MUST(q->holds != NULL); /* a hold must not be forgotten */
        memcpy(q->holds, holds, count * sizeof *q->holds);
        q->hold_count = count;
        qsort(q->holds, count, sizeof *q->holds, by_kind_and_value);
    }
    holds_apply(q);
    hold_messages(q);
    q->hold_sweep_at = 1;
}

bool hold_applies_to_domain(const struct queue *q, const struct domain *d)
{
    return q->hold_count > 0 && has_hold(q, "site", d->name, NULL);
}
