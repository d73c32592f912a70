/*
 * Roles of a lane, one scenario at a time; walks by chance are in test_role. One node, one lane;
 * the test plays the master, the other node and the connections.
 */
#include "tests/sim/sim_disk.h"
#include "tests/unit/cluster_support.h"
#include "worker/lane/adopted.h"
#include "worker/lane/deliver_impl.h"
#include "worker/lane/role_impl.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0"; /* a crash loses what waits for the disk, as it does in life */
}

enum { MAILS = 8, BODY = 400 };

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: a.example.net}]}}\n"
    "tenants:\n"
    "  again: {pool: p, in_doubt: retry}\n"
    "  held: {pool: p, in_doubt: hold}\n"
    "  fails: {pool: p, in_doubt: fail}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

static struct cnode *node = &cnodes[0];
static struct enqueue enqueues[MAILS];
static enum lane_role said_role;
static uint32_t said_epoch;
static int said_result;
static uint32_t said_tails;

/* --- the node --- */

static void node_start(void)
{
    struct control_lane l = {.lane = 100,
                             .epoch = said_epoch,
                             .role = said_role,
                             .run = said_role == LANE_OWNER,
                             .owner_slot = CONTROL_NO_SLOT,
                             .address = node->config->lanes[0].address};
    if (said_role != LANE_OWNER)
        snprintf(l.owner, sizeof l.owner, "b");
    cnode_start(node, &l, 1);
}

static void begin(enum lane_role role, uint32_t epoch)
{
    sim_disk_init(9);
    cnode_now_ms = 1;
    said_role = role;
    said_epoch = epoch;
    cnode_add(yaml);
    node_start();
}

static void rest(struct cnode *n)
{
    (void)n;
}

static void turns(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        cnodes_pass_ms(1);
        cnode_turn(node, rest);
        sim_disk_run();
    }
}

static void end(void)
{
    turns(5);
    cnode_stop(node);
    cnodes_free();
    sim_disk_fini();
}

static void again(void)
{
    turns(5);
    sim_disk_crash();
    cnode_stop(node);
    node_start();
    turns(20);
}

static struct lane *lane(void)
{
    return &node->queue.lanes[0];
}

static void on_role(struct role_change *c, int res)
{
    said_result = res;
    said_tails = c->tails;
}

static void set_role(enum lane_role role, uint32_t epoch)
{
    static struct role_change c;
    said_role = role;
    said_epoch = epoch;
    c = (struct role_change){.on_done = on_role,
                             .lane = 100,
                             .role = role,
                             .epoch = epoch,
                             .run = role == LANE_OWNER};
    if (role != LANE_OWNER)
        snprintf(c.node, sizeof c.node, "b");
    said_result = 1;
    role_set(&node->queue, &c);
    turns(20);
    assert_int_equal(said_result, 0);
    assert_int_equal(lane()->role, role);
}

static struct ledger ledger(void)
{
    struct ledger l;
    shards_ledger(&node->queue, &l);
    return l;
}

/* --- mail --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct content *c = x->content;
    assert_int_equal(res, 0);
    content_unref(&c);
}

static struct msg_id id_of(unsigned k)
{
    return id_make(1, 1, 1 + k);
}

/* With two recipients. */
static void mail(unsigned k, const char *tenant, bool replica)
{
    uint8_t buf[1000];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = id_of(k),
                    .received_unix_ms = io_now_unix_ms(node->io),
                    .lifetime_s = 864000,
                    .tenant = span_str(tenant),
                    .helo = span_str("c.example"),
                    .sender = span_str("s@example.org"),
                    .body_bytes = BODY,
                    .rcpt_count = 2};
    enq_put(&w, &e);
    for (uint16_t i = 0; i < 2; i++)
        enq_put_rcpt(&w, &(struct enq_rcpt){.index = i, .address = span_str("u@d.example")});
    struct enqueue *x = &enqueues[k];
    *x = (struct enqueue){.on_done = on_enqueued,
                          .lane = lane(),
                          .content = content_create(BODY),
                          .rcpt_count = 2,
                          .replica = replica};
    memset(x->content->rest, 'x', BODY);
    x->content->rest_bytes = BODY;
    assert_int_equal(content_set_meta(x->content, span_of(buf, w.n)), 0);
    assert_int_equal(shard_enqueue(node->shard, x), 0);
    turns(3);
}

static struct qentry *entry(unsigned k, uint16_t i)
{
    struct qmsg *m = store_find(&node->queue.store, id_of(k));
    return m == NULL ? NULL : store_find_entry(&node->queue.store, m, i);
}

static void check_state(unsigned k, uint16_t i, enum entry_state s)
{
    assert_non_null(entry(k, i));
    assert_string_equal(entry_state_word((enum entry_state)entry(k, i)->state),
                        entry_state_word(s));
}

/* --- connections --- */

static struct outbound *outbound(struct flow *f, enum outbound_state s)
{
    struct queue *q = &node->queue;
    struct outbound *o = pool_get(&q->deliver->outbounds);
    assert_non_null(o);
    o->deliver = q->deliver;
    o->flow = f;
    o->state = s;
    o->next = q->deliver->all;
    o->link = &q->deliver->all;
    if (o->next != NULL)
        o->next->link = &o->next;
    q->deliver->all = o;
    outbound_lane(o)->outbounds++;
    return o;
}

/* The entry goes out by a connection of its own, its final dot too. */
static struct outbound *attempt(struct qentry *e)
{
    struct queue *q = &node->queue;
    struct flow *f = flow_at(q, e->flow);
    uint32_t at = e->flow;
    flow_take(q, f, e);
    entry_set_state(q, e, ENTRY_IN_FLIGHT);
    e->flow = at;
    f->in_flight++;
    f->open++;
    struct outbound *o = outbound(f, OUT_SENDING);
    o->entry_room = malloc(sizeof *o->entry_room);
    o->entry_room[0] = store_entry_index(&q->store, e);
    o->job.entries = o->entry_room;
    o->job.count = 1;
    o->job.id = store_msg(&q->store, e->msg)->id;
    q->deliver->busy++;
    uint8_t index[2] = {(uint8_t)e->index, 0};
    struct note_facts dot = {.type = RECORD_DOT, .lane = lane()};
    dot.outcome = (struct outcome){.id = o->job.id, .count = 1, .indices = span_of(index, 2)};
    e->in_doubt = 1;
    shard_note(node->shard, &dot, NULL);
    turns(3);
    return o;
}

static void outbound_free(struct outbound *o)
{
    role_outbound_gone(&node->queue, outbound_lane(o));
    o->job.entries = NULL;
    job_wipe(o);
    free(o->entry_room);
    *o->link = o->next;
    if (o->next != NULL)
        o->next->link = o->link;
    pool_put(&node->queue.deliver->outbounds, o);
}

/* The attempt ended without an answer of the remote side. */
static void attempt_breaks(struct outbound *o)
{
    struct queue *q = &node->queue;
    struct qentry *e = store_entry(&q->store, o->job.entries[0]);
    o->flow->in_flight--;
    o->flow->open--;
    fates_return(q, e, true);
    outbound_free(o);
}

/* --- tails at the new owner --- */

static void taken_with_tails(const char *tenant)
{
    begin(LANE_AWAY, 3);
    set_role(LANE_REPLICA, 3);
    mail(0, tenant, true);
    mail(1, tenant, true);
    const struct tail_item tails[] = {{id_of(0), 0}, {id_of(1), 1}, {id_of(7), 0}};
    assert_int_equal(replica_tails(lane(), tails, 3), 0);
    assert_int_equal(replica_ready(lane(), NULL), 0);
    turns(5);
    assert_true(lane()->ready);
    set_role(LANE_OWNER, 4);
    check_state(0, 0, ENTRY_TAIL);
    check_state(0, 1, ENTRY_READY);
    check_state(1, 0, ENTRY_READY);
    check_state(1, 1, ENTRY_TAIL);
    assert_int_equal(ledger().accepted, 2);
    assert_int_equal(ledger().taken_over, 2);
    assert_string_equal(lane()->given_by, "b");
    again();
    assert_string_equal(lane()->given_by, "b");
    check_state(0, 0, ENTRY_TAIL);
    check_state(1, 1, ENTRY_TAIL);
    assert_int_equal(lane()->tails_there.count, 2);
}

static void test_tail_ends(void **state)
{
    (void)state;
    taken_with_tails("again");
    tail_done(lane(), id_of(0), 1); /* that is none */
    check_state(0, 1, ENTRY_READY);
    tail_done(lane(), id_of(0), 0);
    assert_null(entry(0, 0));
    again();
    assert_null(entry(0, 0));
    check_state(1, 1, ENTRY_TAIL);
    assert_int_equal(ledger().accepted, 2);
    assert_int_equal(ledger().delivered, 0);
    end();
}

/* An earlier list of tails is void when the next one comes. */
static void test_tails_again(void **state)
{
    (void)state;
    begin(LANE_AWAY, 3);
    set_role(LANE_REPLICA, 3);
    mail(0, "again", true);
    struct tail_item t = {id_of(0), 0};
    assert_int_equal(replica_tails(lane(), &t, 1), 0);
    check_state(0, 0, ENTRY_TAIL);
    t.index = 1;
    assert_int_equal(replica_tails(lane(), &t, 1), 0);
    for (int i = 0; i < 2; i++) {
        check_state(0, 0, ENTRY_REPLICA);
        check_state(0, 1, ENTRY_TAIL);
        again();
    }
    set_role(LANE_AWAY, 3);
    assert_null(entry(0, 0));
    assert_int_equal(lane()->replicas + lane()->tails_there.count, 0);
    end();
}

static void back_case(enum rcpt_state s, enum reason reason, enum entry_state expected)
{
    taken_with_tails("again");
    struct enq_rcpt r = {.index = 0, .state = (uint8_t)s, .reason = (uint8_t)reason, .attempts = 2};
    assert_true(tail_back(lane(), id_of(0), &r, NULL));
    assert_false(tail_back(lane(), id_of(0), &r, NULL)); /* it has come already */
    check_state(0, 0, expected);
    assert_int_equal(entry(0, 0)->attempts, 2);
    assert_int_equal(ledger().accepted, 3);
    assert_int_equal(ledger().taken_over, 3);
    again();
    assert_non_null(entry(0, 0));
    assert_int_equal(entry(0, 0)->attempts, 2);
    assert_int_equal(ledger().accepted, 3);
    assert_int_equal(ledger().taken_over, 3);
    assert_int_equal(lane()->tails_there.count, 1);
    end();
}

static void test_tail_comes_back(void **state)
{
    (void)state;
    back_case(RCPT_QUEUED, REASON_NONE, ENTRY_READY);
    back_case(RCPT_HELD, REASON_IN_DOUBT, ENTRY_HELD);
    back_case(RCPT_HELD, REASON_HELD_MESSAGE, ENTRY_READY); /* nothing is held here */
    back_case(RCPT_PARKED, REASON_POISON, ENTRY_PARKED);
}

/* Nobody says any more what became of it. */
static void doubt_case(const char *tenant, enum entry_state expected)
{
    taken_with_tails(tenant);
    tail_in_doubt(lane(), id_of(0), 0);
    for (int i = 0; i < 2; i++) {
        check_state(0, 0, expected);
        assert_int_equal(ledger().accepted, 3);
        assert_int_equal(lane()->tails_there.count, 1);
        again();
    }
    end();
}

static void test_tail_in_doubt(void **state)
{
    (void)state;
    doubt_case("again", ENTRY_WAITING);
    doubt_case("held", ENTRY_HELD);
    doubt_case("fails", ENTRY_BOUNCE_DUE);
}

/* --- tails at the old owner --- */

static void given_with_open(const char *tenant)
{
    begin(LANE_OWNER, 1);
    mail(0, tenant, false);
    check_state(0, 0, ENTRY_READY);
    (void)attempt(entry(0, 0));
    set_role(LANE_FROZEN, 1);
    assert_int_equal(said_tails, 1);
    set_role(LANE_AWAY, 2);
    check_state(0, 0, ENTRY_IN_FLIGHT);
    assert_null(entry(0, 1));
    assert_int_equal(ledger().handed_over, 1);
}

/* The worker dies in the middle of the dot: what that means is the new owner's to carry out. */
static void open_dies_case(const char *tenant, enum rcpt_state expected)
{
    given_with_open(tenant);
    for (int i = 0; i < 2; i++) {
        again();
        check_state(0, 0, ENTRY_STRAY);
        assert_int_equal(role_written_state(entry(0, 0)), expected);
        assert_int_equal(entry(0, 0)->reason, REASON_IN_DOUBT);
        assert_int_equal(lane()->strays.count, 1);
        /* as it is written when it is copied by compaction, or comes back from the owner */
        struct qmsg *m = stray_take(&node->queue, lane());
        assert_non_null(m);
        assert_int_equal(role_written_state(entry(0, 0)), expected);
        stray_return(&node->queue, m);
        assert_int_equal(role_written_state(entry(0, 0)), expected);
    }
    struct qmsg *m = stray_take(&node->queue, lane());
    stray_taken(&node->queue, m);
    assert_null(entry(0, 0));
    assert_int_equal(ledger().handed_over, 2);
    end();
}

static void test_open_when_the_worker_dies(void **state)
{
    (void)state;
    open_dies_case("again", RCPT_QUEUED);
    open_dies_case("held", RCPT_HELD);
}

/* Held for doubt while the lane was frozen, and the lane stays: held it is. */
static void test_doubt_in_an_abort(void **state)
{
    (void)state;
    begin(LANE_OWNER, 1);
    mail(0, "held", false);
    (void)attempt(entry(0, 0));
    set_role(LANE_FROZEN, 1);
    again();
    check_state(0, 0, ENTRY_STRAY);
    set_role(LANE_OWNER, 2);
    check_state(0, 0, ENTRY_HELD);
    check_state(0, 1, ENTRY_READY);
    again();
    check_state(0, 0, ENTRY_HELD);
    assert_int_equal(lane()->strays.count, 0);
    end();
}

/* The operator holds the message at the old owner: the new one waits for it all the same. */
static void test_held_tail(void **state)
{
    (void)state;
    begin(LANE_OWNER, 1);
    mail(0, "again", false);
    struct outbound *o = attempt(entry(0, 0));
    set_role(LANE_FROZEN, 1);
    set_role(LANE_AWAY, 2);
    struct control_hold h = {.kind = "message"};
    id_format(id_of(0), h.value);
    queue_set_holds(&node->queue, &h, 1);
    turns(5);
    check_state(0, 0, ENTRY_IN_FLIGHT);
    attempt_breaks(o);
    check_state(0, 0, ENTRY_STRAY);
    end();
}

/* --- the freeze --- */

/* A connection that is still looking for its host has nothing to end: it is no tail. */
static void test_freeze_ends_lookups(void **state)
{
    (void)state;
    begin(LANE_OWNER, 1);
    mail(0, "again", false);
    struct flow *f = flow_at(&node->queue, entry(0, 0)->flow);
    struct outbound *o = outbound(f, OUT_RESOLVING);
    struct dns_query *asked = &o->query;
    o->query.link = &asked;
    f->opening++;
    set_role(LANE_FROZEN, 1);
    assert_int_equal(said_tails, 0);
    assert_null(asked); /* nobody answers it any more */
    assert_int_equal(lane()->outbounds, 0);
    assert_int_equal(f->opening, 0);
    check_state(0, 0, ENTRY_READY);
    end();
}

/* --- strays of a lane that comes to us --- */

static void test_adopted_stray(void **state)
{
    (void)state;
    begin(LANE_AWAY, 3);
    mail(0, "again", false);
    mail(1, "again", false);
    check_state(0, 0, ENTRY_STRAY);
    set_role(LANE_REPLICA, 3);
    struct adopted_item had = {.id = id_of(0), .lane = 100, .origin = "a"};
    assert_int_equal(adopted_keep(node->shard, &had), 0); /* b had it; we did not hear TAKEN */
    assert_int_equal(replica_ready(lane(), NULL), 0);
    turns(5);
    set_role(LANE_OWNER, 4);
    assert_null(entry(0, 0));
    check_state(1, 0, ENTRY_READY);
    assert_int_equal(ledger().handed_over, 2);
    again();
    assert_null(entry(0, 0));
    check_state(1, 0, ENTRY_READY);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail_ends),
        cmocka_unit_test(test_tails_again),
        cmocka_unit_test(test_tail_comes_back),
        cmocka_unit_test(test_tail_in_doubt),
        cmocka_unit_test(test_open_when_the_worker_dies),
        cmocka_unit_test(test_doubt_in_an_abort),
        cmocka_unit_test(test_held_tail),
        cmocka_unit_test(test_freeze_ends_lookups),
        cmocka_unit_test(test_adopted_stray),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
