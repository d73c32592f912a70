/*
 * show, why, ledger, sites, lanes.
 */
#include "worker/admin_impl.h"

#include "worker/lane/flow.h"
#include "worker/lane/role.h"
#include "worker/lane/site.h"

#include <errno.h>

#include <stdlib.h>
#include <strings.h>

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

/* Message text is whatever was sent: octets that are not UTF-8 become '?', so that the answer is
   JSON. */
static json_t *message_text(struct span s)
{
    json_t *j = json_stringn((const char *)s.p, s.n);
    if (j != NULL)
        return j;
    char *copy = malloc(s.n + 1);
    if (copy == NULL)
        return json_string("");
    for (size_t i = 0; i < s.n; i++)
        copy[i] = (char)(s.p[i] < 128 && s.p[i] != 0 ? s.p[i] : '?');
    j = json_stringn(copy, s.n);
    free(copy);
    return j;
}

/* --- show --- */

static size_t header_end(struct span s)
{
    const uint8_t *p = memmem(s.p, s.n, "\r\n\r\n", 4);
    return p == NULL ? s.n : (size_t)(p - s.p) + 2;
}

static json_t *recipients(struct queue *q, const struct qmsg *m, const struct enq *e)
{
    json_t *list = json_array();
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling)
        json_array_append_new(list, message_row(q, store_entry(&q->store, i), e));
    return list;
}

static void show(struct task *t, const struct enq *e, struct span rest, const char *damage)
{
    struct queue *q = task_queue(t);
    struct qmsg *m = store_find(&q->store, t->filter.id);
    if (m == NULL) {
        task_fail(t, 404, "the message has left the queue meanwhile");
        return;
    }
    char id[ID_TEXT + 1], ip[IP_TEXT];
    id_format(m->id, id);
    json_t *o = json_object();
    json_object_set_new(o, "id", json_string(id));
    json_object_set_new(o, "lane", json_string(q->lanes[m->lane].name));
    json_object_set_new(o, "tenant", json_string(q->tenants[m->tenant].name));
    json_object_set_new(o, "received", number(m->received_s));
    json_object_set_new(o, "expires", number(m->expires_s));
    json_object_set_new(o, "bytes", number(m->raw_bytes));
    json_object_set_new(o, "segment", number(m->segment));
    json_object_set_new(o, "offset", number(m->offset));
    json_object_set_new(o, "cached", json_boolean(msg_content(m) != NULL));
    json_object_set_new(o, "recipients", recipients(q, m, e));
    if (damage != NULL)
        json_object_set_new(o, "damage", json_string(damage));
    if (e != NULL) {
        ip_format(&e->client, ip);
        json_object_set_new(o, "sender", message_text(e->sender));
        json_object_set_new(o, "client", json_string(ip));
        json_object_set_new(o, "helo", message_text(e->helo));
        json_object_set_new(o, "chunks", number(e->chunk_count));
        size_t head = header_end(rest);
        if (t->want_headers)
            json_object_set_new(o, "headers", message_text(span_of(rest.p, head)));
        if (t->want_body)
            json_object_set_new(o, "body", message_text(span_of(rest.p + head, rest.n - head)));
    }
    task_answer(t, 200, o);
}

static void on_show_read(struct spool_read *r, int res, const struct record_view *v)
{
    struct task *t = (struct task *)((char *)r - offsetof(struct task, read));
    struct enq e;
    t->reading = false;
    if (res == 0 && enq_read(v->meta, &e) == 0)
        show(t, &e, v->rest, NULL);
    else
        show(t, NULL, span_of(NULL, 0),
             res == -EBADMSG ? "checksum does not match" : "cannot be read");
}

void admin_show_step(struct task *t)
{
    struct queue *q = task_queue(t);
    struct qmsg *m = store_find(&q->store, t->filter.id);
    if (m == NULL) {
        task_fail(t, 404, "no such message in the queue: `mochila trace` shows what became of it");
        return;
    }
    t->place = msg_place(m);
    t->read.on_read = on_show_read;
    if (spool_read(q->lanes[m->lane].shard->spool, &t->read, &t->place) == 0)
        t->reading = true;
}

/* --- why, sites, lanes --- */

static json_t *limits_json(const struct config_limits *l)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "connections", (json_int_t)l->connections,
                     "new_connections_per_s", (json_int_t)l->new_connections_per_s,
                     "messages_per_connection", (json_int_t)l->messages_per_connection,
                     "messages_per_s", (json_int_t)l->messages_per_s, "recipients",
                     (json_int_t)l->recipients);
}

static enum reason flow_reason(const struct queue *q, const struct flow *f, uint64_t *until_s)
{
    uint64_t now = queue_now_ms(q);
    *until_s = 0;
    if (q->held_all)
        return REASON_HELD_ALL;
    if (q->lanes[f->lane].held)
        return REASON_HELD_LANE;
    if (site_at(q, f->site)->held)
        return REASON_HELD_SITE;
    if (!lane_runs(&q->lanes[f->lane]))
        return lane_why(&q->lanes[f->lane]);
    if (f->suspended_until_ms > now) {
        *until_s = (f->suspended_until_ms - now + 999) / 1000;
        return REASON_SUSPENDED;
    }
    if (f->backoff_until_ms > now) {
        *until_s = (f->backoff_until_ms - now + 999) / 1000;
        return REASON_BACKOFF;
    }
    if (f->ready[0] + f->ready[1] == 0)
        return f->in_flight > 0 ? REASON_IN_FLIGHT : REASON_NONE;
    return (enum reason)f->why;
}

static json_t *flow_row(struct queue *q, const struct flow *f)
{
    const struct site *s = site_at(q, f->site);
    char key[600];
    uint64_t until;
    enum reason why = flow_reason(q, f, &until);
    snprintf(key, sizeof key, "%s > %s", q->lanes[f->lane].name, s->key);
    json_t *row = json_object();
    json_object_set_new(row, "key", json_string(key));
    json_object_set_new(row, "lane", json_string(q->lanes[f->lane].name));
    json_object_set_new(row, "site", json_string(s->key));
    if (s->provider != NULL)
        json_object_set_new(row, "provider", json_string(s->provider));
    json_object_set_new(row, "reason", json_string(reason_word(why)));
    json_object_set_new(row, "text", json_string(reason_text(why)));
    json_object_set_new(row, "until_s", number(until));
    json_object_set_new(row, "queued", number(f->ready[0] + f->ready[1]));
    json_object_set_new(row, "in_flight", number(f->in_flight));
    json_object_set_new(row, "connections", number(f->open));
    json_object_set_new(row, "opening", number(f->opening));
    json_object_set_new(row, "failures", number(f->failures));
    if (f->last_reply != 0)
        json_object_set_new(row, "last_reply", json_string(reply_text(q, f->last_reply)));
    json_object_set_new(row, "limits", limits_json(s->limits));
    return row;
}

static bool site_meant(const struct queue *q, uint32_t site, const char *what, uint32_t domain_site)
{
    const struct site *s = site_at(q, site);
    return site == domain_site || strcasecmp(s->key, what) == 0 ||
           (s->provider != NULL && strcasecmp(s->provider, what) == 0);
}

static uint32_t site_of_name(struct queue *q, const char *what)
{
    for (uint32_t at = 0, i; (i = table_next(&q->domain_by_name, &at)) != 0;) {
        const struct domain *d = domain_at(q, i);
        if (d->name != NULL && strcasecmp(d->name, what) == 0)
            return d->site;
    }
    return 0;
}

static void rows_of_flows(struct task *t, json_t *rows, const char *what)
{
    struct queue *q = task_queue(t);
    uint32_t site = what == NULL ? 0 : site_of_name(q, what);
    for (uint32_t i = 0; q->flow_by_pair.slots != NULL && i <= q->flow_by_pair.mask; i++) {
        uint32_t at = q->flow_by_pair.slots[i].value;
        if (at == 0)
            continue;
        const struct flow *f = flow_at(q, at);
        if (what == NULL || strcmp(q->lanes[f->lane].name, what) == 0 ||
            site_meant(q, f->site, what, site))
            json_array_append_new(rows, flow_row(q, f));
    }
}

/* Entries of a domain that are in no flow: waiting for their time, for DNS, held. */
static void rows_of_waiting(struct task *t, json_t *rows, const char *what)
{
    struct queue *q = task_queue(t);
    uint64_t by_reason[REASON_COUNT] = {0};
    uint32_t next[REASON_COUNT];
    uint16_t reply[REASON_COUNT] = {0};
    memset(next, 0xff, sizeof next);
    for (uint32_t i = 1; i < store_entry_end(&q->store); i++) {
        const struct qentry *e = store_peek(&q->store, i);
        if (e == NULL || e->state == ENTRY_READY || e->state == ENTRY_IN_FLIGHT ||
            e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL ||
            strcasecmp(domain_at(q, e->domain)->name, what) != 0)
            continue;
        enum reason why = entry_why(q, e);
        by_reason[why]++;
        reply[why] = e->reply;
        if (e->state == ENTRY_WAITING && e->due_s < next[why])
            next[why] = e->due_s;
    }
    uint32_t now = queue_now_unix_s(q);
    for (unsigned i = 0; i < REASON_COUNT; i++) {
        if (by_reason[i] == 0)
            continue;
        json_t *row = json_pack("{s:s, s:s, s:s, s:I, s:s}", "domain", what, "reason",
                                reason_word((enum reason)i), "text", reason_text((enum reason)i),
                                "queued", (json_int_t)by_reason[i], "last_reply",
                                reply_text(q, reply[i]));
        if (next[i] != UINT32_MAX)
            json_object_set_new(row, "until_s", number(next[i] > now ? next[i] - now : 0));
        json_array_append_new(rows, row);
    }
}

static bool why_message(struct task *t, const char *what, json_t *rows)
{
    struct queue *q = task_queue(t);
    struct msg_id id;
    if (id_parse(span_str(what), &id) != 0)
        return false;
    struct qmsg *m = store_find(&q->store, id);
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0; i = store_entry(&q->store, i)->sibling) {
        const struct qentry *e = store_entry(&q->store, i);
        json_t *row = message_row(q, e, NULL);
        json_object_set_new(row, "text", json_string(reason_text(entry_why(q, e))));
        json_object_set_new(row, "queued", number(1));
        json_array_append_new(rows, row);
        if (e->flow != 0)
            json_array_append_new(rows, flow_row(q, flow_at(q, e->flow)));
    }
    return true;
}

void admin_why(struct task *t, const char *what)
{
    json_t *rows = json_array();
    const char *at = strrchr(what, '@');
    if (at != NULL)
        what = at + 1;
    if (!why_message(t, what, rows)) {
        rows_of_flows(t, rows, what);
        rows_of_waiting(t, rows, what);
    }
    task_answer(t, 200, json_pack("{s:o}", "rows", rows));
}

static json_t *lane_row(const struct queue *q, const struct lane *l)
{
    return json_pack("{s:s, s:I, s:I, s:b, s:b, s:I, s:I, s:s}", "key", l->name, "number",
                     (json_int_t)l->number, "queued",
                     (json_int_t)(l->queued - l->replicas - l->tails_there.count), "held",
                     l->held || q->held_all, "gone", l->gone, "epoch", (json_int_t)l->epoch,
                     "position", (json_int_t)l->position, "ehlo", l->ehlo);
}

void admin_flows(struct task *t)
{
    struct queue *q = task_queue(t);
    json_t *rows = json_array();
    if (strcmp(t->verb, "sites") == 0) {
        rows_of_flows(t, rows, NULL);
    } else {
        for (uint32_t i = 0; i < q->lane_count; i++)
            if (q->lanes[i].shard != NULL)
                json_array_append_new(rows, lane_row(q, &q->lanes[i]));
    }
    task_answer(t, 200, json_pack("{s:o}", "rows", rows));
}

/* --- ledger --- */

void admin_ledger(struct task *t)
{
    struct queue *q = task_queue(t);
    struct ledger l;
    shards_ledger(q, &l);
    /* what is copied from other nodes is not ours; what was given or taken counts at once */
    uint64_t queued = q->store.entries.used - q->counts[ENTRY_BOUNCE_DUE] -
                      q->counts[ENTRY_REPLICA] - q->counts[ENTRY_TAIL] + q->owed_in - q->owed_out;
    uint64_t sum = l.delivered + l.bounced + l.expired + l.deleted + l.handed_over + queued;
    json_t *o = json_object();
    json_object_set_new(o, "accepted", number(l.accepted));
    json_object_set_new(o, "delivered", number(l.delivered));
    json_object_set_new(o, "bounced", number(l.bounced));
    json_object_set_new(o, "expired", number(l.expired));
    json_object_set_new(o, "deleted", number(l.deleted));
    json_object_set_new(o, "handed_over", number(l.handed_over));
    json_object_set_new(o, "taken_over", number(l.taken_over));
    json_object_set_new(o, "queued", number(queued));
    json_object_set_new(o, "bounce_due", number(q->counts[ENTRY_BOUNCE_DUE]));
    json_object_set_new(o, "balance", json_integer((json_int_t)l.accepted - (json_int_t)sum));
    task_answer(t, 200, o);
}
