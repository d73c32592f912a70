/*
 * batch - buffers, their order, and the one commit in flight.
 *
 * Invariants: the queue is in the order of the log; only its first batch is ever in flight, only
 * its last is open; a batch that has left for the disk takes nothing more; offsets are final
 * because a batch begins where the one before it ends. When a commit fails, everything behind it
 * fails with it: its places follow bytes that are not there.
 */
#include "worker/spool/spool_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

void waits_add(struct waits *l, struct spool_wait *w)
{
    w->next = NULL;
    if (l->head == NULL)
        l->tail = &l->head;
    *l->tail = w;
    l->tail = &w->next;
}

static void waits_join(struct waits *l, struct waits *from)
{
    if (from->head == NULL)
        return;
    if (l->head == NULL)
        l->tail = &l->head;
    *l->tail = from->head;
    l->tail = from->tail == &from->head ? &l->head : from->tail;
    from->head = NULL;
}

void waits_call(struct waits *l, int res)
{
    struct spool_wait *w = l->head;
    l->head = NULL;
    while (w != NULL) {
        struct spool_wait *next =
            w->next; /* the waiter may be gone or waiting again after its call */
        w->on_durable(w, res);
        w = next;
    }
}

enum { ARENA_BYTES = BATCH_KEPT_MAX * LIMIT_BATCH_BYTES };

/* The usual few buffers are one piece, so that they lie on huge pages and are registered once. */
static void arena_make(struct spool *s)
{
    s->arena = disk_alloc(s->disk, ARENA_BYTES);
    while (s->arena != NULL && s->kept_count < BATCH_KEPT_MAX) {
        s->kept[s->kept_count] = s->arena + (size_t)s->kept_count * LIMIT_BATCH_BYTES;
        s->kept_count++;
    }
}

static uint8_t *buffer_get(struct spool *s)
{
    if (s->arena == NULL)
        arena_make(s);
    if (s->kept_count > 0)
        return s->kept[--s->kept_count];
    return disk_alloc(s->disk, LIMIT_BATCH_BYTES);
}

static void buffer_put(struct spool *s, uint8_t *buf)
{
    if (s->arena != NULL && buf >= s->arena && buf < s->arena + ARENA_BYTES) {
        MUST(s->kept_count < BATCH_KEPT_MAX);
        s->kept[s->kept_count++] = buf;
        return;
    }
    disk_free(s->disk, buf, LIMIT_BATCH_BYTES);
}

/* Where a batch opened now would begin. */
static uint32_t next_offset(const struct spool *s)
{
    return s->open != NULL ? s->open->offset + pad_block(s->open->bytes) : s->current->end;
}

static bool open_takes(const struct spool *s, uint32_t padded)
{
    return s->open != NULL && s->open->bytes + padded <= LIMIT_BATCH_BYTES;
}

bool batch_fits(const struct spool *s, uint32_t padded, uint32_t entry)
{
    const struct segment *seg = s->current;
    uint64_t end;
    MUST(seg != NULL);
    if (open_takes(s, padded)) {
        end = s->open->offset + (uint64_t)pad_block(s->open->bytes + padded);
    } else {
        uint32_t from = next_offset(s);
        uint32_t head = (from == 0 ? SEGMENT_HEADER_BYTES : 0) + BATCH_HEAD_BYTES;
        end = (uint64_t)from + pad_block(head + padded);
    }
    return end + pad_block(footer_room(seg, entry)) + SEGMENT_TRAILER_BYTES <= seg->bytes;
}

void batch_close(struct spool *s)
{
    if (s->open == NULL)
        return;
    MUST(s->open->segment == s->current);
    MUST(s->open->records > 0);
    s->current->end = next_offset(s);
    s->open = NULL;
}

static struct batch *batch_open(struct spool *s)
{
    struct batch *b = calloc(1, sizeof *b);
    uint8_t *buf = b == NULL ? NULL : buffer_get(s);
    if (buf == NULL) {
        free(b);
        return NULL;
    }
    b->buf = buf;
    b->segment = s->current;
    b->offset = s->current->end;
    b->head_at = b->offset == 0 ? SEGMENT_HEADER_BYTES : 0;
    b->bytes = b->head_at + BATCH_HEAD_BYTES;
    b->first_sequence = s->next_sequence;
    *s->queue_tail = b;
    s->queue_tail = &b->next;
    s->queue_count++;
    s->open = b;
    return b;
}

struct batch *batch_for(struct spool *s, uint32_t padded)
{
    if (open_takes(s, padded))
        return s->open;
    batch_close(s);
    return batch_open(s);
}

/* Closes the buffer: padding, batch head, and the segment's header in front of its first batch. */
static uint32_t finish(struct spool *s, struct batch *b)
{
    uint32_t n = pad_block(b->bytes);
    memset(b->buf + b->bytes, 0, n - b->bytes);
    if (b->head_at > 0) {
        b->segment->first_sequence = b->first_sequence;
        segment_header_write(s, b->segment, b->buf);
    }
    struct record_head h = {.type = RECORD_BATCH,
                            .bytes = BATCH_HEAD_BYTES,
                            .meta_bytes = BATCH_HEAD_BYTES,
                            .salt = s->salt,
                            .segment = b->segment->id,
                            .sequence = b->first_sequence};
    uint8_t *head = b->buf + b->head_at;
    struct writer w = writer_of(head + RECORD_HEAD_BYTES, BATCH_META_BYTES);
    put_u64(&w, s->shard);
    put_u32(&w, n - b->head_at);
    put_u32(&w, b->records);
    MUST(!w.bad);
    record_head_write(head, &h, span_of(w.p, w.n), NULL, 0);
    return n;
}

/* Takes the first batch out of the queue. */
static struct batch *pop(struct spool *s)
{
    struct batch *b = s->queue;
    s->queue = b->next;
    if (s->queue == NULL)
        s->queue_tail = &s->queue;
    s->queue_count--;
    return b;
}

static void batch_free(struct spool *s, struct batch *b)
{
    buffer_put(s, b->buf);
    free(b);
}

/* The commit in flight failed for good, and with it all that is queued. */
static void fail_all(struct spool *s, int err)
{
    struct waits all = {.head = NULL};
    s->in_flight = false;
    s->open = NULL;
    s->usage.failed_commits++;
    s->failed_in_row++;
    s->next_sequence = s->queue->first_sequence; /* none of these numbers was ever acknowledged */
    s->snapshot_segment = 0;
    log_err("spool commit failed segment=%llu err=%d waiting_batches=%u",
            (unsigned long long)s->queue->segment->id, -err, s->queue_count);
    while (s->queue != NULL) {
        struct batch *b = pop(s);
        uint64_t lost = b->bytes - b->head_at - BATCH_HEAD_BYTES;
        b->segment->record_bytes -= lost;
        s->record_bytes -= lost;
        segment_abandon(s, b->segment);
        waits_join(&all, &b->waits);
        batch_free(s, b);
    }
    segment_sweep(s);
    if (s->failed_in_row >= 2)
        spool_sicken(s, "two commits failed in a row", err);
    /* The owner's totals are right when all have heard: no segment begins in between. */
    s->telling = true;
    waits_call(&all, err);
    s->telling = false;
}

static void on_committed(struct disk_op *op, ssize_t res)
{
    struct spool *s = (struct spool *)((char *)op - offsetof(struct spool, commit_op));
    MUST(s->in_flight);
    MUST(s->queue != NULL);
    if (res != (ssize_t)s->commit_bytes) {
        fail_all(s, res == -ENOSPC ? -ENOSPC : -EIO);
        return;
    }
    struct batch *b = pop(s);
    struct waits waits = {.head = NULL};
    s->in_flight = false;
    s->failed_in_row = 0;
    s->sick = false;
    b->segment->durable_end = b->offset + s->commit_bytes;
    b->segment->next_sequence = b->first_sequence + b->records;
    MUST(b->segment->durable_end <= b->segment->end);
    s->durable_sequence = b->segment->next_sequence;
    s->usage.commits++;
    s->usage.commit_bytes += s->commit_bytes;
    waits_join(&waits, &b->waits);
    batch_free(s, b);
    waits_call(&waits, 0);
}

void batch_commit(struct spool *s)
{
    if (s->in_flight || s->queue == NULL)
        return;
    struct batch *b = s->queue;
    if (b == s->open)
        batch_close(s);
    s->commit_bytes = finish(s, b);
    s->commit_op.on_done = on_committed;
    s->in_flight = true;
    disk_write(b->segment->file, &s->commit_op, b->buf, s->commit_bytes, b->offset);
    if (s->settings.defective_ack_early)
        waits_call(&b->waits, 0);
}

void batch_free_all(struct spool *s)
{
    while (s->queue != NULL)
        batch_free(s, pop(s));
    if (s->arena != NULL)
        disk_free(s->disk, s->arena, ARENA_BYTES);
    s->arena = NULL;
    s->kept_count = 0;
    s->open = NULL;
    s->in_flight = false;
}
