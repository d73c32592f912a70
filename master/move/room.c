/*
 * room - see room.h: the list, what comes in, and what goes out.
 *
 * Invariants: a lane is in `active` exactly while its machine is not over; a lane_move stays where
 * it is until its move is forgotten, and a move is forgotten only when netd owes none of its lanes
 * an answer.
 */
#include "master/move/room_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* --- the list --- */

static bool lane_is(const void *ctx, uint32_t value, const void *key)
{
    const struct room *r = ctx;
    return ip_eq(&r->active[value - 1]->address, key);
}

static uint32_t lane_hash(const struct ip *address)
{
    return hash_bytes(span_of(address->b, sizeof address->b));
}

struct lane_move *room_lane(const struct room *r, const struct ip *address)
{
    uint32_t at = table_find(&r->by_lane, lane_hash(address), lane_is, r, address);
    return at != 0 ? r->active[at - 1] : NULL;
}

static int activate(struct room *r, struct lane_move *l)
{
    if (r->active_count == LIMIT_LANES)
        return -ENOSPC;
    int rc = table_add(&r->by_lane, lane_hash(&l->address), r->active_count + 1);
    if (rc == 0)
        r->active[r->active_count++] = l;
    return rc;
}

static void deactivate(struct room *r, uint32_t at)
{
    bool there = table_remove(&r->by_lane, lane_hash(&r->active[at]->address), at + 1);
    MUST(there);
    uint32_t last = --r->active_count;
    if (at == last)
        return;
    there = table_remove(&r->by_lane, lane_hash(&r->active[last]->address), last + 1);
    MUST(there);
    r->active[at] = r->active[last];
    /* Two places were just freed, so there is one. */
    int rc = table_add(&r->by_lane, lane_hash(&r->active[at]->address), at + 1);
    MUST(rc == 0);
}

static void move_free(struct move *v)
{
    for (uint32_t i = 0; i < v->count; i++)
        free(v->lanes[i]);
    free(v->lanes);
    free(v);
}

static bool forgettable(const struct move *v)
{
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->lanes[i]->state != MOVE_OVER || v->lanes[i]->asking)
            return false;
    }
    return v->outcome != MOVE_OPEN && !v->dirty;
}

static void forget_old(struct room *r)
{
    for (uint32_t i = 0; r->count > MOVES_KEPT && i < r->count; i++) {
        if (!forgettable(r->moves[i]))
            continue;
        move_free(r->moves[i]);
        memmove(&r->moves[i], &r->moves[i + 1], (r->count - i - 1) * sizeof(struct move *));
        r->count--;
        i--;
    }
}

struct move *room_add(struct room *r, const struct move *row)
{
    forget_old(r);
    if (r->count == r->capacity)
        return NULL;
    struct move *v = malloc(sizeof *v);
    if (v == NULL)
        return NULL;
    *v = *row;
    v->lanes = NULL;
    v->count = v->room = 0;
    r->moves[r->count++] = v;
    return v;
}

struct lane_move *room_add_lane(struct room *r, struct move *v, const struct ip *address)
{
    if (v->count == v->room) {
        uint32_t room = v->room == 0 ? 16 : v->room * 2;
        struct lane_move **more = realloc(v->lanes, room * sizeof(struct lane_move *));
        if (more == NULL)
            return NULL;
        v->lanes = more;
        v->room = room;
    }
    struct lane_move *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->env = &r->env;
    l->side = v->side;
    l->address = *address;
    l->move = v->id;
    l->rate = v->rate;
    l->peer_slot = CONTROL_NO_SLOT;
    l->state = v->side == MOVE_GIVER ? GIVE_WAITING : TAKE_CHECKING;
    snprintf(l->peer, sizeof l->peer, "%s", v->side == MOVE_GIVER ? v->taker : v->giver);
    snprintf(l->pool, sizeof l->pool, "%s", v->pool);
    v->lanes[v->count++] = l;
    return l;
}

struct move *room_find(struct room *r, uint64_t id)
{
    for (uint32_t i = r->count; i > 0; i--) {
        if (r->moves[i - 1]->id == id)
            return r->moves[i - 1];
    }
    return NULL;
}

int room_init(struct room *r, const struct room_ops *ops, void *ctx, const char *node)
{
    memset(r, 0, sizeof *r);
    r->ops = ops;
    r->ctx = ctx;
    snprintf(r->node, sizeof r->node, "%s", node);
    r->env = (struct move_env){.ops = &room_env_ops, .ctx = r, .node = r->node};
    r->capacity = MOVES_KEPT + MOVES_OPEN_MAX;
    r->moves = calloc(r->capacity, sizeof(struct move *));
    r->changes = calloc(LIMIT_LANES, sizeof *r->changes);
    if (r->moves == NULL || r->changes == NULL) {
        room_fini(r);
        return -ENOMEM;
    }
    return 0;
}

void room_fini(struct room *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        move_free(r->moves[i]);
    for (uint32_t i = 0; i < LIMIT_PEERS; i++)
        free(r->outboxes[i].frame);
    free(r->moves);
    free(r->changes);
    table_fini(&r->by_lane);
    memset(r, 0, sizeof *r);
}

void room_resume(struct room *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        struct move *v = r->moves[i];
        for (uint32_t k = 0; v->outcome == MOVE_OPEN && k < v->count; k++) {
            struct lane_move *l = v->lanes[k];
            if (l->state == MOVE_OVER)
                continue;
            if (r->ops->record(r->ctx, &l->address) == NULL ||
                room_lane(r, &l->address) != NULL || activate(r, l) < 0) {
                l->state = MOVE_OVER;
                l->outcome = MOVE_FAILED;
                v->dirty = true;
                continue;
            }
            lane_move_resume(l);
        }
    }
}

/* --- orders --- */

static int can_give(struct room *r, const struct move_wish *w, const struct ip *lane,
                    char why[160])
{
    char text[IP_TEXT];
    const struct lane_record *rec = r->ops->record(r->ctx, lane);
    const struct lane_move *other = room_lane(r, lane);
    ip_format(lane, text);
    if (rec == NULL || !rec->configured) {
        snprintf(why, 160, "lane %s is not configured here", text);
        return -ENOENT;
    }
    if (strcmp(rec->owner, r->node) != 0) {
        snprintf(why, 160, "lane %s is not ours: %s owns it", text, rec->owner);
        return -EREMOTE;
    }
    if (other != NULL) {
        struct move *v = room_find(r, other->move);
        char id[LIMIT_NAME_BYTES + 24] = "?";
        if (v != NULL)
            move_id_text(v, id);
        snprintf(why, 160,
                 other->state == GIVE_TAIL || other->state == GIVE_ENDING ||
                         other->state == TAKE_TAIL || other->state == TAKE_ENDING
                     ? "lane %s has open connections of its last move %s: try again when they end"
                     : "lane %s is in move %s already",
                 text, id);
        return -EBUSY;
    }
    if (strcmp(w->to, r->node) == 0) {
        snprintf(why, 160, "lane %s is here already", text);
        return -EALREADY;
    }
    return 0;
}

int room_start(struct room *r, const struct move_wish *w, struct move **out, char why[160])
{
    struct move row = {.id = w->id,
                       .side = MOVE_GIVER,
                       .dirty = true,
                       .drain = w->drain,
                       .started = r->ops->unix_s(r->ctx),
                       .rate = w->rate,
                       .parallel = w->parallel};
    MUST(w->count > 0);
    MUST(w->parallel > 0);
    for (uint32_t i = 0; i < w->count; i++) {
        int rc = can_give(r, w, &w->lanes[i], why);
        if (rc < 0)
            return rc;
    }
    snprintf(row.pool, sizeof row.pool, "%s", w->pool);
    snprintf(row.giver, sizeof row.giver, "%s", r->node);
    snprintf(row.taker, sizeof row.taker, "%s", w->to);
    snprintf(why, 160, "no memory, or too many moves");
    struct move *v = room_add(r, &row);
    if (v == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < w->count; i++) {
        struct lane_move *l = room_add_lane(r, v, &w->lanes[i]);
        if (l != NULL && activate(r, l) < 0)
            l->outcome = MOVE_FAILED, l->state = MOVE_OVER;
    }
    int rc = r->ops->save(r->ctx, v);
    v->dirty = rc < 0;
    if (rc < 0) {
        snprintf(why, 160, "the move cannot be recorded: state.db cannot be written");
        room_abort(r, v, why);
        return rc;
    }
    r->due_us = 0;
    *out = v;
    return 0;
}

void room_abort(struct room *r, struct move *v, const char *why)
{
    (void)r;
    v->dirty |= !v->aborting;
    v->aborting = true;
    if (v->reason[0] == '\0')
        snprintf(v->reason, sizeof v->reason, "%s", why);
    for (uint32_t i = 0; i < v->count; i++) {
        struct lane_move *l = v->lanes[i];
        if (!lane_move_can_abort(l) || l->changing)
            continue; /* after a change the next turn sees to it */
        if (l->reason[0] == '\0')
            snprintf(l->reason, sizeof l->reason, "%s", why);
        if (l->wanted == MOVE_OPEN)
            l->wanted = MOVE_ABORTED;
        lane_move_event(l, EV_ABORT);
    }
}

/* --- what comes in --- */

static const uint8_t kind_events[MOVE_KIND_COUNT] = {
    [MOVE_PREPARE] = EV_PREPARE,       [MOVE_PREPARE_OK] = EV_PREPARE_OK,
    [MOVE_NO] = EV_NO,                 [MOVE_COMMITREQ] = EV_COMMITREQ,
    [MOVE_COMMITTED] = EV_COMMITTED,   [MOVE_NACK] = EV_NACK,
    [MOVE_TAKEN] = EV_TAKEN,           [MOVE_ABORTED_NOW] = EV_ABORTED,
    [MOVE_TAIL_END] = EV_TAIL_END,     [MOVE_TAIL_ENDED] = EV_TAIL_ENDED,
};

static void answer(struct room *r, const char *node, const struct move_item *to,
                   struct move_item *reply)
{
    reply->lane = to->lane;
    reply->move = to->move;
    reply->slot = MOVE_NO_SLOT;
    room_queue(r, node, reply);
}

static void refuse(struct room *r, const char *node, const struct move_item *item, const char *why)
{
    struct move_item no = {.kind = MOVE_NO, .epoch = item->epoch};
    snprintf(no.why, sizeof no.why, "%s", why);
    answer(r, node, item, &no);
}

static struct move *move_for(struct room *r, const char *node, const struct move_item *item)
{
    struct move *v = room_find(r, item->move);
    struct move row = {.id = item->move,
                       .side = MOVE_TAKER,
                       .dirty = true,
                       .parallel = 1,
                       .started = r->ops->unix_s(r->ctx)};
    if (v != NULL && (v->side != MOVE_TAKER || strcmp(v->giver, node) != 0))
        return NULL;
    if (v == NULL) {
        snprintf(row.pool, sizeof row.pool, "%s", item->pool);
        snprintf(row.giver, sizeof row.giver, "%s", node);
        snprintf(row.taker, sizeof row.taker, "%s", r->node);
        v = room_add(r, &row);
    }
    return v;
}

/* The lane's part in this move, made new or begun again. */
static struct lane_move *part_for(struct room *r, struct move *v, const struct ip *lane)
{
    for (uint32_t i = 0; i < v->count; i++) {
        struct lane_move *l = v->lanes[i];
        if (!ip_eq(&l->address, lane))
            continue;
        if (l->asking)
            return NULL; /* netd still owes its earlier life an answer */
        struct lane_move fresh = {.env = l->env,
                                  .side = l->side,
                                  .address = l->address,
                                  .move = l->move,
                                  .peer_slot = CONTROL_NO_SLOT};
        snprintf(fresh.peer, sizeof fresh.peer, "%s", l->peer);
        snprintf(fresh.pool, sizeof fresh.pool, "%s", l->pool);
        *l = fresh;
        l->state = TAKE_CHECKING;
        return l;
    }
    return room_add_lane(r, v, lane);
}

static const char *record_refuses(const struct room *r, const char *node,
                                  const struct move_item *item)
{
    const struct lane_record *rec = r->ops->record(r->ctx, &item->lane);
    if (rec == NULL || !rec->configured)
        return "the lane is not configured there";
    if (item->pool[0] != '\0' && strcmp(rec->pool, item->pool) != 0)
        return "the lane is in another pool there";
    if (lane_is_ours(rec) && strcmp(rec->owner, r->node) == 0)
        return "the other node owns the lane itself: two owners";
    if (rec->epoch > item->epoch)
        return "the other node knows of a later owner";
    if (rec->epoch == item->epoch && strcmp(rec->owner, node) != 0)
        return "the other node knows another owner";
    if (item->layout != MOVE_LAYOUT)
        return "the releases of the two nodes lay out records differently";
    return r->ops->refuses(r->ctx, node, item);
}

static void on_prepare(struct room *r, const char *node, const struct move_item *item)
{
    const char *why = record_refuses(r, node, item);
    if (why != NULL) {
        refuse(r, node, item, why);
        return;
    }
    struct move *v = move_for(r, node, item);
    struct lane_move *l = v != NULL ? part_for(r, v, &item->lane) : NULL;
    if (l == NULL || activate(r, l) < 0)
        return; /* asked again soon */
    v->outcome = MOVE_OPEN;
    v->dirty = true;
    v->ended = 0;
    l->epoch = item->epoch;
    l->bytes = item->bytes;
    l->peer_slot = item->slot >= 0 ? (uint32_t)item->slot : CONTROL_NO_SLOT;
    room_enter_fresh(l);
}

/* About a lane that is in no move here: the record has the answer. */
static void on_stranger(struct room *r, const char *node, const struct move_item *item)
{
    const struct lane_record *rec = r->ops->record(r->ctx, &item->lane);
    struct move_item reply = {.kind = MOVE_NACK};
    if (item->kind == MOVE_PREPARE) {
        on_prepare(r, node, item); /* also a lane that is not known here must be refused */
        return;
    }
    if (rec == NULL)
        return;
    bool ours = strcmp(rec->owner, r->node) == 0;
    bool theirs = strcmp(rec->owner, node) == 0;
    reply.epoch = rec->epoch;
    switch (item->kind) {
    case MOVE_PREPARE_OK:
    case MOVE_COMMITREQ:
        reply.kind = theirs && rec->epoch == item->epoch + 1 ? MOVE_COMMITTED : MOVE_ABORTED_NOW;
        if (theirs && rec->epoch == item->epoch)
            return; /* as if it asked for its own lane: nothing to say */
        break;
    case MOVE_COMMITTED:
        /* It runs here, or was here and has gone on since. */
        if (rec->epoch < item->epoch || (rec->epoch == item->epoch && !(ours && rec->run)))
            return;
        reply.kind = MOVE_TAKEN;
        reply.epoch = item->epoch;
        break;
    case MOVE_TAIL_END:
        reply.kind = MOVE_TAIL_ENDED;
        reply.epoch = item->epoch;
        break;
    case MOVE_PREPARE:
    case MOVE_NO:
    case MOVE_NACK:
    case MOVE_TAKEN:
    case MOVE_ABORTED_NOW:
    case MOVE_TAIL_ENDED:
    case MOVE_KIND_COUNT:
        return;
    }
    answer(r, node, item, &reply);
}

static void on_other_move(struct room *r, struct lane_move *l, const char *node,
                          const struct move_item *item)
{
    char why[160], id[LIMIT_NAME_BYTES + 24] = "?";
    const struct move *v = room_find(r, l->move);
    if (item->kind != MOVE_PREPARE) {
        on_stranger(r, node, item);
        return;
    }
    if (l->side == MOVE_TAKER && strcmp(l->peer, node) == 0 && l->state < TAKE_OWNING) {
        /* Its giver has one move of a lane at a time: the one we know is over. */
        snprintf(l->item.why, sizeof l->item.why, "another move took its place");
        l->item.epoch = UINT32_MAX;
        lane_move_event(l, EV_ABORTED);
        return;
    }
    if (v != NULL)
        move_id_text(v, id);
    snprintf(why, sizeof why, "the lane's last move (%s) is not over there", id);
    refuse(r, node, item, why);
}

/* Its hold is ours before the lane is. False: state.db does not take it; we are asked again. */
static bool take_hold(struct room *r, const struct lane_move *l, const struct move_item *item)
{
    if (item->kind != MOVE_COMMITTED || l->side != MOVE_TAKER || l->state >= TAKE_OWNING ||
        item->epoch != l->epoch + 1 || r->ops->hold_put == NULL)
        return true;
    return r->ops->hold_put(r->ctx, l, item->held, item->why) == 0;
}

static void on_item(struct room *r, const char *node, const struct move_item *item)
{
    struct lane_move *l = room_lane(r, &item->lane);
    if (l == NULL) {
        on_stranger(r, node, item);
    } else if (l->move != item->move || strcmp(l->peer, node) != 0) {
        on_other_move(r, l, node, item);
    } else if (take_hold(r, l, item)) {
        bool given = l->state == GIVE_GIVEN;
        l->item = *item;
        lane_move_event(l, (enum move_event)kind_events[item->kind]);
        if (given && item->kind == MOVE_TAKEN && item->epoch == l->epoch + 1 &&
            r->ops->hold_put != NULL)
            (void)(r->ops->hold_put(r->ctx, l, false, "") < 0); /* replaced when it comes back */
    }
}

void room_on_frame(struct room *r, const char *node, struct span bytes)
{
    struct move_frame *f = malloc(sizeof *f);
    if (f == NULL)
        return;
    int rc = move_decode(bytes, f);
    uint64_t before;
    if (rc < 0 && log_calm_may(&r->nonsense, r->ops->now_us(r->ctx) / 1000, &before))
        log_warn("move: a frame of node %s cannot be read, as %llu before it: %s", node,
                 (unsigned long long)before,
                 rc == -EPROTO ? "its release is of another protocol" : "it is malformed");
    for (uint32_t i = 0; rc == 0 && i < f->item_count; i++)
        on_item(r, node, &f->items[i]);
    struct move *v = rc == 0 && f->news_move != 0 ? room_find(r, f->news_move) : NULL;
    if (v != NULL && v->side == MOVE_TAKER && strcmp(v->giver, node) == 0) {
        memcpy(v->news, f->news, f->news_bytes);
        v->news_bytes = f->news_bytes;
    }
    free(f);
    r->due_us = 0;
}

void room_on_lane(struct room *r, const struct control_lane_order *o)
{
    const struct lane_record *rec = r->ops->record_of(r->ctx, o->lane);
    struct lane_move *l = rec != NULL ? room_lane(r, &rec->address) : NULL;
    if (l == NULL)
        return;
    if (o->op == LANE_OP_PROGRESS) {
        room_progress(r, l, o);
        return;
    }
    l->order = *o;
    switch (o->op) {
    case LANE_OP_SET_DONE:
        lane_move_event(l, EV_SET_DONE);
        break;
    case LANE_OP_READY:
        lane_move_event(l, EV_REPLICATED);
        break;
    case LANE_OP_TAIL:
        l->tails = o->tails;
        if (o->tails == 0)
            lane_move_event(l, EV_TAIL_ZERO);
        break;
    case LANE_OP_COPY_FAILED:
        lane_move_event(l, EV_COPY_FAILED);
        break;
    case LANE_OP_PROGRESS:
    case LANE_OP_SET:
    case LANE_OP_COPY:
    case LANE_OP_COPY_STOP:
    case LANE_OP_REPORT:
    case LANE_OP_COUNT:
        break;
    }
    r->due_us = 0;
}

void room_on_worker(struct room *r, uint32_t slot)
{
    for (uint32_t i = 0; i < r->active_count; i++) {
        struct lane_move *l = r->active[i];
        if (r->ops->slot(r->ctx, r->ops->record(r->ctx, &l->address)) == slot)
            lane_move_event(l, EV_WORKER);
    }
    r->due_us = 0;
}

void room_on_netd(struct lane_move *l, enum netd_result result, const char *why)
{
    MUST(l->asking);
    snprintf(l->netd_why, sizeof l->netd_why, "%s", why);
    if (l->state == MOVE_OVER) {
        l->asking = false;
        return;
    }
    lane_move_event(l, result == NETD_OK      ? EV_NETD_OK
                       : result == NETD_RETRY ? EV_NETD_AGAIN
                                              : EV_NETD_FAILED);
    ((struct room *)l->env->ctx)->due_us = 0;
}

void room_sweep(struct room *r)
{
    for (uint32_t i = 0; i < r->active_count;) {
        struct lane_move *l = r->active[i];
        if (l->state != MOVE_OVER) {
            i++;
            continue;
        }
        struct move *v = room_find(r, l->move);
        deactivate(r, i);
        if (v != NULL) {
            v->dirty = true;
            r->ops->lane_over(r->ctx, v, l);
        }
    }
}
