/* cluster_frame - see cluster_frame.h. */
#include "proto/cluster_frame.h"

#include "proto/budget.h"
#include "proto/cluster.pb-c.h"
#include "proto/pb_bytes.h"

#include <errno.h>

enum {
    ADDRESS_BYTES = 16,
    BUDGET_BYTES = 256 << 10, /* fixed parts of a few hundred lanes, besides the bytes themselves */
    STATUS_MAX = 599,
    LANE_BYTES_MAX = 160, /* one lane, encoded */
};
static_assert(CLUSTER_LANES_PER_FRAME * LANE_BYTES_MAX + 1024 <= LIMIT_LINK_PAYLOAD_BYTES,
              "the lanes of a STATUS fit a frame");

/* --- decoding --- */

/* A word without control characters that fits `cap`, NUL included. */
static int take_text(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    if (in->len >= cap)
        return -EBADMSG;
    for (size_t i = 0; i < in->len; i++) {
        if (in->data[i] < 0x20 || in->data[i] > 0x7e)
            return -EBADMSG;
    }
    if (in->len > 0)
        memcpy(out, in->data, in->len);
    out[in->len] = '\0';
    return 0;
}

static int take_lane(const Mochila__ClusterLane *in, struct cluster_lane *out)
{
    *out = (struct cluster_lane){.epoch = in->epoch, .run = in->run, .queued = in->queued};
    if (in->address.len != ADDRESS_BYTES || in->epoch == 0 || in->epoch > LIMIT_EPOCH)
        return -EBADMSG;
    if (in->role == 0 || in->role >= LANE_ROLE_COUNT)
        return -EBADMSG;
    memcpy(out->address.b, in->address.data, ADDRESS_BYTES);
    out->role = (enum lane_role)in->role;
    out->move = in->move;
    out->slot = in->has_slot ? in->slot : CONTROL_NO_SLOT;
    if (out->slot != CONTROL_NO_SLOT && out->slot >= LIMIT_WORKERS)
        return -EBADMSG;
    if (take_text(&in->pool, out->pool, sizeof out->pool) < 0 || in->owner.len == 0)
        return -EBADMSG;
    return take_text(&in->owner, out->owner, sizeof out->owner);
}

static int take_status(const Mochila__ClusterStatus *in, struct cluster_lane *lanes,
                       struct cluster_status *out)
{
    if (in->node_id == 0 || in->node_id > UINT16_MAX || in->n_lanes > CLUSTER_LANES_PER_FRAME)
        return -EBADMSG;
    if (in->workers == 0 || in->workers > LIMIT_WORKERS)
        return -EBADMSG;
    out->node_id = in->node_id;
    out->layout = in->layout;
    out->workers = in->workers;
    out->driver =
        in->driver < NETD_DRIVER_COUNT ? (enum netd_driver)in->driver : (enum netd_driver)0;
    out->boot = in->boot;
    out->queued = in->queued;
    out->disk_free = in->disk_free;
    out->delivered_milli = in->delivered_milli;
    out->uptime_s = in->uptime_s;
    out->first = in->first;
    out->last = in->last;
    if (take_text(&in->version, out->version, sizeof out->version) < 0 ||
        take_text(&in->health, out->health, sizeof out->health) < 0)
        return -EBADMSG;
    out->lane_count = (uint32_t)in->n_lanes;
    for (size_t i = 0; i < in->n_lanes; i++) {
        if (take_lane(in->lanes[i], &lanes[i]) < 0)
            return -EBADMSG;
    }
    return 0;
}

/* Copies bytes that outlive the unpacked message. */
static struct span keep(const ProtobufCBinaryData *in, uint8_t **scratch)
{
    struct span s = span_of(*scratch, in->len);
    if (in->len > 0)
        memcpy(*scratch, in->data, in->len);
    *scratch += in->len;
    return s;
}

static int take_query(const Mochila__ClusterQuery *in, uint8_t *scratch, struct cluster_query *out)
{
    if (in->id == 0 || in->verb.len == 0 || in->n_args > CLUSTER_ARGS_MAX)
        return -EBADMSG;
    out->id = in->id;
    if (take_text(&in->verb, out->verb, sizeof out->verb) < 0)
        return -EBADMSG;
    out->arg_count = (uint32_t)in->n_args;
    for (size_t i = 0; i < in->n_args; i++) {
        const ProtobufCBinaryData *arg = &in->args[i];
        if (arg->len == 0 || memchr(arg->data, '=', arg->len) == NULL ||
            memchr(arg->data, '\0', arg->len) != NULL)
            return -EBADMSG;
        out->args[i] = keep(arg, &scratch);
    }
    return 0;
}

static int take_answer(const Mochila__ClusterAnswer *in, uint8_t *scratch,
                       struct cluster_reply *out)
{
    if (in->id == 0 || in->status < 100 || in->status > STATUS_MAX)
        return -EBADMSG;
    *out = (struct cluster_reply){.id = in->id, .status = in->status, .last = in->last};
    out->body = keep(&in->body, &scratch);
    return 0;
}

static int take_frame(const Mochila__ClusterFrame *m, struct cluster_lane *lanes, uint8_t *scratch,
                      struct cluster_frame *out)
{
    unsigned kinds =
        (m->status != NULL) + (m->move != NULL) + (m->query != NULL) + (m->answer != NULL);
    if (kinds != 1)
        return kinds == 0 ? -ENOTSUP : -EBADMSG;
    *out = (struct cluster_frame){.lanes = lanes};
    if (m->status != NULL) {
        out->kind = CLUSTER_STATUS;
        return take_status(m->status, lanes, &out->status);
    }
    if (m->query != NULL) {
        out->kind = CLUSTER_QUERY;
        return take_query(m->query, scratch, &out->query);
    }
    if (m->answer != NULL) {
        out->kind = CLUSTER_ANSWER;
        return take_answer(m->answer, scratch, &out->answer);
    }
    out->kind = CLUSTER_MOVE;
    out->move = keep(&m->move->payload, &scratch);
    return 0;
}

int cluster_decode(struct span bytes, struct cluster_lane *lanes, uint8_t *scratch,
                   struct cluster_frame *out)
{
    if (bytes.n == 0 || bytes.n > LIMIT_LINK_PAYLOAD_BYTES)
        return -EBADMSG;
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__ClusterFrame *m = mochila__cluster_frame__unpack(&allocator, bytes.n, bytes.p);
    if (m == NULL)
        return -EBADMSG;
    int r = take_frame(m, lanes, scratch, out);
    mochila__cluster_frame__free_unpacked(m, &allocator);
    return r;
}

/* --- encoding --- */

static void fill_lane(const struct cluster_lane *in, Mochila__ClusterLane *out)
{
    mochila__cluster_lane__init(out);
    out->has_address = out->has_pool = out->has_owner = out->has_epoch = out->has_role = 1;
    out->has_run = out->has_queued = 1;
    out->address = bytes_of(in->address.b, ADDRESS_BYTES);
    out->pool = text_bytes(in->pool);
    out->owner = text_bytes(in->owner);
    out->epoch = in->epoch;
    out->role = in->role;
    out->has_slot = in->slot != CONTROL_NO_SLOT;
    out->slot = in->slot;
    out->run = in->run;
    out->queued = in->queued;
    out->has_move = in->move != 0;
    out->move = in->move;
}

static void fill_status(const struct cluster_status *in, Mochila__ClusterStatus *out)
{
    out->has_node_id = out->has_version = out->has_layout = out->has_boot = out->has_workers = 1;
    out->has_queued = out->has_disk_free = out->has_delivered_milli = out->has_health = 1;
    out->has_uptime_s = out->has_first = out->has_last = out->has_driver = 1;
    out->node_id = in->node_id;
    out->version = text_bytes(in->version);
    out->layout = in->layout;
    out->boot = in->boot;
    out->workers = in->workers;
    out->queued = in->queued;
    out->disk_free = in->disk_free;
    out->delivered_milli = in->delivered_milli;
    out->health = text_bytes(in->health);
    out->uptime_s = in->uptime_s;
    out->first = in->first;
    out->last = in->last;
    out->driver = in->driver;
}

static int pack(const Mochila__ClusterFrame *m, uint8_t *out, size_t cap, size_t *n)
{
    *n = mochila__cluster_frame__get_packed_size(m);
    if (*n > cap || *n > LIMIT_LINK_PAYLOAD_BYTES)
        return -E2BIG;
    size_t packed = mochila__cluster_frame__pack(m, out);
    MUST(packed == *n);
    return 0;
}

static int encode_status(const struct cluster_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__ClusterFrame m = MOCHILA__CLUSTER_FRAME__INIT;
    Mochila__ClusterStatus status = MOCHILA__CLUSTER_STATUS__INIT;
    Mochila__ClusterLane lanes[CLUSTER_LANES_PER_FRAME];
    Mochila__ClusterLane *list[CLUSTER_LANES_PER_FRAME];

    MUST(f->status.lane_count <= CLUSTER_LANES_PER_FRAME);
    for (uint32_t i = 0; i < f->status.lane_count; i++) {
        fill_lane(&f->lanes[i], &lanes[i]);
        list[i] = &lanes[i];
    }
    fill_status(&f->status, &status);
    status.n_lanes = f->status.lane_count;
    status.lanes = list;
    m.status = &status;
    return pack(&m, out, cap, n);
}

static int encode_query(const struct cluster_query *in, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__ClusterFrame m = MOCHILA__CLUSTER_FRAME__INIT;
    Mochila__ClusterQuery query = MOCHILA__CLUSTER_QUERY__INIT;
    ProtobufCBinaryData args[CLUSTER_ARGS_MAX];

    MUST(in->arg_count <= CLUSTER_ARGS_MAX);
    for (uint32_t i = 0; i < in->arg_count; i++)
        args[i] = bytes_of(in->args[i].p, in->args[i].n);
    query.has_id = query.has_verb = 1;
    query.id = in->id;
    query.verb = text_bytes(in->verb);
    query.n_args = in->arg_count;
    query.args = args;
    m.query = &query;
    return pack(&m, out, cap, n);
}

int cluster_encode(const struct cluster_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__ClusterFrame m = MOCHILA__CLUSTER_FRAME__INIT;
    Mochila__ClusterMove move = MOCHILA__CLUSTER_MOVE__INIT;
    Mochila__ClusterAnswer answer = MOCHILA__CLUSTER_ANSWER__INIT;

    if (f->kind == CLUSTER_STATUS)
        return encode_status(f, out, cap, n);
    if (f->kind == CLUSTER_QUERY)
        return encode_query(&f->query, out, cap, n);
    if (f->kind == CLUSTER_MOVE) {
        move.has_payload = 1;
        move.payload = bytes_of(f->move.p, f->move.n);
        m.move = &move;
        return pack(&m, out, cap, n);
    }
    MUST(f->kind == CLUSTER_ANSWER);
    answer.has_id = answer.has_status = answer.has_body = answer.has_last = 1;
    answer.id = f->answer.id;
    answer.status = f->answer.status;
    answer.last = f->answer.last;
    answer.body = bytes_of(f->answer.body.p, f->answer.body.n);
    m.answer = &answer;
    return pack(&m, out, cap, n);
}
