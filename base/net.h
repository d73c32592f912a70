/*
 * net - IP addresses, networks and host:port texts, for IPv4 and IPv6 alike.
 *
 * An address is 16 bytes, IPv4 in its mapped form, so that comparing and prefix matching is one
 * piece of code.
 */
#ifndef BASE_NET_H
#define BASE_NET_H

#include "base/span.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct ip {
    uint8_t b[16];
};
struct ip_net {
    struct ip ip;
    uint8_t bits; /* 0..128, on the mapped form: an IPv4 /8 is 104 */
};
enum { IP_TEXT = 46 };

bool ip_is_v4(const struct ip *a);
static inline bool ip_eq(const struct ip *a, const struct ip *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}
/* Text without brackets, NUL-terminated. */
void ip_format(const struct ip *a, char out[IP_TEXT]);
/* A bare IPv4 or IPv6 address; -EINVAL otherwise. */
NODISCARD int ip_parse(struct span s, struct ip *out);
/* address or address/bits; host bits must be zero. -EINVAL otherwise. */
NODISCARD int ip_net_parse(struct span s, struct ip_net *out);
/* An IPv4 address is in no network of IPv6, not even in ::/0. */
bool ip_in_net(const struct ip *a, const struct ip_net *n);
void ip_to_sockaddr(const struct ip *a, uint16_t port, struct sockaddr_storage *out, socklen_t *n);
void ip_from_sockaddr(const struct sockaddr_storage *ss, struct ip *out, uint16_t *port);

#endif
