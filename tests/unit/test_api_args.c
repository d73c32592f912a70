/* api args: forms, JSON, what each verb takes; and no input at all gets a bad item through. */
#include "master/api/args.h"

#include "base/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char error[ARGS_ERROR_BYTES];

static void test_forms(void **state)
{
    static const struct {
        const char *form;
        int result;
        const char *items[3];
    } cases[] = {
        {"", 0, {NULL}},
        {"a=b", 0, {"a=b"}},
        {"a=b&c=d&e_f=", 0, {"a=b", "c=d", "e_f="}},
        {"a", 0, {"a="}},
        {"&&a=1&", 0, {"a=1"}},
        {"a=%41%2b+x=y", 0, {"a=A+ x=y"}},
        {"a=%C3%A4", 0, {"a=\xc3\xa4"}},
        {"%61=1", 0, {"a=1"}},
        {"a=%4", -EINVAL, {NULL}},
        {"a=%", -EINVAL, {NULL}},
        {"a=%g0", -EINVAL, {NULL}},
        {"a=1&a=2", -EINVAL, {NULL}},
        {"=1", -EINVAL, {NULL}},
        {"A=1", -EINVAL, {NULL}},
        {"a-b=1", -EINVAL, {NULL}},
        {"a=%00", -EINVAL, {NULL}},
        {"a=%0a", -EINVAL, {NULL}},
        {"a=%7f", -EINVAL, {NULL}},
        {"a=%ff", -EINVAL, {NULL}},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct args a = {0};
        error[0] = '\0';
        int r = args_add_form(&a, span_str(cases[i].form), error);
        if (r != cases[i].result)
            fail_msg("%s: %d %s", cases[i].form, r, error);
        assert_int_equal(error[0] != '\0', r < 0);
        unsigned wanted = 0;
        while (r == 0 && wanted < 3 && cases[i].items[wanted] != NULL) {
            assert_string_equal(a.item[wanted], cases[i].items[wanted]);
            wanted++;
        }
        if (r == 0)
            assert_int_equal(a.count, wanted);
        args_free(&a);
    }
}

static void test_bounds(void **state)
{
    struct args a = {0};
    static uint8_t big[ARGS_VALUE_BYTES + 1];
    char key[ARGS_KEY_BYTES + 2];
    (void)state;
    memset(big, 'x', sizeof big);
    memset(key, 'k', sizeof key);
    assert_int_equal(args_add(&a, span_str("a"), span_of(big, ARGS_VALUE_BYTES), error), 0);
    assert_int_equal(args_add(&a, span_str("b"), span_of(big, sizeof big), error), -EINVAL);
    assert_int_equal(args_add(&a, span_of(key, ARGS_KEY_BYTES), span_str(""), error), 0);
    assert_int_equal(args_add(&a, span_of(key, ARGS_KEY_BYTES + 1), span_str(""), error), -EINVAL);
    for (unsigned i = 2; i < ARGS_MAX; i++) {
        char name[4] = {'c', (char)('a' + i % 26), i < 26 ? '\0' : 'z'};
        assert_int_equal(args_add(&a, span_str(name), span_str("1"), error), 0);
    }
    assert_int_equal(args_add(&a, span_str("last"), span_str("1"), error), -EINVAL);
    args_free(&a);
}

static int check(const char *verb, const char *form)
{
    struct args a = {0};
    error[0] = '\0';
    assert_int_equal(args_add_form(&a, span_str(form), error), 0);
    int r = args_check(&a, verb_find(verb), error);
    args_free(&a);
    return r;
}

static void test_what_verbs_take(void **state)
{
    static const struct {
        const char *verb, *form;
        const char *text; /* NULL: good */
    } cases[] = {
        {"queue", "", NULL},
        {"queue", "by=site&lane=x&limit=10000", NULL},
        {"queue", "limit=10001", "1 to 10000"},
        {"queue", "limit=-1", "1 to 10000"},
        {"queue", "lnae=x", "did you mean lane?"},
        {"queue", "zzzz=x", "it takes by, lane"},
        {"queue", "tenant=", "is empty"},
        {"queue", "domain=", "domain= is empty"},
        {"status", "by=x", "takes no arguments"},
        {"why", "", "needs the argument what"},
        {"why", "what=", "needs the argument what"},
        {"hold", "value=x", "needs the argument kind"},
        {"drain", "seconds=86400", NULL},
        {"drain", "seconds=86401", "0 to 86400"},
        {"retry", "", "every message"},
        {"retry", "all=0", "every message"},
        {"retry", "all=1", NULL},
        {"retry", "id=x", NULL},
        {"delete", "preview=1", "every message"},
        {"delete", "why=x", "every message"},
        {"delete", "site=x", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int r = check(cases[i].verb, cases[i].form);
        if (r != (cases[i].text == NULL ? 0 : -EINVAL))
            fail_msg("%s %s: %d %s", cases[i].verb, cases[i].form, r, error);
        if (cases[i].text != NULL && strstr(error, cases[i].text) == NULL)
            fail_msg("%s %s: %s", cases[i].verb, cases[i].form, error);
    }
}

/* Every verb that changes many messages refuses to run on all of them by accident. */
static void test_no_accidents(void **state)
{
    size_t count;
    const struct verb *verbs = verb_table(&count);
    unsigned guarded = 0;
    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (!verbs[i].changes || verbs[i].scope != VERB_WORKERS)
            continue;
        assert_int_equal(check(verbs[i].name, ""), -EINVAL);
        guarded++;
    }
    assert_int_equal(guarded, 2);
}

/* Whatever the bytes: what is let in has a sane key, a value without control bytes, and no twin. */
static void test_random_bytes(void **state)
{
    static const char alphabet[] = "ab=&%+4f\"{}[]:,1\\u0\x01\xc3\xa4\xff";
    struct rng rng;
    (void)state;
    rng_seed(&rng, 20261121);
    for (unsigned run = 0; run < 20000; run++) {
        uint8_t bytes[40];
        size_t n = (size_t)(rng_below(&rng, sizeof bytes));
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)alphabet[rng_below(&rng, sizeof alphabet - 1)];
        uint8_t *exact = malloc(n > 0 ? n : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, n);
        struct args a = {0};
        int r = run % 2 == 0 ? args_add_form(&a, span_of(exact, n), error)
                             : args_add_json(&a, span_of(exact, n), error);
        assert_true(r == 0 || r == -EINVAL);
        for (unsigned i = 0; i < a.count; i++) {
            assert_non_null(strchr(a.item[i], '='));
            for (const char *p = a.item[i]; *p != '\0'; p++)
                assert_true((uint8_t)*p >= 0x20);
        }
        args_free(&a);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),           cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_what_verbs_take), cmocka_unit_test(test_no_accidents),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
