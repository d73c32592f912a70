/*
 * carrier - see carrier.h.
 *
 * Invariants: without a descriptor every peer is down and nothing waits. Callbacks come from the
 * watch, and from carrier_attach: none from carrier_send and carrier_flush.
 */
#include "worker/carrier.h"

#include "base/log.h"
#include "proto/carrier_frame.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FRAME_BYTES_MAX = CARRIER_HEAD_BYTES + LIMIT_CARRIER_PAYLOAD_BYTES,
    IN_BYTES = 2 << 20,
    READ_BYTES = 1 << 20, /* a turn */
    OUT_BYTES = 2 * CARRIER_WAITING_BYTES,
    ROOM_BYTES = CARRIER_WAITING_BYTES / 2, /* on_room when no more than this waits */
};
static_assert(FRAME_BYTES_MAX + READ_BYTES <= IN_BYTES + 0,
              "a frame's rest fits behind its beginning");
static_assert(CARRIER_WAITING_BYTES + FRAME_BYTES_MAX <= OUT_BYTES + 0, "one more frame fits");

struct node {
    char name[LIMIT_NAME_BYTES + 1];
    bool up;
    uint32_t wave; /* of its last UP */
};
struct buffer { /* from..to */
    uint8_t *bytes;
    size_t from, to;
};

struct carrier {
    struct io *io;
    const struct carrier_events *ev;
    void *ctx;
    struct io_watch watch; /* fd -1: none */
    struct buffer in, out;
    bool full;    /* the socket took less than there was */
    bool refused; /* carrier_send said -EAGAIN: on_room is owed */
    struct node nodes[LIMIT_PEERS];
    unsigned node_count;
};

static void on_ready(struct io_watch *w, unsigned events);

int carrier_create(struct carrier **out, struct io *io, const struct carrier_events *ev, void *ctx)
{
    struct carrier *c = calloc(1, sizeof *c);
    *out = NULL;
    if (c == NULL)
        return -ENOMEM;
    *c =
        (struct carrier){.io = io, .ev = ev, .ctx = ctx, .watch = {.on_ready = on_ready, .fd = -1}};
    c->in.bytes = malloc(IN_BYTES);
    c->out.bytes = malloc(OUT_BYTES);
    *out = c;
    if (c->in.bytes != NULL && c->out.bytes != NULL)
        return 0;
    carrier_destroy(out);
    return -ENOMEM;
}

static void close_fd(struct carrier *c)
{
    if (c->watch.fd < 0)
        return;
    io_watch_stop(c->io, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
    c->in.from = c->in.to = c->out.from = c->out.to = 0;
    c->full = c->refused = false;
}

void carrier_destroy(struct carrier **carrier)
{
    struct carrier *c = *carrier;
    if (c == NULL)
        return;
    close_fd(c);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
    *carrier = NULL;
}

static struct node *find(const struct carrier *c, const char *name)
{
    for (unsigned i = 0; i < c->node_count; i++) {
        if (strcmp(c->nodes[i].name, name) == 0)
            return (struct node *)(uintptr_t)&c->nodes[i];
    }
    return NULL;
}

bool carrier_is_up(const struct carrier *c, const char *node)
{
    const struct node *n = find(c, node);
    return n != NULL && n->up;
}

/* Nobody is reached any more. */
static void lose(struct carrier *c)
{
    close_fd(c);
    for (unsigned i = 0; i < c->node_count; i++) {
        if (!c->nodes[i].up)
            continue;
        c->nodes[i].up = false;
        c->ev->on_down(c->ctx, c->nodes[i].name);
    }
}

/* What to wait for: room in the socket, or a turn in which on_room can be said. */
static int rearm(struct carrier *c)
{
    bool wants = c->full || (c->refused && c->out.to - c->out.from <= ROOM_BYTES);
    unsigned events = POLLIN | (wants ? POLLOUT : 0);
    int fd = c->watch.fd;
    if (fd < 0 || (c->watch.slot != 0 && c->watch.events == events))
        return 0;
    io_watch_stop(c->io, &c->watch);
    return io_watch_start(c->io, &c->watch, fd, events);
}

void carrier_attach(struct carrier *c, int fd)
{
    MUST(fd >= 0);
    lose(c);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        log_err("carrier: %s", strerror(errno));
        close(fd);
        return;
    }
    c->watch.fd = fd;
    int r = rearm(c);
    if (r < 0) {
        log_err("carrier: no place to watch it: %s", strerror(-r));
        close(fd);
        c->watch.fd = -1;
    }
}

/* Sending. */
static void put(struct buffer *b, struct span s)
{
    if (s.n > 0)
        memcpy(b->bytes + b->to, s.p, s.n);
    b->to += s.n;
}

static void make_room(struct buffer *b, size_t n)
{
    if (b->to + n <= OUT_BYTES)
        return;
    memmove(b->bytes, b->bytes + b->from, b->to - b->from);
    b->to -= b->from;
    b->from = 0;
    MUST(b->to + n <= OUT_BYTES);
}

int carrier_send_parts(struct carrier *c, const char *node, uint32_t slot, const struct span *parts,
                       unsigned count)
{
    const struct node *n = find(c, node);
    uint8_t head[CARRIER_HEAD_BYTES];
    size_t bytes = 0;

    MUST(slot < LIMIT_WORKERS);
    for (unsigned i = 0; i < count; i++)
        bytes += parts[i].n;
    MUST(bytes > 0);
    if (bytes > LIMIT_CARRIER_PAYLOAD_BYTES)
        return -E2BIG;
    if (n == NULL || !n->up)
        return -ENOTCONN;
    if (c->out.to - c->out.from >= CARRIER_WAITING_BYTES) {
        c->refused = true;
        return -EAGAIN;
    }
    struct carrier_head h = {
        .op = CARRIER_DATA, .slot = slot, .bytes = (uint32_t)bytes, .wave = n->wave};
    memcpy(h.node, n->name, sizeof h.node);
    carrier_head_write(head, &h);
    make_room(&c->out, sizeof head + bytes);
    put(&c->out, span_of(head, sizeof head));
    for (unsigned i = 0; i < count; i++)
        put(&c->out, parts[i]);
    return 0;
}

int carrier_send(struct carrier *c, const char *node, uint32_t slot, struct span payload)
{
    return carrier_send_parts(c, node, slot, &payload, 1);
}

void carrier_flush(struct carrier *c)
{
    struct buffer *b = &c->out;
    if (c->watch.fd < 0)
        return;
    c->full = false;
    while (b->from < b->to && !c->full) {
        ssize_t n =
            send(c->watch.fd, b->bytes + b->from, b->to - b->from, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break; /* its end is told by the watch */
        if (n > 0)
            b->from += (size_t)n;
        c->full = b->from < b->to;
    }
    if (b->from == b->to)
        b->from = b->to = 0;
    if (rearm(c) < 0)
        log_err("carrier: no place to watch it");
}

/* Receiving. */
static void on_up(struct carrier *c, const struct carrier_head *h)
{
    struct node *n = find(c, h->node);
    if (n == NULL) {
        if (c->node_count == LIMIT_PEERS) {
            log_err("carrier: a node more than a cluster has: %s", h->node);
            return;
        }
        n = &c->nodes[c->node_count++];
        memcpy(n->name, h->node, sizeof n->name);
    }
    n->up = true;
    n->wave = h->wave;
    c->ev->on_up(c->ctx, n->name);
}

static void on_down(struct carrier *c, const struct carrier_head *h)
{
    struct node *n = find(c, h->node);
    if (n == NULL || !n->up)
        return;
    n->up = false;
    c->ev->on_down(c->ctx, n->name);
}

static void on_head(struct carrier *c, const struct carrier_head *h, const uint8_t *payload)
{
    switch (h->op) {
    case CARRIER_DATA:
        if (carrier_is_up(c, h->node))
            c->ev->on_frame(c->ctx, h->node, h->slot, span_of(payload, h->bytes));
        break;
    case CARRIER_UP:
        on_up(c, h);
        break;
    case CARRIER_DOWN:
        on_down(c, h);
        break;
    case CARRIER_OP_COUNT:
        MUST(!"an op that exists");
        break;
    }
}

/* All whole frames. False: malformed. */
static bool take_frames(struct carrier *c)
{
    struct buffer *b = &c->in;
    while (b->to - b->from >= CARRIER_HEAD_BYTES) {
        struct carrier_head h;
        if (carrier_head_read(b->bytes + b->from, &h) < 0)
            return false;
        size_t n = CARRIER_HEAD_BYTES + h.bytes;
        if (b->to - b->from < n)
            break;
        const uint8_t *payload = b->bytes + b->from + CARRIER_HEAD_BYTES;
        b->from += n;
        on_head(c, &h, payload);
    }
    return true;
}

/* 0, or why the link is lost. */
static const char *receive(struct carrier *c)
{
    struct buffer *b = &c->in;
    if (b->from > 0) {
        memmove(b->bytes, b->bytes + b->from, b->to - b->from);
        b->to -= b->from;
        b->from = 0;
    }
    MUST(IN_BYTES - b->to >= READ_BYTES);
    ssize_t n = recv(c->watch.fd, b->bytes + b->to, READ_BYTES, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? NULL : strerror(errno);
    if (n == 0)
        return "the link process has ended";
    b->to += (size_t)n;
    return take_frames(c) ? NULL : "what the link process says is malformed";
}

static void on_ready(struct io_watch *w, unsigned events)
{
    struct carrier *c = (struct carrier *)(void *)((char *)w - offsetof(struct carrier, watch));
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) {
        const char *why = receive(c);
        if (why != NULL) {
            log_note("carrier: %s", why);
            lose(c);
            return;
        }
    }
    carrier_flush(c);
    if (c->refused && c->out.to - c->out.from <= ROOM_BYTES) {
        c->refused = false;
        c->ev->on_room(c->ctx);
        (void)rearm(c);
    }
}
