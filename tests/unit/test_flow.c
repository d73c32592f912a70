/*
 * One lane at one site: fair shares, classes, held tenants, limits, back-off, suspension, and when
 * it is forgotten.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/lane_support.h"

#include "worker/lane/fates.h"

#define YAML                                                                  \
    "node: a\n"                                                               \
    "listen: [{address: 0.0.0.0, port: 25}]\n"                                \
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: out10.example.net}]}}\n" \
    "tenants:\n"                                                              \
    "  one: {pool: p}\n"                                                      \
    "  two: {pool: p, weight: 2}\n"                                           \
    "  five: {pool: p, weight: 5}\n"                                          \
    "queue: {transactional_share: 8}\n"                                       \
    "client: {host_retry: 10s, host_retry_max: 80s}\n"                        \
    "limits: {connections: 3, messages_per_s: 5, new_connections_per_s: 2, recipients: 50}\n"

static struct flow *flow;

static int set_up(void **state)
{
    (void)state;
    queue_make(YAML);
    lanes_make(NULL);
    flow = flow_for(&queue, 0, site_make("mx.dest.test"));
    assert_non_null(flow);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_unmake();
    return 0;
}

static uint16_t tenant(const char *name)
{
    for (uint16_t i = 0; i < queue.tenant_count; i++)
        if (strcmp(queue.tenants[i].name, name) == 0)
            return i;
    fail_msg("no tenant %s", name);
    return 0;
}

/* Takes the next entry out of the flow for good; its tenant, or -1. */
static int take_next(void)
{
    struct qentry *e = flow_next(&queue, flow);
    if (e == NULL)
        return -1;
    int t = store_msg(&queue.store, e->msg)->tenant;
    flow_take(&queue, flow, e);
    entry_set_state(&queue, e, ENTRY_IN_FLIGHT);
    return t;
}

static void turns_go_by_weight(void **state)
{
    (void)state;
    static const char *const names[] = {"one", "two", "five"};
    static const unsigned weights[] = {1, 2, 5};
    for (int i = 0; i < 1000; i++)
        for (unsigned k = 0; k < 3; k++)
            ready_make(flow, tenant(names[k]), CLASS_BULK);
    unsigned got[3] = {0};
    for (int i = 0; i < 800; i++) {
        int t = take_next();
        for (unsigned k = 0; k < 3; k++)
            got[k] += t == tenant(names[k]);
    }
    for (unsigned k = 0; k < 3; k++)
        assert_in_range(got[k], 100 * weights[k] - 5, 100 * weights[k] + 5);
}

/* 5,000 messages of one tenant do not stand before one of another. */
static void a_crowd_does_not_delay_others(void **state)
{
    (void)state;
    for (int i = 0; i < 5000; i++)
        ready_make(flow, tenant("one"), CLASS_BULK);
    take_next();
    ready_make(flow, tenant("two"), CLASS_BULK);
    int turns = 1;
    while (take_next() != tenant("two"))
        turns++;
    assert_in_range(turns, 1, 2);
}

/* A message with many recipients takes one turn and pays for it with the next ones. */
static void recipients_are_what_is_shared(void **state)
{
    (void)state;
    uint32_t domain = domain_intern(&queue, span_str("dest.test"));
    for (int i = 0; i < 10; i++) {
        struct qmsg *m = message_make(tenant("one"), CLASS_BULK);
        for (uint16_t k = 0; k < 40; k++) {
            struct qentry *e = entry_make(m, k, domain);
            assert_int_equal(flow_push(&queue, flow, e, false), 0);
            entry_set_state(&queue, e, ENTRY_READY);
        }
    }
    struct qmsg *other = message_make(tenant("five"), CLASS_BULK);
    (void)other;
    for (int i = 0; i < 500; i++)
        ready_make(flow, tenant("five"), CLASS_BULK);
    unsigned crowd = 0, singles = 0;
    for (int i = 0; i < 200; i++) {
        struct qentry *e = flow_next(&queue, flow);
        assert_non_null(e);
        const struct qmsg *m = store_msg(&queue.store, e->msg);
        bool is_crowd = m->live > 1;
        for (uint32_t k = m->first; k != 0; k = store_entry(&queue.store, k)->sibling) {
            flow_take(&queue, flow, store_entry(&queue.store, k));
            entry_set_state(&queue, store_entry(&queue.store, k), ENTRY_IN_FLIGHT);
            crowd += is_crowd;
            singles += !is_crowd;
        }
    }
    assert_true(crowd >= 40);
    assert_true(crowd <= singles / 5 + 40); /* weights 1 : 5, and one message ahead */
}

/* Even a share far below zero is served when it is alone: no stall, whatever the weight. */
static void a_deep_debt_is_no_stall(void **state)
{
    (void)state;
    uint32_t domain = domain_intern(&queue, span_str("dest.test"));
    struct qmsg *m = message_make(tenant("one"), CLASS_BULK);
    for (uint16_t k = 0; k < 1000; k++) {
        struct qentry *e = entry_make(m, k, domain);
        assert_int_equal(flow_push(&queue, flow, e, false), 0);
        entry_set_state(&queue, e, ENTRY_READY);
    }
    ready_make(flow, tenant("one"), CLASS_BULK);
    for (uint32_t k = m->first; k != 0; k = store_entry(&queue.store, k)->sibling) {
        flow_take(&queue, flow, store_entry(&queue.store, k));
        entry_set_state(&queue, store_entry(&queue.store, k), ENTRY_IN_FLIGHT);
    }
    assert_int_equal(take_next(), tenant("one"));
    assert_int_equal(take_next(), -1);
}

static void transactional_mail_goes_first_but_not_alone(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        ready_make(flow, tenant("one"), CLASS_BULK);
        ready_make(flow, tenant("one"), CLASS_TRANSACTIONAL);
    }
    unsigned transactional = 0;
    for (int i = 0; i < 100; i++) {
        struct qentry *e = flow_next(&queue, flow);
        transactional += store_msg(&queue.store, e->msg)->class_ == CLASS_TRANSACTIONAL;
        flow_take(&queue, flow, e);
        entry_set_state(&queue, e, ENTRY_IN_FLIGHT);
    }
    assert_int_equal(transactional, 80); /* EXT-39: bulk still moves */
}

static void held_tenants_are_passed_over(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        ready_make(flow, tenant("one"), CLASS_BULK);
    assert_true(flow_has_work(&queue, flow));
    queue.tenants[tenant("one")].held = true;
    assert_false(flow_has_work(&queue, flow));
    assert_int_equal(take_next(), -1);
    ready_make(flow, tenant("two"), CLASS_BULK);
    ready_make(flow, tenant("one"), CLASS_TRANSACTIONAL);
    assert_true(flow_has_work(&queue, flow));
    assert_int_equal(take_next(), tenant("two"));
    assert_int_equal(take_next(), -1);
    queue.tenants[tenant("one")].held = false;
    for (int i = 0; i < 11; i++)
        assert_int_equal(take_next(), tenant("one"));
    assert_int_equal(take_next(), -1);
}

/* Connections are opened for transactions, not for recipients. */
static void jobs_count_transactions(void **state)
{
    (void)state;
    uint32_t domains[] = {domain_intern(&queue, span_str("a.test")),
                          domain_intern(&queue, span_str("b.test"))};
    struct qmsg *m = message_make(tenant("one"), CLASS_BULK);
    struct qentry *e[6];
    for (uint16_t k = 0; k < 6; k++) {
        e[k] = entry_make(m, k, domains[k / 4]);
        assert_int_equal(flow_push(&queue, flow, e[k], false), 0);
        assert_int_equal(flow->jobs, k < 4 ? 1 : 2);
    }
    ready_make(flow, tenant("one"), CLASS_BULK);
    assert_int_equal(flow->jobs, 3);
    flow_remove(&queue, flow, e[1]); /* within a run */
    assert_int_equal(flow->jobs, 3);
    flow_remove(&queue, flow, e[4]);
    assert_int_equal(flow->jobs, 3);
    flow_remove(&queue, flow, e[5]); /* the last of its run */
    assert_int_equal(flow->jobs, 2);
    assert_int_equal(flow_push(&queue, flow, e[1], true), 0);
    assert_int_equal(flow->jobs, 2);
    assert_int_equal(flow_push(&queue, flow, e[5], true), 0);
    assert_int_equal(flow->jobs, 3);
}

static void front_and_back(void **state)
{
    (void)state;
    struct qentry *a = ready_make(flow, tenant("one"), CLASS_BULK);
    struct qentry *b = ready_make(flow, tenant("one"), CLASS_BULK);
    flow_remove(&queue, flow, b);
    assert_int_equal(flow_push(&queue, flow, b, true), 0);
    assert_ptr_equal(flow_next(&queue, flow), b);
    flow_remove(&queue, flow, b);
    assert_ptr_equal(flow_next(&queue, flow), a);
}

/* --- limits --- */

static void message_rate_holds(void **state)
{
    (void)state;
    unsigned sent = 0;
    for (int ms = 0; ms < 10000; ms += 10) {
        while (flow_may_send(&queue, flow) == FLOW_GO) {
            flow_took_message(&queue, flow);
            sent++;
        }
        assert_int_equal(flow->why, REASON_RATE);
        pass_ms(10);
    }
    assert_in_range(sent, 5 + 49, 5 + 50); /* a full bucket, then 5 a second for 10 s */
}

static void connection_limit_counts_those_that_are_closing(void **state)
{
    (void)state;
    flow->open = 1;
    flow->opening = 1;
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_GO);
    flow->closing = 1;
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_WAIT);
    assert_int_equal(flow->why, REASON_CONNECTIONS);
    flow->closing = flow->open = flow->opening = 0;
}

static void connect_rate_holds(void **state)
{
    (void)state;
    unsigned made = 0;
    for (int ms = 0; ms < 10000; ms += 10) {
        while (flow_may_connect(&queue, flow) == FLOW_GO) {
            flow_took_connect(&queue, flow);
            made++;
        }
        pass_ms(10);
    }
    assert_in_range(made, 2 + 19, 2 + 20);
}

/* Is the flow looked at again within so many ms? */
static bool woken_within(uint64_t ms)
{
    flow->marked = false;
    flow->next_marked = 0;
    queue.marked = 0;
    for (uint64_t i = 0; i <= ms && !flow->marked; i += 10)
        pass_ms(10);
    return flow->marked;
}

/* A long wait must not hide a short one that comes later: connections that work go on while the
 * site is in back-off. */
static void the_nearest_wait_wakes(void **state)
{
    (void)state;
    flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused"));
    while (flow_may_send(&queue, flow) == FLOW_GO)
        flow_took_message(&queue, flow);
    assert_true(woken_within(1000));
    flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused"));
    assert_true(flow->backoff_until_ms > 0);
}

/* --- back-off --- */

static void failures_double_the_pause_up_to_a_cap(void **state)
{
    (void)state;
    uint64_t expected_s = 10;
    for (int i = 0; i < 6; i++) {
        uint64_t now = queue_now_ms(&queue);
        flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused"));
        uint64_t pause = flow->backoff_until_ms - now;
        assert_in_range(pause, expected_s * 800, expected_s * 1200);
        assert_int_equal(flow_may_connect(&queue, flow), FLOW_WAIT);
        assert_int_equal(flow->why, REASON_BACKOFF);
        assert_int_equal(flow_may_send(&queue, flow), FLOW_GO); /* by connections that work */
        pass_ms(pause + 1);
        assert_int_equal(flow_may_connect(&queue, flow), FLOW_GO);
        expected_s = expected_s * 2 > 80 ? 80 : expected_s * 2;
    }
}

/* Ten connections that fail together are one failure. */
static void failures_at_one_time_count_once(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused")),
                         i == 0);
    assert_int_equal(flow->failures, 1);
    assert_true(flow->backoff_until_ms <= queue_now_ms(&queue) + 12000);
}

static void a_failing_site_is_probed_by_one(void **state)
{
    (void)state;
    flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused"));
    pass_ms(13000);
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_GO);
    flow->opening = 1;
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_WAIT);
    flow->opening = 0;
    flow_succeeded(&queue, flow, queue_now_ms(&queue), queue_now_ms(&queue));
    assert_int_equal(flow->failures, 0);
    flow->opening = 1;
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_GO);
    flow->opening = 0;
}

/* A site that takes three connections and refuses the fourth must not be asked for a fourth after
 * every message. */
static void old_connections_do_not_forgive_a_failed_connect(void **state)
{
    (void)state;
    uint64_t opened = queue_now_ms(&queue);
    pass_ms(100);
    flow_failed(&queue, flow, REASON_REMOTE_TEMP, span_str("421 too many connections"));
    flow_succeeded(&queue, flow, opened, queue_now_ms(&queue));
    assert_int_equal(flow->failures, 1);
    assert_int_equal(flow_may_connect(&queue, flow), FLOW_WAIT);
}

/* --- what replies say --- */

static void judge(enum verdict v, enum verdict_scope scope, enum reason reason)
{
    struct classification c = {.verdict = v, .scope = scope, .reason = reason};
    flow_judge(&queue, flow, &c, span_str("450 4.7.1 slow down"));
}

static void only_pair_and_site_suspend(void **state)
{
    (void)state;
    static const enum verdict_scope harmless[] = {SCOPE_NONE,       SCOPE_RECIPIENT, SCOPE_MESSAGE,
                                                  SCOPE_CONNECTION, SCOPE_HOST,      SCOPE_DOMAIN};
    for (size_t i = 0; i < ARRAY_COUNT(harmless); i++)
        judge(VERDICT_TEMP, harmless[i], REASON_REMOTE_TEMP);
    assert_int_equal(flow_may_send(&queue, flow), FLOW_GO);
    judge(VERDICT_TEMP, SCOPE_SITE, REASON_REMOTE_TEMP);
    assert_int_equal(flow_may_send(&queue, flow), FLOW_WAIT);
    assert_int_equal(flow->why, REASON_SUSPENDED);
}

static void a_suspension_ends_on_probation(void **state)
{
    (void)state;
    judge(VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP);
    judge(VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP); /* of the same moment */
    assert_int_equal(flow->complaints, 1);
    pass_ms(12001);
    assert_int_equal(flow_may_send(&queue, flow), FLOW_GO);
    flow->in_flight = 1;
    assert_int_equal(flow_may_send(&queue, flow), FLOW_WAIT); /* one message at a time */
    flow_succeeded(&queue, flow, 0, queue_now_ms(&queue));
    assert_int_equal(flow_may_send(&queue, flow), FLOW_GO);
    flow->in_flight = 0;
}

static void an_answer_to_older_mail_forgives_nothing(void **state)
{
    (void)state;
    uint64_t started = queue_now_ms(&queue);
    pass_ms(10);
    judge(VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP);
    flow_succeeded(&queue, flow, 0, started);
    assert_int_equal(flow->complaints, 1);
}

static void a_block_and_a_lasting_refusal_pause_longest(void **state)
{
    (void)state;
    judge(VERDICT_PERM, SCOPE_PAIR, REASON_POLICY_BLOCK);
    assert_int_equal(flow->suspended_until_ms, queue_now_ms(&queue) + 80000);
    pass_ms(80001);
    flow->complaints = 0;
    judge(VERDICT_TEMP, SCOPE_PAIR, REASON_LASTING);
    assert_int_equal(flow->suspended_until_ms, queue_now_ms(&queue) + 80000);
}

/* --- its end --- */

static bool still_there(void)
{
    return queue.flows.used > 0;
}

static void is_freed_when_nothing_is_left(void **state)
{
    (void)state;
    ready_make(flow, tenant("one"), CLASS_BULK);
    flow_release(&queue, flow);
    assert_true(still_there());
    struct qentry *e = flow_next(&queue, flow);
    flow_take(&queue, flow, e);
    entry_set_state(&queue, e, ENTRY_IN_FLIGHT);
    flow->in_flight = 1;
    flow_release(&queue, flow);
    assert_true(still_there());
    flow->in_flight = 0;
    flow->closing = 1;
    flow_release(&queue, flow);
    assert_true(still_there());
    flow->closing = 0;
    flow_release(&queue, flow);
    assert_false(still_there());
}

/* Lists hold many dead domains: each leaves a flow behind, but not for ever. */
static void what_it_learned_is_forgotten_after_a_while(void **state)
{
    (void)state;
    flow_failed(&queue, flow, REASON_CONNECT_FAILED, span_str("refused"));
    flow_release(&queue, flow);
    assert_true(still_there());
    pass_ms(13000); /* the back-off is over; whoever asks next must still probe */
    flow_run_marked(&queue);
    assert_true(still_there());
    for (int i = 0; i < 200 && still_there(); i++) {
        pass_ms(1000);
        flow_run_marked(&queue);
    }
    assert_false(still_there());
}

static void used_tokens_are_remembered(void **state)
{
    (void)state;
    while (flow_may_send(&queue, flow) == FLOW_GO)
        flow_took_message(&queue, flow);
    flow_release(&queue, flow);
    assert_true(still_there()); /* or a new flow would start with a full bucket */
    for (int i = 0; i < 5 && still_there(); i++) {
        pass_ms(1000);
        flow_run_marked(&queue);
    }
    assert_false(still_there());
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(turns_go_by_weight),
        T(a_crowd_does_not_delay_others),
        T(recipients_are_what_is_shared),
        T(a_deep_debt_is_no_stall),
        T(transactional_mail_goes_first_but_not_alone),
        T(held_tenants_are_passed_over),
        T(jobs_count_transactions),
        T(front_and_back),
        T(message_rate_holds),
        T(connection_limit_counts_those_that_are_closing),
        T(connect_rate_holds),
        T(the_nearest_wait_wakes),
        T(failures_double_the_pause_up_to_a_cap),
        T(failures_at_one_time_count_once),
        T(a_failing_site_is_probed_by_one),
        T(old_connections_do_not_forgive_a_failed_connect),
        T(only_pair_and_site_suspend),
        T(a_suspension_ends_on_probation),
        T(an_answer_to_older_mail_forgives_nothing),
        T(a_block_and_a_lasting_refusal_pause_longest),
        T(is_freed_when_nothing_is_left),
        T(what_it_learned_is_forgotten_after_a_while),
        T(used_tokens_are_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
