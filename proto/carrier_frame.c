/* carrier_frame - see carrier_frame.h. */
#include "proto/carrier_frame.h"

#include "proto/node_uri.h"

#include <errno.h>

static_assert(CARRIER_HEAD_BYTES == 4 * 4 + LIMIT_NAME_BYTES, "four numbers and a name");

void carrier_head_write(uint8_t out[CARRIER_HEAD_BYTES], const struct carrier_head *h)
{
    struct writer w = writer_of(out, CARRIER_HEAD_BYTES);
    MUST(h->op >= CARRIER_DATA && h->op < CARRIER_OP_COUNT);
    MUST(h->slot < LIMIT_WORKERS);
    put_u32(&w, h->op);
    put_u32(&w, h->slot);
    put_u32(&w, h->bytes);
    put_u32(&w, h->wave);
    put_bytes(&w, span_of(h->node, LIMIT_NAME_BYTES));
    MUST(!w.bad);
}

int carrier_head_read(const uint8_t in[CARRIER_HEAD_BYTES], struct carrier_head *out)
{
    struct cursor c = cursor_of(span_of(in, CARRIER_HEAD_BYTES));
    uint32_t op = cursor_u32(&c);
    *out = (struct carrier_head){.slot = cursor_u32(&c)};
    out->bytes = cursor_u32(&c);
    out->wave = cursor_u32(&c);
    memcpy(out->node, cursor_bytes(&c, LIMIT_NAME_BYTES).p, LIMIT_NAME_BYTES);
    MUST(!c.bad);
    if (op < CARRIER_DATA || op >= CARRIER_OP_COUNT || out->slot >= LIMIT_WORKERS)
        return -EBADMSG;
    out->op = (enum carrier_op)op;
    if (out->bytes > LIMIT_CARRIER_PAYLOAD_BYTES || (out->bytes > 0) != (op == CARRIER_DATA))
        return -EBADMSG;
    size_t n = strlen(out->node);
    for (size_t i = n; i < LIMIT_NAME_BYTES; i++) {
        if (out->node[i] != '\0')
            return -EBADMSG;
    }
    return node_name_ok(span_of(out->node, n)) ? 0 : -EBADMSG;
}
