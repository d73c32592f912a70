/* Who is there, and who was there before: client addresses and the greylist. */
#include "bench/sink_private.h"

#include <stdlib.h>

static bool same_ip(const void *ctx, uint32_t value, const void *key)
{
    const struct sink_peers *p = ctx;

    return ip_eq(&p->items[value].ip, key);
}

static uint32_t add_peer(struct sink_peers *p, const struct ip *ip, uint32_t hash)
{
    if (p->count + 1 >= p->cap) {
        uint32_t cap = p->cap == 0 ? 64 : p->cap * 2;
        struct sink_peer *items = realloc(p->items, cap * sizeof *items);
        if (items == NULL)
            return 0;
        p->items = items;
        p->cap = cap;
    }
    if (table_add(&p->by_ip, hash, p->count + 1) < 0)
        return 0;
    p->count++;
    p->items[p->count] = (struct sink_peer){.ip = *ip};
    return p->count;
}

uint32_t sink_peers_have(struct sink_peers *p, const struct ip *ip)
{
    uint32_t hash = hash_bytes(span_of(ip, sizeof *ip));
    uint32_t known = table_find(&p->by_ip, hash, same_ip, p, ip);

    return known != 0 ? known : add_peer(p, ip, hash);
}

void sink_peers_fini(struct sink_peers *p)
{
    free(p->items);
    table_fini(&p->by_ip);
    *p = (struct sink_peers){0};
}

struct grey {
    uint64_t key;
    uint64_t first_ns;
};
struct greylist {
    struct grey *items; /* index 1.. */
    uint32_t count;
    uint32_t cap;
    struct table by_key;
};

struct greylist *greylist_create(void)
{
    return calloc(1, sizeof(struct greylist));
}

void greylist_destroy(struct greylist **g)
{
    if (*g == NULL)
        return;
    free((*g)->items);
    table_fini(&(*g)->by_key);
    free(*g);
    *g = NULL;
}

/* 64 bits of two seeds: a clash would let one recipient of 10^9 pass early, which is harmless. */
uint64_t greylist_key(const struct ip *ip, struct span sender, struct span rcpt)
{
    uint64_t a = hash_bytes(span_of(ip, sizeof *ip));
    uint64_t b = hash_bytes_ifold(sender);
    uint64_t c = hash_bytes_ifold(rcpt);

    return (c << 32 | (a ^ b * 31)) ^ (uint64_t)rcpt.n << 56;
}

static bool same_key(const void *ctx, uint32_t value, const void *key)
{
    const struct greylist *g = ctx;

    return g->items[value].key == *(const uint64_t *)key;
}

static void start_wait(struct greylist *g, uint64_t key, uint64_t at_ns)
{
    if (g->count + 1 >= g->cap) {
        uint32_t cap = g->cap == 0 ? 1024 : g->cap * 2;
        struct grey *items = realloc(g->items, cap * sizeof *items);
        if (items == NULL)
            return;
        g->items = items;
        g->cap = cap;
    }
    if (table_add(&g->by_key, hash_u64(key), g->count + 1) < 0)
        return;
    g->items[++g->count] = (struct grey){key, at_ns};
}

bool greylist_passes(struct greylist *g, uint64_t key, uint64_t at_ns, uint64_t delay_ms)
{
    uint32_t known = table_find(&g->by_key, hash_u64(key), same_key, g, &key);

    if (known != 0)
        return at_ns - g->items[known].first_ns >= delay_ms * ns_per_ms;
    start_wait(g, key, at_ns);
    return false;
}
