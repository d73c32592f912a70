/*
 * The wheel of waiting entries against a naive model: random additions, removals and clocks that
 * jump.
 */
#include "base/rng.h"
#include "worker/lane/due.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { ENTRIES = 300, START_S = 1800000000 };

static struct store store;
static struct due due;
static struct qentry *entries[ENTRIES];

/* The model: when each entry was asked to fire, 0 = it is not in the wheel. */
static uint32_t wanted_s[ENTRIES];
static uint32_t clock_s;
static uint32_t fired_count;
static bool add_again;
static struct rng rng;

static void on_fire(void *ctx, struct qentry *e);

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(store_init(&store, 1000), 0);
    struct qmsg *m = store_add(&store, (struct msg_id){1, 1});
    assert_non_null(m);
    for (uint16_t i = 0; i < ENTRIES; i++) {
        entries[i] = store_add_entry(&store, m, i);
        assert_non_null(entries[i]);
        wanted_s[i] = 0;
    }
    clock_s = START_S;
    due_init(&due, clock_s, on_fire, NULL);
    fired_count = 0;
    add_again = false;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    store_fini(&store);
    return 0;
}

static void add(unsigned i, uint32_t due_s)
{
    entries[i]->due_s = due_s;
    wanted_s[i] = due_s;
    due_add(&due, &store, entries[i]);
}

static void on_fire(void *ctx, struct qentry *e)
{
    (void)ctx;
    assert_in_range(e->index, 0, ENTRIES - 1);
    assert_ptr_equal(entries[e->index], e);
    if (wanted_s[e->index] == 0)
        fail_msg("entry %u fired, and was not in the wheel", e->index);
    if (wanted_s[e->index] > clock_s)
        fail_msg("entry %u fired %u s early", e->index, wanted_s[e->index] - clock_s);
    wanted_s[e->index] = 0;
    fired_count++;
    if (add_again && rng_below(&rng, 3) == 0)
        add(e->index, clock_s + (uint32_t)rng_below(&rng, 3));
}

static uint32_t waiting(void)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < ENTRIES; i++)
        n += wanted_s[i] != 0;
    return n;
}

static void advance_all(void)
{
    while (due_advance(&due, &store, clock_s, 7) == 7)
        continue;
}

/* Nothing that is due is still there. */
static void check_none_due(uint64_t seed)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        if (wanted_s[i] != 0 && wanted_s[i] <= clock_s)
            fail_msg("seed %llu: entry %u is due since %u s and did not fire",
                     (unsigned long long)seed, i, clock_s - wanted_s[i]);
    assert_int_equal(due.count, waiting());
}

static uint32_t some_delay(void)
{
    static const uint32_t scales[] = {2, 60, DUE_SLOTS, 5 * DUE_SLOTS, 60 * 86400};
    return (uint32_t)rng_below(&rng, scales[rng_below(&rng, 5)]);
}

/* The clock only goes on: by a second, an hour, over several blocks, by months. */
static void fires_in_time_against_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        rng_seed(&rng, seed);
        add_again = seed % 2 == 0;
        for (int step = 0; step < 400; step++) {
            unsigned i = (unsigned)rng_below(&rng, ENTRIES);
            if (wanted_s[i] != 0) {
                due_remove(&due, &store, entries[i]);
                wanted_s[i] = 0;
            } else {
                add(i, clock_s + some_delay());
            }
            if (rng_below(&rng, 4) == 0) {
                clock_s += some_delay() / 4;
                add_again = seed % 2 == 0;
                while (due_advance(&due, &store, clock_s, 7) == 7)
                    add_again = false;
                check_none_due(seed);
            }
        }
    }
    assert_true(fired_count > 1000);
}

/* A clock that goes back: nothing is lost, nothing fires before its time by the clock that counts
 * then. */
static void a_clock_that_jumps_back_loses_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        rng_seed(&rng, seed);
        for (int step = 0; step < 200; step++) {
            unsigned i = (unsigned)rng_below(&rng, ENTRIES);
            if (wanted_s[i] == 0)
                add(i, clock_s + some_delay());
            if (rng_below(&rng, 5) != 0)
                continue;
            uint32_t by = some_delay() % (5 * DUE_SLOTS); /* never as far as the wheel reaches */
            clock_s = rng_below(&rng, 2) == 0 ? clock_s + by : clock_s - by;
            advance_all();
            assert_int_equal(due.count, waiting());
        }
        clock_s += 200 * 86400;
        advance_all();
        assert_int_equal(waiting(), 0);
    }
}

/* Retries filed after a step back must wait, not fire at once for as long as the step was. */
static void a_step_back_makes_no_storm(void **state)
{
    (void)state;
    advance_all();
    clock_s -= 3600;
    advance_all();
    add(0, clock_s + 900);
    for (int s = 0; s < 899; s++) {
        clock_s++;
        advance_all();
        assert_int_equal(fired_count, 0);
    }
    clock_s++;
    advance_all();
    assert_int_equal(fired_count, 1);
}

static void a_small_step_back_is_waited_for(void **state)
{
    (void)state;
    add(0, clock_s + 10);
    clock_s -= 5;
    advance_all();
    clock_s += 14;
    advance_all();
    assert_int_equal(fired_count, 0);
    clock_s += 1;
    advance_all();
    assert_int_equal(fired_count, 1);
}

/* A host without a clock battery starts in 1970 and learns the date later. */
static void a_jump_over_decades_is_quick(void **state)
{
    (void)state;
    clock_s = 1000;
    due_init(&due, clock_s, on_fire, NULL);
    for (unsigned i = 0; i < ENTRIES; i++)
        add(i, 1000 + i * 700000);
    clock_t before = clock();
    clock_s = START_S;
    advance_all();
    assert_int_equal(fired_count, ENTRIES);
    double seconds = (double)(clock() - before) / CLOCKS_PER_SEC;
    if (seconds > 1.0) /* a step a second would be 1,800,000,000 of them */
        fail_msg("the jump took %.1f s", seconds);
}

static void says_when_something_is_due(void **state)
{
    (void)state;
    assert_int_equal(due_next_s(&due, 60), 60);
    add(0, clock_s + 5);
    assert_true(due_next_s(&due, 60) <= 5); /* a block's edge may come first */
    assert_int_equal(due_next_s(&due, 1), 1);
    clock_s += 5;
    assert_int_equal(due_advance(&due, &store, clock_s, 10), 1);
    assert_int_equal(due_next_s(&due, 60), 60);
}

static void what_is_late_fires_at_the_next_advance(void **state)
{
    (void)state;
    add(0, clock_s - 1000);
    add(1, clock_s);
    advance_all();
    assert_int_equal(fired_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fires_in_time_against_a_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_clock_that_jumps_back_loses_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_step_back_makes_no_storm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_small_step_back_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_jump_over_decades_is_quick, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_when_something_is_due, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_late_fires_at_the_next_advance, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
