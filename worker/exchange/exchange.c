#include "worker/exchange/exchange.h"

#include "base/log.h"
#include "proto/control.h"
#include "worker/exchange/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { FRAMES_PER_TURN = 256, FRAME_HEAD_BYTES = 32, PEERS_MAX = 4 * LIMIT_WORKERS };

struct peer {
    struct peer *next;
    struct exchange *exchange;
    uint64_t incarnation;
    uint32_t slot;
    struct ring out, in;
    int wake_fd;
    bool dirty;  /* something was put since the last flush */
    bool broken;
};
struct exchange {
    struct io *io;
    struct exchange_events ev;
    struct peer *peers;
    uint32_t peer_count;
    struct io_watch watch;
    int own_fd;
};

int exchange_create(struct exchange **out, struct io *io, const struct exchange_events *ev)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL)
        return -ENOMEM;
    x->io = io;
    x->ev = *ev;
    x->own_fd = -1;
    *out = x;
    return 0;
}

void exchange_set_context(struct exchange *x, void *ctx)
{
    x->ev.ctx = ctx;
}

static void peer_free(struct peer *p)
{
    ring_unmap(&p->out);
    ring_unmap(&p->in);
    if (p->wake_fd >= 0)
        close(p->wake_fd);
    free(p);
}

void exchange_destroy(struct exchange **xp)
{
    struct exchange *x = *xp;
    *xp = NULL;
    if (x == NULL)
        return;
    while (x->peers != NULL) {
        struct peer *p = x->peers;
        x->peers = p->next;
        peer_free(p);
    }
    if (x->own_fd >= 0) {
        io_watch_stop(x->io, &x->watch);
        close(x->own_fd);
    }
    free(x);
}

static void on_wake(struct io_watch *w, unsigned events)
{
    uint64_t n;
    (void)events;
    ssize_t r = read(w->fd, &n, sizeof n); /* the rings are drained every turn anyhow */
    (void)r;
}

static int watch_own(struct exchange *x, int fd)
{
    if (x->own_fd >= 0) { /* the same eventfd comes with every peer */
        close(fd);
        return 0;
    }
    x->own_fd = fd;
    x->watch.on_ready = on_wake;
    return io_watch_start(x->io, &x->watch, fd, POLLIN);
}

int exchange_peer_up(struct exchange *x, uint64_t incarnation, uint32_t slot, const int fds[4])
{
    struct peer *p = calloc(1, sizeof *p);
    int r = p == NULL || x->peer_count >= PEERS_MAX ? -ENOMEM : 0;
    if (r == 0) {
        p->exchange = x;
        p->incarnation = incarnation;
        p->slot = slot;
        p->wake_fd = fds[2];
        r = ring_map(&p->out, fds[0]);
    }
    if (r == 0)
        r = ring_map(&p->in, fds[1]);
    close(fds[0]);
    close(fds[1]);
    if (r == 0)
        r = watch_own(x, fds[3]);
    if (r != 0) {
        if (p != NULL)
            peer_free(p);
        return r;
    }
    p->next = x->peers;
    x->peers = p;
    x->peer_count++;
    if (slot != CONTROL_NO_SLOT)
        x->ev.on_up(x->ev.ctx, p);
    return 0;
}

struct peer *exchange_holder(struct exchange *x, uint32_t slot)
{
    for (struct peer *p = x->peers; p != NULL; p = p->next)
        if (p->slot == slot && !p->broken)
            return p;
    return NULL;
}

int exchange_send(struct peer *p, const struct exchange_frame *f)
{
    uint8_t head[FRAME_HEAD_BYTES];
    struct writer w = writer_of(head, sizeof head);
    put_u8(&w, f->kind);
    put_u8(&w, 0);
    put_u16(&w, f->rcpt_count);
    put_u32(&w, f->lane);
    put_u64(&w, f->token);
    put_u32(&w, (uint32_t)f->res);
    put_u32(&w, (uint32_t)f->meta.n);
    put_u16(&w, f->ordinal);
    while (w.n < FRAME_HEAD_BYTES)
        put_u8(&w, 0);
    MUST(!w.bad);
    struct span parts[3] = {span_of(head, w.n), f->meta, f->rest};
    int r = ring_put(&p->out, parts, 3, f->kind == EXCHANGE_ACK || f->kind == EXCHANGE_DROP);
    if (r == 0)
        p->dirty = true;
    return r;
}

static bool read_frame(struct span in, struct exchange_frame *f)
{
    struct cursor c = cursor_of(in);
    memset(f, 0, sizeof *f);
    f->kind = cursor_u8(&c);
    cursor_u8(&c);
    f->rcpt_count = cursor_u16(&c);
    f->lane = cursor_u32(&c);
    f->token = cursor_u64(&c);
    f->res = (int32_t)cursor_u32(&c);
    f->meta_bytes = cursor_u32(&c);
    f->ordinal = cursor_u16(&c);
    cursor_bytes(&c, FRAME_HEAD_BYTES - 26);
    f->meta = cursor_bytes(&c, f->meta_bytes);
    f->rest = cursor_bytes(&c, cursor_left(&c));
    return !c.bad && f->kind >= EXCHANGE_ENQ && f->kind <= EXCHANGE_ACK;
}

/*
 * What a dead peer has answered counts: a message that it committed must not be refused because
 * the news of its death came first. What it sent us is not begun any more: no client hears of it.
 */
static void last_answers(struct exchange *x, struct peer *p)
{
    struct span frame;
    struct exchange_frame f;
    bool bad = false;
    while (!p->broken && ring_peek(&p->in, &frame, &bad) && read_frame(frame, &f)) {
        if (f.kind == EXCHANGE_ACK)
            x->ev.on_frame(x->ev.ctx, p, &f);
        ring_next(&p->in, frame);
    }
}

void exchange_peer_down(struct exchange *x, uint64_t incarnation)
{
    struct peer **at = &x->peers;
    while (*at != NULL) {
        struct peer *p = *at;
        if (p->incarnation != incarnation) {
            at = &p->next;
            continue;
        }
        last_answers(x, p);
        *at = p->next;
        x->peer_count--;
        x->ev.on_down(x->ev.ctx, p);
        peer_free(p);
    }
}

static bool drain_peer(struct exchange *x, struct peer *p)
{
    struct span frame;
    bool bad = false, closed = !p->broken && ring_closed(&p->in);
    unsigned n = 0;
    while (!p->broken && n < FRAMES_PER_TURN && ring_peek(&p->in, &frame, &bad)) {
        struct exchange_frame f;
        if (!read_frame(frame, &f)) {
            bad = true;
            break;
        }
        x->ev.on_frame(x->ev.ctx, p, &f);
        ring_next(&p->in, frame);
        n++;
    }
    if (bad)
        log_err("a worker sent a malformed exchange frame: it is not listened to any more");
    if (bad || (closed && !p->broken && n < FRAMES_PER_TURN)) {
        p->broken = true;
        x->ev.on_down(x->ev.ctx, p);
    }
    return n == FRAMES_PER_TURN;
}

bool exchange_drain(struct exchange *x)
{
    bool more = false;
    for (struct peer *p = x->peers; p != NULL; p = p->next)
        more = drain_peer(x, p) || more;
    return more;
}

static void wake(struct peer *p)
{
    uint64_t one = 1;
    if (ring_wants_wake(&p->out) && write(p->wake_fd, &one, sizeof one) != sizeof one)
        log_warn("waking a worker failed: %s", strerror(errno));
}

void exchange_flush(struct exchange *x)
{
    for (struct peer *p = x->peers; p != NULL; p = p->next) {
        if (p->dirty)
            wake(p);
        p->dirty = false;
    }
}

void exchange_leave(struct exchange *x)
{
    for (struct peer *p = x->peers; p != NULL; p = p->next) {
        ring_close(&p->out);
        wake(p);
    }
}

bool exchange_sleep(struct exchange *x)
{
    bool empty = true;
    for (struct peer *p = x->peers; p != NULL; p = p->next)
        empty = (p->broken || ring_sleep(&p->in)) && empty;
    return empty;
}

void exchange_awake(struct exchange *x)
{
    for (struct peer *p = x->peers; p != NULL; p = p->next)
        ring_awake(&p->in);
}
