/*
 * classify - what a remote reply means for a recipient, and how wide its meaning reaches.
 *
 * The one policy module for mail verdicts. A local failure of ours is never PERM. The default table
 * is RFC 5321 4.2.1 and 4.5.3.1.10 with the practice of big receivers.
 */
#ifndef PROTO_CLASSIFY_H
#define PROTO_CLASSIFY_H

#include "proto/smtp_reply.h"

enum verdict {
    VERDICT_OK,
    VERDICT_TEMP,
    VERDICT_PERM,
    VERDICT_MORE /* too many recipients: send, then go on */
};

enum smtp_stage {
    STAGE_CONNECT,
    STAGE_GREETING,
    STAGE_EHLO,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_DOT,
    STAGE_QUIT,
    STAGE_COUNT
};

/* Who slows down or is to blame. */
enum verdict_scope {
    SCOPE_NONE,       /* nobody */
    SCOPE_RECIPIENT,
    SCOPE_MESSAGE,
    SCOPE_CONNECTION, /* 421: close, reconnect with back-off; no attempt used up */
    SCOPE_HOST,       /* this MX: try the next one */
    SCOPE_PAIR,       /* this lane at this site */
    SCOPE_SITE,
    SCOPE_DOMAIN
};

/* Why an entry is where it is; shown by `why`, `queue`, events. One text each. */
enum reason {
    REASON_NONE, /* new, about to be tried */
    REASON_DELIVERED,
    REASON_CONNECTIONS,  /* all connections of the lane to this site are busy */
    REASON_RATE,         /* message rate of the lane to this site */
    REASON_CONNECT_RATE, /* new connections per time */
    REASON_BACKOFF,      /* the site or host failed; probing later */
    REASON_SUSPENDED,    /* a reply suspended this lane at this site */
    REASON_HELD_LANE,
    REASON_HELD_TENANT,
    REASON_HELD_SITE,
    REASON_HELD_MESSAGE,
    REASON_HELD_ALL,
    REASON_LANE_GONE,      /* the lane is no longer configured here */
    REASON_DNS_WAIT,       /* looking up */
    REASON_DNS_TEMP,       /* 4.4.3 */
    REASON_DNS_NXDOMAIN,   /* 5.1.2 */
    REASON_DNS_NO_ADDRESS, /* 5.4.4 */
    REASON_NULL_MX,        /* 5.1.10 */
    REASON_LOOP,           /* 5.4.6 */
    REASON_CONNECT_FAILED,
    REASON_CONNECT_TIMEOUT,
    REASON_SOURCE_ADDRESS, /* bind failed: ours, no attempt used */
    REASON_CLOSED_BY_PEER,
    REASON_TIMEOUT,
    REASON_PROTOCOL,
    REASON_REMOTE_TEMP,
    REASON_REMOTE_PERM,
    REASON_GREYLISTED,
    REASON_MAILBOX_FULL,
    REASON_POLICY_BLOCK,
    REASON_TOO_BIG,
    REASON_NO_8BIT,
    REASON_NO_UTF8,
    REASON_IN_DOUBT,    /* dot sent, reply lost */
    REASON_EXPIRED,     /* 4.4.7 / 5.4.7 */
    REASON_DELETED,     /* by the operator */
    REASON_DAMAGED,     /* the record does not match its checksum */
    REASON_POISON,      /* killed a worker twice */
    REASON_READ_FAILED, /* the disk did not give the body back: ours */
    REASON_IN_FLIGHT,
    REASON_DRAINING,
    REASON_LASTING, /* 4yz that says trying again soon is useless */
    REASON_ADDRESS, /* the lane is ours, its address is not on this host yet */
    REASON_MOVING,  /* the lane is on its way to another node */
    REASON_STRAY,   /* the lane is another node's: to be handed over */
    REASON_COUNT
};

struct classification {
    enum verdict verdict;
    enum verdict_scope scope;
    enum reason reason;
    struct smtp_enhanced status; /* from the reply, else mapped; never class 0 */
};

/*
 * `after_ok`: an earlier recipient of this transaction was accepted (452/552 at RCPT then means
 * "too many").
 */
void classify_reply(enum smtp_stage stage, const struct smtp_reply *r, bool after_ok,
                    struct classification *out);
/* One short stable word for scripts ("rate", "held-lane"), and a sentence for people. */
const char *reason_word(enum reason r);
const char *reason_text(enum reason r);
const char *stage_word(enum smtp_stage s);
/* "5.1.1" into out[16]. */
void enhanced_format(struct smtp_enhanced e, char out[16]);

#endif
