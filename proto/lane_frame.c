/*
 * Invariant: bytes are little-endian except inside protobuf; a frame is 8 bytes of lengths, the
 * head, the meta, the rest, and nothing else.
 */
#include "proto/lane_frame.h"

#include "proto/budget.h"
#include "proto/lane.pb-c.h"
#include "proto/pb_bytes.h"
#include "proto/spool_record.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PREFIX_BYTES = 8,
    ADDRESS_BYTES = 16,
    /* A head of LANE_FRAME_ITEMS items: ids, digests, indices (unpacked: 4 bytes each), names. */
    ITEM_BYTES_MAX = ID_BYTES + 8 + 5 + 1 + LIMIT_NAME_BYTES,
    HEAD_BYTES_MAX = LANE_FRAME_ITEMS * ITEM_BYTES_MAX + LANE_FRAME_HEAD_BYTES,
    /* The same unpacked; the packed lists are counted before they are allocated. */
    BUDGET_BYTES = 2 * HEAD_BYTES_MAX,
};
static_assert(HEAD_BYTES_MAX + PREFIX_BYTES <= LIMIT_CARRIER_PAYLOAD_BYTES, "a head fits");

/* --- out --- */

static bool any_origin(const struct lane_frame *f)
{
    for (uint32_t i = 0; i < f->item_count; i++)
        if (f->items[i].origin[0] != '\0')
            return true;
    return false;
}

/* Everything that the lists of a head point to, in one piece of memory. */
struct item_lists {
    uint8_t *memory;
};

static int fill_items(const struct lane_frame *f, Mochila__LaneHead *m, struct item_lists *lists)
{
    uint32_t n = f->item_count;
    if (n == 0)
        return 0;
    if (n > LANE_FRAME_ITEMS)
        return -E2BIG;
    size_t names = (size_t)n * (LIMIT_NAME_BYTES + 1);
    uint8_t *p = malloc((size_t)n * (8 + 4 + ID_BYTES) + names);
    if (p == NULL)
        return -ENOMEM;
    lists->memory = p;
    uint64_t *digests = (uint64_t *)(void *)p;
    uint32_t *indices = (uint32_t *)(void *)(p + 8 * (size_t)n);
    struct writer ids = writer_of(p + 12 * (size_t)n, (size_t)n * ID_BYTES);
    struct writer origins = writer_of(ids.p + ids.cap, names);
    bool digested = false, indexed = false;
    for (uint32_t i = 0; i < n; i++) {
        put_id(&ids, f->items[i].id);
        digests[i] = f->items[i].digest;
        indices[i] = f->items[i].index;
        digested = digested || digests[i] != 0;
        indexed = indexed || indices[i] != 0;
        put_str8(&origins, span_str(f->items[i].origin));
    }
    MUST(!ids.bad);
    m->has_ids = 1;
    m->ids = bytes_of(ids.p, ids.n);
    m->n_digests = digested ? n : 0;
    m->digests = digests;
    m->n_indices = indexed ? n : 0;
    m->indices = indices;
    m->has_origins = any_origin(f);
    m->origins = bytes_of(origins.p, origins.n);
    return 0;
}

static void fill_head(const struct lane_frame *f, Mochila__LaneHead *m)
{
    m->has_kind = m->has_lane = 1;
    m->kind = f->kind;
    m->lane = bytes_of(f->lane.b, ADDRESS_BYTES);
    m->has_move = f->move != 0;
    m->move = f->move;
    m->has_position = f->position != 0;
    m->position = f->position;
    m->has_epoch = f->epoch != 0;
    m->epoch = f->epoch;
    m->has_type = f->type != 0;
    m->type = f->type;
    m->has_last = m->last = f->last;
    m->has_again = m->again = f->again;
    m->has_hand = m->hand = f->hand;
    m->has_node = f->node[0] != '\0';
    m->node = bytes_of(f->node, strlen(f->node));
    m->has_why = f->why[0] != '\0';
    m->why = bytes_of(f->why, strlen(f->why));
    m->has_meta_bytes = f->meta.n > 0;
    m->meta_bytes = (uint32_t)f->meta.n;
}

static int pack(const struct lane_frame *f, const Mochila__LaneHead *m, struct writer *w)
{
    size_t head = mochila__lane_head__get_packed_size(m);
    size_t total = PREFIX_BYTES + head + f->meta.n + f->rest.n;
    if (total > LIMIT_CARRIER_PAYLOAD_BYTES || PREFIX_BYTES + head > w->cap)
        return -E2BIG;
    put_u32(w, (uint32_t)total);
    put_u32(w, (uint32_t)head);
    size_t packed = mochila__lane_head__pack(m, w->p + w->n);
    MUST(packed == head);
    w->n += head;
    return 0;
}

int lane_frame_head(const struct lane_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    MUST(f->kind > 0);
    MUST(f->kind < LANE_FRAME_KIND_COUNT);
    Mochila__LaneHead m = MOCHILA__LANE_HEAD__INIT;
    struct item_lists lists = {0};
    fill_head(f, &m);
    struct writer w = writer_of(out, cap);
    int r = fill_items(f, &m, &lists);
    if (r == 0)
        r = pack(f, &m, &w);
    free(lists.memory);
    *n = w.n;
    return r;
}

/* --- in --- */

/* Text without control characters that fits, with its NUL. Absent is empty. */
static bool take_text(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    if (in->len >= cap)
        return false;
    for (size_t i = 0; i < in->len; i++)
        if (in->data[i] < ' ' || in->data[i] == 0x7f)
            return false;
    if (in->len > 0)
        memcpy(out, in->data, in->len);
    out[in->len] = '\0';
    return true;
}

static bool take_origins(const Mochila__LaneHead *m, struct lane_item *items, uint32_t n)
{
    struct cursor c = cursor_of(span_of(m->origins.data, m->origins.len));
    for (uint32_t i = 0; i < n && !c.bad; i++) {
        struct span name = cursor_str8(&c);
        ProtobufCBinaryData d = bytes_of(name.p, name.n);
        if (!take_text(&d, items[i].origin, sizeof items[i].origin))
            return false;
    }
    return !c.bad && cursor_left(&c) == 0;
}

static int take_items(const Mochila__LaneHead *m, struct lane_frame *out)
{
    uint32_t n = (uint32_t)(m->ids.len / ID_BYTES);
    if (m->ids.len % ID_BYTES != 0 || m->ids.len / ID_BYTES > LANE_FRAME_ITEMS)
        return -EBADMSG;
    if ((m->n_digests != 0 && m->n_digests != n) || (m->n_indices != 0 && m->n_indices != n) ||
        (m->origins.len > 0 && n == 0))
        return -EBADMSG;
    if (n == 0)
        return 0;
    struct lane_item *items = calloc(n, sizeof *items);
    if (items == NULL)
        return -ENOMEM;
    out->memory = items;
    struct cursor c = cursor_of(span_of(m->ids.data, m->ids.len));
    for (uint32_t i = 0; i < n; i++) {
        items[i].id = cursor_id(&c);
        if (id_is_none(items[i].id))
            return -EBADMSG;
        items[i].digest = m->n_digests > 0 ? m->digests[i] : 0;
        if (m->n_indices > 0 && m->indices[i] > UINT16_MAX)
            return -EBADMSG;
        items[i].index = m->n_indices > 0 ? (uint16_t)m->indices[i] : 0;
    }
    if (m->origins.len > 0 && !take_origins(m, items, n))
        return -EBADMSG;
    out->items = items;
    out->item_count = n;
    return 0;
}

static int take_head(const Mochila__LaneHead *m, struct lane_frame *out)
{
    if (m->kind >= LANE_FRAME_KIND_COUNT)
        return -ENOTSUP;
    if (m->kind == 0 || m->lane.len != ADDRESS_BYTES || m->type >= RECORD_TYPE_COUNT ||
        m->epoch > LIMIT_EPOCH)
        return -EBADMSG;
    out->kind = (enum lane_frame_kind)m->kind;
    memcpy(out->lane.b, m->lane.data, ADDRESS_BYTES);
    out->move = m->move;
    out->position = m->position;
    out->epoch = m->epoch;
    out->type = (uint8_t)m->type;
    out->last = m->last;
    out->again = m->again;
    out->hand = m->hand;
    if (!take_text(&m->node, out->node, sizeof out->node) ||
        !take_text(&m->why, out->why, sizeof out->why))
        return -EBADMSG;
    return take_items(m, out);
}

static int take_frame(struct span head, struct span data, struct lane_frame *out)
{
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__LaneHead *m = mochila__lane_head__unpack(&allocator, head.n, head.p);
    if (m == NULL)
        return -EBADMSG;
    int r = take_head(m, out);
    if (r == 0 && m->meta_bytes > data.n)
        r = -EBADMSG;
    if (r == 0) {
        out->meta = span_of(data.p, m->meta_bytes);
        out->rest = span_skip(data, m->meta_bytes);
    }
    mochila__lane_head__free_unpacked(m, &allocator);
    if (r != 0)
        lane_frame_free(out);
    return r;
}

/* One frame off the payload; -ENOTSUP: it was of a kind that is not known. */
static int next_frame(struct span *payload, struct lane_frame *out)
{
    memset(out, 0, sizeof *out);
    if (payload->n == 0)
        return 0;
    struct cursor c = cursor_of(*payload);
    uint32_t total = cursor_u32(&c), head = cursor_u32(&c);
    if (c.bad || total > payload->n || total < PREFIX_BYTES || head > total - PREFIX_BYTES ||
        head > HEAD_BYTES_MAX)
        return -EBADMSG;
    struct span body = span_of(payload->p + PREFIX_BYTES, total - PREFIX_BYTES);
    int r = take_frame(span_of(body.p, head), span_skip(body, head), out);
    if (r == 0 || r == -ENOTSUP)
        *payload = span_skip(*payload, total);
    return r == 0 ? 1 : r;
}

int lane_frame_next(struct span *payload, struct lane_frame *out)
{
    int r;
    do {
        r = next_frame(payload, out);
    } while (r == -ENOTSUP);
    return r;
}

void lane_frame_free(struct lane_frame *f)
{
    free(f->memory);
    memset(f, 0, sizeof *f);
}
