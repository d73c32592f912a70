/*
 * Sockets of outgoing connections: options, interface, source address and source port.
 *
 * Without a slice the kernel chooses the port at the connect, when the destination is known. With
 * one we choose: SO_REUSEADDR lets sockets share a port that goes to different destinations, so
 * that a taken one shows at the bind (another socket without the option, a listener) or only at the
 * connect (the same destination, open or in TIME_WAIT). Both go on with the next port, a bounded
 * number of times. IP_LOCAL_PORT_RANGE would do all this, but needs Linux 6.3.
 */
#include "worker/io/conn_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

enum {
    PORT_TRIES_MAX = 64,
    /* From one port to the next: taken ports lie in runs, and a stride leaves a run at once. A
       prime, so that every port of a slice is reached. */
    PORT_STRIDE = 7919,
};
static_assert(PORT_SLICE_COUNT % PORT_STRIDE != 0, "the stride reaches every port");

static uint16_t next_port(struct conn_ports *p)
{
    uint32_t count = p->slice.high - p->slice.low + 1u;
    uint16_t port = p->next;
    p->next = (uint16_t)(p->slice.low + (port - p->slice.low + PORT_STRIDE) % count);
    p->left--;
    return port;
}

static int bind_in_slice(int fd, const struct ip *from, struct conn_ports *p)
{
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    while (p->left > 0) {
        struct sockaddr_storage ss;
        socklen_t n;
        ip_to_sockaddr(from, next_port(p), &ss, &n);
        if (bind(fd, (const struct sockaddr *)&ss, n) == 0)
            return 0;
        if (errno != EADDRINUSE)
            return -errno;
    }
    return -EADDRNOTAVAIL;
}

static int bind_anywhere(int fd, const struct ip *from)
{
    const int on = 1;
    struct sockaddr_storage ss;
    socklen_t n;
    ip_to_sockaddr(from, 0, &ss, &n);
    /* The port is chosen at the connect, when the destination is known: 64 K per destination. */
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (const struct sockaddr *)&ss, n) < 0 ? -errno : 0;
}

int conn_source_set(struct conn *c, const struct conn_target *t)
{
    const int on = 1;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (t->device != NULL && setsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, t->device,
                                        (socklen_t)strlen(t->device)) < 0)
        return -errno;
    if (!t->bind_source)
        return 0;
    if (ip_is_v4(&t->from) != ip_is_v4(&t->to))
        return -EAFNOSUPPORT;
    if (t->from_ports.low == 0)
        return bind_anywhere(c->fd, &t->from);
    MUST(t->from_ports.low <= t->from_first);
    MUST(t->from_first <= t->from_ports.high);
    c->ports = (struct conn_ports){t->from_ports, t->from_first, PORT_TRIES_MAX};
    return bind_in_slice(c->fd, &t->from, &c->ports);
}

/* A socket is bound once: the next port needs another one, with what the first one knows. */
bool conn_source_next(struct conn *c)
{
    const int on = 1;
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    char device[16] = "";
    socklen_t device_bytes = sizeof device;
    struct ip from;
    uint16_t port;
    if (c->ports.left == 0 || getsockname(c->fd, (struct sockaddr *)&ss, &n) < 0)
        return false;
    ip_from_sockaddr(&ss, &from, &port);
    if (getsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, device, &device_bytes) < 0)
        return false;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bool good = device_bytes == 0 ||
                setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, device_bytes) == 0;
    good = good && bind_in_slice(fd, &from, &c->ports) == 0;
    /* Either way one descriptor is left, and nothing is in flight on the other. */
    close(good ? c->fd : fd);
    if (good)
        c->fd = fd;
    return good;
}
