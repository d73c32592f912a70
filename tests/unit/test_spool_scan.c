/* The decision table of recovery: every cell, against a list and against what the list must obey.
 */
#include "worker/spool/scan.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct {
    enum scan_head head;
    enum scan_order order;
    enum scan_body body;
    enum scan_proof proof;
    enum scan_action action;
    bool report;
} cells[] = {
    /* Without a head there is no sequence and no whole body: the other inputs do not matter. */
    {HEAD_NONE, ORDER_BEYOND, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_BEYOND, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_BEYOND, BODY_WHOLE, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_BEYOND, BODY_WHOLE, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_BEHIND, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_BEHIND, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_BEHIND, BODY_WHOLE, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_BEHIND, BODY_WHOLE, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_NEXT, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_NEXT, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_NEXT, BODY_WHOLE, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_NEXT, BODY_WHOLE, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_AHEAD, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_AHEAD, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_NONE, ORDER_AHEAD, BODY_WHOLE, PROOF_NONE, ACTION_END, false},
    {HEAD_NONE, ORDER_AHEAD, BODY_WHOLE, PROOF_LATER, ACTION_SALVAGE, true},
    /* Numbers of a younger segment: a commit that failed. */
    {HEAD_OK, ORDER_BEYOND, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_OK, ORDER_BEYOND, BODY_BROKEN, PROOF_LATER, ACTION_END, false},
    {HEAD_OK, ORDER_BEYOND, BODY_WHOLE, PROOF_NONE, ACTION_END, false},
    {HEAD_OK, ORDER_BEYOND, BODY_WHOLE, PROOF_LATER, ACTION_END, false},
    {HEAD_OK, ORDER_BEHIND, BODY_BROKEN, PROOF_NONE, ACTION_SKIP, true},
    {HEAD_OK, ORDER_BEHIND, BODY_BROKEN, PROOF_LATER, ACTION_SKIP, true},
    {HEAD_OK, ORDER_BEHIND, BODY_WHOLE, PROOF_NONE, ACTION_SKIP, true},
    {HEAD_OK, ORDER_BEHIND, BODY_WHOLE, PROOF_LATER, ACTION_SKIP, true},
    {HEAD_OK, ORDER_NEXT, BODY_BROKEN, PROOF_NONE, ACTION_END, false},
    {HEAD_OK, ORDER_NEXT, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_OK, ORDER_NEXT, BODY_WHOLE, PROOF_NONE, ACTION_NEXT, false},
    {HEAD_OK, ORDER_NEXT, BODY_WHOLE, PROOF_LATER, ACTION_NEXT, false},
    {HEAD_OK, ORDER_AHEAD, BODY_BROKEN, PROOF_NONE, ACTION_END, true},
    {HEAD_OK, ORDER_AHEAD, BODY_BROKEN, PROOF_LATER, ACTION_SALVAGE, true},
    {HEAD_OK, ORDER_AHEAD, BODY_WHOLE, PROOF_NONE, ACTION_NEXT, true},
    {HEAD_OK, ORDER_AHEAD, BODY_WHOLE, PROOF_LATER, ACTION_NEXT, true},
};

static void test_every_cell(void **state)
{
    (void)state;
    bool seen[2][4][2][2] = {{{{false}}}};
    assert_int_equal(ARRAY_COUNT(cells), 2 * 4 * 2 * 2);
    for (size_t i = 0; i < ARRAY_COUNT(cells); i++) {
        bool *cell = &seen[cells[i].head][cells[i].order][cells[i].body][cells[i].proof];
        assert_false(*cell);
        *cell = true;
        struct scan_verdict v =
            scan_decide(cells[i].head, cells[i].order, cells[i].body, cells[i].proof);
        assert_int_equal(v.action, cells[i].action);
        assert_int_equal(v.report, cells[i].report);
    }
}

/* What any such table must obey, said apart from the list. */
static void test_laws(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cells); i++) {
        struct scan_verdict v =
            scan_decide(cells[i].head, cells[i].order, cells[i].body, cells[i].proof);
        bool beyond = cells[i].head == HEAD_OK && cells[i].order == ORDER_BEYOND;
        bool unbroken = cells[i].head == HEAD_OK && cells[i].body == BODY_WHOLE;
        /* The log never ends before something that was acknowledged. */
        if (cells[i].proof == PROOF_LATER && !beyond)
            assert_int_not_equal(v.action, ACTION_END);
        /* Nothing is passed over in silence. */
        if (v.action == ACTION_SALVAGE || v.action == ACTION_SKIP)
            assert_true(v.report);
        /* Only a whole batch is taken as one; only a batch that has a head has a length to go on
         * by. */
        if (v.action == ACTION_NEXT)
            assert_true(unbroken);
        if (v.action == ACTION_SKIP)
            assert_int_equal(cells[i].head, HEAD_OK);
        /* A power cut alone is no damage. */
        if (cells[i].order == ORDER_NEXT && cells[i].proof == PROOF_NONE)
            assert_false(v.report);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell),
        cmocka_unit_test(test_laws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
