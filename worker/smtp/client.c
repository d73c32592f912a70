/*
 * Invariants: commands are answered in order; `answered` never passes `sent`; the dot leaves only
 * after on_dot said go; every state has its own time limit (RFC 5321 4.5.3.2), never one for the
 * transaction.
 *
 * A transaction is a list of commands: 0 = MAIL, 1..n = RCPT, n+1 = DATA or BDAT. With PIPELINING
 * they are sent ahead, without it each waits for the reply before it: the same code does both.
 */
#include "worker/smtp/client.h"

#include "base/text.h"

#include <errno.h>
#include <stdlib.h>

enum client_state {
    CL_CONNECTING,
    CL_GREETING,
    CL_EHLO,
    CL_HELO,
    CL_IDLE,
    CL_ENVELOPE, /* replies to MAIL, RCPT, DATA / BDAT are awaited */
    CL_GATE,     /* the owner has not allowed the dot yet */
    CL_BODY,     /* content is being sent */
    CL_DOT,      /* the reply to the dot is awaited */
    CL_RSET,
    CL_QUIT,
    CL_CLOSING,
    CL_STATE_COUNT
};

enum { AHEAD_BYTES = 3000, BDAT_AHEAD_BYTES = 65536 };

struct smtp_client {
    enum client_state state;
    struct conn *conn;
    struct client_settings set;
    const struct client_events *ev;
    void *owner;
    struct timer timer;
    struct smtp_offer offer;
    struct client_job job;
    unsigned sent, answered; /* commands of the transaction */
    unsigned accepted;       /* recipients */
    bool use_bdat;
    bool content_sent; /* BDAT: content follows its command in the same flight */
    bool dot_sent;
    bool in_job;
    bool dropped;                 /* an offer that the peer refuses when it is used */
    bool again;                   /* the transaction starts anew after RSET */
    enum smtp_stage failed_stage; /* STAGE_COUNT = none */
    struct smtp_reply failed_reply;
    struct smtp_reply_reader reader;
};

static const struct {
    const char *name;
    enum smtp_stage stage;
} states[CL_STATE_COUNT] = {
    [CL_CONNECTING] = {"connecting", STAGE_CONNECT},
    [CL_GREETING] = {"greeting", STAGE_GREETING},
    [CL_EHLO] = {"ehlo", STAGE_EHLO},
    [CL_HELO] = {"helo", STAGE_EHLO},
    [CL_IDLE] = {"idle", STAGE_QUIT},
    [CL_ENVELOPE] = {"envelope", STAGE_MAIL},
    [CL_GATE] = {"gate", STAGE_DATA},
    [CL_BODY] = {"body", STAGE_DATA},
    [CL_DOT] = {"dot", STAGE_DOT},
    [CL_RSET] = {"rset", STAGE_QUIT},
    [CL_QUIT] = {"quit", STAGE_QUIT},
    [CL_CLOSING] = {"closing", STAGE_QUIT},
};

static enum smtp_stage stage_now(const struct smtp_client *c)
{
    bool ahead = c->state == CL_DOT && c->use_bdat && c->answered <= c->job.rcpt_count;
    if (c->state != CL_ENVELOPE && !ahead)
        return states[c->state].stage;
    if (c->answered == 0)
        return STAGE_MAIL;
    return c->answered <= c->job.rcpt_count ? STAGE_RCPT : STAGE_DATA;
}

static uint32_t limit_ms(const struct smtp_client *c)
{
    const struct config *g = c->set.config;
    switch (stage_now(c)) {
    case STAGE_CONNECT:
        return g->client.connect_ms;
    case STAGE_GREETING:
        return g->client.greeting_ms;
    case STAGE_EHLO:
        return g->client.ehlo_ms;
    case STAGE_MAIL:
        return g->client.mail_ms;
    case STAGE_RCPT:
        return g->client.rcpt_ms;
    case STAGE_DATA:
        return c->state == CL_BODY ? g->client.block_ms : g->client.data_ms;
    case STAGE_DOT:
        return g->client.dot_ms;
    case STAGE_QUIT:
    case STAGE_COUNT:
        break;
    }
    return c->state == CL_RSET ? g->client.rset_ms : g->client.quit_ms;
}

static void enter(struct smtp_client *c, enum client_state s)
{
    c->state = s;
    if (s == CL_IDLE || s == CL_GATE || s == CL_CLOSING || s == CL_CONNECTING)
        timer_stop(c->set.wheel, &c->timer);
    else
        timer_set(c->set.wheel, &c->timer, limit_ms(c));
}

static void fail(struct smtp_client *c, int err, const struct smtp_reply *r)
{
    if (c->state == CL_CLOSING)
        return;
    struct client_failure f = {.stage = stage_now(c),
                               .err = err,
                               .reply = r,
                               .dot_sent = c->dot_sent,
                               .in_job = c->in_job};
    bool tell = c->state != CL_QUIT;
    enter(c, CL_CLOSING);
    c->in_job = false;
    conn_close(c->conn, true);
    if (tell)
        c->ev->on_failed(c->owner, &f);
}

static void on_timer(struct timer *t)
{
    fail((struct smtp_client *)((char *)t - offsetof(struct smtp_client, timer)), -ETIMEDOUT, NULL);
}

static void put(struct smtp_client *c, struct span s)
{
    uint8_t *p = conn_put(c->conn, s.n);
    if (p == NULL)
        fail(c, -ENOBUFS, NULL);
    else
        memcpy(p, s.p, s.n);
}

/* --- commands of a transaction --- */

static void put_mail(struct smtp_client *c)
{
    char line[LIMIT_COMMAND_LINE_BYTES];
    struct text t = text_of(line, sizeof line);
    text_puts(&t, "MAIL FROM:<");
    text_put(&t, c->job.sender);
    text_putc(&t, '>');
    if (c->offer.size) {
        text_puts(&t, " SIZE=");
        text_put_u64(&t, c->job.raw_bytes);
    }
    if (c->job.body_8bit && c->offer.eightbitmime)
        text_puts(&t, " BODY=8BITMIME");
    if (c->job.utf8)
        text_puts(&t, " SMTPUTF8");
    text_puts(&t, "\r\n");
    put(c, text_span(&t));
}

static void put_rcpt(struct smtp_client *c, struct span address)
{
    char line[LIMIT_COMMAND_LINE_BYTES];
    struct text t = text_of(line, sizeof line);
    text_puts(&t, "RCPT TO:<");
    text_put(&t, address);
    text_puts(&t, ">\r\n");
    put(c, text_span(&t));
}

static void send_piece(struct smtp_client *c, struct span piece, bool last)
{
    c->content_sent = last;
    if (piece.n > 0 && conn_put_ref(c->conn, piece) != 0) {
        fail(c, -ENOBUFS, NULL);
        return;
    }
    if (last && !c->use_bdat)
        put(c, span_str(".\r\n"));
    if (c->state == CL_CLOSING)
        return;
    if (last)
        c->dot_sent = true;
    enter(c, CL_BODY);
}

/* The dot gate has opened: for BDAT the command comes first. */
static void send_content(struct smtp_client *c)
{
    if (c->use_bdat) {
        char line[64];
        struct text t = text_of(line, sizeof line);
        text_fmt(&t, "BDAT %llu LAST\r\n", (unsigned long long)c->job.wire_bytes);
        put(c, text_span(&t));
        c->sent++;
    }
    if (c->state != CL_CLOSING)
        send_piece(c, c->job.piece, c->job.last);
}

static void begin_content(struct smtp_client *c)
{
    enter(c, CL_GATE);
    if (c->ev->on_dot(c->owner) && c->state == CL_GATE)
        send_content(c);
}

/* May the content be sent along with the envelope, before any reply? */
static bool content_ahead(const struct smtp_client *c)
{
    return c->use_bdat && c->offer.pipelining && c->job.last &&
           c->job.wire_bytes <= BDAT_AHEAD_BYTES;
}

/* Sends the next commands as far as allowed. */
static void push(struct smtp_client *c)
{
    unsigned last = c->job.rcpt_count + 1;
    while (c->state == CL_ENVELOPE && c->sent <= last) {
        if (!c->offer.pipelining && c->sent > c->answered)
            return;
        if (conn_out_bytes(c->conn) > AHEAD_BYTES)
            return;
        if (c->failed_stage != STAGE_COUNT && c->sent > c->answered)
            return;
        if (c->sent == 0) {
            put_mail(c);
        } else if (c->sent < last) {
            put_rcpt(c, c->job.rcpts[c->sent - 1]);
        } else if (!c->use_bdat) {
            if (c->accepted == 0 && c->answered == last)
                return; /* nobody took it: RSET instead */
            put(c, span_str("DATA\r\n"));
        } else {
            if (content_ahead(c) || (c->answered == last && c->accepted > 0))
                begin_content(c);
            return;
        }
        c->sent++;
    }
}

/* --- end of a transaction --- */

/*
 * A host that refuses what it offered: once in a session the offer is forgotten and the transaction
 * begins anew. BODY= and SMTPUTF8 cannot be left out, and recipients that were refused must not be
 * asked again.
 */
static bool drop_offer(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *r)
{
    bool refuses =
        r->code == 500 || r->code == 501 || r->code == 502 || r->code == 504 || r->code == 555;
    if (c->dropped || !refuses)
        return false;
    if (stage == STAGE_MAIL && c->offer.size)
        c->offer.size = false;
    else if (stage == STAGE_DOT && c->use_bdat && c->job.last && c->accepted == c->job.rcpt_count)
        c->offer.chunking = false;
    else
        return false;
    c->dropped = true;
    return true;
}

/* The outcome is told at once; a transaction that the peer may still hold open is reset before the
 * next one. */
static void settle(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *r,
                   bool open)
{
    c->dot_sent = false;
    c->again = drop_offer(c, stage, r);
    if (!c->again) {
        c->in_job = false;
        enter(c, CL_IDLE);
        c->ev->on_done(c->owner, stage, r);
        if (c->state != CL_IDLE)
            return;
    }
    if (!open && !c->again) {
        c->ev->on_idle(c->owner);
        return;
    }
    put(c, span_str("RSET\r\n"));
    if (c->state != CL_CLOSING)
        enter(c, CL_RSET);
}

static void keep_failure(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *r)
{
    if (c->failed_stage != STAGE_COUNT)
        return;
    c->failed_stage = stage;
    c->failed_reply = *r;
}

/* Every reply of the envelope is in, and no content is to be sent. */
static void envelope_over(struct smtp_client *c)
{
    MUST(c->failed_stage != STAGE_COUNT);
    settle(c, c->failed_stage, &c->failed_reply, true);
}

static void on_mail_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 != 2)
        keep_failure(c, STAGE_MAIL, r);
}

static void on_rcpt_reply(struct smtp_client *c, unsigned i, const struct smtp_reply *r)
{
    if (c->failed_stage == STAGE_MAIL)
        return; /* 503 after a refused MAIL says nothing about the recipient */
    if (r->code / 100 == 2)
        c->accepted++;
    c->ev->on_rcpt(c->owner, i, r);
}

static void on_data_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 != 3) {
        keep_failure(c, STAGE_DATA, r);
        envelope_over(c);
        return;
    }
    if (c->accepted > 0) {
        begin_content(c);
        return;
    }
    /* 354 although nobody was accepted (RFC 2920 3.1): end it with a lone dot. */
    keep_failure(c, STAGE_RCPT, r);
    c->content_sent = true;
    put(c, span_str(".\r\n"));
    if (c->state != CL_CLOSING)
        enter(c, CL_DOT);
}

static void on_envelope_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    unsigned i = c->answered++;
    timer_set(c->set.wheel, &c->timer, limit_ms(c));
    if (i == 0)
        on_mail_reply(c, r);
    else if (i <= c->job.rcpt_count)
        on_rcpt_reply(c, i - 1, r);
    else
        on_data_reply(c, r);
    if (c->state != CL_ENVELOPE)
        return;
    if (c->answered == c->job.rcpt_count + 1 && c->accepted == 0 && c->failed_stage == STAGE_COUNT)
        keep_failure(c, STAGE_RCPT, r);
    if (c->answered == c->sent && c->failed_stage != STAGE_COUNT)
        envelope_over(c);
    else
        push(c);
}

/* Replies that arrive while content leaves: of a pipelined envelope before BDAT, or an early
 * refusal. */
static void on_flight_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    unsigned last = c->job.rcpt_count + 1;
    if (c->use_bdat && c->answered < last) {
        unsigned i = c->answered++;
        if (i == 0)
            on_mail_reply(c, r);
        else
            on_rcpt_reply(c, i - 1, r);
        if (c->state == CL_DOT)
            timer_set(c->set.wheel, &c->timer, limit_ms(c));
        return;
    }
    if (!c->content_sent || conn_out_bytes(c->conn) > 0) {
        /* Refused in the middle of the content, which is in use until the connection has gone. */
        c->in_job = true;
        fail(c, 0, c->failed_stage != STAGE_COUNT ? &c->failed_reply : r);
        return;
    }
    if (c->use_bdat && c->accepted == 0)
        keep_failure(c, STAGE_RCPT, r);
    if (c->failed_stage != STAGE_COUNT)
        settle(c, c->failed_stage, &c->failed_reply, c->use_bdat);
    else
        settle(c, STAGE_DOT, r, c->use_bdat && r->code / 100 != 2);
}

/* The transaction from its first command on. */
static void begin(struct smtp_client *c)
{
    c->sent = c->answered = c->accepted = 0;
    c->use_bdat = c->offer.chunking && !c->job.stuffed && c->set.config->client.chunking;
    c->content_sent = false;
    c->dot_sent = false;
    c->in_job = true;
    c->again = false;
    c->failed_stage = STAGE_COUNT;
    enter(c, CL_ENVELOPE);
    push(c);
}

/* --- the handshake --- */

static void hello(struct smtp_client *c, enum client_state s)
{
    char line[LIMIT_DOMAIN_BYTES + 32];
    struct text t = text_of(line, sizeof line);
    text_fmt(&t, "%s %s\r\n", s == CL_EHLO ? "EHLO" : "HELO", c->set.ehlo);
    put(c, text_span(&t));
    if (c->state != CL_CLOSING)
        enter(c, s);
}

static void on_hello_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        memset(&c->offer, 0, sizeof c->offer);
        if (c->state == CL_EHLO)
            smtp_offer_parse(r, &c->offer);
        enter(c, CL_IDLE);
        c->ev->on_idle(c->owner);
    } else if (c->state == CL_EHLO && r->code / 100 == 5) {
        hello(c, CL_HELO);
    } else {
        fail(c, -EPROTO, r);
    }
}

static void on_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code == 421 && c->state != CL_QUIT) {
        fail(c, 0, r);
        return;
    }
    switch (c->state) {
    case CL_GREETING:
        if (r->code / 100 == 2)
            hello(c, CL_EHLO);
        else
            fail(c, -EPROTO, r);
        break;
    case CL_EHLO:
    case CL_HELO:
        on_hello_reply(c, r);
        break;
    case CL_ENVELOPE:
        on_envelope_reply(c, r);
        break;
    case CL_BODY:
    case CL_DOT:
        on_flight_reply(c, r);
        break;
    case CL_GATE:
        if (c->use_bdat && c->answered < c->sent)
            on_flight_reply(c, r);
        else
            fail(c, -EPROTO, r);
        break;
    case CL_RSET:
        enter(c, CL_IDLE);
        if (c->again)
            begin(c);
        else
            c->ev->on_idle(c->owner);
        break;
    case CL_QUIT:
        enter(c, CL_CLOSING);
        conn_close(c->conn, true);
        break;
    case CL_IDLE:
        fail(c, -EPROTO, r);
        break;
    case CL_CONNECTING:
    case CL_CLOSING:
    case CL_STATE_COUNT:
        break;
    }
}

/* --- the connection --- */

static void on_open(void *owner, struct conn *conn, int res)
{
    struct smtp_client *c = owner;
    if (res != 0) {
        struct client_failure f = {.stage = STAGE_CONNECT, .err = res};
        enter(c, CL_CLOSING);
        c->ev->on_failed(c->owner, &f);
        return;
    }
    enter(c, CL_GREETING);
    conn_recv(conn);
}

static void on_data(void *owner, struct conn *conn, struct span in)
{
    struct smtp_client *c = owner;
    (void)conn;
    while (in.n > 0 && c->state != CL_CLOSING) {
        switch (smtp_reply_feed(&c->reader, &in)) {
        case SMTP_REPLY_MORE:
            return;
        case SMTP_REPLY_DONE:
            on_reply(c, &c->reader.reply);
            break;
        case SMTP_REPLY_BROKEN:
            fail(c, -EPROTO, NULL);
            return;
        }
    }
}

static void on_filled(void *owner, struct conn *conn, size_t n)
{
    (void)owner;
    (void)conn;
    (void)n;
    MUST(!"a client never receives into memory of its own");
}

static void on_sent(void *owner, struct conn *conn)
{
    struct smtp_client *c = owner;
    (void)conn;
    if (c->state == CL_ENVELOPE) {
        push(c);
    } else if (c->state == CL_BODY) {
        if (c->content_sent)
            enter(c, CL_DOT);
        else
            c->ev->on_more(c->owner);
    }
}

static void on_eof(void *owner, struct conn *conn, int res)
{
    (void)conn;
    fail(owner, res, NULL);
}

static void on_closed(void *owner)
{
    struct smtp_client *c = owner;
    timer_stop(c->set.wheel, &c->timer);
    void *o = c->owner;
    const struct client_events *ev = c->ev;
    free(c);
    ev->on_closed(o);
}

static const struct conn_events conn_table = {
    .on_open = on_open,
    .on_data = on_data,
    .on_filled = on_filled,
    .on_sent = on_sent,
    .on_eof = on_eof,
    .on_closed = on_closed,
};

struct smtp_client *smtp_client_open(const struct client_settings *s,
                                     const struct client_events *ev, void *owner)
{
    struct smtp_client *c = malloc(sizeof *c);
    if (c == NULL)
        return NULL;
    memset(c, 0, offsetof(struct smtp_client, reader));
    smtp_reply_reader_reset(&c->reader);
    c->set = *s;
    c->ev = ev;
    c->owner = owner;
    c->timer.on_due = on_timer;
    c->failed_stage = STAGE_COUNT;
    c->conn = conn_connect(s->io, &s->target, &conn_table, c);
    if (c->conn == NULL) {
        free(c);
        return NULL;
    }
    return c;
}

void smtp_client_send(struct smtp_client *c, const struct client_job *job)
{
    MUST(c->state == CL_IDLE);
    MUST(job->rcpt_count >= 1 && job->rcpt_count <= CLIENT_RCPTS_MAX);
    c->job = *job;
    begin(c);
}

void smtp_client_more(struct smtp_client *c, struct span piece, bool last)
{
    if (c->state == CL_BODY)
        send_piece(c, piece, last);
}

void smtp_client_go(struct smtp_client *c)
{
    if (c->state == CL_GATE)
        send_content(c);
}

void smtp_client_abort(struct smtp_client *c)
{
    c->dot_sent = false;
    fail(c, -ECANCELED, NULL);
}

void smtp_client_quit(struct smtp_client *c)
{
    if (c->state == CL_CLOSING || c->state == CL_QUIT)
        return;
    if (c->state != CL_IDLE) {
        fail(c, -ECANCELED, NULL);
        return;
    }
    put(c, span_str("QUIT\r\n"));
    if (c->state != CL_CLOSING)
        enter(c, CL_QUIT);
}

const struct smtp_offer *smtp_client_offer(const struct smtp_client *c)
{
    return &c->offer;
}

void smtp_client_local(const struct smtp_client *c, struct ip *ip)
{
    if (c->state == CL_CONNECTING)
        memset(ip, 0, sizeof *ip);
    else
        conn_local(c->conn, ip, &(uint16_t){0});
}

const char *smtp_client_state(const struct smtp_client *c)
{
    return states[c->state].name;
}
