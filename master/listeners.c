/* listeners - see listeners.h. */
#include "master/listeners.h"

#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

enum { PLACE_TEXT = IP_TEXT + 10 };

static void format_place(const struct ip *a, uint16_t port, char out[PLACE_TEXT])
{
    char text[IP_TEXT];
    ip_format(a, text);
    snprintf(out, PLACE_TEXT, ip_is_v4(a) ? "%s:%u" : "[%s]:%u", text, port);
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int set_options(int fd, bool v6, int32_t core)
{
    int rc = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0)
        rc = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (rc == 0)
        rc = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0 && v6)
        rc = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    /* A wish: kernels before 6.2 choose among the sockets by hash alone. */
    if (rc == 0 && core >= 0)
        (void)set_option(fd, SOL_SOCKET, SO_INCOMING_CPU, core);
    return rc;
}

static int bind_one(const struct ip *address, uint16_t port, int32_t core)
{
    struct sockaddr_storage ss;
    socklen_t n;
    bool v6 = !ip_is_v4(address);
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    ip_to_sockaddr(address, port, &ss, &n);
    int rc = set_options(fd, v6, core);
    if (rc == 0 && bind(fd, (struct sockaddr *)&ss, n) < 0)
        rc = -errno;
    if (rc == 0 && listen(fd, LISTENERS_BACKLOG) < 0)
        rc = -errno;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static const char *remedy(int error, uint16_t port)
{
    switch (error) {
    case EADDRINUSE:
        return ": another program listens there (ss -ltnp shows which)";
    case EACCES:
        return port < 1024 ? ": ports below 1024 need root or CAP_NET_BIND_SERVICE" : "";
    case EADDRNOTAVAIL:
        return ": no interface of this host has the address (ip address shows them)";
    default:
        return "";
    }
}

void listeners_init(struct listeners *l, uint32_t workers)
{
    MUST(workers <= LIMIT_WORKERS);
    memset(l, 0, sizeof *l);
    l->workers = workers;
    for (uint32_t w = 0; w < LIMIT_WORKERS; w++)
        l->cores[w] = -1;
}

static struct listeners_entry *find(struct listeners *l, const struct ip *address, uint16_t port)
{
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->entries[i].port == port && ip_eq(&l->entries[i].address, address))
            return &l->entries[i];
    }
    return NULL;
}

static void close_entry(struct listeners_entry *e)
{
    for (uint32_t w = 0; w < LIMIT_WORKERS; w++) {
        if (e->fds[w] >= 0)
            close(e->fds[w]);
        e->fds[w] = -1;
    }
}

static int open_entry(struct listeners *l, const struct config_listener *c, struct text *errors)
{
    char place[PLACE_TEXT];
    MUST(l->count < ARRAY_COUNT(l->entries));
    struct listeners_entry *e = &l->entries[l->count];
    *e = (struct listeners_entry){.address = c->address, .port = c->port};
    for (uint32_t w = 0; w < LIMIT_WORKERS; w++)
        e->fds[w] = -1;
    for (uint32_t w = 0; w < l->workers; w++) {
        e->fds[w] = bind_one(&c->address, c->port, l->cores[w]);
        if (e->fds[w] < 0) {
            int rc = e->fds[w];
            format_place(&c->address, c->port, place);
            text_fmt(errors, "listen: %s: %s%s\n", place, strerror(-rc), remedy(-rc, c->port));
            close_entry(e);
            return rc;
        }
    }
    l->count++;
    return 0;
}

int listeners_open(struct listeners *l, const struct config *c, struct text *errors)
{
    uint32_t before = l->count;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        const struct config_listener *wanted = &c->listeners[i];
        if (find(l, &wanted->address, wanted->port) != NULL)
            continue;
        int rc = open_entry(l, wanted, errors);
        if (rc < 0) {
            while (l->count > before)
                close_entry(&l->entries[--l->count]);
            return rc;
        }
    }
    return 0;
}

void listeners_keep(struct listeners *l, const struct config *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        bool wanted = false;
        for (uint32_t j = 0; j < c->listener_count && !wanted; j++)
            wanted = c->listeners[j].port == l->entries[i].port &&
                     ip_eq(&c->listeners[j].address, &l->entries[i].address);
        if (wanted)
            l->entries[kept++] = l->entries[i];
        else
            close_entry(&l->entries[i]);
    }
    l->count = kept;
}

void listeners_close_worker(struct listeners *l, uint32_t worker)
{
    MUST(worker < l->workers);
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->entries[i].fds[worker] >= 0)
            close(l->entries[i].fds[worker]);
        l->entries[i].fds[worker] = -1;
    }
}

void listeners_reopen_worker(struct listeners *l, uint32_t worker)
{
    char place[PLACE_TEXT];
    MUST(worker < l->workers);
    for (uint32_t i = 0; i < l->count; i++) {
        struct listeners_entry *e = &l->entries[i];
        if (e->fds[worker] >= 0)
            continue;
        int fd = bind_one(&e->address, e->port, l->cores[worker]);
        e->fds[worker] = fd < 0 ? -1 : fd;
        if (fd < 0) {
            format_place(&e->address, e->port, place);
            log_err("listen: %s: %s%s: worker %u goes without it", place, strerror(-fd),
                    remedy(-fd, e->port), worker);
        }
    }
}

int listeners_fd(const struct listeners *l, const struct config_listener *c, uint32_t worker)
{
    MUST(worker < l->workers);
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->entries[i].port == c->port && ip_eq(&l->entries[i].address, &c->address))
            return l->entries[i].fds[worker];
    }
    return -1;
}

void listeners_fini(struct listeners *l)
{
    while (l->count > 0)
        close_entry(&l->entries[--l->count]);
}
