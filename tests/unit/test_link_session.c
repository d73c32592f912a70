/*
 * link_session: two sessions over a simulated wire that is cut, fills up and repeats itself,
 * between two masters that stall and restart. 1,000 seeds: nothing lost, nothing doubled, order
 * kept.
 */
#include "base/rng.h"
#include "master/link/session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WIRE_MAX = 64, FRAME_BYTES = 300, UNITS = 120, SEEDS = 1000, STEPS_MAX = 60000 };

struct packet {
    uint8_t bytes[FRAME_BYTES];
    size_t n;
};
struct wire { /* one direction */
    struct packet packets[WIRE_MAX];
    unsigned count;
};

/* One node: its link process (the session) and its master, which outlives it. */
struct node {
    struct session s;
    struct world *w;
    struct wire out;
    const char *name, *peer;
    uint64_t incarnation;
    /* The master as a sender. */
    uint64_t stream, next, acked;
    /* As a receiver: what is in its log, and what of that is durable. */
    uint64_t peer_stream, received, durable;
    uint64_t ups, wants;
};
struct world {
    struct rng rng;
    struct node a, b;
    uint64_t now_ms;
    bool connected;
    bool cut_asked;
};

static struct node *other(struct node *n)
{
    return n == &n->w->a ? &n->w->b : &n->w->a;
}

/* The payload tells its place and its sender. */
static size_t payload_of(const struct node *n, uint64_t seq, uint8_t out[FRAME_BYTES])
{
    struct writer w = writer_of(out, FRAME_BYTES);
    put_u64(&w, n->stream);
    put_u64(&w, seq);
    for (uint64_t i = 0; i < seq * 7 % 90; i++)
        put_u8(&w, (uint8_t)(seq + i));
    return w.n;
}

static int op_send(struct session *s, const struct link_frame *f)
{
    struct node *n = s->owner;
    struct wire *to = &n->out;
    if (!n->w->connected)
        return -EAGAIN;
    if (to->count == WIRE_MAX)
        return -EAGAIN;
    struct packet *p = &to->packets[to->count];
    assert_int_equal(link_frame_encode(f, p->bytes, sizeof p->bytes, &p->n), 0);
    to->count++;
    return 0;
}

static void op_cut(struct session *s)
{
    struct node *n = s->owner;
    n->w->cut_asked = true;
}

static void op_up(struct session *s)
{
    struct node *n = s->owner;
    n->ups++;
    if (n->peer_stream != s->at.peer_stream) {
        n->peer_stream = s->at.peer_stream;
        n->received = n->durable = 0;
    }
}

static void op_down(struct session *s, const char *why, bool was_up)
{
    (void)s;
    (void)was_up;
    assert_non_null(why);
}

static int op_deliver(struct session *s, uint64_t seq, struct span payload)
{
    struct node *n = s->owner;
    uint8_t expected[FRAME_BYTES];
    /* The one that matters: the next of the stream, whatever happened before. */
    assert_int_equal(seq, n->received + 1);
    size_t len = payload_of(other(n), seq, expected);
    assert_int_equal(payload.n, len);
    assert_memory_equal(payload.p, expected, len);
    n->received = seq;
    return 0;
}

static void op_acked(struct session *s, uint64_t seq)
{
    struct node *n = s->owner;
    assert_true(seq >= n->acked);
    assert_true(seq <= other(n)->durable);
    n->acked = seq;
}

static void op_want(struct session *s, uint64_t seq, const char *why)
{
    struct node *n = s->owner;
    assert_non_null(why);
    assert_true(seq > n->acked);
    n->next = seq;
    n->wants++;
}

static const struct session_ops ops = {op_send,    op_cut,   op_up,  op_down,
                                       op_deliver, op_acked, op_want};

static void start_link(struct node *n)
{
    struct session_names names = {.cluster = "c", .incarnation = ++n->incarnation};
    struct session_place at = {.stream = n->stream,
                               .next = n->acked + 1,
                               .peer_stream = n->peer_stream,
                               .received = n->received,
                               .durable = n->durable};
    (void)snprintf(names.node, sizeof names.node, "%s", n->name);
    (void)snprintf(names.peer, sizeof names.peer, "%s", n->peer);
    session_fini(&n->s);
    session_init(&n->s, &names, &ops, n);
    n->next = n->acked + 1;
    assert_int_equal(session_open(&n->s, &at), 0);
}

static void start_node(struct world *w, struct node *n, const char *name, const char *peer)
{
    n->w = w;
    n->name = name;
    n->peer = peer;
    n->incarnation = 1 + rng_below(&w->rng, 1000);
    n->stream = 1 + rng_below(&w->rng, 1u << 30);
    start_link(n);
}

static void cut(struct world *w)
{
    w->connected = false;
    w->cut_asked = false;
    w->a.out.count = w->b.out.count = 0; /* what was under way is lost */
    session_wire_down(&w->a.s, "cut");
    session_wire_down(&w->b.s, "cut");
}

static void connect_wire(struct world *w)
{
    w->connected = true;
    session_wire_up(&w->a.s, w->now_ms);
    session_wire_up(&w->b.s, w->now_ms);
}

/* The oldest packet from n arrives at the other one; sometimes again. */
static void arrive(struct node *n)
{
    struct packet p;
    struct link_frame f;
    if (n->out.count == 0)
        return;
    p = n->out.packets[0];
    n->out.count--;
    memmove(n->out.packets, n->out.packets + 1, n->out.count * sizeof p);
    assert_int_equal(link_frame_decode(span_of(p.bytes, p.n), &f), 0);
    session_input(&other(n)->s, &f, n->w->now_ms);
    if (f.kind == LINK_DATA && rng_below(&n->w->rng, 8) == 0) {
        enum session_state before = other(n)->s.state;
        session_input(&other(n)->s, &f, n->w->now_ms);
        assert_int_equal(other(n)->s.state, before);
    }
    link_frame_free(&f);
}

static void submit(struct node *n)
{
    uint8_t bytes[FRAME_BYTES];
    if (n->next > UNITS)
        return;
    size_t len = payload_of(n, n->next, bytes);
    if (session_submit(&n->s, n->next, span_of(bytes, len)) == 0)
        n->next++;
}

/* The master's log becomes durable a piece at a time. */
static void make_durable(struct node *n)
{
    if (n->durable == n->received)
        return;
    n->durable += 1 + rng_below(&n->w->rng, n->received - n->durable);
    assert_int_equal(session_ack(&n->s, n->peer_stream, n->durable), 0);
}

/* Power loss of one master: what was not durable is gone; its sending log is durable. */
static void restart_master(struct world *w, struct node *n)
{
    cut(w);
    n->received = n->durable;
    start_link(n);
}

/* The master's sending log is gone: what it sends from here on is another stream. */
static void new_stream(struct node *n)
{
    n->stream++;
    n->next = 1;
    n->acked = 0;
    struct session_place at = {.stream = n->stream,
                               .next = 1,
                               .peer_stream = n->peer_stream,
                               .received = n->received,
                               .durable = n->durable};
    assert_int_equal(session_open(&n->s, &at), 0);
}

static void step(struct world *w)
{
    struct node *n = rng_below(&w->rng, 2) == 0 ? &w->a : &w->b;
    uint64_t dice = rng_below(&w->rng, 1000);

    if (w->cut_asked || dice < 3) {
        cut(w);
    } else if (dice < 5) {
        cut(w);
        start_link(n);
    } else if (dice < 6) {
        restart_master(w, n);
    } else if (dice < 7) {
        w->now_ms += SESSION_SILENCE_MS;
    } else if (dice < 8) {
        if (rng_below(&w->rng, 20) == 0)
            new_stream(n);
    } else if (dice < 100) {
        make_durable(n);
    } else if (dice < 400) {
        submit(n);
    } else if (dice < 700) {
        arrive(n);
    } else if (!w->connected) {
        connect_wire(w);
    } else {
        w->now_ms += rng_below(&w->rng, 20);
        (void)session_flush(&n->s, w->now_ms);
        session_tick(&n->s, w->now_ms);
    }
}

static void run_seed(uint64_t seed)
{
    static struct world w;
    unsigned steps = 0;

    memset(&w, 0, sizeof w);
    rng_seed(&w.rng, seed);
    start_node(&w, &w.a, "a", "b");
    start_node(&w, &w.b, "b", "a");
    while ((w.a.acked < UNITS || w.b.acked < UNITS) && steps++ < STEPS_MAX)
        step(&w);
    if (w.a.acked != UNITS || w.b.acked != UNITS)
        fail_msg("seed %llu: stuck: a sent %llu acked %llu, b %llu %llu", (unsigned long long)seed,
                 (unsigned long long)w.a.next, (unsigned long long)w.a.acked,
                 (unsigned long long)w.b.next, (unsigned long long)w.b.acked);
    assert_int_equal(w.a.received, UNITS);
    assert_int_equal(w.b.received, UNITS);
    assert_true(w.a.ups > 0);
    session_fini(&w.a.s);
    session_fini(&w.b.s);
}

static void test_seeds(void **state)
{
    (void)state;
    const char *only = getenv("LINK_SEED");
    if (only != NULL) {
        run_seed(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {

        run_seed(seed);
    }
}

/* A pair that is up, for the cases by hand. */
static struct world pair;
static void make_pair(void)
{
    memset(&pair, 0, sizeof pair);
    rng_seed(&pair.rng, 5);
    start_node(&pair, &pair.a, "a", "b");
    start_node(&pair, &pair.b, "b", "a");
    connect_wire(&pair);
    arrive(&pair.a);
    arrive(&pair.b);
    assert_int_equal(pair.a.s.state, SESSION_UP);
    assert_int_equal(pair.b.s.state, SESSION_UP);
}
static void end_pair(void)
{
    session_fini(&pair.a.s);
    session_fini(&pair.b.s);
}

static void test_beats_and_silence(void **state)
{
    (void)state;
    make_pair();
    assert_int_equal(session_due(&pair.a.s, 0), SESSION_BEAT_MS);
    session_tick(&pair.a.s, SESSION_BEAT_MS - 1);
    assert_int_equal(pair.a.out.count, 0);
    session_tick(&pair.a.s, SESSION_BEAT_MS);
    assert_int_equal(pair.a.out.count, 1);
    session_tick(&pair.b.s, SESSION_SILENCE_MS - 1);
    assert_int_equal(pair.b.s.state, SESSION_UP);
    session_tick(&pair.b.s, SESSION_SILENCE_MS);
    assert_int_equal(pair.b.s.state, SESSION_IDLE);
    assert_true(pair.cut_asked);
    assert_int_equal(session_due(&pair.b.s, 0), -1);
    end_pair();
}

/* Where its owner knows that the peer is there, a channel may be late. */
static void test_late(void **state)
{
    (void)state;
    make_pair();
    pair.b.s.silence_ms = SESSION_LATE_MS;
    assert_int_equal(session_due(&pair.b.s, SESSION_SILENCE_MS), 0); /* a beat */
    session_tick(&pair.b.s, SESSION_SILENCE_MS);
    assert_int_equal(pair.b.s.state, SESSION_UP);
    session_tick(&pair.b.s, SESSION_LATE_MS - 1);
    assert_int_equal(pair.b.s.state, SESSION_UP);
    session_tick(&pair.b.s, SESSION_LATE_MS);
    assert_int_equal(pair.b.s.state, SESSION_IDLE);
    end_pair();
}

/* A frame in parts goes as one; what a channel may hold is its own limit. */
static void test_append(void **state)
{
    (void)state;
    static uint8_t big[LINK_BULK_BYTES_MAX + 1];
    const struct span parts[] = {span_of(big, 1000), span_of(big, 0), span_of(big, 500)};
    make_pair();
    assert_int_equal(session_append(&pair.a.s, parts, 3), 0);
    assert_true(pair.a.s.queued_bytes > 1500);
    assert_int_equal(pair.a.s.at.next, 2);
    struct span one = span_of(big, LIMIT_LINK_PAYLOAD_BYTES + 1);
    assert_int_equal(session_append(&pair.a.s, &one, 1), -E2BIG);
    pair.a.s.names.channel = LINK_BULK;
    assert_int_equal(session_append(&pair.a.s, &one, 1), 0);
    one.n = sizeof big;
    assert_int_equal(session_append(&pair.a.s, &one, 1), -E2BIG);
    one.n--;
    unsigned taken = 0;
    while (session_has_room(&pair.a.s, one.n)) {
        assert_int_equal(session_append(&pair.a.s, &one, 1), 0);
        taken++;
    }
    assert_int_equal(taken, LIMIT_LINK_CREDIT_BYTES / one.n);
    assert_int_equal(session_append(&pair.a.s, &one, 1), -ENOBUFS);
    assert_int_equal(pair.a.wants, 0);
    end_pair();
}

/* A peer that takes no more than its credit holds the sender back, and an ack lets it go on. */
static void test_credit(void **state)
{
    (void)state;
    make_pair();
    struct link_frame small = {.kind = LINK_BEAT, .incarnation = pair.b.incarnation, .credit = 300};
    session_input(&pair.a.s, &small, 1);
    for (unsigned i = 0; i < 20; i++)
        submit(&pair.a);
    assert_int_equal(session_flush(&pair.a.s, 1), 0);
    unsigned under_way = pair.a.out.count;
    assert_in_range(under_way, 1, 7);
    assert_int_equal(session_flush(&pair.a.s, 1), 0);
    assert_int_equal(pair.a.out.count, under_way);
    pair.b.durable = under_way;
    small.ack = under_way;
    session_input(&pair.a.s, &small, 2);
    assert_int_equal(session_flush(&pair.a.s, 2), 0);
    assert_true(pair.a.out.count > under_way);
    end_pair();
}

/* The user may not fill our memory: refused, told what is wanted, and taken after an ack. */
static void test_full(void **state)
{
    (void)state;
    static uint8_t big[LIMIT_LINK_PAYLOAD_BYTES];
    uint64_t seq = 1;
    int r;

    make_pair();
    cut(&pair);
    while ((r = session_submit(&pair.a.s, seq, span_of(big, sizeof big))) == 0)
        seq++;
    assert_int_equal(r, -ENOBUFS);
    assert_in_range(seq, LIMIT_LINK_CREDIT_BYTES / sizeof big - 1,
                    LIMIT_LINK_CREDIT_BYTES / sizeof big + 1);
    assert_int_equal(pair.a.next, seq);
    uint64_t wants = pair.a.wants;
    assert_int_equal(session_submit(&pair.a.s, seq + 1, span_of(big, 1)), -ERANGE);
    assert_int_equal(pair.a.wants, wants);
    assert_int_equal(session_submit(&pair.a.s, seq, span_of(big, sizeof big)), -ENOBUFS);
    assert_int_equal(pair.a.wants, wants + 1);
    assert_int_equal(session_submit(&pair.a.s, 1, span_of(big, 1)), 0);
    assert_int_equal(session_submit(&pair.a.s, seq, span_of(big, sizeof big + 1)), -E2BIG);
    end_pair();
}

/* What ends a wire: each row is a frame that a good peer never sends in this state. */
static void test_wrong_frames(void **state)
{
    (void)state;
    struct link_hello h = {
        .node = "b", .cluster = "c", .version_min = 1, .version_max = 1, .stream = 9};
    for (unsigned i = 0; i < 10; i++) {
        bool greeted = i >= 7;
        struct link_frame f = {.kind = LINK_HELLO, .incarnation = 7, .hello = h};
        make_pair();
        struct node *a = &pair.a;
        if (!greeted) {
            cut(&pair);
            connect_wire(&pair);
        }
        f.incarnation = pair.b.incarnation;
        switch (i) {
        case 0: /* the good one */
            break;
        case 1:
            memcpy(f.hello.node, "x", 2);
            break;
        case 2:
            memcpy(f.hello.cluster, "x", 2);
            break;
        case 3:
            f.hello.channel = LINK_BULK;
            break;
        case 4:
            f.hello.version_min = f.hello.version_max = LINK_VERSION_MAX + 1;
            break;
        case 5:
            f.kind = LINK_DATA, f.seq = 1;
            break;
        case 6:
            f.kind = LINK_BEAT;
            break;
        case 7: /* twice */
            break;
        case 8:
            f.kind = LINK_BEAT, f.incarnation++;
            break;
        case 9:
            f.kind = LINK_DATA, f.seq = 2;
            break;
        }
        session_input(&a->s, &f, 1);
        assert_int_equal(a->s.state, i == 0 ? SESSION_UP : SESSION_IDLE);
        assert_int_equal(pair.cut_asked, i != 0);
        end_pair();
    }
}

/* Without a wire every event but that of a wire is nothing. */
static void test_idle(void **state)
{
    (void)state;
    make_pair();
    cut(&pair);
    for (enum link_kind kind = LINK_BEAT; kind <= LINK_DATA; kind++) {
        struct link_frame f = {.kind = kind, .incarnation = 1, .seq = 1, .ack = 99};
        session_input(&pair.a.s, &f, 5000);
    }
    session_input(&pair.a.s, NULL, 5000);
    session_tick(&pair.a.s, 9000);
    session_wire_down(&pair.a.s, "again");
    assert_int_equal(session_flush(&pair.a.s, 9000), 0);
    assert_int_equal(pair.a.s.state, SESSION_IDLE);
    assert_int_equal(pair.a.acked, 0);
    assert_int_equal(pair.a.received, 0);
    end_pair();
}

/* A newer release that still speaks our version: the lower of the highest ones. */
static void test_versions(void **state)
{
    (void)state;
    struct link_hello h = {.version_min = 1, .version_max = 9};
    uint32_t v = 0;
    assert_int_equal(link_version_agree(&h, &v), 0);
    assert_int_equal(v, LINK_VERSION_MAX);
    h.version_min = LINK_VERSION_MAX + 1;
    assert_int_equal(link_version_agree(&h, &v), -EPROTONOSUPPORT);
}

/* A peer that lost its state gets the stream from its beginning, if the user has it. */
static void test_peer_forgot(void **state)
{
    (void)state;
    make_pair();
    for (unsigned i = 0; i < 5; i++)
        submit(&pair.a);
    (void)session_flush(&pair.a.s, 1);
    while (pair.a.out.count > 0)
        arrive(&pair.a);
    while (pair.b.durable < 5)
        make_durable(&pair.b);
    (void)session_flush(&pair.b.s, 1);
    arrive(&pair.b);
    assert_int_equal(pair.a.acked, 5);
    cut(&pair);
    pair.b.peer_stream = pair.b.received = pair.b.durable = 0;
    pair.a.acked = 0;
    start_link(&pair.b);
    connect_wire(&pair);
    arrive(&pair.a);
    arrive(&pair.b);
    assert_int_equal(pair.a.wants, 1);
    assert_int_equal(pair.a.next, 1);
    end_pair();
}

/* Streams that cannot be are refused; acknowledgements of what never came, too. */
static void test_open(void **state)
{
    (void)state;
    static const struct session_place bad[] = {
        {0, 1, 0, 0, 0}, {1, 0, 0, 0, 0}, {1, 1, 2, 3, 4}, {1, 1, 0, 1, 1}};
    make_pair();
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(session_open(&pair.a.s, &bad[i]), -EINVAL);
    assert_int_equal(session_ack(&pair.a.s, pair.b.stream, 1), -ERANGE);
    assert_int_equal(session_ack(&pair.a.s, pair.b.stream + 1, 1), 0);
    struct session_place fresh = {.stream = pair.a.stream + 1, .next = 1};
    assert_int_equal(session_open(&pair.a.s, &fresh), 0);
    assert_true(pair.cut_asked);
    end_pair();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),        cmocka_unit_test(test_beats_and_silence),
        cmocka_unit_test(test_credit),       cmocka_unit_test(test_full),
        cmocka_unit_test(test_wrong_frames), cmocka_unit_test(test_versions),
        cmocka_unit_test(test_peer_forgot),  cmocka_unit_test(test_open),
        cmocka_unit_test(test_idle),         cmocka_unit_test(test_late),
        cmocka_unit_test(test_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
