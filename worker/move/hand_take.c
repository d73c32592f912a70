/*
 * The owner's side.
 *
 * Invariants: a taking exists from its first chunk, or its HAND, to the answer; it is freed only
 * when nothing of it waits for the disk. An id is adopted from the moment its ENQ is appended: not
 * earlier, as a snapshot may come before it and outlive it; not later, so that the snapshot of a
 * segment that begins behind it names it, and no longer when that ENQ failed: waiters hear of a
 * failure before another segment begins.
 */
#include "worker/move/hand_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

/* Of a BODY record, before its chunk: an id and an ordinal. */
enum { CHUNK_HEAD_BYTES = RECORD_HEAD_BYTES + ID_BYTES + 4 };

enum taking_stage {
    TAKING_CHUNKS,   /* of a large body; no HAND yet */
    TAKING_WAITING,  /* HAND is here, chunks are not all durable */
    TAKING_APPENDED, /* waits for the disk */
    TAKING_ANSWER,   /* `answer` is to be sent */
    TAKING_DEAD      /* nobody hears the answer any more */
};
struct taking {
    struct taking *next;
    struct hand *hand;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot;
    uint32_t lane; /* index */
    struct msg_id id;
    enum taking_stage stage;
    enum lane_frame_kind answer;
    uint64_t number, at_ms;
    struct record_place *chunks; /* in the log; living until an ENQ takes them over */
    uint16_t chunk_count, chunk_room;
    unsigned pending; /* waits of the disk */
    int res;          /* the first of them that failed */
    uint8_t *meta;    /* as it came */
    size_t meta_bytes;
    struct content *content; /* rest as it came, later with the new meta */
    struct enqueue enqueue;
};
/* One wait of a taking; frees itself. */
struct taking_wait {
    struct spool_wait wait;
    struct taking *taking;
};

static struct lane *lane_of(const struct taking *t)
{
    return &t->hand->queue->lanes[t->lane];
}

static void chunks_drop(struct taking *t)
{
    if (t->chunk_count > 0)
        shard_drop_chunks(lane_of(t)->shard, t->chunks, t->chunk_count);
    t->chunk_count = 0;
}

static void taking_free(struct taking *t)
{
    content_unref(&t->content);
    free(t->chunks);
    free(t->meta);
    free(t);
}

void hand_take_free(struct hand *h)
{
    while (h->takings != NULL) {
        struct taking *t = h->takings;
        h->takings = t->next;
        taking_free(t);
    }
    h->taking_count = 0;
}

static struct taking *taking_find(const struct hand *h, const char *node, struct msg_id id)
{
    struct taking *t = h->takings;
    while (t != NULL &&
           (t->stage == TAKING_DEAD || !id_eq(t->id, id) || strcmp(t->node, node) != 0))
        t = t->next;
    return t;
}

static struct taking *taking_new(struct hand *h, const struct lane_from *from, const struct lane *l,
                                 struct msg_id id)
{
    struct taking *t = h->taking_count < HAND_TAKINGS ? calloc(1, sizeof *t) : NULL;
    if (t == NULL)
        return NULL;
    t->hand = h;
    snprintf(t->node, sizeof t->node, "%s", from->node);
    t->slot = from->slot;
    t->lane = l->index;
    t->id = id;
    t->at_ms = queue_now_ms(h->queue);
    t->next = h->takings;
    h->takings = t;
    h->taking_count++;
    hand_wake(h);
    return t;
}

/* --- answers --- */

static void answer_set(struct taking *t, enum lane_frame_kind kind)
{
    if (kind == LANE_FRAME_NOT_OWNER)
        chunks_drop(t);
    t->answer = kind;
    if (t->stage != TAKING_DEAD)
        t->stage = TAKING_ANSWER;
    hand_wake(t->hand);
}

/* Whom the lane belongs to, as far as it can be said: of a frozen one that is open. */
static int answer_send(struct hand *h, const struct lane_from *to, const struct lane *l,
                       struct lane_frame *f)
{
    f->lane = l->address;
    f->epoch = l->epoch;
    if (f->kind == LANE_FRAME_NOT_OWNER && l->role != LANE_FROZEN)
        snprintf(f->node, sizeof f->node, "%s", l->node);
    return hand_send(h, to, f);
}

/* Not now, or not here: the sender repeats it later. Lost when there is no room: likewise. */
static void refuse(struct hand *h, const struct lane_from *from, const struct lane_frame *hand)
{
    struct lane_item item = {.id = hand->items[0].id, .digest = hand->position};
    struct lane_frame f = {
        .kind = LANE_FRAME_NOT_OWNER, .lane = hand->lane, .items = &item, .item_count = 1};
    const struct lane *l = lane_by_address(h->queue, &hand->lane);
    int r = l == NULL ? hand_send(h, from, &f) : answer_send(h, from, l, &f);
    if (r != 0)
        log_dbg("a NOT_OWNER for %s was not sent: %s", from->node, strerror(-r));
}

/* True: the taking is over. */
static bool answer_turn(struct taking *t)
{
    struct lane_item item = {.id = t->id, .digest = t->number};
    struct lane_frame f = {.kind = t->answer, .items = &item, .item_count = 1};
    const struct lane_from to = {t->node, t->slot};
    return answer_send(t->hand, &to, lane_of(t), &f) != -EAGAIN;
}

/* --- what came from the disk --- */

static void commit(struct taking *t);

static void on_wait(struct spool_wait *w, int res)
{
    struct taking_wait *tw = (struct taking_wait *)((char *)w - offsetof(struct taking_wait, wait));
    struct taking *t = tw->taking;
    free(tw);
    MUST(t->pending > 0);
    t->pending--;
    if (res != 0 && t->res == 0)
        t->res = res;
    hand_wake(t->hand);
}

static struct spool_wait *wait_new(struct taking *t)
{
    struct taking_wait *tw = calloc(1, sizeof *tw);
    if (tw == NULL)
        return NULL;
    tw->wait.on_durable = on_wait;
    tw->taking = t;
    t->pending++;
    return &tw->wait;
}

static void wait_undo(struct taking *t, struct spool_wait *w)
{
    free((struct taking_wait *)((char *)w - offsetof(struct taking_wait, wait)));
    t->pending--;
}

/* --- a message that is new here --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct taking *t = (struct taking *)((char *)x - offsetof(struct taking, enqueue));
    MUST(t->pending > 0);
    t->pending--;
    if (res != 0)
        adopted_remove(t->hand->queue, t->id, t->node);
    t->chunk_count = 0; /* of the message now, or let go by the shard */
    answer_set(t, res == 0 ? LANE_FRAME_TAKEN : LANE_FRAME_NOT_OWNER);
}

static int meta_make(struct taking *t, struct enq *e)
{
    size_t room = t->meta_bytes + LIMIT_NAME_BYTES + 64;
    uint8_t *buf = malloc(room);
    if (buf == NULL)
        return -ENOMEM;
    struct writer w = writer_of(buf, room);
    e->flags = (uint16_t)((e->flags & ~ENQ_COPY) | ENQ_TAKEN_OVER);
    e->handed_by = span_str(t->node);
    enq_put(&w, e);
    struct span rcpts = e->rcpts, chunks = e->chunks;
    struct enq_rcpt r;
    while (enq_rcpt_next(&rcpts, &r)) {
        r.open = false;
        enq_put_rcpt(&w, &r);
    }
    struct enq_chunk c;
    for (uint16_t i = 0; enq_chunk_next(&chunks, &c); i++) {
        c.place = t->chunks[i];
        enq_put_chunk(&w, &c);
    }
    int res = w.bad ? -E2BIG : content_set_meta(t->content, span_of(buf, w.n));
    free(buf);
    return res;
}

static int enqueue(struct taking *t, struct enq *e)
{
    struct lane *l = lane_of(t);
    struct adopted_item item = {.id = t->id, .lane = l->number};
    memcpy(item.origin, t->node, sizeof item.origin);
    int r = adopted_count(t->hand->queue) < HAND_ADOPTED ? meta_make(t, e) : -ENOBUFS;
    if (r != 0)
        return r;
    t->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = l,
                                  .content = t->content,
                                  .chunks = t->chunk_count > 0 ? t->chunks : NULL,
                                  .chunk_count = t->chunk_count,
                                  .rcpt_count = e->rcpt_count,
                                  .taken_over = true};
    r = adopted_room(t->hand->queue, &item);
    if (r == 0)
        r = shard_enqueue(l->shard, &t->enqueue);
    if (r != 0)
        return r;
    r = adopted_add(t->hand->queue, &item);
    MUST(r == 0);
    t->chunks = NULL; /* taken over */
    t->pending++;
    t->stage = TAKING_APPENDED;
    return 0;
}

/* --- a message that is known here --- */

static int take_back(struct taking *t, struct qmsg *m, const struct enq_rcpt *r)
{
    struct lane *l = lane_of(t);
    const struct qentry *x =
        m == NULL ? NULL : store_find_entry(&t->hand->queue->store, m, r->index);
    if (x == NULL || x->state != ENTRY_TAIL || m->lane != l->index ||
        strcmp(l->given_by, t->node) != 0)
        return 0; /* it is, or was, here; or it is nobody's to give back */
    struct adopted_item item = {.id = t->id, .lane = l->number};
    memcpy(item.origin, t->node, sizeof item.origin);
    int res = adopted_keep(l->shard, &item);
    if (res != 0)
        return res;
    struct spool_wait *w = wait_new(t);
    if (w == NULL)
        return -ENOMEM;
    if (!tail_back(l, t->id, r, w))
        wait_undo(t, w);
    return 0;
}

/* What it refers to is durable before it is answered. */
static int known(struct taking *t, const struct enq *e)
{
    struct queue *q = t->hand->queue;
    struct span rcpts = e->rcpts;
    struct enq_rcpt r;
    int res = 0;
    while (res == 0 && enq_rcpt_next(&rcpts, &r))
        res = take_back(t, store_find(&q->store, t->id), &r);
    struct spool_wait *w = res == 0 ? wait_new(t) : NULL;
    if (w == NULL)
        return res != 0 ? res : -ENOMEM;
    chunks_drop(t);
    t->stage = TAKING_APPENDED;
    spool_sync(lane_of(t)->shard->spool, w);
    return 0;
}

/* Does the envelope speak of the chunks that came? */
static bool chunks_fit(const struct taking *t, const struct enq *e)
{
    struct span chunks = e->chunks;
    struct enq_chunk c;
    uint16_t n = 0;
    while (enq_chunk_next(&chunks, &c)) {
        if (n == t->chunk_count || c.body_bytes + CHUNK_HEAD_BYTES != t->chunks[n].bytes)
            return false;
        n++;
    }
    return n == t->chunk_count;
}

/* What another node says is a message, and the one that this taking is of. */
static bool is_sound(const struct taking *t, const struct enq *e)
{
    return id_eq(e->id, t->id) && chunks_fit(t, e) && enq_is_sound(e, t->content->rest_bytes);
}

/* HAND is here whole, its chunks are durable. */
static void commit(struct taking *t)
{
    struct queue *q = t->hand->queue;
    struct enq e;
    int r = t->res != 0 ? t->res : enq_read(span_of(t->meta, t->meta_bytes), &e);
    if (r == 0 && (lane_of(t)->role != LANE_OWNER || !is_sound(t, &e)))
        r = -EAGAIN;
    if (r == 0)
        r = store_find(&q->store, t->id) != NULL || adopted_from(q, t->id, t->node)
                ? known(t, &e)
                : enqueue(t, &e);
    if (r == 0)
        return;
    if (t->pending > 0)
        t->res = r; /* entries that came back are on their way into the log: answered after that */
    else
        answer_set(t, LANE_FRAME_NOT_OWNER);
    if (t->pending > 0)
        t->stage = TAKING_APPENDED;
}

/* --- frames --- */

static struct lane *lane_for(const struct hand *h, const struct lane_frame *f)
{
    struct lane *l = h->draining ? NULL : lane_by_address(h->queue, &f->lane);
    return l != NULL && l->shard != NULL && l->role == LANE_OWNER ? l : NULL;
}

static bool chunk_keep(struct taking *t, struct span bytes)
{
    if (t->chunk_count == t->chunk_room) {
        uint16_t room = (uint16_t)(t->chunk_room == 0 ? 8 : 2 * t->chunk_room);
        void *bigger = realloc(t->chunks, room * sizeof *t->chunks);
        if (bigger == NULL)
            return false;
        t->chunks = bigger;
        t->chunk_room = room;
    }
    struct spool_wait *w = wait_new(t);
    if (w == NULL)
        return false;
    if (shard_put_chunk(lane_of(t), t->id, bytes, w, &t->chunks[t->chunk_count]) != 0) {
        wait_undo(t, w);
        return false;
    }
    t->chunk_count++;
    return true;
}

/* A chunk that does not fit what is here is dropped: its HAND will be refused, and all comes again.
 */
void hand_take_chunk(struct hand *h, const struct lane_from *from, const struct lane_frame *f)
{
    const struct lane *l = lane_for(h, f);
    if (l == NULL || f->item_count != 1 || f->rest.n == 0 || f->rest.n > LIMIT_BODY_CHUNK_BYTES)
        return;
    struct taking *t = taking_find(h, from->node, f->items[0].id);
    if (t != NULL && t->stage == TAKING_CHUNKS && f->position == 1) {
        t->stage = TAKING_DEAD; /* the sender began anew */
        t = NULL;
    }
    if (t == NULL && f->position == 1)
        t = taking_new(h, from, l, f->items[0].id);
    if (t == NULL || t->stage != TAKING_CHUNKS || f->position != t->chunk_count + 1u ||
        t->chunk_count == LIMIT_BODY_CHUNKS)
        return;
    t->at_ms = queue_now_ms(h->queue);
    if (!chunk_keep(t, f->rest))
        t->res = -EAGAIN;
}

static bool hand_keep(struct taking *t, const struct lane_frame *f)
{
    t->meta = malloc(f->meta.n);
    t->content = content_create((uint32_t)f->rest.n + 1);
    if (t->meta == NULL || t->content == NULL)
        return false;
    memcpy(t->meta, f->meta.p, f->meta.n);
    t->meta_bytes = f->meta.n;
    if (f->rest.n > 0)
        memcpy(t->content->rest, f->rest.p, f->rest.n);
    t->content->rest_bytes = (uint32_t)f->rest.n;
    return true;
}

void hand_take(struct hand *h, const struct lane_from *from, const struct lane_frame *f)
{
    if (f->item_count != 1 || id_is_none(f->items[0].id) || f->meta.n == 0)
        return;
    const struct lane *l = lane_for(h, f);
    struct taking *t = taking_find(h, from->node, f->items[0].id);
    if (t != NULL && t->stage != TAKING_CHUNKS)
        return; /* a repetition: the next one is answered, when this one is */
    if (t == NULL && l != NULL)
        t = taking_new(h, from, l, f->items[0].id);
    if (t == NULL || l == NULL) {
        refuse(h, from, f);
        return;
    }
    t->number = f->position;
    t->slot = from->slot;
    if (!hand_keep(t, f))
        t->res = -ENOMEM;
    t->stage = TAKING_WAITING;
    if (t->pending == 0)
        commit(t);
}

void hand_take_tails(struct hand *h, const struct lane_from *from, const struct lane_frame *f)
{
    struct lane *l = lane_for(h, f);
    if (l == NULL || strcmp(l->given_by, from->node) != 0)
        return; /* it is the last owner's to say */
    for (uint32_t i = 0; i < f->item_count; i++)
        tail_done(l, f->items[i].id, f->items[i].index);
}

/* Chunks without a HAND will not go on; what is complete is taken all the same. */
void hand_take_loss(struct hand *h, const char *node)
{
    for (struct taking *t = h->takings; t != NULL; t = t->next)
        if (t->stage == TAKING_CHUNKS && (node == NULL || strcmp(t->node, node) == 0))
            t->stage = TAKING_DEAD;
}

/* --- turns --- */

/* True: the taking is over and may be freed. */
static bool taking_turn(struct taking *t, uint64_t now)
{
    if (t->stage == TAKING_CHUNKS && now >= t->at_ms + HAND_TAKING_MS)
        t->stage = TAKING_DEAD;
    if (t->pending > 0)
        return false;
    switch (t->stage) {
    case TAKING_CHUNKS:
        return false;
    case TAKING_WAITING:
        commit(t);
        return false;
    case TAKING_APPENDED:
        if (lane_of(t)->shard->unwritten != NULL)
            return false; /* what came back is not in the log yet */
        answer_set(t, t->res == 0 ? LANE_FRAME_TAKEN : LANE_FRAME_NOT_OWNER);
        return false;
    case TAKING_ANSWER:
        return answer_turn(t);
    case TAKING_DEAD:
        chunks_drop(t);
        return true;
    }
    return false;
}

void hand_take_turn(struct hand *h)
{
    uint64_t now = queue_now_ms(h->queue);
    for (struct taking **at = &h->takings; *at != NULL;) {
        struct taking *t = *at;
        bool over = taking_turn(t, now);
        if (!over && t->stage == TAKING_ANSWER)
            over = taking_turn(t, now);
        if (!over) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        h->taking_count--;
        taking_free(t);
    }
}
