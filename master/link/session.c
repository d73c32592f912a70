/*
 * session - see session.h.
 *
 * Invariants: units are consecutive, first to last, up to at.next - 1; the cursor is the first one
 * that was not handed to this wire (NULL: none is left). flight_bytes are those before the cursor.
 * at.durable <= at.received. Nothing is delivered twice within a stream, whatever wire it comes by.
 */
#include "master/link/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct session_unit {
    struct session_unit *next;
    uint64_t seq;
    size_t n;
    uint8_t bytes[];
};

/* What a unit counts for: memory is used by empty frames too. */
static size_t weight(const struct session_unit *u)
{
    return sizeof *u + u->n;
}

void session_init(struct session *s, const struct session_names *names,
                  const struct session_ops *ops, void *owner)
{
    MUST(names->incarnation != 0);
    MUST(names->channel < LINK_CHANNEL_COUNT);
    *s = (struct session){
        .names = *names, .ops = ops, .owner = owner, .silence_ms = SESSION_SILENCE_MS};
}

/* Forgets all units up to seq. */
static void drop_to(struct session *s, uint64_t seq)
{
    while (s->first != NULL && s->first->seq <= seq) {
        struct session_unit *u = s->first;
        if (s->cursor == u)
            s->cursor = u->next; /* acknowledged before it was sent again */
        else
            s->flight_bytes -= weight(u);
        s->queued_bytes -= weight(u);
        s->first = u->next;
        free(u);
    }
    if (s->first == NULL)
        s->last = NULL;
    MUST(s->first != NULL || s->queued_bytes == 0);
    MUST(s->first != NULL || s->flight_bytes == 0);
}

void session_fini(struct session *s)
{
    s->cursor = s->first;
    s->flight_bytes = 0;
    drop_to(s, UINT64_MAX);
}

/* Forgets all units, and tells the user to go on from `next`. */
static void restart(struct session *s, uint64_t next, const char *why)
{
    drop_to(s, UINT64_MAX);
    s->at.next = next;
    s->wanting = true;
    s->ops->want(s, next, why);
}

/* The wire is lost or to be closed; the session is idle before anybody hears of it. */
static enum session_state lose(struct session *s, const char *why, bool cut)
{
    bool was_up = s->state == SESSION_UP;
    s->state = SESSION_IDLE;
    s->cursor = s->first;
    s->flight_bytes = 0;
    if (cut)
        s->ops->cut(s);
    s->ops->down(s, why, was_up);
    return SESSION_IDLE;
}

/* Sending. */
static int say(struct session *s, struct link_frame *f, uint64_t now_ms)
{
    f->incarnation = s->names.incarnation;
    f->ack = s->at.durable;
    f->credit = LIMIT_LINK_CREDIT_BYTES;
    int r = s->ops->send(s, f);
    if (r == 0) {
        s->said_ms = now_ms;
        s->said_ack = s->at.durable;
    }
    return r;
}

static int say_hello(struct session *s, uint64_t now_ms)
{
    struct link_frame f = {.kind = LINK_HELLO,
                           .hello = {.version_min = LINK_VERSION_MIN,
                                     .version_max = LINK_VERSION_MAX,
                                     .stream = s->at.stream,
                                     .peer_stream = s->at.peer_stream,
                                     .durable = s->at.durable,
                                     .channel = s->names.channel}};
    memcpy(f.hello.node, s->names.node, sizeof f.hello.node);
    memcpy(f.hello.cluster, s->names.cluster, sizeof f.hello.cluster);
    return say(s, &f, now_ms);
}

int session_flush(struct session *s, uint64_t now_ms)
{
    int r = 0;
    if (s->state != SESSION_UP)
        return 0;
    while (r == 0 && s->cursor != NULL) {
        struct session_unit *u = s->cursor;
        /* One frame always may be under way, or a small credit would stop all for ever. */
        if (s->flight_bytes > 0 && s->flight_bytes + weight(u) > s->peer_credit)
            break;
        struct link_frame f = {
            .kind = LINK_DATA, .seq = u->seq, .payload = span_of(u->bytes, u->n)};
        r = say(s, &f, now_ms);
        if (r == 0) {
            s->flight_bytes += weight(u);
            s->cursor = u->next;
        }
    }
    if (r == 0 && s->said_ack != s->at.durable) {
        struct link_frame beat = {.kind = LINK_BEAT};
        r = say(s, &beat, now_ms);
    }
    if (r < 0 && r != -EAGAIN)
        (void)lose(s, "the wire takes nothing", true);
    return r;
}

/* The peer has everything up to seq. */
static void take_ack(struct session *s, uint64_t seq)
{
    if (seq <= s->acked)
        return;
    s->acked = seq;
    s->ops->acked(s, seq);
    if (seq < s->at.next)
        drop_to(s, seq);
    else /* sent by a process before this one, and acknowledged only now */
        restart(s, seq + 1, "the peer has more than was sent by this process");
}

/* Handlers: they return the next state. */
typedef enum session_state handler(struct session *s, const struct link_frame *f, uint64_t now_ms);

static enum session_state on_wire(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    s->heard_ms = now_ms;
    s->state = SESSION_GREETING;
    if (say_hello(s, now_ms) < 0)
        return lose(s, "the wire does not take the greeting", true);
    return SESSION_GREETING;
}

static enum session_state ignore(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    (void)now_ms;
    return s->state;
}

/* A wire while there is one: the owner closes the old one first. */
static enum session_state never(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)s;
    (void)f;
    (void)now_ms;
    check_failed("one wire at a time", __FILE__, __LINE__);
}

static enum session_state too_early(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    (void)now_ms;
    return lose(s, "the peer sent a frame before its greeting", true);
}

static enum session_state again(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    (void)now_ms;
    return lose(s, "the peer greeted twice", true);
}

/* NULL, or why this greeting is not that of our peer. */
static const char *wrong_hello(struct session *s, const struct link_hello *h)
{
    static char text[128];
    if (strcmp(h->cluster, s->names.cluster) != 0)
        return "the peer is in another cluster";
    if (strcmp(h->node, s->names.peer) != 0 || h->channel != s->names.channel)
        return "the peer greets with another name or channel";
    if (link_version_agree(h, &s->version) < 0) {
        (void)snprintf(text, sizeof text,
                       "no common version: the peer speaks %u to %u, this node %d to %d",
                       h->version_min, h->version_max, LINK_VERSION_MIN, LINK_VERSION_MAX);
        return text;
    }
    return NULL;
}

/* Where our own stream goes on: after what the peer has durable. */
static void resume(struct session *s, const struct link_hello *h)
{
    uint64_t durable = h->peer_stream == s->at.stream ? h->durable : 0;
    uint64_t oldest = s->first != NULL ? s->first->seq : s->at.next;

    MUST(s->cursor == s->first);
    if (durable >= oldest)
        take_ack(s, durable);
    if (durable + 1 < oldest) {
        s->acked = durable;
        restart(s, durable + 1, "the peer lacks what this process does not have");
    }
}

static enum session_state on_hello(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    const struct link_hello *h = &f->hello;
    const char *wrong = wrong_hello(s, h);
    (void)now_ms;
    if (wrong != NULL)
        return lose(s, wrong, true);
    s->peer_incarnation = f->incarnation;
    s->peer_credit = f->credit;
    if (h->stream != s->at.peer_stream) {
        s->at.peer_stream = h->stream;
        s->at.received = 0;
        s->at.durable = 0;
    }
    s->state = SESSION_UP;
    s->ops->up(s);
    resume(s, h);
    return s->state;
}

/* What every frame after the greeting carries; false when it is not the greeter's. */
static bool take_common(struct session *s, const struct link_frame *f)
{
    if (f->incarnation != s->peer_incarnation)
        return false;
    s->peer_credit = f->credit;
    take_ack(s, f->ack);
    return true;
}

static enum session_state on_beat(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)now_ms;
    return take_common(s, f) ? SESSION_UP : lose(s, "a frame of another process", true);
}

static enum session_state on_data(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)now_ms;
    if (!take_common(s, f))
        return lose(s, "a frame of another process", true);
    if (f->seq <= s->at.received)
        return SESSION_UP;
    if (f->seq != s->at.received + 1)
        return lose(s, "frames are missing", true);
    int r = s->ops->deliver(s, f->seq, f->payload);
    if (r < 0)
        return lose(s, r == -EBADMSG ? "a malformed frame" : "no room for a frame", true);
    s->at.received = f->seq;
    return SESSION_UP;
}

static enum session_state on_down(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    (void)now_ms;
    return lose(s, s->why, false);
}

static enum session_state on_tick(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    (void)f;
    if (now_ms - s->heard_ms >= s->silence_ms)
        return lose(s, s->silence_ms > SESSION_SILENCE_MS ? "silent long" : "silent for a second",
                    true);
    if (s->state == SESSION_UP && now_ms - s->said_ms >= SESSION_BEAT_MS) {
        struct link_frame beat = {.kind = LINK_BEAT};
        (void)say(s, &beat, now_ms); /* a full wire carries frames: they tell as much */
    }
    return s->state;
}

/* clang-format off */
static handler *const table[SESSION_STATE_COUNT][SESSION_EVENT_COUNT] = {
    /*                     WIRE_UP   WIRE_DOWN  HELLO      DATA        BEAT        TICK    */
    [SESSION_IDLE]     = { on_wire,  ignore,    ignore,    ignore,     ignore,     ignore  },
    [SESSION_GREETING] = { never,    on_down,   on_hello,  too_early,  too_early,  on_tick },
    [SESSION_UP]       = { never,    on_down,   again,     on_data,    on_beat,    on_tick },
};
/* clang-format on */

static void event(struct session *s, enum session_event e, const struct link_frame *f,
                  uint64_t now_ms)
{
    handler *h = table[s->state][e];
    MUST(h != NULL);
    s->state = h(s, f, now_ms);
    MUST(s->state < SESSION_STATE_COUNT);
}

void session_wire_up(struct session *s, uint64_t now_ms)
{
    MUST(s->at.stream != 0);
    event(s, SESSION_EV_WIRE_UP, NULL, now_ms);
}

void session_wire_down(struct session *s, const char *why)
{
    s->why = why;
    event(s, SESSION_EV_WIRE_DOWN, NULL, 0);
    s->why = NULL;
}

void session_input(struct session *s, const struct link_frame *f, uint64_t now_ms)
{
    static const enum session_event events[] = {[LINK_BEAT] = SESSION_EV_BEAT,
                                                [LINK_HELLO] = SESSION_EV_HELLO,
                                                [LINK_DATA] = SESSION_EV_DATA};
    if (s->state == SESSION_IDLE)
        return;
    s->heard_ms = now_ms;
    if (f == NULL)
        (void)lose(s, "a malformed frame", true);
    else
        event(s, events[f->kind], f, now_ms);
}

void session_tick(struct session *s, uint64_t now_ms)
{
    event(s, SESSION_EV_TICK, NULL, now_ms);
}

int session_due(const struct session *s, uint64_t now_ms)
{
    if (s->state == SESSION_IDLE)
        return -1;
    uint64_t due = s->heard_ms + s->silence_ms;
    if (s->state == SESSION_UP && s->said_ms + SESSION_BEAT_MS < due)
        due = s->said_ms + SESSION_BEAT_MS;
    return due <= now_ms ? 0 : (int)(due - now_ms);
}

/* The user. */
int session_open(struct session *s, const struct session_place *at)
{
    if (at->stream == 0 || at->next == 0 || at->durable > at->received)
        return -EINVAL;
    if (at->peer_stream == 0 && at->received != 0)
        return -EINVAL;
    if (s->state != SESSION_IDLE)
        (void)lose(s, "the master opened its streams anew", true);
    session_fini(s);
    s->at = *at;
    s->acked = at->next - 1;
    s->wanting = false;
    return 0;
}

bool session_has_room(const struct session *s, size_t bytes)
{
    return s->queued_bytes + sizeof(struct session_unit) + bytes <= LIMIT_LINK_CREDIT_BYTES;
}

int session_append(struct session *s, const struct span *parts, unsigned count)
{
    size_t n = 0, at = 0;
    for (unsigned i = 0; i < count; i++)
        n += parts[i].n;
    if (n > (s->names.channel == LINK_BULK ? LINK_BULK_BYTES_MAX : LIMIT_LINK_PAYLOAD_BYTES))
        return -E2BIG;
    if (!session_has_room(s, n))
        return -ENOBUFS;
    struct session_unit *u = malloc(sizeof *u + n);
    if (u == NULL)
        return -ENOMEM;
    *u = (struct session_unit){.seq = s->at.next, .n = n};
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].n > 0)
            memcpy(u->bytes + at, parts[i].p, parts[i].n);
        at += parts[i].n;
    }
    *(s->last != NULL ? &s->last->next : &s->first) = u;
    s->last = u;
    if (s->cursor == NULL)
        s->cursor = u;
    s->queued_bytes += weight(u);
    s->at.next++;
    s->wanting = false;
    return 0;
}

int session_submit(struct session *s, uint64_t seq, struct span payload)
{
    if (payload.n > LIMIT_LINK_PAYLOAD_BYTES)
        return -E2BIG;
    if (seq < s->at.next)
        return 0;
    bool full = seq == s->at.next && !session_has_room(s, payload.n);
    if (seq != s->at.next || full) {
        /* Those behind a refused one are on their way already: told once. */
        if (full || !s->wanting)
            s->ops->want(s, s->at.next, full ? "full" : "a gap");
        s->wanting = true;
        return full ? -ENOBUFS : -ERANGE;
    }
    return session_append(s, &payload, 1);
}

int session_ack(struct session *s, uint64_t stream, uint64_t seq)
{
    if (stream != s->at.peer_stream)
        return 0; /* of a stream that has ended meanwhile */
    if (seq > s->at.received)
        return -ERANGE;
    if (seq > s->at.durable)
        s->at.durable = seq;
    return 0;
}
