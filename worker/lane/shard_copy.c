/*
 * Messages that are written again: by compaction, out of a segment that is to be emptied; or under
 * another lane of the shard, which is how a message changes its lane. It is read and appended with
 * its present state, chunks first.
 *
 * A copy is a chain of reads and appends, so the message may be delivered or change meanwhile:
 * every step looks it up again by id and gives up when it is gone. The new place is taken over when
 * the copy is durable; the old bytes are let go in the same step.
 *
 * The log must say the new lane before the message is in it: what is written about either lane
 * behind the copy, that it is frozen or given away, finds the message where memory has it. No
 * attempt starts meanwhile (entry_place), so nothing is in flight when it is taken over.
 */
#include "worker/lane/role_impl.h"
#include "worker/lane/shard_impl.h"

#include "base/log.h"
#include "worker/lane/adopted.h"

#include <errno.h>
#include <stdlib.h>

/* Messages that change their lane at a time; and their bytes, which are read into memory. */
enum { MOVES_MAX = 1024, MOVES_BYTES = 32 << 20 };

struct copy_job {
    struct copy_job *next, **link;
    struct shard *shard;
    struct lane *to; /* the new lane, or NULL: compaction */
    uint32_t bytes;  /* of the message when it began to move */
    struct msg_id id;
    struct spool_read read;
    struct spool_wait wait;
    struct record_place from;       /* of the message when it was read */
    struct record_place place;      /* of the new ENQ */
    struct record_place *chunks;    /* new places */
    uint16_t chunk_count, chunk;
    uint32_t *chunk_bytes;
};

static struct qmsg *msg_of(const struct copy_job *j)
{
    return store_find(&j->shard->queue->store, j->id);
}

static void done(struct copy_job *j, int res)
{
    struct shard *s = j->shard;
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
    bool compaction = j->to == NULL;
    if (!compaction) {
        s->moves--;
        s->moves_bytes -= j->bytes;
    }
    free(j->chunks);
    free(j->chunk_bytes);
    free(j);
    if (compaction)
        spool_copied(s->spool, res);
}

static void give_up(struct copy_job *j, int res)
{
    shard_drop_chunks(j->shard, j->chunks, j->chunk);
    done(j, res);
}

static void take_place(struct copy_job *j, struct qmsg *m)
{
    struct queue *q = j->shard->queue;
    struct spool *spool = j->shard->spool;
    spool_live(spool, m->segment, -(int64_t)m->bytes);
    m->segment = (uint32_t)j->place.segment;
    m->offset = j->place.offset;
    m->bytes = j->place.bytes;
    spool_live(spool, m->segment, m->bytes);
    if (j->chunk_count == 0)
        return;
    const struct record_place *old;
    uint16_t n = shard_chunks(q, m, &old);
    shard_drop_chunks(j->shard, old, n);
    free(chunks_take(q, m->chunks));
    m->chunks = chunks_keep(q, j->chunks, j->chunk_count);
    MUST(m->chunks != 0);
    j->chunks = NULL;
}

/* --- another lane --- */

/* May the message leave its lane for this one? What is in flight, another node's, or part of what
   is given away in this moment stays. */
static bool may_move(const struct queue *q, const struct qmsg *m, const struct lane *to)
{
    const struct lane *from = &q->lanes[m->lane];
    if (to->role != LANE_OWNER || to->change != NULL || to->sweep != SWEEP_NONE)
        return false;
    bool ours = from->role == LANE_OWNER || (from->role == LANE_AWAY && from->gone);
    if (!ours || from->change != NULL || from->sweep != SWEEP_NONE)
        return false;
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling) {
        const struct qentry *e = store_entry(&q->store, i);
        if (e->tail || e->state == ENTRY_IN_FLIGHT || e->state == ENTRY_STRAY ||
            e->state == ENTRY_REPLICA || e->state == ENTRY_TAIL)
            return false;
    }
    return true;
}

/* The old lane's replica has it no longer. */
static void tell_left(struct queue *q, struct qmsg *m)
{
    static uint8_t indices[2 * LIMIT_RECIPIENTS];
    struct lane *from = &q->lanes[m->lane];
    struct note_facts n = {.type = RECORD_DONE, .lane = from};
    struct writer w = writer_of(indices, sizeof indices);
    if (!from->copying || q->copy_hooks.on_outcome == NULL)
        return;
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling)
        put_u16(&w, store_entry(&q->store, i)->index);
    MUST(!w.bad);
    n.outcome = (struct outcome){.id = m->id,
                                 .at_unix_ms = io_now_unix_ms(q->env.io),
                                 .count = m->live,
                                 .indices = span_of(indices, w.n)};
    q->copy_hooks.on_outcome(q->copy_hooks.ctx, from, &n);
}

static void count_entries(struct queue *q, const struct qmsg *m, int sign)
{
    struct lane *l = &q->lanes[m->lane];
    l->queued += (uint32_t)sign * m->live;
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling) {
        struct qentry *e = store_entry(&q->store, i);
        role_count(l, e, (enum entry_state)e->state, sign);
    }
}

static void take_lane(struct queue *q, struct qmsg *m, struct lane *to)
{
    tell_left(q, m);
    count_entries(q, m, -1);
    m->lane = to->index;
    m->flags &= (uint8_t) ~(MSG_SENT | MSG_LATE);
    count_entries(q, m, 1);
    if (to->copying && q->copy_hooks.on_message != NULL)
        q->copy_hooks.on_message(q->copy_hooks.ctx, to, m);
}

/* Those that wait for nothing but this, or for a lane. */
static void place_entries(struct queue *q, struct msg_id id)
{
    const struct qmsg *m = store_find(&q->store, id);
    uint32_t soon = queue_now_unix_s(q) + SHARD_MOVE_WAIT_S;
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling; /* placing may end the entry */
        bool waits = e->state == ENTRY_WAITING;
        if (!waits || (e->due_s > soon && e->reason != REASON_LANE_GONE))
            continue;
        entry_unlist(q, e);
        e->due_s = 0;
        entry_place(q, e);
    }
}

/* --- the copy --- */

static void on_durable(struct spool_wait *w, int res)
{
    struct copy_job *j = (struct copy_job *)((char *)w - offsetof(struct copy_job, wait));
    struct qmsg *m = msg_of(j);
    bool same = m != NULL && m->segment == j->from.segment && m->offset == j->from.offset;
    if (res == 0 && same) { /* else another copy of it has come from its owner meanwhile */
        struct queue *q = j->shard->queue;
        struct msg_id id = j->to != NULL ? j->id : (struct msg_id){0};
        take_place(j, m);
        if (j->to != NULL)
            take_lane(q, m, j->to);
        done(j, 0);
        if (!id_is_none(id))
            place_entries(q, id);
    } else {
        j->chunk = j->chunk_count;
        give_up(j, res);
    }
}

/* Elsewhere due_s is what it was before the last attempt. */
static bool keeps_due(const struct qentry *e)
{
    return e->state == ENTRY_WAITING || e->state == ENTRY_STRAY || e->state == ENTRY_REPLICA;
}

static bool is_handed(const struct qentry *e)
{
    return e->state == ENTRY_STRAY && e->cancel != 0;
}

void msg_put_meta(const struct queue *q, const struct qmsg *m, const struct enq *old, bool handing,
                  struct writer *w)
{
    struct enq e = *old;
    e.rcpt_count = m->live;
    for (uint32_t i = handing ? m->first : 0; i != 0; i = store_entry(&q->store, i)->sibling)
        if (!is_handed(store_entry(&q->store, i)))
            e.rcpt_count--;
    enq_put(w, &e);
    struct span rcpts = old->rcpts;
    struct enq_rcpt r;
    while (enq_rcpt_next(&rcpts, &r)) {
        const struct qentry *x = store_find_entry(&q->store, m, r.index);
        if (x == NULL || (handing && !is_handed(x)))
            continue;
        r.state = (uint8_t)role_written_state(x);
        r.open = x->tail && q->lanes[m->lane].role == LANE_FROZEN;
        r.reason = x->reason;
        r.attempts = x->attempts;
        r.due_unix_s = keeps_due(x) ? x->due_s : 0;
        enq_put_rcpt(w, &r);
    }
}

static void put_meta(const struct copy_job *j, const struct qmsg *m, struct enq *old,
                     struct writer *w)
{
    old->flags |= ENQ_COPY;
    /* its origin has forgotten it, or repeats it for the lane that it left, whose adopted ids are
       in the log by themselves */
    if (j->to != NULL || !adopted_has(j->shard->queue, j->id))
        old->handed_by = span_of(NULL, 0);
    msg_put_meta(j->shard->queue, m, old, false, w);
    for (uint16_t i = 0; i < j->chunk_count; i++) {
        struct enq_chunk c = {.place = j->chunks[i], .body_bytes = j->chunk_bytes[i]};
        enq_put_chunk(w, &c);
    }
}

/* A copy replaces what the log said before it, also that a dot has been sent: said again behind
   it. */
static void repeat_doubt(struct copy_job *j, const struct qmsg *m)
{
    struct queue *q = j->shard->queue;
    uint8_t indices[2 * LIMIT_RECIPIENTS];
    uint16_t n = 0;
    for (uint32_t i = m->first; i != 0;) {
        const struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (!e->in_doubt || n == LIMIT_RECIPIENTS)
            continue;
        indices[2 * n] = (uint8_t)e->index;
        indices[2 * n + 1] = (uint8_t)(e->index >> 8);
        n++;
    }
    if (n == 0)
        return;
    struct note_facts f = {.type = RECORD_DOT, .lane = &q->lanes[m->lane]};
    f.outcome = (struct outcome){.id = j->id,
                                 .at_unix_ms = io_now_unix_ms(q->env.io),
                                 .count = n,
                                 .indices = span_of(indices, 2u * n)};
    shard_note(j->shard, &f, NULL);
}

static void append_enq(struct copy_job *j, struct qmsg *m, struct span meta, struct span rest)
{
    struct lane *lane = j->to != NULL ? j->to : &j->shard->queue->lanes[m->lane];
    struct enq old;
    int bad = enq_read(meta, &old);
    if (bad == 0 && j->shard->unwritten != NULL)
        bad = -EAGAIN; /* who has gone would be in neither record: his fate comes first */
    if (bad != 0) {
        give_up(j, bad);
        return;
    }
    uint32_t epoch;
    uint8_t flags;
    if (!role_copy_head(j->shard->queue, m, &epoch, &flags) ||
        (j->to != NULL && !may_move(j->shard->queue, m, j->to))) {
        give_up(j, 0);
        return;
    }
    if (j->to != NULL)
        epoch = role_mail_epoch(j->to);
    size_t room = meta.n + 64;
    uint8_t *buf = malloc(room);
    struct writer w = writer_of(buf, buf != NULL ? room : 0);
    put_meta(j, m, &old, &w);
    struct spool_append a = {.type = RECORD_ENQ,
                             .lane = lane->number,
                             .epoch = epoch,
                             .flags = flags,
                             .position = lane->position + 1,
                             .meta = span_of(buf, w.n),
                             .rest = {rest},
                             .rest_count = 1,
                             .fate = j->to == NULL};
    j->wait.on_durable = on_durable;
    int r = w.bad ? -E2BIG : spool_append(j->shard->spool, &a, &j->wait, &j->place);
    free(buf);
    if (r != 0) {
        give_up(j, r);
        return;
    }
    lane->position++;
    repeat_doubt(j, m);
}

static void next_chunk(struct copy_job *j);

static void on_chunk(struct spool_read *read, int res, const struct record_view *v)
{
    struct copy_job *j = (struct copy_job *)((char *)read - offsetof(struct copy_job, read));
    struct qmsg *m = msg_of(j);
    if (res != 0 || m == NULL) {
        give_up(j, res);
        return;
    }
    struct lane *lane = &j->shard->queue->lanes[m->lane];
    uint8_t meta[32];
    struct writer w = writer_of(meta, sizeof meta);
    body_put(&w, j->id, j->chunk);
    struct spool_append a = {.type = RECORD_BODY,
                             .lane = lane->number,
                             .epoch = lane->epoch,
                             .position = lane->position + 1,
                             .meta = span_of(meta, w.n),
                             .rest = {v->rest},
                             .rest_count = 1,
                             .fate = j->to == NULL};
    int r = spool_append(j->shard->spool, &a, NULL, &j->chunks[j->chunk]);
    if (r != 0) {
        give_up(j, r);
        return;
    }
    lane->position++;
    spool_live(j->shard->spool, j->chunks[j->chunk].segment, j->chunks[j->chunk].bytes);
    j->chunk_bytes[j->chunk] = (uint32_t)v->rest.n;
    j->chunk++;
    next_chunk(j);
}

static void on_enq(struct spool_read *read, int res, const struct record_view *v)
{
    struct copy_job *j = (struct copy_job *)((char *)read - offsetof(struct copy_job, read));
    struct qmsg *m = msg_of(j);
    if (m == NULL) {
        give_up(j, 0);
        return;
    }
    /* it cannot be copied and it cannot be sent: said, and parked when it is tried */
    if (res == -EBADMSG) {
        char id[ID_TEXT + 1];
        id_format(j->id, id);
        log_err("message %s is damaged on disk and stays where it is", id);
    }
    if (res != 0)
        give_up(j, res);
    else
        append_enq(j, m, v->meta, v->rest);
}

static void next_chunk(struct copy_job *j)
{
    struct qmsg *m = msg_of(j);
    const struct record_place *places;
    struct record_place at;
    if (m == NULL || shard_chunks(j->shard->queue, m, &places) != j->chunk_count) {
        give_up(j, 0);
        return;
    }
    if (j->chunk < j->chunk_count) {
        j->read.on_read = on_chunk;
        at = places[j->chunk];
    } else {
        j->read.on_read = on_enq;
        at = j->from = msg_place(m);
    }
    int r = spool_read(j->shard->spool, &j->read, &at);
    if (r != 0)
        give_up(j, r);
}

/* Does any part of the message lie in the segment? */
static bool lies_in(const struct queue *q, const struct qmsg *m, uint64_t segment)
{
    const struct record_place *c;
    uint16_t n = shard_chunks(q, m, &c);
    for (uint16_t i = 0; i < n; i++)
        if (c[i].segment == segment)
            return true;
    return m->segment == segment;
}

static bool is_copied(const struct shard *s, struct msg_id id)
{
    for (const struct copy_job *j = s->copies; j != NULL; j = j->next)
        if (id_eq(j->id, id))
            return true;
    return false;
}

static struct copy_job *job_new(struct shard *s, const struct qmsg *m)
{
    struct copy_job *j = calloc(1, sizeof *j);
    if (j == NULL)
        return NULL;
    const struct record_place *places;
    j->shard = s;
    j->id = m->id;
    j->chunk_count = shard_chunks(s->queue, m, &places);
    if (j->chunk_count > 0) {
        j->chunks = calloc(j->chunk_count, sizeof *j->chunks);
        j->chunk_bytes = calloc(j->chunk_count, sizeof *j->chunk_bytes);
        MUST(j->chunks != NULL);
        MUST(j->chunk_bytes != NULL);
    }
    j->next = s->copies;
    j->link = &s->copies;
    if (j->next != NULL)
        j->next->link = &j->next;
    s->copies = j;
    return j;
}

bool shard_copy(void *ctx, struct msg_id id, uint64_t segment)
{
    struct shard *s = ctx;
    struct qmsg *m = store_find(&s->queue->store, id);
    uint32_t epoch;
    uint8_t flags;
    if (m == NULL || !lies_in(s->queue, m, segment) || !role_copy_head(s->queue, m, &epoch, &flags))
        return false;
    if (is_copied(s, id))
        return false; /* on its way already: a chunked message is met once for each chunk */
    struct copy_job *j = job_new(s, m);
    if (j == NULL)
        return false;
    next_chunk(j);
    return true;
}

bool shard_is_moving(const struct shard *s, struct msg_id id)
{
    if (s->moves == 0)
        return false;
    const struct copy_job *j = s->copies;
    while (j != NULL && (j->to == NULL || !id_eq(j->id, id)))
        j = j->next;
    return j != NULL;
}

bool shard_move(struct shard *s, struct qmsg *m, struct lane *to)
{
    struct queue *q = s->queue;
    MUST(to->shard == s);
    MUST(q->lanes[m->lane].shard == s);
    bool room = s->moves < MOVES_MAX && (s->moves == 0 || s->moves_bytes < MOVES_BYTES);
    if (!room || q->draining || !may_move(q, m, to) || is_copied(s, m->id))
        return false;
    if (ROLE_BUG == 3)
        take_lane(q, m, to);
    struct copy_job *j = ROLE_BUG == 3 ? NULL : job_new(s, m);
    if (j == NULL)
        return ROLE_BUG == 3;
    j->to = to;
    j->bytes = m->bytes;
    s->moves++;
    s->moves_bytes += j->bytes;
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state != ENTRY_READY && e->state != ENTRY_RESOLVING)
            continue;
        entry_unlist(q, e);
        entry_wait(q, e, queue_now_unix_s(q) + SHARD_MOVE_WAIT_S, (enum reason)e->reason);
    }
    next_chunk(j);
    return true;
}

void shard_copies_free(struct shard *s)
{
    while (s->copies != NULL) {
        struct copy_job *j = s->copies;
        s->copies = j->next;
        free(j->chunks);
        free(j->chunk_bytes);
        free(j);
    }
}
