/*
 * spool - open and close, append, the turn, health.
 *
 * Health: SICK while writes fail (a new segment is tried every RETRY_MS, with the owner's snapshot
 * as the probe); FULL when the reserve is missing, the file system is below its mark, or mail found
 * no segment; each of these ends by itself in a later turn.
 *
 * A first failed commit is not yet sickness: the segment is abandoned and the next append begins
 * another. The second in a row is.
 */
#include "worker/spool/spool_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

static void check_settings(const struct spool_settings *s)
{
    MUST(s->segment_bytes >= SEGMENT_BYTES_FLOOR);
    MUST(s->segment_bytes <= LIMIT_SEGMENT_BYTES_MAX);
    MUST(s->segment_bytes % LIMIT_BLOCK_BYTES == 0);
    MUST(s->spare_count >= 1);
    MUST(s->spare_count < SPARES_MAX);
}

int spool_open(struct spool **out, struct disk *disk, const struct spool_settings *settings,
               const struct spool_owner *owner)
{
    check_settings(settings);
    MUST(owner->apply != NULL && owner->damage != NULL);
    MUST(owner->snapshot != NULL && owner->copy != NULL);
    struct spool *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->disk = disk;
    s->settings = *settings;
    s->owner = *owner;
    s->queue_tail = &s->queue;
    *out = s; /* the owner may account living bytes while records are applied */
    int r = -ENOMEM;
    s->seal.trailer = disk_alloc(disk, SEGMENT_TRAILER_BYTES);
    if (s->seal.trailer != NULL)
        r = recovery_run(s);
    if (r == 0) {
        r = segment_spares_now(s, 2); /* one to write to, one in reserve */
        if (r == -ENOSPC && s->segment_count + s->spare_count > 0)
            r = 0; /* what is there is served; fates go on if there is a spare */
    }
    if (r < 0) {
        spool_close(out);
        return r;
    }
    s->free_bytes = disk_free_bytes(disk);
    s->free_short = s->free_bytes < s->settings.reserve_bytes;
    return 0;
}

void spool_close(struct spool **sp)
{
    struct spool *s = *sp;
    if (s == NULL)
        return;
    batch_free_all(s);
    read_free_all(s);
    while (s->segment_count > 0) {
        struct segment *seg = s->segments[s->segment_count - 1];
        seg->reads = 0; /* nothing can complete any more */
        segment_remove(s, seg);
    }
    if (s->compact.buf != NULL)
        disk_free(s->disk, s->compact.buf, LIMIT_BATCH_BYTES);
    if (s->seal.trailer != NULL)
        disk_free(s->disk, s->seal.trailer, SEGMENT_TRAILER_BYTES);
    free(s->segments);
    free(s);
    *sp = NULL;
}

const struct spool_facts *spool_facts(const struct spool *s)
{
    return &s->facts;
}

/* --- health --- */

enum spool_health spool_health(const struct spool *s)
{
    if (s->sick)
        return SPOOL_SICK;
    return s->spare_count == 0 || s->free_short || s->starved ? SPOOL_FULL : SPOOL_OK;
}

void spool_sicken(struct spool *s, const char *what, int err)
{
    log_err("spool sick why=\"%s\" err=%d", what, -err);
    s->sick = true;
    s->sick_retry_ms = s->now_ms + RETRY_MS;
}

/* A sick spool writes the owner's snapshot to a new segment: the commit's completion makes it well.
 */
static void probe(struct spool *s)
{
    if (!s->sick || s->now_ms < s->sick_retry_ms || s->queue != NULL)
        return;
    s->sick_retry_ms = s->now_ms + RETRY_MS;
    if (segment_switch(s, true) == 0 && s->queue == NULL)
        s->sick = false; /* the owner has nothing to say: the next append is the probe */
}

/* --- append --- */

/* Head, record and footer fit a segment that holds nothing else. */
static bool fits_empty_segment(const struct spool *s, uint32_t padded, uint32_t entry)
{
    uint64_t footer = entry > s->settings.segment_bytes / FOOTER_SHARE ? 0 : pad_block(entry);
    return SEGMENT_HEADER_BYTES + (uint64_t)pad_block(BATCH_HEAD_BYTES + padded) + footer +
               SEGMENT_TRAILER_BYTES <=
           s->settings.segment_bytes;
}

/* The batch that takes the record, in the segment that takes the batch. 0 or -errno as
 * spool_append. */
static int find_room(struct spool *s, uint32_t padded, uint32_t entry, bool fate,
                     struct batch **out)
{
    enum { TRIES = 3 }; /* a snapshot may fill a segment at once */
    uint32_t queue_max = fate ? BATCH_QUEUE_FATE_MAX : BATCH_QUEUE_MAX;
    for (unsigned i = 0; i < TRIES; i++) {
        bool takes = s->open != NULL && s->open->bytes + padded <= LIMIT_BATCH_BYTES;
        if (!takes && s->queue_count >= queue_max)
            return -ENOBUFS;
        if (s->current != NULL && batch_fits(s, padded, entry)) {
            *out = batch_for(s, padded);
            return *out == NULL ? -ENOBUFS : 0;
        }
        int r = segment_switch(s, fate);
        if (r < 0)
            return r;
    }
    return -ENOBUFS;
}

/* Copies the record to the end of the batch. */
static void put_record(struct spool *s, struct batch *b, const struct record_head *h,
                       const struct spool_append *a)
{
    uint8_t *at = b->buf + b->bytes;
    record_head_write(at, h, a->meta, a->rest, a->rest_count);
    struct writer w =
        writer_of(at + RECORD_HEAD_BYTES, LIMIT_BATCH_BYTES - b->bytes - RECORD_HEAD_BYTES);
    put_bytes(&w, a->meta);
    for (unsigned i = 0; i < a->rest_count; i++)
        put_bytes(&w, a->rest[i]);
    MUST(!w.bad);
    memset(at + h->bytes, 0, pad8(h->bytes) - h->bytes);
    footer_add(s, b->segment, b->offset + b->bytes, span_of(at, h->meta_bytes));
    b->bytes += pad8(h->bytes);
    b->records++;
    b->segment->record_bytes += pad8(h->bytes);
    if (!record_is_snapshot(h->type))
        b->segment->lasting++;
    s->record_bytes += pad8(h->bytes);
    s->next_sequence++;
    s->usage.records++;
}

static int append(struct spool *s, const struct spool_append *a, struct spool_wait *w,
                  struct record_place *place)
{
    bool fate = a->fate || s->in_snapshot;
    size_t meta_bytes = RECORD_HEAD_BYTES + a->meta.n, bytes = meta_bytes;
    for (unsigned i = 0; i < a->rest_count; i++)
        bytes += a->rest[i].n;
    if (bytes > LIMIT_RECORD_BYTES)
        return -E2BIG;
    uint32_t padded = pad8((uint32_t)bytes), entry = footer_entry_bytes((uint32_t)meta_bytes);
    if (!fits_empty_segment(s, padded, entry))
        return -E2BIG;
    if (s->telling)
        return -ENOBUFS;
    if (s->sick && !s->in_snapshot)
        return -EIO;
    if (!fate && spool_health(s) == SPOOL_FULL)
        return -ENOSPC;
    struct batch *b;
    int r = find_room(s, padded, entry, fate, &b);
    if (r < 0)
        return r;
    struct record_head h = {.type = a->type,
                            .flags = a->flags,
                            .bytes = (uint32_t)bytes,
                            .meta_bytes = (uint32_t)meta_bytes,
                            .lane = a->lane,
                            .epoch = a->epoch,
                            .salt = s->salt,
                            .position = a->position,
                            .segment = b->segment->id,
                            .sequence = s->next_sequence};
    *place = (struct record_place){b->segment->id, b->offset + b->bytes, h.bytes};
    put_record(s, b, &h, a);
    if (w != NULL)
        waits_add(&b->waits, w);
    return 0;
}

int spool_append(struct spool *s, const struct spool_append *a, struct spool_wait *w,
                 struct record_place *place)
{
    struct record_place unused;
    MUST(a->type > RECORD_BATCH);
    MUST(a->type != RECORD_INDEX);
    MUST(a->rest_count <= ARRAY_COUNT(a->rest));
    int r = append(s, a, w, place != NULL ? place : &unused);
    if (r < 0 && s->in_snapshot)
        s->snapshot_bad = true;
    return r;
}

void spool_sync(struct spool *s, struct spool_wait *w)
{
    if (s->queue == NULL) {
        waits_add(&s->sync_now, w);
        return;
    }
    struct batch *last = s->queue;
    while (last->next != NULL)
        last = last->next;
    waits_add(&last->waits, w);
}

/* --- turn --- */

void spool_turn(struct spool *s, uint64_t now_ms)
{
    s->now_ms = now_ms;
    waits_call(&s->sync_now, 0);
    probe(s);
    segment_turn(s);
    footer_turn(s);
    compact_turn(s);
    batch_commit(s);
}

bool spool_idle(const struct spool *s)
{
    return s->queue == NULL && s->sync_now.head == NULL && !s->spare_busy &&
           s->seal.segment == NULL && !s->compact.reading && s->reads.count == 0;
}

void spool_live(struct spool *s, uint64_t segment, int64_t bytes)
{
    struct segment *seg = segment_find(s, segment);
    if (seg == NULL) /* a damaged directory: the record names a segment that is not there */
        return;
    seg->live_bytes += bytes;
    s->live_bytes += bytes;
    if (bytes < 0)
        seg->needed_sequence = s->next_sequence;
}

void spool_keep(struct spool *s, bool keep)
{
    if (s->keep && !keep)
        s->needed_sequence = s->next_sequence;
    s->keep = keep;
}

void spool_usage(const struct spool *s, struct spool_usage *out)
{
    *out = s->usage;
    out->segments = s->segment_count;
    out->spares = s->spare_count;
    out->total_bytes = s->file_bytes + s->spare_count * s->settings.segment_bytes;
    out->live_bytes = s->live_bytes > 0 ? (uint64_t)s->live_bytes : 0;
    out->disk_free_bytes = s->free_bytes;
    out->oldest_segment = s->segment_count > 0 ? s->segments[0]->id : 0;
    out->head_segment = s->current != NULL ? s->current->id : 0;
    out->direct = disk_mode(s->disk) == DISK_DIRECT;
}
