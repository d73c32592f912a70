/* The load generator's counting: histogram, identity, book, weights, deadlines, /proc. */
#include "bench/book.h"
#include "bench/histogram.h"
#include "bench/identity.h"
#include "bench/options.h"
#include "bench/proc_stat.h"
#include "bench/timer.h"
#include "bench/weights.h"

#include "base/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Against sorted values: never below the true percentile, at most 1/32 above. */
static void histogram_is_close(void **state)
{
    enum { COUNT = 20000 };
    static const uint32_t wanted[] = {1, 50000, 90000, 99000, 99900, 100000};
    static uint64_t values[COUNT];
    struct histogram *h = calloc(1, sizeof *h);
    struct rng rng;

    (void)state;
    assert_non_null(h);
    rng_seed(&rng, 7);
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = rng_u64(&rng) >> rng_below(&rng, 64);
        histogram_add(h, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], ascending);
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
        uint64_t rank = ((uint64_t)COUNT * wanted[i] + 99999) / 100000;
        uint64_t exact = values[rank - 1];
        uint64_t told = histogram_percentile_ns(h, wanted[i]);
        assert_true(told >= exact);
        assert_true(told - exact <= exact / 32 + 1);
    }
    assert_int_equal(h->max_ns, values[COUNT - 1]);
    assert_int_equal(histogram_percentile_ns(h, 100000), values[COUNT - 1]);
    free(h);
}

static void histogram_edges(void **state)
{
    static struct histogram h;
    static struct histogram other;

    (void)state;
    assert_int_equal(histogram_percentile_ns(&h, 50000), 0);
    histogram_add(&h, 0);
    assert_int_equal(histogram_percentile_ns(&h, 100000), 0);
    histogram_add(&h, UINT64_MAX);
    assert_int_equal(histogram_percentile_ns(&h, 50000), 0);
    assert_true(histogram_percentile_ns(&h, 99000) == UINT64_MAX);
    histogram_add(&other, 31);
    histogram_merge(&other, &h);
    assert_int_equal(other.count, 3);
    assert_true(other.max_ns == UINT64_MAX);
    assert_int_equal(histogram_percentile_ns(&other, 60000), 31);
}

static void identity_round_trip(void **state)
{
    static const struct identity all[] = {
        {0, 0, 1},
        {UINT32_MAX, UINT64_C(9999999999999999999), 0xffffffff},
        {1234567, 123456789012345, 0x00c0ffee},
    };
    char text[IDENTITY_BYTES];
    struct identity got;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        identity_write(text, all[i]);
        assert_int_equal(identity_parse(span_of(text, sizeof text), &got), 0);
        assert_true(got.run == all[i].run);
        assert_true(got.number == all[i].number);
        assert_true(got.time_ns == all[i].time_ns);
        assert_int_equal(identity_parse_key(span_of(text, IDENTITY_KEY_BYTES), &got), 0);
        assert_true(got.number == all[i].number);
    }
}

static void identity_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "-",
        "1",
        "1-",
        "1-2",
        "1-2-",
        "g-2-3",
        "1-x-3",
        "1-2-x",
        "1-2-3-4",
        "123456789-2-3",
        "1--3",
        "1-4294967296-3",
        "-1-2-3",
        "1-2 3",
        "1-2-3 x",
    };
    static const char *const bad_keys[] = {"", "1", "1-", "-1", "1-2-", "1-2-3", "x-1"};
    struct identity id;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(identity_parse(span_str(bad[i]), &id), -EINVAL);
    for (size_t i = 0; i < ARRAY_COUNT(bad_keys); i++)
        assert_int_equal(identity_parse_key(span_str(bad_keys[i]), &id), -EINVAL);
    assert_int_equal(identity_parse(span_str(" \tAbC-7-9\r"), &id), 0);
    assert_int_equal(id.run, 0xabc);
    assert_int_equal(id.number, 7);
    assert_int_equal(id.time_ns, 9);
}

static void identity_finds_its_field(void **state)
{
    struct span value;

    (void)state;
    assert_true(identity_field(span_str("X-Mochila-Seq: 1-2-3"), &value));
    assert_true(span_eq(value, span_str(" 1-2-3")));
    assert_true(identity_field(span_str("x-mochila-SEQ:1-2-3"), &value));
    assert_false(identity_field(span_str("X-Mochila-Seq"), &value));
    assert_false(identity_field(span_str("X-Mochila-Sequence: 1-2-3"), &value));
    assert_false(identity_field(span_str(" X-Mochila-Seq: 1-2-3"), &value));
    assert_false(identity_field(span_str(""), &value));
}

static void book_counts_once(void **state)
{
    struct book *b = book_create();

    (void)state;
    assert_non_null(b);
    assert_int_equal(book_mark(b, 1, 0, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, 1, 0, 0), BOOK_AGAIN);
    assert_int_equal(book_mark(b, 1, 0, 1), BOOK_NEW);
    assert_int_equal(book_mark(b, 2, 0, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, 1, 63, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, 1, 64, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, 1, 5000000, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, 1, 5000000, 0), BOOK_AGAIN);
    assert_int_equal(book_unique(b), 6);
    assert_true(book_has(b, 1, 64, 0));
    assert_false(book_has(b, 1, 65, 0));
    assert_false(book_has(b, 1, 64, 1));
    assert_false(book_has(b, 3, 64, 0));
    assert_false(book_has(b, 1, UINT32_MAX, 0));
    assert_int_equal(book_mark(b, 1, 1, BOOK_RECIPIENT_MAX), BOOK_FULL);
    book_destroy(&b);
    assert_null(b);
}

static void book_has_an_end(void **state)
{
    struct book *b = book_create();
    char address[32];

    (void)state;
    for (uint32_t run = 0; run < BOOK_RUN_MAX; run++)
        assert_int_equal(book_mark(b, run, 1, 0), BOOK_NEW);
    assert_int_equal(book_mark(b, BOOK_RUN_MAX, 1, 0), BOOK_FULL);
    assert_int_equal(book_mark(b, 0, 2, 0), BOOK_NEW);
    int last = 0;
    for (int i = 0; i < BOOK_RECIPIENT_MAX && last >= 0; i++) {
        snprintf(address, sizeof address, "user%d@x.test", i);
        last = book_recipient(b, span_str(address));
    }
    assert_int_equal(last, -ENOSPC);
    book_destroy(&b);
}

static void book_names_recipients(void **state)
{
    struct book *b = book_create();

    (void)state;
    assert_int_equal(book_recipient(b, span_str("r0@d000.test")), 0);
    assert_int_equal(book_recipient(b, span_str("r127@d000.test")), 127);
    int other = book_recipient(b, span_str("r128@d000.test"));
    assert_true(other >= 128);
    int bob = book_recipient(b, span_str("bob@a.test"));
    int rab = book_recipient(b, span_str("rab@a.test"));
    assert_true(bob >= 128);
    assert_true(bob != rab);
    assert_true(bob != other);
    assert_int_equal(book_recipient(b, span_str("bob@a.test")), bob);
    assert_int_equal(book_recipient(b, span_str("r@a.test")), rab + 1);
    book_destroy(&b);
}

static void weights_spread(void **state)
{
    static const uint32_t weight[] = {3, 1, 6};
    uint32_t seen[3] = {0};
    struct weights w;

    (void)state;
    assert_int_equal(weights_init(&w, weight, 3), 0);
    for (uint64_t n = 0; n < 10; n++)
        seen[weights_pick(&w, n)]++;
    assert_int_equal(seen[0], 3);
    assert_int_equal(seen[1], 1);
    assert_int_equal(seen[2], 6);
    assert_int_equal(weights_pick(&w, 3), weights_pick(&w, 13));
    /* Spread: the heaviest never three times in a row. */
    for (uint64_t n = 0; n < 10; n++)
        assert_false(weights_pick(&w, n) == 2 && weights_pick(&w, n + 1) == 2 &&
                     weights_pick(&w, n + 2) == 2);
    weights_fini(&w);
    assert_int_equal(weights_init_equal(&w, 4), 0);
    assert_int_equal(weights_pick(&w, 6), 2);
    weights_fini(&w);
}

/* Random sets, moves and takes against a plain scan. */
static void timers_come_in_order(void **state)
{
    enum { COUNT = 300, STEPS = 20000 };
    static struct timer timers[COUNT];
    struct timer_heap heap = {0};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 11);
    for (uint32_t step = 0; step < STEPS; step++) {
        struct timer *t = &timers[rng_below(&rng, COUNT)];
        if (rng_below(&rng, 3) == 0)
            timer_clear(&heap, t);
        else
            timer_set(&heap, t, rng_below(&rng, 1000));
        if (rng_below(&rng, 4) != 0)
            continue;
        uint64_t least = UINT64_MAX;
        for (uint32_t i = 0; i < COUNT; i++)
            if (timer_is_set(&timers[i]) && timers[i].due_ns < least)
                least = timers[i].due_ns;
        assert_true(timer_next_ns(&heap, UINT64_MAX) == least);
        assert_null(least > 0 ? timer_take_due(&heap, least - 1) : NULL);
        struct timer *first = timer_take_due(&heap, UINT64_MAX);
        assert_true((first == NULL) == (least == UINT64_MAX));
        if (first != NULL) {
            assert_true(first->due_ns == least);
            assert_false(timer_is_set(first));
        }
    }
    timer_heap_fini(&heap);
}

static void counts_with_units(void **state)
{
    uint64_t n;

    (void)state;
    assert_int_equal(options_count("12", 1000, &n), 0);
    assert_int_equal(n, 12);
    assert_int_equal(options_count("12k", 1024, &n), 0);
    assert_int_equal(n, 12288);
    assert_int_equal(options_count("3M", 1000, &n), 0);
    assert_int_equal(n, 3000000);
    assert_int_equal(options_count("", 1000, &n), -EINVAL);
    assert_int_equal(options_count("k", 1000, &n), -EINVAL);
    assert_int_equal(options_count("1x", 1000, &n), -EINVAL);
    assert_int_equal(options_count("-1", 1000, &n), -EINVAL);
    assert_int_equal(options_count("9999999999999999999M", 1000, &n), -EINVAL);
}

static void proc_stat_reads_a_line(void **state)
{
    static const char line[] = "42 (a ) (b) S 7 42 42 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1";
    struct proc_stat got;

    (void)state;
    assert_true(proc_stat_parse(line, &got));
    assert_int_equal(got.pid, 42);
    assert_int_equal(got.parent, 7);
    assert_int_equal(got.ticks, 110);
    assert_false(proc_stat_parse("", &got));
    assert_false(proc_stat_parse("42 (x) S 7", &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram_is_close),       cmocka_unit_test(histogram_edges),
        cmocka_unit_test(identity_round_trip),      cmocka_unit_test(identity_refuses),
        cmocka_unit_test(identity_finds_its_field), cmocka_unit_test(book_counts_once),
        cmocka_unit_test(book_has_an_end),          cmocka_unit_test(book_names_recipients),
        cmocka_unit_test(weights_spread),           cmocka_unit_test(timers_come_in_order),
        cmocka_unit_test(counts_with_units),        cmocka_unit_test(proc_stat_reads_a_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
