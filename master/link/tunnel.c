/* tunnel - see tunnel.h. */
#include "master/link/tunnel.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

enum { HALF_BYTES = 64 << 10, ROUNDS = 16, NAMING_BYTES = 8 };
static const char naming_word[] = "mochila"; /* then the channel */
static_assert(sizeof naming_word == NAMING_BYTES, "seven letters, and a place for the channel");

struct tunnel_half { /* what was read and is not yet written: from..to */
    size_t from, to;
    uint8_t bytes[HALF_BYTES];
};

static struct tunnel *create(struct trust *trust, int fd, bool dialled)
{
    struct tunnel *t = calloc(1, sizeof *t);
    if (t == NULL || fd < 0)
        goto fail;
    *t = (struct tunnel){.dialled = dialled, .trust = trust, .tcp_fd = fd, .ipc_fd = -1};
    t->in = calloc(1, sizeof *t->in);
    t->out = calloc(1, sizeof *t->out);
    t->ssl = trust_end(trust, fd, dialled);
    if (t->in != NULL && t->out != NULL && t->ssl != NULL)
        return t;
    fd = -1; /* tunnel_destroy closes it */
fail:
    if (fd >= 0)
        close(fd);
    if (t != NULL)
        tunnel_destroy(&t);
    return NULL;
}

static void set_tcp_options(int fd)
{
    static const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

struct tunnel *tunnel_accept(struct trust *trust, int fd, uint64_t now_ms)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    struct tunnel *t = create(trust, fd, false);
    if (t == NULL)
        return NULL;
    set_tcp_options(fd);
    if (getpeername(fd, (struct sockaddr *)&ss, &n) == 0)
        ip_from_sockaddr(&ss, &t->remote, &t->remote_port);
    t->state = TUNNEL_SHAKING;
    t->tcp_events = POLLIN;
    t->deadline_ms = now_ms + TUNNEL_GREET_MS;
    return t;
}

static int bind_source(int fd, const struct ip *source)
{
    static const struct ip none;
    static const int on = 1;
    struct sockaddr_storage ss;
    socklen_t n;
    if (ip_eq(source, &none))
        return 0;
    ip_to_sockaddr(source, 0, &ss, &n);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (struct sockaddr *)&ss, n) < 0 ? -errno : 0;
}

struct tunnel *tunnel_dial(struct trust *trust, const struct tunnel_target *to, uint64_t now_ms,
                           struct text *why)
{
    struct sockaddr_storage ss;
    socklen_t n;
    ip_to_sockaddr(&to->address, to->port, &ss, &n);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : bind_source(fd, &to->source);
    if (r < 0) {
        text_fmt(why, "cluster.source cannot be used: %s", strerror(-r));
    } else if (connect(fd, (struct sockaddr *)&ss, n) < 0 && errno != EINPROGRESS) {
        r = -errno;
        text_fmt(why, "cannot connect: %s", strerror(-r));
    }
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct tunnel *t = create(trust, fd, true);
    if (t == NULL) {
        text_puts(why, "no memory");
        return NULL;
    }
    set_tcp_options(fd);
    t->state = TUNNEL_CONNECTING;
    t->tcp_events = POLLOUT;
    t->remote = to->address;
    t->remote_port = to->port;
    t->channel = to->channel;
    memcpy(t->peer, to->peer, sizeof t->peer);
    memcpy(t->naming, naming_word, NAMING_BYTES - 1);
    t->naming[NAMING_BYTES - 1] = (uint8_t)('0' + to->channel);
    t->deadline_ms = now_ms + TUNNEL_CONNECT_MS;
    return t;
}

void tunnel_destroy(struct tunnel **tunnel)
{
    struct tunnel *t = *tunnel;
    if (t == NULL)
        return;
    trust_end_free(&t->ssl);
    if (t->tcp_fd >= 0)
        close(t->tcp_fd);
    if (t->ipc_fd >= 0)
        close(t->ipc_fd);
    free(t->in);
    free(t->out);
    free(t);
    *tunnel = NULL;
}

int tunnel_attach(struct tunnel *t, const char *ipc_name)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    MUST(t->state == TUNNEL_WAITING);
    if (strlen(ipc_name) >= sizeof un.sun_path)
        return -ENAMETOOLONG;
    memcpy(un.sun_path, ipc_name, strlen(ipc_name));
    t->ipc_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->ipc_fd < 0 || connect(t->ipc_fd, (struct sockaddr *)&un, sizeof un) < 0)
        return -errno;
    t->state = TUNNEL_CARRYING;
    t->again = true;
    return 0;
}

unsigned tunnel_polls(const struct tunnel *t, struct pollfd out[TUNNEL_POLLS])
{
    unsigned n = 0;
    /* Without events poll would still tell of a hang-up, again and again. */
    if (t->tcp_events != 0)
        out[n++] = (struct pollfd){.fd = t->tcp_fd, .events = t->tcp_events};
    if (t->ipc_fd >= 0 && t->ipc_events != 0)
        out[n++] = (struct pollfd){.fd = t->ipc_fd, .events = t->ipc_events};
    return n;
}

static enum tunnel_news lost(struct tunnel *t, const char *why)
{
    if (t->why[0] == '\0')
        (void)snprintf(t->why, sizeof t->why, "%s", why);
    return TUNNEL_LOST;
}

/* After an SSL call that did not succeed: waits (0), or lost with the reason (-1). */
static int ssl_waits(struct tunnel *t, int r)
{
    int error = SSL_get_error(t->ssl, r);
    if (error == SSL_ERROR_WANT_READ) {
        t->tcp_events |= POLLIN;
        return 0;
    }
    if (error == SSL_ERROR_WANT_WRITE) {
        t->tcp_events |= POLLOUT;
        return 0;
    }
    struct text why = text_of(t->why, sizeof t->why);
    trust_explain(t->ssl, error, &why);
    return -1;
}

/* The states: each does what it can; the state stays, or the next one is entered. */
static enum tunnel_news connecting(struct tunnel *t, uint64_t now_ms)
{
    struct sockaddr_storage ss;
    int error = 0;
    socklen_t n = sizeof error;
    struct pollfd p = {.fd = t->tcp_fd, .events = POLLOUT};

    if (poll(&p, 1, 0) == 0) {
        t->tcp_events = POLLOUT;
        return TUNNEL_NOTHING;
    }
    if (getsockopt(t->tcp_fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    if (error != 0)
        return lost(t, strerror(error));
    n = sizeof ss;
    uint16_t port;
    if (getsockname(t->tcp_fd, (struct sockaddr *)&ss, &n) == 0)
        ip_from_sockaddr(&ss, &t->local, &port);
    t->deadline_ms = now_ms + TUNNEL_GREET_MS;
    t->state = TUNNEL_SHAKING;
    t->again = true;
    return TUNNEL_NOTHING;
}

static enum tunnel_news shaking(struct tunnel *t, uint64_t now_ms)
{
    char name[LIMIT_NAME_BYTES + 1];
    char reason[TRUST_WHY_BYTES];
    struct text why = text_of(reason, sizeof reason);

    (void)now_ms;
    t->tcp_events = 0;
    int r = SSL_do_handshake(t->ssl);
    if (r != 1)
        return ssl_waits(t, r) == 0 ? TUNNEL_NOTHING : TUNNEL_LOST;
    if (trust_identify(t->trust, t->ssl, name, &why) < 0)
        return lost(t, reason);
    if (t->dialled && strcmp(name, t->peer) != 0) {
        text_fmt(&why, "it is node %s, not %s", name, t->peer);
        return lost(t, reason);
    }
    memcpy(t->peer, name, sizeof t->peer);
    t->state = TUNNEL_NAMING;
    t->again = true;
    return TUNNEL_NOTHING;
}

static enum tunnel_news naming(struct tunnel *t, uint64_t now_ms)
{
    int left = (int)(NAMING_BYTES - t->named);
    (void)now_ms;
    t->tcp_events = 0;
    int r = t->dialled ? SSL_write(t->ssl, t->naming + t->named, left)
                       : SSL_read(t->ssl, t->naming + t->named, left);
    if (r <= 0)
        return ssl_waits(t, r) == 0 ? TUNNEL_NOTHING : TUNNEL_LOST;
    t->named += (unsigned)r;
    if (t->named < NAMING_BYTES) {
        t->again = true;
        return TUNNEL_NOTHING;
    }
    unsigned channel = (unsigned)t->naming[NAMING_BYTES - 1] - '0';
    if (memcmp(t->naming, naming_word, NAMING_BYTES - 1) != 0 || channel >= LINK_CHANNEL_COUNT)
        return lost(t, "it asks for a channel that this release does not have");
    t->channel = (enum link_channel)channel;
    t->state = TUNNEL_WAITING;
    t->tcp_events = 0;
    return TUNNEL_KNOWN;
}

static enum tunnel_news waiting(struct tunnel *t, uint64_t now_ms)
{
    (void)t;
    (void)now_ms;
    return TUNNEL_NOTHING;
}

/* One step from TLS to ipc: 1 moved something, 0 waits, -1 lost. */
static int step_in(struct tunnel *t)
{
    struct tunnel_half *h = t->in;
    if (h->from < h->to) {
        ssize_t n = send(t->ipc_fd, h->bytes + h->from, h->to - h->from, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            t->ipc_events |= POLLOUT;
            return 0;
        }
        if (n <= 0) {
            (void)lost(t, "its frames are not taken");
            return -1;
        }
        h->from += (size_t)n;
        return 1;
    }
    int r = SSL_read(t->ssl, h->bytes, sizeof h->bytes);
    if (r <= 0)
        return ssl_waits(t, r);
    h->from = 0;
    h->to = (size_t)r;
    return 1;
}

/* One step from ipc to TLS, likewise. */
static int step_out(struct tunnel *t)
{
    struct tunnel_half *h = t->out;
    if (h->from < h->to) {
        int r = SSL_write(t->ssl, h->bytes + h->from, (int)(h->to - h->from));
        if (r <= 0)
            return ssl_waits(t, r);
        h->from += (size_t)r;
        return 1;
    }
    ssize_t n = recv(t->ipc_fd, h->bytes, sizeof h->bytes, 0);
    if (n < 0 && errno == EAGAIN) {
        t->ipc_events |= POLLIN;
        return 0;
    }
    if (n <= 0) {
        (void)lost(t, "its frames are refused");
        return -1;
    }
    h->from = 0;
    h->to = (size_t)n;
    return 1;
}

static enum tunnel_news carrying(struct tunnel *t, uint64_t now_ms)
{
    int in = 1, out = 1;
    (void)now_ms;
    t->tcp_events = t->ipc_events = 0;
    for (unsigned i = 0; i < ROUNDS && (in > 0 || out > 0); i++) {
        if (in > 0)
            in = step_in(t);
        if (out > 0)
            out = step_out(t);
        if (in < 0 || out < 0)
            return TUNNEL_LOST;
    }
    t->again = in > 0 || out > 0;
    return TUNNEL_NOTHING;
}

static enum tunnel_news (*const states[TUNNEL_STATE_COUNT])(struct tunnel *t, uint64_t now_ms) = {
    [TUNNEL_CONNECTING] = connecting, [TUNNEL_SHAKING] = shaking,   [TUNNEL_NAMING] = naming,
    [TUNNEL_WAITING] = waiting,       [TUNNEL_CARRYING] = carrying,
};
static const char *const late[TUNNEL_STATE_COUNT] = {
    [TUNNEL_CONNECTING] = "no answer to the connection",
    [TUNNEL_SHAKING] = "no TLS handshake in time",
    [TUNNEL_NAMING] = "no channel was asked for in time",
};

enum tunnel_news tunnel_run(struct tunnel *t, uint64_t now_ms)
{
    enum tunnel_news news;
    do {
        enum tunnel_state before = t->state;
        t->again = false;
        news = states[t->state](t, now_ms);
        if (t->state == TUNNEL_CARRYING || before == t->state)
            break;
    } while (news == TUNNEL_NOTHING && t->again);
    if (news == TUNNEL_NOTHING && late[t->state] != NULL && now_ms >= t->deadline_ms)
        return lost(t, late[t->state]);
    return news;
}
