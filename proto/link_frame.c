/* link_frame - see link_frame.h. */
#include "proto/link_frame.h"

#include "proto/budget.h"
#include "proto/link.pb-c.h"
#include "proto/node_uri.h"
#include "proto/pb_bytes.h"

#include <errno.h>

enum {
    MAGIC = 0x6b6e4c6d, /* "mLnk" */
    /* Fixed parts of the generated structs; the payload, twice for a repeated field that replaces
       the one before. */
    BUDGET_BYTES = 2 * LIMIT_LINK_FRAME_BYTES + 4096,
    OVERHEAD_BYTES = 256, /* of any frame, without its payload */
};

size_t link_frame_room(const struct link_frame *f)
{
    return OVERHEAD_BYTES + (f->kind == LINK_DATA ? f->payload.n : 0);
}

static void fill_hello(const struct link_hello *in, Mochila__LinkHello *out)
{
    out->has_node = out->has_cluster = out->has_version_min = out->has_version_max = 1;
    out->has_stream = out->has_peer_stream = out->has_durable = out->has_channel = 1;
    out->node = bytes_of(in->node, strlen(in->node));
    out->cluster = bytes_of(in->cluster, strlen(in->cluster));
    out->version_min = in->version_min;
    out->version_max = in->version_max;
    out->stream = in->stream;
    out->peer_stream = in->peer_stream;
    out->durable = in->durable;
    out->channel = in->channel;
}

int link_frame_encode(const struct link_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__LinkFrame m = MOCHILA__LINK_FRAME__INIT;
    Mochila__LinkHello hello = MOCHILA__LINK_HELLO__INIT;
    Mochila__LinkData data = MOCHILA__LINK_DATA__INIT;

    MUST(f->incarnation != 0);
    m.has_magic = m.has_incarnation = m.has_ack = m.has_credit = 1;
    m.magic = MAGIC;
    m.incarnation = f->incarnation;
    m.ack = f->ack;
    m.credit = f->credit;
    if (f->kind == LINK_HELLO) {
        fill_hello(&f->hello, &hello);
        m.hello = &hello;
    }
    if (f->kind == LINK_DATA) {
        MUST(f->seq > 0);
        data.has_seq = data.has_payload = 1;
        data.seq = f->seq;
        data.payload = bytes_of(f->payload.p, f->payload.n);
        m.data = &data;
    }
    *n = mochila__link_frame__get_packed_size(&m);
    if (*n > cap || *n > LIMIT_LINK_FRAME_BYTES)
        return -E2BIG;
    size_t packed = mochila__link_frame__pack(&m, out);
    MUST(packed == *n);
    return 0;
}

/* A name as the configuration allows it: it is compared and logged. */
static int take_name(protobuf_c_boolean has, const ProtobufCBinaryData *in,
                     char out[LIMIT_NAME_BYTES + 1])
{
    if (!has || !node_name_ok(span_of(in->data, in->len)))
        return -EBADMSG;
    memcpy(out, in->data, in->len);
    out[in->len] = '\0';
    return 0;
}

static int take_hello(const Mochila__LinkHello *in, struct link_hello *out)
{
    *out = (struct link_hello){.version_min = in->version_min,
                               .version_max = in->version_max,
                               .stream = in->stream,
                               .peer_stream = in->peer_stream,
                               .durable = in->durable};
    if (take_name(in->has_node, &in->node, out->node) < 0 ||
        take_name(in->has_cluster, &in->cluster, out->cluster) < 0)
        return -EBADMSG;
    if (out->version_min < 1 || out->version_max < out->version_min || out->stream == 0)
        return -EBADMSG;
    if (out->peer_stream == 0 && out->durable != 0)
        return -EBADMSG;
    if (in->channel >= LINK_CHANNEL_COUNT)
        return -EBADMSG;
    out->channel = (enum link_channel)in->channel;
    return 0;
}

static int take_frame(const Mochila__LinkFrame *m, struct link_frame *out)
{
    *out = (struct link_frame){
        .kind = LINK_BEAT, .incarnation = m->incarnation, .ack = m->ack, .credit = m->credit};
    if (!m->has_magic || m->magic != MAGIC || m->incarnation == 0)
        return -EBADMSG;
    if (m->hello != NULL && m->data != NULL)
        return -EBADMSG;
    if (m->hello != NULL) {
        out->kind = LINK_HELLO;
        return take_hello(m->hello, &out->hello);
    }
    if (m->data != NULL) {
        out->kind = LINK_DATA;
        out->seq = m->data->seq;
        if (out->seq == 0 || !m->data->has_payload)
            return -EBADMSG;
        out->payload = span_of(m->data->payload.data, m->data->payload.len);
    }
    return 0;
}

int link_frame_decode(struct span bytes, struct link_frame *out)
{
    if (bytes.n == 0 || bytes.n > LIMIT_LINK_FRAME_BYTES)
        return -EBADMSG;
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__LinkFrame *m = mochila__link_frame__unpack(&allocator, bytes.n, bytes.p);
    if (m == NULL)
        return -EBADMSG;
    int r = take_frame(m, out);
    out->unpacked = m;
    if (r < 0)
        link_frame_free(out);
    return r;
}

void link_frame_free(struct link_frame *f)
{
    struct budget none = {0};
    ProtobufCAllocator allocator = budget_allocator(&none);
    if (f->unpacked != NULL)
        mochila__link_frame__free_unpacked(f->unpacked, &allocator);
    f->unpacked = NULL;
    f->payload = span_of(NULL, 0);
}

int link_version_agree(const struct link_hello *theirs, uint32_t *version)
{
    uint32_t highest =
        theirs->version_max < LINK_VERSION_MAX ? theirs->version_max : LINK_VERSION_MAX;
    uint32_t lowest =
        theirs->version_min > LINK_VERSION_MIN ? theirs->version_min : LINK_VERSION_MIN;
    if (lowest > highest)
        return -EPROTONOSUPPORT;
    *version = highest;
    return 0;
}
