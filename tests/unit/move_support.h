/*
 * move_support - simulated nodes for the real room of moves: what a master reaches (state.db,
 * worker, netd, link), and the table of roles. Included by test_move_sim.c alone.
 *
 * Crashes: whatever the room calls may end the life of its master, by longjmp to S.died.
 */
#ifndef TESTS_UNIT_MOVE_SUPPORT_H
#define TESTS_UNIT_MOVE_SUPPORT_H

#include "base/log.h"
#include "base/rng.h"
#include "master/move/room.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    NODES = 3,
    LANES = 3,
    MAILS = 5, /* of a lane */
    EVENTS = 4096,
    ROWS = 64,
    WILD_US = 20 * 1000 * 1000,
    CALM_US = 400 * 1000 * 1000,
};
/* A mail as a worker's log has it. */
enum mail { M_NONE, M_QUEUED, M_DOT, M_TAIL, M_END };
enum what { W_FRAME, W_ORDER, W_REPORT, W_NETD, W_MASTER_UP, W_WORKER_UP, W_NETD_UP, W_LINK_UP };

struct role {
    enum lane_role role;
    uint32_t epoch, ready; /* ready: READY(epoch) is durable */
    uint64_t move;
    enum mail mail[MAILS];
    bool tail[MAILS]; /* in flight when it was frozen */
    uint32_t since[MAILS]; /* M_DOT: the epoch that its connection is of */
};
struct worker {
    bool up, run[LANES], copies[LANES];
    uint32_t life;
    struct control_lane_order copy[LANES];
};
struct row {
    struct move move;
    struct ip lanes[LANES];
    enum move_outcome outcomes[LANES];
    uint32_t count;
};
struct node {
    unsigned index;
    char name[LIMIT_NAME_BYTES + 1];
    bool up, netd_up;
    uint32_t life;
    uint64_t moves;
    struct lane_record records[LANES]; /* durable, but for run */
    struct row rows[ROWS];
    uint32_t row_count;
    struct role roles[LANES]; /* durable */
    bool address[LANES];      /* in the kernel */
    struct worker worker;
    struct room room;
    struct lane_move *asking[LANES]; /* of netd, in this life */
};
struct event {
    uint64_t at, number;
    enum what what;
    unsigned to, from, lane;
    uint32_t life, peer_life, worker_life;
    enum netd_action action;
    struct control_lane_order order;
    uint8_t *bytes;
    size_t n;
};
static struct sim {
    uint64_t now, seed, posted;
    bool link[NODES][NODES], wild, loud, in_master;
    struct rng rng;
    struct node nodes[NODES];
    struct event events[EVENTS];
    uint32_t event_count;
    unsigned delivered[LANES][MAILS], doubts[LANES][MAILS];
    unsigned moved, aborted, crashes;
    jmp_buf died;
    char why[200];
} S;

static bool chance(unsigned percent)
{
    return rng_below(&S.rng, 100) < percent;
}

static void tell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void tell(const char *fmt, ...)
{
    va_list ap;
    if (!S.loud)
        return;
    printf("%10.3f ", (double)S.now / 1000);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

static void wrong(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void wrong(const char *fmt, ...)
{
    va_list ap;
    if (S.why[0] != '\0')
        return;
    va_start(ap, fmt);
    (void)vsnprintf(S.why, sizeof S.why, fmt, ap);
    va_end(ap);
    tell("WRONG: %s", S.why);
}

static struct ip address_of(unsigned lane)
{
    struct ip a;
    char text[32];
    snprintf(text, sizeof text, "192.0.2.%u", lane + 1);
    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static unsigned lane_of(const struct ip *a)
{
    return a->b[15] - 1u;
}

static struct event *post(enum what what, unsigned to, uint64_t delay)
{
    assert_true(S.event_count < EVENTS);
    struct event *e = &S.events[S.event_count++];
    *e = (struct event){.at = S.now + 1 + delay,
                        .number = ++S.posted,
                        .what = what,
                        .to = to,
                        .life = S.nodes[to].life,
                        .worker_life = S.nodes[to].worker.life};
    return e;
}

/* --- what the room reaches --- */

static void crash_master(struct node *n);
static void crash_worker(struct node *n);
static void cut(unsigned a, unsigned b);

static void die_if_told(struct node *n, unsigned percent)
{
    if (!S.wild || !S.in_master || !chance(percent))
        return;
    tell("%s dies", n->name);
    longjmp(S.died, 1);
}

static uint64_t sim_now(void *ctx)
{
    (void)ctx;
    return S.now;
}

static int64_t sim_unix(void *ctx)
{
    (void)ctx;
    return (int64_t)(S.now / 1000000);
}

static struct lane_record *sim_record(void *ctx, const struct ip *address)
{
    struct node *n = ctx;
    return lane_of(address) < LANES ? &n->records[lane_of(address)] : NULL;
}

static struct lane_record *sim_record_of(void *ctx, uint32_t number)
{
    struct node *n = ctx;
    return number >= 1 && number <= LANES ? &n->records[number - 1] : NULL;
}

static int sim_swap(void *ctx, const struct lane_change *changes, uint32_t count)
{
    struct node *n = ctx;
    die_if_told(n, 1);
    if (S.wild && chance(1))
        return -EIO;
    for (uint32_t i = 0; i < count; i++) {
        const struct lane_record *r = sim_record_of(n, changes[i].number);
        MUST(r != NULL);
        if (r->epoch != changes[i].epoch_before ||
            strcmp(r->owner, changes[i].owner_before) != 0)
            return -ESTALE;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct lane_change *c = &changes[i];
        struct lane_record *r = sim_record_of(n, c->number);
        MUST(r != NULL);
        if (r->epoch != c->epoch || c->role != LANE_OWNER)
            r->run = false;
        r->epoch = c->epoch;
        r->role = c->role;
        r->owner_slot = c->owner_slot;
        r->move = c->move;
        memcpy(r->owner, c->owner, sizeof r->owner);
        tell("%s record %u: %s %u role %d move %llu", n->name, c->number, c->owner, c->epoch,
             (int)c->role, (unsigned long long)c->move);
    }
    die_if_told(n, 1);
    return 0;
}

static int sim_save(void *ctx, const struct move *v)
{
    struct node *n = ctx;
    uint32_t at = 0;
    die_if_told(n, 1);
    while (at < n->row_count && n->rows[at].move.id != v->id)
        at++;
    assert_true(at < ROWS);
    if (at == n->row_count)
        n->row_count++;
    struct row *row = &n->rows[at];
    row->move = *v;
    row->count = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        row->lanes[row->count] = v->lanes[i]->address;
        row->outcomes[row->count++] =
            v->lanes[i]->state == MOVE_OVER ? v->lanes[i]->outcome : MOVE_OPEN;
    }
    return 0;
}

static void sim_order(void *ctx, const struct lane_record *r, const struct control_lane_order *o)
{
    struct node *n = ctx;
    if (!n->worker.up)
        return;
    struct event *e = post(W_ORDER, n->index, 50);
    e->lane = r->number - 1;
    e->order = *o;
    e->order.lane = r->number;
}

static void sim_order_set(void *ctx, struct lane_record *r)
{
    struct control_lane_order o = {.op = LANE_OP_SET,
                                   .epoch = r->epoch,
                                   .role = r->role,
                                   .run = r->run,
                                   .move = r->move,
                                   .slot = r->owner_slot};
    snprintf(o.node, sizeof o.node, "%s", r->owner);
    sim_order(ctx, r, &o);
}

static void sim_run(void *ctx, struct lane_record *r)
{
    if (r->role != LANE_OWNER) {
        wrong("run of lane %u that is not an owner's", r->number);
        return;
    }
    r->run = true;
    sim_order_set(ctx, r);
}

static void sim_send(void *ctx, const char *node, struct span frame)
{
    struct node *n = ctx;
    for (unsigned i = 0; i < NODES; i++) {
        if (strcmp(S.nodes[i].name, node) != 0 || !S.link[n->index][i] || !S.nodes[i].up)
            continue;
        struct event *e = post(W_FRAME, i, 300);
        e->from = n->index;
        e->peer_life = n->life;
        e->bytes = malloc(frame.n);
        assert_non_null(e->bytes);
        memcpy(e->bytes, frame.p, frame.n);
        e->n = frame.n;
    }
}

static int sim_ask(void *ctx, struct lane_move *l, enum netd_action action)
{
    struct node *n = ctx;
    if (!n->netd_up)
        return -ENOTCONN;
    struct event *e =
        post(W_NETD, n->index, 100 + rng_below(&S.rng, chance(20) ? 50000 : 300));
    e->lane = lane_of(&l->address);
    e->action = action;
    assert_null(n->asking[e->lane]);
    n->asking[e->lane] = l;
    return 0;
}

static uint32_t sim_slot(void *ctx, const struct lane_record *r)
{
    (void)ctx, (void)r;
    return 0;
}

static const char *sim_refuses(void *ctx, const char *node, const struct move_item *item)
{
    (void)ctx, (void)node, (void)item;
    return S.wild && chance(3) ? "no room on the disk" : NULL;
}

static void sim_fault(void *ctx, const struct lane_move *l, unsigned step, bool after)
{
    struct node *n = ctx;
    (void)l, (void)step, (void)after;
    if (S.wild && chance(2))
        crash_worker(n);
    if (S.wild && chance(4))
        cut(n->index, (n->index + 1 + (unsigned)rng_below(&S.rng, NODES - 1)) % NODES);
    if (S.wild && chance(1))
        n->netd_up = false, (void)post(W_NETD_UP, n->index, 50000);
    die_if_told(n, 2);
}

static void sim_lane_over(void *ctx, const struct move *v, const struct lane_move *l)
{
    const struct node *n = ctx;
    tell("%s move %llu lane %u over: %d %s", n->name, (unsigned long long)v->id,
         lane_of(&l->address), (int)l->outcome, l->reason);
    S.moved += l->side == MOVE_GIVER && l->outcome == MOVE_DONE;
    S.aborted += l->side == MOVE_GIVER && l->outcome != MOVE_DONE;
}

static void sim_move_over(void *ctx, const struct move *v)
{
    (void)ctx, (void)v;
}

static const struct room_ops sim_ops = {.now_us = sim_now,
                                        .unix_s = sim_unix,
                                        .record = sim_record,
                                        .record_of = sim_record_of,
                                        .swap = sim_swap,
                                        .save = sim_save,
                                        .order = sim_order,
                                        .order_set = sim_order_set,
                                        .run = sim_run,
                                        .send = sim_send,
                                        .ask = sim_ask,
                                        .slot = sim_slot,
                                        .refuses = sim_refuses,
                                        .fault = sim_fault,
                                        .lane_over = sim_lane_over,
                                        .move_over = sim_move_over};

/* --- the worker: the table of roles --- */

static void worker_says(struct node *n, unsigned lane, struct control_lane_order o)
{
    if (!n->up || !n->worker.up)
        return;
    struct event *e = post(W_REPORT, n->index, 50);
    e->lane = lane;
    e->order = o;
    e->order.lane = lane + 1;
}

static uint32_t tails_of(const struct role *r)
{
    uint32_t tails = 0;
    for (unsigned i = 0; i < MAILS; i++)
        tails += r->mail[i] == M_DOT;
    return tails;
}

/* Of a lane that is ours: what an earlier epoch left open. */
static uint32_t old_of(const struct role *r)
{
    uint32_t old = 0;
    for (unsigned i = 0; i < MAILS; i++)
        old += r->mail[i] == M_DOT && r->since[i] != r->epoch;
    return old;
}

/* A transition of the table; -EINVAL: there is none. */
static int transition(struct role *r, const struct control_lane_order *o)
{
    if (o->role == r->role && o->epoch == r->epoch && o->role != LANE_REPLICA)
        return 0;
    switch (o->role) {
    case LANE_OWNER:
        if (r->role == LANE_FROZEN && o->epoch == r->epoch + 1)
            break;
        if (r->role == LANE_REPLICA && r->ready == r->epoch && o->epoch == r->epoch + 1)
            break;
        if (r->role == LANE_OWNER && o->epoch == r->epoch + 1)
            break; /* frozen and taken back while the worker was away */
        wrong("OWNER %u of a lane that is in role %d %u ready %u", o->epoch, (int)r->role,
              r->epoch, r->ready);
        return -EINVAL;
    case LANE_FROZEN:
        if (r->role != LANE_OWNER || o->epoch != r->epoch)
            return -EINVAL;
        for (unsigned i = 0; i < MAILS; i++)
            r->tail[i] = r->mail[i] == M_DOT;
        break;
    case LANE_AWAY:
        if (r->role == LANE_REPLICA)
            memset(r->mail, 0, sizeof r->mail);
        if (r->role == LANE_FROZEN) { /* GIVEN: what is not a tail is the new owner's */
            for (unsigned i = 0; i < MAILS; i++)
                r->mail[i] = r->tail[i] ? r->mail[i] : M_NONE;
        }
        if (r->role == LANE_OWNER && o->epoch != r->epoch)
            wrong("AWAY of a lane that was never frozen");
        break;
    case LANE_REPLICA:
        if (r->role == LANE_REPLICA && r->move == o->move && r->epoch == o->epoch)
            return 0;
        if (r->role != LANE_AWAY && r->role != LANE_REPLICA)
            return -EINVAL;
        for (unsigned i = 0; i < MAILS; i++) {
            if (r->role == LANE_AWAY && r->mail[i] != M_NONE)
                return -EBUSY; /* strays and tails are handed over first */
        }
        memset(r->mail, 0, sizeof r->mail);
        r->ready = 0;
        break;
    case LANE_ROLE_COUNT:
        return -EINVAL;
    }
    r->role = o->role;
    r->epoch = o->epoch;
    r->move = o->move;
    if (o->role != LANE_REPLICA)
        r->ready = 0;
    return 0;
}

static void worker_set(struct node *n, unsigned lane, const struct control_lane_order *o)
{
    struct role *r = &n->roles[lane];
    struct control_lane_order done = {.op = LANE_OP_SET_DONE, .role = o->role, .epoch = o->epoch};
    done.result = o->epoch < r->epoch ? -EINVAL : transition(r, o);
    n->worker.run[lane] = r->role == LANE_OWNER && o->role == LANE_OWNER && o->run;
    if (r->role != LANE_OWNER)
        n->worker.copies[lane] = n->worker.copies[lane] && r->role == LANE_FROZEN;
    done.run = n->worker.run[lane];
    done.tails = tails_of(r);
    done.complete = r->role == LANE_REPLICA && r->ready == r->epoch;
    tell("%s worker lane %u: role %d epoch %u run %d result %d", n->name, lane, (int)o->role,
         o->epoch, done.run, done.result);
    worker_says(n, lane, done);
}

static void worker_order(struct node *n, unsigned lane, const struct control_lane_order *o)
{
    if (o->op == LANE_OP_SET)
        worker_set(n, lane, o);
    if (o->op == LANE_OP_COPY &&
        (n->roles[lane].role == LANE_OWNER || n->roles[lane].role == LANE_FROZEN)) {
        n->worker.copies[lane] = true;
        n->worker.copy[lane] = *o;
    }
    if (o->op == LANE_OP_COPY_STOP)
        n->worker.copies[lane] = false;
    if (o->op == LANE_OP_REPORT)
        worker_says(n, lane,
                    (struct control_lane_order){.op = LANE_OP_PROGRESS,
                                                .tails = n->roles[lane].role == LANE_OWNER
                                                             ? old_of(&n->roles[lane])
                                                             : tails_of(&n->roles[lane])});
}

static struct node *node_of(const char *name)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (strcmp(S.nodes[i].name, name) == 0)
            return &S.nodes[i];
    }
    return NULL;
}

/* One slice of copying: DOT at the giver is TAIL at the taker once it is frozen. */
static void worker_copies(struct node *a, unsigned lane)
{
    const struct control_lane_order *o = &a->worker.copy[lane];
    struct node *b = a->worker.copies[lane] ? node_of(o->node) : NULL;
    if (b == NULL)
        return;
    struct role *from = &a->roles[lane], *to = &b->roles[lane];
    struct control_lane_order progress = {.op = LANE_OP_PROGRESS, .tails = old_of(from)};
    if (!b->worker.up || !S.link[a->index][b->index] ||
        to->role != LANE_REPLICA || to->move != o->move || to->epoch != from->epoch ||
        to->ready == to->epoch)
        return;
    for (unsigned i = 0; i < MAILS; i++) {
        enum mail want = from->mail[i] == M_DOT ? M_QUEUED : from->mail[i];
        if (from->role == LANE_FROZEN && from->tail[i])
            want = M_TAIL;
        if (to->mail[i] == want)
            continue;
        if (chance(50))
            to->mail[i] = want;
        else
            progress.bytes_left += 1000;
    }
    if (from->role == LANE_OWNER)
        worker_says(a, lane, progress);
    if (from->role == LANE_FROZEN && progress.bytes_left == 0) {
        to->ready = to->epoch;
        worker_says(b, lane,
                    (struct control_lane_order){
                        .op = LANE_OP_READY, .epoch = to->epoch, .move = to->move});
    }
}

/* Strays and the ends of tails, to the owner. */
static void worker_hands(struct node *a, unsigned lane)
{
    struct role *r = &a->roles[lane];
    struct node *b = node_of(a->records[lane].owner);
    if (r->role != LANE_AWAY || b == a || !b->worker.up || !S.link[a->index][b->index])
        return;
    struct role *to = &b->roles[lane];
    if (to->role != LANE_OWNER)
        return;
    for (unsigned i = 0; i < MAILS; i++) {
        if (r->mail[i] == M_QUEUED) {
            if (to->mail[i] == M_TAIL || to->mail[i] == M_NONE)
                to->mail[i] = M_QUEUED;
            r->mail[i] = M_NONE;
        } else if (r->mail[i] == M_END) {
            if (to->mail[i] == M_TAIL)
                to->mail[i] = M_END;
            r->mail[i] = M_NONE;
        }
    }
}

static void attempt(struct node *n, unsigned lane, unsigned i)
{
    struct role *r = &n->roles[lane];
    /* The first mail's receiver takes seconds: it outlives freezes that are taken back. */
    if (r->mail[i] == M_DOT && (i == 0 ? rng_below(&S.rng, 4000) == 0 : chance(30))) {
        bool ok = chance(70);
        S.delivered[lane][i] += ok;
        r->mail[i] = ok ? M_END : M_QUEUED;
        tell("%s lane %u mail %u %s", n->name, lane, i, ok ? "delivered" : "comes back");
    } else if (r->mail[i] == M_QUEUED && r->role == LANE_OWNER && n->worker.run[lane] &&
               chance(10)) {
        if (!n->address[lane])
            wrong("an attempt from %s, where the address is not", n->name);
        r->mail[i] = M_DOT;
        r->since[i] = r->epoch;
    }
}

static void worker_turn(struct node *n)
{
    if (!n->worker.up)
        return;
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned i = 0; i < MAILS; i++)
            attempt(n, lane, i);
        worker_copies(n, lane);
        worker_hands(n, lane);
    }
}

#endif
