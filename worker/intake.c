/*
 * Invariants: submission.pending counts the parts whose outcome is awaited; a part that was sent to
 * a peer is found again by its token, which names its place in the pool; a part whose submission
 * has gone stays until its owner answered.
 */
#include "worker/intake_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum { PARTS_POOL = 1 << 18, FULL_MS = 1, AWAY_MS = 20, OWNER_WAIT_MS = 10000 };

static void on_retry(struct timer *t);

int intake_create(struct intake **out, const struct intake_settings *s)
{
    struct intake *in = calloc(1, sizeof *in);
    if (in == NULL)
        return -ENOMEM;
    in->set = *s;
    in->timer.on_due = on_retry;
    /* 2^24 processes a boot, 2^40 messages each. */
    in->next_sequence = s->incarnation << 40 | 1;
    int r = pool_init(&in->parts, "parts", sizeof(struct intake_part), PARTS_POOL);
    if (r == 0)
        r = pool_init(&in->remotes, "remote parts", sizeof(struct remote_part), PARTS_POOL);
    if (r != 0)
        free(in);
    else
        *out = in;
    return r;
}

void intake_destroy(struct intake **in)
{
    if (*in == NULL)
        return;
    table_fini(&(*in)->by_token);
    table_fini(&(*in)->remote_by_token);
    pool_fini(&(*in)->parts);
    pool_fini(&(*in)->remotes);
    free(*in);
    *in = NULL;
}

struct msg_id intake_id(struct intake *in)
{
    return id_make(in->set.node_id, in->set.boot, in->next_sequence++);
}

unsigned intake_open_count(const struct intake *in)
{
    return in->parts.used + in->remotes.used;
}

bool chunk_append(struct record_place **places, uint32_t **bytes, uint16_t *count,
                  const struct enq_chunk *c)
{
    if (*count >= LIMIT_BODY_CHUNKS)
        return false;
    struct record_place *p = realloc(*places, (*count + 1u) * sizeof *p);
    if (p != NULL)
        *places = p;
    uint32_t *b = realloc(*bytes, (*count + 1u) * sizeof *b);
    if (b != NULL)
        *bytes = b;
    if (p == NULL || b == NULL)
        return false;
    p[*count] = c->place;
    b[*count] = c->body_bytes;
    (*count)++;
    return true;
}

/* --- envelopes --- */

static size_t as_is_bytes(const struct submission_rcpt *r)
{
    return r->as_is == NULL ? 0 : r->as_is->orcpt.n + r->as_is->notify.n;
}

static int encode(struct intake_part *p, const struct submission *s, struct msg_id id)
{
    size_t room = 1024 + s->enq.sender.n + s->enq.helo.n + s->enq.envid.n;
    for (unsigned i = 0; i < s->rcpt_count; i++)
        if (s->rcpts[i].lane == p->lane)
            room += s->rcpts[i].address.n + 64 + as_is_bytes(&s->rcpts[i]);
    uint8_t *buf = malloc(room);
    if (buf == NULL)
        return -ENOMEM;
    struct writer w = writer_of(buf, room);
    struct enq e = s->enq;
    e.id = id;
    e.rcpt_count = p->rcpt_count;
    e.chunk_count = 0;
    enq_put(&w, &e);
    for (unsigned i = 0; i < s->rcpt_count; i++) {
        if (s->rcpts[i].lane != p->lane)
            continue;
        struct enq_rcpt r = {.index = s->rcpts[i].index, .address = s->rcpts[i].address};
        if (s->rcpts[i].as_is != NULL)
            r = *s->rcpts[i].as_is;
        enq_put_rcpt(&w, &r);
    }
    MUST(!w.bad);
    int r = content_set_meta(p->content, span_of(buf, w.n));
    free(buf);
    return r;
}

/* Chunks follow the recipients: the list is put behind the meta, and the count into it, by encoding
   the envelope anew. */
struct content *content_with_chunks(struct content *c, const struct record_place *places,
                                    const uint32_t *bytes, uint16_t count)
{
    struct enq e;
    if (enq_read(span_of(c->meta, c->meta_bytes), &e) != 0)
        return NULL;
    size_t room = c->meta_bytes + 64u + count * 32u;
    uint8_t *buf = malloc(room);
    struct content *out = content_create(c->rest_bytes + 1);
    struct writer w = writer_of(buf, buf != NULL ? room : 0);
    e.chunk_count = count;
    enq_put(&w, &e);
    put_bytes(&w, e.rcpts);
    for (uint16_t i = 0; i < count; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = places[i], .body_bytes = bytes[i]});
    if (w.bad || out == NULL || content_set_meta(out, span_of(buf, w.n)) != 0) {
        free(buf);
        content_unref(&out);
        return NULL;
    }
    free(buf);
    memcpy(out->rest, c->rest, c->rest_bytes);
    out->rest_bytes = c->rest_bytes;
    return out;
}

/* --- parts --- */

static void stop_waiting(struct intake_part *p)
{
    if (p->waiting_link == NULL)
        return;
    *p->waiting_link = p->next_waiting;
    if (p->next_waiting != NULL)
        p->next_waiting->waiting_link = p->waiting_link;
    p->waiting_link = NULL;
    p->next_waiting = NULL;
}

static void waiting_add(struct intake_part *p, struct intake_part **list)
{
    MUST(p->waiting_link == NULL);
    p->next_waiting = *list;
    p->waiting_link = list;
    if (p->next_waiting != NULL)
        p->next_waiting->waiting_link = &p->next_waiting;
    *list = p;
}

static void part_free(struct intake_part *p)
{
    stop_waiting(p);
    table_remove(&p->intake->by_token, hash_u64(p->token), pool_index(&p->intake->parts, p));
    *p->all_link = p->next_all;
    if (p->next_all != NULL)
        p->next_all->all_link = p->all_link;
    content_unref(&p->content);
    free(p->chunk_bytes);
    free(p->chunks);
    pool_put(&p->intake->parts, p);
}

static void wait_for_owner(struct intake_part *p)
{
    struct intake *in = p->intake;
    uint64_t now = queue_now_ms(in->set.queue);
    if (p->waiting_since_ms == 0)
        p->waiting_since_ms = now;
    p->state = PART_WAITING;
    if (now - p->waiting_since_ms >= OWNER_WAIT_MS) {
        part_done(p, -ETIMEDOUT);
        return;
    }
    if (p->waiting_link == NULL)
        waiting_add(p, &in->waiting);
    /* A full ring or log is drained within a turn or two; an owner that is away takes longer to
       come. */
    bool here = p->lane->shard != NULL || exchange_holder(in->set.exchange, p->lane->owner) != NULL;
    if (here || !timer_is_set(&in->timer))
        timer_set(in->set.wheel, &in->timer, here ? FULL_MS : AWAY_MS);
}

static void drop_there(struct intake_part *p)
{
    struct exchange_frame f = {
        .kind = EXCHANGE_DROP, .token = p->token, .lane = p->lane->number, .meta = span_str("x")};
    if (exchange_send(p->peer, &f) != 0)
        log_warn(
            "the exchange is full: chunks of a message that did not come stay until compaction");
}

/* Pieces of the body that are in a log for this part, here or there, are not wanted any more. */
static void drop_pieces(struct intake_part *p)
{
    if (p->chunk_count > 0 && p->lane->shard != NULL)
        shard_drop_chunks(p->lane->shard, p->chunks, p->chunk_count);
    p->chunk_count = 0;
    if (p->ordinal > 0 && p->peer != NULL)
        drop_there(p); /* or the owner waits for the rest, and never ends its drain */
    p->ordinal = 0;
}

void part_done(struct intake_part *p, int res)
{
    struct submission *s = p->submission;
    enum part_work work = p->work;
    stop_waiting(p);
    p->work = WORK_NONE;
    p->state = work == WORK_COMMIT ? PART_DONE : PART_OPEN;
    if (s == NULL) { /* the client did not wait */
        drop_pieces(p);
        part_free(p);
        return;
    }
    if (res != 0 && s->res == 0)
        s->res = res;
    MUST(s->pending > 0);
    if (--s->pending > 0)
        return;
    if (s->committing)
        s->on_done(s, s->res);
    else
        s->on_chunk(s, s->res);
}

static void on_local_enqueued(struct enqueue *x, int res)
{
    struct intake_part *p =
        (struct intake_part *)((char *)x - offsetof(struct intake_part, enqueue));
    if (p->enqueue.chunk_count > 0) { /* the shard has taken the places over, or dropped them */
        p->chunks = NULL;
        p->chunk_count = 0;
    }
    part_done(p, res);
}

static void on_local_chunk(struct spool_wait *w, int res)
{
    struct intake_part *p =
        (struct intake_part *)((char *)w - offsetof(struct intake_part, chunk_wait));
    struct enq_chunk c = {.place = p->chunk_place, .body_bytes = (uint32_t)p->chunk.n};
    if (res == 0 && !chunk_append(&p->chunks, &p->chunk_bytes, &p->chunk_count, &c))
        res = -ENOMEM;
    if (res != 0)
        shard_drop_chunks(p->lane->shard, &p->chunk_place, 1);
    part_done(p, res);
}

bool content_is_whole(const struct content *c, const uint32_t *chunk_bytes, uint16_t count)
{
    struct enq e;
    if (enq_read(span_of(c->meta, c->meta_bytes), &e) != 0)
        return false;
    uint64_t bytes = c->rest_bytes;
    for (uint16_t i = 0; i < count; i++)
        bytes += chunk_bytes[i];
    return bytes == e.trace_bytes + e.body_bytes;
}

static int commit_here(struct intake_part *p)
{
    struct content *c = p->content;
    if (!content_is_whole(c, p->chunk_bytes, p->chunk_count))
        return -EBADMSG;
    if (p->chunk_count > 0) {
        struct content *with = content_with_chunks(c, p->chunks, p->chunk_bytes, p->chunk_count);
        if (with == NULL)
            return -ENOMEM;
        content_unref(&p->content);
        p->content = c = with;
    }
    p->enqueue = (struct enqueue){.on_done = on_local_enqueued,
                                  .lane = p->lane,
                                  .content = c,
                                  .chunks = p->chunks,
                                  .chunk_count = p->chunk_count,
                                  .rcpt_count = p->rcpt_count,
                                  .taken_over = (p->submission->enq.flags & ENQ_TAKEN_OVER) != 0};
    return shard_enqueue(p->lane->shard, &p->enqueue);
}

static int work_here(struct intake_part *p)
{
    p->peer = NULL;
    if (p->work == WORK_COMMIT)
        return commit_here(p);
    struct enq e;
    int r = enq_read(span_of(p->content->meta, p->content->meta_bytes), &e);
    MUST(r == 0);
    p->chunk_wait.on_durable = on_local_chunk;
    return shard_put_chunk(p->lane, e.id, p->chunk, &p->chunk_wait, &p->chunk_place);
}

static int work_there(struct intake_part *p, struct peer *peer)
{
    struct exchange_frame f = {.token = p->token, .lane = p->lane->number};
    uint8_t id[32];
    struct writer w = writer_of(id, sizeof id);
    if (p->work == WORK_COMMIT) {
        f.kind = EXCHANGE_ENQ;
        f.meta = span_of(p->content->meta, p->content->meta_bytes);
        f.rcpt_count = p->rcpt_count;
        f.rest = span_of(p->content->rest, p->content->rest_bytes);
    } else {
        f.kind = EXCHANGE_CHUNK;
        f.ordinal = p->ordinal;
        f.rest = p->chunk;
        struct enq e; /* the id alone: a chunk and a long envelope would be larger than a frame */
        int bad = enq_read(span_of(p->content->meta, p->content->meta_bytes), &e);
        MUST(bad == 0);
        body_put(&w, e.id, p->ordinal);
        f.meta = span_of(id, w.n);
    }
    int r = exchange_send(peer, &f);
    if (r != 0)
        return r;
    p->peer = peer;
    if (p->work == WORK_CHUNK)
        p->ordinal++;
    p->intake->set.queue->env.stats->exchange_out++;
    return 0;
}

/* Starts or retries what the part has to do. */
static void part_start(struct intake_part *p)
{
    struct intake *in = p->intake;
    bool here = p->lane->shard != NULL;
    struct peer *peer = here ? NULL : exchange_holder(in->set.exchange, p->lane->owner);
    if ((p->ordinal > 0 && (here || peer != p->peer)) || (!here && peer == NULL && in->orphaned)) {
        part_done(p, -ECONNRESET); /* earlier chunks went with the owner that had them */
        return;
    }
    int r = here ? work_here(p) : peer != NULL ? work_there(p, peer) : -ENOBUFS;
    if (r == -ENOBUFS) {
        wait_for_owner(p);
        return;
    }
    stop_waiting(p);
    p->state = PART_SENT;
    if (r != 0)
        part_done(p, r);
}

void intake_retry(struct intake *in)
{
    struct intake_part *list = in->waiting;
    in->waiting = NULL;
    if (list != NULL)
        list->waiting_link = &list;
    while (list != NULL) {
        struct intake_part *p = list;
        stop_waiting(p);
        part_start(p);
    }
}

void intake_orphan(struct intake *in)
{
    in->orphaned = true;
    intake_retry(in);
}

static void on_retry(struct timer *t)
{
    intake_retry((struct intake *)((char *)t - offsetof(struct intake, timer)));
}

void intake_on_up(void *ctx, struct peer *p)
{
    (void)p;
    intake_retry(ctx);
}

/* --- submissions --- */

static struct intake_part *part_for(struct submission *s, struct lane *lane)
{
    for (struct intake_part *p = s->parts; p != NULL; p = p->next)
        if (p->lane == lane)
            return p;
    struct intake *in = s->intake;
    struct intake_part *p = pool_get(&in->parts);
    if (p == NULL)
        return NULL;
    p->token = ++in->next_token;
    if (table_add(&in->by_token, hash_u64(p->token), pool_index(&in->parts, p)) != 0) {
        pool_put(&in->parts, p);
        return NULL;
    }
    p->submission = s;
    p->intake = in;
    p->lane = lane;
    p->next_all = in->all;
    p->all_link = &in->all;
    if (p->next_all != NULL)
        p->next_all->all_link = &p->next_all;
    in->all = p;
    p->next = s->parts;
    s->parts = p;
    return p;
}

int submission_open(struct intake *in, struct submission *s)
{
    s->intake = in;
    s->parts = NULL;
    s->pending = 0;
    s->res = 0;
    s->chunked = false;
    s->committing = false;
    unsigned parts = 0;
    for (unsigned i = 0; i < s->rcpt_count; i++) {
        struct intake_part *p = part_for(s, s->rcpts[i].lane);
        if (p == NULL) {
            submission_close(s);
            return -ENOBUFS;
        }
        parts += p->rcpt_count++ == 0;
        if (parts > INTAKE_PARTS_MAX) {
            submission_close(s);
            return -E2BIG;
        }
    }
    return 0;
}

/* Gives every part its envelope; parts share the rest. The first part has the id that the client
   hears. */
static int make_contents(struct submission *s)
{
    bool first = true;
    for (struct intake_part *p = s->parts; p != NULL; p = p->next) {
        if (p->content != NULL && !s->chunked)
            continue;
        struct msg_id id = first ? s->enq.id : intake_id(s->intake);
        struct enq e;
        if (p->content != NULL &&
            enq_read(span_of(p->content->meta, p->content->meta_bytes), &e) == 0)
            id = e.id; /* its chunks are under this id already */
        content_unref(&p->content);
        if (first && s->content != NULL) {
            p->content = content_ref(s->content);
        } else {
            p->content = content_create(s->content != NULL ? s->content->rest_bytes + 1 : 1);
            if (p->content == NULL)
                return -ENOMEM;
            if (s->content != NULL) {
                memcpy(p->content->rest, s->content->rest, s->content->rest_bytes);
                p->content->rest_bytes = s->content->rest_bytes;
            }
        }
        first = false;
        int r = encode(p, s, id);
        if (r != 0)
            return r;
    }
    return 0;
}

static void start_all(struct submission *s, enum part_work work, struct span chunk)
{
    s->pending = 1; /* ours, so that an answer from within part_start is not the last one */
    for (struct intake_part *p = s->parts; p != NULL; p = p->next) {
        s->pending++;
        p->work = work;
        p->chunk = chunk;
        p->waiting_since_ms = 0;
        part_start(p);
    }
    if (--s->pending > 0)
        return;
    if (s->committing)
        s->on_done(s, s->res);
    else
        s->on_chunk(s, s->res);
}

void submission_chunk(struct submission *s, struct span chunk)
{
    MUST(s->pending == 0);
    if (!s->chunked) {
        struct content *whole = s->content;
        s->content = NULL; /* chunks need an id, not the rest */
        int r = make_contents(s);
        s->content = whole;
        if (r != 0) {
            s->res = r;
            s->on_chunk(s, r);
            return;
        }
    }
    s->chunked = true;
    start_all(s, WORK_CHUNK, chunk);
}

void submission_commit(struct submission *s)
{
    MUST(s->pending == 0);
    s->committing = true;
    int r = make_contents(s);
    if (r != 0) {
        s->on_done(s, r);
        return;
    }
    start_all(s, WORK_COMMIT, span_of(NULL, 0));
}

void submission_close(struct submission *s)
{
    while (s->parts != NULL) {
        struct intake_part *p = s->parts;
        s->parts = p->next;
        p->submission = NULL;
        if (p->state == PART_SENT)
            continue; /* freed by its answer */
        drop_pieces(p);
        part_free(p);
    }
}

/* --- answers of owners --- */

static bool part_has_token(const void *ctx, uint32_t value, const void *key)
{
    const struct intake *in = ctx;
    const struct intake_part *p = pool_at(&in->parts, value);
    return p->token == *(const uint64_t *)key;
}

static struct intake_part *part_by_token(struct intake *in, uint64_t token)
{
    uint32_t i = table_find(&in->by_token, hash_u64(token), part_has_token, in, &token);
    struct intake_part *p = i == 0 ? NULL : pool_at(&in->parts, i);
    return p != NULL && p->state == PART_SENT ? p : NULL;
}

void intake_on_ack(struct intake *in, struct peer *from, const struct exchange_frame *f)
{
    struct intake_part *p = part_by_token(in, f->token);
    if (p == NULL || p->peer != from)
        return;
    bool later = f->res == -ENOBUFS || f->res == -EAGAIN; /* full for a moment, or not ready yet */
    if (later && p->submission != NULL) {
        wait_for_owner(p);
        return;
    }
    if (p->work == WORK_COMMIT && !later)
        p->ordinal = 0; /* the owner has made a message of its chunks, or let go of them */
    part_done(p, f->res);
}

void intake_fail_peer(struct intake *in, struct peer *peer)
{
    /* an outcome may end other parts: those leave this list by themselves */
    struct intake_part *failed = NULL;
    for (struct intake_part *p = in->all; p != NULL; p = p->next_all) {
        if (p->peer != peer)
            continue;
        p->peer = NULL;
        if (p->state == PART_SENT)
            waiting_add(p, &failed);
    }
    while (failed != NULL) {
        struct intake_part *p = failed;
        stop_waiting(p);
        part_done(p, -ECONNRESET);
    }
}
