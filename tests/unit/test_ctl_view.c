/* ctl view, grid, top, render: units, hostile text, alignment, rates, the ledger's verdict. */
#include "ctl/grid.h"
#include "ctl/render.h"
#include "ctl/top.h"

#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static json_t *json_of(const char *text)
{
    json_error_t where;
    json_t *v = json_loads(text, 0, &where);
    if (v == NULL)
        fail_msg("%s: %s", where.text, text);
    return v;
}

static void test_units(void **state)
{
    static const struct {
        char *(*unit)(double n, char out[VIEW_NUMBER_BYTES]);
        double n;
        const char *text;
    } cases[] = {
        {unit_count, 0, "0"},
        {unit_count, 999, "999"},
        {unit_count, 1000, "1,000"},
        {unit_count, 1234567, "1,234,567"},
        {unit_count, -1234, "-1,234"},
        {unit_rate, 0, "0"},
        {unit_rate, 0.25, "0.2"},
        {unit_rate, 99.9, "99.9"},
        {unit_rate, 99.96, "100"},
        {unit_rate, 12345.6, "12,346"},
        {unit_bytes, 0, "0 B"},
        {unit_bytes, 1023, "1023 B"},
        {unit_bytes, 1024, "1.0 KiB"},
        {unit_bytes, 1536, "1.5 KiB"},
        {unit_bytes, 1048575, "1.0 MiB"},
        {unit_bytes, 104857600, "100 MiB"},
        {unit_seconds, 0, "0s"},
        {unit_seconds, 0.25, "0.2s"},
        {unit_seconds, 9.96, "9s"},
        {unit_seconds, 59, "59s"},
        {unit_seconds, 60, "1m00s"},
        {unit_seconds, 3600, "1h00m"},
        {unit_seconds, 86399, "23h59m"},
        {unit_seconds, 273600, "3d04h"},
        {unit_seconds, -5, "0s"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[VIEW_NUMBER_BYTES];
        assert_string_equal(cases[i].unit(cases[i].n, out), cases[i].text);
    }
    static const double odd[] = {1e300, -1e300, 1e18};
    for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
        char out[VIEW_NUMBER_BYTES];
        assert_true(strlen(unit_count(odd[i], out)) < sizeof out);
        assert_true(strlen(unit_bytes(odd[i] / 1e290, out)) < sizeof out);
        assert_true(strlen(unit_seconds(odd[i], out)) < sizeof out);
        assert_true(strlen(unit_time(odd[i], out)) < sizeof out);
    }
}

static void test_hostile_text(void **state)
{
    static const struct {
        const char *in, *out;
        unsigned columns;
    } cases[] = {
        {"plain", "plain", 5},
        {"\x1b[31mred\x07", "?[31mred?", 9},
        {"a\nb\tc\r", "a?b?c?", 6},
        {"\x7f\x80\xff", "???", 3},
        {"\xc2\x9b"
         "2J",
         "?2J", 3}, /* C1 control: CSI in one character */
        {"\xe2\x80\xae"
         "abc",
         "?abc", 4}, /* right-to-left override */
        {"gr\xc3\xbc\xc3\x9f"
         "e",
         "gr\xc3\xbc\xc3\x9f"
         "e",
         5},
        {"\xe6\xbc\xa2", "\xe6\xbc\xa2", 2}, /* wide */
        {"\xc3", "?", 1},                    /* cut off */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[64];
        unsigned columns = view_clean(span_str(cases[i].in), out, sizeof out);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(columns, cases[i].columns);
        assert_int_equal(view_columns(out), cases[i].columns);
    }
}

/* Random bytes through every way to the terminal: no control byte but line ends comes out. */
static void test_nothing_hostile_gets_through(void **state)
{
    struct rng rng;
    (void)state;
    rng_seed(&rng, 7);
    for (unsigned run = 0; run < 300; run++) {
        uint8_t bytes[1500];
        size_t n = (size_t)(rng_below(&rng, sizeof bytes));
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)rng_u64(&rng);
        char *out = NULL;
        size_t size = 0;
        struct view v = {.out = open_memstream(&out, &size)};
        view_put_span(&v, span_of(bytes, n));
        assert_int_equal(fclose(v.out), 0);
        for (size_t i = 0; i < size;) {
            size_t step = utf8_sequence(span_of(out + i, size - i));
            assert_true(step > 0);
            assert_true((uint8_t)out[i] >= 0x20 && out[i] != 0x7f);
            assert_false(step == 2 && (uint8_t)out[i] == 0xc2 && (uint8_t)out[i + 1] < 0xa0);
            i += step;
        }
        free(out);
    }
}

static char *grid_text(const char *rows_text, unsigned width)
{
    static const struct grid_column columns[] = {
        {"NAME", "name", GRID_TEXT, GRID_FLEX},
        {"N", "n", GRID_COUNT, GRID_FIXED},
        {"X", "x", GRID_COUNT, GRID_OPTIONAL},
        {"WHY", "why", GRID_REASONS, GRID_FLEX},
    };
    char *out = NULL;
    size_t size = 0;
    json_t *rows = json_of(rows_text);
    struct view v = {.out = open_memstream(&out, &size), .width = width};
    (void)grid_print(&v, columns, ARRAY_COUNT(columns), rows);
    assert_int_equal(fclose(v.out), 0);
    json_decref(rows);
    return out;
}

static void test_grid(void **state)
{
    (void)state;
    char *out = grid_text("[]", 0);
    assert_string_equal(out, "");
    free(out);
    out = grid_text("[{\"name\":\"a\",\"n\":1234,\"x\":0,\"why\":{\"b\":1,\"c\":2000,\"d\":0}},"
                    "{\"name\":\"gr\\u00fcn\",\"n\":5}]",
                    0);
    assert_string_equal(out, "NAME      N  WHY\n"
                             "a     1,234  c 2,000, b 1\n"
                             "gr\xc3\xbcn      5\n");
    free(out);
    out = grid_text("[{\"name\":\"a\",\"x\":1},{\"name\":\"b\",\"x\":22}]", 0);
    assert_string_equal(out, "NAME  N   X  WHY\na         1\nb        22\n");
    free(out);
}

static void test_grid_fits(void **state)
{
    (void)state;
    for (unsigned width = 40; width < 120; width++) {
        char *out =
            grid_text("[{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
                      "\"n\":1234567,\"why\":{\"some-long-reason\":1,\"another-long-one\":2}},"
                      "{\"name\":\"\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22"
                      "\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\\u6f22\"}]",
                      width);
        for (char *line = strtok(out, "\n"); line != NULL; line = strtok(NULL, "\n"))
            assert_true(view_columns(line) <= width);
        free(out);
    }
}

static void test_quantiles(void **state)
{
    (void)state;
    json_t *before = json_of("[5,0,0,0,0]");
    json_t *now = json_of("[5,0,90,0,10]");
    assert_true(fabs(top_quantile(before, now, 0.5) - 2e-6) < 1e-12);
    assert_true(fabs(top_quantile(before, now, 0.99) - 4e-6) < 1e-12);
    assert_true(fabs(top_quantile(NULL, now, 0.01) - 1e-6) < 1e-12);
    assert_true(top_quantile(now, now, 0.5) <= 0);
    json_decref(before);
    json_decref(now);
}

static char *top_text(const char *before_text, const char *now_text, unsigned rows, enum top_by by)
{
    char *out = NULL;
    size_t size = 0;
    json_t *before = before_text != NULL ? json_of(before_text) : NULL;
    json_t *now = json_of(now_text);
    json_t *queue =
        json_of("{\"rows\":[{\"key\":\"s1\",\"queued\":3},{\"key\":\"s2\",\"queued\":1}]}");
    struct view v = {.out = open_memstream(&out, &size), .width = 100};
    const struct top_frame f = {
        .before = before, .now = now, .queue = queue, .by = by, .rows = rows};
    top_draw(&v, &f);
    assert_int_equal(fclose(v.out), 0);
    json_decref(before);
    json_decref(now);
    json_decref(queue);
    return out;
}

static void test_top_rates(void **state)
{
    static const char before[] = "{\"now_ms\":1000,\"total\":{\"delivered\":100}}";
    static const char now[] = "{\"now_ms\":3000,\"node\":\"n\",\"total\":{\"delivered\":700}}";
    static const char anew[] = "{\"now_ms\":3000,\"node\":\"n\",\"total\":{\"delivered\":7}}";
    (void)state;
    char *out = top_text(before, now, 0, TOP_SITE);
    assert_non_null(strstr(out, "deliver/s 300 "));
    free(out);
    out = top_text(NULL, now, 0, TOP_SITE);
    assert_non_null(strstr(out, "deliver/s 0 "));
    free(out);
    out = top_text(before, anew, 0, TOP_SITE); /* the node was restarted: no negative rate */
    assert_non_null(strstr(out, "deliver/s 0 "));
    free(out);
}

static void test_top_fills_the_screen_and_no_more(void **state)
{
    char now[20000];
    size_t n = 0;
    (void)state;
    n += (size_t)snprintf(now, sizeof now,
                          "{\"now_ms\":1,\"workers\":[{\"slot\":0},{\"slot\":1}],"
                          "\"lanes\":[");
    for (unsigned i = 0; i < 100; i++)
        n += (size_t)snprintf(now + n, sizeof now - n,
                              "%s{\"number\":%u,\"lane\":\"l%u\",\"queued\":%u}", i > 0 ? "," : "",
                              i, i, i);
    (void)snprintf(now + n, sizeof now - n, "]}");
    for (unsigned rows = 12; rows < 60; rows++) {
        for (enum top_by by = TOP_LANE; by <= TOP_TENANT; by++) {
            char *out = top_text(NULL, now, rows, by);
            unsigned lines = 0;
            for (const char *p = out; *p != '\0'; p++)
                lines += *p == '\n';
            if (lines > rows)
                fail_msg("%u lines on %u rows by %s", lines, rows, top_by_word(by));
            if (rows > 20)
                assert_non_null(strstr(out, by == TOP_LANE ? "l99" : "s1"));
            free(out);
        }
    }
}

static void test_ledger(void **state)
{
    static const struct {
        const char *answer;
        int status;
    } cases[] = {
        {"{\"accepted\":10,\"delivered\":4,\"bounced\":1,\"expired\":1,\"deleted\":1,\"queued\":2,"
         "\"handed_over\":1,\"balance\":0}",
         CLI_OK},
        {"{\"accepted\":12,\"taken_over\":2,\"handed_over\":2,\"delivered\":10}", CLI_OK},
        {"{\"accepted\":10,\"delivered\":9}", CLI_ERROR},
        {"{\"accepted\":10,\"delivered\":11}", CLI_ERROR},
        {"{\"accepted\":10,\"delivered\":10,\"balance\":1}", CLI_ERROR},
        {"{\"accepted\":10,\"delivered\":9,\"balance\":0}", CLI_ERROR},
        {"{}", CLI_OK},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *out = NULL;
        size_t size = 0;
        struct cli c = {.view = {.out = open_memstream(&out, &size)}};
        json_t *answer = json_of(cases[i].answer);
        assert_int_equal(render_ledger(&c, answer), cases[i].status);
        assert_int_equal(fclose(c.view.out), 0);
        assert_int_equal(strstr(out, "NOT balanced") != NULL, cases[i].status != CLI_OK);
        json_decref(answer);
        free(out);
    }
}

/* Renderers get whatever a newer or broken node sends: odd types everywhere must do no harm. */
static void test_renderers_take_anything(void **state)
{
    static int (*const renderers[])(struct cli * c, const json_t *answer) = {
        render_done, render_status, render_holds, render_audit,  render_queue,
        render_why,  render_show,   render_trace, render_ledger, render_sites,
    };
    static const char *const answers[] = {
        "{}",
        "{\"rows\":5,\"children\":{},\"holds\":\"x\",\"warnings\":[1,null,{}],\"events\":[[]]}",
        "{\"rows\":[1,null,\"x\",[],{\"key\":5,\"queued\":\"many\",\"reasons\":[1]}]}",
        "{\"rows\":[{\"lane\":5,\"limits\":[],\"until_s\":\"x\"}],\"recipients\":{\"a\":1}}",
        "{\"headers\":5,\"body\":{},\"id\":null,\"sender\":\"\",\"bytes\":-1,\"received\":1e300}",
        "{\"events\":[{\"t\":\"x\",\"index\":\"y\",\"event\":5},null],\"cut\":true}",
        "{\"accepted\":\"x\",\"balance\":null,\"text\":[]}",
    };
    (void)state;
    for (size_t r = 0; r < ARRAY_COUNT(renderers); r++) {
        for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
            char *out = NULL;
            size_t size = 0;
            struct cli c = {.view = {.out = open_memstream(&out, &size)}};
            json_t *answer = json_of(answers[i]);
            (void)renderers[r](&c, answer);
            assert_int_equal(fclose(c.view.out), 0);
            json_decref(answer);
            free(out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_nothing_hostile_gets_through),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_grid_fits),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_top_rates),
        cmocka_unit_test(test_top_fills_the_screen_and_no_more),
        cmocka_unit_test(test_ledger),
        cmocka_unit_test(test_renderers_take_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
