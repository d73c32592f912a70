/*
 * spool_speed - the spool on a real disk: group commits, and the recovery of a large queue.
 * Measures; passes no judgement.
 *
 *   spool_speed DIRECTORY [--seconds 2] [--bytes 2000] [--recover 1000000]
 *
 * First 1, 16, 64 and 256 simulated sessions, each of which appends one message and waits until it
 * is durable; then so many messages are queued, the spool is closed and opened again. The directory
 * is emptied afterwards.
 */
#include "base/log.h"
#include "worker/io/io.h"
#include "worker/spool/spool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { SESSIONS_MAX = 256, BODY_MAX = 200 << 10, SAMPLES = 1 << 20, NAMES = 4096, NAME = 64 };

struct session {
    struct spool_wait wait; /* first */
    uint64_t started_ns;
    bool waits;
};

static struct {
    struct io *io;
    struct disk *disk;
    struct spool *spool;
    struct session sessions[SESSIONS_MAX];
    uint32_t samples[SAMPLES];
    unsigned sample_count;
    uint64_t durable, next_id, applied, rcpts;
    uint32_t body_bytes;
    bool keep; /* what is appended lives */
    char names[NAMES][NAME];
    unsigned name_count;
} t;

static uint8_t body[BODY_MAX];

static uint64_t now_ns(clockid_t clock)
{
    struct timespec s;
    clock_gettime(clock, &s);
    return (uint64_t)s.tv_sec * 1000000000u + (uint64_t)s.tv_nsec;
}

static void apply(void *ctx, const struct record_view *v)
{
    struct enq e;
    (void)ctx;
    t.applied++;
    if (v->head.type == RECORD_ENQ && enq_read(v->meta, &e) == 0) {
        t.rcpts += e.rcpt_count;
        spool_live(t.spool, v->place.segment, v->place.bytes);
    }
}
static void damage(void *ctx, const struct record_place *where, const char *why)
{
    (void)ctx;
    printf("damage: segment %llu offset %u: %s\n", (unsigned long long)where->segment,
           where->offset, why);
}
static void snapshot(void *ctx)
{
    uint8_t meta[64];
    struct writer w = writer_of(meta, sizeof meta);
    struct ledger l = {.accepted = t.next_id};
    struct spool_append a = {.type = RECORD_LEDGER, .fate = true};
    (void)ctx;
    ledger_put(&w, &l);
    a.meta = span_of(meta, w.n);
    if (spool_append(t.spool, &a, NULL, NULL) < 0)
        printf("no snapshot\n");
}
static bool copy(void *ctx, struct msg_id id, uint64_t segment)
{
    (void)ctx, (void)id, (void)segment;
    return false;
}

static int append(struct spool_wait *w)
{
    uint8_t meta[512];
    struct writer mw = writer_of(meta, sizeof meta);
    struct record_place place;
    struct enq e = {.id = {1, ++t.next_id},
                    .body_bytes = t.body_bytes,
                    .tenant = span_str("acme"),
                    .helo = span_str("client.example.org"),
                    .sender = span_str("newsletter@sender.example.org"),
                    .rcpt_count = 1};
    struct enq_rcpt r = {.address = span_str("some.recipient@domain-42.example.net")};
    enq_put(&mw, &e);
    enq_put_rcpt(&mw, &r);
    struct spool_append a = {.type = RECORD_ENQ,
                             .lane = 1,
                             .position = t.next_id,
                             .meta = span_of(meta, mw.n),
                             .rest = {span_of(body, t.body_bytes)},
                             .rest_count = 1};
    int err = spool_append(t.spool, &a, w, &place);
    if (err == 0 && t.keep)
        spool_live(t.spool, place.segment, place.bytes);
    return err;
}

static void on_durable(struct spool_wait *w, int res)
{
    struct session *s = (struct session *)w;
    s->waits = false;
    if (res < 0)
        return;
    t.durable++;
    if (t.sample_count < SAMPLES)
        t.samples[t.sample_count++] = (uint32_t)(now_ns(CLOCK_MONOTONIC) - s->started_ns);
}

static void turn(void)
{
    spool_turn(t.spool, now_ns(CLOCK_MONOTONIC) / 1000000);
    io_turn(t.io, 1000000);
}

static int open_all(const char *path)
{
    static const struct spool_owner owner = {
        .apply = apply, .damage = damage, .snapshot = snapshot, .copy = copy};
    struct spool_settings s = {.segment_bytes = LIMIT_SEGMENT_BYTES_PRESET, .spare_count = 2};
    int err = disk_open(&t.disk, t.io, path);
    if (err == 0)
        err = spool_open(&t.spool, t.disk, &s, &owner);
    if (err < 0)
        printf("cannot open: %d\n", err);
    return err;
}

static void close_all(void)
{
    for (unsigned i = 0; i < 100000 && !spool_idle(t.spool); i++)
        turn();
    spool_close(&t.spool);
    disk_close(&t.disk);
}

static int by_time(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void commits(unsigned sessions, double seconds)
{
    struct spool_usage before, after;
    spool_usage(t.spool, &before);
    t.durable = t.sample_count = 0;
    uint64_t from = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t until = from + (uint64_t)(seconds * 1e9);
    while (now_ns(CLOCK_MONOTONIC) < until) {
        for (unsigned i = 0; i < sessions; i++) {
            struct session *s = &t.sessions[i];
            if (s->waits)
                continue;
            s->wait.on_durable = on_durable;
            s->started_ns = now_ns(CLOCK_MONOTONIC);
            s->waits = append(&s->wait) == 0;
        }
        turn();
    }
    double took = (double)(now_ns(CLOCK_MONOTONIC) - from) / 1e9;
    cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    spool_usage(t.spool, &after);
    qsort(t.samples, t.sample_count, sizeof t.samples[0], by_time);
    double n = (double)(after.commits - before.commits);
    printf("%4u sessions: %8.0f commits/s %9.0f records/s  p50 %5.0f us  p99 %6.0f us  "
           "%5.1f us CPU/commit\n",
           sessions, n / took, (double)t.durable / took,
           t.sample_count == 0 ? 0 : t.samples[t.sample_count / 2] / 1e3,
           t.sample_count == 0 ? 0 : t.samples[(uint64_t)t.sample_count * 99 / 100] / 1e3,
           n == 0 ? 0 : (double)cpu / 1e3 / n);
}

static int recover(const char *path, uint64_t count)
{
    t.keep = true;
    uint64_t from = now_ns(CLOCK_MONOTONIC);
    for (uint64_t i = 0; i < count; i++) {
        while (append(NULL) < 0)
            turn();
        if (i % 64 == 63)
            turn();
    }
    close_all();
    printf("queued %llu messages in %.1f s\n", (unsigned long long)count,
           (double)(now_ns(CLOCK_MONOTONIC) - from) / 1e9);
    t.applied = 0;
    from = now_ns(CLOCK_MONOTONIC);
    uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    if (open_all(path) < 0)
        return 1;
    const struct spool_facts *f = spool_facts(t.spool);
    printf("recovered %llu records of %llu segments (%llu by index) in %.0f ms, %.0f ms of CPU\n",
           (unsigned long long)t.applied, (unsigned long long)f->recovered_segments,
           (unsigned long long)f->indexed_segments, (double)(now_ns(CLOCK_MONOTONIC) - from) / 1e6,
           (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e6);
    return 0;
}

static void on_name(void *ctx, const char *name, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    if (t.name_count < NAMES)
        (void)snprintf(t.names[t.name_count++], NAME, "%s", name);
}

/* Removes the segments and spares. */
static void empty(const char *path)
{
    if (disk_open(&t.disk, t.io, path) < 0)
        return;
    t.name_count = 0;
    if (disk_list(t.disk, on_name, NULL) == 0) {
        for (unsigned i = 0; i < t.name_count; i++) {
            if (disk_unlink(t.disk, t.names[i]) < 0)
                printf("cannot remove %s\n", t.names[i]);
        }
    }
    disk_close(&t.disk);
}

int main(int argc, char **argv)
{
    double seconds = 2;
    uint64_t count = 1000000;
    t.body_bytes = 2000;
    if (argc < 2) {
        printf("spool_speed DIRECTORY [--seconds 2] [--bytes 2000] [--recover 1000000]\n");
        return 2;
    }
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--bytes") == 0)
            t.body_bytes = (uint32_t)strtoul(argv[i + 1], NULL, 10) % BODY_MAX;
        else if (strcmp(argv[i], "--recover") == 0)
            count = strtoull(argv[i + 1], NULL, 10);
    }
    struct io_settings ios = {.conn_count_max = 16, .recv_buffer_count = 64};
    int err = io_create(&t.io, &ios);
    if (err == 0)
        err = io_enable(t.io);
    if (err < 0) {
        printf("%s\n", io_explain(err));
        return 1;
    }
    if (open_all(argv[1]) < 0)
        return 1;
    struct spool_usage u;
    spool_usage(t.spool, &u);
    printf("%s, %u-byte bodies\n", u.direct ? "O_DIRECT + RWF_DSYNC" : "page cache + RWF_DSYNC",
           t.body_bytes);
    static const unsigned sessions[] = {1, 16, 64, 256};
    for (unsigned i = 0; i < ARRAY_COUNT(sessions) && seconds > 0; i++)
        commits(sessions[i], seconds);
    int res = count > 0 ? recover(argv[1], count) : 0;
    if (t.spool != NULL)
        close_all();
    empty(argv[1]);
    io_destroy(&t.io);
    return res;
}
