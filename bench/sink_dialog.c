/*
 * The server's side of SMTP as a table: verb x state; and the two content states beside it.
 *
 * Invariants: while a session is paused nothing is read from its input; content bytes never reach
 * the command parser.
 */
#include "bench/sink_private.h"

#include <stdlib.h>

enum verb {
    VERB_HELO,
    VERB_EHLO,
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_BDAT,
    VERB_RSET,
    VERB_NOOP,
    VERB_VRFY,
    VERB_QUIT,
    VERB_OTHER,
    VERB_COUNT
};

typedef enum session_state verb_action(struct sink_session *c, struct span argument);

static const char ok[] = "250 2.0.0 Ok\r\n";
static const char sender_ok[] = "250 2.1.0 Ok\r\n";
static const char rcpt_ok[] = "250 2.1.5 Ok\r\n";
static const char go_ahead[] = "354 End data with <CR><LF>.<CR><LF>\r\n";
static const char bad_syntax[] = "501 5.5.4 Syntax\r\n";
static const char out_of_order[] = "503 5.5.1 Bad sequence of commands\r\n";

static struct span trim(struct span s)
{
    while (s.n > 0 && s.p[0] == ' ') {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && s.p[s.n - 1] <= ' ')
        s.n--;
    return s;
}

/* The path of `FROM:<path> PARAM...` and `TO:<path>`; false when it is none. */
static bool take_path(struct span argument, const char *keyword, struct span *path)
{
    struct span word = span_str(keyword);

    if (!span_ihas_prefix(argument, word))
        return false;
    struct span s = trim(span_of(argument.p + word.n, argument.n - word.n));
    if (s.n < 2 || s.p[0] != '<')
        return false;
    const uint8_t *end = memchr(s.p, '>', s.n);
    if (end == NULL)
        return false;
    *path = span_of(s.p + 1, (size_t)(end - s.p) - 1);
    return true;
}

/* Adds an address with a NUL to the transaction's store; false without memory. */
static bool keep_address(struct sink_session *c, struct span address)
{
    size_t need = c->tx.addresses_used + address.n + 1;

    if (need > c->addresses_cap) {
        size_t cap = need < 512 ? 512 : need * 2;
        char *bigger = realloc(c->addresses, cap);
        if (bigger == NULL)
            return false;
        c->addresses = bigger;
        c->addresses_cap = (uint32_t)cap;
    }
    memcpy(c->addresses + c->tx.addresses_used, address.p, address.n);
    c->addresses[need - 1] = '\0';
    c->tx.addresses_used = (uint32_t)need;
    return true;
}

static void wipe(struct sink_session *c)
{
    c->tx = (struct sink_transaction){0};
}

/* The sender is the first address kept, the first accepted recipient the second. */
static struct span first_rcpt(const struct sink_session *c)
{
    const char *sender = c->addresses;

    return c->tx.rcpt_count > 0 ? span_str(sender + strlen(sender) + 1) : span_str("");
}

/* Answers with the policy's verdict, which may close; true when it accepts. */
static bool pass(struct sink_session *c, const struct verdict *v, const char *accept)
{
    sink_session_answer(c, v, accept);
    return v->kind == VERDICT_ACCEPT;
}

static enum session_state greet(struct sink_session *c, struct span argument, const char *reply)
{
    struct verdict v = sink_policy_decide(c->sink, STAGE_EHLO, argument);

    wipe(c);
    if (argument.n == 0) {
        sink_session_say(c, bad_syntax);
        return c->state;
    }
    return pass(c, &v, reply) ? SESSION_READY : SESSION_NEW;
}

static enum session_state on_helo(struct sink_session *c, struct span argument)
{
    return greet(c, argument, ok);
}

static enum session_state on_ehlo(struct sink_session *c, struct span argument)
{
    if (!c->sink->options->offer_ehlo) {
        sink_session_say(c, "502 5.5.1 Not implemented\r\n");
        return c->state;
    }
    return greet(c, argument, c->sink->ehlo);
}

static enum session_state on_mail(struct sink_session *c, struct span argument)
{
    const struct sink_options *o = c->sink->options;
    struct span path;

    if (!take_path(argument, "FROM:", &path)) {
        sink_session_say(c, bad_syntax);
        return c->state;
    }
    if (o->close_after != 0 && c->messages >= o->close_after) {
        struct verdict enough = {VERDICT_REPLY, 0, "421 4.7.0 Enough of this connection\r\n"};
        sink_session_answer(c, &enough, NULL);
        return SESSION_READY;
    }
    struct verdict v = sink_policy_decide(c->sink, STAGE_MAIL, path);
    wipe(c);
    if (!keep_address(c, path))
        v = (struct verdict){VERDICT_REPLY, 0, "452 4.3.1 Out of memory\r\n"};
    return pass(c, &v, sender_ok) ? SESSION_MAIL : SESSION_READY;
}

static enum session_state on_rcpt(struct sink_session *c, struct span argument)
{
    struct span path;

    if (!take_path(argument, "TO:", &path) || path.n == 0) {
        sink_session_say(c, bad_syntax);
        return c->state;
    }
    int index = book_recipient(c->sink->book, path);
    if (c->tx.rcpt_count == SINK_RCPT_MAX || index < 0) {
        sink_session_say(c, "452 4.5.3 Too many recipients\r\n");
        return c->state;
    }
    struct verdict v = sink_policy_rcpt(c->sink, c, path);
    c->tx.rcpt_asked++;
    if (v.kind == VERDICT_ACCEPT && !keep_address(c, path))
        v = (struct verdict){VERDICT_REPLY, 0, "452 4.3.1 Out of memory\r\n"};
    if (!pass(c, &v, rcpt_ok))
        return c->state;
    c->rcpts[c->tx.rcpt_count++] = (uint16_t)index;
    return SESSION_RCPT;
}

static enum session_state on_data(struct sink_session *c, struct span argument)
{
    struct verdict v = sink_policy_decide(c->sink, STAGE_DATA, first_rcpt(c));

    (void)argument;
    if (!pass(c, &v, go_ahead))
        return SESSION_RCPT;
    content_begin(&c->tx.content);
    return SESSION_DATA;
}

static bool parse_chunk(struct span argument, uint64_t *bytes, bool *is_last)
{
    size_t n = 0;
    while (n < argument.n && argument.p[n] != ' ')
        n++;
    struct span word = trim(span_of(argument.p + n, argument.n - n));

    *is_last = span_ieq(word, span_str("LAST"));
    if (word.n > 0 && !*is_last)
        return false;
    return span_to_u64(span_of(argument.p, n), bytes) == 0;
}

/* All of one message is here, by dot or by the last chunk. */
static void end_message(struct sink_session *c)
{
    struct sink_stats *stats = &c->sink->stats;
    struct verdict v = sink_policy_decide(c->sink, STAGE_DOT, first_rcpt(c));

    if (v.kind == VERDICT_ACCEPT)
        sink_count_message(c);
    else if (v.kind == VERDICT_CLOSE)
        stats->closed_after_dot++;
    c->state = SESSION_READY;
    wipe(c);
    sink_session_answer(c, &v, ok);
}

static void end_chunk(struct sink_session *c)
{
    if (c->tx.chunk_is_refused) {
        sink_session_say(c, out_of_order);
        c->state = SESSION_READY;
        wipe(c);
    } else if (c->tx.chunk_is_last) {
        end_message(c);
    } else {
        sink_session_say(c, ok);
        c->state = SESSION_CHUNKS;
    }
}

static enum session_state begin_chunk(struct sink_session *c, struct span argument, bool refused)
{
    if (!parse_chunk(argument, &c->tx.chunk_left, &c->tx.chunk_is_last)) {
        /* How many bytes follow is not known: there is no way on (RFC 3030 2). */
        struct verdict v = {VERDICT_REPLY, 0, "421 5.5.4 BDAT without a size\r\n"};
        sink_session_answer(c, &v, NULL);
        return SESSION_CLOSING;
    }
    c->tx.chunk_is_refused = refused;
    return SESSION_CHUNK;
}

static enum session_state on_bdat(struct sink_session *c, struct span argument)
{
    content_begin(&c->tx.content);
    return begin_chunk(c, argument, !c->sink->options->offer_chunking);
}

static enum session_state on_more(struct sink_session *c, struct span argument)
{
    return begin_chunk(c, argument, false);
}

static enum session_state bad_chunk(struct sink_session *c, struct span argument)
{
    return begin_chunk(c, argument, true);
}

static enum session_state on_rset(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, ok);
    wipe(c);
    return c->state == SESSION_NEW ? SESSION_NEW : SESSION_READY;
}

static enum session_state on_noop(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, ok);
    return c->state;
}

static enum session_state on_vrfy(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, "252 2.5.2 Send some mail\r\n");
    return c->state;
}

static enum session_state on_quit(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, "221 2.0.0 Bye\r\n");
    return SESSION_CLOSING;
}

static enum session_state bad_sequence(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, out_of_order);
    return c->state;
}

static enum session_state unknown(struct sink_session *c, struct span argument)
{
    (void)argument;
    sink_session_say(c, "500 5.5.2 Unknown command\r\n");
    return c->state;
}

/* clang-format off */
static verb_action *const table[VERB_COUNT][SESSION_DATA] = {
    /*              NEW            READY          MAIL           RCPT           CHUNKS */
    [VERB_HELO]  = {on_helo,       on_helo,       on_helo,       on_helo,       on_helo},
    [VERB_EHLO]  = {on_ehlo,       on_ehlo,       on_ehlo,       on_ehlo,       on_ehlo},
    [VERB_MAIL]  = {bad_sequence,  on_mail,       bad_sequence,  bad_sequence,  bad_sequence},
    [VERB_RCPT]  = {bad_sequence,  bad_sequence,  on_rcpt,       on_rcpt,       bad_sequence},
    [VERB_DATA]  = {bad_sequence,  bad_sequence,  bad_sequence,  on_data,       bad_sequence},
    [VERB_BDAT]  = {bad_chunk,     bad_chunk,     bad_chunk,     on_bdat,       on_more},
    [VERB_RSET]  = {on_rset,       on_rset,       on_rset,       on_rset,       on_rset},
    [VERB_NOOP]  = {on_noop,       on_noop,       on_noop,       on_noop,       on_noop},
    [VERB_VRFY]  = {on_vrfy,       on_vrfy,       on_vrfy,       on_vrfy,       on_vrfy},
    [VERB_QUIT]  = {on_quit,       on_quit,       on_quit,       on_quit,       on_quit},
    [VERB_OTHER] = {unknown,       unknown,       unknown,       unknown,       unknown},
};
/* clang-format on */

static enum verb verb_of(struct span word)
{
    static const char names[VERB_OTHER][5] = {"HELO", "EHLO", "MAIL", "RCPT", "DATA",
                                              "BDAT", "RSET", "NOOP", "VRFY", "QUIT"};

    for (unsigned i = 0; i < VERB_OTHER && word.n == 4; i++)
        if (span_ieq(word, span_of(names[i], 4)))
            return (enum verb)i;
    return VERB_OTHER;
}

static void take_command(struct sink_session *c, struct span line)
{
    size_t n = 0;

    MUST(c->state < SESSION_DATA);
    while (n < line.n && line.p[n] != ' ')
        n++;
    enum verb verb = verb_of(span_of(line.p, n));
    struct span argument = trim(span_of(line.p + n, line.n - n));
    enum session_state next = table[verb][c->state](c, argument);
    if (c->state != SESSION_CLOSING)
        c->state = next;
    if (c->state == SESSION_CHUNK && c->tx.chunk_left == 0)
        end_chunk(c);
}

static void advance(struct span *s, size_t n)
{
    s->p += n;
    s->n -= n;
}

/* False when a whole line is not there yet. */
static bool feed_command(struct sink_session *c, struct span *s)
{
    const uint8_t *lf = memchr(s->p, '\n', s->n);
    size_t n = lf != NULL ? (size_t)(lf - s->p) : s->n;

    if (n > SINK_LINE_BYTES_MAX) {
        struct verdict v = {VERDICT_REPLY, 0, "421 5.5.2 Line too long\r\n"};
        sink_session_answer(c, &v, NULL);
        c->state = SESSION_CLOSING;
        return false;
    }
    if (lf == NULL)
        return false;
    struct span line = span_of(s->p, n);
    if (n > 0 && line.p[n - 1] == '\r')
        line.n--;
    advance(s, n + 1);
    take_command(c, line);
    return true;
}

static void feed_chunk(struct sink_session *c, struct span *s)
{
    size_t n = s->n < c->tx.chunk_left ? s->n : (size_t)c->tx.chunk_left;

    content_feed_chunk(&c->tx.content, span_of(s->p, n));
    advance(s, n);
    c->tx.chunk_left -= n;
    if (c->tx.chunk_left == 0)
        end_chunk(c);
}

/* A slow session waits before its next read, not before it uses what it has read. */
static bool may_feed(const struct sink_session *c)
{
    return c->pause == PAUSE_NONE || c->pause == PAUSE_SLOW;
}

void sink_dialog_feed(struct sink_session *c, struct span *s)
{
    bool ended;

    while (s->n > 0 && may_feed(c) && c->state != SESSION_CLOSING) {
        if (c->state == SESSION_DATA) {
            advance(s, content_feed(&c->tx.content, *s, &ended));
            if (ended)
                end_message(c);
        } else if (c->state == SESSION_CHUNK) {
            feed_chunk(c, s);
        } else if (!feed_command(c, s)) {
            return;
        }
    }
}
