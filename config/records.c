/*
 * records - the items of lists: pools and their lanes, tenants, listeners, routes, providers.
 *
 * Each is read into a local struct first and added when it is whole, since reading it may add to
 * other lists. A record with errors is added where others refer to it (pools, tenants), so that one
 * mistake is one error.
 */
#include "base/text.h"
#include "config/load.h"
#include "config/value.h"

#include <stdio.h>
#include <stdlib.h>

#include "config/embed.h"

/* Names fit because KEY_NAME and KEY_NAMED checked them; a wrong one is cut. */
static void copy_name(char out[LIMIT_NAME_BYTES + 1], const char *name)
{
    size_t n = strnlen(name, LIMIT_NAME_BYTES);
    memcpy(out, name, n);
    out[n] = '\0';
}

/* Lanes. */
static uint32_t hash_ip(const struct ip *a)
{
    return hash_bytes(span_of(a->b, sizeof a->b));
}

static bool lane_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct config_lane *lane = load_item(ctx, LIST_LANES, value - 1);
    return ip_eq(&lane->address, key);
}

uint32_t record_find_lane(const struct loader *l, const struct ip *address)
{
    return table_find(&l->lanes, hash_ip(address), lane_eq, l, address);
}

static bool is_loopback(const struct ip *a)
{
    static const struct ip v6 = {{[15] = 1}};
    return ip_is_v4(a) ? a->b[12] == 127 : ip_eq(a, &v6);
}

/* Puts the last octet in place of %d; false when the name becomes too long. */
static bool expand_ehlo(const char *pattern, const struct ip *a, char out[LIMIT_DOMAIN_BYTES + 1])
{
    const char *place = strstr(pattern, "%d");
    size_t head = place == NULL ? strlen(pattern) : (size_t)(place - pattern);
    struct text t = text_of(out, LIMIT_DOMAIN_BYTES + 1);

    text_put(&t, span_of(pattern, head));
    if (place != NULL) {
        text_put_u64(&t, a->b[sizeof a->b - 1]);
        text_puts(&t, place + 2);
    }
    return !t.cut && value_domain_ok(text_span(&t));
}

static bool ehlo_ok(struct loader *l, const struct lane_entry *e, const struct node *at)
{
    char found[REPORT_FOUND_BYTES];

    if (strchr(e->ehlo, '.') == NULL && !is_loopback(&e->address.first)) {
        report_at(&l->report, at,
                  "%s is not a full host name such as out10.example.net (only "
                  "lanes on loopback may do with less)",
                  report_found(at, found));
        return false;
    }
    if (strstr(e->ehlo, "%d") != NULL && !ip_is_v4(&e->address.first)) {
        report_at(&l->report, at, "%%d stands for the last octet of an IPv4 address");
        return false;
    }
    return true;
}

static void add_lane(struct loader *l, const struct lane_entry *e, const struct ip *address,
                     struct node *item)
{
    struct config_lane lane = {.address = *address, .weight = e->weight};
    char text[IP_TEXT];

    uint32_t same = record_find_lane(l, address);
    if (same > 0) {
        ip_format(address, text);
        report_at(&l->report, tree_get(l->tree, item, "address"), "%s is a lane already (line %u)",
                  text, l->lists[LIST_LANES].nodes[same - 1]->line);
        return;
    }
    memcpy(lane.nic, e->nic, sizeof lane.nic);
    memcpy(lane.home, e->home, sizeof lane.home);
    lane.pool = (uint16_t)l->lists[LIST_POOLS].count;
    if (!expand_ehlo(e->ehlo, address, lane.ehlo)) {
        report_at(&l->report, item, "ehlo is too long with %%d expanded");
        return;
    }
    if (load_add(l, LIST_LANES, item, &lane) != NULL)
        load_index(l, &l->lanes, hash_ip(address), l->lists[LIST_LANES].count);
}

static void read_lane(struct loader *l, struct node *item)
{
    struct lane_entry e = {.weight = 0};
    uint32_t errors = l->report.count;

    load_map(l, item, SCOPE_LANE, &e, LOAD_PRESETS);
    if (l->report.count != errors || !ehlo_ok(l, &e, tree_get(l->tree, item, "ehlo")))
        return;
    struct ip address = e.address.first;
    enum { LAST = sizeof address.b - 1 };
    for (unsigned n = address.b[LAST]; n <= e.address.last.b[LAST]; n++) {
        address.b[LAST] = (uint8_t)n;
        add_lane(l, &e, &address, item);
    }
}

static void read_pool(struct loader *l, struct node *item)
{
    struct config_pool pool = {.first_lane = l->lists[LIST_LANES].count};

    copy_name(pool.name, item->name);
    load_map(l, item, SCOPE_POOL, &pool, LOAD_PRESETS);
    pool.lane_count = l->lists[LIST_LANES].count - pool.first_lane;
    (void)load_add(l, LIST_POOLS, item, &pool);
}

static void read_tenant(struct loader *l, struct node *item)
{
    struct config_tenant tenant = {.first_net = l->lists[LIST_TENANT_NETS].count};

    copy_name(tenant.name, item->name);
    load_map(l, item, SCOPE_TENANT, &tenant, LOAD_PRESETS);
    tenant.net_count = l->lists[LIST_TENANT_NETS].count - tenant.first_net;
    (void)load_add(l, LIST_TENANTS, item, &tenant);
}

static void read_listener(struct loader *l, struct node *item)
{
    struct config_listener x = {.port = 0};
    uint32_t errors = l->report.count;

    load_map(l, item, SCOPE_LISTENER, &x, LOAD_PRESETS);
    if (l->report.count != errors)
        return;
    if (tree_get(l->tree, item, "bare") == NULL)
        x.bare = x.role == ROLE_SUBMISSION ? BARE_NORMALISE : BARE_REJECT;
    for (uint32_t i = 0; i < l->lists[LIST_LISTENERS].count; i++) {
        const struct config_listener *other = load_item(l, LIST_LISTENERS, i);
        if (ip_eq(&other->address, &x.address) && other->port == x.port) {
            report_at(&l->report, item, "address and port are listened on already (line %u)",
                      l->lists[LIST_LISTENERS].nodes[i]->line);
            return;
        }
    }
    (void)load_add(l, LIST_LISTENERS, item, &x);
}

/* Routes. */
void record_limits_via(struct config_limits *out)
{
    size_t count;
    const struct config_key *keys = config_keys_of(SCOPE_LIMITS, &count);
    for (size_t i = 0; i < count; i++) {
        MUST(keys[i].preset_via != NULL);
        int rc = value_parse(&keys[i], keys[i].preset_via, (uint8_t *)out + keys[i].offset);
        MUST(rc == 0);
    }
}

static bool route_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct config_route *r = load_item(ctx, LIST_ROUTES, value - 1);
    return strcmp(r->domain, key) == 0;
}

static bool route_ok(struct loader *l, const struct config_route *r, const struct node *item)
{
    const struct tree *t = l->tree;
    const struct node *domain = tree_get(t, item, "domain");
    bool by_name = r->host[0] != '\0' && r->host[0] != '[';

    uint32_t same = table_find(&l->routes, hash_bytes(span_str(r->domain)), route_eq, l, r->domain);
    if (same > 0) {
        report_at(&l->report, domain, "%s has a route already (line %u)", r->domain,
                  l->lists[LIST_ROUTES].nodes[same - 1]->line);
        return false;
    }
    if (r->host[0] == '\0' && strcmp(r->domain, "*") == 0) {
        report_at(&l->report, domain,
                  "a route of all domains needs via; for limits and family of "
                  "all others see `limits` and `client.family`");
        return false;
    }
    if (r->host[0] == '\0' && !r->limits_given && tree_get(t, item, "family") == NULL) {
        report_at(&l->report, item, "says nothing: give it via, limits or family");
        return false;
    }
    if (by_name && !l->c->dns.enabled) {
        report_at(&l->report, tree_get(t, item, "via"),
                  "\"%s\" cannot be looked up while "
                  "dns.enabled is false; write an address",
                  r->host);
        return false;
    }
    return true;
}

static void read_route(struct loader *l, struct node *item)
{
    struct config_route r = {.limits = l->c->limits, .family = l->c->client.family};
    uint32_t errors = l->report.count;
    bool via = tree_get(l->tree, item, "via") != NULL;

    if (via)
        record_limits_via(&r.limits);
    r.limits_given = via || tree_get(l->tree, item, "limits") != NULL;
    load_map(l, item, SCOPE_ROUTE, &r, LOAD_PRESETS);
    if (l->report.count != errors || !route_ok(l, &r, item))
        return;
    if (r.port == 0)
        r.port = l->c->client.port;
    if (load_add(l, LIST_ROUTES, item, &r) != NULL)
        load_index(l, &l->routes, hash_bytes(span_str(r.domain)), l->lists[LIST_ROUTES].count);
}

/* Providers: one entry for each of a provider's suffixes. */
static bool suffix_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct config_provider *p = load_item(ctx, LIST_PROVIDERS, value - 1);
    return strcmp(p->mx_suffix, key) == 0;
}

static void add_suffix(struct loader *l, struct config_provider *p, uint32_t i, struct node *item,
                       bool built_in)
{
    const char *suffix = load_item(l, LIST_SUFFIXES, i);
    uint32_t hash = hash_bytes(span_str(suffix));
    uint32_t same = table_find(&l->suffixes, hash, suffix_eq, l, suffix);

    if (same > 0 && built_in)
        return; /* the operator gave this name to a provider of his own */
    if (same > 0) {
        const struct config_provider *other = load_item(l, LIST_PROVIDERS, same - 1);
        report_at(&l->report, l->lists[LIST_SUFFIXES].nodes[i], "%s belongs to provider %s already",
                  suffix, other->name);
        return;
    }
    memset(p->mx_suffix, 0, sizeof p->mx_suffix);
    memcpy(p->mx_suffix, suffix, strlen(suffix));
    if (load_add(l, LIST_PROVIDERS, item, p) != NULL)
        load_index(l, &l->suffixes, hash, l->lists[LIST_PROVIDERS].count);
}

static struct node *built_in_providers(const struct loader *l)
{
    return tree_get(&l->built_in, l->built_in.root, "providers");
}

static void read_provider(struct loader *l, struct node *item)
{
    struct config_provider p = {.limits = l->c->limits};
    bool built_in = l->tree == &l->built_in;
    struct node *known =
        built_in ? NULL : tree_get(&l->built_in, built_in_providers(l), item->name);
    uint32_t first = l->lists[LIST_SUFFIXES].count;

    copy_name(p.name, item->name);
    if (known != NULL) {
        l->tree = &l->built_in;
        load_map(l, known, SCOPE_PROVIDER, &p, LOAD_OVERLAY);
        l->tree = &l->own;
        if (tree_get(l->tree, item, "mx") != NULL)
            first = l->lists[LIST_SUFFIXES].count;
    }
    uint32_t errors = l->report.count;
    load_map(l, item, SCOPE_PROVIDER, &p, LOAD_PRESETS);
    uint32_t end = l->lists[LIST_SUFFIXES].count;
    if (end == first && l->report.count == errors)
        report_at(&l->report, item,
                  "mx is missing: names of mail exchangers such as "
                  "[.mx.example.net]");
    for (uint32_t i = first; i < end; i++)
        add_suffix(l, &p, i, item, built_in);
}

/* Parsed before the operator's own are read, since those may build on them. */
static void parse_built_in(struct loader *l)
{
    struct report own = l->report;

    if (l->no_memory)
        return;
    l->report = (struct report){.out = own.out, .file = "(built-in) providers.yaml"};
    int rc = tree_parse(&l->built_in, span_of(embed_providers_yaml, embed_providers_yaml_bytes),
                        &l->report);
    MUST(l->report.count == 0);
    l->report = own;
    if (rc < 0)
        l->no_memory = true;
}

void record_built_in_providers(struct loader *l)
{
    const struct node *own = tree_get(&l->own, l->own.root, "providers");

    l->built_in_from = l->lists[LIST_PROVIDERS].count;
    if (l->built_in.root == NULL)
        parse_built_in(l);
    struct node *providers = built_in_providers(l);
    for (struct node *n = providers == NULL ? NULL : providers->first; n != NULL; n = n->next) {
        if (tree_get(&l->own, own, n->name) != NULL)
            continue;
        l->tree = &l->built_in;
        read_provider(l, n);
        l->tree = &l->own;
    }
}

void record_read(struct loader *l, enum key_list id, struct node *item)
{
    switch (id) {
    case LIST_POOLS:
        read_pool(l, item);
        return;
    case LIST_LANES:
        read_lane(l, item);
        return;
    case LIST_TENANTS:
        read_tenant(l, item);
        return;
    case LIST_LISTENERS:
        read_listener(l, item);
        return;
    case LIST_ROUTES:
        read_route(l, item);
        return;
    case LIST_PROVIDERS:
        if (l->built_in.root == NULL)
            parse_built_in(l);
        read_provider(l, item);
        return;
    case LIST_NONE:
    case LIST_RELAY_FROM:
    case LIST_REFUSE_FROM:
    case LIST_RELAY_DOMAINS:
    case LIST_TENANT_NETS:
    case LIST_SUFFIXES:
    case LIST_COUNT:
        break;
    }
    check_failed("a list of records", __FILE__, __LINE__);
}
