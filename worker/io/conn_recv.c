/*
 * Receiving: two modes, and the way between them.
 *
 * From command mode to body mode the multishot is cancelled, and the single receive is posted only
 * after its last completion. What the multishot took until then is copied into the body's memory,
 * so in body mode bytes come in one way only: by on_filled, in order, whatever the cancel did.
 */
#include "worker/io/conn_private.h"

#include <errno.h>

bool conn_cancel(struct conn *c, enum ring_kind kind, uint8_t op)
{
    if (!(c->ops & op) || (c->cancelled & op))
        return true;
    struct io_uring_sqe *sqe = ring_sqe(&c->io->ring, ring_tag(RING_IGNORED, 0, 0));
    if (sqe == NULL)
        return false;
    io_uring_prep_cancel64(sqe, conn_tag(c, kind), 0);
    c->cancelled |= op;
    return true;
}

static bool post_multi(struct conn *c)
{
    if (c->ops & CONN_OP_MULTI)
        return true;
    struct io_uring_sqe *sqe = conn_sqe(c, RING_RECV_MULTI);
    if (sqe == NULL)
        return false;
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
    /* Nothing can be there yet on a new connection: the client waits for the banner. */
    if (!c->seen_data)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    c->seen_data = true;
    c->ops |= CONN_OP_MULTI;
    return true;
}

static bool post_one(struct conn *c)
{
    if (c->ops & CONN_OP_ONE)
        return true;
    struct io_uring_sqe *sqe = conn_sqe(c, RING_RECV_ONE);
    if (sqe == NULL)
        return false;
    size_t n = c->body_left < CONN_SEND_BYTES_MAX ? c->body_left : CONN_SEND_BYTES_MAX;
    io_uring_prep_recv(sqe, c->fd, c->body, n, c->body_exact ? MSG_WAITALL : 0);
    c->seen_data = true;
    c->ops |= CONN_OP_ONE;
    return true;
}

bool conn_sync_recv(struct conn *c)
{
    if (c->eof)
        return true;
    switch ((enum conn_want)c->want) {
    case CONN_WANT_COMMANDS:
        if (c->ops & CONN_OP_ONE)
            return conn_cancel(c, RING_RECV_ONE, CONN_OP_ONE);
        return post_multi(c);
    case CONN_WANT_BODY:
        if (c->ops & CONN_OP_MULTI)
            return conn_cancel(c, RING_RECV_MULTI, CONN_OP_MULTI);
        return post_one(c);
    case CONN_WANT_NOTHING:
        return conn_cancel(c, RING_RECV_MULTI, CONN_OP_MULTI);
    }
    return true;
}

static void set_want(struct conn *c, enum conn_want want)
{
    if (c->state != CONN_OPEN && c->state != CONN_CONNECTING)
        return;
    c->want = (uint8_t)want;
    conn_mark_dirty(c);
}

void conn_recv(struct conn *c)
{
    if (c->want != CONN_WANT_COMMANDS)
        set_want(c, CONN_WANT_COMMANDS);
}

void conn_recv_into(struct conn *c, void *buf, size_t n, bool exact)
{
    MUST(buf != NULL && n > 0);
    MUST(!(c->ops & CONN_OP_ONE) || c->state != CONN_OPEN);
    if (c->state != CONN_OPEN && c->state != CONN_CONNECTING)
        return;
    c->body = buf;
    c->body_left = n;
    c->body_got = 0;
    c->body_exact = exact;
    set_want(c, CONN_WANT_BODY);
}

void conn_recv_pause(struct conn *c)
{
    /* A single receive stays where it is: its memory is the session's until on_filled. */
    if (c->want == CONN_WANT_COMMANDS || !(c->ops & CONN_OP_ONE))
        set_want(c, CONN_WANT_NOTHING);
}

static void tell_filled(struct conn *c)
{
    size_t got = c->body_got;
    c->body_got = 0;
    if (c->want == CONN_WANT_BODY)
        c->want = CONN_WANT_NOTHING;
    c->events->on_filled(c->owner, c, got);
}

/* n bytes are in the body's memory: tells the session when that is what it waits for. */
static void body_grew(struct conn *c, size_t n)
{
    MUST(n <= c->body_left);
    c->body += n;
    c->body_left -= n;
    c->body_got += n;
    if (!c->body_exact || c->body_left == 0)
        tell_filled(c);
}

/* Bytes from the shared buffers go where the session wants them now; it may change its mind in each
 * callback. */
static void take_data(struct conn *c, struct span data)
{
    while (data.n > 0 && c->state == CONN_OPEN) {
        if (c->want != CONN_WANT_BODY) {
            c->events->on_data(c->owner, c, data);
            return;
        }
        size_t n = data.n < c->body_left ? data.n : c->body_left;
        memcpy(c->body, data.p, n);
        data = span_of(data.p + n, data.n - n);
        body_grew(c, n);
    }
}

/* No more can be received: 0 or -errno. */
static void take_end(struct conn *c, int res)
{
    c->eof = true;
    conn_mark_dirty(c);
    if (c->state == CONN_OPEN && c->body_got > 0)
        tell_filled(c);
    if (c->state != CONN_OPEN || c->eof_told)
        return;
    c->eof_told = true;
    c->events->on_eof(c->owner, c, c->err != 0 ? c->err : res);
}

static bool is_transient(int res)
{
    return res == -ECANCELED || res == -EAGAIN || res == -EINTR;
}

void conn_on_recv_multi(struct io *io, const struct ring_event *e)
{
    struct conn *c = conn_of_event(io, e, CONN_OP_MULTI);
    if (e->res > 0) {
        MUST(e->flags & IORING_CQE_F_BUFFER);
        io->counts.bytes_in += (uint32_t)e->res;
        take_data(c, span_of(ring_buffer(&io->ring, e->flags), (size_t)e->res));
    }
    if (e->flags & IORING_CQE_F_BUFFER)
        ring_buffer_return(&io->ring, e->flags);
    if (e->flags & IORING_CQE_F_MORE)
        return;
    /* The next sync arms it again if it is still wanted: after -ENOBUFS that is after the buffers
       of this turn went back. */
    conn_mark_dirty(c);
    if (e->res == -ENOBUFS)
        io->counts.recv_nobufs++;
    else if (e->res <= 0 && !is_transient(e->res))
        take_end(c, e->res);
}

void conn_on_recv_one(struct io *io, const struct ring_event *e)
{
    struct conn *c = conn_of_event(io, e, CONN_OP_ONE);
    conn_mark_dirty(c);
    if (e->res > 0) {
        io->counts.bytes_in += (uint32_t)e->res;
        if (c->state == CONN_OPEN)
            body_grew(c, (size_t)e->res);
    } else if (!is_transient(e->res)) {
        take_end(c, e->res);
    }
    /* A cancelled receive that had taken a part, or none, leaves what there is to the session. */
    if (c->state == CONN_OPEN && c->want == CONN_WANT_COMMANDS && c->body_got > 0)
        tell_filled(c);
}
