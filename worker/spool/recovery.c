/*
 * recovery - from segment files to records.
 *
 * A sealed segment with a whole footer is read from its footer. Every other one is scanned, batch
 * by batch, by this table. Only one commit is ever in flight, so the head of a later batch proves
 * that everything before it was acknowledged: what cannot be read there is damage and is reported.
 * What follows the last readable batch was never acknowledged: a torn tail, left without a word. A
 * younger segment proves the same for an older one, since its header says with which sequence it
 * began; numbers from there on in the older one belong to a commit that failed, and are not part of
 * the log.
 *
 *   head at this block  its sequence           its records  acknowledged later  -> action
 *   ------------------  ---------------------  -----------  ------------------
 * ----------------------------------------------- none                - (prefix)     no end: torn
 * tail; the whole records at its start count none                -                      (prefix)
 * yes                 salvage up to the later batch, report ok                  of a younger
 * segment   -            -                   end: never acknowledged ok                  behind
 * what was read   -            -                   skip, report ok                  next whole -
 * next batch ok                  next                   broken       no                  end: torn
 * tail; the whole records at its start count ok                  next                   broken yes
 * salvage up to the later batch, report ok                  ahead: numbers missing whole        -
 * report, next batch ok                  ahead                  broken       no report, end ok
 * ahead                  broken       yes                 salvage, report
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
#include "worker/spool/spool_impl.h"

#include "base/crc.h"
#include "base/log.h"
#include "base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WINDOW_BYTES = 4 << 20, WHY_BYTES = 96 };
static_assert((int)WINDOW_BYTES >= 2 * (int)LIMIT_BATCH_BYTES,
              "a batch fits the window wherever it begins");

static const uint64_t no_limit = UINT64_MAX;

struct recovery_verdict recovery_decide(enum recovery_head head, enum recovery_order order,
                                        enum recovery_body body, enum recovery_proof proof)
{
    static const struct recovery_verdict
        without_head[2] =
            {[PROOF_NONE] = {ACTION_END, false}, [PROOF_LATER] = {ACTION_SALVAGE, true}},
        table[4][2][2] = {
            /*                 broken, no proof      broken, proof            whole, no proof whole,
               proof */
            [ORDER_BEYOND] = {{{ACTION_END, false}, {ACTION_END, false}},
                              {{ACTION_END, false}, {ACTION_END, false}}},
            [ORDER_BEHIND] = {{{ACTION_SKIP, true}, {ACTION_SKIP, true}},
                              {{ACTION_SKIP, true}, {ACTION_SKIP, true}}},
            [ORDER_NEXT] = {{{ACTION_END, false}, {ACTION_SALVAGE, true}},
                            {{ACTION_NEXT, false}, {ACTION_NEXT, false}}},
            [ORDER_AHEAD] = {{{ACTION_END, true}, {ACTION_SALVAGE, true}},
                             {{ACTION_NEXT, true}, {ACTION_NEXT, true}}},
        };
    return head == HEAD_NONE ? without_head[proof] : table[order][body][proof];
}

struct batch_head {
    uint64_t first;
    uint32_t bytes, records;
};

struct scan {
    struct spool *s;
    struct segment *seg;
    uint8_t *buf; /* WINDOW_BYTES: [buf_at, buf_at + buf_n) of the segment */
    uint64_t buf_at, buf_n;
    uint64_t at;          /* block where a batch should begin */
    uint64_t applied_end; /* of the last record that counts */
    uint64_t expected;    /* sequence; 0 = not known */
    uint64_t limit;       /* sequence with which a younger segment begins */
    bool limit_proves;    /* nothing was recycled between the two */
    uint32_t batches, damaged;
};

/* --- reading --- */

/* A range that the disk refuses is read block by block, zeroes for what cannot be had. */
static uint64_t read_blocks(struct scan *c, uint64_t at)
{
    uint64_t n = 0;
    while (n < WINDOW_BYTES && at + n < c->seg->bytes) {
        ssize_t r = disk_pread(c->seg->file, c->buf + n, LIMIT_BLOCK_BYTES, at + n);
        if (r < LIMIT_BLOCK_BYTES)
            memset(c->buf + n + (r > 0 ? r : 0), 0, (size_t)(LIMIT_BLOCK_BYTES - (r > 0 ? r : 0)));
        n += LIMIT_BLOCK_BYTES;
    }
    return n;
}

/* The bytes of the segment from `at`, at most n; fewer at its end. */
static struct span window(struct scan *c, uint64_t at, uint64_t n)
{
    uint64_t end = c->seg->bytes;
    MUST(n <= LIMIT_BATCH_BYTES);
    if (at >= end)
        return span_of(NULL, 0);
    if (n > end - at)
        n = end - at;
    if (at < c->buf_at || at + n > c->buf_at + c->buf_n) {
        c->buf_at = at / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
        ssize_t r = disk_pread(c->seg->file, c->buf, WINDOW_BYTES, c->buf_at);
        c->buf_n = r >= 0 ? (uint64_t)r : read_blocks(c, c->buf_at);
        if (at >= c->buf_at + c->buf_n)
            return span_of(NULL, 0);
        if (at + n > c->buf_at + c->buf_n)
            n = c->buf_at + c->buf_n - at;
    }
    return span_of(c->buf + (at - c->buf_at), n);
}

/* A batch head in `block`, which was read from `seg`; `shard` 0 = any. */
static bool batch_head_read(const struct spool *s, const struct segment *seg, struct span block,
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

static bool batch_head_at(struct scan *c, uint64_t at, struct batch_head *out)
{
    return batch_head_read(c->s, c->seg, window(c, at, LIMIT_BLOCK_BYTES), out, NULL);
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
    if (at + RECORD_HEAD_BYTES > end || record_head_read(window(c, at, RECORD_HEAD_BYTES), h) < 0 ||
        !record_is_ours(c->s, c->seg, h) || h->type == RECORD_BATCH || h->type == RECORD_INDEX ||
        h->bytes > end - at)
        return false;
    *record = window(c, at, h->bytes);
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
static enum recovery_proof find_later(struct scan *c, uint64_t from, uint64_t *at, uint64_t *first)
{
    struct batch_head b;
    for (uint64_t p = from; p + LIMIT_BLOCK_BYTES <= c->seg->bytes; p += LIMIT_BLOCK_BYTES) {
        if (batch_head_at(c, p, &b) && b.first >= c->expected && b.first < c->limit) {
            *at = p;
            *first = b.first;
            return PROOF_LATER;
        }
    }
    *at = c->seg->bytes;
    *first = c->limit;
    return c->limit_proves && c->expected != 0 && c->expected < c->limit ? PROOF_LATER : PROOF_NONE;
}

static enum recovery_order order_of(const struct scan *c, uint64_t first)
{
    if (first >= c->limit)
        return ORDER_BEYOND;
    if (c->expected == 0 || first == c->expected)
        return ORDER_NEXT;
    return first < c->expected ? ORDER_BEHIND : ORDER_AHEAD;
}

/* How much of this segment lies in the torn tail that begins at `from`: up to the last head that
 * carries its id. */
static uint64_t torn_bytes(struct scan *c, uint64_t from)
{
    uint64_t end = from, stop = from + LIMIT_BATCH_BYTES;
    for (uint64_t at = from / 8 * 8; at + RECORD_HEAD_BYTES <= c->seg->bytes && at < stop;
         at += 8) {
        struct record_head h;
        if (record_head_read(window(c, at, RECORD_HEAD_BYTES), &h) == 0 &&
            record_is_ours(c->s, c->seg, &h) && h.type != RECORD_INDEX)
            end = at + h.bytes < c->seg->bytes ? at + h.bytes : c->seg->bytes;
    }
    return end - from;
}

/* What one block position turned out to be. */
struct finding {
    struct batch_head batch;
    enum recovery_head head;
    enum recovery_order order;
    enum recovery_body body;
    enum recovery_proof proof;
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
    if (batch_head_at(c, c->at, &f.batch)) {
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

/* Does what the table says; true while the scan goes on. */
static bool step(struct scan *c)
{
    struct finding f = examine(c);
    struct recovery_verdict v = recovery_decide(f.head, f.order, f.body, f.proof);
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
        c->s->facts.torn_tail_bytes += torn_bytes(c, f.from);
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

static void scan_segment(struct scan *c)
{
    struct segment *seg = c->seg;
    bool header = seg->first_sequence != 0;
    c->at = SEGMENT_HEADER_BYTES;
    c->applied_end = 0;
    c->expected = seg->first_sequence;
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
static int index_segment(struct scan *c)
{
    struct segment *seg = c->seg;
    struct trailer t;
    if (seg->bytes % LIMIT_BLOCK_BYTES != 0 || seg->bytes < 2 * LIMIT_BLOCK_BYTES)
        return -EBADMSG;
    uint64_t trailer_at = seg->bytes - SEGMENT_TRAILER_BYTES;
    c->buf_n = 0;
    if (trailer_read(window(c, trailer_at, SEGMENT_TRAILER_BYTES), seg->id, &t) < 0 ||
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

/* --- the directory --- */

struct listing {
    struct spool *s;
    struct listed {
        uint64_t id, bytes;
    } * files;
    size_t count, room;
    uint32_t unwanted[64]; /* spares of another size or too many */
    unsigned unwanted_count;
    int err;
};

static void list_segment(struct listing *l, uint64_t id, uint64_t bytes)
{
    if (l->count == l->room) {
        size_t room = l->room == 0 ? 64 : l->room * 2;
        struct listed *more = realloc(l->files, room * sizeof *more);
        if (more == NULL) {
            l->err = -ENOMEM;
            return;
        }
        l->files = more;
        l->room = room;
    }
    l->files[l->count++] = (struct listed){id, bytes};
}

static void on_file(void *ctx, const char *name, uint64_t bytes)
{
    struct listing *l = ctx;
    struct spool *s = l->s;
    uint64_t id;
    uint32_t n;
    if (segment_name_read(name, &id)) {
        list_segment(l, id, bytes);
    } else if (spare_name_read(name, &n)) {
        if (n >= s->spare_next)
            s->spare_next = n + 1;
        if (bytes == s->settings.segment_bytes && s->spare_count < s->settings.spare_count + 1)
            s->spares[s->spare_count++] = n;
        else if (l->unwanted_count < ARRAY_COUNT(l->unwanted))
            l->unwanted[l->unwanted_count++] = n;
    } else {
        log_note("spool: not ours, left alone: %s", name);
    }
}

static int by_id(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int open_segments(struct spool *s, const struct listing *l)
{
    for (size_t i = 0; i < l->count; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct disk_file *file;
        uint64_t bytes = l->files[i].bytes;
        segment_name(name, l->files[i].id);
        int r = disk_file_open(s->disk, name, &file);
        if (r < 0)
            return r;
        if (bytes > LIMIT_SEGMENT_BYTES_MAX)
            bytes = LIMIT_SEGMENT_BYTES_MAX;
        if (segment_add(s, l->files[i].id, file, bytes) == NULL) {
            disk_file_close(&file);
            return -ENOMEM;
        }
        s->next_segment = l->files[i].id + 1;
    }
    return 0;
}

static int list_files(struct spool *s)
{
    struct listing l = {.s = s};
    int r = disk_list(s->disk, on_file, &l);
    if (r == 0)
        r = l.err;
    if (r == 0 && l.count > 0)
        qsort(l.files, l.count, sizeof *l.files, by_id);
    if (r == 0)
        r = open_segments(s, &l);
    free(l.files);
    for (unsigned i = 0; i < l.unwanted_count && r == 0; i++) {
        char name[SEGMENT_NAME_BYTES];
        spare_name(name, l.unwanted[i]);
        if (disk_unlink(s->disk, name) < 0)
            log_warn("spool unlink failed file=%s", name);
    }
    return r;
}

/* --- what the segments say of each other, before any record is read --- */

static void shard_set(struct spool *s, uint64_t shard)
{
    s->shard = shard;
    s->salt = (uint32_t)(shard * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* Headers: the shard's secret and the first sequence of each segment. */
static int survey_headers(struct scan *c)
{
    struct spool *s = c->s;
    for (uint32_t i = 0; i < s->segment_count; i++) {
        struct segment_header h;
        c->seg = s->segments[i];
        c->buf_n = 0;
        ssize_t n = disk_pread(c->seg->file, c->buf, SEGMENT_HEADER_BYTES, 0);
        int r = n < 0 ? -EBADMSG : segment_header_read(span_of(c->buf, (size_t)n), &h);
        if (r == -EILSEQ) {
            log_err("spool segment=%" PRIu64 " was written by a newer version", c->seg->id);
            return r;
        }
        if (r < 0 || h.id != c->seg->id)
            continue; /* damaged, or never written in this life of the file */
        if (s->shard != 0 && s->shard != h.shard) {
            log_err("spool segment=%" PRIu64 " belongs to another shard", c->seg->id);
            return -EILSEQ;
        }
        shard_set(s, h.shard);
        c->seg->first_sequence = h.first_sequence;
    }
    return 0;
}

/* Without any header: the first batch head that can be found names the shard. */
static void search_shard(struct scan *c)
{
    struct spool *s = c->s;
    for (uint32_t i = 0; i < s->segment_count && s->shard == 0; i++) {
        c->seg = s->segments[i];
        c->buf_n = 0;
        for (uint64_t p = 0; p < c->seg->bytes && s->shard == 0; p += LIMIT_BLOCK_BYTES) {
            struct batch_head b;
            uint64_t shard;
            if (batch_head_read(s, c->seg, window(c, p, LIMIT_BLOCK_BYTES), &b, &shard))
                shard_set(s, shard);
        }
    }
}

/* Where the numbers of segment i end, said by the next segment that says anything. */
static void set_limit(struct scan *c, uint32_t i)
{
    struct spool *s = c->s;
    c->limit = no_limit;
    c->limit_proves = false;
    for (uint32_t k = i + 1; k < s->segment_count; k++) {
        struct segment *next = s->segments[k];
        struct batch_head b;
        uint64_t first = next->first_sequence;
        if (first == 0) {
            c->seg = next;
            c->buf_n = 0;
            if (batch_head_at(c, SEGMENT_HEADER_BYTES, &b))
                first = b.first;
        }
        if (first == 0)
            continue;
        c->limit = first;
        c->limit_proves = next->id == s->segments[i]->id + (k - i);
        break;
    }
    c->seg = s->segments[i];
    c->buf_n = 0;
}

static uint64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int recover_segments(struct scan *c)
{
    struct spool *s = c->s;
    int r = survey_headers(c);
    if (r < 0)
        return r;
    if (s->shard == 0)
        search_shard(c);
    while (s->shard == 0)
        shard_set(s, rng_entropy());
    for (uint32_t i = 0; i < s->segment_count; i++) {
        set_limit(c, i);
        if (index_segment(c) < 0)
            scan_segment(c);
        if (c->seg->next_sequence > s->next_sequence)
            s->next_sequence = c->seg->next_sequence;
        s->facts.recovered_segments++;
    }
    s->durable_sequence = s->next_sequence;
    return 0;
}

int recovery_run(struct spool *s)
{
    uint64_t from_ms = monotonic_ms();
    struct scan c = {.s = s};
    s->next_segment = 1;
    s->next_sequence = 1;
    int r = list_files(s);
    if (r < 0)
        return r;
    c.buf = disk_alloc(s->disk, WINDOW_BYTES);
    if (c.buf == NULL)
        return -ENOMEM;
    r = recover_segments(&c);
    disk_free(s->disk, c.buf, WINDOW_BYTES);
    s->facts.recovery_ms = monotonic_ms() - from_ms;
    return r;
}
