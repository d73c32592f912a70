/*
 * types - the loaded configuration as plain data; see config.h for who makes and owns it.
 *
 * Never changed after loading. Durations carry their unit in the name; 0 means "no limit" where the
 * table of keys allows it.
 */
#ifndef CONFIG_TYPES_H
#define CONFIG_TYPES_H

#include "base/net.h"
#include "proto/limits.h"

struct config_lookup;

enum listener_role { ROLE_RELAY, ROLE_SUBMISSION, ROLE_MX };
enum tenant_class { CLASS_BULK, CLASS_TRANSACTIONAL };
enum in_doubt_policy { IN_DOUBT_RETRY, IN_DOUBT_HOLD, IN_DOUBT_FAIL };
enum bare_policy { BARE_REJECT, BARE_NORMALISE }; /* bare CR or LF in DATA (SRV-22) */
enum sync_mode { SYNC_DURABLE };
enum cluster_driver { CLUSTER_DRIVER_NONE, CLUSTER_DRIVER_L2, CLUSTER_DRIVER_EXEC };
enum family_policy { FAMILY_ANY, FAMILY_V4_FIRST, FAMILY_V6_FIRST, FAMILY_V4_ONLY, FAMILY_V6_ONLY };

/* ESMTP keywords that can be switched off per listener (EXT-70). */
enum {
    OFFER_PIPELINING = 1,
    OFFER_8BITMIME = 2,
    OFFER_SIZE = 4,
    OFFER_ENHANCED = 8,
    OFFER_CHUNKING = 16,
    OFFER_SMTPUTF8 = 32,
    OFFER_ALL = 63
};

struct config_listener {
    struct ip address;
    uint16_t port;
    enum listener_role role;
    unsigned offers; /* OFFER_* */
    enum bare_policy bare;
    bool strict_syntax; /* no space after FROM:/TO: */
    bool reject_early_talkers;
    char tenant[LIMIT_NAME_BYTES +
                1]; /* mail from here belongs to this tenant; "" = by client network */
};
struct config_lane {
    struct ip address;
    char ehlo[LIMIT_DOMAIN_BYTES + 1];
    char nic[16];    /* "" = any */
    uint32_t weight; /* 1..1000 */
    uint16_t pool;   /* index into pools */
    /* node that owns the lane until it is moved for the first time; "" = this one */
    char home[LIMIT_NAME_BYTES + 1];
};
struct config_pool {
    char name[LIMIT_NAME_BYTES + 1];
    char home[LIMIT_NAME_BYTES + 1]; /* of its lanes that name none themselves */
    uint32_t first_lane, lane_count; /* a run of lanes[] */
};
struct config_tenant {
    char name[LIMIT_NAME_BYTES + 1];
    uint16_t pool;
    enum tenant_class class_;
    uint32_t weight;     /* share in fair queueing, 1..1000 */
    uint32_t lifetime_s; /* 0 = queue.lifetime */
    enum in_doubt_policy in_doubt;
    uint32_t first_net, net_count; /* a run of tenant_nets[] */
};
/* Limits of one lane at one site; 0 = none. */
struct config_limits {
    uint32_t connections;
    uint32_t new_connections_per_s;
    uint32_t messages_per_connection;
    uint32_t messages_per_s;
    uint32_t recipients; /* per transaction */
    uint32_t idle_s;     /* kept-open connection */
};
struct config_route {
    char domain[LIMIT_DOMAIN_BYTES + 1]; /* lower case; "*" = all others; ".x" = all below x */
    /* via: a host name, looked up by address and never by MX, or [address]; "" = by MX (a route
     * that only sets limits or family) */
    char host[LIMIT_DOMAIN_BYTES + 1];
    uint16_t port;
    bool limits_given; /* or via, which has limits of its own: they go before a provider's */
    struct config_limits
        limits; /* what is not given: from `limits`; with via, the smarthost presets */
    enum family_policy family;
};
/* Limits by provider, one for each suffix of MX names, from the built-in data and `providers:`. */
struct config_provider {
    char name[LIMIT_NAME_BYTES + 1];
    char mx_suffix[LIMIT_DOMAIN_BYTES + 1]; /* lower case; ".x" = all below x, "x" = that host */
    struct config_limits limits;
};

/* The other nodes, as this one reaches them. */
struct config_peer {
    char name[LIMIT_NAME_BYTES + 1];
    char endpoint[64]; /* address:port or [address]:port */
};
struct config_peers {
    uint32_t count;
    struct config_peer item[LIMIT_PEERS];
};

struct config {
    char node[LIMIT_NAME_BYTES + 1];
    uint16_t node_id; /* origin in message ids, 1..65535; preset: from the node's name */
    char hostname[LIMIT_DOMAIN_BYTES + 1]; /* in 220 and Received; preset: EHLO of the first lane */
    /* directories; log: events-*.jsonl and mochila.log ("" = stderr only) */
    char spool[256], run[256], log[256];
    char user[33], group[33]; /* "" = stay as started */
    uint32_t workers;         /* 0 = one per core */
    bool pin;

    struct { /* smtp: connection limits count per worker; 0 = none where the table allows it */
        uint64_t size_max;
        uint32_t recipients_max, connections_max, connections_per_ip, connections_per_net;
        uint32_t accept_per_s_per_ip;
        uint32_t command_s, data_idle_s, data_bytes_per_min, errors_max, received_max, drain_s;
        bool allow_address_literals, check_sender_domain, check_recipient_null_mx;
        bool lookup_client_name;
    } smtp;
    struct { /* queue: */
        uint32_t lifetime_s, bounce_lifetime_s, retry_first_s, retry_greylist_s, retry_max_s,
            retry_max_transactional_s, retry_jitter_percent, mailbox_full_lifetime_s;
        uint32_t entries_max; /* per worker */
        uint64_t cache_bytes; /* bodies kept in memory until the first attempt, per worker */
        uint32_t transactional_share; /* of 10 turns while both classes wait: 1..9 */
        bool hold;                    /* start with delivery held (until `mochila release all`) */
    } queue;
    struct { /* client: time-outs of outgoing SMTP, milliseconds so that tests can scale them */
        uint32_t connect_ms, greeting_ms, ehlo_ms, mail_ms, rcpt_ms, data_ms, block_ms, dot_ms;
        uint32_t rset_ms, quit_ms;
        uint32_t connections_max;                /* per worker */
        uint32_t host_retry_s, host_retry_max_s; /* back-off of a failing host or pair */
        uint16_t port;                           /* 25 */
        bool allow_loopback, allow_private;
        bool chunking;
        enum family_policy family;
    } client;
    struct { /* spool_options: */
        uint64_t segment_bytes, reserve_bytes;
        uint32_t spares;
    } spool_options;
    struct {               /* dns: */
        char servers[256]; /* address:port,[address]:port,...; "" = as the system has it */
        uint32_t query_ms, total_ms, cache_max;
        bool enabled;
    } dns;
    struct {              /* api: */
        char socket[256]; /* preset: RUN/api.sock */
        char listen[64];  /* "" or address:port */
    } api;
    struct {                             /* cluster: */
        char name[LIMIT_NAME_BYTES + 1]; /* "" = no cluster: no link is started */
        char listen[64];                 /* "" or address:port, for peers with higher names */
        struct ip source;                /* of connections to peers; :: = as the kernel chooses */
        struct config_peers peers;
        char ca[256], certificate[256], key[256];
        enum cluster_driver driver; /* who brings lanes' addresses to a host */
        char interface[16];         /* of driver l2 */
        char hook[256];             /* of driver exec: absolute path */
        uint32_t hook_time_ms;
        uint32_t tail_timeout_s; /* after it, open attempts of a lane's old owner are in doubt */
        uint64_t move_rate;      /* bytes a second of all copies; 0 = no limit */
        uint32_t move_lanes;     /* of a pool, copied at a time */
    } cluster;
    struct config_limits limits; /* default site */

    struct config_listener *listeners;
    struct ip_net *relay_from;
    struct ip_net *refuse_from; /* greeted with 554 (SRV-02) */
    /* recipient domains accepted from anybody (mx role), lower case */
    char (*relay_domains)[LIMIT_DOMAIN_BYTES + 1];
    struct config_pool *pools;
    struct config_lane *lanes;
    struct config_tenant *tenants;
    struct ip_net *tenant_nets;
    struct config_route *routes;
    struct config_provider *providers;
    uint32_t listener_count, relay_from_count, refuse_from_count, relay_domain_count;
    uint32_t pool_count, lane_count;
    uint32_t tenant_count, tenant_net_count, route_count, provider_count;
    /* index: relay clients that match no tenant; preset: a tenant "default" on the first pool */
    uint16_t default_tenant;
    struct config_lookup *lookup; /* of config_route_for and its like */
};

#endif
