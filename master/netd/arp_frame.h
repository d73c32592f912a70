/*
 * arp_frame - Ethernet frames about who has an address: ARP (RFC 826, 5227) and neighbour discovery
 * (RFC 4861, 4862).
 *
 * Pure. Writes announcements and probes, reads who answers.
 * Never:  believes a frame whose checksum, hop limit or lengths are wrong.
 */
#ifndef NETD_ARP_FRAME_H
#define NETD_ARP_FRAME_H

#include "base/net.h"

#include <assert.h>

enum { MAC_BYTES = 6, MAC_TEXT = 18, ARP_FRAME_BYTES = 42, ND_FRAME_BYTES = 86 };
static_assert(ND_FRAME_BYTES > ARP_FRAME_BYTES, "a buffer of ND_FRAME_BYTES holds either");

struct mac {
    uint8_t b[MAC_BYTES];
};
enum arp_kind {
    ARP_ANNOUNCE_ASK,    /* IPv4: gratuitous request; IPv6: unsolicited advertisement, override */
    ARP_ANNOUNCE_ANSWER, /* IPv4: gratuitous reply; IPv6: the same advertisement */
    ARP_PROBE,           /* "who has ip?", from nobody: changes no one's table */
};

/* Who said so, and about which address. */
struct arp_claim {
    struct ip ip;
    struct mac mac;
};

/* Writes one frame from `mac` about ip into out[ND_FRAME_BYTES]; returns its bytes. */
size_t arp_frame_write(enum arp_kind kind, const struct ip *ip, const struct mac *mac,
                       uint8_t *out);
/*
 * Reads a whole Ethernet frame: true when its sender claims an address. A probe of another host
 * (ARP from 0.0.0.0) claims nothing.
 */
bool arp_frame_read(struct span frame, struct arp_claim *out);
void mac_format(const struct mac *m, char out[MAC_TEXT]);

static inline bool mac_eq(const struct mac *a, const struct mac *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

#endif
