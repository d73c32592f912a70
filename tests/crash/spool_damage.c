/*
 * spool_damage - a small log with one byte changed at every position, and cut at every byte.
 *
 * Checked after each: nothing crashes, what the change did not touch is there and can be read, what
 * is missing was reported. In the middle of the log that holds record by record; at its end, a byte
 * changed cannot be told from a write that was torn, so the records before it are what must be
 * there.
 *
 *   spool_damage [-v]
 */
#include "tests/crash/spool_model.h"
#include "tests/sim/sim_disk.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SEGMENT = 64 << 10,
    RECORDS_MAX = 400,
    BATCH_HEAD = RECORD_HEAD_BYTES + 16,
    TURNS = 400,
    FORGED_MESSAGE = 2
};

struct found_record {
    uint32_t offset, bytes, batch;
    unsigned message; /* MODEL_MESSAGES: of none */
};

static struct {
    struct model *model;
    struct model_message messages[MODEL_MESSAGES]; /* the truth before any damage */
    char name[2][32];
    struct found_record records[RECORDS_MAX];
    unsigned record_count, batch_count;
    uint32_t batch_at[RECORDS_MAX];
    uint32_t log_end;
    uint64_t trials, reported, torn;
} t;

static void die(const char *what, uint32_t offset, unsigned message)
{
    printf("FAIL spool_damage: %s; byte %u, message %u: %s\n", what, offset, message,
           t.model->failure);
    exit(1);
}

/* --- the log --- */

static void name_of(char out[32], unsigned segment)
{
    (void)snprintf(out, 32, "seg-%016x.log", segment);
}

static void drain(struct model *m)
{
    model_drain(m, TURNS);
    MUST(m->failure[0] == '\0');
    MUST(m->waits == NULL);
}

static void finish_build(void)
{
    memcpy(t.messages, t.model->messages, sizeof t.messages);
    sim_disk_crash();
    model_close(t.model);
    name_of(t.name[0], 1);
    name_of(t.name[1], 2);
}

/* Messages in commits of one to four, some with chunks, some already delivered; `count` of them. */
static void build(unsigned count, bool hostile)
{
    struct spool_settings s = {.segment_bytes = SEGMENT, .spare_count = 2};
    sim_disk_init(7);
    t.model = model_create(7, &s);
    struct model *m = t.model;
    m->bodies = hostile ? BODIES_MIXED : BODIES_TAME;
    MUST(model_open(m) == 0);
    for (unsigned i = 0; i < count; i++) {
        uint32_t bytes = (uint32_t)(30 + rng_below(&m->rng, 300));
        MUST(model_enqueue(m, bytes, i % 7 == 3 ? bytes / 3 + 1 : 0) == 0);
        if (rng_below(&m->rng, 3) == 0)
            drain(m);
        if (i % 5 == 4 && m->messages[i - 2].truth == TRUTH_IN)
            MUST(model_outcome(m, RECORD_DONE, i - 2, m->messages[i - 2].rcpts) == 0);
    }
    drain(m);
    finish_build();
}

/* In the middle of a commit in the middle of the log, a message whose body imitates records. */
static void build_forged(void)
{
    struct spool_settings s = {.segment_bytes = SEGMENT, .spare_count = 2};
    sim_disk_init(7);
    t.model = model_create(7, &s);
    struct model *m = t.model;
    MUST(model_open(m) == 0);
    for (unsigned i = 0; i < 10; i++) {
        m->bodies = i == FORGED_MESSAGE ? BODIES_HOSTILE : BODIES_TAME;
        MUST(model_enqueue(m, i == FORGED_MESSAGE ? 16000 : 100, 0) == 0);
        if (i == 1 || i >= 6)
            drain(m);
    }
    finish_build();
}

static unsigned message_of(const struct record_head *h, const uint8_t *meta)
{
    if (h->type == RECORD_LEDGER)
        return MODEL_MESSAGES;
    struct cursor c = cursor_of(span_of(meta, ID_BYTES));
    return (unsigned)cursor_id(&c).lo - 1;
}

/* Where every record of a segment lies. */
static void survey(const char *name)
{
    struct span f = sim_disk_peek("shard0", name);
    struct record_head b, h;
    t.record_count = t.batch_count = 0;
    uint32_t at = LIMIT_BLOCK_BYTES;
    while (record_head_read(span_of(f.p + at, f.n - at), &b) == 0 && b.type == RECORD_BATCH) {
        struct cursor c = cursor_of(span_of(f.p + at + RECORD_HEAD_BYTES + 8, 8));
        uint32_t bytes = cursor_u32(&c), n = cursor_u32(&c), p = at + BATCH_HEAD;
        for (uint32_t i = 0; i < n; i++) {
            MUST(record_head_read(span_of(f.p + p, f.n - p), &h) == 0);
            MUST(t.record_count < RECORDS_MAX);
            t.records[t.record_count++] = (struct found_record){
                p, h.bytes, t.batch_count, message_of(&h, f.p + p + RECORD_HEAD_BYTES)};
            p += (h.bytes + 7) & ~7u;
        }
        t.batch_at[t.batch_count++] = at;
        at += bytes;
    }
    t.log_end = at;
    MUST(t.batch_count > 3);
}

/* --- one trial --- */

static void open_damaged(void)
{
    struct model *m = t.model;
    memcpy(m->messages, t.messages, sizeof t.messages);
    m->failure[0] = '\0';
    m->damage_expected = true;
    m->damages = m->lost = 0;
    MUST(model_open(m) == 0);
    t.trials++;
    t.reported += m->damages > 0;
    t.torn += spool_facts(m->spool)->torn_tail_bytes > 0;
    if (m->failure[0] != '\0')
        die("the model objects", 0, 0);
}

static void close_damaged(void)
{
    sim_disk_crash();
    model_close(t.model);
}

/* Messages of which no record is in `hit` must be as they were, and readable. */
static void check_untouched(const bool *hit, uint32_t offset)
{
    struct model *m = t.model;
    for (unsigned i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        if (hit[i]) {
            msg->known = false; /* not read below */
            continue;
        }
        uint8_t want = msg->rcpts & (uint8_t)~msg->done_acked;
        if (msg->known != (want != 0) || (msg->known && msg->outstanding != want))
            die("a message that was not touched is not as it was", offset, i);
    }
    model_read_all(m);
    if (m->lost > 0 || m->failure[0] != '\0')
        die("a message that was not touched cannot be read", offset, m->lost);
}

/* --- one byte changed --- */

static bool is_covered(uint32_t at)
{
    for (unsigned i = 0; i < t.record_count; i++) {
        if (at >= t.records[i].offset && at < t.records[i].offset + t.records[i].bytes)
            return true;
    }
    for (unsigned i = 0; i < t.batch_count; i++) {
        if (at >= t.batch_at[i] && at < t.batch_at[i] + BATCH_HEAD)
            return true;
    }
    return false;
}

/* Marks what a change at `at` may harm; the records behind it in the last batch as well. */
static void mark_hits(uint32_t at, bool last_counts, bool *hit)
{
    memset(hit, 0, MODEL_MESSAGES * sizeof *hit);
    for (unsigned i = 0; i < t.record_count; i++) {
        const struct found_record *r = &t.records[i];
        bool in_it = at >= r->offset && at < r->offset + r->bytes;
        bool behind = last_counts && r->batch == t.batch_count - 1 && at >= t.batch_at[r->batch] &&
                      r->offset + r->bytes > at;
        if (r->message < MODEL_MESSAGES && (in_it || behind))
            hit[r->message] = true;
    }
}

/* Changes the byte at `at`; `last` = this segment is the end of the log. */
static void flip(const char *name, uint32_t at, uint8_t mask, bool last, bool sealed)
{
    bool hit[MODEL_MESSAGES];
    uint8_t old = sim_disk_peek("shard0", name).p[at], changed = old ^ mask;
    sim_disk_poke("shard0", name, at, span_of(&changed, 1));
    open_damaged();
    bool in_last = last && at >= t.batch_at[t.batch_count - 1];
    if (!sealed && !in_last && is_covered(at) && t.model->damages == 0)
        die("damage in the middle was not reported", at, 0);
    if (in_last && is_covered(at) && t.model->damages == 0 &&
        spool_facts(t.model->spool)->torn_tail_bytes == 0)
        die("damage at the end left no trace", at, 0);
    if (!is_covered(at) && at >= LIMIT_BLOCK_BYTES && at < t.log_end && t.model->damages > 0)
        die("damage reported where nothing is", at, 0);
    mark_hits(at, last, hit);
    check_untouched(hit, at);
    close_damaged();
    sim_disk_poke("shard0", name, at, span_of(&old, 1));
}

static void flip_all(const char *name, uint32_t end, bool last, bool sealed)
{
    static const uint8_t masks[] = {0xff, 0x01, 0x80};
    for (uint32_t at = 0; at < end; at++) {
        bool dull = at >= 64 && !is_covered(at); /* padding: a sample */
        if (dull && at % 61 != 0)
            continue;
        flip(name, at, masks[at % ARRAY_COUNT(masks)], last, sealed);
    }
}

/* --- cut at every byte --- */

static void mark_cut(uint32_t at, bool *hit)
{
    memset(hit, 0, MODEL_MESSAGES * sizeof *hit);
    for (unsigned i = 0; i < t.record_count; i++) {
        const struct found_record *r = &t.records[i];
        if (r->message < MODEL_MESSAGES && r->offset + r->bytes > at)
            hit[r->message] = true;
    }
}

/* From the end down: each cut shortens the file further. */
static void cut_all(const char *name, uint32_t from, bool last)
{
    bool hit[MODEL_MESSAGES];
    uint32_t lost_from = t.records[t.record_count - 1].offset + t.records[t.record_count - 1].bytes;
    for (uint32_t at = from; at > 0; at--) {
        if (at >= LIMIT_BLOCK_BYTES && !is_covered(at) && at % 61 != 0)
            continue; /* padding: a sample */
        sim_disk_truncate("shard0", name, at);
        open_damaged();
        if (last && t.model->damages > 0)
            die("a cut at the end of the log is reported as damage", at, 0);
        if (!last && at < lost_from && t.model->damages == 0)
            die("a cut of an older segment was not reported", at, 0);
        mark_cut(at, hit);
        check_untouched(hit, at);
        close_damaged();
    }
}

/* --- one read that fails --- */

/* The disk refuses a range once: it is read again in blocks, and nothing is lost. */
static void fail_reads(unsigned most)
{
    static const bool none[MODEL_MESSAGES];
    for (unsigned nth = 1; nth <= most; nth++) {
        sim_disk_fault_read(nth);
        open_damaged();
        sim_disk_heal();
        if (t.model->damages > 0)
            die("one failed read is reported as damage", nth, 0);
        check_untouched(none, nth);
        close_damaged();
    }
}

static void end(const char *what)
{
    printf("spool_damage: %s: %llu trials, %llu reported, %llu torn\n", what,
           (unsigned long long)t.trials, (unsigned long long)t.reported,
           (unsigned long long)t.torn);
    t.trials = t.reported = t.torn = 0;
    model_destroy(&t.model);
    sim_disk_fini();
}

int main(int argc, char **argv)
{
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    log_open(verbose ? 2 : open("/dev/null", O_WRONLY), verbose ? LOG_DBG : LOG_ERR, "spool");

    build(16, true);
    survey(t.name[0]);
    flip_all(t.name[0], t.log_end + 2 * LIMIT_BLOCK_BYTES, true, false);
    end("one byte changed in the last segment");

    build_forged();
    survey(t.name[0]);
    for (unsigned i = 0; i < t.record_count; i++) {
        for (uint32_t k = 0; k < RECORD_HEAD_BYTES && t.records[i].message == FORGED_MESSAGE; k++)
            flip(t.name[0], t.records[i].offset + k, 0x55, true, false);
    }
    end("a message with forged records loses its head");

    build(16, false);
    survey(t.name[0]);
    cut_all(t.name[0], t.log_end + LIMIT_BLOCK_BYTES, true);
    end("the last segment cut");

    /* Two segments: the first is filled; with a third batch of work it is sealed as well. */
    build(48, true);
    survey(t.name[0]);
    MUST(sim_disk_peek("shard0", t.name[1]).n > 0);
    flip_all(t.name[0], SEGMENT, false, true);
    end("one byte changed in a sealed segment");

    build(48, false);
    survey(t.name[0]);
    fail_reads(24);
    cut_all(t.name[0], SEGMENT - 1, false);
    end("an older segment cut");
    return 0;
}
