/*
 * The message while it grows, its end, and its way to the owners of its lanes.
 *
 * Invariants: content->rest begins with our trace field, then holds the body in wire form (CRLF,
 * dots doubled) as far as it is not in chunks already; a message that is to be refused is read to
 * its end without being stored; memory of one message is bounded by two chunks.
 */
#include "worker/smtp/server_impl.h"

#include "base/log.h"
#include "proto/trace_field.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <stdlib.h>

enum {
    FIRST_ROOM = 4096,
    CONTENT_TOTAL_MAX =
        1 << 30 /* bytes of message content of this process: beyond, mail is refused for now */
};

bool server_normalises(const struct smtp_server *s)
{
    return s->listener->bare == BARE_NORMALISE;
}

/* What is true of the text that is kept. */
static const struct data_scan *facts(const struct smtp_server *s)
{
    return server_normalises(s) ? &s->txn->stored : &s->txn->scan;
}

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
                            .rdns = span_str(s->client_name_leads_back ? s->client_name : ""),
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

bool body_begin(struct smtp_server *s)
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
    data_scan_init(&t->stored);
    if (t->content == NULL || put_trace(s) != 0)
        return false;
    t->begun = true;
    return true;
}

/* --- growing --- */

void body_skip(struct txn *t, const char *refusal)
{
    if (t->skip)
        return;
    t->skip = true;
    t->refusal = refusal;
    content_unref(&t->content);
}

/* Doubles, so that a long body is not copied often. */
bool body_reserve(struct txn *t, size_t n)
{
    uint32_t need = t->content->rest_bytes + (uint32_t)n;
    if (need <= t->content->rest_cap)
        return true;
    uint32_t cap = t->content->rest_cap * 2;
    return content_reserve(t->content, cap > need ? cap : need) == 0;
}

static uint32_t body_in_memory(const struct txn *t)
{
    return t->content->rest_bytes - t->trace_bytes;
}

size_t body_room(const struct txn *t)
{
    MUST(body_in_memory(t) <= LIMIT_BODY_CHUNK_BYTES + TAIL_KEPT);
    return LIMIT_BODY_CHUNK_BYTES + TAIL_KEPT - body_in_memory(t);
}

void body_add(struct smtp_server *s, struct span in, bool stuff)
{
    struct txn *t = s->txn;
    bool as_it_is = !stuff && !server_normalises(s);
    if (!body_reserve(t, as_it_is ? in.n : 2 * in.n + 2)) {
        body_skip(t, "451 4.3.0 Out of memory, try again later\r\n");
        return;
    }
    uint8_t *at = t->content->rest + t->content->rest_bytes;
    size_t n = in.n;
    if (!as_it_is)
        n = wire_form(in, server_normalises(s), stuff, &t->wire_state, at);
    else if (n > 0)
        memcpy(at, in.p, n);
    if (server_normalises(s))
        bdat_scan_feed(&t->stored, span_of(at, n));
    t->content->rest_bytes += (uint32_t)n;
}

/* RFC 1870 5: octets with CRLF, without the dots that DATA doubles. */
static uint64_t message_bytes(const struct txn *t)
{
    return t->scan.bytes - (t->bdat ? 0 : t->scan.dots);
}

void body_check_limits(struct smtp_server *s)
{
    struct txn *t = s->txn;
    const struct config *g = s->set->env.config;
    const struct data_scan *f = facts(s);
    if (message_bytes(t) > g->smtp.size_max)
        body_skip(t, "552 5.3.4 Message is larger than the limit\r\n");
    else if (f->received_fields >= g->smtp.received_max)
        body_skip(t, "554 5.4.6 Too many hops: the message loops\r\n");
    else if (f->header_bytes > LIMIT_HEADER_BYTES || f->header_fields > LIMIT_HEADER_FIELDS)
        body_skip(t, "552 5.3.4 Header section is too large\r\n");
    else if (f->line_bytes_max > LIMIT_TEXT_LINE_BYTES)
        body_skip(t, "554 5.6.0 A line is too long\r\n");
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
    e->lifetime_s =
        t->sender_bytes > 0 ? tenant->lifetime_s : s->set->env.config->queue.bounce_lifetime_s;
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
        s->errors = 0; /* a long dialog of real mail is no attack */
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
    const struct data_scan *f = facts(s);
    e->trace_bytes = t->trace_bytes;
    e->body_bytes = t->body_bytes;
    e->dots = f->dots;
    e->flags = 0;
    if (f->has_8bit)
        e->flags |= ENQ_8BIT;
    if (t->utf8 && f->has_8bit_header)
        e->flags |= ENQ_UTF8_HEADER;
    if (t->utf8_rcpt)
        e->flags |= ENQ_UTF8_ENVELOPE;
    if (f->line_bytes_max > 998)
        e->flags |= ENQ_LONG_LINES;
    if (t->body == SMTP_BODY_8BITMIME)
        e->flags |= ENQ_BODY_8BITMIME;
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
    if ((t->scan.bare_cr > 0 || t->scan.bare_lf > 0) && !server_normalises(s))
        return "550 5.5.2 Lines must end with CRLF: bare CR or LF found\r\n";
    return NULL;
}

void body_finish(struct smtp_server *s)
{
    struct txn *t = s->txn;
    t->end_ns = io_now_ns(s->set->env.io);
    if (!t->skip)
        body_check_limits(s);
    const char *no = verdict(s);
    if (no != NULL) {
        refuse(s, no);
        return;
    }
    int r = open_submission(s);
    if (r != 0) {
        refuse(s, failure_reply(r));
        return;
    }
    server_enter(s, SV_WAIT);
    uint32_t in_memory = body_in_memory(t);
    t->body_bytes += in_memory;
    if (!t->submission.chunked && in_memory <= LIMIT_BODY_CHUNK_BYTES &&
        in_memory + server_envelope_bytes(t) <= SERVER_ENVELOPE_BYTES) {
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
    if (s->state == SV_CLOSING)
        return;
    uint32_t given = body_in_memory(t) - TAIL_KEPT;
    memmove(c->rest + t->trace_bytes, c->rest + t->trace_bytes + given, TAIL_KEPT);
    c->rest_bytes = t->trace_bytes + TAIL_KEPT;
    t->body_bytes += given;
    if (res != 0)
        body_skip(t, failure_reply(res));
    if (t->bdat && t->chunk_left == 0) {
        server_enter(s, SV_CHUNK);
        server_chunk_over(s);
        if (s->state == SV_WAIT || s->state == SV_CLOSING)
            return;
        server_resume(s, s->state);
        return;
    }
    server_resume(s, t->bdat ? SV_CHUNK : SV_DATA);
    if (s->direct && s->state == SV_DATA)
        server_on_filled(s, 0);
}

bool body_give_chunk(struct smtp_server *s)
{
    struct txn *t = s->txn;
    if (t->skip || body_in_memory(t) < LIMIT_BODY_CHUNK_BYTES)
        return false;
    uint32_t n = body_in_memory(t) - TAIL_KEPT;
    MUST(n <= LIMIT_BODY_CHUNK_BYTES);
    int r = open_submission(s);
    if (r != 0) {
        body_skip(t, failure_reply(r));
        return false;
    }
    server_enter(s, SV_WAIT);
    t->submission.on_chunk = on_chunk_taken;
    submission_chunk(&t->submission, span_of(t->content->rest + t->trace_bytes, n));
    return true;
}
