/*
 * footer - the index of a sealed segment: every record of it without its rest.
 *
 * Built in memory while records are appended, written in pieces once all batches of the segment are
 * durable, then the trailer in the last block, which holds the checksum of the whole footer; so the
 * order of these writes does not matter, and a footer that is not whole is as good as none. They
 * run beside the commits to the next segment.
 *
 * An entry: u32 offset of the record, u32 zero, head and meta, zeroes to a multiple of 8.
 */
#include "worker/spool/spool_impl.h"

#include "base/crc.h"
#include "base/log.h"

#include <errno.h>

enum { TRAILER_META_BYTES = 4 * 8 + 6 * 4 };

/* Small segments get by with less than one commit's worth. */
static uint32_t piece_bytes(const struct segment *seg)
{
    uint32_t whole = pad_block(seg->bytes / FOOTER_SHARE);
    return whole < FOOTER_PIECE_BYTES ? whole : FOOTER_PIECE_BYTES;
}

uint32_t footer_room(const struct segment *seg, uint32_t entry)
{
    uint64_t bytes = (uint64_t)seg->footer.bytes + entry;
    if (seg->footer.dropped || bytes > seg->bytes / FOOTER_SHARE)
        return 0;
    return (uint32_t)bytes;
}

void footer_drop(struct spool *s, struct segment *seg)
{
    struct footer *f = &seg->footer;
    for (unsigned i = 0; i < ARRAY_COUNT(f->pieces) && f->pieces[i] != NULL; i++) {
        disk_free(s->disk, f->pieces[i], piece_bytes(seg));
        f->pieces[i] = NULL;
    }
    f->bytes = 0;
    f->records = 0;
    f->dropped = true;
}

/* Appends bytes over the borders of pieces; false when there is no memory. */
static bool put(struct spool *s, struct segment *seg, struct span b)
{
    struct footer *f = &seg->footer;
    uint32_t piece = piece_bytes(seg);
    while (b.n > 0) {
        uint32_t i = f->bytes / piece, at = f->bytes % piece;
        MUST(i < ARRAY_COUNT(f->pieces));
        if (f->pieces[i] == NULL)
            f->pieces[i] = disk_alloc(s->disk, piece);
        if (f->pieces[i] == NULL)
            return false;
        size_t n = b.n < piece - at ? b.n : piece - at;
        memcpy(f->pieces[i] + at, b.p, n);
        f->bytes += (uint32_t)n;
        b = span_of(b.p + n, b.n - n);
    }
    return true;
}

void footer_add(struct spool *s, struct segment *seg, uint32_t offset, struct span head_and_meta)
{
    static const uint8_t zeroes[8];
    uint8_t prefix[FOOTER_ENTRY_BYTES];
    uint32_t n = (uint32_t)head_and_meta.n;
    if (seg->footer.dropped)
        return;
    if (footer_room(seg, footer_entry_bytes(n)) == 0) {
        footer_drop(s, seg);
        return;
    }
    struct writer w = writer_of(prefix, sizeof prefix);
    put_u32(&w, offset);
    put_u32(&w, 0);
    if (!put(s, seg, span_of(prefix, w.n)) || !put(s, seg, head_and_meta) ||
        !put(s, seg, span_of(zeroes, pad8(n) - n)))
        footer_drop(s, seg);
    else
        seg->footer.records++;
}

static void trailer_write(const struct spool *s, const struct segment *seg, uint8_t *block)
{
    struct record_head h = {.type = RECORD_INDEX,
                            .bytes = RECORD_HEAD_BYTES + TRAILER_META_BYTES,
                            .meta_bytes = RECORD_HEAD_BYTES + TRAILER_META_BYTES,
                            .salt = s->salt,
                            .segment = seg->id,
                            .sequence = seg->first_sequence};
    memset(block, 0, SEGMENT_TRAILER_BYTES);
    struct writer w = writer_of(block + RECORD_HEAD_BYTES, TRAILER_META_BYTES);
    put_u64(&w, s->shard);
    put_u64(&w, seg->first_sequence);
    put_u64(&w, seg->next_sequence);
    put_u64(&w, seg->record_bytes);
    put_u32(&w, seg->end);
    put_u32(&w, seg->end); /* the footer follows the log at once; read apart so that it need not */
    put_u32(&w, seg->footer.bytes);
    put_u32(&w, s->seal.crc);
    put_u32(&w, seg->footer.records);
    put_u32(&w, seg->lasting);
    MUST(!w.bad);
    MUST(w.n == TRAILER_META_BYTES);
    record_head_write(block, &h, span_of(w.p, w.n), NULL, 0);
}

int trailer_read(struct span block, uint64_t segment, struct trailer *out)
{
    struct record_head h;
    if (record_head_read(block, &h) < 0 || h.type != RECORD_INDEX || h.segment != segment ||
        h.meta_bytes != RECORD_HEAD_BYTES + TRAILER_META_BYTES || !record_meta_ok(block))
        return -EBADMSG;
    struct cursor c = cursor_of(span_of(block.p + RECORD_HEAD_BYTES, TRAILER_META_BYTES));
    out->shard = cursor_u64(&c);
    out->first_sequence = cursor_u64(&c);
    out->next_sequence = cursor_u64(&c);
    out->record_bytes = cursor_u64(&c);
    out->log_end = cursor_u32(&c);
    out->footer_at = cursor_u32(&c);
    out->footer_bytes = cursor_u32(&c);
    out->footer_crc = cursor_u32(&c);
    out->records = cursor_u32(&c);
    out->lasting = cursor_u32(&c);
    if (c.bad || out->footer_at % LIMIT_BLOCK_BYTES != 0 || out->footer_at < out->log_end ||
        out->footer_bytes > LIMIT_SEGMENT_BYTES_MAX)
        return -EBADMSG;
    return 0;
}

int footer_next(struct span *left, struct footer_entry *out)
{
    if (left->n == 0)
        return -ENOENT;
    struct cursor c = cursor_of(*left);
    out->offset = cursor_u32(&c);
    uint32_t zero = cursor_u32(&c);
    struct span record = span_of(c.p, cursor_left(&c));
    if (c.bad || zero != 0 || record_head_read(record, &out->head) < 0 ||
        record.n < pad8(out->head.meta_bytes))
        return -EBADMSG;
    out->meta = span_of(record.p + RECORD_HEAD_BYTES, out->head.meta_bytes - RECORD_HEAD_BYTES);
    cursor_bytes(&c, pad8(out->head.meta_bytes));
    *left = span_of(c.p, cursor_left(&c));
    return 0;
}

static void seal_next(struct spool *s);

static void on_sealed(struct disk_op *op, ssize_t res)
{
    struct spool *s = (struct spool *)((char *)op - offsetof(struct spool, seal.op));
    struct segment *seg = s->seal.segment;
    uint32_t n = seg->footer.bytes - s->seal.written;
    bool trailer = n == 0;
    if (n > piece_bytes(seg))
        n = piece_bytes(seg);
    if (res != (ssize_t)(trailer ? SEGMENT_TRAILER_BYTES : pad_block(n))) {
        log_err("spool footer failed segment=%llu err=%d: a restart scans it",
                (unsigned long long)seg->id, (int)-res);
        segment_state_set(s, seg, SEGMENT_BARE);
        seg->suspect = true;
        s->seal.segment = NULL;
        footer_drop(s, seg);
        return;
    }
    if (!trailer) {
        s->seal.written += n;
        seal_next(s);
        return;
    }
    segment_state_set(s, seg, SEGMENT_SEALED);
    seg->footer_at = seg->end;
    seg->footer_bytes = seg->footer.bytes;
    s->seal.segment = NULL;
    footer_drop(s, seg);
}

/* The next piece of the footer, or the trailer. */
static void seal_next(struct spool *s)
{
    struct segment *seg = s->seal.segment;
    uint32_t n = seg->footer.bytes - s->seal.written;
    s->seal.op.on_done = on_sealed;
    if (n == 0) {
        trailer_write(s, seg, s->seal.trailer);
        disk_write(seg->file, &s->seal.op, s->seal.trailer, SEGMENT_TRAILER_BYTES,
                   seg->bytes - SEGMENT_TRAILER_BYTES);
        return;
    }
    uint8_t *piece = seg->footer.pieces[s->seal.written / piece_bytes(seg)];
    if (n > piece_bytes(seg))
        n = piece_bytes(seg);
    memset(piece + n, 0, pad_block(n) - n);
    s->seal.crc = crc32c(s->seal.crc, span_of(piece, n));
    MUST(seg->end + s->seal.written + pad_block(n) <= seg->bytes - SEGMENT_TRAILER_BYTES);
    disk_write(seg->file, &s->seal.op, piece, pad_block(n), seg->end + s->seal.written);
}

/*
 * A filled segment waits until the current one is a quarter full: mail that flows is delivered by
 * then, and a segment that is dead needs no footer. At most two footers wait in memory.
 */
static bool seal_can_wait(const struct spool *s, unsigned filled)
{
    return filled < 2 && s->current != NULL && s->current->end < s->current->bytes / 4;
}

/* The oldest filled segment whose batches are all durable; *count of these. */
static struct segment *first_filled(struct spool *s, unsigned *count)
{
    struct segment *first = NULL;
    uint32_t left = s->filled_count;
    *count = 0;
    for (uint32_t i = s->segment_count; i > 0 && left > 0; i--) {
        struct segment *seg = s->segments[i - 1];
        if (seg->state != SEGMENT_FILLED)
            continue;
        left--;
        if (seg->durable_end != seg->end)
            continue;
        if (seg->footer.dropped) {
            segment_state_set(s, seg, SEGMENT_BARE);
            continue;
        }
        first = seg;
        (*count)++;
    }
    return first;
}

void footer_turn(struct spool *s)
{
    unsigned filled;
    if (s->filled_count == 0 || s->seal.segment != NULL || s->sick)
        return;
    struct segment *first = first_filled(s, &filled);
    if (first == NULL || seal_can_wait(s, filled))
        return;
    s->seal.segment = first;
    s->seal.written = 0;
    s->seal.crc = 0;
    seal_next(s);
}
