/*
 * Output: pieces in order, some in shared 4 KB buffers, some in memory of the session. The queue
 * and its buffers are attached only while there is output, so that an idle connection has none.
 *
 * Invariants: at most one send is in flight, over the first pieces as they were when it was posted.
 * Later output extends the last piece or adds new ones, which that send does not see. A buffer
 * lives while a piece lies in it.
 */
#include "worker/io/conn_private.h"

#include <errno.h>

enum {
    CONN_REFS_MAX = 8,
    CONN_BUFFERS_MAX = 16, /* 64 KB of conn_put output a connection */
    CONN_PIECES = 32,      /* power of two; refs can split each buffer: 8 + 16 + 8 */
    CONN_BUFFER_BYTES = 4096,
};
static_assert((CONN_PIECES & (CONN_PIECES - 1)) == 0, "pieces are a ring");
static_assert(CONN_PIECES >= 2 * CONN_REFS_MAX + CONN_BUFFERS_MAX, "refs split buffers");

struct out_buffer {
    uint16_t used;
    uint16_t refs; /* pieces that lie in it */
    uint8_t bytes[CONN_BUFFER_BYTES];
};

struct out_piece {
    const uint8_t *p;
    size_t n;
    struct out_buffer *buffer; /* NULL: memory of the session */
};

struct out_queue {
    struct out_buffer *tail; /* where conn_put goes on, or NULL */
    size_t bytes;
    uint16_t first;
    uint16_t count;
    uint16_t ref_count;
    uint16_t buffer_count;
    struct msghdr msg;
    struct out_piece pieces[CONN_PIECES];
    struct iovec iov[CONN_PIECES];
};

static struct out_queue *queue_get(struct out_pools *o)
{
    struct out_queue *q;
    if (o->spare_queue_count > 0)
        q = o->spare_queues[--o->spare_queue_count];
    else
        q = pool_get(&o->queues);
    if (q != NULL) {
        q->tail = NULL;
        q->bytes = 0;
        q->first = q->count = q->ref_count = q->buffer_count = 0;
    }
    return q;
}

static void queue_put(struct out_pools *o, struct out_queue *q)
{
    MUST(q->count == 0 && q->bytes == 0 && q->buffer_count == 0);
    if (o->spare_queue_count < ARRAY_COUNT(o->spare_queues))
        o->spare_queues[o->spare_queue_count++] = q;
    else
        pool_put(&o->queues, q);
}

static struct out_buffer *buffer_get(struct out_pools *o)
{
    struct out_buffer *b;
    if (o->spare_buffer_count > 0)
        b = o->spare_buffers[--o->spare_buffer_count];
    else
        b = pool_get(&o->buffers);
    if (b != NULL)
        b->used = b->refs = 0;
    return b;
}

static void buffer_put(struct out_pools *o, struct out_buffer *b)
{
    if (o->spare_buffer_count < ARRAY_COUNT(o->spare_buffers))
        o->spare_buffers[o->spare_buffer_count++] = b;
    else
        pool_put(&o->buffers, b);
}

int conn_out_init(struct io *io)
{
    /* Each connection may have a reply on its way; bulk senders are bounded by the same sum. */
    uint32_t queues = io->settings.conn_count_max;
    uint32_t buffers = queues < IO_OUT_BUFFERS_MIN ? IO_OUT_BUFFERS_MIN : queues;
    if (buffers > IO_OUT_BUFFERS_MAX)
        buffers = IO_OUT_BUFFERS_MAX;
    int err = pool_init(&io->out.queues, "output queues", sizeof(struct out_queue), queues);
    if (err == 0)
        err = pool_init(&io->out.buffers, "output buffers", sizeof(struct out_buffer), buffers);
    return err;
}

void conn_out_fini(struct io *io)
{
    pool_fini(&io->out.queues);
    pool_fini(&io->out.buffers);
}

static struct out_piece *piece_at(struct out_queue *q, uint32_t i)
{
    return &q->pieces[(q->first + i) % CONN_PIECES];
}

static void release_queue(struct conn *c)
{
    struct out_queue *q = c->out;
    c->out = NULL;
    queue_put(&c->io->out, q);
}

static void pop_piece(struct conn *c)
{
    struct out_queue *q = c->out;
    struct out_buffer *b = piece_at(q, 0)->buffer;
    q->first = (uint16_t)((q->first + 1) % CONN_PIECES);
    q->count--;
    if (b == NULL) {
        q->ref_count--;
        return;
    }
    if (--b->refs > 0)
        return;
    if (q->tail == b)
        q->tail = NULL;
    q->buffer_count--;
    buffer_put(&c->io->out, b);
}

/* Takes n sent bytes off the front. */
static void consume(struct conn *c, size_t n)
{
    struct out_queue *q = c->out;
    MUST(n <= q->bytes);
    q->bytes -= n;
    while (n > 0) {
        struct out_piece *p = piece_at(q, 0);
        if (n < p->n) {
            p->p += n;
            p->n -= n;
            return;
        }
        n -= p->n;
        pop_piece(c);
    }
}

void conn_out_drop(struct conn *c)
{
    MUST(!(c->ops & CONN_OP_SEND));
    if (c->out == NULL)
        return;
    while (c->out->count > 0)
        pop_piece(c);
    c->out->bytes = 0;
    release_queue(c);
}

static bool takes_output(const struct conn *c)
{
    return c->err == 0 && (c->state == CONN_OPEN || c->state == CONN_CONNECTING);
}

/* The queue with room for one more piece, or NULL. */
static struct out_queue *queue_for(struct conn *c)
{
    if (c->out == NULL)
        c->out = queue_get(&c->io->out);
    if (c->out == NULL || c->out->count == CONN_PIECES)
        return NULL;
    return c->out;
}

static uint8_t *add_piece(struct conn *c, struct out_queue *q, size_t n)
{
    if (q->tail == NULL || q->tail->used + n > CONN_BUFFER_BYTES) {
        if (q->buffer_count == CONN_BUFFERS_MAX)
            return NULL;
        struct out_buffer *b = buffer_get(&c->io->out);
        if (b == NULL)
            return NULL;
        q->tail = b;
        q->buffer_count++;
    }
    uint8_t *p = q->tail->bytes + q->tail->used;
    *piece_at(q, q->count++) = (struct out_piece){.p = p, .n = n, .buffer = q->tail};
    q->tail->refs++;
    return p;
}

uint8_t *conn_put(struct conn *c, size_t n)
{
    MUST(n >= 1 && n <= CONN_BUFFER_BYTES);
    if (!takes_output(c))
        return c->io->scratch;
    struct out_queue *q = c->out;
    uint8_t *p;
    if (q != NULL && q->tail != NULL && q->tail->used + n <= CONN_BUFFER_BYTES &&
        piece_at(q, q->count - 1u)->buffer == q->tail) {
        p = q->tail->bytes + q->tail->used;
        piece_at(q, q->count - 1u)->n += n;
    } else {
        q = queue_for(c);
        p = q == NULL ? NULL : add_piece(c, q, n);
        if (q != NULL && q->count == 0)
            release_queue(c);
        if (p == NULL)
            return NULL;
    }
    q->tail->used = (uint16_t)(q->tail->used + n);
    q->bytes += n;
    conn_mark_dirty(c);
    return p;
}

int conn_put_ref(struct conn *c, struct span s)
{
    if (s.n == 0 || !takes_output(c))
        return 0;
    struct out_queue *q = queue_for(c);
    if (q == NULL || q->ref_count == CONN_REFS_MAX)
        return -ENOBUFS;
    *piece_at(q, q->count++) = (struct out_piece){.p = s.p, .n = s.n};
    q->ref_count++;
    q->bytes += s.n;
    conn_mark_dirty(c);
    return 0;
}

size_t conn_out_bytes(const struct conn *c)
{
    return c->out == NULL ? 0 : c->out->bytes;
}

static void fill_message(struct out_queue *q)
{
    size_t total = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < q->count && total < CONN_SEND_BYTES_MAX; i++) {
        const struct out_piece *p = piece_at(q, i);
        size_t room = CONN_SEND_BYTES_MAX - total;
        q->iov[n].iov_len = p->n < room ? p->n : room;
        memcpy(&q->iov[n].iov_base, &p->p, sizeof p->p); /* the kernel's interface has no const */
        total += q->iov[n++].iov_len;
    }
    q->msg = (struct msghdr){.msg_iov = q->iov, .msg_iovlen = n};
}

bool conn_sync_send(struct conn *c)
{
    struct out_queue *q = c->out;
    if (q == NULL || (c->ops & CONN_OP_SEND))
        return true;
    struct io_uring_sqe *sqe = conn_sqe(c, RING_SEND);
    if (sqe == NULL)
        return false;
    const int flags = MSG_NOSIGNAL | MSG_WAITALL;
    const struct out_piece *p = piece_at(q, 0);
    if (q->count == 1 && p->n <= CONN_SEND_BYTES_MAX) {
        io_uring_prep_send(sqe, c->fd, p->p, p->n, flags);
    } else {
        fill_message(q);
        io_uring_prep_sendmsg(sqe, c->fd, &q->msg, flags);
    }
    c->ops |= CONN_OP_SEND;
    return true;
}

void conn_on_send(struct io *io, const struct ring_event *e)
{
    struct conn *c = conn_of_event(io, e, CONN_OP_SEND);
    if (e->res <= 0) {
        conn_lose(c, e->res == 0 ? -EPIPE : e->res);
        return;
    }
    io->counts.bytes_out += (uint32_t)e->res;
    consume(c, (size_t)e->res);
    if (c->out->count > 0) {
        conn_mark_dirty(c); /* a short send, or output that came later */
        return;
    }
    release_queue(c);
    if (c->state != CONN_OPEN)
        conn_mark_dirty(c);
    else if (c->events->on_sent != NULL)
        c->events->on_sent(c->owner, c);
}
