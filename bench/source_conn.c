/*
 * One connection of the source below SMTP: connect, send, receive, back-off, slow drip.
 *
 * Invariant: a connection is in exactly one of: waiting (timer set), connecting, up, ended.
 */
#include "bench/source_private.h"

#include "base/text.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BACKOFF_MS_MIN = 50, BACKOFF_MS_MAX = 5000, DRIP_STEP_MS = 50 };

static void watch(struct source_conn *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};

    MUST(epoll_ctl(c->source->epoll, op, c->fd, &e) == 0);
}

/* ---- waiting for work ---- */

void source_conn_park(struct source_conn *c)
{
    struct source *s = c->source;

    if (c->is_parked)
        return;
    c->is_parked = true;
    if (s->parked == NULL) {
        c->prev = c;
        c->next = c;
        s->parked = c;
        return;
    }
    c->next = s->parked;
    c->prev = s->parked->prev;
    c->prev->next = c;
    c->next->prev = c;
}

void source_conn_unpark(struct source_conn *c)
{
    struct source *s = c->source;

    if (!c->is_parked)
        return;
    c->is_parked = false;
    c->prev->next = c->next;
    c->next->prev = c->prev;
    if (s->parked == c)
        s->parked = c->next == c ? NULL : c->next;
}

/* ---- down ---- */

static void close_fd(struct source_conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void leave(struct source_conn *c)
{
    struct source *s = c->source;

    source_conn_unpark(c);
    timer_clear(&s->timers, &c->timer);
    close_fd(c);
    if (c->link == LINK_CONNECTING)
        s->connecting--;
    if (c->link == LINK_UP)
        s->up--;
    c->link = LINK_ENDED;
    c->await = AWAIT_NOTHING;
    c->resync = false;
    c->want_out = false;
    c->in_bytes = 0;
    outbuf_reset(&c->out);
}

static void wait_ms(struct source_conn *c, uint64_t ms)
{
    if (c->source->is_ending)
        return;
    c->link = LINK_WAITING;
    timer_set(&c->source->timers, &c->timer, c->source->at_ns + ms * ns_per_ms);
}

void source_note_error(struct source *s, struct span text)
{
    struct text t = text_of(s->stats.first_error, sizeof s->stats.first_error);

    if (s->stats.first_error[0] == '\0')
        text_put_clean(&t, text);
}

void source_conn_lost(struct source_conn *c, const char *why)
{
    struct source *s = c->source;
    uint32_t doublings = c->failures < 7 ? c->failures : 7;
    uint64_t ms = (uint64_t)BACKOFF_MS_MIN << doublings;

    s->stats.connections_lost += c->link == LINK_UP;
    source_note_error(s, span_str(why));
    leave(c);
    source_dialog_settle_loss(c);
    c->failures++;
    ms = ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX;
    /* Spread by place, so that a thousand lost connections do not return at one moment. */
    wait_ms(c, ms + ms * (pool_index(&s->conns, c) % 64) / 64);
}

void source_conn_end(struct source_conn *c)
{
    leave(c);
    MUST(c->open == 0);
    wait_ms(c, 0);
}

/* ---- up ---- */

static int open_socket(struct source_conn *c)
{
    const struct source_options *o = c->source->options;
    int family = ip_is_v4(&o->to.ip) ? AF_INET : AF_INET6;
    int on = 1;

    c->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -errno;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (o->address_count == 0)
        return 0;
    struct sockaddr_storage ss;
    socklen_t n;
    ip_to_sockaddr(&o->addresses[c->address], 0, &ss, &n);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(c->fd, (struct sockaddr *)&ss, n) < 0 ? -errno : 0;
}

static int begin_connect(struct source_conn *c)
{
    const struct endpoint *to = &c->source->options->to;
    struct sockaddr_storage ss;
    socklen_t n;
    int rc = open_socket(c);

    if (rc < 0)
        return rc;
    ip_to_sockaddr(&to->ip, to->port, &ss, &n);
    if (connect(c->fd, (struct sockaddr *)&ss, n) < 0 && errno != EINPROGRESS)
        return -errno;
    return 0;
}

static void refused(struct source_conn *c, int error)
{
    c->source->stats.connect_errors++;
    source_conn_lost(c, strerror(error));
}

void source_conn_start(struct source_conn *c)
{
    struct source *s = c->source;

    MUST(c->open == 0);
    c->active_ns = s->at_ns;
    c->messages = 0;
    c->link = LINK_CONNECTING;
    s->connecting++;
    int rc = begin_connect(c);
    if (rc < 0) {
        refused(c, -rc);
        return;
    }
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    c->want_out = true;
}

static void connected(struct source_conn *c)
{
    struct source *s = c->source;
    int error = 0;
    socklen_t n = sizeof error;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error != 0) {
        refused(c, error);
        return;
    }
    s->connecting--;
    s->up++;
    if (s->up > s->stats.up_max)
        s->stats.up_max = s->up;
    s->stats.connections_opened++;
    c->link = LINK_UP;
    c->await = AWAIT_GREETING;
    c->drip_start_ns = s->at_ns;
    c->drip_bytes = 0;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->want_out = false;
}

/* ---- bytes out ---- */

/* Bytes that may go now, at least one a step; SIZE_MAX without --slow-drip. */
static size_t allowance(struct source_conn *c)
{
    double rate = c->source->options->drip;

    if (rate <= 0)
        return SIZE_MAX;
    double due = rate * (double)(c->source->at_ns - c->drip_start_ns) / 1e9 + 1;
    return due > (double)c->drip_bytes ? (size_t)(due - (double)c->drip_bytes) : 0;
}

static void stamp_ends(struct source_conn *c)
{
    uint64_t at_ns = 0;

    for (uint32_t i = 0; i < c->open; i++) {
        struct transaction *t = &c->ring[(c->head + i) % SOURCE_WINDOW_MAX];
        if (!t->end_queued || t->end_sent_ns != 0)
            continue;
        at_ns = at_ns != 0 ? at_ns : now_ns();
        t->end_sent_ns = at_ns;
    }
}

static void want_out(struct source_conn *c, bool want)
{
    if (c->want_out == want)
        return;
    c->want_out = want;
    watch(c, EPOLL_CTL_MOD, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void drip_later(struct source_conn *c)
{
    uint64_t step = DRIP_STEP_MS * ns_per_ms;

    if (!timer_is_set(&c->timer))
        timer_set(&c->source->timers, &c->timer, c->source->at_ns + step);
}

void source_conn_flush(struct source_conn *c)
{
    if (c->link != LINK_UP || outbuf_is_empty(&c->out))
        return;
    size_t limit = allowance(c);
    ssize_t sent = limit > 0 ? outbuf_send(&c->out, c->fd, limit) : 0;

    if (sent < 0) {
        source_conn_lost(c, strerror((int)-sent));
        return;
    }
    c->drip_bytes += (size_t)sent;
    if (sent > 0)
        c->active_ns = c->source->at_ns;
    if (outbuf_is_empty(&c->out)) {
        stamp_ends(c);
        want_out(c, false);
    } else if (limit != SIZE_MAX) {
        drip_later(c);
    } else {
        want_out(c, true);
    }
}

/* ---- bytes in ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One line without its end; false when it is no reply line. */
static bool take_line(struct source_conn *c, const char *line, size_t n)
{
    if (n < 3 || line[0] < '2' || line[0] > '5' || !is_digit(line[1]) || !is_digit(line[2]))
        return false;
    unsigned code = (unsigned)((line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0'));

    if (n > 3 && line[3] == '-')
        source_dialog_line(c, span_of(line, n));
    else
        source_dialog_reply(c, code, span_of(line, n));
    return true;
}

/* Handles every whole line; false when the connection is gone. */
static bool take_lines(struct source_conn *c)
{
    size_t used = 0;

    while (used < c->in_bytes) {
        const char *line = c->in + used;
        const char *end = memchr(line, '\n', c->in_bytes - used);
        if (end == NULL)
            break;
        size_t n = (size_t)(end - line);
        used += n + 1;
        if (n > 0 && line[n - 1] == '\r')
            n--;
        if (!take_line(c, line, n)) {
            c->source->stats.protocol_errors++;
            source_conn_lost(c, "not an SMTP reply");
        }
        if (c->link != LINK_UP)
            return false;
    }
    c->in_bytes -= (uint32_t)used;
    memmove(c->in, c->in + used, c->in_bytes);
    return true;
}

static void receive(struct source_conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_bytes, sizeof c->in - c->in_bytes, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (c->await == AWAIT_QUIT)
            source_conn_end(c);
        else
            source_conn_lost(c, n == 0 ? "closed by the server" : strerror(errno));
        return;
    }
    c->active_ns = c->source->at_ns;
    c->in_bytes += (uint32_t)n;
    if (!take_lines(c))
        return;
    if (c->in_bytes == sizeof c->in) {
        c->source->stats.protocol_errors++;
        source_conn_lost(c, "reply line too long");
        return;
    }
    source_conn_flush(c);
}

void source_conn_event(struct source_conn *c, uint32_t events)
{
    if (c->link == LINK_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
        connected(c);
    if (c->link != LINK_UP)
        return;
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
        receive(c);
    if ((events & EPOLLOUT) != 0 && c->link == LINK_UP) {
        source_conn_flush(c);
        source_dialog_pump(c);
        source_conn_flush(c);
    }
}

void source_conn_due(struct source_conn *c)
{
    if (c->link == LINK_WAITING)
        source_conn_start(c);
    else
        source_conn_flush(c);
}
