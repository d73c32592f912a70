/* Record heads and every kind of meta: any bytes are read or refused, and what was read can be
 * walked. */
#include "proto/spool_record.h"

#include <stdlib.h>

static size_t seen; /* keeps the reads from being optimised away */

static void touch(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        seen += s.p[i];
}

static void read_enq(struct span meta)
{
    struct enq e;
    struct enq_rcpt r;
    struct enq_chunk c;
    unsigned rcpts = 0, chunks = 0;
    if (enq_read(meta, &e) < 0)
        return;
    touch(e.tenant);
    touch(e.helo);
    touch(e.sender);
    touch(e.envid);
    touch(e.ret);
    struct span left = e.rcpts;
    for (; enq_rcpt_next(&left, &r); rcpts++) {
        touch(r.address);
        touch(r.orcpt);
        touch(r.notify);
    }
    left = e.chunks;
    while (enq_chunk_next(&left, &c))
        chunks++;
    MUST(rcpts == e.rcpt_count);
    MUST(chunks == e.chunk_count);
}

static void read_meta(uint8_t type, struct span meta)
{
    struct outcome o;
    struct ledger l;
    struct msg_id id;
    uint32_t ordinal;
    struct lane_mark mark;
    struct tail_list tails;
    uint16_t index;
    if (type == RECORD_ENQ) {
        read_enq(meta);
    } else if (type == RECORD_BODY) {
        seen += (size_t)body_read(meta, &id, &ordinal);
    } else if (type == RECORD_LEDGER) {
        seen += (size_t)ledger_read(meta, &l);
    } else if (type == RECORD_TAIL && tail_list_read(meta, &tails) == 0) {
        while (tail_next(&tails.items, &id, &index))
            seen += index;
    } else if (type == RECORD_OWN || type == RECORD_FROZEN || type == RECORD_GIVEN ||
               (type >= RECORD_READY && type <= RECORD_AWAY)) {
        if (lane_mark_read(meta, &mark) == 0)
            touch(mark.node);
    } else if (outcome_read(meta, &o) == 0) {
        touch(o.remote_name);
        for (unsigned i = 0; i < o.count; i++)
            seen += outcome_index(&o, i);
    }
}

/* The first byte chooses: a whole record, or the meta of one type. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct record_head h;
    if (n == 0)
        return 0;
    struct span in = span_of(data + 1, n - 1);
    if (data[0] >= RECORD_TYPE_COUNT) {
        if (record_head_read(in, &h) == 0 && in.n >= h.meta_bytes) {
            seen += record_meta_ok(in) + record_rest_ok(in);
            read_meta(h.type, span_of(in.p + RECORD_HEAD_BYTES, h.meta_bytes - RECORD_HEAD_BYTES));
        }
        return 0;
    }
    read_meta(data[0], in);
    return 0;
}
