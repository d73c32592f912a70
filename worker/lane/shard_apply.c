/*
 * What a record means: for recovery, and for a message that has just become durable.
 *
 * During recovery entries stay ENTRY_NEW, in no list: a later record may end them.
 * shard_start_lanes places what is left.
 */
#include "worker/lane/role_impl.h"
#include "worker/lane/shard_impl.h"

#include "base/log.h"
#include "worker/lane/adopted.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"

#include <errno.h>
#include <stdlib.h>

struct lane *shard_lane(struct shard *s, uint32_t number)
{
    struct lane *l = lane_by_number(s->queue, number);
    if (l == NULL)
        l = lane_add_gone(s->queue, number);
    if (l != NULL && l->shard == NULL)
        l->shard = s;
    return l;
}

static bool fill_entries(struct queue *q, struct qmsg *m, const struct enq *e)
{
    struct span rcpts = e->rcpts;
    struct enq_rcpt r;
    while (enq_rcpt_next(&rcpts, &r)) {
        struct qentry *x = store_add_entry(&q->store, m, r.index);
        if (x == NULL)
            return false;
        const uint8_t *at = memrchr(r.address.p, '@', r.address.n);
        struct span domain = at == NULL
                                 ? span_str("localhost")
                                 : span_of(at + 1, (size_t)(r.address.p + r.address.n - at - 1));
        x->domain = domain_intern(q, domain);
        if (x->domain == 0)
            return false;
        domain_at(q, x->domain)->entries++;
        x->attempts = r.attempts;
        x->reason = r.reason;
        x->due_s = (uint32_t)r.due_unix_s;
        if (r.state == RCPT_BOUNCE_DUE)
            entry_set_state(q, x, ENTRY_BOUNCE_DUE);
        else if (r.state == RCPT_PARKED)
            entry_set_state(q, x, ENTRY_PARKED);
        else if (r.state == RCPT_HELD)
            entry_set_state(q, x, ENTRY_HELD);
        else if (r.state == RCPT_TAIL)
            entry_set_state(q, x, ENTRY_TAIL);
        q->lanes[m->lane].queued++;
        q->tenants[m->tenant].queued++;
    }
    return true;
}

static void fill_msg(struct queue *q, struct qmsg *m, const struct enq *e, const struct lane *lane)
{
    m->lane = lane->index;
    m->tenant = tenant_intern(q, e->tenant);
    m->received_s = (uint32_t)(e->received_unix_ms / 1000);
    uint64_t expires = (uint64_t)m->received_s + e->lifetime_s;
    m->expires_s = expires > UINT32_MAX ? UINT32_MAX : (uint32_t)expires;
    uint64_t raw = e->body_bytes - e->dots + e->trace_bytes;
    m->raw_bytes = raw > UINT32_MAX ? UINT32_MAX : (uint32_t)raw;
    m->class_ = e->class_;
    m->flags = (uint8_t)((e->flags & (63 & ~ENQ_COPY)) | (e->sender.n == 0 ? MSG_NULL_SENDER : 0));
}

static void set_place(struct qmsg *m, const struct record_place *p)
{
    MUST(p->segment <= UINT32_MAX);
    m->segment = (uint32_t)p->segment;
    m->offset = p->offset;
    m->bytes = p->bytes;
}

/* Undoes what fill_entries did: the index is full, or another record takes its place. */
static void unmake(struct queue *q, struct qmsg *m)
{
    while (m->first != 0) {
        struct qentry *e = store_entry(&q->store, m->first);
        if (e->state != ENTRY_NEW)
            entry_unlist(q, e);
        if (e->domain != 0) {
            domain_at(q, e->domain)->entries--;
            q->lanes[m->lane].queued--;
            q->tenants[m->tenant].queued--;
        }
        store_drop_entry(&q->store, e);
    }
    store_remove(&q->store, m);
}

static struct qmsg *msg_make(struct queue *q, const struct enq *e, const struct lane *lane,
                             const struct record_place *place)
{
    struct qmsg *m = store_add(&q->store, e->id);
    if (m == NULL)
        return NULL;
    set_place(m, place);
    fill_msg(q, m, e, lane);
    if (!fill_entries(q, m, e)) {
        unmake(q, m);
        return NULL;
    }
    return m;
}

void msg_unmake(struct queue *q, struct qmsg *m)
{
    msg_live(q, m, -1);
    if (m->chunks != 0)
        free(chunks_take(q, m->chunks));
    m->chunks = 0;
    unmake(q, m);
}

/* Its origin may hand it over again, and is asked until it has forgotten it. */
static void adopt(struct shard *s, const struct enq *e, uint32_t lane)
{
    struct adopted_item item = {.id = e->id, .lane = lane};
    if (e->handed_by.n == 0)
        return;
    memcpy(item.origin, e->handed_by.p, e->handed_by.n);
    if (adopted_add(s->queue, &item) != 0)
        log_err("shard %u: no memory to remember who handed a message over", s->number);
}

void msg_insert_copy(struct shard *s, struct enqueue *x)
{
    struct queue *q = s->queue;
    struct enq e;
    int r = enq_read(span_of(x->content->meta, x->content->meta_bytes), &e);
    MUST(r == 0);
    struct qmsg *m = msg_make(q, &e, x->lane, &x->place);
    MUST(m != NULL); /* shard_enqueue has looked for room */
    if (x->chunk_count > 0) {
        m->chunks = chunks_keep(q, x->chunks, x->chunk_count);
        MUST(m->chunks != 0);
    }
    spool_live(s->spool, m->segment, m->bytes);
    struct span rcpts = e.rcpts;
    struct enq_rcpt rcpt;
    while (enq_rcpt_next(&rcpts, &rcpt)) {
        struct qentry *en = store_find_entry(&q->store, m, rcpt.index);
        if (en->state == ENTRY_TAIL)
            continue;
        entry_set_state(q, en, ENTRY_NEW);
        entry_set_state(q, en, ENTRY_REPLICA);
        role_replica_becomes(x->lane, en, (enum rcpt_state)rcpt.state);
    }
}

struct qmsg *msg_insert(struct shard *s, struct enqueue *x)
{
    struct queue *q = s->queue;
    struct enq e;
    int r = enq_read(span_of(x->content->meta, x->content->meta_bytes), &e);
    MUST(r == 0);
    s->ledger.accepted += x->rcpt_count;
    if (x->taken_over) {
        s->ledger.taken_over += x->rcpt_count;
        q->env.stats->taken_over += x->rcpt_count;
    }
    struct qmsg *m = msg_make(q, &e, x->lane, &x->place);
    MUST(m != NULL); /* room was reserved; without, a restart finds it in the log */
    if (x->chunk_count > 0) {
        m->chunks = chunks_keep(q, x->chunks, x->chunk_count);
        MUST(m->chunks != 0);
    }
    spool_live(s->spool, m->segment, m->bytes);
    adopt(s, &e, x->lane->number);
    if (role_is_late(x->lane, x->epoch))
        m->flags |= MSG_LATE;
    else if (x->lane->copying && q->copy_hooks.on_message != NULL)
        q->copy_hooks.on_message(q->copy_hooks.ctx, x->lane, m);
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *en = store_entry(&q->store, i);
        i = en->sibling; /* placing may end the entry */
        if (en->state == ENTRY_NEW)
            entry_place(q, en);
    }
    /* Placing may have ended the message (no such domain): look it up again. */
    return store_find(&q->store, e.id);
}

/* --- recovery --- */

static struct record_place *read_chunks(const struct enq *e)
{
    if (e->chunk_count == 0)
        return NULL;
    struct record_place *p = calloc(e->chunk_count, sizeof *p);
    struct span s = e->chunks;
    struct enq_chunk c;
    for (uint16_t i = 0; p != NULL && enq_chunk_next(&s, &c); i++)
        p[i] = c.place;
    return p;
}

static void apply_enq(struct shard *s, const struct record_view *v)
{
    struct queue *q = s->queue;
    struct enq e;
    struct lane *lane = shard_lane(s, v->head.lane);
    if (enq_read(v->meta, &e) != 0 || lane == NULL) {
        log_err("shard %u: a message record cannot be read, segment %llu offset %u", s->number,
                (unsigned long long)v->place.segment, v->place.offset);
        s->damaged++;
        return;
    }
    bool copy = (e.flags & ENQ_COPY) != 0;
    bool replica = (v->head.flags & ENQ_HEAD_REPLICA) != 0;
    struct qmsg *old = store_find(&q->store, e.id);
    if (old != NULL) /* a copy replaces the earlier record */
        msg_unmake(q, old);
    struct qmsg *m = msg_make(q, &e, lane, &v->place);
    if (m == NULL) {
        s->left_out++;
        return;
    }
    struct record_place *places = read_chunks(&e);
    if (places != NULL)
        m->chunks = chunks_keep(q, places, e.chunk_count);
    msg_live(q, m, 1);
    role_apply_enq(q, m, &e, &v->head);
    adopt(s, &e, v->head.lane);
    if (!copy && !replica) {
        s->ledger.accepted += e.rcpt_count;
        if (v->head.flags & ENQ_HEAD_TAKEN_OVER)
            s->ledger.taken_over += e.rcpt_count;
    }
}

void ledger_count(struct ledger *l, enum fate fate, uint64_t n)
{
    switch (fate) {
    case FATE_DELIVERED:
        l->delivered += n;
        return;
    case FATE_BOUNCED:
        l->bounced += n;
        return;
    case FATE_EXPIRED:
        l->expired += n;
        return;
    case FATE_DELETED:
        l->deleted += n;
        return;
    case FATE_HANDED_OVER:
        l->handed_over += n;
        return;
    case FATE_NONE:
    case FATE_COUNT:
        break;
    }
    MUST(!"a fate that exists");
}

static void apply_done(struct shard *s, const struct outcome *o)
{
    struct queue *q = s->queue;
    if (o->fate >= FATE_COUNT)
        return;
    if (o->fate != FATE_NONE) /* NONE: a notification that is no longer owed */
        ledger_count(&s->ledger, (enum fate)o->fate, o->count);
    struct qmsg *m = store_find(&q->store, o->id);
    for (unsigned i = 0; m != NULL && i < o->count; i++) {
        struct qentry *e = store_find_entry(&q->store, m, outcome_index(o, i));
        if (e == NULL)
            continue;
        if (o->bounce_due) {
            e->reason = o->reason;
            e->in_doubt = 0;
            entry_set_state(q, e, ENTRY_BOUNCE_DUE);
            continue;
        }
        entry_set_state(q, e, ENTRY_NEW);
        entry_end(q, e);
        m = store_find(&q->store, o->id);
    }
}

static void apply_defer(struct shard *s, const struct outcome *o)
{
    struct queue *q = s->queue;
    struct qmsg *m = store_find(&q->store, o->id);
    for (unsigned i = 0; m != NULL && i < o->count; i++) {
        struct qentry *e = store_find_entry(&q->store, m, outcome_index(o, i));
        if (e == NULL)
            continue;
        e->attempts = o->attempts;
        e->reason = o->reason;
        e->due_s = (uint32_t)o->due_unix_s;
        e->in_doubt = 0;
        if (o->reason == REASON_HELD_MESSAGE)
            entry_set_state(q, e, ENTRY_HELD);
        else if (o->reason == REASON_DAMAGED || o->reason == REASON_POISON)
            entry_set_state(q, e, ENTRY_PARKED);
        else
            entry_set_state(q, e, ENTRY_NEW);
    }
}

static void apply_dot(struct shard *s, const struct outcome *o)
{
    struct qmsg *m = store_find(&s->queue->store, o->id);
    for (unsigned i = 0; m != NULL && i < o->count; i++) {
        struct qentry *e = store_find_entry(&s->queue->store, m, outcome_index(o, i));
        if (e != NULL)
            e->in_doubt = 1;
    }
}

static void apply_outcome(struct shard *s, const struct record_view *v)
{
    struct outcome o;
    if (outcome_read(v->meta, &o) != 0) {
        s->damaged++;
        return;
    }
    if (v->head.type == RECORD_DEFER && (v->head.flags & DEFER_HEAD_TAKEN)) {
        s->ledger.accepted += o.count;
        s->ledger.taken_over += o.count;
    }
    if (v->head.type == RECORD_DONE)
        apply_done(s, &o);
    else if (v->head.type == RECORD_DEFER)
        apply_defer(s, &o);
    else
        apply_dot(s, &o);
}

static void apply(void *ctx, const struct record_view *v)
{
    struct shard *s = ctx;
    if (v->head.lane != 0) {
        struct lane *l = shard_lane(s, v->head.lane);
        if (l != NULL && v->head.position > l->position)
            l->position = v->head.position;
    }
    switch ((enum record_type)v->head.type) {
    case RECORD_ENQ:
        apply_enq(s, v);
        break;
    case RECORD_DOT:
    case RECORD_DONE:
    case RECORD_DEFER:
        apply_outcome(s, v);
        break;
    case RECORD_LEDGER:
        if (ledger_read(v->meta, &s->ledger) != 0)
            s->damaged++;
        break;
    case RECORD_STATE:
    case RECORD_OWN:
    case RECORD_FROZEN:
    case RECORD_GIVEN:
    case RECORD_TAIL:
    case RECORD_READY:
    case RECORD_REPLICA:
    case RECORD_AWAY:
        role_apply(s, v);
        break;
    case RECORD_ADOPTED:
        adopted_apply(s, v);
        break;
    case RECORD_BODY: /* counted by the message that names it */
    case RECORD_BATCH:
    case RECORD_INDEX:
    case RECORD_TYPE_COUNT:
        break;
    }
}

static void damage(void *ctx, const struct record_place *where, const char *why)
{
    struct shard *s = ctx;
    s->damaged++;
    log_err("shard %u: damaged bytes in segment %llu at %u, %u bytes: %s", s->number,
            (unsigned long long)where->segment, where->offset, where->bytes, why);
}

static void snapshot(void *ctx)
{
    struct shard *s = ctx;
    uint8_t meta[128];
    struct writer w = writer_of(meta, sizeof meta);
    struct ledger l = s->ledger;
    /* their ENQ, OWN, GIVEN is in the log before this record */
    l.accepted += s->pending + s->taking;
    l.taken_over += s->pending_taken + s->taking;
    l.handed_over += s->giving;
    l.accepted -= s->unlogged.accepted;
    l.taken_over -= s->unlogged.taken_over;
    l.delivered -= s->unlogged.delivered; /* and these are not */
    l.bounced -= s->unlogged.bounced;
    l.expired -= s->unlogged.expired;
    l.deleted -= s->unlogged.deleted;
    l.handed_over -= s->unlogged.handed_over;
    ledger_put(&w, &l);
    struct spool_append a = {.type = RECORD_LEDGER, .meta = span_of(meta, w.n), .fate = true};
    struct record_place p;
    if (spool_append(s->spool, &a, NULL, &p) != 0)
        log_err("shard %u: no room for the ledger of a new segment", s->number);
    role_snapshot(s);
}

void shard_owner(struct shard *s, struct spool_owner *out)
{
    *out = (struct spool_owner){.ctx = s,
                                .apply = apply,
                                .damage = damage,
                                .snapshot = snapshot,
                                .copy = shard_copy};
}

/* --- after recovery --- */

static bool is_poison(const struct queue *q, struct msg_id id)
{
    for (uint32_t i = 0; i < q->poison_count; i++)
        if (id_eq(q->poison[i], id))
            return true;
    return false;
}

/* A dot was sent and no fate is in the log: RFC 5321 6.1 leaves it to us; the tenant's policy
   decides. */
void shard_settle_doubt(struct queue *q, struct qentry *e)
{
    struct qmsg *m = store_msg(&q->store, e->msg);
    struct fate_facts f = {.reason = REASON_IN_DOUBT, .status = {4, 4, 2}};
    f.reply = span_str("the final dot was sent, the reply was not recorded before a crash");
    q->env.stats->in_doubt++;
    switch ((enum in_doubt_policy)q->tenants[m->tenant].in_doubt) {
    case IN_DOUBT_RETRY:
        e->due_s = queue_now_unix_s(q) + q->env.config->queue.retry_greylist_s;
        e->reason = REASON_IN_DOUBT;
        entry_place(q, e);
        return;
    case IN_DOUBT_HOLD:
        e->reason = REASON_IN_DOUBT;
        if (!role_stray_held(q, e))
            entry_set_state(q, e, ENTRY_HELD);
        return;
    case IN_DOUBT_FAIL:
        f.status.class_ = 5;
        fates_local(q, e, VERDICT_PERM, &f);
        return;
    }
}

static void park_poison(struct queue *q, struct qentry *e)
{
    e->reason = REASON_POISON;
    entry_set_state(q, e, ENTRY_PARKED);
    char id[ID_TEXT + 1];
    id_format(store_msg(&q->store, e->msg)->id, id);
    log_warn("message %s ended a worker twice: parked, look at it with `mochila show %s`", id, id);
}

/* By a copy, too: it goes to the lane's owner if that is another node. */
static void hold_doubted(struct queue *q, struct qentry *e)
{
    entry_set_state(q, e, ENTRY_NEW);
    if (!role_stray_held(q, e))
        entry_set_state(q, e, ENTRY_HELD);
}

void shard_start_lanes(struct shard *s)
{
    struct queue *q = s->queue;
    for (uint32_t i = 0; i < q->lane_count; i++)
        if (!q->lanes[i].gone && q->lanes[i].shard_no == s->number && q->lanes[i].shard == NULL)
            q->lanes[i].shard = s;
    for (uint32_t i = 0; i < q->lane_count; i++)
        if (q->lanes[i].shard == s)
            role_recovered(s, &q->lanes[i]);
    q->roles->recovering = true;
    uint32_t end = store_entry_end(&q->store);
    for (uint32_t i = 1; i < end; i++) {
        struct qentry *e = store_peek(&q->store, i);
        if (e == NULL || entry_lane(q, e)->shard != s)
            continue;
        s->recovered++;
        if (!role_settle(q, e))
            continue;
        if (is_poison(q, store_msg(&q->store, e->msg)->id) && e->state == ENTRY_NEW)
            park_poison(q, e);
        if (e->state == ENTRY_HELD && e->reason == REASON_HELD_MESSAGE)
            /* by a copy; whether it still holds is decided anew */
            entry_set_state(q, e, ENTRY_NEW);
        if (e->state == ENTRY_HELD && e->reason == REASON_IN_DOUBT)
            hold_doubted(q, e);
        if (e->state != ENTRY_NEW)
            continue;
        if (e->in_doubt)
            shard_settle_doubt(q, e);
        else
            entry_place(q, e);
    }
    q->roles->recovering = false;
    role_catch_up(s);
    q->env.stats->recovered += s->recovered;
    q->env.stats->damaged += s->damaged;
}
