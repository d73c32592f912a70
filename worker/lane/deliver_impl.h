/* deliver_impl - shared by deliver*.c only. */
#ifndef WORKER_DELIVER_IMPL_H
#define WORKER_DELIVER_IMPL_H

#include "worker/lane/deliver.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/role_impl.h"
#include "worker/lane/shard.h"
#include "worker/lane/site.h"
#include "worker/smtp/client.h"

enum outbound_state {
    OUT_RESOLVING,  /* looking up a host of the path */
    OUT_CONNECTING, /* TCP, greeting, EHLO */
    OUT_IDLE,       /* in flow->idle */
    OUT_READING,    /* content comes from disk */
    OUT_SENDING,    /* with the client */
    OUT_GATED,      /* the dot waits for the fate before it to be durable */
    OUT_CLOSING
};

/* Where to connect: hosts in order of preference (equal ones shuffled), addresses of the current
 * one. */
struct path {
    uint8_t order[LIMIT_MX_HOSTS];
    uint8_t host_count, host; /* host: next to resolve */
    uint8_t ip_count, ip;     /* ip: next to try */
    uint8_t tried;
    struct ip ips[LIMIT_ADDRESSES_TRIED];
    const struct site_host *current;
    enum reason reason; /* of the last failure */
    enum smtp_stage stage;
    char text[256];     /* of the last failure, for people */
    bool all_permanent; /* every host failed with "no such name / no address" */
    bool other_family;  /* only a lane of the other family could reach a host */
};

struct outbound {
    enum outbound_state state;
    struct deliver *deliver;
    struct flow *flow;
    struct outbound *next_idle, **idle_link;
    struct outbound *next, **link; /* all of them */
    struct smtp_client *client;
    struct timer timer; /* idle limit; retry of a local shortage */
    struct dns_query query;
    struct path path;
    struct ip remote;
    uint32_t epoch;                 /* of the lane when it began: its port is of that slice */
    uint32_t transactions;          /* completed on this connection */
    uint64_t opened_ms, started_ms; /* the connection was begun, the transaction */
    uint32_t *more; /* IN_FLIGHT entries the peer wants in another transaction (CLI-06) */
    uint32_t more_count, more_room;
    /* the transaction under way: wiped as one */
    struct job {
        struct msg_id id;
        struct content *content;
        struct enq enq;
        uint32_t *entries; /* entries[i] took part as recipient i; 0 = settled */
        struct span *rcpts;
        uint16_t count;
        uint16_t accepted;
        uint16_t chunk; /* next piece of a chunked body */
    } job;
    uint32_t room; /* of job.entries and job.rcpts */
    uint32_t *entry_room;
    struct span *rcpt_room;
    struct spool_read read;
    struct record_place reading;
    uint8_t *piece; /* chunk under way */
    size_t piece_bytes;
    struct spool_wait fate_wait; /* the DONE before is not durable yet */
    bool fate_pending;
    bool read_pending;
};

struct deliver {
    struct queue *queue;
    struct pool outbounds;
    struct outbound *all;
    uint32_t busy;
    uint32_t idle; /* in the lists of their flows */
    struct dead_host {
        uint64_t until_ms;
        struct ip ip;
        uint16_t lane;
    } dead[1024]; /* addresses that refused a lane lately, direct-mapped */
};

/* deliver_path.c: finding and opening a connection */
void path_begin(struct outbound *o);
/* Tries the next address, resolves the next host, or gives up (outbound_unreachable). */
void path_next(struct outbound *o);
void path_failed(struct outbound *o, enum smtp_stage stage, enum reason reason, struct span text);

/*
 * Tells the master, should we die now, which message is worked on; returns the one before, to be
 * put back. Only around the handling of one event: a message that merely is under way must not be
 * blamed.
 */
static inline struct msg_id work_on(struct queue *q, struct msg_id id)
{
    struct msg_id was = q->env.stats->marker.id;
    q->env.stats->marker.id = id;
    return was;
}

static inline struct lane *outbound_lane(const struct outbound *o)
{
    return &o->deliver->queue->lanes[o->flow->lane];
}
static inline struct queue *outbound_queue(const struct outbound *o)
{
    return o->deliver->queue;
}
/* NULL: it has ended meanwhile, which cannot be while entries of it are in flight. */
static inline struct qmsg *outbound_msg(const struct outbound *o)
{
    return store_find(&o->deliver->queue->store, o->job.id);
}

/* deliver_send.c: what a transaction sends */
/* Entries and content are here: gives them to the client, or settles what the peer cannot take. */
void job_send(struct outbound *o);
/* The content cannot be had for now: its entries wait, without using up an attempt. */
void job_content_lost(struct outbound *o);
/* The same, and the connection is free again; damaged messages are parked. */
void job_content_failed(struct outbound *o, enum reason reason);

/* deliver_job.c: one transaction */
/* Settles the entries still open with one outcome. */
void job_settle(struct outbound *o, enum verdict v, const struct fate_facts *f,
                struct spool_wait *wait);
/* Reads the record at o->reading; on_read comes later. -errno: it does not. */
NODISCARD int job_read(struct outbound *o, const struct qmsg *m,
                       void (*on_read)(struct spool_read *, int, const struct record_view *));
/* Takes the next message of the flow. False: nothing to take. */
bool job_take(struct outbound *o);
/* Goes on with the recipients of the last message that the peer wants in another transaction.
 * False: there are none (any more). */
bool job_take_more(struct outbound *o);
/* They go back to the flow: the connection cannot be used for them. */
void job_return_more(struct outbound *o);
void job_on_rcpt(void *owner, unsigned i, const struct smtp_reply *r);
bool job_on_dot(void *owner);
void job_on_more(void *owner);
void job_on_done(void *owner, enum smtp_stage stage, const struct smtp_reply *r);
/* The connection is gone: entries that are not settled go back or wait. */
void job_broken(struct outbound *o, const struct client_failure *f);
void job_wipe(struct outbound *o);

/* deliver.c */
extern const struct client_events outbound_client_events;
/* Every address failed: back-off, and the next message is told. */
void outbound_unreachable(struct outbound *o, bool permanent);
/* Its lane does not run any more: ends, and blames nobody. */
void outbound_give_up(struct outbound *o);
void outbound_idle(struct outbound *o);
/* The message came to nothing, the connection is as good as before: idle until the next turn, never
 * by recursion. */
void outbound_rest(struct outbound *o);
/* Frees the outbound when nothing refers to it any more: no client, no read, no fate on its way. */
void outbound_release(struct outbound *o);
void outbound_fill_facts(const struct outbound *o, struct fate_facts *f);

#endif
