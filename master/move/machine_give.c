/*
 * machine_give - the giver's half of the table; see machine.h.
 *
 * Invariants: from the durable FROZEN(e) on the lane comes back only by GIVE_BACK, the swap to
 * (us, e + 1). COMMITTED is said only of a record that names the taker. The address is released
 * before the swap, and only after the taker has said that everything is durable there.
 */
#include "master/move/machine_impl.h"

#include <errno.h>
#include <stdio.h>

static bool order_ok(const struct lane_move *l, enum lane_role role, uint32_t epoch)
{
    return l->order.role == role && l->order.epoch == epoch && l->order.result == 0;
}

/* --- what states say --- */

static void change_to_frozen(struct lane_move *l)
{
    struct lane_change c;
    machine_fault(l, 4, false);
    lane_change_of(machine_record(l), &c);
    c.role = LANE_FROZEN;
    c.move = l->move;
    c.owner_slot = l->peer_slot;
    machine_change(l, &c);
}

static void change_owner(struct lane_move *l, const char *owner, enum lane_role role)
{
    struct lane_change c;
    lane_change_of(machine_record(l), &c);
    bool ours = machine_is_us(l, owner);
    c.epoch_before = l->epoch;
    snprintf(c.owner_before, sizeof c.owner_before, "%s", l->env->node);
    snprintf(c.owner, sizeof c.owner, "%s", owner);
    c.epoch = l->epoch + 1;
    c.role = role;
    c.owner_slot = ours ? CONTROL_NO_SLOT : l->peer_slot;
    c.move = ours ? 0 : l->move;
    machine_change(l, &c);
}

static void forget_tail(struct lane_move *l)
{
    const struct lane_record *r = machine_record(l);
    struct lane_change c;
    if (r->move != l->move || machine_is_us(l, r->owner)) {
        l->parts |= PART_WORKER;
        return;
    }
    lane_change_of(r, &c);
    c.move = 0;
    machine_change(l, &c);
}

static void say_freezing(struct lane_move *l)
{
    if (machine_record(l)->role != LANE_FROZEN)
        change_to_frozen(l);
    else
        l->env->ops->order_set(l->env->ctx, l);
}

static void say_given(struct lane_move *l)
{
    machine_fault(l, 8, false);
    if ((l->parts & PART_PEER) == 0)
        machine_send(l, MOVE_COMMITTED, l->epoch + 1);
    if ((l->parts & PART_WORKER) == 0)
        l->env->ops->order_set(l->env->ctx, l);
}

/* Without the address, or the way to it, the remote side's last segments were answered by RST. */
static void say_ending(struct lane_move *l)
{
    if (machine_ms(l) < MOVE_LINGER_MS)
        return;
    if ((l->parts & PART_NETD) == 0)
        machine_ask(l, NETD_END_TAIL);
    if ((l->parts & PART_PEER) == 0)
        machine_send(l, MOVE_TAIL_END, l->epoch);
    if ((l->parts & (PART_WORKER | PART_NETD | PART_PEER)) == (PART_NETD | PART_PEER))
        forget_tail(l);
}

static void say_resuming(struct lane_move *l)
{
    machine_send(l, MOVE_ABORTED_NOW, l->epoch);
    if (MOVE_BUG == 2)
        l->env->ops->run(l->env->ctx, l);
    if ((l->parts & PART_WORKER) == 0)
        l->env->ops->order_set(l->env->ctx, l);
    if ((l->parts & PART_NETD) == 0)
        machine_ask(l, NETD_ACQUIRE);
}

static void say_copying(struct lane_move *l, bool again)
{
    uint64_t now = l->env->ops->now_us(l->env->ctx);
    if (!again || now - l->progress_us > MOVE_SLOW_MS * 1000ull)
        machine_order(l, LANE_OP_COPY);
    if (again && machine_slow(l))
        machine_send(l, MOVE_PREPARE, l->epoch);
}

void give_say(struct lane_move *l, bool again)
{
    switch (l->state) {
    case GIVE_PREPARING:
        machine_send(l, MOVE_PREPARE, l->epoch);
        break;
    case GIVE_COPYING:
        say_copying(l, again);
        break;
    case GIVE_FREEZING:
        say_freezing(l);
        break;
    case GIVE_RELEASING:
        machine_ask(l, NETD_RELEASE);
        break;
    case GIVE_SWAPPING:
        machine_fault(l, 7, false);
        change_owner(l, l->peer, LANE_AWAY);
        break;
    case GIVE_GIVEN:
        say_given(l);
        break;
    case GIVE_TAIL:
        if (!again || machine_slow(l))
            machine_order(l, LANE_OP_REPORT);
        break;
    case GIVE_ENDING:
        say_ending(l);
        break;
    case GIVE_BACK:
        change_owner(l, l->env->node, LANE_OWNER);
        break;
    case GIVE_RESUMING:
        say_resuming(l);
        break;
    case GIVE_WAITING:
    case GIVE_FROZEN:
    case TAKE_CHECKING:
    case TAKE_ENLISTING:
    case TAKE_REPLICA:
    case TAKE_READY:
    case TAKE_OWNING:
    case TAKE_STARTING:
    case TAKE_TAIL:
    case TAKE_ENDING:
    case TAKE_DROPPING:
    case MOVE_OVER:
    case MOVE_STATE_COUNT:
        break;
    }
}

/* --- handlers --- */

static enum move_state go(struct lane_move *l)
{
    const struct lane_record *r = machine_record(l);
    if (!machine_is_us(l, r->owner) || r->role != LANE_OWNER) {
        machine_reason(l, "the lane is not this node's any more");
        return machine_over(l, MOVE_REFUSED);
    }
    l->epoch = r->epoch;
    l->bytes = r->bytes;
    l->reason[0] = '\0';
    machine_fault(l, 1, true);
    return GIVE_PREPARING;
}

static enum move_state abort_waiting(struct lane_move *l)
{
    return machine_over(l, l->wanted != MOVE_OPEN ? l->wanted : MOVE_ABORTED);
}

/* Before FROZEN: just stop. */
static enum move_state stop(struct lane_move *l, enum move_outcome outcome)
{
    if (l->state == GIVE_COPYING)
        machine_order(l, LANE_OP_COPY_STOP);
    machine_send(l, MOVE_ABORTED_NOW, l->epoch);
    return machine_over(l, outcome);
}

static enum move_state abort_unfrozen(struct lane_move *l)
{
    return stop(l, l->wanted != MOVE_OPEN ? l->wanted : MOVE_ABORTED);
}

static enum move_state abort_frozen(struct lane_move *l)
{
    if (l->wanted == MOVE_OPEN)
        l->wanted = MOVE_ABORTED;
    return GIVE_BACK;
}

static enum move_state prepared(struct lane_move *l)
{
    if (l->item.epoch != l->epoch || l->item.slot < 0)
        return l->state;
    l->peer_slot = (uint32_t)l->item.slot;
    machine_fault(l, 2, true);
    return GIVE_COPYING;
}

static enum move_state prepare_late(struct lane_move *l)
{
    if (machine_ms(l) < MOVE_PREPARE_MS)
        return l->state;
    machine_reason(l, "the other node's master does not answer");
    return stop(l, MOVE_REFUSED);
}

static enum move_state refused(struct lane_move *l)
{
    if (l->item.epoch != l->epoch)
        return l->state;
    machine_reason(l, l->item.why[0] != '\0' ? l->item.why : "the other node refuses");
    return stop(l, l->state == GIVE_PREPARING ? MOVE_REFUSED : MOVE_FAILED);
}

/* The taker says again that it is there, perhaps with another worker. */
static enum move_state still_there(struct lane_move *l)
{
    if (l->item.epoch == l->epoch && l->item.slot >= 0 &&
        (uint32_t)l->item.slot != l->peer_slot) {
        l->peer_slot = (uint32_t)l->item.slot;
        machine_order(l, LANE_OP_COPY);
    }
    return l->state;
}

static enum move_state copy_again(struct lane_move *l)
{
    machine_order(l, LANE_OP_COPY);
    return l->state;
}

static enum move_state copy_failed(struct lane_move *l)
{
    machine_reason(l, l->order.why[0] != '\0' ? l->order.why : "the copy failed");
    return stop(l, MOVE_FAILED);
}

/* Connections that a freeze before this one left open (it was taken back) have the ports of the
   next owner's slice: it could not tell them from its own. */
static enum move_state freeze(struct lane_move *l)
{
    if (MOVE_BUG != 5 && l->progress.tails > 0)
        return l->state;
    machine_fault(l, 3, true);
    return GIVE_FREEZING;
}

static enum move_state record_frozen(struct lane_move *l)
{
    l->froze = true;
    machine_fault(l, 4, true);
    l->env->ops->order_set(l->env->ctx, l);
    return l->state;
}

/* The record did not change, so the lane is not frozen: it runs on. */
static enum move_state not_frozen(struct lane_move *l)
{
    machine_reason(l, l->change_rc == -ESTALE ? "the lane's record changed meanwhile"
                                              : "state.db cannot be written");
    return stop(l, MOVE_FAILED);
}

static enum move_state worker_frozen(struct lane_move *l)
{
    if (l->order.role != LANE_FROZEN || l->order.epoch != l->epoch)
        return l->state;
    if (l->order.result == -EBUSY)
        return l->state;
    if (l->order.result < 0) {
        machine_reason(l, l->order.why[0] != '\0' ? l->order.why : "the worker cannot freeze it");
        l->wanted = MOVE_FAILED;
        return GIVE_BACK;
    }
    l->tails = l->order.tails;
    l->paused_us = l->order.paused_us;
    l->frozen_us = l->env->ops->now_us(l->env->ctx);
    return GIVE_FROZEN;
}

/* Too slow before the swap: mail waits for nobody. */
static enum move_state ready_late(struct lane_move *l)
{
    if (machine_ms(l) < MOVE_READY_MS)
        return l->state;
    machine_reason(l, "frozen, but the other node was not ready in time");
    l->wanted = MOVE_FAILED;
    return GIVE_BACK;
}

static enum move_state taker_ready(struct lane_move *l)
{
    if (l->item.epoch != l->epoch)
        return l->state;
    machine_fault(l, 6, false);
    return GIVE_RELEASING;
}

static enum move_state taker_left(struct lane_move *l)
{
    if (l->item.epoch != l->epoch)
        return l->state;
    machine_reason(l, l->item.why[0] != '\0' ? l->item.why : "the other node gave up");
    l->wanted = MOVE_FAILED;
    return GIVE_BACK;
}

static enum move_state released(struct lane_move *l)
{
    if (!machine_answered(l, NETD_RELEASE))
        return l->state;
    machine_fault(l, 6, true);
    return GIVE_SWAPPING;
}

static enum move_state not_released(struct lane_move *l)
{
    if (!machine_answered(l, NETD_RELEASE))
        return l->state;
    machine_reason(l, l->netd_why);
    l->wanted = MOVE_FAILED;
    return GIVE_BACK;
}

static enum move_state swapped(struct lane_move *l)
{
    machine_fault(l, 7, true);
    return GIVE_GIVEN;
}

/* Not written: the record is still ours and frozen. What holds the disk may end; until then the
   taker waits, and the lane does. */
static enum move_state not_swapped(struct lane_move *l)
{
    if (!machine_is_us(l, machine_record(l)->owner))
        return GIVE_GIVEN;
    if (machine_ms(l) < MOVE_READY_MS)
        return l->state;
    machine_reason(l, "state.db cannot be written");
    l->wanted = MOVE_FAILED;
    return GIVE_BACK;
}

static enum move_state given_if_both(struct lane_move *l)
{
    return (l->parts & (PART_WORKER | PART_PEER)) == (PART_WORKER | PART_PEER) ? GIVE_TAIL
                                                                              : l->state;
}

static enum move_state taken(struct lane_move *l)
{
    if (l->item.epoch != l->epoch + 1)
        return l->state;
    if ((l->parts & PART_PEER) == 0 && l->frozen_us != 0 && l->pause_us == 0)
        l->pause_us = l->paused_us + l->env->ops->now_us(l->env->ctx) - l->frozen_us;
    if ((l->parts & PART_PEER) == 0)
        machine_fault(l, 8, true);
    l->parts |= PART_PEER;
    l->netd_why[0] = '\0';
    return given_if_both(l);
}

/* It is theirs, and something keeps it from running there. */
static enum move_state not_yet_taken(struct lane_move *l)
{
    if (l->item.epoch == l->epoch + 1)
        snprintf(l->netd_why, sizeof l->netd_why, "%s", l->item.why);
    return l->state;
}

static enum move_state worker_away(struct lane_move *l)
{
    if (l->order.role != LANE_AWAY || l->order.result != 0)
        return l->state;
    l->tails = l->order.tails;
    if ((l->parts & PART_WORKER) == 0)
        machine_fault(l, 9, true);
    l->parts |= PART_WORKER;
    return given_if_both(l);
}

/* What the taker asks again while we already know it: COMMITREQ after the swap. */
static enum move_state committed_again(struct lane_move *l)
{
    if (l->item.epoch == l->epoch)
        machine_send(l, MOVE_COMMITTED, l->epoch + 1);
    return l->state;
}

/* The lane has gone on from the taker: then it was taken. */
static enum move_state gone_on(struct lane_move *l)
{
    if (machine_record(l)->epoch > l->epoch + 1)
        l->parts |= PART_PEER;
    return given_if_both(l);
}

/* Its open connections ended with it: that is known as soon as it says so. */
static enum move_state report_again(struct lane_move *l)
{
    machine_order(l, LANE_OP_REPORT);
    return l->state;
}

static enum move_state tail_zero(struct lane_move *l)
{
    l->tails = 0;
    machine_fault(l, 10, true);
    return GIVE_ENDING;
}

static enum move_state ended_here(struct lane_move *l)
{
    if (machine_answered(l, NETD_END_TAIL))
        l->parts |= PART_NETD;
    say_ending(l);
    return (l->parts & PART_WORKER) != 0 ? machine_over(l, MOVE_DONE) : l->state;
}

static enum move_state ended_there(struct lane_move *l)
{
    l->parts |= PART_PEER;
    say_ending(l);
    return (l->parts & PART_WORKER) != 0 ? machine_over(l, MOVE_DONE) : l->state;
}

static enum move_state end_written(struct lane_move *l)
{
    machine_fault(l, 11, true);
    return machine_over(l, MOVE_DONE);
}

static enum move_state won_back(struct lane_move *l)
{
    l->epoch++;
    return GIVE_RESUMING;
}

static enum move_state not_won_back(struct lane_move *l)
{
    return machine_is_us(l, machine_record(l)->owner) ? l->state : GIVE_GIVEN;
}

static enum move_state resumed_if_both(struct lane_move *l)
{
    if ((l->parts & (PART_WORKER | PART_NETD)) != (PART_WORKER | PART_NETD))
        return l->state;
    l->env->ops->run(l->env->ctx, l);
    return l->wanted == MOVE_OPEN ? GIVE_WAITING : machine_over(l, l->wanted);
}

static enum move_state worker_owner(struct lane_move *l)
{
    if (order_ok(l, LANE_OWNER, l->epoch))
        l->parts |= PART_WORKER;
    return resumed_if_both(l);
}

static enum move_state address_back(struct lane_move *l)
{
    if (machine_answered(l, NETD_ACQUIRE))
        l->parts |= PART_NETD;
    else
        say_resuming(l);
    return resumed_if_both(l);
}

move_handler *const give_table[MOVE_STATE_COUNT][MOVE_EVENT_COUNT] = {
    [GIVE_WAITING] = {[EV_GO] = go, [EV_ABORT] = abort_waiting},
    [GIVE_PREPARING] = {[EV_TICK] = prepare_late,
                        [EV_ABORT] = abort_unfrozen,
                        [EV_PREPARE_OK] = prepared,
                        [EV_NO] = refused},
    [GIVE_COPYING] = {[EV_ABORT] = abort_unfrozen,
                      [EV_FREEZE] = freeze,
                      [EV_COPY_FAILED] = copy_failed,
                      [EV_WORKER] = copy_again,
                      [EV_PREPARE_OK] = still_there,
                      [EV_NO] = refused},
    [GIVE_FREEZING] = {[EV_TICK] = ready_late,
                       [EV_WORKER] = copy_again,
                       [EV_ABORT] = abort_frozen,
                       [EV_CHANGED] = record_frozen,
                       [EV_UNCHANGED] = not_frozen,
                       [EV_SET_DONE] = worker_frozen,
                       [EV_NO] = taker_left},
    [GIVE_FROZEN] = {[EV_TICK] = ready_late,
                     [EV_WORKER] = copy_again,
                     [EV_ABORT] = abort_frozen,
                     [EV_NO] = taker_left,
                     [EV_COMMITREQ] = taker_ready},
    [GIVE_RELEASING] = {[EV_TICK] = ready_late,
                        [EV_ABORT] = abort_frozen,
                        [EV_NETD_OK] = released,
                        [EV_NETD_FAILED] = not_released,
                        [EV_NO] = taker_left},
    [GIVE_SWAPPING] = {[EV_CHANGED] = swapped, [EV_UNCHANGED] = not_swapped},
    [GIVE_GIVEN] = {[EV_TICK] = gone_on,
                    [EV_SET_DONE] = worker_away,
                    [EV_NO] = not_yet_taken,
                    [EV_TAKEN] = taken,
                    [EV_COMMITREQ] = committed_again},
    [GIVE_TAIL] = {[EV_TAIL_ZERO] = tail_zero,
                   [EV_WORKER] = report_again,
                   [EV_COMMITREQ] = committed_again},
    [GIVE_ENDING] = {[EV_CHANGED] = end_written,
                     [EV_NETD_OK] = ended_here,
                     [EV_NETD_FAILED] = ended_here,
                     [EV_TAIL_ENDED] = ended_there,
                     [EV_COMMITREQ] = committed_again},
    [GIVE_BACK] = {[EV_CHANGED] = won_back, [EV_UNCHANGED] = not_won_back},
    [GIVE_RESUMING] = {[EV_SET_DONE] = worker_owner, [EV_NETD_OK] = address_back},
};
