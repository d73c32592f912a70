/* link_frame, node_uri: what goes round trips, what is malformed is refused, what is newer is
 * ignored. */
#include "proto/link_frame.h"
#include "proto/node_uri.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t buffer[LIMIT_LINK_FRAME_BYTES + 64];

static struct link_frame hello_frame(void)
{
    return (struct link_frame){.kind = LINK_HELLO,
                               .incarnation = UINT64_C(0x100000002),
                               .ack = 7,
                               .credit = 99,
                               .hello = {.node = "a",
                                         .cluster = "west-1",
                                         .version_min = 1,
                                         .version_max = 3,
                                         .stream = UINT64_MAX,
                                         .peer_stream = 5,
                                         .durable = 6,
                                         .channel = LINK_BULK}};
}

static void test_round_trip(void **state)
{
    (void)state;
    struct link_frame in = hello_frame(), out;
    size_t n;
    assert_int_equal(link_frame_encode(&in, buffer, sizeof buffer, &n), 0);
    assert_true(n <= link_frame_room(&in));
    assert_int_equal(link_frame_decode(span_of(buffer, n), &out), 0);
    assert_int_equal(out.kind, LINK_HELLO);
    assert_string_equal(out.hello.node, "a");
    assert_string_equal(out.hello.cluster, "west-1");
    assert_true(out.hello.stream == UINT64_MAX);
    assert_int_equal(out.hello.peer_stream, 5);
    assert_int_equal(out.hello.durable, 6);
    assert_int_equal(out.hello.channel, LINK_BULK);
    assert_int_equal(out.hello.version_max, 3);
    assert_int_equal(out.ack, 7);
    assert_int_equal(out.credit, 99);
    link_frame_free(&out);

    in = (struct link_frame){
        .kind = LINK_DATA, .incarnation = 1, .seq = 4, .payload = span_str("mail")};
    assert_int_equal(link_frame_encode(&in, buffer, sizeof buffer, &n), 0);
    assert_int_equal(link_frame_decode(span_of(buffer, n), &out), 0);
    assert_int_equal(out.kind, LINK_DATA);
    assert_int_equal(out.seq, 4);
    assert_true(span_eq(out.payload, span_str("mail")));
    link_frame_free(&out);
}

static void test_sizes(void **state)
{
    (void)state;
    uint8_t *big = calloc(1, LIMIT_LINK_FRAME_BYTES);
    struct link_frame f = {.kind = LINK_DATA, .incarnation = 1, .seq = 1};
    size_t n;
    f.payload = span_of(big, LIMIT_LINK_FRAME_BYTES);
    assert_int_equal(link_frame_encode(&f, buffer, sizeof buffer, &n), -E2BIG);
    f.payload.n -= 256;
    assert_int_equal(link_frame_encode(&f, buffer, sizeof buffer, &n), 0);
    assert_true(n <= link_frame_room(&f));
    assert_int_equal(link_frame_encode(&f, buffer, n - 1, &n), -E2BIG);
    free(big);
    struct link_frame out;
    assert_int_equal(link_frame_decode(span_of(buffer, sizeof buffer), &out), -EBADMSG);
    assert_int_equal(link_frame_decode(span_of(NULL, 0), &out), -EBADMSG);
}

/* Every cut of a good frame is refused or a frame that says less; no bit flip crashes. */
static void test_damage(void **state)
{
    (void)state;
    struct link_frame in = hello_frame(), out;
    size_t n;
    assert_int_equal(link_frame_encode(&in, buffer, sizeof buffer, &n), 0);
    for (size_t i = 0; i < n; i++) {
        if (link_frame_decode(span_of(buffer, i), &out) == 0) {
            assert_int_equal(out.kind, LINK_BEAT);
            link_frame_free(&out);
        }
    }
    for (size_t bit = 0; bit < n * 8; bit++) {
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (link_frame_decode(span_of(buffer, n), &out) == 0)
            link_frame_free(&out);
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static int decode_bytes(const char *bytes, size_t n)
{
    struct link_frame out;
    int r = link_frame_decode(span_of(bytes, n), &out);
    if (r == 0)
        link_frame_free(&out);
    return r == 0 ? (int)out.kind : r;
}

#define MAGIC "\x0dmLnk" /* field 1, fixed32 */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int result;
    } cases[] = {
        {MAGIC "\x10\x05", 7, LINK_BEAT},
        {"\x10\x05", 2, -EBADMSG},         /* no magic */
        {"\x0dmLnx\x10\x05", 7, -EBADMSG}, /* another */
        {MAGIC, 5, -EBADMSG},              /* no incarnation */
        {MAGIC "\x10\x05\x32\x05\x08\x01\x12\x01x", 14, LINK_DATA},
        {MAGIC "\x10\x05\x32\x05\x08\x00\x12\x01x", 14, -EBADMSG},         /* seq 0 */
        {MAGIC "\x10\x05\x32\x02\x08\x01", 11, -EBADMSG},                  /* no payload */
        {MAGIC "\x10\x05\x2a\x00", 9, -EBADMSG},                           /* an empty hello */
        {MAGIC "\x10\x05\x32\x05\x08\x01\x12\x01x\x2a\x00", 16, -EBADMSG}, /* both */
        /* A newer release: an unknown field within data, and an unknown kind of frame. */
        {MAGIC "\x10\x05\x32\x08\x08\x01\x12\x01x\x9a\x06\x00", 17, LINK_DATA},
        {MAGIC "\x10\x05\x9a\x06\x03xyz", 13, LINK_BEAT},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int r = decode_bytes(cases[i].bytes, cases[i].n);
        if (r != cases[i].result)
            fail_msg("case %zu: %d, not %d", i, r, cases[i].result);
    }
}

/* A frame whose greeting has one wrong value. */
static void test_hello_ranges(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct link_frame f = hello_frame(), out;
        size_t n;
        switch (i) {
        case 0:
            break;
        case 1:
            f.hello.node[0] = '\0';
            break;
        case 2:
            f.hello.node[0] = 'A';
            break;
        case 3:
            f.hello.cluster[0] = '-';
            break;
        case 4:
            f.hello.version_min = 4;
            break;
        case 5:
            f.hello.version_min = 0;
            break;
        case 6:
            f.hello.stream = 0;
            break;
        case 7:
            f.hello.peer_stream = 0;
            break; /* nothing known, and yet durable */
        }
        assert_int_equal(link_frame_encode(&f, buffer, sizeof buffer, &n), 0);
        int r = link_frame_decode(span_of(buffer, n), &out);
        assert_int_equal(r, i == 0 ? 0 : -EBADMSG);
        if (r == 0)
            link_frame_free(&out);
    }
}

/* A small frame cannot make us allocate much: unknown fields are counted in the budget too. */
static void test_budget(void **state)
{
    (void)state;
    size_t n = 0;
    memcpy(buffer, MAGIC "\x10\x05", 7);
    n = 7;
    while (n + 3 <= LIMIT_LINK_FRAME_BYTES) {
        memcpy(buffer + n, "\x9a\x06\x00", 3);
        n += 3;
    }
    struct link_frame out;
    assert_int_equal(link_frame_decode(span_of(buffer, n), &out), -EBADMSG);
}

static void test_uri(void **state)
{
    (void)state;
    char text[NODE_URI_BYTES];
    struct node_uri u;
    node_uri_format("west-1", "a", text);
    assert_string_equal(text, "mochila://west-1/node/a");
    assert_int_equal(node_uri_parse(span_str(text), &u), 0);
    assert_string_equal(u.cluster, "west-1");
    assert_string_equal(u.role, "node");
    assert_string_equal(u.name, "a");
    static const char *const bad[] = {"",
                                      "mochila://",
                                      "mochila://c",
                                      "mochila://c/node",
                                      "mochila://c/node/",
                                      "mochila://c/node/a/",
                                      "mochila://c/node/a/b",
                                      "mochila:///node/a",
                                      "mochila://C/node/a",
                                      "mochila://c//a",
                                      "mochila://c/node/-a",
                                      "mochila://c/node/a b",
                                      "http://c/node/a",
                                      "mochila://c/node/a%41",
                                      "mochila://c/seventeenletters1/a",
                                      "mochila://c/node/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(node_uri_parse(span_str(bad[i]), &u), -EINVAL);
    assert_int_equal(node_uri_parse(span_of("mochila://c/node/a\0b", 20), &u), -EINVAL);
    assert_int_equal(node_uri_parse(span_str("mochila://c/operator/a"), &u), 0);
    assert_string_equal(u.role, "operator");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_damage),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hello_ranges), cmocka_unit_test(test_budget),
        cmocka_unit_test(test_uri),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
