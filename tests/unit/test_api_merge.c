/* api merge: sums, times, rows by key, statuses, missing workers; a table of part combinations. */
#include "master/api/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct merge_part part(uint32_t slot, int status, const char *body)
{
    return (struct merge_part){
        .slot = slot, .status = status, .complete = true, .body = span_str(body)};
}

static json_t *json_of(const char *text)
{
    json_error_t where;
    json_t *v = json_loads(text, 0, &where);
    assert_non_null(v);
    return v;
}

static void assert_merged(const struct merge_part *parts, unsigned count, struct merge_how how,
                          int status, const char *expected)
{
    struct answer a = {0};
    merge_parts(parts, count, &how, &a);
    assert_non_null(a.body);
    json_error_t where;
    json_t *got = json_loadb(a.body, a.n, 0, &where);
    json_t *want = json_of(expected);
    if (!json_equal(got, want) || a.status != status)
        fail_msg("got %d %.*s expected %d %s", a.status, (int)a.n, a.body, status, expected);
    json_decref(got);
    json_decref(want);
    answer_free(&a);
}

static void test_objects(void **state)
{
    static const struct {
        const char *into, *from;
        bool sums;
        const char *result;
    } cases[] = {
        {"{}", "{\"a\":1}", true, "{\"a\":1}"},
        {"{\"a\":1}", "{\"a\":2}", true, "{\"a\":3}"},
        {"{\"a\":1}", "{\"a\":2}", false, "{\"a\":1}"},
        {"{\"a\":1.5}", "{\"a\":2}", true, "{\"a\":3.5}"},
        {"{\"a\":\"x\"}", "{\"a\":\"y\"}", true, "{\"a\":\"x\"}"},
        {"{\"a\":1}", "{\"a\":\"y\"}", true, "{\"a\":1}"},
        {"{\"oldest_s\":1}", "{\"oldest_s\":2}", true, "{\"oldest_s\":2}"},
        {"{\"oldest_s\":2}", "{\"oldest_s\":1}", true, "{\"oldest_s\":2}"},
        {"{\"next_due_s\":2}", "{\"next_due_s\":1}", true, "{\"next_due_s\":1}"},
        {"{\"epoch\":2}", "{\"epoch\":5}", true, "{\"epoch\":2}"},
        {"{\"limits\":{\"rate\":5}}", "{\"limits\":{\"rate\":5}}", true,
         "{\"limits\":{\"rate\":5}}"},
        {"{\"r\":{\"x\":1}}", "{\"r\":{\"x\":2,\"y\":1}}", true, "{\"r\":{\"x\":3,\"y\":1}}"},
        {"{\"rows\":[1]}", "{\"rows\":[2]}", false, "{\"rows\":[1,2]}"},
        {"{\"rows\":[{\"key\":\"a\",\"n\":1}]}",
         "{\"rows\":[{\"key\":\"a\",\"n\":2},{\"key\":\"b\"}]}", false,
         "{\"rows\":[{\"key\":\"a\",\"n\":3},{\"key\":\"b\"}]}"},
        {"{\"n\":9223372036854775807}", "{\"n\":5}", true, "{\"n\":9223372036854775807}"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        json_t *into = json_of(cases[i].into);
        json_t *from = json_of(cases[i].from);
        json_t *want = json_of(cases[i].result);
        assert_int_equal(merge_object(into, from, cases[i].sums), 0);
        if (!json_equal(into, want))
            fail_msg("%s + %s gives %s", cases[i].into, cases[i].from, json_dumps(into, 0));
        json_decref(into);
        json_decref(from);
        json_decref(want);
    }
}

static void test_rows_are_sorted_and_cut(void **state)
{
    const struct merge_part parts[] = {
        part(0, 200, "{\"rows\":[{\"key\":\"a\",\"queued\":1},{\"key\":\"c\",\"queued\":5}]}"),
        part(1, 200, "{\"rows\":[{\"key\":\"b\",\"queued\":1},{\"key\":\"a\",\"queued\":3}]}"),
    };
    (void)state;
    assert_merged(parts, 2, (struct merge_how){.workers = 2}, 200,
                  "{\"rows\":[{\"key\":\"c\",\"queued\":5},{\"key\":\"a\",\"queued\":4},"
                  "{\"key\":\"b\",\"queued\":1}]}");
    assert_merged(parts, 2, (struct merge_how){.workers = 2, .row_limit = 2}, 200,
                  "{\"rows\":[{\"key\":\"c\",\"queued\":5},{\"key\":\"a\",\"queued\":4}],"
                  "\"rows_cut\":1}");
}

/* Every pair of what two workers can say. */
static void test_statuses(void **state)
{
    enum say { GOOD, GONE, REFUSED, ABSENT, GARBLED, SILENT, SAY_COUNT };
    static const struct {
        int status;
        const char *body;
    } says[] = {
        [GOOD] = {200, "{\"n\":1}"},
        [GONE] = {404, "{\"error\":\"none\"}"},
        [REFUSED] = {400, "{\"error\":\"bad\"}"},
        [ABSENT] = {503, "{\"error\":\"dead\"}"},
        [GARBLED] = {200, "{\"n\":"},
        [SILENT] = {0, NULL},
    };
    /* Row: the first worker, column: the second. */
    static const int expected[SAY_COUNT][SAY_COUNT] = {
        [GOOD] = {200, 200, 200, 200, 200, 200},    [GONE] = {200, 404, 400, 503, 404, 404},
        [REFUSED] = {200, 400, 400, 400, 400, 400}, [ABSENT] = {200, 503, 503, 503, 503, 503},
        [GARBLED] = {200, 404, 400, 503, 503, 503}, [SILENT] = {200, 404, 400, 503, 503, 503},
    };
    (void)state;
    for (int x = 0; x < SAY_COUNT; x++) {
        for (int y = 0; y < SAY_COUNT; y++) {
            struct merge_part parts[2];
            unsigned count = 0;
            unsigned missing = 0;
            const int pair[2] = {x, y};
            for (uint32_t i = 0; i < 2; i++) {
                missing += pair[i] == ABSENT || pair[i] == GARBLED || pair[i] == SILENT;
                if (pair[i] != SILENT)
                    parts[count++] = part(i, says[pair[i]].status, says[pair[i]].body);
            }
            struct answer a = {0};
            const struct merge_how how = {.workers = 2, .sums = true};
            merge_parts(parts, count, &how, &a);
            json_error_t where;
            json_t *got = json_loadb(a.body, a.n, 0, &where);
            assert_non_null(got);
            if (a.status != expected[x][y])
                fail_msg("%d and %d: status %d, body %.*s", x, y, a.status, (int)a.n, a.body);
            assert_int_equal(json_array_size(json_object_get(got, "missing")), missing);
            assert_int_equal(json_is_string(json_object_get(got, "error")), a.status != 200);
            json_decref(got);
            answer_free(&a);
        }
    }
}

static void test_late_answers_keep_what_came(void **state)
{
    struct merge_part parts[] = {part(0, 200, "{\"n\":1}"), part(1, 200, "{\"n\":2}")};
    (void)state;
    parts[1].complete = false;
    assert_merged(parts, 2, (struct merge_how){.workers = 3, .sums = true, .late = "late"}, 504,
                  "{\"n\":1,\"error\":\"late\",\"missing\":[1,2]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_rows_are_sorted_and_cut),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_late_answers_keep_what_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
