/*
 * Listening: one multishot accept a listener. It ends by itself when the descriptors run out, and
 * is ended by us when the connection slots do; both wait a while, as the reason will not go at
 * once.
 */
#include "worker/io/conn_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAUSE_MS = 100, PAUSE_BROKEN_MS = 1000 };

int listeners_init(struct io *io)
{
    io->listeners = calloc(IO_LISTENERS_MAX + 1, sizeof *io->listeners);
    return io->listeners == NULL ? -ENOMEM : 0;
}

void listeners_fini(struct io *io)
{
    free(io->listeners);
}

static void on_retry(struct timer *t)
{
    struct listener_slot *s =
        (struct listener_slot *)(void *)((char *)t - offsetof(struct listener_slot, retry));
    if (s->listener != NULL)
        s->listener->paused_until_ns = 0;
    s->io->listeners_dirty = true;
}

int listener_start(struct io *io, struct listener *l, int fd)
{
    MUST(l->on_accept != NULL);
    MUST(fd >= 0);
    for (uint32_t i = 1; i <= IO_LISTENERS_MAX; i++) {
        struct listener_slot *s = &io->listeners[i];
        if (s->listener != NULL || s->posted)
            continue;
        /* Accepted sockets inherit it. */
        const int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        s->listener = l;
        s->io = io;
        s->generation++;
        s->cancelled = false;
        s->retry.on_due = on_retry;
        l->io = io;
        l->fd = fd;
        l->slot = i;
        l->paused_until_ns = 0;
        io->listeners_dirty = true;
        return 0;
    }
    return -EMFILE;
}

void listener_stop(struct listener *l)
{
    if (l->slot == 0)
        return;
    struct listener_slot *s = &l->io->listeners[l->slot];
    MUST(s->listener == l);
    s->listener = NULL;
    timer_stop(&l->io->wheel, &s->retry);
    l->io->listeners_dirty = true;
    l->slot = 0;
}

static void pause_accept(struct listener_slot *s, uint32_t ms)
{
    s->listener->paused_until_ns = s->io->now_ns + ms * 1000000ull;
    timer_set(&s->io->wheel, &s->retry, ms);
    s->io->listeners_dirty = true;
}

/* False: the kernel takes no entry just now. */
static bool sync_listener(struct io *io, struct listener_slot *s, uint32_t index)
{
    uint64_t tag = ring_tag(RING_ACCEPT, s->generation, index);
    bool wanted = s->listener != NULL && !timer_is_set(&s->retry);
    if (wanted == s->posted || (s->posted && s->cancelled))
        return true;
    struct io_uring_sqe *sqe = ring_sqe(&io->ring, wanted ? tag : ring_tag(RING_IGNORED, 0, 0));
    if (sqe == NULL)
        return false;
    if (wanted) {
        io_uring_prep_multishot_accept(sqe, s->listener->fd, NULL, NULL, SOCK_CLOEXEC);
        s->posted = true;
    } else {
        io_uring_prep_cancel64(sqe, tag, 0);
        s->cancelled = true;
    }
    return true;
}

void listeners_sync(struct io *io)
{
    if (!io->listeners_dirty)
        return;
    io->listeners_dirty = false;
    for (uint32_t i = 1; i <= IO_LISTENERS_MAX; i++) {
        if (!sync_listener(io, &io->listeners[i], i))
            io->listeners_dirty = true;
    }
}

static void on_error(struct listener_slot *s, int err)
{
    struct io *io = s->io;
    switch (-err) {
    case ECANCELED:
        return;
    /* The client went before it was accepted, or its network failed (accept(2)): the next one,
     * please. */
    case ECONNABORTED:
    case EPROTO:
    case EAGAIN:
    case EINTR:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENOPROTOOPT:
    case EPERM: /* a packet filter */
        io->counts.accept_errors++;
        return;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        io->counts.accept_errors++;
        pause_accept(s, PAUSE_MS);
        return;
    default:
        io->counts.accept_errors++;
        pause_accept(s, PAUSE_BROKEN_MS);
        return;
    }
}

void listener_on_accept(struct io *io, const struct ring_event *e)
{
    MUST(e->slot >= 1 && e->slot <= IO_LISTENERS_MAX);
    struct listener_slot *s = &io->listeners[e->slot];
    MUST(s->posted && (s->generation & RING_GENERATION_MASK) == e->generation);
    if (!(e->flags & IORING_CQE_F_MORE)) {
        s->posted = false;
        s->cancelled = false;
        io->listeners_dirty = true;
    }
    if (s->listener == NULL) {
        if (e->res >= 0)
            close(e->res);
        return;
    }
    if (e->res < 0) {
        on_error(s, e->res);
    } else if (!conn_accepted(io, s->listener, e->res)) {
        io->counts.accept_errors++;
        pause_accept(s, PAUSE_MS);
    }
}
