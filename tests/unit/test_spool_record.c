/* spool_record: round trips, every truncation, every flipped bit, values out of range. */
#include "proto/spool_record.h"
#include "proto/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BUF_BYTES = 4096 };

/* A copy of exactly n bytes on the heap, so that ASan sees a read beyond a truncated input. */
static struct span exact_copy(const uint8_t *p, size_t n)
{
    uint8_t *q = malloc(n > 0 ? n : 1);
    assert_non_null(q);
    if (n > 0)
        memcpy(q, p, n);
    return span_of(q, n);
}
static void exact_free(struct span s)
{
    free((void *)(uintptr_t)s.p);
}

static struct ip ip_from(const char *text)
{
    struct ip a;
    assert_int_equal(ip_parse(span_str(text), &a), 0);
    return a;
}

static struct enq sample_enq(void)
{
    return (struct enq){
        .id = {.hi = 0x0001000000000007, .lo = 42},
        .received_unix_ms = 1795000000123,
        .lifetime_s = 432000,
        .class_ = 1,
        .flags = ENQ_8BIT | ENQ_BODY_8BITMIME,
        .dots = 3,
        .body_bytes = 700000,
        .trace_bytes = 250,
        .client = ip_from("192.0.2.17"),
        .tenant = span_str("acme"),
        .helo = span_str("client.example"),
        .sender = span_str("sender@example.org"),
        .envid = span_str("QQ314159"),
        .ret = span_str("HDRS"),
        .rcpt_count = 2,
        .chunk_count = 3,
    };
}

static const struct enq_chunk sample_chunks[3] = {
    {{7, 4096 + 80, 262144 + 80}, 262144},
    {{7, 4096 + 80 + 262224, 262144 + 80}, 262144},
    {{8, 4096 + 80, 175712 + 80}, 175712},
};

static struct enq_rcpt sample_rcpt(unsigned i)
{
    return (struct enq_rcpt){
        .index = (uint16_t)(10 + i),
        .state = i == 0 ? RCPT_QUEUED : RCPT_BOUNCE_DUE,
        .reason = (uint8_t)i,
        .attempts = (uint16_t)(300 * i),
        .due_unix_s = 1795000000 + i,
        .address = i == 0 ? span_str("a@example.net") : span_str("b@example.com"),
        .orcpt = i == 0 ? span_str("rfc822;a@example.net") : span_of(NULL, 0),
        .notify = i == 0 ? span_of(NULL, 0) : span_str("SUCCESS,FAILURE"),
    };
}

static size_t put_sample_enq(uint8_t *buf)
{
    struct writer w = writer_of(buf, BUF_BYTES);
    struct enq e = sample_enq();
    enq_put(&w, &e);
    for (unsigned i = 0; i < e.rcpt_count; i++) {
        struct enq_rcpt r = sample_rcpt(i);
        enq_put_rcpt(&w, &r);
    }
    for (unsigned i = 0; i < e.chunk_count; i++)
        enq_put_chunk(&w, &sample_chunks[i]);
    assert_false(w.bad);
    return w.n;
}

static void check_rcpts(const struct enq *e)
{
    struct span left = e->rcpts;
    struct enq_rcpt r;
    unsigned n = 0;
    for (; enq_rcpt_next(&left, &r); n++) {
        struct enq_rcpt want = sample_rcpt(n);
        assert_int_equal(r.index, want.index);
        assert_int_equal(r.state, want.state);
        assert_int_equal(r.reason, want.reason);
        assert_int_equal(r.attempts, want.attempts);
        assert_int_equal(r.due_unix_s, want.due_unix_s);
        assert_true(span_eq(r.address, want.address));
        assert_true(span_eq(r.orcpt, want.orcpt));
        assert_true(span_eq(r.notify, want.notify));
    }
    assert_int_equal(n, e->rcpt_count);
}

static void test_enq_round_trip(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    size_t n = put_sample_enq(buf);
    struct enq e, want = sample_enq();
    assert_int_equal(enq_read(span_of(buf, n), &e), 0);
    assert_true(id_eq(e.id, want.id));
    assert_int_equal(e.received_unix_ms, want.received_unix_ms);
    assert_int_equal(e.lifetime_s, want.lifetime_s);
    assert_int_equal(e.class_, want.class_);
    assert_int_equal(e.flags, want.flags);
    assert_int_equal(e.dots, want.dots);
    assert_int_equal(e.body_bytes, want.body_bytes);
    assert_int_equal(e.trace_bytes, want.trace_bytes);
    assert_true(ip_eq(&e.client, &want.client));
    assert_true(span_eq(e.tenant, want.tenant));
    assert_true(span_eq(e.helo, want.helo));
    assert_true(span_eq(e.sender, want.sender));
    assert_true(span_eq(e.envid, want.envid));
    assert_true(span_eq(e.ret, want.ret));
    check_rcpts(&e);
    struct span left = e.chunks;
    struct enq_chunk c;
    unsigned k = 0;
    for (; enq_chunk_next(&left, &c); k++) {
        assert_memory_equal(&c.place, &sample_chunks[k].place, sizeof c.place);
        assert_int_equal(c.body_bytes, sample_chunks[k].body_bytes);
    }
    assert_int_equal(k, 3);
}

static void test_enq_truncated(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    size_t n = put_sample_enq(buf);
    struct enq e;
    for (size_t i = 0; i < n; i++) {
        struct span s = exact_copy(buf, i);
        assert_int_equal(enq_read(s, &e), -EBADMSG);
        exact_free(s);
    }
    buf[n] = 0;
    assert_int_equal(enq_read(span_of(buf, n + 1), &e), -EBADMSG);
}

static void test_enq_out_of_range(void **state)
{
    (void)state;
    /* Offsets as enq_put writes them: id, received, lifetime, class, flags, dots, body, ... */
    static const struct {
        size_t at;
        uint8_t value;
    } rows[] = {
        {28, 2},    /* class */
        {30, 0x80}, /* an unknown flag */
        {34, 0xff}, /* more dots than bytes */
        {35, 0x01}, /* chunks do not add up to the body */
        {42, 0x01}, /* a body that no message has */
    };
    struct enq e;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint8_t buf[BUF_BYTES];
        size_t n = put_sample_enq(buf);
        assert_int_equal(enq_read(span_of(buf, n), &e), 0);
        buf[rows[i].at] = rows[i].value;
        assert_int_equal(enq_read(span_of(buf, n), &e), -EBADMSG);
    }
}

/* What a node that means harm may write: read, as a log may hold it, and not taken. */
static void test_enq_sound(void **state)
{
    (void)state;
    static uint8_t buf[BUF_BYTES], long_address[LIMIT_ADDRESS_BYTES + 1];
    struct enq e;
    assert_int_equal(enq_read(span_of(buf, put_sample_enq(buf)), &e), 0);
    assert_true(enq_is_sound(&e, e.trace_bytes));
    assert_true(enq_is_sound(&e, e.trace_bytes)); /* it left no marks */
    assert_false(enq_is_sound(&e, e.trace_bytes + 1));
    struct enq bad = e;
    bad.chunk_count = 0;
    assert_true(enq_is_sound(&bad, bad.trace_bytes + bad.body_bytes));
    assert_false(enq_is_sound(&bad, bad.trace_bytes));
    bad = e, bad.id = (struct msg_id){0, 0};
    assert_false(enq_is_sound(&bad, e.trace_bytes));
    memset(long_address, 'a', sizeof long_address);
    bad = e, bad.sender = span_of(long_address, sizeof long_address);
    assert_false(enq_is_sound(&bad, e.trace_bytes));
    bad.sender.n--;
    assert_true(enq_is_sound(&bad, e.trace_bytes));
    bad.sender = span_str("a@b>\r\nRCPT TO:<c@d");
    assert_false(enq_is_sound(&bad, e.trace_bytes));

    uint8_t rcpts[200];
    struct writer w = writer_of(rcpts, sizeof rcpts);
    struct enq_rcpt r = {.index = 7, .address = span_str("a@b")};
    enq_put_rcpt(&w, &r);
    bad = e, bad.rcpts = span_of(rcpts, w.n);
    assert_true(enq_is_sound(&bad, e.trace_bytes));
    enq_put_rcpt(&w, &r);
    bad.rcpts.n = w.n;
    assert_false(enq_is_sound(&bad, e.trace_bytes));
    w = writer_of(rcpts, sizeof rcpts);
    r.address = span_of(NULL, 0);
    enq_put_rcpt(&w, &r);
    bad.rcpts.n = w.n;
    assert_false(enq_is_sound(&bad, e.trace_bytes));
}

/* A reason numbers counters: one that is not known is none. */
static void test_unknown_reason(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = sample_enq(), got;
    struct enq_rcpt r = sample_rcpt(0);
    r.reason = UINT8_MAX;
    e.rcpt_count = 1;
    e.chunk_count = 0;
    enq_put(&w, &e);
    enq_put_rcpt(&w, &r);
    assert_int_equal(enq_read(span_of(buf, w.n), &got), 0);
    assert_true(enq_rcpt_next(&got.rcpts, &r));
    assert_int_equal(r.reason, 0);
    struct outcome o = {.id = {1, 2}, .reason = UINT8_MAX}, read;
    w = writer_of(buf, sizeof buf);
    outcome_put(&w, &o);
    assert_int_equal(outcome_read(span_of(buf, w.n), &read), 0);
    assert_int_equal(read.reason, 0);
}

static struct outcome sample_outcome(const uint8_t *indices)
{
    return (struct outcome){
        .id = {1, 2},
        .fate = FATE_EXPIRED,
        .reason = 9,
        .bounce_due = true,
        .attempts = 77,
        .at_unix_ms = 1795000000999,
        .due_unix_s = 1795000100,
        .local = ip_from("2001:db8::5"),
        .remote_name = span_str("mx1.example.net"),
        .count = 3,
        .indices = span_of(indices, 6),
    };
}

static void test_outcome(void **state)
{
    (void)state;
    static const uint8_t indices[6] = {1, 0, 2, 0, 0x10, 0x27};
    uint8_t buf[BUF_BYTES];
    struct outcome o, want = sample_outcome(indices);
    struct writer w = writer_of(buf, sizeof buf);
    outcome_put(&w, &want);
    assert_false(w.bad);
    assert_int_equal(outcome_read(span_of(buf, w.n), &o), 0);
    assert_true(id_eq(o.id, want.id));
    assert_int_equal(o.fate, want.fate);
    assert_int_equal(o.reason, want.reason);
    assert_true(o.bounce_due);
    assert_int_equal(o.attempts, want.attempts);
    assert_int_equal(o.at_unix_ms, want.at_unix_ms);
    assert_int_equal(o.due_unix_s, want.due_unix_s);
    assert_true(ip_eq(&o.local, &want.local));
    assert_true(ip_eq(&o.remote, &want.remote));
    assert_true(span_eq(o.remote_name, want.remote_name));
    assert_int_equal(o.count, 3);
    assert_int_equal(outcome_index(&o, 2), 10000);
    assert_int_equal(o.reply.n, 0);
    for (size_t i = 0; i < w.n; i++) {
        struct span s = exact_copy(buf, i);
        assert_int_equal(outcome_read(s, &o), -EBADMSG);
        exact_free(s);
    }
    buf[16] = FATE_COUNT;
    assert_int_equal(outcome_read(span_of(buf, w.n), &o), -EBADMSG);
    buf[16] = FATE_DELIVERED;
    buf[18] = 2; /* bounce_due is 0 or 1 */
    assert_int_equal(outcome_read(span_of(buf, w.n), &o), -EBADMSG);
}

static void test_small_metas(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    struct writer w = writer_of(buf, sizeof buf);
    struct msg_id id;
    uint32_t ordinal;
    body_put(&w, (struct msg_id){5, 6}, LIMIT_BODY_CHUNKS - 1);
    assert_int_equal(body_read(span_of(buf, w.n), &id, &ordinal), 0);
    assert_true(id_eq(id, (struct msg_id){5, 6}));
    assert_int_equal(ordinal, LIMIT_BODY_CHUNKS - 1);
    for (size_t i = 0; i < w.n; i++)
        assert_int_equal(body_read(span_of(buf, i), &id, &ordinal), -EBADMSG);

    struct ledger l, l_want = {1, 2, 3, 4, 5, 6, UINT64_MAX};
    w = writer_of(buf, sizeof buf);
    ledger_put(&w, &l_want);
    assert_int_equal(ledger_read(span_of(buf, w.n), &l), 0);
    assert_memory_equal(&l, &l_want, sizeof l);
    for (size_t i = 0; i < w.n; i++)
        assert_int_equal(ledger_read(span_of(buf, i), &l), -EBADMSG);

}

static void test_lane_mark(void **state)
{
    (void)state;
    uint8_t buf[128];
    struct lane_mark got, want = {.role = LANE_REPLICA,
                                  .snapshot = true,
                                  .ready = true,
                                  .given = 7,
                                  .move = 1ULL << 60,
                                  .count = UINT64_MAX,
                                  .node = span_str("node-b")};
    struct writer w = writer_of(buf, sizeof buf);
    lane_mark_put(&w, &want);
    assert_int_equal(lane_mark_read(span_of(buf, w.n), &got), 0);
    assert_int_equal(got.role, LANE_REPLICA);
    assert_true(got.snapshot);
    assert_true(got.ready);
    assert_int_equal(got.given, 7);
    assert_true(got.move == want.move);
    assert_true(got.count == want.count);
    assert_true(span_eq(got.node, want.node));
    for (size_t i = 0; i < w.n; i++)
        assert_int_equal(lane_mark_read(span_of(buf, i), &got), -EBADMSG);
    buf[0] = LANE_ROLE_COUNT;
    assert_int_equal(lane_mark_read(span_of(buf, w.n), &got), -EBADMSG);
    buf[0] = LANE_OWNER;
    buf[1] = 4;
    assert_int_equal(lane_mark_read(span_of(buf, w.n), &got), -EBADMSG);
}

static void test_tail_list(void **state)
{
    (void)state;
    uint8_t buf[128];
    struct writer w = writer_of(buf, sizeof buf);
    tail_list_put(&w, &(struct tail_list){.there = true, .count = 2});
    tail_put(&w, (struct msg_id){1, 2}, 3);
    tail_put(&w, (struct msg_id){4, 5}, UINT16_MAX);
    struct tail_list t;
    assert_int_equal(tail_list_read(span_of(buf, w.n), &t), 0);
    assert_true(t.there);
    assert_false(t.first);
    struct msg_id id;
    uint16_t index;
    assert_true(tail_next(&t.items, &id, &index));
    assert_int_equal(index, 3);
    assert_true(tail_next(&t.items, &id, &index));
    assert_true(id_eq(id, (struct msg_id){4, 5}));
    assert_int_equal(index, UINT16_MAX);
    assert_false(tail_next(&t.items, &id, &index));
    for (size_t i = 0; i < w.n; i++)
        assert_int_equal(tail_list_read(span_of(buf, i), &t), -EBADMSG);
}

static const struct record_head sample_head = {
    .type = RECORD_DONE,
    .flags = 1,
    .lane = 7,
    .epoch = 3,
    .salt = 0xfeedbeef,
    .position = 1ULL << 40,
    .segment = 12,
    .sequence = 99,
};

/* A whole record: head, meta, rest in two pieces. */
static size_t put_sample_record(uint8_t *buf)
{
    static const char meta[] = "some meta bytes";
    const struct span rest[2] = {span_str("250 2.0.0 "), span_str("ok queued")};
    struct record_head h = sample_head;
    h.meta_bytes = (uint32_t)(RECORD_HEAD_BYTES + sizeof meta);
    h.bytes = (uint32_t)(h.meta_bytes + rest[0].n + rest[1].n);
    record_head_write(buf, &h, span_of(meta, sizeof meta), rest, 2);
    struct writer w = writer_of(buf + RECORD_HEAD_BYTES, BUF_BYTES - RECORD_HEAD_BYTES);
    put_bytes(&w, span_of(meta, sizeof meta));
    put_bytes(&w, rest[0]);
    put_bytes(&w, rest[1]);
    assert_int_equal(w.n + RECORD_HEAD_BYTES, h.bytes);
    return h.bytes;
}

static bool record_ok(struct span s)
{
    struct record_head h;
    return record_head_read(s, &h) == 0 && s.n >= h.bytes && record_meta_ok(s) && record_rest_ok(s);
}

static void test_head_round_trip(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    size_t n = put_sample_record(buf);
    struct record_head h;
    assert_int_equal(record_head_read(span_of(buf, n), &h), 0);
    assert_int_equal(h.type, sample_head.type);
    assert_int_equal(h.flags, sample_head.flags);
    assert_int_equal(h.bytes, n);
    assert_int_equal(h.lane, sample_head.lane);
    assert_int_equal(h.epoch, sample_head.epoch);
    assert_int_equal(h.salt, sample_head.salt);
    assert_int_equal(h.position, sample_head.position);
    assert_int_equal(h.segment, sample_head.segment);
    assert_int_equal(h.sequence, sample_head.sequence);
    assert_true(record_ok(span_of(buf, n)));
    /* Head and meta prove themselves without the rest. */
    struct span meta_only = exact_copy(buf, h.meta_bytes);
    assert_true(record_meta_ok(meta_only));
    assert_false(record_rest_ok(meta_only));
    exact_free(meta_only);
}

static void test_head_truncated(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    size_t n = put_sample_record(buf);
    for (size_t i = 0; i < n; i++) {
        struct span s = exact_copy(buf, i);
        assert_false(record_ok(s));
        assert_false(record_rest_ok(s));
        exact_free(s);
    }
}

static void test_every_bit(void **state)
{
    (void)state;
    uint8_t buf[BUF_BYTES];
    size_t n = put_sample_record(buf);
    for (size_t bit = 0; bit < n * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct span s = exact_copy(buf, n);
        assert_false(record_ok(s));
        exact_free(s);
        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(record_ok(span_of(buf, n)));
}

static void test_zeroes_and_noise(void **state)
{
    (void)state;
    uint8_t buf[RECORD_HEAD_BYTES] = {0};
    struct record_head h;
    assert_int_equal(record_head_read(span_of(buf, sizeof buf), &h), -EBADMSG);
    memset(buf, 0xff, sizeof buf);
    assert_int_equal(record_head_read(span_of(buf, sizeof buf), &h), -EBADMSG);
    assert_int_equal(record_head_read(span_of(NULL, 0), &h), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enq_round_trip),   cmocka_unit_test(test_enq_truncated),
        cmocka_unit_test(test_enq_out_of_range), cmocka_unit_test(test_outcome),
        cmocka_unit_test(test_small_metas),      cmocka_unit_test(test_head_round_trip),
        cmocka_unit_test(test_head_truncated),   cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_zeroes_and_noise), cmocka_unit_test(test_lane_mark),
        cmocka_unit_test(test_tail_list),        cmocka_unit_test(test_enq_sound),
        cmocka_unit_test(test_unknown_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
