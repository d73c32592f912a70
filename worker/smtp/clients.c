#include "worker/smtp/clients.h"

int clients_init(struct clients *c, const struct config *config)
{
    memset(c, 0, sizeof *c);
    c->config = config;
    return pool_init(&c->counts, "clients", sizeof(struct client_count),
                     2 * config->smtp.connections_max + 2);
}

void clients_fini(struct clients *c)
{
    table_fini(&c->by_key);
    pool_fini(&c->counts);
}

struct client_key {
    struct ip ip;
    bool is_net;
};

static bool has_key(const void *ctx, uint32_t value, const void *key)
{
    const struct clients *c = ctx;
    const struct client_count *n = pool_at(&c->counts, value);
    const struct client_key *k = key;
    return n->is_net == k->is_net && ip_eq(&n->key, &k->ip);
}

static uint32_t key_hash(const struct client_key *k)
{
    return hash_bytes(span_of(&k->ip, sizeof k->ip)) + k->is_net;
}

static struct client_count *count_for(struct clients *c, const struct client_key *k)
{
    uint32_t i = table_find(&c->by_key, key_hash(k), has_key, c, k);
    if (i != 0)
        return pool_at(&c->counts, i);
    struct client_count *n = pool_get(&c->counts);
    if (n == NULL)
        return NULL;
    n->key = k->ip;
    n->is_net = k->is_net;
    if (table_add(&c->by_key, key_hash(k), pool_index(&c->counts, n)) != 0) {
        pool_put(&c->counts, n);
        return NULL;
    }
    return n;
}

static void drop_unused(struct clients *c, struct client_count *n)
{
    if (n == NULL || n->open > 0)
        return;
    struct client_key k = {n->key, n->is_net};
    table_remove(&c->by_key, key_hash(&k), pool_index(&c->counts, n));
    pool_put(&c->counts, n);
}

/* /24 of IPv4, /64 of IPv6. */
static struct ip net_of(const struct ip *ip)
{
    struct ip n = *ip;
    unsigned keep = ip_is_v4(ip) ? 15 : 8;
    memset(n.b + keep, 0, sizeof n.b - keep);
    return n;
}

/* The address's place among the rates: its own, else the one that has been quiet for longest. */
static struct client_rate *rate_of(struct clients *c, const struct ip *ip, uint32_t now_s)
{
    struct client_rate *set = c->rates[hash_bytes(span_of(ip, sizeof *ip)) % CLIENT_RATE_SETS];
    struct client_rate *oldest = &set[0];
    for (unsigned i = 0; i < CLIENT_RATE_WAYS; i++) {
        if (ip_eq(&set[i].ip, ip)) {
            oldest = &set[i];
            break;
        }
        if (set[i].second < oldest->second)
            oldest = &set[i];
    }
    if (!ip_eq(&oldest->ip, ip) || oldest->second != now_s)
        *oldest = (struct client_rate){.ip = *ip, .second = now_s};
    return oldest;
}

static const char *judge(const struct clients *c, const struct client_count *one,
                         const struct client_count *net, const struct client_rate *rate)
{
    if (c->config->smtp.connections_per_ip > 0 && one->open >= c->config->smtp.connections_per_ip)
        return "421 4.7.0 Too many connections from your address\r\n";
    if (c->config->smtp.connections_per_net > 0 && net->open >= c->config->smtp.connections_per_net)
        return "421 4.7.0 Too many connections from your network\r\n";
    if (c->config->smtp.accept_per_s_per_ip > 0 &&
        rate->count >= c->config->smtp.accept_per_s_per_ip)
        return "421 4.7.0 Connections from your address come too fast\r\n";
    return NULL;
}

struct client_count *clients_enter(struct clients *c, const struct ip *ip, uint32_t now_s,
                                   const char **refusal)
{
    struct client_key k = {*ip, false};
    struct client_key nk = {net_of(ip), true};
    struct client_count *one = count_for(c, &k);
    struct client_count *net = count_for(c, &nk);
    if (one == NULL || net == NULL) {
        *refusal = "421 4.3.2 Too many clients\r\n";
        drop_unused(c, one);
        drop_unused(c, net);
        return NULL;
    }
    struct client_rate *rate = rate_of(c, ip, now_s);
    *refusal = judge(c, one, net, rate);
    if (*refusal != NULL) {
        drop_unused(c, one);
        drop_unused(c, net);
        return NULL;
    }
    rate->count++;
    one->open++;
    net->open++;
    one->net = net;
    return one;
}

void clients_leave(struct clients *c, struct client_count *n)
{
    if (n == NULL)
        return;
    struct client_count *net = n->net;
    n->open--;
    net->open--;
    drop_unused(c, n);
    drop_unused(c, net);
}
