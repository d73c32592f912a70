/* The timer wheel against a list that is searched from end to end: same timers, same times, same
 * order. */
#include "base/rng.h"
#include "worker/io/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TIMERS = 200, OPS = 20000 };

struct item {
    struct timer timer;
    bool set;
    uint64_t due_ms;   /* what the model says */
    uint64_t fired_at; /* wheel's now when it last fired */
    int fired;
};

static struct wheel wheel;
static struct item items[TIMERS];
static struct rng rng;
static uint64_t seed;
static uint64_t last_due;
static bool advancing;

static uint64_t random_delay(void)
{
    static const uint64_t spans[] = {1,       2,          256,        257,       65536,
                                     1 << 20, 1ull << 24, 1ull << 32, 1ull << 40};
    uint64_t span = spans[rng_below(&rng, 9)];
    uint64_t delay = rng_below(&rng, 4) == 0 ? span : rng_below(&rng, span + 1);
    return delay;
}

static void set_item(struct item *i, uint64_t delay)
{
    timer_set(&wheel, &i->timer, delay);
    i->set = true;
    i->due_ms = wheel.now_ms + delay;
    assert_int_equal(i->timer.due_ms, i->due_ms);
}

static void stop_item(struct item *i)
{
    timer_stop(&wheel, &i->timer);
    i->set = false;
}

static void random_op(void)
{
    struct item *i = &items[rng_below(&rng, TIMERS)];
    if (rng_below(&rng, 3) == 0)
        stop_item(i);
    else
        set_item(i, random_delay());
}

static void on_due(struct timer *t)
{
    struct item *i = (struct item *)(void *)t;
    if (!i->set || i->due_ms > wheel.now_ms || !advancing || i->due_ms < last_due)
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    assert_true(advancing);
    assert_true(i->set);
    assert_false(timer_is_set(t));
    assert_true(i->due_ms <= wheel.now_ms); /* never early */
    assert_true(i->due_ms >= last_due);     /* in order */
    last_due = i->due_ms;
    i->set = false;
    i->fired++;
    if (rng_below(&rng, 2) == 0)
        random_op(); /* set and stop others, or this one, from inside */
}

static uint64_t model_next(void)
{
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < TIMERS; i++) {
        if (items[i].set && items[i].due_ms < next)
            next = items[i].due_ms;
    }
    return next;
}

static void advance_to(uint64_t now)
{
    uint64_t before = wheel.now_ms;
    last_due = 0;
    advancing = true;
    wheel_advance(&wheel, now);
    advancing = false;
    if (now < before)
        now = before;
    assert_int_equal(wheel.now_ms, now);
    uint32_t count = 0;
    for (int i = 0; i < TIMERS; i++) {
        assert_int_equal(items[i].set, timer_is_set(&items[i].timer));
        count += items[i].set;
        /* Whatever was due has fired; what is set now was set in a callback, for now or later. */
        if (items[i].set)
            assert_true(items[i].due_ms >= now);
    }
    assert_int_equal(count, wheel.count);
    uint64_t next = model_next();
    uint64_t told = wheel_next_ms(&wheel, 1ull << 50);
    assert_true(next == UINT64_MAX ? told == 1ull << 50 : told <= next - now);
    if (next != UINT64_MAX && next > now)
        assert_true(told > 0);
}

static void run_seed(uint64_t s)
{
    static const uint64_t starts[] = {0, 255, 256, 65535, (1ull << 40) - 3, 1795276800000ull};
    seed = s;
    rng_seed(&rng, s);
    memset(items, 0, sizeof items);
    for (int i = 0; i < TIMERS; i++)
        items[i].timer.on_due = on_due;
    wheel_init(&wheel, starts[s % 6]);
    for (int op = 0; op < OPS / 10; op++) {
        if (rng_below(&rng, 3) != 0) {
            random_op();
            continue;
        }
        uint64_t now = wheel.now_ms;
        switch (rng_below(&rng, 5)) {
        case 0:
            advance_to(now - (now > 5 ? 5 : 0)); /* the clock steps back */
            break;
        case 1:
            advance_to(now + random_delay()); /* huge jumps */
            break;
        case 2: { /* exactly to the next one */
            uint64_t next = model_next();
            advance_to(next == UINT64_MAX ? now + 1 : next);
            break;
        }
        default:
            advance_to(now + rng_below(&rng, 300));
            break;
        }
    }
    for (int i = 0; i < TIMERS; i++)
        stop_item(&items[i]);
    assert_int_equal(wheel.count, 0);
    for (int level = 0; level < WHEEL_LEVELS; level++) {
        for (int w = 0; w < WHEEL_SLOTS / 64; w++)
            assert_int_equal(wheel.occupied[level][w], 0);
    }
}

static void test_against_model(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= 60; s++)
        run_seed(s);
}

struct simple {
    struct timer timer;
    int fired;
    uint64_t again_ms;
    int again;
};

static void on_simple(struct timer *t)
{
    struct simple *s = (struct simple *)(void *)t;
    s->fired++;
    if (s->again > 0) {
        s->again--;
        timer_set(&wheel, t, s->again_ms);
    }
}

/* Delay 0 means the next wheel_advance, also when the clock stands still and when set while firing.
 */
static void test_zero_delay(void **state)
{
    (void)state;
    struct simple s = {.timer.on_due = on_simple, .again = 2};
    wheel_init(&wheel, 1000);
    timer_set(&wheel, &s.timer, 0);
    assert_int_equal(wheel_next_ms(&wheel, 99), 0);
    wheel_advance(&wheel, 1000);
    assert_int_equal(s.fired, 1);
    wheel_advance(&wheel, 1000);
    assert_int_equal(s.fired, 2);
    wheel_advance(&wheel, 1500);
    assert_int_equal(s.fired, 3);
    wheel_advance(&wheel, 9999);
    assert_int_equal(s.fired, 3);
}

/* A delay that is set while the wheel catches up counts from the real now. */
static void test_set_while_late(void **state)
{
    (void)state;
    struct simple s = {.timer.on_due = on_simple, .again = 1, .again_ms = 10};
    wheel_init(&wheel, 0);
    timer_set(&wheel, &s.timer, 5);
    wheel_advance(&wheel, 1000);
    assert_int_equal(s.fired, 1);
    wheel_advance(&wheel, 1009);
    assert_int_equal(s.fired, 1);
    wheel_advance(&wheel, 1010);
    assert_int_equal(s.fired, 2);
}

static void test_exact_at_the_far_end(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 1, 4294967295u, (1ull << 40) - 1, 987654321987ull};
    for (size_t i = 0; i < 5; i++) {
        struct simple s = {.timer.on_due = on_simple};
        wheel_init(&wheel, starts[i]);
        timer_set(&wheel, &s.timer, 1ull << 40);
        wheel_advance(&wheel, starts[i] + (1ull << 40) - 1);
        assert_int_equal(s.fired, 0);
        assert_int_equal(wheel_next_ms(&wheel, 99), 1);
        wheel_advance(&wheel, starts[i] + (1ull << 40));
        assert_int_equal(s.fired, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_zero_delay),
        cmocka_unit_test(test_set_while_late),
        cmocka_unit_test(test_exact_at_the_far_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
