/*
 * api trace and events: the block boundary at every byte around a line, long lines, torn lines,
 * bounds, cursors.
 */
#include "master/api/events.h"
#include "master/api/trace.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mochila-trace-XXXXXX";
static char path[64];
static const struct msg_id id = {.hi = 0x0004000000000001, .lo = 42};

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/events-0.jsonl", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

/* Writes: `before` bytes of short noise lines, then our event, then `after` bytes of noise. */
static void write_file(size_t before, size_t after)
{
    char text[ID_TEXT + 1];
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    id_format(id, text);
    for (int part = 0; part < 2; part++) {
        size_t left = part == 0 ? before : after;
        while (left > 0) {
            size_t n = left < 64 ? left : 64;
            for (size_t i = 0; i + 1 < n; i++)
                (void)fputc('x', f);
            (void)fputc('\n', f);
            left -= n;
        }
        if (part == 0)
            fprintf(f, "{\"t\":1.5,\"id\":\"%s\",\"event\":\"accepted\"}\n", text);
    }
    assert_int_equal(fclose(f), 0);
}

static json_t *scan(uint32_t limit, int *status)
{
    struct trace *t;
    struct answer a = {0};
    json_error_t where;
    assert_int_equal(trace_create(dir, id, limit, 0, &t), 0);
    for (unsigned i = 0; !trace_step(t, 0); i++)
        assert_true(i < 1000);
    trace_answer(t, &a);
    trace_destroy(&t);
    assert_null(t);
    json_t *o = json_loadb(a.body, a.n, 0, &where);
    assert_non_null(o);
    *status = a.status;
    answer_free(&a);
    return o;
}

static void test_every_block_boundary(void **state)
{
    enum { LINE = 70 };
    (void)state;
    /* The block begins at the end of the file minus its size: shift that over the whole line. */
    for (size_t shift = 0; shift < 2 * LINE; shift++) {
        int status;
        write_file(200000, TRACE_BLOCK_BYTES - LINE - LINE / 2 + shift);
        json_t *o = scan(10, &status);
        assert_int_equal(status, 200);
        assert_int_equal(json_array_size(json_object_get(o, "events")), 1);
        assert_true(json_is_false(json_object_get(o, "cut")));
        json_decref(o);
    }
}

static void test_first_and_last_line(void **state)
{
    static const size_t sizes[][2] = {{0, 0}, {0, 64}, {64, 0}, {0, 3 << 20}, {3 << 20, 0}};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        int status;
        write_file(sizes[i][0], sizes[i][1]);
        json_t *o = scan(10, &status);
        assert_int_equal(status, 200);
        assert_int_equal(json_array_size(json_object_get(o, "events")), 1);
        json_decref(o);
    }
}

static void test_a_line_longer_than_a_block_is_said(void **state)
{
    char text[ID_TEXT + 1];
    int status;
    FILE *f = fopen(path, "w");
    (void)state;
    assert_non_null(f);
    id_format(id, text);
    fprintf(f, "{\"t\":1,\"id\":\"%s\"}\n{\"id\":\"", text);
    for (size_t i = 0; i < 3u * TRACE_BLOCK_BYTES; i++)
        (void)fputc('y', f);
    fprintf(f, "\"}\n{\"t\":2,\"id\":\"%s\"}\n{\"t\":3,\"id\":\"%s\"", text, text);
    assert_int_equal(fclose(f), 0);
    json_t *o = scan(10, &status);
    assert_int_equal(status, 200);
    assert_true(json_is_true(json_object_get(o, "cut")));
    /* The one before the monster may be lost, the one behind not; a torn line is none. */
    assert_true(json_array_size(json_object_get(o, "events")) >= 1);
    json_decref(o);
}

static void test_limit_and_not_found(void **state)
{
    char text[ID_TEXT + 1];
    int status;
    FILE *f = fopen(path, "w");
    (void)state;
    assert_non_null(f);
    id_format(id, text);
    for (int i = 0; i < 20; i++)
        fprintf(f, "{\"t\":1,\"id\":\"%s\",\"n\":%d}\n", text, i);
    fprintf(f, "{\"t\":1,\"id\":\"other\",\"reply\":\"%s\"}\n", text);
    assert_int_equal(fclose(f), 0);
    json_t *o = scan(100, &status);
    json_t *events = json_object_get(o, "events");
    assert_int_equal(json_array_size(events), 20);
    for (size_t i = 0; i < 20; i++) /* of one time: in the order of the file */
        assert_int_equal(json_integer_value(json_object_get(json_array_get(events, i), "n")), i);
    json_decref(o);
    o = scan(5, &status);
    assert_int_equal(json_array_size(json_object_get(o, "events")), 5);
    assert_true(json_is_true(json_object_get(o, "cut")));
    json_decref(o);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    o = scan(5, &status);
    assert_int_equal(status, 404);
    json_decref(o);
}

static void test_time_bound(void **state)
{
    struct trace *t;
    struct answer a = {0};
    (void)state;
    write_file(1000, 1000);
    assert_int_equal(trace_create(dir, id, 10, 100, &t), 0);
    assert_true(trace_step(t, 100 + TRACE_MS_MAX + 1));
    trace_answer(t, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(memmem(a.body, a.n, "\"cut\":true", 10));
    answer_free(&a);
    trace_destroy(&t);
}

static void test_names_and_cursors(void **state)
{
    static const struct {
        const char *name;
        bool good;
    } names[] = {
        {"events-0.jsonl", true},    {"events-63.jsonl", true},    {"events-0.jsonl.1", true},
        {"events-0.jsonl.12", true}, {"events-0.jsonl.gz", false}, {"events-0.jsonl.1.gz", false},
        {"events-0.jsonl.", false},  {"events-0.json", false},     {"mochila.log", false},
        {"xevents-0.jsonl", false},
    };
    static const struct {
        const char *cursor;
        uint64_t inode;
        int64_t offset;
    } cursors[] = {
        {"", 1, -1},         {"1:5", 1, 5},         {"1:5", 2, -1},
        {"a:ff.b:1", 11, 1}, {"a:ff.b:1", 10, 255}, {"x", 1, -1},
        {"1:", 1, -1},       {"1:5x2:6", 2, -1},    {"1:ffffffffffffffff", 1, -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_int_equal(event_file_name_ok(names[i].name), names[i].good);
    for (size_t i = 0; i < ARRAY_COUNT(cursors); i++)
        assert_int_equal(events_cursor_find(cursors[i].cursor, cursors[i].inode),
                         cursors[i].offset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_block_boundary),
        cmocka_unit_test(test_first_and_last_line),
        cmocka_unit_test(test_a_line_longer_than_a_block_is_said),
        cmocka_unit_test(test_limit_and_not_found),
        cmocka_unit_test(test_time_bound),
        cmocka_unit_test(test_names_and_cursors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
