/*
 * keys - the table; see keys.h.
 *
 * Names are those of the C fields without _s, _ms and _bytes where the value carries its unit.
 * Order matters in SCOPE_TOP: `limits` and `client` before `routes` and `providers`, `pools` before
 * `tenants`, `tenants` before `listen` and `default_tenant`.
 */
#include "config/keys.h"

#include "base/suggest.h"

#define KIB    UINT64_C(1024)
#define MIB    (KIB * 1024)
#define GIB    (MIB * 1024)
#define MIN    UINT64_C(60)
#define HOUR   (60 * MIN)
#define DAY    (24 * HOUR)
#define MS_MAX (HOUR * 1000)

/* One row: what every key has. Further fields follow it as designated initialisers. */
#define ROW(name_, type_, min_, max_, preset_, struct_, member_, help_)                         \
    .name = name_, .type = type_, .min = min_, .max = max_, .preset = preset_,                  \
    .offset = offsetof(struct struct_, member_), .bytes = sizeof((struct struct_ *)0)->member_, \
    .help = help_
/* A row without a field of its own. */
#define GROUP(name_, type_, child_, help_) \
    .name = name_, .type = type_, .child = child_, .help = help_

static const char *const family_words[] = {"any",     "v4_first", "v6_first",
                                           "v4_only", "v6_only",  NULL};
static const char *const role_words[] = {"relay", "submission", "mx", NULL};
static const char *const class_words[] = {"bulk", "transactional", NULL};
static const char *const in_doubt_words[] = {"retry", "hold", "fail", NULL};
static const char *const bare_words[] = {"reject", "normalise", NULL};
static const char *const driver_words[] = {"none", "l2", "exec", NULL};
static const char *const offer_words[] = {"pipelining", "8bitmime", "size", "enhancedstatuscodes",
                                          "chunking",   "smtputf8", NULL};
static_assert(OFFER_ALL == (1 << (ARRAY_COUNT(offer_words) - 1)) - 1, "a word for each offer");

static const struct config_key smtp_keys[] = {
    {ROW("size_max", KEY_SIZE, 64 * KIB, (uint64_t)LIMIT_BODY_CHUNKS *LIMIT_BODY_CHUNK_BYTES, "50M",
         config, smtp.size_max, "Largest message taken; above it 552 5.3.4.")},
    {ROW("recipients_max", KEY_COUNT, 100, LIMIT_RECIPIENTS, "1000", config, smtp.recipients_max,
         "Recipients of one transaction; above it 452 4.5.3 for each further one.")},
    {ROW("connections_max", KEY_COUNT, 1, 1000000, "20000", config, smtp.connections_max,
         "Inbound connections of one worker; above it 421 4.7.0.")},
    {ROW("connections_per_ip", KEY_COUNT, 0, 1000000, "1000", config, smtp.connections_per_ip,
         "Inbound connections of one worker from one address; 0 = no such limit.")},
    {ROW("connections_per_net", KEY_COUNT, 0, 1000000, "4000", config, smtp.connections_per_net,
         "The same from one IPv4 /24 or IPv6 /64; 0 = no such limit.")},
    {ROW("accept_per_s_per_ip", KEY_COUNT, 0, 1000000, "1000", config, smtp.accept_per_s_per_ip,
         "New connections a second from one address; 0 = no such limit.")},
    {ROW("command", KEY_SECONDS, 1, HOUR, "5m", config, smtp.command_s,
         "Wait for the next command (RFC 5321 4.5.3.2.7: at least 5m); then 421 4.4.2.")},
    {ROW("data_idle", KEY_SECONDS, 1, HOUR, "5m", config, smtp.data_idle_s,
         "Wait for the next bytes of a message.")},
    {ROW("data_bytes_per_min", KEY_SIZE, 0, GIB, "1K", config, smtp.data_bytes_per_min,
         "Slowest average rate of a message on its way in; 0 = any.")},
    {ROW("errors_max", KEY_COUNT, 1, 1000, "20", config, smtp.errors_max,
         "Wrong commands after which the client gets 421 4.7.0 and is hung up.")},
    {ROW("received_max", KEY_COUNT, 2, LIMIT_HEADER_FIELDS, "100", config, smtp.received_max,
         "Received fields from which on a message is taken to loop: 554 5.4.6.")},
    {ROW("drain", KEY_SECONDS, 0, HOUR, "30s", config, smtp.drain_s,
         "Time that open transactions are given at a stop or reload.")},
    {ROW("allow_address_literals", KEY_BOOL, 0, 1, "false", config, smtp.allow_address_literals,
         "Take recipients such as user@[192.0.2.1] from clients that may relay.")},
    {ROW("check_sender_domain", KEY_BOOL, 0, 1, "false", config, smtp.check_sender_domain,
         "Refuse senders whose domain has no MX and no address, or a null MX; without an answer of "
         "the resolver 451 4.1.8.")},
    {ROW("check_recipient_null_mx", KEY_BOOL, 0, 1, "true", config, smtp.check_recipient_null_mx,
         "Refuse recipients whose domain says that it takes no mail (RFC 7505).")},
    {ROW("lookup_client_name", KEY_BOOL, 0, 1, "false", config, smtp.lookup_client_name,
         "Look up the client's name for the Received field.")},
};

static const struct config_key queue_keys[] = {
    {ROW("lifetime", KEY_SECONDS, 1, 60 * DAY, "5d", config, queue.lifetime_s,
         "Time after which undelivered mail is given up.")},
    {ROW("bounce_lifetime", KEY_SECONDS, 1, 60 * DAY, "1d", config, queue.bounce_lifetime_s,
         "The same for mail with the null sender.")},
    {ROW("mailbox_full_lifetime", KEY_SECONDS, 1, 60 * DAY, "1d", config,
         queue.mailbox_full_lifetime_s, "The same for mail whose recipient's mailbox is full.")},
    {ROW("retry_first", KEY_SECONDS, 1, DAY, "15m", config, queue.retry_first_s,
         "Wait before the second attempt; each later wait is twice as long.")},
    {ROW("retry_greylist", KEY_SECONDS, 1, DAY, "5m", config, queue.retry_greylist_s,
         "Wait before the second attempt after a reply that looks like greylisting.")},
    {ROW("retry_max", KEY_SECONDS, 1, DAY, "4h", config, queue.retry_max_s,
         "Longest wait between attempts.")},
    {ROW("retry_max_transactional", KEY_SECONDS, 1, DAY, "1h", config,
         queue.retry_max_transactional_s, "The same for tenants of class transactional.")},
    {ROW("retry_jitter_percent", KEY_COUNT, 0, 50, "20", config, queue.retry_jitter_percent,
         "Each wait is longer or shorter by up to this, at random.")},
    {ROW("entries_max", KEY_COUNT, 16, UINT64_C(1) << 30, "16777216", config, queue.entries_max,
         "Recipients queued at one worker; above it 452 4.3.1.")},
    {ROW("cache", KEY_SIZE, 0, 64 * GIB, "64M", config, queue.cache_bytes,
         "Memory of one worker for bodies that wait for their first attempt.")},
    {ROW("transactional_share", KEY_COUNT, 1, 9, "8", config, queue.transactional_share,
         "Of ten turns, those of transactional mail while both classes wait.")},
    {ROW("hold", KEY_BOOL, 0, 1, "false", config, queue.hold,
         "Start with delivery held, until `mochila release all`.")},
};

static const struct config_key client_keys[] = {
    {ROW("connect", KEY_MILLISECONDS, 10, MS_MAX, "30s", config, client.connect_ms,
         "Wait for a TCP connection to one address.")},
    {ROW("greeting", KEY_MILLISECONDS, 10, MS_MAX, "5m", config, client.greeting_ms,
         "Wait for the greeting (RFC 5321 4.5.3.2.1: 5m).")},
    {ROW("ehlo", KEY_MILLISECONDS, 10, MS_MAX, "5m", config, client.ehlo_ms,
         "Wait for the reply to EHLO or HELO.")},
    {ROW("mail", KEY_MILLISECONDS, 10, MS_MAX, "5m", config, client.mail_ms,
         "Wait for the reply to MAIL (RFC 5321 4.5.3.2.2: 5m).")},
    {ROW("rcpt", KEY_MILLISECONDS, 10, MS_MAX, "5m", config, client.rcpt_ms,
         "Wait for the reply to RCPT (RFC 5321 4.5.3.2.3: 5m).")},
    {ROW("data", KEY_MILLISECONDS, 10, MS_MAX, "2m", config, client.data_ms,
         "Wait for the reply to DATA (RFC 5321 4.5.3.2.4: 2m).")},
    {ROW("block", KEY_MILLISECONDS, 10, MS_MAX, "3m", config, client.block_ms,
         "Wait until a block of data is taken (RFC 5321 4.5.3.2.5: 3m).")},
    {ROW("dot", KEY_MILLISECONDS, 10, MS_MAX, "10m", config, client.dot_ms,
         "Wait for the reply to the final dot (RFC 5321 4.5.3.2.6: 10m); shorter waits make "
         "duplicates.")},
    {ROW("rset", KEY_MILLISECONDS, 10, MS_MAX, "10s", config, client.rset_ms,
         "Wait for the reply to RSET.")},
    {ROW("quit", KEY_MILLISECONDS, 10, MS_MAX, "5s", config, client.quit_ms,
         "Wait for the reply to QUIT; its lack never fails a delivery.")},
    {ROW("connections_max", KEY_COUNT, 1, 100000, "10000", config, client.connections_max,
         "Outgoing connections of one worker.")},
    {ROW("host_retry", KEY_SECONDS, 1, DAY, "1m", config, client.host_retry_s,
         "First pause of a host that does not answer; it doubles with each failure.")},
    {ROW("host_retry_max", KEY_SECONDS, 1, DAY, "30m", config, client.host_retry_max_s,
         "Longest such pause.")},
    {ROW("port", KEY_COUNT, 1, 65535, "25", config, client.port,
         "Port of mail exchangers, and of routes that name none.")},
    {ROW("allow_loopback", KEY_BOOL, 0, 1, "false", config, client.allow_loopback,
         "Let DNS answers lead to 127.0.0.0/8 and ::1. A route's own address is always allowed.")},
    {ROW("allow_private", KEY_BOOL, 0, 1, "false", config, client.allow_private,
         "The same for private networks such as 10.0.0.0/8 and fc00::/7.")},
    {ROW("chunking", KEY_BOOL, 0, 1, "true", config, client.chunking,
         "Send with BDAT where the other side offers CHUNKING (RFC 3030).")},
    {ROW("family", KEY_ENUM, 0, FAMILY_V6_ONLY, "any", config, client.family,
         "Addresses of mail exchangers to use, and which first."),
     .words = family_words},
};

static const struct config_key spool_keys[] = {
    {ROW("segment", KEY_SIZE, LIMIT_SEGMENT_BYTES_MIN, LIMIT_SEGMENT_BYTES_MAX, "64M", config,
         spool_options.segment_bytes, "Size of one log file; a multiple of 1M.")},
    {ROW("reserve", KEY_SIZE, 0, 64 * GIB, "64M", config, spool_options.reserve_bytes,
         "Room on disk kept for fates: below it no mail is taken (452), delivery goes on.")},
    {ROW("spares", KEY_COUNT, 1, 64, "2", config, spool_options.spares,
         "Log files of one worker written with zeroes ahead of their use.")},
};

static const struct config_key dns_keys[] = {
    {ROW("enabled", KEY_BOOL, 0, 1, "true", config, dns.enabled,
         "Without DNS every domain needs a route.")},
    {ROW("servers", KEY_SERVERS, 0, 4, "[]", config, dns.servers,
         "Resolvers; best a validating one on loopback. None: as in /etc/resolv.conf.")},
    {ROW("query", KEY_MILLISECONDS, 10, 60000, "5s", config, dns.query_ms,
         "Wait for one answer of one server.")},
    {ROW("total", KEY_MILLISECONDS, 10, 300000, "30s", config, dns.total_ms,
         "Wait for all tries of one question; not shorter than query.")},
    {ROW("cache_max", KEY_COUNT, 0, 10000000, "100000", config, dns.cache_max,
         "Answers that one worker keeps.")},
};

static const struct config_key api_keys[] = {
    {ROW("socket", KEY_PATH, 0, 107, "", config, api.socket, "Unix socket of the admin interface."),
     .preset_note = "api.sock in the directory run"},
    {ROW("listen", KEY_ENDPOINT, 0, 0, "", config, api.listen,
         "Address and port of the admin interface on TCP; whoever reaches it may do everything. "
         "None: the socket only.")},
};

static const struct config_key cluster_keys[] = {
    {ROW("name", KEY_NAME, 0, 0, "", config, cluster.name,
         "Name of the cluster, as its certificates have it; none: a node on its own.")},
    {ROW("listen", KEY_ENDPOINT, 0, 0, "", config, cluster.listen,
         "Address and port for the peers whose names sort after this node's: they connect here.")},
    {ROW("source", KEY_ADDRESS, 0, 0, "::", config, cluster.source,
         "Source address of connections to peers, never a lane's; :: = as the kernel chooses.")},
    {ROW("peers", KEY_PEERS, 0, LIMIT_PEERS, NULL, config, cluster.peers,
         "The other nodes by name, each with the address and port that it listens on."),
     .preset_note = "none"},
    {ROW("ca", KEY_PATH, 0, 255, "/etc/mochila/cluster/ca.pem", config, cluster.ca,
         "Certificate of the cluster's own authority.")},
    {ROW("certificate", KEY_PATH, 0, 255, "/etc/mochila/cluster/node.pem", config,
         cluster.certificate, "Certificate of this node; `mochila cluster join` puts it there.")},
    {ROW("key", KEY_PATH, 0, 255, "/etc/mochila/cluster/node.key", config, cluster.key,
         "Key of that certificate.")},
    {ROW("driver", KEY_ENUM, 0, CLUSTER_DRIVER_EXEC, "none", config, cluster.driver,
         "How a lane's address comes to its owner: none = it is on every host already; l2 = it is "
         "put on the interface and announced there; exec = the hook does it."),
     .words = driver_words},
    {ROW("interface", KEY_NIC, 0, 0, "", config, cluster.interface,
         "Network interface for lanes' addresses, with driver l2; a lane's own nic goes before.")},
    {ROW("hook", KEY_PATH, 0, 255, "", config, cluster.hook,
         "Program that moves addresses, with driver exec.")},
    {ROW("hook_time", KEY_MILLISECONDS, 100, 600000, "10s", config, cluster.hook_time_ms,
         "Time that the hook has; then it is killed.")},
    {ROW("tail_timeout", KEY_SECONDS, 1, DAY, "15m", config, cluster.tail_timeout_s,
         "Time after which attempts that were open at a move are in doubt, while the old owner is "
         "not reached.")},
    {ROW("move_rate", KEY_SIZE, 0, 64 * GIB, "32M", config, cluster.move_rate,
         "Bytes a second that all copies of this node's lanes may take; 0 = no limit.")},
    {ROW("move_lanes", KEY_COUNT, 1, LIMIT_LANES, "8", config, cluster.move_lanes,
         "Lanes of a pool that are copied at a time.")},
};

static const struct config_key limits_keys[] = {
    {ROW("connections", KEY_COUNT, 0, 100000, "10", config_limits, connections,
         "Connections at a time; 0 = no limit."),
     .preset_via = "50"},
    {ROW("new_connections_per_s", KEY_COUNT, 0, 100000, "10", config_limits, new_connections_per_s,
         "Connections opened a second; 0 = no limit."),
     .preset_via = "0"},
    {ROW("messages_per_connection", KEY_COUNT, 0, 1000000, "100", config_limits,
         messages_per_connection, "Messages after which a connection is closed; 0 = no limit."),
     .preset_via = "1000"},
    {ROW("messages_per_s", KEY_COUNT, 0, 1000000, "20", config_limits, messages_per_s,
         "Messages a second; 0 = no limit."),
     .preset_via = "0"},
    {ROW("recipients", KEY_COUNT, 0, LIMIT_RECIPIENTS, "50", config_limits, recipients,
         "Recipients of one transaction; 0 = no limit."),
     .preset_via = "100"},
    {ROW("idle", KEY_SECONDS, 0, HOUR, "5s", config_limits, idle_s,
         "Time a connection is kept open without work; 0 = none."),
     .preset_via = "30s"},
};

static const struct config_key lane_keys[] = {
    {ROW("address", KEY_RANGE, 0, 0, NULL, lane_entry, address,
         "Source IP; 192.0.2.10-192.0.2.25 stands for sixteen lanes."),
     .required = true},
    {ROW("ehlo", KEY_EHLO, 0, 0, NULL, lane_entry, ehlo,
         "Name in EHLO, as the PTR of the address has it; in a range %d is the last octet."),
     .required = true},
    {ROW("nic", KEY_NIC, 0, 0, "", lane_entry, nic,
         "Network interface of the lane; none: as the kernel routes it.")},
    {ROW("weight", KEY_COUNT, 1, 1000, "1", lane_entry, weight,
         "Share of the pool's mail, against the other lanes.")},
    {ROW("home", KEY_NAME, 0, 0, "", lane_entry, home,
         "Node that owns the lane until it is moved for the first time."),
     .preset_note = "that of the pool"},
};

static const struct config_key pool_keys[] = {
    {ROW("home", KEY_NAME, 0, 0, "", config_pool, home,
         "Node that owns the lanes until they are moved for the first time; needed in a cluster."),
     .preset_note = "this node, when there is no cluster"},
    {GROUP("lanes", KEY_RECORDS, SCOPE_LANE, "The lanes of the pool."), .list = LIST_LANES,
     .min = 1, .max = LIMIT_LANES, .required = true},
};

static const struct config_key tenant_keys[] = {
    {ROW("pool", KEY_POOL, 0, 0, NULL, config_tenant, pool, "Pool that the tenant's mail uses."),
     .required = true},
    {ROW("from", KEY_NETS, 0, LIMIT_NETS, "[]", config_tenant, first_net,
         "Client networks whose mail is the tenant's; no two tenants' networks may overlap."),
     .list = LIST_TENANT_NETS},
    {ROW("class", KEY_ENUM, 0, CLASS_TRANSACTIONAL, "bulk", config_tenant, class_,
         "Transactional mail goes before bulk mail."),
     .words = class_words},
    {ROW("weight", KEY_COUNT, 1, 1000, "1", config_tenant, weight,
         "Share of a lane's turns, against other tenants.")},
    {ROW("lifetime", KEY_SECONDS, 0, 60 * DAY, "0", config_tenant, lifetime_s,
         "Time after which undelivered mail is given up; 0 = queue.lifetime.")},
    {ROW("in_doubt", KEY_ENUM, 0, IN_DOUBT_FAIL, "retry", config_tenant, in_doubt,
         "What becomes of mail whose final dot was sent and whose reply was lost in a crash."),
     .words = in_doubt_words},
};

static const struct config_key listener_keys[] = {
    {ROW("address", KEY_ADDRESS, 0, 0, NULL, config_listener, address, "Local address."),
     .required = true},
    {ROW("port", KEY_COUNT, 1, 65535, NULL, config_listener, port, "TCP port."), .required = true},
    {ROW("role", KEY_ENUM, 0, ROLE_MX, "relay", config_listener, role,
         "relay takes mail from relay_from, submission also mends it, mx takes mail for "
         "relay_domains."),
     .words = role_words},
    {ROW("tenant", KEY_TENANT, 0, 0, "", config_listener, tenant,
         "Tenant of all mail from here; none: by client network.")},
    {ROW("offers", KEY_FLAGS, 0, ARRAY_COUNT(offer_words) - 1,
         "[pipelining, 8bitmime, size, enhancedstatuscodes, chunking, smtputf8]", config_listener,
         offers, "Extensions offered in the reply to EHLO."),
     .words = offer_words},
    {ROW("bare", KEY_ENUM, 0, BARE_NORMALISE, NULL, config_listener, bare,
         "A bare CR or LF in a message: refuse the message, or make it CRLF."),
     .words = bare_words, .preset_note = "reject; with role submission normalise"},
    {ROW("strict_syntax", KEY_BOOL, 0, 1, "false", config_listener, strict_syntax,
         "Refuse a space after FROM: and TO:.")},
    {ROW("reject_early_talkers", KEY_BOOL, 0, 1, "false", config_listener, reject_early_talkers,
         "Refuse clients that speak before the greeting.")},
};

static const struct config_key route_keys[] = {
    {ROW("domain", KEY_ROUTE, 0, 0, NULL, config_route, domain,
         "Recipient domain; .example.net = all below it; \"*\" = all others."),
     .required = true},
    {ROW("via", KEY_VIA, 0, 0, NULL, config_route, host,
         "Next hop in place of MX: host, host:port, [address] or [address]:port."),
     .preset_note = "none: by MX; without a port client.port"},
    {ROW("family", KEY_ENUM, 0, FAMILY_V6_ONLY, NULL, config_route, family,
         "Addresses to use, and which first."),
     .words = family_words, .preset_note = "client.family"},
    {ROW("limits", KEY_LIMITS, 0, 0, NULL, config_route, limits, "Limits of a lane at this route."),
     .child = SCOPE_LIMITS,
     .preset_note = "with via those of a smarthost, else the provider's or limits"},
};

static const struct config_key provider_keys[] = {
    {GROUP("mx", KEY_PATTERNS, SCOPE_PROVIDER,
           "Names of mail exchangers: .example.net = all below it."),
     .list = LIST_SUFFIXES, .max = 100, .preset_note = "of a built-in provider its own"},
    {ROW("limits", KEY_LIMITS, 0, 0, NULL, config_provider, limits,
         "Limits of a lane at each site of the provider."),
     .child = SCOPE_LIMITS, .preset_note = "of a built-in provider its own, else limits"},
};

static const struct config_key top_keys[] = {
    {ROW("node", KEY_NAME, 0, 0, NULL, config, node, "Name of this node, unique in the fleet."),
     .required = true, .needs_restart = true},
    {ROW("node_id", KEY_COUNT, 0, 65535, "0", config, node_id,
         "Number of this node in message ids, unique in the fleet."),
     .needs_restart = true, .preset_note = "0 = made from the node's name"},
    {ROW("hostname", KEY_HOST, 0, 0, "", config, hostname,
         "Name of this node in the greeting and in Received fields."),
     .preset_note = "ehlo of the first lane; node.invalid if that is no full name"},
    {ROW("spool", KEY_PATH, 0, 255, "/var/spool/mochila", config, spool,
         "Directory of the mail; a local file system."),
     .needs_restart = true},
    {ROW("run", KEY_PATH, 0, 255, "/run/mochila", config, run, "Directory of sockets and state."),
     .needs_restart = true},
    {ROW("log", KEY_PATH, 0, 255, "/var/log/mochila", config, log,
         "Directory of logs; \"\" = standard error only."),
     .needs_restart = true},
    {ROW("user", KEY_ACCOUNT, 0, 0, "", config, user,
         "Account of the workers when started as root; \"\" = stay as started."),
     .needs_restart = true},
    {ROW("group", KEY_ACCOUNT, 0, 0, "", config, group, "Group of the workers."),
     .needs_restart = true, .preset_note = "that of the account"},
    {ROW("workers", KEY_COUNT, 0, LIMIT_WORKERS, "0", config, workers,
         "Worker processes; 0 = one for each core."),
     .needs_restart = true},
    {ROW("pin", KEY_BOOL, 0, 1, "true", config, pin, "Bind each worker to a core.")},
    {GROUP("smtp", KEY_SECTION, SCOPE_SMTP, "Mail coming in.")},
    {GROUP("queue", KEY_SECTION, SCOPE_QUEUE, "Mail waiting.")},
    {GROUP("client", KEY_SECTION, SCOPE_CLIENT, "Mail going out.")},
    {GROUP("spool_options", KEY_SECTION, SCOPE_SPOOL, "The log on disk.")},
    {GROUP("dns", KEY_SECTION, SCOPE_DNS, "The resolver.")},
    {GROUP("api", KEY_SECTION, SCOPE_API, "The admin interface."), .needs_restart = true},
    {GROUP("cluster", KEY_SECTION, SCOPE_CLUSTER, "The other nodes.")},
    {GROUP("limits", KEY_SECTION, SCOPE_LIMITS,
           "Limits of one lane at one site, where neither route nor provider has others."),
     .offset = offsetof(struct config, limits)},
    {GROUP("relay_from", KEY_NETS, SCOPE_TOP, "Client networks that may send to any domain."),
     .list = LIST_RELAY_FROM, .max = LIMIT_NETS},
    {GROUP("refuse_from", KEY_NETS, SCOPE_TOP,
           "Client networks that are greeted with 554 and may only say QUIT."),
     .list = LIST_REFUSE_FROM, .max = LIMIT_NETS},
    {GROUP("relay_domains", KEY_DOMAINS, SCOPE_TOP,
           "Recipient domains accepted from anybody on listeners of role mx."),
     .list = LIST_RELAY_DOMAINS, .max = 16384},
    {GROUP("pools", KEY_NAMED, SCOPE_POOL, "Named sets of lanes."), .list = LIST_POOLS, .min = 1,
     .max = LIMIT_POOLS, .required = true},
    {GROUP("tenants", KEY_NAMED, SCOPE_TENANT, "Customer accounts."), .list = LIST_TENANTS,
     .max = LIMIT_TENANTS - 1},
    {ROW("default_tenant", KEY_TENANT, 0, 0, "", config, default_tenant,
         "Tenant of clients that belong to no other."),
     .preset_note = "\"default\", which is made on the first pool if there is none"},
    {GROUP("listen", KEY_RECORDS, SCOPE_LISTENER, "Where mail comes in."), .list = LIST_LISTENERS,
     .min = 1, .max = LIMIT_LISTENERS, .required = true},
    {GROUP("routes", KEY_RECORDS, SCOPE_ROUTE, "Next hops and limits by recipient domain."),
     .list = LIST_ROUTES, .max = LIMIT_ROUTES},
    {GROUP("providers", KEY_NAMED, SCOPE_PROVIDER,
           "Limits by mail exchanger; a built-in provider of the same name is changed."),
     .list = LIST_PROVIDERS, .max = 1000},
};

struct scope {
    const char *path;
    const struct config_key *keys;
    size_t count;
};

#define SCOPE(path_, keys_)              \
    {                                    \
        path_, keys_, ARRAY_COUNT(keys_) \
    }
static const struct scope scopes[SCOPE_COUNT] = {
    [SCOPE_TOP] = SCOPE("", top_keys),
    [SCOPE_SMTP] = SCOPE("smtp.", smtp_keys),
    [SCOPE_QUEUE] = SCOPE("queue.", queue_keys),
    [SCOPE_CLIENT] = SCOPE("client.", client_keys),
    [SCOPE_SPOOL] = SCOPE("spool_options.", spool_keys),
    [SCOPE_DNS] = SCOPE("dns.", dns_keys),
    [SCOPE_API] = SCOPE("api.", api_keys),
    [SCOPE_CLUSTER] = SCOPE("cluster.", cluster_keys),
    [SCOPE_LIMITS] = SCOPE("limits.", limits_keys),
    [SCOPE_POOL] = SCOPE("pools.NAME.", pool_keys),
    [SCOPE_LANE] = SCOPE("pools.NAME.lanes[].", lane_keys),
    [SCOPE_TENANT] = SCOPE("tenants.NAME.", tenant_keys),
    [SCOPE_LISTENER] = SCOPE("listen[].", listener_keys),
    [SCOPE_ROUTE] = SCOPE("routes[].", route_keys),
    [SCOPE_PROVIDER] = SCOPE("providers.NAME.", provider_keys),
};

const struct config_key *config_keys_of(enum key_scope scope, size_t *count)
{
    MUST(scope < SCOPE_COUNT);
    *count = scopes[scope].count;
    return scopes[scope].keys;
}

const char *config_scope_path(enum key_scope scope)
{
    MUST(scope < SCOPE_COUNT);
    return scopes[scope].path;
}

const struct config_key *config_key_find(enum key_scope scope, const char *name)
{
    MUST(scope < SCOPE_COUNT);
    for (size_t i = 0; i < scopes[scope].count; i++) {
        if (strcmp(scopes[scope].keys[i].name, name) == 0)
            return &scopes[scope].keys[i];
    }
    return NULL;
}

const char *config_key_suggest(enum key_scope scope, const char *word)
{
    const char *names[ARRAY_COUNT(top_keys)];
    size_t count = scopes[scope].count;
    static_assert(ARRAY_COUNT(top_keys) >= ARRAY_COUNT(client_keys), "the largest scope");
    static_assert(ARRAY_COUNT(top_keys) >= ARRAY_COUNT(smtp_keys), "the largest scope");
    MUST(count <= ARRAY_COUNT(names));
    for (size_t i = 0; i < count; i++)
        names[i] = scopes[scope].keys[i].name;
    return suggest_nearest(word, names, count);
}
