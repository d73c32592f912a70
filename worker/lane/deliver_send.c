/*
 * What one transaction sends: whether the peer can take it, as it is or made 7-bit.
 *
 * Invariant: from job_send on the content is either in job.content (the peer gets it piece by piece
 * as it is) or whole in piece, converted.
 */
#include "worker/lane/deliver_impl.h"

#include "base/log.h"
#include "proto/mime_downgrade.h"
#include "worker/fault.h"

#include <errno.h>
#include <stdlib.h>

/* The content as the client wants it. */
struct load {
    struct span piece;
    uint64_t wire_bytes, dots;
    bool last, is_8bit;
};

static bool find_rcpts(struct outbound *o)
{
    struct queue *q = outbound_queue(o);
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
    struct queue *q = outbound_queue(o);
    const struct qmsg *m = outbound_msg(o);
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

/* The peer cannot take it and never will. */
static void refuse(struct outbound *o, enum reason reason, struct smtp_enhanced status,
                   const char *text)
{
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.stage = STAGE_MAIL;
    f.reason = reason;
    f.status = status;
    f.reply = span_str(text);
    job_settle(o, VERDICT_PERM, &f, NULL);
    job_wipe(o);
    outbound_rest(o);
}

/* What the peer cannot take is found before a byte is sent (EXT-02, EXT-21). True: it can, as far
 * as that goes. */
static bool peer_can(struct outbound *o, uint64_t raw_bytes)
{
    const struct smtp_offer *offer = smtp_client_offer(o->client);
    const struct enq *e = &o->job.enq;
    if (offer->size && offer->size_max > 0 && raw_bytes > offer->size_max)
        refuse(o, REASON_TOO_BIG, (struct smtp_enhanced){5, 3, 4},
               "the message is larger than the host accepts (SIZE)");
    else if ((e->flags & ENQ_UTF8_ENVELOPE) && !offer->smtputf8)
        refuse(o, REASON_NO_UTF8, (struct smtp_enhanced){5, 6, 7},
               "the host does not take internationalised addresses (SMTPUTF8)");
    else if ((e->flags & ENQ_UTF8_HEADER) && !offer->smtputf8)
        refuse(o, REASON_NO_UTF8, (struct smtp_enhanced){5, 6, 9},
               "the host does not take internationalised headers (SMTPUTF8)");
    else
        return true;
    return false;
}

/* Our own disk or memory: later, without using up an attempt. */
void job_content_lost(struct outbound *o)
{
    struct fate_facts f;
    outbound_fill_facts(o, &f);
    f.reason = REASON_READ_FAILED;
    f.status = (struct smtp_enhanced){4, 3, 0};
    f.reply = span_str(reason_text(REASON_READ_FAILED));
    f.ours = true;
    job_settle(o, VERDICT_TEMP, &f, NULL);
}

void job_content_failed(struct outbound *o, enum reason reason)
{
    struct queue *q = outbound_queue(o);
    if (reason != REASON_DAMAGED) {
        job_content_lost(o);
    } else {
        for (unsigned i = 0; i < o->job.count;
             i++) { /* parked: a damaged message is reported, never sent */
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

static void submit(struct outbound *o, const struct load *l)
{
    struct queue *q = outbound_queue(o);
    const struct enq *e = &o->job.enq;
#ifdef MOCHILA_FAULTS
    fault_on_rcpts(o->job.rcpts, o->job.count);
#endif
    o->started_ms = queue_now_ms(q);
    say_attempt(o);
    flow_took_message(q, o->flow);
    struct client_job job = {.sender = e->sender,
                             .rcpts = o->job.rcpts,
                             .rcpt_count = o->job.count,
                             .utf8 = (e->flags & (ENQ_UTF8_ENVELOPE | ENQ_UTF8_HEADER)) != 0,
                             .body_8bit = l->is_8bit,
                             .raw_bytes = l->wire_bytes - l->dots,
                             .wire_bytes = l->wire_bytes,
                             .stuffed = l->dots > 0,
                             .piece = l->piece,
                             .last = l->last};
    o->job.chunk = 0;
    o->state = OUT_SENDING;
    smtp_client_send(o->client, &job);
}

/* --- for a host without 8BITMIME (EXT-04) --- */

/* The whole message is in piece: converts it and sends that. */
static void send_converted(struct outbound *o)
{
    size_t room = mime_downgrade_room(o->piece_bytes);
    struct writer w = writer_of(malloc(room), room);
    if (w.p == NULL) {
        job_content_failed(o, REASON_READ_FAILED);
        return;
    }
    struct load l = {.last = true};
    int r = mime_downgrade(span_of(o->piece, o->piece_bytes), &w, &l.dots);
    free(o->piece);
    o->piece = realloc(w.p, w.n + 1);
    if (o->piece == NULL)
        o->piece = w.p; /* it could not be made smaller: it is right as it is */
    o->piece_bytes = w.n;
    if (r != 0) {
        refuse(o, REASON_NO_8BIT, (struct smtp_enhanced){5, 6, 3},
               "the message is 8-bit, cannot be converted, and the host does not take that "
               "(8BITMIME)");
        return;
    }
    l.piece = span_of(o->piece, o->piece_bytes);
    l.wire_bytes = o->piece_bytes;
    if (peer_can(o, l.wire_bytes - l.dots))
        submit(o, &l);
}

static void read_rest(struct outbound *o);

static void on_part(struct spool_read *r, int res, const struct record_view *v)
{
    struct outbound *o = (struct outbound *)((char *)r - offsetof(struct outbound, read));
    o->read_pending = false;
    if (o->state == OUT_CLOSING) {
        outbound_release(o);
        return;
    }
    uint64_t whole = o->job.enq.trace_bytes + o->job.enq.body_bytes;
    if (res != 0 || v->rest.n > whole - o->piece_bytes) {
        job_content_failed(o, REASON_READ_FAILED);
        return;
    }
    memcpy(o->piece + o->piece_bytes, v->rest.p, v->rest.n);
    o->piece_bytes += v->rest.n;
    read_rest(o);
}

/* A chunked body is read whole: its parts can begin and end anywhere. */
static void read_rest(struct outbound *o)
{
    struct queue *q = outbound_queue(o);
    struct qmsg *m = outbound_msg(o);
    if (o->job.chunk == o->job.enq.chunk_count) {
        struct msg_id was = work_on(q, o->job.id);
        send_converted(o);
        work_on(q, was);
        return;
    }
    const struct record_place *places;
    uint16_t n = shard_chunks(q, m, &places);
    if (o->job.chunk >= n) {
        job_content_failed(o, REASON_READ_FAILED);
        return;
    }
    o->state = OUT_READING;
    o->reading = places[o->job.chunk++];
    if (job_read(o, m, on_part) != 0)
        job_content_failed(o, REASON_READ_FAILED);
}

static void convert(struct outbound *o)
{
    const struct content *c = o->job.content;
    uint64_t whole = o->job.enq.trace_bytes + o->job.enq.body_bytes;
    MUST(c->rest_bytes <= whole);
    free(o->piece);
    o->piece = malloc(whole);
    if (o->piece == NULL) {
        job_content_failed(o, REASON_READ_FAILED);
        return;
    }
    memcpy(o->piece, c->rest, c->rest_bytes);
    o->piece_bytes = c->rest_bytes;
    read_rest(o);
}

static void give_to_client(struct outbound *o)
{
    const struct enq *e = &o->job.enq;
    const struct content *c = o->job.content;
    if (!find_rcpts(o)) { /* the envelope does not hold its recipients */
        job_content_failed(o, REASON_DAMAGED);
        return;
    }
    struct load l = {.piece = span_of(c->rest, c->rest_bytes),
                     .wire_bytes = e->body_bytes + e->trace_bytes,
                     .dots = e->dots,
                     .last = e->chunk_count == 0,
                     .is_8bit = (e->flags & ENQ_8BIT) != 0};
    if (!peer_can(o, l.wire_bytes - l.dots))
        return;
    if (l.is_8bit && !smtp_client_offer(o->client)->eightbitmime)
        convert(o);
    else
        submit(o, &l);
}

void job_send(struct outbound *o)
{
    struct queue *q = outbound_queue(o);
    struct msg_id was = work_on(q, o->job.id);
    give_to_client(o);
    work_on(q, was);
}
