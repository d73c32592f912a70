/*
 * The queue's interned things: domains, tenants, replies, lanes, flows. Each is named by a small
 * index.
 */
#include "worker/lane/flow.h"
#include "worker/lane/flow_state.h"
#include "worker/lane/idna.h"
#include "worker/lane/site.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

enum { REPLIES_MAX = 65535 };

struct pair_key {
    uint32_t site;
    uint16_t lane;
};

static bool domain_has_name(const void *ctx, uint32_t value, const void *key)
{
    return span_ieq(span_str(domain_at(ctx, value)->name), *(const struct span *)key);
}

static char *lower_copy(struct span s)
{
    char *p = malloc(s.n + 1);
    if (p == NULL)
        return NULL;
    for (size_t i = 0; i < s.n; i++)
        p[i] = (char)(s.p[i] < 128 ? tolower(s.p[i]) : s.p[i]);
    p[s.n] = '\0';
    return p;
}

static void domain_free(struct queue *q, uint32_t i)
{
    struct domain *d = domain_at(q, i);
    MUST(d->entries == 0);
    MUST(d->resolving.count == 0);
    bool was = table_remove(&q->domain_by_name, hash_bytes_ifold(span_str(d->name)), i);
    MUST(was);
    free(d->name);
    pool_put(&q->domains, d);
}

void domains_evict(struct queue *q, uint32_t want)
{
    enum { LOOKS = 8192, BATCH = 256 };
    uint32_t unused[BATCH], n = 0;
    if (want > BATCH)
        want = BATCH;
    if (q->domains_pinned > 0)
        want = 0;
    for (unsigned looks = 0; looks < LOOKS && n < want; looks++) {
        uint32_t i = table_next(&q->domain_by_name, &q->domain_hand);
        if (i == 0) {
            q->domain_hand = 0;
            if (looks > 0 || q->domain_by_name.used == 0)
                break;
            continue;
        }
        const struct domain *d = domain_at(q, i);
        if (d->entries == 0 && d->resolving.count == 0 && d->state != DOMAIN_ASKING)
            unused[n++] = i;
    }
    while (n > 0)
        domain_free(q, unused[--n]);
}

bool domains_have_room(struct queue *q, uint64_t count)
{
    while (q->domains.used + count > q->domains.count_max) {
        uint32_t before = q->domains.used;
        domains_evict(q, UINT32_MAX);
        if (q->domains.used == before && (q->domain_hand == 0 || q->domains_pinned > 0))
            return false;
    }
    return true;
}

uint32_t domain_intern(struct queue *q, struct span name)
{
    char ascii[LIMIT_DOMAIN_BYTES + 1];
    if (idna_is_needed(name) && idna_to_ascii(name, ascii) == 0)
        name = span_str(ascii); /* one domain in either spelling; DNS hears A-labels only */
    uint32_t h = hash_bytes_ifold(name);
    uint32_t i = table_find(&q->domain_by_name, h, domain_has_name, q, &name);
    if (i != 0)
        return i;
    struct domain *d = domains_have_room(q, 1) ? pool_get(&q->domains) : NULL;
    if (d == NULL)
        return 0;
    d->name = lower_copy(name);
    d->queue = q;
    i = pool_index(&q->domains, d);
    if (d->name == NULL || table_add(&q->domain_by_name, h, i) != 0) {
        free(d->name);
        pool_put(&q->domains, d);
        return 0;
    }
    d->held = hold_applies_to_domain(q, d);
    return i;
}

static bool tenant_has_name(const void *ctx, uint32_t value, const void *key)
{
    const struct queue *q = ctx;
    return span_eq(span_str(q->tenants[value - 1].name), *(const struct span *)key);
}

uint16_t tenant_intern(struct queue *q, struct span name)
{
    if (name.n > LIMIT_NAME_BYTES)
        name.n = LIMIT_NAME_BYTES;
    uint32_t h = hash_bytes(name);
    uint32_t i = table_find(&q->tenant_by_name, h, tenant_has_name, q, &name);
    if (i != 0)
        return (uint16_t)(i - 1);
    if (q->tenant_count >= LIMIT_TENANTS ||
        table_add(&q->tenant_by_name, h, q->tenant_count + 1) != 0)
        return 0;
    struct tenant *t = &q->tenants[q->tenant_count];
    memset(t, 0, sizeof *t);
    memcpy(t->name, name.p, name.n);
    t->weight = 1;
    t->gone = true;
    return (uint16_t)q->tenant_count++;
}

static bool reply_has_text(const void *ctx, uint32_t value, const void *key)
{
    const struct queue *q = ctx;
    return span_eq(span_str(q->replies[value]), *(const struct span *)key);
}

uint16_t reply_intern(struct queue *q, struct span text)
{
    if (text.n == 0)
        return 0;
    if (text.n > 200)
        text.n = 200;
    uint32_t h = hash_bytes(text);
    uint32_t i = table_find(&q->reply_by_text, h, reply_has_text, q, &text);
    if (i != 0)
        return (uint16_t)i;
    if (q->replies == NULL)
        q->replies = calloc(REPLIES_MAX + 1, sizeof *q->replies);
    if (q->replies == NULL || q->reply_count >= REPLIES_MAX)
        return 0;
    char *copy = strndup((const char *)text.p, text.n);
    if (copy == NULL)
        return 0;
    i = ++q->reply_count;
    q->replies[i] = copy;
    if (table_add(&q->reply_by_text, h, i) != 0) {
        q->reply_count--;
        free(copy);
        return 0;
    }
    return (uint16_t)i;
}

const char *reply_text(const struct queue *q, uint16_t i)
{
    MUST(i <= q->reply_count);
    return i == 0 ? "" : q->replies[i];
}

static bool lane_has_number(const void *ctx, uint32_t value, const void *key)
{
    const struct queue *q = ctx;
    return q->lanes[value - 1].number == *(const uint32_t *)key;
}

struct lane *lane_by_number(struct queue *q, uint32_t number)
{
    uint32_t i = table_find(&q->lane_by_number, hash_u64(number), lane_has_number, q, &number);
    return i == 0 ? NULL : &q->lanes[i - 1];
}

struct lane *lane_by_address(struct queue *q, const struct ip *a)
{
    for (uint32_t i = 0; i < q->lane_count; i++)
        if (!q->lanes[i].gone && ip_eq(&q->lanes[i].address, a))
            return &q->lanes[i];
    return NULL;
}

struct lane *lane_add_gone(struct queue *q, uint32_t number)
{
    if (q->lane_count >= LIMIT_LANES)
        return NULL;
    struct lane *l = &q->lanes[q->lane_count];
    memset(l, 0, sizeof *l);
    l->number = number;
    l->index = (uint16_t)q->lane_count;
    l->gone = true;
    l->weight = 1;
    snprintf(l->name, sizeof l->name, "lane-%u", number);
    if (table_add(&q->lane_by_number, hash_u64(number), q->lane_count + 1) != 0)
        return NULL;
    q->lane_count++;
    return l;
}

static bool flow_has_pair(const void *ctx, uint32_t value, const void *key)
{
    const struct pair_key *k = key;
    const struct flow *f = flow_at(ctx, value);
    return f->site == k->site && f->lane == k->lane;
}

static void on_flow_timer(struct timer *t)
{
    struct flow *f = (struct flow *)((char *)t - offsetof(struct flow, timer));
    flow_mark(f->queue, f);
}

struct flow *flow_for(struct queue *q, uint16_t lane, uint32_t site)
{
    struct pair_key k = {site, lane};
    uint32_t h = hash_u64((uint64_t)site << 16 | lane);
    uint32_t i = table_find(&q->flow_by_pair, h, flow_has_pair, q, &k);
    if (i != 0)
        return flow_at(q, i);
    struct flow *f = pool_get(&q->flows);
    if (f == NULL)
        return NULL;
    i = pool_index(&q->flows, f);
    if (table_add(&q->flow_by_pair, h, i) != 0) {
        pool_put(&q->flows, f);
        return NULL;
    }
    const struct config_limits *lim = site_at(q, site)->limits;
    f->site = site;
    f->lane = lane;
    f->queue = q;
    f->timer.on_due = on_flow_timer;
    f->tokens_at_ms = queue_now_ms(q);
    f->message_tokens = lim->messages_per_s > 0 ? lim->messages_per_s : 1;
    f->connect_tokens = lim->new_connections_per_s > 0 ? lim->new_connections_per_s : 1;
    flow_state_new(q, f);
    site_at(q, site)->flows++;
    return f;
}
