/* supervise: every cell of the table against a second, independent one; back-off; deadlines. */
#include "master/supervise.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NOW = 1000000 };

/* What the slot asked for. */
static struct {
    int spawns, drains, ready, recovered, gone, gone_asked, waits;
    int signals[4], signal_count;
    uint32_t drain_s;
    uint64_t delay_ms;
    int spawn_result;
} seen;

static int fake_spawn(struct slot *s)
{
    (void)s;
    seen.spawns++;
    return seen.spawn_result;
}
static void fake_drain(struct slot *s, uint32_t seconds)
{
    (void)s;
    seen.drains++;
    seen.drain_s = seconds;
}
static void fake_signal(struct slot *s, int number)
{
    (void)s;
    assert_true(seen.signal_count < 4);
    seen.signals[seen.signal_count++] = number;
}
static void fake_ready(struct slot *s)
{
    (void)s;
    seen.ready++;
}
static void fake_recovered(struct slot *s)
{
    (void)s;
    seen.recovered++;
}
static void fake_gone(struct slot *s, bool asked)
{
    (void)s;
    seen.gone++;
    seen.gone_asked += asked;
}
static void fake_waits(struct slot *s, uint64_t delay_ms)
{
    (void)s;
    seen.waits++;
    seen.delay_ms = delay_ms;
}
static const struct slot_ops ops = {fake_spawn,     fake_drain, fake_signal, fake_ready,
                                    fake_recovered, fake_gone,  fake_waits};

static struct slot fresh(void)
{
    struct slot s;
    memset(&seen, 0, sizeof seen);
    slot_init(&s, &ops, "worker-0");
    s.must_recover = true;
    s.drain_s = 30;
    return s;
}

/* Takes a new slot to a state by the usual way, wanted and as far as it goes. */
static struct slot slot_in(enum slot_state state)
{
    struct slot s = fresh();
    if (state == SLOT_EMPTY)
        return s;
    slot_event(&s, SLOT_EV_SPAWN, NOW);
    if (state == SLOT_BACKOFF)
        slot_event(&s, SLOT_EV_EXIT, NOW);
    if (state == SLOT_READY || state == SLOT_DRAINING)
        slot_event(&s, SLOT_EV_READY, NOW);
    if (state == SLOT_DRAINING)
        slot_event(&s, SLOT_EV_DRAIN, NOW);
    if (state == SLOT_KILLING)
        slot_event(&s, SLOT_EV_BAD_FRAME, NOW);
    assert_int_equal(s.state, state);
    memset(&seen, 0, sizeof seen);
    return s;
}

/* The table once more: next state, and the signal that must be sent. Columns as in enum slot_event.
 */
struct cell {
    enum slot_state next;
    int signal;
};
#define STAYS(s) \
    {            \
        s, 0     \
    }
static const struct cell expected[SLOT_STATE_COUNT][SLOT_EV_COUNT] = {
    [SLOT_EMPTY] = {STAYS(SLOT_STARTING), STAYS(SLOT_EMPTY), STAYS(SLOT_EMPTY), STAYS(SLOT_EMPTY),
                    STAYS(SLOT_EMPTY), STAYS(SLOT_EMPTY), STAYS(SLOT_EMPTY), STAYS(SLOT_EMPTY)},
    [SLOT_STARTING] = {STAYS(SLOT_STARTING),
                       {SLOT_READY, 0},
                       {SLOT_KILLING, SIGKILL},
                       {SLOT_BACKOFF, 0},
                       {SLOT_KILLING, SIGKILL},
                       {SLOT_KILLING, SIGTERM},
                       {SLOT_KILLING, SIGTERM},
                       {SLOT_KILLING, SIGKILL}},
    [SLOT_READY] = {STAYS(SLOT_READY),
                    {SLOT_KILLING, SIGKILL},
                    {SLOT_READY, 0},
                    {SLOT_BACKOFF, 0},
                    {SLOT_KILLING, SIGKILL},
                    {SLOT_KILLING, SIGTERM},
                    {SLOT_DRAINING, 0},
                    {SLOT_KILLING, SIGKILL}},
    [SLOT_DRAINING] = {STAYS(SLOT_DRAINING),
                       {SLOT_KILLING, SIGKILL},
                       {SLOT_DRAINING, 0},
                       {SLOT_EMPTY, 0},
                       {SLOT_KILLING, SIGTERM},
                       {SLOT_KILLING, SIGTERM},
                       {SLOT_DRAINING, 0},
                       {SLOT_KILLING, SIGKILL}},
    [SLOT_KILLING] = {STAYS(SLOT_KILLING),
                      STAYS(SLOT_KILLING),
                      STAYS(SLOT_KILLING),
                      {SLOT_BACKOFF, 0},
                      {SLOT_KILLING, SIGKILL},
                      {SLOT_KILLING, SIGKILL},
                      STAYS(SLOT_KILLING),
                      STAYS(SLOT_KILLING)},
    [SLOT_BACKOFF] = {{SLOT_STARTING, 0},
                      STAYS(SLOT_BACKOFF),
                      STAYS(SLOT_BACKOFF),
                      STAYS(SLOT_BACKOFF),
                      {SLOT_STARTING, 0},
                      {SLOT_EMPTY, 0},
                      {SLOT_EMPTY, 0},
                      STAYS(SLOT_BACKOFF)},
};

static bool has_deadline(enum slot_state s)
{
    return s != SLOT_EMPTY;
}

static void test_every_cell(void **state)
{
    (void)state;
    for (int st = 0; st < SLOT_STATE_COUNT; st++) {
        for (int ev = 0; ev < SLOT_EV_COUNT; ev++) {
            struct slot s = slot_in((enum slot_state)st);
            const struct cell *want = &expected[st][ev];
            slot_event(&s, (enum slot_event)ev, NOW + 1);
            if (s.state != want->next)
                print_error("%s x %s -> %s, expected %s\n", slot_state_word((enum slot_state)st),
                            slot_event_word((enum slot_event)ev), slot_state_word(s.state),
                            slot_state_word(want->next));
            assert_int_equal(s.state, want->next);
            assert_int_equal(seen.signal_count, want->signal != 0);
            if (want->signal != 0)
                assert_int_equal(seen.signals[0], want->signal);
            /* A process or a wait without a deadline would be for ever; a recovered one may. */
            if (!(s.state == SLOT_READY && s.recovered))
                assert_int_equal(s.deadline_ms != 0, has_deadline(s.state));
            assert_int_equal(seen.gone,
                             ev == SLOT_EV_EXIT && st >= SLOT_STARTING && st <= SLOT_KILLING);
            assert_int_equal(seen.spawns, s.state == SLOT_STARTING && st != SLOT_STARTING);
        }
    }
}

static void test_words(void **state)
{
    (void)state;
    for (int st = 0; st < SLOT_STATE_COUNT; st++)
        assert_non_null(slot_state_word((enum slot_state)st));
    for (int ev = 0; ev < SLOT_EV_COUNT; ev++)
        assert_non_null(slot_event_word((enum slot_event)ev));
}

static void test_backoff_doubles(void **state)
{
    (void)state;
    struct slot s = fresh();
    uint64_t now = NOW, want = SLOT_BACKOFF_MS_MIN;
    slot_event(&s, SLOT_EV_SPAWN, now);
    for (int i = 0; i < 20; i++) {
        slot_event(&s, SLOT_EV_EXIT, now);
        assert_int_equal(s.state, SLOT_BACKOFF);
        assert_int_equal(s.deadline_ms - now, want);
        assert_int_equal(seen.delay_ms, want);
        now = s.deadline_ms;
        slot_event(&s, SLOT_EV_TIMEOUT, now);
        assert_int_equal(s.state, SLOT_STARTING);
        assert_int_equal(s.restarts, i + 1);
        want = want * 2 < SLOT_BACKOFF_MS_MAX ? want * 2 : SLOT_BACKOFF_MS_MAX;
    }
    assert_int_equal(slot_backoff_ms(UINT32_MAX), SLOT_BACKOFF_MS_MAX);
    assert_int_equal(slot_backoff_ms(0), 0);
    assert_int_equal(slot_backoff_ms(1), 100);
}

static void die_ready(struct slot *s, uint64_t now)
{
    slot_event(s, SLOT_EV_READY, now);
    slot_event(s, SLOT_EV_EXIT, now);
    assert_int_equal(s->state, SLOT_BACKOFF);
}

/* At once the first time, then like the others, and at once again after a quiet time. */
static void test_late_death(void **state)
{
    (void)state;
    struct slot s = fresh();
    slot_event(&s, SLOT_EV_SPAWN, NOW);
    die_ready(&s, NOW);
    assert_int_equal(s.deadline_ms, NOW);
    slot_event(&s, SLOT_EV_TIMEOUT, NOW);
    die_ready(&s, NOW + 5000);
    assert_int_equal(s.deadline_ms, NOW + 5000 + 100);
    slot_event(&s, SLOT_EV_TIMEOUT, NOW + 5100);
    die_ready(&s, NOW + 5200);
    assert_int_equal(s.deadline_ms, NOW + 5200 + 200);
    slot_event(&s, SLOT_EV_TIMEOUT, NOW + 5400);
    die_ready(&s, NOW + 5200 + SLOT_QUICK_MS + 1);
    assert_int_equal(s.deadline_ms, NOW + 5200 + SLOT_QUICK_MS + 1);
}

static void test_spawn_fails(void **state)
{
    (void)state;
    struct slot s = fresh();
    seen.spawn_result = -EAGAIN;
    slot_event(&s, SLOT_EV_SPAWN, NOW);
    assert_int_equal(s.state, SLOT_BACKOFF);
    assert_int_equal(s.deadline_ms, NOW + 100);
    assert_int_equal(seen.gone, 0);
    seen.spawn_result = 0;
    slot_event(&s, SLOT_EV_TIMEOUT, NOW + 100);
    assert_int_equal(s.state, SLOT_STARTING);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct slot s = fresh();
    slot_event(&s, SLOT_EV_SPAWN, NOW);
    assert_int_equal(s.deadline_ms, NOW + SLOT_READY_MS);
    slot_event(&s, SLOT_EV_READY, NOW + 1);
    assert_int_equal(s.deadline_ms, NOW + 1 + SLOT_RECOVER_MS);
    slot_event(&s, SLOT_EV_RECOVERED, NOW + 2);
    assert_int_equal(s.deadline_ms, 0);
    assert_true(s.recovered);
    slot_event(&s, SLOT_EV_DRAIN, NOW + 3);
    assert_int_equal(s.deadline_ms, NOW + 3 + 30000 + SLOT_GRACE_MS);
    assert_int_equal(seen.drain_s, 30);
    /* A second drain only makes it shorter. */
    s.drain_s = 60;
    slot_event(&s, SLOT_EV_DRAIN, NOW + 4);
    assert_int_equal(s.deadline_ms, NOW + 3 + 30000 + SLOT_GRACE_MS);
    s.drain_s = 1;
    slot_event(&s, SLOT_EV_DRAIN, NOW + 5);
    assert_int_equal(s.deadline_ms, NOW + 5 + 1000 + SLOT_GRACE_MS);
    /* It does not leave: SIGTERM, then SIGKILL until it does. */
    slot_event(&s, SLOT_EV_TIMEOUT, NOW + 10);
    slot_event(&s, SLOT_EV_TIMEOUT, NOW + 20);
    assert_int_equal(seen.signals[0], SIGTERM);
    assert_int_equal(seen.signals[1], SIGKILL);
    assert_int_equal(s.deadline_ms, NOW + 20 + SLOT_TERM_MS);
    slot_event(&s, SLOT_EV_EXIT, NOW + 21);
    assert_int_equal(s.state, SLOT_EMPTY);
    assert_int_equal(s.deadline_ms, 0);
    assert_int_equal(seen.gone_asked, 1);
}

/* One that outlives its predecessor while draining takes the shards, and keeps its deadline. */
static void test_recovered_while_draining(void **state)
{
    (void)state;
    struct slot s = slot_in(SLOT_DRAINING);
    uint64_t deadline = s.deadline_ms;
    slot_event(&s, SLOT_EV_RECOVERED, NOW + 7);
    assert_int_equal(s.state, SLOT_DRAINING);
    assert_int_equal(s.deadline_ms, deadline);
    assert_int_equal(seen.recovered, 1);
}

static void test_recovered_twice_is_a_lie(void **state)
{
    (void)state;
    struct slot s = slot_in(SLOT_READY);
    slot_event(&s, SLOT_EV_RECOVERED, NOW);
    slot_event(&s, SLOT_EV_RECOVERED, NOW);
    assert_int_equal(s.state, SLOT_KILLING);
    s = slot_in(SLOT_READY);
    s.must_recover = false;
    slot_event(&s, SLOT_EV_RECOVERED, NOW);
    assert_int_equal(s.state, SLOT_KILLING);
}

/* The api has nothing to recover: READY is enough. */
static void test_without_recovery(void **state)
{
    (void)state;
    struct slot s = fresh();
    s.must_recover = false;
    slot_event(&s, SLOT_EV_SPAWN, NOW);
    slot_event(&s, SLOT_EV_READY, NOW);
    assert_int_equal(s.deadline_ms, 0);
}

/* A protocol error is a failure of its own, even of one that was told to leave. */
static void test_bad_frame_counts(void **state)
{
    (void)state;
    struct slot s = slot_in(SLOT_READY);
    slot_event(&s, SLOT_EV_BAD_FRAME, NOW);
    slot_event(&s, SLOT_EV_EXIT, NOW);
    assert_int_equal(s.state, SLOT_BACKOFF);
    assert_int_equal(s.failures, 1);
    assert_int_equal(seen.gone_asked, 0);
    s = slot_in(SLOT_DRAINING);
    slot_event(&s, SLOT_EV_BAD_FRAME, NOW);
    slot_event(&s, SLOT_EV_EXIT, NOW);
    assert_int_equal(s.state, SLOT_EMPTY);
    assert_int_equal(seen.gone_asked, 0);
}

/* Stopped in any state, it ends EMPTY and stays so. */
static void test_stop_from_everywhere(void **state)
{
    (void)state;
    for (int st = 0; st < SLOT_STATE_COUNT; st++) {
        struct slot s = slot_in((enum slot_state)st);
        slot_event(&s, SLOT_EV_STOP, NOW);
        if (slot_has_process(&s))
            slot_event(&s, SLOT_EV_EXIT, NOW);
        assert_int_equal(s.state, SLOT_EMPTY);
        assert_false(s.wanted);
        assert_int_equal(s.deadline_ms, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_backoff_doubles),
        cmocka_unit_test(test_late_death),
        cmocka_unit_test(test_spawn_fails),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_recovered_while_draining),
        cmocka_unit_test(test_recovered_twice_is_a_lie),
        cmocka_unit_test(test_without_recovery),
        cmocka_unit_test(test_bad_frame_counts),
        cmocka_unit_test(test_stop_from_everywhere),
    };
    return cmocka_run_group_tests_name("supervise", tests, NULL, NULL);
}
