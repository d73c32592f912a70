/* Frames between masters about moves: what is cut, foreign or too much is refused. */
#include "proto/move_frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct move_frame in, out;
static uint8_t bytes[LIMIT_LINK_PAYLOAD_BYTES];

static void fill(unsigned count)
{
    memset(&in, 0, sizeof in);
    in.item_count = count;
    for (unsigned i = 0; i < count; i++) {
        struct move_item *m = &in.items[i];
        m->kind = (enum move_kind)(MOVE_PREPARE + i % (MOVE_KIND_COUNT - 1));
        memset(m->lane.b, (int)i + 1, sizeof m->lane.b);
        m->move = UINT64_MAX - i;
        m->epoch = LIMIT_EPOCH - i;
        m->held = i % 2 == 1;
        m->slot = i % 3 == 0 ? MOVE_NO_SLOT : (int32_t)(i % LIMIT_WORKERS);
        snprintf(m->pool, sizeof m->pool, "abcdefghijklmnopqrstuvwxyz-01234");
        memset(m->why, 'w', sizeof m->why - 1);
        if (m->kind == MOVE_PREPARE) {
            m->driver = 2;
            m->layout = MOVE_LAYOUT;
            m->bytes = UINT64_MAX;
        }
    }
}

static void test_round_trip(void **state)
{
    size_t n;
    (void)state;
    fill(MOVE_ITEMS); /* the longest of all: fits, as the header says */
    assert_int_equal(move_encode(&in, bytes, sizeof bytes, &n), 0);
    assert_int_equal(move_decode(span_of(bytes, n), &out), 0);
    assert_int_equal(out.item_count, MOVE_ITEMS);
    for (unsigned i = 0; i < MOVE_ITEMS; i++)
        assert_memory_equal(&in.items[i], &out.items[i], sizeof in.items[i]);
    fill(0);
    in.news_move = 7;
    in.news_bytes = MOVE_NEWS_BYTES;
    memset(in.news, 'n', sizeof in.news);
    assert_int_equal(move_encode(&in, bytes, sizeof bytes, &n), 0);
    assert_int_equal(move_decode(span_of(bytes, n), &out), 0);
    assert_int_equal(out.news_move, 7);
    assert_int_equal(out.news_bytes, MOVE_NEWS_BYTES);
    assert_int_equal(move_encode(&in, bytes, 100, &n), -E2BIG);
}

/* Whatever is cut or changed is refused, or is a frame within all limits. */
static void test_hostile(void **state)
{
    size_t n;
    (void)state;
    fill(3);
    assert_int_equal(move_encode(&in, bytes, sizeof bytes, &n), 0);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        (void)(move_decode(span_of(copy, cut), &out) < 0);
        assert_true(out.item_count <= MOVE_ITEMS);
        free(copy);
    }
    for (size_t at = 0; at < n; at++) {
        uint8_t was = bytes[at];
        bytes[at] ^= 0x55;
        if (move_decode(span_of(bytes, n), &out) == 0) {
            for (unsigned i = 0; i < out.item_count; i++) {
                assert_true(out.items[i].kind >= MOVE_PREPARE);
                assert_true(out.items[i].kind < MOVE_KIND_COUNT);
                assert_true(out.items[i].move != 0);
                assert_true(out.items[i].slot < LIMIT_WORKERS);
            }
        }
        bytes[at] = was;
    }
    assert_int_equal(move_decode(span_of(bytes, 0), &out), -EBADMSG);
}

/* A kind that only newer releases know is left out, and the others are read. */
static void test_newer(void **state)
{
    size_t n;
    (void)state;
    fill(2);
    assert_int_equal(move_encode(&in, bytes, sizeof bytes, &n), 0);
    /* version 1, then the first item: tag, length (two bytes), tag of kind, kind */
    assert_int_equal(bytes[5], 0x08);
    assert_int_equal(bytes[6], MOVE_PREPARE);
    bytes[6] = 99;
    assert_int_equal(move_decode(span_of(bytes, n), &out), 0);
    assert_int_equal(out.item_count, 1);
    assert_int_equal(out.items[0].kind, MOVE_PREPARE_OK);
    bytes[1] = 0; /* no version */
    assert_int_equal(move_decode(span_of(bytes, n), &out), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
