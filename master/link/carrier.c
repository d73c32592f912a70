/*
 * carrier - see carrier.h.
 *
 * Invariants: a peer is up for our workers exactly while `theirs` is not 0. Nothing of a worker
 * goes to a peer while begin_due: what is sent in the new wave comes after its beginning.
 */
#include "master/link/carrier.h"

#include "base/log.h"
#include "master/link/carrier_slot.h"
#include "master/link/link.h"
#include "master/link/peers.h"

#include <errno.h>

enum { FILL_BYTES = 256 << 10 }; /* a frame to a peer is not made larger by one more part */

static bool is_up(const struct peer *p)
{
    return p->carrier.theirs != 0;
}

/* A descriptor that is of no use: the master gives another one to the next worker. */
static void lose_worker(struct carrier_slot *s, const char *why)
{
    log_warn("carrier slot=%u: %s", s->number, why);
    carrier_slot_close(s);
}

/* To workers. */
static void send_head(struct link *l, struct carrier_slot *s, const struct carrier_head *h)
{
    uint8_t head[CARRIER_HEAD_BYTES];
    struct iovec piece = {head, sizeof head};
    if (s->fd < 0)
        return;
    carrier_head_write(head, h);
    int r = carrier_slot_send(s, &piece, 1, l->now_ms);
    if (r < 0)
        lose_worker(s, strerror(-r));
}

static void tell_workers(struct link *l, struct peer *p, enum carrier_op op)
{
    struct carrier_head h = {.op = op, .wave = p->carrier.told};
    memcpy(h.node, p->name, sizeof h.node);
    for (unsigned i = 0; i < LIMIT_WORKERS; i++)
        send_head(l, &l->carriers.slots[i], &h);
}

static void tell_up(struct link *l, struct peer *p)
{
    p->carrier.told++;
    tell_workers(l, p, CARRIER_UP);
}

/* To peers. */
static uint32_t next_wave(uint32_t wave)
{
    return wave == UINT32_MAX ? 1 : wave + 1;
}

/* Tells the peer our wave, as soon as there is room. */
static void begin(struct peer *p)
{
    uint8_t head[LINK_BULK_HEAD_BYTES];
    const struct link_bulk b = {.begin = p->carrier.ours};
    struct session *s = &p->channels[LINK_BULK].session;

    if (!p->carrier.begin_due || s->state != SESSION_UP)
        return;
    struct span part = span_of(head, link_bulk_encode(&b, head));
    p->carrier.begin_due = session_append(s, &part, 1) < 0;
}

static void renew(struct link *l)
{
    l->carriers.renew = false;
    for (unsigned i = 0; i < l->peer_count; i++) {
        struct peer *p = &l->peers[i];
        p->carrier.ours = next_wave(p->carrier.ours);
        p->carrier.begin_due = true;
        if (is_up(p))
            tell_up(l, p);
    }
}

/* One frame to a peer: parts of one worker for one worker. */
struct batch {
    struct link_bulk bulk;
    struct span parts[1 + LINK_BULK_PARTS]; /* the first one is the head */
    size_t bytes;
};

static void send_batch(struct batch *b, struct peer *p)
{
    uint8_t head[LINK_BULK_HEAD_BYTES];
    if (b->bulk.count == 0)
        return;
    b->bulk.wave = p->carrier.theirs;
    b->parts[0] = span_of(head, link_bulk_encode(&b->bulk, head));
    int r = session_append(&p->channels[LINK_BULK].session, b->parts, 1 + b->bulk.count);
    MUST(r == 0 || r == -ENOMEM); /* there was room for it */
    if (r < 0) {
        log_warn("peer %s: no memory for frames of workers", p->name);
        p->channels[LINK_BULK].link->carriers.renew = true;
    }
    b->bulk.count = 0;
    b->bytes = 0;
}

static struct peer *find_peer(struct link *l, const char *name)
{
    struct channel *c = peers_channel(l, name, LINK_BULK);
    return c != NULL ? c->peer : NULL;
}

static bool fits(const struct batch *b, const struct carrier_head *h)
{
    return b->bulk.count == 0 || (b->bulk.to_slot == h->slot && b->bulk.count < LINK_BULK_PARTS &&
                                  b->bytes + h->bytes <= FILL_BYTES);
}

/* The next whole frame: 1, 0 when there is none, -EBADMSG. */
static int next_frame(const struct carrier_slot *s, struct carrier_head *h)
{
    if (s->to - s->from < CARRIER_HEAD_BYTES)
        return 0;
    if (carrier_head_read(s->in + s->from, h) < 0 || h->op != CARRIER_DATA)
        return -EBADMSG;
    return s->to - s->from >= CARRIER_HEAD_BYTES + h->bytes ? 1 : 0;
}

/* Worth a place in a session: its sender has heard all that there is to hear. */
static bool is_current(const struct peer *p, const struct carrier_head *h)
{
    return p != NULL && is_up(p) && h->wave == p->carrier.told;
}

/* All that a worker sent goes to its peers, as far as there is room. */
static void forward(struct link *l, struct carrier_slot *s)
{
    static struct batch b;
    struct carrier_head h;
    struct peer *to = NULL; /* of the batch */
    int r;

    s->waits_for = NULL;
    while ((r = next_frame(s, &h)) > 0) {
        struct peer *p = to != NULL && strcmp(to->name, h.node) == 0 ? to : find_peer(l, h.node);
        if (is_current(p, &h)) {
            if (p != to || !fits(&b, &h)) {
                if (to != NULL)
                    send_batch(&b, to);
                to = p;
                b.bulk = (struct link_bulk){.from_slot = s->number, .to_slot = h.slot};
            }
            if (p->carrier.begin_due ||
                !session_has_room(&p->channels[LINK_BULK].session,
                                  b.bytes + h.bytes + LINK_BULK_HEAD_BYTES)) {
                s->waits_for = p;
                break;
            }
            b.bulk.bytes[b.bulk.count++] = h.bytes;
            b.parts[b.bulk.count] = span_of(s->in + s->from + CARRIER_HEAD_BYTES, h.bytes);
            b.bytes += h.bytes;
        }
        s->from += CARRIER_HEAD_BYTES + h.bytes;
    }
    if (to != NULL)
        send_batch(&b, to);
    if (r < 0)
        lose_worker(s, "what the worker says is malformed");
}

/* Of peers. */
void carriers_up(struct channel *c)
{
    struct peer *p = c->peer;
    MUST(!is_up(p));
    p->carrier.ours = next_wave(p->carrier.ours);
    p->carrier.begin_due = true;
}

void carriers_down(struct channel *c)
{
    struct peer *p = c->peer;
    if (!is_up(p))
        return;
    p->carrier.theirs = 0;
    tell_workers(c->link, p, CARRIER_DOWN);
}

/* Frames for a worker, written from where they lie. */
static void give(struct link *l, struct carrier_slot *s, const struct carrier_head *like,
                 const struct link_bulk *b, const uint8_t *parts)
{
    static uint8_t heads[LINK_BULK_PARTS][CARRIER_HEAD_BYTES];
    struct iovec pieces[CARRIER_SLOT_PIECES];
    struct carrier_head h = *like;

    for (uint32_t i = 0; i < b->count; i++) {
        h.bytes = b->bytes[i];
        carrier_head_write(heads[i], &h);
        pieces[2 * i] = (struct iovec){heads[i], CARRIER_HEAD_BYTES};
        pieces[2 * i + 1] = (struct iovec){(void *)(uintptr_t)parts, h.bytes};
        parts += h.bytes;
    }
    int r = carrier_slot_send(s, pieces, 2 * b->count, l->now_ms);
    if (r < 0)
        lose_worker(s, r == -EPIPE || r == -ECONNRESET ? "the worker is gone" : strerror(-r));
}

static void overflow(struct link *l, struct carrier_slot *s)
{
    log_warn("carrier slot=%u: the worker does not read, %zu bytes for it are dropped", s->number,
             s->queued);
    carrier_slot_discard(s);
    s->moved_ms = l->now_ms;
    l->carriers.renew = true;
}

int carriers_deliver(struct channel *c, struct span payload)
{
    static struct link_bulk b;
    struct link *l = c->link;
    struct carrier_peer *p = &c->peer->carrier;
    struct span parts;

    if (link_bulk_decode(payload, &b, &parts) < 0)
        return -EBADMSG;
    if (b.begin != 0) {
        p->theirs = b.begin;
        tell_up(l, c->peer);
    }
    struct carrier_slot *s = &l->carriers.slots[b.to_slot];
    if (b.count == 0 || b.wave != p->ours || !is_up(c->peer) || s->fd < 0)
        return 0;
    struct carrier_head h = {.op = CARRIER_DATA, .slot = b.from_slot, .wave = p->told};
    memcpy(h.node, c->peer->name, sizeof h.node);
    give(l, s, &h, &b, parts.p);
    if (s->queued > CARRIER_QUEUED_BYTES)
        overflow(l, s);
    return 0;
}

bool carriers_take(const struct link *l)
{
    for (unsigned i = 0; i < LIMIT_WORKERS; i++) {
        if (l->carriers.slots[i].queued > CARRIER_HELD_BYTES)
            return false;
    }
    return true;
}

/* The process. */
void carriers_init(struct link *l)
{
    for (unsigned i = 0; i < LIMIT_WORKERS; i++)
        l->carriers.slots[i] = (struct carrier_slot){.fd = -1, .number = i, .poll_at = -1};
}

void carriers_fini(struct link *l)
{
    for (unsigned i = 0; i < LIMIT_WORKERS; i++)
        carrier_slot_close(&l->carriers.slots[i]);
}

int carriers_attach(struct link *l, unsigned slot, int fd)
{
    MUST(slot < LIMIT_WORKERS);
    struct carrier_slot *s = &l->carriers.slots[slot];
    int r = carrier_slot_open(s, fd, l->now_ms);
    /* Peers that are up are told to all workers by this, the new one among them. */
    l->carriers.renew = true;
    return r;
}

static bool has_room(const struct peer *p)
{
    return session_has_room(&p->channels[LINK_BULK].session,
                            LINK_BULK_HEAD_BYTES + LIMIT_CARRIER_PAYLOAD_BYTES);
}

/* Is there something to do that no descriptor will tell? */
static bool can_go_on(const struct link *l)
{
    for (unsigned i = 0; i < l->peer_count; i++) {
        const struct peer *p = &l->peers[i];
        if (p->carrier.begin_due && p->channels[LINK_BULK].session.state == SESSION_UP &&
            has_room(p))
            return true;
    }
    for (unsigned i = 0; i < LIMIT_WORKERS; i++) {
        const struct peer *p = l->carriers.slots[i].waits_for;
        if (p != NULL && (!is_up(p) || (!p->carrier.begin_due && has_room(p))))
            return true;
    }
    return false;
}

unsigned carriers_polls(struct link *l, struct pollfd *out, int *timeout_ms)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LIMIT_WORKERS; i++) {
        struct carrier_slot *s = &l->carriers.slots[i];
        short events = (short)((s->waits_for == NULL ? POLLIN : 0) | (s->queued > 0 ? POLLOUT : 0));
        s->poll_at = -1;
        if (s->fd < 0 || events == 0)
            continue;
        s->poll_at = (int)n;
        out[n++] = (struct pollfd){.fd = s->fd, .events = events};
    }
    if (l->carriers.renew || can_go_on(l))
        *timeout_ms = 0;
    return n;
}

static void run_slot(struct link *l, struct carrier_slot *s, short events)
{
    int r = 0;
    if (s->queued > 0 && (events & (POLLOUT | POLLHUP | POLLERR)) != 0)
        r = carrier_slot_flush(s, l->now_ms);
    if (s->queued > CARRIER_HELD_BYTES && l->now_ms - s->moved_ms >= CARRIER_STUCK_MS)
        overflow(l, s);
    if (r == 0 && s->waits_for == NULL && (events & (POLLIN | POLLHUP | POLLERR)) != 0)
        r = carrier_slot_read(s);
    /* What came before its end counts. */
    forward(l, s);
    if (r < 0 && s->fd >= 0)
        lose_worker(s, r == -EPIPE || r == -ECONNRESET ? "the worker is gone" : strerror(-r));
}

void carriers_run(struct link *l, const struct pollfd *polled)
{
    for (unsigned i = 0; i < LIMIT_WORKERS; i++) {
        struct carrier_slot *s = &l->carriers.slots[i];
        if (s->fd < 0 || (s->poll_at < 0 && s->waits_for == NULL))
            continue;
        run_slot(l, s, s->poll_at >= 0 ? polled[s->poll_at].revents : 0);
    }
    if (l->carriers.renew)
        renew(l);
    for (unsigned i = 0; i < l->peer_count; i++)
        begin(&l->peers[i]);
}
