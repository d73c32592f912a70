/* request: what a lane answers in each state, by epochs and by who holds which address; with driver
 * none, so that nothing but the table and the bookkeeping is at work. */
#include "base/log.h"
#include "master/netd/request.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct netd n;
static int master_fd;
static uint64_t next_id = 1;
static struct netd_frame got;

static int setup(void **state)
{
    (void)state;
    int pair[2];
    memset(&n, 0, sizeof n);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    n.control_fd = pair[0];
    master_fd = pair[1];
    n.started = true;
    n.renew_ns = UINT64_MAX;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(n.control_fd);
    close(master_fd);
    table_fini(&n.by_number);
    table_fini(&n.by_address);
    return 0;
}

static struct netd_place place(uint32_t lane, uint32_t address, uint32_t epoch)
{
    struct netd_place p = {.lane = lane, .epoch = epoch, .driver = NETD_NONE};
    char text[IP_TEXT];
    (void)snprintf(text, sizeof text, "10.%u.%u.%u", 1 + address / 65536, address / 256 % 256,
                   address % 256);
    assert_int_equal(ip_parse(span_str(text), &p.address), 0);
    return p;
}

static enum netd_result ask_place(enum netd_action action, struct netd_place p)
{
    struct netd_request r = {.id = next_id++, .action = action, .place = p, .deadline_ms = 1000};
    n.now_ns = netd_now_ns();
    request_take(&n, &r);
    assert_int_equal(netd_receive(master_fd, &got), 1);
    assert_int_equal(got.kind, NETD_ANSWER);
    assert_true(got.answer.id == r.id);
    assert_int_equal(netd_receive(master_fd, &got), -EAGAIN); /* one answer, not two */
    return got.answer.result;
}

static enum netd_result ask(enum netd_action action, uint32_t lane, uint32_t epoch, bool tail)
{
    struct netd_place p = place(lane, lane, epoch);
    p.tail = tail;
    return ask_place(action, p);
}

static enum lane_state state_of(uint32_t lane)
{
    struct netd_place p = place(lane, lane, 1);
    const struct lane *l = request_lane_of(&n, &p.address);
    return l != NULL ? l->state : LANE_ABSENT;
}

static void test_life(void **state)
{
    (void)state;
    assert_int_equal(ask(NETD_VERIFY, 1, 1, false), NETD_FAILED);
    assert_int_equal(ask(NETD_RELEASE, 1, 1, true), NETD_OK);
    assert_int_equal(state_of(1), LANE_ABSENT); /* nothing to leave a tail of */
    assert_int_equal(ask(NETD_END_TAIL, 1, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_PREPARE, 1, 1, false), NETD_OK);
    assert_int_equal(state_of(1), LANE_ABSENT);
    for (unsigned again = 0; again < 2; again++) {
        assert_int_equal(ask(NETD_ACQUIRE, 1, 1, false), NETD_OK);
        assert_int_equal(state_of(1), LANE_HELD);
    }
    assert_int_equal(ask(NETD_PREPARE, 1, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_VERIFY, 1, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_END_TAIL, 1, 1, false), NETD_OK);
    assert_int_equal(state_of(1), LANE_HELD);
    for (unsigned again = 0; again < 2; again++) {
        assert_int_equal(ask(NETD_RELEASE, 1, 1, true), NETD_OK);
        assert_int_equal(state_of(1), LANE_TAIL);
    }
    assert_int_equal(ask(NETD_VERIFY, 1, 1, false), NETD_FAILED);
    assert_int_equal(ask(NETD_PREPARE, 1, 2, false), NETD_OK);
    assert_int_equal(state_of(1), LANE_TAIL);
    assert_int_equal(ask(NETD_END_TAIL, 1, 2, false), NETD_OK);
    assert_int_equal(state_of(1), LANE_ABSENT);
}

static void test_epochs(void **state)
{
    (void)state;
    assert_int_equal(ask(NETD_ACQUIRE, 1, 5, false), NETD_OK);
    assert_int_equal(ask(NETD_ACQUIRE, 1, 4, false), NETD_FAILED);
    assert_int_equal(ask(NETD_RELEASE, 1, 4, false), NETD_FAILED);
    assert_int_equal(state_of(1), LANE_HELD);
    assert_int_equal(ask(NETD_RELEASE, 1, 5, false), NETD_OK);
    /* It remembers after it has left: a late request of the old owner's time changes nothing. */
    assert_int_equal(ask(NETD_ACQUIRE, 1, 4, false), NETD_FAILED);
    assert_int_equal(ask_place(NETD_ACQUIRE, place(1, 99, 4)), NETD_FAILED);
    assert_int_equal(ask(NETD_ACQUIRE, 1, 6, false), NETD_OK);
    assert_int_equal(ask(NETD_PREPARE, 1, 7, false), NETD_OK);
    assert_int_equal(ask(NETD_RELEASE, 1, 6, false), NETD_OK); /* preparing is no new epoch */
}

static void test_addresses(void **state)
{
    (void)state;
    assert_int_equal(ask(NETD_ACQUIRE, 1, 1, false), NETD_OK);
    assert_int_equal(ask_place(NETD_ACQUIRE, place(2, 1, 1)), NETD_FAILED);
    assert_int_equal(ask_place(NETD_ACQUIRE, place(1, 2, 1)), NETD_FAILED);
    struct netd_place other = place(1, 1, 1);
    other.driver = NETD_EXEC;
    assert_int_equal(ask_place(NETD_RELEASE, other), NETD_FAILED);
    assert_int_equal(ask(NETD_RELEASE, 1, 1, false), NETD_OK);
    /* The configuration gave the address to another lane. */
    assert_int_equal(ask_place(NETD_ACQUIRE, place(2, 1, 1)), NETD_OK);
    assert_int_equal(ask_place(NETD_ACQUIRE, place(1, 1, 2)), NETD_FAILED);
    assert_int_equal(ask_place(NETD_ACQUIRE, place(1, 2, 2)), NETD_OK);
    struct netd_place p = place(2, 1, 1);
    assert_int_equal(request_lane_of(&n, &p.address)->place.lane, 2);
}

/* Lanes that have left make room; lanes that are here do not. */
static void test_room(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= NETD_LANES; i++)
        assert_int_equal(ask(NETD_ACQUIRE, i, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_ACQUIRE, NETD_LANES + 1, 1, false), NETD_FAILED);
    assert_int_equal(ask(NETD_RELEASE, 77, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_ACQUIRE, NETD_LANES + 1, 1, false), NETD_OK);
    assert_int_equal(state_of(NETD_LANES + 1), LANE_HELD);
    assert_int_equal(ask(NETD_ACQUIRE, 77, 1, false), NETD_FAILED);
    for (uint32_t i = 1; i <= NETD_LANES + 1; i++)
        assert_int_equal(state_of(i), i == 77 ? LANE_ABSENT : LANE_HELD);
}

static void test_hold(void **state)
{
    (void)state;
    struct netd_place p = place(1, 1, 3), same_address = place(2, 1, 3);
    p.tail = true;
    assert_int_equal(request_hold(&n, &p), 0);
    assert_int_equal(state_of(1), LANE_TAIL);
    assert_int_equal(request_hold(&n, &p), -EBADMSG);
    assert_int_equal(request_hold(&n, &same_address), -EBADMSG);
    assert_int_equal(ask(NETD_ACQUIRE, 1, 2, false), NETD_FAILED);
    assert_int_equal(ask(NETD_END_TAIL, 1, 3, false), NETD_OK);
}

/* The kernel tells of every address that comes or goes, also of one whose lane has just left: what
   nobody will look at must not keep the loop from sleeping. */
static void test_sleep(void **state)
{
    (void)state;
    struct netd_place p = place(1, 1, 1);
    assert_int_equal(ask(NETD_ACQUIRE, 1, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_RELEASE, 1, 1, false), NETD_OK);
    assert_int_equal(ask(NETD_ACQUIRE, 2, 1, false), NETD_OK);
    for (unsigned all = 0; all < 2; all++) {
        request_stir(&n, all ? NULL : &p.address);
        assert_true(request_next_ns(&n) == 0);
        n.now_ns = netd_now_ns();
        request_turn(&n);
        assert_true(request_next_ns(&n) > n.now_ns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sleep, setup, teardown),
    };
    log_open(STDERR_FILENO, LOG_ERR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
