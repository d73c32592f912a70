/*
 * read - records read back from segments.
 *
 * One operation covers the blocks that the record lies in. Buffers come in four sizes and are kept
 * for the next read, since registered memory is dear to get. A segment with a read in flight does
 * not leave.
 */
#include "worker/spool/spool_impl.h"

#include <errno.h>

static const struct {
    uint32_t bytes;
    uint32_t kept_max;
} classes[READ_CLASSES] = {{8 << 10, 64}, {32 << 10, 32}, {136 << 10, 8}, {520 << 10, 4}};
static_assert((520 << 10) >= LIMIT_RECORD_BYTES + 2 * LIMIT_BLOCK_BYTES, "the largest record fits");

static unsigned class_of(size_t bytes)
{
    unsigned i = 0;
    while (classes[i].bytes < bytes)
        i++;
    MUST(i < READ_CLASSES);
    return i;
}

static void *buffer_get(struct spool *s, unsigned class)
{
    void *p = s->reads.head[class];
    if (p == NULL)
        return disk_alloc(s->disk, classes[class].bytes);
    memcpy(&s->reads.head[class], p, sizeof(void *));
    s->reads.kept[class]--;
    return p;
}

static void buffer_put(struct spool *s, unsigned class, void *p)
{
    if (s->reads.kept[class] == classes[class].kept_max) {
        disk_free(s->disk, p, classes[class].bytes);
        return;
    }
    memcpy(p, &s->reads.head[class], sizeof(void *));
    s->reads.head[class] = p;
    s->reads.kept[class]++;
}

static void link_read(struct spool *s, struct spool_read *r)
{
    r->prev = NULL;
    r->next = s->reads.in_flight;
    if (r->next != NULL)
        r->next->prev = r;
    s->reads.in_flight = r;
    s->reads.count++;
}

static void unlink_read(struct spool *s, struct spool_read *r)
{
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        s->reads.in_flight = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    s->reads.count--;
}

void read_free_all(struct spool *s)
{
    for (struct spool_read *r = s->reads.in_flight; r != NULL; r = r->next)
        disk_free(s->disk, r->buf, classes[class_of(r->buf_bytes)].bytes);
    s->reads.in_flight = NULL;
    for (unsigned i = 0; i < READ_CLASSES; i++) {
        while (s->reads.head[i] != NULL) {
            void *p = buffer_get(s, i);
            disk_free(s->disk, p, classes[i].bytes);
        }
    }
}

/* 0 and the view when the bytes are the record that `place` names. */
static int check(const struct spool *s, const struct segment *seg, const struct record_place *place,
                 struct span in, struct record_view *v)
{
    if (record_head_read(in, &v->head) < 0 || v->head.bytes != place->bytes ||
        !record_is_ours(s, seg, &v->head) || !record_meta_ok(in) || !record_rest_ok(in))
        return -EBADMSG;
    v->place = *place;
    v->meta = span_of(in.p + RECORD_HEAD_BYTES, v->head.meta_bytes - RECORD_HEAD_BYTES);
    v->rest = span_of(in.p + v->head.meta_bytes, v->head.bytes - v->head.meta_bytes);
    return 0;
}

static void on_read_done(struct disk_op *op, ssize_t res)
{
    struct spool_read *r = (struct spool_read *)((char *)op - offsetof(struct spool_read, op));
    struct spool *s = r->spool;
    struct segment *seg = segment_find(s, r->place.segment);
    struct record_view v = {.place = r->place};
    unsigned class = class_of(r->buf_bytes);
    void *buf = r->buf;
    uint32_t skip = r->place.offset % LIMIT_BLOCK_BYTES;
    int err = 0;

    MUST(seg != NULL);
    MUST(seg->reads > 0);
    if (res < 0)
        err = -EIO;
    else if (res < (ssize_t)(skip + r->place.bytes))
        err = -EBADMSG; /* the file is shorter than it was */
    else
        err = check(s, seg, &r->place, span_of((uint8_t *)buf + skip, r->place.bytes), &v);
    r->buf = NULL;
    s->reads.bytes -= r->buf_bytes;
    unlink_read(s, r);
    r->on_read(r, err,
               &v); /* r may be gone after this; the segment stays until the view is used up */
    seg->reads--;
    buffer_put(s, class, buf);
}

int spool_read(struct spool *s, struct spool_read *r, const struct record_place *place)
{
    struct segment *seg = segment_find(s, place->segment);
    if (seg == NULL || place->offset % 8 != 0 || place->bytes < RECORD_HEAD_BYTES ||
        place->bytes > LIMIT_RECORD_BYTES || place->offset > seg->bytes - place->bytes)
        return -ENOENT;
    uint32_t from = place->offset / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
    uint32_t n = pad_block(place->offset + place->bytes) - from;
    unsigned class = class_of(n);
    if (place->offset + place->bytes > seg->durable_end || s->reads.count == READS_MAX ||
        s->reads.bytes + n > READ_BYTES_MAX)
        return -ENOBUFS;
    r->buf = buffer_get(s, class);
    if (r->buf == NULL)
        return -ENOBUFS;
    r->spool = s;
    r->place = *place;
    r->buf_bytes = n;
    r->op.on_done = on_read_done;
    seg->reads++;
    link_read(s, r);
    s->reads.bytes += n;
    disk_read(seg->file, &r->op, r->buf, n, from);
    return 0;
}
