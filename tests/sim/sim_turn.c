/*
 * What a turn does to a connection. `busy` says that something moved.
 */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A turn of one connection, by state */

static void fail_open(struct conn *c, int err)
{
    c->state = CLOSED;
    c->io->busy = true;
    c->events->on_open(c->owner, c, err);
}

static void turn_connecting(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (p->verdict == UNDECIDED && c->io->script != NULL)
        c->io->script(c->io->script_ctx, p);
    if (p->verdict == REFUSED) {
        fail_open(c, p->refusal);
    } else if (p->verdict == ACCEPTED) {
        c->state = OPEN;
        c->deadline_ns = 0;
        c->io->busy = true;
        c->events->on_open(c->owner, c, 0);
    } else if (c->io->now_ns >= c->deadline_ns) {
        fail_open(c, -ETIMEDOUT);
    }
}

static void tell_eof(struct conn *c, int res)
{
    if (c->eof_told || c->state != OPEN)
        return;
    c->eof_told = true;
    c->io->busy = true;
    c->events->on_eof(c->owner, c, res);
}

/* Moves up to n bytes of output to the peer. */
static void send_bytes(struct conn *c, size_t n)
{
    while (n > 0) {
        struct piece *o = c->out;
        size_t k = o->n - o->sent < n ? o->n - o->sent : n;
        sim_add_bytes(&c->peer->out, (o->is_ref ? o->ref : o->own) + o->sent, k);
        o->sent += k;
        n -= k;
        c->io->counts.bytes_out += k;
        if (o->sent < o->n)
            return;
        c->out = o->next;
        free(o);
    }
}

/* A posted send completes in a later turn, in parts; what was queued after it is another send. */
static void turn_output(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (c->out == NULL)
        return;
    if (p->reset) {
        sim_drop_output(c);
        c->broken = true;
        c->io->busy = true;
        if (c->state != OPEN)
            c->state = CLOSED;
        else if (c->want == WANT_NOTHING)
            tell_eof(c, -EPIPE);
        return;
    }
    if (c->in_flight == 0) {
        c->in_flight = conn_out_bytes(c);
        c->io->busy = true;
        return;
    }
    size_t n = c->in_flight < p->window ? c->in_flight : p->window;
    if (n == 0 || sim_chance(c->io, 3))
        return;
    n = sim_some(c->io, n);
    c->io->busy = true;
    send_bytes(c, n);
    c->in_flight -= n;
    if (p->window != SIZE_MAX)
        p->window -= n;
    if (c->out == NULL && c->state == OPEN && c->events->on_sent != NULL)
        c->events->on_sent(c->owner, c);
}

static void tell_filled(struct conn *c)
{
    size_t got = c->body_got;
    c->body_got = 0;
    c->want = WANT_NOTHING;
    c->events->on_filled(c->owner, c, got);
}

static void fill_body(struct conn *c, const uint8_t *p, size_t n)
{
    memcpy(c->body, p, n);
    c->body += n;
    c->body_left -= n;
    c->body_got += n;
    if (!c->body_exact || c->body_left == 0)
        tell_filled(c);
}

/* Bytes that the kernel "had taken" reach the session in the way it wants at each moment. */
static void deliver(struct conn *c, const uint8_t *p, size_t n)
{
    while (n > 0 && c->state == OPEN) {
        if (c->want == WANT_BODY) {
            size_t k = n < c->body_left ? n : c->body_left;
            fill_body(c, p, k);
            p += k;
            n -= k;
            continue;
        }
        size_t k = sim_some(c->io, n < SPAN_BYTES ? n : SPAN_BYTES);
        uint8_t *span = malloc(k); /* of its own, so that a use after the call is seen */
        MUST(span != NULL);
        memcpy(span, p, k);
        c->events->on_data(c->owner, c, span_of(span, k));
        free(span);
        p += k;
        n -= k;
    }
}

static void turn_input(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (c->want == WANT_NOTHING || c->eof_told)
        return;
    if (p->in.n > 0) {
        if (sim_chance(c->io, 4))
            return;
        size_t n = sim_some(c->io, p->in.n);
        if (c->want == WANT_BODY && n > c->body_left)
            n = c->body_left;
        uint8_t *taken = malloc(n);
        MUST(taken != NULL);
        memcpy(taken, p->in.p, n);
        sim_drop_bytes(&p->in, n);
        c->io->busy = true;
        c->io->counts.bytes_in += n;
        deliver(c, taken, n);
        free(taken);
        return;
    }
    if (!p->in_eof && !p->reset && !c->broken)
        return;
    if (c->want == WANT_BODY && c->body_got > 0)
        tell_filled(c);
    tell_eof(c, p->reset ? -ECONNRESET : 0);
}

static void turn_open(struct conn *c)
{
    turn_output(c);
    if (c->state == OPEN)
        turn_input(c);
}

static void turn_flushing(struct conn *c)
{
    c->peer->in.n = 0;
    turn_output(c);
    if (c->state == CLOSED)
        return;
    if (c->out == NULL) {
        c->peer->ended = true;
        c->io->busy = true;
        c->state = c->listener != NULL && !c->peer->in_eof ? LINGERING : CLOSED;
        c->deadline_ns = c->io->now_ns + LINGER_MS * 1000000ull;
    } else if (c->io->now_ns >= c->deadline_ns) {
        c->state = CLOSED;
    }
}

static void turn_lingering(struct conn *c)
{
    c->peer->in.n = 0;
    if (c->peer->in_eof || c->peer->reset || c->io->now_ns >= c->deadline_ns) {
        c->state = CLOSED;
        c->io->busy = true;
    }
}

static void turn_closed(struct conn *c)
{
    const struct conn_events *events = c->events;
    void *owner = c->owner;
    c->io->busy = true;
    sim_remove_conn(c);
    if (events != NULL)
        events->on_closed(owner);
}

static void (*const table[])(struct conn *c) = {
    [CONNECTING] = turn_connecting, [OPEN] = turn_open,     [FLUSHING] = turn_flushing,
    [LINGERING] = turn_lingering,   [CLOSED] = turn_closed,
};

void sim_turn(struct conn *c)
{
    table[c->state](c);
}
