/*
 * One transaction: which entries, their content, and what the peer said about each.
 *
 * Invariant: entries[i] is the entry of recipient i, IN_FLIGHT, or 0 once its outcome is settled. Content stays referenced until the
 * client no longer reads it.
 */
#include "worker/lane/deliver_impl.h"

#include "base/log.h"
#include "worker/fault.h"

#include <errno.h>
#include <stdlib.h>

enum { EXPIRED_PER_TAKE = 64 };

static struct queue *queue_of(const struct outbound *o)
{
    return o->deliver->queue;
}

static struct qmsg *msg_of(const struct outbound *o)
{
    return store_find(&queue_of(o)->store, o->job.id);
}

void job_wipe(struct outbound *o)
{
    if (!id_is_none(o->job.id)) {
        MUST(o->deliver->busy > 0);
        o->deliver->busy--;
    }
    content_unref(&o->job.content);
    free(o->piece);
    o->piece = NULL;
    memset(&o->job, 0, sizeof o->job);
}

/* Settles the entries still open with one outcome. */
static void settle_all(struct outbound *o, enum verdict v, const struct fate_facts *f,
                       struct spool_wait *wait)
{
    struct queue *q = queue_of(o);
    struct qentry *open[CLIENT_RCPTS_MAX];
    struct span rcpts[CLIENT_RCPTS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < o->job.count; i++) {
        if (o->job.entries[i] == 0)
            continue;
        rcpts[n] = o->job.content != NULL ? o->job.rcpts[i] : span_of(NULL, 0);
        open[n++] = store_entry(&q->store, o->job.entries[i]);
        o->job.entries[i] = 0;
    }
    for (unsigned i = 0; i < n; i++)
        flow_at(q, open[i]->flow)->in_flight--;
    if (o->fate_pending)
        wait = NULL; /* the one before is awaited already */
    struct fate_set set = {.entries = open, .rcpts = rcpts, .count = n};
    if (n > 0 && fates_apply(q, &set, v, f, wait))
        o->fate_pending = true;
}

static void return_all(struct outbound *o, bool front)
{
    struct queue *q = queue_of(o);
    for (unsigned k = 0; k < o->job.count; k++) {
        unsigned i = front ? o->job.count - 1u - k : k; /* their order stays what it was */
        if (o->job.entries[i] == 0)
            continue;
        struct qentry *e = store_entry(&q->store, o->job.entries[i]);
        o->job.entries[i] = 0;
        flow_at(q, e->flow)->in_flight--;
        fates_return(q, e, front);
    }
}

void job_return_more(struct outbound *o)
{
    struct queue *q = queue_of(o);
    while (o->more_count > 0) {
        struct qentry *e = store_entry(&q->store, o->more[--o->more_count]);
        flow_at(q, e->flow)->in_flight--;
        fates_return(q, e, true);
    }
}

/* --- taking --- */

static bool make_room(struct outbound *o, uint32_t count)
{
    if (count <= o->room)
        return true;
    uint32_t *e = realloc(o->entry_room, count * sizeof *e);
    if (e != NULL)
        o->entry_room = e;
    struct span *s = realloc(o->rcpt_room, count * sizeof *s);
    if (s != NULL)
        o->rcpt_room = s;
    if (e == NULL || s == NULL)
        return false;
    o->room = count;
    return true;
}

static uint32_t rcpts_most(const struct outbound *o)
{
    uint32_t most = site_at(queue_of(o), o->flow->site)->limits->recipients;
    uint32_t theirs = smtp_client_offer(o->client)->rcpt_max;
    if (most == 0 || most > CLIENT_RCPTS_MAX)
        most = CLIENT_RCPTS_MAX;
    if (theirs > 0 && theirs < most)
        most = theirs;
    return most;
}

/* The recipients of one message and one domain that are ready in this flow share a transaction (CLI-05, CLI-26). */
static void take_entries(struct outbound *o, struct qentry *first)
{
    struct queue *q = queue_of(o);
    struct qmsg *m = store_msg(&q->store, first->msg);
    uint32_t most = rcpts_most(o);
    uint32_t flow = flow_index(q, o->flow);
    if (!make_room(o, m->live < most ? m->live : most))
        return;
    o->job.entries = o->entry_room;
    o->job.rcpts = o->rcpt_room;
    o->job.id = m->id;
    o->deliver->busy++;
    for (uint32_t i = m->first; i != 0 && o->job.count < most;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state != ENTRY_READY || e->flow != flow || e->domain != first->domain)
            continue;
        flow_take(q, o->flow, e);
        entry_set_state(q, e, ENTRY_IN_FLIGHT);
        e->flow = flow;
        e->reason = REASON_IN_FLIGHT;
        o->flow->in_flight++;
        o->job.entries[o->job.count++] = store_entry_index(&q->store, e);
    }
}

static bool find_rcpts(struct outbound *o)
{
    struct queue *q = queue_of(o);
    struct span s = o->job.enq.rcpts;
    struct enq_rcpt r;
    unsigned at = 0;
    while (at < o->job.count && enq_rcpt_next(&s, &r))
        if (r.index == store_entry(&q->store, o->job.entries[at])->index)
            o->job.rcpts[at++] = r.address;
    return at == o->job.count;
}

static void say_attempt(struct outbound *o)
{
    struct queue *q = queue_of(o);
    const struct qmsg *m = msg_of(o);
    const struct lane *l = &q->lanes[m->lane];
    for (unsigned i = 0; i < o->job.count; i++) {
        const struct qentry *e = store_entry(&q->store, o->job.entries[i]);
        struct event v = {.what = "attempt",
                          .id = o->job.id,
                          .index = e->index,
                          .rcpt = o->job.rcpts[i],
                          .lane = span_str(l->name),
                          .mx = span_str(o->path.current->name),
                          .remote = &o->remote,
                          .attempt = e->attempts + 1u};
        events_put(q->env.events, io_now_unix_ms(q->env.io), &v);
    }
    q->env.stats->attempts += o->job.count;
    if (l->stats != NULL)
        l->stats->attempts += o->job.count;
}

/* What the peer cannot take is found before a byte is sent (EXT-02, EXT-04, EXT-21). True: it can. */
static bool peer_can(struct outbound *o)
{
    const struct smtp_offer *offer = smtp_client_offer(o->client);
    const struct enq *e = &o->job.enq;
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.stage = STAGE_MAIL;
    uint64_t raw = e->body_bytes - e->dots + e->trace_bytes;
    if (offer->size && offer->size_max > 0 && raw > offer->size_max) {
        f.reason = REASON_TOO_BIG;
        f.status = (struct smtp_enhanced){5, 3, 4};
        f.reply = span_str("the message is larger than the host accepts (SIZE)");
    } else if ((e->flags & ENQ_UTF8_ENVELOPE) && !offer->smtputf8) {
        f.reason = REASON_NO_UTF8;
        f.status = (struct smtp_enhanced){5, 6, 7};
        f.reply = span_str("the host does not take internationalised addresses (SMTPUTF8)");
    } else if ((e->flags & ENQ_UTF8_HEADER) && !offer->smtputf8) {
        f.reason = REASON_NO_UTF8;
        f.status = (struct smtp_enhanced){5, 6, 9};
        f.reply = span_str("the host does not take internationalised headers (SMTPUTF8)");
    } else if ((e->flags & ENQ_8BIT) && !offer->eightbitmime) {
        f.reason = REASON_NO_8BIT;
        f.status = (struct smtp_enhanced){5, 6, 3};
        f.reply = span_str("the message is 8-bit and the host does not take that (8BITMIME)");
    } else {
        return true;
    }
    settle_all(o, VERDICT_PERM, &f, NULL);
    return false;
}

/* Our own disk or memory: later, without using up an attempt. */
static void content_lost(struct outbound *o)
{
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.reason = REASON_READ_FAILED;
    f.status = (struct smtp_enhanced){4, 3, 0};
    f.reply = span_str(reason_text(REASON_READ_FAILED));
    f.ours = true;
    settle_all(o, VERDICT_TEMP, &f, NULL);
}

static void content_failed(struct outbound *o, enum reason reason)
{
    struct queue *q = queue_of(o);
    if (reason != REASON_DAMAGED) {
        content_lost(o);
    } else {
        for (unsigned i = 0; i < o->job.count; i++) { /* parked: a damaged message is reported, never sent */
            struct qentry *e = store_entry(&q->store, o->job.entries[i]);
            flow_at(q, e->flow)->in_flight--;
            e->flow = 0;
            e->reason = REASON_DAMAGED;
            entry_set_state(q, e, ENTRY_PARKED);
        }
        q->env.stats->damaged++;
        char id[ID_TEXT + 1];
        id_format(o->job.id, id);
        log_err("message %s is damaged on disk: parked, `mochila show %s`", id, id);
    }
    job_wipe(o);
    outbound_rest(o);
}

static void give_to_client(struct outbound *o)
{
    struct queue *q = queue_of(o);
    const struct enq *e = &o->job.enq;
    if (!find_rcpts(o)) { /* the envelope does not hold its recipients */
        content_failed(o, REASON_DAMAGED);
        return;
    }
    if (!peer_can(o)) {
        job_wipe(o);
        outbound_rest(o);
        return;
    }
#ifdef MOCHILA_FAULTS
    fault_on_rcpts(o->job.rcpts, o->job.count);
#endif
    o->started_ms = queue_now_ms(q);
    say_attempt(o);
    flow_took_message(q, o->flow);
    const struct content *c = o->job.content;
    struct client_job job = {.sender = e->sender,
                             .rcpts = o->job.rcpts,
                             .rcpt_count = o->job.count,
                             .utf8 = (e->flags & (ENQ_UTF8_ENVELOPE | ENQ_UTF8_HEADER)) != 0,
                             .body_8bit = (e->flags & ENQ_8BIT) != 0,
                             .raw_bytes = e->body_bytes - e->dots + e->trace_bytes,
                             .wire_bytes = e->body_bytes + e->trace_bytes,
                             .stuffed = e->dots > 0,
                             .piece = span_of(c->rest, c->rest_bytes),
                             .last = e->chunk_count == 0};
    o->state = OUT_SENDING;
    smtp_client_send(o->client, &job);
}

static void hand_over(struct outbound *o)
{
    struct queue *q = queue_of(o);
    struct msg_id was = work_on(q, o->job.id);
    give_to_client(o);
    work_on(q, was);
}

static int start_read(struct outbound *o, const struct qmsg *m,
                      void (*on_read)(struct spool_read *, int, const struct record_view *))
{
    o->read.on_read = on_read;
    int r = spool_read(queue_of(o)->lanes[m->lane].shard->spool, &o->read, &o->reading);
    o->read_pending = r == 0;
    return r;
}

static void on_record(struct spool_read *r, int res, const struct record_view *v)
{
    struct outbound *o = (struct outbound *)((char *)r - offsetof(struct outbound, read));
    struct qmsg *m = msg_of(o);
    o->read_pending = false;
    if (o->state == OUT_CLOSING) {
        outbound_release(o);
        return;
    }
    MUST(m != NULL); /* its entries are in flight */
    if (res == -EBADMSG && (m->segment != o->reading.segment || m->offset != o->reading.offset)) {
        o->reading = msg_place(m); /* compaction moved it meanwhile */
        if (start_read(o, m, on_record) == 0)
            return;
    }
    if (res != 0) {
        content_failed(o, res == -EBADMSG ? REASON_DAMAGED : REASON_READ_FAILED);
        return;
    }
    struct content *c = content_create((uint32_t)v->rest.n + 1);
    if (c == NULL || content_set_meta(c, v->meta) != 0) {
        content_unref(&c);
        content_failed(o, REASON_READ_FAILED);
        return;
    }
    memcpy(c->rest, v->rest.p, v->rest.n);
    c->rest_bytes = (uint32_t)v->rest.n;
    o->job.content = c;
    if (enq_read(span_of(c->meta, c->meta_bytes), &o->job.enq) != 0) {
        content_failed(o, REASON_DAMAGED);
        return;
    }
    hand_over(o);
}

/* The entries are chosen: gets their message's content, from the cache or the log. */
static void load(struct outbound *o)
{
    struct queue *q = queue_of(o);
    struct qmsg *m = msg_of(o);
    struct content *c = msg_content(m);
    if (c != NULL) {
        q->env.stats->cache_hits++;
        o->job.content = content_ref(c);
        int r = enq_read(span_of(c->meta, c->meta_bytes), &o->job.enq);
        MUST(r == 0);
        hand_over(o);
        return;
    }
    q->env.stats->read_backs++;
    o->state = OUT_READING;
    o->reading = msg_place(m);
    if (start_read(o, m, on_record) != 0)
        content_failed(o, REASON_READ_FAILED);
}

bool job_take(struct outbound *o)
{
    struct queue *q = queue_of(o);
    struct qentry *e = NULL;
    for (unsigned i = 0; i < EXPIRED_PER_TAKE && (e = flow_next(q, o->flow)) != NULL; i++) {
        if (store_msg(&q->store, e->msg)->expires_s > queue_now_unix_s(q))
            break;
        entry_expire(q, e); /* the sweep has not come by yet */
        e = NULL;
    }
    if (e == NULL) {
        flow_mark(q, o->flow);
        return false;
    }
    take_entries(o, e);
    if (o->job.count == 0)
        return false;
    load(o);
    return true;
}

/* Wanted, and not ended or held meanwhile. */
static void take_if_open(struct outbound *o, uint32_t entry)
{
    struct queue *q = queue_of(o);
    struct qentry *e = store_entry(&q->store, entry);
    if (e->cancel == FATE_NONE && !q->held_some) {
        o->job.entries[o->job.count++] = entry;
        return;
    }
    flow_at(q, e->flow)->in_flight--;
    fates_return(q, e, true);
}

bool job_take_more(struct outbound *o)
{
    struct queue *q = queue_of(o);
    if (o->more_count == 0)
        return false;
    if (q->paused || flow_is_held(q, o->flow) || o->flow->suspended_until_ms > queue_now_ms(q)) {
        job_return_more(o);
        return false;
    }
    MUST(o->more_count <= o->room);
    uint32_t count = o->more_count;
    o->more_count = 0;
    o->job.entries = o->entry_room;
    o->job.rcpts = o->rcpt_room;
    struct msg_id id = store_msg(&q->store, store_entry(&q->store, o->more[0])->msg)->id;
    for (uint32_t i = 0; i < count; i++)
        take_if_open(o, o->more[i]);
    if (o->job.count == 0) {
        o->job.entries = NULL;
        o->job.rcpts = NULL;
        return false;
    }
    o->job.id = id;
    o->deliver->busy++;
    load(o);
    return true;
}

/* --- what the peer said --- */

/* "Too many": it goes on this connection at once when this transaction is over. */
static bool keep_for_more(struct outbound *o, unsigned i)
{
    if (o->more_room < o->room) {
        uint32_t *p = realloc(o->more, o->room * sizeof *p);
        if (p == NULL)
            return false;
        o->more = p;
        o->more_room = o->room;
    }
    o->more[o->more_count++] = o->job.entries[i];
    o->job.entries[i] = 0;
    return true;
}

void job_on_rcpt(void *owner, unsigned i, const struct smtp_reply *r)
{
    struct outbound *o = owner;
    struct queue *q = queue_of(o);
    struct classification c;
    classify_reply(STAGE_RCPT, r, o->job.accepted > 0, &c);
    if (c.verdict == VERDICT_OK) {
        o->job.accepted++;
        return;
    }
    if (o->job.entries[i] == 0)
        return;
    if (c.verdict == VERDICT_MORE && keep_for_more(o, i))
        return;
    struct qentry *e = store_entry(&q->store, o->job.entries[i]);
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.stage = STAGE_RCPT;
    f.reason = c.reason;
    f.status = c.status;
    f.reply = span_of(r->text, r->text_bytes);
    o->job.entries[i] = 0;
    flow_at(q, e->flow)->in_flight--;
    struct fate_set one = {.entries = &e, .rcpts = &o->job.rcpts[i], .count = 1};
    fates_apply(q, &one, c.verdict, &f, NULL);
    flow_judge(q, o->flow, &c, f.reply);
}

static void note_dot(struct outbound *o, struct spool_wait *wait)
{
    struct queue *q = queue_of(o);
    uint8_t indices[2 * CLIENT_RCPTS_MAX];
    uint16_t n = 0;
    for (unsigned i = 0; i < o->job.count; i++) {
        if (o->job.entries[i] == 0)
            continue;
        struct qentry *e = store_entry(&q->store, o->job.entries[i]);
        uint16_t index = e->index;
        e->in_doubt = 1;
        indices[2 * n] = (uint8_t)index;
        indices[2 * n + 1] = (uint8_t)(index >> 8);
        n++;
    }
    const struct qmsg *m = msg_of(o);
    struct note_facts f = {.type = RECORD_DOT, .lane = &q->lanes[m->lane]};
    f.outcome = (struct outcome){.id = o->job.id,
                                 .at_unix_ms = io_now_unix_ms(q->env.io),
                                 .remote = o->remote,
                                 .count = n,
                                 .indices = span_of(indices, 2u * n)};
    shard_note(f.lane->shard, &f, wait);
}

static bool has_open(const struct outbound *o)
{
    for (unsigned i = 0; i < o->job.count; i++)
        if (o->job.entries[i] != 0)
            return true;
    return false;
}

bool job_on_dot(void *owner)
{
    struct outbound *o = owner;
    if (o->fate_pending) {
        o->state = OUT_GATED; /* at most one delivery a connection may be unrecorded at a crash */
        return false;
    }
    if (o->job.chunk != 0)
        return true;
    o->job.chunk = 1;
    if (!has_open(o))
        return true; /* sent ahead, and everybody has been refused meanwhile: there is no doubt to note */
    const struct qmsg *m = msg_of(o);
    if (queue_of(o)->tenants[m->tenant].in_doubt == IN_DOUBT_RETRY) {
        note_dot(o, NULL);
        return true;
    }
    o->fate_pending = true; /* the tenant wants no doubt: the dot waits for its record */
    o->state = OUT_GATED;
    note_dot(o, &o->fate_wait);
    return false;
}

static void on_chunk(struct spool_read *r, int res, const struct record_view *v)
{
    struct outbound *o = (struct outbound *)((char *)r - offsetof(struct outbound, read));
    o->read_pending = false;
    if (o->state == OUT_CLOSING) {
        outbound_release(o);
        return;
    }
    uint8_t *piece = res == 0 ? malloc(v->rest.n) : NULL;
    if (piece == NULL) {
        smtp_client_abort(o->client);
        return;
    }
    memcpy(piece, v->rest.p, v->rest.n);
    free(o->piece); /* on_more: it has left */
    o->piece = piece;
    o->piece_bytes = v->rest.n;
    bool last = o->job.chunk == o->job.enq.chunk_count + 1u;
    smtp_client_more(o->client, span_of(piece, o->piece_bytes), last);
}

void job_on_more(void *owner)
{
    struct outbound *o = owner;
    struct queue *q = queue_of(o);
    struct qmsg *m = msg_of(o);
    const struct record_place *places;
    uint16_t n = m == NULL ? 0 : shard_chunks(q, m, &places);
    unsigned at = o->job.chunk - 1u;
    if (at >= n) {
        smtp_client_abort(o->client);
        return;
    }
    o->job.chunk++;
    o->reading = places[at];
    if (start_read(o, m, on_chunk) != 0)
        smtp_client_abort(o->client);
}

/* Every recipient still open gets this reply. Returns what the reply means. */
static struct classification settle_by_reply(struct outbound *o, enum smtp_stage stage,
                                             const struct smtp_reply *r)
{
    struct classification c;
    classify_reply(stage, r, false, &c);
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.stage = stage;
    f.reason = c.verdict == VERDICT_OK ? REASON_DELIVERED : c.reason;
    f.status = c.status;
    f.reply = span_of(r->text, r->text_bytes);
    settle_all(o, c.verdict == VERDICT_MORE ? VERDICT_TEMP : c.verdict, &f, &o->fate_wait);
    return c;
}

void job_on_done(void *owner, enum smtp_stage stage, const struct smtp_reply *r)
{
    struct outbound *o = owner;
    o->transactions++;
    struct classification c = settle_by_reply(o, stage, r);
    job_wipe(o);
    if (c.verdict == VERDICT_OK || (c.scope != SCOPE_PAIR && c.scope != SCOPE_SITE))
        flow_succeeded(queue_of(o), o->flow, o->opened_ms, o->started_ms);
    else if (stage != STAGE_RCPT) /* that one was heard in job_on_rcpt */
        flow_judge(queue_of(o), o->flow, &c, span_of(r->text, r->text_bytes));
}

static void in_doubt(struct outbound *o, const struct client_failure *f)
{
    struct fate_facts facts;
    outbound_fill_facts(o, &facts);
    facts.stage = f->dot_sent ? STAGE_DOT : f->stage;
    facts.reason = f->dot_sent ? REASON_IN_DOUBT : o->path.reason;
    facts.status = (struct smtp_enhanced){4, 4, 2};
    facts.reply = span_str(f->dot_sent ? "connection lost after the final dot: possible duplicate"
                                       : "connection lost while the message was sent");
    if (f->dot_sent)
        queue_of(o)->env.stats->in_doubt++;
    settle_all(o, VERDICT_TEMP, &facts, NULL);
}

/*
 * Whose fault was it? A reply in the middle of the content is about the message. A connection that ended is the host's own trouble and
 * uses up no attempt (CLI-10), unless the final dot was out (CLI-09) or a fresh connection died without a word at this message.
 */
void job_broken(struct outbound *o, const struct client_failure *f)
{
    if (id_is_none(o->job.id))
        return;
    bool fresh = o->transactions == 0;
    if (f->err == -ECANCELED && f->dot_sent) {
        in_doubt(o, f);
    } else if (f->err == -ECANCELED) {
        content_lost(o);
    } else if (f->reply != NULL && f->reply->code >= 400 && f->reply->code != 421) {
        settle_by_reply(o, STAGE_DOT, f->reply);
    } else if ((f->reply == NULL || f->reply->code < 400) &&
               (f->dot_sent || f->stage == STAGE_DATA || fresh)) {
        in_doubt(o, f);
    } else {
        return_all(o, !fresh); /* at which a fresh connection ended must not stand in the way of others */
    }
}
