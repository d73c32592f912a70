/*
 * What a lane knows of its sites goes to its next owner: what is left of pauses, how often it
 * failed, what tokens there were; once for each site, and never more than is left of it by then.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/lane_support.h"

#include "worker/lane/flow_state.h"

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.11, ehlo: out%d.example.net}]}}\n"
    "tenants: {t: {pool: p}}\n"
    "dns: {enabled: false}\n"
    "limits: {messages_per_s: 100, new_connections_per_s: 10}\n"
    "queue: {hold: true}\n";

static uint8_t *state;
static size_t state_bytes;

static int setup(void **ctx)
{
    (void)ctx;
    queue_make(yaml);
    lanes_make(NULL);
    return 0;
}

static int teardown(void **ctx)
{
    (void)ctx;
    for (uint32_t i = 0; i < queue.lane_count; i++)
        flow_state_free(&queue.lanes[i]);
    queue_unmake();
    free(state);
    state = NULL;
    return 0;
}

static struct flow *flow_make(uint16_t lane, const char *host)
{
    struct flow *f = flow_for(&queue, lane, site_make(host));
    assert_non_null(f);
    return f;
}

/* The next owner: another queue, whose clock says the same plus `later_ms`. */
static struct lane *move_on(uint64_t later_ms)
{
    assert_int_equal(flow_state_export(&queue, &queue.lanes[0], &state, &state_bytes), 0);
    queue_unmake();
    setup(NULL);
    pass_ms(later_ms);
    struct lane *l = &queue.lanes[0];
    l->state = malloc(state_bytes);
    memcpy(l->state, state, state_bytes);
    l->state_bytes = (uint32_t)state_bytes;
    flow_state_apply(&queue, l);
    return l;
}

static struct flow *flow_taken(const char *host)
{
    struct flow *f = flow_make(0, host);
    flow_state_new(&queue, f);
    return f;
}

static void trouble(struct flow *f)
{
    uint64_t now = queue_now_ms(&queue);
    f->failures = 3;
    f->failed_ms = now - 50;
    f->backoff_until_ms = now + 40000;
    f->complaints = 2;
    f->complained_ms = now - 70;
    f->suspended_until_ms = now + 60000;
    f->message_tokens = 5;
    f->connect_tokens = 0;
    f->tokens_at_ms = now;
    f->last_reply = reply_intern(&queue, span_str("421 too many"));
}

static void test_goes_along(void **ctx)
{
    (void)ctx;
    pass_ms(1000);
    trouble(flow_make(0, "mx.one.test"));
    trouble(flow_make(1, "mx.other.test")); /* of another lane */
    flow_make(0, "mx.fresh.test");
    move_on(1000);
    uint64_t now = queue_now_ms(&queue);
    struct flow *f = flow_taken("mx.one.test");
    assert_int_equal(f->failures, 3);
    assert_int_equal(f->complaints, 2);
    assert_in_range(f->backoff_until_ms, now + 38000, now + 40000);
    assert_in_range(f->suspended_until_ms, now + 58000, now + 60000);
    assert_true(f->failed_ms < now);
    assert_true(f->complained_ms < now);
    assert_true(f->message_tokens < 6);
    assert_true(f->connect_tokens < 1);
    assert_string_equal(reply_text(&queue, f->last_reply), "421 too many");
    f = flow_taken("mx.other.test");
    assert_int_equal(f->failures, 0);
    f = flow_taken("mx.fresh.test");
    assert_int_equal(f->backoff_until_ms, 0);
    assert_true(f->message_tokens >= 100);
}

/* A flow that was let go and made again begins fresh. */
static void test_once(void **ctx)
{
    (void)ctx;
    pass_ms(1000);
    trouble(flow_make(0, "mx.one.test"));
    move_on(1000);
    struct flow *f = flow_taken("mx.one.test");
    assert_int_equal(f->failures, 3);
    f->failures = f->complaints = 0;
    f->backoff_until_ms = f->suspended_until_ms = 0;
    flow_state_new(&queue, f);
    assert_int_equal(f->failures, 0);
    assert_int_equal(f->suspended_until_ms, 0);
}

/* A pause that is over by then is none; failures are forgotten when a flow would forget them. */
static void test_old_state(void **ctx)
{
    (void)ctx;
    pass_ms(1000);
    trouble(flow_make(0, "mx.one.test"));
    uint64_t longest = 1000ull * lane_config->client.host_retry_max_s;
    move_on(1000 + 61000 + longest);
    struct flow *f = flow_taken("mx.one.test");
    assert_true(f->backoff_until_ms <= queue_now_ms(&queue));
    assert_true(f->suspended_until_ms <= queue_now_ms(&queue));
    assert_int_equal(f->failures, 0);
    assert_int_equal(f->complaints, 0);
    assert_int_equal(flow_may_send(&queue, f), FLOW_GO);
}

/* Flows that exist take it at once, and keep what they know themselves. */
static void test_existing_flow(void **ctx)
{
    (void)ctx;
    pass_ms(1000);
    trouble(flow_make(0, "mx.one.test"));
    struct lane *l = move_on(1000);
    flow_state_free(l);
    struct flow *f = flow_make(0, "mx.one.test");
    f->failures = 9;
    l->state = malloc(state_bytes);
    memcpy(l->state, state, state_bytes);
    l->state_bytes = (uint32_t)state_bytes;
    flow_state_apply(&queue, l);
    assert_int_equal(f->failures, 9);
    assert_int_equal(f->complaints, 2);
    assert_int_equal(flow_may_send(&queue, f), FLOW_WAIT);
}

/* Bytes that are no state change nothing, and cost nothing. */
static void test_nonsense(void **ctx)
{
    (void)ctx;
    struct lane *l = &queue.lanes[0];
    for (unsigned n = 1; n < 200; n++) {
        l->state = malloc(n);
        for (unsigned i = 0; i < n; i++)
            l->state[i] = (uint8_t)(rng_u64(&lane_rng));
        l->state_bytes = n;
        flow_state_apply(&queue, l);
        flow_state_free(l);
    }
    struct flow *f = flow_taken("mx.one.test");
    assert_int_equal(f->failures, 0);
}

/* More sites than a record holds: those with trouble are told, tokens are not. */
static void test_many_sites(void **ctx)
{
    (void)ctx;
    pass_ms(1000);
    char host[64];
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(host, sizeof host, "mx-of-a-site-with-a-long-name-%u.example.test", i);
        struct flow *f = flow_make(0, host);
        f->message_tokens = 1;
        f->tokens_at_ms = queue_now_ms(&queue);
    }
    trouble(flow_make(0, "mx.one.test"));
    move_on(1000);
    assert_true(state_bytes < LIMIT_RECORD_BYTES - 4096);
    assert_int_equal(flow_taken("mx.one.test")->failures, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goes_along, setup, teardown),
        cmocka_unit_test_setup_teardown(test_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_existing_flow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_sites, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
