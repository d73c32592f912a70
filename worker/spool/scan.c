/*
 * scan - from one segment file to its records.
 *
 * A sealed segment with a whole footer is read from its footer. Every other one is scanned, batch
 * by batch, by this table. Only one commit is ever in flight, so the head of a later batch proves
 * that everything before it was acknowledged: what cannot be read there is damage and is reported.
 * What follows the last readable batch was never acknowledged: a torn tail, left without a word. A
 * younger segment proves the same for an older one, since its header says with which sequence it
 * began; numbers from there on in the older one belong to a commit that failed, and are not part of
 * the log.
 *
 *   head here  its sequence           its records  later known  -> action
 *   ---------  ---------------------  -----------  -----------  --------------------------------
 *   none       -                      (prefix)     no           end: torn tail; the whole records
 *                                                               at its start count
 *   none       -                      (prefix)     yes          salvage up to there, report
 *   ok         of a younger segment   -            -            end: never acknowledged
 *   ok         behind what was read   -            -            skip, report
 *   ok         next                   whole        -            next batch
 *   ok         next                   broken       no           end: torn tail, as above
 *   ok         next                   broken       yes          salvage, report
 *   ok         ahead: numbers missing whole        -            report, next batch
 *   ok         ahead                  broken       no           report, end
 *   ok         ahead                  broken       yes          salvage, report
 *
 * Of a torn tail only the unbroken prefix counts: any prefix of the log is a state that the shard
 * was in, while a copied message whose body is torn away behind it would take the place of the
 * whole one. Salvage takes every record that proves itself: meta whole and contents broken is
 * passed on with empty contents, so that the message is known and parked when it is read.
 *
 * Heads are believed only with the shard's secret in them: bodies hold whatever a sender likes, at
 * any offset. Nothing is appended to a segment after a restart; it is sealed in the background if
 * it was scanned without damage.
 */
#include "worker/spool/scan.h"

#include "base/crc.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum { WHY_BYTES = 96 };

struct scan_verdict scan_decide(enum scan_head head, enum scan_order order, enum scan_body body,
                                enum scan_proof proof)
{
    /* clang-format off */
    static const struct scan_verdict without_head[2] = {
        [PROOF_NONE]  = {ACTION_END,     false},
        [PROOF_LATER] = {ACTION_SALVAGE, true},
    };
    static const struct scan_verdict table[4][2][2] = {
        /* broken without proof, broken with proof; whole without, whole with */
        [ORDER_BEYOND] = {{{ACTION_END,  false}, {ACTION_END,     false}},
                          {{ACTION_END,  false}, {ACTION_END,  false}}},
        [ORDER_BEHIND] = {{{ACTION_SKIP, true},  {ACTION_SKIP,    true}},
                          {{ACTION_SKIP, true},  {ACTION_SKIP, true}}},
        [ORDER_NEXT]   = {{{ACTION_END,  false}, {ACTION_SALVAGE, true}},
                          {{ACTION_NEXT, false}, {ACTION_NEXT, false}}},
        [ORDER_AHEAD]  = {{{ACTION_END,  true},  {ACTION_SALVAGE, true}},
                          {{ACTION_NEXT, true},  {ACTION_NEXT, true}}},
    };
    /* clang-format on */
    return head == HEAD_NONE ? without_head[proof] : table[order][body][proof];
}

/* --- reading --- */

/* A range that the disk refuses is read block by block, zeroes for what cannot be had. */
static uint64_t read_blocks(struct scan *c, uint64_t at)
{
    uint64_t n = 0;
    while (n < c->buf_room && at + n < c->seg->bytes) {
        ssize_t r = disk_pread(c->seg->file, c->buf + n, LIMIT_BLOCK_BYTES, at + n);
        if (r < LIMIT_BLOCK_BYTES)
            memset(c->buf + n + (r > 0 ? r : 0), 0, (size_t)(LIMIT_BLOCK_BYTES - (r > 0 ? r : 0)));
        n += LIMIT_BLOCK_BYTES;
    }
    return n;
}

/* The bytes of the segment from `at`, at most n; fewer at its end. */
struct span scan_window(struct scan *c, uint64_t at, uint64_t n)
{
    uint64_t end = c->seg->bytes;
    MUST(n <= LIMIT_BATCH_BYTES);
    if (at >= end)
        return span_of(NULL, 0);
    if (n > end - at)
        n = end - at;
    if (at < c->buf_at || at + n > c->buf_at + c->buf_n) {
        c->buf_at = at / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
        ssize_t r = disk_pread(c->seg->file, c->buf, c->buf_room, c->buf_at);
        c->buf_n = r >= 0 ? (uint64_t)r : read_blocks(c, c->buf_at);
        if (at >= c->buf_at + c->buf_n)
            return span_of(NULL, 0);
        if (at + n > c->buf_at + c->buf_n)
            n = c->buf_at + c->buf_n - at;
    }
    return span_of(c->buf + (at - c->buf_at), n);
}

/* A batch head in `block`, which was read from `seg`; `shard` 0 = any. */
bool scan_batch_head(const struct spool *s, const struct segment *seg, struct span block,
                     struct batch_head *out, uint64_t *shard)
{
    struct record_head h;
    if (record_head_read(block, &h) < 0 || h.type != RECORD_BATCH || h.segment != seg->id ||
        h.meta_bytes != BATCH_HEAD_BYTES || h.bytes != BATCH_HEAD_BYTES || !record_meta_ok(block))
        return false;
    struct cursor c = cursor_of(span_of(block.p + RECORD_HEAD_BYTES, BATCH_META_BYTES));
    uint64_t of = cursor_u64(&c);
    out->first = h.sequence;
    out->bytes = cursor_u32(&c);
    out->records = cursor_u32(&c);
    if (shard != NULL)
        *shard = of;
    else if (of != s->shard || h.salt != s->salt)
        return false;
    return out->first > 0 && out->records > 0 && out->bytes % LIMIT_BLOCK_BYTES == 0 &&
           out->bytes > 0 && out->bytes <= LIMIT_BATCH_BYTES;
}

bool scan_batch_head_at(struct scan *c, uint64_t at, struct batch_head *out)
{
    return scan_batch_head(c->s, c->seg, scan_window(c, at, LIMIT_BLOCK_BYTES), out, NULL);
}

/* --- what is found --- */

static void report(struct scan *c, uint64_t at, uint64_t n, const char *why)
{
    struct record_place where = {c->seg->id, (uint32_t)at, (uint32_t)n};
    log_warn("spool damage segment=%" PRIu64 " offset=%" PRIu64 " bytes=%" PRIu64 " why=\"%s\"",
             c->seg->id, at, n, why);
    c->damaged++;
    c->s->facts.damaged_ranges++;
    c->s->owner.damage(c->s->owner.ctx, &where, why);
}

static void count(struct spool *s, struct segment *seg, const struct record_head *h)
{
    seg->record_bytes += pad8(h->bytes);
    s->record_bytes += pad8(h->bytes);
    if (!record_is_snapshot(h->type))
        seg->lasting++;
    s->facts.recovered_records++;
}

/* Passes a record on, with or without its contents, and keeps it for the footer. */
static void deliver(struct scan *c, const struct record_head *h, uint64_t at, struct span record,
                    bool with_rest)
{
    struct record_view v = {
        .head = *h,
        .place = {c->seg->id, (uint32_t)at, h->bytes},
        .meta = span_of(record.p + RECORD_HEAD_BYTES, h->meta_bytes - RECORD_HEAD_BYTES),
    };
    if (with_rest)
        v.rest = span_of(record.p + h->meta_bytes, h->bytes - h->meta_bytes);
    c->expected = h->sequence + 1;
    c->applied_end = at + pad8(h->bytes);
    count(c->s, c->seg, h);
    footer_add(c->s, c->seg, (uint32_t)at, span_of(record.p, h->meta_bytes));
    c->s->owner.apply(c->s->owner.ctx, &v);
}

/* A record of this segment whose meta proves itself; *record spans what is there of it, up to
 * `end`. */
static bool record_at(struct scan *c, uint64_t at, uint64_t end, struct record_head *h,
                      struct span *record)
{
    if (at + RECORD_HEAD_BYTES > end ||
        record_head_read(scan_window(c, at, RECORD_HEAD_BYTES), h) < 0 ||
        !record_is_ours(c->s, c->seg, h) || h->type == RECORD_BATCH || h->type == RECORD_INDEX ||
        h->bytes > end - at)
        return false;
    *record = scan_window(c, at, h->bytes);
    return record->n >= h->meta_bytes && record_meta_ok(*record);
}

/*
 * Delivers the records from `at` on that are whole and without a gap: at most `max`, ending by
 * `end` and below the limit. Returns how many.
 */
static uint32_t apply_prefix(struct scan *c, uint64_t at, uint64_t end, uint32_t max)
{
    uint32_t n = 0;
    struct record_head h;
    struct span record;
    while (n < max && record_at(c, at, end, &h, &record)) {
        if (h.sequence != c->expected || h.sequence >= c->limit || !record_rest_ok(record))
            break;
        deliver(c, &h, at, record, true);
        at += pad8(h.bytes);
        n++;
    }
    return n;
}

/* Delivers every record between two places that proves itself, in order, with sequences below
 * `bound`. */
static uint32_t salvage(struct scan *c, uint64_t at, uint64_t end, uint64_t bound)
{
    uint32_t n = 0;
    struct record_head h;
    struct span record;
    while (at + RECORD_HEAD_BYTES <= end) {
        if (!record_at(c, at, end, &h, &record) || h.sequence < c->expected ||
            h.sequence >= bound) {
            at += 8;
            continue;
        }
        bool whole = record_rest_ok(record);
        if (!whole)
            report(c, at, h.bytes, "the contents of a record are damaged, its meta is whole");
        deliver(c, &h, at, record, whole);
        at += pad8(h.bytes);
        n++;
    }
    return n;
}

/* --- one step of the table --- */

/* Is something known to have been acknowledged behind `from`? Where, and with which sequence it
 * goes on. */
static enum scan_proof find_later(struct scan *c, uint64_t from, uint64_t *at, uint64_t *first)
{
    struct batch_head b;
    for (uint64_t p = from; p + LIMIT_BLOCK_BYTES <= c->seg->bytes; p += LIMIT_BLOCK_BYTES) {
        if (scan_batch_head_at(c, p, &b) && b.first >= c->expected && b.first < c->limit) {
            *at = p;
            *first = b.first;
            return PROOF_LATER;
        }
    }
    *at = c->seg->bytes;
    *first = c->limit;
    return c->limit_proves && c->expected != 0 && c->expected < c->limit ? PROOF_LATER : PROOF_NONE;
}

static enum scan_order order_of(const struct scan *c, uint64_t first)
{
    if (first >= c->limit)
        return ORDER_BEYOND;
    if (c->expected == 0 || first == c->expected)
        return ORDER_NEXT;
    return first < c->expected ? ORDER_BEHIND : ORDER_AHEAD;
}

/* What one block position turned out to be. */
struct finding {
    struct batch_head batch;
    enum scan_head head;
    enum scan_order order;
    enum scan_body body;
    enum scan_proof proof;
    uint64_t missing;            /* sequence numbers between what was read and this batch */
    uint64_t from;               /* end of the records delivered, or the block itself */
    uint64_t later, later_first; /* with PROOF_LATER */
};

/* Classifies the block at c->at and delivers the whole records at its start. */
static struct finding examine(struct scan *c)
{
    struct finding f = {.order = ORDER_NEXT, .from = c->at};
    uint64_t end = c->at + LIMIT_BATCH_BYTES;
    uint32_t max = UINT32_MAX;
    if (scan_batch_head_at(c, c->at, &f.batch)) {
        f.head = HEAD_OK;
        f.order = order_of(c, f.batch.first);
        end = c->at + f.batch.bytes;
        max = f.batch.records;
    }
    if (f.order == ORDER_BEYOND || f.order == ORDER_BEHIND)
        return f;
    if (f.order == ORDER_AHEAD)
        f.missing = f.batch.first - c->expected;
    if (f.head == HEAD_OK)
        c->expected = f.batch.first;
    if (end > c->seg->bytes)
        end = c->seg->bytes;
    uint32_t n = apply_prefix(c, c->at + BATCH_HEAD_BYTES, end, max);
    if (n > 0)
        f.from = c->applied_end;
    f.body = f.head == HEAD_OK && n == max ? BODY_WHOLE : BODY_BROKEN;
    if (f.body == BODY_BROKEN && c->expected < c->limit) {
        uint64_t next = n > 0 ? pad_block((uint32_t)f.from) : c->at + LIMIT_BLOCK_BYTES;
        f.proof = find_later(c, next, &f.later, &f.later_first);
    }
    return f;
}

/* What lies between the last record delivered and the next batch that is known: saved where it
 * proves itself, and reported. */
static void salvage_up_to(struct scan *c, const struct finding *f)
{
    char why[WHY_BYTES];
    uint64_t missing = c->expected == 0 ? 0 : f->later_first - c->expected;
    uint32_t saved = salvage(c, f->from, f->later, f->later_first);
    (void)snprintf(why, sizeof why, "damaged: %" PRIu64 " records lost, %u saved",
                   missing > saved ? missing - saved : 0, saved);
    report(c, f->from, f->later - f->from, why);
    c->expected = f->later_first;
    c->at = f->later;
}

/*
 * How much of this segment lies in the torn tail: what its head promised and is not there, or,
 * without a head, up to the last record head that carries the segment's id.
 */
static uint64_t torn_bytes(struct scan *c, const struct finding *f)
{
    if (f->head == HEAD_OK)
        return c->at + f->batch.bytes - f->from;
    uint64_t end = f->from, stop = f->from + LIMIT_BATCH_BYTES;
    for (uint64_t at = f->from; at + RECORD_HEAD_BYTES <= c->seg->bytes && at < stop; at += 8) {
        struct record_head h;
        if (record_head_read(scan_window(c, at, RECORD_HEAD_BYTES), &h) == 0 &&
            record_is_ours(c->s, c->seg, &h) && h.type != RECORD_INDEX)
            end = at + h.bytes < c->seg->bytes ? at + h.bytes : c->seg->bytes;
    }
    return end - f->from +
           (f->from > c->at ? BATCH_HEAD_BYTES : 0); /* whole records, but their head is gone */
}

/* Does what the table says; true while the scan goes on. */
static bool step(struct scan *c)
{
    struct finding f = examine(c);
    struct scan_verdict v = scan_decide(f.head, f.order, f.body, f.proof);
    if (v.report && f.order == ORDER_BEHIND)
        report(c, c->at, f.batch.bytes, "a batch with old sequence numbers");
    if (v.report && f.missing > 0)
        report(c, c->at, f.batch.bytes, "records are missing before this batch");
    switch (v.action) {
    case ACTION_NEXT:
        c->batches++;
        c->at += f.batch.bytes;
        return c->expected < c->limit; /* at the limit all that belongs here was found */
    case ACTION_SKIP:
        c->at += f.batch.bytes;
        return true;
    case ACTION_SALVAGE:
        c->batches++;
        salvage_up_to(c, &f);
        return true;
    case ACTION_END:
        break;
    }
    if (f.order != ORDER_BEYOND)
        c->s->facts.torn_tail_bytes += torn_bytes(c, &f);
    return false;
}

/* --- one segment --- */

/* A scanned segment gets its footer in the background when it is undamaged and there is room behind
 * its log. */
static void finish_scan(struct scan *c)
{
    struct segment *seg = c->seg;
    uint64_t end = c->applied_end == 0 ? 0 : pad_block((uint32_t)c->applied_end);
    seg->end = (uint32_t)end;
    seg->durable_end = seg->end;
    seg->next_sequence = c->expected;
    bool room = end + pad_block(seg->footer.bytes) + SEGMENT_TRAILER_BYTES <= seg->bytes &&
                seg->bytes % LIMIT_BLOCK_BYTES == 0;
    if (seg->footer.records > 0 && c->damaged == 0 && room)
        segment_state_set(c->s, seg, SEGMENT_FILLED);
    else
        footer_drop(c->s, seg);
}

void scan_log(struct scan *c)
{
    struct segment *seg = c->seg;
    bool header = seg->first_sequence != 0;
    c->at = SEGMENT_HEADER_BYTES;
    c->applied_end = 0;
    c->expected = header ? seg->first_sequence : c->previous;
    c->batches = 0;
    c->damaged = 0;
    c->buf_n = 0;
    while (c->at < seg->bytes && step(c))
        continue;
    if (c->at >= seg->bytes && c->limit_proves && c->expected != 0 && c->expected < c->limit)
        report(c, seg->bytes, 0, "the file is too short: records are missing at its end");
    /* The header is written with the first batch: without a second one it may have been torn. */
    if (!header && c->batches > 1)
        report(c, 0, SEGMENT_HEADER_BYTES, "the segment's header is damaged");
    finish_scan(c);
}

/* Delivers the records of a footer that passed its checksum. */
static void deliver_footer(struct scan *c, struct span footer)
{
    struct footer_entry e;
    struct spool *s = c->s;
    int r;
    while ((r = footer_next(&footer, &e)) == 0) {
        if (!record_is_ours(s, c->seg, &e.head) || e.head.type == RECORD_BATCH ||
            e.head.type == RECORD_INDEX || e.offset % 8 != 0 || e.head.bytes > c->seg->end ||
            e.offset > c->seg->end - e.head.bytes) {
            r = -EBADMSG;
            break;
        }
        struct record_view v = {
            .head = e.head, .place = {c->seg->id, e.offset, e.head.bytes}, .meta = e.meta};
        count(s, c->seg, &e.head);
        s->owner.apply(s->owner.ctx, &v);
    }
    if (r != -ENOENT) /* a checksum over nonsense: written so by a bug */
        report(c, c->seg->footer_at, c->seg->footer_bytes, "the footer is not what it says");
}

/* 0 when the segment was recovered from its footer; otherwise it is to be scanned. */
int scan_index(struct scan *c)
{
    struct segment *seg = c->seg;
    struct trailer t;
    if (seg->bytes % LIMIT_BLOCK_BYTES != 0 || seg->bytes < 2 * LIMIT_BLOCK_BYTES)
        return -EBADMSG;
    uint64_t trailer_at = seg->bytes - SEGMENT_TRAILER_BYTES;
    c->buf_n = 0;
    if (trailer_read(scan_window(c, trailer_at, SEGMENT_TRAILER_BYTES), seg->id, &t) < 0 ||
        t.shard != c->s->shard || t.footer_at > trailer_at ||
        t.footer_bytes > trailer_at - t.footer_at)
        return -EBADMSG;
    uint32_t n = pad_block(t.footer_bytes);
    uint8_t *buf = disk_alloc(c->s->disk, n);
    if (buf == NULL)
        return -ENOMEM;
    int r = -EBADMSG;
    if (disk_pread(seg->file, buf, n, t.footer_at) == (ssize_t)n &&
        crc32c(0, span_of(buf, t.footer_bytes)) == t.footer_crc) {
        seg->first_sequence = t.first_sequence;
        seg->next_sequence = t.next_sequence;
        seg->end = seg->durable_end = t.log_end;
        seg->footer_at = t.footer_at;
        seg->footer_bytes = t.footer_bytes;
        segment_state_set(c->s, seg, SEGMENT_SEALED);
        deliver_footer(c, span_of(buf, t.footer_bytes));
        c->s->facts.indexed_segments++;
        r = 0;
    }
    disk_free(c->s->disk, buf, n);
    return r;
}
