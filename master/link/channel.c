/* channel - see channel.h. */
#include "master/link/channel.h"

#include "base/log.h"
#include "base/rng.h"
#include "base/text.h"
#include "master/link/control_link.h"

#include <errno.h>
#include <stdio.h>

/* Bulk frames are large: the other channel shall not wait for many of them. */
enum { FRAMES_PER_TURN = 256, BULK_FRAMES_PER_TURN = 16 };

static const char *const channel_names[LINK_CHANNEL_COUNT] = {"control", "bulk"};

static enum link_channel which(const struct channel *c)
{
    return c->session.names.channel;
}

/* Relative: the working directory is ours, and a socket's path may have 107 bytes only. */
static void socket_name(const struct channel *c, char out[LIMIT_NAME_BYTES + 16])
{
    (void)snprintf(out, LIMIT_NAME_BYTES + 16, "%s.%s", c->peer->name, channel_names[which(c)]);
}

/* A failure, said once until it changes or the channel was up. */
static void say_failure(struct channel *c, const char *why)
{
    if (strcmp(c->said, why) == 0)
        return;
    (void)snprintf(c->said, sizeof c->said, "%s", why);
    log_warn("peer %s: no %s channel: %s", c->peer->name, channel_names[which(c)], why);
}

static void close_wire(struct channel *c)
{
    tunnel_destroy(&c->tunnel);
    pair_close(&c->pair);
    c->blocked = false;
}

/* The next try: later and later, so that a peer that refuses us is not flooded. */
static void put_off(struct channel *c)
{
    if (c->dial_wait_ms == 0)
        c->dial_wait_ms = LINK_DIAL_FIRST_MS;
    c->dial_ms = c->link->now_ms + c->dial_wait_ms;
    c->dial_wait_ms *= 2;
    if (c->dial_wait_ms > LINK_DIAL_MAX_MS)
        c->dial_wait_ms = LINK_DIAL_MAX_MS;
}

/* The session's side. */
static int op_send(struct session *s, const struct link_frame *f)
{
    struct channel *c = s->owner;
    size_t room = link_frame_room(f), n;
    if (c->blocked)
        return -EAGAIN;
    uint8_t *packed = pair_buffer(room);
    if (packed == NULL)
        return -ENOMEM;
    int r = link_frame_encode(f, packed, room, &n);
    MUST(r == 0);
    r = pair_send(&c->pair, pair_shrink(packed, n));
    c->blocked = r == -EAGAIN;
    return r;
}

static void op_cut(struct session *s)
{
    struct channel *c = s->owner;
    close_wire(c);
}

static void op_up(struct session *s)
{
    struct channel *c = s->owner;
    log_note("peer %s: %s channel up version=%u incarnation=%llx", c->peer->name,
             channel_names[which(c)], s->version, (unsigned long long)s->peer_incarnation);
    c->said[0] = '\0';
    c->dial_wait_ms = 0;
    if (which(c) == LINK_BULK)
        carriers_up(c);
    else
        control_link_up(c);
}

/* The bulk channel's streams are this process's own: nothing is kept over the end of a wire. */
static void new_stream(struct channel *c)
{
    const struct session_place at = {.stream = rng_entropy() | 1, .next = 1};
    int r = session_open(&c->session, &at);
    MUST(r == 0);
}

static void op_down(struct session *s, const char *why, bool was_up)
{
    struct channel *c = s->owner;
    put_off(c);
    if (which(c) == LINK_BULK) {
        new_stream(c);
        carriers_down(c);
    }
    if (!was_up) {
        say_failure(c, why);
        return;
    }
    log_warn("peer %s: %s channel down: %s", c->peer->name, channel_names[which(c)], why);
    if (which(c) == LINK_CONTROL)
        control_link_down(c, why);
}

static int op_deliver(struct session *s, uint64_t seq, struct span payload)
{
    struct channel *c = s->owner;
    return which(c) == LINK_BULK ? carriers_deliver(c, payload)
                                 : control_link_deliver(c, seq, payload);
}

static void op_acked(struct session *s, uint64_t seq)
{
    if (which(s->owner) == LINK_CONTROL)
        control_link_acked(s->owner, seq);
}

static void op_want(struct session *s, uint64_t seq, const char *why)
{
    if (which(s->owner) == LINK_CONTROL)
        control_link_want(s->owner, seq, why);
}

static const struct session_ops ops = {op_send,    op_cut,   op_up,  op_down,
                                       op_deliver, op_acked, op_want};

void channel_init(struct channel *c, struct link *l, struct peer *p, enum link_channel channel)
{
    struct session_names names = {.channel = channel, .incarnation = l->incarnation};
    *c = (struct channel){.pair = PAIR_CLOSED, .peer = p, .link = l};
    memcpy(names.node, l->config->node, sizeof names.node);
    memcpy(names.peer, p->name, sizeof names.peer);
    memcpy(names.cluster, l->config->cluster.name, sizeof names.cluster);
    session_init(&c->session, &names, &ops, c);
    if (channel == LINK_BULK)
        new_stream(c);
}

void channel_fini(struct channel *c)
{
    close_wire(c);
    session_fini(&c->session);
}

/* The wire is lost below the session. */
static void lose(struct channel *c, const char *why)
{
    bool greeted = c->session.state != SESSION_IDLE;
    char text[TRUST_WHY_BYTES];
    (void)snprintf(text, sizeof text, "%s", why); /* it may be the tunnel's own */
    close_wire(c);
    if (greeted) {
        session_wire_down(&c->session, text);
        return;
    }
    put_off(c);
    say_failure(c, text);
}

/* The kernel chose the source address: it must not be one that moves away. */
static const char *wrong_source(const struct channel *c)
{
    const struct config *f = c->link->config;
    static char text[128];
    char address[IP_TEXT];
    for (uint32_t i = 0; i < f->lane_count && c->tunnel->dialled; i++) {
        if (!ip_eq(&f->lanes[i].address, &c->tunnel->local))
            continue;
        ip_format(&c->tunnel->local, address);
        (void)snprintf(text, sizeof text, "%s is a lane's address: set cluster.source to another",
                       address);
        return text;
    }
    return NULL;
}

/* The tunnel knows its peer: a fresh pair under it, and the session greets. */
static void attach(struct channel *c)
{
    char name[LIMIT_NAME_BYTES + 16];
    const char *wrong = wrong_source(c);
    if (wrong != NULL) {
        lose(c, wrong);
        return;
    }
    socket_name(c, name);
    int r = pair_open(&c->pair, name);
    if (r == 0)
        r = tunnel_attach(c->tunnel, name);
    if (r < 0) {
        char text[96];
        (void)snprintf(text, sizeof text, "the local socket %s: %s", name, strerror(-r));
        lose(c, text);
        return;
    }
    c->attached_ms = c->link->now_ms;
}

void channel_dial(struct channel *c)
{
    struct link *l = c->link;
    struct tunnel_target to = {.channel = which(c),
                               .address = c->peer->address,
                               .port = c->peer->port,
                               .source = l->config->cluster.source};
    char reason[TRUST_WHY_BYTES];
    struct text why = text_of(reason, sizeof reason);

    if (c->peer->dials_us || c->tunnel != NULL || c->session.at.stream == 0 ||
        l->now_ms < c->dial_ms)
        return;
    memcpy(to.peer, c->peer->name, sizeof to.peer);
    c->tunnel = tunnel_dial(l->trust, &to, l->now_ms, &why);
    if (c->tunnel == NULL)
        lose(c, reason);
}

void channel_adopt(struct channel *c, struct tunnel *t)
{
    if (c->tunnel != NULL)
        lose(c, "the peer connected anew");
    c->tunnel = t;
    attach(c);
}

/* Frames of the peer, until there are none or the session has closed the pair. While it is idle
   they wait: the peer's greeting may be here before nanomsg lets us send ours. */
static void receive(struct channel *c)
{
    unsigned max = which(c) == LINK_BULK ? BULK_FRAMES_PER_TURN : FRAMES_PER_TURN;
    for (unsigned i = 0; i < max && c->session.state != SESSION_IDLE; i++) {
        struct span bytes;
        struct link_frame f;
        int r = pair_receive(&c->pair, &bytes);
        if (r == 0)
            return;
        if (r < 0) {
            lose(c, strerror(-r));
            return;
        }
        r = link_frame_decode(bytes, &f);
        pair_drop((void *)(uintptr_t)bytes.p);
        session_input(&c->session, r < 0 ? NULL : &f, c->link->now_ms);
        if (r == 0)
            link_frame_free(&f);
    }
}

static bool writable(const struct channel *c)
{
    struct pollfd p = {.fd = c->pair.send_fd, .events = POLLIN};
    return c->pair.socket >= 0 && poll(&p, 1, 0) == 1;
}

/* Bulk frames are done with as soon as their worker's queue has them, unless queues grow. */
static void acknowledge(struct channel *c)
{
    struct session *s = &c->session;
    if (which(c) != LINK_BULK || s->state != SESSION_UP || !carriers_take(c->link))
        return;
    int r = session_ack(s, s->at.peer_stream, s->at.received);
    MUST(r == 0);
}

/* How long this channel may be silent: its peer is there if the other channel says so. */
static uint32_t allowed_silence(const struct channel *c)
{
    enum link_channel sibling = which(c) == LINK_BULK ? LINK_CONTROL : LINK_BULK;
    const struct session *other = &c->peer->channels[sibling].session;
    bool heard = other->state == SESSION_UP &&
                 other->peer_incarnation == c->session.peer_incarnation &&
                 c->link->now_ms - other->heard_ms < SESSION_SILENCE_MS;
    return heard ? SESSION_LATE_MS : SESSION_SILENCE_MS;
}

static void run_session(struct channel *c)
{
    uint64_t now = c->link->now_ms;
    c->session.silence_ms = allowed_silence(c);
    if (c->blocked && writable(c))
        c->blocked = false;
    /* nanomsg takes the first frame only when the ipc end has shaken hands with it. */
    if (c->session.state == SESSION_IDLE && writable(c))
        session_wire_up(&c->session, now);
    if (c->session.state == SESSION_IDLE && now - c->attached_ms >= SESSION_SILENCE_MS) {
        lose(c, "no greeting within a second");
        return;
    }
    receive(c);
    acknowledge(c);
    if (c->pair.socket >= 0)
        (void)session_flush(&c->session, now);
    if (c->pair.socket >= 0 && session_due(&c->session, now) == 0)
        session_tick(&c->session, now);
}

void channel_run(struct channel *c)
{
    if (c->tunnel == NULL)
        return;
    switch (tunnel_run(c->tunnel, c->link->now_ms)) {
    case TUNNEL_NOTHING:
        break;
    case TUNNEL_KNOWN:
        attach(c);
        break;
    case TUNNEL_LOST:
        /* What came before the end counts. */
        receive(c);
        if (c->tunnel != NULL)
            lose(c, c->tunnel->why);
        return;
    }
    if (c->pair.socket >= 0)
        run_session(c);
}

static void sooner(int *timeout_ms, uint64_t in_ms)
{
    if (*timeout_ms < 0 || in_ms < (uint64_t)*timeout_ms)
        *timeout_ms = (int)in_ms;
}

unsigned channel_polls(const struct channel *c, struct pollfd *out, int *timeout_ms)
{
    uint64_t now = c->link->now_ms;
    unsigned n = 0;
    if (c->tunnel == NULL) {
        if (!c->peer->dials_us && c->session.at.stream != 0)
            sooner(timeout_ms, c->dial_ms > now ? c->dial_ms - now : 0);
        return 0;
    }
    n += tunnel_polls(c->tunnel, out);
    if (c->tunnel->again)
        sooner(timeout_ms, 0);
    if (c->tunnel->state < TUNNEL_WAITING)
        sooner(timeout_ms, c->tunnel->deadline_ms > now ? c->tunnel->deadline_ms - now : 0);
    if (c->pair.socket < 0)
        return n;
    if (c->session.state != SESSION_IDLE)
        out[n++] = (struct pollfd){.fd = c->pair.receive_fd, .events = POLLIN};
    if (c->blocked || c->session.state == SESSION_IDLE)
        out[n++] = (struct pollfd){.fd = c->pair.send_fd, .events = POLLIN};
    int due = session_due(&c->session, now);
    if (c->session.state == SESSION_IDLE)
        sooner(timeout_ms, SESSION_SILENCE_MS / 10);
    else if (due >= 0)
        sooner(timeout_ms, (uint64_t)due);
    return n;
}
