/*
 * nic - the network interfaces that lanes are on: speaking and listening below IP.
 *
 * Owner:  struct netd. For each interface one packet socket for ARP and one for neighbour
 *         advertisements, both with a filter in the kernel, so that mail traffic never wakes us.
 * Input:  frames of the segment; malformed ones are dropped in silence.
 */
#ifndef NETD_NIC_H
#define NETD_NIC_H

#include "master/netd/arp_frame.h"
#include "proto/netd_frame.h"

enum { NIC_COUNT_MAX = 16, NIC_FDS = 2 };

struct nic {
    char name[NETD_INTERFACE_BYTES];
    unsigned ifindex; /* 0: this entry is free */
    struct mac mac;
    int fds[NIC_FDS]; /* ARP, neighbour discovery */
    bool strict;      /* arp_ignore and arp_announce are set */
};
struct nics {
    struct nic list[NIC_COUNT_MAX];
};

void nics_init(struct nics *all);
void nics_close(struct nics *all);
/*
 * The interface by name, opened when it is new or was made anew. NULL with a reason for people:
 * none of that name, down, without carrier, not Ethernet.
 */
struct nic *nic_get(struct nics *all, const char *name, char *reason, size_t reason_bytes);
struct nic *nic_by_index(struct nics *all, unsigned ifindex);
/* Sends one frame about ip; what the kernel will not send is lost, as on any wire. */
void nic_say(const struct nic *n, enum arp_kind kind, const struct ip *ip);
/* The next claim of another host that fd has; false when there is none. */
bool nic_hear(const struct nic *n, int fd, struct arp_claim *out);

#endif
