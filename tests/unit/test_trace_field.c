/* trace_field: the Received field, with honest and with hostile facts. */
#include "base/rng.h"
#include "proto/limits.h"
#include "proto/trace_field.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct trace_facts good(void)
{
    struct trace_facts f = {
        .helo = span_str("mail.sender.test"),
        .rdns = span_str("mail.sender.test"),
        .by = span_str("mx1.ours.test"),
        .with = "ESMTPS",
        .id = id_make(1, 2, 3),
        .only_rcpt = span_str("user@served.test"),
        .time_unix_s = 1795280184,
    };
    assert_int_equal(ip_parse(span_str("192.0.2.10"), &f.client), 0);
    return f;
}

static const char *put(const struct trace_facts *f)
{
    static char room[LIMIT_TRACE_BYTES + 1];
    struct text t = text_of(room, sizeof room);
    trace_field_put(&t, f);
    assert_false(t.cut);
    return room;
}

/* One field: CRLF only at the end or before a tab, no other control byte, lines within bounds. */
static void check_shape(const char *field, size_t line_max)
{
    size_t n = strlen(field), line = 0;
    assert_memory_equal(field, "Received: ", 10);
    assert_true(n <= LIMIT_TRACE_BYTES);
    assert_string_equal(field + n - 2, "\r\n");
    for (size_t i = 0; i < n; i++) {
        if (field[i] == '\r') {
            assert_int_equal(field[i + 1], '\n');
            assert_true(i + 2 == n || field[i + 2] == '\t');
            assert_in_range(line, 1, line_max);
            line = 0;
            i += 2;
            continue;
        }
        assert_true((uint8_t)field[i] >= 0x20 && field[i] != 0x7f);
        line++;
    }
}

static void fields(void **unused)
{
    struct trace_facts f = good();
    (void)unused;
    assert_string_equal(put(&f),
                        "Received: from mail.sender.test (mail.sender.test [192.0.2.10])\r\n"
                        "\tby mx1.ours.test with ESMTPS id 00040000000010000000000003\r\n"
                        "\tfor <user@served.test>; Sat, 21 Nov 2026 16:56:24 +0000\r\n");
    f.only_rcpt = span_of(NULL, 0);
    f.rdns = span_of(NULL, 0);
    assert_int_equal(ip_parse(span_str("2001:db8::1"), &f.client), 0);
    assert_string_equal(put(&f), "Received: from mail.sender.test ([IPv6:2001:db8::1])\r\n"
                                 "\tby mx1.ours.test with ESMTPS id 00040000000010000000000003;\r\n"
                                 "\tSat, 21 Nov 2026 16:56:24 +0000\r\n");
    f.helo = span_of(NULL, 0);
    assert_non_null(strstr(put(&f), "from unknown ([IPv6:2001:db8::1])"));
    f.helo = span_str("[192.0.2.10]");
    assert_non_null(strstr(put(&f), "from [192.0.2.10] ("));
}

static void hostile(void **unused)
{
    static const char *const helos[] = {"a) by evil.test (b",
                                        "a\r\nX-Evil: 1",
                                        "a\nb",
                                        "\xff\xfe",
                                        "a;b",
                                        "<a>",
                                        "(",
                                        "\\",
                                        "\"",
                                        "a b c",
                                        "\x1b[2J"};
    static const char *const rcpts[] = {"a@b\r\nX-Evil: 1", "a@b>; evil", "a b@c",  "", "<a@b>",
                                        "\xce\xb4@b.test",  "@",          "a@b (c)"};
    struct trace_facts f = good();
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(helos); i++) {
        f = good();
        f.helo = f.rdns = span_str(helos[i]);
        const char *field = put(&f);
        check_shape(field, 78);
        assert_null(strpbrk(field + 15, "\"\\"));
        const char *open = strchr(field, '(');
        assert_null(strchr(open + 1, '('));
        assert_non_null(strstr(field, "[192.0.2.10])\r\n\tby mx1"));
    }
    for (size_t i = 0; i < ARRAY_COUNT(rcpts); i++) {
        f = good();
        f.only_rcpt = span_str(rcpts[i]);
        check_shape(put(&f), 78);
        assert_null(strstr(put(&f), " for "));
        assert_null(strstr(put(&f), "\tfor "));
    }
    f = good();
    f.only_rcpt = span_str("\xce\xb4@b.test");
    f.with = "UTF8SMTPS";
    assert_non_null(strstr(put(&f), "for <\xce\xb4@b.test>;"));
    f.only_rcpt = span_str("Postmaster");
    assert_non_null(strstr(put(&f), "for <Postmaster>;"));
}

static void longest(void **unused)
{
    static char name[4000], rcpt[LIMIT_ADDRESS_BYTES + 1];
    struct trace_facts f = good();
    (void)unused;
    memset(name, 'n', sizeof name);
    memset(rcpt, 'r', 64);
    rcpt[64] = '@';
    for (size_t i = 65; i < LIMIT_ADDRESS_BYTES; i++)
        rcpt[i] = (i - 65) % 61 == 60 ? '.' : 'd';
    assert_int_equal(ip_parse(span_str("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), &f.client), 0);
    f.helo = f.rdns = f.by = span_of(name, sizeof name);
    f.only_rcpt = span_of(rcpt, LIMIT_ADDRESS_BYTES);
    f.with = "UTF8SMTPSA";
    f.time_unix_s = UINT64_MAX;
    const char *field = put(&f);
    check_shape(field, 998);
    assert_non_null(strstr(field, "for <rrr"));
    assert_in_range(strlen(field), 1200, LIMIT_TRACE_BYTES);
}

static void random_facts(void **unused)
{
    struct rng r;
    uint8_t a[40], b[40], c[40];
    (void)unused;
    rng_seed(&r, 11);
    for (int round = 0; round < 20000; round++) {
        struct trace_facts f = good();
        for (size_t i = 0; i < sizeof a; i++) {
            a[i] = (uint8_t)rng_u64(&r);
            b[i] = (uint8_t)rng_u64(&r);
            c[i] = (uint8_t)("a@b.\r\n <>;\"\\"[rng_below(&r, 12)]);
        }
        f.helo = span_of(a, rng_below(&r, sizeof a));
        f.rdns = span_of(b, rng_below(&r, sizeof b));
        f.only_rcpt = span_of(c, rng_below(&r, sizeof c));
        check_shape(put(&f), 78);
    }
}

static void with_words(void **unused)
{
    (void)unused;
    assert_string_equal(trace_with(false, false, false, false), "SMTP");
    assert_string_equal(trace_with(true, false, false, false), "ESMTP");
    assert_string_equal(trace_with(true, true, false, false), "ESMTPS");
    assert_string_equal(trace_with(true, false, true, false), "ESMTPA");
    assert_string_equal(trace_with(true, true, true, false), "ESMTPSA");
    assert_string_equal(trace_with(true, false, false, true), "UTF8SMTP");
    assert_string_equal(trace_with(true, true, false, true), "UTF8SMTPS");
    assert_string_equal(trace_with(true, false, true, true), "UTF8SMTPA");
    assert_string_equal(trace_with(true, true, true, true), "UTF8SMTPSA");
}

static void dates(void **unused)
{
    static const struct {
        uint64_t unix_s;
        const char *text;
    } rows[] = {
        {0, "Thu, 1 Jan 1970 00:00:00 +0000"},
        {951782400, "Tue, 29 Feb 2000 00:00:00 +0000"},
        {1795280184, "Sat, 21 Nov 2026 16:56:24 +0000"},
        {4102444799, "Thu, 31 Dec 2099 23:59:59 +0000"},
        {UINT64_C(253402300799), "Fri, 31 Dec 9999 23:59:59 +0000"},
        {UINT64_MAX, "Fri, 31 Dec 9999 23:59:59 +0000"},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char room[64];
        struct text t = text_of(room, sizeof room);
        date_put(&t, rows[i].unix_s);
        assert_string_equal(room, rows[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),       cmocka_unit_test(hostile),    cmocka_unit_test(longest),
        cmocka_unit_test(random_facts), cmocka_unit_test(with_words), cmocka_unit_test(dates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
