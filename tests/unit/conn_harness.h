/*
 * conn_harness - a ring with a listener, sessions that a test steers, and peers.
 *
 * The ring runs in the main thread; peers are threads, or sockets of the test itself, which know
 * nothing of it.
 */
#ifndef TESTS_UNIT_CONN_HARNESS_H
#define TESTS_UNIT_CONN_HARNESS_H

#include "base/net.h"
#include "base/rng.h"
#include "worker/io/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct io *io;
static struct listener listener;
static int listen_fd;
static uint16_t port;

/* The session under test: an echo by default, with the switches that a test sets. */
struct session {
    struct conn *c;
    int opened, open_res, closed, eof, eof_res, sent;
    uint64_t got;
    bool close_on_eof, echo;
    void (*on_bytes)(struct session *s, struct span data); /* command mode */
    void (*on_body)(struct session *s, size_t n);
    uint8_t *memory;
    void *extra;
};

enum { SESSIONS_MAX = 6000, HUGE_BYTES = 8 << 20 /* more than socket buffers hold */ };
static struct session sessions[SESSIONS_MAX];
static int session_count;
static int closed_count;
static void (*on_new)(struct session *s);

static inline void put_all(struct conn *c, struct span s)
{
    while (s.n > 0) {
        size_t n = s.n < 4096 ? s.n : 4096;
        uint8_t *p = conn_put(c, n);
        assert_non_null(p);
        memcpy(p, s.p, n);
        s = span_of(s.p + n, s.n - n);
    }
}

static inline void on_open(void *owner, struct conn *c, int res)
{
    struct session *s = owner;
    assert_ptr_equal(s->c, c);
    s->opened++;
    s->open_res = res;
}

static inline void on_data(void *owner, struct conn *c, struct span data)
{
    struct session *s = owner;
    assert_int_equal(s->closed, 0);
    s->got += data.n;
    if (s->on_bytes != NULL)
        s->on_bytes(s, data);
    else if (s->echo)
        put_all(c, data);
}

static inline void on_filled(void *owner, struct conn *c, size_t n)
{
    struct session *s = owner;
    (void)c;
    assert_true(n > 0);
    assert_int_equal(s->closed, 0);
    s->on_body(s, n);
}

static inline void on_sent(void *owner, struct conn *c)
{
    struct session *s = owner;
    assert_int_equal(conn_out_bytes(c), 0);
    s->sent++;
}

static inline void on_eof(void *owner, struct conn *c, int res)
{
    struct session *s = owner;
    assert_int_equal(s->eof, 0);
    s->eof++;
    s->eof_res = res;
    if (s->close_on_eof)
        conn_close(c, false);
}

static inline void on_closed(void *owner)
{
    struct session *s = owner;
    assert_int_equal(s->closed, 0);
    s->closed++;
    s->c = NULL;
    closed_count++;
}

static const struct conn_events events = {.on_open = on_open,
                                          .on_data = on_data,
                                          .on_filled = on_filled,
                                          .on_sent = on_sent,
                                          .on_eof = on_eof,
                                          .on_closed = on_closed};

static inline struct session *new_session(void)
{
    assert_true(session_count < SESSIONS_MAX);
    struct session *s = &sessions[session_count++];
    memset(s, 0, sizeof *s);
    return s;
}

static inline void accept_session(struct listener *l, struct conn *c)
{
    struct session *s = new_session();
    assert_ptr_equal(conn_listener(c), l);
    s->c = c;
    s->close_on_eof = true;
    s->echo = true;
    conn_attach(c, &events, s);
    conn_recv(c);
    if (on_new != NULL)
        on_new(s);
}

static inline uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline void turn(void)
{
    io_turn(io, 20000000);
}

#define WAIT_FOR(cond)                               \
    do {                                             \
        uint64_t until_ = now_ms() + 20000;          \
        bool ok_;                                    \
        while (!(ok_ = (cond)) && now_ms() < until_) \
            turn();                                  \
        assert_true(ok_);                            \
    } while (0)

static inline int set_up_with(uint32_t conns, uint32_t buffers)
{
    struct io_settings s = {
        .conn_count_max = conns, .recv_buffer_count = buffers, .restrict_ops = true};
    assert_int_equal(io_create(&io, &s), 0);
    assert_int_equal(io_enable(io), 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listen_fd >= 0);
    assert_int_equal(bind(listen_fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(listen_fd, 1024), 0);
    assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&a, &n), 0);
    port = ntohs(a.sin_port);
    listener.on_accept = accept_session;
    assert_int_equal(listener_start(io, &listener, listen_fd), 0);
    session_count = 0;
    closed_count = 0;
    on_new = NULL;
    return 0;
}

static inline int set_up(void **state)
{
    (void)state;
    return set_up_with(1000, 256);
}

static inline int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < session_count; i++) {
        if (sessions[i].c != NULL)
            conn_close(sessions[i].c, true);
    }
    WAIT_FOR(closed_count == session_count);
    assert_int_equal(io_counts(io)->conns_open, 0);
    listener_stop(&listener);
    turn();
    io_destroy(&io);
    close(listen_fd);
    return 0;
}

/* Peers */

static inline int peer_connect(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        abort();
    return fd;
}

static inline void peer_write(int fd, const void *p, size_t n)
{
    const uint8_t *b = p;
    while (n > 0) {
        ssize_t r = send(fd, b, n, MSG_NOSIGNAL);
        if (r <= 0)
            abort();
        b += r;
        n -= (size_t)r;
    }
}

static inline size_t peer_read(int fd, void *p, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = recv(fd, (uint8_t *)p + got, n - got, 0);
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    return got;
}

static inline void reset_peer(int fd)
{
    struct linger l = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

static inline void fill(uint8_t *p, size_t n, uint64_t seed)
{
    struct rng r;
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u64(&r);
}

static volatile int peer_done;
static inline pthread_t start_peer(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    peer_done = 0;
    assert_int_equal(pthread_create(&t, NULL, fn, arg), 0);
    return t;
}

static inline void join_peer(pthread_t t, void *expect)
{
    void *res;
    WAIT_FOR(__atomic_load_n(&peer_done, __ATOMIC_ACQUIRE));
    pthread_join(t, &res);
    assert_ptr_equal(res, expect);
}

static inline void *done(bool ok)
{
    __atomic_store_n(&peer_done, 1, __ATOMIC_RELEASE);
    return ok ? (void *)1 : NULL;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
