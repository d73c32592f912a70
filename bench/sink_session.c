/*
 * One session of the sink below SMTP: receive, send, delays, slow reading.
 *
 * Invariants: what is armed in epoll follows from `pause` and from unsent output alone (rearm);
 * a session ends only in finish, from where nothing touches it any more.
 */
#include "bench/sink_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLOW_STEP_MS = 50 };

static const char *const end_words[END_COUNT] = {
    [END_OURS] = "ours", [END_EOF] = "eof", [END_RESET] = "reset"};

static void write_connection(const struct sink_session *c, const char *word)
{
    FILE *f = c->sink->record_connections;
    char ip[IP_TEXT];

    if (f == NULL)
        return;
    ip_format(&c->sink->peers.items[c->peer].ip, ip);
    fprintf(f, "%s %s %u %llu %llu\n", word, ip, c->port, (unsigned long long)now_ns(),
            (unsigned long long)c->messages);
}

/* Does the client have something open, or wait for an answer to it? */
static bool in_transaction(const struct sink_session *c)
{
    return c->held_reply != NULL || (c->state >= SESSION_MAIL && c->state <= SESSION_CHUNK);
}

static void finish(struct sink_session *c, enum session_end how)
{
    struct sink *s = c->sink;

    s->stats.reset += how == END_RESET;
    s->stats.cut += how != END_OURS && in_transaction(c);
    write_connection(c, end_words[how]);
    s->peers.items[c->peer].open--;
    s->stats.dropped += c->state == SESSION_DATA || c->state == SESSION_CHUNK;
    timer_clear(&s->timers, &c->timer);
    close(c->watch.fd);
    free(c->addresses);
    free(c->rest);
    pool_put(&s->sessions, c);
}

/* EPIPE is a RST after the client's FIN, for an answer that nobody reads any more. */
static enum session_end end_of_error(int error)
{
    return error == ECONNRESET ? END_RESET : END_EOF;
}

static enum session_end end_of_socket(const struct sink_session *c)
{
    int error = 0;
    socklen_t n = sizeof error;

    if (getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    return end_of_error(error);
}

static void rearm(struct sink_session *c)
{
    uint32_t events = c->pause == PAUSE_NONE ? (uint32_t)EPOLLIN : 0;
    struct epoll_event e = {.data.ptr = &c->watch};

    if (c->out_bytes > 0)
        events |= EPOLLOUT;
    if (events == c->events)
        return;
    c->events = events;
    e.events = events;
    MUST(epoll_ctl(c->sink->epoll, EPOLL_CTL_MOD, c->watch.fd, &e) == 0);
}

/* 0, or -errno when the connection is dead. Unsent bytes stay. */
static int flush(struct sink_session *c)
{
    while (c->out_sent < c->out_bytes) {
        ssize_t n = send(c->watch.fd, c->out + c->out_sent, c->out_bytes - c->out_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n < 0)
            return 0;
        c->out_sent += (uint32_t)n;
    }
    c->out_sent = 0;
    c->out_bytes = 0;
    return 0;
}

void sink_session_say(struct sink_session *c, const char *reply)
{
    size_t n = strlen(reply);

    /* feed stops for PAUSE_OUTPUT while there is still room for the longest reply. */
    MUST(n <= SINK_OUT_BYTES - c->out_bytes);
    memcpy(c->out + c->out_bytes, reply, n);
    c->out_bytes += (uint32_t)n;
    c->sink->stats.answered_4xx += reply[0] == '4';
    c->sink->stats.answered_5xx += reply[0] == '5';
    if (c->out_bytes > SINK_OUT_BYTES - SCRIPT_REPLY_BYTES_MAX)
        c->pause = PAUSE_OUTPUT;
}

void sink_session_answer(struct sink_session *c, const struct verdict *v, const char *accept)
{
    const char *reply = v->kind == VERDICT_ACCEPT ? accept : v->reply;
    bool close_after = v->kind == VERDICT_CLOSE || strncmp(reply, "421", 3) == 0;

    if (v->delay_ms > 0) {
        c->held_reply = v->kind == VERDICT_CLOSE ? "" : reply;
        c->held_close = close_after;
        c->pause = PAUSE_DELAY;
        timer_set(&c->sink->timers, &c->timer, c->sink->at_ns + v->delay_ms * ns_per_ms);
        return;
    }
    if (v->kind != VERDICT_CLOSE)
        sink_session_say(c, reply);
    if (close_after)
        c->state = SESSION_CLOSING;
}

/* Keeps what the dialog did not use. False without memory. */
static bool keep_rest(struct sink_session *c, struct span s)
{
    if (s.n > c->rest_cap) {
        size_t cap = s.n < 1024 ? 1024 : s.n;
        uint8_t *bigger = realloc(c->rest, cap);
        if (bigger == NULL)
            return false;
        c->rest = bigger;
        c->rest_cap = cap;
    }
    if (s.n > 0)
        memcpy(c->rest, s.p, s.n);
    c->rest_bytes = s.n;
    return true;
}

/* Feeds the dialog, sends its replies, and settles what the session waits for next. */
static void work(struct sink_session *c, struct span s)
{
    for (;;) {
        sink_dialog_feed(c, &s);
        int rc = flush(c);
        if (rc < 0) {
            finish(c, end_of_error(-rc));
            return;
        }
        if (c->pause != PAUSE_OUTPUT || c->out_bytes > 0)
            break;
        c->pause = PAUSE_NONE;
    }
    bool said_all = c->state == SESSION_CLOSING && c->out_bytes == 0;
    if (said_all || !keep_rest(c, s)) {
        finish(c, END_OURS);
        return;
    }
    rearm(c);
}

static void work_on_rest(struct sink_session *c)
{
    size_t n = c->rest_bytes;

    if (n > 0)
        memcpy(c->sink->in, c->rest, n);
    c->rest_bytes = 0;
    work(c, span_of(c->sink->in, n));
}

static size_t read_limit(struct sink_session *c)
{
    double rate = c->sink->options->slow_reader;

    if (rate <= 0)
        return SINK_READ_BYTES;
    double step = rate * SLOW_STEP_MS / 1000;
    return step < 1 ? 1 : step < SINK_READ_BYTES ? (size_t)step : SINK_READ_BYTES;
}

static void slow_down(struct sink_session *c)
{
    if (c->sink->options->slow_reader <= 0 || c->pause != PAUSE_NONE)
        return;
    c->pause = PAUSE_SLOW;
    timer_set(&c->sink->timers, &c->timer, c->sink->at_ns + SLOW_STEP_MS * ns_per_ms);
}

static void receive(struct sink_session *c)
{
    uint8_t *in = c->sink->in;
    size_t kept = c->rest_bytes;
    ssize_t n;

    MUST(kept <= SINK_READ_BYTES);
    if (kept > 0)
        memcpy(in, c->rest, kept);
    n = recv(c->watch.fd, in + kept, read_limit(c), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        finish(c, n == 0 ? END_EOF : end_of_error(errno));
        return;
    }
    c->rest_bytes = 0;
    slow_down(c);
    work(c, span_of(in, kept + (size_t)n));
}

void sink_session_event(struct sink_session *c, uint32_t events)
{
    if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLIN) == 0) {
        finish(c, end_of_socket(c));
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        if (c->pause == PAUSE_OUTPUT)
            c->pause = PAUSE_NONE;
        work_on_rest(c);
        return; /* reading waits for the next turn: c may be gone */
    }
    if ((events & EPOLLIN) != 0)
        receive(c);
}

/* The end of a client that nobody read while its answer was due. */
static bool has_left(const struct sink_session *c)
{
    char byte;

    return recv(c->watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void sink_session_due(struct sink_session *c)
{
    enum session_pause pause = c->pause;

    if (pause == PAUSE_OUTPUT)
        return; /* the end of a slow step; EPOLLOUT goes on */
    c->pause = PAUSE_NONE;
    if (pause == PAUSE_DELAY) {
        c->sink->stats.cut += has_left(c) && in_transaction(c);
        sink_session_say(c, c->held_reply);
        if (c->held_close)
            c->state = SESSION_CLOSING;
        c->held_reply = NULL;
        c->held_close = false;
    }
    work_on_rest(c);
}

static void greet(struct sink_session *c)
{
    struct sink *s = c->sink;
    struct sink_peer *peer = &s->peers.items[c->peer];
    char ip[IP_TEXT];
    struct verdict v = {VERDICT_REPLY, 0, "421 4.7.0 Too many connections from your address\r\n"};

    ip_format(&peer->ip, ip);
    if (s->options->per_source_max != 0 && peer->open > s->options->per_source_max)
        peer->turned_away++;
    else
        v = sink_policy_decide(s, STAGE_CONNECT, span_str(ip));
    sink_session_answer(c, &v, s->banner);
    if (v.kind != VERDICT_ACCEPT && v.delay_ms == 0)
        c->state = SESSION_CLOSING;
    c->held_close = v.delay_ms > 0 && v.kind != VERDICT_ACCEPT;
    work(c, span_of(s->in, 0));
}

void sink_session_open(struct sink *s, int fd, const struct ip *ip, uint16_t port)
{
    struct sink_session *c = pool_get(&s->sessions);
    uint32_t peer = sink_peers_have(&s->peers, ip);
    int on = 1;

    if (c == NULL || peer == 0) {
        if (c != NULL)
            pool_put(&s->sessions, c);
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->watch = (struct watch){WATCH_SESSION, fd};
    c->sink = s;
    c->state = SESSION_NEW;
    c->peer = peer;
    c->port = port;
    c->events = EPOLLIN;
    s->stats.sessions++;
    s->peers.items[peer].open++;
    s->peers.items[peer].connections++;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &c->watch};
    MUST(epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) == 0);
    write_connection(c, "open");
    greet(c);
}
