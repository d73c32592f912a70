/* lane_table: state.db in memory; a change is durable, whole, and of whom it was expected. */
#include "master/cluster.h"
#include "master/lane_table.h"
#include "master/master.h"
#include "master/netd_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64], path[128];
static struct config config;
static struct source source = {.config = &config, .fd = -1};
static struct generation generation = {.source = &source};
static struct master master;

static void open_master(void)
{
    memset(&master, 0, sizeof master);
    master.current = &generation;
    master.workers = 2;
    assert_int_equal(state_open(path, &master.state), 0);
    assert_int_equal(lane_table_load(&master), 0);
}

static void close_master(void)
{
    lane_table_fini(&master.lanes);
    state_close(&master.state);
}

static struct state_lane a_lane(const char *address, const char *owner, enum lane_role role)
{
    struct state_lane l = {.epoch = 3, .role = role};
    assert_int_equal(ip_parse(span_str(address), &l.address), 0);
    strcpy(l.pool, "p");
    strcpy(l.owner, owner);
    return l;
}

/* Lanes 1 and 2 are ours, 3 is b's. */
static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/mochila-lanes-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/state.db", directory);
    strcpy(config.node, "a");
    config.cluster.driver = CLUSTER_DRIVER_NONE;
    struct state *s;
    assert_int_equal(state_open(path, &s), 0);
    struct state_lane lanes[] = {a_lane("192.0.2.1", "a", LANE_OWNER),
                                 a_lane("192.0.2.2", "a", LANE_OWNER),
                                 a_lane("192.0.2.3", "b", LANE_AWAY)};
    assert_int_equal(state_lanes_save(s, lanes, ARRAY_COUNT(lanes)), 0);
    state_close(&s);
    open_master();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const ends[] = {"", "-wal", "-shm"};
    close_master();
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        char name[160];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    return rmdir(directory);
}

static void change(uint32_t number, struct lane_change *c, const char *owner, enum lane_role role)
{
    lane_change_of(lane_by_number(&master, number), c);
    strcpy(c->owner, owner);
    c->epoch = c->epoch_before + 1;
    c->role = role;
}

static void test_load(void **state)
{
    (void)state;
    struct ip address;
    assert_int_equal(master.lanes.count, 3);
    assert_int_equal(ip_parse(span_str("192.0.2.2"), &address), 0);
    const struct lane_record *r = lane_by_address(&master, &address);
    assert_ptr_equal(r, lane_by_number(&master, 2));
    assert_true(lane_is_ours(r) && r->run && r->configured);
    assert_false(lane_is_ours(lane_by_number(&master, 3)) || lane_by_number(&master, 3)->run);
    assert_null(lane_by_number(&master, 4));
    /* Again: the same records. */
    assert_int_equal(lane_table_load(&master), 0);
    assert_int_equal(master.lanes.count, 3);
    assert_ptr_equal(r, lane_by_number(&master, 2));
}

/* Where netd must bring the address first, an owner's lane waits for it. */
static void test_driver(void **state)
{
    (void)state;
    close_master();
    config.cluster.driver = CLUSTER_DRIVER_L2;
    open_master();
    assert_false(lane_by_number(&master, 1)->run);
    assert_true(lane_by_number(&master, 1)->acquire_ms != 0);
    assert_true(lane_by_number(&master, 3)->acquire_ms == 0);
    struct netd_place place;
    netd_place_of(&master, lane_by_number(&master, 1), &place);
    assert_int_equal(place.driver, NETD_L2);
    assert_int_equal(place.epoch, 3);
}

static void test_swap_is_durable_and_whole(void **state)
{
    (void)state;
    struct lane_change both[2];
    change(1, &both[0], "b", LANE_AWAY);
    change(2, &both[1], "b", LANE_AWAY);
    both[1].epoch_before = 2;
    assert_int_equal(lane_table_change(&master, both, 2), -ESTALE);
    assert_true(lane_is_ours(lane_by_number(&master, 1)) && lane_by_number(&master, 1)->run);
    both[1].epoch_before = 3;
    uint64_t version = master.lanes.version;
    assert_int_equal(lane_table_change(&master, both, 2), 0);
    assert_true(lane_by_number(&master, 1)->version > version);
    for (int i = 0; i < 2; i++) {
        const struct lane_record *r = lane_by_number(&master, 2);
        assert_string_equal(r->owner, "b");
        assert_int_equal(r->epoch, 4);
        assert_int_equal(r->role, LANE_AWAY);
        assert_false(r->run);
        close_master();
        open_master();
    }
    /* What was expected is not so any more. */
    assert_int_equal(lane_table_change(&master, both, 2), -ESTALE);
}

static void test_refused(void **state)
{
    (void)state;
    struct lane_change c;
    change(1, &c, "b", LANE_OWNER); /* an owner of another name is no owner here */
    assert_int_equal(lane_table_change(&master, &c, 1), -EINVAL);
    change(1, &c, "a", LANE_AWAY);
    assert_int_equal(lane_table_change(&master, &c, 1), -EINVAL);
    change(1, &c, "b", LANE_AWAY);
    c.epoch = 2;
    assert_int_equal(lane_table_change(&master, &c, 1), -EINVAL);
    assert_true(lane_is_ours(lane_by_number(&master, 1)));
}

/* What START and SET say of it. */
static void test_told(void **state)
{
    (void)state;
    struct control_lane place;
    struct control_lane_order order;
    lane_place_of(&master, lane_by_number(&master, 1), &place);
    assert_int_equal(place.role, LANE_OWNER);
    assert_true(place.run);
    assert_string_equal(place.owner, "");
    lane_place_of(&master, lane_by_number(&master, 3), &place);
    assert_int_equal(place.role, LANE_AWAY);
    assert_string_equal(place.owner, "b");
    lane_order_set(&master, lane_by_number(&master, 3), &order);
    assert_int_equal(order.op, LANE_OP_SET);
    assert_int_equal(order.epoch, 3);
    assert_string_equal(order.node, "b");
    assert_int_equal(lane_order(&master, lane_by_number(&master, 3), &order), -EAGAIN);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_load),    TEST(test_driver), TEST(test_swap_is_durable_and_whole),
        TEST(test_refused), TEST(test_told),
    };
    return cmocka_run_group_tests_name("lane_table", tests, NULL, NULL);
}
