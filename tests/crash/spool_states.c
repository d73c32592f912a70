/*
 * spool_states - what the spool says and does when the disk is full, sick, foreign or slow.
 *
 *   spool_states [-v]
 */
#include "tests/crash/spool_model.h"
#include "tests/sim/sim_disk.h"

#include "base/crc.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEGMENT = 128 << 10, TURNS = 400, MAIL_BYTES = 3000 };

static const char *scenario;

#define CHECK(m, x)                                                                    \
    do {                                                                               \
        if (!(x) || (m)->failure[0] != '\0') {                                         \
            printf("FAIL spool_states: %s: line %d: %s; %s\n", scenario, __LINE__, #x, \
                   (m)->failure);                                                      \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static struct model *start(const char *name, uint64_t capacity, uint64_t reserve)
{
    struct spool_settings s = {
        .segment_bytes = SEGMENT, .spare_count = 2, .reserve_bytes = reserve};
    scenario = name;
    sim_disk_init(11);
    sim_disk_capacity(capacity);
    return model_create(11, &s);
}

static void end(struct model *m)
{
    if (m->spool != NULL)
        sim_disk_crash();
    model_destroy(&m);
    sim_disk_fini();
    printf("spool_states: %s: ok\n", scenario);
}

static void restart(struct model *m)
{
    sim_disk_crash();
    model_close(m);
    CHECK(m, model_open(m) == 0);
    model_settle(m);
    model_read_all(m);
    CHECK(m, m->lost == 0);
}

static void settle(struct model *m)
{
    model_drain(m, TURNS);
    for (int i = 0; i < 16; i++)
        model_drain(m, TURNS);
}

/* Mail until it is refused; the answer. */
static int fill(struct model *m)
{
    for (;;) {
        int r = model_enqueue(m, MAIL_BYTES, 0);
        if (r == -ENOBUFS && m->count < MODEL_MESSAGES) {
            model_drain(m, TURNS);
            r = model_enqueue(m, MAIL_BYTES, 0);
        }
        if (r < 0)
            return r;
        if (m->count % 8 == 0)
            model_drain(m, TURNS);
    }
}

static unsigned deliver(struct model *m, unsigned most)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->count && n < most; i++) {
        if (!m->messages[i].known || m->messages[i].outstanding == 0)
            continue;
        int r = model_outcome(m, RECORD_DONE, i, m->messages[i].outstanding);
        CHECK(m, r == 0);
        if (++n % 8 == 0)
            model_drain(m, TURNS);
    }
    settle(m);
    return n;
}

static void test_full(void)
{
    struct model *m = start("full disk", 16 * SEGMENT, 4 * SEGMENT);
    CHECK(m, model_open(m) == 0);
    CHECK(m, fill(m) == -ENOSPC);
    CHECK(m, spool_health(m->spool) == SPOOL_FULL);
    unsigned accepted = m->count;
    CHECK(m, accepted > 200);
    settle(m);
    CHECK(m, spool_health(m->spool) == SPOOL_FULL);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == -ENOSPC);
    /* Restarts alone cost no room; each with a fate costs a segment, and the mark leaves some for
     * that. */
    for (unsigned i = 0; i < 12; i++) {
        restart(m);
        settle(m);
        if (i >= 4)
            continue;
        CHECK(m, model_outcome(m, RECORD_DEFER, i, m->messages[i].rcpts) == 0);
        settle(m);
    }
    /* Fates go on, and with them mail comes back by itself. */
    CHECK(m, deliver(m, accepted * 3 / 4) == accepted * 3 / 4);
    CHECK(m, spool_health(m->spool) == SPOOL_OK);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    restart(m);
    CHECK(m, deliver(m, MODEL_MESSAGES) > 0);
    end(m);
}

/* Full of segments in which nothing lives any more, and nobody appends anything: room comes back
 * all the same. */
static void test_full_of_dead(void)
{
    struct model *m = start("full of dead segments", 16 * SEGMENT, 4 * SEGMENT);
    struct spool_usage u;
    CHECK(m, model_open(m) == 0);
    CHECK(m, fill(m) == -ENOSPC);
    for (unsigned i = 0; i < m->count; i++) { /* with few turns, since a segment leaves in each */
        if (m->messages[i].known)
            CHECK(m, model_outcome(m, RECORD_DONE, i, m->messages[i].outstanding) == 0);
    }
    while (m->waits != NULL) {
        spool_turn(m->spool, m->now_ms);
        sim_disk_run();
    }
    restart(m);
    spool_usage(m->spool, &u);
    CHECK(m, u.segments > 5 && u.live_bytes == 0);
    for (int i = 0; i < 40; i++)
        model_drain(m, TURNS);
    spool_usage(m->spool, &u);
    CHECK(m, u.segments <= 2);
    CHECK(m, spool_health(m->spool) == SPOOL_OK);
    end(m);
}

static void test_mark(void)
{
    struct model *m = start("room below the mark", 64 * SEGMENT, 100ull * SEGMENT);
    CHECK(m, model_open(m) == 0);
    CHECK(m, spool_health(m->spool) == SPOOL_FULL);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == -ENOSPC);
    sim_disk_capacity(500ull * SEGMENT);
    model_drain(m, 1); /* measured once a second */
    m->now_ms += 2000;
    model_drain(m, 2);
    CHECK(m, spool_health(m->spool) == SPOOL_OK);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    CHECK(m, m->acked == 1);
    end(m);
}

static void test_no_room(void)
{
    struct model *m = start("no room for one segment", SEGMENT / 2, 0);
    CHECK(m, model_open(m) == -ENOSPC);
    end(m);
    m = start("room for one segment only", SEGMENT + SEGMENT / 2, 0);
    CHECK(m, model_open(m) == 0);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == -ENOSPC);
    end(m);
}

static void test_sick(void)
{
    struct model *m = start("sick disk", 200 * SEGMENT, 0);
    CHECK(m, model_open(m) == 0);
    for (unsigned i = 0; i < 20; i++)
        CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    CHECK(m, m->acked == 20);

    /* One failed commit: its mail is refused, the next goes to a new segment. */
    struct spool_usage u;
    spool_usage(m->spool, &u);
    uint64_t head = u.head_segment;
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    sim_disk_fault(SIM_EIO, 1);
    settle(m);
    CHECK(m, m->failed == 1);
    CHECK(m, spool_health(m->spool) == SPOOL_OK);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    spool_usage(m->spool, &u);
    CHECK(m, m->acked == 21);
    CHECK(m, u.head_segment > head && u.failed_commits == 1);
    model_read_all(m);

    /* All writes fail: sick until they no longer do, within about a second. */
    sim_disk_fault_all(SIM_EIO);
    for (int i = 0; i < 3; i++) {
        (void)model_enqueue(m, MAIL_BYTES, 0);
        model_drain(m, 20);
    }
    CHECK(m, spool_health(m->spool) == SPOOL_SICK);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == -EIO);
    CHECK(m, model_outcome(m, RECORD_DONE, 0, m->messages[0].rcpts) == -EIO);
    model_drain(m, TURNS); /* 40 s of it */
    CHECK(m, spool_health(m->spool) == SPOOL_SICK);
    model_read_all(m);
    CHECK(m, m->lost == 0);
    sim_disk_heal();
    m->now_ms += 1500;
    for (int i = 0; i < 30; i++)
        model_drain(m, 1);
    CHECK(m, spool_health(m->spool) == SPOOL_OK);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    CHECK(m, m->acked == 22);
    restart(m);
    end(m);
}

/* The disk answers nothing: buffers fill, then appends are told to wait, fates later than mail. */
static void test_backlog(void)
{
    struct model *m = start("slow disk", 2000ull * SEGMENT, 0);
    m->settings.segment_bytes = 128ull << 20;
    sim_disk_capacity(2ull << 30);
    CHECK(m, model_open(m) == 0);
    int r = 0;
    for (unsigned i = 0; i < MODEL_MESSAGES && r == 0; i++)
        r = model_enqueue(m, 120 << 10, 0);
    CHECK(m, r == -ENOBUFS);
    CHECK(m, m->count > 64 * 7);
    struct spool_append a = {.type = RECORD_DOT, .fate = true, .meta = span_str("x")};
    struct record_place place;
    CHECK(m, spool_append(m->spool, &a, NULL, &place) == 0);
    /* What is not durable cannot be read yet. */
    struct spool_read read = {.on_read = NULL};
    CHECK(m, spool_read(m->spool, &read, &place) == -ENOBUFS);
    model_drain(m, TURNS);
    CHECK(m, m->acked == m->count);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    end(m);
}

static unsigned called;
static int last_res;
static void on_sync(struct spool_wait *w, int res)
{
    (void)w;
    called++;
    last_res = res;
}

static void test_sync(void)
{
    struct model *m = start("sync", 64 * SEGMENT, 0);
    struct spool_wait w = {.on_durable = on_sync};
    CHECK(m, model_open(m) == 0);
    spool_sync(m->spool, &w);
    CHECK(m, called == 0);
    model_drain(m, 1);
    CHECK(m, called == 1 && last_res == 0);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    spool_sync(m->spool, &w);
    spool_turn(m->spool, m->now_ms);
    CHECK(m, called == 1); /* the commit is in flight */
    model_drain(m, TURNS);
    CHECK(m, called == 2 && last_res == 0 && m->acked == 1);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    struct spool_wait w2 = {.on_durable = on_sync};
    spool_sync(m->spool, &w2);
    sim_disk_fault(SIM_EIO, 1);
    model_drain(m, TURNS);
    CHECK(m, called == 3 && last_res == -EIO);
    end(m);
}

static void test_foreign(void)
{
    struct model *m = start("a newer version", 64 * SEGMENT, 0);
    CHECK(m, model_open(m) == 0);
    CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
    settle(m);
    sim_disk_crash();
    model_close(m);
    static const char name[] = "seg-0000000000000001.log";
    struct span f = sim_disk_peek("shard0", name);
    uint8_t header[68];
    memcpy(header, f.p, sizeof header);
    uint8_t changed[68];
    memcpy(changed, header, sizeof changed);
    changed[8] = 2; /* version */
    struct writer w = writer_of(changed + 64, 4);
    put_u32(&w, crc32c(0, span_of(changed, 64)));
    sim_disk_poke("shard0", name, 0, span_of(changed, sizeof changed));
    CHECK(m, model_open(m) == -EILSEQ);
    sim_disk_poke("shard0", name, 0, span_of(header, sizeof header));
    restart(m);
    end(m);
}

/* Records with long metas: the footer would be as large as the segment, so there is none, and a
 * restart scans. */
static void test_no_footer(void)
{
    struct model *m = start("segments without a footer", 64 * SEGMENT, 0);
    static char meta[1500];
    memset(meta, 'm', sizeof meta);
    CHECK(m, model_open(m) == 0);
    for (unsigned i = 0; i < 300; i++) {
        struct spool_append a = {.type = RECORD_TAIL, .fate = true, .meta = span_of(meta, 1500)};
        CHECK(m, spool_append(m->spool, &a, NULL, NULL) == 0);
        if (i % 10 == 0)
            model_drain(m, TURNS);
        if (i == 290) {
            struct spool_usage u;
            spool_usage(m->spool, &u);
            CHECK(m, u.head_segment >= 3); /* more than two thirds of each segment are used */
        }
    }
    settle(m);
    restart(m);
    CHECK(m, spool_facts(m->spool)->indexed_segments == 0);
    end(m);
}

/* The only segment dies when the next one begins: it must not leave before the ledger in that one
 * is durable. */
static void test_ledger(void)
{
    struct model *m = start("the last ledger", 64 * SEGMENT, 0);
    struct spool_usage u;
    CHECK(m, model_open(m) == 0);
    do {
        CHECK(m, model_enqueue(m, MAIL_BYTES, 0) == 0);
        settle(m);
        deliver(m, 1);
        spool_usage(m->spool, &u);
    } while (u.head_segment == 1 && model_enqueue(m, MAIL_BYTES, 0) == 0);
    for (;;) { /* up to the switch, without a completion of the disk after it */
        spool_usage(m->spool, &u);
        uint64_t head = u.head_segment;
        CHECK(m, model_outcome(m, RECORD_DOT, 0, 1) == 0);
        spool_usage(m->spool, &u);
        if (u.head_segment != head && head > 3)
            break;
        if (u.records % 32 == 0)
            deliver(m, MODEL_MESSAGES);
    }
    for (int i = 0; i < 40; i++)
        spool_turn(m->spool, m->now_ms += 10);
    restart(m);
    end(m);
}

/*
 * A failed commit that reads as if it had worked, a restart of the process alone that builds on it,
 * then a power cut: what the restart saw must not be gone.
 */
static void test_visible(void)
{
    unsigned seen = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct model *m = start("visible but not durable", 64 * SEGMENT, 0);
        sim_disk_init(seed);
        CHECK(m, model_open(m) == 0);
        CHECK(m, model_enqueue(m, 100, 0) == 0);
        settle(m);
        CHECK(m, model_enqueue(m, 100, 0) == 0);
        sim_disk_fault(SIM_EIO, 1);
        spool_turn(m->spool, m->now_ms);
        sim_disk_run();
        CHECK(m, m->failed == 1);
        sim_disk_run();
        model_close(m);
        CHECK(m, model_open(m) == 0);
        model_settle(m);
        seen += m->messages[1].known;
        restart(m);
        sim_disk_crash();
        model_destroy(&m);
        sim_disk_fini();
    }
    struct model *m = start(scenario, 64 * SEGMENT, 0);
    CHECK(m, seen > 2);
    CHECK(m, seen < 38);
    end(m);
}

/* Sparse segments are compacted, and then there is an end to it: even where padding is most of the
 * log. */
static void test_compaction(void)
{
    static const uint32_t sizes[] = {100, MAIL_BYTES, 20000};
    for (unsigned k = 0; k < ARRAY_COUNT(sizes); k++) {
        struct model *m = start("compaction", 2000ull * SEGMENT, 0);
        struct spool_usage u, later;
        CHECK(m, model_open(m) == 0);
        for (unsigned i = 0; i < 900; i++) {
            CHECK(m, model_enqueue(m, sizes[k], 0) == 0);
            model_drain(m, TURNS);
        }
        for (unsigned i = 0; i < 900; i++) {
            if (i % 10 != 0)
                CHECK(m, model_outcome(m, RECORD_DONE, i, m->messages[i].rcpts) == 0);
            if (i % 16 == 0)
                model_drain(m, TURNS);
        }
        for (unsigned i = 0; i < 400; i++)
            model_drain(m, 4);
        spool_usage(m->spool, &u);
        CHECK(m, u.copied_messages > 0);
        CHECK(m, u.segments <= 1 + 8 + 4 * (u.live_bytes / SEGMENT + 1));
        for (unsigned i = 0; i < 100; i++)
            model_drain(m, 4);
        spool_usage(m->spool, &later);
        CHECK(m, later.copied_messages == u.copied_messages);
        /* Held mail that came one by one is mostly padding: it is not copied around for ever. */
        for (unsigned i = 0; i < 90; i++) {
            CHECK(m, model_enqueue(m, sizes[k], 0) == 0);
            model_drain(m, TURNS);
        }
        for (unsigned i = 0; i < 400; i++)
            model_drain(m, 4);
        spool_usage(m->spool, &u);
        for (unsigned i = 0; i < 100; i++)
            model_drain(m, 4);
        spool_usage(m->spool, &later);
        CHECK(m, later.copied_messages == u.copied_messages);
        restart(m);
        end(m);
    }
}

int main(int argc, char **argv)
{
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    log_open(verbose ? 2 : open("/dev/null", O_WRONLY), verbose ? LOG_DBG : LOG_ERR, "spool");
    test_full();
    test_full_of_dead();
    test_mark();
    test_no_room();
    test_sick();
    test_backlog();
    test_sync();
    test_foreign();
    test_no_footer();
    test_ledger();
    test_visible();
    test_compaction();
    return 0;
}
