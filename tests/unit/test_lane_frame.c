/*
 * Frames between workers of two nodes: every kind comes back as it was sent, several of them share
 * a payload, and nothing malformed is taken.
 */
#include "proto/lane_frame.h"

#include "proto/spool_record.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t payload[LIMIT_CARRIER_PAYLOAD_BYTES];
static size_t payload_n;

static void append(const struct lane_frame *f)
{
    size_t n;
    assert_int_equal(
        lane_frame_head(f, payload + payload_n, sizeof payload - payload_n, &n), 0);
    payload_n += n;
    assert_true(payload_n + f->meta.n + f->rest.n <= sizeof payload);
    memcpy(payload + payload_n, f->meta.p, f->meta.n);
    memcpy(payload + payload_n + f->meta.n, f->rest.p, f->rest.n);
    payload_n += f->meta.n + f->rest.n;
}

static void assert_same(const struct lane_frame *a, const struct lane_frame *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(ip_eq(&a->lane, &b->lane));
    assert_int_equal(a->move, b->move);
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->last, b->last);
    assert_int_equal(a->again, b->again);
    assert_int_equal(a->hand, b->hand);
    assert_string_equal(a->node, b->node);
    assert_string_equal(a->why, b->why);
    assert_true(span_eq(a->meta, b->meta));
    assert_true(span_eq(a->rest, b->rest));
    assert_int_equal(a->item_count, b->item_count);
    for (uint32_t i = 0; i < a->item_count; i++) {
        assert_true(id_eq(a->items[i].id, b->items[i].id));
        assert_int_equal(a->items[i].digest, b->items[i].digest);
        assert_int_equal(a->items[i].index, b->items[i].index);
        assert_string_equal(a->items[i].origin, b->items[i].origin);
    }
}

static struct lane_frame make(enum lane_frame_kind kind, const struct lane_item *items,
                              uint32_t count)
{
    struct lane_frame f = {.kind = kind,
                           .move = 1ull << 40 | kind,
                           .position = 7 + kind,
                           .epoch = 3,
                           .type = RECORD_DEFER,
                           .last = kind % 2,
                           .again = kind % 3 == 0,
                           .hand = kind % 5 == 0,
                           .items = items,
                           .item_count = count};
    assert_int_equal(ip_parse(span_str("192.0.2.7"), &f.lane), 0);
    snprintf(f.node, sizeof f.node, "node-%d", kind);
    snprintf(f.why, sizeof f.why, "because of %d", kind);
    f.meta = span_str("meta of it");
    f.rest = span_str(kind % 2 ? "rest of it\r\n" : "");
    return f;
}

static void test_every_kind(void **state)
{
    (void)state;
    static struct lane_item items[LANE_FRAME_ITEMS];
    for (uint32_t i = 0; i < LANE_FRAME_ITEMS; i++) {
        items[i] = (struct lane_item){{1, i + 1}, 0x9e3779b97f4a7c15ull * i, (uint16_t)(i * 7), ""};
        if (i % 3 == 0)
            snprintf(items[i].origin, sizeof items[i].origin, "n%u", i);
    }
    payload_n = 0;
    struct lane_frame sent[LANE_FRAME_KIND_COUNT], got;
    for (int k = 1; k < LANE_FRAME_KIND_COUNT; k++) {
        uint32_t count = k == LANE_FRAME_END ? (uint32_t)LANE_FRAME_ITEMS : (uint32_t)k % 4;
        sent[k] = make((enum lane_frame_kind)k, items, count);
        append(&sent[k]);
    }
    struct span left = span_of(payload, payload_n);
    for (int k = 1; k < LANE_FRAME_KIND_COUNT; k++) {
        assert_int_equal(lane_frame_next(&left, &got), 1);
        assert_same(&sent[k], &got);
        lane_frame_free(&got);
    }
    assert_int_equal(lane_frame_next(&left, &got), 0);
}

/* A head of LANE_FRAME_HEAD_BYTES holds whatever a frame without items can say. */
static void test_a_head_fits(void **state)
{
    (void)state;
    struct lane_frame f = {.kind = LANE_FRAME_NOT_OWNER, .move = UINT64_MAX, .position = UINT64_MAX,
                           .epoch = UINT32_MAX, .type = RECORD_INDEX, .last = true, .again = true,
                           .hand = true};
    memset(f.node, 'n', sizeof f.node - 1);
    memset(f.why, 'w', sizeof f.why - 1);
    f.meta = span_of(payload, LIMIT_RECORD_BYTES);
    uint8_t head[LANE_FRAME_HEAD_BYTES];
    size_t n;
    assert_int_equal(lane_frame_head(&f, head, sizeof head, &n), 0);
    f.rest = span_of(payload, LIMIT_CARRIER_PAYLOAD_BYTES);
    assert_int_equal(lane_frame_head(&f, head, sizeof head, &n), -E2BIG);
    f.rest.n = 0;
    assert_int_equal(lane_frame_head(&f, head, 20, &n), -E2BIG);
}

static void test_malformed(void **state)
{
    (void)state;
    const struct lane_item item = {{1, 2}, 3, 4, "a"};
    struct lane_frame f = make(LANE_FRAME_ENQ, &item, 1), got;
    payload_n = 0;
    append(&f);
    /* cut anywhere: it says so or waits for nothing */
    for (size_t n = 1; n < payload_n; n++) {
        struct span cut = span_of(payload, n);
        assert_int_equal(lane_frame_next(&cut, &got), -EBADMSG);
    }
    struct span s = span_of(payload, payload_n);
    payload[4]++; /* the head reaches into the meta */
    assert_int_equal(lane_frame_next(&s, &got), -EBADMSG);
    payload[4]--;
    payload[9] = 0; /* behind the tag of the first field */
    assert_int_equal(lane_frame_next(&s, &got), -EBADMSG);
    payload[9] = LANE_FRAME_ENQ;
    assert_int_equal(lane_frame_next(&s, &got), 1);
    lane_frame_free(&got);
}

/* Kinds of a newer release are passed over, and what follows them is read. */
static void test_newer(void **state)
{
    (void)state;
    const struct lane_item item = {{1, 2}, 3, 4, "a"};
    struct lane_frame f = make(LANE_FRAME_ENQ, &item, 1), got;
    payload_n = 0;
    append(&f);
    size_t first = payload_n;
    append(&f);
    payload[9] = LANE_FRAME_KIND_COUNT;
    struct span s = span_of(payload, payload_n);
    assert_int_equal(lane_frame_next(&s, &got), 1);
    assert_same(&f, &got);
    lane_frame_free(&got);
    assert_int_equal(s.n, 0);
    s = span_of(payload, first);
    assert_int_equal(lane_frame_next(&s, &got), 0);
}

/* What would break a rule of ours further in. */
static void test_hostile(void **state)
{
    (void)state;
    const struct lane_item none = {{0, 0}, 0, 0, "a"}, some = {{0, 1}, 0, 0, "a"};
    struct lane_frame f = make(LANE_FRAME_END, &none, 1), got;
    for (int i = 0; i < 3; i++) {
        struct span s;
        payload_n = 0;
        f.items = i == 0 ? &none : &some;
        f.epoch = i == 1 ? LIMIT_EPOCH + 1u : 3;
        append(&f);
        s = span_of(payload, payload_n);
        assert_int_equal(lane_frame_next(&s, &got), i == 2 ? 1 : -EBADMSG);
        lane_frame_free(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_a_head_fits),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_newer),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
