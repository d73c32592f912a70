/* conn.h on the simulated network: calls only note what the session wants. */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Connections */

struct conn *sim_add_conn(struct io *io, struct sim_peer *p)
{
    struct conn *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->io = io;
    c->peer = p;
    p->c = c;
    struct conn **link = &io->conns;
    while (*link != NULL)
        link = &(*link)->next;
    *link = c;
    io->counts.conns_open++;
    return c;
}

struct sim_peer *sim_add_peer(struct io *io)
{
    struct sim_peer *p = calloc(1, sizeof *p);
    MUST(p != NULL);
    p->io = io;
    p->window = SIZE_MAX;
    struct sim_peer **link = &io->peers;
    while (*link != NULL)
        link = &(*link)->next;
    *link = p;
    return p;
}

void sim_drop_output(struct conn *c)
{
    while (c->out != NULL) {
        struct piece *o = c->out;
        c->out = o->next;
        free(o);
    }
    c->in_flight = 0;
}

void sim_remove_conn(struct conn *c)
{
    struct conn **link = &c->io->conns;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    sim_drop_output(c);
    if (c->peer != NULL) {
        c->peer->ended = true;
        c->peer->c = NULL;
    }
    c->io->counts.conns_open--;
    free(c);
}

int listener_start(struct io *io, struct listener *l, int fd)
{
    for (uint32_t i = 1; i < ARRAY_COUNT(io->listeners); i++) {
        if (io->listeners[i] != NULL)
            continue;
        io->listeners[i] = l;
        l->io = io;
        l->fd = fd;
        l->slot = i;
        return 0;
    }
    return -EMFILE;
}

void listener_stop(struct listener *l)
{
    if (l->slot == 0)
        return;
    l->io->listeners[l->slot] = NULL;
    l->slot = 0;
}

struct conn *conn_connect(struct io *io, const struct conn_target *t, const struct conn_events *ev,
                          void *owner)
{
    MUST(t->timeout_ms >= 1 && t->timeout_ms <= 300000);
    if (io->no_slots)
        return NULL;
    struct sim_peer *p = sim_add_peer(io);
    p->target = *t;
    if (t->device != NULL) {
        strncpy(p->device, t->device, sizeof p->device - 1);
        p->target.device = p->device;
    }
    p->ip = t->to;
    p->port = t->to_port;
    struct conn *c = sim_add_conn(io, p);
    c->state = CONNECTING;
    c->local = t->from;
    c->deadline_ns = io->now_ns + t->timeout_ms * 1000000ull;
    conn_attach(c, ev, owner);
    io->counts.connects++;
    return c;
}

void conn_attach(struct conn *c, const struct conn_events *ev, void *owner)
{
    MUST(ev->on_data != NULL && ev->on_eof != NULL && ev->on_closed != NULL);
    c->events = ev;
    c->owner = owner;
}

static bool is_usable(const struct conn *c)
{
    return c->state == OPEN || c->state == CONNECTING;
}

void conn_recv(struct conn *c)
{
    if (is_usable(c))
        c->want = WANT_COMMANDS;
}

void conn_recv_into(struct conn *c, void *buf, size_t n, bool exact)
{
    MUST(buf != NULL && n > 0);
    if (!is_usable(c))
        return;
    c->want = WANT_BODY;
    c->body = buf;
    c->body_left = n;
    c->body_got = 0;
    c->body_exact = exact;
}

void conn_recv_pause(struct conn *c)
{
    if (is_usable(c) && c->want == WANT_COMMANDS)
        c->want = WANT_NOTHING;
}

static void add_piece(struct conn *c, struct piece *o)
{
    struct piece **link = &c->out;
    while (*link != NULL)
        link = &(*link)->next;
    *link = o;
}

uint8_t *conn_put(struct conn *c, size_t n)
{
    MUST(n >= 1 && n <= 4096);
    if (!is_usable(c) || c->broken)
        return c->io->scratch;
    size_t own = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        own += o->is_ref ? 0 : o->n;
    if (c->io->no_memory || own + n > PUT_BYTES_MAX)
        return NULL;
    struct piece *o = calloc(1, sizeof *o + n);
    MUST(o != NULL);
    o->n = n;
    memset(o->own, 0xee, n); /* what the session forgets to write is seen */
    add_piece(c, o);
    return o->own;
}

int conn_put_ref(struct conn *c, struct span s)
{
    if (s.n == 0 || !is_usable(c) || c->broken)
        return 0;
    int refs = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        refs += o->is_ref;
    if (refs == REFS_MAX)
        return -ENOBUFS;
    struct piece *o = calloc(1, sizeof *o);
    MUST(o != NULL);
    o->is_ref = true;
    o->ref = s.p;
    o->n = s.n;
    add_piece(c, o);
    return 0;
}

size_t conn_out_bytes(const struct conn *c)
{
    size_t n = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        n += o->n - o->sent;
    return n;
}

void conn_close(struct conn *c, bool now)
{
    if (c->state == CLOSED)
        return;
    if (now || c->state == CONNECTING || c->broken) {
        c->state = CLOSED;
    } else if (c->state == OPEN) {
        c->state = FLUSHING;
        c->deadline_ns = c->io->now_ns + FLUSH_MS * 1000000ull;
    }
}

void conn_peer(const struct conn *c, struct ip *ip, uint16_t *port)
{
    *ip = c->peer->ip;
    *port = c->peer->port;
}

void conn_local(const struct conn *c, struct ip *ip, uint16_t *port)
{
    *ip = c->local;
    *port = c->listener != NULL ? 25 : 40000;
}

struct listener *conn_listener(const struct conn *c)
{
    return c->listener;
}
