/*
 * machine_take - the taker's half of the table; see machine.h.
 *
 * Invariants: COMMITREQ is said only when everything is durable here; the record names us only
 * after COMMITTED; the lane runs only when the record, the worker and netd have all said so.
 */
#include "master/move/machine_impl.h"

#include <errno.h>
#include <stdio.h>

static bool replica_here(const struct lane_move *l)
{
    const struct lane_record *r = machine_record(l);
    return r->role == LANE_REPLICA && r->move == l->move;
}

/* --- what states say --- */

/* Not there yet, so without a slot: the giver passes it over. But one that has given the move up,
   and whose ABORTED was lost, says so again; the worker may have waited for mail to be handed over
   to an owner that it is not any more. */
static void say_here(struct lane_move *l)
{
    struct move_item item = {.kind = MOVE_PREPARE_OK,
                             .lane = l->address,
                             .move = l->move,
                             .epoch = l->epoch,
                             .slot = MOVE_NO_SLOT};
    l->env->ops->send(l->env->ctx, l->peer, &item);
}

static void say_enlisting(struct lane_move *l, bool again)
{
    struct lane_change c;
    if (again && machine_slow(l))
        say_here(l);
    if (replica_here(l)) {
        l->env->ops->order_set(l->env->ctx, l);
        return;
    }
    lane_change_of(machine_record(l), &c);
    snprintf(c.owner, sizeof c.owner, "%s", l->peer);
    c.epoch = l->epoch;
    c.owner_slot = l->peer_slot;
    c.role = LANE_REPLICA;
    c.move = l->move;
    machine_change(l, &c);
}

static void say_owning(struct lane_move *l)
{
    struct lane_change c;
    const struct lane_record *r = machine_record(l);
    if (machine_is_us(l, r->owner)) {
        if (MOVE_BUG == 3)
            l->env->ops->run(l->env->ctx, l);
        if ((l->parts & PART_WORKER) == 0)
            l->env->ops->order_set(l->env->ctx, l);
        if ((l->parts & PART_NETD) == 0)
            machine_ask(l, NETD_ACQUIRE);
        return;
    }
    lane_change_of(r, &c);
    snprintf(c.owner, sizeof c.owner, "%s", l->env->node);
    c.epoch = l->epoch + 1;
    c.owner_slot = CONTROL_NO_SLOT;
    c.role = LANE_OWNER;
    c.move = l->move;
    machine_change(l, &c);
}

static void say_dropping(struct lane_move *l)
{
    struct lane_change c;
    if (!replica_here(l)) {
        l->env->ops->order_set(l->env->ctx, l);
        return;
    }
    lane_change_of(machine_record(l), &c);
    c.role = LANE_AWAY;
    c.move = 0;
    machine_change(l, &c);
}

static void forget_tail(struct lane_move *l)
{
    const struct lane_record *r = machine_record(l);
    struct lane_change c;
    if (r->move != l->move || !machine_is_us(l, r->owner)) {
        l->parts |= PART_WORKER;
        return;
    }
    lane_change_of(r, &c);
    c.move = 0;
    machine_change(l, &c);
}

void take_say(struct lane_move *l, bool again)
{
    switch (l->state) {
    case TAKE_CHECKING:
        machine_ask(l, NETD_PREPARE);
        break;
    case TAKE_ENLISTING:
        say_enlisting(l, again);
        break;
    case TAKE_REPLICA:
        if (MOVE_BUG == 4)
            machine_send(l, MOVE_COMMITREQ, l->epoch);
        if (!again || machine_slow(l))
            machine_send(l, MOVE_PREPARE_OK, l->epoch);
        break;
    case TAKE_READY:
        machine_send(l, MOVE_COMMITREQ, l->epoch);
        break;
    case TAKE_OWNING:
        say_owning(l);
        break;
    case TAKE_STARTING:
        l->env->ops->order_set(l->env->ctx, l);
        break;
    case TAKE_TAIL:
        if (!again)
            machine_send(l, MOVE_TAKEN, l->epoch + 1);
        break;
    case TAKE_ENDING:
        if ((l->parts & PART_NETD) == 0)
            machine_ask(l, NETD_END_TAIL);
        else
            forget_tail(l);
        break;
    case TAKE_DROPPING:
        say_dropping(l);
        break;
    case GIVE_WAITING:
    case GIVE_PREPARING:
    case GIVE_COPYING:
    case GIVE_FREEZING:
    case GIVE_FROZEN:
    case GIVE_RELEASING:
    case GIVE_SWAPPING:
    case GIVE_GIVEN:
    case GIVE_TAIL:
    case GIVE_ENDING:
    case GIVE_BACK:
    case GIVE_RESUMING:
    case MOVE_OVER:
    case MOVE_STATE_COUNT:
        break;
    }
}

/* --- handlers --- */

static enum move_state checked(struct lane_move *l)
{
    if (!machine_answered(l, NETD_PREPARE))
        return l->state;
    return TAKE_ENLISTING;
}

static enum move_state unfit(struct lane_move *l)
{
    if (!machine_answered(l, NETD_PREPARE))
        return l->state;
    machine_reason(l, l->netd_why[0] != '\0' ? l->netd_why : "the address cannot be taken here");
    machine_send(l, MOVE_NO, l->epoch);
    return machine_over(l, MOVE_REFUSED);
}

/* netd does not come back: better refused than silent for ever. */
static enum move_state check_late(struct lane_move *l)
{
    if (machine_ms(l) < MOVE_PREPARE_MS / 2)
        return l->state;
    machine_reason(l, l->netd_why[0] != '\0' ? l->netd_why : "netd does not answer");
    machine_send(l, MOVE_NO, l->epoch);
    return machine_over(l, MOVE_REFUSED);
}

static enum move_state unwanted(struct lane_move *l)
{
    machine_reason(l, l->item.why);
    return machine_over(l, MOVE_ABORTED);
}

static enum move_state enlist(struct lane_move *l)
{
    l->env->ops->order_set(l->env->ctx, l);
    return l->state;
}

static enum move_state not_enlisted(struct lane_move *l)
{
    machine_reason(l, l->change_rc == -ESTALE ? "the lane's record changed meanwhile"
                                              : "state.db cannot be written");
    machine_send(l, MOVE_NO, l->epoch);
    return machine_over(l, MOVE_REFUSED);
}

static enum move_state drop(struct lane_move *l)
{
    machine_reason(l, l->item.why);
    l->wanted = MOVE_ABORTED;
    return TAKE_DROPPING;
}

static enum move_state give_up(struct lane_move *l, const char *why)
{
    machine_reason(l, why);
    machine_send(l, MOVE_NO, l->epoch);
    l->wanted = MOVE_FAILED;
    return TAKE_DROPPING;
}

static enum move_state worker_replica(struct lane_move *l)
{
    const struct control_lane_order *o = &l->order;
    if (o->role != LANE_REPLICA || o->epoch != l->epoch || o->result == -EBUSY)
        return l->state;
    if (o->result < 0)
        return give_up(l, o->why[0] != '\0' ? o->why : "the worker there cannot take it");
    machine_fault(l, 2, true);
    return o->complete ? TAKE_READY : TAKE_REPLICA;
}

/* A newer record may have made this replica pointless: another owner, or a later epoch. */
static enum move_state look(struct lane_move *l)
{
    return replica_here(l) ? l->state : machine_over(l, MOVE_ABORTED);
}

static enum move_state prepare_again(struct lane_move *l)
{
    if (l->item.epoch != l->epoch)
        return drop(l); /* the giver froze, took it back, and begins once more */
    machine_send(l, MOVE_PREPARE_OK, l->epoch);
    return l->state;
}

static enum move_state replicated(struct lane_move *l)
{
    if (l->order.epoch != l->epoch || l->order.move != l->move)
        return l->state;
    machine_fault(l, 5, true);
    return TAKE_READY;
}

static enum move_state cannot_copy(struct lane_move *l)
{
    return give_up(l, l->order.why[0] != '\0' ? l->order.why : "the copy failed there");
}

/* Its successor's START says REPLICA; the answer to this says whether all of it is durable. */
static enum move_state worker_anew(struct lane_move *l)
{
    l->env->ops->order_set(l->env->ctx, l);
    machine_send(l, MOVE_PREPARE_OK, l->epoch);
    return l->state;
}

static enum move_state still_complete(struct lane_move *l)
{
    return l->order.role == LANE_REPLICA && l->order.epoch == l->epoch && l->order.complete
               ? TAKE_READY
               : l->state;
}

static enum move_state committed(struct lane_move *l)
{
    if (l->item.epoch != l->epoch + 1)
        return l->state;
    return TAKE_OWNING;
}

static enum move_state nacked(struct lane_move *l)
{
    return l->item.epoch > l->epoch ? drop(l) : l->state;
}

static enum move_state aborted(struct lane_move *l)
{
    return l->item.epoch >= l->epoch ? drop(l) : l->state;
}

static enum move_state owner_written(struct lane_move *l)
{
    say_owning(l);
    return l->state;
}

static enum move_state owning_if_both(struct lane_move *l)
{
    if ((l->parts & (PART_WORKER | PART_NETD)) != (PART_WORKER | PART_NETD))
        return l->state;
    l->env->ops->run(l->env->ctx, l);
    return TAKE_STARTING;
}

static enum move_state worker_owner(struct lane_move *l)
{
    if (l->order.role == LANE_OWNER && l->order.epoch == l->epoch + 1 && l->order.result == 0)
        l->parts |= PART_WORKER;
    return owning_if_both(l);
}

static enum move_state acquired(struct lane_move *l)
{
    if (machine_answered(l, NETD_ACQUIRE))
        l->parts |= PART_NETD;
    else
        say_owning(l);
    return owning_if_both(l);
}

/* It is ours and has no address: asked again and again, and the giver's operator sees why. */
static enum move_state not_acquired(struct lane_move *l)
{
    if (machine_answered(l, NETD_ACQUIRE))
        machine_send(l, MOVE_NO, l->epoch + 1);
    return l->state;
}

static enum move_state running(struct lane_move *l)
{
    if (l->order.role != LANE_OWNER || l->order.epoch != l->epoch + 1 || !l->order.run ||
        l->order.result != 0)
        return l->state;
    machine_fault(l, 8, true);
    return TAKE_TAIL;
}

static enum move_state taken_again(struct lane_move *l)
{
    machine_send(l, MOVE_TAKEN, l->epoch + 1);
    return l->state;
}

/* What it had open is in doubt; nobody needs its packets any more. */
static enum move_state tail_lost(struct lane_move *l)
{
    machine_reason(l, "the giver did not come back: what it had open is in doubt");
    return TAKE_ENDING;
}

static enum move_state tail_end(struct lane_move *l)
{
    return l->item.epoch == l->epoch ? TAKE_ENDING : l->state;
}

static enum move_state tail_ended(struct lane_move *l)
{
    machine_send(l, MOVE_TAIL_ENDED, l->epoch);
    return machine_over(l, MOVE_DONE);
}

static enum move_state forwarding_ended(struct lane_move *l)
{
    if (machine_answered(l, NETD_END_TAIL))
        l->parts |= PART_NETD;
    take_say(l, true);
    return (l->parts & PART_WORKER) != 0 ? tail_ended(l) : l->state;
}

/* Refused or not: what the worker knows of it is told by the record from now on. */
static enum move_state dropped(struct lane_move *l)
{
    if (l->order.role != LANE_AWAY)
        return l->state;
    return machine_over(l, l->wanted);
}

static enum move_state drop_written(struct lane_move *l)
{
    l->env->ops->order_set(l->env->ctx, l);
    return l->state;
}

move_handler *const take_table[MOVE_STATE_COUNT][MOVE_EVENT_COUNT] = {
    [TAKE_CHECKING] = {[EV_TICK] = check_late,
                       [EV_NETD_OK] = checked,
                       [EV_NETD_FAILED] = unfit,
                       [EV_ABORTED] = unwanted,
                       [EV_ABORT] = unwanted},
    [TAKE_ENLISTING] = {[EV_CHANGED] = enlist,
                        [EV_UNCHANGED] = not_enlisted,
                        [EV_SET_DONE] = worker_replica,
                        [EV_COMMITTED] = committed,
                        [EV_NACK] = nacked,
                        [EV_ABORTED] = aborted,
                        [EV_ABORT] = drop},
    [TAKE_REPLICA] = {[EV_TICK] = look,
                      [EV_PREPARE] = prepare_again,
                      [EV_SET_DONE] = still_complete,
                      [EV_REPLICATED] = replicated,
                      [EV_COPY_FAILED] = cannot_copy,
                      [EV_WORKER] = worker_anew,
                      [EV_COMMITTED] = committed,
                      [EV_NACK] = nacked,
                      [EV_ABORTED] = aborted,
                      [EV_ABORT] = drop},
    [TAKE_READY] = {[EV_TICK] = look,
                    [EV_PREPARE] = prepare_again,
                    [EV_WORKER] = worker_anew,
                    [EV_COMMITTED] = committed,
                    [EV_NACK] = nacked,
                    [EV_ABORTED] = aborted},
    [TAKE_OWNING] = {[EV_CHANGED] = owner_written,
                     [EV_SET_DONE] = worker_owner,
                     [EV_NETD_OK] = acquired,
                     [EV_NETD_AGAIN] = not_acquired,
                     [EV_NETD_FAILED] = not_acquired},
    [TAKE_STARTING] = {[EV_SET_DONE] = running, [EV_TAIL_END] = NULL},
    [TAKE_TAIL] = {[EV_COMMITTED] = taken_again,
                   [EV_TAIL_END] = tail_end,
                   [EV_LOST] = tail_lost},
    [TAKE_ENDING] = {[EV_CHANGED] = tail_ended,
                     [EV_NETD_OK] = forwarding_ended,
                     [EV_NETD_FAILED] = forwarding_ended,
                     [EV_COMMITTED] = taken_again},
    [TAKE_DROPPING] = {[EV_CHANGED] = drop_written, [EV_SET_DONE] = dropped},
};
