/* The simulated network keeps the promises of conn.h, in every order that a seed can give. */
#include "base/rng.h"
#include "tests/sim/sim_conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 200 };

struct session {
    struct conn *c;
    int opened, open_res, eof, eof_res, sent, closed;
    char got[8192];
    size_t n;
    size_t body_at; /* switch to body mode when so much has come */
    size_t body_n;
    bool exact, in_body, echo, close_on_eof;
    uint8_t body[1024];
};

static struct io *io;
static struct listener listener;
static struct session session;

static void keep(struct session *s, const void *p, size_t n)
{
    assert_true(s->n + n <= sizeof s->got);
    memcpy(s->got + s->n, p, n);
    s->n += n;
}

static void on_open(void *owner, struct conn *c, int res)
{
    struct session *s = owner;
    s->opened++;
    s->open_res = res;
    if (res == 0)
        conn_recv(c);
}

static void want_body(struct session *s)
{
    size_t left = s->body_at + s->body_n - s->n;
    s->in_body = true;
    conn_recv_into(s->c, s->body, s->exact ? left : (left < 100 ? left : 100), s->exact);
}

/* Commands up to body_at, then exactly body_n bytes of body, then commands again. */
static void on_data(void *owner, struct conn *c, struct span d)
{
    struct session *s = owner;
    assert_false(s->in_body);
    assert_true(d.n > 0);
    size_t n = d.n;
    if (s->n < s->body_at + s->body_n && s->n + n > s->body_at + s->body_n)
        n = s->body_at + s->body_n - s->n;
    keep(s, d.p, d.n);
    if (s->echo) {
        uint8_t *p = conn_put(c, d.n);
        assert_non_null(p);
        memcpy(p, d.p, d.n);
    }
    if (s->body_n > 0 && s->n >= s->body_at && s->n < s->body_at + s->body_n)
        want_body(s);
}

static void on_filled(void *owner, struct conn *c, size_t n)
{
    struct session *s = owner;
    assert_true(s->in_body && n > 0);
    s->in_body = false;
    keep(s, s->body, n);
    if (s->n < s->body_at + s->body_n)
        want_body(s);
    else
        conn_recv(c);
}

static void on_sent(void *owner, struct conn *c)
{
    ((struct session *)owner)->sent++;
    assert_int_equal(conn_out_bytes(c), 0);
}

static void on_eof(void *owner, struct conn *c, int res)
{
    struct session *s = owner;
    s->eof++;
    s->eof_res = res;
    if (s->close_on_eof)
        conn_close(c, false);
}

static void on_closed(void *owner)
{
    struct session *s = owner;
    s->closed++;
    s->c = NULL;
}

static const struct conn_events events = {on_open, on_data, on_filled, on_sent, on_eof, on_closed};

static void on_accept(struct listener *l, struct conn *c)
{
    (void)l;
    session.c = c;
    conn_attach(c, &events, &session);
    conn_recv(c);
}

static void start(uint64_t seed)
{
    struct io_settings s = {.conn_count_max = 16, .recv_buffer_count = 64};
    assert_int_equal(io_create(&io, &s), 0);
    assert_int_equal(io_enable(io), 0);
    sim_seed(io, seed);
    memset(&session, 0, sizeof session);
    session.close_on_eof = true;
    listener = (struct listener){.on_accept = on_accept};
    assert_int_equal(listener_start(io, &listener, 3), 0);
}

static void finish(struct sim_peer *p)
{
    sim_run(io);
    if (session.c != NULL)
        conn_close(session.c, true);
    sim_run(io);
    assert_int_equal(session.closed, 1);
    assert_true(sim_peer_closed(p));
    assert_int_equal(io_counts(io)->conns_open, 0);
    sim_peer_free(p);
    io_destroy(&io);
}

static void fill(char *p, size_t n, uint64_t seed)
{
    struct rng r;
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + rng_below(&r, 26));
}

static void test_bytes_arrive_in_order(void **state)
{
    (void)state;
    int switched = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        char text[3000];
        fill(text, sizeof text, seed);
        start(seed);
        session.body_at = seed % 500;
        session.body_n = seed % 3 == 0 ? 0 : 900;
        session.exact = seed % 2;
        struct sim_peer *p = sim_client(io, &listener, "192.0.2.1", 1000);
        sim_push(p, span_of(text, 1000));
        sim_run(io);
        sim_push(p, span_of(text + 1000, 2000));
        sim_eof(p);
        sim_run(io);
        assert_int_equal(session.n, sizeof text);
        assert_memory_equal(session.got, text, sizeof text);
        assert_int_equal(session.eof, 1);
        assert_int_equal(session.closed, 1);
        switched += session.body_n > 0;
        finish(p);
    }
    assert_true(switched > SEEDS / 2);
}

static void test_output_in_order_and_late(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        start(seed);
        struct sim_peer *p = sim_client(io, &listener, "192.0.2.1", 1000);
        sim_run(io);
        char *mem =
            malloc(700); /* ASan sees a read after on_sent, the copy sees a change before it */
        fill(mem, 700, seed);
        memcpy(conn_put(session.c, 3), "abc", 3);
        assert_int_equal(conn_put_ref(session.c, span_of(mem, 700)), 0);
        memcpy(conn_put(session.c, 3), "xyz", 3);
        assert_int_equal(sim_output(p).n, 0);
        sim_window(p, 10);
        sim_run(io);
        assert_int_equal(session.sent, 0);
        assert_int_equal(sim_output(p).n, 10);
        sim_window(p, SIZE_MAX);
        sim_run(io);
        assert_int_equal(session.sent, 1);
        assert_int_equal(sim_output(p).n, 706);
        assert_memory_equal(sim_output(p).p, "abc", 3);
        assert_memory_equal(sim_output(p).p + 3, mem, 700);
        assert_memory_equal(sim_output(p).p + 703, "xyz", 3);
        free(mem);
        sim_take(p, 703);
        assert_memory_equal(sim_output(p).p, "xyz", 3);
        memcpy(conn_put(session.c, 3), "bye", 3);
        conn_close(session.c, false);
        sim_run(io);
        assert_true(sim_peer_ended(p));
        assert_false(sim_peer_closed(p)); /* it lingers */
        assert_memory_equal(sim_output(p).p, "xyzbye", 6);
        sim_clock_advance(io, seed % 2 ? 2000 : 10);
        if (seed % 2 == 0)
            sim_eof(p);
        finish(p);
    }
}

static void test_limits(void **state)
{
    (void)state;
    start(1);
    struct sim_peer *p = sim_client(io, &listener, "192.0.2.1", 1000);
    sim_run(io);
    for (int i = 0; i < 8; i++)
        assert_int_equal(conn_put_ref(session.c, span_str("x")), 0);
    assert_int_equal(conn_put_ref(session.c, span_str("x")), -ENOBUFS);
    for (int i = 0; i < 16; i++)
        assert_non_null(conn_put(session.c, 4096));
    assert_null(conn_put(session.c, 1));
    sim_run(io);
    sim_no_output_memory(io, true);
    assert_null(conn_put(session.c, 1));
    finish(p);
}

static void test_reset(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        start(seed);
        session.close_on_eof = false;
        struct sim_peer *p = sim_client(io, &listener, "2001:db8::1", 1000);
        sim_run(io);
        sim_push_text(p, "last words");
        sim_reset(p);
        if (seed % 2)
            memcpy(conn_put(session.c, 4), "oops", 4);
        sim_run(io);
        assert_int_equal(session.n, 10);
        assert_int_equal(session.eof, 1);
        assert_int_equal(session.eof_res, -ECONNRESET);
        assert_int_equal(session.closed, 0);
        finish(p);
    }
}

static struct session *dial(uint32_t timeout_ms)
{
    struct conn_target t = {.to_port = 25, .timeout_ms = timeout_ms};
    assert_int_equal(ip_parse(span_str("192.0.2.25"), &t.to), 0);
    session.c = conn_connect(io, &t, &events, &session);
    assert_non_null(session.c);
    assert_int_equal(session.opened, 0);
    return &session;
}

static void refuse(void *ctx, struct sim_peer *p)
{
    ++*(int *)ctx;
    sim_refuse(p, -ECONNREFUSED);
}

static void test_connects(void **state)
{
    (void)state;
    start(2);
    struct session *s = dial(5000);
    struct sim_peer *p = sim_next_connect(io);
    assert_non_null(p);
    assert_null(sim_next_connect(io));
    assert_int_equal(sim_target(p)->to_port, 25);
    sim_run(io);
    assert_int_equal(s->opened, 0);
    sim_accept(p);
    sim_push_text(p, "220 hi\r\n");
    sim_run(io);
    assert_int_equal(s->open_res, 0);
    assert_memory_equal(s->got, "220 hi\r\n", 8);
    finish(p);

    start(3);
    s = dial(5000);
    p = sim_next_connect(io);
    sim_clock_advance(io, 4999);
    sim_run(io);
    assert_int_equal(s->opened, 0);
    sim_clock_advance(io, 1);
    sim_run(io);
    assert_int_equal(s->open_res, -ETIMEDOUT);
    assert_int_equal(s->closed, 1); /* by itself */
    finish(p);

    start(4);
    int asked = 0;
    sim_on_connect(io, refuse, &asked);
    s = dial(5000);
    p = sim_next_connect(io);
    sim_run(io);
    assert_int_equal(asked, 1);
    assert_int_equal(s->open_res, -ECONNREFUSED);
    sim_no_slots(io, true);
    struct conn_target t = {.timeout_ms = 1};
    assert_null(conn_connect(io, &t, &events, &session));
    finish(p);
}

static int ticks;
static void on_tick(struct timer *t)
{
    (void)t;
    ticks++;
}

static void test_clock(void **state)
{
    (void)state;
    struct wheel wheel;
    struct timer t = {.on_due = on_tick};
    start(5);
    uint64_t unix_ms = io_now_unix_ms(io);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    timer_set(&wheel, &t, 3600000);
    ticks = 0;
    struct session *s = dial(60000);
    struct sim_peer *p = sim_next_connect(io);
    sim_run_for(io, &wheel, 3599999);
    assert_int_equal(ticks, 0);
    assert_int_equal(s->open_res, -ETIMEDOUT);
    sim_run_for(io, &wheel, 1);
    assert_int_equal(ticks, 1);
    assert_int_equal(io_now_unix_ms(io), unix_ms + 3600000);
    finish(p);
}

static int ready;
static void on_ready(struct io_watch *w, unsigned events_seen)
{
    (void)w;
    ready += (int)events_seen;
}

static void test_watch(void **state)
{
    (void)state;
    start(6);
    struct sim_peer *p = sim_client(io, &listener, "192.0.2.1", 1);
    struct io_watch w = {.on_ready = on_ready};
    ready = 0;
    assert_int_equal(io_watch_start(io, &w, 7, 1), 0);
    sim_run(io);
    assert_int_equal(ready, 0);
    sim_watch_ready(io, &w, 1);
    sim_run(io);
    assert_int_equal(ready, 1);
    io_watch_stop(io, &w);
    finish(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_arrive_in_order),
        cmocka_unit_test(test_output_in_order_and_late),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_connects),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
