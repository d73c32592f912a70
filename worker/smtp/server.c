/*
 * The life of a dialog: connection, lines, replies, time limits, drain.
 *
 * Invariants: input is used in order, by one mode at a time (line, data, chunk), and kept while an
 * answer is awaited, so that replies are in order whatever the client pipelines (RFC 2920); CRLF
 * ends a line and nothing else does; a dialog in SV_CLOSING does nothing more.
 */
#include "worker/smtp/server_impl.h"

#include "base/log.h"
#include "worker/lane/route.h"

#include <errno.h>
#include <stdlib.h>

enum {
    EARLY_MS = 250,
    RATE_PERIOD_MS = 60000,
    KEPT_INPUT_BYTES = 1 << 20,
    PAUSE_INPUT_BYTES = 64 << 10,
    NOTES_PER_S = 5
};

static const struct conn_events server_events;

static struct smtp_server *of_timer(struct timer *t)
{
    return (struct smtp_server *)((char *)t - offsetof(struct smtp_server, timer));
}

/* --- replies --- */

void server_reply(struct smtp_server *s, const char *line)
{
    size_t n = strlen(line);
    MUST(n >= 2);
    MUST(line[n - 1] == '\n');
    if (s->state == SV_CLOSING)
        return;
    uint8_t *p = conn_put(s->conn, n);
    if (p == NULL) {
        server_drop(s);
        return;
    }
    memcpy(p, line, n);
}

void server_error(struct smtp_server *s, const char *line)
{
    s->set->env.stats->command_errors++;
    if (++s->errors < s->set->env.config->smtp.errors_max) {
        server_reply(s, line);
        return;
    }
    server_reply(s, "421 4.7.0 Too many errors\r\n");
    server_close(s);
}

void server_close(struct smtp_server *s)
{
    if (s->state == SV_CLOSING)
        return;
    server_enter(s, SV_CLOSING);
    conn_close(s->conn, false);
}

void server_drop(struct smtp_server *s)
{
    server_enter(s, SV_CLOSING);
    conn_close(s->conn, true);
}

void server_note(struct smtp_server *s, const char *what)
{
    struct smtp_servers *set = s->set;
    uint32_t now_s = (uint32_t)(io_now_ns(set->env.io) / 1000000000);
    char ip[IP_TEXT];
    if (set->note_s != now_s) {
        if (set->notes_kept_back > 0)
            log_note("clients: %u more such lines were kept back", set->notes_kept_back);
        set->note_s = now_s;
        set->notes = set->notes_kept_back = 0;
    }
    if (++set->notes > NOTES_PER_S) {
        set->notes_kept_back++;
        return;
    }
    ip_format(&s->client, ip);
    log_note("client %s %s", ip, what);
}

/* --- states and time --- */

void server_enter(struct smtp_server *s, enum server_state st)
{
    struct smtp_servers *set = s->set;
    if (s->state == SV_CLOSING)
        return;
    bool was_data = s->state == SV_DATA || s->state == SV_CHUNK;
    bool is_data = st == SV_DATA || st == SV_CHUNK;
    if (was_data != is_data)
        set->in_data += is_data ? 1u : (uint32_t)-1;
    s->state = st;
    if (st == SV_CLOSING || st == SV_WAIT) {
        timer_stop(set->env.wheel, &s->timer);
        return;
    }
    uint64_t ms = st == SV_EARLY ? EARLY_MS : 1000ull * set->env.config->smtp.command_s;
    if (is_data) {
        s->rate_bytes = 0;
        ms = 1000ull * set->env.config->smtp.data_idle_s;
        if (ms > RATE_PERIOD_MS && set->env.config->smtp.data_bytes_per_min > 0)
            ms = RATE_PERIOD_MS;
    }
    timer_set(set->env.wheel, &s->timer, ms);
}

static bool is_refused(const struct smtp_server *s)
{
    const struct config *c = s->set->env.config;
    for (uint32_t i = 0; i < c->refuse_from_count; i++)
        if (ip_in_net(&s->client, &c->refuse_from[i]))
            return true;
    return false;
}

static void greet(struct smtp_server *s)
{
    char line[LIMIT_REPLY_LINE_BYTES];
    if (is_refused(s)) {
        server_note(s, "is refused by refuse_from");
        server_enter(s, SV_REFUSED);
        server_reply(s, "554 5.7.1 Mail from your address is not accepted here\r\n");
        if (s->state != SV_CLOSING)
            conn_recv(s->conn);
        return;
    }
    snprintf(line, sizeof line, "220 %.255s ESMTP mochila\r\n", s->set->env.config->hostname);
    server_enter(s, SV_NEW);
    server_reply(s, line);
    if (s->state != SV_CLOSING)
        conn_recv(s->conn);
}

static void on_timer(struct timer *t)
{
    struct smtp_server *s = of_timer(t);
    const struct config *c = s->set->env.config;
    if (s->state == SV_EARLY) {
        greet(s);
        return;
    }
    if (s->state == SV_DATA || s->state == SV_CHUNK) {
        uint64_t idle_ms = 1000ull * c->smtp.data_idle_s;
        bool whole_period = idle_ms > RATE_PERIOD_MS;
        if (whole_period && s->rate_bytes >= c->smtp.data_bytes_per_min) {
            server_enter(s, s->state);
            return;
        }
        if (!whole_period && s->rate_bytes > 0) {
            server_enter(s, s->state);
            return;
        }
        server_reply(s, "421 4.4.2 Message data comes too slowly\r\n");
    } else {
        server_reply(s, "421 4.4.2 Idle for too long\r\n");
    }
    server_close(s);
}

/* --- transactions --- */

struct txn *server_need_txn(struct smtp_server *s)
{
    MUST(s->txn == NULL);
    struct txn *t = pool_get(&s->set->txns);
    if (t == NULL)
        return NULL;
    t->session = s;
    t->text = t->text_inline;
    t->text_room = TXN_TEXT_BYTES;
    t->rcpts = t->rcpts_inline;
    t->rcpt_room = TXN_RCPTS;
    s->txn = t;
    return t;
}

void server_wipe_txn(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t == NULL)
        return;
    s->txn = NULL;
    if (t->submitted)
        submission_close(&t->submission);
    content_unref(&t->content);
    if (t->text != t->text_inline)
        free(t->text);
    if (t->rcpts != t->rcpts_inline)
        free(t->rcpts);
    free(t->list);
    pool_put(&s->set->txns, t);
}

/* --- input --- */

/* One command line out of `in`; returns the bytes used, 0 when the line is not whole. */
static size_t take_line(struct smtp_server *s, struct span in)
{
    const uint8_t *at = in.p;
    const uint8_t *end = in.p + in.n;
    for (;;) {
        at = memchr(at, '\n', (size_t)(end - at));
        if (at == NULL)
            break;
        if (at > in.p && at[-1] == '\r') {
            size_t n = (size_t)(at - in.p) - 1;
            if (s->skip_line || n + 2 > LIMIT_COMMAND_LINE_BYTES) {
                s->skip_line = false;
                server_error(s, "500 5.5.2 Line too long\r\n");
            } else {
                server_command(s, span_of(in.p, n), in.n > n + 2);
            }
            return n + 2;
        }
        at++;
    }
    if (in.n <= LIMIT_COMMAND_LINE_BYTES)
        return 0;
    s->skip_line = true; /* nothing of it is ever run as a command; the last byte may be the CR */
    return in.n - 1;
}

static size_t take(struct smtp_server *s, struct span in)
{
    switch (s->state) {
    case SV_NEW:
    case SV_READY:
    case SV_MAIL:
    case SV_RCPT:
    case SV_BDAT:
    case SV_REFUSED:
        return take_line(s, in);
    case SV_DATA:
        return server_take_data(s, in);
    case SV_CHUNK:
        return server_take_chunk(s, in);
    case SV_EARLY:
    case SV_WAIT:
    case SV_CLOSING:
    case SV_STATE_COUNT:
        break;
    }
    return 0;
}

static size_t take_all(struct smtp_server *s, struct span in)
{
    size_t used = 0;
    s->taking = true;
    while (used < in.n) {
        size_t n = take(s, span_of(in.p + used, in.n - used));
        if (n == 0)
            break;
        used += n;
    }
    s->taking = false;
    return used;
}

void server_keep(struct smtp_server *s, struct span in)
{
    if (in.n == 0 || s->state == SV_CLOSING)
        return;
    if (s->in_bytes + in.n > KEPT_INPUT_BYTES) {
        server_drop(s);
        return;
    }
    if (s->in_bytes + in.n > s->in_room) {
        size_t room = s->in_bytes + in.n + 1024;
        uint8_t *p = realloc(s->in, room);
        if (p == NULL) {
            server_drop(s);
            return;
        }
        s->in = p;
        s->in_room = (uint32_t)room;
    }
    memcpy(s->in + s->in_bytes, in.p, in.n);
    s->in_bytes += (uint32_t)in.n;
    if (s->in_bytes > PAUSE_INPUT_BYTES && s->state == SV_WAIT && !s->paused) {
        s->paused = true;
        conn_recv_pause(s->conn);
    }
}

/* Uses what was kept, as far as it goes. */
static void use_kept(struct smtp_server *s)
{
    size_t used = take_all(s, span_of(s->in, s->in_bytes));
    s->in_bytes -= (uint32_t)used;
    if (s->in_bytes > 0) {
        memmove(s->in, s->in + used, s->in_bytes);
        return;
    }
    free(s->in);
    s->in = NULL;
    s->in_room = 0;
}

static void on_data(void *owner, struct conn *conn, struct span in)
{
    struct smtp_server *s = owner;
    (void)conn;
    if (s->state == SV_EARLY) {
        server_note(s, "talked before the greeting");
        server_reply(s, "554 5.5.1 You talk before you are greeted\r\n");
        server_close(s);
        return;
    }
    s->rate_bytes += in.n;
    if (s->in_bytes > 0) {
        server_keep(s, in);
        use_kept(s);
    } else {
        size_t used = take_all(s, in);
        server_keep(s, span_of(in.p + used, in.n - used));
    }
    server_settle(s);
}

void server_settle(struct smtp_server *s)
{
    if (s->taking || s->state == SV_WAIT || s->state == SV_CLOSING)
        return;
    if (s->set->draining && (s->state == SV_READY || s->state == SV_NEW)) {
        server_reply(s, "421 4.3.2 Service is shutting down\r\n");
        server_close(s);
    } else if (s->eof) {
        server_close(s);
    } else {
        if (s->paused && !s->direct)
            conn_recv(s->conn);
        s->paused = false;
        server_go_direct(s);
    }
}

void server_resume(struct smtp_server *s, enum server_state st)
{
    server_enter(s, st);
    if (s->taking)
        return; /* called from within take_all, which goes on with the new state */
    if (s->in_bytes > 0)
        use_kept(s);
    server_settle(s);
}

static void on_filled(void *owner, struct conn *conn, size_t n)
{
    struct smtp_server *s = owner;
    (void)conn;
    s->rate_bytes += n;
    server_on_filled(s, n);
    server_settle(s);
}

static void on_sent(void *owner, struct conn *conn)
{
    (void)owner;
    (void)conn;
}

/* A client may end its side and still wait for our answers: those that are due are given. */
static void on_eof(void *owner, struct conn *conn, int res)
{
    struct smtp_server *s = owner;
    (void)conn;
    if (s->state == SV_CLOSING)
        return;
    if (res < 0) {
        server_drop(s);
        return;
    }
    s->eof = true;
    if (s->state != SV_WAIT)
        server_close(s);
}

static void on_closed(void *owner)
{
    struct smtp_server *s = owner;
    struct smtp_servers *set = s->set;
    timer_stop(set->env.wheel, &s->timer);
    dns_forget(&s->query);
    dns_forget(&s->name_query);
    server_wipe_txn(s);
    clients_leave(&set->clients, s->count);
    free(s->helo);
    free(s->client_name);
    free(s->in);
    *s->link = s->next;
    if (s->next != NULL)
        s->next->link = s->link;
    pool_put(&set->sessions, s);
}

static void on_open(void *owner, struct conn *conn, int res)
{
    (void)owner;
    (void)conn;
    (void)res;
    check_failed("an accepted connection is open", __FILE__, __LINE__);
}

static const struct conn_events server_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_filled = on_filled,
    .on_sent = on_sent,
    .on_eof = on_eof,
    .on_closed = on_closed,
};

/* --- accepting --- */

static void refused_closed(void *owner)
{
    (void)owner;
}
static void refused_data(void *owner, struct conn *conn, struct span in)
{
    (void)owner;
    (void)conn;
    (void)in;
}
static void refused_eof(void *owner, struct conn *conn, int res)
{
    (void)owner;
    (void)res;
    conn_close(conn, true);
}
static const struct conn_events refused_events = {
    .on_open = on_open,
    .on_data = refused_data,
    .on_filled = NULL,
    .on_sent = on_sent,
    .on_eof = refused_eof,
    .on_closed = refused_closed,
};

static void refuse(struct conn *c, struct smtp_servers *set, const char *line)
{
    conn_attach(c, &refused_events, set);
    uint8_t *p = conn_put(c, strlen(line));
    if (p != NULL)
        memcpy(p, line, strlen(line));
    conn_close(c, p == NULL);
}

static struct smtp_server *session_new(struct server_listener *l, struct conn *c,
                                       struct client_count *count, const struct ip *client)
{
    struct smtp_servers *set = l->set;
    struct smtp_server *s = pool_get(&set->sessions);
    if (s == NULL)
        return NULL;
    s->set = set;
    s->conn = c;
    s->listener = l->config;
    s->timer.on_due = on_timer;
    s->client = *client;
    s->count = count;
    s->tenant = route_tenant(set->env.queue, l->config, client);
    s->may_relay = route_may_relay(set->env.config, l->config, client);
    s->next = set->list;
    s->link = &set->list;
    if (s->next != NULL)
        s->next->link = &s->next;
    set->list = s;
    set->env.stats->connections_in++;
    return s;
}

static void on_accept(struct listener *base, struct conn *c)
{
    struct server_listener *l =
        (struct server_listener *)((char *)base - offsetof(struct server_listener, listener));
    struct smtp_servers *set = l->set;
    struct ip client;
    uint16_t port;
    conn_peer(c, &client, &port);
    if (set->draining || set->sessions.used >= set->env.config->smtp.connections_max) {
        refuse(c, set, "421 4.3.2 Too busy, try again later\r\n");
        return;
    }
    const char *refusal;
    uint32_t now_s = (uint32_t)(io_now_ns(set->env.io) / 1000000000);
    struct client_count *count = clients_enter(&set->clients, &client, now_s, &refusal);
    if (count == NULL) {
        refuse(c, set, refusal);
        return;
    }
    struct smtp_server *s = session_new(l, c, count, &client);
    if (s == NULL) {
        clients_leave(&set->clients, count);
        refuse(c, set, "421 4.3.2 Too busy, try again later\r\n");
        return;
    }
    conn_attach(c, &server_events, s);
    server_find_client_name(s);
    if (l->config->reject_early_talkers) {
        server_enter(s, SV_EARLY);
        conn_recv(c);
    } else {
        greet(s);
    }
}

/* --- the set --- */

int smtp_servers_create(struct smtp_servers **out, const struct smtp_servers_settings *env)
{
    struct smtp_servers *set = calloc(1, sizeof *set);
    if (set == NULL)
        return -ENOMEM;
    set->env = *env;
    uint32_t most = env->config->smtp.connections_max;
    int r = pool_init(&set->sessions, "sessions", sizeof(struct smtp_server), most);
    if (r == 0)
        r = pool_init(&set->txns, "transactions", sizeof(struct txn), most);
    if (r == 0)
        r = clients_init(&set->clients, env->config);
    if (r != 0)
        smtp_servers_destroy(&set);
    *out = set;
    return r;
}

void smtp_servers_destroy(struct smtp_servers **sp)
{
    struct smtp_servers *set = *sp;
    *sp = NULL;
    if (set == NULL)
        return;
    clients_fini(&set->clients);
    pool_fini(&set->txns);
    pool_fini(&set->sessions);
    free(set);
}

int smtp_servers_listen(struct smtp_servers *set, uint32_t index, int fd)
{
    if (set->listener_count >= LIMIT_LISTENERS || index >= set->env.config->listener_count)
        return -EINVAL;
    struct server_listener *l = &set->listeners[set->listener_count];
    l->set = set;
    l->config = &set->env.config->listeners[index];
    l->listener.on_accept = on_accept;
    int r = listener_start(set->env.io, &l->listener, fd);
    if (r == 0)
        set->listener_count++;
    return r;
}

void smtp_servers_drain(struct smtp_servers *set)
{
    if (set->draining)
        return;
    set->draining = true;
    for (uint32_t i = 0; i < set->listener_count; i++)
        listener_stop(&set->listeners[i].listener);
    struct smtp_server *next;
    for (struct smtp_server *s = set->list; s != NULL; s = next) {
        next = s->next;
        if (s->state == SV_DATA || s->state == SV_CHUNK || s->state == SV_WAIT ||
            s->state == SV_BDAT)
            continue;
        server_reply(s, "421 4.3.2 Service is shutting down\r\n");
        server_close(s);
    }
}

uint32_t smtp_servers_in_data(const struct smtp_servers *set)
{
    return set->in_data;
}

uint32_t smtp_servers_open(const struct smtp_servers *set)
{
    return set->sessions.used;
}
