/*
 * forward - hands packets of a moved address back to the host that finishes its connections.
 *
 * One nf_tables table of family netdev, ours alone, written through nfnetlink: a program to call
 * (nft) would need its own rights and a process for each lane. For each interface, family and slice
 * of ports there is one rule; it looks the destination up in a map, so that thousands of lanes cost
 * one lookup:
 *
 *     table netdev mochila {
 *         map v4_20000_39999 { type ipv4_addr : ipv4_addr; }
 *         chain in_2 { type filter hook ingress device "eth0" priority 0;
 *             tcp dport 20000-39999 fwd ip to ip daddr map @v4_20000_39999 device "eth0" }
 *     }
 *
 * The table outlives this process: open connections go on while a new one starts.
 * Owner:  struct netd.
 * Never:  rules in a table that is not ours.
 */
#ifndef NETD_FORWARD_H
#define NETD_FORWARD_H

#include "master/netd/netlink.h"
#include "proto/netd_frame.h"

enum { FORWARD_RULES_MAX = 64 };

struct forward_rule {
    unsigned ifindex;
    uint16_t port_low, port_high;
    bool v4;
};
struct forward_nic {
    unsigned ifindex;
    const char *name;
};
struct forward {
    int fd;
    struct nl_out batch;
    struct forward_rule rules[FORWARD_RULES_MAX]; /* in the kernel, or in the open batch */
    unsigned rule_count, rule_count_before;
};

/* 0 or -ENOMEM. Where the kernel has no nf_tables, every commit fails. */
NODISCARD int forward_open(struct forward *f);
void forward_close(struct forward *f);
/* A batch is one transaction: what stands between begin and commit happens at once, or not. */
void forward_begin(struct forward *f);
/* Everything of ours away, as the first step of a batch. */
void forward_flush(struct forward *f);
/* The rule for this interface and slice, unless it is there. */
void forward_rule_add(struct forward *f, struct forward_nic nic, const struct ip *family_of,
                      const struct netd_tail *slice);
void forward_lane_add(struct forward *f, const struct ip *address, const struct netd_tail *tail);
void forward_lane_remove(struct forward *f, const struct ip *address, const struct netd_tail *tail);
/* 0 or -errno: -ENOENT (removing what is not there), -EEXIST, -ENOSPC (too many rules)... */
NODISCARD int forward_commit(struct forward *f);

#endif
