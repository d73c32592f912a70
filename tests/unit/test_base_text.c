/* text, log and net: what people and peers read. */
#include "base/log.h"
#include "base/net.h"
#include "base/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static void json(void **unused)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\""},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\""},
        {"\xff\xc3", "\"\\u00ff\\u00c3\""},
        {"\xc0\xaf", "\"\\u00c0\\u00af\""},
        {"\xed\xa0\x80", "\"\\u00ed\\u00a0\\u0080\""},
        {"\xc2\x9b", "\"\\u009b\""},
        {"\xc2\xa0", "\"\xc2\xa0\""},
        {"</script>", "\"</script>\""},
    };
    char room[128];
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct text t = text_of(room, sizeof room);
        text_json(&t, span_str(rows[i].in));
        assert_string_equal(room, rows[i].out);
        assert_false(t.cut);
    }
    struct text t = text_of(room, sizeof room);
    text_json(&t, span_of("a\0b", 3));
    assert_string_equal(room, "\"a\\u0000b\"");
}

/* In any room: no byte behind it is touched, the end is NUL, and no escape or sequence is halved.
 */
static void cutting(void **unused)
{
    static const char in[] = "a\x01\xe2\x82\xac\"z";
    char whole[64];
    (void)unused;
    struct text full = text_of(whole, sizeof whole);
    text_json(&full, span_str(in));
    for (size_t cap = 1; cap <= full.n; cap++) {
        char room[64];
        memset(room, '#', sizeof room);
        struct text t = text_of(room, cap);
        text_json(&t, span_str(in));
        assert_true(t.cut);
        assert_true(t.n < cap);
        /* "a \u0001 euro \" z" */
        static const size_t edges[] = {0, 1, 2, 8, 11, 13, 14};
        bool at_edge = false;
        for (size_t i = 0; i < ARRAY_COUNT(edges); i++)
            at_edge |= t.n == edges[i];
        assert_true(at_edge);
        assert_int_equal(room[t.n], 0);
        assert_int_equal(room[cap], '#');
        assert_memory_equal(room, whole, t.n);
        text_puts(&t, "more");
        text_fmt(&t, "%d", 7);
        assert_true(t.n < cap);
        assert_memory_equal(room, whole, t.n);
    }
    struct text none = text_of(NULL, 0);
    text_puts(&none, "x");
    text_fmt(&none, "%d", 1);
    text_json(&none, span_str("y"));
    assert_true(none.cut);
    assert_int_equal(none.n, 0);
}

static void putting(void **unused)
{
    char room[64];
    struct text t = text_of(room, sizeof room);
    (void)unused;
    text_put_u64(&t, 0);
    text_putc(&t, ' ');
    text_put_u64(&t, UINT64_MAX);
    text_fmt(&t, " %s-%03d", "x", 7);
    text_put(&t, span_of(NULL, 0));
    assert_string_equal(room, "0 18446744073709551615 x-007");
    assert_int_equal(t.n, strlen(room));
    t = text_of(room, 8);
    text_fmt(&t, "%s", "1234567");
    assert_false(t.cut);
    text_fmt(&t, "%s", "");
    assert_false(t.cut);
    text_fmt(&t, "%s", "8");
    assert_true(t.cut);
    assert_string_equal(room, "1234567");
    t = text_of(room, sizeof room);
    text_put_clean(&t, span_str("a\r\nb\x7f\xc3\xa9~ "));
    assert_string_equal(room, "a??b???~ ");
}

static size_t read_log(int fd, char *out, size_t cap)
{
    ssize_t n = read(fd, out, cap - 1);
    assert_true(n >= 0);
    out[n] = '\0';
    return (size_t)n;
}

static void log_lines(void **unused)
{
    int fds[2];
    char line[4096];
    static char huge[5000];
    (void)unused;
    assert_int_equal(pipe(fds), 0);
    log_open(fds[1], LOG_NOTE, "area");
    errno = 77;
    log_note("helo=%s n=%d", "evil\r\n2026-01-01T00:00:00.000Z error fake", 5);
    assert_int_equal(errno, 77);
    size_t n = read_log(fds[0], line, sizeof line);
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    assert_null(strchr(line, '\r'));
    assert_non_null(strstr(line, "Z note area["));
    assert_non_null(strstr(line, "] helo=evil??2026-01-01T00:00:00.000Z error fake n=5\n"));
    int year, month, day, hour, minute, second, millisecond, pid;
    assert_int_equal(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ note area[%d]", &year, &month, &day,
                            &hour, &minute, &second, &millisecond, &pid),
                     8);
    assert_int_equal(pid, getpid());
    log_dbg("not at this level");
    log_err("%s", "x");
    n = read_log(fds[0], line, sizeof line);
    assert_non_null(strstr(line, "Z error area["));
    memset(huge, 'h', sizeof huge - 1);
    log_warn("%s", huge);
    n = read_log(fds[0], line, sizeof line);
    assert_in_range(n, 1000, 2048);
    assert_int_equal(line[n - 1], '\n');
    log_open(STDERR_FILENO, LOG_NOTE, "test");
    close(fds[0]);
    close(fds[1]);
}

static void addresses(void **unused)
{
    static const struct {
        const char *in, *out; /* NULL: refused */
    } rows[] = {
        {"192.0.2.1", "192.0.2.1"},
        {"0.0.0.0", "0.0.0.0"},
        {"::1", "::1"},
        {"2001:DB8:0::1", "2001:db8::1"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"", NULL},
        {"192.0.2", NULL},
        {"192.0.2.256", NULL},
        {"192.0.2.01", NULL},
        {" 192.0.2.1", NULL},
        {"192.0.2.1 ", NULL},
        {"[::1]", NULL},
        {"fe80::1%eth0", NULL},
        {"1:2:3:4:5:6:7:8:9", NULL},
        {"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111", NULL},
        {"example.net", NULL},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct ip ip;
        char text[IP_TEXT];
        int rc = ip_parse(span_str(rows[i].in), &ip);
        assert_int_equal(rc, rows[i].out == NULL ? -EINVAL : 0);
        if (rc < 0)
            continue;
        ip_format(&ip, text);
        assert_string_equal(text, rows[i].out);
        struct sockaddr_storage ss;
        socklen_t n;
        struct ip back;
        uint16_t port;
        ip_to_sockaddr(&ip, 2525, &ss, &n);
        assert_int_equal(n,
                         ip_is_v4(&ip) ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        ip_from_sockaddr(&ss, &back, &port);
        assert_true(ip_eq(&ip, &back));
        assert_int_equal(port, 2525);
    }
    struct ip ip;
    assert_int_equal(ip_parse(span_of("192.0.2.1\0x", 11), &ip), -EINVAL);
}

static void networks(void **unused)
{
    static const struct {
        const char *net, *in, *out; /* NULL net text: refused */
    } rows[] = {
        {"10.0.0.0/8", "10.255.1.2", "11.0.0.0"},
        {"0.0.0.0/0", "203.0.113.9", "::1"},
        {"192.0.2.1", "192.0.2.1", "192.0.2.0"},
        {"192.0.2.128/25", "192.0.2.200", "192.0.2.127"},
        {"192.0.2.4/31", "192.0.2.5", "192.0.2.6"},
        {"::/0", "2001:db8::1", "192.0.2.1"},
        {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"},
        {"::1", "::1", "::2"},
        {"::ffff:0:0/96", "192.0.2.1", "::1"},
    };
    static const char *const bad[] = {"",           "/8",           "10.0.0.0/",    "10.0.0.0/33",
                                      "10.0.0.1/8", "10.0.0.0/-1",  "10.0.0.0/8 ",  "::/129",
                                      "::1/127",    "10.0.0.0/8/8", "10.0.0.0/0008"};
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct ip_net net;
        struct ip in, out;
        assert_int_equal(ip_net_parse(span_str(rows[i].net), &net), 0);
        assert_int_equal(ip_parse(span_str(rows[i].in), &in), 0);
        assert_int_equal(ip_parse(span_str(rows[i].out), &out), 0);
        assert_true(ip_in_net(&in, &net));
        assert_false(ip_in_net(&out, &net));
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct ip_net net;
        assert_int_equal(ip_net_parse(span_str(bad[i]), &net), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json),      cmocka_unit_test(cutting),   cmocka_unit_test(putting),
        cmocka_unit_test(log_lines), cmocka_unit_test(addresses), cmocka_unit_test(networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
