/*
 * Replies that come before the content has left: the memory of the content is in use until the
 * connection is gone, so the transaction must not be told as over while a send still reads from it.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/config_support.h"
#include "worker/smtp/client.h"

enum { CONTENT_BYTES = 1 << 20, WINDOW = 20000 };

typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)conn_connect, (any_function *)io_create};

static struct io *io;
static struct wheel wheel;
static struct config *config;
static struct smtp_client *client;
static uint8_t *content;
static struct span rcpt;
static int idles, dones, failures, closes;
static enum smtp_stage stage;
static unsigned code;
static bool dot_sent;

static void on_idle(void *owner)
{
    (void)owner;
    if (idles++ > 0)
        return;
    struct client_job job = {.sender = span_str("s@example.org"),
                             .rcpts = &rcpt,
                             .rcpt_count = 1,
                             .raw_bytes = CONTENT_BYTES,
                             .wire_bytes = CONTENT_BYTES,
                             .piece = span_of(content, CONTENT_BYTES),
                             .last = true};
    smtp_client_send(client, &job);
}

static void on_rcpt(void *owner, unsigned i, const struct smtp_reply *r)
{
    (void)owner;
    (void)i;
    (void)r;
}

static bool on_dot(void *owner)
{
    (void)owner;
    return true;
}

static void on_more(void *owner)
{
    (void)owner;
    fail();
}

static void forget_content(void)
{
    free(content);
    content = NULL;
}

static void on_done(void *owner, enum smtp_stage st, const struct smtp_reply *r)
{
    (void)owner;
    dones++;
    stage = st;
    code = r->code;
    forget_content(); /* the contract: it is ours again */
}

static void on_failed(void *owner, const struct client_failure *f)
{
    (void)owner;
    failures++;
    stage = f->stage;
    code = f->reply != NULL ? f->reply->code : 0;
    dot_sent = f->dot_sent;
}

static void on_closed(void *owner)
{
    (void)owner;
    closes++;
    client = NULL;
    forget_content();
}

static const struct client_events events = {
    .on_idle = on_idle, .on_rcpt = on_rcpt, .on_dot = on_dot, .on_more = on_more,
    .on_done = on_done, .on_failed = on_failed, .on_closed = on_closed,
};

static void expect(struct sim_peer *p, const char *end)
{
    sim_run(io);
    struct span out = sim_output(p);
    size_t n = strlen(end);
    assert_true(out.n >= n);
    assert_memory_equal(out.p + out.n - n, end, n);
    sim_take(p, out.n);
}

static struct sim_peer *to_the_content(uint64_t seed, const char *ehlo)
{
    struct io_settings set = {.conn_count_max = 16, .recv_buffer_count = 64};
    for (size_t i = 0; i < ARRAY_COUNT(simulated); i++)
        assert_non_null(simulated[i]);
    assert_int_equal(io_create(&io, &set), 0);
    assert_int_equal(io_enable(io), 0);
    sim_seed(io, seed);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    idles = dones = failures = closes = 0;
    code = 0;
    content = malloc(CONTENT_BYTES);
    memset(content, 'x', CONTENT_BYTES);
    memcpy(content + CONTENT_BYTES - 2, "\r\n", 2);
    rcpt = span_str("u@example.net");
    struct client_settings s = {.config = config, .io = io, .wheel = &wheel, .ehlo = "me.example"};
    s.target.timeout_ms = 30000;
    s.target.to_port = 25;
    assert_int_equal(ip_parse(span_str("192.0.2.1"), &s.target.to), 0);
    client = smtp_client_open(&s, &events, NULL);
    assert_non_null(client);
    sim_run(io);
    struct sim_peer *p = sim_next_connect(io);
    assert_non_null(p);
    sim_accept(p);
    sim_push_text(p, "220 mx.example ESMTP\r\n");
    expect(p, "EHLO me.example\r\n");
    sim_push_text(p, ehlo);
    expect(p, "MAIL FROM:<s@example.org>\r\n");
    sim_push_text(p, "250 ok\r\n");
    expect(p, "RCPT TO:<u@example.net>\r\n");
    sim_window(p, WINDOW);
    sim_push_text(p, "250 ok\r\n");
    return p;
}

static void end(struct sim_peer *p)
{
    sim_run(io);
    if (client != NULL) {
        smtp_client_abort(client);
        sim_run(io);
    }
    assert_null(client);
    assert_int_equal(closes, 1);
    sim_peer_free(p);
    io_destroy(&io);
}

static void refuse_early(uint64_t seed, bool bdat)
{
    struct sim_peer *p = to_the_content(seed, bdat ? "250-mx\r\n250 CHUNKING\r\n" : "250 mx\r\n");
    if (!bdat) {
        expect(p, "DATA\r\n");
        sim_push_text(p, "354 go\r\n");
    }
    sim_run(io);
    assert_true(sim_output(p).n > 0);
    assert_true(sim_output(p).n <= WINDOW);
    sim_push_text(p, "552 5.3.4 too big\r\n");
    sim_run(io);
    sim_window(p, SIZE_MAX);
    sim_run(io);
    assert_int_equal(dones, 0);
    assert_int_equal(failures, 1);
    assert_int_equal(code, 552);
    end(p);
}

static void test_refused_while_the_content_leaves(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        refuse_early(seed, false);
        refuse_early(seed, true);
    }
}

static void test_reply_to_the_dot(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_peer *p = to_the_content(seed, "250 mx\r\n");
        expect(p, "DATA\r\n");
        sim_window(p, SIZE_MAX);
        sim_push_text(p, "354 go\r\n");
        expect(p, "x\r\n.\r\n");
        sim_push_text(p, "250 taken\r\n");
        sim_run(io);
        assert_int_equal(dones, 1);
        assert_int_equal(stage, STAGE_DOT);
        assert_int_equal(failures, 0);
        assert_int_equal(idles, 2);
        end(p);
    }
}

static int set_up(void **state)
{
    (void)state;
    config = good(LEAST);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    config_free(&config);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_while_the_content_leaves),
        cmocka_unit_test(test_reply_to_the_dot),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
