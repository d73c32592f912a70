/*
 * Messages whose lane is not simply ours: copies of another node's, tails of its attempts, strays.
 *
 * Invariants: a copied message stands in the index from its append on, uncounted, all its entries
 * ENTRY_REPLICA or ENTRY_TAIL; its outcomes are recorded without a fate, since the owner counts
 * them. A stray is ours and counted until it is handed over.
 */
#include "worker/lane/role_impl.h"
#include "worker/lane/shard_impl.h"

#include "worker/lane/deliver.h"
#include "worker/lane/fates.h"

#include <errno.h>
#include <stdlib.h>

/* --- what a lane counts --- */

/* What is in these lists is in no list of its state. */
static void list_tail(const struct lane *l, struct qlist *list, struct qentry *e, int sign)
{
    const struct store *s = &l->shard->queue->store;
    if (sign > 0)
        qlist_push(s, list, e);
    else
        qlist_remove(s, list, e);
}

void role_count(struct lane *l, struct qentry *e, enum entry_state s, int sign)
{
    uint32_t n = (uint32_t)sign; /* -1 wraps, as it should */
    switch (s) {
    case ENTRY_REPLICA:
        l->replicas += n;
        l->replica_bounces += e->cancel == RCPT_BOUNCE_DUE ? n : 0;
        return;
    case ENTRY_TAIL:
        list_tail(l, &l->tails_there, e, sign);
        return;
    case ENTRY_BOUNCE_DUE:
        l->bounces += n;
        return;
    case ENTRY_IN_FLIGHT:
    case ENTRY_PARKED:
    case ENTRY_HELD:
        if (e->tail)
            list_tail(l, &l->open_tails, e, sign);
        return;
    case ENTRY_FREE:
    case ENTRY_NEW:
    case ENTRY_RESOLVING:
    case ENTRY_READY:
    case ENTRY_WAITING:
    case ENTRY_STRAY:
    case ENTRY_STATE_COUNT:
        return;
    }
}

void role_set_tail(struct lane *l, struct qentry *e, bool tail)
{
    enum entry_state s = (enum entry_state)e->state;
    bool counts = s == ENTRY_IN_FLIGHT || s == ENTRY_PARKED || s == ENTRY_HELD;
    if (counts && (e->tail != 0) != tail)
        list_tail(l, &l->open_tails, e, tail ? 1 : -1);
    e->tail = tail;
}

void role_replica_becomes(struct lane *l, struct qentry *e, enum rcpt_state s)
{
    MUST(e->state == ENTRY_REPLICA);
    if (e->cancel == RCPT_BOUNCE_DUE)
        l->replica_bounces--;
    if (s == RCPT_BOUNCE_DUE)
        l->replica_bounces++;
    e->cancel = (uint8_t)s;
}

void role_outbound_gone(struct queue *q, struct lane *l)
{
    MUST(l->outbounds > 0);
    l->outbounds--;
    if (l->role == LANE_OWNER)
        return;
    l->tails = l->outbounds;
    if (l->tails == 0)
        l->say_tails = q->roles->say = true;
}

void role_on_done(struct queue *q, struct lane *l, const struct qentry *e)
{
    const struct role_events *ev = &q->roles->events;
    if (e->tail && l->role != LANE_OWNER && ev->on_tail_done != NULL)
        ev->on_tail_done(ev->ctx, l, store_msg(&q->store, e->msg)->id, e->index);
}

static bool is_kept(const struct queue *q, const struct qentry *e)
{
    return e->tail || (store_msg(&q->store, e->msg)->flags & MSG_LATE);
}

bool role_may_end(const struct queue *q, const struct qentry *e)
{
    const struct lane *l = entry_lane(q, e);
    if (e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL)
        return false;
    if (e->state == ENTRY_STRAY)
        return e->cancel == 0; /* else it may be at the owner already */
    if (e->state == ENTRY_IN_FLIGHT || is_kept(q, e))
        return true;
    return (l->role != LANE_FROZEN || q->roles->recovering) && l->sweep != SWEEP_GIVEN;
}

enum rcpt_state role_written_state(const struct qentry *e)
{
    switch ((enum entry_state)e->state) {
    case ENTRY_BOUNCE_DUE:
        return RCPT_BOUNCE_DUE;
    case ENTRY_HELD:
        return RCPT_HELD;
    case ENTRY_PARKED: /* of a lane that is gone: only while its message goes to another shard */
        return e->reason == REASON_LANE_GONE ? RCPT_QUEUED : RCPT_PARKED;
    case ENTRY_REPLICA:
        return (enum rcpt_state)e->cancel;
    case ENTRY_TAIL:
        return RCPT_TAIL;
    case ENTRY_STRAY:
        return e->flow == STRAY_HELD ? RCPT_HELD : RCPT_QUEUED;
    case ENTRY_FREE:
    case ENTRY_NEW:
    case ENTRY_RESOLVING:
    case ENTRY_READY:
    case ENTRY_WAITING:
    case ENTRY_IN_FLIGHT:
    case ENTRY_STATE_COUNT:
        break;
    }
    return RCPT_QUEUED;
}

/* Other nodes name messages by id: of their lane they may say what they like, of others nothing. */
static struct qmsg *msg_of_lane(const struct lane *l, struct msg_id id)
{
    struct qmsg *m = store_find(&l->shard->queue->store, id);
    return m != NULL && m->lane == l->index ? m : NULL;
}

/* --- strays --- */

bool role_stray(struct queue *q, struct qentry *e)
{
    struct lane *l = entry_lane(q, e);
    if (l->gone || l->role == LANE_OWNER || (l->role == LANE_FROZEN && !is_kept(q, e)))
        return false;
    MUST(e->state == ENTRY_NEW);
    e->cancel = 0;
    e->flow = 0;
    qlist_push(&q->store, &l->strays, e);
    entry_set_state(q, e, ENTRY_STRAY);
    if (l->role != LANE_FROZEN)
        l->say_stray = q->roles->say = true;
    return true;
}

bool role_stray_held(struct queue *q, struct qentry *e)
{
    if (!role_stray(q, e))
        return false;
    e->flow = STRAY_HELD;
    return true;
}

struct qmsg *stray_take(struct queue *q, struct lane *l)
{
    struct qentry *first = qlist_first(&q->store, &l->strays);
    if (first == NULL || l->role == LANE_FROZEN || l->role == LANE_OWNER)
        return NULL;
    struct qmsg *m = store_msg(&q->store, first->msg);
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state != ENTRY_STRAY || e->cancel != 0)
            continue;
        qlist_remove(&q->store, &l->strays, e);
        e->cancel = 1;
        qlist_push(&q->store, &l->handing, e);
    }
    return m;
}

void stray_return(struct queue *q, struct qmsg *m)
{
    struct lane *l = &q->lanes[m->lane];
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state != ENTRY_STRAY || e->cancel == 0)
            continue;
        qlist_remove(&q->store, &l->handing, e);
        e->cancel = 0;
        qlist_push(&q->store, &l->strays, e);
    }
}

static void hand_over(struct queue *q, struct qentry *e)
{
    struct fate_facts f = {.reason = REASON_STRAY};
    entry_unlist(q, e);
    fates_end(q, e, FATE_HANDED_OVER, &f);
}

void stray_taken(struct queue *q, struct qmsg *m)
{
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling; /* 0 with the last one, which may end the message */
        if (e->state == ENTRY_STRAY && e->cancel != 0)
            hand_over(q, e);
    }
}

void stray_had(struct lane *l, struct msg_id id)
{
    struct queue *q = l->shard->queue;
    const struct qmsg *m = msg_of_lane(l, id);
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state == ENTRY_STRAY)
            hand_over(q, e);
    }
}

/* --- copies --- */

/* An outcome that counts nothing: the owner of the lane does. */
static void note_uncounted(struct lane *l, enum record_type type, const struct outcome *o,
                           struct spool_wait *w)
{
    struct note_facts n = {.type = type, .lane = l, .outcome = *o};
    n.outcome.fate = FATE_NONE;
    shard_note(l->shard, &n, w);
}

/* DONE without a fate for these entries of one message, which leave the index. */
static void drop_entries(struct lane *l, struct msg_id id, struct qentry **entries, uint16_t count)
{
    struct queue *q = l->shard->queue;
    static uint8_t indices[2 * LIMIT_RECIPIENTS];
    MUST(count <= LIMIT_RECIPIENTS);
    for (uint16_t i = 0; i < count; i++) {
        indices[2 * i] = (uint8_t)entries[i]->index;
        indices[2 * i + 1] = (uint8_t)(entries[i]->index >> 8);
    }
    struct outcome o = {.id = id,
                        .at_unix_ms = io_now_unix_ms(q->env.io),
                        .count = count,
                        .indices = span_of(indices, 2u * count)};
    note_uncounted(l, RECORD_DONE, &o, NULL);
    for (uint16_t i = 0; i < count; i++)
        role_let_go(q, entries[i]);
}

int replica_admit(struct queue *q, const struct lane *l, struct msg_id id)
{
    if (l->role != LANE_REPLICA || l->change != NULL)
        return -ESTALE;
    const struct qmsg *m = store_find(&q->store, id);
    if (m != NULL && m->lane != l->index)
        return -EEXIST; /* its owner has no say in other lanes' mail */
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0; i = store_entry(&q->store, i)->sibling)
        if (store_entry(&q->store, i)->state == ENTRY_IN_FLIGHT)
            return -EBUSY;
    /* what ends the message that is here would come to stand behind the copy */
    return l->shard->unwritten != NULL ? -EBUSY : 0;
}

/* Each with a record of its own: if the copy fails, what it was to replace is in the log still, and
   the owner may have no such message any more. */
void replica_replace(struct queue *q, struct msg_id id)
{
    static struct qentry *copies[LIMIT_RECIPIENTS];
    struct qmsg *m = store_find(&q->store, id);
    struct lane *l = m == NULL ? NULL : &q->lanes[m->lane];
    uint16_t n = 0;
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL) {
            copies[n++] = e;
        } else if (e->state == ENTRY_BOUNCE_DUE) { /* the notification is ours still, or theirs */
            struct fate_facts f = {.reason = REASON_STRAY};
            fates_end(q, e, FATE_HANDED_OVER, &f);
        } else {
            hand_over(q, e);
        }
    }
    if (n > 0)
        drop_entries(l, id, copies, n);
}

static void change_one(struct queue *q, struct lane *l, struct qentry *e, const struct outcome *o)
{
    e->attempts = o->attempts;
    e->reason = o->reason;
    e->due_s = (uint32_t)o->due_unix_s;
    if (e->state != ENTRY_REPLICA)
        return;
    enum rcpt_state s = RCPT_QUEUED;
    if (o->reason == REASON_HELD_MESSAGE)
        s = RCPT_HELD;
    else if (o->reason == REASON_DAMAGED || o->reason == REASON_POISON)
        s = RCPT_PARKED;
    e->reply = reply_intern(q, o->reply);
    role_replica_becomes(l, e, s);
}

/* Ended at the owner, with a notification to come or without. */
static void end_one(struct queue *q, struct lane *l, struct qentry *e, const struct outcome *o)
{
    if (!o->bounce_due) {
        role_let_go(q, e);
        return;
    }
    if (e->state == ENTRY_TAIL) {
        entry_set_state(q, e, ENTRY_NEW);
        e->cancel = 0;
        entry_set_state(q, e, ENTRY_REPLICA);
    }
    e->reason = o->reason;
    e->reply = reply_intern(q, o->reply);
    role_replica_becomes(l, e, RCPT_BOUNCE_DUE);
}

void replica_outcome(struct lane *l, enum record_type type, const struct outcome *o)
{
    struct queue *q = l->shard->queue;
    if (l->role != LANE_REPLICA || l->change != NULL ||
        (type != RECORD_DONE && type != RECORD_DEFER) || msg_of_lane(l, o->id) == NULL)
        return;
    bool noted = false;
    for (unsigned i = 0; i < o->count; i++) {
        struct qmsg *m = store_find(&q->store, o->id);
        struct qentry *e = m == NULL ? NULL : store_find_entry(&q->store, m, outcome_index(o, i));
        if (e == NULL || (e->state != ENTRY_REPLICA && e->state != ENTRY_TAIL))
            continue;
        if (!noted)
            note_uncounted(l, type, o, NULL);
        noted = true;
        if (type == RECORD_DEFER)
            change_one(q, l, e, o);
        else
            end_one(q, l, e, o);
    }
}

void replica_drop(struct lane *l, struct msg_id id)
{
    static struct qentry *entries[LIMIT_RECIPIENTS];
    struct queue *q = l->shard->queue;
    const struct qmsg *m = msg_of_lane(l, id);
    uint16_t n = 0;
    if (l->role != LANE_REPLICA || l->change != NULL)
        return;
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0; i = store_entry(&q->store, i)->sibling) {
        struct qentry *e = store_entry(&q->store, i);
        if (e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL)
            entries[n++] = e;
    }
    if (n > 0)
        drop_entries(l, id, entries, n);
}

static void tails_void(struct queue *q, struct lane *l)
{
    struct qentry *e;
    while ((e = qlist_first(&q->store, &l->tails_there)) != NULL) {
        entry_set_state(q, e, ENTRY_NEW);
        e->cancel = RCPT_QUEUED;
        entry_set_state(q, e, ENTRY_REPLICA);
    }
}

static void tail_mark(struct queue *q, const struct lane *l, const struct tail_item *t)
{
    struct qmsg *m = msg_of_lane(l, t->id);
    struct qentry *e = m == NULL ? NULL : store_find_entry(&q->store, m, t->index);
    if (e == NULL || e->state != ENTRY_REPLICA)
        return;
    entry_set_state(q, e, ENTRY_NEW);
    e->cancel = 0;
    entry_set_state(q, e, ENTRY_TAIL);
}

static int append_plain(struct lane *l, enum record_type type, struct span meta)
{
    struct spool_append a = {.type = (uint8_t)type,
                             .lane = l->number,
                             .epoch = l->epoch,
                             .position = l->position + 1,
                             .meta = meta,
                             .fate = true};
    int r = spool_append(l->shard->spool, &a, NULL, NULL);
    l->position += r == 0;
    return r;
}

int replica_tails(struct lane *l, const struct tail_item *items, uint32_t count)
{
    struct queue *q = l->shard->queue;
    static uint8_t meta[TAIL_LIST_ITEMS * 18 + 16];
    if (l->role != LANE_REPLICA || l->change != NULL)
        return -ESTALE;
    tails_void(q, l);
    uint32_t at = 0;
    do { /* an empty list too: it makes an earlier one void */
        uint32_t n = count - at < TAIL_LIST_ITEMS ? count - at : TAIL_LIST_ITEMS;
        struct writer w = writer_of(meta, sizeof meta);
        tail_list_put(
            &w, &(struct tail_list){.there = true, .first = at == 0, .count = (uint16_t)n});
        for (uint32_t i = 0; i < n; i++)
            tail_put(&w, items[at + i].id, items[at + i].index);
        MUST(!w.bad);
        int r = append_plain(l, RECORD_TAIL, span_of(meta, w.n));
        if (r != 0)
            return r;
        for (uint32_t i = 0; i < n; i++)
            tail_mark(q, l, &items[at + i]);
        at += n;
    } while (at < count);
    return 0;
}

int replica_state(struct lane *l, struct span state)
{
    if (l->role != LANE_REPLICA || l->change != NULL)
        return -ESTALE;
    uint8_t *copy = malloc(state.n + 1);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, state.p, state.n);
    int r = state.n == 0 ? 0 : append_plain(l, RECORD_STATE, state);
    if (r != 0 || state.n == 0) {
        free(copy);
        return r;
    }
    free(l->state);
    l->state = copy;
    l->state_bytes = (uint32_t)state.n;
    return 0;
}

struct ready {
    struct role_change change; /* for role_mark */
    struct spool_wait *user;
};

static void on_ready(struct spool_wait *w, int res)
{
    struct role_change *c =
        (struct role_change *)((char *)w - offsetof(struct role_change, wait));
    struct ready *r = (struct ready *)((char *)c - offsetof(struct ready, change));
    struct lane *l = lane_by_number(c->queue, c->lane);
    struct spool_wait *user = r->user;
    l->change = NULL;
    if (res != 0)
        l->logged = c->before;
    l->ready = l->logged.ready;
    free(r);
    if (user != NULL)
        user->on_durable(user, res);
}

int replica_ready(struct lane *l, struct spool_wait *w)
{
    if (l->role != LANE_REPLICA || l->change != NULL)
        return -ESTALE;
    struct ready *r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->user = w;
    r->change = (struct role_change){.queue = l->shard->queue, .lane = l->number};
    r->change.wait.on_durable = on_ready;
    struct lane_logged to = l->logged;
    to.ready = true;
    to.move = l->move;
    int res = role_mark(l, RECORD_READY, &to, &r->change);
    if (res != 0)
        free(r);
    return res;
}

/* --- tails at the new owner --- */

static struct qentry *tail_entry(const struct lane *l, struct msg_id id, uint16_t index)
{
    const struct store *s = &l->shard->queue->store;
    const struct qmsg *m = msg_of_lane(l, id);
    struct qentry *e = m == NULL ? NULL : store_find_entry(s, m, index);
    return e != NULL && e->state == ENTRY_TAIL && l->role == LANE_OWNER ? e : NULL;
}

void tail_done(struct lane *l, struct msg_id id, uint16_t index)
{
    struct qentry *e = tail_entry(l, id, index);
    if (e != NULL)
        drop_entries(l, id, &e, 1);
}

/* From here on it is ours: a DEFER that counts. */
static void take_tail(struct lane *l, struct qentry *e, struct msg_id id, struct spool_wait *w)
{
    struct queue *q = l->shard->queue;
    uint8_t index[2] = {(uint8_t)e->index, (uint8_t)(e->index >> 8)};
    struct note_facts n = {.type = RECORD_DEFER, .lane = l, .taken = true};
    n.outcome = (struct outcome){.id = id,
                                 .reason = e->reason,
                                 .attempts = e->attempts,
                                 .at_unix_ms = io_now_unix_ms(q->env.io),
                                 .due_unix_s = e->due_s,
                                 .count = 1,
                                 .indices = span_of(index, 2)};
    l->shard->ledger.accepted++;
    l->shard->ledger.taken_over++;
    q->env.stats->taken_over++;
    entry_set_state(q, e, ENTRY_NEW);
    shard_note(l->shard, &n, w);
}

bool tail_back(struct lane *l, struct msg_id id, const struct enq_rcpt *r, struct spool_wait *w)
{
    struct queue *q = l->shard->queue;
    struct qentry *e = tail_entry(l, id, r->index);
    if (e == NULL)
        return false;
    e->attempts = r->attempts;
    e->reason = r->reason;
    e->due_s = (uint32_t)r->due_unix_s;
    take_tail(l, e, id, w);
    if (r->state == RCPT_PARKED)
        entry_set_state(q, e, ENTRY_PARKED);
    else if (r->state == RCPT_HELD && r->reason != REASON_HELD_MESSAGE)
        entry_set_state(q, e, ENTRY_HELD);
    else
        entry_place(q, e);
    return true;
}

void tail_in_doubt(struct lane *l, struct msg_id id, uint16_t index)
{
    struct queue *q = l->shard->queue;
    struct qentry *e = tail_entry(l, id, index);
    if (e == NULL)
        return;
    uint8_t bytes[2] = {(uint8_t)index, (uint8_t)(index >> 8)};
    struct note_facts dot = {.type = RECORD_DOT, .lane = l};
    dot.outcome = (struct outcome){.id = id,
                                   .at_unix_ms = io_now_unix_ms(q->env.io),
                                   .count = 1,
                                   .indices = span_of(bytes, 2)};
    e->due_s = 0;
    e->reason = REASON_IN_DOUBT;
    take_tail(l, e, id, NULL);
    e->in_doubt = 1; /* also after a crash */
    shard_note(l->shard, &dot, NULL);
    shard_settle_doubt(q, e);
}
