/* The simulated disk keeps the promises of disk.h, and breaks only what it may break. */
#include "base/rng.h"
#include "proto/limits.h"
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BLOCK = LIMIT_BLOCK_BYTES };

struct probe {
    struct disk_op op;
    ssize_t res;
    int calls;
};

static void on_done(struct disk_op *op, ssize_t res)
{
    struct probe *p = (struct probe *)(void *)op;
    p->res = res;
    p->calls++;
}

static struct disk *d;
static struct disk_file *f;
static uint8_t *block;

static void set_up(uint64_t seed)
{
    sim_disk_init(seed);
    assert_int_equal(disk_open(&d, NULL, "shard"), 0);
    assert_int_equal(disk_make_zeroed_now(d, "a", 16 * BLOCK), 0);
    assert_int_equal(disk_file_open(d, "a", &f), 0);
    block = disk_alloc(d, 4 * BLOCK);
}

static void tear_down(void)
{
    disk_free(d, block, 4 * BLOCK);
    disk_file_close(&f);
    disk_close(&d);
    sim_disk_fini();
}

static ssize_t write_now(uint8_t fill, size_t n, uint64_t offset)
{
    struct probe p = {.op.on_done = on_done};
    memset(block, fill, n);
    disk_write(f, &p.op, block, n, offset);
    assert_int_equal(p.calls, 0); /* never from inside the call */
    sim_disk_run();
    assert_int_equal(p.calls, 1);
    return p.res;
}

static void test_written_is_durable(void **state)
{
    (void)state;
    set_up(1);
    assert_int_equal(write_now(7, 2 * BLOCK, BLOCK), 2 * BLOCK);
    sim_disk_crash();
    struct span s = sim_disk_peek("shard", "a");
    assert_int_equal(s.n, 16 * BLOCK);
    for (size_t i = 0; i < s.n; i++)
        assert_int_equal(s.p[i], i >= BLOCK && i < 3 * BLOCK ? 7 : 0);
    tear_down();
}

/* Over many seeds a write in flight is seen lost, whole and torn, by sectors, and nothing else
 * changes. */
static void test_in_flight_is_dropped_kept_or_torn(void **state)
{
    (void)state;
    int seen_none = 0, seen_all = 0, seen_torn = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        set_up(seed);
        struct probe p = {.op.on_done = on_done};
        memset(block, 9, BLOCK);
        disk_write(f, &p.op, block, BLOCK, 0);
        sim_disk_crash();
        sim_disk_run();
        assert_int_equal(p.calls, 0);
        struct span s = sim_disk_peek("shard", "a");
        size_t sectors = 0;
        for (size_t i = 0; i < BLOCK; i += 512) {
            for (size_t j = 1; j < 512; j++)
                assert_int_equal(s.p[i + j], s.p[i]);
            sectors += s.p[i] == 9;
        }
        for (size_t i = BLOCK; i < s.n; i++)
            assert_int_equal(s.p[i], 0);
        seen_none += sectors == 0;
        seen_all += sectors == 8;
        seen_torn += sectors > 0 && sectors < 8;
        tear_down();
    }
    assert_true(seen_none > 20 && seen_all > 20 && seen_torn > 20);
}

static void test_faults(void **state)
{
    (void)state;
    set_up(3);
    sim_disk_fault(SIM_EIO, 1);
    sim_disk_fault(SIM_ENOSPC, 2);
    sim_disk_fault(SIM_SHORT, 3);
    assert_int_equal(write_now(1, BLOCK, 0), -EIO);
    assert_int_equal(write_now(2, BLOCK, BLOCK), -ENOSPC);
    assert_int_equal(write_now(3, BLOCK, 2 * BLOCK), -EIO);
    assert_int_equal(write_now(4, BLOCK, 3 * BLOCK), BLOCK);
    struct span s = sim_disk_peek("shard", "a");
    assert_int_equal(s.p[BLOCK], 0);
    assert_int_equal(s.p[3 * BLOCK - 1], 0); /* the short one is short */
    assert_int_equal(s.p[3 * BLOCK], 4);
    sim_disk_fault_read(1);
    assert_int_equal(disk_pread(f, block, BLOCK, 0), -EIO);
    assert_int_equal(disk_pread(f, block, BLOCK, 3 * BLOCK), BLOCK);
    assert_int_equal(block[0], 4);
    tear_down();
}

static void test_cut_stops_everything(void **state)
{
    (void)state;
    set_up(4);
    struct probe p = {.op.on_done = on_done};
    struct probe q = {.op.on_done = on_done};
    sim_disk_fault(SIM_CUT, 1);
    disk_write(f, &p.op, block, BLOCK, 0);
    disk_write(f, &q.op, block, BLOCK, BLOCK);
    sim_disk_run();
    assert_true(sim_disk_is_down());
    assert_int_equal(p.calls + q.calls, 0);
    assert_int_equal(disk_rename(d, "a", "b"), -EIO);
    sim_disk_crash();
    assert_false(sim_disk_is_down());
    assert_int_equal(disk_pread(f, block, BLOCK, 0), -EIO); /* a handle of before */
    struct disk *d2;
    struct disk_file *f2;
    assert_int_equal(disk_open(&d2, NULL, "shard"), 0);
    assert_int_equal(disk_file_open(d2, "a", &f2), 0);
    assert_int_equal(disk_pread(f2, block, BLOCK, 15 * BLOCK), BLOCK);
    disk_file_close(&f2);
    disk_close(&d2);
    tear_down();
}

static void count_file(void *ctx, const char *name, uint64_t bytes)
{
    (void)name;
    (void)bytes;
    ++*(int *)ctx;
}

static int file_count(void)
{
    int n = 0;
    assert_int_equal(disk_list(d, count_file, &n), 0);
    return n;
}

static void test_zeroed_files(void **state)
{
    (void)state;
    set_up(5);
    struct probe p = {.op.on_done = on_done};
    disk_make_zeroed(d, &p.op, "b", 4 << 20);
    assert_true(sim_disk_step());
    assert_int_equal(file_count(), 1); /* no name before it is whole */
    sim_disk_run();
    assert_int_equal(p.res, 0);
    assert_int_equal(file_count(), 2);
    sim_disk_capacity(8 << 20);
    disk_make_zeroed(d, &p.op, "c", 4 << 20);
    sim_disk_run();
    assert_int_equal(p.res, -ENOSPC);
    assert_int_equal(disk_make_zeroed_now(d, "c", 4 << 20), -ENOSPC);
    assert_int_equal(file_count(), 2);
    assert_int_equal(disk_free_bytes(d), (8 << 20) - (4 << 20) - 16 * BLOCK);
    assert_int_equal(disk_rename(d, "b", "a"), 0); /* over an open one */
    assert_int_equal(file_count(), 1);
    assert_int_equal(disk_unlink(d, "a"), 0);
    assert_int_equal(file_count(), 0);
    sim_disk_capacity(64 << 20);
    disk_make_zeroed(d, &p.op, "d", 4 << 20);
    assert_true(sim_disk_step());
    sim_disk_crash(); /* half made: gone */
    disk_close(&d);
    assert_int_equal(disk_open(&d, NULL, "shard"), 0);
    assert_int_equal(file_count(), 0);
    tear_down();
}

static void test_lock(void **state)
{
    (void)state;
    set_up(6);
    struct disk *second;
    assert_int_equal(disk_open(&second, NULL, "shard"), -EWOULDBLOCK);
    assert_int_equal(disk_open(&second, NULL, "other"), 0);
    disk_close(&second);
    tear_down();
}

/* The same seed gives the same disk, byte for byte. */
static void test_replay(void **state)
{
    (void)state;
    uint8_t first[16 * BLOCK];
    for (int round = 0; round < 2; round++) {
        set_up(77);
        struct probe p[8];
        for (size_t i = 0; i < 8; i++) {
            p[i] = (struct probe){.op.on_done = on_done};
            memset(block, (int)i + 1, BLOCK);
            disk_write(f, &p[i].op, block, BLOCK, (i % 3) * BLOCK);
        }
        sim_disk_fault(SIM_EIO, 2);
        for (int i = 0; i < 5; i++)
            sim_disk_step();
        sim_disk_crash();
        struct span s = sim_disk_peek("shard", "a");
        if (round == 0)
            memcpy(first, s.p, sizeof first);
        else
            assert_memory_equal(first, s.p, sizeof first);
        tear_down();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_durable),
        cmocka_unit_test(test_in_flight_is_dropped_kept_or_torn),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_cut_stops_everything),
        cmocka_unit_test(test_zeroed_files),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
