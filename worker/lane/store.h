/*
 * store - the queue's index in memory: messages and, per recipient, entries.
 *
 * Owner:  the worker's queue. Everything is named by 32-bit indices into pools that grow by
 *         touching pages; a queued message with one recipient costs about 120 bytes, the id table
 *         included.
 * Never:  does I/O; the log is the truth, this is what recovery rebuilds from it.
 */
#ifndef WORKER_STORE_H
#define WORKER_STORE_H

#include "base/pool.h"
#include "base/table.h"
#include "proto/spool_record.h"

struct content;

/* Where an entry is: exactly one of these. */
enum entry_state {
    ENTRY_FREE,       /* no entry: an unused place of the pool */
    ENTRY_NEW,        /* not placed yet */
    ENTRY_RESOLVING,  /* in its domain's list until the MX set is known */
    ENTRY_READY,      /* in a fair queue of its flow */
    ENTRY_WAITING,    /* in the due wheel until its next attempt */
    ENTRY_IN_FLIGHT,  /* with a connection */
    ENTRY_HELD,       /* this message is held by the operator */
    ENTRY_PARKED,     /* damaged or poisoned: reported, not tried */
    ENTRY_BOUNCE_DUE, /* failed for good; the notification is owed */
    ENTRY_STRAY,      /* its lane is another node's: in a list of its lane until handed over */
    ENTRY_REPLICA,    /* copied from the lane's owner: not ours, in no list, not counted */
    ENTRY_TAIL,       /* ours but for its attempt, which is still open at the lane's last owner */
    ENTRY_STATE_COUNT
};
const char *entry_state_word(enum entry_state s);

/* In qmsg.flags, beside the low bits of enum enq_flags (ENQ_COPY is never set there). */
enum {
    MSG_SENT = 16,  /* the replica of its lane has it, or it is on its way there */
    MSG_LATE = 64,  /* came after the lane was frozen, or to a lane that is away: epoch + 1 */
    MSG_NULL_SENDER = 128
};

struct qmsg {
    struct msg_id id;
    uint64_t content_bits;  /* struct content *, or 0 when the bytes are on disk only */
    uint32_t segment, offset, bytes; /* of the ENQ record */
    uint32_t received_s;    /* unix */
    uint32_t expires_s;     /* unix */
    uint32_t first;         /* first entry */
    uint32_t raw_bytes;     /* size as SIZE= wants it, capped at 2^32-1 */
    /* index of the places of a chunked body (shard), 0 = the body is in the record */
    uint32_t chunks;
    uint16_t lane;          /* index of the lane in the worker's table */
    uint16_t tenant;        /* interned name */
    uint16_t live;          /* entries that still exist */
    uint8_t class_;
    uint8_t flags;          /* low bits of enum enq_flags */
};

struct qentry {
    uint32_t msg;
    uint32_t sibling;       /* next entry of the same message, 0 = last */
    uint32_t next, prev;    /* within the list of its state */
    uint32_t domain;
    uint32_t flow;          /* READY and IN_FLIGHT: the (lane, site) pair; STRAY: role_impl.h */
    uint32_t due_s;         /* unix; WAITING */
    uint16_t index;         /* recipient index: with the message id, the delivery id */
    uint16_t attempts;
    uint16_t reply;         /* interned last reply, 0 = none */
    uint8_t state;          /* enum entry_state */
    uint8_t reason;         /* enum reason */
    uint8_t in_doubt;       /* the log holds a DOT and no outcome behind it */
    /* in flight: end as this fate (enum fate) instead of queueing again; REPLICA: its enum
       rcpt_state there; STRAY: 1 while it is being handed over */
    uint8_t cancel;
    uint8_t tail;           /* was in flight when its lane was frozen: not part of what was given */
};

struct qlist {
    uint32_t head, tail, count;
};

struct store {
    struct pool msgs, entries;
    struct table by_id;
    uint32_t added_last;    /* the entry added last, 0 when it has gone */
};

/* Room for entries_max entries and as many messages. 0 or -ENOMEM. */
NODISCARD int store_init(struct store *s, uint32_t entries_max);
void store_fini(struct store *s);

static inline struct qmsg *store_msg(const struct store *s, uint32_t i)
{
    return pool_at(&s->msgs, i);
}
static inline struct qentry *store_entry(const struct store *s, uint32_t i)
{
    return pool_at(&s->entries, i);
}
static inline uint32_t store_entry_index(const struct store *s, const struct qentry *e)
{
    return pool_index(&s->entries, e);
}
/* What a copy of the message has to carry, about. */
static inline uint32_t store_msg_bytes(const struct qmsg *m)
{
    return m->chunks != 0 && m->raw_bytes > m->bytes ? m->raw_bytes : m->bytes;
}
static inline struct content *msg_content(const struct qmsg *m)
{
    return (struct content *)(uintptr_t)m->content_bits;
}

/* NULL: full. The id must be new. */
struct qmsg *store_add(struct store *s, struct msg_id id);
/* Appends an entry to the message, in order of index; NULL: full. */
struct qentry *store_add_entry(struct store *s, struct qmsg *m, uint16_t index);
struct qmsg *store_find(const struct store *s, struct msg_id id);
struct qentry *store_find_entry(const struct store *s, const struct qmsg *m, uint16_t index);
/* Unlinks the entry from its message and frees it; it must be in no list. True: it was the last,
   the message is to be removed. */
bool store_drop_entry(struct store *s, struct qentry *e);
/* The message must have no entries left and no body. */
void store_remove(struct store *s, struct qmsg *m);

/* The entry at place i of the pool if there is one: for sweeps over 1..store_entry_end()-1. */
struct qentry *store_peek(const struct store *s, uint32_t i);
static inline uint32_t store_entry_end(const struct store *s)
{
    return s->entries.touched + 1;
}

/* Lists of entries by index. */
void qlist_push(const struct store *s, struct qlist *l, struct qentry *e);
void qlist_push_front(const struct store *s, struct qlist *l, struct qentry *e);
void qlist_remove(const struct store *s, struct qlist *l, struct qentry *e);
struct qentry *qlist_first(const struct store *s, const struct qlist *l);

#endif
