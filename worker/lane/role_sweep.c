/*
 * What a change of role does to the entries of its lane, in slices of a turn: the new owner's are
 * let go, a copy is dropped, or what was copied and what strayed is placed.
 *
 * Invariant: owed_out and owed_in are the recipients that GIVEN and OWN have counted and that are
 * still to be met here.
 */
#include "worker/lane/role_impl.h"

#include "worker/lane/adopted.h"
#include "worker/lane/fates.h"

/* About a millisecond of either. */
enum { LOOKS_PER_TURN = 16384, ACTS_PER_TURN = 1000 };

void role_sweep_begin(struct queue *q, struct lane *l, enum role_sweep sweep)
{
    MUST(l->sweep == SWEEP_NONE);
    l->sweep = (uint8_t)sweep;
    l->sweep_from = q->roles->at;
    l->sweep_wrapped = false;
    q->roles->sweeping++;
}

void role_let_go(struct queue *q, struct qentry *e)
{
    entry_unlist(q, e);
    entry_end(q, e);
}

static void place_replica(struct queue *q, struct lane *l, struct qentry *e)
{
    enum rcpt_state s = (enum rcpt_state)e->cancel;
    if (s != RCPT_BOUNCE_DUE)
        q->owed_in--;
    role_replica_becomes(l, e, RCPT_QUEUED);
    entry_set_state(q, e, ENTRY_NEW);
    if (s == RCPT_BOUNCE_DUE)
        entry_set_state(q, e, ENTRY_BOUNCE_DUE);
    else if (s == RCPT_PARKED)
        entry_set_state(q, e, ENTRY_PARKED);
    else if (s == RCPT_HELD && e->reason != REASON_HELD_MESSAGE)
        entry_set_state(q, e, ENTRY_HELD);
    else
        entry_place(q, e); /* a hold of the operator is decided anew */
}

/* A stray of a lane that has come to us. The owner before us had it if it took the id from us: all
   that was adopted came with the lane. What we took from others is ours to deliver; and a lane that
   was only frozen has no such strays, though ids that came back with it may be adopted still. */
static void place_stray(struct queue *q, const struct lane *l, struct qentry *e)
{
    if (l->sweep == SWEEP_OWN &&
        adopted_from(q, store_msg(&q->store, e->msg)->id, q->env.config->node)) {
        struct fate_facts f = {.reason = REASON_STRAY};
        entry_unlist(q, e);
        fates_end(q, e, FATE_HANDED_OVER, &f);
        return;
    }
    bool held = e->flow == STRAY_HELD;
    entry_unlist(q, e);
    if (held)
        entry_set_state(q, e, ENTRY_HELD);
    else
        entry_place(q, e);
}

static bool sweep_entry(struct queue *q, struct lane *l, struct qentry *e)
{
    bool copied = e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL;
    switch ((enum role_sweep)l->sweep) {
    case SWEEP_NONE:
        return false;
    case SWEEP_GIVEN:
        if (e->state == ENTRY_STRAY || e->state == ENTRY_IN_FLIGHT || e->tail || copied ||
            (store_msg(&q->store, e->msg)->flags & MSG_LATE))
            return false;
        if (e->state != ENTRY_BOUNCE_DUE)
            q->owed_out--;
        role_let_go(q, e);
        return true;
    case SWEEP_DROP:
        if (!copied)
            return false;
        role_let_go(q, e);
        return true;
    case SWEEP_OWN:
    case SWEEP_BACK:
        role_set_tail(l, e, false);
        store_msg(&q->store, e->msg)->flags &= (uint8_t)~MSG_LATE;
        if (e->state == ENTRY_REPLICA)
            place_replica(q, l, e);
        else if (e->state == ENTRY_STRAY)
            place_stray(q, l, e);
        else
            return false;
        return true;
    }
    return false;
}

static void sweeps_end(struct queue *q)
{
    struct roles *r = q->roles;
    for (uint32_t i = 0; i < q->lane_count; i++) {
        struct lane *l = &q->lanes[i];
        if (l->sweep == SWEEP_NONE || !l->sweep_wrapped || r->at < l->sweep_from)
            continue;
        l->sweep = SWEEP_NONE;
        r->sweeping--;
    }
}

/* One walk over the index serves all lanes: each is done when the walk has come round. */
void role_sweep(struct queue *q)
{
    struct roles *r = q->roles;
    uint32_t acts = 0;
    for (uint32_t looks = 0; looks < LOOKS_PER_TURN && acts < ACTS_PER_TURN; looks++) {
        if (r->at + 1 >= store_entry_end(&q->store)) {
            r->at = 0;
            for (uint32_t i = 0; i < q->lane_count; i++)
                q->lanes[i].sweep_wrapped = true;
            break;
        }
        struct qentry *e = store_peek(&q->store, ++r->at);
        if (e != NULL)
            acts += sweep_entry(q, entry_lane(q, e), e);
    }
    sweeps_end(q);
}
