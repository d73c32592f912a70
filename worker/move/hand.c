/*
 * The side that has the mail.
 *
 * Invariants: the entries of a job's message are in lane->handing as long as the job is one of its
 * lane; a job whose spool_read is under way is never freed: it becomes an orphan, which only its
 * read frees. A TAKEN counts only with the number of the HAND that it answers, since what belongs
 * to a message may have grown meanwhile.
 */
#include "worker/move/hand_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum job_stage { JOB_READING, JOB_BLOCKED, JOB_SENT };

struct hand_job {
    struct hand_job *next, **link;
    struct hand *hand;
    struct hand_lane *of; /* NULL: an orphan */
    struct msg_id id;
    enum job_stage stage;
    uint16_t chunk;
    uint64_t number, since_ms, bytes;
    struct record_place reading;
    struct spool_read read;
};
struct hand_lane {
    struct hand_lane *next;
    uint32_t lane; /* index */
    struct hand_job *jobs;
    unsigned count;
    uint64_t bytes;
    uint64_t again_ms;
    bool paused;
};
static void on_timer(struct timer *t)
{
    (void)t; /* the turn that follows does the work */
}

void hand_wake(struct hand *h)
{
    if (!timer_is_set(&h->timer))
        timer_set(h->queue->env.wheel, &h->timer, HAND_TICK_MS);
}

int hand_create(struct hand **out, struct queue *q, struct carrier *c)
{
    struct hand *h = calloc(1, sizeof *h);
    if (h == NULL)
        return -ENOMEM;
    h->queue = q;
    h->carrier = c;
    h->timer.on_due = on_timer;
    /* numbers of an earlier process may still be answered */
    h->next_number = rng_u64(q->env.rng) >> 1 | 1;
    *out = h;
    return 0;
}

static void job_free(struct hand_job *j)
{
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
    if (j->of != NULL) {
        j->of->count--;
        j->of->bytes -= j->bytes;
        j->hand->job_count--;
    } else {
        j->hand->orphan_count--;
    }
    free(j);
}

static void job_orphan(struct hand_job *j)
{
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
    j->of->count--;
    j->of->bytes -= j->bytes;
    j->hand->job_count--;
    j->of = NULL;
    j->hand->orphan_count++;
    j->next = j->hand->orphans;
    j->link = &j->hand->orphans;
    if (j->next != NULL)
        j->next->link = &j->next;
    j->hand->orphans = j;
}

static void job_drop(struct hand_job *j)
{
    if (j->stage == JOB_READING)
        job_orphan(j);
    else
        job_free(j);
}

/* Back to the strays. */
static void job_return(struct hand_job *j)
{
    struct queue *q = j->hand->queue;
    struct qmsg *m = store_find(&q->store, j->id);
    if (m != NULL)
        stray_return(q, m);
    job_drop(j);
}

void hand_destroy(struct hand **hp)
{
    struct hand *h = *hp;
    *hp = NULL;
    if (h == NULL)
        return;
    timer_stop(h->queue->env.wheel, &h->timer);
    hand_take_free(h);
    while (h->lanes != NULL) {
        struct hand_lane *hl = h->lanes;
        h->lanes = hl->next;
        while (hl->jobs != NULL)
            job_drop(hl->jobs);
        free(hl);
    }
    hand_tails_free(h);
    if (h->orphans == NULL) /* else the spool has them in a list: the process is about to end */
        free(h);
}

unsigned hand_open_count(const struct hand *h)
{
    return h->job_count + h->orphan_count + h->taking_count;
}

int hand_send(struct hand *h, const struct lane_from *to, const struct lane_frame *f)
{
    enum { ITEMS = 8, ITEM_BYTES = 64 };
    uint8_t head[LANE_FRAME_HEAD_BYTES + ITEMS * ITEM_BYTES];
    size_t n;
    MUST(f->item_count <= ITEMS);
    int r = lane_frame_head(f, head, sizeof head, &n);
    if (r != 0)
        return r;
    struct span parts[3] = {span_of(head, n)};
    unsigned count = 1;
    if (f->meta.n > 0)
        parts[count++] = f->meta;
    if (f->rest.n > 0)
        parts[count++] = f->rest;
    return carrier_send_parts(h->carrier, to->node, to->slot, parts, count);
}

/* --- reading and sending one message --- */

/* NULL: nothing of it is to be handed over any more: it expired, or came back with a copy. */
static struct qmsg *msg_of(const struct hand_job *j)
{
    const struct store *s = &j->hand->queue->store;
    struct qmsg *m = store_find(s, j->id);
    for (uint32_t i = m == NULL ? 0 : m->first; i != 0; i = store_entry(s, i)->sibling)
        if (store_entry(s, i)->state == ENTRY_STRAY && store_entry(s, i)->cancel != 0)
            return m;
    return NULL;
}

static struct lane *lane_of(const struct hand *h, const struct hand_lane *hl)
{
    return &h->queue->lanes[hl->lane];
}

static void job_block(struct hand_job *j)
{
    j->stage = JOB_BLOCKED;
    j->since_ms = queue_now_ms(j->hand->queue);
}

/* False: not sent; it is tried again, or the message is back among the strays. */
static bool job_send(struct hand_job *j, struct lane_frame *f)
{
    struct lane *l = lane_of(j->hand, j->of);
    const struct lane_from to = {l->node, l->node_slot};
    f->lane = l->address;
    int r = hand_send(j->hand, &to, f);
    if (r == 0)
        return true;
    if (r == -ENOTCONN)
        job_return(j);
    else
        job_block(j);
    return false;
}

static void job_read(struct hand_job *j);

static void chunk_read(struct hand_job *j, const struct record_view *v)
{
    struct lane_item item = {.id = j->id};
    struct lane_frame f = {.kind = LANE_FRAME_CHUNK,
                           .hand = true,
                           .position = j->chunk + 1u,
                           .items = &item,
                           .item_count = 1,
                           .rest = v->rest};
    if (!job_send(j, &f))
        return;
    j->chunk++;
    job_read(j);
}

static int meta_make(const struct hand_job *j, const struct qmsg *m, struct span meta,
                     struct writer *w)
{
    struct enq old;
    if (enq_read(meta, &old) != 0)
        return -EBADMSG;
    size_t room = meta.n + 64;
    uint8_t *buf = malloc(room);
    if (buf == NULL)
        return -ENOMEM;
    *w = writer_of(buf, room);
    msg_put_meta(j->hand->queue, m, &old, true, w);
    struct enq_chunk c;
    while (enq_chunk_next(&old.chunks, &c)) {
        c.place = (struct record_place){.bytes = c.body_bytes}; /* means nothing there */
        enq_put_chunk(w, &c);
    }
    if (!w->bad)
        return 0;
    free(buf);
    return -E2BIG;
}

static void enq_was_read(struct hand_job *j, const struct qmsg *m, const struct record_view *v)
{
    struct writer w;
    int r = meta_make(j, m, v->meta, &w);
    if (r != 0) {
        job_block(j);
        return;
    }
    struct lane_item item = {.id = j->id};
    struct lane_frame f = {.kind = LANE_FRAME_HAND,
                           .position = j->hand->next_number,
                           .items = &item,
                           .item_count = 1,
                           .meta = span_of(w.p, w.n),
                           .rest = v->rest};
    if (job_send(j, &f)) {
        j->number = j->hand->next_number++;
        j->since_ms = queue_now_ms(j->hand->queue);
        j->stage = JOB_SENT;
    }
    free(w.p);
}

/* It cannot be handed over and nobody can send it: the operator decides. */
static void park_damaged(struct hand_job *j, const struct qmsg *m)
{
    struct queue *q = j->hand->queue;
    char id[ID_TEXT + 1];
    id_format(j->id, id);
    log_err("message %s is damaged on disk: parked, `mochila show %s`", id, id);
    q->env.stats->damaged++;
    for (uint32_t i = m->first; i != 0;) {
        struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        if (e->state != ENTRY_STRAY)
            continue;
        entry_unlist(q, e);
        e->reason = REASON_DAMAGED;
        entry_set_state(q, e, ENTRY_PARKED);
    }
    job_drop(j);
}

static void on_read(struct spool_read *read, int res, const struct record_view *v)
{
    struct hand_job *j = (struct hand_job *)((char *)read - offsetof(struct hand_job, read));
    if (j->of == NULL) {
        job_free(j);
        return;
    }
    struct queue *q = j->hand->queue;
    const struct qmsg *m = msg_of(j);
    j->stage = JOB_BLOCKED; /* no read is under way any more */
    j->since_ms = queue_now_ms(q);
    if (m == NULL) {
        job_drop(j);
        return;
    }
    const struct record_place *places;
    uint16_t chunks = shard_chunks(q, m, &places);
    bool of_chunk = j->chunk < chunks;
    struct record_place now = of_chunk ? places[j->chunk] : msg_place(m);
    bool moved = now.segment != j->reading.segment || now.offset != j->reading.offset;
    if (res == -EBADMSG && !moved)
        park_damaged(j, m);
    else if (res == 0 && of_chunk)
        chunk_read(j, v);
    else if (res == 0)
        enq_was_read(j, m, v);
}

static void job_read(struct hand_job *j)
{
    struct queue *q = j->hand->queue;
    struct qmsg *m = msg_of(j);
    if (m == NULL) {
        job_drop(j);
        return;
    }
    const struct record_place *places;
    uint16_t chunks = shard_chunks(q, m, &places);
    j->reading = j->chunk < chunks ? places[j->chunk] : msg_place(m);
    j->read.on_read = on_read;
    j->stage = JOB_READING;
    if (spool_read(q->lanes[m->lane].shard->spool, &j->read, &j->reading) != 0)
        job_block(j);
}

/* --- lanes --- */

static struct hand_lane *lane_find(const struct hand *h, const struct lane *l)
{
    struct hand_lane *hl = h->lanes;
    while (hl != NULL && hl->lane != l->index)
        hl = hl->next;
    return hl;
}

static struct hand_lane *lane_get(struct hand *h, const struct lane *l)
{
    struct hand_lane *hl = lane_find(h, l);
    if (hl != NULL)
        return hl;
    hl = calloc(1, sizeof *hl);
    if (hl == NULL)
        return NULL; /* its strays wait until the lane is mentioned again */
    hl->lane = l->index;
    hl->next = h->lanes;
    h->lanes = hl;
    return hl;
}

void hand_on_lane(struct hand *h, struct lane *l)
{
    struct hand_lane *hl = lane_get(h, l);
    if (hl != NULL)
        hl->again_ms = 0;
    hand_wake(h);
}

static void lane_return_all(struct hand_lane *hl)
{
    while (hl->jobs != NULL)
        job_return(hl->jobs);
}

void hand_pause(struct hand *h, struct lane *l)
{
    struct hand_lane *hl = lane_get(h, l);
    MUST(hl != NULL); /* what is placed by the new role must not be under way */
    hl->paused = true;
    lane_return_all(hl);
}

void hand_resume(struct hand *h, struct lane *l)
{
    struct hand_lane *hl = lane_find(h, l);
    if (hl != NULL)
        hl->paused = false;
    hand_on_lane(h, l);
}

static bool may_hand(const struct hand *h, const struct hand_lane *hl)
{
    const struct lane *l = lane_of(h, hl);
    return !hl->paused && !h->draining && l->shard != NULL &&
           (l->role == LANE_AWAY || l->role == LANE_REPLICA) && l->node[0] != '\0' &&
           l->node_slot != CONTROL_NO_SLOT && carrier_is_up(h->carrier, l->node);
}

static bool job_new(struct hand *h, struct hand_lane *hl)
{
    struct hand_job *j = calloc(1, sizeof *j);
    struct qmsg *m = j == NULL ? NULL : stray_take(h->queue, lane_of(h, hl));
    if (m == NULL) {
        free(j);
        return false;
    }
    j->hand = h;
    j->of = hl;
    j->id = m->id;
    j->bytes = (uint64_t)m->bytes + (m->chunks != 0 ? m->raw_bytes : 0);
    j->next = hl->jobs;
    j->link = &hl->jobs;
    if (j->next != NULL)
        j->next->link = &j->next;
    hl->jobs = j;
    hl->count++;
    hl->bytes += j->bytes;
    h->job_count++;
    job_read(j);
    return true;
}

static void jobs_turn(struct hand_lane *hl, uint64_t now)
{
    struct hand_job *next;
    for (struct hand_job *j = hl->jobs; j != NULL; j = next) {
        next = j->next;
        if (j->stage == JOB_SENT && now >= j->since_ms + HAND_AGAIN_MS)
            job_return(j);
        else if (j->stage == JOB_BLOCKED && now >= j->since_ms + HAND_BLOCKED_MS)
            job_read(j); /* frees j alone, if anything */
    }
}

/* False: nothing is left to do for the lane. */
static bool lane_turn(struct hand *h, struct hand_lane *hl, uint64_t now)
{
    if (!may_hand(h, hl))
        lane_return_all(hl);
    else
        jobs_turn(hl, now);
    bool more = true;
    while (more && now >= hl->again_ms && may_hand(h, hl) && hl->count < HAND_MESSAGES &&
           (hl->count == 0 || hl->bytes < HAND_BYTES))
        more = job_new(h, hl);
    return hl->paused || hl->count > 0 || lane_of(h, hl)->strays.count > 0;
}

static void lanes_turn(struct hand *h)
{
    uint64_t now = queue_now_ms(h->queue);
    for (struct hand_lane **at = &h->lanes; *at != NULL;) {
        struct hand_lane *hl = *at;
        if (lane_turn(h, hl, now)) {
            at = &hl->next;
            continue;
        }
        *at = hl->next;
        free(hl);
    }
}

/* --- answers --- */

static struct hand_job *job_find(const struct hand_lane *hl, const struct lane_item *item)
{
    struct hand_job *j = hl == NULL ? NULL : hl->jobs;
    while (j != NULL &&
           (!id_eq(j->id, item->id) || j->stage != JOB_SENT || j->number != item->digest))
        j = j->next;
    return j;
}

static void on_answer(struct hand *h, struct lane *l, const struct lane_frame *f)
{
    struct hand_lane *hl = lane_find(h, l);
    for (uint32_t i = 0; i < f->item_count; i++) {
        struct hand_job *j = job_find(hl, &f->items[i]);
        if (j == NULL)
            continue;
        struct qmsg *m = store_find(&h->queue->store, j->id);
        if (f->kind == LANE_FRAME_NOT_OWNER) {
            hl->again_ms = queue_now_ms(h->queue) + HAND_LANE_PAUSE_MS;
            job_return(j);
            continue;
        }
        if (m != NULL)
            stray_taken(h->queue, m);
        job_drop(j);
    }
}

void hand_on_frame(struct hand *h, const struct lane_from *from, const struct lane_frame *f)
{
    struct lane *l = lane_by_address(h->queue, &f->lane);
    switch (f->kind) {
    case LANE_FRAME_HAND:
        hand_take(h, from, f);
        return;
    case LANE_FRAME_CHUNK:
        hand_take_chunk(h, from, f);
        return;
    case LANE_FRAME_TAIL_DONE:
        hand_take_tails(h, from, f);
        return;
    case LANE_FRAME_TAKEN:
    case LANE_FRAME_NOT_OWNER:
        if (l != NULL && strcmp(l->node, from->node) == 0)
            on_answer(h, l, f);
        return;
    case LANE_FRAME_BEGIN:
    case LANE_FRAME_INVENTORY:
    case LANE_FRAME_ENQ:
    case LANE_FRAME_CHANGE:
    case LANE_FRAME_DROP:
    case LANE_FRAME_ACK:
    case LANE_FRAME_END:
    case LANE_FRAME_REFUSED:
    case LANE_FRAME_ASK:
    case LANE_FRAME_GONE:
    case LANE_FRAME_KIND_COUNT:
        break;
    }
    MUST(!"a frame of hand-overs");
}

/* --- turns --- */

void hand_on_loss(struct hand *h, const char *node)
{
    for (struct hand_lane *hl = h->lanes; hl != NULL; hl = hl->next)
        if (strcmp(lane_of(h, hl)->node, node) == 0)
            lane_return_all(hl);
    hand_take_loss(h, node);
    hand_wake(h);
}

void hand_drain(struct hand *h)
{
    h->draining = true;
    for (struct hand_lane *hl = h->lanes; hl != NULL; hl = hl->next)
        lane_return_all(hl);
    hand_take_loss(h, NULL);
    hand_wake(h);
}

void hand_turn(struct hand *h)
{
    if (h->lanes == NULL && h->takings == NULL && h->tails == NULL)
        return;
    hand_take_turn(h);
    lanes_turn(h);
    hand_tails_turn(h);
    if (h->lanes != NULL || h->takings != NULL || h->tails != NULL)
        hand_wake(h);
}
