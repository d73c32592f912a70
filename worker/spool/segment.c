/*
 * segment - segment files: names, headers, the list, spares, switching and recycling.
 *
 * Invariants: the list ascends by id; ids are given out once, even to a segment whose first write
 * failed, so that bytes of an earlier life never carry the id of a file they lie in. A segment
 * leaves only when nothing in it lives and the records that say so are durable, nobody reads it,
 * and a younger segment holds a durable snapshot of what it said about the shard.
 *
 * Order: oldest first, so that no fate is lost before the message that it concerns. Exception: a
 * segment that holds nothing but snapshots says nothing about any message and may leave from the
 * middle when room is short.
 */
#include "worker/spool/spool_impl.h"

#include "base/crc.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HEADER_VERSION_AT = 8, HEADER_CRC_AT = 64, HEADER_BYTES = 68 };
static const char header_magic[8] = "mochilas";

/* --- names --- */

void segment_name(char out[SEGMENT_NAME_BYTES], uint64_t id)
{
    int n = snprintf(out, SEGMENT_NAME_BYTES, "seg-%016llx.log", (unsigned long long)id);
    MUST(n > 0 && n < SEGMENT_NAME_BYTES);
}

void spare_name(char out[SEGMENT_NAME_BYTES], uint32_t n)
{
    int bytes = snprintf(out, SEGMENT_NAME_BYTES, "spare-%u.seg", n);
    MUST(bytes > 0 && bytes < SEGMENT_NAME_BYTES);
}

bool segment_name_read(const char *name, uint64_t *id)
{
    char want[SEGMENT_NAME_BYTES];
    unsigned long long v;
    if (sscanf(name, "seg-%16llx.log", &v) != 1)
        return false;
    segment_name(want, v);
    *id = v;
    return v > 0 && strcmp(name, want) == 0;
}

bool spare_name_read(const char *name, uint32_t *n)
{
    char want[SEGMENT_NAME_BYTES];
    if (sscanf(name, "spare-%u.seg", n) != 1)
        return false;
    spare_name(want, *n);
    return strcmp(name, want) == 0;
}

/* --- header --- */

void segment_header_write(const struct spool *s, const struct segment *seg, uint8_t *block)
{
    memset(block, 0, SEGMENT_HEADER_BYTES);
    struct writer w = writer_of(block, HEADER_BYTES);
    put_bytes(&w, span_of(header_magic, sizeof header_magic));
    put_u32(&w, SEGMENT_VERSION);
    put_u32(&w, 0);
    put_u64(&w, s->shard);
    put_u64(&w, seg->id);
    put_u64(&w, seg->bytes);
    put_u64(&w, (uint64_t)time(NULL)); /* for people only */
    put_u64(&w, seg->first_sequence);
    put_u64(&w, s->snapshot_durable);
    put_u32(&w, crc32c(0, span_of(block, HEADER_CRC_AT)));
    MUST(!w.bad);
    MUST(w.n == HEADER_BYTES);
}

int segment_header_read(struct span block, struct segment_header *out)
{
    struct cursor c = cursor_of(block);
    struct span magic = cursor_bytes(&c, sizeof header_magic);
    uint32_t version = cursor_u32(&c);
    cursor_u32(&c);
    out->shard = cursor_u64(&c);
    out->id = cursor_u64(&c);
    out->segment_bytes = cursor_u64(&c);
    out->created_unix_s = cursor_u64(&c);
    out->first_sequence = cursor_u64(&c);
    out->snapshot_durable = cursor_u64(&c);
    uint32_t crc = cursor_u32(&c);
    if (c.bad || !span_eq(magic, span_of(header_magic, sizeof header_magic)) ||
        crc != crc32c(0, span_of(block.p, HEADER_CRC_AT)))
        return -EBADMSG;
    /* Later versions keep magic, version and this checksum where they are. */
    return version > SEGMENT_VERSION ? -EILSEQ : version < 1 ? -EBADMSG : 0;
}

/* --- list --- */

/* Index of the first segment with an id of at least `id`. */
static uint32_t lower_bound(const struct spool *s, uint64_t id)
{
    uint32_t low = 0, high = s->segment_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (s->segments[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct segment *segment_find(const struct spool *s, uint64_t id)
{
    uint32_t i = lower_bound(s, id);
    return i < s->segment_count && s->segments[i]->id == id ? s->segments[i] : NULL;
}

struct segment *segment_add(struct spool *s, uint64_t id, struct disk_file *file, uint64_t bytes)
{
    MUST(s->segment_count == 0 || s->segments[s->segment_count - 1]->id < id);
    MUST(bytes <= LIMIT_SEGMENT_BYTES_MAX);
    if (s->segment_count == s->segment_room) {
        uint32_t room = s->segment_room == 0 ? 64 : s->segment_room * 2;
        struct segment **more = realloc(s->segments, room * sizeof *more);
        if (more == NULL)
            return NULL;
        s->segments = more;
        s->segment_room = room;
    }
    struct segment *seg = calloc(1, sizeof *seg);
    if (seg == NULL)
        return NULL;
    seg->id = id;
    seg->file = file;
    seg->bytes = (uint32_t)bytes;
    seg->state = SEGMENT_BARE;
    s->segments[s->segment_count++] = seg;
    s->file_bytes += bytes;
    return seg;
}

void segment_state_set(struct spool *s, struct segment *seg, enum segment_state state)
{
    if (seg->state == SEGMENT_FILLED)
        s->filled_count--;
    if (state == SEGMENT_FILLED)
        s->filled_count++;
    seg->state = state;
}

void segment_remove(struct spool *s, struct segment *seg)
{
    uint32_t i = lower_bound(s, seg->id);
    MUST(i < s->segment_count);
    MUST(s->segments[i] == seg);
    MUST(seg->reads == 0);
    segment_state_set(s, seg, SEGMENT_BARE);
    memmove(s->segments + i, s->segments + i + 1, (s->segment_count - i - 1) * sizeof *s->segments);
    s->segment_count--;
    s->file_bytes -= seg->bytes;
    s->record_bytes -= seg->record_bytes;
    s->live_bytes -= seg->live_bytes;
    footer_drop(s, seg);
    disk_file_close(&seg->file);
    free(seg);
}

void segment_abandon(struct spool *s, struct segment *seg)
{
    if (s->current == seg)
        s->current = NULL;
    segment_state_set(s, seg, SEGMENT_BARE);
    seg->suspect = true;
    seg->end = seg->durable_end;
    footer_drop(s, seg);
}

void segment_sweep(struct spool *s)
{
    for (uint32_t i = s->segment_count; i > 0; i--) {
        struct segment *seg = s->segments[i - 1];
        char name[SEGMENT_NAME_BYTES];
        if (!seg->suspect || seg->durable_end > 0)
            continue;
        segment_name(name, seg->id);
        segment_remove(s, seg);
        int r = disk_unlink(s->disk, name);
        if (r < 0) /* nothing acknowledged is in it: the next start finds it empty */
            log_warn("spool unlink failed file=%s err=%d", name, -r);
    }
}

/* --- switching --- */

/* What the owner says here lets the segments before this one leave, once it is durable. */
static void take_snapshot(struct spool *s)
{
    if (s->in_snapshot) /* larger than a segment: it goes on in the next one */
        return;
    uint64_t from = s->current->id;
    s->in_snapshot = true;
    s->snapshot_bad = false;
    s->owner.snapshot(s->owner.ctx);
    s->in_snapshot = false;
    if (s->snapshot_bad)
        return;
    s->snapshot_segment = from;
    s->snapshot_sequence = s->next_sequence;
}

/* A spare under the name of the next segment, opened; NULL and *err. */
static struct segment *begin(struct spool *s, int *err)
{
    char from[SEGMENT_NAME_BYTES], to[SEGMENT_NAME_BYTES];
    struct disk_file *file;
    uint64_t id = s->next_segment++;
    uint32_t spare = s->spares[--s->spare_count];
    spare_name(from, spare);
    segment_name(to, id);
    *err = disk_rename(s->disk, from, to);
    if (*err < 0 &&
        *err != -ENOENT) { /* back to the end of the row, so that the next try takes another */
        memmove(s->spares + 1, s->spares, s->spare_count * sizeof *s->spares);
        s->spares[0] = spare;
        s->spare_count++;
    }
    if (*err < 0)
        return NULL;
    *err = disk_file_open(s->disk, to, &file);
    if (*err < 0)
        return NULL;
    struct segment *seg = segment_add(s, id, file, s->settings.segment_bytes);
    if (seg == NULL) {
        disk_file_close(&file);
        *err = -ENOMEM;
    }
    return seg;
}

int segment_switch(struct spool *s, bool fate)
{
    uint32_t kept = fate ? 0 : 1; /* the reserve */
    int err;
    if (s->spare_count <= kept) {
        if (s->spare_busy) /* one is being made: this passes in milliseconds */
            return -ENOBUFS;
        if (!fate)
            s->starved = true;
        return -ENOSPC;
    }
    struct segment *seg = begin(s, &err);
    if (seg == NULL) {
        spool_sicken(s, "no segment can be begun", err);
        return -EIO;
    }
    batch_close(s);
    if (s->current != NULL)
        segment_state_set(s, s->current, SEGMENT_FILLED);
    seg->state = SEGMENT_CURRENT;
    s->current = seg;
    take_snapshot(s);
    return 0;
}

/* --- spares --- */

static uint32_t spares_wanted(const struct spool *s)
{
    return s->settings.spare_count + 1;
}

static void measure_room(struct spool *s)
{
    s->free_bytes = disk_free_bytes(s->disk);
    s->free_at_ms = s->now_ms;
    s->free_short = s->free_bytes < s->settings.reserve_bytes;
}

static void on_spare(struct disk_op *op, ssize_t res)
{
    struct spool *s = (struct spool *)((char *)op - offsetof(struct spool, spare_op));
    MUST(s->spare_busy);
    s->spare_busy = false;
    if (res < 0) {
        log_warn("spool spare failed err=%d", (int)-res);
        s->spare_retry_ms = s->now_ms + RETRY_MS;
    } else if (s->spare_count < SPARES_MAX) {
        s->spares[s->spare_count++] = s->spare_making;
    }
    measure_room(s);
}

/* Starts zeroing a spare when one is wanted and there is room; the last one may use what mail may
 * not. */
static void make_spare(struct spool *s)
{
    char name[SEGMENT_NAME_BYTES];
    uint64_t need = s->settings.segment_bytes;
    if (s->spare_count > 0)
        need += s->settings.reserve_bytes;
    if (s->spare_busy || s->spare_count >= spares_wanted(s) || s->free_bytes < need ||
        s->now_ms < s->spare_retry_ms)
        return;
    s->spare_making = s->spare_next++;
    s->spare_busy = true;
    s->spare_op.on_done = on_spare;
    spare_name(name, s->spare_making);
    disk_make_zeroed(s->disk, &s->spare_op, name, s->settings.segment_bytes);
}

int segment_spares_now(struct spool *s, uint32_t count)
{
    while (s->spare_count < count) {
        char name[SEGMENT_NAME_BYTES];
        uint32_t n = s->spare_next++;
        spare_name(name, n);
        int r = disk_make_zeroed_now(s->disk, name, s->settings.segment_bytes);
        if (r < 0)
            return r;
        s->spares[s->spare_count++] = n;
    }
    return 0;
}

/* --- recycling --- */

static bool can_leave(const struct spool *s, const struct segment *seg)
{
    return seg != s->current && seg->live_bytes <= 0 && seg->reads == 0 && seg != s->seal.segment &&
           seg != s->compact.segment && seg->durable_end == seg->end &&
           seg->id < s->snapshot_durable && !s->keep &&
           s->durable_sequence >= seg->needed_sequence && s->durable_sequence >= s->needed_sequence;
}

/*
 * The oldest segment is dead and only waits for a durable snapshot behind it, and none is under
 * way: after a restart without traffic, or when the last snapshot could not be appended whole. On a
 * full disk nobody else would come and append one.
 */
static void ask_for_snapshot(struct spool *s)
{
    const struct segment *seg = s->segment_count > 0 ? s->segments[0] : NULL;
    if (seg == NULL || seg == s->current || seg->live_bytes > 0 || seg->id < s->snapshot_durable ||
        s->snapshot_segment != 0 || s->sick || s->now_ms < s->snapshot_retry_ms)
        return;
    s->snapshot_retry_ms = s->now_ms + RETRY_MS;
    if (s->current != NULL)
        take_snapshot(s);
    else if (segment_switch(s, true) < 0)
        log_note("spool: no segment for the snapshot that old ones wait for");
}

static struct segment *leaving(const struct spool *s)
{
    if (s->segment_count == 0)
        return NULL;
    if (can_leave(s, s->segments[0]))
        return s->segments[0];
    if (s->spare_count > 1)
        return NULL;
    for (uint32_t i = 0; i < s->segment_count; i++) {
        if (s->segments[i]->lasting == 0 && can_leave(s, s->segments[i]))
            return s->segments[i];
    }
    return NULL;
}

/* Renames into a spare, or unlinks when there are enough, it has another size, or a write to it
 * failed. */
static void recycle(struct spool *s, struct segment *seg)
{
    char from[SEGMENT_NAME_BYTES], to[SEGMENT_NAME_BYTES];
    bool keep = !seg->suspect && seg->bytes == s->settings.segment_bytes &&
                s->spare_count < spares_wanted(s);
    segment_name(from, seg->id);
    spare_name(to, s->spare_next);
    int r = keep ? disk_rename(s->disk, from, to) : disk_unlink(s->disk, from);
    if (r < 0 && r != -ENOENT) { /* not there: an earlier try failed after it had worked */
        log_warn("spool recycling failed file=%s err=%d", from, -r);
        s->recycle_retry_ms = s->now_ms + RETRY_MS;
        return;
    }
    if (keep && r == 0)
        s->spares[s->spare_count++] = s->spare_next++;
    segment_remove(s, seg);
    measure_room(s);
}

void segment_turn(struct spool *s)
{
    if (s->snapshot_segment != 0 && s->durable_sequence >= s->snapshot_sequence) {
        s->snapshot_durable = s->snapshot_segment;
        s->snapshot_segment = 0;
    }
    if (s->now_ms - s->free_at_ms >= RETRY_MS)
        measure_room(s);
    ask_for_snapshot(s);
    struct segment *seg = s->now_ms < s->recycle_retry_ms ? NULL : leaving(s);
    if (seg != NULL)
        recycle(s, seg);
    make_spare(s);
    if (s->spare_count > 1)
        s->starved = false;
}
