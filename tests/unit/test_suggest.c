/* suggest: distances against a table, and what is and is not suggested. */
#include "base/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_distances(void **state)
{
    static const struct {
        const char *a, *b;
        unsigned distance;
    } cases[] = {
        {"", "", 0},
        {"", "abc", 3},
        {"abc", "", 3},
        {"status", "status", 0},
        {"statsu", "status", 1},
        {"sttus", "status", 1},
        {"statuss", "status", 1},
        {"stavus", "status", 1},
        {"queue", "why", 5},
        {"ab", "ba", 1},
        {"abcd", "badc", 2},
        {"kitten", "sitting", 3},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(suggest_distance(cases[i].a, cases[i].b), cases[i].distance);
        assert_int_equal(suggest_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
}

static void test_long_words_are_far_away(void **state)
{
    char word[200];
    (void)state;
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    assert_int_equal(suggest_distance(word, "a"), sizeof word - 1);
    word[SUGGEST_WORD_BYTES] = '\0';
    assert_int_equal(suggest_distance(word, "a"), SUGGEST_WORD_BYTES - 1);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"status", "stop", "queue", NULL, "hold", "holds", "why"};
    static const struct {
        const char *word, *expected;
    } cases[] = {
        {"statsu", "status"}, {"stat", "status"}, {"stpo", "stop"}, {"qeue", "queue"},
        {"holdd", "hold"},    {"hodls", "holds"}, {"wy", "why"},    {"xyzzy", NULL},
        {"", NULL},           {"s", NULL},        {"que", "queue"}, {"delete", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *got = suggest_nearest(cases[i].word, names, ARRAY_COUNT(names));
        if (cases[i].expected == NULL)
            assert_null(got);
        else
            assert_string_equal(got, cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distances),
        cmocka_unit_test(test_long_words_are_far_away),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
