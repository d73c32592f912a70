/* What goes wrong around connections: resets, limits, refused and hanging connects; and the
 * watches. */
#include "tests/unit/conn_harness.h"
#include "worker/io/conn.h"

static void test_peer_reset(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    sessions[0].close_on_eof = false;
    reset_peer(fd);
    WAIT_FOR(sessions[0].eof == 1);
    assert_int_equal(sessions[0].eof_res, -ECONNRESET);
    put_all(sessions[0].c, span_str("to nobody"));
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(sessions[0].closed, 0); /* the session has to close */
    conn_close(sessions[0].c, false);
    WAIT_FOR(sessions[0].closed);

    /* A reset while a huge send is in flight and nothing is received. */
    fd = peer_connect();
    WAIT_FOR(session_count == 2);
    struct session *s = &sessions[1];
    s->close_on_eof = false;
    conn_recv_pause(s->c);
    uint8_t *mem = calloc(1, HUGE_BYTES);
    assert_int_equal(conn_put_ref(s->c, span_of(mem, HUGE_BYTES)), 0);
    for (int i = 0; i < 5; i++)
        io_turn(io, 1000000);
    reset_peer(fd);
    WAIT_FOR(s->eof == 1);
    assert_true(s->eof_res == -ECONNRESET || s->eof_res == -EPIPE);
    conn_close(s->c, true);
    WAIT_FOR(s->closed);
    free(mem);
}

/* Data that came before the reset is delivered before the error. */
static void test_data_before_send_error(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    struct session *s = &sessions[0];
    s->close_on_eof = false;
    s->echo = false;
    peer_write(fd, "550 go away\r\n", 13);
    close(fd);
    usleep(10000);
    for (int i = 0; i < 50 && !s->eof; i++) {
        put_all(s->c, span_str("MAIL FROM:<>\r\n"));
        io_turn(io, 1000000);
    }
    WAIT_FOR(s->eof == 1);
    assert_int_equal(s->got, 13);
}

static void test_emfile(void **state)
{
    (void)state;
    struct rlimit old, few;
    int fds[40];
    getrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < 40; i++)
        fds[i] = peer_connect(); /* all in the backlog, or accepted later */
    int probe = dup(0);
    close(probe);
    few = old;
    few.rlim_cur = (rlim_t)probe + 10;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    uint64_t start = now_ms();
    uint64_t turns = io_counts(io)->turns;
    while (now_ms() < start + 500)
        turn();
    assert_int_equal(session_count, 10);
    assert_true(io_counts(io)->accept_errors >= 2);
    assert_true(io_counts(io)->turns - turns < 200); /* it backs off, it does not spin */
    struct conn_target t = {.to_port = port, .timeout_ms = 1000};
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &t.to), 0);
    assert_null(conn_connect(io, &t, &events, NULL));
    /* What is there still works, and with descriptors back the rest comes in. */
    for (int i = 0; i < 40; i++)
        peer_write(fds[i], "x", 1);
    WAIT_FOR(sessions[9].sent == 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    WAIT_FOR(session_count == 40);
    for (int i = 0; i < 40; i++) {
        char c;
        WAIT_FOR(recv(fds[i], &c, 1, MSG_DONTWAIT) == 1);
        close(fds[i]);
    }
    WAIT_FOR(closed_count == 40);
}

static void test_slots_exhausted(void **state)
{
    tear_down(state);
    set_up_with(16, 64);
    int fds[30];
    for (int i = 0; i < 30; i++)
        fds[i] = peer_connect();
    WAIT_FOR(session_count == 16);
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(session_count, 16);
    assert_true(io_counts(io)->accept_errors >= 1);
    for (int i = 0; i < 30; i++)
        close(fds[i]);
    WAIT_FOR(closed_count >= 16);
    WAIT_FOR(io_counts(io)->conns_open == 0);
    usleep(150000);
    int fd = peer_connect();
    peer_write(fd, "again", 5);
    char in[5];
    WAIT_FOR(recv(fd, in, 5, MSG_DONTWAIT) == 5);
    close(fd);
}

/* More data at once than there are buffers: -ENOBUFS is no end. */
static void test_buffers_exhausted(void **state)
{
    tear_down(state);
    set_up_with(200, 64);
    static uint8_t out[60000], in[60000];
    fill(out, sizeof out, 3);
    int fds[60];
    for (int i = 0; i < 60; i++) {
        fds[i] = peer_connect();
        peer_write(fds[i], out, 20000); /* fits the socket's buffers */
    }
    for (int i = 0; i < 60; i++) {
        size_t got = 0;
        uint64_t until = now_ms() + 20000;
        while (got < 20000 && now_ms() < until) {
            ssize_t r = recv(fds[i], in + got, 20000 - got, MSG_DONTWAIT);
            if (r > 0)
                got += (size_t)r;
            else
                io_turn(io, 1000000);
        }
        assert_int_equal(got, 20000);
        assert_memory_equal(in, out, 20000);
        close(fds[i]);
    }
    printf("ENOBUFS seen: %llu\n", (unsigned long long)io_counts(io)->recv_nobufs);
    assert_true(io_counts(io)->recv_nobufs > 0);
    WAIT_FOR(closed_count == 60);
}

static struct session *start_connect(const struct conn_target *t)
{
    struct session *s = new_session();
    s->close_on_eof = true;
    s->c = conn_connect(io, t, &events, s);
    assert_non_null(s->c);
    assert_int_equal(s->opened, 0); /* never from inside the call */
    return s;
}

static void test_connect(void **state)
{
    (void)state;
    struct conn_target t = {.to_port = port, .timeout_ms = 5000, .bind_source = true};
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &t.to), 0);
    assert_int_equal(ip_parse(span_str("127.0.0.77"), &t.from), 0);
    struct session *s = start_connect(&t);
    WAIT_FOR(s->opened);
    assert_int_equal(s->open_res, 0);
    WAIT_FOR(session_count == 2);
    struct ip ip;
    uint16_t p;
    char text[IP_TEXT];
    conn_peer(sessions[1].c, &ip, &p);
    ip_format(&ip, text);
    assert_string_equal(text, "127.0.0.77");
    conn_local(s->c, &ip, &p);
    ip_format(&ip, text);
    assert_string_equal(text, "127.0.0.77");
    conn_peer(s->c, &ip, &p);
    assert_int_equal(p, port);
    assert_null(conn_listener(s->c));
    conn_recv(s->c);
    put_all(s->c, span_str("ping"));
    WAIT_FOR(s->got == 4);
    conn_close(s->c, false);
    WAIT_FOR(s->closed && sessions[1].closed);
}

static void expect_failure(const struct conn_target *t, int err)
{
    struct session *s = start_connect(t);
    WAIT_FOR(s->closed); /* by itself, without conn_close */
    assert_int_equal(s->opened, 1);
    assert_int_equal(s->open_res, err);
}

static void test_connect_failures(void **state)
{
    (void)state;
    struct conn_target t = {.to_port = 1, .timeout_ms = 5000};
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &t.to), 0);
    expect_failure(&t, -ECONNREFUSED);
    t.bind_source = true;
    assert_int_equal(ip_parse(span_str("192.0.2.1"), &t.from), 0); /* not here */
    expect_failure(&t, -EADDRNOTAVAIL);
    assert_int_equal(ip_parse(span_str("::1"), &t.from), 0);
    expect_failure(&t, -EAFNOSUPPORT);
    assert_int_equal(ip_parse(span_str("::1"), &t.to), 0);
    expect_failure(&t, -ECONNREFUSED); /* bound to ::1 all right */
    t.bind_source = false;
    t.device = "no-such-device";
    expect_failure(&t, -ENODEV);
}

static void expect_port(const struct conn_target *t, uint16_t wanted)
{
    struct session *s = start_connect(t);
    WAIT_FOR(s->opened);
    assert_int_equal(s->open_res, 0);
    struct ip ip;
    uint16_t p;
    conn_local(s->c, &ip, &p);
    assert_int_equal(p, wanted);
    assert_true(ip_eq(&ip, &t->from));
}

/* A source port out of a slice: as asked, the next one where it is taken, the same one to another
   destination, and in the end none. */
static void test_source_ports(void **state)
{
    (void)state;
    uint16_t low = 0;
    int taken = -1;
    for (uint16_t p = 21000; taken < 0 && p < 30000; p += 2) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(p)};
        a.sin_addr.s_addr = htonl(0x7f00004e);
        taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(taken, (struct sockaddr *)&a, sizeof a) == 0)
            low = p;
        else
            close(taken), taken = -1;
    }
    assert_int_not_equal(low, 0);
    struct conn_target t = {.to_port = port, .timeout_ms = 5000, .bind_source = true};
    t.from_ports = (struct port_slice){low, (uint16_t)(low + 2)};
    t.from_first = (uint16_t)(low + 2);
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &t.to), 0);
    assert_int_equal(ip_parse(span_str("127.0.0.78"), &t.from), 0);
    expect_port(&t, (uint16_t)(low + 2));
    t.from_first = low; /* bound by another socket; low + 2 is ours to the same destination */
    expect_port(&t, (uint16_t)(low + 1));
    expect_failure(&t, -EADDRNOTAVAIL);
    close(taken);
    expect_port(&t, low);
    expect_failure(&t, -EADDRNOTAVAIL);
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
    socklen_t n = sizeof a;
    assert_int_equal(bind(other, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(other, 1), 0);
    assert_int_equal(getsockname(other, (struct sockaddr *)&a, &n), 0);
    t.to_port = ntohs(a.sin_port);
    assert_int_equal(ip_parse(span_str("127.0.0.2"), &t.to), 0);
    expect_port(&t, low);
    close(other);
    assert_int_equal(ip_parse(span_str("192.0.2.1"), &t.from), 0);
    expect_failure(&t, -EADDRNOTAVAIL); /* the address is not here: no port is tried for it */
}

static void test_port_slices(void **state)
{
    (void)state;
    struct port_slice even = port_slice_of(0), odd = port_slice_of(1);
    assert_int_equal(even.low, 20000);
    assert_int_equal(even.high, 39999);
    assert_int_equal(odd.low, 40000);
    assert_int_equal(odd.high, 59999);
    assert_int_equal(port_slice_of(UINT32_MAX).low, odd.low);
}

/* A listener whose backlog is full answers nothing: the connect hangs. */
static void test_connect_timeout_and_close(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    int filler[4];
    for (int i = 0; i < 4; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(filler[i], (struct sockaddr *)&a, n);
    }
    usleep(20000);
    struct conn_target t = {.to_port = ntohs(a.sin_port), .timeout_ms = 300};
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &t.to), 0);
    io_turn(io, 0); /* time is that of the last turn */
    uint64_t start = now_ms();
    expect_failure(&t, -ETIMEDOUT);
    assert_true(now_ms() - start >= 300 && now_ms() - start < 900);
    /* Closed while it connects: on_closed only. */
    struct session *s = start_connect(&t);
    io_turn(io, 1000000);
    conn_close(s->c, false);
    WAIT_FOR(s->closed);
    assert_int_equal(s->opened, 0);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
    close(fd);
}

static int ready_count;
static void on_ready(struct io_watch *w, unsigned ready)
{
    assert_true(ready & POLLIN);
    ready_count++;
    if (ready_count == 3) {
        char c[8];
        assert_true(read(w->fd, c, sizeof c) > 0);
    }
}

static void test_watch(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct io_watch *w = calloc(1, sizeof *w);
    w->on_ready = on_ready;
    ready_count = 0;
    assert_int_equal(io_watch_start(io, w, p[0], POLLIN), 0);
    io_turn(io, 1000000);
    assert_int_equal(ready_count, 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    WAIT_FOR(ready_count == 3); /* level-triggered: again until it is read */
    for (int i = 0; i < 3; i++)
        io_turn(io, 1000000);
    assert_int_equal(ready_count, 3);
    io_watch_stop(io, w);
    free(w);
    assert_int_equal(write(p[1], "x", 1), 1);
    close(p[0]);
    for (int i = 0; i < 3; i++)
        io_turn(io, 1000000);
    assert_int_equal(ready_count, 3);
    close(p[1]);
    /* Started and stopped many times: slots come back. */
    for (int i = 0; i < 10000; i++) {
        struct io_watch v = {.on_ready = on_ready};
        assert_int_equal(io_watch_start(io, &v, listen_fd, POLLOUT), 0);
        if (i % 3 == 0)
            io_turn(io, 0);
        io_watch_stop(io, &v);
        if (i % 500 == 0)
            io_turn(io, 0);
    }
}

static void test_listener_stop(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    listener_stop(&listener);
    turn();
    int late = peer_connect();
    for (int i = 0; i < 5; i++)
        io_turn(io, 1000000);
    assert_int_equal(session_count, 1);
    assert_int_equal(listener_start(io, &listener, listen_fd), 0);
    WAIT_FOR(session_count == 2);
    close(fd);
    close(late);
}

static void test_explain(void **state)
{
    (void)state;
    assert_non_null(strstr(io_explain(-EPERM), "io_uring_disabled"));
    assert_non_null(strstr(io_explain(-ENOSYS), "6.1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_peer_reset),
        CASE(test_data_before_send_error),
        CASE(test_emfile),
        CASE(test_slots_exhausted),
        CASE(test_buffers_exhausted),
        CASE(test_connect),
        CASE(test_connect_failures),
        CASE(test_source_ports),
        CASE(test_port_slices),
        CASE(test_connect_timeout_and_close),
        CASE(test_watch),
        CASE(test_listener_stop),
        CASE(test_explain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
