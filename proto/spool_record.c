/*
 * spool_record - encoding and checking of log records; see spool_record.h.
 *
 * The head, little-endian:
 *    0 u32 meta_crc   CRC32C of everything from offset 4 to meta_bytes: it covers rest_crc as well
 *    4 u32 rest_crc   CRC32C of the bytes from meta_bytes to bytes
 *    8 u16 magic
 *   10 u8  type
 *   11 u8  flags
 *   12 u32 bytes
 *   16 u32 meta_bytes
 *   20 u32 lane
 *   24 u32 epoch
 *   28 u32 salt      secret of the shard; recovery that looks for records in damaged bytes insists
 * on it 32 u64 position 40 u64 segment 48 u64 sequence
 *
 * Readers insist: the whole meta is used up, counts agree with what follows, enums are in range. A
 * meta that passes its checksum and fails here was written by a bug or by a newer version: -EBADMSG
 * in both cases. A reason that is not known is none: it decides nothing.
 */
#include "proto/spool_record.h"

#include "base/crc.h"
#include "proto/classify.h"
#include "proto/control.h"

#include <errno.h>

enum { HEAD_MAGIC = 0x6d72, META_CRC_AT = 0, REST_CRC_AT = 4, META_CRC_FROM = 4, MAGIC_AT = 8 };

static_assert(RECORD_HEAD_BYTES == 56, "the layout above");
static_assert(RECORD_HEAD_BYTES % 8 == 0, "records begin at multiples of 8");
static_assert(RECORD_TYPE_COUNT <= UINT8_MAX, "a type is one byte");

static uint32_t read_u32(const uint8_t *p)
{
    struct cursor c = cursor_of(span_of(p, 4));
    return cursor_u32(&c);
}

void record_head_write(uint8_t out[RECORD_HEAD_BYTES], const struct record_head *h,
                       struct span meta, const struct span *rest, unsigned rest_count)
{
    uint32_t rest_crc = 0;
    size_t rest_bytes = 0;
    for (unsigned i = 0; i < rest_count; i++) {
        rest_crc = crc32c(rest_crc, rest[i]);
        rest_bytes += rest[i].n;
    }
    MUST(h->type > 0);
    MUST(h->type < RECORD_TYPE_COUNT);
    MUST(h->meta_bytes == RECORD_HEAD_BYTES + meta.n);
    MUST(h->bytes == h->meta_bytes + rest_bytes);
    MUST(h->bytes <= LIMIT_RECORD_BYTES);

    struct writer w = writer_of(out, RECORD_HEAD_BYTES);
    put_u32(&w, 0);
    put_u32(&w, rest_crc);
    put_u16(&w, HEAD_MAGIC);
    put_u8(&w, h->type);
    put_u8(&w, h->flags);
    put_u32(&w, h->bytes);
    put_u32(&w, h->meta_bytes);
    put_u32(&w, h->lane);
    put_u32(&w, h->epoch);
    put_u32(&w, h->salt);
    put_u64(&w, h->position);
    put_u64(&w, h->segment);
    put_u64(&w, h->sequence);
    MUST(!w.bad);
    MUST(w.n == RECORD_HEAD_BYTES);

    uint32_t crc = crc32c(0, span_of(out + META_CRC_FROM, RECORD_HEAD_BYTES - META_CRC_FROM));
    crc = crc32c(crc, meta);
    w = writer_of(out + META_CRC_AT, 4);
    put_u32(&w, crc);
}

int record_head_read(struct span in, struct record_head *out)
{
    /* First of all, and cheaply: recovery asks this at every eighth byte of what is damaged. */
    if (in.n < RECORD_HEAD_BYTES || in.p[MAGIC_AT] != (HEAD_MAGIC & 0xff) ||
        in.p[MAGIC_AT + 1] != HEAD_MAGIC >> 8)
        return -EBADMSG;
    struct cursor c = cursor_of(span_of(in.p + MAGIC_AT + 2, RECORD_HEAD_BYTES - MAGIC_AT - 2));
    out->type = cursor_u8(&c);
    out->flags = cursor_u8(&c);
    out->bytes = cursor_u32(&c);
    out->meta_bytes = cursor_u32(&c);
    out->lane = cursor_u32(&c);
    out->epoch = cursor_u32(&c);
    out->salt = cursor_u32(&c);
    out->position = cursor_u64(&c);
    out->segment = cursor_u64(&c);
    out->sequence = cursor_u64(&c);
    MUST(!c.bad);
    if (out->type == 0 || out->type >= RECORD_TYPE_COUNT)
        return -EBADMSG;
    if (out->meta_bytes < RECORD_HEAD_BYTES || out->meta_bytes > out->bytes ||
        out->bytes > LIMIT_RECORD_BYTES)
        return -EBADMSG;
    return 0;
}

bool record_meta_ok(struct span in)
{
    struct record_head h;
    if (record_head_read(in, &h) < 0 || in.n < h.meta_bytes)
        return false;
    return crc32c(0, span_of(in.p + META_CRC_FROM, h.meta_bytes - META_CRC_FROM)) ==
           read_u32(in.p + META_CRC_AT);
}

bool record_rest_ok(struct span in)
{
    struct record_head h;
    if (record_head_read(in, &h) < 0 || in.n < h.bytes)
        return false;
    return crc32c(0, span_of(in.p + h.meta_bytes, h.bytes - h.meta_bytes)) ==
           read_u32(in.p + REST_CRC_AT);
}

/* An address in 1, 5 or 17 bytes: length 0 (none), 4 or 16, then that many bytes. */
static void put_ip(struct writer *w, const struct ip *a)
{
    static const struct ip none;
    if (ip_eq(a, &none))
        put_u8(w, 0);
    else if (ip_is_v4(a))
        put_str8(w, span_of(a->b + 12, 4));
    else
        put_str8(w, span_of(a->b, sizeof a->b));
}

static struct ip cursor_ip(struct cursor *c)
{
    struct ip a = {.b = {0}};
    struct span s = cursor_str8(c);
    if (s.n == 4) {
        a.b[10] = a.b[11] = 0xff;
        memcpy(a.b + 12, s.p, 4);
    } else if (s.n == sizeof a.b) {
        memcpy(a.b, s.p, sizeof a.b);
    } else if (s.n != 0) {
        c->bad = true;
    }
    return a;
}

/* --- ENQ --- */

enum {
    ENQ_FLAGS_KNOWN = ENQ_8BIT | ENQ_UTF8_ENVELOPE | ENQ_UTF8_HEADER | ENQ_LONG_LINES | ENQ_COPY |
                      ENQ_BODY_8BITMIME | ENQ_TAKEN_OVER,
    RCPT_OPEN_BIT = 128
};
static const uint64_t BODY_BYTES_MAX = (uint64_t)LIMIT_BODY_CHUNKS * LIMIT_BODY_CHUNK_BYTES;

void enq_put(struct writer *w, const struct enq *e)
{
    MUST(e->rcpt_count >= 1);
    MUST(e->rcpt_count <= LIMIT_RECIPIENTS);
    MUST(e->chunk_count <= LIMIT_BODY_CHUNKS);
    MUST(e->dots <= e->body_bytes);
    put_id(w, e->id);
    put_u64(w, e->received_unix_ms);
    put_u32(w, e->lifetime_s);
    put_u8(w, e->class_);
    put_u16(w, e->flags);
    put_u32(w, e->dots);
    put_u64(w, e->body_bytes);
    put_u32(w, e->trace_bytes);
    put_ip(w, &e->client);
    put_str8(w, e->tenant);
    put_str16(w, e->helo);
    put_str16(w, e->sender);
    put_str16(w, e->envid);
    put_str8(w, e->ret);
    put_u16(w, e->rcpt_count);
    put_u16(w, e->chunk_count);
    MUST(e->handed_by.n <= LIMIT_NAME_BYTES);
    put_str8(w, e->handed_by);
}

void enq_put_rcpt(struct writer *w, const struct enq_rcpt *r)
{
    MUST(r->state < RCPT_STATE_COUNT);
    put_u16(w, r->index);
    put_u8(w, (uint8_t)(r->state | (r->open ? RCPT_OPEN_BIT : 0)));
    put_u8(w, r->reason);
    put_u16(w, r->attempts);
    put_u64(w, r->due_unix_s);
    put_str16(w, r->address);
    put_str16(w, r->orcpt);
    put_str8(w, r->notify);
}

void enq_put_chunk(struct writer *w, const struct enq_chunk *c)
{
    MUST(c->place.offset % 8 == 0);
    MUST(c->body_bytes <= c->place.bytes);
    put_u64(w, c->place.segment);
    put_u32(w, c->place.offset);
    put_u32(w, c->place.bytes);
    put_u32(w, c->body_bytes);
}

/* One of a newer release, or of another node, is none: reasons number counters. */
static uint8_t known_reason(uint8_t told)
{
    return told < REASON_COUNT ? told : REASON_NONE;
}

/* One recipient; the cursor is bad when there is none or it breaks a rule. */
static struct enq_rcpt cursor_rcpt(struct cursor *c)
{
    struct enq_rcpt r = {.index = cursor_u16(c)};
    uint8_t state = cursor_u8(c);
    r.state = state & ~RCPT_OPEN_BIT;
    r.open = (state & RCPT_OPEN_BIT) != 0;
    r.reason = known_reason(cursor_u8(c));
    r.attempts = cursor_u16(c);
    r.due_unix_s = cursor_u64(c);
    r.address = cursor_str16(c);
    r.orcpt = cursor_str16(c);
    r.notify = cursor_str8(c);
    if (r.state >= RCPT_STATE_COUNT)
        c->bad = true;
    return r;
}

static struct enq_chunk cursor_chunk(struct cursor *c)
{
    struct enq_chunk k = {.place.segment = cursor_u64(c)};
    k.place.offset = cursor_u32(c);
    k.place.bytes = cursor_u32(c);
    k.body_bytes = cursor_u32(c);
    if (k.place.offset % 8 != 0 || k.place.bytes > LIMIT_RECORD_BYTES ||
        k.body_bytes > k.place.bytes)
        c->bad = true;
    return k;
}

/* Walks recipients and chunks once and leaves their spans in `e`. */
static int read_lists(struct cursor *c, struct enq *e)
{
    const uint8_t *from = c->p;
    for (unsigned i = 0; i < e->rcpt_count && !c->bad; i++)
        cursor_rcpt(c);
    e->rcpts = span_of(from, (size_t)(c->p - from));
    from = c->p;
    uint64_t chunk_sum = 0;
    for (unsigned i = 0; i < e->chunk_count && !c->bad; i++)
        chunk_sum += cursor_chunk(c).body_bytes;
    e->chunks = span_of(from, (size_t)(c->p - from));
    if (c->bad || cursor_left(c) != 0)
        return -EBADMSG;
    if (e->chunk_count > 0 && chunk_sum != e->body_bytes)
        return -EBADMSG;
    return 0;
}

int enq_read(struct span meta, struct enq *out)
{
    struct cursor c = cursor_of(meta);
    out->id = cursor_id(&c);
    out->received_unix_ms = cursor_u64(&c);
    out->lifetime_s = cursor_u32(&c);
    out->class_ = cursor_u8(&c);
    out->flags = cursor_u16(&c);
    out->dots = cursor_u32(&c);
    out->body_bytes = cursor_u64(&c);
    out->trace_bytes = cursor_u32(&c);
    out->client = cursor_ip(&c);
    out->tenant = cursor_str8(&c);
    out->helo = cursor_str16(&c);
    out->sender = cursor_str16(&c);
    out->envid = cursor_str16(&c);
    out->ret = cursor_str8(&c);
    out->rcpt_count = cursor_u16(&c);
    out->chunk_count = cursor_u16(&c);
    out->handed_by = cursor_str8(&c);
    if (c.bad || out->handed_by.n > LIMIT_NAME_BYTES || out->class_ > 1 ||
        (out->flags & ~ENQ_FLAGS_KNOWN) != 0)
        return -EBADMSG;
    if (out->rcpt_count == 0 || out->rcpt_count > LIMIT_RECIPIENTS ||
        out->chunk_count > LIMIT_BODY_CHUNKS || out->dots > out->body_bytes ||
        out->body_bytes > BODY_BYTES_MAX)
        return -EBADMSG;
    return read_lists(&c, out);
}

/* --- an ENQ that another node wrote --- */

/* As a command of ours may carry it: the parser of addresses takes nothing else either. */
static bool is_address(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    }
    return s.n <= LIMIT_ADDRESS_BYTES;
}

/* Marks, or wipes the marks of, the indices of the recipients: false when one comes twice. */
static bool mark_indices(struct span rcpts, uint8_t *seen, bool set)
{
    struct enq_rcpt r;
    bool once = true;
    while (enq_rcpt_next(&rcpts, &r)) {
        uint8_t bit = (uint8_t)(1u << (r.index % 8));
        once = once && (seen[r.index / 8] & bit) == 0;
        if (set)
            seen[r.index / 8] |= bit;
        else
            seen[r.index / 8] = 0;
    }
    return once;
}

bool enq_is_sound(const struct enq *e, uint64_t rest_bytes)
{
    static uint8_t seen[(UINT16_MAX + 1) / 8]; /* all 0 between calls */
    struct span rcpts = e->rcpts;
    struct enq_rcpt r;
    uint64_t in_rest = e->trace_bytes + (e->chunk_count == 0 ? e->body_bytes : 0);
    bool sound = !id_is_none(e->id) && rest_bytes == in_rest && is_address(e->sender);
    while (sound && enq_rcpt_next(&rcpts, &r))
        sound = r.address.n > 0 && is_address(r.address);
    sound = mark_indices(e->rcpts, seen, true) && sound;
    (void)mark_indices(e->rcpts, seen, false);
    return sound;
}

bool enq_rcpt_next(struct span *rcpts, struct enq_rcpt *out)
{
    if (rcpts->n == 0)
        return false;
    struct cursor c = cursor_of(*rcpts);
    *out = cursor_rcpt(&c);
    MUST(!c.bad); /* enq_read has walked the same bytes */
    *rcpts = span_of(c.p, cursor_left(&c));
    return true;
}

bool enq_chunk_next(struct span *chunks, struct enq_chunk *out)
{
    if (chunks->n == 0)
        return false;
    struct cursor c = cursor_of(*chunks);
    *out = cursor_chunk(&c);
    MUST(!c.bad);
    *chunks = span_of(c.p, cursor_left(&c));
    return true;
}

/* --- BODY --- */

void body_put(struct writer *w, struct msg_id id, uint32_t ordinal)
{
    MUST(ordinal < LIMIT_BODY_CHUNKS);
    put_id(w, id);
    put_u32(w, ordinal);
}

int body_read(struct span meta, struct msg_id *id, uint32_t *ordinal)
{
    struct cursor c = cursor_of(meta);
    *id = cursor_id(&c);
    *ordinal = cursor_u32(&c);
    if (c.bad || cursor_left(&c) != 0 || *ordinal >= LIMIT_BODY_CHUNKS)
        return -EBADMSG;
    return 0;
}

/* --- DOT, DONE, DEFER --- */

void outcome_put(struct writer *w, const struct outcome *o)
{
    MUST(o->fate < FATE_COUNT);
    MUST(o->count <= LIMIT_RECIPIENTS);
    MUST(o->indices.n == (size_t)o->count * 2);
    put_id(w, o->id);
    put_u8(w, o->fate);
    put_u8(w, o->reason);
    put_u8(w, o->bounce_due ? 1 : 0);
    put_u16(w, o->attempts);
    put_u64(w, o->at_unix_ms);
    put_u64(w, o->due_unix_s);
    put_ip(w, &o->local);
    put_ip(w, &o->remote);
    put_str8(w, o->remote_name);
    put_u16(w, o->count);
    put_bytes(w, o->indices);
}

int outcome_read(struct span meta, struct outcome *out)
{
    struct cursor c = cursor_of(meta);
    *out = (struct outcome){.id = cursor_id(&c)};
    out->fate = cursor_u8(&c);
    out->reason = known_reason(cursor_u8(&c));
    uint8_t bounce_due = cursor_u8(&c);
    out->bounce_due = bounce_due == 1;
    out->attempts = cursor_u16(&c);
    out->at_unix_ms = cursor_u64(&c);
    out->due_unix_s = cursor_u64(&c);
    out->local = cursor_ip(&c);
    out->remote = cursor_ip(&c);
    out->remote_name = cursor_str8(&c);
    out->count = cursor_u16(&c);
    out->indices = cursor_bytes(&c, (size_t)out->count * 2);
    if (c.bad || cursor_left(&c) != 0)
        return -EBADMSG;
    if (out->fate >= FATE_COUNT || bounce_due > 1 || out->count > LIMIT_RECIPIENTS)
        return -EBADMSG;
    return 0;
}

/* --- LEDGER and ownership --- */

void ledger_put(struct writer *w, const struct ledger *l)
{
    put_u64(w, l->accepted);
    put_u64(w, l->delivered);
    put_u64(w, l->bounced);
    put_u64(w, l->expired);
    put_u64(w, l->deleted);
    put_u64(w, l->handed_over);
    put_u64(w, l->taken_over);
}

int ledger_read(struct span meta, struct ledger *out)
{
    struct cursor c = cursor_of(meta);
    out->accepted = cursor_u64(&c);
    out->delivered = cursor_u64(&c);
    out->bounced = cursor_u64(&c);
    out->expired = cursor_u64(&c);
    out->deleted = cursor_u64(&c);
    out->handed_over = cursor_u64(&c);
    out->taken_over = cursor_u64(&c);
    return c.bad || cursor_left(&c) != 0 ? -EBADMSG : 0;
}

enum { MARK_SNAPSHOT = 1, MARK_READY = 2, MARK_FLAGS = 3, TAIL_THERE = 1, TAIL_FIRST = 2 };

void lane_mark_put(struct writer *w, const struct lane_mark *m)
{
    MUST(m->role >= 1);
    MUST(m->role < LANE_ROLE_COUNT);
    MUST(m->node.n <= LIMIT_NAME_BYTES);
    put_u8(w, m->role);
    put_u8(w, (uint8_t)((m->snapshot ? MARK_SNAPSHOT : 0) | (m->ready ? MARK_READY : 0)));
    put_u32(w, m->given);
    put_u64(w, m->move);
    put_u64(w, m->count);
    put_str8(w, m->node);
}

int lane_mark_read(struct span meta, struct lane_mark *out)
{
    struct cursor c = cursor_of(meta);
    out->role = cursor_u8(&c);
    uint8_t flags = cursor_u8(&c);
    out->snapshot = (flags & MARK_SNAPSHOT) != 0;
    out->ready = (flags & MARK_READY) != 0;
    out->given = cursor_u32(&c);
    out->move = cursor_u64(&c);
    out->count = cursor_u64(&c);
    out->node = cursor_str8(&c);
    if (c.bad || cursor_left(&c) != 0)
        return -EBADMSG;
    if (out->role == 0 || out->role >= LANE_ROLE_COUNT || (flags & ~MARK_FLAGS) != 0 ||
        out->node.n > LIMIT_NAME_BYTES)
        return -EBADMSG;
    return 0;
}

/* --- TAIL --- */

enum { TAIL_ITEM_BYTES = 18 };

void tail_list_put(struct writer *w, const struct tail_list *t)
{
    MUST(t->count <= TAIL_LIST_ITEMS);
    put_u8(w, (uint8_t)((t->there ? TAIL_THERE : 0) | (t->first ? TAIL_FIRST : 0)));
    put_u16(w, t->count);
}

void tail_put(struct writer *w, struct msg_id id, uint16_t index)
{
    put_id(w, id);
    put_u16(w, index);
}

int tail_list_read(struct span meta, struct tail_list *out)
{
    struct cursor c = cursor_of(meta);
    uint8_t flags = cursor_u8(&c);
    out->there = (flags & TAIL_THERE) != 0;
    out->first = (flags & TAIL_FIRST) != 0;
    out->count = cursor_u16(&c);
    out->items = cursor_bytes(&c, (size_t)out->count * TAIL_ITEM_BYTES);
    if (c.bad || cursor_left(&c) != 0)
        return -EBADMSG;
    if (out->count > TAIL_LIST_ITEMS || (flags & ~(TAIL_THERE | TAIL_FIRST)) != 0)
        return -EBADMSG;
    return 0;
}

bool tail_next(struct span *items, struct msg_id *id, uint16_t *index)
{
    if (items->n < TAIL_ITEM_BYTES)
        return false;
    struct cursor c = cursor_of(*items);
    *id = cursor_id(&c);
    *index = cursor_u16(&c);
    *items = span_of(c.p, cursor_left(&c));
    return true;
}
