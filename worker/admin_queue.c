/*
 * queue, retry, delete: sweeps over the entries in slices; rows of messages are filled from the log
 * afterwards, one read at a time.
 */
#include "worker/admin_impl.h"

#include "base/log.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/role.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t group_key(const struct task *t, const struct qentry *e)
{
    const struct queue *q = task_queue(t);
    const struct qmsg *m = store_msg(&q->store, e->msg);
    switch (t->by) {
    case BY_SITE:
        return entry_site(q, e);
    case BY_LANE:
        return m->lane;
    case BY_TENANT:
        return m->tenant;
    case BY_DOMAIN:
        return e->domain;
    case BY_REASON:
        return (uint32_t)entry_why(q, e);
    case BY_MESSAGE:
        break;
    }
    return 0;
}

static bool group_has_key(const void *ctx, uint32_t value, const void *key)
{
    const struct task *t = ctx;
    return t->groups[value - 1].key == *(const uint32_t *)key;
}

static struct group *group_for(struct task *t, uint32_t key)
{
    uint32_t h = hash_u64(key);
    uint32_t i = table_find(&t->group_by_key, h, group_has_key, t, &key);
    if (i != 0)
        return &t->groups[i - 1];
    if (t->group_count == t->group_room) {
        uint32_t room = t->group_room == 0 ? 64 : t->group_room * 2;
        struct group *g = room > ADMIN_GROUPS_MAX ? NULL : realloc(t->groups, room * sizeof *g);
        if (g == NULL)
            return NULL;
        t->groups = g;
        t->group_room = room;
    }
    struct group *g = &t->groups[t->group_count];
    memset(g, 0, sizeof *g);
    g->key = key;
    g->oldest_s = g->next_due_s = UINT32_MAX;
    if (table_add(&t->group_by_key, h, ++t->group_count) != 0)
        return NULL;
    return g;
}

static void count_entry(struct task *t, const struct qentry *e)
{
    const struct queue *q = task_queue(t);
    struct group *g = group_for(t, group_key(t, e));
    if (g == NULL)
        return;
    const struct qmsg *m = store_msg(&q->store, e->msg);
    g->by_state[e->state]++;
    g->by_reason[entry_why(q, e)]++;
    if (m->received_s < g->oldest_s)
        g->oldest_s = m->received_s;
    if (e->state == ENTRY_WAITING && e->due_s < g->next_due_s)
        g->next_due_s = e->due_s;
}

static void sample_entry(struct task *t, const struct qentry *e)
{
    const struct queue *q = task_queue(t);
    if (t->sample_count >= t->limit)
        return;
    if (t->sample == NULL) {
        t->sample = calloc(t->limit, sizeof *t->sample);
        t->sample_ids = calloc(t->limit, sizeof *t->sample_ids);
    }
    if (t->sample == NULL || t->sample_ids == NULL)
        return;
    t->sample_ids[t->sample_count] = store_msg(&q->store, e->msg)->id;
    t->sample[t->sample_count++] = e->index;
}

/* One slice; true when every entry has been seen. */
static bool sweep(struct task *t, void (*fn)(struct task *t, struct qentry *e))
{
    struct queue *q = task_queue(t);
    uint32_t end = store_entry_end(&q->store);
    uint32_t stop = t->cursor + ADMIN_SLICE < end ? t->cursor + ADMIN_SLICE : end;
    if (!t->filter.any_id && !t->filter.nothing) { /* one message: no sweep */
        struct qmsg *m = store_find(&q->store, t->filter.id);
        for (uint32_t i = m == NULL ? 0 : m->first; i != 0;) {
            struct qentry *e = store_entry(&q->store, i);
            i = e->sibling;
            if (filter_matches(q, &t->filter, e))
                fn(t, e);
        }
        return true;
    }
    for (; t->cursor < stop; t->cursor++) {
        struct qentry *e = store_peek(&q->store, t->cursor);
        if (e != NULL && filter_matches(q, &t->filter, e))
            fn(t, e);
    }
    return t->cursor >= end;
}

/* --- rows of groups --- */

static const char *group_name(const struct task *t, const struct group *g)
{
    const struct queue *q = task_queue(t);
    switch (t->by) {
    case BY_SITE:
        return g->key == 0 ? "(not looked up yet)" : site_at(q, g->key)->key;
    case BY_LANE:
        return q->lanes[g->key].name;
    case BY_TENANT:
        return q->tenants[g->key].name;
    case BY_DOMAIN:
        return domain_at(q, g->key)->name;
    case BY_REASON:
        return reason_word((enum reason)g->key);
    case BY_MESSAGE:
        break;
    }
    return "";
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static json_t *group_row(const struct task *t, const struct group *g)
{
    uint32_t now = queue_now_unix_s(task_queue(t));
    const uint64_t *s = g->by_state;
    uint64_t ready = s[ENTRY_READY] + s[ENTRY_RESOLVING] + s[ENTRY_NEW];
    json_t *reasons = json_object();
    for (unsigned i = 0; i < REASON_COUNT; i++)
        if (g->by_reason[i] > 0)
            json_object_set_new(reasons, reason_word((enum reason)i), number(g->by_reason[i]));
    json_t *row = json_object();
    json_object_set_new(row, "key", json_string(group_name(t, g)));
    json_object_set_new(row, "queued", number(ready + s[ENTRY_WAITING] + s[ENTRY_HELD] +
                                              s[ENTRY_IN_FLIGHT] + s[ENTRY_PARKED] +
                                              s[ENTRY_STRAY]));
    json_object_set_new(row, "ready", number(ready));
    json_object_set_new(row, "waiting", number(s[ENTRY_WAITING]));
    json_object_set_new(row, "held", number(s[ENTRY_HELD]));
    json_object_set_new(row, "in_flight", number(s[ENTRY_IN_FLIGHT]));
    json_object_set_new(row, "parked", number(s[ENTRY_PARKED]));
    json_object_set_new(row, "bounce_due", number(s[ENTRY_BOUNCE_DUE]));
    json_object_set_new(row, "oldest_s", number(now > g->oldest_s ? now - g->oldest_s : 0));
    if (g->next_due_s != UINT32_MAX)
        json_object_set_new(row, "next_due_s",
                            number(g->next_due_s > now ? g->next_due_s - now : 0));
    json_object_set_new(row, "reasons", reasons);
    return row;
}

/* --- rows of messages --- */

json_t *message_row(struct queue *q, const struct qentry *e, const struct enq *enq)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    uint32_t now = queue_now_unix_s(q);
    uint32_t site = entry_site(q, e);
    char id[ID_TEXT + 1];
    id_format(m->id, id);
    json_t *row = json_object();
    json_object_set_new(row, "id", json_string(id));
    json_object_set_new(row, "index", number(e->index));
    if (enq != NULL) {
        struct span s = enq->rcpts;
        struct enq_rcpt r;
        while (enq_rcpt_next(&s, &r))
            if (r.index == e->index)
                json_object_set_new(row, "rcpt",
                                    json_stringn((const char *)r.address.p, r.address.n));
        json_object_set_new(row, "sender",
                            json_stringn((const char *)enq->sender.p, enq->sender.n));
    }
    json_object_set_new(row, "lane", json_string(q->lanes[m->lane].name));
    json_object_set_new(row, "tenant", json_string(q->tenants[m->tenant].name));
    json_object_set_new(row, "domain", json_string(domain_at(q, e->domain)->name));
    if (site != 0)
        json_object_set_new(row, "site", json_string(site_at(q, site)->key));
    json_object_set_new(row, "state", json_string(entry_state_word((enum entry_state)e->state)));
    json_object_set_new(row, "reason", json_string(reason_word(entry_why(q, e))));
    json_object_set_new(row, "attempts", number(e->attempts));
    json_object_set_new(row, "age_s", number(now > m->received_s ? now - m->received_s : 0));
    if (e->state == ENTRY_WAITING)
        json_object_set_new(row, "due_in_s", number(e->due_s > now ? e->due_s - now : 0));
    json_object_set_new(row, "expires_in_s", number(m->expires_s > now ? m->expires_s - now : 0));
    json_object_set_new(row, "bytes", number(m->raw_bytes));
    if (e->in_doubt)
        json_object_set_new(row, "in_doubt", json_true());
    if (e->reply != 0)
        json_object_set_new(row, "last_reply", json_string(reply_text(q, e->reply)));
    return row;
}

static void next_row(struct task *t);

static void add_row(struct task *t, const struct enq *enq)
{
    struct queue *q = task_queue(t);
    struct qmsg *m = store_find(&q->store, t->sample_ids[t->sample_at]);
    struct qentry *e =
        m == NULL ? NULL : store_find_entry(&q->store, m, (uint16_t)t->sample[t->sample_at]);
    if (e != NULL)
        json_array_append_new(t->rows, message_row(q, e, enq));
    t->sample_at++;
}

static void on_row_read(struct spool_read *r, int res, const struct record_view *v)
{
    struct task *t = (struct task *)((char *)r - offsetof(struct task, read));
    struct enq enq;
    t->reading = false;
    add_row(t, res == 0 && enq_read(v->meta, &enq) == 0 ? &enq : NULL);
}

static void finish_rows(struct task *t)
{
    json_t *rows = t->rows;
    t->rows = NULL;
    if (strcmp(t->verb, "delete") == 0)
        task_answer(t, 200,
                    json_pack("{s:I, s:o}", "matched", (json_int_t)t->matched, "sample", rows));
    else
        task_answer(t, 200,
                    json_pack("{s:I, s:o}", "matched", (json_int_t)t->matched, "rows", rows));
}

/* The next row: from the cache, or from the log. */
static void next_row(struct task *t)
{
    struct queue *q = task_queue(t);
    if (t->rows == NULL)
        t->rows = json_array();
    if (t->sample_at >= t->sample_count) {
        finish_rows(t);
        return;
    }
    struct qmsg *m = store_find(&q->store, t->sample_ids[t->sample_at]);
    struct enq enq;
    if (m == NULL) {
        t->sample_at++;
        return;
    }
    const struct content *c = msg_content(m);
    if (c != NULL && enq_read(span_of(c->meta, c->meta_bytes), &enq) == 0) {
        add_row(t, &enq);
        return;
    }
    t->place = msg_place(m);
    t->read.on_read = on_row_read;
    if (spool_read(q->lanes[m->lane].shard->spool, &t->read, &t->place) == 0)
        t->reading = true;
}

static void see(struct task *t, struct qentry *e)
{
    t->matched++;
    if (t->by == BY_MESSAGE)
        sample_entry(t, e);
    else
        count_entry(t, e);
}

void admin_queue_step(struct task *t)
{
    if (!sweep(t, see))
        return;
    if (t->by == BY_MESSAGE) {
        t->step = next_row;
        return;
    }
    json_t *rows = json_array();
    for (uint32_t i = 0; i < t->group_count; i++)
        json_array_append_new(rows, group_row(t, &t->groups[i]));
    task_answer(t, 200, json_pack("{s:I, s:o}", "matched", (json_int_t)t->matched, "rows", rows));
}

/* --- retry, delete --- */

static void retry(struct task *t, struct qentry *e)
{
    struct queue *q = task_queue(t);
    if (e->state == ENTRY_READY) {
        struct flow *f = flow_at(q, e->flow);
        if (f->backoff_until_ms > queue_now_ms(q)) {
            f->backoff_until_ms = 0;
            flow_mark(q, f);
            t->changed++;
        }
        return;
    }
    if (!role_may_end(q, e))
        return; /* its lane is moving */
    bool doubted = e->state == ENTRY_HELD && e->reason == REASON_IN_DOUBT;
    if (e->state != ENTRY_WAITING && !doubted)
        return;
    fates_try_again(q, e);
    t->changed++;
}

static void delete (struct task *t, struct qentry *e)
{
    static const char text[] = "deleted by the operator";
    struct fate_facts f = {.reason = REASON_DELETED, .status = {5, 7, 1}, .reply = span_str(text)};
    if (!role_may_end(task_queue(t), e))
        return; /* its lane is moving: it is to be deleted where it arrives */
    t->changed++;
    fates_end(task_queue(t), e, FATE_DELETED, &f);
}

static void preview(struct task *t, struct qentry *e)
{
    t->matched++;
    sample_entry(t, e);
}

void admin_change_step(struct task *t)
{
    bool is_delete = strcmp(t->verb, "delete") == 0;
    if (t->preview) {
        if (sweep(t, preview))
            t->step = next_row;
        return;
    }
    if (!sweep(t, is_delete ? delete : retry))
        return;
    log_note("%s by the operator: %llu recipients", t->verb, (unsigned long long)t->changed);
    task_answer(t, 200,
                json_pack("{s:I}", is_delete ? "deleted" : "changed", (json_int_t)t->changed));
}
