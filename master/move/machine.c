/*
 * machine - see machine.h: the one place that writes the state, and what both sides share.
 *
 * Invariants: at most one change of the record and one question to netd are under way for a lane;
 * no state is left while its change is under way, so no answer to it can meet another state.
 */
#include "master/move/machine_impl.h"

#include <stdio.h>

static const char *const state_words[MOVE_STATE_COUNT] = {
    [GIVE_WAITING] = "waiting",     [GIVE_PREPARING] = "preparing", [GIVE_COPYING] = "copying",
    [GIVE_FREEZING] = "freezing",   [GIVE_FROZEN] = "frozen",       [GIVE_RELEASING] = "releasing",
    [GIVE_SWAPPING] = "swapping",   [GIVE_GIVEN] = "given",         [GIVE_TAIL] = "tail",
    [GIVE_ENDING] = "ending",       [GIVE_BACK] = "taking-back",    [GIVE_RESUMING] = "resuming",
    [TAKE_CHECKING] = "checking",   [TAKE_ENLISTING] = "enlisting", [TAKE_REPLICA] = "replica",
    [TAKE_READY] = "ready",         [TAKE_OWNING] = "owning",       [TAKE_STARTING] = "starting",
    [TAKE_TAIL] = "running",        [TAKE_ENDING] = "ending",       [TAKE_DROPPING] = "dropping",
    [MOVE_OVER] = "over",
};
static const char *const event_words[MOVE_EVENT_COUNT] = {
    [EV_TICK] = "tick",           [EV_GO] = "go",
    [EV_FREEZE] = "freeze",       [EV_ABORT] = "abort",
    [EV_CHANGED] = "changed",     [EV_UNCHANGED] = "unchanged",
    [EV_SET_DONE] = "set-done",   [EV_REPLICATED] = "replicated",
    [EV_TAIL_ZERO] = "tail-zero", [EV_COPY_FAILED] = "copy-failed",
    [EV_LOST] = "lost",
    [EV_WORKER] = "worker",       [EV_NETD_OK] = "netd-ok",
    [EV_NETD_AGAIN] = "netd-again", [EV_NETD_FAILED] = "netd-failed",
    [EV_PREPARE] = "PREPARE",     [EV_PREPARE_OK] = "PREPARE_OK",
    [EV_NO] = "NO",               [EV_COMMITREQ] = "COMMITREQ",
    [EV_COMMITTED] = "COMMITTED", [EV_NACK] = "NACK",
    [EV_TAKEN] = "TAKEN",         [EV_ABORTED] = "ABORTED",
    [EV_TAIL_END] = "TAIL_END",   [EV_TAIL_ENDED] = "TAIL_ENDED",
};
/* The last step of the move that is behind a lane in this state; the numbers are those of the fault
   points and of `mochila move status`. */
static const uint8_t steps[MOVE_STATE_COUNT] = {
    [GIVE_WAITING] = 1,   [GIVE_PREPARING] = 1, [GIVE_COPYING] = 3,   [GIVE_FREEZING] = 4,
    [GIVE_FROZEN] = 4,    [GIVE_RELEASING] = 5, [GIVE_SWAPPING] = 6,  [GIVE_GIVEN] = 7,
    [GIVE_TAIL] = 9,      [GIVE_ENDING] = 10,   [GIVE_BACK] = 4,      [GIVE_RESUMING] = 4,
    [TAKE_CHECKING] = 1,  [TAKE_ENLISTING] = 2, [TAKE_REPLICA] = 3,   [TAKE_READY] = 5,
    [TAKE_OWNING] = 7,    [TAKE_STARTING] = 8,  [TAKE_TAIL] = 8,      [TAKE_ENDING] = 11,
    [TAKE_DROPPING] = 2,  [MOVE_OVER] = 11,
};

const char *move_state_word(enum move_state s)
{
    MUST(s < MOVE_STATE_COUNT);
    return state_words[s];
}

const char *move_event_word(enum move_event e)
{
    MUST(e < MOVE_EVENT_COUNT);
    return event_words[e];
}

unsigned lane_move_step(const struct lane_move *l)
{
    return steps[l->state];
}

bool lane_move_can_abort(const struct lane_move *l)
{
    return l->side == MOVE_GIVER && l->state < GIVE_SWAPPING;
}

struct lane_record *machine_record(const struct lane_move *l)
{
    struct lane_record *r = l->env->ops->record(l->env->ctx, &l->address);
    MUST(r != NULL);
    return r;
}

bool machine_is_us(const struct lane_move *l, const char *node)
{
    return strcmp(l->env->node, node) == 0;
}

void machine_send(struct lane_move *l, enum move_kind kind, uint32_t epoch)
{
    uint32_t slot = l->env->ops->slot(l->env->ctx, machine_record(l));
    struct move_item item = {.kind = kind,
                             .lane = l->address,
                             .move = l->move,
                             .epoch = epoch,
                             .slot = slot == CONTROL_NO_SLOT ? MOVE_NO_SLOT : (int32_t)slot};
    if (kind == MOVE_PREPARE) {
        snprintf(item.pool, sizeof item.pool, "%s", l->pool);
        item.layout = MOVE_LAYOUT;
        item.bytes = l->bytes;
    }
    if (kind == MOVE_NO || kind == MOVE_ABORTED_NOW)
        snprintf(item.why, sizeof item.why, "%s", l->reason[0] != '\0' ? l->reason : l->netd_why);
    l->env->ops->send(l->env->ctx, l->peer, &item);
}

void machine_order(struct lane_move *l, enum lane_op op)
{
    struct control_lane_order o = {
        .op = op, .move = l->move, .epoch = l->epoch, .slot = l->peer_slot, .rate = l->rate};
    snprintf(o.node, sizeof o.node, "%s", l->peer);
    l->env->ops->order(l->env->ctx, l, &o);
}

void machine_ask(struct lane_move *l, enum netd_action action)
{
    uint64_t now = l->env->ops->now_us(l->env->ctx);
    if (l->asking || now < l->netd_us)
        return;
    l->asking = true;
    l->asked = action;
    l->env->ops->ask(l->env->ctx, l, action);
}

bool machine_answered(const struct lane_move *l, enum netd_action action)
{
    return !l->asking && l->asked == action;
}

void machine_fault(const struct lane_move *l, unsigned step, bool after)
{
    MUST(step >= 1);
    MUST(step <= 11);
    if (l->env->ops->fault != NULL)
        l->env->ops->fault(l->env->ctx, l, step, after);
}

void machine_change(struct lane_move *l, const struct lane_change *c)
{
    MUST(!l->changing);
    l->changing = true;
    l->env->ops->change(l->env->ctx, l, c);
}

void machine_reason(struct lane_move *l, const char *why)
{
    if (l->reason[0] == '\0')
        snprintf(l->reason, sizeof l->reason, "%s", why);
}

enum move_state machine_over(struct lane_move *l, enum move_outcome outcome)
{
    MUST(outcome != MOVE_OPEN);
    l->outcome = outcome;
    return MOVE_OVER;
}

uint64_t machine_ms(const struct lane_move *l)
{
    return (l->env->ops->now_us(l->env->ctx) - l->entered_us) / 1000;
}

bool machine_slow(struct lane_move *l)
{
    uint64_t now = l->env->ops->now_us(l->env->ctx);
    if (now - l->slow_us < MOVE_SLOW_MS * 1000ull)
        return false;
    l->slow_us = now;
    return true;
}

static void say(struct lane_move *l, bool again)
{
    l->repeat_us = l->env->ops->now_us(l->env->ctx) + MOVE_REPEAT_MS * 1000ull;
    if (l->side == MOVE_GIVER)
        give_say(l, again);
    else
        take_say(l, again);
}

static void enter(struct lane_move *l, enum move_state next)
{
    /* A change under way has been answered, or its answer would meet another state. */
    MUST(!l->changing);
    l->state = next;
    l->parts = 0;
    l->netd_us = 0;
    l->entered_us = l->slow_us = l->env->ops->now_us(l->env->ctx);
    if (next != MOVE_OVER)
        say(l, false);
}

/* netd answers each question once. Whoever asked may have gone on: handlers look at l->asked. */
static void note_netd(struct lane_move *l, enum move_event e)
{
    l->asking = false;
    if (e != EV_NETD_OK)
        l->netd_us = l->env->ops->now_us(l->env->ctx) + MOVE_NETD_RETRY_MS * 1000ull;
}

void lane_move_event(struct lane_move *l, enum move_event e)
{
    MUST(e < MOVE_EVENT_COUNT);
    if (l->state == MOVE_OVER)
        return;
    if (e == EV_CHANGED || e == EV_UNCHANGED)
        l->changing = false;
    if (e == EV_NETD_OK || e == EV_NETD_AGAIN || e == EV_NETD_FAILED)
        note_netd(l, e);
    if (e == EV_TICK && l->env->ops->now_us(l->env->ctx) < l->repeat_us)
        return;
    if (l->changing)
        return; /* within this turn; whatever it was will be said again */
    move_handler *h =
        l->side == MOVE_GIVER ? give_table[l->state][e] : take_table[l->state][e];
    enum move_state next = h != NULL ? h(l) : l->state;
    if (next != l->state)
        enter(l, next);
    else if (e == EV_TICK)
        say(l, true);
}

static enum move_state resumed_giver(struct lane_move *l, const struct lane_record *r)
{
    if (!machine_is_us(l, r->owner)) {
        /* If it has gone on to somebody else, the taker has no tail of ours any more. */
        bool gone_on = strcmp(r->owner, l->peer) != 0;
        l->epoch = r->epoch > 2 ? r->epoch - 1 - gone_on : 1;
        return r->move == l->move ? GIVE_GIVEN : machine_over(l, MOVE_DONE);
    }
    l->epoch = r->epoch;
    if (r->role == LANE_FROZEN) {
        machine_reason(l, "the giver's node was started anew");
        l->wanted = MOVE_OPEN;
        return MOVE_BUG == 1 ? GIVE_RESUMING : GIVE_BACK;
    }
    return GIVE_WAITING;
}

static enum move_state resumed_taker(struct lane_move *l, const struct lane_record *r)
{
    if (machine_is_us(l, r->owner)) {
        l->epoch = r->epoch - 1;
        return r->move == l->move ? TAKE_OWNING : machine_over(l, MOVE_DONE);
    }
    l->epoch = r->epoch;
    if (r->role == LANE_REPLICA && r->move == l->move)
        return TAKE_ENLISTING;
    return machine_over(l, MOVE_ABORTED);
}

void lane_move_resume(struct lane_move *l)
{
    const struct lane_record *r = machine_record(l);
    enum move_state next =
        l->side == MOVE_GIVER ? resumed_giver(l, r) : resumed_taker(l, r);
    enter(l, next);
}
