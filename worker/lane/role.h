/*
 * role - what this node is to a lane, and the changes of it: freeze, give, take, copy.
 *
 * Owner:  the queue. The master decides (CONTROL_LANE, START); here a role is written into the log,
 *         put in force, and remembered over a crash. The entries of a lane that was given or taken
 *         are let go or placed in slices of a turn: nothing here takes long with a million entries.
 * Never:  starts an attempt for a lane that is not owned with `run`; counts a recipient twice or
 *         nowhere in the ledger: GIVEN and OWN carry their number, entries follow uncounted.
 *
 *   change                  record                    entries
 *   OWNER e -> FROZEN e     FROZEN(e, move), TAIL     in flight: tail = 1; new mail is late (e+1)
 *   FROZEN e -> OWNER e' > e OWN(e')                  late ones become ordinary
 *   OWNER e -> OWNER e' > e OWN(e')                   it was frozen where the log does not know
 *   FROZEN e -> AWAY e+1    GIVEN(e+1, n)             epoch <= e and not tail: the new owner's, let
 *                                                     go; the rest becomes ENTRY_STRAY
 *   AWAY -> REPLICA e       REPLICA(e, move)          -
 *   REPLICA e -> OWNER e+1  OWN(e+1, n)               ENTRY_REPLICA placed; ENTRY_TAIL stays;
 *                                                     strays of ours are placed
 *   REPLICA -> AWAY         AWAY(e)                   ENTRY_REPLICA and ENTRY_TAIL dropped
 *   AWAY e -> AWAY e' > e   AWAY(e')                  the owner changed elsewhere
 *   OWNER, run or not       -                         only `run`
 * The same role and epoch again changes owner, slot and run only. An epoch lower than the lane's is
 * refused with -ESTALE; a change that is not in the table with -EINVAL.
 */
#ifndef WORKER_ROLE_H
#define WORKER_ROLE_H

#include "worker/lane/shard.h"

/* One order; the caller keeps it until on_done. */
struct role_change {
    /* From role_turn. 0: durable and in force; -EBUSY: an earlier change still lets entries
       go, or outcomes are not in the log yet;
       -ESTALE, -EINVAL; -EIO: the log takes nothing now. The fields below are as they are then. */
    void (*on_done)(struct role_change *c, int res);
    uint32_t lane; /* number */
    enum lane_role role;
    uint32_t epoch;
    bool run;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot;
    uint64_t move;
    /* set before on_done */
    uint32_t tails;     /* FROZEN, AWAY: attempts still open */
    bool complete;      /* REPLICA: READY(epoch) is durable */
    uint64_t paused_us; /* FROZEN: since the order, from which on nothing starts */
    /* private */
    struct queue *queue;
    struct spool_wait wait;
    struct lane_logged before;
    struct role_change *next;
    uint64_t began_ns;
    uint64_t count;
    int res;
};
void role_set(struct queue *q, struct role_change *c);
/* Once a turn (queue_turn calls it): slices, on_done of changes, events. */
void role_turn(struct queue *q);
/* Something is left for role_turn: do not sleep. */
bool role_busy(const struct queue *q);
/* May an attempt start in this lane now? */
static inline bool lane_runs(const struct lane *l)
{
    return l->role == LANE_OWNER && l->run;
}
/* Called when the last open attempt or connection of a lane that is frozen or away has ended, and
   when a lane becomes one with strays to hand over. NULL: nobody. */
struct role_events {
    void *ctx;
    void (*on_tails_over)(void *ctx, struct lane *l);
    void (*on_stray)(void *ctx, struct lane *l);
    /* An entry that was tail ended with DONE on this (the old) side: tell the new owner. */
    void (*on_tail_done)(void *ctx, struct lane *l, struct msg_id id, uint16_t index);
};
void role_set_events(struct queue *q, const struct role_events *ev);
/* May the entry get a fate now that is decided here (expiry, the operator, a failed lookup)? Not
   while it is copied for the last time, given away, being handed over, or another node's. */
bool role_may_end(const struct queue *q, const struct qentry *e);
/* The entry belongs to another node's lane: it is now in the list of strays. False: it does not. */
bool role_stray(struct queue *q, struct qentry *e);
/* The same for one whose delivery is in doubt and that is to be held: held where it belongs. */
bool role_stray_held(struct queue *q, struct qentry *e);

/* --- a lane's copy, on the side of the replica; the lane must be LANE_REPLICA --- */

/* shard_enqueue with x->replica puts a copied message (it replaces an earlier copy of the same id;
   a stray of ours with that id ends as handed over: the owner had it). It is in the index at once:
   its outcomes may follow at once. */

/* What became of entries of the copy at the owner: DEFER changes them, DONE with bounce_due too,
   DONE else drops them. Unknown ids and indices are ignored. */
void replica_outcome(struct lane *l, enum record_type type, const struct outcome *o);
/* The owner has no such message any more. */
void replica_drop(struct lane *l, struct msg_id id);
struct tail_item {
    struct msg_id id;
    uint16_t index;
};
/* All of the owner's open attempts: these entries become ENTRY_TAIL, earlier ones that are not
   named ENTRY_REPLICA again. 0, or what the spool says. */
NODISCARD int replica_tails(struct lane *l, const struct tail_item *items, uint32_t count);
/* Keeps what the owner told of its flows (flow_state.h). */
NODISCARD int replica_state(struct lane *l, struct span state);
/* Everything is here: READY(epoch, move), synced. `w` hears when it is durable. */
NODISCARD int replica_ready(struct lane *l, struct spool_wait *w);

/* --- tails at the new owner (LANE_OWNER with ENTRY_TAIL entries) --- */

/* The attempt at the old owner ended with a fate: the entry goes, uncounted. */
void tail_done(struct lane *l, struct msg_id id, uint16_t index);
/* It came back: queued here as `r` says, counted as taken over. `w` hears when it is durable (may
   be NULL). False: there is no such entry in that state. */
bool tail_back(struct lane *l, struct msg_id id, const struct enq_rcpt *r, struct spool_wait *w);
/* Nobody will say any more: in doubt, as the tenant's policy has it. */
void tail_in_doubt(struct lane *l, struct msg_id id, uint16_t index);

/* --- strays, on the side that does not own the lane --- */

/* The oldest one, moved to `handing`; NULL: none. All entries of its message go along. */
struct qmsg *stray_take(struct queue *q, struct lane *l);
/* Not taken by the owner: back to the end of the strays. */
void stray_return(struct queue *q, struct qmsg *m);
/* The owner has them: ends the message's entries as handed over. */
void stray_taken(struct queue *q, struct qmsg *m);
/* The owner has, or had, a message with this id: what is a stray of it here ends as handed over. */
void stray_had(struct lane *l, struct msg_id id);

#endif
