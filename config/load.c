/*
 * load - see load.h.
 *
 * Invariant: every row of a scope is visited in the order of the table, whatever the order in the
 * file, so that a reader may use what rows above it have put into struct config.
 */
#include "config/load.h"

#include "base/suggest.h"
#include "base/text.h"
#include "config/value.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ALLOWED_BYTES = 256,
    SERVER_BYTES = IP_TEXT + 16,
    TENANT_NETS_MAX = 65536,
    PROVIDER_ENTRIES_MAX = 4096,
    LIST_ITEMS_FIRST = 16
};

struct list_shape {
    size_t item_bytes;
    uint32_t max;
    const char *what;
};
static const struct list_shape shapes[LIST_COUNT] = {
    [LIST_RELAY_FROM] = {sizeof(struct ip_net), LIMIT_NETS, "networks"},
    [LIST_REFUSE_FROM] = {sizeof(struct ip_net), LIMIT_NETS, "networks"},
    [LIST_RELAY_DOMAINS] = {LIMIT_DOMAIN_BYTES + 1, 16384, "domains"},
    [LIST_POOLS] = {sizeof(struct config_pool), LIMIT_POOLS, "pools"},
    [LIST_LANES] = {sizeof(struct config_lane), LIMIT_LANES, "lanes"},
    [LIST_TENANTS] = {sizeof(struct config_tenant), LIMIT_TENANTS, "tenants"},
    [LIST_TENANT_NETS] = {sizeof(struct ip_net), TENANT_NETS_MAX, "networks of tenants"},
    [LIST_LISTENERS] = {sizeof(struct config_listener), LIMIT_LISTENERS, "listeners"},
    [LIST_ROUTES] = {sizeof(struct config_route), LIMIT_ROUTES, "routes"},
    [LIST_PROVIDERS] = {sizeof(struct config_provider), PROVIDER_ENTRIES_MAX, "providers"},
    [LIST_SUFFIXES] = {LIMIT_DOMAIN_BYTES + 1, PROVIDER_ENTRIES_MAX, "names of providers"},
};

/* Lists. */
static bool grow(struct loader *l, struct load_list *list, size_t item_bytes)
{
    uint32_t cap = list->cap == 0 ? LIST_ITEMS_FIRST : list->cap * 2;
    uint8_t *items = realloc(list->items, cap * item_bytes);
    if (items != NULL)
        list->items = items;
    struct node **nodes = realloc(list->nodes, cap * sizeof(struct node *));
    if (nodes != NULL)
        list->nodes = nodes;
    if (items == NULL || nodes == NULL) {
        l->no_memory = true;
        return false;
    }
    list->cap = cap;
    return true;
}

void *load_add(struct loader *l, enum key_list id, struct node *from, const void *item)
{
    const struct list_shape *shape = &shapes[id];
    struct load_list *list = &l->lists[id];

    MUST(id != LIST_NONE);
    MUST(shape->item_bytes > 0);
    if (list->count == shape->max) {
        if (from != NULL)
            report_at(&l->report, from, "more than %u %s", shape->max, shape->what);
        return NULL;
    }
    if (list->count == list->cap && !grow(l, list, shape->item_bytes))
        return NULL;
    uint8_t *place = list->items + list->count * shape->item_bytes;
    memcpy(place, item, shape->item_bytes);
    list->nodes[list->count] = from;
    list->count++;
    if (from != NULL)
        from->record = list->count;
    return place;
}

const void *load_item(const struct loader *l, enum key_list id, uint32_t i)
{
    MUST(i < l->lists[id].count);
    return l->lists[id].items + i * shapes[id].item_bytes;
}

void load_index(struct loader *l, struct table *t, uint32_t hash, uint32_t value)
{
    if (table_add(t, hash, value) < 0)
        l->no_memory = true;
}

/* Errors. */
void load_bad(struct loader *l, const struct config_key *k, const struct node *at)
{
    char allowed[ALLOWED_BYTES], found[REPORT_FOUND_BYTES];
    struct text t = text_of(allowed, sizeof allowed);
    const char *near = NULL;

    if (at->kind == NODE_BAD)
        return;
    value_allowed(k, &t);
    if (k->words != NULL && at->kind == NODE_WORD) {
        size_t count = 0;
        while (k->words[count] != NULL)
            count++;
        near = suggest_nearest(at->text, k->words, count);
    }
    report_at(&l->report, at, "%s is not %s%s%s%s", report_found(at, found), allowed,
              near == NULL ? "" : "; did you mean \"", near == NULL ? "" : near,
              near == NULL ? "" : "\"?");
}

static void report_unknown(struct loader *l, const struct node *at, enum key_scope scope)
{
    char known[ALLOWED_BYTES * 2];
    struct text t = text_of(known, sizeof known);
    const char *near = config_key_suggest(scope, at->name);
    size_t count;

    if (near != NULL) {
        report_at(&l->report, at, "unknown key; did you mean \"%s\"?", near);
        return;
    }
    const struct config_key *keys = config_keys_of(scope, &count);
    for (size_t i = 0; i < count; i++)
        text_fmt(&t, "%s%s", i == 0 ? "" : ", ", keys[i].name);
    report_at(&l->report, at, "unknown key; known here: %s", known);
}

static void report_missing(struct loader *l, const struct config_key *k, const struct node *map)
{
    char allowed[ALLOWED_BYTES];
    struct text t = text_of(allowed, sizeof allowed);
    value_allowed(k, &t);
    report_at(&l->report, map, "%s is missing; it must be %s", k->name, allowed);
}

/* Values. */
static void read_single(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    if (v->kind != NODE_WORD || value_parse(k, v->text, field) < 0)
        load_bad(l, k, v);
}

/* False, and reported, when v is no list or has too few or too many items. */
static bool is_list(struct loader *l, const struct config_key *k, const struct node *v)
{
    if (v->kind != NODE_LIST) {
        load_bad(l, k, v);
        return false;
    }
    if (v->count < k->min || v->count > k->max) {
        report_at(&l->report, v, "has %u items; %u to %u are allowed", v->count, (unsigned)k->min,
                  (unsigned)k->max);
        return false;
    }
    return true;
}

static void read_words(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    const struct config_key word = {
        .name = k->name, .type = KEY_ENUM, .max = k->max - 1, .words = k->words, .bytes = 1};
    uint64_t bits = 0;

    if (!is_list(l, k, v))
        return;
    for (struct node *n = v->first; n != NULL; n = n->next) {
        uint8_t bit = 0;
        read_single(l, &word, n, &bit);
        bits |= UINT64_C(1) << bit;
    }
    value_store(field, k->bytes, bits);
}

static void read_servers(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    const struct config_key server = {.name = k->name, .type = KEY_SERVER, .bytes = SERVER_BYTES};
    struct text out = text_of(field, k->bytes);

    if (!is_list(l, k, v))
        return;
    for (struct node *n = v->first; n != NULL; n = n->next) {
        char text[SERVER_BYTES] = "";
        read_single(l, &server, n, text);
        text_fmt(&out, "%s%s", n == v->first ? "" : ",", text);
    }
    MUST(!out.cut);
}

static void read_peers(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    struct config_peers *peers = field;
    const struct config_key endpoint = {
        .name = k->name, .type = KEY_ENDPOINT, .bytes = sizeof peers->item[0].endpoint};
    memset(peers, 0, sizeof *peers);
    if (v->kind != NODE_MAP) {
        load_bad(l, k, v);
        return;
    }
    if (v->count > k->max) {
        report_at(&l->report, v, "has %u names; at most %u are allowed", v->count,
                  (unsigned)k->max);
        return;
    }
    for (struct node *n = v->first; n != NULL; n = n->next) {
        struct config_peer *peer = &peers->item[peers->count];
        if (!value_name_ok(n->name)) {
            report_at(&l->report, n, "its key is not a name of a node (1 to 32 of a-z, 0-9 and -)");
            continue;
        }
        memcpy(peer->name, n->name, strlen(n->name) + 1);
        read_single(l, &endpoint, n, peer->endpoint);
        peers->count++;
    }
}

/* A list of networks or domains: each item goes to the list that the row names. */
static void read_items(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    static const enum key_type element[KEY_TYPE_COUNT] = {
        [KEY_NETS] = KEY_NET, [KEY_DOMAINS] = KEY_DOMAIN, [KEY_PATTERNS] = KEY_PATTERN};
    const struct config_key item = {
        .name = k->name, .type = element[k->type], .bytes = shapes[k->list].item_bytes};
    union {
        struct ip_net net;
        char domain[LIMIT_DOMAIN_BYTES + 1];
    } value;

    (void)field;
    if (!is_list(l, k, v))
        return;
    for (struct node *n = v->first; n != NULL && !report_full(&l->report); n = n->next) {
        uint32_t errors = l->report.count;
        memset(&value, 0, sizeof value);
        read_single(l, &item, n, &value);
        if (l->report.count == errors)
            (void)load_add(l, k->list, n, &value);
    }
}

/* Which pool it is, is known by its name; the index goes into the field. */
static void read_pool_name(struct loader *l, const struct config_key *k, struct node *v,
                           void *field)
{
    const struct node *pools = tree_get(&l->own, l->own.root, "pools");
    const struct node *pool = v->kind == NODE_WORD ? tree_get(&l->own, pools, v->text) : NULL;
    char found[REPORT_FOUND_BYTES];
    const char *names[64];
    size_t count = 0;

    if (pool != NULL) {
        if (pool->record > 0)
            value_store(field, k->bytes, pool->record - 1);
        return;
    }
    if (v->kind != NODE_WORD) {
        load_bad(l, k, v);
        return;
    }
    for (uint32_t i = 0; i < l->lists[LIST_POOLS].count && count < ARRAY_COUNT(names); i++)
        names[count++] = ((const struct config_pool *)load_item(l, LIST_POOLS, i))->name;
    const char *near = suggest_nearest(v->text, names, count);
    report_at(&l->report, v, "there is no pool %s%s%s%s", report_found(v, found),
              near == NULL ? "" : "; did you mean \"", near == NULL ? "" : near,
              near == NULL ? "" : "\"?");
}

/* Tenants are all known only after the last row: check.c looks the names up. */
static void read_tenant_name(struct loader *l, const struct config_key *k, struct node *v,
                             void *field)
{
    if (v->kind != NODE_WORD || (v->text[0] != '\0' && !value_name_ok(v->text)))
        load_bad(l, k, v);
    else if (k->bytes > LIMIT_NAME_BYTES)
        memcpy(field, v->text, strlen(v->text) + 1);
}

static void read_section(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    load_map(l, v, k->child, field, LOAD_PRESETS);
}

static void read_limits(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    load_map(l, v, k->child, field, LOAD_OVERLAY);
}

static void read_records(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    (void)field;
    if (!is_list(l, k, v))
        return;
    for (struct node *n = v->first; n != NULL && !report_full(&l->report); n = n->next)
        record_read(l, k->list, n);
}

static void read_named(struct loader *l, const struct config_key *k, struct node *v, void *field)
{
    const struct config_key name = {.name = k->name, .type = KEY_NAME};
    char allowed[ALLOWED_BYTES];
    struct text t = text_of(allowed, sizeof allowed);

    (void)field;
    if (v->kind != NODE_MAP) {
        load_bad(l, k, v);
        return;
    }
    if (v->count < k->min || v->count > k->max) {
        report_at(&l->report, v, "has %u names; %u to %u are allowed", v->count, (unsigned)k->min,
                  (unsigned)k->max);
        return;
    }
    value_allowed(&name, &t);
    for (struct node *n = v->first; n != NULL && !report_full(&l->report); n = n->next) {
        if (!value_name_ok(n->name))
            report_at(&l->report, n, "its key is not %s", allowed);
        record_read(l, k->list, n);
    }
}

typedef void read_fn(struct loader *l, const struct config_key *k, struct node *v, void *field);
static read_fn *const readers[KEY_TYPE_COUNT] = {
    [KEY_POOL] = read_pool_name,  [KEY_TENANT] = read_tenant_name, [KEY_FLAGS] = read_words,
    [KEY_SERVERS] = read_servers, [KEY_PEERS] = read_peers,        [KEY_NETS] = read_items,
    [KEY_DOMAINS] = read_items,   [KEY_PATTERNS] = read_items,     [KEY_SECTION] = read_section,
    [KEY_LIMITS] = read_limits,   [KEY_RECORDS] = read_records,    [KEY_NAMED] = read_named,
};

static void read_absent(struct loader *l, const struct config_key *k, const struct node *place,
                        void *field)
{
    if (k->required && place != NULL) {
        report_missing(l, k, place);
    } else if (k->type == KEY_SECTION) {
        load_map(l, NULL, k->child, field, LOAD_PRESETS);
    } else if (k->type == KEY_FLAGS) {
        value_store(field, k->bytes, (UINT64_C(1) << k->max) - 1);
    } else if (k->preset != NULL && value_is_single(k->type)) {
        int rc = value_parse(k, k->preset, field);
        MUST(rc == 0);
    }
}

void load_map(struct loader *l, struct node *map, enum key_scope scope, void *base,
              enum load_mode mode)
{
    const struct config_key section = {.type = KEY_SECTION};
    size_t count;
    const struct config_key *keys = config_keys_of(scope, &count);

    const struct node *place = map; /* of what is missing */
    if (map != NULL && map->kind == NODE_NOTHING)
        map = NULL;
    if (map != NULL && map->kind != NODE_MAP) {
        load_bad(l, &section, map);
        return;
    }
    for (struct node *n = map == NULL ? NULL : map->first; n != NULL; n = n->next) {
        if (config_key_find(scope, n->name) == NULL && !report_full(&l->report))
            report_unknown(l, n, scope);
    }
    for (size_t i = 0; i < count; i++) {
        const struct config_key *k = &keys[i];
        struct node *v = tree_get(l->tree, map, k->name);
        void *field = (uint8_t *)base + k->offset;
        bool may_be_nothing = !value_is_single(k->type) && !k->required;
        if (v != NULL && v->kind == NODE_NOTHING && may_be_nothing)
            v = NULL;
        if (v == NULL && mode == LOAD_PRESETS)
            read_absent(l, k, place, field);
        else if (v != NULL && value_is_single(k->type))
            read_single(l, k, v, field);
        else if (v != NULL)
            readers[k->type](l, k, v, field);
    }
}

/* Moves the lists into struct config, where they are plain arrays. */
static void hand_over(struct loader *l)
{
    struct config *c = l->c;
    struct {
        enum key_list id;
        void *array;
        uint32_t *count;
    } const places[] = {
        {LIST_RELAY_FROM, &c->relay_from, &c->relay_from_count},
        {LIST_REFUSE_FROM, &c->refuse_from, &c->refuse_from_count},
        {LIST_RELAY_DOMAINS, &c->relay_domains, &c->relay_domain_count},
        {LIST_POOLS, &c->pools, &c->pool_count},
        {LIST_LANES, &c->lanes, &c->lane_count},
        {LIST_TENANTS, &c->tenants, &c->tenant_count},
        {LIST_TENANT_NETS, &c->tenant_nets, &c->tenant_net_count},
        {LIST_LISTENERS, &c->listeners, &c->listener_count},
        {LIST_ROUTES, &c->routes, &c->route_count},
        {LIST_PROVIDERS, &c->providers, &c->provider_count},
    };
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        struct load_list *list = &l->lists[places[i].id];
        /* All object pointers look alike here (POSIX). */
        memcpy(places[i].array, &list->items, sizeof list->items);
        *places[i].count = list->count;
        list->items = NULL;
    }
}

static int read_trees(struct loader *l, const struct config_input *in)
{
    if (in->n > CONFIG_FILE_BYTES_MAX) {
        report_line(&l->report, 0, "is larger than %d MiB", CONFIG_FILE_BYTES_MAX >> 20);
        return -EINVAL;
    }
    int rc = tree_parse(&l->own, span_of(in->yaml, in->n), &l->report);
    for (uint32_t i = 0; rc == 0 && i < in->set_count; i++) {
        rc = tree_set(&l->own, in->sets[i], &l->report);
        if (rc == -EINVAL)
            rc = 0; /* reported; the other overrides may have errors too */
    }
    return rc;
}

int load_run(struct loader *l, const struct config_input *in, struct text *errors)
{
    MUST(errors != NULL);
    memset(l, 0, sizeof *l);
    l->report = (struct report){.out = errors, .file = in->file};
    l->tree = &l->own;
    l->c = calloc(1, sizeof *l->c);
    int rc = l->c == NULL ? -ENOMEM : read_trees(l, in);
    if (rc == 0) {
        load_map(l, l->own.root, SCOPE_TOP, l->c, LOAD_PRESETS);
        record_built_in_providers(l);
        check_all(l);
        hand_over(l);
        rc = l->report.count > 0 ? -EINVAL : 0;
    }
    if (rc == 0)
        rc = lookup_build(l->c);
    if (rc == -ENOMEM || l->no_memory) {
        report_line(&l->report, 0, "out of memory");
        rc = -ENOMEM;
    }
    return rc;
}

void load_fini(struct loader *l)
{
    for (size_t i = 0; i < LIST_COUNT; i++) {
        free(l->lists[i].items);
        free(l->lists[i].nodes);
    }
    table_fini(&l->lanes);
    table_fini(&l->routes);
    table_fini(&l->suffixes);
    tree_fini(&l->own);
    tree_fini(&l->built_in);
    config_free(&l->c);
}
