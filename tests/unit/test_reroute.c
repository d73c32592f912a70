/*
 * A message changes its lane within a shard: because its lane is gone, or because only a lane of
 * the other family reaches the site. Where it is must be in the log before it is there.
 */
#include "tests/sim/sim_disk.h"
#include "tests/unit/cluster_support.h"
#include "worker/lane/role_impl.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0"; /* a crash loses what waits for the disk, as it does in life */
}

enum { LANES = 2, CHUNK = 3000 };

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: a.example.net}, {address: '2001:db8::10', "
    "ehlo: b.example.net}]}}\n"
    "tenants: {t: {pool: p, in_doubt: retry}}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

static struct cnode *node = &cnodes[0];
static bool first_is_gone;
static struct enqueue enqueue;
static bool acknowledged;

static void node_start(void)
{
    struct control_lane lanes[LANES] = {{0}};
    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = (struct control_lane){.lane = 100 + i,
                                         .epoch = 1,
                                         .role = LANE_OWNER,
                                         .run = true,
                                         .owner_slot = CONTROL_NO_SLOT,
                                         .address = node->config->lanes[i].address};
    if (first_is_gone)
        lanes[0].address.b[15] ^= 64;
    cnode_start(node, lanes, LANES);
}

static void begin(void)
{
    sim_disk_init(5);
    cnode_now_ms = 1;
    first_is_gone = false;
    cnode_add(yaml);
    node_start();
}

static void end(void)
{
    sim_disk_run();
    cnode_stop(node);
    cnodes_free();
    sim_disk_fini();
}

static void again(void)
{
    sim_disk_crash();
    cnode_stop(node);
    node_start();
}

static void rest(struct cnode *n)
{
    (void)n;
}

static void turns(unsigned count, uint64_t ms)
{
    for (unsigned i = 0; i < count; i++) {
        cnodes_pass_ms(ms);
        cnode_turn(node, rest);
        sim_disk_run();
    }
}

static void on_enqueued(struct enqueue *x, int res)
{
    struct content *c = x->content;
    acknowledged = res == 0;
    content_unref(&c);
}

static struct msg_id the_id(void)
{
    return id_make(1, 1, 1);
}

/* One message with two recipients in the first lane, with a body in pieces if wanted. */
static void mail(unsigned chunks)
{
    static const uint8_t chunk[CHUNK];
    uint8_t buf[1000];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = the_id(),
                    .received_unix_ms = io_now_unix_ms(node->io),
                    .lifetime_s = 864000,
                    .tenant = span_str("t"),
                    .helo = span_str("c.example"),
                    .sender = span_str("s@example.org"),
                    .handed_by = span_str("x"),
                    .body_bytes = chunks > 0 ? chunks * CHUNK : 500,
                    .rcpt_count = 2,
                    .chunk_count = (uint16_t)chunks};
    struct record_place *places = chunks > 0 ? calloc(chunks, sizeof *places) : NULL;
    enq_put(&w, &e);
    for (uint16_t i = 0; i < 2; i++)
        enq_put_rcpt(&w, &(struct enq_rcpt){.index = i, .address = span_str("u@d.example")});
    for (unsigned i = 0; i < chunks; i++) {
        struct spool_wait *none = NULL;
        assert_int_equal(shard_put_chunk(&node->queue.lanes[0], e.id, span_of(chunk, CHUNK), none,
                                         &places[i]),
                         0);
        enq_put_chunk(&w, &(struct enq_chunk){.place = places[i], .body_bytes = CHUNK});
    }
    enqueue = (struct enqueue){.on_done = on_enqueued,
                               .lane = &node->queue.lanes[0],
                               .content = content_create(500),
                               .chunks = places,
                               .chunk_count = (uint16_t)chunks,
                               .rcpt_count = 2};
    memset(enqueue.content->rest, 'x', 500);
    enqueue.content->rest_bytes = chunks > 0 ? 0 : 500;
    assert_int_equal(content_set_meta(enqueue.content, span_of(buf, w.n)), 0);
    assert_int_equal(shard_enqueue(node->shard, &enqueue), 0);
    turns(5, 1);
    assert_true(acknowledged);
}

static struct qentry *entry(uint16_t i)
{
    struct qmsg *m = store_find(&node->queue.store, the_id());
    assert_non_null(m);
    return store_find_entry(&node->queue.store, m, i);
}

static void check_in(unsigned lane, enum entry_state s)
{
    for (uint16_t i = 0; i < 2; i++) {
        assert_non_null(entry(i));
        assert_int_equal(entry_lane(&node->queue, entry(i))->index, lane);
        assert_int_equal(entry(i)->state, s);
    }
    assert_int_equal(node->queue.lanes[lane].queued, 2);
    assert_int_equal(node->queue.lanes[1 - lane].queued, 0);
    struct spool_usage u;
    spool_usage(node->shard->spool, &u);
    const struct qmsg *m = store_find(&node->queue.store, the_id());
    const struct record_place *c;
    uint64_t bytes = m->bytes;
    for (uint16_t n = shard_chunks(&node->queue, m, &c); n > 0; n--)
        bytes += c[n - 1].bytes;
    assert_int_equal(u.live_bytes, bytes);
}

static void by_family(void)
{
    struct qentry *e = entry(0);
    entry_unlist(&node->queue, e);
    assert_true(route_by_family(&node->queue, e, false));
}

static void family_case(unsigned chunks)
{
    begin();
    mail(chunks);
    check_in(0, ENTRY_READY);
    by_family();
    check_in(0, ENTRY_WAITING); /* not there before the log says so */
    again();
    check_in(0, ENTRY_READY);
    by_family();
    turns(20, 1);
    check_in(1, ENTRY_READY);
    for (int i = 0; i < 2; i++) {
        again();
        turns(3, 1000);
        check_in(1, ENTRY_READY);
    }
    turns(10, 1000);
    check_in(1, ENTRY_READY);
    end();
}

static void test_other_family(void **state)
{
    (void)state;
    family_case(0);
    family_case(3);
}

/* What was moved does not go with the lane that it left, and goes with the one it is in. */
static void on_role(struct role_change *c, int res)
{
    (void)c;
    assert_int_equal(res, 0);
}

static void set_role(uint32_t lane, enum lane_role role, uint32_t epoch)
{
    static struct role_change c;
    c = (struct role_change){
        .on_done = on_role, .lane = 100 + lane, .role = role, .epoch = epoch, .node = "b"};
    role_set(&node->queue, &c);
    turns(20, 1);
    assert_int_equal(node->queue.lanes[lane].role, role);
    assert_int_equal(node->queue.lanes[lane].epoch, epoch);
}

static void test_old_lane_is_given(void **state)
{
    (void)state;
    begin();
    mail(0);
    by_family();
    turns(20, 1);
    set_role(0, LANE_FROZEN, 1);
    set_role(0, LANE_AWAY, 2);
    check_in(1, ENTRY_READY);
    struct ledger l;
    shards_ledger(&node->queue, &l);
    assert_int_equal(l.handed_over, 0);
    set_role(1, LANE_FROZEN, 1);
    set_role(1, LANE_AWAY, 2);
    assert_null(store_find(&node->queue.store, the_id()));
    shards_ledger(&node->queue, &l);
    assert_int_equal(l.handed_over, 2);
    end();
}

/* The freeze meets the message on its way: it is in the one lane or the other, and not in two. */
static void test_frozen_meanwhile(void **state)
{
    (void)state;
    begin();
    mail(0);
    by_family();
    set_role(0, LANE_FROZEN, 1);
    bool stayed = entry_lane(&node->queue, entry(0))->index == 0;
    turns(5, 1000); /* and tries again in vain */
    assert_int_equal(entry_lane(&node->queue, entry(0))->index, stayed ? 0 : 1);
    set_role(0, LANE_AWAY, 2);
    assert_int_equal(store_find(&node->queue.store, the_id()) == NULL, stayed);
    end();
}

static void test_nothing_moves_into_a_frozen_lane(void **state)
{
    (void)state;
    begin();
    mail(0);
    set_role(1, LANE_FROZEN, 1);
    struct qentry *e = entry(0);
    entry_unlist(&node->queue, e);
    assert_false(route_by_family(&node->queue, e, false)); /* no lane of that family is ours */
    entry_place(&node->queue, e);
    check_in(0, ENTRY_READY);
    assert_false(shard_move(node->shard, store_find(&node->queue.store, the_id()),
                            &node->queue.lanes[1]));
    end();
}

/* An attempt is open for one recipient: none of them leaves. */
static void test_in_flight_stays(void **state)
{
    (void)state;
    begin();
    mail(0);
    struct qentry *e = entry(1);
    struct flow *f = flow_at(&node->queue, e->flow);
    uint32_t at = e->flow;
    flow_take(&node->queue, f, e);
    entry_set_state(&node->queue, e, ENTRY_IN_FLIGHT);
    e->flow = at;
    by_family();
    turns(20, 1);
    assert_int_equal(entry_lane(&node->queue, entry(0))->index, 0);
    assert_int_equal(entry(0)->state, ENTRY_WAITING);
    fates_return(&node->queue, entry(1), true);
    turns(5, 1000);
    check_in(0, ENTRY_READY);
    end();
}

static void test_lane_gone(void **state)
{
    (void)state;
    begin();
    mail(0);
    first_is_gone = true;
    again();
    assert_true(node->queue.lanes[0].gone);
    for (int i = 0; i < 200 && entry(0)->state != ENTRY_READY; i++)
        turns(1, 1000);
    check_in(1, ENTRY_READY);
    again();
    turns(70, 1000);
    check_in(1, ENTRY_READY); /* and is not looked for a lane again */
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_family),
        cmocka_unit_test(test_old_lane_is_given),
        cmocka_unit_test(test_frozen_meanwhile),
        cmocka_unit_test(test_nothing_moves_into_a_frozen_lane),
        cmocka_unit_test(test_in_flight_stays),
        cmocka_unit_test(test_lane_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
