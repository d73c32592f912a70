/*
 * lookup - what is asked of the configuration for each recipient, connection and site.
 *
 * Built once after loading. Domains are looked up as themselves, then by their suffixes from the
 * longest on; networks by binary search.
 */
#include "config/load.h"

#include <errno.h>
#include <stdlib.h>

/* A network of a tenant that lies within no other. */
struct tenant_net {
    struct ip_net net;
    uint16_t tenant;
};
struct config_lookup {
    struct table routes;     /* domain -> index + 1 */
    struct table providers;  /* mx_suffix -> index + 1 */
    struct tenant_net *nets; /* IPv4 before IPv6, by address */
    uint32_t net_count;
};

static bool route_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct config *c = ctx;
    return span_ieq(span_str(c->routes[value - 1].domain), *(const struct span *)key);
}

static bool provider_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct config *c = ctx;
    return span_ieq(span_str(c->providers[value - 1].mx_suffix), *(const struct span *)key);
}

/* The entry for the name itself, or for the longest ".suffix" of it; 0 = none. */
static uint32_t find_by_name(const struct config *c, const struct table *t, table_eq *eq,
                             struct span name)
{
    if (name.n > LIMIT_DOMAIN_BYTES)
        return 0;
    uint32_t i = table_find(t, hash_bytes_ifold(name), eq, c, &name);
    for (size_t at = 0; i == 0 && at < name.n; at++) {
        if (name.p[at] != '.')
            continue;
        struct span suffix = span_of(name.p + at, name.n - at);
        i = table_find(t, hash_bytes_ifold(suffix), eq, c, &suffix);
    }
    return i;
}

const struct config_route *config_route_for(const struct config *c, struct span domain)
{
    struct span all = span_str("*");
    uint32_t i = find_by_name(c, &c->lookup->routes, route_eq, domain);
    if (i == 0)
        i = table_find(&c->lookup->routes, hash_bytes_ifold(all), route_eq, c, &all);
    return i == 0 ? NULL : &c->routes[i - 1];
}

const struct config_limits *config_limits_for(const struct config *c,
                                              const struct config_route *route, const char *mx_name,
                                              const char **provider)
{
    uint32_t i = mx_name == NULL
                     ? 0
                     : find_by_name(c, &c->lookup->providers, provider_eq, span_str(mx_name));
    *provider = i == 0 ? NULL : c->providers[i - 1].name;
    if (route != NULL && route->limits_given)
        return &route->limits;
    return i == 0 ? &c->limits : &c->providers[i - 1].limits;
}

static bool is_v4_net(const struct ip_net *n)
{
    return n->bits >= 96 && ip_is_v4(&n->ip);
}

static int by_place(const void *a, const void *b)
{
    const struct tenant_net *x = a, *y = b;
    if (is_v4_net(&x->net) != is_v4_net(&y->net))
        return is_v4_net(&x->net) ? -1 : 1;
    int order = memcmp(x->net.ip.b, y->net.ip.b, sizeof x->net.ip.b);
    return order != 0 ? order : (int)x->net.bits - (int)y->net.bits;
}

/* True when the network begins behind the address, in the order of by_place. */
static bool begins_behind(const struct ip_net *n, const struct ip *a)
{
    if (is_v4_net(n) != ip_is_v4(a))
        return !is_v4_net(n);
    return memcmp(n->ip.b, a->b, sizeof a->b) > 0;
}

uint16_t config_tenant_for(const struct config *c, const struct ip *client)
{
    const struct config_lookup *k = c->lookup;
    uint32_t low = 0, high = k->net_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (begins_behind(&k->nets[middle].net, client))
            high = middle;
        else
            low = middle + 1;
    }
    if (low > 0 && ip_in_net(client, &k->nets[low - 1].net))
        return k->nets[low - 1].tenant;
    return c->default_tenant;
}

static int build_nets(const struct config *c, struct config_lookup *k)
{
    if (c->tenant_net_count == 0)
        return 0;
    k->nets = calloc(c->tenant_net_count, sizeof *k->nets);
    if (k->nets == NULL)
        return -ENOMEM;
    uint32_t count = 0;
    for (uint32_t t = 0; t < c->tenant_count; t++) {
        const struct config_tenant *tenant = &c->tenants[t];
        for (uint32_t i = 0; i < tenant->net_count; i++)
            k->nets[count++] =
                (struct tenant_net){c->tenant_nets[tenant->first_net + i], (uint16_t)t};
    }
    MUST(count == c->tenant_net_count);
    qsort(k->nets, count, sizeof *k->nets, by_place);
    /* A tenant's network within another one of his says nothing new, and would hide that one. */
    for (uint32_t i = 0; i < count; i++) {
        const struct tenant_net *last = k->net_count == 0 ? NULL : &k->nets[k->net_count - 1];
        if (last != NULL && ip_in_net(&k->nets[i].net.ip, &last->net))
            MUST(last->tenant == k->nets[i].tenant);
        else
            k->nets[k->net_count++] = k->nets[i];
    }
    return 0;
}

int lookup_build(struct config *c)
{
    struct config_lookup *k = calloc(1, sizeof *k);
    if (k == NULL)
        return -ENOMEM;
    c->lookup = k;
    int rc = build_nets(c, k);
    for (uint32_t i = 0; rc == 0 && i < c->route_count; i++)
        rc = table_add(&k->routes, hash_bytes_ifold(span_str(c->routes[i].domain)), i + 1);
    for (uint32_t i = 0; rc == 0 && i < c->provider_count; i++)
        rc = table_add(&k->providers, hash_bytes_ifold(span_str(c->providers[i].mx_suffix)), i + 1);
    return rc;
}

void lookup_free(struct config_lookup **lookup)
{
    struct config_lookup *k = *lookup;
    if (k == NULL)
        return;
    table_fini(&k->routes);
    table_fini(&k->providers);
    free(k->nets);
    free(k);
    *lookup = NULL;
}
