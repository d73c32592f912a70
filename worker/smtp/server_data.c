/*
 * Message bytes: DATA, BDAT, and what happens at their end.
 *
 * Invariants: content->rest begins with our trace field, then holds the body in wire form (CRLF, dots doubled) as far as it is not in chunks already;
 * a message that is to be refused is read to its end without being stored; memory of one message is bounded by two chunks.
 */
#include "worker/smtp/server_impl.h"

#include "base/log.h"
#include "proto/trace_field.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <stdlib.h>

enum {
    FIRST_ROOM = 4096,
    DIRECT_FROM = 32 << 10,      /* bytes of a body after which receives go straight into the content */
    TAIL_KEPT = 8,               /* never given away before the end is known: ".CRLF" may be split */
    CONTENT_TOTAL_MAX = 1 << 30  /* bytes of message content of this process: beyond, mail is refused for now */
};

bool server_no_room(const struct smtp_server *s)
{
    const struct queue *q = s->set->env.queue;
    if (content_total() > CONTENT_TOTAL_MAX)
        return true;
    if (q->store.entries.used >= q->store.entries.count_max)
        return true;
    for (uint32_t i = 0; i < q->shard_count; i++)
        if (spool_health(q->shards[i]->spool) != SPOOL_OK)
            return true;
    return false;
}

/* --- beginning --- */

static struct span rcpt_text(const struct txn *t, uint32_t i)
{
    return span_of(t->text + t->rcpts[i].offset, t->rcpts[i].bytes);
}

static int put_trace(struct smtp_server *s)
{
    struct txn *t = s->txn;
    char line[LIMIT_TRACE_BYTES];
    struct text out = text_of(line, sizeof line);
    struct trace_facts f = {.helo = span_str(s->helo),
                            .client = s->client,
                            .by = span_str(s->set->env.config->hostname),
                            .with = trace_with(s->esmtp, false, false, t->utf8),
                            .id = t->id,
                            .time_unix_s = io_now_unix_ms(s->set->env.io) / 1000};
    if (t->rcpt_count == 1)
        f.only_rcpt = rcpt_text(t, 0);
    trace_field_put(&out, &f);
    if (out.cut)
        return -E2BIG;
    memcpy(t->content->rest, out.p, out.n);
    t->content->rest_bytes = (uint32_t)out.n;
    t->trace_bytes = (uint32_t)out.n;
    return 0;
}

/* Id, trace and room for the body; false: no memory, answered. */
static bool begin(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->begun)
        return true;
    uint32_t room = FIRST_ROOM;
    if (t->size_declared > 0 && t->size_declared < LIMIT_BODY_CHUNK_BYTES)
        room = (uint32_t)t->size_declared + LIMIT_TRACE_BYTES + 512;
    t->content = content_create(room);
    t->id = intake_id(s->set->env.intake);
    data_scan_init(&t->scan);
    if (t->content == NULL || put_trace(s) != 0)
        return false;
    t->begun = true;
    return true;
}

void server_begin_data(struct smtp_server *s)
{
    if (server_no_room(s)) {
        server_reply(s, "452 4.3.1 No room for mail now, try again later\r\n");
        return;
    }
    if (!begin(s)) {
        server_wipe_txn(s);
        server_enter(s, SV_READY);
        server_reply(s, "451 4.3.0 Out of memory, try again later\r\n");
        return;
    }
    server_enter(s, SV_DATA);
    server_reply(s, "354 End data with <CR><LF>.<CR><LF>\r\n");
}

void server_begin_chunk(struct smtp_server *s, const struct smtp_command *c)
{
    struct txn *t = s->txn;
    if (t == NULL) { /* out of order: a transaction that only swallows the octets */
        t = server_need_txn(s);
        if (t == NULL) {
            server_reply(s, "421 4.3.2 Too many transactions\r\n");
            server_close(s);
            return;
        }
        t->bdat_failed = true;
        t->orphan = true;
        t->refusal = s->state == SV_NEW ? "503 5.5.1 EHLO first\r\n" : "503 5.5.1 MAIL first\r\n";
    } else if (s->state == SV_MAIL) {
        t->bdat_failed = true;
        t->refusal = "503 5.5.1 RCPT first\r\n";
    }
    t->bdat = true;
    t->chunk_left = c->size;
    t->bdat_last = c->last;
    if (!t->bdat_failed && !begin(s)) {
        t->bdat_failed = true;
        t->refusal = "451 4.3.0 Out of memory, try again later\r\n";
    }
    if (!t->bdat_failed && server_no_room(s)) {
        t->bdat_failed = true;
        t->refusal = "452 4.3.1 No room for mail now, try again later\r\n";
    }
    if (!t->bdat_failed && t->body_bytes + c->size > s->set->env.config->smtp.size_max) {
        t->bdat_failed = true;
        t->refusal = "552 5.3.4 Message is larger than the limit\r\n";
    }
    if (c->size > s->set->env.config->smtp.size_max * 2 && c->size > 1u << 30) {
        /* Nobody sends that: the connection cannot be brought back into step. */
        server_reply(s, "552 5.3.4 Chunk is larger than any limit\r\n");
        server_close(s);
        return;
    }
    server_enter(s, SV_CHUNK);
    if (t->chunk_left == 0)
        server_take_chunk(s, span_of(NULL, 0));
}

/* --- storing --- */

static void skip(struct txn *t, const char *refusal)
{
    if (t->skip)
        return;
    t->skip = true;
    t->refusal = refusal;
    content_unref(&t->content);
}

/* Room for n more bytes: doubles, so that a long body is not copied often. */
static bool reserve(struct txn *t, size_t n)
{
    uint32_t need = t->content->rest_bytes + (uint32_t)n;
    if (need <= t->content->rest_cap)
        return true;
    uint32_t cap = t->content->rest_cap * 2;
    return content_reserve(t->content, cap > need ? cap : need) == 0;
}

static void check_limits(struct smtp_server *s)
{
    struct txn *t = s->txn;
    const struct config *g = s->set->env.config;
    if (t->scan.bytes > g->smtp.size_max)
        skip(t, "552 5.3.4 Message is larger than the limit\r\n");
    else if (t->scan.received_fields > g->smtp.received_max)
        skip(t, "554 5.4.6 Too many hops: the message loops\r\n");
    else if (t->scan.header_bytes > LIMIT_HEADER_BYTES || t->scan.header_fields > LIMIT_HEADER_FIELDS)
        skip(t, "552 5.3.4 Header section is too large\r\n");
    else if (t->scan.line_bytes_max > LIMIT_TEXT_LINE_BYTES)
        skip(t, "554 5.6.0 A line is too long\r\n");
}

/* --- the submission --- */

static int open_submission(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->submitted)
        return 0;
    t->list = malloc(t->rcpt_count * sizeof *t->list);
    if (t->list == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->rcpt_count; i++)
        t->list[i] = (struct submission_rcpt){
            .address = rcpt_text(t, i), .lane = t->rcpts[i].lane, .index = (uint16_t)i};
    t->submission.rcpts = t->list;
    t->submission.rcpt_count = t->rcpt_count;
    const struct tenant *tenant = &s->set->env.queue->tenants[s->tenant];
    struct enq *e = &t->submission.enq;
    e->id = t->id;
    e->received_unix_ms = io_now_unix_ms(s->set->env.io);
    e->lifetime_s = t->sender_bytes > 0 ? tenant->lifetime_s
                                        : s->set->env.config->queue.bounce_lifetime_s;
    e->class_ = tenant->class_;
    e->client = s->client;
    e->tenant = span_str(tenant->name);
    e->helo = span_str(s->helo);
    e->sender = span_of(t->text + t->sender_offset, t->sender_bytes);
    int r = submission_open(s->set->env.intake, &t->submission);
    t->submitted = r == 0;
    return r;
}

static void say_accepted(struct smtp_server *s)
{
    struct txn *t = s->txn;
    struct smtp_servers *set = s->set;
    const struct enq *e = &t->submission.enq;
    for (uint32_t i = 0; i < t->rcpt_count; i++) {
        struct event v = {.what = "accepted",
                          .id = t->id,
                          .index = (int)i,
                          .rcpt = t->list[i].address,
                          .sender = e->sender,
                          .tenant = e->tenant,
                          .lane = span_str(t->list[i].lane->name),
                          .client = &s->client,
                          .helo = e->helo,
                          .bytes = e->body_bytes + e->trace_bytes};
        events_put(set->env.events, e->received_unix_ms, &v);
    }
    set->env.stats->accepted_messages++;
    set->env.stats->accepted_recipients += t->rcpt_count;
    set->env.stats->accepted_bytes += e->body_bytes + e->trace_bytes;
}

static void count_latency(struct smtp_server *s, uint64_t from_ns)
{
    uint64_t now = io_now_ns(s->set->env.io);
    uint64_t us = now > from_ns ? (now - from_ns) / 1000 : 0;
    unsigned i = 0;
    while (i < 63 && (us >> (i / 2)) > (i % 2 == 0 ? 0u : 1u))
        i++;
    s->set->env.stats->accept_us[i]++;
}

static const char *failure_reply(int res)
{
    switch (res) {
    case -ENOSPC:
        return "452 4.3.1 No room for mail now, try again later\r\n";
    case -E2BIG:
        return "451 4.3.0 Too many different routes in one transaction, send them apart\r\n";
    default:
        return "451 4.3.0 The message could not be stored, try again later\r\n";
    }
}

static void on_committed(struct submission *sub, int res)
{
    struct txn *t = (struct txn *)((char *)sub - offsetof(struct txn, submission));
    struct smtp_server *s = t->session;
    char reply[128];
    if (res == 0) {
        char id[ID_TEXT + 1];
        id_format(t->id, id);
        snprintf(reply, sizeof reply, "250 2.0.0 Queued as %s\r\n", id);
        say_accepted(s);
        count_latency(s, t->end_ns);
    } else {
        snprintf(reply, sizeof reply, "%s", failure_reply(res));
        s->set->env.stats->tempfailed++;
    }
    server_reply(s, reply);
    server_wipe_txn(s);
    if (s->state != SV_CLOSING)
        server_resume(s, SV_READY);
}

static void fill_enq(struct smtp_server *s)
{
    struct txn *t = s->txn;
    struct enq *e = &t->submission.enq;
    e->trace_bytes = t->trace_bytes;
    e->body_bytes = t->body_bytes;
    e->dots = t->scan.dots;
    e->flags = 0;
    if (t->scan.has_8bit)
        e->flags |= ENQ_8BIT;
    if (t->utf8 && t->scan.has_8bit_header)
        e->flags |= ENQ_UTF8_HEADER;
    if (t->utf8_rcpt)
        e->flags |= ENQ_UTF8_ENVELOPE;
    if (t->scan.line_bytes_max > 998)
        e->flags |= ENQ_LONG_LINES;
    if (t->body == SMTP_BODY_8BITMIME)
        e->flags |= ENQ_BODY_8BITMIME;
    (void)s;
}

/* Everything is in memory or in chunks: the last piece, then the commit. */
static void commit(struct smtp_server *s)
{
    struct txn *t = s->txn;
    fill_enq(s);
    t->submission.content = t->content;
    t->submission.on_done = on_committed;
    submission_commit(&t->submission);
}

static void on_last_chunk(struct submission *sub, int res)
{
    struct txn *t = (struct txn *)((char *)sub - offsetof(struct txn, submission));
    if (res != 0) {
        on_committed(sub, res);
        return;
    }
    t->content->rest_bytes = t->trace_bytes;
    commit(t->session);
}

static void refuse(struct smtp_server *s, const char *reply)
{
    server_reply(s, reply);
    server_wipe_txn(s);
    if (s->state != SV_CLOSING)
        server_resume(s, SV_READY);
}

/* What the end of data finds wrong; NULL: nothing. */
static const char *verdict(const struct smtp_server *s)
{
    const struct txn *t = s->txn;
    if (t->skip)
        return t->refusal;
    if (t->scan.has_nul)
        return "550 5.6.0 The message holds a NUL octet\r\n";
    if ((t->scan.bare_cr > 0 || t->scan.bare_lf > 0) && s->listener->bare == BARE_REJECT)
        return "550 5.5.2 Lines must end with CRLF: bare CR or LF found\r\n";
    return NULL;
}

static bool end_normalised(struct smtp_server *s);

static void finish(struct smtp_server *s)
{
    struct txn *t = s->txn;
    t->end_ns = io_now_ns(s->set->env.io);
    check_limits(s);
    const char *no = verdict(s);
    if (no != NULL) {
        refuse(s, no);
        return;
    }
    if (!end_normalised(s)) {
        refuse(s, "451 4.3.0 Out of memory, try again later\r\n");
        return;
    }
    int r = open_submission(s);
    if (r != 0) {
        refuse(s, failure_reply(r));
        return;
    }
    server_enter(s, SV_WAIT);
    uint32_t in_memory = t->content->rest_bytes - t->trace_bytes;
    t->body_bytes += in_memory;
    if (!t->submission.chunked && in_memory <= LIMIT_BODY_CHUNK_BYTES) {
        commit(s);
        return;
    }
    t->submission.on_chunk = on_last_chunk;
    submission_chunk(&t->submission, span_of(t->content->rest + t->trace_bytes, in_memory));
}

/* --- large bodies --- */

static void on_chunk_taken(struct submission *sub, int res)
{
    struct txn *t = (struct txn *)((char *)sub - offsetof(struct txn, submission));
    struct smtp_server *s = t->session;
    struct content *c = t->content;
    uint32_t given = c->rest_bytes - t->trace_bytes - TAIL_KEPT;
    memmove(c->rest + t->trace_bytes, c->rest + t->trace_bytes + given, TAIL_KEPT);
    c->rest_bytes = t->trace_bytes + TAIL_KEPT;
    t->body_bytes += given;
    if (res != 0)
        skip(t, failure_reply(res));
    server_resume(s, t->bdat ? SV_CHUNK : SV_DATA);
    if (s->direct && s->state == SV_DATA)
        server_on_filled(s, 0);
}

/* The body in memory has grown to a chunk: it goes to the log, and nothing more is read until it is there. */
static bool give_chunk(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->skip || t->content->rest_bytes - t->trace_bytes < LIMIT_BODY_CHUNK_BYTES)
        return false;
    uint32_t n = t->content->rest_bytes - t->trace_bytes - TAIL_KEPT;
    MUST(n <= LIMIT_BODY_CHUNK_BYTES);
    int r = open_submission(s);
    if (r != 0) {
        skip(t, failure_reply(r));
        return false;
    }
    server_enter(s, SV_WAIT);
    t->submission.on_chunk = on_chunk_taken;
    submission_chunk(&t->submission, span_of(t->content->rest + t->trace_bytes, n));
    return true;
}

/* How much more fits before the body in memory is a chunk. */
static size_t chunk_room(const struct txn *t)
{
    return LIMIT_BODY_CHUNK_BYTES + TAIL_KEPT - (t->content->rest_bytes - t->trace_bytes);
}

/* --- DATA --- */

static bool normalises(const struct smtp_server *s)
{
    return s->listener->bare == BARE_NORMALISE;
}

/* A body with bare CR or LF, on a listener that mends them: rewritten once, at the end, while it is all in memory; a larger one is refused. */
static bool end_normalised(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->bdat || (t->scan.bare_cr == 0 && t->scan.bare_lf == 0))
        return true;
    if (t->submission.chunked)
        return false;
    uint32_t n = t->content->rest_bytes - t->trace_bytes;
    uint8_t *raw = malloc(n + 1);
    if (raw == NULL)
        return false;
    size_t raw_bytes = wire_unstuff(span_of(t->content->rest + t->trace_bytes, n), raw);
    struct content *c = content_create((uint32_t)(t->trace_bytes + 2 * raw_bytes + 64));
    if (c == NULL) {
        free(raw);
        return false;
    }
    memcpy(c->rest, t->content->rest, t->trace_bytes);
    uint8_t state = 0;
    size_t out = wire_form(span_of(raw, raw_bytes), true, true, &state, c->rest + t->trace_bytes);
    c->rest_bytes = (uint32_t)(t->trace_bytes + out);
    free(raw);
    content_unref(&t->content);
    t->content = c;
    struct data_scan again; /* the number of doubled dots may have changed with the lines */
    data_scan_init(&again);
    bdat_scan_feed(&again, span_of(c->rest + t->trace_bytes, out));
    t->scan.dots = again.dots;
    return true;
}

size_t server_take_data(struct smtp_server *s, struct span in)
{
    struct txn *t = s->txn;
    if (!t->skip) {
        size_t room = chunk_room(t);
        if (in.n > room)
            in.n = room;
    }
    struct data_scan_result r = data_scan_feed(&t->scan, in);
    if (!t->skip) {
        if (!reserve(t, r.message_bytes)) {
            skip(t, "451 4.3.0 Out of memory, try again later\r\n");
        } else {
            memcpy(t->content->rest + t->content->rest_bytes, in.p, r.message_bytes);
            t->content->rest_bytes += (uint32_t)r.message_bytes;
            t->content->rest_bytes -= (uint32_t)r.excess;
        }
    }
    if (r.done) {
        finish(s);
        return r.consumed;
    }
    check_limits(s);
    give_chunk(s);
    return r.consumed;
}

void server_go_direct(struct smtp_server *s)
{
    const struct txn *t = s->txn;
    if (s->state != SV_DATA || s->direct || s->in_bytes > 0 || t->skip ||
        t->content->rest_bytes < DIRECT_FROM)
        return;
    s->direct = true;
    server_on_filled(s, 0);
}

static void leave_direct(struct smtp_server *s)
{
    s->direct = false;
    if (s->state != SV_CLOSING)
        conn_recv(s->conn);
}

/* Bytes have come straight behind the content (n > 0), or the next receive is to be posted (n == 0). */
void server_on_filled(struct smtp_server *s, size_t n)
{
    struct txn *t = s->txn;
    MUST(s->state == SV_DATA);
    if (n > 0) {
        uint8_t *at = t->content->rest + t->content->rest_bytes;
        struct data_scan_result r = data_scan_feed(&t->scan, span_of(at, n));
        t->content->rest_bytes += (uint32_t)r.message_bytes;
        t->content->rest_bytes -= (uint32_t)r.excess;
        if (r.done) {
            server_keep(s, span_of(at + r.consumed, n - r.consumed));
            s->direct = false;
            conn_recv(s->conn);
            finish(s);
            return;
        }
        check_limits(s);
        if (t->skip) {
            leave_direct(s);
            return;
        }
        if (give_chunk(s))
            return;
    }
    if (!t->skip && !reserve(t, chunk_room(t)))
        skip(t, "451 4.3.0 Out of memory, try again later\r\n");
    if (t->skip) { /* also when the chunk before could not be given away: the content has gone */
        leave_direct(s);
        return;
    }
    size_t room = chunk_room(t);
    conn_recv_into(s->conn, t->content->rest + t->content->rest_bytes, room, false);
}

/* --- BDAT --- */

/* A chunk that is not taken has been read to its end; now it is answered. */
static void swallowed(struct smtp_server *s)
{
    struct txn *t = s->txn;
    const char *no = t->refusal;
    if (t->orphan || (t->rcpt_count > 0 && t->bdat_last)) {
        server_wipe_txn(s);
        server_enter(s, s->helo == NULL ? SV_NEW : SV_READY);
    } else if (t->rcpt_count == 0) {
        t->bdat = t->bdat_failed = false;
        server_enter(s, SV_MAIL);
    } else {
        server_enter(s, SV_BDAT);
    }
    if (no[0] == '5' && no[1] == '0')
        server_error(s, no);
    else
        server_reply(s, no);
}

/* Content that does not end with CRLF gets one: the final dot of DATA needs it. */
static void end_with_crlf(struct txn *t)
{
    if (t->skip)
        return;
    struct content *c = t->content;
    if (memcmp(c->rest + c->rest_bytes - 2, "\r\n", 2) == 0)
        return;
    if (!reserve(t, 2)) {
        skip(t, "451 4.3.0 Out of memory, try again later\r\n");
        return;
    }
    memcpy(c->rest + c->rest_bytes, "\r\n", 2);
    c->rest_bytes += 2;
}

static void chunk_over(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->bdat_failed) {
        swallowed(s);
        return;
    }
    if (t->bdat_last) {
        end_with_crlf(t);
        finish(s);
        return;
    }
    server_enter(s, SV_BDAT);
    server_reply(s, "250 2.0.0 Chunk ok\r\n");
}

size_t server_take_chunk(struct smtp_server *s, struct span in)
{
    struct txn *t = s->txn;
    if (in.n > t->chunk_left)
        in.n = (size_t)t->chunk_left;
    if (!t->bdat_failed && !t->skip) {
        size_t room = chunk_room(t) / 2;
        if (in.n > room)
            in.n = room > 0 ? room : 1;
        bdat_scan_feed(&t->scan, in);
        if (!reserve(t, 2 * in.n + 4)) {
            skip(t, "451 4.3.0 Out of memory, try again later\r\n");
        } else {
            uint8_t *at = t->content->rest + t->content->rest_bytes;
            t->content->rest_bytes +=
                (uint32_t)wire_form(in, normalises(s), true, &t->wire_state, at);
        }
    }
    t->chunk_left -= in.n;
    if (t->chunk_left == 0) {
        chunk_over(s);
        return in.n;
    }
    if (!t->bdat_failed) {
        check_limits(s);
        give_chunk(s);
    }
    return in.n;
}
