/* link_quiet: one line for a thing in its time, others beside it, and a count of those left out. */
#include "master/link/quiet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_quiet(void **state)
{
    static struct quiet q;
    unsigned unsaid = 9;
    (void)state;
    assert_true(quiet_may_say(&q, span_str("x"), 1, &unsaid));
    assert_int_equal(unsaid, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_false(quiet_may_say(&q, span_str("x"), QUIET_MS, &unsaid));
    assert_true(quiet_may_say(&q, span_str("y"), QUIET_MS, &unsaid));
    assert_true(quiet_may_say(&q, span_str("x"), QUIET_MS + 1, &unsaid));
    assert_int_equal(unsaid, 5);
    assert_false(quiet_may_say(&q, span_str("x"), QUIET_MS + 2, &unsaid));
}

/* More things than places: the oldest is forgotten, and nothing else. */
static void test_full(void **state)
{
    static struct quiet q;
    unsigned unsaid;
    char thing[16];
    (void)state;
    for (unsigned i = 0; i <= QUIET_THINGS; i++) {
        (void)snprintf(thing, sizeof thing, "%u", i);
        assert_true(quiet_may_say(&q, span_str(thing), 1 + i, &unsaid));
    }
    assert_false(quiet_may_say(&q, span_str("1"), 100, &unsaid));
    assert_true(quiet_may_say(&q, span_str("0"), 100, &unsaid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_quiet), cmocka_unit_test(test_full)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
