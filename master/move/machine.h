/*
 * machine - one lane's part in a move, on one side: the giver (its owner) or the taker.
 *
 * A table of states and events. The commit point is one change of the giver's lane record,
 * (giver, e) -> (taker, e + 1); a giver that froze goes back only by winning (giver, e + 1).
 *
 * Owner:  the room of moves (room.h).
 * Input:  events; what a message says is in the fields that its event names.
 * Output: through struct move_env.
 * Never:  does I/O, reads a clock, or believes what was not answered: each state repeats what it
 *         wants every MOVE_REPEAT_MS. State, record and the row of the move are enough to go on
 *         after a crash.
 */
#ifndef MASTER_MOVE_MACHINE_H
#define MASTER_MOVE_MACHINE_H

#include "master/lane_table.h"
#include "master/move/arbiter.h"
#include "proto/move_frame.h"
#include "proto/netd_frame.h"

enum {
    MOVE_REPEAT_MS = 200,
    MOVE_SLOW_MS = 2000,      /* what is repeated only in case the other side forgot */
    MOVE_PREPARE_MS = 30000,  /* for the taker's word */
    MOVE_READY_MS = 3000,     /* from FROZEN to the swap; then the giver takes it back */
    MOVE_REACH_MS = 600000,   /* a copy without progress for so long is given up */
    MOVE_NETD_RETRY_MS = 500,
    MOVE_LINGER_MS = 300,     /* for the last segments of connections that have just been closed */
};
enum move_side { MOVE_GIVER = 1, MOVE_TAKER };
enum move_state {
    GIVE_WAITING,   /* for its turn */
    GIVE_PREPARING, /* PREPARE until the taker answers */
    GIVE_COPYING,
    GIVE_FREEZING,  /* the record says FROZEN or is about to; SET until the worker does */
    GIVE_FROZEN,    /* for COMMITREQ */
    GIVE_RELEASING, /* netd takes the address off the wire */
    GIVE_SWAPPING,  /* the record is being changed */
    GIVE_GIVEN,     /* COMMITTED until TAKEN, SET AWAY until the worker has it */
    GIVE_TAIL,      /* open attempts finish here */
    GIVE_ENDING,    /* netd ends the tail; TAIL_END until TAIL_ENDED */
    GIVE_BACK,      /* the record is being changed to (giver, e + 1) */
    GIVE_RESUMING,  /* address and worker again */
    TAKE_CHECKING,  /* netd.prepare */
    TAKE_ENLISTING, /* record and worker: REPLICA */
    TAKE_REPLICA,
    TAKE_READY,     /* all of it is durable here: COMMITREQ until an answer */
    TAKE_OWNING,    /* record, worker and address, in this order or the last two at once */
    TAKE_STARTING,  /* the worker may run */
    TAKE_TAIL,      /* ours, it runs; packets of the giver's open connections are sent on */
    TAKE_ENDING,
    TAKE_DROPPING,  /* record and worker: AWAY */
    MOVE_OVER,
    MOVE_STATE_COUNT
};
enum move_event {
    EV_TICK,        /* time passed: repeat what is not answered */
    EV_GO,          /* the room: begin */
    EV_FREEZE,      /* the room: little is left */
    EV_ABORT,       /* the room: why is in l->reason */
    EV_CHANGED,     /* the change of the record is durable */
    EV_UNCHANGED,   /* it was not made: l->change_rc */
    EV_SET_DONE,    /* l->order */
    EV_REPLICATED,  /* the worker's READY */
    EV_TAIL_ZERO,
    EV_COPY_FAILED, /* l->order.why */
    EV_WORKER,      /* the worker has begun anew */
    EV_LOST,        /* the giver did not come back while connections of it were open */
    EV_NETD_OK,
    EV_NETD_AGAIN,
    EV_NETD_FAILED, /* l->netd_why */
    /* What the other side says, in l->item. */
    EV_PREPARE,
    EV_PREPARE_OK,
    EV_NO,
    EV_COMMITREQ,
    EV_COMMITTED,
    EV_NACK,
    EV_TAKEN,
    EV_ABORTED,
    EV_TAIL_END,
    EV_TAIL_ENDED,
    MOVE_EVENT_COUNT
};
enum move_outcome { MOVE_OPEN, MOVE_DONE, MOVE_ABORTED, MOVE_REFUSED, MOVE_FAILED };
/* Parts of a state that are answered separately. */
enum { PART_WORKER = 1, PART_NETD = 2, PART_PEER = 4 };

struct lane_move;
struct move_env_ops {
    uint64_t (*now_us)(void *ctx);
    struct lane_record *(*record)(void *ctx, const struct ip *address);
    /* Queued: EV_CHANGED or EV_UNCHANGED follows, never from inside. */
    void (*change)(void *ctx, struct lane_move *l, const struct lane_change *c);
    void (*order)(void *ctx, struct lane_move *l, const struct control_lane_order *o);
    /* SET with what the record says now. */
    void (*order_set)(void *ctx, struct lane_move *l);
    /* The address is here: the record's run, and SET. */
    void (*run)(void *ctx, struct lane_move *l);
    void (*send)(void *ctx, const char *node, const struct move_item *item);
    /* EV_NETD_* follows, never from inside; only one at a time (l->asking). */
    void (*ask)(void *ctx, struct lane_move *l, enum netd_action action);
    /* Slot of the worker that holds the lane here. */
    uint32_t (*slot)(void *ctx, const struct lane_record *r);
    /* Fault points: `after` the step, or before it. */
    void (*fault)(void *ctx, const struct lane_move *l, unsigned step, bool after);
};
struct move_env {
    const struct move_env_ops *ops;
    void *ctx;
    const char *node; /* our name */
};
struct lane_move {
    const struct move_env *env;
    enum move_side side;
    enum move_state state;
    enum move_outcome outcome; /* when MOVE_OVER */
    enum move_outcome wanted;  /* what it will be when it is wound up */
    unsigned parts;            /* PART_*: answered in this state */
    bool changing, asking, froze;
    enum netd_action asked;
    int change_rc;
    struct ip address;
    uint64_t move;
    uint32_t epoch; /* e: the giver's when the move began */
    uint32_t peer_slot;
    char peer[LIMIT_NAME_BYTES + 1];
    char pool[LIMIT_NAME_BYTES + 1];
    uint64_t rate, bytes; /* of its copy; what PREPARE says of its size */
    uint64_t entered_us, repeat_us, slow_us, netd_us;
    /* pause_us, when TAKEN: how long no attempt could start, from the worker's freeze to the
       taker's worker running */
    uint64_t frozen_us, paused_us, pause_us;
    struct control_lane_order order, progress; /* last SET_DONE..., last PROGRESS */
    struct move_item item;
    char reason[160], netd_why[160]; /* netd_why: also what keeps the taker */
    /* The room's. */
    uint64_t progress_us, best_left, best_us;
    double bytes_per_s;
    uint32_t calm, tails; /* samples in a row that were small enough */
    uint32_t tries;
    unsigned saved; /* what its row knows: 0 nothing, 1 that it exists, 2 its end */
};

/* The one function that writes the state. */
void lane_move_event(struct lane_move *l, enum move_event e);
/* From the record, after a restart of the master: the state to go on in. */
void lane_move_resume(struct lane_move *l);
/* May the room stop it by EV_ABORT: is the lane still the giver's? */
bool lane_move_can_abort(const struct lane_move *l);
/* Number of the step that was reached (1..11), and words for people. */
unsigned lane_move_step(const struct lane_move *l);
const char *move_state_word(enum move_state s);
const char *move_event_word(enum move_event e);

#endif
