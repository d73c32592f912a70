/*
 * link_carrier_slot: the link's end of a worker's stream. A reader that takes bytes in odd pieces
 * gets whole frames in order; what is thrown away are whole frames.
 */
#include "base/rng.h"
#include "master/link/carrier_slot.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { SEEDS = 300, STEPS = 400 };

struct reader {
    struct carrier_slot slot;
    struct rng rng;
    int fd;
    uint32_t sent, got; /* the frames' numbers, in `wave` of their heads */
    uint32_t lost;
    uint8_t in[2 << 20];
    size_t n;
};
static struct reader r;
static uint8_t payload[LIMIT_CARRIER_PAYLOAD_BYTES];

static void setup_reader(uint64_t seed)
{
    int fds[2], small = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    r.sent = r.got = r.lost = 0;
    r.n = 0;
    r.fd = fds[1];
    rng_seed(&r.rng, seed);
    r.slot = (struct carrier_slot){.fd = -1};
    assert_int_equal(carrier_slot_open(&r.slot, fds[0], 1), 0);
}

/* One to eight frames at once: heads with payloads, or alone. */
static void send_some(void)
{
    static uint8_t heads[8][CARRIER_HEAD_BYTES];
    struct iovec pieces[16];
    unsigned count = 0, frames = 1 + (unsigned)rng_below(&r.rng, 8);
    bool alone = rng_below(&r.rng, 4) == 0;
    for (unsigned i = 0; i < (alone ? 1 : frames); i++) {
        uint32_t bytes = alone ? 0 : 1 + (uint32_t)rng_below(&r.rng, i == 0 ? 100000 : 300);
        struct carrier_head h = {alone ? CARRIER_UP : CARRIER_DATA, 0, bytes, r.sent++, "a"};
        carrier_head_write(heads[i], &h);
        pieces[count++] = (struct iovec){heads[i], CARRIER_HEAD_BYTES};
        if (!alone)
            pieces[count++] = (struct iovec){payload, bytes};
    }
    assert_int_equal(carrier_slot_send(&r.slot, pieces, count, 1), 0);
}

/* Reads at most so many bytes, and checks whole frames. */
static void read_some(size_t max)
{
    struct carrier_head h;
    size_t room = sizeof r.in - r.n, at = 0;
    ssize_t n = recv(r.fd, r.in + r.n, max < room ? max : room, 0);
    if (n > 0)
        r.n += (size_t)n;
    while (r.n - at >= CARRIER_HEAD_BYTES) {
        assert_int_equal(carrier_head_read(r.in + at, &h), 0);
        if (r.n - at < CARRIER_HEAD_BYTES + h.bytes)
            break;
        assert_true(h.wave >= r.got);
        r.lost += h.wave - r.got;
        r.got = h.wave + 1;
        at += CARRIER_HEAD_BYTES + h.bytes;
    }
    memmove(r.in, r.in + at, r.n - at);
    r.n -= at;
}

static void drain(void)
{
    while (r.slot.queued > 0) {
        read_some(sizeof r.in);
        assert_int_equal(carrier_slot_flush(&r.slot, 2), 0);
    }
    for (unsigned i = 0; i < 100; i++)
        read_some(sizeof r.in);
    assert_int_equal(r.n, 0);
    assert_null(r.slot.first);
}

static void run_seed(uint64_t seed, bool discards)
{
    setup_reader(seed);
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t dice = rng_below(&r.rng, 100);
        if (dice < 45)
            send_some();
        else if (dice < 90)
            read_some(1 + rng_below(&r.rng, dice < 60 ? 60 : 300000));
        else if (dice < 97)
            assert_int_equal(carrier_slot_flush(&r.slot, 2), 0);
        else if (discards)
            carrier_slot_discard(&r.slot);
        size_t sum = 0;
        for (const struct carrier_chunk *k = r.slot.first; k != NULL; k = k->next)
            sum += k->to - k->from;
        assert_int_equal(sum, r.slot.queued);
    }
    drain();
    if (!discards) {
        assert_int_equal(r.got, r.sent);
        assert_int_equal(r.lost, 0);
    }
    close(r.fd);
    carrier_slot_close(&r.slot);
}

static void test_in_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run_seed(seed, false);
}

static void test_discard(void **state)
{
    (void)state;
    uint64_t lost = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        run_seed(seed, true);
        lost += r.lost;
    }
    assert_true(lost > SEEDS);
}

static void test_ends(void **state)
{
    (void)state;
    setup_reader(1);
    assert_int_equal(send(r.fd, "abc", 3, 0), 3);
    assert_int_equal(carrier_slot_read(&r.slot), 0);
    assert_int_equal(r.slot.to, 3);
    assert_int_equal(carrier_slot_read(&r.slot), 0);
    close(r.fd);
    assert_int_equal(carrier_slot_read(&r.slot), -EPIPE);
    struct carrier_head h = {CARRIER_UP, 0, 0, 1, "a"};
    uint8_t head[CARRIER_HEAD_BYTES];
    struct iovec piece = {head, sizeof head};
    carrier_head_write(head, &h);
    assert_int_equal(carrier_slot_send(&r.slot, &piece, 1, 1), -EPIPE);
    carrier_slot_close(&r.slot);
    assert_int_equal(r.slot.fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
