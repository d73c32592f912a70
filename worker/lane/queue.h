/*
 * queue - the delivery side of a worker: lanes, sites, flows and the entries that wait in them.
 *
 * Owner:  the worker; one per process. The structs are open to worker/lane only; others use
 *         queue_*(), shard_*() and lane_*().
 * Input:  messages from intake and recovery, outcomes from deliveries, holds and commands of the
 *         operator, time.
 * Never:  speaks SMTP; forgets an entry without a fate; tries an entry that is held, parked or
 *         expired.
 */
#ifndef WORKER_QUEUE_H
#define WORKER_QUEUE_H

#include "base/rng.h"
#include <stdio.h>
#include "config/config.h"
#include "proto/classify.h"
#include "proto/control.h"
#include "proto/stats.h"
#include "worker/events.h"
#include "worker/io/dns.h"
#include "worker/io/wheel.h"
#include "worker/lane/content.h"
#include "worker/lane/due.h"
#include "worker/lane/store.h"

struct shard;
struct deliver;

struct lane {
    uint32_t number;      /* stable, from the control state; in every record */
    uint32_t epoch;
    uint64_t position;    /* of the last record written */
    uint16_t index;       /* here */
    uint16_t pool;
    uint32_t shard_no;
    uint32_t owner;       /* worker slot */
    struct shard *shard;  /* NULL: owned by another worker */
    struct ip address;
    uint32_t weight;
    bool gone;            /* in the log, but not in the configuration any more */
    bool held;
    uint32_t queued;
    uint64_t bytes, bytes_so_far; /* of its messages: by the last sweep; by the one under way */
    char ehlo[LIMIT_DOMAIN_BYTES + 1];
    char nic[16];
    char name[IP_TEXT];
    struct stats_lane *stats;
    /* --- between nodes: role.h --- */
    enum lane_role role;
    bool run;               /* owner: the address is here */
    bool copying;           /* the hooks of queue.copy_hooks hear of it */
    bool ready;             /* replica: READY(epoch) is durable */
    char node[LIMIT_NAME_BYTES + 1]; /* owner, or target while frozen; "": this node */
    uint32_t node_slot;     /* worker there, CONTROL_NO_SLOT: not known */
    uint64_t move;
    uint32_t tails;         /* in flight here in a lane that is frozen or away */
    uint32_t replicas;      /* ENTRY_REPLICA here */
    struct qlist tails_there; /* ENTRY_TAIL here */
    /* node at which they are open: who owned the lane before; must outlive a restart */
    char given_by[LIMIT_NAME_BYTES + 1];
    uint32_t bounces;       /* ENTRY_BOUNCE_DUE */
    struct qlist strays;    /* ENTRY_STRAY, oldest first */
    struct qlist handing;   /* ENTRY_STRAY under way to the owner */
    uint8_t sweep;          /* slices of a change of role; private to role*.c from here ... */
    bool sweep_wrapped;
    uint32_t sweep_from;
    struct role_change *change; /* appended, not durable */
    struct lane_logged {        /* what the log says, durable or not */
        enum lane_role role;    /* 0: nothing */
        uint32_t epoch;
        uint32_t given;         /* what is older than this epoch was given away */
        uint64_t move;
        char node[LIMIT_NAME_BYTES + 1];
        bool ready;
        uint8_t lists, given_list;   /* recovery: lists of tails seen, up to the last GIVEN */
        struct record_place dropped; /* of the last AWAY: copies before it are void */
    } logged;
    /* ... to here */
    uint32_t outbounds;     /* connections that exist, in any role */
    uint32_t outbounds_old; /* of them: of an epoch before the last OWN */
    struct qlist open_tails; /* with tail = 1: IN_FLIGHT, or held or parked since */
    uint32_t replica_bounces; /* of replicas: those that only owe a notification */
    bool say_stray, say_tails; /* role_turn tells of it */
    uint8_t *state;         /* what the last owner told of its flows: flow_state.h */
    uint32_t state_bytes;
    struct flow_memory *memory; /* the same by site, until it is used; private to flow_state.c */
};

struct tenant {
    char name[LIMIT_NAME_BYTES + 1];
    uint16_t pool;
    uint8_t class_;
    uint8_t in_doubt;     /* enum in_doubt_policy */
    uint32_t weight;
    uint32_t lifetime_s;
    uint32_t queued;
    bool held;
    bool gone;
};

/* A destination as throttled: a normalised MX set, or one route. */
struct site_host {
    uint16_t preference;
    char name[LIMIT_DOMAIN_BYTES + 1];
};
struct site {
    char *key;            /* host names by preference and alphabet, or route */
    const char *provider; /* or NULL */
    const struct config_limits *limits;
    const struct config_route *route; /* or NULL: by MX */
    struct site_host *hosts;
    uint16_t host_count;
    uint16_t port;
    uint8_t family;
    bool held;
    bool literal;         /* the only host is an address */
    uint32_t flows;       /* that exist for it */
};

enum domain_state { DOMAIN_NEW, DOMAIN_ASKING, DOMAIN_KNOWN };
struct domain {
    char *name;           /* lower case, A-labels */
    uint32_t site;
    uint32_t entries;     /* that name it */
    enum domain_state state;
    bool held;
    uint64_t fresh_until_ms;  /* monotonic */
    uint32_t delivered_s;     /* unix; the last success, 0 = none seen */
    uint32_t gone_s;          /* unix; NXDOMAIN since, 0 = it exists */
    struct qlist resolving;
    struct dns_query query;
    struct queue *queue;
};

/* Entries of one tenant and class within one flow. */
struct share {
    uint32_t flow;
    uint32_t next, prev;  /* ring of the active shares of this flow and class */
    uint16_t tenant;
    uint8_t class_;
    int32_t deficit;
    struct qlist list;
};

/* One lane at one site: what is limited, backed off, suspended. */
struct flow {
    uint32_t site;
    uint16_t lane;
    uint8_t why;           /* enum reason: what binds right now */
    bool marked;           /* stands in the list of flows to run */
    uint32_t next_marked;
    uint32_t ring[2];      /* active shares by class, 0 = none */
    uint32_t ready[2];     /* entries by class */
    /* runs of neighbours of one message and domain: transactions they make, about */
    uint32_t jobs;
    uint32_t in_flight;
    uint32_t opening, open;   /* connections */
    uint32_t closing;         /* that the peer may still count as ours */
    uint32_t failures;        /* connects in a row that failed */
    uint32_t complaints;      /* replies in a row that concern this lane at this site */
    uint64_t failed_ms, complained_ms; /* when the last of them was */
    uint8_t turns;            /* for the share of the transactional class */
    uint16_t last_reply;
    uint64_t backoff_until_ms;
    uint64_t suspended_until_ms;
    double message_tokens, connect_tokens;
    uint64_t tokens_at_ms;
    struct timer timer;
    struct outbound *idle;    /* connections that wait for work */
    struct queue *queue;
};

struct note_facts;
/* Who copies lanes hears of what changes in them; called for lanes with `copying`. */
struct copy_hooks {
    void *ctx;
    /* A message is durable and in the index (not a late one). */
    void (*on_message)(void *ctx, struct lane *l, struct qmsg *m);
    /* An outcome (DONE, DEFER; not DOT) is being recorded; the entries still exist. */
    void (*on_outcome)(void *ctx, struct lane *l, const struct note_facts *n);
};

struct queue_env {
    const struct config *config;
    struct io *io;
    struct wheel *wheel;
    struct dns *dns;          /* NULL: no lookups, static routes only */
    struct stats_page *stats;
    struct events *events;
    struct rng *rng;
};

/* The last choices of a lane: a logarithm for each of thousands of lanes is too much for each
   recipient. */
struct route_memo {
    uint32_t key;
    uint32_t version;     /* of the lanes and their holds, 0 = empty */
    uint16_t pool, lane;
};
enum { ROUTE_MEMOS = 4096 };

struct queue {
    struct queue_env env;
    struct store store;
    struct due due;
    struct route_memo memos[ROUTE_MEMOS];
    uint32_t lanes_version;      /* counts changes of what makes a lane eligible */
    struct lane *lanes;
    uint32_t lane_count;
    struct tenant *tenants;
    uint32_t tenant_count;
    struct table tenant_by_name; /* index + 1 */
    struct pool domains, sites, flows, shares;
    uint32_t domain_hand;        /* where the search for unused domains goes on */
    uint32_t domains_pinned;     /* queries that name domains by index are under way */
    struct table domain_by_name, site_by_key, flow_by_pair, share_by_key, lane_by_number,
        lane_by_address;
    char **replies;           /* interned last replies, index 0 unused */
    uint32_t reply_count;
    struct table reply_by_text;
    uint32_t marked;          /* flows to run this turn */
    struct control_hold *holds;
    uint32_t hold_count;
    bool held_all;
    bool held_some;           /* single messages are held */
    bool draining;
    /* of contents kept for a first attempt; here, as the stats page may have a second writer */
    uint64_t cache_bytes;
    bool paused;              /* the spool cannot record outcomes: no new attempts */
    uint32_t hold_sweep_at;   /* next entry to be told of a change of holds, 0 = none */
    uint32_t sweep_at;        /* next entry the expiry sweep looks at */
    uint64_t sweep_ms;
    struct msg_id *poison;
    uint32_t poison_count;
    /* Takes an entry whose lane is gone to another shard: true when it did, or will. NULL: nobody
       can. */
    bool (*take_away)(void *ctx, struct qentry *e);
    void *take_away_ctx;
    struct copy_hooks copy_hooks; /* on_message NULL: none */
    struct adopted *adopted;      /* messages taken from other nodes: adopted.h; NULL: none */
    uint64_t owed_out;            /* recipients given away, still to be let go from the index */
    uint64_t owed_in;             /* recipients taken over, still ENTRY_REPLICA until placed */
    struct roles *roles;          /* role.c */
    struct deliver *deliver;
    struct shard *shards[LIMIT_WORKERS];
    uint32_t shard_count;
    struct chunk_list *chunk_lists; /* places of chunked bodies, by index */
    uint32_t chunk_list_count, chunk_list_free;
    uint32_t counts[ENTRY_STATE_COUNT];
};

NODISCARD int queue_init(struct queue *q, const struct queue_env *env);
void queue_fini(struct queue *q);
/* Once a turn: due entries, expiry, marked flows. */
void queue_turn(struct queue *q);
/* Milliseconds until queue_turn has something to do, at most max. */
uint64_t queue_next_ms(const struct queue *q, uint64_t max);
uint64_t queue_now_ms(const struct queue *q);     /* monotonic */
uint32_t queue_now_unix_s(const struct queue *q);

/* The operator's holds, all of them; what is no longer held goes on. */
void queue_set_holds(struct queue *q, const struct control_hold *holds, uint32_t count);

/* Once a turn: tells some entries of the last change. */
void holds_turn(struct queue *q);

/* --- placing entries (queue.c) --- */
/* Files an entry where its state, due time and holds want it. The entry must be ENTRY_NEW. */
void entry_place(struct queue *q, struct qentry *e);
/* Takes the entry out of whatever list it is in: ENTRY_NEW again. Not for IN_FLIGHT. */
void entry_unlist(struct queue *q, struct qentry *e);
void entry_set_state(struct queue *q, struct qentry *e, enum entry_state s);
/* Waits until due_s (unix) for `reason`. */
void entry_wait(struct queue *q, struct qentry *e, uint32_t due_s, enum reason reason);
/* The entry ends here: counts, message, content, index. It must be ENTRY_NEW or IN_FLIGHT. */
void entry_end(struct queue *q, struct qentry *e);
struct lane *entry_lane(const struct queue *q, const struct qentry *e);
/* Its lifetime is over: expired, or when its attempt ends if it is IN_FLIGHT. */
void entry_expire(struct queue *q, struct qentry *e);
uint32_t expiry_cap(uint32_t received_s, uint32_t lifetime_s);

/* --- tables (tables.c) --- */
/* Interns; 0 when the pool is exhausted. */
uint32_t domain_intern(struct queue *q, struct span name);
/* Forgets up to `want` domains that no entry names; a bounded step. */
void domains_evict(struct queue *q, uint32_t want);
/* Can so many new domains be interned? Forgets unused ones for it. */
bool domains_have_room(struct queue *q, uint64_t count);
uint16_t tenant_intern(struct queue *q, struct span name);
uint16_t reply_intern(struct queue *q, struct span text);
const char *reply_text(const struct queue *q, uint16_t i);
struct lane *lane_by_number(struct queue *q, uint32_t number);
struct lane *lane_by_address(struct queue *q, const struct ip *a);
/* A lane that records name but the configuration does not: kept so that its mail is seen and can be
   re-routed. */
struct lane *lane_add_gone(struct queue *q, uint32_t number);
struct flow *flow_for(struct queue *q, uint16_t lane, uint32_t site);

static inline struct domain *domain_at(const struct queue *q, uint32_t i)
{
    return pool_at(&q->domains, i);
}
static inline struct site *site_at(const struct queue *q, uint32_t i)
{
    return pool_at(&q->sites, i);
}
static inline struct flow *flow_at(const struct queue *q, uint32_t i)
{
    return pool_at(&q->flows, i);
}
static inline struct share *share_at(const struct queue *q, uint32_t i)
{
    return pool_at(&q->shares, i);
}

#endif
