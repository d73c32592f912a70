/*
 * Opening, closing, and messages on their way into the log. Outcomes: shard_note.c; recovery:
 * shard_apply.c; copies: shard_copy.c.
 *
 * Invariants: a message stands in the store exactly from the durability of its ENQ (or its
 * recovery) to its last fate; spool_live carries the bytes of its ENQ and its chunks during that
 * time; ledger.accepted counts it from the same moment, `pending` before.
 */
#include "worker/lane/shard_impl.h"

#include "base/log.h"
#include "worker/lane/deliver.h"
#include "worker/lane/flow.h"
#include "worker/lane/role_impl.h"

#include <errno.h>
#include <stdlib.h>

enum {
    CACHE_READY_MAX =
        4096 /* entries of a flow ahead: a long queue is read back from disk, a short one is not */
};

struct chunk_list {
    struct record_place *places;
    uint16_t count;
    uint32_t next_free;
};

int shard_open(struct shard **out, struct queue *q, const char *dir, uint32_t number)
{
    const struct config *c = q->env.config;
    struct shard *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->queue = q;
    s->number = number;
    int r = disk_open(&s->disk, q->env.io, dir);
    if (r != 0)
        goto fail;
    struct spool_settings set = {.segment_bytes = c->spool_options.segment_bytes,
                                 .spare_count = c->spool_options.spares,
                                 .reserve_bytes = c->spool_options.reserve_bytes};
    struct spool_owner owner;
    shard_owner(s, &owner);
    q->shards[q->shard_count++] = s;
    r = spool_open(&s->spool, s->disk, &set, &owner);
    if (r == 0 && s->left_out > 0) {
        /* What is not in the index would not be kept in the log either. */
        log_err("shard %u: %llu messages find no room in memory: raise queue.entries_max", number,
                (unsigned long long)s->left_out);
        spool_close(&s->spool);
        r = -ENOSPC;
    }
    if (r != 0) {
        q->shard_count--;
        goto fail;
    }
    shard_start_lanes(s);
    *out = s;
    return 0;
fail:
    if (s->disk != NULL)
        disk_close(&s->disk);
    free(s);
    return r;
}

void shard_close(struct shard **sp)
{
    struct shard *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    spool_close(&s->spool);
    disk_close(&s->disk);
    shard_copies_free(s);
    free(s);
}

bool shard_idle(const struct shard *s)
{
    return s->unwritten == NULL && spool_idle(s->spool);
}

void shard_turn(struct shard *s)
{
    spool_turn(s->spool, queue_now_ms(s->queue));
}

struct record_place msg_place(const struct qmsg *m)
{
    return (struct record_place){m->segment, m->offset, m->bytes};
}

/* --- chunk lists --- */

uint32_t chunks_keep(struct queue *q, struct record_place *places, uint16_t count)
{
    uint32_t i = q->chunk_list_free;
    if (i != 0) {
        q->chunk_list_free = q->chunk_lists[i].next_free;
    } else {
        uint32_t want = q->chunk_list_count == 0 ? 2 : q->chunk_list_count + 1;
        struct chunk_list *bigger = realloc(q->chunk_lists, want * sizeof *bigger);
        if (bigger == NULL)
            return 0;
        q->chunk_lists = bigger;
        i = want - 1;
        q->chunk_list_count = want;
    }
    q->chunk_lists[i] = (struct chunk_list){.places = places, .count = count};
    return i;
}

struct record_place *chunks_take(struct queue *q, uint32_t i)
{
    struct record_place *places = q->chunk_lists[i].places;
    q->chunk_lists[i] = (struct chunk_list){.next_free = q->chunk_list_free};
    q->chunk_list_free = i;
    return places;
}

void shard_lists_free(struct queue *q)
{
    for (uint32_t i = 1; i < q->chunk_list_count; i++)
        free(q->chunk_lists[i].places);
    free(q->chunk_lists);
    q->chunk_lists = NULL;
    q->chunk_list_count = q->chunk_list_free = 0;
}

uint16_t shard_chunks(const struct queue *q, const struct qmsg *m, const struct record_place **out)
{
    *out = m->chunks == 0 ? NULL : q->chunk_lists[m->chunks].places;
    return m->chunks == 0 ? 0 : q->chunk_lists[m->chunks].count;
}

/* Adds (sign 1) or takes (sign -1) the bytes of a message to or from its segments. */
void msg_live(struct queue *q, const struct qmsg *m, int sign)
{
    struct spool *spool = q->lanes[m->lane].shard->spool;
    spool_live(spool, m->segment, sign * (int64_t)m->bytes);
    const struct record_place *c;
    uint16_t n = shard_chunks(q, m, &c);
    for (uint16_t i = 0; i < n; i++)
        spool_live(spool, c[i].segment, sign * (int64_t)c[i].bytes);
}

void shard_drop_chunks(struct shard *s, const struct record_place *places, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++)
        spool_live(s->spool, places[i].segment, -(int64_t)places[i].bytes);
}

/* --- cache --- */

void shard_uncache(struct queue *q, struct qmsg *m)
{
    struct content *c = msg_content(m);
    if (c == NULL)
        return;
    MUST(q->cache_bytes >= c->rest_bytes + c->meta_bytes);
    q->cache_bytes -= c->rest_bytes + c->meta_bytes;
    m->content_bits = 0;
    content_unref(&c);
}

void shard_cache(struct queue *q, struct qmsg *m, struct content *c)
{
    uint64_t bytes = c->rest_bytes + c->meta_bytes;
    if (q->cache_bytes + bytes > q->env.config->queue.cache_bytes)
        return;
    const struct qentry *e = store_entry(&q->store, m->first);
    if (m->chunks != 0 || (e->state != ENTRY_READY && e->state != ENTRY_RESOLVING))
        return;
    if (e->state == ENTRY_READY) {
        const struct flow *f = flow_at(q, e->flow);
        if (flow_is_held(q, f) || f->ready[0] + f->ready[1] > CACHE_READY_MAX)
            return;
    }
    m->content_bits = (uint64_t)(uintptr_t)content_ref(c);
    q->cache_bytes += bytes;
}

void shard_forget(struct queue *q, struct qmsg *m)
{
    shard_uncache(q, m);
    msg_live(q, m, -1);
    if (m->chunks != 0)
        free(chunks_take(q, m->chunks));
    m->chunks = 0;
    store_remove(&q->store, m);
}

/* --- messages in --- */

/* The copy that could not be written, if no later one has replaced it. */
static void copy_failed(struct enqueue *x)
{
    struct queue *q = x->shard->queue;
    struct enq e;
    int r = enq_read(span_of(x->content->meta, x->content->meta_bytes), &e);
    MUST(r == 0);
    struct qmsg *m = store_find(&q->store, e.id);
    q->env.stats->commit_failures++;
    if (m != NULL && m->segment == x->place.segment && m->offset == x->place.offset)
        msg_unmake(q, m);
}

static void on_enq_durable(struct spool_wait *w, int res)
{
    struct enqueue *x = (struct enqueue *)((char *)w - offsetof(struct enqueue, wait));
    struct shard *s = x->shard;
    struct queue *q = s->queue;
    s->pending -= x->replica ? 0 : x->rcpt_count;
    s->pending_taken -= x->taken_over && !x->replica ? x->rcpt_count : 0;
    if (x->replica) {
        if (res != 0)
            copy_failed(x);
    } else if (res == 0) {
        struct qmsg *m = msg_insert(s, x);
        if (m != NULL && x->content->rest_bytes > 0) /* NULL: its fate is decided already */
            shard_cache(q, m, x->content);
    } else {
        q->env.stats->commit_failures++;
        if (x->chunk_count > 0) {
            shard_drop_chunks(s, x->chunks, x->chunk_count);
            free(x->chunks);
        }
    }
    struct content *c = x->content;
    x->on_done(x, res);
    content_unref(&c);
}

int shard_enqueue(struct shard *s, struct enqueue *x)
{
    struct queue *q = s->queue;
    uint64_t coming = x->rcpt_count; /* all of them must find room when they are durable */
    for (uint32_t i = 0; i < q->shard_count; i++)
        coming += q->shards[i]->pending;
    if (q->store.entries.used + coming > q->store.entries.count_max ||
        !domains_have_room(q, coming))
        return -ENOSPC;
    struct enq e;
    int r = enq_read(span_of(x->content->meta, x->content->meta_bytes), &e);
    MUST(r == 0);
    if (x->replica)
        r = replica_admit(q, x->lane, e.id);
    if (r != 0)
        return r;
    if (x->replica)
        replica_replace(q, e.id); /* the owner had it: true with or without the copy */
    x->shard = s;
    x->wait.on_durable = on_enq_durable;
    x->epoch = x->replica ? x->lane->epoch : role_mail_epoch(x->lane);
    struct spool_append a = {.type = RECORD_ENQ,
                             .lane = x->lane->number,
                             .epoch = x->epoch,
                             .position = x->lane->position + 1,
                             .flags = x->replica      ? ENQ_HEAD_REPLICA
                                      : x->taken_over ? ENQ_HEAD_TAKEN_OVER
                                                      : 0,
                             .meta = span_of(x->content->meta, x->content->meta_bytes),
                             .rest = {span_of(x->content->rest, x->content->rest_bytes)},
                             .rest_count = 1};
    r = spool_append(s->spool, &a, &x->wait, &x->place);
    if (r != 0)
        return r;
    x->lane->position++;
    if (x->replica)
        msg_insert_copy(s, x);
    else
        s->pending += x->rcpt_count;
    s->pending_taken += x->taken_over && !x->replica ? x->rcpt_count : 0;
    content_ref(x->content);
    return 0;
}

int shard_put_chunk(struct lane *lane, struct msg_id id, struct span chunk,
                    struct spool_wait *wait, struct record_place *place)
{
    struct shard *s = lane->shard;
    uint8_t meta[32];
    struct writer w = writer_of(meta, sizeof meta);
    body_put(&w, id, 0);
    struct spool_append a = {.type = RECORD_BODY,
                             .lane = lane->number,
                             .epoch = role_mail_epoch(lane),
                             .position = lane->position + 1,
                             .meta = span_of(meta, w.n),
                             .rest = {chunk},
                             .rest_count = 1};
    int r = spool_append(s->spool, &a, wait, place);
    if (r != 0)
        return r;
    lane->position++;
    spool_live(s->spool, place->segment, place->bytes);
    return 0;
}

void shards_ledger(const struct queue *q, struct ledger *sum)
{
    memset(sum, 0, sizeof *sum);
    for (uint32_t i = 0; i < q->shard_count; i++) {
        const struct ledger *l = &q->shards[i]->ledger;
        sum->accepted += l->accepted;
        sum->delivered += l->delivered;
        sum->bounced += l->bounced;
        sum->expired += l->expired;
        sum->deleted += l->deleted;
        sum->handed_over += l->handed_over;
        sum->taken_over += l->taken_over;
    }
}
