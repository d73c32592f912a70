/* endpoint - `host:port` texts as socket addresses: 127.0.0.1:25, [::1]:25, *:25 for any. */
#ifndef BENCH_ENDPOINT_H
#define BENCH_ENDPOINT_H

#include "base/net.h"

enum { ENDPOINT_TEXT = IP_TEXT + 9 };

struct endpoint {
    struct ip ip;
    uint16_t port;
};

/* No names are resolved: a generator must not depend on a DNS server. -EINVAL otherwise. */
NODISCARD int endpoint_parse(struct span s, struct endpoint *out);
void endpoint_format(const struct endpoint *e, char out[ENDPOINT_TEXT]);
/*
 * A listening, non-blocking, close-on-exec TCP socket, or -errno. Port 0 lets the kernel choose,
 * and e->port tells which. rcvbuf_bytes 0 leaves the kernel's preset.
 */
NODISCARD int endpoint_listen(struct endpoint *e, int rcvbuf_bytes);

#endif
