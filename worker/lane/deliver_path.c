/*
 * Where to connect (RFC 5321 5.1): hosts by preference, equal ones in random order; the addresses
 * of a host in resolver order; at most LIMIT_MX_TRIED hosts and LIMIT_ADDRESSES_TRIED addresses an
 * attempt.
 */
#include "worker/lane/deliver_impl.h"

#include "base/log.h"

#include <errno.h>

enum { DEAD_FOR_MS = 60000 };

/* --- addresses that refused lately (per lane: the block may be ours) --- */

static struct dead_host *dead_slot(struct deliver *d, const struct outbound *o, const struct ip *ip)
{
    uint32_t h = hash_bytes(span_of(ip, sizeof *ip)) ^ o->flow->lane * 2654435761u;
    return &d->dead[h % ARRAY_COUNT(d->dead)];
}

static bool is_dead(struct outbound *o, const struct ip *ip)
{
    const struct dead_host *h = dead_slot(o->deliver, o, ip);
    return h->lane == o->flow->lane && ip_eq(&h->ip, ip) &&
           h->until_ms > queue_now_ms(o->deliver->queue);
}

static void mark_dead(struct outbound *o)
{
    struct dead_host *h = dead_slot(o->deliver, o, &o->remote);
    *h = (struct dead_host){.until_ms = queue_now_ms(o->deliver->queue) + DEAD_FOR_MS,
                            .ip = o->remote,
                            .lane = o->flow->lane};
}

/* --- order of hosts --- */

static void shuffle_equals(struct outbound *o, const struct site *s)
{
    struct path *p = &o->path;
    for (unsigned from = 0; from < p->host_count;) {
        unsigned to = from + 1;
        while (to < p->host_count && s->hosts[to].preference == s->hosts[from].preference)
            to++;
        for (unsigned i = to - 1; i > from; i--) {
            unsigned k = from + (unsigned)rng_below(o->deliver->queue->env.rng, i - from + 1);
            uint8_t t = p->order[i];
            p->order[i] = p->order[k];
            p->order[k] = t;
        }
        from = to;
    }
}

void path_begin(struct outbound *o)
{
    const struct site *s = site_at(o->deliver->queue, o->flow->site);
    struct path *p = &o->path;
    memset(p, 0, sizeof *p);
    p->host_count = (uint8_t)s->host_count;
    for (uint8_t i = 0; i < p->host_count; i++)
        p->order[i] = i;
    shuffle_equals(o, s);
    if (p->host_count > LIMIT_MX_TRIED)
        p->host_count = LIMIT_MX_TRIED;
    p->all_permanent = true;
    p->reason = REASON_DNS_NO_ADDRESS;
    snprintf(p->text, sizeof p->text, "no host of this site has a usable address");
    path_next(o);
}

void path_failed(struct outbound *o, enum smtp_stage stage, enum reason reason, struct span text)
{
    struct path *p = &o->path;
    p->stage = stage;
    p->reason = reason;
    if (reason != REASON_DNS_NO_ADDRESS && reason != REASON_LOOP)
        p->all_permanent = false;
    snprintf(p->text, sizeof p->text, "%.*s", (int)(text.n < 255 ? text.n : 255),
             (const char *)text.p);
    if (stage != STAGE_CONNECT || reason == REASON_CONNECT_FAILED ||
        reason == REASON_CONNECT_TIMEOUT)
        mark_dead(o);
}

/* --- addresses of one host --- */

static bool family_ok(const struct outbound *o, const struct site *s, const struct ip *ip)
{
    const struct lane *l = &o->deliver->queue->lanes[o->flow->lane];
    bool v4 = ip_is_v4(ip);
    if (v4 != ip_is_v4(&l->address))
        return false; /* the lane's address is the source: its family decides */
    return !(s->family == FAMILY_V4_ONLY && !v4) && !(s->family == FAMILY_V6_ONLY && v4);
}

static void take_ips(struct outbound *o, const struct ip *ips, unsigned count)
{
    const struct queue *q = o->deliver->queue;
    const struct site *s = site_at(q, o->flow->site);
    struct path *p = &o->path;
    p->ip = p->ip_count = 0;
    unsigned wrong_family = 0, refused = 0;
    for (unsigned i = 0; i < count && p->ip_count < LIMIT_ADDRESSES_TRIED; i++) {
        if (!family_ok(o, s, &ips[i]))
            wrong_family++;
        else if (!site_address_ok(q, s, &ips[i]))
            refused++;
        else
            p->ips[p->ip_count++] = ips[i];
    }
    if (p->ip_count > 0)
        return;
    char text[200];
    snprintf(text, sizeof text,
             "%s has no address that lane %s may use (%u of the other family, %u refused)",
             p->current->name, q->lanes[o->flow->lane].name, wrong_family, refused);
    path_failed(o, STAGE_CONNECT, refused > 0 ? REASON_LOOP : REASON_DNS_NO_ADDRESS,
                span_str(text));
    if (wrong_family > 0 && refused == 0) {
        p->all_permanent = false; /* another lane could reach it */
        p->other_family = p->tried == 0;
    }
}

static void take_answer(struct outbound *o, const struct dns_answer *a)
{
    char text[200];
    switch (a->status) {
    case DNS_OK:
        take_ips(o, a->addresses, a->address_count);
        return;
    case DNS_NODATA:
    case DNS_NXDOMAIN:
        snprintf(text, sizeof text, "%s has no address", o->path.current->name);
        path_failed(o, STAGE_CONNECT, REASON_DNS_NO_ADDRESS, span_str(text));
        return;
    case DNS_TEMP:
        snprintf(text, sizeof text, "address lookup of %s failed for now: %s",
                 o->path.current->name, a->error != NULL ? a->error : "no answer");
        path_failed(o, STAGE_CONNECT, REASON_DNS_TEMP, span_str(text));
        return;
    }
}

static void on_address(struct dns_query *query, const struct dns_answer *a)
{
    struct outbound *o = (struct outbound *)((char *)query - offsetof(struct outbound, query));
    take_answer(o, a);
    path_next(o);
}

/* True: an answer is here (or failed); false: wait for on_address. */
static bool resolve_host(struct outbound *o, const struct site_host *h)
{
    struct queue *q = o->deliver->queue;
    struct path *p = &o->path;
    const struct dns_answer *a = NULL;
    p->current = h;
    p->ip = p->ip_count = 0;
    struct ip literal;
    if (ip_parse(span_str(h->name), &literal) == 0) {
        take_ips(o, &literal, 1);
        return true;
    }
    if (q->env.dns == NULL) {
        path_failed(o, STAGE_CONNECT, REASON_DNS_TEMP, span_str("lookups are switched off"));
        return true;
    }
    o->query.on_answer = on_address;
    o->state = OUT_RESOLVING;
    int r = dns_ask(q->env.dns, &o->query, DNS_ADDRESS, h->name, &a);
    if (r == 0)
        return false;
    struct dns_answer bad = {.status = DNS_NXDOMAIN};
    take_answer(o, r == 1 ? a : &bad);
    return true;
}

/* --- connecting --- */

/* In a cluster the lane's epoch chooses the source ports; else the kernel does. */
static void choose_ports(const struct queue *q, const struct lane *l, struct conn_target *t)
{
    if (q->env.config->cluster.name[0] == '\0')
        return;
    t->from_ports = port_slice_of(l->epoch);
    t->from_first = (uint16_t)(t->from_ports.low + rng_below(q->env.rng, PORT_SLICE_COUNT));
}

static bool connect_to(struct outbound *o, const struct ip *ip)
{
    struct queue *q = o->deliver->queue;
    const struct lane *l = &q->lanes[o->flow->lane];
    const struct site *s = site_at(q, o->flow->site);
    struct client_settings set = {
        .config = q->env.config, .io = q->env.io, .wheel = q->env.wheel, .ehlo = l->ehlo};
    set.target = (struct conn_target){.to = *ip,
                                      .to_port = s->port,
                                      .bind_source = true,
                                      .from = l->address,
                                      .device = l->nic[0] != '\0' ? l->nic : NULL,
                                      .timeout_ms = q->env.config->client.connect_ms};
    choose_ports(q, l, &set.target);
    o->remote = *ip;
    o->state = OUT_CONNECTING;
    o->client = smtp_client_open(&set, &outbound_client_events, o);
    if (o->client != NULL)
        return true;
    path_failed(o, STAGE_CONNECT, REASON_SOURCE_ADDRESS,
                span_str("no connection slot or descriptor is free on this host"));
    return false;
}

/* The next address that is not known to be dead; when all are, the first is tried all the same. */
static const struct ip *pick_ip(struct outbound *o)
{
    struct path *p = &o->path;
    while (p->ip < p->ip_count && p->tried < LIMIT_ADDRESSES_TRIED) {
        const struct ip *ip = &p->ips[p->ip++];
        bool last_chance = p->ip == p->ip_count && p->host == p->host_count && p->tried == 0;
        if (is_dead(o, ip) && !last_chance)
            continue;
        p->tried++;
        return ip;
    }
    return NULL;
}

void path_next(struct outbound *o)
{
    struct path *p = &o->path;
    const struct site *s = site_at(o->deliver->queue, o->flow->site);
    if (!lane_runs(outbound_lane(o)) || o->epoch != outbound_lane(o)->epoch) {
        outbound_give_up(o);
        return;
    }
    for (;;) {
        const struct ip *ip = pick_ip(o);
        if (ip != NULL) {
            if (connect_to(o, ip))
                return;
            continue;
        }
        if (p->host >= p->host_count || p->tried >= LIMIT_ADDRESSES_TRIED)
            break;
        if (!resolve_host(o, &s->hosts[p->order[p->host++]]))
            return;
    }
    outbound_unreachable(o, p->all_permanent);
}
