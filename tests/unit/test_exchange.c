/*
 * The rings between workers and what runs over them: frames arrive whole, once and in order
 * whatever their sizes; a full ring says so and always gets free again; a sleeping consumer is
 * always woken; what the other side broke is noticed.
 */
#include "base/crc.h"
#include "base/rng.h"
#include "proto/control.h"
#include "tests/sim/sim_conn.h"
#include "worker/exchange/exchange.h"
#include "worker/exchange/ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { SMALL = 3 * LIMIT_BLOCK_BYTES /* 8 KB of data */, SEEDS = 200, STRESS_FRAMES = 300000 };

/* Named here, so that the linker takes the simulated side before it meets the real one. */
typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)io_watch_start,
                                          (any_function *)io_create};

static int memory(size_t bytes)
{
    int fd = memfd_create("ring", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static void map_both(struct ring *put, struct ring *take, size_t bytes)
{
    int fd = memory(bytes);
    assert_int_equal(ring_map(put, fd), 0);
    assert_int_equal(ring_map(take, fd), 0);
    close(fd);
}

static int put_bytes_of(struct ring *r, const uint8_t *p, size_t n, bool urgent)
{
    struct span parts[3] = {span_of(p, n / 3), span_of(p + n / 3, 0),
                            span_of(p + n / 3, n - n / 3)};
    return ring_put(r, parts, 3, urgent);
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

/* Sizes and turns by chance, against a plain count of what must come next. */
static void test_order(void **state)
{
    (void)state;
    static uint8_t bytes[8192], expected[8192];
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct ring put, take;
        struct rng dice;
        uint64_t in = 0, out = 0;
        size_t sizes[4096];
        rng_seed(&dice, seed);
        map_both(&put, &take, SMALL);
        for (int i = 0; i < 3000; i++) {
            size_t n = 1 + (size_t)rng_below(&dice, rng_below(&dice, 3) == 0 ? 3000 : 60);
            fill(bytes, n, in);
            if (rng_below(&dice, 2) == 0) {
                int r = put_bytes_of(&put, bytes, n, rng_below(&dice, 4) == 0);
                assert_true(r == 0 || (r == -ENOBUFS && in > out));
                if (r == 0)
                    sizes[in++ % 4096] = n;
                continue;
            }
            struct span f;
            bool bad;
            bool any = ring_peek(&take, &f, &bad);
            assert_false(bad);
            assert_int_equal(any, in > out);
            if (!any)
                continue;
            assert_int_equal(f.n, sizes[out % 4096]);
            fill(expected, f.n, out++);
            assert_memory_equal(f.p, expected, f.n);
            ring_next(&take, f);
        }
        ring_unmap(&put);
        ring_unmap(&take);
    }
}

/* The largest frame fits an empty ring wherever that stands: or who waits for room waits for
   ever. */
static void test_empty_ring_takes_any_frame(void **state)
{
    (void)state;
    static uint8_t bytes[RING_FRAME_MAX];
    static const size_t sizes[] = {1, 3000, 70000, 300000, RING_FRAME_MAX};
    struct ring put, take;
    struct rng dice;
    struct span f;
    bool bad;
    rng_seed(&dice, 1);
    map_both(&put, &take, EXCHANGE_RING_BYTES);
    for (int i = 0; i < 3000; i++) {
        size_t n = sizes[rng_below(&dice, ARRAY_COUNT(sizes))];
        assert_int_equal(put_bytes_of(&put, bytes, n, false), 0);
        assert_true(ring_peek(&take, &f, &bad));
        assert_int_equal(f.n, n);
        ring_next(&take, f);
    }
    struct span all = span_of(bytes, sizeof bytes), none = span_of(bytes, 0);
    struct span two[2] = {all, span_of(bytes, 1)};
    assert_int_equal(ring_put(&put, two, 2, true), -E2BIG);
    assert_int_equal(ring_put(&put, &none, 1, true), -E2BIG);
    ring_unmap(&put);
    ring_unmap(&take);
}

static void test_full_keeps_room_for_answers(void **state)
{
    (void)state;
    static const uint8_t bytes[100];
    struct ring put, take;
    unsigned frames = 0, answers = 0, taken = 0;
    struct span f;
    bool bad;
    map_both(&put, &take, SMALL);
    while (put_bytes_of(&put, bytes, sizeof bytes, false) == 0)
        frames++;
    assert_int_equal(put_bytes_of(&put, bytes, sizeof bytes, false), -ENOBUFS);
    while (put_bytes_of(&put, bytes, sizeof bytes, true) == 0)
        answers++;
    assert_true(frames > 3 * 8192 / 4 / 112 - 3);
    assert_true(answers > 8192 / 4 / 112 - 3);
    while (ring_peek(&take, &f, &bad)) {
        ring_next(&take, f);
        taken++;
    }
    assert_int_equal(taken, frames + answers);
    assert_int_equal(put_bytes_of(&put, bytes, sizeof bytes, false), 0);
    ring_unmap(&put);
    ring_unmap(&take);
}

/* A producer gone mad: whatever length stands there, nothing is read outside of the ring. */
static void test_malformed(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 8192 - 7, 8192, RING_FRAME_MAX, RING_FRAME_MAX + 1,
                                       UINT64_MAX - 1, 200};
    static const uint8_t bytes[100];
    for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
        struct ring put, take;
        struct span f;
        bool bad;
        map_both(&put, &take, SMALL);
        assert_int_equal(put_bytes_of(&put, bytes, sizeof bytes, false), 0);
        memcpy(put.data, &lengths[i], 8);
        assert_false(ring_peek(&take, &f, &bad));
        assert_true(bad);
        ring_unmap(&put);
        ring_unmap(&take);
    }
}

static void test_closed_after_the_last_frame(void **state)
{
    (void)state;
    struct ring put, take;
    struct span f;
    bool bad;
    map_both(&put, &take, SMALL);
    assert_int_equal(put_bytes_of(&put, (const uint8_t *)"abc", 3, false), 0);
    assert_false(ring_closed(&take));
    ring_close(&put);
    assert_true(ring_closed(&take));
    assert_true(ring_peek(&take, &f, &bad));
    ring_unmap(&put);
    ring_unmap(&take);
}

/* --- two threads --- */

struct stress {
    struct ring put, take;
    int wake_fd;
    uint64_t wakes;
};

static void *produce(void *ctx)
{
    struct stress *s = ctx;
    struct rng dice;
    static uint8_t bytes[3000];
    rng_seed(&dice, 99);
    for (uint64_t i = 0; i < STRESS_FRAMES; i++) {
        size_t n = 12 + (size_t)rng_below(&dice, i % 64 == 0 ? 2900 : 80);
        memcpy(bytes, &i, 8);
        uint32_t crc = crc32c(0, span_of(bytes, 8));
        memcpy(bytes + 8, &crc, 4);
        memset(bytes + 12, (int)(i & 255), n - 12);
        while (put_bytes_of(&s->put, bytes, n, false) == -ENOBUFS)
            ;
        uint64_t one = 1;
        if (ring_wants_wake(&s->put)) {
            s->wakes++;
            if (write(s->wake_fd, &one, sizeof one) != sizeof one)
                return (void *)1;
        }
        if (i % 1000 == 0)
            usleep(200); /* lets the consumer fall asleep */
    }
    return NULL;
}

static void check_frame(struct span f, uint64_t i)
{
    uint64_t number;
    uint32_t crc;
    memcpy(&number, f.p, 8);
    memcpy(&crc, f.p + 8, 4);
    assert_int_equal(number, i);
    assert_int_equal(crc, crc32c(0, span_of(f.p, 8)));
    assert_true(f.n == 12 || f.p[f.n - 1] == (i & 255));
}

static void test_two_threads(void **state)
{
    (void)state;
    static struct stress s;
    struct span f;
    bool bad;
    pthread_t thread;
    map_both(&s.put, &s.take, 2 * SMALL);
    s.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(pthread_create(&thread, NULL, produce, &s), 0);
    for (uint64_t i = 0; i < STRESS_FRAMES;) {
        if (ring_peek(&s.take, &f, &bad)) {
            check_frame(f, i++);
            ring_next(&s.take, f);
            continue;
        }
        assert_false(bad);
        if (ring_sleep(&s.take)) {
            struct pollfd p = {.fd = s.wake_fd, .events = POLLIN};
            uint64_t n;
            assert_int_equal(poll(&p, 1, 10000), 1); /* or a wake was lost */
            assert_int_equal(read(s.wake_fd, &n, sizeof n), sizeof n);
        }
        ring_awake(&s.take);
    }
    void *res;
    pthread_join(thread, &res);
    assert_null(res);
    assert_true(s.wakes > 10);
    close(s.wake_fd);
    ring_unmap(&s.put);
    ring_unmap(&s.take);
}

/* --- exchange --- */

struct heard {
    unsigned frames[EXCHANGE_ACK + 1], downs, ups;
    uint64_t last_token;
    bool down_before_ack;
};
static struct heard heard[2];
static struct exchange *sides[2];
static struct peer *sender[2]; /* to whom side i may send */

static void on_frame(void *ctx, struct peer *p, const struct exchange_frame *f)
{
    struct heard *h = ctx;
    h->frames[f->kind]++;
    h->last_token = f->token;
    if (f->kind == EXCHANGE_ACK && h->downs > 0)
        h->down_before_ack = true;
    sender[h - heard] = p;
}
static void on_down(void *ctx, struct peer *p)
{
    struct heard *h = ctx;
    (void)p;
    h->downs++;
}
static void on_up(void *ctx, struct peer *p)
{
    struct heard *h = ctx;
    (void)p;
    h->ups++;
}

/* Side 0 sends to side 1, which holds slot 7. */
static void make_pair(struct io *io)
{
    struct exchange_events ev = {.on_frame = on_frame, .on_down = on_down, .on_up = on_up};
    int to = memory(SMALL), from = memory(SMALL);
    int wake[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
    memset(heard, 0, sizeof heard);
    for (unsigned i = 0; i < 2; i++) {
        ev.ctx = &heard[i];
        assert_int_equal(exchange_create(&sides[i], io, &ev), 0);
        int fds[4] = {dup(i == 0 ? to : from), dup(i == 0 ? from : to), dup(wake[1 - i]),
                      dup(wake[i])};
        assert_int_equal(
            exchange_peer_up(sides[i], 100 + 1 - i, i == 0 ? 7 : CONTROL_NO_SLOT, fds), 0);
    }
    close(to);
    close(from);
    close(wake[0]);
    close(wake[1]);
    assert_int_equal(heard[0].ups, 1);
    assert_int_equal(heard[1].ups, 0);
    sender[0] = exchange_holder(sides[0], 7);
    assert_non_null(sender[0]);
    assert_null(exchange_holder(sides[1], 7));
}

static struct io *make_io(void)
{
    struct io *io;
    struct io_settings set = {.conn_count_max = 16, .recv_buffer_count = 64};
    for (size_t i = 0; i < ARRAY_COUNT(simulated); i++)
        assert_non_null(simulated[i]);
    assert_int_equal(io_create(&io, &set), 0);
    assert_int_equal(io_enable(io), 0);
    return io;
}

static void end_pair(struct io *io)
{
    exchange_destroy(&sides[0]);
    exchange_destroy(&sides[1]);
    io_destroy(&io);
}

static void send_kind(unsigned from, uint8_t kind, uint64_t token)
{
    struct exchange_frame f = {.kind = kind, .token = token, .lane = 5, .res = -EIO,
                               .meta = span_str("meta"), .rest = span_str("rest")};
    assert_int_equal(exchange_send(sender[from], &f), 0);
    exchange_flush(sides[from]);
}

/* The owner committed, answered and died: the answer counts, what else it sent does not. */
static void test_last_answers_of_the_dead(void **state)
{
    (void)state;
    struct io *io = make_io();
    make_pair(io);
    send_kind(0, EXCHANGE_ENQ, 41);
    assert_false(exchange_drain(sides[1]));
    assert_int_equal(heard[1].frames[EXCHANGE_ENQ], 1);
    assert_int_equal(heard[1].last_token, 41);
    send_kind(1, EXCHANGE_ENQ, 42);
    send_kind(1, EXCHANGE_ACK, 41);
    exchange_peer_down(sides[0], 101);
    assert_int_equal(heard[0].frames[EXCHANGE_ACK], 1);
    assert_int_equal(heard[0].frames[EXCHANGE_ENQ], 0);
    assert_int_equal(heard[0].downs, 1);
    assert_false(heard[0].down_before_ack);
    assert_null(exchange_holder(sides[0], 7));
    end_pair(io);
}

static void test_orderly_end(void **state)
{
    (void)state;
    struct io *io = make_io();
    make_pair(io);
    send_kind(0, EXCHANGE_ENQ, 1);
    exchange_drain(sides[1]);
    send_kind(1, EXCHANGE_ACK, 1);
    exchange_leave(sides[1]);
    assert_int_equal(heard[0].downs, 0);
    exchange_drain(sides[0]);
    assert_int_equal(heard[0].frames[EXCHANGE_ACK], 1);
    assert_int_equal(heard[0].downs, 1);
    assert_false(heard[0].down_before_ack);
    assert_null(exchange_holder(sides[0], 7));
    exchange_drain(sides[0]);
    assert_int_equal(heard[0].downs, 1);
    end_pair(io);
}

/* Nobody waits for the answer of a peer that is not understood. */
static void test_malformed_frame_takes_the_peer_down(void **state)
{
    (void)state;
    struct io *io = make_io();
    make_pair(io);
    send_kind(0, EXCHANGE_ENQ, 1);
    exchange_drain(sides[1]);
    send_kind(1, EXCHANGE_ACK + 1, 1);
    exchange_drain(sides[0]);
    assert_int_equal(heard[0].downs, 1);
    assert_null(exchange_holder(sides[0], 7));
    end_pair(io);
}

static void test_sleep_and_full(void **state)
{
    (void)state;
    struct io *io = make_io();
    make_pair(io);
    assert_true(exchange_sleep(sides[1]));
    exchange_awake(sides[1]);
    struct exchange_frame f = {
        .kind = EXCHANGE_CHUNK, .meta = span_str("m"), .rest = span_str("r")};
    unsigned sent = 0;
    while (exchange_send(sender[0], &f) == 0)
        sent++;
    assert_true(sent > 50);
    assert_false(exchange_sleep(sides[1]));
    exchange_awake(sides[1]);
    while (exchange_drain(sides[1]))
        ;
    assert_int_equal(heard[1].frames[EXCHANGE_CHUNK], sent);
    assert_int_equal(exchange_send(sender[0], &f), 0);
    end_pair(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_empty_ring_takes_any_frame),
        cmocka_unit_test(test_full_keeps_room_for_answers),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_closed_after_the_last_frame),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_last_answers_of_the_dead),
        cmocka_unit_test(test_orderly_end),
        cmocka_unit_test(test_malformed_frame_takes_the_peer_down),
        cmocka_unit_test(test_sleep_and_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
