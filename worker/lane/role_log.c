/*
 * Roles and the log: recovery, snapshots, copies by compaction. The rule that decides what a
 * message is stands at the top of role.c; recovery applies it once, when all of the log is read.
 *
 * Invariant: during recovery entries of all messages stand as ordinary ones, with the epoch of
 * their ENQ and the flag REPLICA in their place `flow`, and in `cancel` the stamp of the list of
 * tails that named them; lane->logged follows the records, while role, epoch and the like of the
 * lane are what the master says.
 */
#include "worker/lane/role_impl.h"
#include "worker/lane/shard_impl.h"

#include "base/log.h"
#include "worker/lane/adopted.h"
#include "worker/lane/flow_state.h"

#include <errno.h>
#include <stdlib.h>

#define ORIGIN_REPLICA (1u << 31)

/* What an entry says that is in the list of tails read last: it is nothing after the next list. */
static uint8_t list_stamp(uint8_t lists)
{
    return (uint8_t)(1 + lists % UINT8_MAX);
}

/* Ours until the stint that GIVEN ended, and not open then. */
static bool is_given(const struct lane *l, const struct qentry *e)
{
    return (e->flow & ~ORIGIN_REPLICA) < l->logged.given + (ROLE_BUG == 1) &&
           e->cancel != list_stamp(l->logged.given_list);
}

/* --- records --- */

static void apply_mark(struct shard *s, struct lane *l, const struct record_view *v)
{
    struct lane_mark m;
    if (lane_mark_read(v->meta, &m) != 0) {
        s->damaged++;
        return;
    }
    struct lane_logged *to = &l->logged;
    enum record_type type = (enum record_type)v->head.type;
    if (type == RECORD_OWN && !m.snapshot) {
        s->ledger.accepted += m.count;
        s->ledger.taken_over += m.count;
    }
    if (type == RECORD_GIVEN) {
        s->ledger.handed_over += m.count;
        to->given_list = to->lists;
    }
    if (type == RECORD_AWAY && ROLE_BUG != 4)
        to->dropped = v->place;
    to->role = (enum lane_role)m.role;
    to->epoch = v->head.epoch;
    to->given = m.given;
    to->move = m.move;
    to->ready = m.ready;
    memcpy(to->node, m.node.p, m.node.n);
    to->node[m.node.n] = '\0';
    if (to->role == LANE_AWAY || type == RECORD_REPLICA)
        flow_state_free(l);
}

/* Entries of the lane that were tails of its last owner are ordinary copies again. */
static void tails_there_end(struct queue *q, const struct lane *l)
{
    struct qentry *e;
    while ((e = qlist_first(&q->store, &l->tails_there)) != NULL)
        entry_set_state(q, e, ENTRY_NEW);
}

static void apply_tails(struct shard *s, struct lane *l, const struct record_view *v)
{
    struct queue *q = s->queue;
    struct tail_list t;
    if (tail_list_read(v->meta, &t) != 0) {
        s->damaged++;
        return;
    }
    if (t.first && t.there)
        tails_there_end(q, l);
    else if (t.first)
        l->logged.lists++;
    struct msg_id id;
    uint16_t index;
    while (tail_next(&t.items, &id, &index)) {
        struct qmsg *m = store_find(&q->store, id);
        struct qentry *e = m == NULL ? NULL : store_find_entry(&q->store, m, index);
        if (e == NULL)
            continue;
        if (t.there) {
            entry_set_state(q, e, ENTRY_TAIL);
            continue;
        }
        if ((e->flow & ~ORIGIN_REPLICA) < l->logged.given && !is_given(l, e))
            e->flow = l->logged.epoch; /* open when it was given, so still ours, and open again */
        e->cancel = list_stamp(l->logged.lists);
    }
}

static void apply_state(struct shard *s, struct lane *l, const struct record_view *v)
{
    uint8_t *copy = v->meta.n > 0 ? malloc(v->meta.n) : NULL;
    if (copy == NULL) {
        s->damaged++;
        return;
    }
    flow_state_free(l);
    memcpy(copy, v->meta.p, v->meta.n);
    l->state = copy;
    l->state_bytes = (uint32_t)v->meta.n;
}

void role_apply(struct shard *s, const struct record_view *v)
{
    struct lane *l = v->head.lane == 0 ? NULL : shard_lane(s, v->head.lane);
    if (l == NULL)
        s->damaged++;
    else if (v->head.type == RECORD_TAIL)
        apply_tails(s, l, v);
    else if (v->head.type == RECORD_STATE)
        apply_state(s, l, v);
    else
        apply_mark(s, l, v);
}

void role_apply_enq(struct queue *q, const struct qmsg *m, const struct enq *e,
                    const struct record_head *h)
{
    const struct lane *l = &q->lanes[m->lane];
    bool replica = (h->flags & ENQ_HEAD_REPLICA) != 0;
    struct span rcpts = e->rcpts;
    struct enq_rcpt r;
    while (enq_rcpt_next(&rcpts, &r)) {
        struct qentry *x = store_find_entry(&q->store, m, r.index);
        x->flow = (h->epoch & ~ORIGIN_REPLICA) | (replica ? ORIGIN_REPLICA : 0);
        if (r.open && !replica) /* a copy: the last list of tails was written before it */
            x->cancel = list_stamp(l->logged.lists);
    }
}

/* --- after recovery --- */

static void park_change(struct lane *l, struct role_change *c)
{
    *c = (struct role_change){.lane = l->number,
                              .role = l->role,
                              .epoch = l->epoch,
                              .run = l->run,
                              .slot = l->node_slot,
                              .move = l->move};
    memcpy(c->node, l->node, sizeof c->node);
}

static void on_caught_up(struct role_change *c, int res)
{
    const struct lane *l = lane_by_number(c->queue, c->lane);
    bool waits = l->sweep != SWEEP_NONE || l->change != NULL || l->shard->unwritten != NULL;
    if (res == -EBUSY && waits) {
        role_set(c->queue, c); /* the slices of what the log says come first */
        return;
    }
    if (res != 0)
        log_err("lane %u: the log does not follow what the cluster has decided: %s; nothing is "
                "tried for it",
                c->lane, strerror(-res));
    free(c);
}

void role_recovered(struct shard *s, struct lane *l)
{
    struct lane_logged *log = &l->logged;
    if (l->role == 0) { /* not even the master knows it */
        l->role = log->role != 0 ? log->role : LANE_OWNER;
        l->epoch = log->role != 0 ? log->epoch : 1;
    }
    if (log->role == 0) { /* new here */
        log->role = l->role;
        log->epoch = l->epoch;
        log->move = l->move;
        memcpy(log->node, l->node, sizeof log->node);
        return;
    }
    if (log->role == LANE_OWNER)
        memcpy(l->given_by, log->node, sizeof l->given_by);
    if (log->role == l->role && log->epoch == l->epoch) {
        l->ready = log->ready;
        l->tails = 0;
        return;
    }
    struct role_change *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    park_change(l, c);
    c->on_done = on_caught_up;
    c->queue = s->queue;
    c->next = s->queue->roles->wanted;
    s->queue->roles->wanted = c;
    l->role = log->role;
    l->epoch = log->epoch;
    l->run = false;
    l->ready = log->ready;
    l->move = log->move;
    if (log->role == LANE_OWNER)
        l->node[0] = '\0';
    else
        memcpy(l->node, log->node, sizeof l->node);
}

void role_catch_up(struct shard *s)
{
    struct roles *r = s->queue->roles;
    struct role_change *c = r->wanted;
    r->wanted = NULL;
    while (c != NULL) {
        struct role_change *next = c->next;
        role_set(s->queue, c);
        c = next;
    }
}

static bool is_before(const struct qmsg *m, const struct record_place *p)
{
    return m->segment < p->segment || (m->segment == p->segment && m->offset < p->offset);
}

/* A message that was written as a copy and not given away since: is it nobody's? */
static bool is_void_copy(const struct lane *l, uint32_t epoch, const struct qmsg *m)
{
    if (is_before(m, &l->logged.dropped))
        return true;
    if (l->role == LANE_OWNER || l->role == LANE_FROZEN)
        return epoch >= l->epoch;
    return l->role != LANE_REPLICA || epoch != l->epoch;
}

static enum rcpt_state as_rcpt(const struct qentry *e)
{
    return e->state == ENTRY_BOUNCE_DUE ? RCPT_BOUNCE_DUE
           : e->state == ENTRY_HELD     ? RCPT_HELD
           : e->state == ENTRY_PARKED   ? RCPT_PARKED
                                        : RCPT_QUEUED;
}

static void settle_late(struct queue *q, struct lane *l, struct qentry *e, uint32_t epoch)
{
    struct qmsg *m = store_msg(&q->store, e->msg);
    if (role_is_late(l, epoch))
        m->flags |= MSG_LATE;
}

bool role_settle(struct queue *q, struct qentry *e)
{
    struct lane *l = entry_lane(q, e);
    struct qmsg *m = store_msg(&q->store, e->msg);
    uint32_t epoch = e->flow & ~ORIGIN_REPLICA;
    bool copied = (e->flow & ORIGIN_REPLICA) != 0;
    bool given = is_given(l, e);
    bool open = l->role == LANE_FROZEN && e->cancel == list_stamp(l->logged.lists);
    e->flow = 0;
    e->cancel = 0;
    if (given) {
        role_let_go(q, e);
        return false;
    }
    copied = copied && epoch >= l->logged.given; /* else it was ours, and open */
    if (copied && is_void_copy(l, epoch, m)) {
        role_let_go(q, e);
        return false;
    }
    if (copied && l->role == LANE_REPLICA) {
        enum rcpt_state s = as_rcpt(e);
        e->in_doubt = 0;
        if (e->state == ENTRY_TAIL)
            return false;
        entry_set_state(q, e, ENTRY_NEW);
        entry_set_state(q, e, ENTRY_REPLICA);
        role_replica_becomes(l, e, s);
        return false;
    }
    if (e->state == ENTRY_TAIL) {
        e->in_doubt = 0;
        return false;
    }
    epoch = copied ? l->epoch : epoch;
    /* away: it was open when the lane went */
    bool left = l->role == LANE_AWAY || l->role == LANE_REPLICA;
    role_set_tail(l, e, left ? epoch < l->logged.given : open && epoch <= l->epoch);
    settle_late(q, l, e, epoch);
    return true;
}

/* --- snapshots --- */

static void put_mark(struct shard *s, const struct lane *l)
{
    uint8_t meta[128];
    struct writer w = writer_of(meta, sizeof meta);
    const struct lane_logged *log = &l->logged;
    bool known = log->role != 0;
    struct lane_mark m = {.role = (uint8_t)(known ? log->role : l->role),
                          .snapshot = true,
                          .ready = log->ready,
                          .given = log->given,
                          .move = log->move,
                          .node = span_str(log->node)};
    lane_mark_put(&w, &m);
    MUST(!w.bad);
    struct spool_append a = {.type = RECORD_OWN,
                             .lane = l->number,
                             .epoch = known ? log->epoch : l->epoch,
                             .position = l->position,
                             .meta = span_of(meta, w.n),
                             .fate = true};
    if (spool_append(s->spool, &a, NULL, NULL) != 0)
        log_err("shard %u: no room for the role of lane %s", s->number, l->name);
    if (l->state == NULL)
        return;
    struct spool_append state = {.type = RECORD_STATE,
                                 .lane = l->number,
                                 .epoch = l->epoch,
                                 .position = l->position,
                                 .meta = span_of(l->state, l->state_bytes),
                                 .fate = true};
    if (spool_append(s->spool, &state, NULL, NULL) != 0)
        log_err("shard %u: no room for the flows of lane %s", s->number, l->name);
}

void role_snapshot(struct shard *s)
{
    for (uint32_t i = 0; i < s->queue->lane_count; i++)
        if (s->queue->lanes[i].shard == s && s->queue->lanes[i].role != 0)
            put_mark(s, &s->queue->lanes[i]);
    if (adopted_snapshot(s) != 0)
        log_err("shard %u: no room for the ids of messages that were handed over", s->number);
}

/* --- copies --- */

/* All entries of a message are copies, or none is. */
static bool is_copy(const struct queue *q, const struct qmsg *m)
{
    const struct qentry *e = store_entry(&q->store, m->first);
    return e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL;
}

/* Has the message entries that a sweep will let go, or that GIVEN in the log has given? */
static bool has_leaving(const struct queue *q, const struct lane *l, const struct qmsg *m)
{
    bool giving = l->sweep == SWEEP_GIVEN || (l->change != NULL && l->logged.role == LANE_AWAY &&
                                              l->role == LANE_FROZEN);
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling) {
        const struct qentry *e = store_entry(&q->store, i);
        bool copied = e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL;
        if (copied ? l->role == LANE_AWAY
                   : giving && !(m->flags & MSG_LATE) && !e->tail && e->state != ENTRY_STRAY)
            return true;
    }
    return false;
}

bool role_copy_head(const struct queue *q, const struct qmsg *m, uint32_t *epoch, uint8_t *flags)
{
    const struct lane *l = &q->lanes[m->lane];
    if (has_leaving(q, l, m))
        return false;
    bool copied = l->role == LANE_REPLICA && is_copy(q, m);
    *flags = copied ? ENQ_HEAD_REPLICA : 0;
    bool marked = (m->flags & MSG_LATE) != 0 && ROLE_BUG != 5;
    bool late = marked || l->role == LANE_AWAY || l->role == LANE_REPLICA;
    *epoch = copied || l->role == LANE_OWNER || !late ? l->epoch : l->epoch + 1;
    return true;
}
