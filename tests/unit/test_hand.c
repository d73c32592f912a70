/*
 * Strays of three nodes over simulated disks, a lossy network and moving lanes: every acknowledged
 * message is delivered once, wherever it came in and whoever died meanwhile; twice only when the
 * record of its delivery was lost with a node. The ledgers of all nodes add up.
 *
 * The test is the master of each node: it says who owns a lane, and says it again and again.
 */
#include "tests/sim/sim_disk.h"
#include "tests/unit/cluster_support.h"
#include "worker/lane/adopted.h"
#include "worker/lane/role_impl.h"
#include "worker/move/move.h"

/* A crash loses what waits for the disk, as it does in life: that is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

enum { NODES = 3, LANES = 2, MESSAGES = 60, RCPTS = 2, SEEDS = 40, STEPS = 1500, CHUNK = 3000 };

#define YAML(name)                                                                       \
    "node: " name "\n"                                                                   \
    "listen: [{address: 0.0.0.0, port: 25}]\n"                                           \
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.11, ehlo: out%d.example.net}]}}\n" \
    "tenants: {t: {pool: p, in_doubt: retry}}\n"                                         \
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"                                     \
    "dns: {enabled: false}\n"                                                            \
    "queue: {hold: true}\n"                                                              \
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n"

/* --- what the masters know --- */

enum stage { SETTLED, COPYING, FROZEN };
struct place {
    unsigned owner, target;
    uint32_t epoch;
    enum stage stage;
    uint64_t move;
    bool done[NODES]; /* has answered the last change */
};
static struct place places[LANES];
static struct move *moves[NODES];
static void (*before_commit)(
    struct place *p); /* everything is at the target, and not its own yet */
static uint64_t next_move;
static unsigned commits;

/* --- the mail --- */

struct sent {
    struct enqueue enqueue;
    struct spool_wait chunk_wait[2];
    struct record_place place[2];
    struct content *content;
    struct msg_id id;
    unsigned node, lane, rcpts, chunks, chunks_durable, life;
    bool maybe, acknowledged, chunk_failed;
    unsigned delivered[RCPTS], unsure[RCPTS];
};
struct heard {
    struct spool_wait wait;
    struct heard *next;
    struct sent *m;
    unsigned rcpt, node;
};
static struct sent sent[MESSAGES];
static unsigned sent_count, lives[NODES];
static struct heard *hearing; /* fates that are not durable yet */
static struct rng dice;

static void lanes_fill(unsigned n, struct control_lane out[LANES]);

/* --- orders --- */

static struct control_lane_order order_for(unsigned n, unsigned l)
{
    const struct place *p = &places[l];
    struct control_lane_order o = {.op = LANE_OP_SET, .lane = 100 + l, .epoch = p->epoch};
    o.slot = 0;
    if (n == p->owner) {
        o.role = p->stage == FROZEN ? LANE_FROZEN : LANE_OWNER;
        o.run = p->stage != FROZEN;
        if (p->stage == FROZEN)
            snprintf(o.node, sizeof o.node, "%s", cnodes[p->target].name);
        o.move = p->stage == FROZEN ? p->move : 0;
        return o;
    }
    o.role = p->stage != SETTLED && n == p->target ? LANE_REPLICA : LANE_AWAY;
    o.move = o.role == LANE_REPLICA ? p->move : 0;
    snprintf(o.node, sizeof o.node, "%s", cnodes[p->owner].name);
    return o;
}

static void lanes_fill(unsigned n, struct control_lane out[LANES])
{
    for (unsigned l = 0; l < LANES; l++) {
        struct control_lane_order o = order_for(n, l);
        out[l] = (struct control_lane){.lane = o.lane,
                                       .epoch = o.epoch,
                                       .address = cnodes[n].config->lanes[l].address,
                                       .role = o.role,
                                       .run = o.run,
                                       .owner_slot = o.slot,
                                       .move = o.move};
        memcpy(out[l].owner, o.node, sizeof out[l].owner);
    }
}

static void place_change(struct place *p)
{
    memset(p->done, 0, sizeof p->done);
}

static void commit(struct place *p)
{
    if (before_commit != NULL)
        before_commit(p);
    p->owner = p->target;
    p->epoch++;
    p->stage = SETTLED;
    commits++;
    place_change(p);
}

/* What a worker tells its master. */
static void on_tell(void *ctx, const struct control_lane_order *o)
{
    const struct cnode *n = ctx;
    struct place *p = &places[o->lane - 100];
    struct control_lane_order now = order_for(n->number, o->lane - 100);
    bool of_move =
        p->stage == FROZEN && n->number == p->target && o->epoch == p->epoch && o->move == p->move;
    if (o->op == LANE_OP_READY && of_move)
        commit(p);
    else if (o->op == LANE_OP_SET_DONE && o->result == 0 && o->role == now.role &&
             o->epoch == now.epoch && o->move == now.move) {
        if (o->role == LANE_REPLICA && o->complete && of_move)
            commit(p);
        else
            p->done[n->number] = true;
    }
}

static void orders_repeat(void)
{
    for (unsigned n = 0; n < NODES; n++)
        for (unsigned l = 0; l < LANES && cnodes[n].alive; l++) {
            struct place *p = &places[l];
            struct control_lane_order o = order_for(n, l);
            if (!p->done[n])
                move_order(moves[n], &o);
            bool both = p->done[p->owner] && p->done[p->target];
            if (p->stage == SETTLED || n != p->owner || (p->stage == COPYING && !both))
                continue;
            o = (struct control_lane_order){
                .op = LANE_OP_COPY, .lane = 100 + l, .epoch = p->epoch, .move = p->move};
            snprintf(o.node, sizeof o.node, "%s", cnodes[p->target].name);
            move_order(moves[n], &o);
        }
}

static void move_some(void)
{
    struct place *p = &places[rng_below(&dice, LANES)];
    switch (p->stage) {
    case SETTLED:
        for (unsigned n = 0; n < NODES; n++)
            if (!p->done[n])
                return;
        p->target = (p->owner + 1 + (unsigned)rng_below(&dice, NODES - 1)) % NODES;
        p->move = ++next_move;
        p->stage = COPYING;
        break;
    case COPYING:
        if (!p->done[p->owner] || !p->done[p->target])
            return;
        p->stage = rng_below(&dice, 5) == 0 ? SETTLED : FROZEN;
        break;
    case FROZEN: /* given up */
        if (rng_below(&dice, 20) != 0)
            return;
        p->stage = SETTLED;
        p->epoch++;
        break;
    }
    place_change(p);
}

/* --- nodes --- */

static void node_start(unsigned n)
{
    struct control_lane lanes[LANES];
    struct cnode *c = &cnodes[n];
    lanes_fill(n, lanes);
    lives[n]++;
    cnode_start(c, lanes, LANES);
    struct move_settings set = {.queue = &c->queue, .slot = 0, .tell = on_tell, .ctx = c};
    assert_int_equal(move_create(&moves[n], &set), 0);
    move_recovered(moves[n]);
    for (unsigned l = 0; l < LANES; l++)
        places[l].done[n] = false;
    for (unsigned k = 0; k < NODES; k++)
        if (cnet_linked[n][k])
            cnet_tell(n, k, true);
}

/* What was not durable may come again. */
static void node_stop(unsigned n)
{
    for (struct heard **at = &hearing; *at != NULL;) {
        struct heard *h = *at;
        if (h->node != n) {
            at = &h->next;
            continue;
        }
        h->m->unsure[h->rcpt]++;
        *at = h->next;
        free(h);
    }
    move_destroy(&moves[n]);
    cnode_stop(&cnodes[n]);
    for (unsigned i = 0; i < sent_count; i++)
        if (sent[i].node == n)
            content_unref(&sent[i].content);
}

static void rest(struct cnode *n)
{
    move_turn(moves[n->number]);
}

static void turn(void)
{
    cnodes_pass_ms(5);
    for (unsigned n = 0; n < NODES; n++)
        cnode_turn(&cnodes[n], rest);
}

/* --- mail in --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct sent *m = (struct sent *)((char *)x - offsetof(struct sent, enqueue));
    m->acknowledged = res == 0;
    content_unref(&m->content);
}

static void enqueue_now(struct sent *m)
{
    uint8_t buf[1000];
    struct writer w = writer_of(buf, sizeof buf);
    struct cnode *n = &cnodes[m->node];
    struct enq e = {.id = m->id,
                    .received_unix_ms = io_now_unix_ms(n->io),
                    .lifetime_s = 864000,
                    .tenant = span_str("t"),
                    .helo = span_str("c.example"),
                    .sender = span_str("s@example.org"),
                    .body_bytes = m->chunks > 0 ? m->chunks * CHUNK : m->content->rest_bytes,
                    .rcpt_count = (uint16_t)m->rcpts,
                    .chunk_count = (uint16_t)m->chunks};
    enq_put(&w, &e);
    for (unsigned i = 0; i < m->rcpts; i++)
        enq_put_rcpt(&w,
                     &(struct enq_rcpt){.index = (uint16_t)i, .address = span_str("u@d.example")});
    for (unsigned i = 0; i < m->chunks; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = m->place[i], .body_bytes = CHUNK});
    assert_false(w.bad);
    assert_int_equal(content_set_meta(m->content, span_of(buf, w.n)), 0);
    struct record_place *chunks = m->chunks > 0 ? malloc(sizeof m->place) : NULL;
    if (chunks != NULL)
        memcpy(chunks, m->place, sizeof m->place);
    m->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = &n->queue.lanes[m->lane],
                                  .content = m->content,
                                  .chunks = chunks,
                                  .chunk_count = (uint16_t)m->chunks,
                                  .rcpt_count = (uint16_t)m->rcpts};
    m->maybe = true;
    if (shard_enqueue(n->shard, &m->enqueue) == 0)
        return;
    shard_drop_chunks(n->shard, m->place, (uint16_t)m->chunks);
    free(chunks);
    m->maybe = false;
    content_unref(&m->content);
}

static void on_chunk(struct spool_wait *w, int res)
{
    struct sent *m = sent;
    while (w != &m->chunk_wait[0] && w != &m->chunk_wait[1])
        m++;
    m->chunk_failed |= res != 0;
    if (++m->chunks_durable < m->chunks)
        return;
    if (!m->chunk_failed) {
        enqueue_now(m);
        return;
    }
    shard_drop_chunks(cnodes[m->node].shard, m->place, (uint16_t)m->chunks);
    content_unref(&m->content);
}

static void send_one(void)
{
    static uint8_t chunk[CHUNK];
    unsigned n = (unsigned)rng_below(&dice, NODES);
    if (sent_count == MESSAGES || !cnodes[n].alive)
        return;
    struct sent *m = &sent[sent_count++];
    memset(m, 0, sizeof *m);
    m->node = n;
    m->lane = (unsigned)rng_below(&dice, LANES);
    m->id = id_make((uint16_t)(n + 1), lives[n], sent_count);
    m->rcpts = 1 + (unsigned)rng_below(&dice, RCPTS);
    m->chunks = rng_below(&dice, 5) == 0 ? 2 : 0;
    uint32_t body = 100 + (uint32_t)rng_below(&dice, 3000);
    m->content = content_create(body);
    memset(m->content->rest, 'x', body);
    m->content->rest_bytes = m->chunks > 0 ? 0 : body;
    for (unsigned i = 0; i < m->chunks; i++) {
        m->chunk_wait[i].on_durable = on_chunk;
        assert_int_equal(shard_put_chunk(&cnodes[n].queue.lanes[m->lane], m->id,
                                         span_of(chunk, sizeof chunk), &m->chunk_wait[i],
                                         &m->place[i]),
                         0);
    }
    if (m->chunks == 0)
        enqueue_now(m);
}

/* --- mail out --- */

static struct sent *sent_of(struct msg_id id)
{
    for (unsigned i = 0; i < sent_count; i++)
        if (id_eq(sent[i].id, id))
            return &sent[i];
    fail_msg("a message that nobody sent");
    abort();
}

static void on_heard(struct spool_wait *w, int res)
{
    struct heard *h = (struct heard *)w, **at = &hearing;
    assert_int_equal(res, 0);
    while (*at != h)
        at = &(*at)->next;
    *at = h->next;
    free(h);
}

static void deliver(struct cnode *n, struct qentry *e)
{
    struct queue *q = &n->queue;
    struct sent *m = sent_of(store_msg(&q->store, e->msg)->id);
    struct heard *h = calloc(1, sizeof *h);
    assert_non_null(h);
    *h = (struct heard){
        .wait.on_durable = on_heard, .m = m, .rcpt = e->index, .node = n->number, .next = hearing};
    hearing = h;
    m->delivered[e->index]++;
    flow_take(q, flow_at(q, e->flow), e);
    e->flow = 0;
    entry_set_state(q, e, ENTRY_NEW);
    struct fate_facts f = {.reason = REASON_DELIVERED, .status = {2, 0, 0}};
    struct fate_set one = {.entries = &e, .count = 1};
    assert_true(fates_apply(q, &one, VERDICT_OK, &f, &h->wait));
}

static void deliver_some(unsigned n)
{
    struct queue *q = &cnodes[n].queue;
    for (uint32_t i = 1; cnodes[n].alive && i < store_entry_end(&q->store); i++) {
        struct qentry *e = store_peek(&q->store, i);
        if (e == NULL || e->state != ENTRY_READY || !lane_runs(entry_lane(q, e)))
            continue;
        assert_int_equal(places[store_msg(&q->store, e->msg)->lane].owner, n);
        deliver(&cnodes[n], e);
        return;
    }
}

/* --- runs --- */

static void kill_one(void)
{
    unsigned n = (unsigned)rng_below(&dice, NODES);
    sim_disk_run(); /* what was handed to the kernel is written all the same */
    node_stop(n);
    node_start(n);
}

static void power_cut(void)
{
    sim_disk_crash();
    for (unsigned n = 0; n < NODES; n++)
        node_stop(n);
    for (unsigned n = 0; n < NODES; n++)
        node_start(n);
}

static void cable(bool up)
{
    cnet_link((unsigned)rng_below(&dice, NODES), (unsigned)rng_below(&dice, NODES), up);
}

static void step(bool faults)
{
    uint64_t n = rng_below(&dice, 1000);
    if (n < 60)
        send_one();
    else if (n < 140)
        deliver_some((unsigned)rng_below(&dice, NODES));
    else if (n < 400)
        sim_disk_step();
    else if (n < 650)
        cnet_step(&dice);
    else if (n < 700)
        orders_repeat();
    else if (n < 720)
        move_some();
    else if (n < 735 && faults)
        cable(n < 728);
    else if (n < 740 && faults)
        kill_one();
    else if (n < 742 && faults)
        power_cut();
    else
        turn();
}

static bool all_ended(void)
{
    for (unsigned n = 0; n < NODES; n++)
        if (cnodes[n].queue.store.entries.used > 0 || adopted_count(&cnodes[n].queue) > 0)
            return false;
    return hearing == NULL;
}

static void check_ledgers(void)
{
    struct ledger sum = {0};
    for (unsigned n = 0; n < NODES; n++) {
        struct ledger l;
        shards_ledger(&cnodes[n].queue, &l);
        assert_int_equal(l.accepted,
                         l.delivered + l.bounced + l.expired + l.deleted + l.handed_over);
        sum.accepted += l.accepted;
        sum.delivered += l.delivered;
        sum.bounced += l.bounced;
        sum.handed_over += l.handed_over;
        sum.taken_over += l.taken_over;
    }
    assert_int_equal(sum.handed_over, sum.taken_over);
    assert_int_equal(sum.accepted - sum.taken_over, sum.delivered + sum.bounced);
}

static void check_mail(void)
{
    for (unsigned i = 0; i < sent_count; i++) {
        const struct sent *m = &sent[i];
        for (unsigned k = 0; k < m->rcpts; k++) {
            if (m->acknowledged && m->delivered[k] == 0)
                fail_msg("message %u, recipient %u: acknowledged and lost", i, k);
            if (m->delivered[k] > 1 + m->unsure[k])
                fail_msg("message %u, recipient %u: delivered %u times, %u allowed", i, k,
                         m->delivered[k], 1 + m->unsure[k]);
        }
    }
}

/* Nothing fails any more: all must come to its end. */
static void settle(void)
{
    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = 0; b < NODES; b++)
            cnet_link(a, b, true);
    for (unsigned i = 0; i < 20000 && !(i > 200 && all_ended()); i++) {
        for (unsigned n = 0; n < NODES; n++)
            deliver_some(n);
        orders_repeat();
        while (cnet_step(&dice))
            continue;
        sim_disk_run();
        turn();
        for (unsigned l = 0; l < LANES; l++)
            if (places[l].stage == COPYING)
                move_some();
    }
    for (unsigned n = 0; n < NODES; n++) {
        struct queue *q = &cnodes[n].queue;
        for (uint32_t i = 1; i < store_entry_end(&q->store); i++) {
            const struct qentry *e = store_peek(&q->store, i);
            if (e != NULL)
                fail_msg("node %u: an entry is left, %s", n,
                         entry_state_word((enum entry_state)e->state));
        }
        assert_int_equal(adopted_count(q), 0);
    }
    assert_true(all_ended());
}

static void begin(uint64_t seed)
{
    rng_seed(&dice, seed);
    sim_disk_init(seed);
    cnode_now_ms = 1;
    sent_count = 0;
    cnode_add(YAML("a"));
    cnode_add(YAML("b"));
    cnode_add(YAML("c"));
    for (unsigned l = 0; l < LANES; l++)
        places[l] = (struct place){.owner = 0, .epoch = 1};
    for (unsigned n = 0; n < NODES; n++)
        for (unsigned k = 0; k < n; k++)
            cnet_linked[n][k] = cnet_linked[k][n] = true;
    for (unsigned n = 0; n < NODES; n++)
        node_start(n);
}

static void end(void)
{
    sim_disk_run();
    for (unsigned n = 0; n < NODES; n++)
        node_stop(n);
    while (cnet_step(&dice))
        continue;
    cnodes_free();
    sim_disk_fini();
}

static void run(uint64_t seed, bool faults)
{
    begin(seed);
    for (unsigned i = 0; i < STEPS; i++)
        step(faults);
    settle();
    check_mail();
    check_ledgers();
    end();
}

static void test_quiet(void **state)
{
    (void)state;
    commits = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed, false);
    }
    assert_true(commits > 10);
}

static void test_faults(void **state)
{
    (void)state;
    const char *one = getenv("HAND_SEED");
    uint64_t from = one != NULL ? strtoull(one, NULL, 10) : 1;
    commits = 0;
    for (uint64_t seed = from; seed < from + (one != NULL ? 1 : SEEDS); seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed, true);
    }
    assert_true(one != NULL || commits > 10);
}

/* --- ids that are kept --- */

enum { IDS = 300, ORIGINS = 3 };

static void known_check(struct queue *q, bool known[IDS][ORIGINS])
{
    unsigned count = 0, walked = 0;
    for (unsigned i = 0; i < IDS; i++) {
        bool any = false;
        for (unsigned o = 0; o < ORIGINS; o++) {
            any |= known[i][o];
            count += known[i][o];
        }
        assert_int_equal(adopted_has(q, id_make(9, 9, i + 1)), any);
    }
    assert_int_equal(adopted_count(q), count);
    struct adopted_item item;
    for (uint32_t at = 0; adopted_next(q, &at, &item); walked++) {
        assert_true(known[item.id.lo - 1][item.origin[0] - 'x']);
        assert_int_equal(item.lane, 100 + item.id.lo % LANES);
    }
    assert_int_equal(walked, count);
}

static void sync_all(void)
{
    for (int i = 0; i < 20; i++) {
        turn();
        sim_disk_run();
    }
}

/* Nobody is there who could say that an id is gone: what is kept is kept, also over crashes, and
   when the segment that named it has left. */
static void test_adopted(void **state)
{
    (void)state;
    static bool known[IDS][ORIGINS];
    begin(3);
    memset(known, 0, sizeof known);
    struct queue *q = &cnodes[0].queue;
    for (unsigned i = 0; i < 3000; i++) {
        unsigned id = (unsigned)rng_below(&dice, IDS), o = (unsigned)rng_below(&dice, ORIGINS);
        struct adopted_item item = {.id = id_make(9, 9, id + 1)};
        item.lane = 100 + (id + 1) % LANES;
        item.origin[0] = (char)('x' + o);
        bool add = rng_below(&dice, 3) != 0;
        if (add)
            assert_int_equal(adopted_keep(cnodes[0].shard, &item), 0);
        else
            adopted_remove(q, item.id, item.origin);
        known[id][o] = add;
        if (i % 500 == 0)
            known_check(q, known);
        sync_all();
    }
    known_check(q, known);
    struct spool_usage u;
    spool_usage(cnodes[0].shard->spool, &u);
    uint64_t first = u.head_segment;
    static uint8_t filler[200 << 10];
    while (u.head_segment < first + 3) { /* dead bytes: old segments leave */
        struct record_place place;
        assert_int_equal(shard_put_chunk(&q->lanes[0], id_make(8, 8, 8),
                                         span_of(filler, sizeof filler), NULL, &place),
                         0);
        shard_drop_chunks(cnodes[0].shard, &place, 1);
        sync_all();
        spool_usage(cnodes[0].shard->spool, &u);
    }
    assert_true(u.oldest_segment > first);
    power_cut();
    known_check(q, known);
    end();
}

/* --- tails: the test opens an attempt by hand, as there are no connections --- */

static struct qentry *entry_at(unsigned n, uint16_t rcpt)
{
    struct queue *q = &cnodes[n].queue;
    struct qmsg *m = store_find(&q->store, sent[0].id);
    return m == NULL ? NULL : store_find_entry(&q->store, m, rcpt);
}

static void open_tails(struct place *p)
{
    struct queue *q = &cnodes[p->owner].queue;
    struct tail_item items[RCPTS];
    for (uint16_t i = 0; i < sent[0].rcpts; i++) {
        struct qentry *e = entry_at(p->owner, i);
        assert_non_null(e);
        items[i] = (struct tail_item){sent[0].id, i};
        flow_take(q, flow_at(q, e->flow), e);
        e->flow = 0;
        entry_set_state(q, e, ENTRY_IN_FLIGHT);
        role_set_tail(entry_lane(q, e), e, true);
    }
    struct lane *there = &cnodes[p->target].queue.lanes[0];
    assert_int_equal(replica_tails(there, items, sent[0].rcpts), 0);
}

/* Moves lane 0 with one message whose attempts stay open. */
static void move_with_tails(unsigned rcpts)
{
    begin(11);
    sent_count = 1;
    sent[0] = (struct sent){.node = 0, .id = id_make(1, 1, 1), .rcpts = rcpts};
    sent[0].content = content_create(100);
    memset(sent[0].content->rest, 'x', 100);
    sent[0].content->rest_bytes = 100;
    enqueue_now(&sent[0]);
    before_commit = open_tails;
    for (unsigned i = 0; i < 3000 && !(places[0].owner == 1 && places[0].done[0]); i++) {
        if (i == 100 || (places[0].stage == COPYING && places[0].done[0] && places[0].done[1]))
            places[0] = (struct place){
                .target = 1, .epoch = 1, .move = 1, .stage = i == 100 ? COPYING : FROZEN};
        orders_repeat();
        while (cnet_step(&dice))
            continue;
        sim_disk_run();
        turn();
    }
    before_commit = NULL;
    assert_int_equal(places[0].owner, 1);
    for (uint16_t i = 0; i < rcpts; i++)
        assert_int_equal(entry_at(1, i)->state, ENTRY_TAIL);
}

static void tail_ends(uint16_t rcpt, enum verdict v)
{
    struct qentry *e = entry_at(0, rcpt);
    struct fate_facts f = {.reason = REASON_DELIVERED, .status = {2, 0, 0}};
    struct fate_set one = {.entries = &e, .count = 1};
    if (v == VERDICT_PERM)
        f = (struct fate_facts){.reason = REASON_REMOTE_PERM, .status = {5, 1, 1}};
    sent[0].delivered[rcpt]++; /* or no longer expected */
    fates_apply(&cnodes[0].queue, &one, v, &f, NULL);
}

static void tail_comes_back(uint16_t rcpt)
{
    struct queue *q = &cnodes[0].queue;
    struct qentry *e = entry_at(0, rcpt);
    role_set_tail(entry_lane(q, e), e, true);
    entry_set_state(q, e, ENTRY_NEW);
    assert_true(role_stray(q, e));
}

static void lose_what_is_said(void)
{
    for (unsigned i = 0; i < 20; i++) {
        turn();
        sim_disk_run();
        cnet_lose(0, 1);
    }
}

/* It ends, or comes back. */
static void tail_case(bool comes_back, bool heard)
{
    move_with_tails(1);
    if (comes_back)
        tail_comes_back(0);
    else
        tail_ends(0, VERDICT_OK);
    if (!heard)
        lose_what_is_said();
    settle();
    check_mail();
    assert_int_equal(sent[0].delivered[0], 1);
    check_ledgers();
    end();
}

static void test_tails(void **state)
{
    (void)state;
    tail_case(false, true);
    tail_case(false, false);
    tail_case(true, true);
    tail_case(true, false);
}

static void until_gone(uint16_t rcpt)
{
    for (unsigned i = 0; i < 3000 && entry_at(1, rcpt) != NULL; i++) {
        while (cnet_step(&dice))
            continue;
        sim_disk_run();
        turn();
    }
    assert_null(entry_at(1, rcpt));
}

/* The new owner asks about recipients, not about messages: what is left of the message here, a
   notification or another open attempt, is no reason to wait for this one. */
static void test_tails_one_by_one(void **state)
{
    (void)state;
    move_with_tails(2);
    tail_ends(0, VERDICT_PERM);
    lose_what_is_said();
    assert_int_equal(entry_at(0, 0)->state, ENTRY_BOUNCE_DUE);
    until_gone(0);
    assert_int_equal(entry_at(1, 1)->state, ENTRY_TAIL);
    assert_int_equal(entry_at(0, 0)->state, ENTRY_BOUNCE_DUE);
    tail_ends(1, VERDICT_OK);
    lose_what_is_said();
    until_gone(1);
    struct fate_facts f = {.reason = REASON_DELETED};
    fates_end(&cnodes[0].queue, entry_at(0, 0), FATE_DELETED, &f);
    settle();
    check_ledgers();
    end();
}

/* --- orders that come too early --- */

/* That a lane is another's is said once: who cannot write it down yet does so later. */
static void test_away_is_not_forgotten(void **state)
{
    (void)state;
    begin(12);
    struct control_lane_order o = order_for(1, 0);
    o.epoch = 4;
    move_order(moves[1], &o);
    o.epoch = 7; /* while that is on its way into the log */
    snprintf(o.node, sizeof o.node, "c");
    move_order(moves[1], &o);
    const struct lane *l = &cnodes[1].queue.lanes[0];
    assert_int_equal(l->epoch, 1);
    sync_all();
    assert_int_equal(l->epoch, 7);
    assert_string_equal(l->node, "c");
    end();
}

int main(void)
{
    const char *only = getenv("HAND_TEST");
    cmocka_set_test_filter(only);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adopted),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_tails_one_by_one),
        cmocka_unit_test(test_away_is_not_forgotten),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
