/* Bytes in, bytes out, modes and ends of connections, on a real ring over loopback. */
#include "tests/unit/conn_harness.h"
#include "worker/io/conn.h"

/* One byte a segment, each answered before the next. */
static void *drip(void *arg)
{
    (void)arg;
    int fd = peer_connect();
    bool ok = true;
    for (int i = 0; i < 500; i++) {
        uint8_t out = (uint8_t)i;
        uint8_t in = 0;
        peer_write(fd, &out, 1);
        ok = ok && peer_read(fd, &in, 1) == 1 && in == out;
    }
    close(fd);
    return done(ok);
}

static void test_echo_one_byte_a_segment(void **state)
{
    (void)state;
    join_peer(start_peer(drip, NULL), (void *)1);
    WAIT_FOR(closed_count == 1);
    assert_int_equal(sessions[0].got, 500);
    assert_int_equal(sessions[0].eof_res, 0);
    assert_int_equal(sessions[0].sent, 500);
    /* The cost of an exchange in command mode: one receive completion, one send, no cancel, no
     * re-arm. */
    const struct io_counts *n = io_counts(io);
    printf("500 exchanges: %llu turns, %llu submissions, %llu completions\n",
           (unsigned long long)n->turns, (unsigned long long)n->submissions,
           (unsigned long long)n->completions);
    assert_true(n->submissions < 520);
    assert_true(n->completions < 1020);
}

static void *churn(void *arg)
{
    int n = *(int *)arg;
    bool ok = true;
    for (int i = 0; i < n; i++) {
        int fd = peer_connect();
        char in[8] = "";
        if (i % 7 == 3) { /* leaves without a word */
            reset_peer(fd);
            continue;
        }
        peer_write(fd, "hello", 5);
        ok = ok && peer_read(fd, in, 5) == 5 && memcmp(in, "hello", 5) == 0;
        close(fd);
    }
    return done(ok);
}

static void test_churn(void **state)
{
    (void)state;
    int n = 5000;
    join_peer(start_peer(churn, &n), (void *)1);
    WAIT_FOR(io_counts(io)->conns_open == 0);
    assert_int_equal(io_counts(io)->accepts, session_count);
    assert_int_equal(closed_count, session_count);
}

/*
 * Mode switches under load. The stream is a chain of frames: 'C' n(1) n bytes, read in command
 * mode; 'B' length(4) bytes, of which the part after the header is read in body mode, exact or not
 * by turns. The peer writes in pieces of any size. The session hashes what it got in order.
 */
enum { STREAM_BYTES = 3 << 20, BODY_MAX = 70000 };
struct reader {
    uint64_t hash, bytes;
    uint8_t head[5];
    size_t head_n;
    size_t left; /* of the frame's bytes */
    bool body;
    uint32_t frames;
    struct rng rng;
    uint8_t memory[BODY_MAX];
    size_t want;
    int paused_turns;
};

static void take(struct reader *r, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        r->hash = (r->hash ^ p[i]) * 1099511628211ull;
    r->bytes += n;
}

static void next_body_part(struct session *s)
{
    struct reader *r = s->extra;
    if (rng_below(&r->rng, 8) == 0) {
        r->paused_turns = 3; /* back-pressure: nothing is posted for a while */
        conn_recv_pause(s->c);
        return;
    }
    bool exact = rng_below(&r->rng, 2) == 0;
    r->want = exact ? r->left : 1 + rng_below(&r->rng, r->left);
    if (exact && r->want > 5 && rng_below(&r->rng, 2) == 0)
        r->want = 1 + rng_below(&r->rng, r->want);
    conn_recv_into(s->c, r->memory, r->want, exact);
}

static void body_bytes(struct session *s, size_t n)
{
    struct reader *r = s->extra;
    assert_true(n <= r->want && n <= r->left);
    take(r, r->memory, n);
    r->left -= n;
    if (r->left > 0) {
        next_body_part(s);
        return;
    }
    r->head_n = 0;
    conn_recv(s->c);
}

static void command_bytes(struct session *s, struct span d)
{
    struct reader *r = s->extra;
    while (d.n > 0) {
        if (r->left > 0) {
            size_t n = d.n < r->left ? d.n : r->left;
            take(r, d.p, n);
            r->left -= n;
            d = span_of(d.p + n, d.n - n);
            continue;
        }
        r->head[r->head_n++] = d.p[0];
        take(r, d.p, 1);
        d = span_of(d.p + 1, d.n - 1);
        if (r->head[0] == 'C' && r->head_n == 2) {
            r->left = r->head[1];
            r->head_n = 0;
            r->frames++;
        } else if (r->head_n == 5) {
            uint32_t n;
            memcpy(&n, r->head + 1, 4);
            r->left = n;
            r->head_n = 0;
            r->frames++;
            /* What is left of this span belongs to the body already. */
            size_t k = d.n < r->left ? d.n : r->left;
            take(r, d.p, k);
            r->left -= k;
            d = span_of(d.p + k, d.n - k);
            if (r->left > 0)
                next_body_part(s);
        }
    }
}

struct stream {
    uint8_t *p;
    size_t n;
    uint64_t hash;
    uint64_t seed;
};

static void make_stream(struct stream *st, uint64_t seed)
{
    struct rng r;
    rng_seed(&r, seed);
    st->seed = seed;
    st->p = malloc(STREAM_BYTES + BODY_MAX + 10);
    st->n = 0;
    while (st->n < STREAM_BYTES) {
        uint8_t *p = st->p + st->n;
        if (rng_below(&r, 3) > 0) {
            uint8_t n = (uint8_t)rng_below(&r, 256);
            p[0] = 'C';
            p[1] = n;
            fill(p + 2, n, rng_u64(&r));
            st->n += 2u + n;
        } else {
            uint32_t n = 1 + (uint32_t)rng_below(&r, rng_below(&r, 2) == 0 ? 300 : BODY_MAX - 1);
            p[0] = 'B';
            memcpy(p + 1, &n, 4);
            fill(p + 5, n, rng_u64(&r));
            st->n += 5u + n;
        }
    }
    struct reader sum = {0};
    take(&sum, st->p, st->n);
    st->hash = sum.hash;
}

static void *send_stream(void *arg)
{
    const struct stream *st = arg;
    struct rng r;
    rng_seed(&r, st->seed + 1);
    int fd = peer_connect();
    for (size_t at = 0; at < st->n;) {
        size_t span = rng_below(&r, 4) == 0 ? 20 : 30000;
        size_t n = 1 + rng_below(&r, span);
        if (n > st->n - at)
            n = st->n - at;
        peer_write(fd, st->p + at, n);
        at += n;
        if (rng_below(&r, 16) == 0)
            usleep(200);
    }
    char byte;
    size_t more = peer_read(fd, &byte, 1); /* until the other side is done with it */
    close(fd);
    return done(more == 0);
}

static void start_reader(struct session *s)
{
    struct reader *r = calloc(1, sizeof *r);
    rng_seed(&r->rng, (uint64_t)session_count);
    s->extra = r;
    s->on_bytes = command_bytes;
    s->on_body = body_bytes;
    s->close_on_eof = false;
}

static void test_mode_switches(void **state)
{
    (void)state;
    on_new = start_reader;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct stream st;
        make_stream(&st, seed);
        pthread_t t = start_peer(send_stream, &st);
        WAIT_FOR(session_count == (int)seed);
        struct session *s = &sessions[seed - 1];
        struct reader *r = s->extra;
        uint64_t until = now_ms() + 20000;
        while (r->bytes < st.n && now_ms() < until) {
            io_turn(io, 1000000);
            if (r->paused_turns == 0 || --r->paused_turns > 0)
                continue;
            if (r->left > 0)
                next_body_part(s);
            else
                conn_recv(s->c); /* the rest came while it was paused */
        }
        if (r->bytes != st.n || r->hash != st.hash)
            fprintf(stderr, "seed %llu: %llu of %zu bytes\n", (unsigned long long)seed,
                    (unsigned long long)r->bytes, st.n);
        assert_int_equal(r->bytes, st.n);
        assert_int_equal(r->hash, st.hash);
        conn_close(s->c, false);
        join_peer(t, (void *)1);
        WAIT_FOR(s->closed);
        free(r);
        free(st.p);
    }
}

/* A huge answer to a slow reader, in pieces of the session's own memory and of buffers, in order.
 */
static void *slow_reader(void *arg)
{
    const uint8_t *expect = arg;
    int fd = peer_connect();
    peer_write(fd, "go", 2);
    uint8_t *in = malloc(HUGE_BYTES + 100);
    size_t got = 0;
    for (int i = 0; i < 20; i++) {
        usleep(2000);
        got += peer_read(fd, in + got, 1000);
    }
    got += peer_read(fd, in + got, HUGE_BYTES + 100 - got); /* until the end */
    bool ok = got == HUGE_BYTES + 12 && memcmp(in, "first ", 6) == 0 &&
              memcmp(in + 6, expect, HUGE_BYTES) == 0 &&
              memcmp(in + 6 + HUGE_BYTES, " last!", 6) == 0;
    free(in);
    close(fd);
    return done(ok);
}

static void send_huge(struct session *s, struct span d)
{
    (void)d;
    uint8_t *mem = s->memory;
    put_all(s->c, span_str("first "));
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(conn_put_ref(s->c, span_of(mem + i * (HUGE_BYTES / 8), HUGE_BYTES / 8)),
                         0);
    assert_int_equal(conn_put_ref(s->c, span_of(mem, 1)), -ENOBUFS);
    put_all(s->c, span_str(" last!"));
    assert_int_equal(conn_out_bytes(s->c), HUGE_BYTES + 12);
    conn_close(s->c, false); /* and yet everything is sent */
    assert_int_equal(conn_put_ref(s->c, span_str("x")), 0);
    memcpy(conn_put(s->c, 3), "xyz", 3); /* goes nowhere */
}

static uint8_t *huge;
static void start_huge(struct session *s)
{
    s->memory = huge;
    s->on_bytes = send_huge;
}

static void test_huge_send_to_slow_reader(void **state)
{
    (void)state;
    huge = malloc(HUGE_BYTES);
    fill(huge, HUGE_BYTES, 99);
    on_new = start_huge;
    join_peer(start_peer(slow_reader, huge), (void *)1);
    WAIT_FOR(closed_count == 1);
    free(huge);
}

/* Output that is queued while a send is in flight goes out behind it, and on_sent comes after all
 * of it. */
static void *late_reader(void *arg)
{
    int fd = *(int *)arg;
    uint8_t *in = malloc(HUGE_BYTES + 100);
    size_t got = peer_read(fd, in, HUGE_BYTES + 30);
    bool ok = got == HUGE_BYTES + 30 && in[0] == 7 && in[HUGE_BYTES - 1] == 7;
    for (int i = 0; i < 10; i++)
        ok = ok && memcmp(in + HUGE_BYTES + 3 * i, "abc", 3) == 0;
    free(in);
    return done(ok);
}

static void test_output_behind_a_send_in_flight(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    struct session *s = &sessions[0];
    uint8_t *mem = malloc(HUGE_BYTES);
    memset(mem, 7, HUGE_BYTES);
    assert_int_equal(conn_put_ref(s->c, span_of(mem, HUGE_BYTES)), 0);
    for (int i = 0; i < 10; i++) {
        io_turn(io, 1000000);
        put_all(s->c, span_str("abc"));
    }
    assert_int_equal(s->sent, 0);
    join_peer(start_peer(late_reader, &fd), (void *)1);
    WAIT_FOR(s->sent == 1);
    free(mem);
    close(fd);
}

static void test_on_sent_frees_the_memory(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    struct session *s = &sessions[0];
    for (int i = 0; i < 50; i++) {
        uint8_t *mem = malloc(5000);
        memset(mem, i, 5000);
        put_all(s->c, span_str("ab"));
        assert_int_equal(conn_put_ref(s->c, span_of(mem, 5000)), 0);
        put_all(s->c, span_str("cd"));
        int sent = s->sent;
        WAIT_FOR(s->sent > sent);
        free(mem); /* ASan watches */
        uint8_t in[5004];
        assert_int_equal(peer_read(fd, in, sizeof in), sizeof in);
        assert_memory_equal(in, "ab", 2);
        assert_int_equal(in[2], i);
        assert_int_equal(in[5001], i);
        assert_memory_equal(in + 5002, "cd", 2);
    }
    close(fd);
}

/* Closing with each kind of operation in flight, at once and gently. */
static uint8_t body_memory[4096];
static void unexpected_body(struct session *s, size_t n)
{
    (void)s;
    (void)n;
    fail();
}

static void close_in_state(int what, bool now)
{
    int before = session_count;
    int fd = peer_connect();
    WAIT_FOR(session_count == before + 1);
    struct session *s = &sessions[before];
    s->on_body = unexpected_body;
    uint8_t *mem = malloc(HUGE_BYTES);
    memset(mem, 7, HUGE_BYTES);
    if (what == 1)
        conn_recv_into(s->c, body_memory, sizeof body_memory, true);
    if (what == 2)
        assert_int_equal(conn_put_ref(s->c, span_of(mem, HUGE_BYTES)), 0); /* nobody reads */
    if (what == 3)
        conn_recv_pause(s->c);
    for (int i = 0; i < 5; i++)
        io_turn(io, 1000000);
    conn_close(s->c, now);
    conn_close(s->c, now); /* twice is allowed */
    for (int i = 0; i < 5; i++)
        io_turn(io, 1000000);
    if (!now && what == 2) {
        assert_int_equal(s->closed, 0); /* it is still sending */
        conn_close(s->c, true);
    } else if (!now) {
        assert_int_equal(s->closed, 0); /* it waits for the peer's end */
        char byte;
        assert_int_equal(recv(fd, &byte, 1, 0), 0);
        peer_write(fd, "late words", 10);
        close(fd);
        fd = -1;
    }
    uint64_t start = now_ms();
    WAIT_FOR(s->closed);
    assert_true(now_ms() - start < 1000);
    memset(mem, 8, HUGE_BYTES);
    free(mem);
    if (fd >= 0)
        close(fd);
}

static void test_close_with_operations_in_flight(void **state)
{
    (void)state;
    for (int what = 0; what < 4; what++) {
        close_in_state(what, true);
        close_in_state(what, false);
    }
}

/* A peer that never ends does not keep the slot. */
static void test_linger_is_bounded(void **state)
{
    (void)state;
    int fd = peer_connect();
    WAIT_FOR(session_count == 1);
    uint64_t start = now_ms();
    conn_close(sessions[0].c, false);
    WAIT_FOR(sessions[0].closed);
    assert_true(now_ms() - start >= 1900 && now_ms() - start < 4000);
    close(fd);
}

/* The last reply reaches a client that is still sending: no reset eats it. */
static void *rude(void *arg)
{
    (void)arg;
    int fd = peer_connect();
    static uint8_t junk[100000];
    peer_write(fd, junk, sizeof junk);
    char in[8] = "";
    usleep(20000);
    bool ok = peer_read(fd, in, 5) == 5 && memcmp(in, "421 x", 5) == 0;
    peer_write(fd, junk, sizeof junk);
    close(fd);
    return done(ok);
}

static void close_on_bytes(struct session *s, struct span d)
{
    (void)d;
    put_all(s->c, span_str("421 x"));
    conn_close(s->c, false);
}

static void start_rude(struct session *s)
{
    s->on_bytes = close_on_bytes;
}

static void test_last_reply_is_not_lost(void **state)
{
    (void)state;
    on_new = start_rude;
    for (int i = 0; i < 20; i++) {
        join_peer(start_peer(rude, NULL), (void *)1);
        WAIT_FOR(closed_count == i + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_echo_one_byte_a_segment),
        CASE(test_churn),
        CASE(test_mode_switches),
        CASE(test_huge_send_to_slow_reader),
        CASE(test_output_behind_a_send_in_flight),
        CASE(test_on_sent_frees_the_memory),
        CASE(test_close_with_operations_in_flight),
        CASE(test_linger_is_bounded),
        CASE(test_last_reply_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
