/*
 * One frame of a copy into the log of the lane's shard.
 *
 * A message is in the index from the step that appends it (shard_enqueue of a copy), so what
 * follows about it is applied at once. Chunks are appended before their message: the log keeps
 * that order.
 */
#include "worker/lane/adopted.h"
#include "worker/move/replica_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* --- what is with the spool --- */

static struct replica_put *put_new(struct replica_stream *st, struct msg_id id)
{
    struct replica *r = st->replica;
    struct replica_put *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->stream = st;
    p->id = id;
    p->next = r->puts;
    p->link = &r->puts;
    if (p->next != NULL)
        p->next->link = &p->next;
    r->puts = p;
    return p;
}

void replica_put_free(struct replica_put *p)
{
    *p->link = p->next;
    if (p->next != NULL)
        p->next->link = p->link;
    content_unref(&p->content);
    free(p);
}

/* Also of an earlier beginning: what it put in was listed to the present one. */
static void on_enqueued(struct enqueue *x, int res)
{
    struct replica_put *p =
        (struct replica_put *)((char *)x - offsetof(struct replica_put, enqueue));
    struct replica_stream *st = p->stream;
    replica_put_free(p);
    if (res != 0)
        replica_refuse(st, res != -ENOSPC, "its disk takes nothing");
}

/* A message whose piece is lost must not stay; the source sends it again. */
static void on_chunk(struct spool_wait *w, int res)
{
    struct replica_put *p =
        (struct replica_put *)((char *)w - offsetof(struct replica_put, chunk_wait));
    struct replica_stream *st = p->stream;
    struct msg_id id = p->id;
    replica_put_free(p);
    if (res == 0)
        return;
    if (st->lane->role == LANE_REPLICA)
        replica_drop(st->lane, id);
    replica_refuse(st, res != -ENOSPC, "its disk takes nothing");
}

/* The log will take it in a later turn. */
static int later(int res)
{
    return res == -ENOBUFS || res == -EBUSY ? -EAGAIN : res;
}

/* --- large bodies --- */

static struct replica_part *part_find(const struct replica_stream *st, struct msg_id id)
{
    struct replica_part *p = st->parts;
    while (p != NULL && !id_eq(p->id, id))
        p = p->next;
    return p;
}

static void part_drop(struct replica_stream *st, struct replica_part *p)
{
    if (p == NULL)
        return;
    if (st->lane->shard != NULL)
        shard_drop_chunks(st->lane->shard, p->places, p->count);
    struct replica_part **at = &st->parts;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    st->part_count--;
    free(p->places);
    free(p->bytes);
    free(p);
}

void replica_parts_drop(struct replica_stream *st)
{
    while (st->parts != NULL)
        part_drop(st, st->parts);
}

static struct replica_part *part_for(struct replica_stream *st, struct msg_id id)
{
    struct replica_part *p = part_find(st, id);
    if (p != NULL)
        return p;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->id = id;
    p->places = calloc(LIMIT_BODY_CHUNKS, sizeof *p->places);
    p->bytes = calloc(LIMIT_BODY_CHUNKS, sizeof *p->bytes);
    p->next = st->parts;
    st->parts = p;
    st->part_count++;
    if (p->places != NULL && p->bytes != NULL)
        return p;
    part_drop(st, p);
    return NULL;
}

static int take_chunk(struct replica_stream *st, const struct lane_frame *f)
{
    if (f->item_count != 1 || f->rest.n == 0 || f->rest.n > LIMIT_BODY_CHUNK_BYTES)
        return -EBADMSG;
    struct msg_id id = f->items[0].id;
    if (f->items[0].index == 0) /* the source reads the message from its start again */
        part_drop(st, part_find(st, id));
    if (id_is_none(id) || (part_find(st, id) == NULL && st->part_count == REPLICA_PARTS_MAX))
        return -EBADMSG;
    struct replica_part *p = part_for(st, id);
    struct replica_put *put = p != NULL ? put_new(st, id) : NULL;
    if (put == NULL)
        return -ENOMEM;
    if (p->count != f->items[0].index || p->count == LIMIT_BODY_CHUNKS) {
        replica_put_free(put);
        return -EBADMSG;
    }
    put->chunk_wait.on_durable = on_chunk;
    int r = shard_put_chunk(st->lane, id, f->rest, &put->chunk_wait, &put->chunk_place);
    if (r != 0) {
        replica_put_free(put);
        return later(r);
    }
    p->places[p->count] = put->chunk_place;
    p->bytes[p->count++] = (uint32_t)f->rest.n;
    return 0;
}

/* --- messages --- */

/* The pieces that the envelope names are those that came, and make the body that it announces. */
static bool is_whole(const struct enq *e, const struct replica_part *p, size_t rest)
{
    uint16_t count = p != NULL ? p->count : 0;
    uint64_t bytes = rest;
    struct span chunks = e->chunks;
    struct enq_chunk c;
    if (e->chunk_count != count)
        return false;
    for (uint16_t i = 0; i < count && enq_chunk_next(&chunks, &c); i++) {
        if (c.body_bytes != p->bytes[i])
            return false;
        bytes += c.body_bytes;
    }
    return bytes == e->trace_bytes + e->body_bytes;
}

/* The same envelope with the places that the pieces have here. */
static struct content *content_here(const struct enq *e, const struct replica_part *p,
                                    const struct lane_frame *f)
{
    size_t room = f->meta.n + 64;
    uint8_t *buf = malloc(room);
    struct content *c = content_create((uint32_t)f->rest.n + 1);
    struct writer w = writer_of(buf, buf != NULL ? room : 0);
    enq_put(&w, e);
    put_bytes(&w, e->rcpts);
    for (uint16_t i = 0; i < e->chunk_count; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = p->places[i], .body_bytes = p->bytes[i]});
    if (w.bad || c == NULL || content_set_meta(c, span_of(buf, w.n)) != 0) {
        free(buf);
        content_unref(&c);
        return NULL;
    }
    free(buf);
    if (f->rest.n > 0)
        memcpy(c->rest, f->rest.p, f->rest.n);
    c->rest_bytes = (uint32_t)f->rest.n;
    return c;
}

static int enqueue(struct replica_stream *st, struct replica_put *put, const struct enq *e,
                   const struct replica_part *part)
{
    struct record_place *places = NULL;
    if (e->chunk_count > 0) {
        places = malloc(e->chunk_count * sizeof *places);
        if (places == NULL)
            return -ENOMEM;
        memcpy(places, part->places, e->chunk_count * sizeof *places);
    }
    put->enqueue = (struct enqueue){.on_done = on_enqueued,
                                    .lane = st->lane,
                                    .content = put->content,
                                    .chunks = places,
                                    .chunk_count = e->chunk_count,
                                    .rcpt_count = e->rcpt_count,
                                    .replica = true};
    int r = shard_enqueue(st->lane->shard, &put->enqueue);
    if (r != 0)
        free(places);
    return r;
}

static int take_enq(struct replica_stream *st, const struct lane_frame *f)
{
    struct enq e;
    if (enq_read(f->meta, &e) != 0 || !enq_is_sound(&e, f->rest.n) || (e.flags & ENQ_COPY) != 0)
        return -EBADMSG;
    struct replica_part *part = part_find(st, e.id);
    if (!is_whole(&e, part, f->rest.n))
        return -EBADMSG;
    struct replica_put *put = put_new(st, e.id);
    if (put == NULL)
        return -ENOMEM;
    put->content = content_here(&e, part, f);
    int r = put->content != NULL ? enqueue(st, put, &e, part) : -ENOMEM;
    if (r != 0) {
        replica_put_free(put);
        return later(r);
    }
    if (part != NULL) {
        part->count = 0; /* its places belong to the message now */
        part_drop(st, part);
    }
    return 0;
}

/* --- what becomes of them --- */

static int take_change(struct replica_stream *st, const struct lane_frame *f)
{
    struct outcome o;
    if (outcome_read(f->meta, &o) != 0 || (f->type != RECORD_DONE && f->type != RECORD_DEFER))
        return -EBADMSG;
    o.reply = f->rest;
    replica_outcome(st->lane, (enum record_type)f->type, &o);
    return 0;
}

static int take_drop(struct replica_stream *st, const struct lane_frame *f)
{
    for (uint32_t i = 0; i < f->item_count; i++)
        replica_drop(st->lane, f->items[i].id);
    return 0;
}

/* --- the end --- */

static int keep_tail(struct replica_stream *st, const struct lane_item *it)
{
    if (st->tail_count == REPLICA_TAILS_MAX)
        return -EBADMSG;
    if ((st->tail_count & (st->tail_count - 1)) == 0) { /* 0, 1, 2, 4, ...: the list is full */
        uint32_t cap = st->tail_count > 0 ? 2 * st->tail_count : 1;
        struct tail_item *p = realloc(st->tails, cap * sizeof *p);
        if (p == NULL)
            return -ENOMEM;
        st->tails = p;
    }
    st->tails[st->tail_count++] = (struct tail_item){it->id, it->index};
    return 0;
}

static int take_end_items(struct replica_stream *st, const struct lane_frame *f)
{
    for (uint32_t i = 0; i < f->item_count; i++) {
        const struct lane_item *it = &f->items[i];
        struct adopted_item a = {.id = it->id, .lane = st->lane->number};
        snprintf(a.origin, sizeof a.origin, "%s", it->origin);
        int r = a.origin[0] != '\0' ? adopted_keep(st->lane->shard, &a) : keep_tail(st, it);
        if (r != 0)
            return r;
        /* It took this one from us: before the lane is ours, and the stray could be mail again. */
        if (strcmp(a.origin, st->lane->shard->queue->env.config->node) == 0)
            stray_had(st->lane, it->id);
    }
    return 0;
}

static void on_ready(struct spool_wait *w, int res)
{
    struct replica_stream *st =
        (struct replica_stream *)((char *)w - offsetof(struct replica_stream, ready_wait));
    const struct replica *r = st->replica;
    st->readying = false;
    if (st->state != REPLICA_ENDING)
        return;
    if (res != 0) {
        replica_refuse(st, true, "its disk takes nothing");
        return;
    }
    struct control_lane_order o = {.op = LANE_OP_READY,
                                   .lane = st->lane->number,
                                   .epoch = st->epoch,
                                   .move = st->move,
                                   .slot = st->slot,
                                   .role = LANE_REPLICA,
                                   .complete = true};
    snprintf(o.node, sizeof o.node, "%s", st->node);
    r->set.events.on_ready(r->set.events.ctx, &o);
}

static int take_end(struct replica_stream *st, const struct lane_frame *f)
{
    if (st->state == REPLICA_LISTING || st->readying)
        return st->readying ? -EAGAIN : -EBADMSG;
    uint32_t before = st->tail_count;
    int r = take_end_items(st, f);
    if (r != 0 || !f->last)
        return r;
    r = replica_tails(st->lane, st->tails, st->tail_count);
    if (r == 0)
        r = replica_state(st->lane, f->rest);
    if (r == 0) {
        st->ready_wait.on_durable = on_ready;
        r = replica_ready(st->lane, &st->ready_wait);
    }
    if (r != 0) {
        st->tail_count = before; /* the frame comes again */
        return later(r);
    }
    st->state = REPLICA_ENDING;
    st->readying = true;
    return 0;
}

int replica_apply(struct replica_stream *st, const struct lane_frame *f)
{
    static int (*const takes[LANE_FRAME_KIND_COUNT])(struct replica_stream *,
                                                     const struct lane_frame *) = {
        [LANE_FRAME_CHUNK] = take_chunk, [LANE_FRAME_ENQ] = take_enq,
        [LANE_FRAME_CHANGE] = take_change, [LANE_FRAME_DROP] = take_drop,
        [LANE_FRAME_END] = take_end,
    };
    if (st->lane->shard == NULL || st->lane->role != LANE_REPLICA)
        return -ESTALE;
    return takes[f->kind] != NULL ? takes[f->kind](st, f) : -EBADMSG;
}
