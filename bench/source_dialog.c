/*
 * The client's side of SMTP as a table: what the next reply answers x the class of the reply.
 *
 * Invariants: replies come in the order of commands, so the transaction at the head of the ring is
 * the one that `await` is about; the others have been sent ahead and await the answer to MAIL. In
 * pipelined mode the next envelope rides with the end of data of the one before (RFC 2920 3.1), in
 * chunking mode up to `window` whole messages are under way (RFC 3030 4.2).
 */
#include "bench/source_private.h"

#include <errno.h>

enum reply_class { REPLY_OK, REPLY_GO, REPLY_TEMP, REPLY_PERM, REPLY_COUNT };
enum fate { FATE_ACCEPTED, FATE_TEMPORARY, FATE_PERMANENT, FATE_LOST, FATE_UNTRIED };
enum { BACKOFF_DOUBLINGS = 6, COMMAND_BYTES = 400 };

typedef enum await reply_action(struct source_conn *c, unsigned code);

static struct transaction *head(struct source_conn *c)
{
    MUST(c->open > 0);
    return &c->ring[c->head];
}

static enum source_mode mode_of(const struct source_conn *c)
{
    enum source_mode mode = c->source->options->mode;

    if (mode == SOURCE_CHUNKING && !c->offers_chunking)
        mode = SOURCE_PIPELINED;
    if (mode == SOURCE_PIPELINED && !c->offers_pipelining)
        mode = SOURCE_BARE;
    return mode;
}

/* ---- what is sent ---- */

static void queue_mail(struct source_conn *c)
{
    char line[COMMAND_BYTES];
    int n = snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", c->source->options->from);

    outbuf_text(&c->out, span_of(line, (size_t)n));
}

static size_t rcpt_address(const struct source *s, uint64_t number, uint32_t rcpt,
                           char out[COMMAND_BYTES])
{
    struct span domain = message_plan_domain(s->plan, number);
    size_t n = 0;

    out[n++] = 'r';
    if (rcpt >= 100)
        out[n++] = (char)('0' + rcpt / 100);
    if (rcpt >= 10)
        out[n++] = (char)('0' + rcpt / 10 % 10);
    out[n++] = (char)('0' + rcpt % 10);
    out[n++] = '@';
    memcpy(out + n, domain.p, domain.n);
    return n + domain.n;
}

static void queue_rcpt(struct source_conn *c, const struct transaction *t, uint32_t rcpt)
{
    char address[COMMAND_BYTES];
    size_t n = rcpt_address(c->source, t->job.number, rcpt, address);

    outbuf_text(&c->out, span_of("RCPT TO:<", 9));
    outbuf_text(&c->out, span_of(address, n));
    outbuf_text(&c->out, span_of(">\r\n", 3));
}

static void queue_content(struct source_conn *c, struct transaction *t, bool as_chunk)
{
    const struct message_template *m = message_plan_template(c->source->plan, t->job.number);
    struct identity id = {t->job.number, now_ns(), c->source->run};
    char text[MESSAGE_HEAD_BYTES_MAX];
    size_t n = message_head(text, m, id);

    if (as_chunk) {
        char command[32];
        int bytes = snprintf(command, sizeof command, "BDAT %zu LAST\r\n", n + m->plain.n);
        outbuf_text(&c->out, span_of(command, (size_t)bytes));
    }
    outbuf_text(&c->out, span_of(text, n));
    outbuf_borrow(&c->out, as_chunk ? m->plain : m->wire);
    if (!as_chunk)
        outbuf_text(&c->out, span_of(".\r\n", 3));
    t->end_queued = true;
}

static void queue_transaction(struct source_conn *c, struct transaction *t)
{
    enum source_mode mode = mode_of(c);
    uint32_t i = rcpt_set_next(&t->job.pending, 0);

    t->rcpt = i;
    queue_mail(c);
    if (mode == SOURCE_BARE)
        return;
    for (; i < RCPT_SET_MAX; i = rcpt_set_next(&t->job.pending, i + 1))
        queue_rcpt(c, t, i);
    if (mode == SOURCE_CHUNKING)
        queue_content(c, t, true);
    else
        outbuf_puts(&c->out, "DATA\r\n");
}

static bool may_begin(const struct source_conn *c)
{
    const struct source_options *o = c->source->options;
    uint32_t window = mode_of(c) == SOURCE_CHUNKING ? (uint32_t)o->window : 1;

    if (c->link != LINK_UP || c->resync || c->source->is_ending || o->idle)
        return false;
    if (c->await < AWAIT_MAIL && c->await != AWAIT_NOTHING)
        return false;
    if (c->await == AWAIT_RSET || c->await == AWAIT_QUIT)
        return false;
    /* The head whose end of data is on its way leaves room for the next envelope behind it. */
    if (mode_of(c) == SOURCE_PIPELINED && c->open == 1 && c->ring[c->head].end_queued)
        window = 2;
    if (o->per_connection != 0 && c->messages >= o->per_connection)
        return false;
    size_t bytes = c->source->group_bytes_max + MESSAGE_HEAD_BYTES_MAX;
    return c->open < window && outbuf_has_room(&c->out, 3, bytes);
}

static void begin(struct source_conn *c, const struct job *job)
{
    uint32_t place = (c->head + c->open) % SOURCE_WINDOW_MAX;
    struct transaction *t = &c->ring[place];

    MUST(c->open < SOURCE_WINDOW_MAX);
    MUST(!rcpt_set_is_empty(&job->pending));
    *t = (struct transaction){.job = *job};
    c->open++;
    c->messages++;
    if (c->open == 1) {
        MUST(c->await == AWAIT_NOTHING);
        c->await = AWAIT_MAIL;
    }
    if (c->source->stats.first_ns == 0)
        c->source->stats.first_ns = now_ns();
    queue_transaction(c, t);
}

static void quit(struct source_conn *c)
{
    outbuf_puts(&c->out, "QUIT\r\n");
    c->await = AWAIT_QUIT;
}

void source_dialog_pump(struct source_conn *c)
{
    struct source *s = c->source;
    struct job job;
    uint64_t due_ns;

    while (may_begin(c)) {
        enum work_answer answer = source_work_take(&s->work, s->at_ns, &job, &due_ns);
        if (answer != WORK_JOB) {
            source_conn_park(c);
            return;
        }
        begin(c, &job);
    }
    bool worn = s->options->per_connection != 0 && c->messages >= s->options->per_connection;
    if (c->await == AWAIT_NOTHING && c->link == LINK_UP && (s->is_ending || worn))
        quit(c);
}

/* ---- what became of a message ---- */

static void write_record(struct source *s, const struct transaction *t)
{
    char key[IDENTITY_KEY_BYTES + 1];
    char address[COMMAND_BYTES];

    if (s->record == NULL)
        return;
    identity_write_key(key, s->run, t->job.number);
    fwrite(key, 1, IDENTITY_KEY_BYTES, s->record);
    for (uint32_t i = rcpt_set_next(&t->accepted, 0); i < RCPT_SET_MAX;
         i = rcpt_set_next(&t->accepted, i + 1)) {
        size_t n = rcpt_address(s, t->job.number, i, address);
        fputc(' ', s->record);
        fwrite(address, 1, n, s->record);
    }
    fputc('\n', s->record);
}

static void count_accepted(struct source_conn *c, const struct transaction *t)
{
    struct source_stats *stats = &c->source->stats;
    const struct message_template *m = message_plan_template(c->source->plan, t->job.number);
    uint64_t at_ns = now_ns();

    stats->messages_accepted++;
    stats->recipients_accepted += rcpt_set_count(&t->accepted);
    stats->bytes_accepted += m->plain.n;
    stats->last_ns = at_ns;
    /* Not stamped: the reply came before the kernel took the last byte of what follows. */
    histogram_add(&stats->latency, t->end_sent_ns != 0 ? at_ns - t->end_sent_ns : 0);
    c->failures = 0;
    write_record(c->source, t);
}

static void count_refused(struct source_stats *stats, const struct transaction *t, enum fate fate)
{
    if (fate == FATE_TEMPORARY)
        stats->messages_temporary++;
    else if (fate == FATE_PERMANENT)
        stats->messages_permanent++;
    else if (fate == FATE_LOST && t->end_queued)
        stats->in_doubt++;
}

/* Recipients that a further attempt is for. */
static struct rcpt_set left_over(const struct transaction *t, enum fate fate)
{
    struct rcpt_set left = t->job.pending;

    if (fate == FATE_ACCEPTED || fate == FATE_PERMANENT)
        return t->temporary;
    left.w[0] &= ~t->permanent.w[0];
    left.w[1] &= ~t->permanent.w[1];
    return left;
}

static void settle_head(struct source_conn *c, enum fate fate)
{
    struct source *s = c->source;
    struct transaction *t = head(c);
    struct job job = t->job;

    if (fate == FATE_ACCEPTED)
        count_accepted(c, t);
    else
        count_refused(&s->stats, t, fate);
    job.pending = left_over(t, fate);
    c->head = (c->head + 1) % SOURCE_WINDOW_MAX;
    c->open--;
    if (fate == FATE_UNTRIED) {
        source_work_later(&s->work, &job, s->at_ns);
        return;
    }
    if (rcpt_set_is_empty(&job.pending) || !s->options->retry) {
        s->stats.given_up += fate != FATE_ACCEPTED;
        source_work_done(&s->work);
        return;
    }
    uint32_t doublings = job.attempts < BACKOFF_DOUBLINGS ? job.attempts : BACKOFF_DOUBLINGS;
    job.attempts++;
    s->stats.retries++;
    source_work_later(&s->work, &job,
                      s->at_ns + (s->options->retry_delay_ms * ns_per_ms << doublings));
}

void source_dialog_settle_loss(struct source_conn *c)
{
    while (c->open > 0)
        settle_head(c, head(c)->end_queued ? FATE_LOST : FATE_UNTRIED);
}

static enum await next_head(struct source_conn *c)
{
    if (c->open > 0)
        return AWAIT_MAIL;
    if (!c->resync)
        return AWAIT_NOTHING;
    c->resync = false;
    outbuf_puts(&c->out, "RSET\r\n");
    return AWAIT_RSET;
}

/* Ends a transaction whose envelope the server has still open: RSET before the next. */
static enum await abandon(struct source_conn *c, enum fate fate)
{
    settle_head(c, fate);
    c->resync = true;
    return next_head(c);
}

static enum fate fate_of(const struct transaction *t)
{
    return t->code / 100 == 5 ? FATE_PERMANENT : FATE_TEMPORARY;
}

/* ---- the table ---- */

static void note_refusal(struct transaction *t, unsigned code)
{
    if (t->code == 0)
        t->code = (uint16_t)code;
}

static enum await protocol_error(struct source_conn *c, unsigned code)
{
    (void)code;
    c->source->stats.protocol_errors++;
    source_conn_lost(c, "unexpected reply");
    return AWAIT_NOTHING;
}

static enum await greeted(struct source_conn *c, unsigned code)
{
    char line[COMMAND_BYTES];

    (void)code;
    c->offers_chunking = false;
    c->offers_pipelining = false;
    snprintf(line, sizeof line, "EHLO %s\r\n", c->source->options->ehlo);
    outbuf_puts(&c->out, line);
    return AWAIT_EHLO;
}

static enum await turned_away(struct source_conn *c, unsigned code)
{
    (void)code;
    c->source->stats.connect_errors++;
    source_conn_lost(c, "turned away");
    return AWAIT_NOTHING;
}

static enum await ready(struct source_conn *c, unsigned code)
{
    static const char *const names[] = {"bare", "pipelined", "chunking"};
    struct source *s = c->source;

    (void)code;
    if (mode_of(c) != s->options->mode && !s->has_warned) {
        s->has_warned = true;
        fprintf(stderr, "source: the server does not offer what --mode %s needs: sending %s\n",
                names[s->options->mode], names[mode_of(c)]);
    }
    return AWAIT_NOTHING;
}

static enum await after_rcpts(struct source_conn *c)
{
    if (mode_of(c) == SOURCE_CHUNKING)
        return AWAIT_DOT;
    if (mode_of(c) == SOURCE_PIPELINED)
        return AWAIT_DATA;
    if (rcpt_set_is_empty(&head(c)->accepted))
        return abandon(c, fate_of(head(c)));
    outbuf_puts(&c->out, "DATA\r\n");
    return AWAIT_DATA;
}

static enum await next_rcpt(struct source_conn *c)
{
    struct transaction *t = head(c);

    t->rcpt = rcpt_set_next(&t->job.pending, t->rcpt + 1);
    if (t->rcpt == RCPT_SET_MAX)
        return after_rcpts(c);
    if (mode_of(c) == SOURCE_BARE)
        queue_rcpt(c, t, t->rcpt);
    return AWAIT_RCPT;
}

static enum await mail_accepted(struct source_conn *c, unsigned code)
{
    (void)code;
    if (mode_of(c) == SOURCE_BARE)
        queue_rcpt(c, head(c), head(c)->rcpt);
    return AWAIT_RCPT;
}

static enum await mail_refused(struct source_conn *c, unsigned code)
{
    note_refusal(head(c), code);
    head(c)->mail_refused = true;
    if (mode_of(c) == SOURCE_BARE)
        return abandon(c, fate_of(head(c)));
    return AWAIT_RCPT;
}

static enum await rcpt_accepted(struct source_conn *c, unsigned code)
{
    (void)code;
    rcpt_set_add(&head(c)->accepted, head(c)->rcpt);
    return next_rcpt(c);
}

static enum await rcpt_refused(struct source_conn *c, unsigned code)
{
    struct transaction *t = head(c);

    /* After a refused MAIL, the refusals of its RCPTs say nothing about the recipients. */
    if (!t->mail_refused) {
        bool is_temporary = code / 100 == 4;
        rcpt_set_add(is_temporary ? &t->temporary : &t->permanent, t->rcpt);
        c->source->stats.recipients_temporary += is_temporary;
        c->source->stats.recipients_permanent += !is_temporary;
    }
    note_refusal(t, code);
    return next_rcpt(c);
}

static enum await data_go(struct source_conn *c, unsigned code)
{
    struct transaction *t = head(c);

    (void)code;
    if (rcpt_set_is_empty(&t->accepted))
        outbuf_puts(&c->out, ".\r\n"); /* RFC 2920 3.1: the server took DATA without a recipient */
    else
        queue_content(c, t, false);
    return AWAIT_DOT;
}

static enum await data_refused(struct source_conn *c, unsigned code)
{
    note_refusal(head(c), code);
    return abandon(c, fate_of(head(c)));
}

static enum await dot_accepted(struct source_conn *c, unsigned code)
{
    struct transaction *t = head(c);

    (void)code;
    if (!rcpt_set_is_empty(&t->accepted))
        settle_head(c, FATE_ACCEPTED);
    else
        settle_head(c, fate_of(t)); /* an empty message to nobody */
    return next_head(c);
}

static enum await dot_refused(struct source_conn *c, unsigned code)
{
    struct transaction *t = head(c);
    bool had_envelope = !rcpt_set_is_empty(&t->accepted);

    /* Sent ahead behind a failed chunk: refused for its sake, not for its own. */
    if (c->resync && code == 503 && (t->code == 503 || had_envelope)) {
        settle_head(c, FATE_UNTRIED);
        return next_head(c);
    }
    if (had_envelope)
        t->code = 0;
    note_refusal(t, code);
    if (mode_of(c) == SOURCE_CHUNKING)
        return abandon(c, fate_of(t));
    settle_head(c, fate_of(t));
    return next_head(c);
}

static enum await reset_done(struct source_conn *c, unsigned code)
{
    (void)c;
    (void)code;
    return AWAIT_NOTHING;
}

static enum await quit_done(struct source_conn *c, unsigned code)
{
    (void)code;
    source_conn_end(c);
    return AWAIT_NOTHING;
}

/* clang-format off */
static reply_action *const table[AWAIT_COUNT][REPLY_COUNT] = {
    /*                  2yz              3yz              4yz              5yz            */
    [AWAIT_NOTHING]  = {protocol_error,  protocol_error,  protocol_error,  protocol_error},
    [AWAIT_GREETING] = {greeted,         protocol_error,  turned_away,     turned_away},
    [AWAIT_EHLO]     = {ready,           protocol_error,  turned_away,     turned_away},
    [AWAIT_MAIL]     = {mail_accepted,   protocol_error,  mail_refused,    mail_refused},
    [AWAIT_RCPT]     = {rcpt_accepted,   protocol_error,  rcpt_refused,    rcpt_refused},
    [AWAIT_DATA]     = {protocol_error,  data_go,         data_refused,    data_refused},
    [AWAIT_DOT]      = {dot_accepted,    protocol_error,  dot_refused,     dot_refused},
    [AWAIT_RSET]     = {reset_done,      protocol_error,  protocol_error,  protocol_error},
    [AWAIT_QUIT]     = {quit_done,       quit_done,       quit_done,       quit_done},
};
/* clang-format on */

static void note_code(struct source *s, unsigned code, struct span line)
{
    MUST(code < SOURCE_CODES);
    s->stats.codes[code]++;
    if (code >= 400)
        source_note_error(s, line);
}

void source_dialog_line(struct source_conn *c, struct span line)
{
    if (c->await != AWAIT_EHLO || line.n < 5)
        return;
    struct span word = span_of(line.p + 4, line.n - 4);
    if (span_ieq(word, span_str("PIPELINING")))
        c->offers_pipelining = true;
    else if (span_ieq(word, span_str("CHUNKING")))
        c->offers_chunking = true;
}

void source_dialog_reply(struct source_conn *c, unsigned code, struct span line)
{
    MUST(code >= 200);
    MUST(code < 600);
    note_code(c->source, code, line);
    source_dialog_line(c, line);
    if (code == 421 && c->await != AWAIT_QUIT) {
        /* A clear answer to the end of data, not a doubt. */
        if (c->await == AWAIT_DOT) {
            note_refusal(head(c), code);
            settle_head(c, FATE_TEMPORARY);
        }
        source_conn_lost(c, "421");
        return;
    }
    enum await next = table[c->await][code / 100 - 2](c, code);
    if (c->link != LINK_UP)
        return;
    c->await = next;
    source_dialog_pump(c);
}
