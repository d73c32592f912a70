/* arp_frame - see arp_frame.h. */
#include "master/netd/arp_frame.h"

#include <stdio.h>

enum {
    ETHERNET_BYTES = 14,
    ETHERTYPE_ARP_NUMBER = 0x0806,
    ETHERTYPE_IPV6_NUMBER = 0x86dd,
    ARP_REQUEST = 1,
    ARP_REPLY = 2,
    ARP_BYTES = 28,
    IPV6_BYTES = 40,
    ND_BYTES = 24, /* of a solicitation or an advertisement, without options */
    ND_OPTION_BYTES = 8,
    ND_SOLICIT = 135,
    ND_ADVERTISE = 136,
    ND_OVERRIDE = 0x20000000,
    OPTION_TARGET_MAC = 2,
    NEXT_ICMPV6 = 58,
    HOPS = 255, /* RFC 4861 7.1: a smaller one has crossed a router, and is not believed */
};

static void put_ethernet(struct writer *w, const uint8_t *to, const struct mac *from, unsigned type)
{
    put_bytes(w, span_of(to, MAC_BYTES));
    put_bytes(w, span_of(from->b, MAC_BYTES));
    put_u8(w, (uint8_t)(type >> 8));
    put_u8(w, (uint8_t)type);
}

static void put_be16(struct writer *w, unsigned v)
{
    put_u8(w, (uint8_t)(v >> 8));
    put_u8(w, (uint8_t)v);
}

static void put_be32(struct writer *w, uint32_t v)
{
    put_be16(w, v >> 16);
    put_be16(w, v & 0xffff);
}

static void write_arp(enum arp_kind kind, const struct ip *ip, const struct mac *mac,
                      struct writer *w)
{
    static const uint8_t everybody[MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t nobody[MAC_BYTES];

    put_ethernet(w, everybody, mac, ETHERTYPE_ARP_NUMBER);
    put_be16(w, 1); /* Ethernet */
    put_be16(w, 0x0800);
    put_u8(w, MAC_BYTES);
    put_u8(w, 4);
    put_be16(w, kind == ARP_ANNOUNCE_ANSWER ? ARP_REPLY : ARP_REQUEST);
    put_bytes(w, span_of(mac->b, MAC_BYTES));
    put_bytes(w, kind == ARP_PROBE ? span_of(nobody, 4) : span_of(ip->b + 12, 4));
    put_bytes(w, kind == ARP_ANNOUNCE_ANSWER ? span_of(mac->b, MAC_BYTES)
                                             : span_of(nobody, MAC_BYTES));
    put_bytes(w, span_of(ip->b + 12, 4));
}

static uint32_t sum16(struct span s, uint32_t sum)
{
    for (size_t i = 0; i + 1 < s.n; i += 2)
        sum += (uint32_t)s.p[i] << 8 | s.p[i + 1];
    if (s.n % 2 != 0)
        sum += (uint32_t)s.p[s.n - 1] << 8;
    return sum;
}

/* The checksum of an ICMPv6 message with its pseudo header; over one that carries its own: 0. */
static unsigned checksum(const uint8_t *ipv6, struct span icmp)
{
    uint32_t sum = sum16(span_of(ipv6 + 8, 32), (uint32_t)icmp.n + NEXT_ICMPV6);
    sum = sum16(icmp, sum);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* ff02::1 for everybody; a probe goes to the solicited-node group of the address. */
static struct ip group_of(enum arp_kind kind, const struct ip *ip)
{
    struct ip to = {{0xff, 0x02, [15] = 1}};
    if (kind == ARP_PROBE) {
        to.b[11] = 1;
        to.b[12] = 0xff;
        memcpy(to.b + 13, ip->b + 13, 3);
    }
    return to;
}

static void write_nd(enum arp_kind kind, const struct ip *ip, const struct mac *mac,
                     struct writer *w)
{
    static const struct ip nobody;
    bool probe = kind == ARP_PROBE;
    struct ip to = group_of(kind, ip);
    uint8_t to_mac[MAC_BYTES] = {0x33, 0x33, to.b[12], to.b[13], to.b[14], to.b[15]};
    /* A solicitation from :: must carry no option (RFC 4861 4.3). */
    unsigned length = ND_BYTES + (probe ? 0 : ND_OPTION_BYTES);

    put_ethernet(w, to_mac, mac, ETHERTYPE_IPV6_NUMBER);
    size_t ipv6 = w->n;
    put_be32(w, 0x60000000);
    put_be16(w, length);
    put_u8(w, NEXT_ICMPV6);
    put_u8(w, HOPS);
    put_bytes(w, span_of(probe ? nobody.b : ip->b, 16));
    put_bytes(w, span_of(to.b, 16));
    size_t icmp = w->n;
    put_u8(w, probe ? ND_SOLICIT : ND_ADVERTISE);
    put_u8(w, 0);
    put_be16(w, 0);
    put_be32(w, probe ? 0 : ND_OVERRIDE);
    put_bytes(w, span_of(ip->b, 16));
    if (!probe) {
        put_u8(w, OPTION_TARGET_MAC);
        put_u8(w, 1);
        put_bytes(w, span_of(mac->b, MAC_BYTES));
    }
    unsigned sum = checksum(w->p + ipv6, span_of(w->p + icmp, length));
    w->p[icmp + 2] = (uint8_t)(sum >> 8);
    w->p[icmp + 3] = (uint8_t)sum;
}

size_t arp_frame_write(enum arp_kind kind, const struct ip *ip, const struct mac *mac, uint8_t *out)
{
    struct writer w = writer_of(out, ND_FRAME_BYTES);
    if (ip_is_v4(ip))
        write_arp(kind, ip, mac, &w);
    else
        write_nd(kind, ip, mac, &w);
    MUST(!w.bad);
    return w.n;
}

static unsigned be16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static bool read_arp(struct span s, struct arp_claim *out)
{
    static const uint8_t header[6] = {0, 1, 8, 0, MAC_BYTES, 4};
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t nobody[4];

    if (s.n < ARP_BYTES || memcmp(s.p, header, sizeof header) != 0)
        return false;
    unsigned operation = be16(s.p + 6);
    if (operation != ARP_REQUEST && operation != ARP_REPLY)
        return false;
    memcpy(out->mac.b, s.p + 8, MAC_BYTES);
    memcpy(out->ip.b, mapped, sizeof mapped);
    memcpy(out->ip.b + 12, s.p + 14, 4);
    return memcmp(s.p + 14, nobody, 4) != 0;
}

/* The target's link-layer address among the options; the frame's sender where there is none. */
static void take_target_mac(struct span options, struct mac *out)
{
    while (options.n >= ND_OPTION_BYTES && options.p[1] != 0) {
        size_t n = (size_t)options.p[1] * 8;
        if (n > options.n)
            return;
        if (options.p[0] == OPTION_TARGET_MAC) {
            memcpy(out->b, options.p + 2, MAC_BYTES);
            return;
        }
        options = span_skip(options, n);
    }
}

static bool read_nd(struct span s, const uint8_t *sender, struct arp_claim *out)
{
    if (s.n < IPV6_BYTES + ND_BYTES || s.p[0] >> 4 != 6 || s.p[6] != NEXT_ICMPV6 || s.p[7] != HOPS)
        return false;
    size_t length = be16(s.p + 4);
    if (length < ND_BYTES || length > s.n - IPV6_BYTES)
        return false;
    struct span icmp = span_of(s.p + IPV6_BYTES, length);
    if (icmp.p[0] != ND_ADVERTISE || icmp.p[1] != 0 || checksum(s.p, icmp) != 0)
        return false;
    memcpy(out->ip.b, icmp.p + 8, 16);
    memcpy(out->mac.b, sender, MAC_BYTES);
    take_target_mac(span_skip(icmp, ND_BYTES), &out->mac);
    return true;
}

bool arp_frame_read(struct span frame, struct arp_claim *out)
{
    if (frame.n < ETHERNET_BYTES)
        return false;
    unsigned type = be16(frame.p + 12);
    struct span payload = span_skip(frame, ETHERNET_BYTES);
    if (type == ETHERTYPE_ARP_NUMBER)
        return read_arp(payload, out);
    if (type == ETHERTYPE_IPV6_NUMBER)
        return read_nd(payload, frame.p + MAC_BYTES, out);
    return false;
}

void mac_format(const struct mac *m, char out[MAC_TEXT])
{
    (void)snprintf(out, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", m->b[0], m->b[1], m->b[2],
                   m->b[3], m->b[4], m->b[5]);
}
