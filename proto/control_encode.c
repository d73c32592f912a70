/*
 * control_encode - our own struct into one frame of bytes; see control.h.
 *
 * The generated structs point into the frame and into one scratch block, sized before it is filled;
 * nothing outlives the call.
 */
#include "proto/control.h"

#include "proto/control.pb-c.h"
#include "proto/pb_bytes.h"

#include <errno.h>
#include <stdlib.h>

/* Room for the generated structs of the frame's lists. */
struct scratch {
    uint8_t *p;
    size_t n, cap;
};

/* One of each: only the one in use is initialised. */
union message {
    Mochila__Ready ready;
    Mochila__Start start;
    Mochila__Holds holds;
    Mochila__PeerUp peer_up;
    Mochila__PeerDown peer_down;
    Mochila__Drain drain;
    Mochila__Drained drained;
    Mochila__Query query;
    Mochila__Answer answer;
    Mochila__Recovered recovered;
    Mochila__Link link;
    Mochila__Carrier carrier;
    Mochila__Lane lane;
};

struct encoding {
    const struct control_frame *f;
    struct scratch scratch;
    union message u;
    Mochila__Frame m;
};

static size_t scratch_bytes(const struct control_frame *f)
{
    return f->lane_count * (sizeof(Mochila__LanePlace) + sizeof(void *)) +
           f->hold_count * (sizeof(Mochila__Hold) + sizeof(void *)) +
           f->poison_count * (sizeof(ProtobufCBinaryData) + ID_BYTES) +
           f->arg_count * sizeof(ProtobufCBinaryData);
}

static void *take(struct scratch *s, size_t n)
{
    MUST(n <= s->cap - s->n);
    if (n == 0)
        return NULL;
    void *p = s->p + s->n;
    s->n += n;
    return p;
}

static void encode_ready(struct encoding *e)
{
    mochila__ready__init(&e->u.ready);
    e->u.ready.pid = e->f->pid;
    e->u.ready.generation = e->f->generation;
    e->u.ready.version = e->f->version;
    e->m.ready = &e->u.ready;
}

static Mochila__Hold **put_holds(struct encoding *e)
{
    const struct control_frame *f = e->f;
    Mochila__Hold **list = take(&e->scratch, f->hold_count * sizeof(*list));
    for (uint32_t i = 0; i < f->hold_count; i++) {
        const struct control_hold *h = &f->holds[i];
        list[i] = take(&e->scratch, sizeof **list);
        mochila__hold__init(list[i]);
        list[i]->kind = text_bytes(h->kind);
        list[i]->value = text_bytes(h->value);
        list[i]->has_why = h->why[0] != '\0';
        list[i]->why = text_bytes(h->why);
        list[i]->has_since = true;
        list[i]->since = h->since;
    }
    return list;
}

static Mochila__LanePlace **put_lanes(struct encoding *e)
{
    const struct control_frame *f = e->f;
    Mochila__LanePlace **list = take(&e->scratch, f->lane_count * sizeof(*list));
    for (uint32_t i = 0; i < f->lane_count; i++) {
        const struct control_lane *l = &f->lanes[i];
        list[i] = take(&e->scratch, sizeof **list);
        mochila__lane_place__init(list[i]);
        list[i]->lane = l->lane;
        list[i]->address = bytes_of(l->address.b, sizeof l->address.b);
        list[i]->shard = l->shard;
        list[i]->worker = l->worker;
        list[i]->epoch = l->epoch;
        list[i]->has_role = list[i]->has_run = l->role != 0;
        list[i]->role = l->role;
        list[i]->run = l->run;
        list[i]->has_owner = l->owner[0] != '\0';
        list[i]->owner = text_bytes(l->owner);
        list[i]->has_owner_slot = l->role != 0 && l->owner_slot != CONTROL_NO_SLOT;
        list[i]->owner_slot = l->owner_slot;
        list[i]->has_move = l->move != 0;
        list[i]->move = l->move;
    }
    return list;
}

static ProtobufCBinaryData *put_poison(struct encoding *e)
{
    const struct control_frame *f = e->f;
    ProtobufCBinaryData *list = take(&e->scratch, f->poison_count * sizeof(*list));
    for (uint32_t i = 0; i < f->poison_count; i++) {
        struct writer w = writer_of(take(&e->scratch, ID_BYTES), ID_BYTES);
        put_id(&w, f->poison[i]);
        MUST(!w.bad);
        list[i] = bytes_of(w.p, w.n);
    }
    return list;
}

static void encode_start(struct encoding *e)
{
    const struct control_frame *f = e->f;
    Mochila__Start *s = &e->u.start;
    mochila__start__init(s);
    s->generation = f->generation;
    s->slot = f->slot;
    s->workers = f->workers;
    s->boot = f->boot;
    s->n_shards = f->shard_count;
    s->shards = f->shards;
    s->n_listeners = f->listener_count;
    s->listeners = f->listeners;
    s->config_name = text_bytes(f->config_name);
    s->has_core = true;
    s->core = f->core;
    s->has_held = true;
    s->held = f->held;
    s->has_incarnation = true;
    s->incarnation = f->incarnation;
    s->last = f->last;
    /* Pointers first: they need the stricter alignment, ids are bytes. */
    s->n_lanes = f->lane_count;
    s->lanes = put_lanes(e);
    s->n_holds = f->hold_count;
    s->holds = put_holds(e);
    s->n_poison = f->poison_count;
    s->poison = put_poison(e);
    e->m.start = s;
}

static void encode_holds(struct encoding *e)
{
    mochila__holds__init(&e->u.holds);
    e->u.holds.n_holds = e->f->hold_count;
    e->u.holds.holds = put_holds(e);
    e->u.holds.last = e->f->last;
    e->m.holds = &e->u.holds;
}

static void encode_peer_up(struct encoding *e)
{
    mochila__peer_up__init(&e->u.peer_up);
    e->u.peer_up.incarnation = e->f->incarnation;
    e->u.peer_up.has_slot = e->f->slot != CONTROL_NO_SLOT;
    e->u.peer_up.slot = e->f->slot;
    e->m.peer_up = &e->u.peer_up;
}

static void encode_peer_down(struct encoding *e)
{
    mochila__peer_down__init(&e->u.peer_down);
    e->u.peer_down.incarnation = e->f->incarnation;
    e->m.peer_down = &e->u.peer_down;
}

static void encode_drain(struct encoding *e)
{
    mochila__drain__init(&e->u.drain);
    e->u.drain.seconds = e->f->seconds;
    e->m.drain = &e->u.drain;
}

static void encode_drained(struct encoding *e)
{
    mochila__drained__init(&e->u.drained);
    e->u.drained.has_open = true;
    e->u.drained.open = e->f->open;
    e->m.drained = &e->u.drained;
}

static void encode_query(struct encoding *e)
{
    const struct control_frame *f = e->f;
    Mochila__Query *q = &e->u.query;
    mochila__query__init(q);
    q->id = f->id;
    q->verb = text_bytes(f->verb);
    q->n_args = f->arg_count;
    q->args = take(&e->scratch, f->arg_count * sizeof(*q->args));
    for (uint32_t i = 0; i < f->arg_count; i++)
        q->args[i] = text_bytes(f->args[i]);
    e->m.query = q;
}

static void encode_answer(struct encoding *e)
{
    const struct control_frame *f = e->f;
    Mochila__Answer *a = &e->u.answer;
    mochila__answer__init(a);
    a->id = f->id;
    a->last = f->last;
    a->body = bytes_of(f->body, f->body_bytes);
    a->has_status = true;
    a->status = f->status != 0 ? f->status : 200;
    a->has_slot = f->slot != CONTROL_NO_SLOT;
    a->slot = f->slot;
    e->m.answer = a;
}

static void encode_recovered(struct encoding *e)
{
    mochila__recovered__init(&e->u.recovered);
    e->u.recovered.messages = e->f->messages;
    e->u.recovered.milliseconds = e->f->milliseconds;
    e->u.recovered.damaged = e->f->damaged;
    e->m.recovered = &e->u.recovered;
}

static void encode_link(struct encoding *e)
{
    const struct control_link *in = &e->f->link;
    Mochila__Link *l = &e->u.link;
    mochila__link__init(l);
    l->has_stream = l->has_seq = l->has_peer_stream = l->has_received = l->has_durable = true;
    l->has_incarnation = l->has_version = l->has_payload = l->has_why = true;
    l->op = in->op;
    l->peer = text_bytes(in->peer);
    l->channel = in->channel;
    l->stream = in->stream;
    l->seq = in->seq;
    l->peer_stream = in->peer_stream;
    l->received = in->received;
    l->durable = in->durable;
    l->incarnation = in->incarnation;
    l->version = in->version;
    l->payload = bytes_of(e->f->body, e->f->body_bytes);
    l->why = text_bytes(in->why);
    e->m.link = l;
}

static void encode_carrier(struct encoding *e)
{
    mochila__carrier__init(&e->u.carrier);
    e->u.carrier.slot = e->f->slot;
    e->m.carrier = &e->u.carrier;
}

static void encode_lane(struct encoding *e)
{
    const struct control_lane_order *in = &e->f->order;
    Mochila__Lane *l = &e->u.lane;
    MUST(in->result <= 0);
    mochila__lane__init(l);
    l->has_epoch = l->has_move = l->has_role = l->has_run = l->has_node = l->has_rate = true;
    l->has_result = l->has_why = l->has_tails = l->has_owed = l->has_complete = true;
    l->has_messages_sent = l->has_messages_left = l->has_bytes_sent = l->has_bytes_left = true;
    l->has_paused_us = true;
    l->op = in->op;
    l->lane = in->lane;
    l->epoch = in->epoch;
    l->move = in->move;
    l->role = in->role;
    l->run = in->run;
    l->node = text_bytes(in->node);
    l->has_slot = in->slot != CONTROL_NO_SLOT;
    l->slot = in->slot;
    l->rate = in->rate;
    l->result = (uint32_t)-in->result;
    l->why = text_bytes(in->why);
    l->messages_sent = in->messages_sent;
    l->messages_left = in->messages_left;
    l->bytes_sent = in->bytes_sent;
    l->bytes_left = in->bytes_left;
    l->tails = in->tails;
    l->owed = in->owed;
    l->complete = in->complete;
    l->paused_us = in->paused_us;
    e->m.lane = l;
}

static void (*const encoders[CONTROL_KIND_COUNT])(struct encoding *e) = {
    [CONTROL_READY] = encode_ready,         [CONTROL_START] = encode_start,
    [CONTROL_HOLDS] = encode_holds,         [CONTROL_PEER_UP] = encode_peer_up,
    [CONTROL_PEER_DOWN] = encode_peer_down, [CONTROL_DRAIN] = encode_drain,
    [CONTROL_DRAINED] = encode_drained,     [CONTROL_QUERY] = encode_query,
    [CONTROL_ANSWER] = encode_answer,       [CONTROL_RECOVERED] = encode_recovered,
    [CONTROL_LINK] = encode_link,           [CONTROL_CARRIER] = encode_carrier,
    [CONTROL_LANE] = encode_lane,
};

int control_encode(const struct control_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    MUST(f != NULL);
    MUST(f->kind >= CONTROL_READY);
    MUST(f->kind < CONTROL_KIND_COUNT);
    struct encoding e = {.f = f};
    e.scratch.cap = scratch_bytes(f);
    if (e.scratch.cap > 0) {
        e.scratch.p = calloc(1, e.scratch.cap);
        if (e.scratch.p == NULL)
            return -ENOMEM;
    }
    mochila__frame__init(&e.m);
    encoders[f->kind](&e);
    int rc = 0;
    *n = mochila__frame__get_packed_size(&e.m);
    if (*n > LIMIT_FRAME_BYTES || *n > cap)
        rc = -E2BIG;
    else
        *n = mochila__frame__pack(&e.m, out);
    free(e.scratch.p);
    return rc;
}
