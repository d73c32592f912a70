/*
 * rtnl - see rtnl.h.
 *
 * The view is what the kernel told in notifications and nothing else: an answer to a request does
 * not change it. For IPv6 the answer comes before the address works, the notification after.
 */
#include "master/netd/rtnl.h"

#include "base/log.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES = 512,
    DATAGRAM_BYTES = 64 << 10,
    WATCH_BUFFER_BYTES = 8 << 20, /* thousands of changes at once */
    ASK_TIMEOUT_S = 2,
    DATAGRAMS_PER_WATCH = 4096,
};

static int open_socket(uint32_t groups)
{
    struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = groups};
    struct timeval limit = {.tv_sec = ASK_TIMEOUT_S};
    int bytes = WATCH_BUFFER_BYTES;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    /* Both are better with, and work without: FORCE wants CAP_NET_ADMIN. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
}

/* --- the view --- */

struct key {
    const struct ip *ip;
    unsigned ifindex; /* 0: any */
    bool foreign;     /* only without our tag */
};

static bool same(const void *ctx, uint32_t value, const void *key)
{
    const struct rtnl *r = ctx;
    const struct nl_address *a = pool_at(&r->addresses, value);
    const struct key *k = key;
    return ip_eq(&a->ip, k->ip) && (k->ifindex == 0 || a->ifindex == k->ifindex) &&
           (!k->foreign || a->tag != NL_TAG);
}

static uint32_t hash_ip(const struct ip *ip)
{
    return hash_bytes(span_of(ip->b, sizeof ip->b));
}

static struct nl_address *find(const struct rtnl *r, const struct key *k)
{
    uint32_t index = table_find(&r->by_ip, hash_ip(k->ip), same, r, k);
    return index != 0 ? pool_at(&r->addresses, index) : NULL;
}

static void forget(struct rtnl *r, struct nl_address *a)
{
    bool was = table_remove(&r->by_ip, hash_ip(&a->ip), pool_index(&r->addresses, a));
    MUST(was);
    pool_put(&r->addresses, a);
}

static int learn(struct rtnl *r, const struct nl_address *told)
{
    struct key k = {&told->ip, told->ifindex, false};
    struct nl_address *a = find(r, &k);
    if (told->gone) {
        if (a != NULL)
            forget(r, a);
        return 0;
    }
    if (a == NULL) {
        a = pool_get(&r->addresses);
        if (a == NULL)
            return -ENOSPC;
        if (table_add(&r->by_ip, hash_ip(&told->ip), pool_index(&r->addresses, a)) < 0) {
            pool_put(&r->addresses, a);
            return -ENOMEM;
        }
    }
    *a = *told;
    return 0;
}

/* One datagram of addresses. 0, 1 = the end of a dump, -errno. */
static int take_datagram(struct rtnl *r, struct span bytes, bool tell)
{
    struct nl_in m;
    struct nl_address a;

    while (nl_next(&bytes, &m)) {
        if (m.type == NLMSG_DONE)
            return 1;
        if (m.type == NLMSG_ERROR)
            return m.error;
        if (m.type != RTM_NEWADDR && m.type != RTM_DELADDR)
            continue;
        if (nl_parse_address(&m, &a) < 0)
            continue; /* a family of the kernel's that is none of ours */
        int e = learn(r, &a);
        if (e < 0)
            return e;
        if (tell)
            r->on_change(r->ctx, &a.ip);
    }
    return 0;
}

static ssize_t receive(int fd, uint8_t *buffer, int flags)
{
    ssize_t n;
    do
        n = recv(fd, buffer, DATAGRAM_BYTES, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int dump_family(struct rtnl *r, int family)
{
    static uint8_t buffer[DATAGRAM_BYTES];
    struct nl_out o = nl_out_of(buffer, sizeof buffer, ++r->seq);
    nl_address_dump(&o, family);
    if (send(r->ask_fd, o.p, o.n, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t n = receive(r->ask_fd, buffer, 0);
        int e = n < 0 ? (int)n : take_datagram(r, span_of(buffer, (size_t)n), false);
        if (e != 0)
            return e < 0 ? e : 0;
    }
}

/* Reads everything afresh. Changes on the way come once more through watch_fd. */
static int reread(struct rtnl *r)
{
    table_fini(&r->by_ip);
    pool_fini(&r->addresses);
    int e = pool_init(&r->addresses, "addresses", sizeof(struct nl_address), RTNL_ADDRESSES_MAX);
    if (e == 0)
        e = dump_family(r, AF_INET);
    return e < 0 ? e : dump_family(r, AF_INET6);
}

int rtnl_open(struct rtnl *r, rtnl_change *on_change, void *ctx)
{
    uint32_t groups = 1u << (RTNLGRP_IPV4_IFADDR - 1) | 1u << (RTNLGRP_IPV6_IFADDR - 1);
    *r = (struct rtnl){.ask_fd = -1, .watch_fd = -1, .on_change = on_change, .ctx = ctx};
    int e = pool_init(&r->addresses, "addresses", sizeof(struct nl_address), RTNL_ADDRESSES_MAX);
    if (e < 0)
        return e;
    r->watch_fd = open_socket(groups);
    r->ask_fd = r->watch_fd < 0 ? r->watch_fd : open_socket(0);
    e = r->ask_fd < 0 ? r->ask_fd : reread(r);
    if (e < 0)
        rtnl_close(r);
    return e;
}

void rtnl_close(struct rtnl *r)
{
    if (r->watch_fd >= 0)
        close(r->watch_fd);
    if (r->ask_fd >= 0)
        close(r->ask_fd);
    r->watch_fd = r->ask_fd = -1;
    table_fini(&r->by_ip);
    pool_fini(&r->addresses);
}

int rtnl_watch(struct rtnl *r)
{
    static uint8_t buffer[DATAGRAM_BYTES];
    for (unsigned i = 0; i < DATAGRAMS_PER_WATCH; i++) {
        ssize_t n = receive(r->watch_fd, buffer, MSG_DONTWAIT);
        if (n == -EAGAIN)
            return 0;
        int e = n < 0 ? (int)n : take_datagram(r, span_of(buffer, (size_t)n), true);
        if (e == -ENOBUFS) {
            e = reread(r);
            r->on_change(r->ctx, NULL);
        }
        if (e < 0)
            return e;
    }
    return 0;
}

/* --- requests --- */

/* Sends one message and waits for the kernel's word about it. */
static int ask(struct rtnl *r, struct nl_out *o)
{
    uint8_t answer[MESSAGE_BYTES + sizeof(struct nlmsghdr) + 256];
    struct nl_in m;

    MUST(!o->bad);
    if (send(r->ask_fd, o->p, o->n, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t n;
        do
            n = recv(r->ask_fd, answer, sizeof answer, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return -errno;
        struct span rest = span_of(answer, (size_t)n);
        /* What an older question that timed out is answered now does not count. */
        while (nl_next(&rest, &m)) {
            if (m.type == NLMSG_ERROR && m.seq == r->seq)
                return m.error;
        }
    }
}

bool rtnl_ours(const struct rtnl *r, const struct ip *ip, unsigned ifindex)
{
    struct key k = {ip, ifindex, false};
    const struct nl_address *a = ifindex != 0 ? find(r, &k) : NULL;
    return a != NULL && a->tag == NL_TAG && !a->tentative;
}

unsigned rtnl_foreign(const struct rtnl *r, const struct ip *ip)
{
    struct key k = {ip, 0, true};
    const struct nl_address *a = find(r, &k);
    return a != NULL ? a->ifindex : 0;
}

int rtnl_add(struct rtnl *r, const struct ip *ip, unsigned ifindex, uint32_t valid_s)
{
    uint8_t bytes[MESSAGE_BYTES];
    struct key k = {ip, ifindex, false};
    struct nl_address wanted = {.ip = *ip, .ifindex = ifindex};
    int e = rtnl_watch(r);
    if (e < 0)
        return e;
    const struct nl_address *a = find(r, &k);
    if (a != NULL && a->tag != NL_TAG)
        return -EEXIST;
    /* Never REPLACE what we do not know to be ours: that would tag somebody else's. */
    struct nl_out o = nl_out_of(bytes, sizeof bytes, ++r->seq);
    nl_address_add(&o, &wanted, valid_s, a != NULL);
    e = ask(r, &o);
    return e < 0 ? e : rtnl_watch(r);
}

int rtnl_remove(struct rtnl *r, const struct ip *ip, unsigned ifindex)
{
    uint8_t bytes[MESSAGE_BYTES];
    struct key k = {ip, ifindex, false};
    int e = rtnl_watch(r);
    if (e < 0 || ifindex == 0)
        return e;
    const struct nl_address *a = find(r, &k);
    if (a == NULL || a->tag != NL_TAG)
        return 0;
    struct nl_address wanted = *a;
    struct nl_out o = nl_out_of(bytes, sizeof bytes, ++r->seq);
    nl_address_delete(&o, &wanted);
    e = ask(r, &o);
    if (e < 0 && e != -EADDRNOTAVAIL && e != -ENODEV)
        return e;
    return rtnl_watch(r);
}

int rtnl_arp_strict(struct rtnl *r, unsigned ifindex)
{
    uint8_t bytes[MESSAGE_BYTES];
    struct nl_out o = nl_out_of(bytes, sizeof bytes, ++r->seq);
    nl_arp_strict(&o, ifindex);
    return ask(r, &o);
}

int rtnl_remove_others(struct rtnl *r, bool (*keep)(void *ctx, const struct nl_address *a),
                       void *ctx)
{
    struct nl_address *list = calloc((size_t)r->by_ip.used + 1, sizeof *list);
    int count = 0, removed = 0, e = 0;

    if (list == NULL)
        return -ENOMEM;
    /* Removing changes the table: look first. */
    for (uint32_t i = 0; r->by_ip.used > 0 && i <= r->by_ip.mask; i++) {
        uint32_t index = r->by_ip.slots[i].value;
        const struct nl_address *a = index != 0 ? pool_at(&r->addresses, index) : NULL;
        if (a != NULL && a->tag == NL_TAG && !keep(ctx, a))
            list[count++] = *a;
    }
    for (int i = 0; i < count && e == 0; i++) {
        e = rtnl_remove(r, &list[i].ip, list[i].ifindex);
        removed += e == 0;
    }
    free(list);
    return e < 0 ? e : removed;
}
