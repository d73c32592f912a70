/* netd_frame: every kind round trips; what is out of range is refused field by field. */
#include "proto/netd_frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t buffer[LIMIT_FRAME_BYTES];
static struct netd_frame out, again;

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(span_str(text), &ip), 0);
    return ip;
}

static int pass(const struct netd_frame *in)
{
    size_t n;
    assert_int_equal(netd_encode(in, buffer, sizeof buffer, &n), 0);
    return netd_decode(span_of(buffer, n), &out);
}

static struct netd_place place(void)
{
    struct netd_place p = {.lane = 7,
                           .epoch = 3,
                           .driver = NETD_L2,
                           .address = ip_of("203.0.113.5"),
                           .interface = "eth0",
                           .tail = true,
                           .has_peer = true};
    p.forward = (struct netd_tail){ip_of("203.0.113.1"), 20000, 39999};
    return p;
}

static struct netd_frame request(void)
{
    struct netd_frame f = {.kind = NETD_REQUEST};
    f.request = (struct netd_request){.id = UINT64_MAX,
                                      .action = NETD_ACQUIRE,
                                      .place = place(),
                                      .pool = "p",
                                      .from = "a",
                                      .to = "b",
                                      .deadline_ms = NETD_DEADLINE_MS_MAX,
                                      .probe_ms = NETD_PROBE_MS_MAX};
    return f;
}

static void test_request(void **state)
{
    (void)state;
    struct netd_frame in = request();
    const struct netd_request *r = &out.request;
    assert_int_equal(pass(&in), 0);
    assert_int_equal(out.kind, NETD_REQUEST);
    assert_true(r->id == UINT64_MAX);
    assert_int_equal(r->action, NETD_ACQUIRE);
    assert_int_equal(r->place.lane, 7);
    assert_int_equal(r->place.epoch, 3);
    assert_int_equal(r->place.driver, NETD_L2);
    assert_true(ip_eq(&r->place.address, &in.request.place.address));
    assert_true(ip_eq(&r->place.forward.peer, &in.request.place.forward.peer));
    assert_true(r->place.has_peer);
    assert_true(r->place.tail);
    assert_int_equal(r->place.forward.port_low, 20000);
    assert_int_equal(r->place.forward.port_high, 39999);
    assert_string_equal(r->place.interface, "eth0");
    assert_string_equal(r->pool, "p");
    assert_string_equal(r->from, "a");
    assert_string_equal(r->to, "b");
    assert_int_equal(r->deadline_ms, NETD_DEADLINE_MS_MAX);
    assert_int_equal(r->probe_ms, NETD_PROBE_MS_MAX);
}

/* One field at a time is made wrong. */
enum wrong {
    W_ID,
    W_ACTION_0,
    W_ACTION_HIGH,
    W_DRIVER_0,
    W_DRIVER_HIGH,
    W_EPOCH,
    W_LOOPBACK,
    W_MULTICAST,
    W_ZERO,
    W_V6_MULTICAST,
    W_V6_LOOPBACK,
    W_PEER_FAMILY,
    W_PEER_MULTICAST,
    W_PORTS_NO_PEER,
    W_PORTS_ORDER,
    W_DEADLINE_0,
    W_DEADLINE_HIGH,
    W_PROBE_HIGH,
    W_CONTROL_CHARACTER,
    W_COUNT
};

static void spoil(struct netd_request *r, enum wrong w)
{
    struct netd_place *p = &r->place;
    static const char *const address[W_COUNT] = {[W_LOOPBACK] = "127.0.0.1",
                                                 [W_MULTICAST] = "224.0.0.1",
                                                 [W_ZERO] = "0.0.0.0",
                                                 [W_V6_MULTICAST] = "ff02::1",
                                                 [W_V6_LOOPBACK] = "::1"};
    if (address[w] != NULL) {
        p->address = ip_of(address[w]);
        p->has_peer = false; /* or the families would not fit together */
        p->forward.port_low = p->forward.port_high = 0;
    }
    r->id = w == W_ID ? 0 : r->id;
    r->action = w == W_ACTION_0 ? 0 : w == W_ACTION_HIGH ? NETD_ACTION_COUNT : r->action;
    p->driver = w == W_DRIVER_0 ? 0 : w == W_DRIVER_HIGH ? NETD_DRIVER_COUNT : p->driver;
    p->epoch = w == W_EPOCH ? 0 : p->epoch;
    if (w == W_PEER_FAMILY)
        p->forward.peer = ip_of("2001:db8::1");
    if (w == W_PEER_MULTICAST)
        p->forward.peer = ip_of("239.1.1.1");
    p->has_peer = w == W_PORTS_NO_PEER ? false : p->has_peer;
    p->forward.port_high = w == W_PORTS_ORDER ? 19999 : p->forward.port_high;
    r->deadline_ms = w == W_DEADLINE_0      ? 0
                     : w == W_DEADLINE_HIGH ? NETD_DEADLINE_MS_MAX + 1
                                            : r->deadline_ms;
    r->probe_ms = w == W_PROBE_HIGH ? NETD_PROBE_MS_MAX + 1 : r->probe_ms;
    if (w == W_CONTROL_CHARACTER)
        r->pool[0] = '\n';
}

static void test_ranges(void **state)
{
    (void)state;
    for (unsigned w = 0; w < W_COUNT; w++) {
        struct netd_frame in = request();
        spoil(&in.request, (enum wrong)w);
        if (pass(&in) != -EBADMSG)
            fail_msg("wrong field %u was taken", w);
    }
    struct netd_frame v6 = request();
    v6.request.place.address = ip_of("2001:db8::5");
    v6.request.place.forward.peer = ip_of("fe80::1");
    assert_int_equal(pass(&v6), 0);
}

static void test_start(void **state)
{
    (void)state;
    static struct netd_frame in;
    in = (struct netd_frame){.kind = NETD_START};
    in.start.version = NETD_VERSION;
    in.start.uid = 5;
    in.start.gid = 6;
    in.start.hook_ms = 7;
    in.start.last = true;
    memcpy(in.start.hook, "/h", 3);
    in.start.held_count = NETD_HELD_PER_FRAME;
    for (unsigned i = 0; i < NETD_HELD_PER_FRAME; i++) {
        in.start.held[i] = place();
        in.start.held[i].lane = i;
    }
    assert_int_equal(pass(&in), 0);
    assert_int_equal(out.start.held_count, NETD_HELD_PER_FRAME);
    assert_int_equal(out.start.held[NETD_HELD_PER_FRAME - 1].lane, NETD_HELD_PER_FRAME - 1);
    assert_int_equal(out.start.held[3].forward.port_high, 39999);
    assert_int_equal(out.start.uid, 5);
    assert_int_equal(out.start.gid, 6);
    assert_true(out.start.last);
    assert_string_equal(out.start.hook, "/h");
    memcpy(in.start.hook, "h", 2); /* not absolute */
    assert_int_equal(pass(&in), -EBADMSG);
}

static void test_answers(void **state)
{
    (void)state;
    struct netd_frame in = {.kind = NETD_ANSWER};
    in.answer =
        (struct netd_answer){.id = 1, .result = NETD_FAILED, .microseconds = 9, .reason = "in use"};
    assert_int_equal(pass(&in), 0);
    assert_int_equal(out.answer.result, NETD_FAILED);
    assert_string_equal(out.answer.reason, "in use");
    assert_int_equal(out.answer.microseconds, 9);
    in.answer.result = NETD_RESULT_COUNT;
    assert_int_equal(pass(&in), -EBADMSG);

    in = (struct netd_frame){.kind = NETD_NOTICE};
    in.notice = (struct netd_notice){.what = NETD_CLASH, .lane = 4, .epoch = 2, .reason = "x"};
    assert_int_equal(pass(&in), 0);
    assert_int_equal(out.notice.what, NETD_CLASH);
    assert_int_equal(out.notice.lane, 4);
    in.notice.what = NETD_WHAT_COUNT;
    assert_int_equal(pass(&in), -EBADMSG);

    in = (struct netd_frame){.kind = NETD_READY};
    in.ready.version = 1;
    in.ready.pid = 2;
    in.ready.dropped = 3;
    assert_int_equal(pass(&in), 0);
    assert_int_equal(out.ready.dropped, 3);
}

/* Thousands of empty entries in a few bytes: the budget of memory ends it. */
static void test_budget(void **state)
{
    (void)state;
    size_t n = 0;
    buffer[n++] = 0x0a;
    size_t body = LIMIT_FRAME_BYTES - 8;
    buffer[n++] = (uint8_t)(body | 0x80);
    buffer[n++] = (uint8_t)(body >> 7 | 0x80);
    buffer[n++] = (uint8_t)(body >> 14);
    for (size_t i = 0; i < body; i += 2) {
        buffer[n++] = 0x32; /* held, of no bytes */
        buffer[n++] = 0;
    }
    assert_int_equal(netd_decode(span_of(buffer, n), &again), -EBADMSG);
    assert_int_equal(netd_decode(span_of(buffer, 0), &again), -EBADMSG);
}

static void test_cut(void **state)
{
    (void)state;
    struct netd_frame in = request();
    size_t n;
    assert_int_equal(netd_encode(&in, buffer, sizeof buffer, &n), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(netd_decode(span_of(buffer, i), &again), -EBADMSG);
    assert_int_equal(netd_encode(&in, buffer, n - 1, &n), -E2BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request), cmocka_unit_test(test_ranges), cmocka_unit_test(test_start),
        cmocka_unit_test(test_answers), cmocka_unit_test(test_budget), cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
