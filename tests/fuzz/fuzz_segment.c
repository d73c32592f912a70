/*
 * A shard whose first segment was changed by the input, recovered, read, worked with and compacted.
 *
 * The input is a list of changes to a small valid log, since random bytes would never get past a
 * checksum: 0 offset n bytes...   writes bytes         1 offset   makes the checksums of the record
 * there right again 2 from to blocks      copies blocks        3 blocks   cuts the file Offsets are
 * two bytes, in units of 8 for 1 and of blocks for 2.
 */
#include "tests/sim/sim_disk.h"
#include "worker/spool/spool.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEGMENT = 64 << 10, MAILS = 40, PLACES = 64, BLOCKS = SEGMENT / LIMIT_BLOCK_BYTES };

static struct {
    struct disk *disk;
    struct spool *spool;
    struct record_place places[PLACES];
    unsigned place_count;
    uint8_t image[2][SEGMENT]; /* of the first two segments */
    bool ready;
} t;

static const struct spool_settings settings = {.segment_bytes = SEGMENT, .spare_count = 1};
static const char *const names[2] = {"seg-0000000000000001.log", "seg-0000000000000002.log"};

static void apply(void *ctx, const struct record_view *v)
{
    struct enq e;
    struct outcome o;
    (void)ctx;
    MUST(v->place.bytes == v->head.bytes);
    MUST(v->head.meta_bytes == RECORD_HEAD_BYTES + v->meta.n);
    MUST(v->rest.n == 0 || v->rest.n == v->head.bytes - v->head.meta_bytes);
    if (v->head.type == RECORD_ENQ && enq_read(v->meta, &e) == 0)
        spool_live(t.spool, v->place.segment, v->place.bytes);
    if (v->head.type == RECORD_DONE)
        (void)!outcome_read(v->meta, &o);
    if (t.place_count < PLACES)
        t.places[t.place_count++] = v->place;
}
static void damage(void *ctx, const struct record_place *where, const char *why)
{
    (void)ctx;
    MUST(where->offset <= SEGMENT);
    MUST(why[0] != '\0');
}
static void snapshot(void *ctx)
{
    struct spool_append a = {.type = RECORD_LEDGER, .fate = true, .meta = span_str("ledger")};
    (void)ctx;
    (void)!spool_append(t.spool, &a, NULL, NULL);
}
static bool copy(void *ctx, struct msg_id id, uint64_t segment)
{
    (void)ctx;
    (void)segment;
    return id.lo % 2 == 0 ? false : (spool_copied(t.spool, 0), true);
}
static void on_read(struct spool_read *r, int res, const struct record_view *v)
{
    MUST(res < 0 || v->head.bytes == v->place.bytes);
    free(r);
}

static void open_spool(void)
{
    static const struct spool_owner owner = {
        .apply = apply, .damage = damage, .snapshot = snapshot, .copy = copy};
    t.place_count = 0;
    MUST(disk_open(&t.disk, NULL, "shard") == 0);
    int r = spool_open(&t.spool, t.disk, &settings, &owner);
    MUST(r == 0 || t.spool == NULL);
}

static void close_spool(void)
{
    sim_disk_crash();
    spool_close(&t.spool);
    disk_close(&t.disk);
}

static void work(unsigned mails)
{
    static uint8_t body[2500];
    uint8_t meta[256];
    for (unsigned i = 0; i < mails; i++) {
        struct enq e = {.id = {1, i + 1}, .body_bytes = 500 + i * 30, .rcpt_count = 1};
        struct enq_rcpt r = {.address = span_str("a@example.net")};
        struct writer w = writer_of(meta, sizeof meta);
        enq_put(&w, &e);
        enq_put_rcpt(&w, &r);
        struct spool_append a = {.type = RECORD_ENQ,
                                 .meta = span_of(meta, w.n),
                                 .rest = {span_of(body, 500 + i * 30)},
                                 .rest_count = 1};
        struct record_place place;
        if (spool_append(t.spool, &a, NULL, &place) == 0)
            spool_live(t.spool, place.segment, place.bytes);
        if (i % 3 == 0) {
            spool_turn(t.spool, i * 400);
            sim_disk_run();
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        spool_turn(t.spool, 100000 + i * 600);
        sim_disk_run();
    }
}

static void make_image(void)
{
    log_open(open("/dev/null", O_WRONLY), LOG_ERR, "fuzz");
    sim_disk_init(3);
    open_spool();
    MUST(t.spool != NULL);
    work(MAILS);
    close_spool();
    for (unsigned i = 0; i < 2; i++) {
        struct span f = sim_disk_peek("shard", names[i]);
        MUST(f.n == SEGMENT);
        memcpy(t.image[i], f.p, SEGMENT);
    }
    t.ready = true;
}

/* Makes the checksums of what looks like a record at p right. */
static void mend(uint8_t *p, size_t n)
{
    struct record_head h;
    if (record_head_read(span_of(p, n), &h) < 0 || h.bytes > n)
        return;
    struct span rest = span_of(p + h.meta_bytes, h.bytes - h.meta_bytes);
    record_head_write(p, &h, span_of(p + RECORD_HEAD_BYTES, h.meta_bytes - RECORD_HEAD_BYTES),
                      &rest, 1);
}

/* Applies the input to the image; the bytes that the file keeps. */
static size_t change(struct cursor *c, uint8_t *image)
{
    size_t keep = SEGMENT;
    while (cursor_left(c) > 0 && !c->bad) {
        uint8_t what = cursor_u8(c) % 4;
        uint16_t at = cursor_u16(c);
        if (what == 0) {
            struct span b = cursor_str8(c);
            if (b.n > 0 && at + b.n <= SEGMENT)
                memcpy(image + at, b.p, b.n);
        } else if (what == 1) {
            size_t from = (size_t)at * 8 % SEGMENT;
            mend(image + from, SEGMENT - from);
        } else if (what == 2) {
            size_t to = cursor_u8(c) % BLOCKS, n = cursor_u8(c) % 4 + 1u, from = at % BLOCKS;
            if (to + n <= BLOCKS && from + n <= BLOCKS)
                memmove(image + to * LIMIT_BLOCK_BYTES, image + from * LIMIT_BLOCK_BYTES,
                        n * LIMIT_BLOCK_BYTES);
        } else {
            keep = at;
        }
    }
    return keep;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t image[SEGMENT];
    if (!t.ready)
        make_image();
    struct cursor c = cursor_of(span_of(data, n));
    memcpy(image, t.image[0], SEGMENT);
    size_t keep = change(&c, image);
    sim_disk_init(5);
    MUST(disk_open(&t.disk, NULL, "shard") == 0);
    for (unsigned i = 0; i < 2; i++)
        MUST(disk_make_zeroed_now(t.disk, names[i], SEGMENT) == 0);
    disk_close(&t.disk);
    sim_disk_poke("shard", names[0], 0, span_of(image, SEGMENT));
    sim_disk_poke("shard", names[1], 0, span_of(t.image[1], SEGMENT));
    sim_disk_truncate("shard", names[0], keep);
    open_spool();
    for (unsigned i = 0; i < t.place_count && t.spool != NULL; i++) {
        struct spool_read *r = calloc(1, sizeof *r);
        MUST(r != NULL);
        r->on_read = on_read;
        if (spool_read(t.spool, r, &t.places[i]) < 0)
            free(r);
    }
    sim_disk_run();
    if (t.spool != NULL)
        work(12);
    close_spool();
    return 0;
}
