/*
 * keys - the one table of what can stand in mochila.yaml.
 *
 * Read-only data: the loader, the checker, `mochila show config` and the manual page walk it.
 * Presets are texts, read by the same code as the operator's own; a test reads them all.
 * Never:  a key that is read anywhere without standing here.
 *
 * A scope is one kind of mapping: the top level, a section such as `smtp`, or the record of a list
 * such as one lane. Rows are read in their order here: a row may rely on those above it.
 */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include "config/config.h"

enum key_type {
    KEY_BOOL,
    KEY_COUNT,
    KEY_SIZE,
    KEY_SECONDS,
    KEY_MILLISECONDS,
    KEY_ENUM,
    KEY_NAME,    /* of a node */
    KEY_HOST,    /* fully qualified host name */
    KEY_EHLO,    /* host name; in a range of lanes %d stands for the last octet */
    KEY_DOMAIN,  /* one domain */
    KEY_PATTERN, /* domain, .domain (all below it) */
    KEY_ROUTE,   /* pattern or * */
    KEY_PATH,
    KEY_ACCOUNT, /* user or group of the system */
    KEY_NIC,
    KEY_ADDRESS,
    KEY_RANGE, /* address, or first-last within the last octet of IPv4: struct ip_range */
    KEY_NET,
    KEY_ENDPOINT, /* address:port as text */
    KEY_SERVER,   /* address or address:port */
    KEY_VIA,      /* next hop: struct config_route's host and port */
    KEY_POOL,     /* name of a pool; kept as index */
    KEY_TENANT,   /* name of a tenant; kept as index (or as text, in a listener) */
    KEY_FLAGS,    /* list of words; kept as bits */
    KEY_SERVERS,  /* list of KEY_SERVER; kept as text with commas */
    KEY_PEERS,    /* names, each with address:port; kept as struct config_peers */
    KEY_NETS,     /* lists of the key_type that `element` names */
    KEY_DOMAINS,
    KEY_PATTERNS,
    KEY_SECTION, /* mapping of scope `child` */
    KEY_LIMITS,  /* the same, laid over what is there already */
    KEY_RECORDS, /* list of mappings of scope `child` */
    KEY_NAMED,   /* names, each with a mapping of scope `child` */
    KEY_TYPE_COUNT
};

enum key_scope {
    SCOPE_TOP,
    SCOPE_SMTP,
    SCOPE_QUEUE,
    SCOPE_CLIENT,
    SCOPE_SPOOL,
    SCOPE_DNS,
    SCOPE_API,
    SCOPE_CLUSTER,
    SCOPE_LIMITS,
    SCOPE_POOL,
    SCOPE_LANE,
    SCOPE_TENANT,
    SCOPE_LISTENER,
    SCOPE_ROUTE,
    SCOPE_PROVIDER,
    SCOPE_COUNT
};

/* The arrays that grow while loading; all but LIST_SUFFIXES end up in struct config. */
enum key_list {
    LIST_NONE,
    LIST_RELAY_FROM,
    LIST_REFUSE_FROM,
    LIST_RELAY_DOMAINS,
    LIST_POOLS,
    LIST_LANES,
    LIST_TENANTS,
    LIST_TENANT_NETS,
    LIST_LISTENERS,
    LIST_ROUTES,
    LIST_PROVIDERS,
    LIST_SUFFIXES,
    LIST_COUNT
};

struct config_key {
    const char *name;
    enum key_type type;
    uint64_t min, max;        /* of numbers, in the unit of the field; of lists: elements */
    const char *preset;       /* as it would be written; NULL: none, see preset_note */
    const char *preset_via;   /* limits of a route with via; NULL elsewhere */
    const char *preset_note;  /* for people, where the preset is not one constant */
    const char *const *words; /* of KEY_ENUM and KEY_FLAGS, in the order of their values */
    enum key_scope child;     /* of KEY_SECTION and below */
    enum key_list list;       /* of lists */
    bool required;
    bool needs_restart;   /* a reload does not change it */
    size_t offset, bytes; /* of the field in the scope's struct */
    const char *help;
};

/* One lane entry as written: a range becomes several lanes. */
struct ip_range {
    struct ip first, last;
};
struct lane_entry {
    struct ip_range address;
    char ehlo[LIMIT_DOMAIN_BYTES + 1];
    char nic[16];
    char home[LIMIT_NAME_BYTES + 1];
    uint32_t weight;
};

/* The rows of a scope, *count of them. */
const struct config_key *config_keys_of(enum key_scope scope, size_t *count);
/* The row, or NULL. */
const struct config_key *config_key_find(enum key_scope scope, const char *name);
/* How a key of this scope is written: "smtp.", "listen[].", "pools.NAME.lanes[].". */
const char *config_scope_path(enum key_scope scope);
/* The nearest key name of the scope, or NULL. */
const char *config_key_suggest(enum key_scope scope, const char *word);

/* All keys with type, range, preset and help: as plain text, and as the manual page has them. */
void config_keys_print(struct text *out);
void config_keys_man(struct text *out);

#endif
