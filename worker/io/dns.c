/*
 * Lookups: equal questions share one, each is one question to c-ares, or two (A and AAAA). c-ares
 * does retries, the servers' order and TCP after truncation; its sockets are watches of the ring,
 * its clock is a tick of the wheel.
 *
 * Invariants: a lookup is in the table until it is answered, and stays in memory until c-ares has
 * called back for each of its parts. on_answer is called with no lookup half changed, so it may
 * ask, forget and flush.
 */
#include "worker/io/dns_cache.h"
#include "worker/io/dns_parse.h"

#include "base/log.h"

#include <ares.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    DNS_LOOKUPS_MAX = 16384,
    DNS_SOCKETS_MAX = 64,
    DNS_TICK_MS = 50, /* how exactly c-ares sees its time-outs */
    DNS_TRIES_MAX = 5,
    DNS_NEGATIVE_S_MIN = 5,
    DNS_NEGATIVE_S_MAX = 3600,
    DNS_FAILURE_S = 5,
    DNS_PARTS_MAX = 2,
    DNS_IDS = 64,
};

struct lookup;

/* One question on the wire. */
struct part {
    struct lookup *lookup;
    enum dns_rr rr;
    enum dns_status status;
    bool secure;
    uint32_t ttl_s;
    const char *error;
};

struct lookup {
    struct dns *dns;
    struct dns_query *waiting; /* list */
    struct timer deadline;
    uint32_t hash;
    enum dns_type type;
    uint8_t part_count;
    uint8_t open_parts; /* c-ares still has them */
    bool answered;
    uint16_t address_count;
    struct part parts[DNS_PARTS_MAX];
    struct ip addresses[2 * LIMIT_ADDRESSES_TRIED];
    char name[LIMIT_DOMAIN_BYTES + 1];
};

struct dns_socket {
    struct io_watch watch;
    struct dns *dns;
    bool used;
};

struct dns {
    struct io *io;
    struct wheel *wheel;
    struct dns_settings settings;
    ares_channel channel;
    bool channel_ready;
    bool closing;
    bool sending; /* inside ares_send, which may end questions (also others) at once */
    bool trusted; /* all resolvers are on loopback: their AD bit counts */
    struct timer tick;
    struct dns_cache cache;
    struct pool lookups;
    struct table table; /* those not yet answered */
    struct dns_socket sockets[DNS_SOCKETS_MAX];
    uint16_t ids[DNS_IDS]; /* unused random ids */
    uint32_t id_count;
    struct dns_answer hit;   /* what dns_ask returns */
    struct dns_answer fresh; /* what on_answer gets */
};

struct key {
    enum dns_type type;
    const char *name;
};

static bool lookup_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct dns *d = ctx;
    const struct lookup *l = pool_at(&d->lookups, value);
    const struct key *k = key;
    return l->type == k->type && strcmp(l->name, k->name) == 0;
}

/* Sockets */

static void on_ready(struct io_watch *w, unsigned events)
{
    struct dns_socket *s = (struct dns_socket *)(void *)w;
    const unsigned broken = POLLERR | POLLHUP;
    ares_socket_t in = events & (POLLIN | broken) ? w->fd : ARES_SOCKET_BAD;
    ares_socket_t out = events & (POLLOUT | broken) ? w->fd : ARES_SOCKET_BAD;
    ares_process_fd(s->dns->channel, in, out);
}

static struct dns_socket *find_socket(struct dns *d, int fd)
{
    struct dns_socket *unused = NULL;
    for (size_t i = 0; i < DNS_SOCKETS_MAX; i++) {
        struct dns_socket *s = &d->sockets[i];
        if (s->used && s->watch.fd == fd)
            return s;
        if (!s->used)
            unused = s;
    }
    return unused;
}

/* c-ares says what it waits for on a socket; neither: it is about to be closed. */
static void on_socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct dns *d = data;
    unsigned events = (readable ? POLLIN : 0u) | (writable ? POLLOUT : 0u);
    struct dns_socket *s = find_socket(d, fd);
    if (s == NULL)
        return; /* its questions time out */
    if (s->used && s->watch.events == events)
        return;
    if (s->used)
        io_watch_stop(d->io, &s->watch);
    s->used = false;
    if (events == 0)
        return;
    s->dns = d;
    s->watch.on_ready = on_ready;
    s->used = io_watch_start(d->io, &s->watch, fd, events) == 0;
}

static void on_tick(struct timer *t)
{
    struct dns *d = (struct dns *)(void *)((char *)t - offsetof(struct dns, tick));
    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    if (d->lookups.used > 0)
        timer_set(d->wheel, &d->tick, DNS_TICK_MS);
}

/* Answers */

static uint32_t clamp(uint32_t v, uint32_t min, uint32_t max)
{
    return v < min ? min : v > max ? max : v;
}

static void set_cache_time(const struct dns *d, struct dns_answer *a)
{
    switch (a->status) {
    case DNS_OK:
        a->ttl_s = clamp(a->ttl_s, d->settings.ttl_min_s, d->settings.ttl_max_s);
        return;
    case DNS_NODATA:
    case DNS_NXDOMAIN:
        a->ttl_s = clamp(a->ttl_s, DNS_NEGATIVE_S_MIN, DNS_NEGATIVE_S_MAX);
        return;
    case DNS_TEMP:
        a->ttl_s = DNS_FAILURE_S;
        return;
    }
}

static void release_if_done(struct lookup *l)
{
    if (l->answered && l->open_parts == 0)
        pool_put(&l->dns->lookups, l);
}

/* d->fresh is the answer: keeps it and tells everybody who waits. */
static void finish(struct lookup *l)
{
    struct dns *d = l->dns;
    MUST(!l->answered);
    l->answered = true;
    l->open_parts++; /* a hold on the memory: callbacks may end its last part */
    set_cache_time(d, &d->fresh);
    dns_cache_put(&d->cache, l->type, l->name, d->wheel->now_ms, &d->fresh);
    MUST(table_remove(&d->table, l->hash, pool_index(&d->lookups, l)));
    timer_stop(d->wheel, &l->deadline);
    while (l->waiting != NULL) {
        struct dns_query *q = l->waiting;
        dns_forget(q);
        q->on_answer(q, &d->fresh);
    }
    l->open_parts--;
    release_if_done(l);
}

static void set_failure(struct dns_answer *a, const char *error)
{
    a->status = DNS_TEMP;
    a->secure = false;
    a->ttl_s = 0;
    a->mx_count = a->address_count = 0;
    a->ptr[0] = '\0';
    a->error = error;
}

/*
 * A and AAAA together. One of them is enough to go on, but a half answer is kept briefly only; no
 * addresses and a failure of either is a failure, since the other half is unknown.
 */
static void compose_addresses(const struct lookup *l, struct dns_answer *a)
{
    const struct part *worst = &l->parts[0];
    bool any_ok = false;
    a->ttl_s = UINT32_MAX;
    a->secure = true;
    for (size_t i = 0; i < l->part_count; i++) {
        const struct part *p = &l->parts[i];
        uint32_t ttl_s = p->status == DNS_TEMP ? 0 : p->ttl_s;
        any_ok = any_ok || p->status == DNS_OK;
        a->secure = a->secure && p->secure;
        if (ttl_s < a->ttl_s)
            a->ttl_s = ttl_s;
        if (p->status > worst->status)
            worst = p;
    }
    a->mx_count = 0;
    a->ptr[0] = '\0';
    a->address_count = any_ok ? l->address_count : 0;
    memcpy(a->addresses, l->addresses, a->address_count * sizeof a->addresses[0]);
    a->status = any_ok ? DNS_OK : worst->status;
    a->error = any_ok ? NULL : worst->error;
}

static void on_deadline(struct timer *t)
{
    struct lookup *l = (struct lookup *)(void *)((char *)t - offsetof(struct lookup, deadline));
    struct dns *d = l->dns;
    if (l->open_parts > 0)
        set_failure(&d->fresh, "timeout");
    else if (l->type == DNS_ADDRESS)
        compose_addresses(l, &d->fresh);
    else
        set_failure(&d->fresh, l->parts[0].error);
    finish(l);
}

static const char *failure_text(int status)
{
    switch (status) {
    case ARES_ESERVFAIL:
        return "SERVFAIL";
    case ARES_EREFUSED:
        return "REFUSED";
    case ARES_ENOTIMP:
        return "NOTIMP";
    case ARES_EFORMERR:
        return "FORMERR";
    case ARES_ETIMEOUT:
        return "timeout";
    case ARES_ECONNREFUSED:
        return "no usable answer from a DNS server";
    case ARES_EBADRESP:
        return "malformed answer";
    default:
        return "lookup failed";
    }
}

/* Notes what came for a part; the records are in d->fresh. */
static void take_part(struct part *p)
{
    struct lookup *l = p->lookup;
    struct dns_answer *a = &l->dns->fresh;
    a->secure = a->secure && l->dns->trusted;
    p->status = a->status;
    p->secure = a->secure;
    p->ttl_s = a->ttl_s;
    p->error = a->error;
    for (size_t i = 0; i < a->address_count && l->type == DNS_ADDRESS; i++)
        l->addresses[l->address_count++] = a->addresses[i];
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *abuf, int alen)
{
    struct part *p = arg;
    struct lookup *l = p->lookup;
    struct dns *d = l->dns;
    (void)timeouts;
    MUST(l->open_parts > 0);
    l->open_parts--;
    if (d->closing)
        return;
    if (l->answered) {
        release_if_done(l);
        return;
    }
    if (d->sending) {
        /* Only failures come here. d->fresh may be in use and nobody may be called: the wheel
         * tells. */
        p->status = DNS_TEMP;
        p->error = failure_text(status);
        if (l->open_parts == 0)
            timer_set(d->wheel, &l->deadline, 0);
        return;
    }
    if (status != ARES_SUCCESS || abuf == NULL || alen < 0)
        set_failure(&d->fresh, failure_text(status));
    else
        /* What is malformed has become a failure there. */
        (void)!dns_parse(span_of(abuf, (size_t)alen), l->name, p->rr, &d->fresh);
    take_part(p);
    if (l->open_parts > 0)
        return;
    if (l->type == DNS_ADDRESS)
        compose_addresses(l, &d->fresh);
    finish(l);
}

/* Questions */

static uint16_t next_id(struct dns *d)
{
    if (d->id_count == 0) {
        MUST(getrandom(d->ids, sizeof d->ids, 0) == sizeof d->ids);
        d->id_count = DNS_IDS;
    }
    return d->ids[--d->id_count];
}

static void add_part(struct lookup *l, enum dns_rr rr)
{
    struct part *p = &l->parts[l->part_count++];
    p->lookup = l;
    p->rr = rr;
}

static void send_parts(struct lookup *l)
{
    uint8_t packet[DNS_QUESTION_BYTES_MAX];
    bool was_sending = l->dns->sending;
    l->dns->sending = true;
    l->open_parts = l->part_count;
    for (size_t i = 0; i < l->part_count; i++) {
        size_t n = dns_build_question(next_id(l->dns), l->name, l->parts[i].rr, packet);
        ares_send(l->dns->channel, packet, (int)n, on_reply, &l->parts[i]);
    }
    l->dns->sending = was_sending;
}

static struct lookup *start_lookup(struct dns *d, enum dns_type type, const char *name,
                                   uint32_t hash)
{
    struct lookup *l = pool_get(&d->lookups);
    if (l == NULL)
        return NULL;
    if (table_add(&d->table, hash, pool_index(&d->lookups, l)) < 0) {
        pool_put(&d->lookups, l);
        return NULL;
    }
    l->dns = d;
    l->hash = hash;
    l->type = type;
    l->deadline.on_due = on_deadline;
    memcpy(l->name, name, strlen(name) + 1);
    switch (type) {
    case DNS_MX:
        add_part(l, DNS_RR_MX);
        break;
    case DNS_ADDRESS:
        add_part(l, DNS_RR_A);
        add_part(l, DNS_RR_AAAA);
        break;
    case DNS_PTR:
        add_part(l, DNS_RR_PTR);
        break;
    }
    timer_set(d->wheel, &l->deadline, d->settings.total_ms + 1ull);
    if (!timer_is_set(&d->tick))
        timer_set(d->wheel, &d->tick, DNS_TICK_MS);
    send_parts(l);
    return l;
}

static void join(struct lookup *l, struct dns_query *q)
{
    q->next = l->waiting;
    q->link = &l->waiting;
    if (q->next != NULL)
        q->next->link = &q->next;
    l->waiting = q;
}

static int ask(struct dns *d, struct dns_query *q, enum dns_type type, const char *name,
               const struct dns_answer **answer)
{
    MUST(q->on_answer != NULL);
    q->next = NULL;
    q->link = NULL;
    if (dns_cache_get(&d->cache, type, name, d->wheel->now_ms, &d->hit)) {
        *answer = &d->hit;
        return 1;
    }
    *answer = NULL;
    struct key k = {type, name};
    uint32_t hash = dns_key_hash(type, name);
    uint32_t index = table_find(&d->table, hash, lookup_eq, d, &k);
    struct lookup *l = index != 0 ? pool_at(&d->lookups, index) : start_lookup(d, type, name, hash);
    if (l == NULL)
        return -ENOBUFS;
    join(l, q);
    return 0;
}

int dns_ask(struct dns *d, struct dns_query *q, enum dns_type type, const char *name,
            const struct dns_answer **answer)
{
    char clean[LIMIT_DOMAIN_BYTES + 1];
    q->link = NULL;
    int err = dns_name_normalise(name, clean);
    return err < 0 ? err : ask(d, q, type, clean, answer);
}

int dns_ask_ptr(struct dns *d, struct dns_query *q, const struct ip *ip,
                const struct dns_answer **answer)
{
    char name[LIMIT_DOMAIN_BYTES + 1];
    dns_name_reverse(ip, name);
    return ask(d, q, DNS_PTR, name, answer);
}

void dns_forget(struct dns_query *q)
{
    if (q->link == NULL)
        return;
    *q->link = q->next;
    if (q->next != NULL)
        q->next->link = q->link;
    q->next = NULL;
    q->link = NULL;
}

void dns_flush(struct dns *d, const char *name)
{
    char clean[LIMIT_DOMAIN_BYTES + 1];
    if (name == NULL)
        dns_cache_flush(&d->cache, NULL);
    else if (dns_name_normalise(name, clean) == 0)
        dns_cache_flush(&d->cache, clean);
}

/* Set-up */

static bool is_loopback(const struct ares_addr_port_node *n)
{
    static const uint8_t v6[16] = {[15] = 1};
    if (n->family == AF_INET)
        return *(const uint8_t *)&n->addr.addr4 == 127;
    return n->family == AF_INET6 && memcmp(&n->addr.addr6, v6, sizeof v6) == 0;
}

struct servers {
    uint32_t count;
    bool on_loopback; /* all of them */
};

static struct servers look_at_servers(ares_channel channel)
{
    struct servers s = {0, false};
    struct ares_addr_port_node *list = NULL;
    if (ares_get_servers_ports(channel, &list) != ARES_SUCCESS || list == NULL)
        return s;
    s.on_loopback = true;
    for (const struct ares_addr_port_node *n = list; n != NULL; n = n->next) {
        s.count++;
        s.on_loopback = s.on_loopback && is_loopback(n);
    }
    ares_free_data(list);
    return s;
}

static int ares_to_errno(int status)
{
    if (status == ARES_ENOMEM)
        return -ENOMEM;
    return status == ARES_SUCCESS ? 0 : -EINVAL;
}

static int open_channel(struct dns *d, int flags)
{
    const struct dns_settings *s = &d->settings;
    uint32_t tries = clamp(s->total_ms / s->query_ms, 1, DNS_TRIES_MAX);
    struct ares_options o = {.flags = flags,
                             .timeout = (int)s->query_ms,
                             .tries = (int)tries,
                             .ednspsz = DNS_UDP_BYTES,
                             .sock_state_cb = on_socket_state,
                             .sock_state_cb_data = d};
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&d->channel, &o, mask);
    if (status != ARES_SUCCESS)
        return ares_to_errno(status);
    d->channel_ready = true;
    if (s->servers != NULL)
        status = ares_set_servers_ports_csv(d->channel, s->servers);
    return ares_to_errno(status);
}

static void close_channel(struct dns *d)
{
    if (d->channel_ready)
        ares_destroy(d->channel);
    d->channel_ready = false;
}

/*
 * EDNS also makes c-ares read more than 512 bytes. Sockets to a resolver on loopback stay open:
 * cheaper, and nobody can forge its answers. Those to another one are closed when idle, so that the
 * source port changes. A SERVFAIL or REFUSED is final when there is nobody else to ask; c-ares
 * would ask again, and lose the reason.
 */
static int open_channels(struct dns *d)
{
    int flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES;
    int err = open_channel(d, flags);
    if (err < 0)
        return err;
    struct servers s = look_at_servers(d->channel);
    d->trusted = s.on_loopback;
    if (s.on_loopback)
        flags |= ARES_FLAG_STAYOPEN;
    if (s.count == 1)
        flags |= ARES_FLAG_NOCHECKRESP;
    close_channel(d);
    return open_channel(d, flags);
}

int dns_create(struct dns **out, struct io *io, struct wheel *wheel, const struct dns_settings *s)
{
    MUST(s->query_ms >= 100 && s->query_ms <= 30000);
    MUST(s->total_ms >= s->query_ms && s->cache_count_max >= 1);
    MUST(s->ttl_min_s <= s->ttl_max_s);
    *out = NULL;
    struct dns *d = calloc(1, sizeof *d);
    if (d == NULL)
        return -ENOMEM;
    d->io = io;
    d->wheel = wheel;
    d->settings = *s;
    d->tick.on_due = on_tick;
    int err = ares_to_errno(ares_library_init(ARES_LIB_INIT_ALL));
    if (err == 0)
        err = pool_init(&d->lookups, "lookups", sizeof(struct lookup), DNS_LOOKUPS_MAX);
    if (err == 0)
        err = dns_cache_init(&d->cache, s->cache_count_max);
    if (err == 0)
        err = open_channels(d);
    if (err < 0) {
        dns_destroy(&d);
        return err;
    }
    *out = d;
    return 0;
}

void dns_destroy(struct dns **dp)
{
    struct dns *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    d->closing = true;
    timer_stop(d->wheel, &d->tick);
    for (uint32_t i = 0; d->table.slots != NULL && i <= d->table.mask; i++) {
        if (d->table.slots[i].value == 0)
            continue;
        struct lookup *l = pool_at(&d->lookups, d->table.slots[i].value);
        timer_stop(d->wheel, &l->deadline);
        while (l->waiting != NULL)
            dns_forget(l->waiting);
    }
    close_channel(d);
    ares_library_cleanup();
    dns_cache_fini(&d->cache);
    table_fini(&d->table);
    pool_fini(&d->lookups);
    free(d);
}
