/*
 * spool_record - layout of the records in a shard's log. No I/O.
 *
 * A record is a fixed head, then the meta part (envelope, fate, ...), then the rest (trace field,
 * body, remote reply). Two checksums: one over head and meta, one over the rest, so that the index
 * at the end of a sealed segment holds heads and metas that prove themselves without their bodies.
 * All integers little-endian; records begin at multiples of 8.
 *
 * Every record carries lane, epoch and lane position: replication and moves read the same log.
 */
#ifndef PROTO_SPOOL_RECORD_H
#define PROTO_SPOOL_RECORD_H

#include "base/id.h"
#include "base/net.h"
#include "proto/limits.h"

enum record_type {
    RECORD_BATCH = 1, /* head of a commit; private to the spool */
    RECORD_ENQ,       /* a message: envelope + trace + body, or references to body chunks */
    RECORD_BODY,      /* a chunk of a large body; precedes its ENQ */
    RECORD_DOT,       /* the final dot is about to be sent */
    RECORD_DONE,      /* fate of recipients */
    RECORD_DEFER,     /* an attempt failed for now: attempt count, next time, last reply */
    RECORD_STATE,     /* throttles, back-off, warm-up, reputation of a lane (opaque) */
    RECORD_OWN,
    RECORD_FROZEN,
    RECORD_GIVEN,
    RECORD_TAIL,   /* moves */
    RECORD_LEDGER, /* totals of the shard at the start of a segment */
    RECORD_INDEX,  /* footer of a sealed segment; private to the spool */
    RECORD_READY,   /* a replica holds everything of its owner */
    RECORD_REPLICA, /* a copy of the lane begins here */
    RECORD_AWAY,    /* the lane is another node's; a copy of it that was here is dropped */
    RECORD_ADOPTED, /* ids of messages that other nodes may hand over again */
    RECORD_TYPE_COUNT
};

struct record_head {
    uint8_t type;
    uint8_t flags;
    uint32_t bytes;      /* whole record, head included, without padding */
    uint32_t meta_bytes; /* head + meta: what the index keeps */
    uint32_t lane;       /* 0: concerns the shard */
    uint32_t epoch;
    uint32_t salt;     /* secret of the shard: what a hostile body holds cannot pass for a record */
    uint64_t position; /* of the lane, 1, 2, ...; 0 for the shard's own */
    uint64_t segment;  /* id of the segment it was written to */
    uint64_t sequence; /* of the shard, +1 a record */
};
enum { RECORD_HEAD_BYTES = 56 };

/* Where a record is. */
struct record_place {
    uint64_t segment;
    uint32_t offset;
    uint32_t bytes;
};

/* Writes a head with both checksums: meta and rest as they will follow it. */
void record_head_write(uint8_t out[RECORD_HEAD_BYTES], const struct record_head *h,
                       struct span meta, const struct span *rest, unsigned rest_count);
/* Reads and checks ranges, not the checksums. -EBADMSG when it cannot be a head. */
NODISCARD int record_head_read(struct span in, struct record_head *out);
/* `in` begins with the head and holds at least meta_bytes / bytes. */
bool record_meta_ok(struct span in);
bool record_rest_ok(struct span in);

/* --- ENQ --- */
enum enq_flags {
    ENQ_8BIT = 1,          /* body holds octets above 127 */
    ENQ_UTF8_ENVELOPE = 2, /* a path needs SMTPUTF8 */
    ENQ_UTF8_HEADER = 4,
    ENQ_LONG_LINES = 8,    /* a line above 998 octets */
    ENQ_COPY = 16,         /* written by compaction: replaces the earlier one */
    ENQ_BODY_8BITMIME = 32, /* BODY=8BITMIME was given */
    ENQ_TAKEN_OVER = 64     /* from another shard, not from a client */
};
/* State of one recipient in the queue, as written by ENQ (new or copied). */
enum rcpt_state {
    RCPT_QUEUED,
    RCPT_BOUNCE_DUE, /* failed for good; the DSN is still owed */
    RCPT_HELD,       /* this message held by the operator */
    RCPT_PARKED,     /* poison or damaged: not tried, reported */
    RCPT_TAIL,       /* its attempt is still open at the last owner of the lane */
    RCPT_STATE_COUNT
};
/* Fate of one recipient: exactly one is recorded. */
enum fate {
    FATE_NONE,
    FATE_DELIVERED,
    FATE_BOUNCED,
    FATE_EXPIRED,
    FATE_DELETED,
    FATE_HANDED_OVER,
    FATE_COUNT
};

struct enq_rcpt {
    uint16_t index; /* within the message as accepted: part of the delivery id */
    uint8_t state;  /* enum rcpt_state */
    uint8_t reason; /* enum reason */
    bool open;      /* was in flight here when its lane was frozen */
    uint16_t attempts;
    uint64_t due_unix_s; /* next attempt, 0 = now */
    struct span address; /* local@domain as given */
    struct span orcpt;   /* RFC 3461 parameters as given, may be empty */
    struct span notify;
};
struct enq_chunk {
    struct record_place place;
    uint32_t body_bytes;
};
struct enq {
    struct msg_id id;
    uint64_t received_unix_ms;
    uint32_t lifetime_s;
    uint8_t class_;      /* 0 bulk, 1 transactional */
    uint16_t flags;      /* enum enq_flags */
    uint32_t dots;       /* stuffed dots: raw bytes = body_bytes - dots */
    uint64_t body_bytes; /* wire form, without trace and final dot */
    uint32_t
        trace_bytes; /* the rest begins with the trace field; then the body when chunk_count == 0 */
    struct ip client;
    struct span tenant; /* name */
    struct span helo;
    struct span sender;     /* address, empty for <> */
    struct span envid, ret; /* RFC 3461 */
    uint16_t rcpt_count;
    struct span rcpts; /* encoded: enq_rcpt_next */
    uint16_t chunk_count;
    struct span chunks; /* encoded: enq_chunk_next */
    struct span handed_by; /* node that handed it over to us as the lane's owner; empty: none */
};
/* Meta of an ENQ without recipients and chunks ... */
void enq_put(struct writer *w, const struct enq *e);
/* ... followed by exactly rcpt_count recipients, then chunk_count chunks. */
void enq_put_rcpt(struct writer *w, const struct enq_rcpt *r);
void enq_put_chunk(struct writer *w, const struct enq_chunk *c);
NODISCARD int enq_read(struct span meta, struct enq *out);
/* Of an ENQ that another node wrote: may it be in our log? Its rest, rest_bytes long, is what the
   envelope announces, addresses fit a command, no recipient comes twice. */
bool enq_is_sound(const struct enq *e, uint64_t rest_bytes);
/* Walks e->rcpts / e->chunks (copy the span first): false at the end. enq_read has checked them. */
bool enq_rcpt_next(struct span *rcpts, struct enq_rcpt *out);
bool enq_chunk_next(struct span *chunks, struct enq_chunk *out);

/* --- BODY: meta is the message id; the rest is the chunk. --- */
void body_put(struct writer *w, struct msg_id id, uint32_t ordinal);
NODISCARD int body_read(struct span meta, struct msg_id *id, uint32_t *ordinal);

/* --- DOT, DONE, DEFER: one outcome for a set of recipients of one message --- */
struct outcome {
    struct msg_id id;
    uint8_t fate;    /* DONE */
    uint8_t reason;  /* enum reason */
    bool bounce_due; /* DONE with FATE_BOUNCED or FATE_EXPIRED: a DSN is owed, keep the message */
    uint16_t attempts;
    uint64_t at_unix_ms;
    uint64_t due_unix_s;     /* DEFER: next attempt */
    struct ip local, remote; /* zero when none */
    struct span remote_name;
    uint16_t count;
    struct span indices; /* count x u16, little-endian */
    struct span
        reply; /* the rest of the record: remote reply or own diagnostic; not in the index */
};
/* Meta only; the reply is passed as the rest. */
void outcome_put(struct writer *w, const struct outcome *o);
NODISCARD int outcome_read(struct span meta, struct outcome *out);
static inline uint16_t outcome_index(const struct outcome *o, unsigned i)
{
    return (uint16_t)(o->indices.p[2 * i] | o->indices.p[2 * i + 1] << 8);
}

/* --- LEDGER: recipients of this shard since it was made; accepted = sum of fates + queued, always.
 * --- */
struct ledger {
    uint64_t accepted, delivered, bounced, expired, deleted, handed_over;
    uint64_t taken_over; /* of accepted: came from another shard or node, not from a client */
};
void ledger_put(struct writer *w, const struct ledger *l);
NODISCARD int ledger_read(struct span meta, struct ledger *out);

/*
 * OWN, FROZEN, GIVEN, READY, REPLICA, AWAY: what this node is to the lane from here on; the epoch
 * stands in the head. As a snapshot it is always RECORD_OWN, repeats what earlier records said, and
 * counts nothing.
 */
struct lane_mark {
    uint8_t role;   /* enum lane_role */
    bool snapshot, ready;
    uint32_t given; /* messages of a smaller epoch are not ours any more; 0: never given */
    uint64_t move;
    uint64_t count;   /* OWN: recipients taken over; GIVEN: handed over */
    /* owner, or target while frozen; of OWN: who owned it before and may have tails, or empty */
    struct span node;
};
void lane_mark_put(struct writer *w, const struct lane_mark *m);
NODISCARD int lane_mark_read(struct span meta, struct lane_mark *out);

/* --- TAIL: recipients whose attempts are open, here or at the last owner --- */
struct tail_list {
    bool there; /* at the last owner: the lane is a replica */
    bool first; /* earlier lists of the lane are void */
    uint16_t count;
    struct span items; /* encoded: tail_next */
};
enum { TAIL_LIST_ITEMS = 1000 /* a record; more go into several */ };
void tail_list_put(struct writer *w, const struct tail_list *t);
/* ... followed by exactly count items. */
void tail_put(struct writer *w, struct msg_id id, uint16_t index);
NODISCARD int tail_list_read(struct span meta, struct tail_list *out);
/* Walks t->items (copy the span first): false at the end. */
bool tail_next(struct span *items, struct msg_id *id, uint16_t *index);

#endif
