#include "worker/lane/fates.h"

#include "worker/lane/flow.h"
#include "worker/lane/role_impl.h"
#include "worker/lane/shard.h"

enum { OURS_RETRY_S = 10, INDICES_MAX = LIMIT_RECIPIENTS, REFUSED_LIFETIME_S = 86400 };

static struct span first_address(struct queue *q, const struct qmsg *m, const struct qentry *e)
{
    const struct content *c = msg_content(m);
    struct enq enq;
    struct enq_rcpt r;
    if (c == NULL || enq_read(span_of(c->meta, c->meta_bytes), &enq) != 0)
        return span_str(domain_at(q, e->domain)->name);
    struct span s = enq.rcpts;
    while (enq_rcpt_next(&s, &r))
        if (r.index == e->index)
            return r.address;
    return span_str(domain_at(q, e->domain)->name);
}

struct said {
    const char *what;
    struct span rcpt; /* empty: looked for */
    uint32_t due_s;
    unsigned attempt;
};

static struct span rcpt_of(const struct fate_set *set, unsigned i)
{
    return set->rcpts != NULL ? set->rcpts[i] : span_of(NULL, 0);
}

static void say(struct queue *q, const struct qentry *e, const struct said *what,
                const struct fate_facts *f)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    const struct lane *l = &q->lanes[m->lane];
    char status[16] = "";
    enhanced_format(f->status, status);
    uint64_t now = io_now_unix_ms(q->env.io);
    uint64_t since = (uint64_t)m->received_s * 1000;
    struct event v = {.what = what->what,
                      .id = m->id,
                      .index = e->index,
                      .rcpt = what->rcpt.n > 0 ? what->rcpt : first_address(q, m, e),
                      .sender = f->sender,
                      .lane = span_str(l->name),
                      .tenant = span_str(q->tenants[m->tenant].name),
                      .mx = f->mx,
                      .local = &f->local,
                      .remote = &f->remote,
                      .reply = f->reply,
                      .reason = reason_word(f->reason),
                      .status = f->status.class_ != 0 ? status : NULL,
                      .stage = f->remote.b[10] != 0 || f->mx.n > 0 ? stage_word(f->stage) : NULL,
                      .attempt = what->attempt,
                      .due_s = what->due_s,
                      .delay_ms = now > since ? now - since : 0};
    events_put(q->env.events, now, &v);
}

static void note(struct queue *q, const struct fate_set *set, struct note_facts *n,
                 const struct fate_facts *f)
{
    static uint8_t indices[2 * INDICES_MAX];
    struct qentry *const *entries = set->entries;
    unsigned count = set->count;
    MUST(count > 0);
    MUST(count <= INDICES_MAX);
    const struct qmsg *m = store_msg(&q->store, entries[0]->msg);
    n->lane = &q->lanes[m->lane];
    n->outcome.id = m->id;
    n->outcome.reason = (uint8_t)f->reason;
    n->outcome.at_unix_ms = io_now_unix_ms(q->env.io);
    n->outcome.local = f->local;
    n->outcome.remote = f->remote;
    n->outcome.remote_name = f->mx;
    n->outcome.reply = f->reply;
    n->outcome.count = (uint16_t)count;
    for (unsigned i = 0; i < count; i++) {
        MUST(entries[i]->msg == entries[0]->msg);
        indices[2 * i] = (uint8_t)entries[i]->index;
        indices[2 * i + 1] = (uint8_t)(entries[i]->index >> 8);
    }
    n->outcome.indices = span_of(indices, 2 * count);
}

static void count_fate(struct queue *q, const struct lane *l, enum fate fate, uint64_t n)
{
    struct stats_page *p = q->env.stats;
    switch (fate) {
    case FATE_DELIVERED:
        p->delivered += n;
        l->shard->ledger.delivered += n;
        if (l->stats != NULL)
            l->stats->delivered += n;
        break;
    case FATE_BOUNCED:
        p->bounced += n;
        l->shard->ledger.bounced += n;
        if (l->stats != NULL)
            l->stats->bounced += n;
        break;
    case FATE_EXPIRED:
        p->expired += n;
        l->shard->ledger.expired += n;
        break;
    case FATE_DELETED:
        p->deleted += n;
        l->shard->ledger.deleted += n;
        break;
    case FATE_HANDED_OVER:
        p->handed_over += n;
        l->shard->ledger.handed_over += n;
        break;
    case FATE_NONE:
    case FATE_COUNT:
        MUST(!"a fate that exists");
    }
}

/* One DONE for entries of one message; they leave the index, or stay as "bounce due". */
static void finish(struct queue *q, const struct fate_set *set, enum fate fate,
                   const struct fate_facts *f, struct spool_wait *wait)
{
    static const char *const words[FATE_COUNT] = {
        [FATE_DELIVERED] = "delivered",     [FATE_BOUNCED] = "failed",
        [FATE_EXPIRED] = "expired",         [FATE_DELETED] = "deleted",
        [FATE_HANDED_OVER] = "handed-over",
    };
    struct qentry *const *entries = set->entries;
    unsigned count = set->count;
    const struct qmsg *m = store_msg(&q->store, entries[0]->msg);
    const struct lane *lane = &q->lanes[m->lane];
    bool owed = (fate == FATE_BOUNCED || fate == FATE_EXPIRED) && !(m->flags & MSG_NULL_SENDER);
    struct note_facts n = {.type = RECORD_DONE};
    note(q, set, &n, f);
    n.outcome.fate = (uint8_t)fate;
    n.outcome.bounce_due = owed;
    n.outcome.attempts = entries[0]->attempts;
    for (unsigned i = 0; i < count; i++) {
        struct said s = {
            .what = words[fate], .rcpt = rcpt_of(set, i), .attempt = entries[i]->attempts};
        say(q, entries[i], &s, f);
    }
    count_fate(q, lane, fate, count);
    if (fate == FATE_DELIVERED)
        for (unsigned i = 0; i < count; i++)
            domain_at(q, entries[i]->domain)->delivered_s = queue_now_unix_s(q);
    shard_note(lane->shard, &n, wait);
    for (unsigned i = 0; i < count; i++) {
        if (fate != FATE_HANDED_OVER)
            role_on_done(q, &q->lanes[m->lane], entries[i]);
        entries[i]->reason = (uint8_t)f->reason;
        entries[i]->flow = 0;
        entries[i]->in_doubt = 0;
        if (owed) { /* replies of what ends here would fill the table: each 250 has its own text */
            entries[i]->reply = reply_intern(q, f->reply);
            entry_set_state(q, entries[i], ENTRY_BOUNCE_DUE);
            shard_uncache(q, store_msg(&q->store, entries[i]->msg));
        } else {
            entry_end(q, entries[i]);
        }
    }
}

uint64_t retry_wait_s(const struct config *c, bool transactional, unsigned attempts,
                      enum reason reason, uint32_t dice)
{
    MUST(attempts > 0);
    uint64_t most = transactional ? c->queue.retry_max_transactional_s : c->queue.retry_max_s;
    uint64_t s = reason == REASON_GREYLISTED ? c->queue.retry_greylist_s : c->queue.retry_first_s;
    for (unsigned i = 1; i < attempts && s < most; i++)
        s *= 2;
    if (s > most || reason == REASON_LASTING)
        s = most;
    uint64_t span = s * 1000 * c->queue.retry_jitter_percent / 100;
    return (s * 1000 - span + dice % (2 * span + 1) + 999) / 1000;
}

/* The recipients of a message that fail together wait for the same time: they are tried together
 * again (CLI-23). */
static uint32_t retry_due(const struct queue *q, const struct qmsg *m, unsigned attempts,
                          enum reason reason)
{
    uint32_t dice = hash_u64(((uint64_t)id_hash(m->id) << 16) + attempts);
    uint64_t due =
        queue_now_unix_s(q) +
        retry_wait_s(q->env.config, m->class_ == CLASS_TRANSACTIONAL, attempts, reason, dice);
    return due > m->expires_s ? m->expires_s : (uint32_t)due;
}

/* A full mailbox, or a 5yz that says it will pass, is waited for, but not for as long as the
 * queue's lifetime. */
static void shorten_lifetime(const struct queue *q, struct qmsg *m, const struct fate_facts *f)
{
    uint32_t most = f->status.class_ == 5 ? REFUSED_LIFETIME_S
                    : f->reason == REASON_MAILBOX_FULL
                        ? q->env.config->queue.mailbox_full_lifetime_s
                        : 0;
    if (most > 0 && m->expires_s > m->received_s + most)
        m->expires_s = m->received_s + most;
}

/* A DOT is in the log: an outcome that changes nothing follows it, or a crash would leave the
 * recipient in doubt. */
static void settle_doubt(struct queue *q, struct qentry *e)
{
    if (!e->in_doubt)
        return;
    struct note_facts n = {.type = RECORD_DEFER};
    struct fate_facts none = {.reason = REASON_NONE};
    note(q, &(struct fate_set){.entries = &e, .count = 1}, &n, &none);
    n.outcome.attempts = e->attempts;
    e->in_doubt = 0;
    shard_note(n.lane->shard, &n, NULL);
}

static void defer_one(struct queue *q, const struct fate_set *one, const struct fate_facts *f)
{
    struct qentry *e = one->entries[0];
    struct qmsg *m = store_msg(&q->store, e->msg);
    struct lane *lane = &q->lanes[m->lane];
    entry_set_state(q, e, ENTRY_NEW);
    e->flow = 0;
    e->reply = reply_intern(q, f->reply);
    if (f->ours) {
        settle_doubt(q, e);
        entry_wait(q, e, queue_now_unix_s(q) + OURS_RETRY_S, f->reason);
        return;
    }
    e->attempts++;
    e->in_doubt = 0; /* by the DEFER below */
    shorten_lifetime(q, m, f);
    uint32_t due = retry_due(q, m, e->attempts, f->reason);
    struct note_facts n = {.type = RECORD_DEFER};
    note(q, one, &n, f);
    n.outcome.attempts = e->attempts;
    n.outcome.due_unix_s = due;
    struct said s = {
        .what = "deferred", .rcpt = rcpt_of(one, 0), .due_s = due, .attempt = e->attempts};
    say(q, e, &s, f);
    q->env.stats->deferred++;
    if (lane->stats != NULL)
        lane->stats->deferred++;
    shard_note(lane->shard, &n, NULL);
    entry_wait(q, e, due, f->reason);
    shard_uncache(q, m);
}

/* The attempt is over, and it was to be the last: the reply is the one it got. */
static void end_cancelled(struct queue *q, const struct fate_set *one, enum fate fate,
                          const struct fate_facts *f)
{
    struct fate_facts end = *f;
    bool expired = fate == FATE_EXPIRED;
    end.reason = expired ? REASON_EXPIRED : REASON_DELETED;
    end.status = expired ? (struct smtp_enhanced){5, 4, 7} : (struct smtp_enhanced){5, 7, 1};
    finish(q, one, fate, &end, NULL);
}

static void defer(struct queue *q, const struct fate_set *set, const struct fate_facts *f)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct qentry *e = set->entries[i];
        struct fate_set one = {
            .entries = &e, .rcpts = set->rcpts != NULL ? &set->rcpts[i] : NULL, .count = 1};
        enum fate cancel = (enum fate)e->cancel;
        if (cancel == FATE_NONE && store_msg(&q->store, e->msg)->expires_s <= queue_now_unix_s(q) &&
            !f->ours)
            cancel = FATE_EXPIRED;
        if (cancel == FATE_NONE)
            defer_one(q, &one, f);
        else
            end_cancelled(q, &one, cancel, f);
    }
}

bool fates_apply(struct queue *q, const struct fate_set *set, enum verdict verdict,
                 const struct fate_facts *f, struct spool_wait *wait)
{
    for (unsigned i = 0; i < set->count; i++)
        MUST(set->entries[i]->state == ENTRY_IN_FLIGHT || set->entries[i]->state == ENTRY_NEW);
    if (set->count == 0)
        return false;
    if (!role_may_end(q, set->entries[0])) { /* nothing may change in it while its lane moves */
        for (unsigned i = 0; i < set->count; i++)
            entry_wait(q, set->entries[i], queue_now_unix_s(q) + OURS_RETRY_S, REASON_MOVING);
        return false;
    }
    switch (verdict) {
    case VERDICT_OK:
        finish(q, set, FATE_DELIVERED, f, wait);
        return wait != NULL;
    case VERDICT_PERM:
        finish(q, set, FATE_BOUNCED, f, wait);
        return wait != NULL;
    case VERDICT_TEMP:
        defer(q, set, f);
        return false;
    case VERDICT_MORE:
        break;
    }
    for (unsigned i = 0; i < set->count; i++)
        fates_return(q, set->entries[i], true);
    return false;
}

void fates_local(struct queue *q, struct qentry *e, enum verdict verdict,
                 const struct fate_facts *f)
{
    fates_apply(q, &(struct fate_set){.entries = &e, .count = 1}, verdict, f, NULL);
}

void fates_end(struct queue *q, struct qentry *e, enum fate fate, const struct fate_facts *f)
{
    if (e->state == ENTRY_IN_FLIGHT) {
        if (e->cancel == FATE_NONE)
            e->cancel = (uint8_t)fate;
        return;
    }
    if (!role_may_end(q, e))
        return;
    if (e->state ==
        ENTRY_BOUNCE_DUE) { /* its fate is recorded already: only the notification is given up */
        struct note_facts n = {.type = RECORD_DONE};
        note(q, &(struct fate_set){.entries = &e, .count = 1}, &n, f);
        shard_note(n.lane->shard, &n, NULL);
        entry_set_state(q, e, ENTRY_NEW);
        entry_end(q, e);
        return;
    }
    entry_unlist(q, e);
    finish(q, &(struct fate_set){.entries = &e, .count = 1}, fate, f, NULL);
}

void fates_try_again(struct queue *q, struct qentry *e)
{
    entry_unlist(q, e);
    settle_doubt(q, e);
    e->due_s = 0;
    shard_tell_copy(q, e);
    entry_place(q, e);
}

void fates_return(struct queue *q, struct qentry *e, bool front)
{
    MUST(e->state == ENTRY_IN_FLIGHT);
    if (e->cancel != FATE_NONE) {
        end_cancelled(q, &(struct fate_set){.entries = &e, .count = 1}, (enum fate)e->cancel,
                      &(struct fate_facts){0});
        return;
    }
    struct flow *f = flow_at(q, e->flow);
    e->flow = 0;
    settle_doubt(q, e);
    entry_set_state(q, e, ENTRY_NEW);
    bool moving = !lane_runs(entry_lane(q, e));
    /* a hold may have come meanwhile, or a move */
    if (q->held_some || domain_at(q, e->domain)->held || moving) {
        entry_place(q, e);
        return;
    }
    if (flow_push(q, f, e, front) != 0) {
        entry_wait(q, e, queue_now_unix_s(q) + OURS_RETRY_S, REASON_NONE);
        return;
    }
    entry_set_state(q, e, ENTRY_READY);
    flow_mark(q, f);
}
