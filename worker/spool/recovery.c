/*
 * recovery - from a directory to records: which files there are, what they say of each other, then
 * one after the other.
 *
 * Before any record is read, headers give the shard's secret and the first sequence of each
 * segment, which is where the numbers of the segment before it end. A header that is damaged costs
 * nothing: the first batch head says the same. How one segment is read: scan.c.
 */
#include "worker/spool/scan.h"

#include "base/log.h"
#include "base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

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
        if (n < 0) /* what is lost here is only looked for elsewhere, but a passing fault is no
                      damage */
            n = disk_pread(c->seg->file, c->buf, SEGMENT_HEADER_BYTES, 0);
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
        if (h.snapshot_durable > s->snapshot_durable)
            s->snapshot_durable = h.snapshot_durable;
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
            if (scan_batch_head(s, c->seg, scan_window(c, p, LIMIT_BLOCK_BYTES), &b, &shard))
                shard_set(s, shard);
        }
    }
}

/*
 * Where the numbers of segment i begin and end, as far as its neighbours say. Segments may have
 * left between two of them: that shows in the ids.
 */
static void set_bounds(struct scan *c, uint32_t i)
{
    struct spool *s = c->s;
    c->limit = UINT64_MAX;
    c->limit_proves = false;
    for (uint32_t k = i + 1; k < s->segment_count; k++) {
        struct segment *next = s->segments[k];
        struct batch_head b;
        uint64_t first = next->first_sequence;
        if (first == 0) {
            c->seg = next;
            c->buf_n = 0;
            if (scan_batch_head_at(c, SEGMENT_HEADER_BYTES, &b))
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
    c->previous = 0;
    if (c->seg->id == 1)
        c->previous = 1;
    else if (i > 0 && s->segments[i - 1]->id + 1 == c->seg->id)
        c->previous = s->segments[i - 1]->next_sequence;
}

static uint64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/*
 * What was read from a segment without a footer may never have been promised: it is visible, and
 * gone after the next power cut. The owner builds on it from now on.
 */
static int sync_scanned(struct scan *c)
{
    struct spool *s = c->s;
    for (uint32_t i = 0; i < s->segment_count; i++) {
        struct segment *seg = s->segments[i];
        if (seg->state == SEGMENT_SEALED || seg->end == 0)
            continue;
        int r = disk_file_sync(seg->file);
        if (r < 0) {
            log_err("spool segment=%" PRIu64 " cannot be synced err=%d", seg->id, -r);
            return r;
        }
    }
    return 0;
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
        set_bounds(c, i);
        if (scan_index(c) < 0)
            scan_log(c);
        if (c->seg->next_sequence > s->next_sequence)
            s->next_sequence = c->seg->next_sequence;
        s->facts.recovered_segments++;
    }
    s->durable_sequence = s->next_sequence;
    return sync_scanned(c);
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
    c.buf_room = LIMIT_BLOCK_BYTES;
    for (uint32_t i = 0; i < s->segment_count; i++) {
        uint32_t n = pad_block(s->segments[i]->bytes);
        if (n > c.buf_room)
            c.buf_room = n < SCAN_WINDOW_BYTES ? n : SCAN_WINDOW_BYTES;
    }
    c.buf = disk_alloc(s->disk, c.buf_room);
    if (c.buf == NULL)
        return -ENOMEM;
    r = recover_segments(&c);
    disk_free(s->disk, c.buf, c.buf_room);
    s->facts.recovery_ms = monotonic_ms() - from_ms;
    return r;
}
