/* state: what state.db promises over restarts, and what it says when it cannot. */
#include "master/state.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/mochila-state-XXXXXX";
static char path[128];

static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/mochila-state-XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/state.db", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        char name[160];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    return rmdir(directory);
}

static struct state *open_it(void)
{
    struct state *s;
    assert_int_equal(state_open(path, &s), 0);
    return s;
}

static void reopen(struct state **s)
{
    state_close(s);
    assert_null(*s);
    *s = open_it();
}

static void test_boot_counts(void **state)
{
    (void)state;
    struct state *s = open_it();
    for (uint64_t want = 1; want <= 5; want++) {
        uint64_t boot = 0;
        assert_int_equal(state_boot(s, &boot), 0);
        assert_int_equal(boot, want);
        reopen(&s);
    }
    state_close(&s);
}

/* Written through to the disk: a copy of the files without closing has it. */
static void test_boot_is_durable(void **state)
{
    (void)state;
    struct state *s = open_it(), *copy;
    uint64_t boot;
    assert_int_equal(state_boot(s, &boot), 0);
    assert_int_equal(state_boot(s, &boot), 0);
    char command[400], keep[128];
    snprintf(keep, sizeof keep, "%s", path);
    snprintf(command, sizeof command, "cp %s %s.c && cp %s-wal %s.c-wal", path, path, path, path);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s.c", keep);
    copy = open_it();
    assert_int_equal(state_boot(copy, &boot), 0);
    assert_int_equal(boot, 3);
    state_close(&copy);
    unlink(path);
    snprintf(path, sizeof path, "%s", keep);
    state_close(&s);
}

static struct state_lane a_lane(const char *address, int32_t shard)
{
    struct state_lane l = {.shard = shard, .epoch = 1};
    assert_int_equal(ip_parse(span_str(address), &l.address), 0);
    strcpy(l.pool, "bulk");
    return l;
}

static void test_lanes_keep_their_numbers(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct state_lane in[3] = {a_lane("192.0.2.1", 0), a_lane("2001:db8::1", 1),
                               a_lane("192.0.2.2", 63)};
    assert_int_equal(state_lanes_save(s, in, 3), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(in[i].id, i + 1);
    in[1].retired = true;
    in[1].epoch = 7;
    strcpy(in[1].pool, "other");
    assert_int_equal(state_lanes_save(s, in, 3), 0);
    reopen(&s);
    struct state_lane *out;
    size_t count;
    assert_int_equal(state_lanes(s, &out, &count), 0);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(out[i].id, in[i].id);
        assert_int_equal(out[i].shard, in[i].shard);
        assert_int_equal(out[i].epoch, in[i].epoch);
        assert_int_equal(out[i].retired, in[i].retired);
        assert_true(ip_eq(&out[i].address, &in[i].address));
        assert_string_equal(out[i].pool, in[i].pool);
    }
    free(out);
    state_close(&s);
}

/* One address twice: nothing of the transaction stays. */
static void test_lanes_all_or_nothing(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct state_lane in[2] = {a_lane("192.0.2.1", 0), a_lane("192.0.2.1", 1)};
    assert_int_equal(state_lanes_save(s, in, 2), -EIO);
    assert_true(strlen(state_error(s)) > 0);
    struct state_lane *out;
    size_t count;
    assert_int_equal(state_lanes(s, &out, &count), 0);
    assert_int_equal(count, 0);
    free(out);
    /* And it works afterwards. */
    in[0].id = 0;
    assert_int_equal(state_lanes_save(s, in, 1), 0);
    state_close(&s);
}

static void run_sql(const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void test_lanes_out_of_range(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "INSERT INTO lane(id, address, shard, epoch, pool, retired) VALUES(1, 'nonsense', 0, 1, "
        "'p', 0)",
        "INSERT INTO lane(id, address, shard, epoch, pool, retired) VALUES(1, '192.0.2.1', 64, 1, "
        "'p', 0)",
        "INSERT INTO lane(id, address, shard, epoch, pool, retired) VALUES(1, '192.0.2.1', -1, 1, "
        "'p', 0)",
        "INSERT INTO lane(id, address, shard, epoch, pool, retired) VALUES(1, '192.0.2.1', 0, 0, "
        "'p', 0)",
        "INSERT INTO lane(id, address, shard, epoch, pool, retired) VALUES(99999999999, "
        "'192.0.2.1', 0, 1, 'p', 0)",
        "INSERT INTO lane VALUES(1, '192.0.2.1', 0, 1, 'p', 0, 'a', 64, 1, 0)",
        "INSERT INTO lane VALUES(1, '192.0.2.1', 0, 1, 'p', 0, 'a', -1, 0, 0)",
        "INSERT INTO lane VALUES(1, '192.0.2.1', 0, 1, 'p', 0, 'a', -1, 5, 0)",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct state *s = open_it();
        struct state_lane *out;
        size_t count;
        run_sql(wrong[i]);
        assert_int_equal(state_lanes(s, &out, &count), -EIO);
        assert_non_null(strstr(state_error(s), "out of range"));
        free(out);
        state_close(&s);
        run_sql("DELETE FROM lane");
    }
}

/* A file of the first release: it has no owners yet, and every lane is this node's. */
static void test_first_schema(void **state)
{
    (void)state;
    run_sql("CREATE TABLE lane(id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL UNIQUE,"
            " shard INTEGER NOT NULL, epoch INTEGER NOT NULL, pool TEXT NOT NULL,"
            " retired INTEGER NOT NULL);"
            "INSERT INTO lane VALUES(3, '192.0.2.1', 1, 4, 'p', 0);"
            "PRAGMA user_version = 1");
    struct state *s = open_it();
    for (int i = 0; i < 2; i++) {
        struct state_lane *out;
        size_t count;
        assert_int_equal(state_lanes(s, &out, &count), 0);
        assert_int_equal(count, 1);
        assert_int_equal(out[0].id, 3);
        assert_int_equal(out[0].epoch, 4);
        assert_string_equal(out[0].owner, "");
        assert_int_equal(out[0].role, LANE_OWNER);
        assert_int_equal(out[0].owner_slot, CONTROL_NO_SLOT);
        assert_int_equal(out[0].move, 0);
        free(out);
        reopen(&s);
    }
    state_close(&s);
}

static struct state_swap a_swap(uint32_t id, const char *from, uint32_t epoch, const char *to)
{
    return (struct state_swap){.id = id,
                               .epoch_before = epoch,
                               .epoch = epoch + 1,
                               .owner_slot = 2,
                               .owner_before = from,
                               .owner = to,
                               .role = LANE_AWAY,
                               .move = UINT64_MAX};
}

/* Owner and epoch are compared for all of them before any is another's. */
static void test_swap(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct state_lane lanes[2] = {a_lane("192.0.2.1", 0), a_lane("192.0.2.2", 1)};
    struct state_lane *out;
    size_t count;
    for (size_t i = 0; i < 2; i++) {
        strcpy(lanes[i].owner, "a");
        lanes[i].role = LANE_OWNER;
    }
    assert_int_equal(state_lanes_save(s, lanes, 2), 0);
    struct state_swap good = a_swap(lanes[0].id, "a", 1, "b");
    const struct state_swap stale[] = {a_swap(lanes[1].id, "a", 2, "b"),
                                       a_swap(lanes[1].id, "c", 1, "b"), a_swap(99, "a", 1, "b")};
    for (size_t i = 0; i < ARRAY_COUNT(stale); i++) {
        const struct state_swap both[] = {good, stale[i]};
        assert_int_equal(state_lanes_swap(s, both, 2), -ESTALE);
        assert_int_equal(state_lanes(s, &out, &count), 0);
        assert_string_equal(out[0].owner, "a");
        assert_int_equal(out[0].epoch, 1);
        free(out);
    }
    assert_int_equal(state_lanes_swap(s, &good, 1), 0);
    assert_int_equal(state_lanes_swap(s, &good, 1), -ESTALE);
    reopen(&s);
    assert_int_equal(state_lanes(s, &out, &count), 0);
    assert_string_equal(out[0].owner, "b");
    assert_int_equal(out[0].epoch, 2);
    assert_int_equal(out[0].role, LANE_AWAY);
    assert_int_equal(out[0].owner_slot, 2);
    assert_true(out[0].move == UINT64_MAX);
    assert_string_equal(out[1].owner, "a");
    free(out);
    state_close(&s);
}

static struct control_hold a_hold(const char *kind, const char *value, uint64_t since)
{
    struct control_hold h = {.since = since};
    strcpy(h.kind, kind);
    strcpy(h.value, value);
    strcpy(h.why, "because");
    return h;
}

static void test_holds(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct control_hold h = a_hold("site", "example.com", 20), *out;
    uint32_t count, removed;
    assert_int_equal(state_hold_add(s, &h), 0);
    h = a_hold("all", "", 10);
    assert_int_equal(state_hold_add(s, &h), 0);
    strcpy(h.why, "twice");
    assert_int_equal(state_hold_add(s, &h), 0);
    reopen(&s);
    assert_int_equal(state_holds(s, &out, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(out[0].kind, "all");
    assert_string_equal(out[0].why, "twice");
    assert_string_equal(out[1].value, "example.com");
    assert_int_equal(out[1].since, 20);
    free(out);
    assert_int_equal(state_hold_remove(s, "site", "example.com", &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(state_hold_remove(s, "site", "example.com", &removed), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(state_holds(s, &out, &count), 0);
    assert_int_equal(count, 1);
    free(out);
    state_close(&s);
}

static void test_holds_have_a_limit(void **state)
{
    (void)state;
    struct state *s = open_it();
    run_sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1024)"
            " INSERT INTO hold SELECT 'site', 's' || i, '', i FROM n");
    struct control_hold h = a_hold("site", "one-more", 1), *out;
    uint32_t count;
    assert_int_equal(state_hold_add(s, &h), -E2BIG);
    assert_int_equal(state_holds(s, &out, &count), 0);
    assert_int_equal(count, LIMIT_HOLDS);
    free(out);
    state_close(&s);
}

static void test_poison(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct msg_id a = id_make(1, 1, 77), b = id_make(65535, 9, UINT64_MAX), *out;
    uint32_t deaths, count;
    assert_int_equal(state_poison_death(s, a, &deaths), 0);
    assert_int_equal(deaths, 1);
    assert_int_equal(state_poison_death(s, b, &deaths), 0);
    reopen(&s);
    assert_int_equal(state_poison_parked(s, &out, &count), 0);
    assert_int_equal(count, 0);
    free(out);
    assert_int_equal(state_poison_death(s, b, &deaths), 0);
    assert_int_equal(deaths, STATE_POISON_DEATHS);
    reopen(&s);
    assert_int_equal(state_poison_parked(s, &out, &count), 0);
    assert_int_equal(count, 1);
    assert_true(id_eq(out[0], b));
    free(out);
    assert_int_equal(state_poison_death(s, b, &deaths), 0);
    assert_int_equal(deaths, 3);
    assert_int_equal(state_poison_forget(s, b), 0);
    assert_int_equal(state_poison_parked(s, &out, &count), 0);
    assert_int_equal(count, 0);
    free(out);
    state_close(&s);
}

static void test_audit(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct state_audit *out;
    uint32_t count;
    assert_int_equal(state_audit_add(s, "api", "hold kind=all", "done"), 0);
    assert_int_equal(state_audit_add(s, "signal", "reload", "refused"), 0);
    reopen(&s);
    assert_int_equal(state_audit_list(s, 10, &out, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(out[0].who, "signal");
    assert_string_equal(out[1].what, "hold kind=all");
    assert_string_equal(out[1].result, "done");
    free(out);
    assert_int_equal(state_audit_list(s, 1, &out, &count), 0);
    assert_int_equal(count, 1);
    free(out);
    state_close(&s);
}

/* Old lines of the audit log leave when the file is opened; the newest stay. */
static void test_prunes(void **state)
{
    (void)state;
    struct state *s = open_it();
    struct state_audit *out;
    uint32_t count, deaths;
    run_sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100010)"
            " INSERT INTO audit SELECT i, i, 'w', 'what ' || i, 'r' FROM n;"
            "INSERT INTO poison VALUES('old', 1, 0, 0)");
    assert_int_equal(state_poison_death(s, id_make(1, 1, 1), &deaths), 0);
    reopen(&s);
    assert_int_equal(state_audit_list(s, 100010, &out, &count), 0);
    assert_int_equal(count, 100000);
    assert_string_equal(out[0].what, "what 100010");
    free(out);
    assert_int_equal(state_poison_death(s, id_make(1, 1, 1), &deaths), 0);
    assert_int_equal(deaths, 2);
    state_close(&s);
}

static void test_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    struct state *s = open_it();
    state_close(&s);
    run_sql("PRAGMA user_version = 3");
    assert_int_equal(state_open(path, &s), -EILSEQ);
    assert_non_null(strstr(state_error(s), "newer"));
    state_close(&s);
}

static void test_refuses_damage(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 10000; i++)
        fputs("this is no database ", f);
    fclose(f);
    struct state *s;
    assert_int_equal(state_open(path, &s), -EIO);
    assert_true(strlen(state_error(s)) > 0);
    state_close(&s);
}

/* The settings that make "durable" true; a change of them must not pass unseen. */
static void test_mode(void **state)
{
    (void)state;
    struct state *s = open_it();
    uint64_t boot;
    assert_int_equal(state_boot(s, &boot), 0);
    char wal[160];
    snprintf(wal, sizeof wal, "%s-wal", path);
    assert_int_equal(access(wal, F_OK), 0);
    state_close(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_boot_counts),
        TEST(test_boot_is_durable),
        TEST(test_lanes_keep_their_numbers),
        TEST(test_lanes_all_or_nothing),
        TEST(test_lanes_out_of_range),
        TEST(test_first_schema),
        TEST(test_swap),
        TEST(test_holds),
        TEST(test_holds_have_a_limit),
        TEST(test_poison),
        TEST(test_audit),
        TEST(test_prunes),
        TEST(test_refuses_what_it_does_not_know),
        TEST(test_refuses_damage),
        TEST(test_mode),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
