/*
 * Invariant: a domain in DOMAIN_ASKING has its query under way, and the entries that wait for it
 * stand in d->resolving.
 */
#include "worker/lane/site.h"

#include "base/log.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

enum {
    SITE_KEY_BYTES = LIMIT_MX_HOSTS * (LIMIT_DOMAIN_BYTES + 1) + 16,
    ROUTE_FRESH_MS = 1 << 30,
    GONE_GRACE_S =
        30 * 60, /* NXDOMAIN of a domain that took mail lately: deferred so long (DNS-11) */
    LATELY_S = 30 * 86400
};

static bool site_has_key(const void *ctx, uint32_t value, const void *key)
{
    return strcmp(site_at(ctx, value)->key, key) == 0;
}

static int by_rank_and_name(const void *a, const void *b)
{
    const struct site_host *x = a, *y = b;
    if (x->preference != y->preference)
        return x->preference < y->preference ? -1 : 1;
    return strcmp(x->name, y->name);
}

/*
 * The name of a site: "a,b;c" for a and b of equal preference before c. Any order of answers and
 * any numbers that mean the same order of trying are one site; two domains that want the same hosts
 * in another order are not, since each has a right to its own.
 */
static void site_key(const struct site_host *hosts, uint16_t count,
                     const struct config_route *route, struct text *t)
{
    struct site_host sorted[LIMIT_MX_HOSTS];
    MUST(count <= LIMIT_MX_HOSTS);
    memcpy(sorted, hosts, count * sizeof *hosts);
    qsort(sorted, count, sizeof *sorted, by_rank_and_name);
    for (uint16_t i = 0; i < count; i++) {
        if (i > 0)
            text_puts(t, sorted[i].preference == sorted[i - 1].preference ? "," : ";");
        text_puts(t, sorted[i].name);
    }
    if (route != NULL && route->host[0] != '\0')
        text_fmt(t, ":%u", route->port);
}

static void site_fill(struct queue *q, struct site *s, const struct config_route *route)
{
    const struct config *c = q->env.config;
    s->route = route;
    s->limits = config_limits_for(c, route, s->hosts[0].name, &s->provider);
    s->port = c->client.port;
    s->family = (uint8_t)c->client.family;
    if (route != NULL) {
        s->family = (uint8_t)route->family;
        if (route->host[0] != '\0')
            s->port = route->port;
    }
    struct ip ip;
    s->literal = ip_parse(span_str(s->hosts[0].name), &ip) == 0;
}

uint32_t site_intern(struct queue *q, struct site_host *hosts, uint16_t count,
                     const struct config_route *route)
{
    char key[SITE_KEY_BYTES];
    struct text t = text_of(key, sizeof key);
    site_key(hosts, count, route, &t);
    uint32_t h = hash_bytes(text_span(&t));
    uint32_t i = table_find(&q->site_by_key, h, site_has_key, q, key);
    if (i != 0)
        return i;
    struct site *s = pool_get(&q->sites);
    if (s == NULL)
        return 0;
    s->key = strdup(key);
    s->hosts = malloc(count * sizeof *hosts);
    i = pool_index(&q->sites, s);
    if (s->key == NULL || s->hosts == NULL || table_add(&q->site_by_key, h, i) != 0) {
        free(s->key);
        free(s->hosts);
        pool_put(&q->sites, s);
        return 0;
    }
    memcpy(s->hosts, hosts, count * sizeof *hosts);
    s->host_count = count;
    site_fill(q, s, route);
    s->held = hold_applies_to_site(q, s);
    return i;
}

/* The whole list is taken off the domain first: placing an entry may ask again. */
static void flush_resolving(struct queue *q, struct domain *d, enum verdict verdict,
                            const struct fate_facts *why)
{
    struct qentry *e;
    uint32_t count = d->resolving.count;
    while (count-- > 0 && (e = qlist_first(&q->store, &d->resolving)) != NULL) {
        entry_unlist(q, e);
        if (verdict == VERDICT_OK)
            entry_place(q, e);
        else
            fates_local(q, e, verdict, why);
    }
}

static void know_domain(struct queue *q, struct domain *d, uint32_t site, uint64_t fresh_ms)
{
    d->site = site;
    d->state = DOMAIN_KNOWN;
    d->gone_s = 0;
    d->fresh_until_ms = queue_now_ms(q) + fresh_ms;
}

static bool no(struct resolve_failure *f, enum verdict v, enum reason r, struct smtp_enhanced s)
{
    f->verdict = v;
    memset(&f->facts, 0, sizeof f->facts);
    f->facts.reason = r;
    f->facts.stage = STAGE_CONNECT;
    f->facts.status = s;
    f->facts.reply = span_str(f->text);
    return false;
}

static bool say_no(struct resolve_failure *f, enum reason r, struct smtp_enhanced s,
                   const char *text)
{
    snprintf(f->text, sizeof f->text, "%s", text);
    return no(f, s.class_ == 4 ? VERDICT_TEMP : VERDICT_PERM, r, s);
}

/* Drops ourselves and everything not better than us (DNS-08), the null MX beside others, names too
 * long. */
static uint16_t usable_hosts(const struct queue *q, const struct dns_answer *a,
                             struct site_host hosts[LIMIT_MX_HOSTS], bool *looped)
{
    uint32_t own = UINT32_MAX;
    for (uint16_t i = 0; i < a->mx_count; i++)
        if (strcasecmp(a->mx[i].name, q->env.config->hostname) == 0 && a->mx[i].preference < own)
            own = a->mx[i].preference;
    uint16_t n = 0;
    for (uint16_t i = 0; i < a->mx_count; i++) {
        if (a->mx[i].name[0] == '\0' || a->mx[i].preference >= own)
            continue;
        hosts[n].preference = a->mx[i].preference;
        snprintf(hosts[n].name, sizeof hosts[n].name, "%s", a->mx[i].name);
        n++;
    }
    *looped = own != UINT32_MAX && n == 0;
    return n;
}

static bool judge_hosts(struct queue *q, struct domain *d, const struct dns_answer *a,
                        struct resolve_failure *f)
{
    if (a->mx_count == 1 && a->mx[0].name[0] == '\0')
        return say_no(f, REASON_NULL_MX, (struct smtp_enhanced){5, 1, 10},
                      "the domain accepts no mail (null MX)");
    struct site_host hosts[LIMIT_MX_HOSTS];
    bool looped;
    uint16_t n = usable_hosts(q, a, hosts, &looped);
    if (looped)
        return say_no(f, REASON_LOOP, (struct smtp_enhanced){5, 4, 6},
                      "mail for this domain loops back to this host");
    if (n == 0)
        return say_no(f, REASON_DNS_NO_ADDRESS, (struct smtp_enhanced){5, 4, 4},
                      "no usable MX host for this domain");
    uint32_t site = site_intern(q, hosts, n, config_route_for(q->env.config, span_str(d->name)));
    if (site == 0)
        return say_no(f, REASON_DNS_TEMP, (struct smtp_enhanced){4, 3, 1}, "site table is full");
    know_domain(q, d, site, (uint64_t)a->ttl_s * 1000);
    return true;
}

static bool is_gone_for_now(const struct queue *q, struct domain *d)
{
    uint32_t now_s = queue_now_unix_s(q);
    if (d->delivered_s == 0 || now_s - d->delivered_s > LATELY_S)
        return false;
    if (d->gone_s == 0)
        d->gone_s = now_s;
    return now_s - d->gone_s < GONE_GRACE_S;
}

/* Makes the domain known, or fills *f. */
static bool judge(struct queue *q, struct domain *d, const struct dns_answer *a,
                  struct resolve_failure *f)
{
    struct dns_answer implicit;
    switch (a->status) {
    case DNS_OK:
        return judge_hosts(q, d, a, f);
    case DNS_NODATA: /* no MX: the domain itself is the host; whether it has an address shows later
                      */
        memset(&implicit, 0, sizeof implicit);
        implicit.mx_count = 1;
        implicit.ttl_s = a->ttl_s;
        snprintf(implicit.mx[0].name, sizeof implicit.mx[0].name, "%s", d->name);
        return judge_hosts(q, d, &implicit, f);
    case DNS_NXDOMAIN:
        if (is_gone_for_now(q, d))
            return say_no(f, REASON_DNS_NXDOMAIN, (struct smtp_enhanced){4, 1, 2},
                          "the domain does not exist (NXDOMAIN), but took mail lately");
        return say_no(f, REASON_DNS_NXDOMAIN, (struct smtp_enhanced){5, 1, 2},
                      "the domain does not exist (NXDOMAIN)");
    case DNS_TEMP:
        snprintf(f->text, sizeof f->text, "MX lookup failed for now: %s",
                 a->error != NULL ? a->error : "no answer");
        break;
    }
    return no(f, VERDICT_TEMP, REASON_DNS_TEMP, (struct smtp_enhanced){4, 4, 3});
}

static void on_query(struct dns_query *query, const struct dns_answer *a)
{
    struct domain *d = (struct domain *)((char *)query - offsetof(struct domain, query));
    struct resolve_failure f = {.verdict = VERDICT_OK};
    d->state = DOMAIN_NEW;
    if (!judge(d->queue, d, a, &f))
        d->queue->env.stats->dns_failures++;
    flush_resolving(d->queue, d, f.verdict, &f.facts);
}

static bool by_host(struct queue *q, struct domain *d, const char *host,
                    const struct config_route *r)
{
    struct site_host h = {0};
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') /* an address of a route */
        snprintf(h.name, sizeof h.name, "%.*s", (int)n - 2, host + 1);
    else
        snprintf(h.name, sizeof h.name, "%s", host);
    uint32_t site = site_intern(q, &h, 1, r);
    if (site != 0)
        know_domain(q, d, site, ROUTE_FRESH_MS);
    return site != 0;
}

/* user@[192.0.2.1], user@[IPv6:2001:db8::1]: that address, no lookups (DNS-07). */
static bool by_literal(struct queue *q, struct domain *d)
{
    size_t n = strlen(d->name);
    if (n < 3 || d->name[n - 1] != ']')
        return false;
    struct span s = span_of(d->name + 1, n - 2);
    if (span_ihas_prefix(s, span_str("ipv6:")))
        s = span_of(s.p + 5, s.n - 5);
    struct ip ip;
    if (ip_parse(s, &ip) != 0)
        return false;
    char text[IP_TEXT];
    ip_format(&ip, text);
    return by_host(q, d, text, NULL);
}

static enum resolve_result ask(struct queue *q, struct domain *d, struct resolve_failure *f)
{
    const struct dns_answer *a = NULL;
    q->env.stats->dns_lookups++;
    if (q->env.dns == NULL) {
        say_no(f, REASON_DNS_TEMP, (struct smtp_enhanced){4, 4, 3},
               "no route for this domain and lookups are switched off (dns.enabled)");
        return RESOLVE_FAILED;
    }
    d->query.on_answer = on_query;
    int r = dns_ask(q->env.dns, &d->query, DNS_MX, d->name, &a);
    if (r == 0) {
        d->state = DOMAIN_ASKING;
        return RESOLVE_WAIT;
    }
    struct dns_answer not_a_name = {.status = DNS_NXDOMAIN};
    if (judge(q, d, r == 1 ? a : &not_a_name, f))
        return RESOLVE_KNOWN;
    q->env.stats->dns_failures++;
    return RESOLVE_FAILED;
}

enum resolve_result site_resolve(struct queue *q, struct domain *d, struct resolve_failure *f)
{
    if (d->state == DOMAIN_KNOWN && d->fresh_until_ms > queue_now_ms(q))
        return RESOLVE_KNOWN;
    if (d->state == DOMAIN_ASKING)
        return RESOLVE_WAIT;
    const struct config_route *r = config_route_for(q->env.config, span_str(d->name));
    if (r != NULL && r->host[0] != '\0' && by_host(q, d, r->host, r))
        return RESOLVE_KNOWN;
    if (d->name[0] == '[' && by_literal(q, d))
        return RESOLVE_KNOWN;
    return ask(q, d, f);
}

/* Would we connect to ourselves (TRC-12)? A listener on all addresses is one on each lane's. */
static bool is_our_listener(const struct queue *q, uint16_t port, const struct ip *a)
{
    static const struct ip any_v6;
    struct ip any_v4;
    MUST(ip_parse(span_str("0.0.0.0"), &any_v4) == 0);
    const struct config *c = q->env.config;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        const struct config_listener *l = &c->listeners[i];
        if (l->port != port)
            continue;
        if (ip_eq(&l->address, a))
            return true;
        bool any = ip_eq(&l->address, &any_v6) || (ip_is_v4(a) && ip_eq(&l->address, &any_v4));
        for (uint32_t k = 0; any && k < q->lane_count; k++)
            if (ip_eq(&q->lanes[k].address, a))
                return true;
    }
    return false;
}

bool site_address_ok(const struct queue *q, const struct site *s, const struct ip *a)
{
    if (s->route != NULL && s->route->host[0] != '\0')
        return true;
    const struct config *c = q->env.config;
    if (is_our_listener(q, s->port, a))
        return false;
    static const struct {
        const char *net;
        bool loopback, private_;
    } never[] = {
        {"0.0.0.0/8", false, false},      {"127.0.0.0/8", true, false},
        {"10.0.0.0/8", false, true},      {"172.16.0.0/12", false, true},
        {"192.168.0.0/16", false, true},  {"100.64.0.0/10", false, true},
        {"169.254.0.0/16", false, false}, {"224.0.0.0/3", false, false},
        {"::/128", false, false},         {"::1/128", true, false},
        {"fc00::/7", false, true},        {"fe80::/10", false, false},
        {"ff00::/8", false, false},
    };
    static struct ip_net nets[ARRAY_COUNT(never)];
    if (nets[0].bits == 0)
        for (size_t i = 0; i < ARRAY_COUNT(never); i++)
            MUST(ip_net_parse(span_str(never[i].net), &nets[i]) == 0);
    for (size_t i = 0; i < ARRAY_COUNT(never); i++)
        if (ip_in_net(a, &nets[i]))
            return (never[i].loopback && c->client.allow_loopback) ||
                   (never[i].private_ && c->client.allow_private);
    return true;
}
