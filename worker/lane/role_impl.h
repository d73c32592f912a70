/* role_impl - shared by role*.c, and by the rest of worker/lane where it follows a role. */
#ifndef WORKER_ROLE_IMPL_H
#define WORKER_ROLE_IMPL_H

#include "worker/lane/role.h"

/* ROLE_BUG=n builds roles with one rule broken: the walks of test_role must find each. */
#ifndef ROLE_BUG
#define ROLE_BUG 0
#endif

/* What role_turn does to the entries of a lane, in slices. */
enum role_sweep {
    SWEEP_NONE,
    SWEEP_GIVEN, /* lets go what the new owner has */
    SWEEP_DROP,  /* lets go of a copy */
    SWEEP_OWN,   /* places what was a copy, and strays */
    SWEEP_BACK   /* places strays of a lane that was frozen and is not given away */
};

/* In qentry.flow of a stray: it is to be held at the lane's owner. */
enum { STRAY_HELD = 1 };

struct roles {
    struct role_events events;
    struct role_change *wanted;            /* what the master says, where the log is behind */
    struct role_change *done, **done_tail; /* on_done is to be called */
    uint32_t sweeping;                     /* lanes with a sweep */
    uint32_t at;                           /* entry looked at last */
    bool say;                              /* a lane has say_stray or say_tails */
    bool recovering;
};

NODISCARD int roles_create(struct roles **out);

/* Epoch that records of mail for this lane carry now. */
static inline uint32_t role_mail_epoch(const struct lane *l)
{
    return l->role == LANE_OWNER ? l->epoch : l->epoch + 1;
}
/* Is a message that was written with `epoch` late for its lane as that is now? */
static inline bool role_is_late(const struct lane *l, uint32_t epoch)
{
    return l->role != LANE_OWNER && (l->role != LANE_FROZEN || epoch > l->epoch);
}
/* Appends what the lane is from here on; c->wait hears of it. */
NODISCARD int role_mark(struct lane *l, enum record_type type, const struct lane_logged *to,
                        struct role_change *c);
/* A replica's place among its kind changes: what it will be when the lane is ours. */
void role_replica_becomes(struct lane *l, struct qentry *e, enum rcpt_state s);
/* Entries into and out of the states that a lane counts. */
void role_count(struct lane *l, struct qentry *e, enum entry_state s, int sign);
/* The entry was, or was not, open when its lane was frozen. */
void role_set_tail(struct lane *l, struct qentry *e, bool tail);
/* 0, or why no copy of this message can be taken now. */
NODISCARD int replica_admit(struct queue *q, const struct lane *l, struct msg_id id);
/* What is here under this id makes room for the owner's copy. */
void replica_replace(struct queue *q, struct msg_id id);
/* role_sweep.c: all entries of the lane are met from here on; and a slice of it, of all lanes. */
void role_sweep_begin(struct queue *q, struct lane *l, enum role_sweep sweep);
void role_sweep(struct queue *q);
/* A connection of the lane has ended. */
void role_outbound_gone(struct queue *q, struct lane *l);
/* A DONE is decided for this entry. */
void role_on_done(struct queue *q, struct lane *l, const struct qentry *e);
/* Takes the entry out of the index; nothing is recorded. */
void role_let_go(struct queue *q, struct qentry *e);
/* The state an entry is written with in a copy of its message. */
enum rcpt_state role_written_state(const struct qentry *e);

#endif
