/*
 * The queue's index: messages by id, entries by recipient, lists; and a random run against a naive
 * model.
 */
#include "base/rng.h"
#include "worker/lane/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct store store;

static int set_up(void **state)
{
    (void)state;
    return store_init(&store, 4000);
}

static int tear_down(void **state)
{
    (void)state;
    store_fini(&store);
    return 0;
}

static struct msg_id id_of(uint64_t n)
{
    return (struct msg_id){0x1234000000000001ull, n};
}

static void finds_what_was_added(void **state)
{
    (void)state;
    struct qmsg *m = store_add(&store, id_of(7));
    assert_non_null(m);
    assert_ptr_equal(store_find(&store, id_of(7)), m);
    assert_null(store_find(&store, id_of(8)));
    struct qentry *e = store_add_entry(&store, m, 3);
    assert_non_null(e);
    assert_int_equal(e->state, ENTRY_NEW);
    assert_ptr_equal(store_find_entry(&store, m, 3), e);
    assert_null(store_find_entry(&store, m, 2));
    assert_true(store_drop_entry(&store, e));
    store_remove(&store, m);
    assert_null(store_find(&store, id_of(7)));
    assert_int_equal(store.msgs.used, 0);
    assert_int_equal(store.entries.used, 0);
}

/* Recipients stay in order of their index, in whatever order recovery finds them: retries keep the
 * order (CLI-23). */
static void entries_are_in_order_of_index(void **state)
{
    (void)state;
    static const uint16_t come[] = {5, 0, 9, 3, 1, 7};
    struct qmsg *m = store_add(&store, id_of(1));
    for (size_t i = 0; i < ARRAY_COUNT(come); i++)
        assert_non_null(store_add_entry(&store, m, come[i]));
    assert_int_equal(m->live, ARRAY_COUNT(come));
    int last = -1;
    unsigned n = 0;
    for (uint32_t i = m->first; i != 0; i = store_entry(&store, i)->sibling, n++) {
        assert_true(store_entry(&store, i)->index > last);
        last = store_entry(&store, i)->index;
    }
    assert_int_equal(n, ARRAY_COUNT(come));
}

static void a_full_store_says_no_and_stays_whole(void **state)
{
    (void)state;
    uint64_t n = 0;
    while (store_add(&store, id_of(n)) != NULL)
        n++;
    assert_true(n >= 4000);
    assert_null(store_find(&store, id_of(n)));
    for (uint64_t i = 0; i < n; i++)
        assert_non_null(store_find(&store, id_of(i)));
    store_remove(&store, store_find(&store, id_of(5)));
    assert_non_null(store_add(&store, id_of(n)));
    assert_null(store_add(&store, id_of(n + 1)));
}

static void peek_sees_entries_and_no_free_places(void **state)
{
    (void)state;
    struct qmsg *m = store_add(&store, id_of(1));
    uint32_t places[3];
    for (uint16_t i = 0; i < 3; i++)
        places[i] = store_entry_index(&store, store_add_entry(&store, m, i));
    store_drop_entry(&store, store_entry(&store, places[1]));
    assert_ptr_equal(store_peek(&store, places[0]), store_entry(&store, places[0]));
    assert_null(store_peek(&store, places[1]));
    assert_non_null(store_peek(&store, places[2]));
    assert_true(places[2] < store_entry_end(&store));
}

static void lists_keep_their_order(void **state)
{
    (void)state;
    struct qlist l = {0};
    struct qmsg *m = store_add(&store, id_of(1));
    struct qentry *e[4];
    for (uint16_t i = 0; i < 4; i++)
        e[i] = store_add_entry(&store, m, i);
    qlist_push(&store, &l, e[1]);
    qlist_push(&store, &l, e[2]);
    qlist_push_front(&store, &l, e[0]);
    qlist_push(&store, &l, e[3]);
    assert_int_equal(l.count, 4);
    qlist_remove(&store, &l, e[2]);
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            continue;
        assert_ptr_equal(qlist_first(&store, &l), e[i]);
        qlist_remove(&store, &l, e[i]);
    }
    assert_null(qlist_first(&store, &l));
    assert_int_equal(l.count, 0);
    assert_int_equal(l.head | l.tail, 0);
}

enum { MODEL_MESSAGES = 200, MODEL_RCPTS = 6 };

/* What the model knows: which recipients of which message exist. */
static uint8_t model[MODEL_MESSAGES];

static void check_model(uint64_t seed)
{
    uint32_t messages = 0, entries = 0;
    for (uint64_t i = 0; i < MODEL_MESSAGES; i++) {
        struct qmsg *m = store_find(&store, id_of(i));
        if ((m != NULL) != (model[i] != 0))
            fail_msg("seed %llu: message %llu", (unsigned long long)seed, (unsigned long long)i);
        if (m == NULL)
            continue;
        messages++;
        for (uint16_t k = 0; k < MODEL_RCPTS; k++) {
            bool there = model[i] >> k & 1;
            struct qentry *e = store_find_entry(&store, m, k);
            assert_int_equal(e != NULL, there);
            assert_true(e == NULL || store_msg(&store, e->msg) == m);
            entries += there;
        }
    }
    assert_int_equal(store.msgs.used, messages);
    assert_int_equal(store.entries.used, entries);
}

static void agrees_with_a_model(void **state)
{
    (void)state;
    memset(model, 0, sizeof model);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        for (int step = 0; step < 1000; step++) {
            uint64_t i = rng_below(&rng, MODEL_MESSAGES);
            uint16_t k = (uint16_t)rng_below(&rng, MODEL_RCPTS);
            struct qmsg *m = store_find(&store, id_of(i));
            if (m == NULL)
                m = store_add(&store, id_of(i));
            assert_non_null(m);
            struct qentry *e = store_find_entry(&store, m, k);
            if (e == NULL) {
                assert_non_null(store_add_entry(&store, m, k));
            } else if (store_drop_entry(&store, e)) {
                store_remove(&store, m);
            }
            model[i] = (uint8_t)(model[i] ^ 1u << k);
        }
        check_model(seed);
    }
}

static void every_state_has_a_word(void **state)
{
    (void)state;
    for (unsigned s = 0; s < ENTRY_STATE_COUNT; s++) {
        assert_non_null(entry_state_word((enum entry_state)s));
        for (unsigned t = 0; t < s; t++)
            assert_string_not_equal(entry_state_word((enum entry_state)s),
                                    entry_state_word((enum entry_state)t));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_what_was_added, set_up, tear_down),
        cmocka_unit_test_setup_teardown(entries_are_in_order_of_index, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_store_says_no_and_stays_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(peek_sees_entries_and_no_free_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists_keep_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(agrees_with_a_model, set_up, tear_down),
        cmocka_unit_test(every_state_has_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
