/*
 * rtnl - the addresses of this host: what is there, and adding and removing ours.
 *
 * Owner:  struct netd. Two sockets: one asks and waits for the kernel's word (microseconds), one
 *         listens to every change, ours and others'.
 * Never:  touches an address that does not carry our tag.
 */
#ifndef NETD_RTNL_H
#define NETD_RTNL_H

#include "base/pool.h"
#include "base/table.h"
#include "master/netd/netlink.h"

enum { RTNL_ADDRESSES_MAX = 65536 };

/* An address changed; all may have (ip is NULL) when the kernel had too much to tell. */
typedef void rtnl_change(void *ctx, const struct ip *ip);

struct rtnl {
    int ask_fd, watch_fd;
    uint32_t seq;
    struct pool addresses; /* struct nl_address */
    struct table by_ip;    /* index in addresses; an address may be on several interfaces */
    rtnl_change *on_change;
    void *ctx;
};

/* Opens both sockets and reads what is there. 0 or -errno. */
NODISCARD int rtnl_open(struct rtnl *r, rtnl_change *on_change, void *ctx);
void rtnl_close(struct rtnl *r);
/* Reads all changes there are; never waits. on_change only hears of them. 0 or -errno. */
NODISCARD int rtnl_watch(struct rtnl *r);

/* Our address on that interface: known, and finished by the kernel. */
bool rtnl_ours(const struct rtnl *r, const struct ip *ip, unsigned ifindex);
/* The same address without our tag, on any interface: its index, or 0. */
unsigned rtnl_foreign(const struct rtnl *r, const struct ip *ip);
/*
 * Adds or renews ours. 0: the kernel has taken it (rtnl_ours tells when it works); -EEXIST: it is
 * there and not ours; -errno.
 */
NODISCARD int rtnl_add(struct rtnl *r, const struct ip *ip, unsigned ifindex, uint32_t valid_s);
/* Removes ours. 0 also when there was none; -errno. */
NODISCARD int rtnl_remove(struct rtnl *r, const struct ip *ip, unsigned ifindex);
/* Sets the interface to answer ARP only for its own addresses. */
NODISCARD int rtnl_arp_strict(struct rtnl *r, unsigned ifindex);
/* Removes every tagged address for which `keep` says no; returns how many, or -errno. */
NODISCARD int rtnl_remove_others(struct rtnl *r,
                                 bool (*keep)(void *ctx, const struct nl_address *a), void *ctx);

#endif
