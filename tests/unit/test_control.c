/* control: round trips of every kind, ranges, the budget, descriptors. */
#include "proto/control.h"

#include "proto/control.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct span encoded(const struct control_frame *f, uint8_t *room)
{
    size_t n = 0;
    assert_int_equal(control_encode(f, room, LIMIT_FRAME_BYTES, &n), 0);
    return span_of(room, n);
}

/* A copy of exactly n bytes, so that ASan sees a read beyond the end. */
static int decode_exact(struct span s, struct control_frame *out)
{
    uint8_t *copy = malloc(s.n > 0 ? s.n : 1);
    assert_non_null(copy);
    if (s.n > 0)
        memcpy(copy, s.p, s.n);
    int rc = control_decode(span_of(copy, s.n), out);
    free(copy);
    return rc;
}

static uint32_t some_shards[] = {0, 3, 63};
static uint32_t some_listeners[] = {0, 1};
static struct control_lane some_lanes[] = {
    {.lane = 1,
     .shard = 0,
     .worker = 0,
     .epoch = 1,
     .address = {{1, 2, 3}},
     .role = LANE_OWNER,
     .run = true,
     .owner_slot = CONTROL_NO_SLOT},
    {.lane = 4000000000,
     .shard = 63,
     .worker = 3,
     .epoch = 9,
     .address = {{255, 254}},
     .role = LANE_REPLICA,
     .owner_slot = 5,
     .move = UINT64_MAX,
     .owner = "b"},
};
static struct control_hold some_holds[] = {
    {.kind = "lane", .value = "192.0.2.10", .why = "warm-up", .since = 1795000000},
    {.kind = "all", .value = "", .why = "", .since = 0},
};
static struct msg_id some_poison[] = {{1, 2}, {UINT64_MAX, UINT64_MAX}};
static char arg_a[] = "by=lane", arg_b[] = "empty=", arg_c[] = "by2=x=y";
static char *some_args[] = {arg_a, arg_b, arg_c};
static uint8_t some_body[] = "{\"rows\":[]}";

static struct control_frame sample(enum control_kind kind)
{
    struct control_frame f = {.kind = kind, .core = -1, .slot = CONTROL_NO_SLOT, .status = 200};
    switch (kind) {
    case CONTROL_READY:
        f.pid = 77, f.generation = 5, f.version = CONTROL_VERSION;
        break;
    case CONTROL_START:
        f.generation = 5, f.slot = 3, f.workers = 4, f.boot = (UINT64_C(1) << 48) - 1, f.core = 2;
        f.held = true, f.last = false, f.incarnation = 12;
        strcpy(f.config_name, "/etc/mochila/mochila.yaml");
        f.shards = some_shards, f.shard_count = 3;
        f.listeners = some_listeners, f.listener_count = 2;
        f.lanes = some_lanes, f.lane_count = 2;
        f.holds = some_holds, f.hold_count = 2;
        f.poison = some_poison, f.poison_count = 2;
        break;
    case CONTROL_HOLDS:
        f.holds = some_holds, f.hold_count = 2, f.last = true;
        break;
    case CONTROL_PEER_UP:
        f.incarnation = 9, f.slot = 1;
        break;
    case CONTROL_PEER_DOWN:
        f.incarnation = 9;
        break;
    case CONTROL_DRAIN:
        f.seconds = 30;
        break;
    case CONTROL_DRAINED:
        f.open = 4;
        break;
    case CONTROL_QUERY:
        f.id = UINT64_MAX, f.args = some_args, f.arg_count = 3;
        strcpy(f.verb, "queue");
        break;
    case CONTROL_ANSWER:
        f.id = 8, f.last = true, f.status = 404, f.slot = 2;
        f.body = some_body, f.body_bytes = sizeof some_body - 1;
        break;
    case CONTROL_RECOVERED:
        f.messages = 1000000, f.milliseconds = 900, f.damaged = 1;
        break;
    case CONTROL_LINK:
        f.link = (struct control_link){CONTROL_LINK_SEND, 1, "b", 2, 3, 4, 5, 6, 7, 8, "because"};
        f.body = some_body, f.body_bytes = sizeof some_body - 1;
        break;
    case CONTROL_CARRIER:
        f.slot = 3;
        break;
    case CONTROL_LANE:
        f.order = (struct control_lane_order){
            LANE_OP_SET_DONE, 7, 9, 2, UINT64_MAX, 1 << 20, LANE_FROZEN, true, true, "b", -EBUSY,
            3, 4, 5, 6, 7, 8, 9, "because"};
        break;
    case CONTROL_KIND_COUNT:
        fail();
    }
    return f;
}

static void assert_lists_equal(const struct control_frame *a, const struct control_frame *b)
{
    assert_int_equal(a->shard_count, b->shard_count);
    assert_int_equal(a->listener_count, b->listener_count);
    assert_int_equal(a->lane_count, b->lane_count);
    assert_int_equal(a->hold_count, b->hold_count);
    assert_int_equal(a->poison_count, b->poison_count);
    assert_int_equal(a->arg_count, b->arg_count);
    assert_int_equal(a->body_bytes, b->body_bytes);
    assert_true(span_eq(span_of(a->shards, a->shard_count * sizeof *a->shards),
                        span_of(b->shards, b->shard_count * sizeof *b->shards)));
    assert_true(span_eq(span_of(a->listeners, a->listener_count * sizeof *a->listeners),
                        span_of(b->listeners, b->listener_count * sizeof *b->listeners)));
    for (uint32_t i = 0; i < a->lane_count; i++) {
        assert_int_equal(a->lanes[i].lane, b->lanes[i].lane);
        assert_int_equal(a->lanes[i].shard, b->lanes[i].shard);
        assert_int_equal(a->lanes[i].worker, b->lanes[i].worker);
        assert_int_equal(a->lanes[i].epoch, b->lanes[i].epoch);
        assert_true(ip_eq(&a->lanes[i].address, &b->lanes[i].address));
        assert_int_equal(a->lanes[i].role, b->lanes[i].role);
        assert_int_equal(a->lanes[i].run, b->lanes[i].run);
        assert_int_equal(a->lanes[i].owner_slot, b->lanes[i].owner_slot);
        assert_int_equal(a->lanes[i].move, b->lanes[i].move);
        assert_string_equal(a->lanes[i].owner, b->lanes[i].owner);
    }
    for (uint32_t i = 0; i < a->hold_count; i++) {
        assert_string_equal(a->holds[i].kind, b->holds[i].kind);
        assert_string_equal(a->holds[i].value, b->holds[i].value);
        assert_string_equal(a->holds[i].why, b->holds[i].why);
        assert_int_equal(a->holds[i].since, b->holds[i].since);
    }
    for (uint32_t i = 0; i < a->poison_count; i++)
        assert_true(id_eq(a->poison[i], b->poison[i]));
    for (uint32_t i = 0; i < a->arg_count; i++)
        assert_string_equal(a->args[i], b->args[i]);
    assert_true(span_eq(span_of(a->body, a->body_bytes), span_of(b->body, b->body_bytes)));
}

static void assert_orders_equal(const struct control_lane_order *a,
                                const struct control_lane_order *b)
{
    assert_int_equal(a->op, b->op);
    assert_int_equal(a->lane, b->lane);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->move, b->move);
    assert_int_equal(a->rate, b->rate);
    assert_int_equal(a->role, b->role);
    assert_int_equal(a->run, b->run);
    assert_int_equal(a->complete, b->complete);
    assert_string_equal(a->node, b->node);
    assert_int_equal(a->result, b->result);
    assert_int_equal(a->tails, b->tails);
    assert_memory_equal(&a->messages_sent, &b->messages_sent, 6 * sizeof a->messages_sent);
    assert_string_equal(a->why, b->why);
}

static void assert_frames_equal(const struct control_frame *a, const struct control_frame *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->boot, b->boot);
    assert_int_equal(a->incarnation, b->incarnation);
    assert_int_equal(a->link.op, b->link.op);
    assert_int_equal(a->link.channel, b->link.channel);
    assert_string_equal(a->link.peer, b->link.peer);
    assert_string_equal(a->link.why, b->link.why);
    assert_memory_equal(&a->link.stream, &b->link.stream, 6 * sizeof a->link.stream);
    assert_int_equal(a->link.version, b->link.version);
    if (a->kind == CONTROL_LANE)
        assert_orders_equal(&a->order, &b->order);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->messages, b->messages);
    assert_int_equal(a->milliseconds, b->milliseconds);
    assert_int_equal(a->damaged, b->damaged);
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->workers, b->workers);
    assert_int_equal(a->seconds, b->seconds);
    assert_int_equal(a->open, b->open);
    assert_int_equal(a->core, b->core);
    assert_int_equal(a->held, b->held);
    assert_int_equal(a->last, b->last);
    assert_string_equal(a->config_name, b->config_name);
    assert_string_equal(a->verb, b->verb);
    if (a->kind == CONTROL_ANSWER)
        assert_int_equal(a->status, b->status);
    assert_lists_equal(a, b);
}

static void test_round_trip(void **state)
{
    (void)state;
    uint8_t room[LIMIT_FRAME_BYTES];
    for (int kind = CONTROL_READY; kind < CONTROL_KIND_COUNT; kind++) {
        struct control_frame in = sample((enum control_kind)kind), out;
        assert_int_equal(decode_exact(encoded(&in, room), &out), 0);
        assert_frames_equal(&in, &out);
        control_free(&out);
        assert_null(out.lanes);
    }
}

/* Whatever the cut or the flipped byte: a value or -EBADMSG, never a crash, nothing leaked. */
static void test_damage(void **state)
{
    (void)state;
    uint8_t room[LIMIT_FRAME_BYTES];
    for (int kind = CONTROL_READY; kind < CONTROL_KIND_COUNT; kind++) {
        struct control_frame in = sample((enum control_kind)kind), out;
        struct span s = encoded(&in, room);
        for (size_t n = 0; n < s.n; n++) {
            assert_int_equal(decode_exact(span_of(s.p, n), &out), -EBADMSG);
        }
        for (size_t i = 0; i < s.n; i++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                room[i] ^= (uint8_t)(1u << bit);
                int rc = decode_exact(s, &out);
                assert_true(rc == 0 || rc == -EBADMSG);
                control_free(&out);
                room[i] ^= (uint8_t)(1u << bit);
            }
        }
    }
}

static void refuse(const struct control_frame *f)
{
    uint8_t room[LIMIT_FRAME_BYTES];
    struct control_frame out;
    assert_int_equal(decode_exact(encoded(f, room), &out), -EBADMSG);
    assert_null(out.lanes);
}

static void test_ranges_of_start(void **state)
{
    (void)state;
    struct control_frame f = sample(CONTROL_START);
    f.slot = 4, refuse(&f);
    f = sample(CONTROL_START), f.workers = LIMIT_WORKERS + 1, refuse(&f);
    f = sample(CONTROL_START), f.workers = 0, f.slot = 0, refuse(&f);
    f = sample(CONTROL_START), f.boot = 0, refuse(&f);
    f = sample(CONTROL_START), f.boot = UINT64_C(1) << 48, refuse(&f);
    f = sample(CONTROL_START), f.generation = 0, refuse(&f);
    f = sample(CONTROL_START), f.core = -2, refuse(&f);
    f = sample(CONTROL_START), f.core = 4096, refuse(&f);

    struct control_lane lane = some_lanes[0];
    f = sample(CONTROL_START), f.lanes = &lane, f.lane_count = 1;
    lane.lane = 0, refuse(&f);
    lane = some_lanes[0], lane.shard = LIMIT_WORKERS, refuse(&f);
    lane = some_lanes[0], lane.worker = 4, refuse(&f);
    lane = some_lanes[0], lane.epoch = 0, refuse(&f);

    uint32_t number = LIMIT_WORKERS;
    f = sample(CONTROL_START), f.shards = &number, f.shard_count = 1, refuse(&f);
    number = LIMIT_LISTENERS;
    f = sample(CONTROL_START), f.listeners = &number, f.listener_count = 1, refuse(&f);
    struct msg_id none = {0, 0};
    f = sample(CONTROL_START), f.poison = &none, f.poison_count = 1, refuse(&f);
}

static void test_ranges_of_others(void **state)
{
    (void)state;
    struct control_frame f = sample(CONTROL_READY);
    f.pid = 0, refuse(&f);
    f = sample(CONTROL_PEER_UP), f.incarnation = 0, refuse(&f);
    f = sample(CONTROL_PEER_UP), f.slot = LIMIT_WORKERS, refuse(&f);
    f = sample(CONTROL_PEER_DOWN), f.incarnation = 0, refuse(&f);
    f = sample(CONTROL_LINK), f.link.op = (enum control_link_op)0, refuse(&f);
    f = sample(CONTROL_LINK), f.link.op = CONTROL_LINK_OP_COUNT, refuse(&f);
    f = sample(CONTROL_LINK), f.link.channel = 2, refuse(&f);
    f = sample(CONTROL_LINK), f.link.peer[0] = 'B', refuse(&f);
    f = sample(CONTROL_LINK), f.link.peer[0] = '\0', refuse(&f);
    f = sample(CONTROL_DRAIN), f.seconds = LIMIT_DRAIN_S + 1, refuse(&f);
    f = sample(CONTROL_ANSWER), f.status = 99, refuse(&f);
    f = sample(CONTROL_ANSWER), f.status = 600, refuse(&f);
    f = sample(CONTROL_ANSWER), f.slot = LIMIT_WORKERS, refuse(&f);
    f = sample(CONTROL_QUERY), f.verb[0] = '\0', refuse(&f);

    char no_value[] = "by", no_key[] = "=x";
    char *arg = no_value;
    f = sample(CONTROL_QUERY), f.args = &arg, f.arg_count = 1, refuse(&f);
    arg = no_key, refuse(&f);
    char *many[LIMIT_QUERY_ARGS + 1];
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        many[i] = arg_a;
    f = sample(CONTROL_QUERY), f.args = many, f.arg_count = ARRAY_COUNT(many), refuse(&f);

    struct control_hold hold = {.kind = "lanes", .value = "x"};
    f = sample(CONTROL_HOLDS), f.holds = &hold, f.hold_count = 1, refuse(&f);
}

/* A text with an inner NUL, and two messages in one frame: only the raw form can say them. */
static void test_raw(void **state)
{
    (void)state;
    static const uint8_t verb_nul[] = {0x42, 6, 0x08, 1, 0x12, 2, 'a', 0};
    static const uint8_t verb_fine[] = {0x42, 6, 0x08, 1, 0x12, 2, 'a', 'b'};
    static const uint8_t two[] = {0x32, 2, 0x08, 1, 0x2a, 2, 0x08, 1};
    static const uint8_t unknown_only[] = {0xfa, 0x07, 1, 0};
    struct control_frame out;
    assert_int_equal(decode_exact(span_of(verb_nul, sizeof verb_nul), &out), -EBADMSG);
    assert_int_equal(decode_exact(span_of(two, sizeof two), &out), -EBADMSG);
    assert_int_equal(decode_exact(span_of(unknown_only, sizeof unknown_only), &out), -EBADMSG);
    assert_int_equal(decode_exact(span_of(verb_fine, sizeof verb_fine), &out), 0);
    assert_string_equal(out.verb, "ab");
    control_free(&out);
}

/* A valid DRAIN, then unknown fields of three bytes each, which unpack to twenty-five. */
static void test_budget(void **state)
{
    (void)state;
    static const uint8_t drain[] = {0x32, 2, 0x08, 1};
    static const uint8_t unknown[] = {0xa0, 0x06, 0};
    uint8_t *room = calloc(1, LIMIT_FRAME_BYTES);
    assert_non_null(room);
    struct control_frame out;
    struct writer w = writer_of(room, LIMIT_FRAME_BYTES);
    put_bytes(&w, span_of(drain, sizeof drain));
    put_bytes(&w, span_of(unknown, sizeof unknown));
    assert_int_equal(decode_exact(span_of(room, w.n), &out), 0);
    control_free(&out);
    while (w.n + sizeof unknown <= w.cap)
        put_bytes(&w, span_of(unknown, sizeof unknown));
    assert_int_equal(decode_exact(span_of(room, w.n), &out), -EBADMSG);
    free(room);
}

static void test_full_start_fits(void **state)
{
    (void)state;
    uint8_t room[LIMIT_FRAME_BYTES];
    struct control_frame f = sample(CONTROL_START), out;
    f.lane_count = 1000;
    f.lanes = calloc(f.lane_count, sizeof *f.lanes);
    assert_non_null(f.lanes);
    for (uint32_t i = 0; i < f.lane_count; i++)
        f.lanes[i] = (struct control_lane){.lane = UINT32_MAX - i, .epoch = UINT32_MAX};
    assert_int_equal(decode_exact(encoded(&f, room), &out), 0);
    assert_int_equal(out.lane_count, 1000);
    control_free(&out);
    free(f.lanes);

    size_t n;
    f = sample(CONTROL_ANSWER);
    f.body = calloc(1, LIMIT_FRAME_BYTES);
    f.body_bytes = LIMIT_FRAME_BYTES;
    assert_int_equal(control_encode(&f, room, sizeof room, &n), -E2BIG);
    free(f.body);
}

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
}

static unsigned open_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            count++;
    }
    return count;
}

static void test_send_receive(void **state)
{
    (void)state;
    int s[2], passed[CONTROL_FDS_MAX], got[CONTROL_FDS_MAX];
    struct control_frame in = sample(CONTROL_START), out;
    unsigned before = open_fds();
    pair(s);
    unsigned count = CONTROL_FDS_MAX;
    assert_int_equal(control_receive(s[1], &out, got, &count), -EAGAIN);
    for (unsigned i = 0; i < CONTROL_FDS_MAX; i++)
        passed[i] = i % 2 == 0 ? STDERR_FILENO : s[0];
    assert_int_equal(control_send(s[0], &in, passed, CONTROL_FDS_MAX), 0);
    count = CONTROL_FDS_MAX;
    assert_int_equal(control_receive(s[1], &out, got, &count), 1);
    assert_int_equal(count, CONTROL_FDS_MAX);
    assert_frames_equal(&in, &out);
    control_free(&out);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(fcntl(got[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(got[i]);
    }
    close(s[0]);
    count = CONTROL_FDS_MAX;
    assert_int_equal(control_receive(s[1], &out, got, &count), 0);
    close(s[1]);
    assert_int_equal(open_fds(), before);
}

static void test_unwanted_fds_are_closed(void **state)
{
    (void)state;
    int s[2], got[1], passed[2] = {STDERR_FILENO, STDERR_FILENO};
    struct control_frame in = sample(CONTROL_DRAIN), out;
    pair(s);
    unsigned before = open_fds(), count = 1;
    assert_int_equal(control_send(s[0], &in, passed, 2), 0);
    assert_int_equal(control_receive(s[1], &out, got, &count), -EBADMSG);
    assert_int_equal(count, 0);
    assert_int_equal(control_send(s[0], &in, passed, 1), 0);
    assert_int_equal(control_receive(s[1], &out, NULL, NULL), -EBADMSG);
    /* A malformed frame with a descriptor. */
    assert_int_equal(control_send_bytes(s[0], span_str("\xff\xff"), passed, 1), 0);
    count = 1;
    assert_int_equal(control_receive(s[1], &out, got, &count), -EBADMSG);
    assert_int_equal(open_fds(), before);
    close(s[0]);
    close(s[1]);
}

static void test_full_and_gone(void **state)
{
    (void)state;
    int s[2];
    struct control_frame in = sample(CONTROL_QUERY);
    pair(s);
    int rc = 0;
    for (int i = 0; rc == 0 && i < 100000; i++)
        rc = control_send(s[0], &in, NULL, 0);
    assert_int_equal(rc, -EAGAIN);
    close(s[1]);
    assert_int_equal(control_send(s[0], &in, NULL, 0), -EPIPE);
    close(s[0]);

    /* Longer than a frame may be. */
    struct control_frame out;
    pair(s);
    uint8_t *big = calloc(1, LIMIT_FRAME_BYTES + 1);
    assert_non_null(big);
    assert_int_equal(control_send_bytes(s[0], span_of(big, LIMIT_FRAME_BYTES + 1), NULL, 0), 0);
    assert_int_equal(control_receive(s[1], &out, NULL, NULL), -EBADMSG);
    free(big);
    close(s[0]);
    close(s[1]);
}

static void test_arg(void **state)
{
    (void)state;
    struct control_frame f = sample(CONTROL_QUERY);
    assert_string_equal(control_arg(&f, "by"), "lane");
    assert_string_equal(control_arg(&f, "empty"), "");
    assert_string_equal(control_arg(&f, "by2"), "x=y");
    assert_null(control_arg(&f, "b"));
    assert_null(control_arg(&f, "by=lane"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_ranges_of_start),
        cmocka_unit_test(test_ranges_of_others),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_full_start_fits),
        cmocka_unit_test(test_send_receive),
        cmocka_unit_test(test_unwanted_fds_are_closed),
        cmocka_unit_test(test_full_and_gone),
        cmocka_unit_test(test_arg),
    };
    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
