/* placement: stickiness, balance, NICs, adopted shards, cores. */
#include "master/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 64 };

static struct placement_lane lane(const char *nic, int32_t shard)
{
    return (struct placement_lane){.nic = nic, .shard = shard, .counts = true};
}

static void count_loads(const struct placement_lane *lanes, size_t n, unsigned *loads)
{
    memset(loads, 0, LIMIT_WORKERS * sizeof *loads);
    for (size_t i = 0; i < n; i++) {
        assert_in_range(lanes[i].shard, 0, LIMIT_WORKERS - 1);
        loads[lanes[i].shard]++;
    }
}

static void test_spread_evenly(void **state)
{
    (void)state;
    for (uint32_t workers = 1; workers <= 16; workers++) {
        struct placement_lane lanes[LANES];
        unsigned loads[LIMIT_WORKERS];
        for (int i = 0; i < LANES; i++)
            lanes[i] = lane("", PLACEMENT_NO_SHARD);
        placement_assign(lanes, LANES, workers);
        count_loads(lanes, LANES, loads);
        for (uint32_t w = 0; w < workers; w++) {
            assert_true(loads[w] >= LANES / workers);
            assert_true(loads[w] <= LANES / workers + 1);
        }
        for (uint32_t w = workers; w < LIMIT_WORKERS; w++)
            assert_int_equal(loads[w], 0);
    }
}

/* Known lanes never move; new ones go where the fewest are. */
static void test_sticky(void **state)
{
    (void)state;
    struct placement_lane lanes[] = {lane("", 1),  lane("", 1),  lane("", 1), lane("", -1),
                                     lane("", -1), lane("", -1), lane("", -1)};
    placement_assign(lanes, 7, 2);
    static const int32_t want[] = {1, 1, 1, 0, 0, 0, 0};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(lanes[i].shard, want[i]);
    /* Once more with more workers: nothing moves. */
    placement_assign(lanes, 7, 8);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(lanes[i].shard, want[i]);
}

/* A retired lane keeps its shard, weighs nothing, and is never placed. */
static void test_retired(void **state)
{
    (void)state;
    struct placement_lane lanes[] = {lane("", 0), lane("", 0), lane("", -1)};
    lanes[0].counts = lanes[1].counts = false;
    placement_assign(lanes, 3, 2);
    assert_int_equal(lanes[0].shard, 0);
    assert_int_equal(lanes[2].shard, 0);
    assert_int_equal(placement_shard_count(lanes, 3, 1), 1);
}

static void test_shrink(void **state)
{
    (void)state;
    struct placement_lane lanes[] = {lane("", 0), lane("", 3), lane("", 5), lane("", -1)};
    assert_int_equal(placement_shard_count(lanes, 4, 2), 6);
    assert_int_equal(placement_shard_count(lanes, 4, 8), 8);
    /* Worker 1 holds shards 3 and 5 now: the new lane goes to worker 0. */
    placement_assign(lanes, 4, 2);
    assert_int_equal(lanes[1].shard, 3);
    assert_int_equal(lanes[3].shard, 0);
    bool held[6] = {false};
    for (uint32_t shard = 0; shard < 6; shard++) {
        assert_true(placement_worker_of(shard, 2) < 2);
        held[shard] = true;
    }
    for (uint32_t shard = 0; shard < 6; shard++)
        assert_true(held[shard]);
    assert_int_equal(placement_worker_of(1, 2), 1);
}

/* A lane with a NIC goes to a worker of that NIC, whatever the load elsewhere. */
static void test_nics(void **state)
{
    (void)state;
    struct placement_lane lanes[LANES];
    for (int i = 0; i < LANES; i++)
        lanes[i] = lane(i % 2 == 0 ? "eth0" : "eth1", PLACEMENT_NO_SHARD);
    placement_assign(lanes, LANES, 4);
    unsigned loads[LIMIT_WORKERS];
    count_loads(lanes, LANES, loads);
    for (int i = 0; i < LANES; i++)
        assert_int_equal(lanes[i].shard % 2, i % 2);
    for (int w = 0; w < 4; w++)
        assert_int_equal(loads[w], LANES / 4);
    assert_string_equal(placement_nic_of(lanes, LANES, 4, 0), "eth0");
    assert_string_equal(placement_nic_of(lanes, LANES, 4, 3), "eth1");
}

static void test_more_nics_than_workers(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    struct placement_lane lanes[5];
    for (int i = 0; i < 5; i++)
        lanes[i] = lane(names[i], PLACEMENT_NO_SHARD);
    placement_assign(lanes, 5, 2);
    for (int i = 0; i < 5; i++)
        assert_int_equal(lanes[i].shard, i % 2);
    assert_string_equal(placement_nic_of(lanes, 5, 2, 1), "b");
}

/* Lanes without a NIC fill up what those with one left empty. */
static void test_mixed(void **state)
{
    (void)state;
    struct placement_lane lanes[] = {lane("eth0", -1), lane("eth0", -1), lane("", -1), lane("", -1),
                                     lane("eth1", -1)};
    placement_assign(lanes, 5, 2);
    assert_int_equal(lanes[0].shard, 0);
    assert_int_equal(lanes[1].shard, 0);
    assert_int_equal(lanes[2].shard, 1);
    assert_int_equal(lanes[3].shard, 1);
    assert_int_equal(lanes[4].shard, 1);
    assert_string_equal(placement_nic_of(lanes + 2, 2, 2, 0), "");
}

static void test_cores(void **state)
{
    (void)state;
    static const struct placement_core cores[] = {{0, 0}, {2, 0}, {4, 1}, {6, 1}};
    static const int32_t any[] = {-1, -1, -1, -1, -1, -1};
    int32_t out[6];
    placement_cores(cores, 4, any, 6, out);
    static const int32_t in_turn[] = {0, 2, 4, 6, 0, 2};
    assert_memory_equal(out, in_turn, sizeof in_turn);
    /* Workers 1 and 2 sit on a NIC of node 1: the others keep out of their way. */
    static const int32_t wishes[] = {-1, 1, 1, -1};
    static const int32_t near[] = {0, 4, 6, 2};
    placement_cores(cores, 4, wishes, 4, out);
    assert_memory_equal(out, near, sizeof near);
    /* More wishes than cores of that node: any core is better than none. */
    static const int32_t greedy[] = {1, 1, 1, 1};
    placement_cores(cores, 4, greedy, 4, out);
    static const int32_t shared[] = {4, 6, 0, 2};
    assert_memory_equal(out, shared, sizeof shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread_evenly), cmocka_unit_test(test_sticky),
        cmocka_unit_test(test_retired),       cmocka_unit_test(test_shrink),
        cmocka_unit_test(test_nics),          cmocka_unit_test(test_more_nics_than_workers),
        cmocka_unit_test(test_mixed),         cmocka_unit_test(test_cores),
    };
    return cmocka_run_group_tests_name("placement", tests, NULL, NULL);
}
