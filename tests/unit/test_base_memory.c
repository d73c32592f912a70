/* pool and table: against plain models, with random work. */
#include "base/pool.h"
#include "base/rng.h"
#include "base/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void pool_hands_out_all(void **unused)
{
    struct pool p;
    uint8_t *seen[101];
    (void)unused;
    assert_int_equal(pool_init(&p, "test", 13, 100), 0);
    assert_int_equal(p.object_bytes, 16);
    for (uint32_t i = 1; i <= 100; i++) {
        seen[i] = pool_get(&p);
        assert_non_null(seen[i]);
        assert_int_equal(pool_index(&p, seen[i]), i);
        assert_ptr_equal(pool_at(&p, i), seen[i]);
        memset(seen[i], 0xee, 16);
    }
    assert_null(pool_get(&p));
    assert_int_equal(p.used, 100);
    pool_put(&p, seen[37]);
    pool_put(&p, seen[4]);
    uint8_t *again = pool_get(&p);
    assert_ptr_equal(again, seen[4]);
    for (int i = 0; i < 16; i++)
        assert_int_equal(again[i], 0);
    assert_ptr_equal(pool_get(&p), seen[37]);
    assert_null(pool_get(&p));
    pool_fini(&p);
    pool_fini(&p); /* once more is nothing */
}

static void pool_random(void **unused)
{
    enum { COUNT = 50 };
    struct pool p;
    uint64_t *held[COUNT];
    uint32_t n = 0;
    struct rng r;
    (void)unused;
    rng_seed(&r, 3);
    assert_int_equal(pool_init(&p, "test", sizeof **held, COUNT), 0);
    for (uint64_t round = 1; round < 100000; round++) {
        if (n > 0 && rng_below(&r, 2) == 0) {
            uint64_t i = rng_below(&r, n);
            assert_int_not_equal(*held[i], 0); /* nobody else wrote to it */
            *held[i] = 0;
            pool_put(&p, held[i]);
            held[i] = held[--n];
        } else {
            uint64_t *object = pool_get(&p);
            assert_int_equal(object == NULL, n == COUNT);
            if (object == NULL)
                continue;
            assert_int_equal(*object, 0);
            *object = round;
            held[n++] = object;
        }
        assert_int_equal(p.used, n);
    }
    pool_fini(&p);
}

/* Reserving is not using: more address room than the machine has memory. */
static void pool_reserves_only(void **unused)
{
    struct pool p;
    (void)unused;
    assert_int_equal(pool_init(&p, "test", 4096, 100000000), 0);
    assert_non_null(pool_get(&p));
    pool_fini(&p);
    assert_int_equal(pool_init(&p, "test", SIZE_MAX >> 33, UINT32_C(1) << 31), -12 /* -ENOMEM */);
    pool_fini(&p);
}

static bool value_is(const void *ctx, uint32_t value, const void *key)
{
    (void)ctx;
    return value == *(const uint32_t *)key;
}

/* Hashes of a few values only, so that runs collide, wrap around the end and grow together. */
static void table_random(void **unused)
{
    enum { VALUES = 300 };
    struct table t = {0};
    bool in[VALUES + 1] = {false};
    uint32_t count = 0;
    struct rng r;
    (void)unused;
    uint64_t seed = rng_entropy();
    print_message("seed %llu\n", (unsigned long long)seed);
    rng_seed(&r, seed);
    for (int round = 0; round < 300000; round++) {
        uint32_t v = 1 + (uint32_t)rng_below(&r, VALUES);
        uint32_t hash = (v * 7) % 40 + 0xfffffff0;
        if (in[v]) {
            assert_int_equal(table_find(&t, hash, value_is, NULL, &v), v);
            assert_true(table_remove(&t, hash, v));
            count--;
        } else {
            assert_int_equal(table_find(&t, hash, value_is, NULL, &v), 0);
            assert_false(table_remove(&t, hash, v));
            assert_int_equal(table_add(&t, hash, v), 0);
            count++;
        }
        in[v] = !in[v];
        assert_int_equal(t.used, count);
        if (round % 1000 != 0)
            continue;
        for (uint32_t k = 1; k <= VALUES; k++) {
            uint32_t found = table_find(&t, (k * 7) % 40 + 0xfffffff0, value_is, NULL, &k);
            assert_int_equal(found, in[k] ? k : 0);
        }
    }
    table_fini(&t);
    assert_int_equal(t.used, 0);
}

static void table_load(void **unused)
{
    struct table t = {0};
    (void)unused;
    uint32_t none = 1;
    assert_int_equal(table_find(&t, 1, value_is, NULL, &none), 0);
    assert_false(table_remove(&t, 1, 1));
    for (uint32_t v = 1; v <= 100000; v++) {
        assert_int_equal(table_add(&t, hash_u64(v), v), 0);
        assert_true((uint64_t)t.used * 8 <= ((uint64_t)t.mask + 1) * 7);
    }
    assert_int_equal(t.mask, 131071);
    table_fini(&t);
}

/* Well mixed: 64k keys into 64k buckets leave about 1/e of them empty. */
static void hashes_spread(void **unused)
{
    static uint8_t bucket[65536];
    (void)unused;
    for (int kind = 0; kind < 3; kind++) {
        memset(bucket, 0, sizeof bucket);
        for (uint64_t i = 0; i < 65536; i++) {
            uint64_t key = kind == 1 ? i << 32 : i;
            uint32_t h = kind == 2 ? hash_bytes(span_of(&key, sizeof key)) : hash_u64(key);
            bucket[h & 0xffff] = 1;
        }
        size_t empty = 0;
        for (size_t i = 0; i < sizeof bucket; i++)
            empty += bucket[i] == 0;
        assert_in_range(empty, 65536 * 34 / 100, 65536 * 40 / 100);
    }
}

static void hashes_fold(void **unused)
{
    uint8_t a[40], b[40];
    (void)unused;
    for (unsigned c = 0; c < 256; c++) {
        for (size_t at = 0; at < sizeof a; at += 13) {
            memset(a, 'x', sizeof a);
            memset(b, 'X', sizeof b);
            a[at] = (uint8_t)c;
            b[at] = (uint8_t)(c >= 'a' && c <= 'z' ? c - 32 : c);
            struct span sa = span_of(a, sizeof a), sb = span_of(b, sizeof b);
            assert_int_equal(hash_bytes_ifold(sa), hash_bytes_ifold(sb));
            b[at] ^= 0x80;
            assert_int_not_equal(hash_bytes_ifold(sa), hash_bytes_ifold(sb));
            /* Letters alone fold: '@' and '`', '[' and '{' stay apart. */
            uint8_t other = (uint8_t)(c ^ 0x20);
            bool letter = (other | 0x20) >= 'a' && (other | 0x20) <= 'z';
            b[at] = other;
            assert_int_equal(hash_bytes_ifold(sa) == hash_bytes_ifold(sb), letter);
        }
    }
    assert_int_not_equal(hash_bytes(span_str("")), hash_bytes(span_of("\0", 1)));
    assert_int_not_equal(hash_bytes(span_str("a")), hash_bytes(span_of("a\0", 2)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_hands_out_all), cmocka_unit_test(pool_random),
        cmocka_unit_test(pool_reserves_only), cmocka_unit_test(table_random),
        cmocka_unit_test(table_load),         cmocka_unit_test(hashes_spread),
        cmocka_unit_test(hashes_fold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
