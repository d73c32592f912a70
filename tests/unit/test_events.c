/*
 * The lines of the event log: each is JSON of its own whatever a hostile client or server wrote,
 * none is torn when the reader is slow or the disk full, and what could not be written is counted.
 */
#include "base/rng.h"
#include "worker/events.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { NOW_MS = 1700000000 };

static int pipe_fds[2];
static struct events *events;

static void begin(void)
{
    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(events_create(&events, pipe_fds[1]), 0);
}

static void end(void)
{
    events_destroy(&events);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static struct event plain(void)
{
    return (struct event){.what = "delivered", .id = id_make(1, 2, 3), .index = 7,
                          .rcpt = span_str("u@example.org"), .attempt = 2};
}

/* What is in the pipe, appended to buf. */
static size_t read_all(char *buf, size_t room)
{
    size_t n = 0;
    ssize_t r;
    while (n < room && (r = read(pipe_fds[0], buf + n, room - n)) > 0)
        n += (size_t)r;
    return n;
}

/* Every line is an object; returns their number. */
static unsigned check_lines(char *buf, size_t n)
{
    unsigned lines = 0;
    char *at = buf, *stop = buf + n;
    while (at < stop) {
        char *nl = memchr(at, '\n', (size_t)(stop - at));
        assert_non_null(nl);
        json_error_t why;
        json_t *o = json_loadb(at, (size_t)(nl - at), JSON_ALLOW_NUL, &why);
        if (o == NULL)
            fail_msg("%s: %.*s", why.text, (int)(nl - at), at);
        assert_true(json_is_object(o));
        json_decref(o);
        lines++;
        at = nl + 1;
    }
    return lines;
}

static void test_fields(void **state)
{
    (void)state;
    char buf[4096];
    begin();
    struct event v = plain();
    v.reply = span_str("250 \"quoted\" \\ back\tslash\r\n");
    events_put(events, (uint64_t)NOW_MS * 1000 + 42, &v);
    events_flush(events, true);
    size_t n = read_all(buf, sizeof buf);
    assert_int_equal(check_lines(buf, n), 1);
    json_t *o = json_loadb(buf, n, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "event")), "delivered");
    assert_string_equal(json_string_value(json_object_get(o, "rcpt")), "u@example.org");
    assert_int_equal(json_integer_value(json_object_get(o, "index")), 7);
    assert_int_equal(json_integer_value(json_object_get(o, "attempt")), 2);
    assert_string_equal(json_string_value(json_object_get(o, "reply")),
                        "250 \"quoted\" \\ back\tslash\r\n");
    assert_null(json_object_get(o, "sender"));
    assert_true(json_number_value(json_object_get(o, "t")) > NOW_MS);
    json_decref(o);
    end();
}

static void test_hostile_bytes(void **state)
{
    (void)state;
    static char buf[1 << 16];
    uint8_t bytes[300];
    struct rng dice;
    rng_seed(&dice, 5);
    begin();
    for (int i = 0; i < 2000; i++) {
        struct event v = plain();
        size_t n = (size_t)rng_below(&dice, sizeof bytes);
        for (size_t k = 0; k < n; k++)
            bytes[k] = (uint8_t)rng_below(&dice, rng_below(&dice, 2) == 0 ? 256 : 40);
        v.rcpt = span_of(bytes, n);
        v.reply = span_of(bytes + n / 2, n - n / 2);
        v.helo = span_of(bytes, n / 3);
        events_put(events, NOW_MS, &v);
        events_flush(events, true);
        assert_int_equal(check_lines(buf, read_all(buf, sizeof buf)), 1);
    }
    assert_int_equal(events_dropped(events), 0);
    end();
}

static void test_too_long(void **state)
{
    (void)state;
    static uint8_t bytes[20000];
    static char buf[1 << 16];
    memset(bytes, 1, sizeof bytes); /* six characters each */
    begin();
    struct event v = plain();
    events_put(events, NOW_MS, &v);
    v.reply = span_of(bytes, sizeof bytes);
    events_put(events, NOW_MS, &v);
    v.reply = span_str("");
    events_put(events, NOW_MS, &v);
    events_flush(events, true);
    assert_int_equal(check_lines(buf, read_all(buf, sizeof buf)), 2);
    assert_int_equal(events_dropped(events), 1);
    end();
}

/* A reader that stops: lines are kept up to a bound, then dropped whole and counted; none
   blocks. */
static void test_slow_reader(void **state)
{
    (void)state;
    static char buf[4 << 20];
    enum { LINES = 40000 };
    begin();
    struct event v = plain();
    for (int i = 0; i < LINES; i++) {
        events_put(events, NOW_MS, &v);
        if (i % 100 == 0)
            events_flush(events, true);
    }
    size_t n = 0;
    for (int i = 0; i < 200; i++) {
        n += read_all(buf + n, sizeof buf - n);
        events_flush(events, true);
    }
    n += read_all(buf + n, sizeof buf - n);
    unsigned lines = check_lines(buf, n);
    assert_true(events_dropped(events) > 0);
    assert_int_equal(lines + events_dropped(events), LINES);
    end();
}

static void limit_files_to(rlim_t bytes)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

/* A file system that fills up in the middle of a line: what comes later begins a line of its
   own. */
static void test_full_disk(void **state)
{
    (void)state;
    static char buf[1 << 20];
    int fd = memfd_create("events", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(events_create(&events, fd), 0);
    struct event v = plain();
    for (int i = 0; i < 100; i++)
        events_put(events, NOW_MS, &v);
    /* The limit of a file's size acts as a full disk does: a short write, then an error. */
    assert_int_equal(signal(SIGXFSZ, SIG_IGN) == SIG_ERR, 0);
    limit_files_to(5000);
    events_flush(events, true);
    events_flush(events, true);
    limit_files_to(1 << 20);
    for (int i = 0; i < 10; i++)
        events_put(events, NOW_MS, &v);
    events_flush(events, true);
    ssize_t n = pread(fd, buf, sizeof buf, 0);
    assert_true(n > 5000);
    unsigned whole = 0, torn = 0;
    for (char *at = buf, *nl; (nl = memchr(at, '\n', (size_t)(buf + n - at))) != NULL;
         at = nl + 1) {
        json_t *o = json_loadb(at, (size_t)(nl - at), 0, NULL);
        whole += o != NULL;
        torn += o == NULL;
        json_decref(o);
    }
    assert_true(torn <= 1);
    assert_int_equal(whole + events_dropped(events), 110);
    events_destroy(&events);
    close(fd);
}

static void test_no_log(void **state)
{
    (void)state;
    assert_int_equal(events_create(&events, -1), 0);
    struct event v = plain();
    events_put(events, NOW_MS, &v);
    events_flush(events, true);
    assert_int_equal(events_dropped(events), 0);
    events_destroy(&events);
    assert_null(events);
    events_destroy(&events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),     cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_too_long),   cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_full_disk),  cmocka_unit_test(test_no_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
