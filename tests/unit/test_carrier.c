/* carrier: a worker's end, over a real ring and socket pair; the test is the link process. */
#include "proto/carrier_frame.h"
#include "worker/carrier.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { TURN_NS = 1000000, TURNS_MAX = 5000 };

static struct {
    struct io *io;
    struct carrier *c;
    int link_fd;
    char heard[4096]; /* "up b; 3: text; " */
    unsigned frames, rooms;
    size_t bytes, last_bytes;
} t;

static void hear(const char *what, const char *text)
{
    size_t n = strlen(t.heard);
    (void)snprintf(t.heard + n, sizeof t.heard - n, "%s %s; ", what, text);
}

static void on_frame(void *ctx, const char *node, uint32_t slot, struct span payload)
{
    char text[100];
    assert_ptr_equal(ctx, &t);
    t.frames++;
    t.bytes += payload.n;
    t.last_bytes = payload.n;
    if (payload.n > 50)
        return;
    (void)snprintf(text, sizeof text, "%u %.*s", slot, (int)payload.n, (const char *)payload.p);
    hear(node, text);
}
static void on_up(void *ctx, const char *node)
{
    (void)ctx;
    hear("up", node);
}
static void on_down(void *ctx, const char *node)
{
    (void)ctx;
    hear("down", node);
}
static void on_room(void *ctx)
{
    (void)ctx;
    t.rooms++;
}
static const struct carrier_events events = {on_frame, on_up, on_down, on_room};

static void turn(void)
{
    carrier_flush(t.c);
    io_turn(t.io, TURN_NS);
}
#define until(x)                         \
    do {                                 \
        unsigned i_ = 0;                 \
        while (!(x) && i_++ < TURNS_MAX) \
            turn();                      \
        assert_true(x);                  \
    } while (0)

static void attach(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    if (t.link_fd >= 0)
        close(t.link_fd);
    t.link_fd = fds[1];
    carrier_attach(t.c, fds[0]);
}

static int setup(void **state)
{
    const struct io_settings settings = {.conn_count_max = 16, .recv_buffer_count = 64};
    (void)state;
    memset(&t, 0, sizeof t);
    t.link_fd = -1;
    assert_int_equal(io_create(&t.io, &settings), 0);
    assert_int_equal(io_enable(t.io), 0);
    assert_int_equal(carrier_create(&t.c, t.io, &events, &t), 0);
    attach();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    carrier_destroy(&t.c);
    carrier_destroy(&t.c);
    io_destroy(&t.io);
    if (t.link_fd >= 0)
        close(t.link_fd);
    return 0;
}

static size_t put_frame(uint8_t *out, enum carrier_op op, uint32_t wave, const char *text)
{
    struct carrier_head h = {op, op == CARRIER_DATA ? 3 : 0, (uint32_t)strlen(text), wave, "b"};
    carrier_head_write(out, &h);
    memcpy(out + CARRIER_HEAD_BYTES, text, h.bytes);
    return CARRIER_HEAD_BYTES + h.bytes;
}

static void say(enum carrier_op op, uint32_t wave, const char *text)
{
    uint8_t bytes[CARRIER_HEAD_BYTES + 100];
    size_t n = put_frame(bytes, op, wave, text);
    assert_int_equal(send(t.link_fd, bytes, n, 0), n);
}

/* The next frame that the worker sent; its payload in out. */
static struct carrier_head take(uint8_t *out)
{
    struct carrier_head h;
    uint8_t head[CARRIER_HEAD_BYTES];
    assert_int_equal(recv(t.link_fd, head, sizeof head, MSG_WAITALL), sizeof head);
    assert_int_equal(carrier_head_read(head, &h), 0);
    assert_int_equal(recv(t.link_fd, out, h.bytes, MSG_WAITALL), h.bytes);
    return h;
}

static void test_up_and_down(void **state)
{
    (void)state;
    uint8_t got[100];
    assert_int_equal(carrier_send(t.c, "b", 1, span_str("x")), -ENOTCONN);
    say(CARRIER_DATA, 0, "too early");
    say(CARRIER_UP, 7, "");
    say(CARRIER_DATA, 0, "hello");
    until(strstr(t.heard, "hello") != NULL);
    assert_string_equal(t.heard, "up b; b 3 hello; ");
    assert_true(carrier_is_up(t.c, "b"));
    assert_false(carrier_is_up(t.c, "z"));
    const struct span parts[] = {span_str("in "), span_str(""), span_str("parts")};
    assert_int_equal(carrier_send_parts(t.c, "b", 63, parts, 3), 0);
    turn();
    struct carrier_head h = take(got);
    assert_int_equal(h.op, CARRIER_DATA);
    assert_int_equal(h.slot, 63);
    assert_int_equal(h.wave, 7);
    assert_string_equal(h.node, "b");
    assert_memory_equal(got, "in parts", 8);
    assert_int_equal(h.bytes, 8);
    /* Again: what is sent from here on belongs to the new wave. */
    t.heard[0] = '\0';
    say(CARRIER_UP, 8, "");
    until(strcmp(t.heard, "up b; ") == 0);
    assert_int_equal(carrier_send(t.c, "b", 0, span_str("y")), 0);
    turn();
    assert_int_equal(take(got).wave, 8);
    say(CARRIER_DOWN, 8, "");
    say(CARRIER_DOWN, 8, "");
    say(CARRIER_DATA, 0, "late");
    until(strstr(t.heard, "down b; ") != NULL);
    for (unsigned i = 0; i < 10; i++)
        turn();
    assert_string_equal(t.heard, "up b; down b; ");
    assert_int_equal(carrier_send(t.c, "b", 0, span_str("y")), -ENOTCONN);
}

/* A byte at a time, and many frames at once. */
static void test_pieces(void **state)
{
    (void)state;
    uint8_t bytes[4000];
    size_t n = put_frame(bytes, CARRIER_UP, 1, "");
    for (unsigned i = 0; i < 20; i++)
        n += put_frame(bytes + n, CARRIER_DATA, 0, "piece");
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(send(t.link_fd, bytes + i, 1, 0), 1);
        turn();
    }
    until(t.frames == 20);
    assert_int_equal(send(t.link_fd, bytes, n, 0), n);
    until(t.frames == 40);
    assert_int_equal(t.bytes, 200);
}

/* A link that does not read: -EAGAIN at some point, and on_room once it does; all in order. */
static void test_room(void **state)
{
    (void)state;
    static uint8_t big[LIMIT_CARRIER_PAYLOAD_BYTES + 1], got[LIMIT_CARRIER_PAYLOAD_BYTES];
    unsigned sent = 0, taken = 0;
    int r;

    say(CARRIER_UP, 1, "");
    until(carrier_is_up(t.c, "b"));
    assert_int_equal(carrier_send(t.c, "b", 1, span_of(big, sizeof big)), -E2BIG);
    for (unsigned round = 0; round < 3; round++) {
        do {
            memset(big, (int)sent, 8);
            r = carrier_send(t.c, "b", 1, span_of(big, sizeof got - sent % 2));
            sent += r == 0;
            turn();
            assert_true(sent < 200);
        } while (r == 0);
        assert_int_equal(r, -EAGAIN);
        for (unsigned i = 0; i < 20; i++)
            turn();
        assert_int_equal(t.rooms, round);
        while (taken < sent) {
            ssize_t n = recv(t.link_fd, got, CARRIER_HEAD_BYTES, MSG_PEEK | MSG_DONTWAIT);
            if (n < CARRIER_HEAD_BYTES) {
                turn();
                continue;
            }
            struct carrier_head h;
            assert_int_equal(carrier_head_read(got, &h), 0);
            n = recv(t.link_fd, got, CARRIER_HEAD_BYTES, 0);
            for (size_t at = 0; at < h.bytes; at += (size_t)n) {
                n = recv(t.link_fd, got + at, h.bytes - at, MSG_DONTWAIT);
                if (n < 0) {
                    assert_int_equal(errno, EAGAIN);
                    n = 0;
                    turn();
                }
            }
            assert_int_equal(h.bytes, sizeof got - taken % 2);
            assert_int_equal(got[0], (uint8_t)taken);
            taken++;
        }
        until(t.rooms == round + 1);
        assert_true(carrier_is_up(t.c, "b"));
    }
}

/* Its end, garbage, a new descriptor: everybody is down; nothing of before goes on. */
static void test_lost(void **state)
{
    (void)state;
    uint8_t got[100];
    say(CARRIER_UP, 1, "");
    until(carrier_is_up(t.c, "b"));
    assert_int_equal(carrier_send(t.c, "b", 1, span_str("old")), 0);
    attach();
    assert_string_equal(t.heard, "up b; down b; ");
    say(CARRIER_UP, 5, "");
    until(carrier_is_up(t.c, "b"));
    assert_int_equal(carrier_send(t.c, "b", 1, span_str("new")), 0);
    turn();
    assert_int_equal(take(got).wave, 5);
    assert_memory_equal(got, "new", 3);

    assert_int_equal(send(t.link_fd, got, sizeof got, 0), sizeof got);
    until(!carrier_is_up(t.c, "b"));
    attach();
    say(CARRIER_UP, 6, "");
    until(carrier_is_up(t.c, "b"));
    close(t.link_fd);
    t.link_fd = -1;
    until(!carrier_is_up(t.c, "b"));
    turn();
    assert_string_equal(t.heard, "up b; down b; up b; down b; up b; down b; ");
}

/* Without a descriptor all is quiet. */
static void test_none(void **state)
{
    (void)state;
    carrier_destroy(&t.c);
    assert_int_equal(carrier_create(&t.c, t.io, &events, &t), 0);
    turn();
    assert_false(carrier_is_up(t.c, "b"));
    assert_int_equal(carrier_send(t.c, "b", 0, span_str("x")), -ENOTCONN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_up_and_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
