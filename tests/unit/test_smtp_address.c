/* smtp_address: paths, mailboxes, domains; good ones, bad ones and hostile ones. */
#include "base/net.h"
#include "base/rng.h"
#include "proto/limits.h"
#include "proto/smtp_address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum {
    NUL_OK = ADDRESS_ALLOW_NULL,
    BARE = ADDRESS_ALLOW_BARE_POSTMASTER,
    UTF8 = ADDRESS_ALLOW_UTF8,
    LOOSE = ADDRESS_ALLOW_NO_BRACKETS
};

static const struct {
    const char *in;
    unsigned flags;
    enum address_error error;
    const char *text, *local, *domain, *rest;
} rows[] = {
    {"<a@b.test>", 0, ADDRESS_OK, "a@b.test", "a", "b.test", ""},
    {"<a@b.test> SIZE=1", 0, ADDRESS_OK, "a@b.test", "a", "b.test", " SIZE=1"},
    {"<JoHn.D+x=y/z@X.test>", 0, ADDRESS_OK, "JoHn.D+x=y/z@X.test", "JoHn.D+x=y/z", "X.test", ""},
    {"<!#$%&'*+-/=?^_`{|}~@b>", 0, ADDRESS_OK, "!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b",
     ""},
    {"<\"a b\"@b.test>", 0, ADDRESS_OK, "\"a b\"@b.test", "\"a b\"", "b.test", ""},
    {"<\"a\\\"@>\\\\\"@b.test>", 0, ADDRESS_OK, "\"a\\\"@>\\\\\"@b.test", "\"a\\\"@>\\\\\"",
     "b.test", ""},
    {"<\"\"@b.test>", 0, ADDRESS_OK, "\"\"@b.test", "\"\"", "b.test", ""},
    {"<a@1.2-3.x9>", 0, ADDRESS_OK, "a@1.2-3.x9", "a", "1.2-3.x9", ""},
    {"<a@[192.0.2.1]>", 0, ADDRESS_OK, "a@[192.0.2.1]", "a", "[192.0.2.1]", ""},
    {"<a@[ipv6:2001:db8::1]>", 0, ADDRESS_OK, "a@[ipv6:2001:db8::1]", "a", "[ipv6:2001:db8::1]",
     ""},
    {"<>", NUL_OK, ADDRESS_OK, "", "", "", ""},
    {"<> X=1", NUL_OK, ADDRESS_OK, "", "", "", " X=1"},
    {"<>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<PostMaster>", BARE, ADDRESS_OK, "PostMaster", "PostMaster", "", ""},
    {"<postmaster>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<postmasters>", BARE, ADDRESS_SYNTAX, "", "", "", ""},
    {"<postmaster@>", BARE, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@a.test,@b.test:u@c.test>", 0, ADDRESS_OK, "u@c.test", "u", "c.test", ""},
    {"<@[192.0.2.9]:u@c.test>", 0, ADDRESS_OK, "u@c.test", "u", "c.test", ""},
    {"<@a.test:postmaster>", BARE, ADDRESS_OK, "postmaster", "postmaster", "", ""},
    {"<@a.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@a.test\"u\"@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@a.test:>", NUL_OK, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@a.test,b.test:u@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@:u@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@a.test,:u@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"a@b.test", LOOSE, ADDRESS_OK, "a@b.test", "a", "b.test", ""},
    {"a@b.test SIZE=1", LOOSE, ADDRESS_OK, "a@b.test", "a", "b.test", " SIZE=1"},
    {"a@b.test>", LOOSE, ADDRESS_OK, "a@b.test", "a", "b.test", ">"}, /* the caller refuses rest */
    {"<a@b.test", LOOSE, ADDRESS_SYNTAX, "", "", "", ""},
    {"", LOOSE | NUL_OK | BARE, ADDRESS_SYNTAX, "", "", "", ""},
    {"a@b.test", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a..b@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<.a@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a.@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b..c>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@.b>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b.>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@-b>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b->", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b-.c>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b_c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a b@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b c>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"< a@b.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b.test >", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<<a@b.test>>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@b@c.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@other.test@served.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a%other.test@served.test>", 0, ADDRESS_OK, "a%other.test@served.test", "a%other.test",
     "served.test", ""},
    {"<\"a@other.test\"@served.test>", 0, ADDRESS_OK, "\"a@other.test\"@served.test",
     "\"a@other.test\"", "served.test", ""},
    {"<\"a@b.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\"a\"b@b.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a\"b\"@b.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\"a\\", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\"a\n\"@b>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\"a\\\n\"@b>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a\x7f@b>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[192.0.2.256]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[2001:db8::1]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[IPv6:192.0.2.1]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[IPv6:]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[192.0.2.1>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[192.0.2.1].test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@[tag:x]>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    /* RFC 6531 */
    {"<\xce\xb4@\xcf\x80.test>", UTF8, ADDRESS_OK, "\xce\xb4@\xcf\x80.test", "\xce\xb4",
     "\xcf\x80.test", ""},
    {"<\xce\xb4@b.test>", 0, ADDRESS_NEEDS_UTF8, "\xce\xb4@b.test", "\xce\xb4", "b.test", ""},
    {"<a@\xcf\x80.test>", 0, ADDRESS_NEEDS_UTF8, "a@\xcf\x80.test", "a", "\xcf\x80.test", ""},
    {"<\"\xce\xb4 \"@b>", UTF8, ADDRESS_OK, "\"\xce\xb4 \"@b", "\"\xce\xb4 \"", "b", ""},
    {"<\"\\\xce\xb4\"@b>", UTF8, ADDRESS_OK, "\"\\\xce\xb4\"@b", "\"\\\xce\xb4\"", "b", ""},
    {"<\xce@b.test>", UTF8, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\xff@b.test>", 0, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\xc0\xaf@b.test>", UTF8, ADDRESS_SYNTAX, "", "", "", ""},
    {"<\xc2\x85@b.test>", UTF8, ADDRESS_SYNTAX, "", "", "", ""},
    {"<a@\xed\xa0\x80.test>", UTF8, ADDRESS_SYNTAX, "", "", "", ""},
};

static void paths(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct smtp_address a;
        struct span in = span_str(rows[i].in), rest;
        enum address_error error = smtp_path_parse(in, rows[i].flags, &a, &rest);
        if (error != rows[i].error)
            print_error("row %zu \"%s\": %d, want %d\n", i, rows[i].in, error, rows[i].error);
        assert_int_equal(error, rows[i].error);
        assert_true(span_eq(a.text, span_str(rows[i].text)));
        assert_true(span_eq(a.local, span_str(rows[i].local)));
        assert_true(span_eq(a.domain, span_str(rows[i].domain)));
        assert_int_equal(a.is_null, error == ADDRESS_OK && rows[i].text[0] == '\0');
        assert_int_equal(a.is_literal, rows[i].domain[0] == '[');
        if (error != ADDRESS_SYNTAX)
            assert_true(span_eq(rest, span_str(rows[i].rest)));
    }
}

/* "<" local "@" domain ">" of the given lengths, the domain in labels of at most `label`. */
static struct span build(char *room, size_t local, size_t domain, size_t label)
{
    size_t n = 0;
    room[n++] = '<';
    memset(room + n, 'l', local);
    n += local;
    room[n++] = '@';
    for (size_t i = 0; i < domain; i++)
        room[n++] = i % (label + 1) == label ? '.' : 'd';
    room[n++] = '>';
    return span_of(room, n);
}

static void lengths(void **unused)
{
    static const struct {
        size_t local, domain, label;
        enum address_error error;
    } sizes[] = {
        {64, 10, 63, ADDRESS_OK},        {65, 10, 63, ADDRESS_TOO_LONG},
        {1, 63, 63, ADDRESS_OK},         {1, 64, 64, ADDRESS_TOO_LONG},
        {64, 255, 60, ADDRESS_OK},       {64, 256, 60, ADDRESS_TOO_LONG},
        {1, 2000, 63, ADDRESS_TOO_LONG}, {2000, 1, 63, ADDRESS_TOO_LONG},
    };
    char room[4096];
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct smtp_address a;
        struct span rest;
        struct span in = build(room, sizes[i].local, sizes[i].domain, sizes[i].label);
        assert_int_equal(smtp_path_parse(in, 0, &a, &rest), sizes[i].error);
    }
}

static void names(void **unused)
{
    static const struct {
        const char *name;
        bool domain, utf8_domain, ehlo;
    } list[] = {
        {"a.test", true, true, true},
        {"localhost", true, true, true},
        {"1.2.3.4", true, true, true},
        {"[192.0.2.1]", true, true, true},
        {"[127.0.0.1]", true, true, true},
        {"[IPv6:::1]", true, true, true},
        {"my_host.local", false, false, true},
        {"_dmarc.a.test", false, false, true},
        {"\xcf\x80.test", false, true, false},
        {"", false, false, false},
        {".", false, false, false},
        {"a.test.", false, false, false},
        {"a..b", false, false, false},
        {"-a", false, false, false},
        {"a b", false, false, false},
        {" a", false, false, false},
        {"a)", false, false, false},
        {"[1.2.3]", false, false, false},
        {"[192.0.2.1", false, false, false},
        {"[192.0.2.1]x", false, false, false},
        {"a@b", false, false, false},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(list); i++) {
        struct span s = span_str(list[i].name);
        assert_int_equal(smtp_domain_ok(s, false), list[i].domain);
        assert_int_equal(smtp_domain_ok(s, true), list[i].utf8_domain);
        assert_int_equal(smtp_ehlo_name_ok(s), list[i].ehlo);
    }
    assert_false(smtp_domain_ok(span_of(NULL, 0), true));
    assert_false(smtp_ehlo_name_ok(span_of("a\0b", 3)));
}

/* Every good row with one byte changed, to every value: spans stay within, errors stay in range. */
static void one_byte_wrong(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        size_t n = strlen(rows[i].in);
        for (size_t at = 0; at < n; at++) {
            for (unsigned b = 0; b < 256; b++) {
                uint8_t in[64];
                struct smtp_address a;
                struct span rest;
                if (n > sizeof in)
                    continue;
                memcpy(in, rows[i].in, n);
                in[at] = (uint8_t)b;
                enum address_error e = smtp_path_parse(span_of(in, n), rows[i].flags, &a, &rest);
                assert_true((unsigned)e <= ADDRESS_NEEDS_UTF8);
                assert_ptr_equal(rest.p + rest.n, in + n);
                for (size_t k = 0; k < a.text.n; k++)
                    assert_true(a.text.p[k] >= 0x20 && a.text.p[k] != 0x7f);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(lengths),
        cmocka_unit_test(names),
        cmocka_unit_test(one_byte_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
