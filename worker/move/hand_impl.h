/* hand_impl - shared by hand*.c only. */
#ifndef WORKER_HAND_IMPL_H
#define WORKER_HAND_IMPL_H

#include "worker/move/hand.h"

enum {
    HAND_MESSAGES = 64,        /* under way, of one lane */
    HAND_BYTES = 4 << 20,      /* likewise; a larger message goes alone */
    HAND_LANE_PAUSE_MS = 1000, /* after a NOT_OWNER */
    HAND_AGAIN_MS = 3000,      /* without an answer it is sent again */
    HAND_BLOCKED_MS = 50,      /* no room, or too many reads */
    HAND_TICK_MS = 100,
    HAND_TAKINGS = 1024,    /* messages that are being taken from others */
    HAND_TAKING_MS = 60000, /* chunks without their message */
    HAND_ADOPTED = 32768,   /* more ids are not taken until origins forget some */
    HAND_TAILS = 8192       /* TAIL_DONEs that wait; what is more is asked for */
};

struct hand {
    struct queue *queue;
    struct carrier *carrier;
    struct hand_lane *lanes;  /* with strays, jobs, or paused */
    struct hand_job *orphans; /* their read is not over yet */
    struct taking *takings;
    struct hand_tail *tails;
    unsigned job_count, orphan_count, taking_count, tail_count;
    bool draining;
    uint64_t next_number; /* of a HAND; never 0 */
    struct timer timer;
};

/* Sends one frame to a worker of another node, with at most 8 items; results as carrier_send. */
NODISCARD int hand_send(struct hand *h, const struct lane_from *to, const struct lane_frame *f);
/* Makes the worker turn soon, while something waits. */
void hand_wake(struct hand *h);

/* hand_tail.c */
void hand_tails_turn(struct hand *h);
void hand_tails_free(struct hand *h);

/* hand_take.c: the owner's side */
void hand_take_chunk(struct hand *h, const struct lane_from *from, const struct lane_frame *f);
void hand_take(struct hand *h, const struct lane_from *from, const struct lane_frame *f);
void hand_take_tails(struct hand *h, const struct lane_from *from, const struct lane_frame *f);
/* NULL: all nodes. */
void hand_take_loss(struct hand *h, const char *node);
void hand_take_turn(struct hand *h);
void hand_take_free(struct hand *h);

#endif
