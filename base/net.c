/* net - IP addresses in 16 bytes; see net.h. */
#include "base/net.h"

#include <arpa/inet.h>
#include <errno.h>

enum { V4_PREFIX_BYTES = 12, V4_PREFIX_BITS = 96, IP_BITS = 128 };

static const uint8_t v4_prefix[V4_PREFIX_BYTES] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_is_v4(const struct ip *a)
{
    return memcmp(a->b, v4_prefix, sizeof v4_prefix) == 0;
}

void ip_format(const struct ip *a, char out[IP_TEXT])
{
    const char *done = ip_is_v4(a) ? inet_ntop(AF_INET, a->b + V4_PREFIX_BYTES, out, IP_TEXT)
                                   : inet_ntop(AF_INET6, a->b, out, IP_TEXT);
    MUST(done != NULL);
}

/* As ip_parse; *v4_text says whether it was written with dots alone. */
static int parse_text(struct span s, struct ip *out, bool *v4_text)
{
    char text[IP_TEXT];
    struct ip ip;

    if (s.n == 0 || s.n >= sizeof text || memchr(s.p, '\0', s.n) != NULL)
        return -EINVAL;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    memcpy(ip.b, v4_prefix, sizeof v4_prefix);
    *v4_text = inet_pton(AF_INET, text, ip.b + V4_PREFIX_BYTES) == 1;
    if (!*v4_text && inet_pton(AF_INET6, text, ip.b) != 1)
        return -EINVAL;
    *out = ip;
    return 0;
}

int ip_parse(struct span s, struct ip *out)
{
    bool v4_text;
    return parse_text(s, out, &v4_text);
}

/* True when no bit of `a` after the first `bits` is set. */
static bool host_bits_zero(const struct ip *a, unsigned bits)
{
    for (unsigned i = bits; i < IP_BITS; i++) {
        if (a->b[i / 8] >> (7 - i % 8) & 1)
            return false;
    }
    return true;
}

int ip_net_parse(struct span s, struct ip_net *out)
{
    const uint8_t *slash = s.n == 0 ? NULL : memchr(s.p, '/', s.n);
    struct span address = slash == NULL ? s : span_of(s.p, (size_t)(slash - s.p));
    struct ip ip;
    bool v4_text;
    uint64_t bits;

    if (parse_text(address, &ip, &v4_text) < 0)
        return -EINVAL;
    unsigned offset = v4_text ? V4_PREFIX_BITS : 0;
    if (slash == NULL) {
        bits = IP_BITS;
    } else {
        struct span digits = span_of(slash + 1, s.n - address.n - 1);
        if (digits.n > 3 || span_to_u64(digits, &bits) < 0 || bits > IP_BITS - offset)
            return -EINVAL;
        bits += offset;
    }
    if (!host_bits_zero(&ip, (unsigned)bits))
        return -EINVAL;
    *out = (struct ip_net){ip, (uint8_t)bits};
    return 0;
}

bool ip_in_net(const struct ip *a, const struct ip_net *n)
{
    MUST(n->bits <= IP_BITS);
    /* The mapped form is ours: who writes ::/0 means IPv6. */
    if (n->bits < V4_PREFIX_BITS && ip_is_v4(a))
        return false;
    size_t whole = n->bits / 8;
    if (memcmp(a->b, n->ip.b, whole) != 0)
        return false;
    unsigned rest = n->bits % 8;
    return rest == 0 || (a->b[whole] ^ n->ip.b[whole]) >> (8 - rest) == 0;
}

void ip_to_sockaddr(const struct ip *a, uint16_t port, struct sockaddr_storage *out, socklen_t *n)
{
    memset(out, 0, sizeof *out);
    if (ip_is_v4(a)) {
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&sin.sin_addr, a->b + V4_PREFIX_BYTES, sizeof sin.sin_addr);
        memcpy(out, &sin, sizeof sin);
        *n = sizeof sin;
    } else {
        struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&sin6.sin6_addr, a->b, sizeof sin6.sin6_addr);
        memcpy(out, &sin6, sizeof sin6);
        *n = sizeof sin6;
    }
}

void ip_from_sockaddr(const struct sockaddr_storage *ss, struct ip *out, uint16_t *port)
{
    uint16_t net_port = 0;

    memset(out, 0, sizeof *out);
    if (ss->ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, ss, sizeof sin);
        memcpy(out->b, v4_prefix, sizeof v4_prefix);
        memcpy(out->b + V4_PREFIX_BYTES, &sin.sin_addr, sizeof sin.sin_addr);
        net_port = sin.sin_port;
    } else if (ss->ss_family == AF_INET6) {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, ss, sizeof sin6);
        memcpy(out->b, &sin6.sin6_addr, sizeof sin6.sin6_addr);
        net_port = sin6.sin6_port;
    }
    if (port != NULL)
        *port = ntohs(net_port);
}
