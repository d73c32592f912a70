#include "bench/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 4096 };

static int split(struct span s, struct span *host, struct span *port)
{
    size_t colon = s.n;

    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return -EINVAL;
    *host = span_of(s.p, colon - 1);
    *port = span_of(s.p + colon, s.n - colon);
    if (host->p[0] != '[')
        return 0;
    if (host->n < 3 || host->p[host->n - 1] != ']')
        return -EINVAL;
    *host = span_of(host->p + 1, host->n - 2);
    return 0;
}

int endpoint_parse(struct span s, struct endpoint *out)
{
    struct span host;
    struct span port;
    uint64_t number;

    if (split(s, &host, &port) < 0 || span_to_u64(port, &number) < 0 || number > UINT16_MAX)
        return -EINVAL;
    out->port = (uint16_t)number;
    if (span_eq(host, span_str("localhost")))
        host = span_str("127.0.0.1");
    else if (span_eq(host, span_str("*")))
        host = span_str("::");
    return ip_parse(host, &out->ip);
}

void endpoint_format(const struct endpoint *e, char out[ENDPOINT_TEXT])
{
    char host[IP_TEXT];

    ip_format(&e->ip, host);
    snprintf(out, ENDPOINT_TEXT, ip_is_v4(&e->ip) ? "%s:%u" : "[%s]:%u", host, (unsigned)e->port);
}

static int bind_and_listen(int fd, struct endpoint *e, int rcvbuf_bytes)
{
    struct sockaddr_storage ss;
    socklen_t n;
    int on = 1;
    int off = 0;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (rcvbuf_bytes > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf_bytes, sizeof rcvbuf_bytes);
    ip_to_sockaddr(&e->ip, e->port, &ss, &n);
    if (ss.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&ss, n) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    n = sizeof ss;
    if (getsockname(fd, (struct sockaddr *)&ss, &n) < 0)
        return -errno;
    struct ip ignored;
    ip_from_sockaddr(&ss, &ignored, &e->port);
    return 0;
}

int endpoint_listen(struct endpoint *e, int rcvbuf_bytes)
{
    int family = ip_is_v4(&e->ip) ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    int rc = bind_and_listen(fd, e, rcvbuf_bytes);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}
