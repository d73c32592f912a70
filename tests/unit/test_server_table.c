/*
 * The inbound dialog over a simulated network: every cell of state x verb, answers of the owner
 * that fail, come at once or late, clients that vanish, drain in every state, and the same replies
 * however the bytes are cut. Intake is played by the test.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/lane_support.h"
#include "worker/smtp/server_impl.h"

#include <errno.h>

#define YAML                                                                               \
    "node: t\nhostname: mx.test\nlisten:\n- {address: 127.0.0.1, port: 25, role: relay}\n" \
    "relay_from: [192.0.2.0/24]\nrefuse_from: [198.51.100.0/24]\ndns: {enabled: false}\n"  \
    "smtp: {size_max: 4M, recipients_max: 100, errors_max: 1000}\n"                        \
    "pools: {p: {lanes: [{address: 127.0.0.11, ehlo: l.test}]}}\n"                         \
    "routes:\n- {domain: \"*\", via: 127.0.0.1}\n"

typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)conn_connect, (any_function *)io_create};

static struct smtp_servers *servers;
static struct sim_peer *peer;
static struct queue *const queue_used = &queue;

/* --- intake, played by the test --- */

enum owner_mood { ANSWERS_AT_ONCE, ANSWERS_LATER };
static struct {
    enum owner_mood mood;
    int chunk_res, commit_res, open_res;
    struct submission *waits; /* for an answer */
    bool waits_commit;
    unsigned opened, closed, chunks, commits;
    uint64_t body_bytes;
} owner;

struct msg_id intake_id(struct intake *in)
{
    (void)in;
    return (struct msg_id){1, ++lane_next_id};
}

int submission_open(struct intake *in, struct submission *s)
{
    (void)in;
    assert_true(s->rcpt_count > 0);
    owner.opened += owner.open_res == 0;
    return owner.open_res;
}

static void answer(void)
{
    struct submission *s = owner.waits;
    assert_non_null(s);
    owner.waits = NULL;
    if (owner.waits_commit)
        s->on_done(s, owner.commit_res);
    else
        s->on_chunk(s, owner.chunk_res);
}

static void ask(struct submission *s, bool commit)
{
    assert_null(owner.waits);
    owner.waits = s;
    owner.waits_commit = commit;
    if (owner.mood == ANSWERS_AT_ONCE)
        answer();
}

void submission_chunk(struct submission *s, struct span chunk)
{
    assert_true(chunk.n > 0 && chunk.n <= LIMIT_BODY_CHUNK_BYTES + TAIL_KEPT);
    owner.chunks++;
    owner.body_bytes += chunk.n;
    s->chunked = true;
    ask(s, false);
}

void submission_commit(struct submission *s)
{
    owner.commits++;
    assert_true(s->content->rest_bytes >= s->enq.trace_bytes);
    if (!s->chunked)
        owner.body_bytes += s->content->rest_bytes - s->enq.trace_bytes;
    assert_true(owner.body_bytes == s->enq.body_bytes);
    ask(s, true);
}

void submission_close(struct submission *s)
{
    owner.closed++;
    if (owner.waits == s)
        owner.waits = NULL;
}

/* --- the other end --- */

static int set_up(void **state)
{
    (void)state;
    assert_non_null(simulated[0]);
    memset(&owner, 0, sizeof owner);
    queue_make(YAML);
    queue_used->shard_count = 0;
    lanes_make(NULL);
    const struct smtp_servers_settings s = {.config = lane_config,
                                            .io = lane_io,
                                            .wheel = &lane_wheel,
                                            .queue = &queue,
                                            .events = lane_events,
                                            .stats = &lane_stats,
                                            .rng = &lane_rng};
    assert_int_equal(smtp_servers_create(&servers, &s), 0);
    assert_int_equal(smtp_servers_listen(servers, 0, 3), 0);
    sim_calm(lane_io, true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    smtp_servers_destroy(&servers);
    queue_unmake();
    return 0;
}

static void come(const char *ip)
{
    peer = sim_client(lane_io, &servers->listeners[0].listener, ip, 4711);
    sim_run(lane_io);
}

static void leave(void)
{
    if (!sim_peer_closed(peer))
        sim_reset(peer);
    sim_run(lane_io);
    sim_run_for(lane_io, &lane_wheel, 3000);
    sim_peer_free(peer);
    assert_int_equal(smtp_servers_open(servers), 0);
    assert_int_equal(owner.opened, owner.closed);
    assert_int_equal(servers->txns.used, 0);
    assert_int_equal(content_total(), 0);
}

static void forget_output(void)
{
    sim_take(peer, sim_output(peer).n);
}

/* Replies that have come, as their codes in a row: "250 354". Multi-line replies count once. */
static const char *codes(void)
{
    static char out[4096];
    struct text t = text_of(out, sizeof out);
    struct span s = sim_output(peer);
    out[0] = '\0';
    for (size_t at = 0; at + 4 <= s.n;) {
        if (s.p[at + 3] == ' ')
            text_fmt(&t, "%s%.3s", t.n > 0 ? " " : "", (const char *)s.p + at);
        const uint8_t *lf = memchr(s.p + at, '\n', s.n - at);
        assert_non_null(lf);
        assert_int_equal(lf[-1], '\r');
        at = (size_t)(lf - s.p) + 1;
    }
    forget_output();
    return out;
}

static const char *say(const char *text)
{
    sim_push_text(peer, text);
    sim_run(lane_io);
    return codes();
}

/* --- state x verb --- */

static const struct {
    enum server_state state;
    const char *ip;
    const char *way; /* from the greeting */
} states[] = {
    {SV_NEW, "192.0.2.1", ""},
    {SV_READY, "192.0.2.1", "EHLO a.test\r\n"},
    {SV_MAIL, "192.0.2.1", "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n"},
    {SV_RCPT, "192.0.2.1", "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"},
    {SV_BDAT, "192.0.2.1",
     "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\nabc"},
    {SV_REFUSED, "198.51.100.1", ""},
};
static const char *const lines[SMTP_VERB_COUNT] = {
    [SMTP_EHLO] = "EHLO a.test\r\n",
    [SMTP_HELO] = "HELO a.test\r\n",
    [SMTP_MAIL] = "MAIL FROM:<a@b.test>\r\n",
    [SMTP_RCPT] = "RCPT TO:<c@d.test>\r\n",
    [SMTP_DATA] = "DATA\r\n",
    [SMTP_BDAT] = "BDAT 6 LAST\r\nQUIT\r\n",
    [SMTP_RSET] = "RSET\r\n",
    [SMTP_NOOP] = "NOOP\r\n",
    [SMTP_QUIT] = "QUIT\r\n",
    [SMTP_VRFY] = "VRFY a\r\n",
    [SMTP_HELP] = "HELP\r\n",
    [SMTP_STARTTLS] = "STARTTLS\r\n",
    [SMTP_AUTH] = "AUTH PLAIN x\r\n",
    [SMTP_NOT_IMPLEMENTED] = "TURN\r\n",
    [SMTP_UNKNOWN] = "FOO\r\n",
};
/* The reply and the state after it. */
struct cell {
    const char *code;
    enum server_state next;
};
#define SAME(st)                                                                     \
    [SMTP_NOOP] = {"250", st}, [SMTP_VRFY] = {"252", st}, [SMTP_HELP] = {"214", st}, \
    [SMTP_STARTTLS] = {"502", st}, [SMTP_AUTH] = {"502", st},                        \
    [SMTP_NOT_IMPLEMENTED] = {"502", st}, [SMTP_UNKNOWN] = {"500", st},              \
    [SMTP_QUIT] = {"221", SV_CLOSING}, [SMTP_EHLO] = {"250", SV_READY},              \
    [SMTP_HELO] = {"250", SV_READY}
static const struct cell cells[SV_STATE_COUNT][SMTP_VERB_COUNT] = {
    [SV_NEW] = {SAME(SV_NEW), [SMTP_MAIL] = {"503", SV_NEW}, [SMTP_RCPT] = {"503", SV_NEW},
                [SMTP_DATA] = {"503", SV_NEW}, [SMTP_BDAT] = {"503", SV_NEW},
                [SMTP_RSET] = {"250", SV_NEW}},
    [SV_READY] = {SAME(SV_READY), [SMTP_MAIL] = {"250", SV_MAIL}, [SMTP_RCPT] = {"503", SV_READY},
                  [SMTP_DATA] = {"503", SV_READY}, [SMTP_BDAT] = {"503", SV_READY},
                  [SMTP_RSET] = {"250", SV_READY}},
    [SV_MAIL] = {SAME(SV_MAIL), [SMTP_MAIL] = {"503", SV_MAIL}, [SMTP_RCPT] = {"250", SV_RCPT},
                 [SMTP_DATA] = {"503", SV_MAIL}, [SMTP_BDAT] = {"503", SV_MAIL},
                 [SMTP_RSET] = {"250", SV_READY}},
    [SV_RCPT] = {SAME(SV_RCPT), [SMTP_MAIL] = {"503", SV_RCPT}, [SMTP_RCPT] = {"250", SV_RCPT},
                 [SMTP_DATA] = {"354", SV_DATA}, [SMTP_BDAT] = {"250", SV_READY},
                 [SMTP_RSET] = {"250", SV_READY}},
    [SV_BDAT] = {SAME(SV_BDAT), [SMTP_MAIL] = {"503", SV_BDAT}, [SMTP_RCPT] = {"503", SV_BDAT},
                 [SMTP_DATA] = {"503", SV_BDAT}, [SMTP_BDAT] = {"250", SV_READY},
                 [SMTP_RSET] = {"250", SV_READY}},
};

static void reach(size_t i)
{
    come(states[i].ip);
    (void)say(states[i].way);
    assert_non_null(servers->list);
    assert_int_equal(servers->list->state, states[i].state);
}

static void test_every_cell(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(states); i++) {
        for (unsigned v = 0; v < SMTP_VERB_COUNT; v++) {
            struct cell want = cells[states[i].state][v];
            if (states[i].state == SV_REFUSED)
                want = v == SMTP_QUIT ? (struct cell){"221", SV_CLOSING}
                                      : (struct cell){"503", SV_REFUSED};
            owner.body_bytes = 0;
            reach(i);
            const char *got = say(lines[v]);
            if (strcmp(got, want.code) != 0)
                fail_msg("state %d, %s: %s, not %s", (int)states[i].state,
                         smtp_verb_name((enum smtp_verb)v), got, want.code);
            if (want.next == SV_CLOSING)
                assert_true(sim_peer_ended(peer));
            else
                assert_int_equal(servers->list->state, want.next);
            leave();
        }
    }
}

/* Each state again: the client goes, the time is up, the node drains, output memory is short. */
static void test_every_state_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(states); i++) {
        reach(i);
        sim_eof(peer);
        sim_run(lane_io);
        leave();
        reach(i);
        sim_run_for(lane_io, &lane_wheel, 301000);
        assert_string_equal(codes(), "421");
        assert_true(sim_peer_ended(peer));
        leave();
        reach(i);
        sim_no_output_memory(lane_io, true);
        (void)say("NOOP\r\n");
        sim_no_output_memory(lane_io, false);
        assert_null(servers->list);
        leave();
    }
}

static void test_drain(void **state)
{
    for (size_t i = 0; i < ARRAY_COUNT(states); i++) {
        reach(i);
        smtp_servers_drain(servers);
        sim_run(lane_io);
        if (states[i].state == SV_BDAT) {
            owner.body_bytes = 0;
            assert_string_equal(say("BDAT 3 LAST\r\nd\r\n"), "250 421");
        } else {
            assert_string_equal(codes(), "421");
        }
        assert_true(sim_peer_ended(peer));
        leave();
        (void)tear_down(state);
        (void)set_up(state);
    }
}

/* --- bodies and owners --- */

static const char begin_data[] =
    "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n";
static const char begin_bdat[] =
    "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 1000000 LAST\r\n";
enum { LONG_BYTES = 1000000 };

static struct span long_body(void)
{
    static char body[LONG_BYTES];
    for (size_t i = 0; i < LONG_BYTES; i++)
        body[i] = i % 100 == 98 ? '\r' : i % 100 == 99 ? '\n' : 'x';
    return span_of(body, LONG_BYTES);
}

/* Answers what waits until nothing does. */
static void answer_all(void)
{
    for (int i = 0; i < 1000 && owner.waits != NULL; i++) {
        answer();
        sim_run(lane_io);
    }
    assert_null(owner.waits);
}

static void send_long(bool data)
{
    owner.body_bytes = 0;
    come("192.0.2.1");
    sim_push_text(peer, data ? begin_data : begin_bdat);
    sim_push(peer, long_body());
    if (data)
        sim_push_text(peer, ".\r\n");
    sim_push_text(peer, "NOOP\r\n");
    sim_run(lane_io);
    answer_all();
}

static void test_owner_answers(void **state)
{
    (void)state;
    static const struct {
        int open_res, chunk_res, commit_res;
        const char *code;
    } rows[] = {
        {0, 0, 0, "250"},      {0, 0, -EIO, "451"},       {0, 0, -ENOSPC, "452"},
        {0, -EIO, 0, "451"},   {0, -ENOSPC, 0, "452"},    {-ENOBUFS, 0, 0, "451"},
        {-E2BIG, 0, 0, "451"}, {0, -ETIMEDOUT, 0, "451"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        for (int way = 0; way < 4; way++) {
            owner.open_res = rows[i].open_res;
            owner.chunk_res = rows[i].chunk_res;
            owner.commit_res = rows[i].commit_res;
            owner.mood = way & 1 ? ANSWERS_LATER : ANSWERS_AT_ONCE;
            send_long((way & 2) != 0);
            char want[64];
            snprintf(want, sizeof want, "220 250 250 250 %s%s 250", way & 2 ? "354 " : "",
                     rows[i].code);
            assert_string_equal(codes(), want);
            leave();
        }
    }
}

/* The client goes while the owner has not answered yet: by its end or a reset, at each wait in
 * turn. */
static void test_gone_while_waiting(void **state)
{
    (void)state;
    owner.mood = ANSWERS_LATER;
    for (int way = 0; way < 4; way++) {
        for (int answers = 0; answers < 6; answers++) {
            owner.body_bytes = 0;
            come("192.0.2.1");
            sim_push_text(peer, way & 2 ? begin_data : begin_bdat);
            sim_push(peer, long_body());
            if (way & 2)
                sim_push_text(peer, ".\r\n");
            sim_run(lane_io);
            for (int i = 0; i < answers && owner.waits != NULL; i++) {
                answer();
                sim_run(lane_io);
            }
            if (way & 1)
                sim_reset(peer);
            else
                sim_eof(peer);
            /* The answer may come while the connection is being closed, which is never taken back.
             */
            for (int i = 0; i < 100 && servers->list->state != SV_CLOSING && owner.waits != NULL;
                 i++)
                io_turn(lane_io, 0);
            bool closing = servers->list != NULL && servers->list->state == SV_CLOSING;
            if (owner.waits != NULL)
                answer();
            if (closing && servers->list != NULL)
                assert_int_equal(servers->list->state, SV_CLOSING);
            sim_run(lane_io);
            answer_all();
            leave();
        }
    }
}

/* An end of the client's side does not take its answers away. */
static void test_half_closed(void **state)
{
    (void)state;
    owner.mood = ANSWERS_LATER;
    come("192.0.2.1");
    sim_push_text(peer, begin_data);
    sim_push_text(peer, "S: x\r\n\r\nx\r\n.\r\nNOOP\r\n");
    sim_eof(peer);
    sim_run(lane_io);
    assert_string_equal(codes(), "220 250 250 250 354");
    answer_all();
    assert_string_equal(codes(), "250 250");
    assert_true(sim_peer_ended(peer));
    leave();
}

/* Whatever the splits, delays and the owner's pace: the same replies and the same number of body
 * bytes. */
static void test_any_split(void **state)
{
    (void)state;
    static const char start[] = "EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT "
                                "5\r\nS: x\rBDAT 3\r\n\n\r\nBDAT 0 LAST\r\n"
                                "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n";
    sim_calm(lane_io, false);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sim_seed(lane_io, seed);
        owner.mood = seed % 3 == 0 ? ANSWERS_AT_ONCE : ANSWERS_LATER;
        owner.body_bytes = 0;
        come("192.0.2.1");
        sim_push_text(peer, start);
        sim_run(lane_io);
        answer_all();
        assert_int_equal(owner.body_bytes, 8);
        owner.body_bytes = 0;
        sim_push(peer, long_body());
        sim_push_text(peer, ".\r\nNOOP\r\nFOO\r\nQUIT\r\n");
        sim_run(lane_io);
        answer_all();
        const char *got = codes();
        if (strcmp(got, "220 250 250 250 250 250 250 250 250 354 250 250 500 221") != 0)
            fail_msg("seed %llu: %s", (unsigned long long)seed, got);
        assert_int_equal(owner.body_bytes, LONG_BYTES);
        leave();
    }
}

/* Chunks that end where a piece for the log is full: what is in memory stays bounded. */
static void test_chunks_at_the_end_of_a_piece(void **state)
{
    (void)state;
    for (int mood = ANSWERS_AT_ONCE; mood <= ANSWERS_LATER; mood++) {
        owner.mood = (enum owner_mood)mood;
        owner.body_bytes = 0;
        come("192.0.2.1");
        (void)say("EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n");
        char line[64];
        snprintf(line, sizeof line, "BDAT %d\r\n", LIMIT_BODY_CHUNK_BYTES - 40);
        (void)say(line);
        sim_push(peer, span_of(long_body().p, LIMIT_BODY_CHUNK_BYTES - 40));
        sim_run(lane_io);
        unsigned before = owner.chunks;
        for (int i = 0; i < 200; i++) {
            /* One octet each: what is larger than the room is cut, and gives the piece away then.
             */
            sim_push_text(peer, "BDAT 1\r\n");
            sim_push(peer, span_of(&"\r\n."[i % 3], 1));
            sim_run(lane_io);
            answer_all();
        }
        assert_true(owner.chunks > before);
        (void)codes();
        sim_push_text(peer, "BDAT 0 LAST\r\n");
        sim_run(lane_io);
        answer_all();
        assert_string_equal(codes(), "250");
        leave();
    }
}

/* What a dialog costs while it says nothing (SAF-04: at most 64 KiB with everything). */
static void test_idle_memory(void **state)
{
    (void)state;
    print_message("dialog %zu, transaction %zu bytes\n", sizeof(struct smtp_server),
                  sizeof(struct txn));
    assert_true(sizeof(struct smtp_server) <= 512);
    assert_true(sizeof(struct txn) <= 2048);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_cell, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_state_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_owner_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gone_while_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_half_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_chunks_at_the_end_of_a_piece, set_up, tear_down),
        cmocka_unit_test(test_idle_memory),
    };
    return cmocka_run_group_tests_name("smtp_server", tests, NULL, NULL);
}
