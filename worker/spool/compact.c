/*
 * compact - the living of the oldest segment are copied to the head of the log, so that it can
 * leave.
 *
 * The segment is walked in pieces for the ids of messages: the footer when it has one, the log
 * itself otherwise. Both are walked alike: at each multiple of 8 either a head begins that proves
 * itself, or one goes on by 8; so damage needs no case of its own. Ids go to the owner in windows
 * of up to COPY_WINDOW distinct ones, and the walk goes on when all of a window are copied, so that
 * the copies share commits and come to lie close together.
 *
 * When: counted in record bytes, since padding and footers are not saved by copying, and copying
 * because of them would never end. Much padding (mail that came one by one) is worth one copy as
 * well, with a wide margin.
 */
#include "worker/spool/spool_impl.h"

#include "base/log.h"

#include <errno.h>

enum { PIECE_BYTES = LIMIT_BATCH_BYTES };

/* --- when --- */

/* The copies and some fates fit behind the log as it is. */
static bool copies_fit(const struct spool *s, const struct segment *seg)
{
    uint64_t live = seg->live_bytes > 0 ? (uint64_t)seg->live_bytes : 0;
    uint64_t segment_bytes = s->settings.segment_bytes;
    uint64_t room = s->current == NULL ? 0 : s->current->bytes - s->current->end;
    room += s->spare_count * segment_bytes;
    return live + live / 4 + segment_bytes / 4 <= room;
}

static bool is_worth_it(const struct spool *s)
{
    uint64_t live = s->live_bytes > 0 ? (uint64_t)s->live_bytes : 0;
    uint64_t slack = 4 * s->settings.segment_bytes;
    if (s->record_bytes > 2 * live + slack || s->file_bytes > 4 * live + 2 * slack)
        return true;
    /* Room is short: an eighth to be gained, and at least two segments, is enough. */
    uint64_t garbage = s->record_bytes > live ? s->record_bytes - live : 0;
    return spool_health(s) == SPOOL_FULL && garbage > slack / 2 && garbage > s->file_bytes / 8;
}

static struct segment *candidate(struct spool *s)
{
    struct segment *seg = s->segment_count < 2 ? NULL : s->segments[0];
    if (seg == NULL || seg == s->current || seg == s->seal.segment || seg->live_bytes <= 0 ||
        seg->durable_end != seg->end || s->now_ms < s->compact.retry_ms)
        return NULL;
    return is_worth_it(s) && copies_fit(s, seg) ? seg : NULL;
}

/* --- walk --- */

static void begin(struct spool *s, struct segment *seg)
{
    struct compact *c = &s->compact;
    c->buf = disk_alloc(s->disk, PIECE_BYTES);
    if (c->buf == NULL) {
        c->retry_ms = s->now_ms + RETRY_MS;
        return;
    }
    if (seg->state == SEGMENT_FILLED) { /* no footer is worth writing for it any more */
        segment_state_set(s, seg, SEGMENT_BARE);
        footer_drop(s, seg);
    }
    bool indexed = seg->state == SEGMENT_SEALED;
    c->segment = seg;
    c->at = indexed ? seg->footer_at : SEGMENT_HEADER_BYTES;
    c->end = indexed ? seg->footer_at + pad8(seg->footer_bytes) : seg->durable_end;
    c->buf_at = c->buf_n = 0;
    c->issued = c->outstanding = 0;
    c->failed = false;
}

static void finish(struct spool *s)
{
    struct compact *c = &s->compact;
    struct segment *seg = c->segment;
    disk_free(s->disk, c->buf, PIECE_BYTES);
    c->buf = NULL;
    c->segment = NULL;
    if (c->failed || seg->live_bytes > 0) {
        c->retry_ms = s->now_ms + RETRY_MS;
        log_note("spool compaction of segment=%llu left live_bytes=%lld failed=%d",
                 (unsigned long long)seg->id, (long long)seg->live_bytes, c->failed);
    }
}

static void on_piece(struct disk_op *op, ssize_t res)
{
    struct spool *s = (struct spool *)((char *)op - offsetof(struct spool, compact.op));
    struct compact *c = &s->compact;
    c->reading = false;
    c->segment->reads--;
    if (res < 0) {
        log_warn("spool compaction cannot read segment=%llu offset=%u err=%d",
                 (unsigned long long)c->segment->id, c->buf_at, (int)-res);
        c->failed = true;
        c->at = c->end;
        return;
    }
    c->buf_n = (uint32_t)res;
    if (c->at >= c->buf_at + c->buf_n) /* the file is shorter than its log */
        c->end = c->at;
}

/* Reads on from the block that holds c->at. */
static void read_piece(struct spool *s)
{
    struct compact *c = &s->compact;
    c->buf_at = c->at / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
    c->buf_n = 0;
    uint32_t n = pad_block(c->end) - c->buf_at;
    c->reading = true;
    c->segment->reads++;
    c->op.on_done = on_piece;
    disk_read(c->segment->file, &c->op, c->buf, n < PIECE_BYTES ? n : PIECE_BYTES, c->buf_at);
}

/* The next head in the buffer: 1 and *h, *meta; 0 when more must be read; the walk moves on behind
 * it. */
static int next_head(struct spool *s, struct record_head *h, struct span *meta)
{
    struct compact *c = &s->compact;
    MUST(c->at >= c->buf_at);
    while (c->at < c->end) {
        uint32_t left = c->buf_at + c->buf_n > c->at ? c->buf_at + c->buf_n - c->at : 0;
        uint32_t want = c->end - c->at < RECORD_HEAD_BYTES ? c->end - c->at : RECORD_HEAD_BYTES;
        if (left < want)
            return 0;
        struct span in = span_of(c->buf + (c->at - c->buf_at), left);
        if (record_head_read(in, h) == 0 && record_is_ours(s, c->segment, h) &&
            h->meta_bytes <= c->end - c->at) {
            if (left < h->meta_bytes)
                return 0;
            if (record_meta_ok(in)) {
                *meta = span_of(in.p + RECORD_HEAD_BYTES, h->meta_bytes - RECORD_HEAD_BYTES);
                bool indexed = c->segment->state == SEGMENT_SEALED;
                c->at += pad8(indexed ? h->meta_bytes : h->bytes);
                return 1;
            }
        }
        c->at += 8;
    }
    return 0;
}

static bool in_window(const struct compact *c, struct msg_id id)
{
    for (unsigned i = 0; i < c->issued; i++) {
        if (id_eq(c->window[i], id))
            return true;
    }
    return false;
}

/* Asks the owner to copy what lives; until the window is full, the buffer used up, or the walk
 * over. */
static void issue(struct spool *s)
{
    struct compact *c = &s->compact;
    struct record_head h;
    struct span meta;
    while (c->issued < COPY_WINDOW && !c->failed && next_head(s, &h, &meta) == 1) {
        if (h.type != RECORD_ENQ && h.type != RECORD_BODY)
            continue;
        struct cursor cur = cursor_of(meta); /* both begin with the message id */
        struct msg_id id = cursor_id(&cur);
        if (cur.bad || in_window(c, id))
            continue;
        c->window[c->issued] = id;
        c->issued++;
        c->outstanding++; /* before the call: the owner may be done at once */
        if (!s->owner.copy(s->owner.ctx, id, c->segment->id)) {
            c->issued--;
            c->outstanding--;
        }
    }
}

void spool_copied(struct spool *s, int res)
{
    struct compact *c = &s->compact;
    MUST(c->outstanding > 0);
    c->outstanding--;
    if (res < 0)
        c->failed = true;
    else
        s->usage.copied_messages++;
}

void compact_turn(struct spool *s)
{
    struct compact *c = &s->compact;
    if (c->segment == NULL) {
        struct segment *seg = s->sick ? NULL : candidate(s);
        if (seg != NULL)
            begin(s, seg);
        if (c->segment == NULL)
            return;
    }
    if (c->reading || c->outstanding > 0)
        return;
    c->issued = 0;
    issue(s);
    if (c->outstanding > 0)
        return;
    if (c->at >= c->end || c->failed)
        finish(s);
    else if (c->issued == 0)
        read_piece(s);
}
