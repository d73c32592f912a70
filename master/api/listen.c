/* listen - see listen.h. */
#include "master/api/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64 };

/* What stands at the path: 0 = nothing, or a socket nobody answers at, which is removed. */
static int clear_path(const struct sockaddr_un *at, char *error, size_t cap)
{
    struct stat st;
    if (lstat(at->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode)) {
        (void)snprintf(error, cap, "api.socket: %s exists and is no socket: move it away",
                       at->sun_path);
        return -EEXIST;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    bool alive = connect(fd, (const struct sockaddr *)at, sizeof *at) == 0 || errno == EAGAIN;
    close(fd);
    if (alive) {
        (void)snprintf(error, cap,
                       "api.socket: another process answers at %s: is a node already "
                       "running with this run directory?",
                       at->sun_path);
        return -EADDRINUSE;
    }
    return unlink(at->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

int listen_unix(const char *path, char *error, size_t cap)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    error[0] = '\0';
    if (path[0] == '\0' || strlen(path) >= sizeof at.sun_path) {
        (void)snprintf(error, cap, "api.socket: \"%s\" is not a path of at most %zu bytes", path,
                       sizeof at.sun_path - 1);
        return -EINVAL;
    }
    memcpy(at.sun_path, path, strlen(path) + 1);
    int r = clear_path(&at, error, cap);
    int fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r == 0 && fd < 0)
        r = -errno;
    if (r == 0) {
        /* The mode must be right from the first moment on: chmod after bind would leave a gap. */
        mode_t before = umask(0117);
        if (bind(fd, (const struct sockaddr *)&at, sizeof at) < 0)
            r = -errno;
        (void)umask(before);
    }
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r == 0)
        return fd;
    if (error[0] == '\0')
        (void)snprintf(error, cap, "api.socket: cannot listen at %s: %s", path, strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}

int listen_parse(const char *where, struct ip *ip, uint16_t *port)
{
    const char *colon = strrchr(where, ':');
    uint64_t number;
    if (colon == NULL || span_to_u64(span_str(colon + 1), &number) < 0)
        return -EINVAL;
    if (number < 1 || number > UINT16_MAX)
        return -EINVAL;
    struct span host = span_of(where, (size_t)(colon - where));
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = span_of(host.p + 1, host.n - 2);
    *port = (uint16_t)number;
    return ip_parse(host, ip);
}

bool listen_is_loopback(const struct ip *ip)
{
    static const struct ip v6 = {.b = {[15] = 1}};
    return (ip_is_v4(ip) && ip->b[12] == 127) || ip_eq(ip, &v6);
}

int listen_tcp(const char *where, char *error, size_t cap)
{
    struct ip ip;
    uint16_t port;
    struct sockaddr_storage at;
    socklen_t n;
    int on = 1;

    if (listen_parse(where, &ip, &port) < 0) {
        (void)snprintf(error, cap, "api.listen: \"%s\" is not address:port", where);
        return -EINVAL;
    }
    if (!listen_is_loopback(&ip)) {
        (void)snprintf(error, cap,
                       "api.listen: %s is not a loopback address. The API has no "
                       "authentication: use 127.0.0.1 or [::1], and reach it from "
                       "elsewhere through ssh or a proxy that authenticates",
                       where);
        return -EPERM;
    }
    ip_to_sockaddr(&ip, port, &at, &n);
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              bind(fd, (struct sockaddr *)&at, n) == 0 && listen(fd, BACKLOG) == 0;
    if (ok)
        return fd;
    int r = -errno;
    (void)snprintf(error, cap, "api.listen: cannot listen at %s: %s", where, strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}
