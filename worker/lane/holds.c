/*
 * Holds of the operator: flags on lanes, tenants, sites and domains, so that holding a million messages is one assignment; a held message is
 * taken out of its list.
 */
#include "worker/lane/site.h"

#include "worker/lane/flow.h"

#include <stdlib.h>
#include <strings.h>

static bool is_kind(const struct control_hold *h, const char *kind)
{
    return strcmp(h->kind, kind) == 0;
}

static bool has_hold(const struct queue *q, const char *kind, const char *value, const char *other)
{
    for (uint32_t i = 0; i < q->hold_count; i++) {
        const struct control_hold *h = &q->holds[i];
        if (!is_kind(h, kind))
            continue;
        if (strcasecmp(h->value, value) == 0 || (other != NULL && strcasecmp(h->value, other) == 0))
            return true;
    }
    return false;
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

/*
 * Single messages and domains: few, so the entries are swept when a hold came or went; what is in flight meets
 * its hold in entry_place when its attempt ends.
 */
static void apply_to_messages(struct queue *q)
{
    for (uint32_t i = 1; i < store_entry_end(&q->store); i++) {
        struct qentry *e = store_peek(&q->store, i);
        if (e == NULL || e->state == ENTRY_IN_FLIGHT || e->state == ENTRY_BOUNCE_DUE ||
            e->state == ENTRY_PARKED || e->state == ENTRY_NEW)
            continue;
        bool held = q->held_some && hold_applies_to_message(q, store_msg(&q->store, e->msg)->id);
        /* What is held because of doubt after a crash is not the business of holds. */
        bool by_hold = e->state == ENTRY_HELD && e->reason == REASON_HELD_MESSAGE;
        bool by_domain = e->state == ENTRY_WAITING && e->reason == REASON_HELD_SITE;
        bool about_to_go = e->state == ENTRY_READY || e->state == ENTRY_RESOLVING;
        if (held && e->state != ENTRY_HELD) {
            entry_unlist(q, e);
            e->reason = REASON_HELD_MESSAGE;
            entry_set_state(q, e, ENTRY_HELD);
        } else if ((!held && by_hold) ||
                   (domain_at(q, e->domain)->held ? about_to_go : by_domain)) {
            entry_unlist(q, e);
            e->due_s = 0;
            entry_place(q, e);
        }
    }
}

bool hold_applies_to_site(const struct queue *q, const struct site *s)
{
    return q->hold_count > 0 && has_hold(q, "site", s->key, s->provider);
}

static void holds_apply(struct queue *q)
{
    q->held_all = false;
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
    for (uint32_t i = 1; i <= q->sites.touched; i++) {
        struct site *s = site_at(q, i);
        s->held = s->key != NULL && hold_applies_to_site(q, s);
    }
    for (uint32_t i = 1; i <= q->domains.touched; i++) {
        struct domain *d = domain_at(q, i);
        if (d->name != NULL)
            d->held = has_hold(q, "site", d->name, NULL);
    }
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
    }
    holds_apply(q);
    apply_to_messages(q);
}

bool hold_applies_to_domain(const struct queue *q, const struct domain *d)
{
    return q->hold_count > 0 && has_hold(q, "site", d->name, NULL);
}
