/*
 * What each command does in each state: one total table, and a handler for each kind of cell.
 */
#include "worker/smtp/server_impl.h"

#include "proto/trace_field.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <stdlib.h>

typedef void command_fn(struct smtp_server *s, const struct smtp_command *c);

/* --- faults --- */

static const char *fault_reply(const struct smtp_command *c)
{
    bool mail = c->verb == SMTP_MAIL;
    switch (c->fault) {
    case SMTP_FAULT_NONE:
        break;
    case SMTP_FAULT_SYNTAX:
        return "501 5.5.4 Syntax error in arguments\r\n";
    case SMTP_FAULT_CONTROL:
        return "501 5.5.2 Control character in command\r\n";
    case SMTP_FAULT_ADDRESS:
        return mail ? "501 5.1.7 Bad sender address syntax\r\n"
                    : "501 5.1.3 Bad recipient address syntax\r\n";
    case SMTP_FAULT_ADDRESS_UTF8:
        return mail ? "550 5.6.7 Address needs SMTPUTF8\r\n"
                    : "553 5.6.7 Address needs SMTPUTF8\r\n";
    case SMTP_FAULT_PARAM_UNKNOWN:
        return "555 5.5.4 Parameter not recognised\r\n";
    case SMTP_FAULT_PARAM_REPEATED:
        return "501 5.5.4 Parameter given twice\r\n";
    case SMTP_FAULT_PARAM_VALUE:
        return "501 5.5.4 Bad parameter value\r\n";
    }
    check_failed("a fault that exists", __FILE__, __LINE__);
}

/* A permanent no counts as an error of the client. */
static void refuse(struct smtp_server *s, const char *no)
{
    if (no[0] == '5')
        server_error(s, no);
    else
        server_reply(s, no);
}

/* --- EHLO, HELO --- */

static void reset_txn(struct smtp_server *s)
{
    server_wipe_txn(s);
    if (s->state != SV_NEW)
        server_enter(s, SV_READY);
}

static bool take_helo(struct smtp_server *s, struct span name)
{
    char *copy = malloc(name.n + 1);
    if (copy == NULL) {
        server_reply(s, "451 4.3.0 Out of memory\r\n");
        return false;
    }
    memcpy(copy, name.p, name.n);
    copy[name.n] = '\0';
    free(s->helo);
    s->helo = copy;
    return true;
}

unsigned server_offers(const struct smtp_server *s)
{
    unsigned offers = s->esmtp ? s->listener->offers : 0;
    /* RFC 6531 3.1: no SMTPUTF8 without 8BITMIME. */
    return offers & OFFER_8BITMIME ? offers : offers & ~(unsigned)OFFER_SMTPUTF8;
}

static void on_ehlo(struct smtp_server *s, const struct smtp_command *c)
{
    static const struct {
        unsigned bit;
        const char *keyword;
    } keywords[] = {
        {OFFER_PIPELINING, "PIPELINING"},
        {OFFER_8BITMIME, "8BITMIME"},
        {OFFER_ENHANCED, "ENHANCEDSTATUSCODES"},
        {OFFER_CHUNKING, "CHUNKING"},
        {OFFER_SMTPUTF8, "SMTPUTF8"},
    };
    const struct config *g = s->set->env.config;
    if (!take_helo(s, c->args))
        return;
    s->esmtp = true;
    unsigned offers = server_offers(s);
    char reply[1024];
    struct text t = text_of(reply, sizeof reply);
    text_fmt(&t, "250-%s\r\n", g->hostname);
    for (size_t i = 0; i < ARRAY_COUNT(keywords); i++)
        if (offers & keywords[i].bit)
            text_fmt(&t, "250-%s\r\n", keywords[i].keyword);
    if (offers & OFFER_SIZE)
        text_fmt(&t, "250-SIZE %llu\r\n", (unsigned long long)g->smtp.size_max);
    text_puts(&t, "250 HELP\r\n");
    MUST(!t.cut);
    server_enter(s, SV_READY);
    reset_txn(s);
    server_reply(s, reply);
}

static void on_helo(struct smtp_server *s, const struct smtp_command *c)
{
    if (!take_helo(s, c->args))
        return;
    char reply[LIMIT_REPLY_LINE_BYTES];
    snprintf(reply, sizeof reply, "250 %s\r\n", s->set->env.config->hostname);
    s->esmtp = false;
    server_enter(s, SV_READY);
    reset_txn(s);
    server_reply(s, reply);
}

/* --- MAIL --- */

static uint32_t keep_text(struct txn *t, struct span s)
{
    if (t->text_bytes + s.n > t->text_room) {
        uint32_t room = (uint32_t)(t->text_bytes + s.n) * 2;
        char *p = t->text == t->text_inline ? malloc(room) : realloc(t->text, room);
        if (p == NULL)
            return UINT32_MAX;
        if (t->text == t->text_inline)
            memcpy(p, t->text, t->text_bytes);
        t->text = p;
        t->text_room = room;
    }
    uint32_t at = t->text_bytes;
    if (s.n > 0)
        memcpy(t->text + at, s.p, s.n);
    t->text_bytes += (uint32_t)s.n;
    return at;
}

/* A parameter of an extension that this listener does not offer is unknown here (SRV-19). */
static bool params_offered(const struct smtp_server *s, const struct smtp_command *c)
{
    unsigned offers = server_offers(s);
    unsigned known = 0;
    if (offers & OFFER_SIZE)
        known |= SMTP_PARAM_SIZE;
    if (offers & OFFER_8BITMIME)
        known |= SMTP_PARAM_BODY;
    if (offers & OFFER_SMTPUTF8)
        known |= SMTP_PARAM_SMTPUTF8;
    return (c->params & ~known) == 0;
}

static const char *mail_refusal(const struct smtp_server *s, const struct smtp_command *c)
{
    const struct smtp_servers *set = s->set;
    if (!params_offered(s, c))
        return "555 5.5.4 Parameter not recognised\r\n";
    if (c->body == SMTP_BODY_BINARYMIME)
        return "501 5.5.4 BODY=BINARYMIME is not offered\r\n";
    if (c->size > set->env.config->smtp.size_max)
        return "552 5.3.4 Message is larger than the limit\r\n";
    if (server_no_room(s))
        return "452 4.3.1 No room for mail now, try again later\r\n";
    return NULL;
}

/* The transaction with its sender; false: no memory. */
static bool open_txn(struct smtp_server *s, const struct smtp_command *c)
{
    struct txn *t = server_need_txn(s);
    if (t == NULL)
        return false;
    t->sender_offset = keep_text(t, c->path.text);
    if (t->sender_offset == UINT32_MAX) {
        server_wipe_txn(s);
        return false;
    }
    t->sender_bytes = (uint32_t)c->path.text.n;
    t->body = c->body;
    t->size_declared = c->size;
    t->utf8 = (c->params & SMTP_PARAM_SMTPUTF8) != 0;
    t->utf8_rcpt = c->path.is_utf8;
    return true;
}

static void on_mail(struct smtp_server *s, const struct smtp_command *c)
{
    if (s->set->draining) {
        server_reply(s, "421 4.3.2 Service is shutting down\r\n");
        server_close(s);
        return;
    }
    const char *no = mail_refusal(s, c);
    if (no != NULL) {
        refuse(s, no);
        return;
    }
    if (!open_txn(s, c)) {
        server_reply(s, "452 4.3.1 Too many transactions, try again later\r\n");
        return;
    }
    if (server_check_sender(s))
        return;
    server_enter(s, SV_MAIL);
    server_reply(s, "250 2.1.0 Sender ok\r\n");
}

/* --- RCPT --- */

static const char *rcpt_refusal(const struct smtp_server *s, const struct smtp_command *c)
{
    const struct config *g = s->set->env.config;
    if (c->params != 0)
        return "555 5.5.4 Parameter not recognised\r\n";
    if (s->txn->rcpt_count >= g->smtp.recipients_max ||
        server_envelope_bytes(s->txn) > SERVER_ENVELOPE_BYTES)
        return "452 4.5.3 Too many recipients\r\n";
    if (c->path.domain.n == 0)
        return NULL; /* postmaster of this host */
    if (c->path.is_literal && !g->smtp.allow_address_literals)
        return "550 5.7.1 Address literals are not accepted\r\n";
    if (!s->may_relay && !route_is_served(g, c->path.domain))
        return "550 5.7.1 Relaying denied\r\n";
    return NULL;
}

/* The recipient and its lane; false: no memory or no lane. */
static const char *add_rcpt(struct smtp_server *s, struct span address, struct span domain)
{
    struct txn *t = s->txn;
    struct lane *lane = route_lane(s->set->env.queue, s->tenant, domain);
    if (lane == NULL)
        return "451 4.3.5 No lane is configured for this sender\r\n";
    if (t->rcpt_count == t->rcpt_room) {
        uint32_t room = t->rcpt_room * 4;
        struct txn_rcpt *r = t->rcpts == t->rcpts_inline ? malloc(room * sizeof *r)
                                                         : realloc(t->rcpts, room * sizeof *r);
        if (r == NULL)
            return "452 4.3.1 Out of memory\r\n";
        if (t->rcpts == t->rcpts_inline)
            memcpy(r, t->rcpts, sizeof t->rcpts_inline);
        t->rcpts = r;
        t->rcpt_room = room;
    }
    uint32_t at = keep_text(t, address);
    if (at == UINT32_MAX)
        return "452 4.3.1 Out of memory\r\n";
    t->rcpts[t->rcpt_count++] =
        (struct txn_rcpt){.offset = at, .bytes = (uint32_t)address.n, .lane = lane};
    return NULL;
}

static const char *add_postmaster(struct smtp_server *s)
{
    char address[LIMIT_DOMAIN_BYTES + 16];
    const char *host = s->set->env.config->hostname;
    int n = snprintf(address, sizeof address, "postmaster@%s", host);
    return add_rcpt(s, span_of(address, (size_t)n), span_str(host));
}

static void on_rcpt(struct smtp_server *s, const struct smtp_command *c)
{
    const char *no = rcpt_refusal(s, c);
    if (no == NULL)
        no = c->path.domain.n == 0 ? add_postmaster(s) : add_rcpt(s, c->path.text, c->path.domain);
    if (no != NULL) {
        s->set->env.stats->rejected_recipients++;
        refuse(s, no);
        return;
    }
    s->txn->utf8_rcpt = s->txn->utf8_rcpt || c->path.is_utf8;
    if (server_check_rcpt(s, c->path.domain))
        return;
    if (s->state != SV_RCPT)
        server_enter(s, SV_RCPT);
    server_reply(s, "250 2.1.5 Recipient ok\r\n");
}

/* --- the others --- */

static void on_data(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_begin_data(s);
}

static void on_bdat(struct smtp_server *s, const struct smtp_command *c)
{
    server_begin_chunk(s, c);
}

static void on_rset(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    reset_txn(s);
    server_reply(s, "250 2.0.0 Ok\r\n");
}

static void on_noop(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_reply(s, "250 2.0.0 Ok\r\n");
}

static void on_quit(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    char line[LIMIT_REPLY_LINE_BYTES];
    snprintf(line, sizeof line, "221 2.0.0 %.255s closing\r\n", s->set->env.config->hostname);
    server_reply(s, line);
    server_close(s);
}

static void on_vrfy(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_reply(s, "252 2.0.0 Cannot verify, but will accept mail for delivery\r\n");
}

static void on_help(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_reply(s, "214 2.0.0 See RFC 5321\r\n");
}

static void not_implemented(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_error(s, "502 5.5.1 Command not implemented\r\n");
}

static void unknown(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_error(s, "500 5.5.1 Command not known\r\n");
}

static void bad_order(struct smtp_server *s, const struct smtp_command *c)
{
    static const char *const first[SV_STATE_COUNT] = {
        [SV_NEW] = "503 5.5.1 EHLO first\r\n",
        [SV_READY] = "503 5.5.1 MAIL first\r\n",
        [SV_MAIL] = "503 5.5.1 Not in this order\r\n",
        [SV_RCPT] = "503 5.5.1 Not in this order\r\n",
        [SV_BDAT] = "503 5.5.1 BDAT or RSET is awaited\r\n",
    };
    (void)c;
    server_error(s, first[s->state] != NULL ? first[s->state] : "503 5.5.1 Not now\r\n");
}

/* A chunk out of order: its octets are swallowed first, or they would run as commands (EXT-11). */
static void bad_chunk(struct smtp_server *s, const struct smtp_command *c)
{
    server_begin_chunk(s, c);
}

static void only_quit(struct smtp_server *s, const struct smtp_command *c)
{
    (void)c;
    server_error(s, "503 5.5.1 Only QUIT is possible here\r\n");
}

/* EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH not-implemented unknown */
static command_fn *const table[SV_STATE_COUNT][SMTP_VERB_COUNT] = {
#define ROW(ehlo, helo, mail, rcpt, data, bdat, rset)                                      \
    {                                                                                      \
        [SMTP_EHLO] = ehlo, [SMTP_HELO] = helo, [SMTP_MAIL] = mail, [SMTP_RCPT] = rcpt,    \
        [SMTP_DATA] = data, [SMTP_BDAT] = bdat, [SMTP_RSET] = rset, [SMTP_NOOP] = on_noop, \
        [SMTP_QUIT] = on_quit, [SMTP_VRFY] = on_vrfy, [SMTP_HELP] = on_help,               \
        [SMTP_STARTTLS] = not_implemented, [SMTP_AUTH] = not_implemented,                  \
        [SMTP_NOT_IMPLEMENTED] = not_implemented, [SMTP_UNKNOWN] = unknown,                \
    }
#define CLOSED                                                                                   \
    {                                                                                            \
        [SMTP_EHLO] = only_quit, [SMTP_HELO] = only_quit, [SMTP_MAIL] = only_quit,               \
        [SMTP_RCPT] = only_quit, [SMTP_DATA] = only_quit, [SMTP_BDAT] = bad_chunk,               \
        [SMTP_RSET] = only_quit, [SMTP_NOOP] = only_quit, [SMTP_QUIT] = on_quit,                 \
        [SMTP_VRFY] = only_quit, [SMTP_HELP] = only_quit, [SMTP_STARTTLS] = only_quit,           \
        [SMTP_AUTH] = only_quit, [SMTP_NOT_IMPLEMENTED] = only_quit, [SMTP_UNKNOWN] = only_quit, \
    }
    /* clang-format off */
    /*                    EHLO     HELO     MAIL       RCPT       DATA       BDAT       RSET */
    [SV_NEW]     = ROW(on_ehlo, on_helo, bad_order, bad_order, bad_order, bad_chunk, on_rset),
    [SV_READY]   = ROW(on_ehlo, on_helo, on_mail,   bad_order, bad_order, bad_chunk, on_rset),
    [SV_MAIL]    = ROW(on_ehlo, on_helo, bad_order, on_rcpt,   bad_order, bad_chunk, on_rset),
    [SV_RCPT]    = ROW(on_ehlo, on_helo, bad_order, on_rcpt,   on_data,   on_bdat,   on_rset),
    [SV_BDAT]    = ROW(on_ehlo, on_helo, bad_order, bad_order, bad_order, on_bdat,   on_rset),
    [SV_REFUSED] = CLOSED,
    /* No command is read in these; the cells exist so that the table is total. */
    [SV_EARLY]   = CLOSED,
    [SV_DATA]    = CLOSED,
    [SV_CHUNK]   = CLOSED,
    [SV_WAIT]    = CLOSED,
    [SV_CLOSING] = CLOSED,
    /* clang-format on */
#undef ROW
#undef CLOSED
};

/* Commands in one flight although PIPELINING was not offered (RFC 2920 3.1, RFC 5321 4.3.1). */
static bool is_rude(struct smtp_server *s, const struct smtp_command *c)
{
    bool last_of_group = c->verb == SMTP_EHLO || c->verb == SMTP_HELO;
    bool offered = server_offers(s) & OFFER_PIPELINING;
    if (c->verb == SMTP_BDAT || c->verb == SMTP_QUIT || (offered && !last_of_group))
        return false;
    if (!s->told_of_rudeness)
        server_note(s, last_of_group ? "does not wait for the reply to its greeting"
                                     : "pipelines though it was not offered");
    s->told_of_rudeness = true;
    return true;
}

void server_command(struct smtp_server *s, struct span line, bool more)
{
    struct smtp_command c;
    unsigned flags = s->listener->strict_syntax ? 0 : SMTP_PARSE_TOLERANT;
    bool utf8 = s->txn != NULL && s->txn->utf8;
    smtp_command_parse(line, flags, utf8, &c);
    s->set->env.stats->commands++;
    timer_set(s->set->env.wheel, &s->timer, 1000ull * s->set->env.config->smtp.command_s);
    if (more && is_rude(s, &c) && s->listener->reject_early_talkers) {
        server_reply(s, "554 5.5.1 You do not wait for replies\r\n");
        server_close(s);
        return;
    }
    if (c.verb == SMTP_BDAT && !(s->listener->offers & OFFER_CHUNKING))
        c.verb = SMTP_NOT_IMPLEMENTED;
    command_fn *fn = table[s->state][c.verb];
    MUST(fn != NULL);
    bool runs = fn != bad_order && fn != only_quit && fn != not_implemented && fn != unknown;
    if (c.fault == SMTP_FAULT_NONE || !runs)
        fn(s, &c);
    else if (!params_offered(s, &c))
        server_error(s, "555 5.5.4 Parameter not recognised\r\n");
    else
        server_error(s, fault_reply(&c));
}
