/* move_frame - see move_frame.h. */
#include "proto/move_frame.h"

#include "base/text.h"
#include "proto/budget.h"
#include "proto/move.pb-c.h"
#include "proto/node_uri.h"
#include "proto/pb_bytes.h"

#include <errno.h>

enum {
    BUDGET_BYTES = 4 * LIMIT_LINK_PAYLOAD_BYTES + 4096,
    ITEM_BYTES_MAX = 320, /* encoded: address, numbers, name, 160 of why, tags */
};
static_assert(MOVE_ITEMS * ITEM_BYTES_MAX + 64 <= LIMIT_LINK_PAYLOAD_BYTES, "a full frame fits");
static_assert(MOVE_NEWS_BYTES + 64 <= LIMIT_LINK_PAYLOAD_BYTES, "news fits");

static void fill_item(const struct move_item *in, Mochila__MoveItem *out)
{
    MUST(in->kind >= MOVE_PREPARE && in->kind < MOVE_KIND_COUNT);
    MUST(in->move != 0);
    out->has_kind = out->has_lane = out->has_move = out->has_epoch = 1;
    out->kind = in->kind;
    out->lane = bytes_of(in->lane.b, sizeof in->lane.b);
    out->move = in->move;
    out->epoch = in->epoch;
    if (in->slot >= 0) {
        out->has_slot = 1;
        out->slot = (uint32_t)in->slot + 1;
    }
    out->has_pool = in->pool[0] != '\0';
    out->pool = bytes_of(in->pool, strlen(in->pool));
    out->has_driver = out->has_layout = out->has_bytes = in->kind == MOVE_PREPARE;
    out->driver = in->driver;
    out->layout = in->layout;
    out->bytes = in->bytes;
    out->has_held = in->held;
    out->held = in->held;
    out->has_why = in->why[0] != '\0';
    out->why = bytes_of(in->why, strlen(in->why));
}

int move_encode(const struct move_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__MoveItem items[MOVE_ITEMS];
    Mochila__MoveItem *list[MOVE_ITEMS];
    Mochila__MoveFrame m = MOCHILA__MOVE_FRAME__INIT;

    MUST(f->item_count <= MOVE_ITEMS);
    MUST(f->news_bytes <= sizeof f->news);
    for (uint32_t i = 0; i < f->item_count; i++) {
        mochila__move_item__init(&items[i]);
        fill_item(&f->items[i], &items[i]);
        list[i] = &items[i];
    }
    m.has_version = 1;
    m.version = MOVE_VERSION;
    m.n_items = f->item_count;
    m.items = list;
    if (f->news_move != 0) {
        m.has_news_move = m.has_news = 1;
        m.news_move = f->news_move;
        m.news = bytes_of(f->news, f->news_bytes);
    }
    *n = mochila__move_frame__get_packed_size(&m);
    if (*n > cap || *n > LIMIT_LINK_PAYLOAD_BYTES)
        return -E2BIG;
    size_t packed = mochila__move_frame__pack(&m, out);
    MUST(packed == *n);
    return 0;
}

/* Text of another node: it is shown to people, so what is not printable UTF-8 ends it. */
static void take_text(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    struct span left = span_of(in->data, in->len);
    size_t n = 0;
    while (left.n > 0 && left.p[0] >= 0x20 && left.p[0] != 0x7f) {
        size_t one = utf8_sequence(left);
        if (one == 0 || n + one + 1 > cap)
            break;
        memcpy(out + n, left.p, one);
        n += one;
        left = span_of(left.p + one, left.n - one);
    }
    out[n] = '\0';
}

static int take_item(const Mochila__MoveItem *in, struct move_item *out)
{
    *out = (struct move_item){.kind = (enum move_kind)in->kind,
                              .move = in->move,
                              .epoch = in->epoch,
                              .slot = MOVE_NO_SLOT,
                              .driver = in->driver,
                              .layout = in->layout,
                              .bytes = in->bytes,
                              .held = in->has_held && in->held};
    if (in->lane.len != sizeof out->lane.b || in->move == 0 || in->epoch == 0 ||
        in->epoch > LIMIT_EPOCH)
        return -EBADMSG;
    memcpy(out->lane.b, in->lane.data, sizeof out->lane.b);
    if (in->has_slot && in->slot > LIMIT_WORKERS)
        return -EBADMSG;
    if (in->has_slot && in->slot > 0)
        out->slot = (int32_t)in->slot - 1;
    if (in->has_pool) {
        if (!node_name_ok(span_of(in->pool.data, in->pool.len)))
            return -EBADMSG;
        memcpy(out->pool, in->pool.data, in->pool.len);
    }
    if (in->has_why)
        take_text(&in->why, out->why, sizeof out->why);
    return 0;
}

static int take_frame(const Mochila__MoveFrame *m, struct move_frame *out)
{
    out->item_count = 0;
    out->news_move = 0;
    out->news_bytes = 0;
    if (m->version < 1)
        return -EPROTO;
    if (m->n_items > MOVE_ITEMS)
        return -EBADMSG;
    for (size_t i = 0; i < m->n_items; i++) {
        if (m->items[i]->kind < MOVE_PREPARE || m->items[i]->kind >= MOVE_KIND_COUNT)
            continue;
        if (take_item(m->items[i], &out->items[out->item_count++]) < 0)
            return -EBADMSG;
    }
    if (m->has_news_move && m->has_news) {
        if (m->news.len > sizeof out->news)
            return -EBADMSG;
        out->news_move = m->news_move;
        out->news_bytes = (uint32_t)m->news.len;
        if (m->news.len > 0)
            memcpy(out->news, m->news.data, m->news.len);
    }
    return 0;
}

int move_decode(struct span bytes, struct move_frame *out)
{
    if (bytes.n == 0 || bytes.n > LIMIT_LINK_PAYLOAD_BYTES)
        return -EBADMSG;
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__MoveFrame *m = mochila__move_frame__unpack(&allocator, bytes.n, bytes.p);
    if (m == NULL)
        return -EBADMSG;
    int rc = take_frame(m, out);
    mochila__move_frame__free_unpacked(m, &allocator);
    return rc;
}
