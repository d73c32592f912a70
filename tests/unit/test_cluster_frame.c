/* cluster_frame: every kind there and back, and what no node may say. */
#include "proto/cluster_frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint8_t bytes[LIMIT_LINK_PAYLOAD_BYTES], scratch[LIMIT_LINK_PAYLOAD_BYTES];
static struct cluster_lane lanes[CLUSTER_LANES_PER_FRAME], got[CLUSTER_LANES_PER_FRAME];
static struct cluster_frame out;

static int pass(const struct cluster_frame *f)
{
    size_t n;
    int rc = cluster_encode(f, bytes, sizeof bytes, &n);
    return rc < 0 ? rc : cluster_decode(span_of(bytes, n), got, scratch, &out);
}

static struct cluster_frame a_status(uint32_t lane_count)
{
    struct cluster_frame f = {.kind = CLUSTER_STATUS,
                              .lanes = lanes,
                              .status = {.node_id = 65535,
                                         .layout = 3,
                                         .workers = LIMIT_WORKERS,
                                         .driver = NETD_L2,
                                         .boot = UINT64_MAX,
                                         .queued = 7,
                                         .disk_free = 1,
                                         .delivered_milli = 2500,
                                         .uptime_s = 9,
                                         .version = "0.1.0",
                                         .health = "running",
                                         .first = true,
                                         .lane_count = lane_count}};
    for (uint32_t i = 0; i < lane_count; i++) {
        lanes[i] = (struct cluster_lane){.epoch = LIMIT_EPOCH,
                                         .slot = i % 2 == 0 ? LIMIT_WORKERS - 1 : CONTROL_NO_SLOT,
                                         .role = (enum lane_role)(1 + i % 4),
                                         .run = i % 3 == 0,
                                         .queued = UINT64_MAX,
                                         .move = i % 2 == 0 ? UINT64_MAX : 0};
        memset(lanes[i].address.b, (int)i, sizeof lanes[i].address.b);
        memset(lanes[i].pool, 'p', LIMIT_NAME_BYTES);
        memset(lanes[i].owner, 'o', LIMIT_NAME_BYTES);
    }
    return f;
}

static void test_status(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, CLUSTER_LANES_PER_FRAME};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        struct cluster_frame f = a_status(counts[i]);
        assert_int_equal(pass(&f), 0);
        assert_int_equal(out.kind, CLUSTER_STATUS);
        assert_int_equal(out.status.lane_count, counts[i]);
        assert_int_equal(out.status.node_id, 65535);
        assert_int_equal(out.status.driver, NETD_L2);
        assert_int_equal(out.status.delivered_milli, 2500);
        assert_true(out.status.boot == UINT64_MAX);
        assert_true(out.status.first);
        assert_false(out.status.last);
        assert_string_equal(out.status.version, "0.1.0");
        assert_string_equal(out.status.health, "running");
        for (uint32_t k = 0; k < counts[i]; k++) {
            assert_memory_equal(&got[k].address, &lanes[k].address, sizeof got[k].address);
            assert_string_equal(got[k].owner, lanes[k].owner);
            assert_string_equal(got[k].pool, lanes[k].pool);
            assert_int_equal(got[k].slot, lanes[k].slot);
            assert_int_equal(got[k].role, lanes[k].role);
            assert_int_equal(got[k].run, lanes[k].run);
            assert_true(got[k].queued == lanes[k].queued && got[k].move == lanes[k].move);
        }
    }
}

static void test_others(void **state)
{
    (void)state;
    struct cluster_frame f = {.kind = CLUSTER_MOVE, .move = span_str("opaque")};
    assert_int_equal(pass(&f), 0);
    assert_int_equal(out.kind, CLUSTER_MOVE);
    assert_true(span_eq(out.move, span_str("opaque")));
    f = (struct cluster_frame){.kind = CLUSTER_QUERY, .query = {.id = 9, .arg_count = 2}};
    strcpy(f.query.verb, "ledger");
    f.query.args[0] = span_str("a=1");
    f.query.args[1] = span_str("bc=");
    assert_int_equal(pass(&f), 0);
    assert_int_equal(out.query.id, 9);
    assert_string_equal(out.query.verb, "ledger");
    assert_int_equal(out.query.arg_count, 2);
    assert_true(span_eq(out.query.args[0], span_str("a=1")));
    assert_true(span_eq(out.query.args[1], span_str("bc=")));
    f = (struct cluster_frame){
        .kind = CLUSTER_ANSWER,
        .answer = {.id = 9, .status = 206, .last = true, .body = span_str("{}")}};
    assert_int_equal(pass(&f), 0);
    assert_int_equal(out.answer.status, 206);
    assert_true(out.answer.last);
    assert_true(span_eq(out.answer.body, span_str("{}")));
}

static void test_refused(void **state)
{
    (void)state;
    struct cluster_frame good = a_status(1), f;
    f = good, f.status.node_id = 0;
    assert_int_equal(pass(&f), -EBADMSG);
    f = good, f.status.node_id = 65536;
    assert_int_equal(pass(&f), -EBADMSG);
    f = good, f.status.workers = 0;
    assert_int_equal(pass(&f), -EBADMSG);
    f = good, f.status.workers = LIMIT_WORKERS + 1;
    assert_int_equal(pass(&f), -EBADMSG);
    f = good, strcpy(f.status.health, "a\nb");
    assert_int_equal(pass(&f), -EBADMSG);
    lanes[0].epoch = 0;
    assert_int_equal(pass(&good), -EBADMSG);
    lanes[0].epoch = LIMIT_EPOCH + 1;
    assert_int_equal(pass(&good), -EBADMSG);
    lanes[0].epoch = 1, lanes[0].role = LANE_ROLE_COUNT;
    assert_int_equal(pass(&good), -EBADMSG);
    lanes[0].role = LANE_OWNER, lanes[0].slot = LIMIT_WORKERS;
    assert_int_equal(pass(&good), -EBADMSG);
    lanes[0].slot = 0, lanes[0].owner[0] = '\0';
    assert_int_equal(pass(&good), -EBADMSG);
    strcpy(lanes[0].owner, "b");
    assert_int_equal(pass(&good), 0);

    f = (struct cluster_frame){.kind = CLUSTER_QUERY, .query = {.id = 1, .arg_count = 1}};
    strcpy(f.query.verb, "v");
    f.query.args[0] = span_str("no sign of equality");
    assert_int_equal(pass(&f), -EBADMSG);
    f.query.args[0] = span_of("a=\0b", 4);
    assert_int_equal(pass(&f), -EBADMSG);
    f.query.args[0] = span_str("a=b");
    assert_int_equal(pass(&f), 0);
    f.query.id = 0;
    assert_int_equal(pass(&f), -EBADMSG);
    f = (struct cluster_frame){.kind = CLUSTER_ANSWER, .answer = {.id = 1, .status = 600}};
    assert_int_equal(pass(&f), -EBADMSG);
}

/* Of a newer release: nothing that we know is in it. */
static void test_unknown(void **state)
{
    (void)state;
    static const uint8_t newer[] = {0x82, 0x01, 0x00}; /* field 16, empty */
    assert_int_equal(cluster_decode(span_of(newer, sizeof newer), got, scratch, &out), -ENOTSUP);
    static const uint8_t garbage[] = {0x0a, 0xff, 0xff};
    assert_int_equal(cluster_decode(span_of(garbage, sizeof garbage), got, scratch, &out),
                     -EBADMSG);
    assert_int_equal(cluster_decode(span_of(NULL, 0), got, scratch, &out), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests_name("cluster_frame", tests, NULL, NULL);
}
