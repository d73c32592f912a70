/*
 * Invariant: a lane has at most one change of role under way; while it is, nothing of the lane is
 * being handed over.
 */
#include "worker/move/move.h"

#include "base/log.h"
#include "worker/move/ask.h"
#include "worker/move/replica.h"
#include "worker/move/source.h"

#include <errno.h>
#include <stdlib.h>

enum { LATER_MS = 10 };

struct move_change {
    struct move_change *next;
    struct move *move;
    struct control_lane_order order;
    struct role_change role;
    bool paused; /* hand-overs of the lane */
};
/* The lane is another node's, which could not be written yet: that is heard of once and then not
   again, so it is not refused but kept until it can be, or until another order comes. */
struct move_later {
    struct move_later *next;
    struct control_lane_order order;
};
struct move {
    struct queue *queue;
    void (*tell)(void *ctx, const struct control_lane_order *o);
    void *tell_ctx;
    struct carrier *carrier;
    struct source *source;
    struct replica *replica;
    struct hand *hand;
    struct ask *ask;
    struct move_change *changes;
    struct move_later *laters; /* at most one of a lane */
    uint32_t slot;
    bool recovered, draining;
    struct log_calm nonsense;
};

/* --- frames of other nodes --- */

typedef void frame_handler(struct move *m, const struct lane_from *from,
                           const struct lane_frame *f);

static void to_source(struct move *m, const struct lane_from *from, const struct lane_frame *f)
{
    source_frame(m->source, from->node, from->slot, f);
}

static void to_replica(struct move *m, const struct lane_from *from, const struct lane_frame *f)
{
    replica_frame(m->replica, from->node, from->slot, f);
}

static void to_hand(struct move *m, const struct lane_from *from, const struct lane_frame *f)
{
    hand_on_frame(m->hand, from, f);
}

static void to_ask(struct move *m, const struct lane_from *from, const struct lane_frame *f)
{
    ask_on_frame(m->ask, from, f, m->recovered);
}

static void to_chunk(struct move *m, const struct lane_from *from, const struct lane_frame *f)
{
    if (f->hand)
        to_hand(m, from, f);
    else
        to_replica(m, from, f);
}

struct frame_way {
    frame_handler *handler;
    bool of_holder; /* only who holds the lane there says this */
};
static const struct frame_way ways[LANE_FRAME_KIND_COUNT] = {
    [LANE_FRAME_BEGIN] = {to_replica, true},   [LANE_FRAME_INVENTORY] = {to_source, false},
    [LANE_FRAME_CHUNK] = {to_chunk, false},    [LANE_FRAME_ENQ] = {to_replica, false},
    [LANE_FRAME_CHANGE] = {to_replica, false}, [LANE_FRAME_DROP] = {to_replica, false},
    [LANE_FRAME_ACK] = {to_source, false},     [LANE_FRAME_END] = {to_replica, true},
    [LANE_FRAME_REFUSED] = {to_source, false}, [LANE_FRAME_HAND] = {to_hand, true},
    [LANE_FRAME_TAKEN] = {to_hand, false},     [LANE_FRAME_NOT_OWNER] = {to_hand, false},
    [LANE_FRAME_TAIL_DONE] = {to_hand, true},  [LANE_FRAME_ASK] = {to_ask, false},
    [LANE_FRAME_GONE] = {to_ask, true},
};

static void on_frame(void *ctx, const char *node, uint32_t slot, struct span payload)
{
    struct move *m = ctx;
    const struct lane_from from = {node, slot};
    struct lane_frame f;
    int r;
    while ((r = lane_frame_next(&payload, &f)) == 1) {
        MUST(f.kind > 0);
        MUST(f.kind < LANE_FRAME_KIND_COUNT);
        const struct frame_way *w = &ways[f.kind];
        if (w->of_holder)
            ask_learn(m->ask, &from, &f.lane);
        w->handler(m, &from, &f);
        lane_frame_free(&f);
    }
    uint64_t before;
    if (r != 0 && log_calm_may(&m->nonsense, queue_now_ms(m->queue), &before))
        log_warn("a frame of %s, worker %u, cannot be read, as %llu before it: %s", node, slot,
                 (unsigned long long)before, strerror(-r));
}

static void on_up(void *ctx, const char *node)
{
    struct move *m = ctx;
    hand_on_loss(m->hand, node);
    source_up(m->source, node);
    replica_down(m->replica, node);
    ask_on_up(m->ask);
}

static void on_down(void *ctx, const char *node)
{
    struct move *m = ctx;
    hand_on_loss(m->hand, node);
    source_down(m->source, node);
    replica_down(m->replica, node);
}

static void on_room(void *ctx)
{
    (void)ctx; /* who waits for room looks again in its next turn */
}

/* --- what is told to the master --- */

static void tell(struct move *m, struct control_lane_order *o)
{
    m->tell(m->tell_ctx, o);
}

static void on_source(void *ctx, const struct control_lane_order *o)
{
    struct move *m = ctx;
    m->tell(m->tell_ctx, o);
}

static void on_ready(void *ctx, const struct control_lane_order *o)
{
    on_source(ctx, o);
}

static void on_tails_over(void *ctx, struct lane *l)
{
    struct control_lane_order o = {.op = LANE_OP_TAIL,
                                   .lane = l->number,
                                   .epoch = l->epoch,
                                   .role = l->role,
                                   .move = l->move,
                                   .slot = CONTROL_NO_SLOT};
    tell(ctx, &o);
}

static void on_stray(void *ctx, struct lane *l)
{
    struct move *m = ctx;
    hand_on_lane(m->hand, l);
}

static void on_tail_done(void *ctx, struct lane *l, struct msg_id id, uint16_t index)
{
    struct move *m = ctx;
    hand_on_tail_done(m->hand, l, id, index);
}

/* --- orders --- */

static void change_free(struct move_change *c)
{
    struct move_change **at = &c->move->changes;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c);
}

static void later_drop(struct move *m, uint32_t lane)
{
    for (struct move_later **at = &m->laters; *at != NULL; at = &(*at)->next) {
        struct move_later *x = *at;
        if (x->order.lane != lane)
            continue;
        *at = x->next;
        free(x);
        return;
    }
}

/* False: it is refused. */
static bool later_keep(struct move *m, const struct control_lane_order *o)
{
    if (o->role != LANE_AWAY || m->draining)
        return false;
    for (const struct move_later *x = m->laters; x != NULL; x = x->next)
        if (x->order.lane == o->lane)
            return true; /* a younger one came meanwhile */
    struct move_later *x = calloc(1, sizeof *x);
    if (x == NULL)
        return false;
    x->order = *o;
    x->next = m->laters;
    m->laters = x;
    return true;
}

static void on_changed(struct role_change *rc, int res)
{
    struct move_change *c = (struct move_change *)((char *)rc - offsetof(struct move_change, role));
    struct move *m = c->move;
    struct lane *l = lane_by_number(m->queue, rc->lane);
    struct control_lane_order o = c->order;
    bool paused = c->paused;
    MUST(l != NULL);
    o.tails = rc->tails;
    o.complete = rc->complete;
    o.paused_us = rc->paused_us;
    change_free(c); /* and `rc` in it; what follows may begin another */
    if (paused)
        hand_resume(m->hand, l);
    else
        hand_on_lane(m->hand, l); /* the owner may be another one */
    if (res == -EBUSY && later_keep(m, &o))
        return;
    o.op = LANE_OP_SET_DONE;
    o.result = res;
    if (res != 0)
        snprintf(o.why, sizeof o.why, "%s", strerror(-res));
    tell(m, &o);
}

static void answer(struct move *m, const struct control_lane_order *order, int result,
                   const char *why)
{
    struct control_lane_order o = *order;
    o.op = LANE_OP_SET_DONE;
    o.result = result;
    snprintf(o.why, sizeof o.why, "%s", why);
    tell(m, &o);
}

static struct move_change *change_of(const struct move *m, uint32_t lane)
{
    struct move_change *c = m->changes;
    while (c != NULL && c->role.lane != lane)
        c = c->next;
    return c;
}

/* What is under way to the old owner, or would be placed by a new role, is given up first. */
static bool must_pause(const struct lane *l, const struct control_lane_order *o)
{
    return l->role != o->role || l->node_slot != o->slot || strcmp(l->node, o->node) != 0;
}

static void change_begin(struct move *m, struct lane *l, const struct control_lane_order *o)
{
    struct move_change *c = calloc(1, sizeof *c);
    if (c == NULL) {
        answer(m, o, -EBUSY, "memory is short");
        return;
    }
    c->move = m;
    c->order = *o;
    c->role = (struct role_change){.on_done = on_changed,
                                   .lane = o->lane,
                                   .role = o->role,
                                   .epoch = o->epoch,
                                   .run = o->run,
                                   .slot = o->slot,
                                   .move = o->move};
    memcpy(c->role.node, o->node, sizeof c->role.node);
    c->paused = must_pause(l, o);
    c->next = m->changes;
    m->changes = c;
    if (c->paused)
        hand_pause(m->hand, l);
    if (l->role != o->role && o->role != LANE_FROZEN)
        source_stop(m->source, l->number);
    role_set(m->queue, &c->role);
}

static void refuse_for_now(struct move *m, const struct control_lane_order *o, const char *why)
{
    if (!later_keep(m, o))
        answer(m, o, -EBUSY, why);
}

static void on_set(struct move *m, const struct control_lane_order *o)
{
    struct lane *l = lane_by_number(m->queue, o->lane);
    later_drop(m, o->lane);
    if (l == NULL || l->owner != m->slot || o->role == 0)
        answer(m, o, -EBUSY, "this worker does not hold the lane yet"); /* its successor will */
    else if (l->shard == NULL)
        refuse_for_now(m, o, "the shard is not recovered yet");
    else if (m->draining)
        answer(m, o, -EBUSY, "this worker is about to leave");
    else if (change_of(m, o->lane) != NULL)
        refuse_for_now(m, o, "another change of the lane is under way");
    else
        change_begin(m, l, o);
}

static void on_copy(struct move *m, const struct control_lane_order *o)
{
    int r = m->draining ? 0 : source_copy(m->source, o);
    if (r == 0)
        return;
    struct control_lane_order no = *o;
    no.op = LANE_OP_COPY_FAILED;
    no.result = r;
    snprintf(no.why, sizeof no.why, "the lane is not copied: %s", strerror(-r));
    tell(m, &no);
}

static void on_report(struct move *m, const struct control_lane_order *o)
{
    const struct lane *l = lane_by_number(m->queue, o->lane);
    if (l == NULL || source_report(m->source, o->lane))
        return;
    struct control_lane_order p = {.op = LANE_OP_PROGRESS,
                                   .lane = l->number,
                                   .epoch = l->epoch,
                                   .role = l->role,
                                   .run = l->run,
                                   .move = l->move,
                                   .slot = CONTROL_NO_SLOT,
                                   .tails = l->role == LANE_OWNER ? l->outbounds_old : l->tails,
                                   .owed = l->strays.count + l->handing.count};
    tell(m, &p);
}

void move_order(struct move *m, const struct control_lane_order *o)
{
    switch (o->op) {
    case LANE_OP_SET:
        on_set(m, o);
        return;
    case LANE_OP_COPY:
        on_copy(m, o);
        return;
    case LANE_OP_COPY_STOP:
        source_stop(m->source, o->lane);
        return;
    case LANE_OP_REPORT:
        on_report(m, o);
        return;
    case LANE_OP_SET_DONE:
    case LANE_OP_PROGRESS:
    case LANE_OP_READY:
    case LANE_OP_TAIL:
    case LANE_OP_COPY_FAILED:
    case LANE_OP_COUNT:
        break;
    }
    log_warn("an order about a lane, op %d, is not for a worker", (int)o->op);
}

/* --- making, turns --- */

int move_create(struct move **out, const struct move_settings *s)
{
    static const struct carrier_events events = {on_frame, on_up, on_down, on_room};
    struct move *m = calloc(1, sizeof *m);
    if (m == NULL)
        return -ENOMEM;
    m->queue = s->queue;
    m->slot = s->slot;
    m->tell = s->tell;
    m->tell_ctx = s->ctx;
    int r = carrier_create(&m->carrier, s->queue->env.io, &events, m);
    struct source_settings ss = {.queue = s->queue, .carrier = m->carrier};
    ss.events = (struct source_events){m, on_source, on_source};
    if (r == 0)
        r = source_create(&m->source, &ss);
    struct replica_settings rs = {.queue = s->queue, .carrier = m->carrier};
    rs.events = (struct replica_events){m, on_ready};
    if (r == 0)
        r = replica_create(&m->replica, &rs);
    if (r == 0)
        r = hand_create(&m->hand, s->queue, m->carrier);
    if (r == 0)
        r = ask_create(&m->ask, s->queue, m->carrier);
    if (r != 0) {
        move_destroy(&m);
        return r;
    }
    struct role_events ev = {m, on_tails_over, on_stray, on_tail_done};
    role_set_events(s->queue, &ev);
    *out = m;
    return 0;
}

void move_destroy(struct move **mp)
{
    struct move *m = *mp;
    *mp = NULL;
    if (m == NULL)
        return;
    role_set_events(m->queue, &(struct role_events){0});
    ask_destroy(&m->ask);
    hand_destroy(&m->hand);
    replica_destroy(&m->replica);
    source_destroy(&m->source);
    carrier_destroy(&m->carrier);
    while (m->laters != NULL)
        later_drop(m, m->laters->order.lane);
    while (m->changes != NULL) {
        struct move_change *c = m->changes;
        m->changes = c->next;
        free(c);
    }
    free(m);
}

void move_attach(struct move *m, int fd)
{
    carrier_attach(m->carrier, fd);
}

void move_recovered(struct move *m)
{
    m->recovered = true;
    for (uint32_t i = 0; i < m->queue->lane_count; i++)
        if (m->queue->lanes[i].strays.count > 0)
            hand_on_lane(m->hand, &m->queue->lanes[i]);
}

void move_drain(struct move *m)
{
    m->draining = true;
    hand_drain(m->hand);
}

unsigned move_open_count(const struct move *m)
{
    return hand_open_count(m->hand) + (m->changes != NULL ? 1 : 0);
}

/* What had to wait, once more; what has to wait again comes again. */
static void laters_turn(struct move *m)
{
    struct move_later *x = m->laters;
    m->laters = NULL;
    while (x != NULL) {
        struct move_later *next = x->next;
        on_set(m, &x->order);
        free(x);
        x = next;
    }
}

void move_turn(struct move *m)
{
    laters_turn(m);
    source_turn(m->source);
    replica_turn(m->replica);
    hand_turn(m->hand);
    ask_turn(m->ask);
    carrier_flush(m->carrier);
}

uint64_t move_next_ms(const struct move *m, uint64_t max)
{
    bool busy = source_busy(m->source) || replica_busy(m->replica);
    uint64_t most = m->laters != NULL && max > LATER_MS ? LATER_MS : max;
    return busy ? 0 : source_next_ms(m->source, most);
}
