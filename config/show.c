/*
 * show - a loaded configuration as YAML, with the source of every value.
 *
 * What is written loads to the same configuration: the master hands it to its children when there
 * were overrides. So nothing is written that would mean more than it did: a route without limits of
 * its own gets none here.
 */
#include "base/text.h"
#include "config/load.h"
#include "config/value.h"

struct shown {
    const struct loader *l;
    struct text *out;
    const char *file;
};

/* Where a value stands: a comment to the end of the line. */
static void put_source(const struct shown *s, const struct node *at, bool built_in)
{
    if (built_in)
        text_puts(s->out, "  # built-in");
    else if (at == NULL)
        text_puts(s->out, "  # preset");
    else if (at->line == 0)
        text_puts(s->out, "  # --set");
    if (built_in || at == NULL || at->line == 0)
        return;
    text_puts(s->out, "  # ");
    text_put_clean(s->out, span_str(s->file));
    text_fmt(s->out, ":%u", at->line);
}

static void put_words(const struct config_key *k, const void *field, struct text *out)
{
    uint64_t bits = value_load(field, k->bytes);
    bool first = true;

    text_putc(out, '[');
    for (unsigned i = 0; k->words[i] != NULL; i++) {
        if ((bits >> i & 1) == 0)
            continue;
        text_fmt(out, "%s%s", first ? "" : ", ", k->words[i]);
        first = false;
    }
    text_putc(out, ']');
}

static void put_servers(const char *servers, struct text *out)
{
    text_putc(out, '[');
    while (*servers != '\0') {
        size_t n = strcspn(servers, ",");
        text_json(out, span_of(servers, n));
        servers += n;
        if (*servers == ',') {
            text_puts(out, ", ");
            servers++;
        }
    }
    text_putc(out, ']');
}

static void put_peers(const struct config_peers *peers, struct text *out)
{
    text_putc(out, '{');
    for (uint32_t i = 0; i < peers->count; i++) {
        text_fmt(out, "%s%s: ", i == 0 ? "" : ", ", peers->item[i].name);
        value_put_word(out, peers->item[i].endpoint);
    }
    text_putc(out, '}');
}

static void put_nets(const struct ip_net *nets, uint32_t count, struct text *out)
{
    static const struct config_key net = {.type = KEY_NET};
    text_putc(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        text_puts(out, i == 0 ? "" : ", ");
        value_format(&net, &nets[i], out);
    }
    text_putc(out, ']');
}

static void put_limits(const struct config_limits *limits, struct text *out)
{
    size_t count;
    const struct config_key *keys = config_keys_of(SCOPE_LIMITS, &count);

    text_putc(out, '{');
    for (size_t i = 0; i < count; i++) {
        text_fmt(out, "%s%s: ", i == 0 ? "" : ", ", keys[i].name);
        value_format(&keys[i], (const uint8_t *)limits + keys[i].offset, out);
    }
    text_putc(out, '}');
}

/* True when the key has nothing to say in this record, so that it is left out. */
static bool is_silent(const struct config_key *k, enum key_scope scope, const void *base)
{
    if (scope != SCOPE_ROUTE)
        return false;
    const struct config_route *r = base;
    return (k->type == KEY_VIA && r->host[0] == '\0') ||
           (k->type == KEY_LIMITS && !r->limits_given);
}

static void put_value(const struct shown *s, const struct config_key *k, const void *base)
{
    const struct config *c = s->l->c;
    const uint8_t *field = (const uint8_t *)base + k->offset;

    if (value_is_single(k->type)) {
        value_format(k, field, s->out);
    } else if (k->type == KEY_POOL) {
        text_puts(s->out, c->pools[value_load(field, k->bytes)].name);
    } else if (k->type == KEY_TENANT && k->bytes > LIMIT_NAME_BYTES) {
        value_put_word(s->out, (const char *)field);
    } else if (k->type == KEY_TENANT) {
        text_puts(s->out, c->tenants[value_load(field, k->bytes)].name);
    } else if (k->type == KEY_FLAGS) {
        put_words(k, field, s->out);
    } else if (k->type == KEY_SERVERS) {
        put_servers((const char *)field, s->out);
    } else if (k->type == KEY_PEERS) {
        put_peers((const void *)field, s->out);
    } else if (k->type == KEY_LIMITS) {
        put_limits((const void *)field, s->out);
    } else {
        MUST(k->list == LIST_TENANT_NETS);
        const struct config_tenant *t = base;
        put_nets(t->net_count == 0 ? NULL : c->tenant_nets + t->first_net, t->net_count, s->out);
    }
}

/* One record in one line, and which of its keys have their presets. */
static void put_record(const struct shown *s, enum key_scope scope, const void *base,
                       const struct node *at)
{
    size_t count;
    const struct config_key *keys = config_keys_of(scope, &count);
    const char *between = "";

    text_putc(s->out, '{');
    for (size_t i = 0; i < count; i++) {
        if (is_silent(&keys[i], scope, base))
            continue;
        text_fmt(s->out, "%s%s: ", between, keys[i].name);
        put_value(s, &keys[i], base);
        between = ", ";
    }
    text_putc(s->out, '}');
    put_source(s, at, false);
    between = "; preset: ";
    for (size_t i = 0; at != NULL && i < count; i++) {
        if (tree_get(&s->l->own, at, keys[i].name) != NULL || is_silent(&keys[i], scope, base))
            continue;
        text_fmt(s->out, "%s%s", between, keys[i].name);
        between = ", ";
    }
    text_putc(s->out, '\n');
}

static const struct node *node_of(const struct shown *s, enum key_list id, uint32_t i)
{
    return s->l->lists[id].nodes[i];
}

static void put_pools(const struct shown *s)
{
    const struct config *c = s->l->c;
    for (uint32_t i = 0; i < c->pool_count; i++) {
        text_fmt(s->out, "  %s:", c->pools[i].name);
        put_source(s, node_of(s, LIST_POOLS, i), false);
        text_puts(s->out, "\n    lanes:\n");
        for (uint32_t j = 0; j < c->pools[i].lane_count; j++) {
            const struct config_lane *lane = &c->lanes[c->pools[i].first_lane + j];
            struct lane_entry e = {.address = {lane->address, lane->address},
                                   .weight = lane->weight};
            memcpy(e.ehlo, lane->ehlo, sizeof e.ehlo);
            memcpy(e.nic, lane->nic, sizeof e.nic);
            memcpy(e.home, lane->home, sizeof e.home);
            text_puts(s->out, "      - ");
            put_record(s, SCOPE_LANE, &e, node_of(s, LIST_LANES, c->pools[i].first_lane + j));
        }
    }
}

static void put_tenants(const struct shown *s)
{
    const struct config *c = s->l->c;
    for (uint32_t i = 0; i < c->tenant_count; i++) {
        text_fmt(s->out, "  %s: ", c->tenants[i].name);
        put_record(s, SCOPE_TENANT, &c->tenants[i], node_of(s, LIST_TENANTS, i));
    }
}

static void put_listeners(const struct shown *s)
{
    for (uint32_t i = 0; i < s->l->c->listener_count; i++) {
        text_puts(s->out, "  - ");
        put_record(s, SCOPE_LISTENER, &s->l->c->listeners[i], node_of(s, LIST_LISTENERS, i));
    }
}

static void put_routes(const struct shown *s)
{
    for (uint32_t i = 0; i < s->l->c->route_count; i++) {
        text_puts(s->out, "  - ");
        put_record(s, SCOPE_ROUTE, &s->l->c->routes[i], node_of(s, LIST_ROUTES, i));
    }
}

static void put_providers(const struct shown *s)
{
    const struct config *c = s->l->c;
    uint32_t end;
    for (uint32_t i = 0; i < c->provider_count; i = end) {
        const struct config_provider *p = &c->providers[i];
        text_fmt(s->out, "  %s: {mx: [", p->name);
        for (end = i; end < c->provider_count; end++) {
            if (strcmp(c->providers[end].name, p->name) != 0)
                break;
            text_puts(s->out, end == i ? "" : ", ");
            value_put_word(s->out, c->providers[end].mx_suffix);
        }
        text_puts(s->out, "], limits: ");
        put_limits(&p->limits, s->out);
        text_putc(s->out, '}');
        put_source(s, node_of(s, LIST_PROVIDERS, i), i >= s->l->built_in_from);
        text_putc(s->out, '\n');
    }
}

static void put_net_list(const struct shown *s, enum key_list list, const struct ip_net *nets,
                         uint32_t count)
{
    static const struct config_key net = {.type = KEY_NET};
    for (uint32_t i = 0; i < count; i++) {
        text_puts(s->out, "  - ");
        value_format(&net, &nets[i], s->out);
        put_source(s, node_of(s, list, i), false);
        text_putc(s->out, '\n');
    }
}

static void put_relay_from(const struct shown *s)
{
    put_net_list(s, LIST_RELAY_FROM, s->l->c->relay_from, s->l->c->relay_from_count);
}

static void put_refuse_from(const struct shown *s)
{
    put_net_list(s, LIST_REFUSE_FROM, s->l->c->refuse_from, s->l->c->refuse_from_count);
}

static void put_relay_domains(const struct shown *s)
{
    for (uint32_t i = 0; i < s->l->c->relay_domain_count; i++) {
        text_puts(s->out, "  - ");
        value_put_word(s->out, s->l->c->relay_domains[i]);
        put_source(s, node_of(s, LIST_RELAY_DOMAINS, i), false);
        text_putc(s->out, '\n');
    }
}

static void put_list(const struct shown *s, const struct config_key *k)
{
    typedef void put_fn(const struct shown *s);
    static put_fn *const put[LIST_COUNT] = {
        [LIST_RELAY_FROM] = put_relay_from,       [LIST_REFUSE_FROM] = put_refuse_from,
        [LIST_RELAY_DOMAINS] = put_relay_domains, [LIST_POOLS] = put_pools,
        [LIST_TENANTS] = put_tenants,             [LIST_LISTENERS] = put_listeners,
        [LIST_ROUTES] = put_routes,               [LIST_PROVIDERS] = put_providers,
    };
    MUST(put[k->list] != NULL);
    if (s->l->lists[k->list].count == 0) {
        text_fmt(s->out, "%s: %s", k->name, k->type == KEY_NAMED ? "{}" : "[]");
        put_source(s, tree_get(&s->l->own, s->l->own.root, k->name), false);
        text_putc(s->out, '\n');
        return;
    }
    text_fmt(s->out, "%s:\n", k->name);
    put[k->list](s);
}

static void put_scope(const struct shown *s, enum key_scope scope, const struct node *map,
                      const void *base)
{
    size_t count;
    const struct config_key *keys = config_keys_of(scope, &count);

    for (size_t i = 0; i < count; i++) {
        const struct config_key *k = &keys[i];
        const struct node *at = tree_get(&s->l->own, map, k->name);
        if (k->list != LIST_NONE) {
            put_list(s, k);
            continue;
        }
        if (k->type == KEY_SECTION) {
            text_fmt(s->out, "%s:\n", k->name);
            put_scope(s, k->child, at, (const uint8_t *)base + k->offset);
            continue;
        }
        text_fmt(s->out, "%s%s: ", scope == SCOPE_TOP ? "" : "  ", k->name);
        put_value(s, k, base);
        put_source(s, at, false);
        text_putc(s->out, '\n');
    }
}

int config_show(const struct config_input *in, struct text *errors, struct text *out)
{
    struct loader l;
    int rc = load_run(&l, in, errors);
    if (rc == 0) {
        const struct shown s = {.l = &l, .out = out, .file = in->file};
        put_scope(&s, SCOPE_TOP, l.own.root, l.c);
    }
    load_fini(&l);
    return rc;
}
