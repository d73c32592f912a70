/*
 * Every cell of the machine of moves: each side, state and event, under answers that fit and that
 * do not. No cell crashes, repeats itself without end, or leads where no arrow is.
 */
#include "master/move/machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TO(s) (1u << (s))
static const uint32_t arrows[MOVE_STATE_COUNT] = {
    [GIVE_WAITING] = TO(GIVE_PREPARING) | TO(MOVE_OVER),
    [GIVE_PREPARING] = TO(GIVE_COPYING) | TO(MOVE_OVER),
    [GIVE_COPYING] = TO(GIVE_FREEZING) | TO(MOVE_OVER),
    [GIVE_FREEZING] = TO(GIVE_FROZEN) | TO(GIVE_BACK) | TO(MOVE_OVER), /* over: never frozen */
    [GIVE_FROZEN] = TO(GIVE_RELEASING) | TO(GIVE_BACK),
    [GIVE_RELEASING] = TO(GIVE_SWAPPING) | TO(GIVE_BACK),
    [GIVE_SWAPPING] = TO(GIVE_GIVEN) | TO(GIVE_BACK),
    [GIVE_GIVEN] = TO(GIVE_TAIL),
    [GIVE_TAIL] = TO(GIVE_ENDING),
    [GIVE_ENDING] = TO(MOVE_OVER),
    [GIVE_BACK] = TO(GIVE_RESUMING) | TO(GIVE_GIVEN),
    [GIVE_RESUMING] = TO(GIVE_WAITING) | TO(MOVE_OVER),
    [TAKE_CHECKING] = TO(TAKE_ENLISTING) | TO(MOVE_OVER),
    [TAKE_ENLISTING] = TO(TAKE_REPLICA) | TO(TAKE_READY) | TO(TAKE_OWNING) | TO(TAKE_DROPPING) |
                       TO(MOVE_OVER),
    [TAKE_REPLICA] = TO(TAKE_READY) | TO(TAKE_OWNING) | TO(TAKE_DROPPING) | TO(MOVE_OVER),
    [TAKE_READY] = TO(TAKE_OWNING) | TO(TAKE_DROPPING) | TO(MOVE_OVER),
    [TAKE_OWNING] = TO(TAKE_STARTING),
    [TAKE_STARTING] = TO(TAKE_TAIL),
    [TAKE_TAIL] = TO(TAKE_ENDING),
    [TAKE_ENDING] = TO(MOVE_OVER),
    [TAKE_DROPPING] = TO(MOVE_OVER),
    [MOVE_OVER] = 0,
};
static struct lane_record record;
static uint64_t now;
static unsigned said, seen[MOVE_STATE_COUNT];

static uint64_t env_now(void *ctx)
{
    (void)ctx;
    return now;
}

static struct lane_record *env_record(void *ctx, const struct ip *address)
{
    (void)ctx, (void)address;
    return &record;
}

static void env_change(void *ctx, struct lane_move *l, const struct lane_change *c)
{
    (void)ctx, (void)l;
    /* The one thing that no cell may do: to take what is another node's by itself. A change that
       expects another owner than there is is none. */
    bool ours = strcmp(c->owner, "a") == 0, was = strcmp(record.owner, "a") == 0;
    bool stale = strcmp(c->owner_before, record.owner) != 0 || c->epoch_before != record.epoch;
    assert_true(was || !ours || stale || l->state == TAKE_OWNING);
    assert_true(c->epoch >= record.epoch);
    said++;
}

static void env_order(void *ctx, struct lane_move *l, const struct control_lane_order *o)
{
    (void)ctx, (void)l, (void)o;
    said++;
}

static void env_set(void *ctx, struct lane_move *l)
{
    (void)ctx, (void)l;
    said++;
}

static void env_run(void *ctx, struct lane_move *l)
{
    (void)ctx;
    assert_true(l->state == GIVE_RESUMING || l->state == TAKE_OWNING);
    said++;
}

static void env_send(void *ctx, const char *node, const struct move_item *item)
{
    (void)ctx, (void)item;
    assert_string_equal(node, "b");
    said++;
}

static void env_ask(void *ctx, struct lane_move *l, enum netd_action action)
{
    (void)ctx, (void)l, (void)action;
    said++;
}

static uint32_t env_slot(void *ctx, const struct lane_record *r)
{
    (void)ctx, (void)r;
    return 0;
}

static const struct move_env_ops ops = {.now_us = env_now,
                                        .record = env_record,
                                        .change = env_change,
                                        .order = env_order,
                                        .order_set = env_set,
                                        .run = env_run,
                                        .send = env_send,
                                        .ask = env_ask,
                                        .slot = env_slot};
static const struct move_env env = {.ops = &ops, .node = "a"};

/* Answers: which of the lane's facts fit, by bits. */
enum { EPOCH = 1, OURS = 2, MOVE = 4, GOOD = 8, LATE = 16, ROLE = 32, PARTS = 64, CASES = 128 };

static enum lane_role role_of(enum move_state s)
{
    if (s == GIVE_FREEZING || (s >= GIVE_FROZEN && s <= GIVE_SWAPPING) || s == GIVE_BACK)
        return LANE_FROZEN;
    if (s == GIVE_GIVEN || s == GIVE_TAIL || s == GIVE_ENDING || s == TAKE_DROPPING)
        return LANE_AWAY;
    return s == TAKE_ENLISTING || s == TAKE_REPLICA || s == TAKE_READY ? LANE_REPLICA : LANE_OWNER;
}

static uint32_t epoch_of(enum move_state s, unsigned bits)
{
    bool next = s == GIVE_GIVEN || s == TAKE_READY || s == TAKE_REPLICA || s >= TAKE_OWNING;
    return (bits & EPOCH) == 0 ? 9 : 3 + (next ? 1 : 0);
}

static void set_up(struct lane_move *l, enum move_state s, enum move_event e, unsigned bits)
{
    static const enum netd_action asked[MOVE_STATE_COUNT] = {
        [GIVE_RELEASING] = NETD_RELEASE, [GIVE_ENDING] = NETD_END_TAIL,
        [GIVE_RESUMING] = NETD_ACQUIRE,  [TAKE_CHECKING] = NETD_PREPARE,
        [TAKE_OWNING] = NETD_ACQUIRE,    [TAKE_ENDING] = NETD_END_TAIL};
    now = 1000000000;
    record = (struct lane_record){.number = 1, .configured = true, .epoch = 3, .role = role_of(s)};
    record.move = (bits & MOVE) != 0 ? 77 : 0;
    snprintf(record.owner, sizeof record.owner, "%s", (bits & OURS) != 0 ? "a" : "b");
    *l = (struct lane_move){.env = &env,
                            .side = s < TAKE_CHECKING ? MOVE_GIVER : MOVE_TAKER,
                            .state = s,
                            .move = 77,
                            .epoch = 3,
                            .wanted = s < TAKE_CHECKING && (bits & MOVE) == 0 ? MOVE_OPEN
                                                                              : MOVE_ABORTED,
                            .parts = (bits & PARTS) == 0                        ? 0
                                     : s == GIVE_ENDING || s == TAKE_ENDING ? PART_NETD
                                                                            : PART_WORKER,
                            .entered_us = (bits & LATE) != 0 ? 1 : now,
                            .asked = asked[s],
                            .asking = e >= EV_NETD_OK && e <= EV_NETD_FAILED,
                            .changing = e == EV_CHANGED || e == EV_UNCHANGED};
    snprintf(l->peer, sizeof l->peer, "b");
    l->item = (struct move_item){.epoch = epoch_of(s, bits), .move = 77, .slot = 0};
    l->order = (struct control_lane_order){.epoch = epoch_of(s, bits),
                                           .move = 77,
                                           .role = (bits & ROLE) != 0 ? role_of(s) : LANE_AWAY,
                                           .run = (bits & GOOD) != 0,
                                           .complete = (bits & PARTS) != 0,
                                           .result = (bits & GOOD) != 0 ? 0 : -EINVAL};
    l->progress.tails = (bits & GOOD) == 0;
    l->change_rc = (bits & GOOD) != 0 ? -EIO : -ESTALE;
}

static void one_cell(enum move_state s, enum move_event e, unsigned bits)
{
    struct lane_move l;
    set_up(&l, s, e, bits);
    said = 0;
    lane_move_event(&l, e);
    if (l.state != s && (arrows[s] & TO(l.state)) == 0)
        fail_msg("%s by %s goes to %s (case %u)", move_state_word(s), move_event_word(e),
                 move_state_word(l.state), bits);
    assert_true(said <= 8);
    if (l.state == MOVE_OVER && s != MOVE_OVER)
        assert_int_not_equal(l.outcome, MOVE_OPEN);
    if (s != MOVE_OVER && l.state != s)
        seen[l.state]++;
}

static void test_every_cell(void **state)
{
    (void)state;
    for (unsigned s = 0; s < MOVE_STATE_COUNT; s++) {
        for (unsigned e = 0; e < MOVE_EVENT_COUNT; e++) {
            assert_non_null(move_event_word((enum move_event)e));
            for (unsigned bits = 0; bits < CASES; bits++)
                one_cell((enum move_state)s, (enum move_event)e, bits);
        }
        assert_non_null(move_state_word((enum move_state)s));
    }
    /* A walk that reaches nothing would find nothing: only the first states have no way in. */
    for (unsigned s = 0; s < MOVE_STATE_COUNT; s++) {
        if (s != TAKE_CHECKING && seen[s] == 0)
            fail_msg("no cell leads to %s", move_state_word((enum move_state)s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_cell)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
