/*
 * Changes of role, and the slices that follow them.
 *
 * The rule of epochs. Every ENQ carries an epoch x:
 *   owner e                    ordinary mail: e
 *   frozen e, away e, replica e   late mail, strays: e + 1
 *   replica e                  the copy: e, with the flag REPLICA in the head
 * A copy by compaction carries what the message would carry now. Then the log's last word about a
 * lane (its role, its epoch E, the epoch G of its last GIVEN) says of each message what it is,
 * whatever prefix of the log is there and whichever older segments have left:
 *   x < G                      given away; but not entries that were open in that freeze
 *   flag, before the last AWAY a copy that was dropped
 *   flag, x < E, we own        taken over by OWN(x + 1): ordinary
 *   flag, x = E, replica       the copy
 *   no flag                    ours: ordinary if we own and x <= E, else late or a stray
 * GIVEN(e + 1) ends the stint of epoch e: late mail has e + 1 and is not less than G. A copy is
 * ordered by place against AWAY alone, as the same epoch can be copied twice; an AWAY record
 * outlives the copies before it, since segments leave oldest first.
 *
 * The ledger: GIVEN and OWN carry the number of their recipients, which count from the moment the
 * record is durable; entries that are still to be let go or to be placed stand in owed_out and
 * owed_in. Nothing may end such an entry meanwhile: role_may_end.
 *
 * What holds entries back (FROZEN, AWAY instead of REPLICA) is in force when its record is
 * appended, what sets them going when it is durable.
 */
#include "worker/lane/role_impl.h"

#include "worker/lane/deliver.h"
#include "worker/lane/flow.h"
#include "worker/lane/flow_state.h"
#include "worker/lane/shard_impl.h"

#include <errno.h>
#include <stdlib.h>

int roles_create(struct roles **out)
{
    struct roles *r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->done_tail = &r->done;
    *out = r;
    return 0;
}

void role_set_events(struct queue *q, const struct role_events *ev)
{
    q->roles->events = *ev;
}

/* --- records --- */

int role_mark(struct lane *l, enum record_type type, const struct lane_logged *to,
              struct role_change *c)
{
    uint8_t meta[128];
    struct writer w = writer_of(meta, sizeof meta);
    if (l->shard->unwritten != NULL)
        return -EBUSY; /* what it counts, or calls whole, is not all in the log before it */
    struct lane_mark m = {.role = (uint8_t)to->role,
                          .ready = to->ready,
                          .given = to->given,
                          .move = to->move,
                          .count = c->count,
                          .node = span_str(to->node)};
    lane_mark_put(&w, &m);
    MUST(!w.bad);
    struct spool_append a = {.type = (uint8_t)type,
                             .lane = l->number,
                             .epoch = to->epoch,
                             .position = l->position + 1,
                             .meta = span_of(meta, w.n),
                             .fate = true};
    struct record_place p;
    int r = spool_append(l->shard->spool, &a, &c->wait, &p);
    if (r != 0)
        return r;
    l->position++;
    c->before = l->logged;
    l->logged = *to;
    if (type == RECORD_AWAY)
        l->logged.dropped = p;
    l->change = c;
    return 0;
}

static struct lane_logged logged_as(const struct lane *l, const struct role_change *c)
{
    struct lane_logged to = l->logged;
    to.role = c->role;
    to.epoch = c->epoch;
    to.move = c->move;
    to.ready = false;
    if (c->role == LANE_OWNER) /* at whom attempts may be open still */
        memcpy(to.node, l->role == LANE_REPLICA ? l->node : l->given_by, sizeof to.node);
    else
        memcpy(to.node, c->node, sizeof to.node);
    return to;
}

/* --- in force --- */

static void take_names(struct lane *l, const struct role_change *c)
{
    memcpy(l->node, c->node, sizeof l->node);
    l->node_slot = c->slot;
    l->move = c->move;
}

static void mark_flows(struct queue *q, const struct lane *l)
{
    for (uint32_t i = 0; q->flow_by_pair.slots != NULL && i <= q->flow_by_pair.mask; i++) {
        uint32_t at = q->flow_by_pair.slots[i].value;
        if (at != 0 && flow_at(q, at)->lane == l->index)
            flow_mark(q, flow_at(q, at));
    }
}

static void own_in_force(struct queue *q, struct lane *l, struct role_change *c)
{
    bool taken = l->role == LANE_REPLICA;
    if (taken)
        memcpy(l->given_by, l->node, sizeof l->given_by);
    l->role = LANE_OWNER;
    l->epoch = c->epoch;
    l->run = c->run;
    l->ready = false;
    l->tails = 0;
    l->outbounds_old = l->outbounds;
    take_names(l, c);
    if (taken) {
        l->shard->ledger.accepted += c->count;
        l->shard->ledger.taken_over += c->count;
        q->env.stats->taken_over += c->count;
        q->owed_in += c->count;
        flow_state_apply(q, l);
    }
    role_sweep_begin(q, l, taken ? SWEEP_OWN : SWEEP_BACK);
    mark_flows(q, l);
}

static void given_in_force(struct queue *q, struct lane *l, const struct role_change *c)
{
    l->role = LANE_AWAY;
    l->epoch = c->epoch;
    l->run = false;
    take_names(l, c);
    l->shard->ledger.handed_over += c->count;
    q->env.stats->handed_over += c->count;
    q->owed_out += c->count;
    flow_state_free(l);
    role_sweep_begin(q, l, SWEEP_GIVEN);
    l->say_stray = l->strays.count > 0;
    q->roles->say |= l->say_stray;
}

static void finish(struct queue *q, struct role_change *c, int res)
{
    c->res = res;
    c->next = NULL;
    *q->roles->done_tail = c;
    q->roles->done_tail = &c->next;
}

static struct role_change *change_of(struct spool_wait *w)
{
    return (struct role_change *)((char *)w - offsetof(struct role_change, wait));
}

/* The common end: what the record counted is no longer on its way. */
static struct lane *landed(struct role_change *c, int res)
{
    struct lane *l = lane_by_number(c->queue, c->lane);
    l->change = NULL;
    if (res != 0)
        l->logged = c->before;
    return l;
}

static void on_own(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    struct lane *l = landed(c, res);
    l->shard->taking -= c->count;
    if (res == 0)
        own_in_force(c->queue, l, c);
    finish(c->queue, c, res);
}

static void on_given(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    struct lane *l = landed(c, res);
    l->shard->giving -= c->count;
    if (res == 0)
        given_in_force(c->queue, l, c);
    finish(c->queue, c, res);
}

static void on_mark(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    landed(c, res);
    finish(c->queue, c, res);
}

static void on_replica(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    struct lane *l = landed(c, res);
    if (res == 0) {
        l->role = LANE_REPLICA;
        l->epoch = c->epoch;
        l->ready = false;
        take_names(l, c);
        flow_state_free(l);
    }
    finish(c->queue, c, res);
}

static void away_in_force(struct queue *q, struct lane *l)
{
    if (l->replicas + l->tails_there.count > 0 && l->sweep == SWEEP_NONE)
        role_sweep_begin(q, l, SWEEP_DROP);
    l->say_stray = l->strays.count > 0;
    q->roles->say |= l->say_stray;
}

static void on_away(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    struct lane *l = landed(c, res);
    if (res == 0) {
        l->epoch = c->epoch;
        take_names(l, c);
        away_in_force(c->queue, l);
    }
    finish(c->queue, c, res);
}

/* The AWAY before the change that is wanted: that one is to be asked for again. */
static void on_away_first(struct spool_wait *w, int res)
{
    struct role_change *c = change_of(w);
    struct lane *l = landed(c, res);
    if (res == 0)
        away_in_force(c->queue, l);
    finish(c->queue, c, res == 0 ? -EBUSY : res);
}

/* --- the changes --- */

struct tails {
    struct lane *lane;
    bool first;
    uint16_t count;
    int res;
    uint8_t items[TAIL_LIST_ITEMS * 18];
    size_t bytes;
};

static void tails_write(struct tails *t)
{
    static uint8_t meta[sizeof t->items + 16];
    struct writer w = writer_of(meta, sizeof meta);
    if (t->res != 0 || (t->count == 0 && !t->first))
        return;
    tail_list_put(&w, &(struct tail_list){.first = t->first, .count = t->count});
    put_bytes(&w, span_of(t->items, t->bytes));
    MUST(!w.bad);
    struct spool_append a = {.type = RECORD_TAIL,
                             .lane = t->lane->number,
                             .epoch = t->lane->epoch,
                             .position = t->lane->position + 1,
                             .meta = span_of(meta, w.n),
                             .fate = true};
    t->res = spool_append(t->lane->shard->spool, &a, NULL, NULL);
    t->lane->position += t->res == 0;
    t->first = false;
    t->count = 0;
    t->bytes = 0;
}

static void tail_item(void *ctx, struct qentry *e)
{
    struct tails *t = ctx;
    const struct store *s = &t->lane->shard->queue->store;
    struct writer w = writer_of(t->items + t->bytes, sizeof t->items - t->bytes);
    tail_put(&w, store_msg(s, e->msg)->id, e->index);
    MUST(!w.bad);
    t->bytes += w.n;
    if (++t->count == TAIL_LIST_ITEMS)
        tails_write(t);
}

/* All that was open at the freeze, also what has come back since. The list stands before its
   FROZEN, so that one wait covers both; an empty one too, as it makes earlier lists void. */
static int write_tails(struct queue *q, struct lane *l, bool again)
{
    static struct tails t;
    t = (struct tails){.lane = l, .first = true};
    for (uint32_t i = ROLE_BUG == 2 ? 0 : l->open_tails.head; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->next;
        tail_item(&t, e);
    }
    uint32_t end = again ? store_entry_end(&q->store) : 0;
    for (uint32_t i = 1; i < end; i++) { /* the record has failed, and some have ended since */
        struct qentry *e = store_peek(&q->store, i);
        if (e != NULL && e->tail && e->state == ENTRY_BOUNCE_DUE && entry_lane(q, e) == l)
            tail_item(&t, e);
    }
    for (uint32_t i = l->strays.head; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->next;
        if (e->tail)
            tail_item(&t, e);
    }
    tails_write(&t);
    return t.res;
}

static int freeze(struct queue *q, struct lane *l, struct role_change *c)
{
    if (c->epoch != l->epoch)
        return -EINVAL;
    if (l->tails_there.count > 0)
        return -EBUSY; /* attempts of the owner before us are open still */
    bool again = l->role == LANE_FROZEN;
    deliver_freeze(q->deliver, l);
    l->role = LANE_FROZEN;
    l->run = false;
    take_names(l, c);
    l->tails = l->outbounds;
    struct lane_logged to = logged_as(l, c);
    c->wait.on_durable = on_mark;
    int r = write_tails(q, l, again);
    return r != 0 ? r : role_mark(l, RECORD_FROZEN, &to, c);
}

static int own(struct queue *q, struct lane *l, struct role_change *c)
{
    (void)q;
    if (l->role == LANE_REPLICA ? c->epoch != l->epoch + 1 || !l->ready : c->epoch <= l->epoch)
        return -EINVAL;
    struct lane_logged to = logged_as(l, c);
    c->wait.on_durable = on_own;
    c->count = l->role == LANE_REPLICA ? l->replicas - l->replica_bounces : 0;
    int r = role_mark(l, RECORD_OWN, &to, c);
    if (r == 0)
        l->shard->taking += c->count;
    return r;
}

static int give(struct queue *q, struct lane *l, struct role_change *c)
{
    (void)q;
    if (c->epoch != l->epoch + 1)
        return -EINVAL;
    if (l->logged.role != LANE_FROZEN)
        return -EBUSY; /* its list of tails is not in the log */
    struct lane_logged to = logged_as(l, c);
    to.given = c->epoch;
    c->wait.on_durable = on_given;
    uint32_t stay = l->strays.count + l->handing.count + l->open_tails.count;
    c->count = l->queued - l->bounces - stay;
    int r = role_mark(l, RECORD_GIVEN, &to, c);
    if (r == 0)
        l->shard->giving += c->count;
    return r;
}

static int copy(struct queue *q, struct lane *l, struct role_change *c)
{
    (void)q;
    struct lane_logged to = logged_as(l, c);
    if (l->logged.role == LANE_REPLICA) { /* the record that dropped the copy before has failed */
        to = l->logged;
        to.role = LANE_AWAY;
        c->wait.on_durable = on_away_first;
        return role_mark(l, RECORD_AWAY, &to, c);
    }
    c->wait.on_durable = on_replica;
    return role_mark(l, RECORD_REPLICA, &to, c);
}

static int away(struct queue *q, struct lane *l, struct role_change *c)
{
    (void)q;
    l->role = LANE_AWAY; /* no copied message may come to stand behind the record */
    l->ready = false;
    struct lane_logged to = logged_as(l, c);
    c->wait.on_durable = on_away;
    return role_mark(l, RECORD_AWAY, &to, c);
}

static int refuse(struct queue *q, struct lane *l, struct role_change *c)
{
    (void)q;
    (void)l;
    (void)c;
    return -EINVAL;
}

typedef int change_fn(struct queue *q, struct lane *l, struct role_change *c);
static change_fn *const changes[LANE_ROLE_COUNT][LANE_ROLE_COUNT] = {
    /* to             OWNER   FROZEN  AWAY    REPLICA */
    /* own: it was to be frozen, which came to nothing before we heard of it */
    [LANE_OWNER] = {NULL, own, freeze, refuse, refuse},
    [LANE_FROZEN] = {NULL, own, freeze, give, refuse},
    [LANE_AWAY] = {NULL, refuse, refuse, away, copy},
    [LANE_REPLICA] = {NULL, own, refuse, away, refuse},
};

/* Only owner, slot and run: or the record of what is in force already is still owed. */
static int same(struct queue *q, struct lane *l, struct role_change *c)
{
    if (l->logged.role != l->role && changes[l->role][c->role] != NULL)
        return changes[l->role][c->role](q, l, c);
    bool starts = !l->run && c->run;
    l->run = c->role == LANE_OWNER && c->run;
    memcpy(l->node, c->node, sizeof l->node);
    l->node_slot = c->slot;
    if (c->move != 0)
        l->move = c->move;
    if (starts)
        mark_flows(q, l);
    finish(q, c, 0);
    return 0;
}

static int change(struct queue *q, struct role_change *c)
{
    struct lane *l = lane_by_number(q, c->lane);
    if (l == NULL || l->shard == NULL || c->role < LANE_OWNER || c->role >= LANE_ROLE_COUNT)
        return -EINVAL;
    if (l->change != NULL)
        return -EBUSY;
    if (l->role == c->role && l->epoch == c->epoch)
        return same(q, l, c);
    if (c->epoch < l->epoch)
        return -ESTALE;
    if (l->sweep != SWEEP_NONE && !(l->role == LANE_AWAY && c->role == LANE_AWAY))
        return -EBUSY;
    return changes[l->role][c->role](q, l, c);
}

void role_set(struct queue *q, struct role_change *c)
{
    c->queue = q;
    c->count = 0;
    c->began_ns = io_now_ns(q->env.io);
    int r = change(q, c);
    if (r != 0)
        finish(q, c, r == -ENOSPC || r == -ENOBUFS ? -EIO : r);
}

/* --- turns --- */

static void say(struct queue *q)
{
    const struct role_events *ev = &q->roles->events;
    q->roles->say = false;
    for (uint32_t i = 0; i < q->lane_count; i++) {
        struct lane *l = &q->lanes[i];
        bool stray = l->say_stray, tails = l->say_tails;
        l->say_stray = l->say_tails = false;
        if (stray && l->strays.count > 0 && ev->on_stray != NULL)
            ev->on_stray(ev->ctx, l);
        if (tails && l->tails == 0 && l->role != LANE_OWNER && ev->on_tails_over != NULL)
            ev->on_tails_over(ev->ctx, l);
    }
}

static void call_done(struct queue *q, struct role_change *c)
{
    const struct lane *l = lane_by_number(q, c->lane);
    if (l != NULL) {
        bool was_ours = c->role == LANE_FROZEN || c->role == LANE_AWAY;
        c->tails = was_ours ? l->tails : 0;
        c->complete = l->role == LANE_REPLICA && l->ready;
        c->paused_us = (io_now_ns(q->env.io) - c->began_ns) / 1000;
    }
    c->on_done(c, c->res);
}

void role_turn(struct queue *q)
{
    struct roles *r = q->roles;
    if (r->sweeping > 0)
        role_sweep(q);
    if (r->say)
        say(q);
    struct role_change *c = r->done;
    r->done = NULL;
    r->done_tail = &r->done;
    while (c != NULL) {
        struct role_change *next = c->next;
        call_done(q, c);
        c = next;
    }
}

bool role_busy(const struct queue *q)
{
    return q->roles->sweeping > 0 || q->roles->done != NULL || q->roles->say;
}
