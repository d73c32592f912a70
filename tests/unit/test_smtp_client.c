/*
 * An outgoing dialog against a simulated peer: the same random dialogs from many seeds with bytes
 * split and delayed at will, and each state's own time limit. What must hold is written once, in
 * the callbacks and in the peer.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/config_support.h"

#include "base/rng.h"
#include "worker/smtp/client.h"

#define YAML                                                                                      \
    "node: a\n"                                                                                   \
    "listen: [{address: 0.0.0.0, port: 25}]\n"                                                    \
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: out10.example.net}]}}\n"                     \
    "client: {connect: 1s, greeting: 2s, ehlo: 3s, mail: 4s, rcpt: 5s, data: 6s, dot: 8s, rset: " \
    "9s, quit: 1500ms}\n"

enum { RCPTS_MAX = 6, JOBS = 4 };
static const char content[] = "Subject: x\r\n\r\n..stuffed\r\nlast\r\n";
static const char plain_content[] = "Subject: x\r\n\r\nnothing doubled\r\nlast\r\n";

static struct config *config;
static struct io *io;
static struct wheel wheel;
static struct smtp_client *client;
static struct sim_peer *peer;

/* What the owner heard. */
static struct {
    unsigned idle, closed, failed, jobs, done;
    bool in_job, may_send_dot, gated;
    unsigned rcpts, accepted, heard;
    struct client_failure failure;
    enum smtp_stage done_stage;
    uint16_t done_code;
    bool stuffed;
} heard;
static struct rng rng;
static bool random_gate;
static unsigned jobs_wanted;
static struct span rcpts[RCPTS_MAX];

static void give_job(void)
{
    static const char *const names[RCPTS_MAX] = {"a@d.test", "b@d.test", "c@d.test",
                                                 "d@d.test", "e@d.test", "f@d.test"};
    for (unsigned i = 0; i < RCPTS_MAX; i++)
        rcpts[i] = span_str(names[i]);
    heard.jobs++;
    heard.in_job = true;
    heard.may_send_dot = false;
    heard.heard = heard.accepted = 0;
    heard.rcpts = 1 + (unsigned)rng_below(&rng, RCPTS_MAX);
    heard.stuffed = rng_below(&rng, 2) == 0;
    struct span body = span_str(heard.stuffed ? content : plain_content);
    struct client_job job = {.sender = span_str("s@s.test"),
                             .rcpts = rcpts,
                             .rcpt_count = heard.rcpts,
                             .raw_bytes = body.n - heard.stuffed,
                             .wire_bytes = body.n,
                             .stuffed = heard.stuffed,
                             .piece = body,
                             .last = true};
    smtp_client_send(client, &job);
}

static void on_idle(void *owner)
{
    (void)owner;
    heard.idle++;
    assert_false(heard.in_job);
    if (heard.jobs < jobs_wanted)
        give_job();
    else if (jobs_wanted > 0)
        smtp_client_quit(client);
}

static void on_rcpt(void *owner, unsigned i, const struct smtp_reply *r)
{
    (void)owner;
    assert_true(heard.in_job);
    assert_true(i < heard.rcpts);
    heard.heard++;
    heard.accepted += r->code / 100 == 2;
}

static bool on_dot(void *owner)
{
    (void)owner;
    assert_true(heard.in_job);
    heard.may_send_dot = true;
    heard.gated = random_gate && rng_below(&rng, 3) == 0;
    return !heard.gated;
}

static void on_more(void *owner)
{
    (void)owner;
    fail_msg("there is one piece only");
}

static void on_done(void *owner, enum smtp_stage stage, const struct smtp_reply *r)
{
    (void)owner;
    assert_true(heard.in_job);
    heard.in_job = false;
    heard.done++;
    heard.done_stage = stage;
    heard.done_code = r->code;
}

static void on_failed(void *owner, const struct client_failure *f)
{
    (void)owner;
    assert_int_equal(f->in_job, heard.in_job);
    assert_true(heard.may_send_dot || !f->dot_sent);
    heard.failed++;
    heard.in_job = false;
    heard.failure = *f;
}

static void on_closed(void *owner)
{
    (void)owner;
    heard.closed++;
    client = NULL;
}

static const struct client_events events = {on_idle, on_rcpt,   on_dot,   on_more,
                                            on_done, on_failed, on_closed};

/* --- the peer: what came, and what it says --- */

static struct {
    bool pipelining, chunking, size, connected;
    char line[5000];
    size_t line_bytes;
    bool in_data;
    size_t data_bytes, bdat_left;
    char data[600];
    unsigned rcpts_ok, commands, taken;
    bool mail_ok;
    unsigned quiet_after; /* says nothing from this command on; 0 = never */
    bool ended;           /* our side of the connection */
    bool odd;             /* random codes */
} world;

static void say(const char *text)
{
    bool quiet = world.quiet_after > 0 && world.commands >= world.quiet_after;
    if (!quiet && !world.ended)
        sim_push_text(peer, text);
}

static void end_it(void)
{
    if (!world.ended)
        sim_eof(peer);
    world.ended = true;
}

/* A reply: mostly yes, else one of many kinds of no. 421 ends the connection, as it must. */
static bool says_yes(const char *yes)
{
    static const char *const no[] = {"450 4.2.0 later\r\n", "550 5.1.1 no\r\n",
                                     "452 4.5.3 many\r\n", "451-a\r\n451 b\r\n",
                                     "555 5.5.4 what\r\n"};
    if (world.ended)
        return false;
    if (!world.odd || rng_below(&rng, 4) != 0) {
        say(yes);
        return true;
    }
    if (rng_below(&rng, 12) == 0) {
        say("421 4.3.2 bye\r\n");
        end_it();
        return false;
    }
    say(no[rng_below(&rng, ARRAY_COUNT(no))]);
    return false;
}

static void end_of_content(void)
{
    const char *expected = heard.stuffed ? content : plain_content;
    world.data[world.data_bytes] = '\0';
    assert_true(heard.may_send_dot);
    if (world.rcpts_ok > 0)
        assert_string_equal(world.data, expected);
    if (says_yes(world.rcpts_ok > 0 ? "250 2.0.0 taken\r\n" : "503 nobody\r\n") &&
        world.rcpts_ok > 0)
        world.taken++;
    world.data_bytes = 0;
    world.mail_ok = false;
    world.rcpts_ok = 0;
}

static void on_command(const char *line)
{
    world.commands++;
    if (strncmp(line, "EHLO", 4) == 0) {
        char text[200];
        snprintf(text, sizeof text, "250-peer\r\n%s%s%s250 HELP\r\n",
                 world.pipelining ? "250-PIPELINING\r\n" : "",
                 world.chunking ? "250-CHUNKING\r\n" : "", world.size ? "250-SIZE 0\r\n" : "");
        say(text);
    } else if (strncmp(line, "MAIL", 4) == 0) {
        assert_false(world.mail_ok);
        world.mail_ok = says_yes("250 2.1.0 ok\r\n");
    } else if (strncmp(line, "RCPT", 4) == 0) {
        if (!world.mail_ok)
            say("503 5.5.1 no mail\r\n");
        else
            world.rcpts_ok += says_yes("250 2.1.5 ok\r\n");
    } else if (strncmp(line, "DATA", 4) == 0) {
        assert_true(world.rcpts_ok > 0 || world.pipelining);
        if (world.rcpts_ok == 0)
            say("503 5.5.1 no rcpt\r\n");
        else
            world.in_data = says_yes("354 go\r\n");
    } else if (strncmp(line, "BDAT", 4) == 0) {
        assert_true(world.chunking);
        world.bdat_left = (size_t)atoi(line + 5);
    } else if (strncmp(line, "RSET", 4) == 0) {
        world.mail_ok = false;
        world.rcpts_ok = 0;
        say("250 2.0.0 ok\r\n");
    } else if (strncmp(line, "QUIT", 4) == 0) {
        say("221 2.0.0 bye\r\n");
        end_it();
    } else {
        fail_msg("the client says \"%s\"", line);
    }
}

static void on_line(void)
{
    world.line[world.line_bytes] = '\0';
    if (!world.in_data) {
        on_command(world.line);
    } else if (strcmp(world.line, ".\r\n") == 0) {
        world.in_data = false;
        end_of_content();
    } else {
        assert_true(world.data_bytes + world.line_bytes < sizeof world.data);
        memcpy(world.data + world.data_bytes, world.line, world.line_bytes);
        world.data_bytes += world.line_bytes;
    }
    world.line_bytes = 0;
}

/* Whatever has come, octet by octet. */
static void peer_turn(void)
{
    struct span s = sim_output(peer);
    for (size_t i = 0; i < s.n; i++) {
        if (world.bdat_left > 0) {
            assert_true(world.data_bytes < sizeof world.data - 1);
            world.data[world.data_bytes++] = (char)s.p[i];
            if (--world.bdat_left == 0)
                end_of_content();
            continue;
        }
        assert_true(world.line_bytes < sizeof world.line - 1);
        world.line[world.line_bytes++] = (char)s.p[i];
        if (s.p[i] == '\n')
            on_line();
    }
    sim_take(peer, s.n);
}

/* --- a run --- */

static void start(uint64_t seed)
{
    const struct io_settings s = {.conn_count_max = 16, .recv_buffer_count = 64};
    assert_int_equal(io_create(&io, &s), 0);
    assert_int_equal(io_enable(io), 0);
    sim_seed(io, seed);
    rng_seed(&rng, seed);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    memset(&heard, 0, sizeof heard);
    memset(&world, 0, sizeof world);
    random_gate = false;
    jobs_wanted = 0;
    struct client_settings set = {
        .config = config, .io = io, .wheel = &wheel, .ehlo = "out10.example.net"};
    assert_int_equal(ip_parse(span_str("192.0.2.25"), &set.target.to), 0);
    set.target.to_port = 25;
    set.target.timeout_ms = config->client.connect_ms;
    client = smtp_client_open(&set, &events, NULL);
    assert_non_null(client);
    io_turn(io, 0);
    peer = sim_next_connect(io);
    assert_non_null(peer);
}

static void finish(void)
{
    assert_null(client);
    assert_int_equal(heard.closed, 1);
    assert_true(sim_peer_closed(peer));
    sim_peer_free(peer);
    io_destroy(&io);
}

/* Turns until the client is gone or nothing moves. */
static void run(void)
{
    for (int i = 0; i < 3000 && client != NULL; i++) {
        io_turn(io, 0);
        peer_turn();
        if (heard.gated && rng_below(&rng, 4) == 0) {
            heard.gated = false;
            smtp_client_go(client);
        }
    }
}

static void pass_ms(uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i += 10) {
        sim_clock_advance(io, 10);
        wheel_advance(&wheel, io_now_ns(io) / 1000000);
        io_turn(io, 0);
        peer_turn();
    }
}

/*
 * Any replies, any splits, any offers: every job ends exactly once, the content arrives whole or
 * not at all, no dot leaves before it may, and the connection ends.
 */
static void random_dialogs(void **state)
{
    (void)state;
    unsigned taken = 0, done = 0, failed = 0;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        start(seed);
        jobs_wanted = JOBS;
        random_gate = seed % 2 == 0;
        world.odd = true;
        world.pipelining = rng_below(&rng, 2) == 0;
        world.chunking = rng_below(&rng, 2) == 0;
        world.size = rng_below(&rng, 2) == 0;
        sim_accept(peer);
        sim_push_text(peer, "220 peer\r\n");
        run();
        pass_ms(client == NULL ? 0 : 1600);
        if (client != NULL)
            fail_msg("seed %llu: the dialog hangs in %s", (unsigned long long)seed,
                     smtp_client_state(client));
        if (heard.jobs != heard.done + (heard.failed > 0 && heard.failure.in_job))
            fail_msg("seed %llu: %u jobs, %u done, %u failed", (unsigned long long)seed, heard.jobs,
                     heard.done, heard.failed);
        assert_false(heard.in_job);
        taken += world.taken;
        done += heard.done;
        failed += heard.failed;
        finish();
    }
    assert_true(taken > 500); /* or nothing was tested */
    assert_true(done > 3000);
    assert_true(failed > 50);
}

/* Silence from the n-th command on: the stage that waits is named, after its own time and not
 * before. */
static void each_stage_has_its_own_time(void **state)
{
    (void)state;
    static const struct {
        unsigned quiet_after;
        enum smtp_stage stage;
        uint64_t limit_ms;
    } rows[] = {
        {1, STAGE_EHLO, 3000},
        {2, STAGE_MAIL, 4000},
        {3, STAGE_RCPT, 5000},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        start(7);
        jobs_wanted = JOBS;
        world.quiet_after = rows[i].quiet_after;
        sim_calm(io, true);
        sim_accept(peer);
        sim_push_text(peer, "220 peer\r\n");
        for (int k = 0; k < 200; k++) {
            io_turn(io, 0);
            peer_turn();
        }
        pass_ms(rows[i].limit_ms - 100);
        assert_int_equal(heard.failed, 0);
        pass_ms(300);
        assert_int_equal(heard.failed, 1);
        assert_int_equal(heard.failure.err, -ETIMEDOUT);
        assert_int_equal(heard.failure.stage, rows[i].stage);
        assert_false(heard.failure.dot_sent);
        run();
        finish();
    }
}

static void silence_before_the_greeting(void **state)
{
    (void)state;
    start(3);
    sim_accept(peer);
    run();
    pass_ms(1900);
    assert_int_equal(heard.failed, 0);
    pass_ms(300);
    assert_int_equal(heard.failure.stage, STAGE_GREETING);
    run();
    finish();
}

static void a_refused_connect_is_told_once(void **state)
{
    (void)state;
    start(3);
    sim_refuse(peer, -ECONNREFUSED);
    run();
    assert_int_equal(heard.failed, 1);
    assert_int_equal(heard.failure.stage, STAGE_CONNECT);
    assert_int_equal(heard.failure.err, -ECONNREFUSED);
    finish();
}

/* Closed by the peer at any point: told once, in doubt only when the dot was out. */
static void an_end_at_any_command_is_told_once(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 12; at++) {
        start(at);
        jobs_wanted = JOBS;
        sim_accept(peer);
        sim_push_text(peer, "220 peer\r\n");
        for (int k = 0; k < 3000 && client != NULL && world.commands < at; k++) {
            io_turn(io, 0);
            peer_turn();
        }
        if (client != NULL)
            sim_reset(peer);
        run();
        assert_int_equal(heard.failed, 1);
        assert_int_equal(heard.jobs, heard.done + heard.failure.in_job);
        finish();
    }
}

static int set_up(void **state)
{
    (void)state;
    config = good(YAML);
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
        cmocka_unit_test(random_dialogs),
        cmocka_unit_test(each_stage_has_its_own_time),
        cmocka_unit_test(silence_before_the_greeting),
        cmocka_unit_test(a_refused_connect_is_told_once),
        cmocka_unit_test(an_end_at_any_command_is_told_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
