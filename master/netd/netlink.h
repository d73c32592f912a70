/*
 * netlink - messages of rtnetlink and nfnetlink, written and read in memory.
 *
 * Pure: no sockets, no state. Numbers are in the byte order that the kernel wants in each place:
 * the caller of nl_put says which bytes.
 * Never:  a message over the buffer (`bad` instead).
 */
#ifndef NETD_NETLINK_H
#define NETD_NETLINK_H

#include "base/net.h"

enum {
    /* How the kernel remembers whose an address is (IFA_PROTO, Linux 5.18); 0..3 are its own. */
    NL_TAG = 109,
    NL_LOOPBACK = 1, /* index of lo in every network namespace */
};

struct nl_out {
    uint8_t *p;
    size_t n, cap;
    size_t message; /* where the open one begins */
    uint32_t seq;   /* of the next message */
    bool bad;
};

static inline struct nl_out nl_out_of(void *p, size_t cap, uint32_t seq)
{
    return (struct nl_out){.p = p, .cap = cap, .seq = seq};
}
/* Opens a message with its family's header; flags are NLM_F_*, NLM_F_REQUEST always. */
void nl_begin(struct nl_out *o, unsigned type, unsigned flags, struct span header);
void nl_end(struct nl_out *o);
void nl_put(struct nl_out *o, unsigned type, struct span value);
void nl_put_u32(struct nl_out *o, unsigned type, uint32_t host_order);
void nl_put_be32(struct nl_out *o, unsigned type, uint32_t value);
void nl_put_text(struct nl_out *o, unsigned type, const char *text);
/* Opens a nested attribute; what it returns goes to nl_unnest. */
size_t nl_nest(struct nl_out *o, unsigned type);
void nl_unnest(struct nl_out *o, size_t nest);

/* An address of an interface, as asked for or as told by the kernel. */
struct nl_address {
    struct ip ip;
    unsigned ifindex;
    uint8_t tag;    /* NL_TAG: one of ours */
    bool tentative; /* the kernel has not finished adding it */
    bool gone;      /* RTM_DELADDR */
};
/*
 * Adds ip/32 or ip/128, tagged and without duplicate address detection, or renews it. After valid_s
 * seconds without another call the kernel removes it by itself.
 */
void nl_address_add(struct nl_out *o, const struct nl_address *a, uint32_t valid_s, bool renew);
void nl_address_delete(struct nl_out *o, const struct nl_address *a);
void nl_address_dump(struct nl_out *o, int family);
/* arp_ignore=1 and arp_announce=2: this interface answers only for, and asks only from, its own. */
void nl_arp_strict(struct nl_out *o, unsigned ifindex);

/* One message of a datagram. */
struct nl_in {
    unsigned type;
    uint32_t seq;
    int error; /* of NLMSG_ERROR: 0 or -errno */
    struct span payload;
};
/* Takes the next message off `rest`; false at the end, or where the rest is malformed. */
bool nl_next(struct span *rest, struct nl_in *out);
/* RTM_NEWADDR or RTM_DELADDR; -EBADMSG, or -EAFNOSUPPORT for neither IPv4 nor IPv6. */
NODISCARD int nl_parse_address(const struct nl_in *m, struct nl_address *out);

#endif
