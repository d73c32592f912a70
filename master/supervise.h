/*
 * supervise - the life of one child process, as a table of states and events.
 *
 * Owner:  whoever embeds the slot (a worker's place in its generation, or the api).
 * Input:  events, with the time in milliseconds of a monotonic clock. A passed deadline is an event
 * as well.
 * Output: what must be done to the process, through slot_ops.
 * Never:  makes a system call, reads a clock, or knows what the process does.
 *
 * Death before READY doubles the back-off (0.1 s to 60 s). Death after READY restarts at once, but
 * only once in SLOT_QUICK_MS; more often than that is a failure like the others.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include "base/check.h"

enum slot_state {
    SLOT_EMPTY,    /* no process, none wanted */
    SLOT_STARTING, /* spawned, not READY yet */
    SLOT_READY,
    SLOT_DRAINING, /* told to finish and leave */
    SLOT_KILLING,  /* signalled, not yet reaped */
    SLOT_BACKOFF,  /* no process; the next one at the deadline */
    SLOT_STATE_COUNT
};
enum slot_event {
    SLOT_EV_SPAWN,
    SLOT_EV_READY,
    SLOT_EV_RECOVERED, /* holds its shards */
    SLOT_EV_EXIT,      /* reaped */
    SLOT_EV_TIMEOUT,   /* the deadline passed */
    SLOT_EV_STOP,      /* leave now; not wanted any more */
    SLOT_EV_DRAIN,     /* finish and leave; not wanted any more */
    SLOT_EV_BAD_FRAME, /* broke the protocol: costs its life */
    SLOT_EV_COUNT
};
enum {
    SLOT_READY_MS = 30 * 1000,
    SLOT_RECOVER_MS = 600 * 1000,
    SLOT_TERM_MS = 2000,  /* between SIGTERM and SIGKILL */
    SLOT_GRACE_MS = 1000, /* over the drain's own deadline, which the child keeps itself */
    SLOT_QUICK_MS = 10 * 1000,
    SLOT_BACKOFF_MS_MIN = 100,
    SLOT_BACKOFF_MS_MAX = 60 * 1000,
};

struct slot;
struct slot_ops {
    int (*spawn)(struct slot *s); /* 0 or -errno */
    void (*drain)(struct slot *s, uint32_t seconds);
    void (*signal)(struct slot *s, int number);
    void (*ready)(struct slot *s);
    void (*recovered)(struct slot *s);
    /* The process is gone; `asked`: by our will. */
    void (*gone)(struct slot *s, bool asked);
    /* There will be no process for so long. */
    void (*waits)(struct slot *s, uint64_t delay_ms);
};

struct slot {
    const struct slot_ops *ops;
    char name[24]; /* for the log */
    enum slot_state state;
    bool wanted;       /* a process that dies is replaced */
    bool must_recover; /* RECOVERED is expected after READY */
    bool recovered;
    bool asked;        /* to leave, or killed by us */
    uint32_t drain_s;  /* for the next DRAIN */
    uint32_t failures; /* in a row: sets the back-off */
    uint32_t restarts; /* since the master started */
    uint32_t ready_ms_max, recover_ms_max;
    uint64_t deadline_ms; /* 0 = none */
    uint64_t spawned_ms, ready_ms, late_death_ms;
    char last_exit[96]; /* written by the owner before SLOT_EV_EXIT */
};

void slot_init(struct slot *s, const struct slot_ops *ops, const char *name);
/* The one function that writes the state. */
void slot_event(struct slot *s, enum slot_event e, uint64_t now_ms);
/* Is there a process? */
bool slot_has_process(const struct slot *s);
/* Is there one that is at work: READY, or finishing? */
bool slot_serves(const struct slot *s);
uint64_t slot_backoff_ms(uint32_t failures);
const char *slot_state_word(enum slot_state s);
const char *slot_event_word(enum slot_event e);

#endif
