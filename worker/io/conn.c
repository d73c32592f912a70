/*
 * The life of a connection: from conn_connect or accept to on_closed.
 *
 * Invariants: a slot is released only when no operation is in flight, and its generation goes up
 * then; callbacks come from io_turn only, so whatever a call of the session finds out is left for
 * the sync phase.
 */
#include "worker/io/conn_private.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <unistd.h>

int conns_init(struct io *io)
{
    uint32_t n = io->settings.conn_count_max;
    io->conn_generations = calloc((size_t)n + 1, sizeof *io->conn_generations);
    if (io->conn_generations == NULL)
        return -ENOMEM;
    int err = pool_init(&io->conns, "connections", sizeof(struct conn), n);
    return err < 0 ? err : conn_out_init(io);
}

void conns_fini(struct io *io)
{
    /* A live slot is known by an odd generation; free ones may not even be looked at. */
    for (uint32_t i = 1; i <= io->conns.touched; i++) {
        if (io->conn_generations[i] % 2 == 1)
            close(((struct conn *)pool_at(&io->conns, i))->fd);
    }
    conn_out_fini(io);
    pool_fini(&io->conns);
    free(io->conn_generations);
}

struct conn *conn_of_event(struct io *io, const struct ring_event *e, uint8_t op)
{
    MUST(e->slot >= 1 && e->slot <= io->conns.touched);
    MUST((io->conn_generations[e->slot] & RING_GENERATION_MASK) == e->generation);
    struct conn *c = pool_at(&io->conns, e->slot);
    MUST(c->ops & op);
    if (!(e->flags & IORING_CQE_F_MORE)) {
        c->ops &= (uint8_t)~op;
        c->cancelled &= (uint8_t)~op;
    }
    return c;
}

void conn_mark_dirty(struct conn *c)
{
    struct io *io = c->io;
    if (c->dirty)
        return;
    c->dirty = true;
    c->dirty_next = 0;
    uint32_t index = pool_index(&io->conns, c);
    if (io->conn_dirty == 0)
        io->conn_dirty = index;
    else
        ((struct conn *)pool_at(&io->conns, io->conn_dirty_tail))->dirty_next = index;
    io->conn_dirty_tail = index;
}

bool conns_have_work(const struct io *io)
{
    return io->conn_dirty != 0;
}

static void start_ending(struct conn *c)
{
    c->state = CONN_ENDING;
    timer_stop(&c->io->wheel, &c->timer);
    conn_mark_dirty(c);
}

static void on_timer(struct timer *t)
{
    struct conn *c = (struct conn *)(void *)((char *)t - offsetof(struct conn, timer));
    switch ((enum conn_state)c->state) {
    case CONN_CONNECTING:
        c->timed_out = true;
        break;
    case CONN_FLUSHING:
    case CONN_LINGERING:
        start_ending(c);
        break;
    case CONN_ENDING:
        (void)shutdown(c->fd, SHUT_RDWR);
        c->cancelled = 0;
        break;
    case CONN_OPEN:
    case CONN_STATES:
        break;
    }
    conn_mark_dirty(c);
}

/*
 * A multishot receive may sleep on although the peer is gone: seen when a reset comes together with
 * data while the receive is cancelled and armed again (6.18). So now and then some connections are
 * asked whether they have hung up; one that has gets its receive cancelled, and the next one that
 * is armed finds the end.
 */
static void on_look(struct timer *t)
{
    struct io *io = (struct io *)(void *)((char *)t - offsetof(struct io, conn_look));
    io->conn_look_due = true;
}

static void look_for_ends(struct io *io)
{
    struct pollfd polls[CONN_LOOK_COUNT];
    uint32_t slots[CONN_LOOK_COUNT];
    nfds_t n = 0;
    uint32_t touched = io->conns.touched;
    io->conn_look_due = false;
    for (uint32_t i = 0; i < touched && i < CONN_LOOK_COUNT; i++) {
        io->conn_look_at = io->conn_look_at % touched + 1;
        if (io->conn_generations[io->conn_look_at] % 2 == 0)
            continue;
        const struct conn *c = pool_at(&io->conns, io->conn_look_at);
        if (c->state != CONN_OPEN || !(c->ops & CONN_OP_MULTI) || c->want != CONN_WANT_COMMANDS)
            continue;
        polls[n] = (struct pollfd){.fd = c->fd};
        slots[n++] = io->conn_look_at;
    }
    if (n > 0 && poll(polls, n, 0) > 0) {
        for (nfds_t i = 0; i < n; i++) {
            struct conn *c = pool_at(&io->conns, slots[i]);
            if (!(polls[i].revents & (POLLHUP | POLLERR)))
                continue;
            c->cancelled &= (uint8_t)~CONN_OP_MULTI; /* an earlier cancel may have found nothing */
            (void)conn_cancel(c, RING_RECV_MULTI, CONN_OP_MULTI);
        }
    }
    if (io->counts.conns_open > 0)
        timer_set(&io->wheel, &io->conn_look, CONN_LOOK_MS);
}

struct conn *conn_new(struct io *io, int fd)
{
    struct conn *c = pool_get(&io->conns);
    if (c == NULL)
        return NULL;
    uint32_t index = pool_index(&io->conns, c);
    c->io = io;
    c->fd = fd;
    c->generation = ++io->conn_generations[index];
    c->timer.on_due = on_timer;
    MUST(c->generation % 2 == 1);
    io->counts.conns_open++;
    io->conn_look.on_due = on_look;
    if (!timer_is_set(&io->conn_look) && !io->conn_look_due)
        timer_set(&io->wheel, &io->conn_look, CONN_LOOK_MS);
    return c;
}

static void release(struct conn *c)
{
    struct io *io = c->io;
    const struct conn_events *events = c->events;
    void *owner = c->owner;
    MUST(c->ops == 0 && c->out == NULL && !c->dirty);
    timer_stop(&io->wheel, &c->timer);
    io->conn_generations[pool_index(&io->conns, c)]++;
    io->counts.conns_open--;
    pool_put(&io->conns, c);
    if (events != NULL) {
        io->called_back = true;
        events->on_closed(owner);
    }
}

bool conn_accepted(struct io *io, struct listener *l, int fd)
{
    struct conn *c = conn_new(io, fd);
    if (c == NULL) {
        close(fd);
        return false;
    }
    c->state = CONN_OPEN;
    c->listener = l;
    io->counts.accepts++;
    l->on_accept(l, c);
    MUST(c->events != NULL || c->state != CONN_OPEN);
    return true;
}

void conn_attach(struct conn *c, const struct conn_events *ev, void *owner)
{
    MUST(ev->on_data != NULL && ev->on_eof != NULL && ev->on_closed != NULL);
    c->events = ev;
    c->owner = owner;
}

struct conn *conn_connect(struct io *io, const struct conn_target *t, const struct conn_events *ev,
                          void *owner)
{
    MUST(t->timeout_ms >= 1 && t->timeout_ms <= 300000);
    MUST(ev->on_open != NULL);
    struct sockaddr_storage to;
    socklen_t n;
    ip_to_sockaddr(&t->to, t->to_port, &to, &n);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    struct conn *c = conn_new(io, fd);
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    c->state = CONN_CONNECTING;
    conn_attach(c, ev, owner);
    c->peer = t->to;
    c->peer_port = t->to_port;
    c->peer_known = true;
    MUST(n <= sizeof c->target);
    memcpy(&c->target, &to, n);
    c->target_bytes = n;
    c->err = conn_source_set(c, t); /* what fails here is told by on_open */
    timer_set(&io->wheel, &c->timer, t->timeout_ms + 1u);
    io->counts.connects++;
    conn_mark_dirty(c);
    return c;
}

static void fail_open(struct conn *c, int err)
{
    c->err = err;
    start_ending(c);
    c->io->called_back = true;
    c->events->on_open(c->owner, c, err);
}

void conn_on_connect(struct io *io, const struct ring_event *e)
{
    struct conn *c = conn_of_event(io, e, CONN_OP_CONNECT);
    conn_mark_dirty(c);
    if (c->state != CONN_CONNECTING)
        return;
    if (e->res == -EADDRNOTAVAIL && !c->timed_out && conn_source_next(c))
        return; /* connects anew in the sync phase */
    if (e->res < 0) {
        fail_open(c, c->timed_out ? -ETIMEDOUT : e->res);
        return;
    }
    timer_stop(&io->wheel, &c->timer);
    c->state = CONN_OPEN;
    c->events->on_open(c->owner, c, 0);
}

void conn_lose(struct conn *c, int err)
{
    MUST(err < 0);
    if (c->err == 0)
        c->err = err;
    conn_out_drop(c);
    conn_mark_dirty(c);
    if (c->state != CONN_OPEN) {
        if (c->state != CONN_ENDING)
            start_ending(c);
        return;
    }
    /* What the peer sent before it went is still delivered: a receive in flight comes to its own
       end now, and that tells the session. */
    (void)shutdown(c->fd, SHUT_RDWR);
    if ((c->ops & (CONN_OP_MULTI | CONN_OP_ONE)) || c->eof_told)
        return;
    c->eof = true;
    c->eof_told = true;
    c->events->on_eof(c->owner, c, c->err);
}

void conn_close(struct conn *c, bool now)
{
    switch ((enum conn_state)c->state) {
    case CONN_OPEN:
        if (now || c->err != 0) {
            start_ending(c);
            return;
        }
        c->state = CONN_FLUSHING;
        timer_set(&c->io->wheel, &c->timer, CONN_FLUSH_MS_MAX);
        conn_mark_dirty(c);
        return;
    case CONN_CONNECTING:
        start_ending(c);
        return;
    case CONN_FLUSHING:
    case CONN_LINGERING:
        if (now)
            start_ending(c);
        return;
    case CONN_ENDING:
    case CONN_STATES:
        return;
    }
}

/* The sync phase of a connection, by state. False: the kernel takes no entry just now. */

static bool sync_connecting(struct conn *c)
{
    if (c->err != 0) {
        fail_open(c, c->err);
        return true;
    }
    if (c->ops & CONN_OP_CONNECT)
        return c->timed_out ? conn_cancel(c, RING_CONNECT, CONN_OP_CONNECT) : true;
    struct io_uring_sqe *sqe = conn_sqe(c, RING_CONNECT);
    if (sqe == NULL)
        return false;
    io_uring_prep_connect(sqe, c->fd, &c->target.any, c->target_bytes);
    c->ops |= CONN_OP_CONNECT;
    return true;
}

static bool sync_open(struct conn *c)
{
    return conn_sync_recv(c) && conn_sync_send(c);
}

/* Lingering is a courtesy to the peer; with the slots nearly used up there is none. */
static bool may_linger(const struct conn *c)
{
    const struct pool *p = &c->io->conns;
    return c->listener != NULL && !c->eof && c->err == 0 && p->used < p->count_max / 4 * 3;
}

static bool sync_flushing(struct conn *c)
{
    if (c->out != NULL)
        return conn_sync_send(c);
    MUST(!(c->ops & CONN_OP_SEND));
    if (!may_linger(c) || shutdown(c->fd, SHUT_WR) < 0) {
        start_ending(c);
        return true;
    }
    c->state = CONN_LINGERING;
    c->want = CONN_WANT_COMMANDS;
    timer_set(&c->io->wheel, &c->timer, CONN_LINGER_MS_MAX);
    return conn_sync_recv(c);
}

static bool sync_lingering(struct conn *c)
{
    if (!c->eof)
        return conn_sync_recv(c);
    start_ending(c);
    return true;
}

static bool sync_ending(struct conn *c)
{
    struct io_uring_sqe *sqe;
    if (c->ops != 0) {
        if ((c->cancelled & c->ops) == c->ops)
            return true;
        sqe = ring_sqe(&c->io->ring, ring_tag(RING_IGNORED, 0, 0));
        if (sqe == NULL)
            return false;
        io_uring_prep_cancel_fd(sqe, c->fd, IORING_ASYNC_CANCEL_ALL);
        c->cancelled = c->ops;
        timer_set(&c->io->wheel, &c->timer, CONN_NUDGE_MS);
        return true;
    }
    sqe = ring_sqe(&c->io->ring, ring_tag(RING_IGNORED, 0, 0));
    if (sqe == NULL)
        return false;
    io_uring_prep_close(sqe, c->fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    conn_out_drop(c);
    release(c);
    return true;
}

static bool (*const sync_table[CONN_STATES])(struct conn *c) = {
    [CONN_CONNECTING] = sync_connecting, [CONN_OPEN] = sync_open,
    [CONN_FLUSHING] = sync_flushing,     [CONN_LINGERING] = sync_lingering,
    [CONN_ENDING] = sync_ending,
};

void conns_sync(struct io *io)
{
    if (io->conn_look_due)
        look_for_ends(io);
    uint32_t index = io->conn_dirty;
    io->conn_dirty = 0;
    while (index != 0) {
        struct conn *c = pool_at(&io->conns, index);
        index = c->dirty_next;
        c->dirty = false;
        if (!sync_table[c->state](c))
            conn_mark_dirty(c);
    }
}

static void ask_address(int (*ask)(int, struct sockaddr *, socklen_t *), int fd, struct ip *ip,
                        uint16_t *port)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    memset(ip, 0, sizeof *ip);
    *port = 0;
    if (ask(fd, (struct sockaddr *)&ss, &n) == 0)
        ip_from_sockaddr(&ss, ip, port);
}

static int ask_peer(int fd, struct sockaddr *sa, socklen_t *n)
{
    return getpeername(fd, sa, n);
}

static int ask_local(int fd, struct sockaddr *sa, socklen_t *n)
{
    return getsockname(fd, sa, n);
}

void conn_peer(const struct conn *c, struct ip *ip, uint16_t *port)
{
    if (!c->peer_known) {
        ask_address(ask_peer, c->fd, ip, port);
        return;
    }
    *ip = c->peer;
    *port = c->peer_port;
}

void conn_local(const struct conn *c, struct ip *ip, uint16_t *port)
{
    ask_address(ask_local, c->fd, ip, port);
}

struct listener *conn_listener(const struct conn *c)
{
    return c->listener;
}
