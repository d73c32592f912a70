/*
 * fates - what becomes of a recipient after an attempt: recorded in the log, said in an event,
 * applied to the index.
 *
 * The one place where an outcome turns into DONE, DEFER or another wait. A local failure of ours
 * uses up no attempt.
 */
#ifndef WORKER_FATES_H
#define WORKER_FATES_H

#include "worker/lane/queue.h"

/* What is known about one outcome; spans are borrowed for the call. */
struct fate_facts {
    enum reason reason;
    enum smtp_stage stage;
    struct smtp_enhanced status;
    struct span reply;       /* remote reply in full, or own diagnostic */
    struct span mx;          /* remote host name */
    struct ip local, remote; /* zero: none */
    bool ours;               /* no attempt was used up */
    struct span sender;      /* when known, for the event */
};

/* Called when the DONE of a delivery is durable; embedded in the connection that waits to send the
 * next dot. */
struct spool_wait;

/* Entries of one message with one outcome. */
struct fate_set {
    struct qentry **entries;
    const struct span *rcpts; /* their addresses, or NULL when not known here */
    unsigned count;
};
/*
 * Ends an attempt for a set. Its entries must be IN_FLIGHT or NEW. OK: delivered; PERM: bounced;
 * TEMP: deferred by the schedule, or expired. `wait` (may be NULL) is called back when a DONE is
 * durable; returns true when it will be.
 */
bool fates_apply(struct queue *q, const struct fate_set *set, enum verdict verdict,
                 const struct fate_facts *f, struct spool_wait *wait);
/* One entry, an outcome found here (lookup failed, no route, no lane). */
void fates_local(struct queue *q, struct qentry *e, enum verdict verdict,
                 const struct fate_facts *f);
/* Ends an entry in any state but IN_FLIGHT (that one: when its attempt ends): expired or deleted.
 */
void fates_end(struct queue *q, struct qentry *e, enum fate fate, const struct fate_facts *f);
/* The operator wants it tried now: not IN_FLIGHT, not BOUNCE_DUE; a doubt of a crash is settled by
 * this. */
void fates_try_again(struct queue *q, struct qentry *e);
/*
 * Puts an IN_FLIGHT entry back into its flow without using up an attempt: at the front when it was
 * just unlucky, at the end when its own try may be what the peer did not like.
 */
void fates_return(struct queue *q, struct qentry *e, bool front);
/*
 * Seconds until the next attempt after `attempts` failed ones (>= 1), never 0. The jitter comes
 * from `dice`: with the same dice the same wait.
 */
uint64_t retry_wait_s(const struct config *c, bool transactional, unsigned attempts,
                      enum reason reason, uint32_t dice);

#endif
