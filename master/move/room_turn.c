/*
 * room_turn - see room.h: whose turn it is, and what was gathered in a turn.
 *
 * The order within a turn: rows of moves, changes of records, frames. So nobody hears of what is
 * not durable, and a record never names a move that a restart would not know.
 */
#include "master/move/room_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS_MAX = 8 };

/* --- the machine's way out --- */

static uint64_t env_now(void *ctx)
{
    struct room *r = ctx;
    return r->ops->now_us(r->ctx);
}

static struct lane_record *env_record(void *ctx, const struct ip *address)
{
    struct room *r = ctx;
    return r->ops->record(r->ctx, address);
}

static void env_change(void *ctx, struct lane_move *l, const struct lane_change *c)
{
    struct room *r = ctx;
    MUST(r->change_count < LIMIT_LANES);
    r->changes[r->change_count++] = (struct room_change){l, *c};
    r->due_us = 0;
}

static void env_order(void *ctx, struct lane_move *l, const struct control_lane_order *o)
{
    struct room *r = ctx;
    r->ops->order(r->ctx, r->ops->record(r->ctx, &l->address), o);
}

static void env_order_set(void *ctx, struct lane_move *l)
{
    struct room *r = ctx;
    r->ops->order_set(r->ctx, r->ops->record(r->ctx, &l->address));
}

static void env_run(void *ctx, struct lane_move *l)
{
    struct room *r = ctx;
    r->ops->run(r->ctx, r->ops->record(r->ctx, &l->address));
}

static void env_send(void *ctx, const char *node, const struct move_item *item)
{
    struct room *r = ctx;
    struct move_item copy = *item;
    if (copy.kind == MOVE_COMMITTED && r->ops->hold_of != NULL)
        copy.held = r->ops->hold_of(r->ctx, &copy.lane, copy.why);
    room_queue(r, node, &copy);
}

static void env_ask(void *ctx, struct lane_move *l, enum netd_action action)
{
    struct room *r = ctx;
    if (r->ops->ask(r->ctx, l, action) < 0) {
        l->asking = false; /* the next repetition asks again */
        l->netd_us = r->ops->now_us(r->ctx) + MOVE_REPEAT_MS * 1000ull / 2;
        snprintf(l->netd_why, sizeof l->netd_why, "netd does not run");
    }
}

static uint32_t env_slot(void *ctx, const struct lane_record *rec)
{
    struct room *r = ctx;
    return r->ops->slot(r->ctx, rec);
}

static void env_fault(void *ctx, const struct lane_move *l, unsigned step, bool after)
{
    struct room *r = ctx;
    if (r->ops->fault != NULL)
        r->ops->fault(r->ctx, l, step, after);
}

const struct move_env_ops room_env_ops = {.now_us = env_now,
                                          .record = env_record,
                                          .change = env_change,
                                          .order = env_order,
                                          .order_set = env_order_set,
                                          .run = env_run,
                                          .send = env_send,
                                          .ask = env_ask,
                                          .slot = env_slot,
                                          .fault = env_fault};

/* --- frames --- */

static void send_outbox(struct room *r, struct room_outbox *o)
{
    static uint8_t bytes[LIMIT_LINK_PAYLOAD_BYTES];
    size_t n;
    if (o->frame == NULL || (o->frame->item_count == 0 && o->frame->news_move == 0))
        return;
    int rc = move_encode(o->frame, bytes, sizeof bytes, &n);
    if (rc == 0)
        r->ops->send(r->ctx, o->node, span_of(bytes, n));
    else
        log_warn("move: a frame for node %s does not fit", o->node);
    o->frame->item_count = 0;
    o->frame->news_move = 0;
    o->frame->news_bytes = 0;
}

static struct room_outbox *outbox_of(struct room *r, const char *node)
{
    struct room_outbox *o = r->outboxes;
    while (o < r->outboxes + LIMIT_PEERS && o->frame != NULL && strcmp(o->node, node) != 0)
        o++;
    if (o == r->outboxes + LIMIT_PEERS)
        return NULL;
    if (o->frame == NULL) {
        o->frame = calloc(1, sizeof *o->frame);
        snprintf(o->node, sizeof o->node, "%s", node);
    }
    return o->frame != NULL ? o : NULL;
}

void room_queue(struct room *r, const char *node, const struct move_item *item)
{
    struct room_outbox *o = outbox_of(r, node);
    if (o == NULL)
        return; /* it is repeated */
    if (o->frame->item_count == MOVE_ITEMS)
        send_outbox(r, o);
    o->frame->items[o->frame->item_count++] = *item;
    r->due_us = 0;
}

/* --- changes of records --- */

static void told(struct lane_move *l, int rc)
{
    l->change_rc = rc;
    lane_move_event(l, rc == 0 ? EV_CHANGED : EV_UNCHANGED);
}

/* All in one transaction; when one of them does not fit any more, each by itself. */
static void make_changes(struct room *r)
{
    static struct lane_change list[LIMIT_LANES];
    static struct lane_move *lanes[LIMIT_LANES];
    uint32_t n = r->change_count;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = r->changes[i].change;
        lanes[i] = r->changes[i].lane;
    }
    r->change_count = 0;
    int rc = r->ops->swap(r->ctx, list, n);
    for (uint32_t i = 0; i < n; i++) {
        int one = rc;
        if (rc == -ESTALE && n > 1)
            one = r->ops->swap(r->ctx, &list[i], 1);
        told(lanes[i], one);
    }
}

static void save_moves(struct room *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->moves[i]->dirty && r->ops->save(r->ctx, r->moves[i]) == 0)
            r->moves[i]->dirty = false;
    }
}

/* A lane whose move could not be recorded must not change its record; it tries again. */
static bool may_change(struct room *r)
{
    for (uint32_t i = 0; i < r->change_count; i++) {
        const struct move *v = room_find(r, r->changes[i].lane->move);
        if (v == NULL || !v->dirty)
            continue;
        struct lane_move *l = r->changes[i].lane;
        memmove(&r->changes[i], &r->changes[i + 1],
                (r->change_count - i - 1) * sizeof *r->changes);
        r->change_count--;
        i--;
        told(l, -EIO);
    }
    return r->change_count > 0;
}

static void flush(struct room *r)
{
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        save_moves(r);
        if (!may_change(r))
            break;
        make_changes(r);
    }
    for (unsigned i = 0; i < LIMIT_PEERS; i++)
        send_outbox(r, &r->outboxes[i]);
}

/* --- turns and limits --- */

void room_enter_fresh(struct lane_move *l)
{
    l->entered_us = l->slow_us = env_now(l->env->ctx);
    l->repeat_us = 0;
    lane_move_event(l, EV_TICK);
}

static bool freezing(const struct lane_move *l)
{
    return l->side == MOVE_GIVER && l->state >= GIVE_FREEZING && l->state <= GIVE_GIVEN;
}

static bool calm(const struct lane_move *l)
{
    return l->calm >= MOVE_CALM_SAMPLES;
}

void room_progress(struct room *r, struct lane_move *l, const struct control_lane_order *o)
{
    uint64_t now = env_now(r), gone = now - l->progress_us;
    if (l->state == GIVE_TAIL || l->state == GIVE_GIVEN) {
        l->tails = o->tails;
        l->progress.owed = o->owed;
        if (o->tails == 0)
            lane_move_event(l, EV_TAIL_ZERO);
        return;
    }
    if (l->progress_us != 0 && gone > 0 && o->bytes_sent > l->progress.bytes_sent) {
        double rate = (double)(o->bytes_sent - l->progress.bytes_sent) * 1e6 / (double)gone;
        l->bytes_per_s = l->bytes_per_s == 0 ? rate : 0.7 * l->bytes_per_s + 0.3 * rate;
    }
    l->progress = *o;
    l->tails = o->tails;
    l->progress_us = now;
    if (l->best_us == 0 || o->bytes_left < l->best_left) {
        l->best_left = o->bytes_left;
        l->best_us = now;
    }
    double speed = l->bytes_per_s > MOVE_RATE_MIN ? l->bytes_per_s : MOVE_RATE_MIN;
    bool little = (double)o->bytes_left * 1e6 / speed + MOVE_FIXED_US < MOVE_BUDGET_US;
    l->calm = l->state != GIVE_COPYING || !little ? 0 : l->calm + 1;
    r->due_us = 0;
}

/* A restart undid its freeze: begun again, if nothing of it is open and not for ever. */
static void begin(struct lane_move *l)
{
    if (l->tries++ < MOVE_TRIES_MAX) {
        l->calm = 0;
        l->progress_us = l->best_us = 0;
        lane_move_event(l, EV_GO);
        return;
    }
    snprintf(l->reason, sizeof l->reason, "given up after %d tries", MOVE_TRIES_MAX);
    l->wanted = MOVE_FAILED;
    lane_move_event(l, EV_ABORT);
}

static void share_rate(struct move *v, uint32_t copying)
{
    uint64_t share = v->rate == 0 || copying == 0 ? v->rate : v->rate / copying;
    if (v->rate != 0 && share == 0)
        share = 1;
    for (uint32_t i = 0; i < v->count; i++) {
        struct lane_move *l = v->lanes[i];
        uint64_t now = l->rate;
        if (share == now)
            continue;
        l->rate = share;
        /* What differs by less than a tenth is not worth an order. */
        if (l->state == GIVE_COPYING && (share * 10 < now * 9 || share * 9 > now * 10))
            lane_move_event(l, EV_WORKER);
    }
}

static void watch_copy(struct lane_move *l)
{
    if (l->state != GIVE_COPYING || l->best_us == 0)
        return;
    if (l->best_left == 0)
        l->best_us = env_now(l->env->ctx);
    if (env_now(l->env->ctx) - l->best_us < MOVE_REACH_MS * 1000ull)
        return;
    snprintf(l->reason, sizeof l->reason,
             "the copy does not catch up: new mail comes as fast as the copy, or the link is down");
    l->wanted = MOVE_FAILED;
    lane_move_event(l, EV_ABORT);
}

/* Lanes are copied a few at a time and kept up to date; when all are, they move together. */
static void direct(struct room *r, struct move *v)
{
    uint32_t copying = 0, behind = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        struct lane_move *l = v->lanes[i];
        watch_copy(l);
        if (l->state == GIVE_PREPARING || l->state == GIVE_COPYING)
            copying += l->progress_us == 0 || !calm(l);
        behind += l->state <= GIVE_COPYING && l->outcome == MOVE_OPEN && !calm(l);
    }
    for (uint32_t i = 0; i < v->count && copying < v->parallel; i++) {
        if (v->lanes[i]->state != GIVE_WAITING || v->aborting)
            continue;
        begin(v->lanes[i]);
        copying += v->lanes[i]->state == GIVE_PREPARING;
    }
    share_rate(v, copying > 0 ? copying : 1);
    v->cutover = v->cutover || behind == 0;
    for (uint32_t i = 0; v->cutover && i < v->count && r->freezes < MOVE_FREEZES_MAX; i++) {
        if (v->lanes[i]->state != GIVE_COPYING || !calm(v->lanes[i]))
            continue;
        lane_move_event(v->lanes[i], EV_FREEZE);
        r->freezes += v->lanes[i]->state != GIVE_COPYING;
    }
    if (v->aborting)
        room_abort(r, v, v->reason);
}

/* Why it did not all go: the words of the lane that fared worst. */
static void give_reason(struct move *v)
{
    enum move_outcome worst = MOVE_DONE;
    for (uint32_t i = 0; !v->aborting && i < v->count; i++) {
        const struct lane_move *l = v->lanes[i];
        if (l->state != MOVE_OVER || l->outcome <= worst)
            continue;
        worst = l->outcome;
        snprintf(v->reason, sizeof v->reason, "%s", l->reason);
    }
}

static void conclude(struct room *r, struct move *v)
{
    enum move_outcome across = move_across(v);
    if (across == MOVE_OPEN)
        return;
    if (v->ended == 0) {
        give_reason(v);
        v->ended = r->ops->unix_s(r->ctx);
        v->dirty = true;
        r->ops->move_over(r->ctx, v);
    }
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->lanes[i]->state != MOVE_OVER)
            return;
    }
    v->outcome = across;
    v->dirty = true;
}

static uint64_t next_due(const struct room *r, uint64_t now)
{
    uint64_t due = 0;
    for (uint32_t i = 0; i < r->active_count; i++) {
        const struct lane_move *l = r->active[i];
        if (l->state == GIVE_WAITING)
            continue;
        if (due == 0 || l->repeat_us < due)
            due = l->repeat_us;
    }
    return due != 0 && due <= now ? now + 1000 : due;
}

void room_turn(struct room *r)
{
    uint64_t now = env_now(r);
    if (r->active_count == 0 && r->change_count == 0 && r->due_us != 0)
        return;
    r->freezes = 0;
    for (uint32_t i = 0; i < r->active_count; i++) {
        lane_move_event(r->active[i], EV_TICK);
        r->freezes += freezing(r->active[i]);
    }
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->moves[i]->outcome == MOVE_OPEN && r->moves[i]->side == MOVE_GIVER)
            direct(r, r->moves[i]);
    }
    flush(r);
    room_sweep(r);
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->moves[i]->outcome == MOVE_OPEN)
            conclude(r, r->moves[i]);
    }
    save_moves(r);
    r->due_us = next_due(r, now);
    if (r->due_us == 0)
        r->due_us = now + 3600000000ull;
}

uint64_t room_due_us(const struct room *r)
{
    return r->active_count == 0 && r->change_count == 0 ? 0 : r->due_us;
}
