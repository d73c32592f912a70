#include "worker/lane/route.h"

#include "worker/lane/shard.h"

#include <errno.h>
#include <math.h>

static const struct config_lane *config_lane_for(const struct config *c, const struct ip *a)
{
    for (uint32_t i = 0; i < c->lane_count; i++)
        if (ip_eq(&c->lanes[i].address, a))
            return &c->lanes[i];
    return NULL;
}

static void lane_fill(struct queue *q, struct lane *l, const struct control_lane *from,
                      const struct config_lane *c)
{
    l->number = from->lane;
    l->epoch = from->epoch;
    l->role = from->role != 0 ? from->role : LANE_OWNER;
    l->run = from->role == 0 || (from->role == LANE_OWNER && from->run);
    l->node_slot = from->role != 0 ? from->owner_slot : CONTROL_NO_SLOT;
    l->move = from->move;
    snprintf(l->node, sizeof l->node, "%s", from->owner);
    l->shard_no = from->shard;
    l->owner = from->worker;
    l->address = from->address;
    l->weight = 1;
    ip_format(&l->address, l->name);
    l->gone = c == NULL;
    if (c != NULL) {
        l->weight = c->weight > 0 ? c->weight : 1;
        l->pool = c->pool;
        snprintf(l->ehlo, sizeof l->ehlo, "%s", c->ehlo);
        snprintf(l->nic, sizeof l->nic, "%s", c->nic);
    }
    if (l->index < LIMIT_LANES) {
        l->stats = &q->env.stats->lanes[l->index];
        l->stats->lane = l->number;
    }
}

int route_set_lanes(struct queue *q, const struct control_lane *lanes, uint32_t count,
                    uint32_t own_slot)
{
    if (count > LIMIT_LANES)
        return -E2BIG;
    for (uint32_t i = 0; i < count; i++) {
        struct lane *l = &q->lanes[i];
        l->index = (uint16_t)i;
        lane_fill(q, l, &lanes[i], config_lane_for(q->env.config, &lanes[i].address));
        if (lanes[i].worker != own_slot && l->stats != NULL) {
            l->stats->lane = 0; /* the owner shows it */
            l->stats = NULL;
        }
        q->lane_count = i + 1;
        q->lanes_version++;
        int r = table_add(&q->lane_by_number, hash_u64(l->number), i + 1);
        if (r != 0)
            return r;
    }
    return 0;
}

uint16_t route_tenant(const struct queue *q, const struct config_listener *l,
                      const struct ip *client)
{
    const struct config *c = q->env.config;
    if (l != NULL && l->tenant[0] != '\0')
        for (uint32_t i = 0; i < c->tenant_count; i++)
            if (strcmp(c->tenants[i].name, l->tenant) == 0)
                return (uint16_t)i;
    int best = -1;
    uint16_t found = c->default_tenant;
    for (uint32_t i = 0; i < c->tenant_count; i++) {
        const struct config_tenant *t = &c->tenants[i];
        for (uint32_t k = 0; k < t->net_count; k++) {
            const struct ip_net *n = &c->tenant_nets[t->first_net + k];
            if (n->bits > best && ip_in_net(client, n)) {
                best = n->bits;
                found = (uint16_t)i;
            }
        }
    }
    return found;
}

bool route_may_relay(const struct config *c, const struct config_listener *l,
                     const struct ip *client)
{
    if (l != NULL && l->role == ROLE_MX)
        return false;
    for (uint32_t i = 0; i < c->relay_from_count; i++)
        if (ip_in_net(client, &c->relay_from[i]))
            return true;
    for (uint32_t i = 0; i < c->tenant_net_count; i++)
        if (ip_in_net(client, &c->tenant_nets[i]))
            return true;
    return false;
}

bool route_is_served(const struct config *c, struct span domain)
{
    for (uint32_t i = 0; i < c->relay_domain_count; i++)
        if (span_ieq(span_str(c->relay_domains[i]), domain))
            return true;
    return false;
}

/* Rendezvous: the lane with the highest score wins; weights as -w / ln(u). */
static double score(uint32_t key, const struct lane *l)
{
    uint64_t x = (uint64_t)key << 32 | l->number;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    x ^= x >> 33;
    double u = ((double)(x >> 11) + 1.0) / 9007199254740994.0;
    return -(double)l->weight / log(u);
}

/* Must not depend on the process: the same choice on every worker, after every restart. */
static uint32_t sticky_key(const struct tenant *t, struct span domain)
{
    uint32_t h = 2166136261u;
    for (const char *p = t->name; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    h = (h ^ '@') * 16777619u;
    for (size_t i = 0; i < domain.n; i++) {
        uint8_t b = domain.p[i];
        h = (h ^ (b >= 'A' && b <= 'Z' ? b + 32u : b)) * 16777619u;
    }
    return h;
}

/* What a lane must be to be chosen. */
struct lane_wish {
    uint16_t pool;
    bool even_held;
    const struct shard *shard; /* NULL: any */
    bool owned; /* the message stays in this log: only to a lane that is ours */
    bool by_family, v4;
};

static bool is_wished(const struct lane *l, const struct lane_wish *w)
{
    return !l->gone && l->pool == w->pool && (!l->held || w->even_held) &&
           (w->shard == NULL || l->shard == w->shard) && (!w->owned || l->role == LANE_OWNER) &&
           (!w->by_family || ip_is_v4(&l->address) == w->v4);
}

static struct lane *best_lane(struct queue *q, uint32_t key, const struct lane_wish *w)
{
    struct lane *best = NULL;
    double top = -1.0;
    for (uint32_t i = 0; i < q->lane_count; i++) {
        struct lane *l = &q->lanes[i];
        if (!is_wished(l, w))
            continue;
        double s = score(key, l);
        if (s > top) {
            top = s;
            best = l;
        }
    }
    return best;
}

struct lane *route_lane(struct queue *q, uint16_t tenant, struct span domain)
{
    const struct tenant *t = &q->tenants[tenant];
    uint32_t key = sticky_key(t, domain);
    struct route_memo *memo = &q->memos[key % ROUTE_MEMOS];
    if (memo->version == q->lanes_version && memo->key == key && memo->pool == t->pool)
        return &q->lanes[memo->lane];
    struct lane *l = best_lane(q, key, &(struct lane_wish){.pool = t->pool});
    if (l == NULL)
        l = best_lane(q, key, &(struct lane_wish){.pool = t->pool, .even_held = true});
    if (l != NULL)
        *memo = (struct route_memo){
            .key = key, .version = q->lanes_version, .pool = t->pool, .lane = l->index};
    return l;
}

/* The message goes there as soon as the log says so; until then the entry waits. */
static bool give_to(struct queue *q, struct qentry *e, struct lane *l, enum reason reason)
{
    struct qmsg *m = store_msg(&q->store, e->msg);
    struct shard *s = q->lanes[m->lane].shard;
    if (l == NULL || s == NULL || l->shard != s)
        return false;
    if (!shard_move(s, m, l) && reason == REASON_NONE)
        reason = REASON_MOVING;
    /* not now, or it came to nothing: again when the entry is due */
    entry_wait(q, e, queue_now_unix_s(q) + SHARD_MOVE_WAIT_S, reason);
    return true;
}

bool route_again(struct queue *q, struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    const struct tenant *t = &q->tenants[m->tenant];
    struct lane_wish w = {.pool = t->pool, .shard = q->lanes[m->lane].shard, .owned = true};
    if (w.shard == NULL)
        return false;
    struct lane *l = best_lane(q, sticky_key(t, span_str(domain_at(q, e->domain)->name)), &w);
    return give_to(q, e, l, REASON_LANE_GONE);
}

bool route_by_family(struct queue *q, struct qentry *e, bool v4)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    const struct tenant *t = &q->tenants[m->tenant];
    struct lane_wish w = {
        .pool = t->pool, .shard = q->lanes[m->lane].shard, .owned = true, .by_family = true,
        .v4 = v4};
    if (w.shard == NULL)
        return false;
    struct lane *l = best_lane(q, sticky_key(t, span_str(domain_at(q, e->domain)->name)), &w);
    return give_to(q, e, l, REASON_NONE);
}
