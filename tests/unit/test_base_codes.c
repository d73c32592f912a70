/* crc, id and rng. */
#include "base/crc.h"
#include "base/id.h"
#include "base/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* RFC 3720 B.4 */
static void crc_known(void **unused)
{
    uint8_t zeroes[32] = {0}, ones[32], up[32], down[32];
    (void)unused;
    memset(ones, 0xff, sizeof ones);
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    const struct {
        struct span s;
        uint32_t crc;
    } rows[] = {{span_of(zeroes, 32), 0x8a9136aa},
                {span_of(ones, 32), 0x62a8ab43},
                {span_of(up, 32), 0x46dd794e},
                {span_of(down, 32), 0x113fdb5c},
                {span_str("123456789"), 0xe3069283},
                {span_str(""), 0},
                {span_of(NULL, 0), 0}};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        assert_int_equal(crc32c(0, rows[i].s), rows[i].crc);
        assert_int_equal(crc32c_portable(0, rows[i].s), rows[i].crc);
    }
}

static uint32_t crc_bitwise(uint32_t crc, struct span s)
{
    crc = ~crc;
    for (size_t i = 0; i < s.n; i++) {
        crc ^= s.p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

/* Every length around the sizes of the three-way streams, at every alignment; and in pieces. */
static void crc_paths(void **unused)
{
    static uint8_t b[8192];
    struct rng r;
    (void)unused;
    rng_seed(&r, 1);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)rng_u64(&r);
    for (size_t n = 0; n < 1000; n++)
        assert_int_equal(crc32c(7, span_of(b + n % 8, n)), crc_bitwise(7, span_of(b + n % 8, n)));
    for (size_t n = 3000; n < 7000; n += 17) {
        struct span s = span_of(b + n % 8, n);
        uint32_t want = crc_bitwise(0, s);
        assert_int_equal(crc32c(0, s), want);
        assert_int_equal(crc32c_portable(0, s), want);
        size_t cut = rng_below(&r, n);
        uint32_t first = crc32c(0, span_of(s.p, cut));
        assert_int_equal(crc32c(first, span_skip(s, cut)), want);
    }
}

static void id_round_trip(void **unused)
{
    struct rng r;
    char text[ID_TEXT + 1], before[ID_TEXT + 1] = "";
    (void)unused;
    rng_seed(&r, 2);
    for (int i = 0; i < 10000; i++) {
        struct msg_id id = id_make((uint16_t)(1 + rng_below(&r, 65535)),
                                   rng_below(&r, UINT64_C(1) << 48), rng_u64(&r));
        struct msg_id back;
        id_format(id, text);
        assert_int_equal(strlen(text), ID_TEXT);
        assert_int_equal(id_parse(span_str(text), &back), 0);
        assert_true(id_eq(id, back));
        for (int k = 0; k < ID_TEXT; k++)
            text[k] = (char)(text[k] >= 'a' ? text[k] - 32 : text[k]);
        assert_int_equal(id_parse(span_str(text), &back), 0);
        assert_true(id_eq(id, back));
        uint8_t room[ID_BYTES];
        struct writer w = writer_of(room, sizeof room);
        put_id(&w, id);
        assert_false(w.bad);
        struct cursor c = cursor_of(span_of(room, w.n));
        assert_true(id_eq(cursor_id(&c), id));
        c = cursor_of(span_of(room, w.n - 1));
        assert_true(id_is_none(cursor_id(&c)));
        assert_true(c.bad);
    }
    for (uint64_t i = 1; i < 1000; i++) { /* text sorts as ids do */
        id_format(id_make((uint16_t)(1 + i / 100), i / 10, i), text);
        assert_true(strcmp(before, text) < 0);
        memcpy(before, text, sizeof before);
    }
}

static void id_bad_texts(void **unused)
{
    static const char *const bad[] = {
        "",
        "0000000000000000000000000",
        "000000000000000000000000000",
        "80000000000000000000000000", /* 2^128 */
        "0000000000000000000000000i",
        "0000000000000000000000000l",
        "0000000000000000000000000O",
        "0000000000000000000000000u",
        "0000000000000000000000000-",
        "000000000000 0000000000000",
        "0000000000000000000000000\xc3",
    };
    struct msg_id id = {1, 2};
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(id_parse(span_str(bad[i]), &id), -EINVAL);
    uint8_t nul[ID_TEXT];
    memset(nul, '0', sizeof nul);
    nul[25] = 0;
    assert_int_equal(id_parse(span_of(nul, sizeof nul), &id), -EINVAL);
    assert_int_equal(id.hi, 1);
    assert_int_equal(id_parse(span_str("7zzzzzzzzzzzzzzzzzzzzzzzzz"), &id), 0);
    assert_int_equal(id.lo, UINT64_MAX);
}

static void rng_numbers(void **unused)
{
    struct rng a, b;
    uint32_t count[10] = {0};
    (void)unused;
    rng_seed(&a, 5);
    rng_seed(&b, 5);
    for (int i = 0; i < 100; i++)
        assert_int_equal(rng_u64(&a), rng_u64(&b));
    rng_seed(&b, 6);
    assert_int_not_equal(rng_u64(&a), rng_u64(&b));
    for (int i = 0; i < 100000; i++)
        count[rng_below(&a, 10)]++;
    for (int i = 0; i < 10; i++)
        assert_in_range(count[i], 9500, 10500);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rng_below(&a, 1), 0);
        assert_true(rng_below(&a, UINT64_MAX) < UINT64_MAX);
    }
    assert_int_not_equal(rng_entropy(), rng_entropy());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known),     cmocka_unit_test(crc_paths),
        cmocka_unit_test(id_round_trip), cmocka_unit_test(id_bad_texts),
        cmocka_unit_test(rng_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
