/* link_bulk - see link_bulk.h. */
#include "proto/link_bulk.h"

#include "proto/budget.h"
#include "proto/link.pb-c.h"

#include <errno.h>

/* The generated struct with its list, twice for a list that comes in pieces; unknown fields too. */
enum { BUDGET_BYTES = 4096 + 8 * LINK_BULK_HEAD_BYTES, LENGTH_BYTES = 2 };

size_t link_bulk_encode(const struct link_bulk *b, uint8_t out[LINK_BULK_HEAD_BYTES])
{
    Mochila__LinkBulk m = MOCHILA__LINK_BULK__INIT;
    uint32_t bytes[LINK_BULK_PARTS];

    MUST(b->count <= LINK_BULK_PARTS);
    MUST(b->from_slot < LIMIT_WORKERS);
    MUST(b->to_slot < LIMIT_WORKERS);
    m.has_begin = b->begin != 0;
    m.begin = b->begin;
    if (b->count > 0) {
        m.has_wave = m.has_from_slot = m.has_to_slot = 1;
        m.wave = b->wave;
        m.from_slot = b->from_slot;
        m.to_slot = b->to_slot;
        memcpy(bytes, b->bytes, b->count * sizeof bytes[0]);
        m.n_part_bytes = b->count;
        m.part_bytes = bytes;
    }
    size_t n = mochila__link_bulk__get_packed_size(&m);
    MUST(n + LENGTH_BYTES <= LINK_BULK_HEAD_BYTES);
    struct writer w = writer_of(out, LENGTH_BYTES);
    put_u16(&w, (uint16_t)n);
    size_t packed = mochila__link_bulk__pack(&m, out + LENGTH_BYTES);
    MUST(packed == n);
    return n + LENGTH_BYTES;
}

static int take(const Mochila__LinkBulk *m, size_t tail, struct link_bulk *out)
{
    size_t sum = 0;
    *out = (struct link_bulk){.begin = m->begin,
                              .wave = m->wave,
                              .from_slot = m->from_slot,
                              .to_slot = m->to_slot,
                              .count = (uint32_t)m->n_part_bytes};
    if (m->n_part_bytes > LINK_BULK_PARTS || m->from_slot >= LIMIT_WORKERS ||
        m->to_slot >= LIMIT_WORKERS)
        return -EBADMSG;
    for (uint32_t i = 0; i < out->count; i++) {
        out->bytes[i] = m->part_bytes[i];
        if (out->bytes[i] == 0 || out->bytes[i] > LIMIT_CARRIER_PAYLOAD_BYTES)
            return -EBADMSG;
        sum += out->bytes[i];
    }
    return sum == tail && (out->count == 0 || out->wave != 0) ? 0 : -EBADMSG;
}

int link_bulk_decode(struct span payload, struct link_bulk *out, struct span *parts)
{
    struct cursor c = cursor_of(payload);
    struct span head = cursor_bytes(&c, cursor_u16(&c));
    if (c.bad || head.n > LINK_BULK_HEAD_BYTES - LENGTH_BYTES)
        return -EBADMSG;
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__LinkBulk *m = mochila__link_bulk__unpack(&allocator, head.n, head.p);
    if (m == NULL)
        return -EBADMSG;
    *parts = span_of(c.p, cursor_left(&c));
    int r = take(m, parts->n, out);
    mochila__link_bulk__free_unpacked(m, &allocator);
    return r;
}
