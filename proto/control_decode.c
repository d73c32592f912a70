/*
 * control_decode - one frame of bytes into our own struct; see control.h.
 *
 * Pure: no descriptor, no session. What a child sends is hostile until every range has been
 * checked: unpacking draws on a budget, since a small frame can describe a great many empty
 * messages; exactly one message per frame; lists, texts and numbers have their bounds here.
 */
#include "proto/control.h"

#include "proto/budget.h"
#include "proto/control.pb-c.h"
#include "proto/link_frame.h"
#include "proto/node_uri.h"

#include <errno.h>
#include <stdlib.h>

enum {
    /* A full START of lanes unpacks to some five times its size; eight leaves room and is still a
       bound. */
    BUDGET_BYTES = 8 * LIMIT_FRAME_BYTES,
    BOOT_BITS = 48,
    CORE_MAX = 4095,
};

/* Copies a text with its NUL; an inner NUL or too many bytes make it malformed. */
static int take_text(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    if (in->len >= cap)
        return -EBADMSG;
    if (in->len > 0 && memchr(in->data, '\0', in->len) != NULL)
        return -EBADMSG;
    if (in->len > 0)
        memcpy(out, in->data, in->len);
    out[in->len] = '\0';
    return 0;
}

static int take_node(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    if (in->len == 0)
        return 0;
    return node_name_ok(span_of(in->data, in->len)) ? take_text(in, out, cap) : -EBADMSG;
}

/* An array for n elements of the frame; NULL and 0 when n is 0. */
static int make_list(size_t n, size_t n_max, size_t element_bytes, void **out, uint32_t *count)
{
    *out = NULL;
    *count = 0;
    if (n > n_max)
        return -EBADMSG;
    if (n == 0)
        return 0;
    *out = calloc(n, element_bytes);
    if (*out == NULL)
        return -ENOMEM;
    *count = (uint32_t)n;
    return 0;
}

static int take_numbers(const uint32_t *in, size_t n, uint32_t bound, uint32_t **out,
                        uint32_t *count)
{
    void *list;
    int rc = make_list(n, bound, sizeof **out, &list, count);
    *out = list;
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        if (in[i] >= bound)
            return -EBADMSG;
        (*out)[i] = in[i];
    }
    return 0;
}

static int decode_ready(const Mochila__Frame *m, struct control_frame *f)
{
    f->pid = m->ready->pid;
    f->generation = m->ready->generation;
    f->version = m->ready->version;
    return f->pid >= 1 ? 0 : -EBADMSG;
}

static int take_lane(const Mochila__LanePlace *in, uint32_t workers, struct control_lane *out)
{
    if (in->lane < 1 || in->epoch < 1 || in->shard >= LIMIT_WORKERS || in->worker >= workers)
        return -EBADMSG;
    if (in->address.len != sizeof out->address.b)
        return -EBADMSG;
    if (in->has_role && (in->role < LANE_OWNER || in->role >= LANE_ROLE_COUNT))
        return -EBADMSG;
    if (in->has_owner_slot && in->owner_slot >= LIMIT_WORKERS)
        return -EBADMSG;
    *out = (struct control_lane){
        .lane = in->lane,
        .shard = in->shard,
        .worker = in->worker,
        .epoch = in->epoch,
        .role = in->has_role ? (enum lane_role)in->role : LANE_OWNER,
        .run = in->has_run ? in->run : true,
        .owner_slot = in->has_owner_slot ? in->owner_slot : CONTROL_NO_SLOT,
        .move = in->move};
    memcpy(out->address.b, in->address.data, sizeof out->address.b);
    return in->has_owner ? take_node(&in->owner, out->owner, sizeof out->owner) : 0;
}

static int take_lanes(const Mochila__Start *s, struct control_frame *f)
{
    void *list;
    int rc = make_list(s->n_lanes, LIMIT_LANES, sizeof *f->lanes, &list, &f->lane_count);
    f->lanes = list;
    for (size_t i = 0; rc == 0 && i < s->n_lanes; i++)
        rc = take_lane(s->lanes[i], s->workers, &f->lanes[i]);
    return rc;
}

static int take_hold(const Mochila__Hold *in, struct control_hold *out)
{
    out->since = in->has_since ? in->since : 0;
    if (take_text(&in->kind, out->kind, sizeof out->kind) < 0)
        return -EBADMSG;
    if (!control_hold_kind_ok(out->kind))
        return -EBADMSG;
    if (take_text(&in->value, out->value, sizeof out->value) < 0)
        return -EBADMSG;
    if (in->has_why)
        return take_text(&in->why, out->why, sizeof out->why);
    return 0;
}

static int take_holds(Mochila__Hold *const *in, size_t n, struct control_frame *f)
{
    void *list;
    int rc = make_list(n, LIMIT_HOLDS, sizeof *f->holds, &list, &f->hold_count);
    f->holds = list;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = take_hold(in[i], &f->holds[i]);
    return rc;
}

static int take_poison(const Mochila__Start *s, struct control_frame *f)
{
    void *list;
    int rc = make_list(s->n_poison, LIMIT_POISON, sizeof *f->poison, &list, &f->poison_count);
    f->poison = list;
    for (size_t i = 0; rc == 0 && i < s->n_poison; i++) {
        struct cursor c = cursor_of(span_of(s->poison[i].data, s->poison[i].len));
        f->poison[i] = cursor_id(&c);
        if (c.bad || cursor_left(&c) != 0 || id_is_none(f->poison[i]))
            rc = -EBADMSG;
    }
    return rc;
}

static int decode_start(const Mochila__Frame *m, struct control_frame *f)
{
    const Mochila__Start *s = m->start;
    if (s->workers < 1 || s->workers > LIMIT_WORKERS || s->slot >= s->workers)
        return -EBADMSG;
    if (s->generation < 1 || s->boot < 1 || s->boot >> BOOT_BITS != 0)
        return -EBADMSG;
    f->core = s->has_core ? s->core : -1;
    if (f->core < -1 || f->core > CORE_MAX)
        return -EBADMSG;
    f->generation = s->generation;
    f->slot = s->slot;
    f->workers = s->workers;
    f->boot = s->boot;
    f->incarnation = s->has_incarnation ? s->incarnation : 0;
    f->held = s->has_held && s->held;
    f->last = s->last;

    int rc = take_text(&s->config_name, f->config_name, sizeof f->config_name);
    if (rc == 0)
        rc = take_numbers(s->shards, s->n_shards, LIMIT_WORKERS, &f->shards, &f->shard_count);
    if (rc == 0)
        rc = take_numbers(s->listeners, s->n_listeners, LIMIT_LISTENERS, &f->listeners,
                          &f->listener_count);
    if (rc == 0)
        rc = take_lanes(s, f);
    if (rc == 0)
        rc = take_holds(s->holds, s->n_holds, f);
    if (rc == 0)
        rc = take_poison(s, f);
    return rc;
}

static int decode_holds(const Mochila__Frame *m, struct control_frame *f)
{
    f->last = m->holds->last;
    return take_holds(m->holds->holds, m->holds->n_holds, f);
}

static int decode_peer_up(const Mochila__Frame *m, struct control_frame *f)
{
    f->incarnation = m->peer_up->incarnation;
    f->slot = m->peer_up->has_slot ? m->peer_up->slot : CONTROL_NO_SLOT;
    if (m->peer_up->has_slot && f->slot >= LIMIT_WORKERS)
        return -EBADMSG;
    return f->incarnation >= 1 ? 0 : -EBADMSG;
}

static int decode_peer_down(const Mochila__Frame *m, struct control_frame *f)
{
    f->incarnation = m->peer_down->incarnation;
    return f->incarnation >= 1 ? 0 : -EBADMSG;
}

static int decode_drain(const Mochila__Frame *m, struct control_frame *f)
{
    f->seconds = m->drain->seconds;
    return f->seconds <= LIMIT_DRAIN_S ? 0 : -EBADMSG;
}

static int decode_drained(const Mochila__Frame *m, struct control_frame *f)
{
    f->open = m->drained->has_open ? m->drained->open : 0;
    return 0;
}

static int take_arg(const ProtobufCBinaryData *in, char **out)
{
    const uint8_t *eq = in->len > 0 ? memchr(in->data, '=', in->len) : NULL;
    if (eq == NULL || eq == in->data)
        return -EBADMSG;
    *out = malloc(in->len + 1);
    if (*out == NULL)
        return -ENOMEM;
    return take_text(in, *out, in->len + 1);
}

static int decode_query(const Mochila__Frame *m, struct control_frame *f)
{
    const Mochila__Query *q = m->query;
    void *list;
    f->id = q->id;
    int rc = take_text(&q->verb, f->verb, sizeof f->verb);
    if (rc == 0 && f->verb[0] == '\0')
        rc = -EBADMSG;
    if (rc < 0)
        return rc;
    rc = make_list(q->n_args, LIMIT_QUERY_ARGS, sizeof *f->args, &list, &f->arg_count);
    f->args = list;
    for (size_t i = 0; rc == 0 && i < q->n_args; i++)
        rc = take_arg(&q->args[i], &f->args[i]);
    return rc;
}

static int take_body(const ProtobufCBinaryData *in, struct control_frame *f)
{
    if (in->len == 0)
        return 0;
    f->body = malloc(in->len);
    if (f->body == NULL)
        return -ENOMEM;
    memcpy(f->body, in->data, in->len);
    f->body_bytes = in->len;
    return 0;
}

static int decode_answer(const Mochila__Frame *m, struct control_frame *f)
{
    const Mochila__Answer *a = m->answer;
    f->id = a->id;
    f->last = a->last;
    f->status = a->has_status ? a->status : 200;
    f->slot = a->has_slot ? a->slot : CONTROL_NO_SLOT;
    if (f->status < 100 || f->status > 599)
        return -EBADMSG;
    if (a->has_slot && f->slot >= LIMIT_WORKERS)
        return -EBADMSG;
    return take_body(&a->body, f);
}

static int decode_recovered(const Mochila__Frame *m, struct control_frame *f)
{
    f->messages = m->recovered->messages;
    f->milliseconds = m->recovered->milliseconds;
    f->damaged = m->recovered->damaged;
    return 0;
}

static int decode_link(const Mochila__Frame *m, struct control_frame *f)
{
    const Mochila__Link *in = m->link;
    if (in->op < CONTROL_LINK_OPEN || in->op >= CONTROL_LINK_OP_COUNT)
        return -EBADMSG;
    if (in->channel >= LINK_CHANNEL_COUNT || in->payload.len > LIMIT_LINK_PAYLOAD_BYTES)
        return -EBADMSG;
    f->link = (struct control_link){.op = (enum control_link_op)in->op,
                                    .channel = in->channel,
                                    .stream = in->stream,
                                    .seq = in->seq,
                                    .peer_stream = in->peer_stream,
                                    .received = in->received,
                                    .durable = in->durable,
                                    .incarnation = in->incarnation,
                                    .version = in->version};
    if (!node_name_ok(span_of(in->peer.data, in->peer.len)))
        return -EBADMSG;
    int r = take_text(&in->peer, f->link.peer, sizeof f->link.peer);
    if (r == 0 && in->has_why)
        r = take_text(&in->why, f->link.why, sizeof f->link.why);
    if (r == 0 && in->has_payload)
        r = take_body(&in->payload, f);
    return r;
}

static int decode_carrier(const Mochila__Frame *m, struct control_frame *f)
{
    f->slot = m->carrier->slot;
    return f->slot < LIMIT_WORKERS ? 0 : -EBADMSG;
}

static int decode_lane(const Mochila__Frame *m, struct control_frame *f)
{
    const Mochila__Lane *in = m->lane;
    if (in->op < LANE_OP_SET || in->op >= LANE_OP_COUNT || in->role >= LANE_ROLE_COUNT)
        return -EBADMSG;
    if (in->has_slot && in->slot >= LIMIT_WORKERS)
        return -EBADMSG;
    if (in->lane == 0 || in->result > 4095)
        return -EBADMSG;
    f->order = (struct control_lane_order){.op = (enum lane_op)in->op,
                                           .lane = in->lane,
                                           .epoch = in->epoch,
                                           .slot = in->has_slot ? in->slot : CONTROL_NO_SLOT,
                                           .move = in->move,
                                           .rate = in->rate,
                                           .role = (enum lane_role)in->role,
                                           .run = in->run,
                                           .complete = in->complete,
                                           .result = -(int)in->result,
                                           .tails = in->tails,
                                           .messages_sent = in->messages_sent,
                                           .messages_left = in->messages_left,
                                           .bytes_sent = in->bytes_sent,
                                           .bytes_left = in->bytes_left,
                                           .owed = in->owed,
                                           .paused_us = in->paused_us};
    int r = in->has_node ? take_node(&in->node, f->order.node, sizeof f->order.node) : 0;
    if (r == 0 && in->has_why)
        r = take_text(&in->why, f->order.why, sizeof f->order.why);
    return r;
}

/* Which message is in the frame, and who reads it. */
static const struct decoder {
    enum control_kind kind;
    size_t offset; /* of the pointer in the generated struct */
    int (*decode)(const Mochila__Frame *m, struct control_frame *f);
} decoders[] = {
    {CONTROL_READY, offsetof(Mochila__Frame, ready), decode_ready},
    {CONTROL_START, offsetof(Mochila__Frame, start), decode_start},
    {CONTROL_HOLDS, offsetof(Mochila__Frame, holds), decode_holds},
    {CONTROL_PEER_UP, offsetof(Mochila__Frame, peer_up), decode_peer_up},
    {CONTROL_PEER_DOWN, offsetof(Mochila__Frame, peer_down), decode_peer_down},
    {CONTROL_DRAIN, offsetof(Mochila__Frame, drain), decode_drain},
    {CONTROL_DRAINED, offsetof(Mochila__Frame, drained), decode_drained},
    {CONTROL_QUERY, offsetof(Mochila__Frame, query), decode_query},
    {CONTROL_ANSWER, offsetof(Mochila__Frame, answer), decode_answer},
    {CONTROL_RECOVERED, offsetof(Mochila__Frame, recovered), decode_recovered},
    {CONTROL_LINK, offsetof(Mochila__Frame, link), decode_link},
    {CONTROL_CARRIER, offsetof(Mochila__Frame, carrier), decode_carrier},
    {CONTROL_LANE, offsetof(Mochila__Frame, lane), decode_lane},
};
static_assert(ARRAY_COUNT(decoders) == CONTROL_KIND_COUNT - 1, "a decoder for each kind");

/* The decoder of the only message in the frame; NULL when there is none or more than one. */
static const struct decoder *decoder_of(const Mochila__Frame *m)
{
    const struct decoder *found = NULL;
    for (size_t i = 0; i < ARRAY_COUNT(decoders); i++) {
        const void *message;
        memcpy(&message, (const uint8_t *)m + decoders[i].offset, sizeof message);
        if (message == NULL)
            continue;
        if (found != NULL)
            return NULL;
        found = &decoders[i];
    }
    return found;
}

int control_decode(struct span bytes, struct control_frame *out)
{
    MUST(out != NULL);
    *out = (struct control_frame){.core = -1, .slot = CONTROL_NO_SLOT};
    if (bytes.n == 0 || bytes.n > LIMIT_FRAME_BYTES)
        return -EBADMSG;

    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__Frame *m = mochila__frame__unpack(&allocator, bytes.n, bytes.p);
    if (m == NULL)
        return -EBADMSG;
    const struct decoder *d = decoder_of(m);
    int rc = -EBADMSG;
    if (d != NULL) {
        out->kind = d->kind;
        rc = d->decode(m, out);
    }
    mochila__frame__free_unpacked(m, &allocator);
    if (rc < 0)
        control_free(out);
    return rc;
}
