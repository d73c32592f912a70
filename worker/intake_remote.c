/*
 * The owner's side: messages that another worker accepted for one of our lanes.
 *
 * Invariant: every ENQ and CHUNK frame is answered by exactly one ACK, when its commit is durable
 * or has failed; a peer that has gone is not answered, and what it left unfinished is dropped.
 */
#include "worker/intake_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

static void ack(struct peer *p, uint64_t token, int res)
{
    struct exchange_frame f = {
        .kind = EXCHANGE_ACK, .token = token, .res = res, .meta = span_str("a")};
    if (p != NULL && exchange_send(p, &f) != 0)
        log_err("the exchange is full: a worker will wait in vain for an answer and say 451");
}

struct remote_key {
    const struct peer *peer;
    uint64_t token;
};

static uint32_t remote_hash(const struct remote_key *k)
{
    return hash_u64(k->token ^ (uint64_t)(uintptr_t)k->peer << 20);
}

static bool remote_has_key(const void *ctx, uint32_t value, const void *key)
{
    const struct intake *in = ctx;
    const struct remote_part *r = pool_at(&in->remotes, value);
    const struct remote_key *k = key;
    return r->peer == k->peer && r->token == k->token;
}

/* The peer has gone, or the part: nothing asks for it any more. */
static void remote_unname(struct remote_part *r)
{
    struct remote_key k = {r->peer, r->token};
    if (r->peer != NULL)
        table_remove(&r->intake->remote_by_token, remote_hash(&k),
                     pool_index(&r->intake->remotes, r));
    r->peer = NULL;
}

static void remote_free(struct remote_part *r)
{
    remote_unname(r);
    *r->link = r->next;
    if (r->next != NULL)
        r->next->link = r->link;
    content_unref(&r->content);
    free(r->chunks);
    free(r->chunk_bytes);
    pool_put(&r->intake->remotes, r);
}

static void remote_drop(struct remote_part *r)
{
    if (r->busy) {
        r->dropped = true;
        return;
    }
    if (r->lane->shard != NULL)
        shard_drop_chunks(r->lane->shard, r->chunks, r->chunk_count);
    remote_free(r);
}

static struct remote_part *remote_find(struct intake *in, struct peer *p, uint64_t token)
{
    struct remote_key k = {p, token};
    uint32_t i = table_find(&in->remote_by_token, remote_hash(&k), remote_has_key, in, &k);
    return i == 0 ? NULL : pool_at(&in->remotes, i);
}

static struct remote_part *remote_add(struct intake *in, struct peer *p,
                                      const struct exchange_frame *f, struct lane *lane)
{
    struct remote_part *r = pool_get(&in->remotes);
    if (r == NULL)
        return NULL;
    struct remote_key k = {p, f->token};
    if (table_add(&in->remote_by_token, remote_hash(&k), pool_index(&in->remotes, r)) != 0) {
        pool_put(&in->remotes, r);
        return NULL;
    }
    r->intake = in;
    r->peer = p;
    r->token = f->token;
    r->lane = lane;
    r->next = in->remote_list;
    r->link = &in->remote_list;
    if (r->next != NULL)
        r->next->link = &r->next;
    in->remote_list = r;
    return r;
}

static void on_enqueued(struct enqueue *x, int res)
{
    struct remote_part *r =
        (struct remote_part *)((char *)x - offsetof(struct remote_part, enqueue));
    ack(r->peer, r->token, res);
    r->chunks = NULL; /* taken over by the shard, or dropped there */
    r->chunk_count = 0;
    remote_free(r);
}

static int commit(struct remote_part *r, const struct exchange_frame *f)
{
    struct content *c = content_create((uint32_t)f->rest.n + 1);
    content_unref(&r->content); /* of a try before */
    if (c == NULL || content_set_meta(c, f->meta) != 0) {
        content_unref(&c);
        return -ENOMEM;
    }
    memcpy(c->rest, f->rest.p, f->rest.n);
    c->rest_bytes = (uint32_t)f->rest.n;
    r->content = c;
    struct enq e;
    if (enq_read(f->meta, &e) != 0 || e.rcpt_count != f->rcpt_count ||
        !content_is_whole(c, r->chunk_bytes, r->chunk_count))
        return -EBADMSG;
    if (r->chunk_count > 0) {
        struct content *with = content_with_chunks(c, r->chunks, r->chunk_bytes, r->chunk_count);
        if (with == NULL)
            return -ENOMEM;
        content_unref(&r->content);
        r->content = with;
    }
    r->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = r->lane,
                                  .content = r->content,
                                  .chunks = r->chunks,
                                  .chunk_count = r->chunk_count,
                                  .rcpt_count = f->rcpt_count,
                                  .taken_over = (e.flags & ENQ_TAKEN_OVER) != 0};
    int res = shard_enqueue(r->lane->shard, &r->enqueue);
    r->busy = res == 0;
    return res;
}

static void on_chunk_durable(struct spool_wait *w, int res)
{
    struct remote_part *r =
        (struct remote_part *)((char *)w - offsetof(struct remote_part, chunk_wait));
    struct enq_chunk c = {.place = r->chunk_place, .body_bytes = r->chunk_size};
    r->busy = false;
    if (res == 0 && !chunk_append(&r->chunks, &r->chunk_bytes, &r->chunk_count, &c))
        res = -ENOMEM;
    if (res != 0)
        shard_drop_chunks(r->lane->shard, &r->chunk_place, 1);
    ack(r->peer, r->token, res);
    if (r->dropped)
        remote_drop(r);
}

static int take_chunk(struct remote_part *r, const struct exchange_frame *f)
{
    struct msg_id id;
    uint32_t ordinal;
    if (body_read(f->meta, &id, &ordinal) != 0)
        return -EBADMSG;
    r->chunk_wait.on_durable = on_chunk_durable;
    r->chunk_size = (uint32_t)f->rest.n;
    int res = shard_put_chunk(r->lane, id, f->rest, &r->chunk_wait,
                              &r->chunk_place);
    r->busy = res == 0;
    return res;
}

void intake_on_frame(void *ctx, struct peer *p, const struct exchange_frame *f)
{
    struct intake *in = ctx;
    if (f->kind == EXCHANGE_ACK) {
        intake_on_ack(in, p, f);
        return;
    }
    in->set.queue->env.stats->exchange_in++;
    struct remote_part *r = remote_find(in, p, f->token);
    if (f->kind == EXCHANGE_DROP) {
        if (r != NULL)
            remote_drop(r);
        return;
    }
    struct lane *lane = lane_by_number(in->set.queue, f->lane);
    if (lane == NULL || lane->shard == NULL) {
        ack(p, f->token, -EAGAIN);
        return;
    }
    if (r == NULL)
        r = remote_add(in, p, f, lane);
    if (r == NULL || r->busy) {
        ack(p, f->token, -ENOBUFS);
        return;
    }
    int res = f->kind == EXCHANGE_ENQ ? commit(r, f) : take_chunk(r, f);
    if (res == 0)
        return;
    ack(p, f->token, res);
    bool again = res == -ENOBUFS && r->chunk_count > 0; /* the speaker asks once more */
    if (f->kind == EXCHANGE_ENQ && !again)
        remote_drop(r);
}

void intake_on_down(void *ctx, struct peer *p)
{
    struct intake *in = ctx;
    struct remote_part *next;
    for (struct remote_part *r = in->remote_list; r != NULL; r = next) {
        next = r->next;
        if (r->peer != p)
            continue;
        remote_unname(r);
        if (!r->busy)
            remote_drop(r);
        else if (r->content == NULL)
            r->dropped = true; /* a chunk under way; a message under way is committed */
    }
    intake_fail_peer(in, p);
}
