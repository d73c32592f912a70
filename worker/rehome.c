/*
 * Invariant: while a job exists its entries are parked with the reason "lane gone", which nothing
 * else touches but the operator's delete; they are looked up by id at every step, as they may have
 * gone. The message's body stays in this log until its last entry ends.
 */
#include "worker/rehome.h"

#include "base/log.h"
#include "worker/lane/fates.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <stdlib.h>

enum { JOBS_MAX = 64, BUSY_S = 1, AGAIN_S = 10 };

struct rehome_job {
    struct rehome_job *next, **link;
    struct rehome *rehome;
    struct msg_id id;
    struct lane *lane;
    struct spool_read read;
    struct record_place reading;
    struct submission submission;
    struct content *content;
    struct content *piece; /* chunk under way */
    uint8_t *meta;         /* the spans of enq and rcpts point into it */
    struct submission_rcpt *rcpts;
    struct enq_rcpt *as_is;
    unsigned rcpt_count;
    uint16_t *indices; /* of the entries that move */
    unsigned index_count;
    uint16_t chunk;
    bool opened;
};
struct rehome {
    struct queue *queue;
    struct intake *intake;
    struct rehome_job *jobs;
    unsigned count;
};

int rehome_create(struct rehome **out, struct queue *q, struct intake *in)
{
    struct rehome *r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->queue = q;
    r->intake = in;
    *out = r;
    return 0;
}

static void job_free(struct rehome_job *j)
{
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
    j->rehome->count--;
    content_unref(&j->content);
    content_unref(&j->piece);
    free(j->meta);
    free(j->rcpts);
    free(j->as_is);
    free(j->indices);
    free(j);
}

void rehome_destroy(struct rehome **r)
{
    if (*r == NULL)
        return;
    while ((*r)->jobs != NULL)
        job_free((*r)->jobs);
    free(*r);
    *r = NULL;
}

unsigned rehome_open_count(const struct rehome *r)
{
    return r->count;
}

/* --- the end of a job --- */

static struct qentry *entry_of(const struct rehome_job *j, unsigned i)
{
    struct queue *q = j->rehome->queue;
    const struct qmsg *m = store_find(&q->store, j->id);
    return m == NULL ? NULL : store_find_entry(&q->store, m, j->indices[i]);
}

static void handed_over(struct rehome_job *j)
{
    char id[ID_TEXT + 1], text[ID_TEXT + IP_TEXT + 64];
    id_format(j->submission.enq.id, id);
    int n = snprintf(text, sizeof text, "now %s at lane %s", id, j->lane->name);
    struct fate_facts f = {.reason = REASON_LANE_GONE, .sender = j->submission.enq.sender};
    f.reply = span_of(text, (size_t)n);
    for (unsigned i = 0; i < j->index_count; i++) {
        struct qentry *e = entry_of(j, i);
        if (e != NULL)
            fates_end(j->rehome->queue, e, FATE_HANDED_OVER, &f);
    }
}

static void put_back(struct rehome_job *j)
{
    struct queue *q = j->rehome->queue;
    for (unsigned i = 0; i < j->index_count; i++) {
        struct qentry *e = entry_of(j, i);
        if (e == NULL || e->state != ENTRY_PARKED || e->reason != REASON_LANE_GONE)
            continue;
        entry_set_state(q, e, ENTRY_NEW);
        entry_wait(q, e, queue_now_unix_s(q) + AGAIN_S, REASON_LANE_GONE);
    }
}

static void park_damaged(struct rehome_job *j)
{
    char id[ID_TEXT + 1];
    id_format(j->id, id);
    log_err("message %s is damaged on disk: parked, `mochila show %s`", id, id);
    j->rehome->queue->env.stats->damaged++;
    for (unsigned i = 0; i < j->index_count; i++) {
        struct qentry *e = entry_of(j, i);
        if (e != NULL)
            e->reason = REASON_DAMAGED;
    }
}

static void finish(struct rehome_job *j, int res)
{
    if (j->opened)
        submission_close(&j->submission);
    if (res == 0)
        handed_over(j);
    else if (res == -EBADMSG && !j->opened)
        park_damaged(j);
    else
        put_back(j);
    job_free(j);
}

/* --- bodies in chunks --- */

static void next_chunk(struct rehome_job *j);

static void on_done(struct submission *s, int res)
{
    finish((struct rehome_job *)((char *)s - offsetof(struct rehome_job, submission)), res);
}

static void on_chunk_taken(struct submission *s, int res)
{
    struct rehome_job *j =
        (struct rehome_job *)((char *)s - offsetof(struct rehome_job, submission));
    if (res != 0) {
        finish(j, res);
        return;
    }
    j->chunk++;
    next_chunk(j);
}

static void on_chunk_read(struct spool_read *r, int res, const struct record_view *v)
{
    struct rehome_job *j = (struct rehome_job *)((char *)r - offsetof(struct rehome_job, read));
    struct content *piece = res == 0 ? content_create((uint32_t)v->rest.n + 1) : NULL;
    if (piece == NULL) {
        finish(j, res != 0 ? -EIO : -ENOMEM);
        return;
    }
    memcpy(piece->rest, v->rest.p, v->rest.n);
    piece->rest_bytes = (uint32_t)v->rest.n;
    struct span bytes = span_of(piece->rest, piece->rest_bytes);
    content_unref(&j->piece);
    j->piece = piece;
    submission_chunk(&j->submission, bytes);
}

static void next_chunk(struct rehome_job *j)
{
    struct queue *q = j->rehome->queue;
    struct qmsg *m = store_find(&q->store, j->id);
    const struct record_place *places;
    if (m == NULL) {
        finish(j, -ENOENT);
        return;
    }
    if (j->chunk == shard_chunks(q, m, &places)) {
        submission_commit(&j->submission);
        return;
    }
    j->read.on_read = on_chunk_read;
    int r = spool_read(q->lanes[m->lane].shard->spool, &j->read, &places[j->chunk]);
    if (r != 0)
        finish(j, r);
}

/* --- the envelope --- */

static bool moves(const struct rehome_job *j, uint16_t index)
{
    for (unsigned i = 0; i < j->index_count; i++)
        if (j->indices[i] == index)
            return true;
    return false;
}

/* Recipients that move, with what they have behind them; `enq` of the submission is the old
 * envelope. */
static int fill(struct rehome_job *j, const struct record_view *v)
{
    struct submission *s = &j->submission;
    j->meta = malloc(v->meta.n);
    j->content = content_create((uint32_t)v->rest.n + 1);
    j->rcpts = calloc(j->index_count, sizeof *j->rcpts);
    j->as_is = calloc(j->index_count, sizeof *j->as_is);
    if (j->meta == NULL || j->content == NULL || j->rcpts == NULL || j->as_is == NULL)
        return -ENOMEM;
    memcpy(j->meta, v->meta.p, v->meta.n);
    memcpy(j->content->rest, v->rest.p, v->rest.n);
    j->content->rest_bytes = (uint32_t)v->rest.n;
    if (enq_read(span_of(j->meta, v->meta.n), &s->enq) != 0)
        return -EBADMSG;
    struct span list = s->enq.rcpts;
    struct enq_rcpt r;
    while (enq_rcpt_next(&list, &r)) {
        const struct qmsg *m = store_find(&j->rehome->queue->store, j->id);
        const struct qentry *e = m == NULL || !moves(j, r.index)
                                     ? NULL
                                     : store_find_entry(&j->rehome->queue->store, m, r.index);
        if (e == NULL)
            continue;
        r.state = RCPT_QUEUED;
        r.attempts = e->attempts;
        r.due_unix_s = 0;
        j->as_is[j->rcpt_count] = r;
        j->rcpts[j->rcpt_count] = (struct submission_rcpt){.address = r.address,
                                                           .lane = j->lane,
                                                           .index = r.index,
                                                           .as_is = &j->as_is[j->rcpt_count]};
        j->rcpt_count++;
    }
    return j->rcpt_count > 0 ? 0 : -ENOENT;
}

static void submit(struct rehome_job *j)
{
    struct submission *s = &j->submission;
    s->enq.id = intake_id(j->rehome->intake);
    s->enq.flags = (uint16_t)((s->enq.flags & ~ENQ_COPY) | ENQ_TAKEN_OVER);
    s->rcpts = j->rcpts;
    s->rcpt_count = j->rcpt_count;
    s->content = j->content;
    s->on_done = on_done;
    s->on_chunk = on_chunk_taken;
    int r = submission_open(j->rehome->intake, s);
    if (r != 0) {
        finish(j, r);
        return;
    }
    j->opened = true;
    next_chunk(j);
}

static void on_read(struct spool_read *read, int res, const struct record_view *v)
{
    struct rehome_job *j = (struct rehome_job *)((char *)read - offsetof(struct rehome_job, read));
    struct queue *q = j->rehome->queue;
    const struct qmsg *m = store_find(&q->store, j->id);
    if (m == NULL) {
        finish(j, -ENOENT);
        return;
    }
    if (res == -EBADMSG && (m->segment != j->reading.segment || m->offset != j->reading.offset))
        res = -EAGAIN; /* compaction moved it meanwhile */
    if (res == 0)
        res = fill(j, v);
    if (res != 0)
        finish(j, res);
    else
        submit(j);
}

/* --- the beginning --- */

/* Recipients that wait move together with the one that is due; held, parked and bounced ones stay
 * where they are. */
static bool collect(struct rehome_job *j, struct qmsg *m, struct qentry *due)
{
    struct queue *q = j->rehome->queue;
    j->indices = calloc(m->live, sizeof *j->indices);
    if (j->indices == NULL)
        return false;
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e != due && e->state != ENTRY_WAITING)
            continue;
        if (e != due)
            entry_unlist(q, e);
        e->reason = REASON_LANE_GONE;
        entry_set_state(q, e, ENTRY_PARKED);
        j->indices[j->index_count++] = e->index;
    }
    return true;
}

static struct rehome_job *job_new(struct rehome *r, const struct qmsg *m, struct lane *l)
{
    struct rehome_job *j = calloc(1, sizeof *j);
    if (j == NULL)
        return NULL;
    j->rehome = r;
    j->id = m->id;
    j->lane = l;
    j->next = r->jobs;
    j->link = &r->jobs;
    if (j->next != NULL)
        j->next->link = &j->next;
    r->jobs = j;
    r->count++;
    return j;
}

bool rehome_take(void *ctx, struct qentry *e)
{
    struct rehome *r = ctx;
    struct queue *q = r->queue;
    struct qmsg *m = store_msg(&q->store, e->msg);
    const struct lane *old = &q->lanes[m->lane];
    MUST(e->state == ENTRY_NEW);
    if (q->draining || old->shard == NULL)
        return false;
    struct lane *l = route_lane(q, m->tenant, span_str(domain_at(q, e->domain)->name));
    if (l == NULL || l->shard == old->shard)
        return false;
    struct rehome_job *j = r->count < JOBS_MAX ? job_new(r, m, l) : NULL;
    if (j == NULL) {
        entry_wait(q, e, queue_now_unix_s(q) + BUSY_S, REASON_LANE_GONE);
        return true;
    }
    if (!collect(j, m, e)) {
        job_free(j);
        return false;
    }
    j->reading = msg_place(m);
    j->read.on_read = on_read;
    int res = spool_read(old->shard->spool, &j->read, &j->reading);
    if (res != 0)
        finish(j, res);
    return true;
}
