/* span: comparisons, numbers, UTF-8, cursors and writers. */
#include "base/span.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void comparisons(void **unused)
{
    (void)unused;
    assert_true(span_eq(span_str(""), span_of(NULL, 0)));
    assert_true(span_eq(span_str("a"), span_str("a")));
    assert_false(span_eq(span_str("a"), span_str("A")));
    assert_true(span_ieq(span_str("MaIl"), span_str("mAiL")));
    assert_false(span_ieq(span_str("mail"), span_str("mai")));
    assert_false(span_ieq(span_str("@"), span_str("`"))); /* 0x40 and 0x60 are no letters */
    assert_false(span_ieq(span_str("["), span_str("{")));
    assert_false(span_ieq(span_str("\xc9"), span_str("\xe9")));
    assert_true(span_ihas_prefix(span_str("FROM:<>"), span_str("from:")));
    assert_false(span_ihas_prefix(span_str("FROM"), span_str("from:")));
    assert_true(span_ihas_prefix(span_of(NULL, 0), span_of(NULL, 0)));
    assert_int_equal(span_skip(span_of(NULL, 0), 0).n, 0);
    assert_true(span_eq(span_skip(span_str("abc"), 2), span_str("c")));
}

static void numbers(void **unused)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"007", 0, 7},
        {"9999999999999999999", 0, UINT64_C(9999999999999999999)},
        {"10000000000000000000", -ERANGE, 0},
        {"00000000000000000001", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1a", -EINVAL, 0},
        {"100000000000000000000000000x", -EINVAL, 0},
        {"/", -EINVAL, 0},
        {":", -EINVAL, 0},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t v = 42;
        assert_int_equal(span_to_u64(span_str(rows[i].text), &v), rows[i].rc);
        assert_int_equal(v, rows[i].rc == 0 ? rows[i].value : 42);
    }
}

static size_t encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* Every code point encodes to a valid sequence, unless it is a surrogate or beyond Unicode. */
static void utf8_all(void **unused)
{
    (void)unused;
    for (uint32_t c = 0; c < 0x120000; c++) {
        uint8_t out[4];
        size_t n = encode(c, out);
        bool valid = c < 0xd800 || (c > 0xdfff && c <= 0x10ffff);
        assert_int_equal(utf8_sequence(span_of(out, n)), valid ? n : 0);
        if (n > 1)
            assert_int_equal(utf8_sequence(span_of(out, n - 1)), 0);
    }
}

/* Overlong forms, and each byte of a sequence replaced by every other one. */
static void utf8_broken(void **unused)
{
    static const char *const bad[] = {"\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\x80",
                                      "\xbf",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xf0\x9f\x98("};
    (void)unused;
    assert_int_equal(utf8_sequence(span_of(NULL, 0)), 0);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(utf8_sequence(span_str(bad[i])), 0);
    for (unsigned at = 1; at < 4; at++) {
        for (unsigned b = 0; b < 256; b++) {
            uint8_t s[4] = {0xf1, 0x80, 0x80, 0x80};
            s[at] = (uint8_t)b;
            assert_int_equal(utf8_sequence(span_of(s, 4)), (b & 0xc0) == 0x80 ? 4 : 0);
        }
    }
}

static void round_trip(void **unused)
{
    uint8_t room[64];
    struct writer w = writer_of(room, sizeof room);
    (void)unused;
    put_u8(&w, 0xab);
    put_u16(&w, 0x1234);
    put_u32(&w, 0xdeadbeef);
    put_u64(&w, UINT64_C(0x0123456789abcdef));
    put_str8(&w, span_str("abc"));
    put_str16(&w, span_str(""));
    put_bytes(&w, span_str("z"));
    assert_false(w.bad);
    assert_int_equal(w.n, 1 + 2 + 4 + 8 + 4 + 2 + 1);
    assert_int_equal(room[1], 0x34); /* little-endian */
    struct cursor c = cursor_of(span_of(room, w.n));
    assert_int_equal(cursor_u8(&c), 0xab);
    assert_int_equal(cursor_u16(&c), 0x1234);
    assert_int_equal(cursor_u32(&c), 0xdeadbeef);
    assert_int_equal(cursor_u64(&c), UINT64_C(0x0123456789abcdef));
    assert_true(span_eq(cursor_str8(&c), span_str("abc")));
    assert_int_equal(cursor_str16(&c).n, 0);
    assert_true(span_eq(cursor_bytes(&c, 1), span_str("z")));
    assert_int_equal(cursor_left(&c), 0);
    assert_false(c.bad);
}

/* Cut anywhere, the reader turns bad and stays so; nothing is read behind the end. */
static void short_input(void **unused)
{
    const uint8_t whole[] = {1, 2, 3, 4, 5, 6, 7, 2, 'a', 'b', 1, 0, 'c'};
    (void)unused;
    for (size_t n = 0; n <= sizeof whole; n++) {
        struct cursor c = cursor_of(span_of(whole, n));
        cursor_u8(&c);
        cursor_u16(&c);
        cursor_u32(&c);
        cursor_str8(&c);
        struct span last = cursor_str16(&c);
        assert_int_equal(c.bad, n < sizeof whole);
        assert_int_equal(last.n, n == sizeof whole ? 1 : 0);
        assert_int_equal(cursor_u8(&c), 0);
        assert_true(c.bad);
    }
    struct cursor none = cursor_of(span_of(NULL, 0));
    assert_int_equal(cursor_bytes(&none, 0).n, 0);
    assert_false(none.bad);
    assert_int_equal(cursor_u64(&none), 0);
    assert_true(none.bad);
}

static void full_writer(void **unused)
{
    uint8_t room[8] = {0};
    static const uint8_t many[70000];
    (void)unused;
    for (size_t cap = 0; cap < sizeof room; cap++) {
        struct writer w = writer_of(room, cap);
        put_u64(&w, 1);
        assert_true(w.bad);
        assert_int_equal(w.n, 0);
        put_u8(&w, 1); /* would fit, but a writer that is bad stays so */
        assert_int_equal(w.n, 0);
    }
    struct writer w = writer_of(room, 4);
    put_str16(&w, span_str("abc"));
    assert_true(w.bad);
    assert_int_equal(w.n, 0); /* not the length alone */
    static uint8_t big[140000];
    w = writer_of(big, sizeof big);
    put_str8(&w, span_of(many, 255));
    put_str16(&w, span_of(many, 65535));
    assert_false(w.bad);
    put_str16(&w, span_of(many, 65536));
    assert_true(w.bad);
    w = writer_of(big, sizeof big);
    put_str8(&w, span_of(many, 256));
    assert_true(w.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons), cmocka_unit_test(numbers),    cmocka_unit_test(utf8_all),
        cmocka_unit_test(utf8_broken), cmocka_unit_test(round_trip), cmocka_unit_test(short_input),
        cmocka_unit_test(full_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
