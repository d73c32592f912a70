/*
 * check - what one key alone cannot tell: relations between keys, and values made of others.
 *
 * Runs after everything was read, also when there were errors, so that all are told at once; what
 * could not be read is then simply not there.
 */
#include "base/crc.h"
#include "base/text.h"
#include "config/load.h"
#include "config/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

static struct node *top_key(const struct loader *l, const char *name)
{
    return tree_get(&l->own, l->own.root, name);
}

/* The node of section.name, or of the section, or the top: where an error about it belongs. */
static const struct node *place_of(const struct loader *l, const char *section, const char *name)
{
    struct node *s = top_key(l, section);
    struct node *n = tree_get(&l->own, s, name);
    if (n != NULL)
        return n;
    return s != NULL ? s : l->own.root;
}

/* Pairs of keys of one section of which the first must not be larger. */
static const struct {
    enum key_scope scope;
    const char *section, *small, *large;
} pairs[] = {
    {SCOPE_QUEUE, "queue", "retry_first", "retry_max"},
    {SCOPE_QUEUE, "queue", "retry_greylist", "retry_max"},
    {SCOPE_CLIENT, "client", "host_retry", "host_retry_max"},
    {SCOPE_DNS, "dns", "query", "total"},
};

static void check_pairs(struct loader *l)
{
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++) {
        const struct config_key *a = config_key_find(pairs[i].scope, pairs[i].small);
        const struct config_key *b = config_key_find(pairs[i].scope, pairs[i].large);
        MUST(a != NULL);
        MUST(b != NULL);
        const uint8_t *base = (const uint8_t *)l->c;
        char small[32], large[32];
        struct text s = text_of(small, sizeof small), g = text_of(large, sizeof large);
        uint64_t most = value_load(base + b->offset, b->bytes);
        bool unread = most < b->min; /* it was wrong, and that is reported */
        if (unread || value_load(base + a->offset, a->bytes) <= most)
            continue;
        value_format(a, base + a->offset, &s);
        value_format(b, base + b->offset, &g);
        report_at(&l->report, place_of(l, pairs[i].section, pairs[i].small),
                  "%s (%s) is longer than %s (%s)", a->name, small, b->name, large);
    }
}

static void check_segment(struct loader *l)
{
    if (l->c->spool_options.segment_bytes % LIMIT_BATCH_BYTES != 0)
        report_at(&l->report, place_of(l, "spool_options", "segment"), "is not a multiple of 1M");
}

/* The number of the node in message ids: the same on every start, and rarely that of another. */
static void set_node_id(struct config *c)
{
    if (c->node_id == 0)
        c->node_id = (uint16_t)(1 + crc32c(0, span_str(c->node)) % UINT16_MAX);
}

/* The greeting needs a full name (RFC 5321 4.1.1.1); lanes on loopback may have had less. */
static void set_hostname(struct loader *l)
{
    struct config *c = l->c;
    if (c->hostname[0] != '\0' || l->lists[LIST_LANES].count == 0)
        return;
    const struct config_lane *lane = load_item(l, LIST_LANES, 0);
    if (strchr(lane->ehlo, '.') != NULL)
        memcpy(c->hostname, lane->ehlo, sizeof c->hostname);
    else
        snprintf(c->hostname, sizeof c->hostname, "%s.invalid", c->node);
}

static void set_socket(struct loader *l)
{
    struct config *c = l->c;
    char path[sizeof c->run + sizeof "/api.sock"];
    const struct sockaddr_un *un = NULL;

    if (c->api.socket[0] != '\0')
        return;
    int n = snprintf(path, sizeof path, "%s/api.sock", c->run);
    if (n < 0 || (size_t)n >= sizeof un->sun_path) {
        const struct node *run = top_key(l, "run");
        report_at(&l->report, run == NULL ? l->own.root : run,
                  "is too long for a socket below it (at most %zu bytes)",
                  sizeof un->sun_path - sizeof "/api.sock");
        return;
    }
    memcpy(c->api.socket, path, (size_t)n + 1);
}

/* Tenants by name. */
static const struct config_tenant *tenant_at(const struct loader *l, uint32_t i)
{
    return load_item(l, LIST_TENANTS, i);
}

/* Index of a tenant, or -1. */
static int64_t find_tenant(const struct loader *l, const char *name)
{
    for (uint32_t i = 0; i < l->lists[LIST_TENANTS].count; i++) {
        if (strcmp(tenant_at(l, i)->name, name) == 0)
            return i;
    }
    return -1;
}

static void report_no_tenant(struct loader *l, const struct node *at)
{
    char found[REPORT_FOUND_BYTES];
    report_at(&l->report, at, "there is no tenant %s", report_found(at, found));
}

/* The tenant of everybody else: the one named, or "default", made if it is not there. */
static void set_default_tenant(struct loader *l)
{
    const struct node *given = top_key(l, "default_tenant");
    bool named = given != NULL && given->kind == NODE_WORD && given->text[0] != '\0';
    int64_t i = find_tenant(l, named ? given->text : "default");

    if (i < 0 && named) {
        report_no_tenant(l, given);
        return;
    }
    if (i < 0) {
        struct config_tenant made = {.name = "default"};
        load_map(l, NULL, SCOPE_TENANT, &made, LOAD_PRESETS);
        made.first_net = l->lists[LIST_TENANT_NETS].count;
        i = l->lists[LIST_TENANTS].count;
        if (load_add(l, LIST_TENANTS, NULL, &made) == NULL)
            return;
    }
    l->c->default_tenant = (uint16_t)i;
}

static void check_listener_tenants(struct loader *l)
{
    for (uint32_t i = 0; i < l->lists[LIST_LISTENERS].count; i++) {
        const struct config_listener *x = load_item(l, LIST_LISTENERS, i);
        if (x->tenant[0] != '\0' && find_tenant(l, x->tenant) < 0)
            report_no_tenant(l, tree_get(&l->own, l->lists[LIST_LISTENERS].nodes[i], "tenant"));
    }
}

/*
 * Networks either lie within each other or apart, so that after sorting by first address, wider
 * first, a network overlaps with an earlier one exactly when it lies within the last one that lay
 * within no other.
 */
struct owned_net {
    struct ip_net net;
    uint32_t tenant;
    const struct node *node;
};

static int by_place(const void *a, const void *b)
{
    const struct owned_net *x = a, *y = b;
    bool x4 = ip_is_v4(&x->net.ip) && x->net.bits >= 96;
    bool y4 = ip_is_v4(&y->net.ip) && y->net.bits >= 96;
    if (x4 != y4)
        return x4 ? -1 : 1;
    int order = memcmp(x->net.ip.b, y->net.ip.b, sizeof x->net.ip.b);
    return order != 0 ? order : (int)x->net.bits - (int)y->net.bits;
}

static struct owned_net *collect_nets(const struct loader *l)
{
    const struct load_list *nets = &l->lists[LIST_TENANT_NETS];
    struct owned_net *all = calloc(nets->count, sizeof *all);
    if (all == NULL)
        return NULL;
    for (uint32_t t = 0; t < l->lists[LIST_TENANTS].count; t++) {
        const struct config_tenant *tenant = tenant_at(l, t);
        for (uint32_t i = 0; i < tenant->net_count; i++) {
            uint32_t at = tenant->first_net + i;
            memcpy(&all[at].net, load_item(l, LIST_TENANT_NETS, at), sizeof all[at].net);
            all[at].tenant = t;
            all[at].node = nets->nodes[at];
        }
    }
    qsort(all, nets->count, sizeof *all, by_place);
    return all;
}

static void check_overlaps(struct loader *l)
{
    uint32_t count = l->lists[LIST_TENANT_NETS].count;
    if (count == 0)
        return;
    struct owned_net *all = collect_nets(l);
    if (all == NULL) {
        l->no_memory = true;
        return;
    }
    const struct owned_net *cover = &all[0];
    for (uint32_t i = 1; i < count; i++) {
        if (!ip_in_net(&all[i].net.ip, &cover->net)) {
            cover = &all[i];
            continue;
        }
        if (all[i].tenant == cover->tenant)
            continue;
        /* The error stands where the later line is. */
        const struct owned_net *a = &all[i], *b = cover;
        bool swap = a->node->line < b->node->line;
        report_at(&l->report, swap ? b->node : a->node,
                  "overlaps with a network of tenant %s "
                  "(line %u)",
                  tenant_at(l, swap ? a->tenant : b->tenant)->name,
                  swap ? a->node->line : b->node->line);
    }
    free(all);
}

static bool is_node(const struct config *c, const char *name)
{
    bool found = strcmp(name, c->node) == 0;
    for (uint32_t i = 0; i < c->cluster.peers.count; i++)
        found = found || strcmp(name, c->cluster.peers.item[i].name) == 0;
    return found;
}

/* The lane's own home, its pool's, or none; errors stand where the home does, or is missed. */
static void set_home(struct loader *l, uint32_t i)
{
    const struct config *c = l->c;
    struct config_lane *lane = (struct config_lane *)l->lists[LIST_LANES].items + i;
    const struct config_pool *pool = load_item(l, LIST_POOLS, lane->pool);
    const struct node *at = l->lists[LIST_LANES].nodes[i];
    const struct node *own = tree_get(&l->own, at, "home");

    if (lane->home[0] == '\0') {
        at = l->lists[LIST_POOLS].nodes[lane->pool];
        own = tree_get(&l->own, at, "home");
        memcpy(lane->home, pool->home, sizeof lane->home);
    }
    if (lane->home[0] == '\0' && c->cluster.name[0] == '\0')
        return;
    if (lane->home[0] == '\0')
        report_at(&l->report, at, "home is missing: in a cluster every lane has one, which is %s "
                                  "or one of cluster.peers",
                  c->node);
    else if (c->cluster.name[0] == '\0' && strcmp(lane->home, c->node) != 0)
        report_at(&l->report, own, "home is %s, but without cluster.name there is no node but %s",
                  lane->home, c->node);
    else if (!is_node(c, lane->home))
        report_at(&l->report, own, "%s is neither this node (%s) nor one of cluster.peers",
                  lane->home, c->node);
    else
        return;
    /* Told once for each pool: the others are the same mistake. */
    memcpy(lane->home, c->node, sizeof lane->home);
}

static void check_homes(struct loader *l)
{
    uint32_t count = l->lists[LIST_POOLS].count;
    for (uint32_t i = 0; i < l->lists[LIST_LANES].count; i++) {
        const struct config_lane *lane = load_item(l, LIST_LANES, i);
        uint32_t errors = l->report.count;
        if (lane->pool >= count)
            continue; /* its pool could not be read, and that is reported */
        set_home(l, i);
        bool told = l->report.count > errors;
        while (told && i + 1 < l->lists[LIST_LANES].count) {
            const struct config_lane *next = load_item(l, LIST_LANES, i + 1);
            if (next->pool != lane->pool || next->home[0] != '\0')
                break;
            i++;
        }
    }
}

/* The address of the endpoint's text, or false when there is none. */
static bool endpoint_address(const char *text, struct ip *out)
{
    const char *end = strrchr(text, ':');
    if (end == NULL)
        return false;
    struct span s = span_of(text, (size_t)(end - text));
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = span_of(s.p + 1, s.n - 2);
    return ip_parse(s, out) == 0;
}

/* Connections between nodes never use a lane's address: it may move away under them. */
static void check_link_addresses(struct loader *l)
{
    const struct config *c = l->c;
    struct ip address;
    if (record_find_lane(l, &c->cluster.source) > 0)
        report_at(&l->report, place_of(l, "cluster", "source"), "is the address of a lane");
    if (endpoint_address(c->cluster.listen, &address) && record_find_lane(l, &address) > 0)
        report_at(&l->report, place_of(l, "cluster", "listen"), "is the address of a lane");
    for (uint32_t i = 0; i < c->cluster.peers.count; i++) {
        const struct config_peer *p = &c->cluster.peers.item[i];
        if (endpoint_address(p->endpoint, &address) && record_find_lane(l, &address) > 0)
            report_at(&l->report, place_of(l, "cluster", "peers"),
                      "%s is at the address of a lane, which may move", p->name);
    }
}

static void check_driver(struct loader *l)
{
    const struct config *c = l->c;
    if (c->cluster.driver == CLUSTER_DRIVER_L2 && c->cluster.interface[0] == '\0')
        report_at(&l->report, place_of(l, "cluster", "driver"),
                  "driver l2 needs cluster.interface: where lanes' addresses belong");
    if (c->cluster.driver == CLUSTER_DRIVER_EXEC && c->cluster.hook[0] == '\0')
        report_at(&l->report, place_of(l, "cluster", "driver"),
                  "driver exec needs cluster.hook: the program that moves addresses");
    if (c->cluster.hook[0] != '\0' && c->cluster.hook[0] != '/')
        report_at(&l->report, place_of(l, "cluster", "hook"), "is no absolute path");
}

static void check_cluster(struct loader *l)
{
    const struct config *c = l->c;
    bool dialled = false;

    check_driver(l);
    if (c->cluster.name[0] == '\0')
        return;
    for (uint32_t i = 0; i < c->cluster.peers.count; i++) {
        const char *name = c->cluster.peers.item[i].name;
        if (strcmp(name, c->node) == 0)
            report_at(&l->report, place_of(l, "cluster", "peers"), "%s is this node itself", name);
        dialled = dialled || strcmp(name, c->node) > 0;
    }
    if (dialled && c->cluster.listen[0] == '\0')
        report_at(&l->report, place_of(l, "cluster", "listen"),
                  "listen is missing: peers whose names sort after %s connect to this node",
                  c->node);
    check_link_addresses(l);
}

void check_all(struct loader *l)
{
    check_pairs(l);
    check_segment(l);
    set_node_id(l->c);
    set_hostname(l);
    set_socket(l);
    set_default_tenant(l);
    check_listener_tenants(l);
    check_overlaps(l);
    check_cluster(l);
    check_homes(l);
}
