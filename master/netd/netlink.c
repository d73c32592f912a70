/* netlink - see netlink.h. */
#include "master/netd/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

enum { ALIGN_TO = 4, TEXT_MAX = 256 };

static size_t aligned(size_t n)
{
    return (n + ALIGN_TO - 1) & ~(size_t)(ALIGN_TO - 1);
}

/* Room for n bytes, rounded up and zeroed; NULL when there is none. */
static uint8_t *grow(struct nl_out *o, size_t n)
{
    size_t take = aligned(n);
    if (o->bad || take > o->cap - o->n) {
        o->bad = true;
        return NULL;
    }
    uint8_t *p = o->p + o->n;
    memset(p, 0, take);
    o->n += take;
    return p;
}

void nl_begin(struct nl_out *o, unsigned type, unsigned flags, struct span header)
{
    struct nlmsghdr h = {.nlmsg_type = (uint16_t)type,
                         .nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST),
                         .nlmsg_seq = o->seq++};
    o->message = o->n;
    uint8_t *p = grow(o, sizeof h);
    if (p != NULL)
        memcpy(p, &h, sizeof h);
    p = grow(o, header.n);
    if (p != NULL && header.n > 0)
        memcpy(p, header.p, header.n);
}

void nl_end(struct nl_out *o)
{
    if (o->bad)
        return;
    uint32_t n = (uint32_t)(o->n - o->message);
    memcpy(o->p + o->message + offsetof(struct nlmsghdr, nlmsg_len), &n, sizeof n);
}

void nl_put(struct nl_out *o, unsigned type, struct span value)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof a + value.n), .nla_type = (uint16_t)type};
    MUST(value.n <= UINT16_MAX - sizeof a);
    uint8_t *p = grow(o, sizeof a + value.n);
    if (p == NULL)
        return;
    memcpy(p, &a, sizeof a);
    if (value.n > 0)
        memcpy(p + sizeof a, value.p, value.n);
}

void nl_put_u32(struct nl_out *o, unsigned type, uint32_t host_order)
{
    nl_put(o, type, span_of(&host_order, sizeof host_order));
}

void nl_put_be32(struct nl_out *o, unsigned type, uint32_t value)
{
    nl_put_u32(o, type, htonl(value));
}

void nl_put_text(struct nl_out *o, unsigned type, const char *text)
{
    size_t n = strlen(text) + 1;
    MUST(n <= TEXT_MAX);
    nl_put(o, type, span_of(text, n));
}

size_t nl_nest(struct nl_out *o, unsigned type)
{
    size_t at = o->n;
    nl_put(o, type | NLA_F_NESTED, span_of(NULL, 0));
    return at;
}

void nl_unnest(struct nl_out *o, size_t nest)
{
    if (o->bad)
        return;
    size_t n = o->n - nest;
    MUST(n <= UINT16_MAX);
    uint16_t len = (uint16_t)n;
    memcpy(o->p + nest + offsetof(struct nlattr, nla_len), &len, sizeof len);
}

/* The bytes of the address in its own family. */
static struct span address_bytes(const struct ip *ip)
{
    return ip_is_v4(ip) ? span_of(ip->b + 12, 4) : span_of(ip->b, 16);
}

static struct ifaddrmsg address_header(const struct nl_address *a)
{
    bool v4 = ip_is_v4(&a->ip);
    return (struct ifaddrmsg){.ifa_family = v4 ? AF_INET : AF_INET6,
                              .ifa_prefixlen = v4 ? 32 : 128,
                              .ifa_flags = v4 ? 0 : IFA_F_NODAD,
                              .ifa_scope = RT_SCOPE_UNIVERSE,
                              .ifa_index = a->ifindex};
}

void nl_address_add(struct nl_out *o, const struct nl_address *a, uint32_t valid_s, bool renew)
{
    struct ifaddrmsg h = address_header(a);
    struct ifa_cacheinfo life = {.ifa_prefered = valid_s, .ifa_valid = valid_s};
    uint8_t tag = NL_TAG;

    nl_begin(o, RTM_NEWADDR, NLM_F_ACK | (renew ? NLM_F_REPLACE : NLM_F_CREATE | NLM_F_EXCL),
             span_of(&h, sizeof h));
    nl_put(o, IFA_LOCAL, address_bytes(&a->ip));
    nl_put(o, IFA_ADDRESS, address_bytes(&a->ip));
    nl_put_u32(o, IFA_FLAGS, h.ifa_flags);
    nl_put(o, IFA_CACHEINFO, span_of(&life, sizeof life));
    nl_put(o, IFA_PROTO, span_of(&tag, sizeof tag));
    nl_end(o);
}

void nl_address_delete(struct nl_out *o, const struct nl_address *a)
{
    struct ifaddrmsg h = address_header(a);
    nl_begin(o, RTM_DELADDR, NLM_F_ACK, span_of(&h, sizeof h));
    nl_put(o, IFA_LOCAL, address_bytes(&a->ip));
    nl_put(o, IFA_ADDRESS, address_bytes(&a->ip));
    nl_end(o);
}

void nl_address_dump(struct nl_out *o, int family)
{
    struct ifaddrmsg h = {.ifa_family = (uint8_t)family};
    nl_begin(o, RTM_GETADDR, NLM_F_DUMP, span_of(&h, sizeof h));
    nl_end(o);
}

void nl_arp_strict(struct nl_out *o, unsigned ifindex)
{
    struct ifinfomsg h = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex};
    nl_begin(o, RTM_NEWLINK, NLM_F_ACK, span_of(&h, sizeof h));
    size_t spec = nl_nest(o, IFLA_AF_SPEC);
    size_t inet = nl_nest(o, AF_INET);
    size_t conf = nl_nest(o, IFLA_INET_CONF);
    nl_put_u32(o, IPV4_DEVCONF_ARP_IGNORE, 1);
    nl_put_u32(o, IPV4_DEVCONF_ARP_ANNOUNCE, 2);
    nl_unnest(o, conf);
    nl_unnest(o, inet);
    nl_unnest(o, spec);
    nl_end(o);
}

bool nl_next(struct span *rest, struct nl_in *out)
{
    struct nlmsghdr h;
    int32_t error;

    if (rest->n < sizeof h)
        return false;
    memcpy(&h, rest->p, sizeof h);
    if (h.nlmsg_len < sizeof h || h.nlmsg_len > rest->n)
        return false;
    *out = (struct nl_in){.type = h.nlmsg_type,
                          .seq = h.nlmsg_seq,
                          .payload = span_of(rest->p + sizeof h, h.nlmsg_len - sizeof h)};
    if (h.nlmsg_type == NLMSG_ERROR) {
        if (out->payload.n < sizeof error)
            return false;
        memcpy(&error, out->payload.p, sizeof error);
        if (error > 0 || error < -4095)
            return false;
        out->error = error;
    }
    size_t n = aligned(h.nlmsg_len);
    *rest = span_skip(*rest, n < rest->n ? n : rest->n);
    return true;
}

/* Takes the next attribute off `rest`. */
static bool next_attribute(struct span *rest, unsigned *type, struct span *value)
{
    struct nlattr a;
    if (rest->n < sizeof a)
        return false;
    memcpy(&a, rest->p, sizeof a);
    if (a.nla_len < sizeof a || a.nla_len > rest->n)
        return false;
    *type = a.nla_type & NLA_TYPE_MASK;
    *value = span_of(rest->p + sizeof a, a.nla_len - sizeof a);
    size_t n = aligned(a.nla_len);
    *rest = span_skip(*rest, n < rest->n ? n : rest->n);
    return true;
}

static int set_ip(int family, struct span value, struct ip *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (value.n != (family == AF_INET ? 4 : 16))
        return -EBADMSG;
    memcpy(out->b, mapped, sizeof mapped);
    memcpy(out->b + (16 - value.n), value.p, value.n);
    return 0;
}

int nl_parse_address(const struct nl_in *m, struct nl_address *out)
{
    struct ifaddrmsg h;
    struct span rest = m->payload, value, found = {NULL, 0};
    unsigned type;
    uint32_t flags;
    bool local = false;

    if (rest.n < sizeof h || (m->type != RTM_NEWADDR && m->type != RTM_DELADDR))
        return -EBADMSG;
    memcpy(&h, rest.p, sizeof h);
    if (h.ifa_family != AF_INET && h.ifa_family != AF_INET6)
        return -EAFNOSUPPORT;
    *out = (struct nl_address){.ifindex = h.ifa_index, .gone = m->type == RTM_DELADDR};
    flags = h.ifa_flags;
    rest = span_skip(rest, aligned(sizeof h));
    while (next_attribute(&rest, &type, &value)) {
        /* Where both are there, IFA_ADDRESS is the other end of a point-to-point link. */
        if (type == IFA_LOCAL || (type == IFA_ADDRESS && !local)) {
            found = value;
            local = type == IFA_LOCAL;
        } else if (type == IFA_FLAGS && value.n == sizeof flags) {
            memcpy(&flags, value.p, sizeof flags);
        } else if (type == IFA_PROTO && value.n == 1) {
            out->tag = value.p[0];
        }
    }
    out->tentative = (flags & IFA_F_TENTATIVE) != 0;
    return set_ip(h.ifa_family, found, &out->ip);
}
