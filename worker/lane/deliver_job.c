/*
 * One transaction: which entries, their content, and what the peer said about each.
 *
 * Invariant: entries[i] is the entry of recipient i, IN_FLIGHT, or 0 once its outcome is settled.
 * Content stays referenced until the client no longer reads it.
 */
#include "worker/lane/deliver_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum { EXPIRED_PER_TAKE = 64 };

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

void job_settle(struct outbound *o, enum verdict v, const struct fate_facts *f,
                struct spool_wait *wait)
{
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    uint32_t most = site_at(outbound_queue(o), o->flow->site)->limits->recipients;
    uint32_t theirs = smtp_client_offer(o->client)->rcpt_max;
    if (most == 0 || most > CLIENT_RCPTS_MAX)
        most = CLIENT_RCPTS_MAX;
    if (theirs > 0 && theirs < most)
        most = theirs;
    return most;
}

/* The recipients of one message and one domain that are ready in this flow share a transaction
 * (CLI-05, CLI-26). */
static void take_entries(struct outbound *o, struct qentry *first)
{
    struct queue *q = outbound_queue(o);
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

int job_read(struct outbound *o, const struct qmsg *m,
             void (*on_read)(struct spool_read *, int, const struct record_view *))
{
    o->read.on_read = on_read;
    int r = spool_read(outbound_queue(o)->lanes[m->lane].shard->spool, &o->read, &o->reading);
    o->read_pending = r == 0;
    return r;
}

static void on_record(struct spool_read *r, int res, const struct record_view *v)
{
    struct outbound *o = (struct outbound *)((char *)r - offsetof(struct outbound, read));
    struct qmsg *m = outbound_msg(o);
    o->read_pending = false;
    if (o->state == OUT_CLOSING) {
        outbound_release(o);
        return;
    }
    MUST(m != NULL); /* its entries are in flight */
    if (res == -EBADMSG && (m->segment != o->reading.segment || m->offset != o->reading.offset)) {
        o->reading = msg_place(m); /* compaction moved it meanwhile */
        if (job_read(o, m, on_record) == 0)
            return;
    }
    if (res != 0) {
        job_content_failed(o, res == -EBADMSG ? REASON_DAMAGED : REASON_READ_FAILED);
        return;
    }
    struct content *c = content_create((uint32_t)v->rest.n + 1);
    if (c == NULL || content_set_meta(c, v->meta) != 0) {
        content_unref(&c);
        job_content_failed(o, REASON_READ_FAILED);
        return;
    }
    memcpy(c->rest, v->rest.p, v->rest.n);
    c->rest_bytes = (uint32_t)v->rest.n;
    o->job.content = c;
    if (enq_read(span_of(c->meta, c->meta_bytes), &o->job.enq) != 0) {
        job_content_failed(o, REASON_DAMAGED);
        return;
    }
    job_send(o);
}

/* The entries are chosen: gets their message's content, from the cache or the log. */
static void load(struct outbound *o)
{
    struct queue *q = outbound_queue(o);
    struct qmsg *m = outbound_msg(o);
    struct content *c = msg_content(m);
    if (c != NULL) {
        q->env.stats->cache_hits++;
        o->job.content = content_ref(c);
        int r = enq_read(span_of(c->meta, c->meta_bytes), &o->job.enq);
        MUST(r == 0);
        job_send(o);
        return;
    }
    q->env.stats->read_backs++;
    o->state = OUT_READING;
    o->reading = msg_place(m);
    if (job_read(o, m, on_record) != 0)
        job_content_failed(o, REASON_READ_FAILED);
}

bool job_take(struct outbound *o)
{
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
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
    const struct qmsg *m = outbound_msg(o);
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
        return true; /* sent ahead, and everybody has been refused meanwhile: there is no doubt to
                        note */
    const struct qmsg *m = outbound_msg(o);
    if (outbound_queue(o)->tenants[m->tenant].in_doubt == IN_DOUBT_RETRY) {
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
    struct queue *q = outbound_queue(o);
    struct qmsg *m = outbound_msg(o);
    const struct record_place *places;
    uint16_t n = m == NULL ? 0 : shard_chunks(q, m, &places);
    unsigned at = o->job.chunk - 1u;
    if (at >= n) {
        smtp_client_abort(o->client);
        return;
    }
    o->job.chunk++;
    o->reading = places[at];
    if (job_read(o, m, on_chunk) != 0)
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
    job_settle(o, c.verdict == VERDICT_MORE ? VERDICT_TEMP : c.verdict, &f, &o->fate_wait);
    return c;
}

void job_on_done(void *owner, enum smtp_stage stage, const struct smtp_reply *r)
{
    struct outbound *o = owner;
    o->transactions++;
    struct classification c = settle_by_reply(o, stage, r);
    job_wipe(o);
    if (c.verdict == VERDICT_OK || (c.scope != SCOPE_PAIR && c.scope != SCOPE_SITE))
        flow_succeeded(outbound_queue(o), o->flow, o->opened_ms, o->started_ms);
    else if (stage != STAGE_RCPT) /* that one was heard in job_on_rcpt */
        flow_judge(outbound_queue(o), o->flow, &c, span_of(r->text, r->text_bytes));
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
        outbound_queue(o)->env.stats->in_doubt++;
    job_settle(o, VERDICT_TEMP, &facts, NULL);
}

/*
 * Whose fault was it? A reply in the middle of the content is about the message. A connection that
 * ended is the host's own trouble and uses up no attempt (CLI-10), unless the final dot was out
 * (CLI-09) or a fresh connection died without a word at this message.
 */
void job_broken(struct outbound *o, const struct client_failure *f)
{
    if (id_is_none(o->job.id))
        return;
    bool fresh = o->transactions == 0;
    if (!f->in_job) {
        return_all(o, !fresh); /* its content was still being read */
    } else if (f->err == -ECANCELED && f->dot_sent) {
        in_doubt(o, f);
    } else if (f->err == -ECANCELED) {
        job_content_lost(o);
    } else if (f->reply != NULL && f->reply->code >= 400 && f->reply->code != 421) {
        settle_by_reply(o, STAGE_DOT, f->reply);
    } else if ((f->reply == NULL || f->reply->code < 400) &&
               (f->dot_sent || f->stage == STAGE_DATA || fresh)) {
        in_doubt(o, f);
    } else {
        return_all(
            o, !fresh); /* at which a fresh connection ended must not stand in the way of others */
    }
}
