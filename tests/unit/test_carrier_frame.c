/* carrier_frame, link_bulk: what goes round trips, what is out of range is refused. */
#include "proto/carrier_frame.h"
#include "proto/link_bulk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_head(void **state)
{
    (void)state;
    struct carrier_head in = {CARRIER_DATA, 63, LIMIT_CARRIER_PAYLOAD_BYTES, 0xfffefdfc, "b"}, out;
    uint8_t bytes[CARRIER_HEAD_BYTES];
    static const uint8_t layout[] = {1, 0, 0, 0, 63, 0, 0, 0, 0, 0, 10, 0, 0xfc, 0xfd, 0xfe, 0xff};
    carrier_head_write(bytes, &in);
    assert_memory_equal(bytes, layout, sizeof layout);
    assert_memory_equal(bytes + 16, "b\0", 2);
    assert_int_equal(carrier_head_read(bytes, &out), 0);
    assert_int_equal(out.op, CARRIER_DATA);
    assert_int_equal(out.slot, 63);
    assert_int_equal(out.bytes, LIMIT_CARRIER_PAYLOAD_BYTES);
    assert_int_equal(out.wave, 0xfffefdfc);
    assert_string_equal(out.node, "b");

    in = (struct carrier_head){CARRIER_UP, 0, 0, 1, "abcdefghijklmnopqrstuvwxyz-01234"};
    assert_int_equal(strlen(in.node), LIMIT_NAME_BYTES);
    carrier_head_write(bytes, &in);
    assert_int_equal(carrier_head_read(bytes, &out), 0);
    assert_string_equal(out.node, in.node);
}

static void test_head_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned at;
        uint8_t value;
    } cases[] = {
        {0, 0},    {0, CARRIER_OP_COUNT},
        {3, 1},             /* op */
        {0, 2},             /* UP with a payload */
        {4, 64},   {7, 1},  /* slot */
        {8, 0},    {11, 1}, /* bytes: none, too many */
        {16, 0},   {16, 'B'},
        {16, '-'}, /* the name */
        {47, 'x'}, /* something behind its end */
    };
    const struct carrier_head good = {CARRIER_DATA, 0, 1, 0, "b"};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct carrier_head out;
        uint8_t bytes[CARRIER_HEAD_BYTES];
        carrier_head_write(bytes, &good);
        assert_int_equal(carrier_head_read(bytes, &out), 0);
        bytes[cases[i].at] = cases[i].value;
        if (carrier_head_read(bytes, &out) != -EBADMSG)
            fail_msg("case %zu is taken", i);
    }
}

static uint8_t buffer[LINK_BULK_BYTES_MAX];

static void test_bulk(void **state)
{
    (void)state;
    static struct link_bulk in, out;
    struct span parts;
    in = (struct link_bulk){
        .wave = UINT32_MAX, .from_slot = 63, .to_slot = 62, .count = LINK_BULK_PARTS};
    size_t sum = 0;
    for (uint32_t i = 0; i < in.count; i++)
        sum += in.bytes[i] = 1 + i;
    size_t n = link_bulk_encode(&in, buffer);
    assert_true(n <= LINK_BULK_HEAD_BYTES);
    memset(buffer + n, 'x', sum);
    assert_int_equal(link_bulk_decode(span_of(buffer, n + sum), &out, &parts), 0);
    assert_memory_equal(&in, &out, sizeof in);
    assert_ptr_equal(parts.p, buffer + n);
    assert_int_equal(parts.n, sum);
    assert_int_equal(link_bulk_decode(span_of(buffer, n + sum - 1), &out, &parts), -EBADMSG);
    assert_int_equal(link_bulk_decode(span_of(buffer, n + sum + 1), &out, &parts), -EBADMSG);

    in = (struct link_bulk){.begin = 9};
    n = link_bulk_encode(&in, buffer);
    assert_int_equal(link_bulk_decode(span_of(buffer, n), &out, &parts), 0);
    assert_int_equal(out.begin, 9);
    assert_int_equal(out.count, 0);
    assert_int_equal(parts.n, 0);
}

static void test_bulk_refused(void **state)
{
    (void)state;
    static struct link_bulk out;
    static const struct {
        const char *bytes;
        size_t n;
        int result;
    } cases[] = {
        {"", 0, -EBADMSG},
        {"\x00", 1, -EBADMSG},
        {"\x00\x00", 2, 0}, /* says nothing: a newer release's */
        {"\x01\x00", 2, -EBADMSG},
        {"\x02\x00\x08\x07", 4, 0},
        {"\x02\x00\x08\x07x", 5, -EBADMSG},                      /* bytes of no part */
        {"\x05\x00\x10\x01\x2a\x01\x01x", 8, 0},                 /* a part of one byte, slots 0 */
        {"\x03\x00\x2a\x01\x01x", 6, -EBADMSG},                  /* of no wave */
        {"\x05\x00\x10\x01\x2a\x01\x00", 7, -EBADMSG},           /* of no bytes */
        {"\x07\x00\x10\x01\x18\x40\x2a\x01\x01x", 10, -EBADMSG}, /* slot 64 */
        {"\x07\x00\x10\x01\x20\x40\x2a\x01\x01x", 10, -EBADMSG},
        {"\x08\x00\x10\x01\x9a\x06\x00\x2a\x01\x01x", 11, 0}, /* an unknown field */
        {"\xff\xff\x10\x01", 4, -EBADMSG},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct span parts;
        int r = link_bulk_decode(span_of(cases[i].bytes, cases[i].n), &out, &parts);
        if (r != cases[i].result)
            fail_msg("case %zu: %d", i, r);
    }
}

/* More parts than a frame has, in a head that is not too long. */
static void test_bulk_parts(void **state)
{
    (void)state;
    static struct link_bulk out;
    struct span parts;
    enum { N = LINK_BULK_PARTS + 1 };
    struct writer w = writer_of(buffer, sizeof buffer);
    put_u16(&w, 2 + 3 + N);
    put_u8(&w, 0x10), put_u8(&w, 1);
    put_u8(&w, 0x2a), put_u8(&w, 0x80 | (N & 0x7f)), put_u8(&w, N >> 7);
    for (unsigned i = 0; i < N; i++)
        put_u8(&w, 1);
    memset(buffer + w.n, 'x', N);
    assert_int_equal(link_bulk_decode(span_of(buffer, w.n + N), &out, &parts), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),       cmocka_unit_test(test_head_refused),
        cmocka_unit_test(test_bulk),       cmocka_unit_test(test_bulk_refused),
        cmocka_unit_test(test_bulk_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
