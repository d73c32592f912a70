/*
 * Roles of a lane over a simulated disk: whatever is given, taken, copied, dropped, and whenever
 * the power goes, every recipient is accounted for once: nothing that is ours is lost, nothing that
 * was given away or dropped comes back, and the ledger balances at every step.
 *
 * The test plays the master (its word is ahead of the log), the other node and the deliveries.
 */
#include "tests/sim/sim_conn.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/config_support.h"
#include "worker/lane/deliver_impl.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/role_impl.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"

#include <errno.h>

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0"; /* a crash loses what waits for the disk, as it does in life */
}

enum { LANES = 2, MESSAGES = 400, RCPTS = 3, SEEDS = 40, STEPS = 500, OPEN_MAX = 64 };

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.11, ehlo: out%d.example.net}]}}\n"
    "tenants: {again: {pool: p, in_doubt: retry}}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)disk_open, (any_function *)conn_connect,
                                          (any_function *)listener_start};

/* What may be found of a recipient. */
enum expect { EITHER, MUST_BE, MUST_NOT };
struct sent {
    struct enqueue enqueue;
    struct msg_id id;
    struct content *content;
    uint32_t lane, epoch; /* as written */
    unsigned rcpts;
    bool copy, moves;      /* may be in the other lane */
    enum expect expect[RCPTS];
    bool tail[RCPTS], tail_sure[RCPTS];
};
/* What the master says, and what was heard from the worker about it. */
struct master {
    enum lane_role role;
    uint32_t epoch;
    struct role_change change;
    bool under_way, heard, ready, ready_asked;
    bool gives; /* AWAY: by GIVEN */
    struct spool_wait ready_wait;
};

struct heard {
    struct spool_wait wait;
    struct sent *m;
    unsigned i;
};

static struct io *io;
static struct wheel wheel;
static struct stats_page *stats;
static struct events *events;
static struct config *config;
static struct rng dice, queue_rng;
static struct queue queue;
static struct shard *shard;
static struct sent sent[MESSAGES];
static unsigned sent_count;
static uint64_t next_sequence, now_ms;
static struct master master[LANES];
static unsigned gave, took, dropped, aborted, tails_kept, rerouted;
static uint64_t copied, segments_left;
static struct outbound *open_ones[OPEN_MAX];
static bool brief; /* thousands of seeds: segments leave seldom */

/* --- the worker --- */

static void start(void)
{
    struct io_settings set = {.conn_count_max = 16, .recv_buffer_count = 64};
    assert_int_equal(io_create(&io, &set), 0);
    assert_int_equal(io_enable(io), 0);
    sim_clock_advance(io, now_ms);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    memset(stats, 0, sizeof *stats);
    assert_int_equal(events_create(&events, -1), 0);
    struct queue_env env = {.config = config,
                            .io = io,
                            .wheel = &wheel,
                            .stats = stats,
                            .events = events,
                            .rng = &queue_rng};
    assert_int_equal(queue_init(&queue, &env), 0);
    struct control_lane lanes[LANES] = {{0}};
    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = (struct control_lane){.lane = 100 + i,
                                         .epoch = master[i].epoch,
                                         .role = master[i].role,
                                         .run = master[i].role == LANE_OWNER,
                                         .address = config->lanes[i].address};
    assert_int_equal(route_set_lanes(&queue, lanes, LANES, 0), 0);
    assert_int_equal(shard_open(&shard, &queue, "shard-0", 0), 0);
}

static void stop(void)
{
    struct spool_usage u;
    spool_usage(shard->spool, &u);
    copied += u.copied_messages;
    segments_left += u.oldest_segment > 1;
    shard_close(&shard);
    queue.shard_count = 0;
    for (uint32_t i = 1; i < store_entry_end(&queue.store); i++) {
        struct qentry *e = store_peek(&queue.store, i);
        if (e != NULL)
            shard_uncache(&queue, store_msg(&queue.store, e->msg));
    }
    for (unsigned i = 0; i < OPEN_MAX; i++)
        open_ones[i] = NULL;
    queue_fini(&queue);
    events_destroy(&events);
    io_destroy(&io);
}

static void turn(void)
{
    now_ms += 1;
    sim_clock_advance(io, 1);
    io_turn(io, 0);
    queue_turn(&queue);
    shard_turn(shard);
}

static struct lane *lane_of(uint32_t i)
{
    return &queue.lanes[i];
}

static struct qentry *entry_of(const struct sent *m, unsigned i)
{
    struct qmsg *q = store_find(&queue.store, m->id);
    return q == NULL ? NULL : store_find_entry(&queue.store, q, (uint16_t)i);
}

/* --- what must be true at every moment --- */

/* A message that was to change its lane is in the one that memory has it in; both its lanes have
   the epoch that it was written with as long as that is not durable. */
static void see_moves(void)
{
    for (unsigned k = 0; k < sent_count; k++) {
        struct sent *m = &sent[k];
        const struct qmsg *q = m->moves ? store_find(&queue.store, m->id) : NULL;
        if (q == NULL || q->lane == m->lane)
            continue;
        m->lane = q->lane;
        m->epoch = master[m->lane].epoch;
        m->moves = false;
        rerouted++;
    }
}

static void check_counts(void)
{
    struct ledger l;
    see_moves();
    shards_ledger(&queue, &l);
    uint64_t queued = queue.store.entries.used - queue.counts[ENTRY_BOUNCE_DUE] -
                      queue.counts[ENTRY_REPLICA] - queue.counts[ENTRY_TAIL] + queue.owed_in -
                      queue.owed_out;
    assert_int_equal(l.accepted,
                     l.delivered + l.bounced + l.expired + l.deleted + l.handed_over + queued);
    uint32_t replicas[LANES] = {0}, tails[LANES] = {0}, bounces[LANES] = {0}, strays[LANES] = {0};
    uint32_t open[LANES] = {0};
    uint64_t owed_in = 0, owed_out = 0;
    for (uint32_t i = 1; i < store_entry_end(&queue.store); i++) {
        const struct qentry *e = store_peek(&queue.store, i);
        if (e == NULL)
            continue;
        const struct lane *at = entry_lane(&queue, e);
        bool late = (store_msg(&queue.store, e->msg)->flags & MSG_LATE) != 0;
        replicas[at->index] += e->state == ENTRY_REPLICA;
        tails[at->index] += e->state == ENTRY_TAIL;
        bounces[at->index] += e->state == ENTRY_BOUNCE_DUE;
        strays[at->index] += e->state == ENTRY_STRAY;
        open[at->index] += e->tail && (e->state == ENTRY_IN_FLIGHT || e->state == ENTRY_HELD ||
                                       e->state == ENTRY_PARKED);
        assert_true(e->state != ENTRY_NEW);
        owed_in += at->sweep == SWEEP_OWN && e->state == ENTRY_REPLICA &&
                   e->cancel != RCPT_BOUNCE_DUE;
        owed_out += at->sweep == SWEEP_GIVEN && e->state != ENTRY_BOUNCE_DUE &&
                    e->state != ENTRY_STRAY && e->state != ENTRY_IN_FLIGHT && !e->tail && !late;
        if (e->state == ENTRY_READY && at->role == LANE_AWAY)
            assert_int_equal(at->sweep, SWEEP_GIVEN);
    }
    for (uint32_t i = 0; i < LANES; i++) {
        assert_int_equal(replicas[i], lane_of(i)->replicas);
        assert_int_equal(tails[i], lane_of(i)->tails_there.count);
        assert_int_equal(bounces[i], lane_of(i)->bounces);
        assert_int_equal(open[i], lane_of(i)->open_tails.count);
        assert_int_equal(strays[i], lane_of(i)->strays.count + lane_of(i)->handing.count);
    }
    assert_int_equal(owed_in, queue.owed_in);
    assert_int_equal(owed_out, queue.owed_out);
}

static void say_entry(const struct sent *m, unsigned i)
{
    const struct qentry *e = entry_of(m, i);
    const struct lane *l = lane_of(m->lane);
    print_message("%s, written with epoch %u as %s; lane: role %d epoch %u, given %u; log: role %d "
                  "epoch %u\n",
                  entry_state_word((enum entry_state)e->state), m->epoch,
                  m->copy ? "copy" : "mail", (int)l->role, l->epoch, l->logged.given,
                  (int)l->logged.role, l->logged.epoch);
}

static void check_found(void)
{
    for (unsigned k = 0; k < sent_count; k++) {
        const struct sent *m = &sent[k];
        bool sweeping = lane_of(m->lane)->sweep != SWEEP_NONE;
        for (unsigned i = 0; i < m->rcpts; i++) {
            bool is = entry_of(m, i) != NULL;
            if (is && m->expect[i] == MUST_NOT && !sweeping)
                say_entry(m, i);
            if (is && m->expect[i] == MUST_NOT && !sweeping)
                fail_msg("message %u recipient %u is there again", k, i);
            if (!is && m->expect[i] == MUST_BE) {
                const struct lane *l = lane_of(m->lane);
                print_message("written with epoch %u as %s, tail %d; lane: role %d epoch %u, given "
                              "%u; heard %d\n",
                              m->epoch, m->copy ? "copy" : "mail", m->tail[i], (int)l->role,
                              l->epoch, l->logged.given, master[m->lane].heard);
                fail_msg("message %u recipient %u is lost", k, i);
            }
        }
    }
}

/* --- mail --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct sent *m = (struct sent *)((char *)x - offsetof(struct sent, enqueue));
    for (unsigned i = 0; i < m->rcpts; i++)
        if (res == 0 && m->expect[i] == EITHER && entry_of(m, i) != NULL)
            m->expect[i] = MUST_BE;
    content_unref(&m->content);
}

static void put_envelope(struct sent *m)
{
    uint8_t buf[2000];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = m->id,
                    .received_unix_ms = io_now_unix_ms(io),
                    .lifetime_s = 30 * 86400,
                    .tenant = span_str("again"),
                    .sender = span_str(m->id.lo % 4 == 0 ? "" : "s@example.org"),
                    .body_bytes = m->content->rest_bytes,
                    .rcpt_count = (uint16_t)m->rcpts};
    enq_put(&w, &e);
    for (unsigned i = 0; i < m->rcpts; i++) {
        char address[64];
        snprintf(address, sizeof address, "u%u@d%u.example", i, (unsigned)(m->id.lo % 5));
        struct enq_rcpt r = {.index = (uint16_t)i, .address = span_str(address)};
        if (m->copy)
            r.state = (uint8_t)(i == 1   ? RCPT_BOUNCE_DUE
                                : i == 2 ? RCPT_PARKED
                                         : RCPT_QUEUED);
        enq_put_rcpt(&w, &r);
    }
    assert_false(w.bad);
    assert_int_equal(content_set_meta(m->content, span_of(buf, w.n)), 0);
}

/* Over an earlier copy too: `again` names it. */
static struct sent *mail(uint32_t lane, bool copy, uint32_t body, struct sent *again)
{
    struct sent *m = again;
    if (m == NULL && sent_count == MESSAGES)
        return NULL;
    if (m == NULL) {
        m = &sent[sent_count++];
        memset(m, 0, sizeof *m);
        m->id = id_make(1, 1, next_sequence++);
        m->rcpts = 1 + (unsigned)rng_below(&dice, RCPTS);
    }
    m->lane = lane;
    m->copy = copy;
    m->content = content_create(body);
    memset(m->content->rest, 'x', body);
    m->content->rest_bytes = body;
    put_envelope(m);
    const struct lane *l = lane_of(lane);
    m->epoch = copy ? l->epoch : role_mail_epoch(l);
    m->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = lane_of(lane),
                                  .content = m->content,
                                  .rcpt_count = (uint16_t)m->rcpts,
                                  .replica = copy};
    int r = shard_enqueue(shard, &m->enqueue);
    for (unsigned i = 0; i < m->rcpts; i++) {
        m->expect[i] = r == 0 || again != NULL ? EITHER : MUST_NOT;
        m->tail[i] = m->tail_sure[i] = false;
    }
    if (r != 0)
        content_unref(&m->content);
    return r == 0 ? m : NULL;
}

static void on_garbage(struct spool_wait *w, int res)
{
    (void)res;
    free(w);
}

/* Dead bytes push the living out of the oldest segments. */
static void garbage(void)
{
    static uint8_t chunk[240 << 10];
    for (unsigned i = 0; i < 90 && !sim_disk_is_down(); i++) {
        struct spool_wait *w = calloc(1, sizeof *w);
        struct record_place place;
        w->on_durable = on_garbage;
        if (shard_put_chunk(lane_of(i % LANES), id_make(1, 2, 1), span_of(chunk, sizeof chunk), w,
                            &place) == 0)
            shard_drop_chunks(shard, &place, 1);
        else
            free(w);
        for (unsigned k = 0; k < 3; k++) { /* the next spare is made meanwhile */
            turn();
            sim_disk_run();
        }
        check_counts();
    }
}

/* --- deliveries --- */

static void on_heard(struct spool_wait *w, int res)
{
    struct heard *h = (struct heard *)w;
    assert_int_equal(res, 0);
    h->m->expect[h->i] = MUST_NOT;
    free(h);
}

static void attempt_begin(struct qentry *e)
{
    unsigned k = 0;
    while (k < OPEN_MAX && open_ones[k] != NULL)
        k++;
    if (k == OPEN_MAX || !lane_runs(entry_lane(&queue, e)))
        return;
    struct flow *f = flow_at(&queue, e->flow);
    uint32_t flow = e->flow;
    flow_take(&queue, f, e);
    entry_set_state(&queue, e, ENTRY_IN_FLIGHT);
    e->flow = flow;
    f->in_flight++;
    f->open++;
    struct outbound *o = pool_get(&queue.deliver->outbounds);
    assert_non_null(o);
    o->deliver = queue.deliver;
    o->flow = f;
    o->state = OUT_SENDING;
    o->next = queue.deliver->all;
    o->link = &queue.deliver->all;
    if (o->next != NULL)
        o->next->link = &o->next;
    queue.deliver->all = o;
    o->entry_room = malloc(sizeof *o->entry_room);
    o->entry_room[0] = store_entry_index(&queue.store, e);
    o->job.entries = o->entry_room;
    o->job.count = 1;
    o->job.id = store_msg(&queue.store, e->msg)->id;
    queue.deliver->busy++;
    outbound_lane(o)->outbounds++;
    open_ones[k] = o;
}

static struct sent *sent_of(struct msg_id id)
{
    for (unsigned i = 0; i < sent_count; i++)
        if (id_eq(sent[i].id, id))
            return &sent[i];
    return NULL;
}

static void attempt_end(unsigned k, enum verdict v)
{
    struct outbound *o = open_ones[k];
    open_ones[k] = NULL;
    struct qentry *e = store_entry(&queue.store, o->job.entries[0]);
    struct sent *m = sent_of(o->job.id);
    struct flow *f = o->flow;
    unsigned i = e->index;
    struct fate_facts facts = {.reason = REASON_DELIVERED, .status = {2, 0, 0}};
    struct fate_set one = {.entries = &e, .count = 1};
    f->in_flight--;
    f->open--;
    o->job.entries[0] = 0;
    if (v == VERDICT_TEMP) {
        facts.reason = REASON_REMOTE_TEMP;
        facts.status.class_ = 4;
        fates_apply(&queue, &one, v, &facts, NULL);
    } else {
        struct heard *h = calloc(1, sizeof *h);
        h->wait.on_durable = on_heard;
        h->m = m;
        h->i = i;
        bool owed = v == VERDICT_PERM && m->id.lo % 4 != 0; /* it stays, bounce due */
        if (!owed)
            m->expect[i] = EITHER;
        fates_apply(&queue, &one, v, &facts, owed ? NULL : &h->wait);
        if (owed)
            free(h);
    }
    role_outbound_gone(&queue, &queue.lanes[f->lane]);
    job_wipe(o);
    free(o->entry_room);
    *o->link = o->next;
    if (o->next != NULL)
        o->next->link = o->link;
    pool_put(&queue.deliver->outbounds, o);
}

static struct qentry *any_entry(enum entry_state s, uint32_t lane)
{
    uint32_t end = store_entry_end(&queue.store);
    uint32_t from = end <= 1 ? 0 : (uint32_t)rng_below(&dice, end - 1);
    for (uint32_t k = 0; k + 1 < end; k++) {
        struct qentry *e = store_peek(&queue.store, 1 + (from + k) % (end - 1));
        if (e != NULL && e->state == s && store_msg(&queue.store, e->msg)->lane == lane)
            return e;
    }
    return NULL;
}

/* --- the master --- */

static void expect_lane(uint32_t lane, bool copies, uint32_t epoch, enum expect x)
{
    for (unsigned k = 0; k < sent_count; k++) {
        struct sent *m = &sent[k];
        if (m->lane != lane || m->copy != copies || (!copies && m->epoch > epoch))
            continue;
        for (unsigned i = 0; i < m->rcpts; i++)
            if (m->expect[i] != MUST_NOT && !m->tail[i])
                m->expect[i] = x;
    }
}

/* What was copied is ours, as mail of the epoch before. */
static void copies_are_ours(uint32_t lane)
{
    for (unsigned k = 0; k < sent_count; k++)
        if (sent[k].lane == lane && sent[k].copy)
            sent[k].copy = false;
}

static void forget_tails(uint32_t lane)
{
    for (unsigned k = 0; k < sent_count; k++)
        for (unsigned i = 0; sent[k].lane == lane && i < RCPTS; i++)
            sent[k].tail[i] = sent[k].tail_sure[i] = false;
}

static void on_set(struct role_change *c, int res)
{
    struct master *x = &master[c->lane - 100];
    uint32_t lane = c->lane - 100;
    x->under_way = false;
    if (res != 0)
        return;
    assert_int_equal(lane_of(lane)->role, c->role);
    assert_int_equal(lane_of(lane)->epoch, c->epoch);
    if (!x->heard && c->role == LANE_AWAY) {
        if (x->gives)
            expect_lane(lane, false, c->epoch - 1, MUST_NOT);
        expect_lane(lane, true, 0, MUST_NOT);
    }
    if (!x->heard && c->role == LANE_OWNER)
        forget_tails(lane);
    for (unsigned k = 0; c->role == LANE_FROZEN && k < sent_count; k++)
        for (unsigned i = 0; sent[k].lane == lane && i < RCPTS; i++)
            sent[k].tail_sure[i] = sent[k].tail[i];
    x->heard = true;
}

static void say_role(uint32_t lane)
{
    struct master *x = &master[lane];
    if (x->under_way)
        return;
    x->under_way = true;
    x->change = (struct role_change){.on_done = on_set,
                                     .lane = 100 + lane,
                                     .role = x->role,
                                     .epoch = x->epoch,
                                     .run = x->role == LANE_OWNER,
                                     .node = "b"};
    if (x->role == LANE_OWNER)
        x->change.node[0] = '\0';
    role_set(&queue, &x->change);
}

static void decide(uint32_t lane, enum lane_role role, uint32_t epoch)
{
    struct master *x = &master[lane];
    x->gives = x->role == LANE_FROZEN && role == LANE_AWAY;
    x->role = role;
    x->epoch = epoch;
    x->heard = x->ready = x->ready_asked = false;
    say_role(lane);
}

static void on_ready(struct spool_wait *w, int res)
{
    struct master *x = (struct master *)((char *)w - offsetof(struct master, ready_wait));
    x->ready_asked = false;
    x->ready = res == 0;
}

static void freeze(uint32_t lane)
{
    for (unsigned k = 0; k < OPEN_MAX; k++) {
        if (open_ones[k] == NULL || open_ones[k]->flow->lane != lane)
            continue;
        const struct qentry *e = store_entry(&queue.store, open_ones[k]->job.entries[0]);
        sent_of(open_ones[k]->job.id)->tail[e->index] = true;
        tails_kept++;
    }
    decide(lane, LANE_FROZEN, master[lane].epoch);
}

/* What the lane's next chapter is; only after the one before is in force. */
static void move_on(uint32_t lane)
{
    struct master *x = &master[lane];
    const struct lane *l = lane_of(lane);
    bool rest = l->sweep == SWEEP_NONE && l->outbounds == 0;
    if (!x->heard) {
        say_role(lane);
        return;
    }
    switch (x->role) {
    case LANE_OWNER:
        if (l->sweep == SWEEP_NONE)
            freeze(lane);
        return;
    case LANE_FROZEN:
        if (rng_below(&dice, 3) == 0) {
            aborted++;
            decide(lane, LANE_OWNER, x->epoch + 1);
            return;
        }
        gave++;
        expect_lane(lane, false, x->epoch, EITHER);
        decide(lane, LANE_AWAY, x->epoch + 1);
        return;
    case LANE_AWAY:
        if (rest)
            decide(lane, LANE_REPLICA, x->epoch + (uint32_t)rng_below(&dice, 2));
        return;
    case LANE_REPLICA:
        if (x->ready) {
            took++;
            copies_are_ours(lane);
            decide(lane, LANE_OWNER, x->epoch + 1);
        } else if (rng_below(&dice, 3) == 0) {
            dropped++;
            expect_lane(lane, true, 0, EITHER);
            decide(lane, LANE_AWAY, x->epoch + (uint32_t)rng_below(&dice, 2));
        } else if (!x->ready_asked) {
            x->ready_wait.on_durable = on_ready;
            x->ready_asked = replica_ready(lane_of(lane), &x->ready_wait) == 0;
        }
        return;
    case LANE_ROLE_COUNT:
        return;
    }
}

/* --- copies --- */

static void change_copy(uint32_t lane)
{
    struct qentry *e = any_entry(ENTRY_REPLICA, lane);
    if (e == NULL || lane_of(lane)->change != NULL || master[lane].ready ||
        master[lane].ready_asked || lane_of(lane)->role != LANE_REPLICA ||
        master[lane].role != LANE_REPLICA)
        return;
    struct sent *m = sent_of(store_msg(&queue.store, e->msg)->id);
    uint8_t index[2] = {(uint8_t)e->index, 0};
    struct outcome o = {.id = m->id,
                        .fate = FATE_DELIVERED,
                        .count = 1,
                        .attempts = 3,
                        .indices = span_of(index, 2)};
    unsigned i = e->index;
    switch (rng_below(&dice, 4)) {
    case 0:
        m->expect[i] = EITHER;
        replica_outcome(lane_of(lane), RECORD_DONE, &o);
        assert_null(entry_of(m, i));
        return;
    case 1:
        o.due_unix_s = 77;
        replica_outcome(lane_of(lane), RECORD_DEFER, &o);
        assert_int_equal(entry_of(m, i)->attempts, 3);
        return;
    case 2:
        for (i = 0; i < m->rcpts; i++)
            m->expect[i] = EITHER;
        replica_drop(lane_of(lane), m->id);
        assert_null(store_find(&queue.store, m->id));
        return;
    default:
        if (m->content == NULL)
            mail(lane, true, 900, m);
        return;
    }
}

static void hand_over(uint32_t lane)
{
    struct qmsg *q = stray_take(&queue, lane_of(lane));
    if (q == NULL)
        return;
    struct sent *m = sent_of(q->id);
    if (rng_below(&dice, 3) == 0) {
        stray_return(&queue, q);
        return;
    }
    for (unsigned i = 0; i < m->rcpts; i++)
        m->expect[i] = EITHER;
    stray_taken(&queue, q);
}

static void reroute(uint32_t lane)
{
    struct qentry *e = any_entry(rng_below(&dice, 2) == 0 ? ENTRY_READY : ENTRY_WAITING, lane);
    if (e == NULL)
        return;
    struct qmsg *q = store_msg(&queue.store, e->msg);
    struct sent *m = sent_of(q->id);
    bool begun = shard_move(shard, q, lane_of((lane + 1) % LANES));
    m->moves = m->moves || begun;
}

/* --- seeds --- */

static void act(uint32_t lane)
{
    struct qentry *e;
    const struct lane *l = lane_of(lane);
    switch (rng_below(&dice, 11)) {
    case 10:
        reroute(lane);
        return;
    case 0:
    case 1:
        mail(lane, false, rng_below(&dice, 8) == 0 ? 40 << 10 : 800, NULL);
        return;
    case 2:
    case 3:
        if (l->role == LANE_REPLICA && master[lane].role == LANE_REPLICA && !master[lane].ready &&
            !master[lane].ready_asked)
            mail(lane, true, rng_below(&dice, 8) == 0 ? 40 << 10 : 800, NULL);
        return;
    case 4:
        change_copy(lane);
        return;
    case 5:
    case 6:
        e = any_entry(ENTRY_READY, lane);
        if (e != NULL)
            attempt_begin(e);
        return;
    case 7:
        for (unsigned k = 0, n = (unsigned)rng_below(&dice, OPEN_MAX); k < OPEN_MAX; k++)
            if (open_ones[(k + n) % OPEN_MAX] != NULL) {
                attempt_end((k + n) % OPEN_MAX, (enum verdict)rng_below(&dice, 3));
                return;
            }
        return;
    case 8:
        hand_over(lane);
        return;
    default:
        if (rng_below(&dice, 3) == 0)
            move_on(lane);
        return;
    }
}

/* What was found is the truth from here on, if it may be so. */
static void resync(void)
{
    see_moves();
    check_found();
    for (unsigned k = 0; k < sent_count; k++) {
        struct sent *m = &sent[k];
        content_unref(&m->content);
        m->moves = false;
        for (unsigned i = 0; i < m->rcpts; i++) {
            const struct qentry *e = entry_of(m, i);
            bool frozen = lane_of(m->lane)->logged.role == LANE_FROZEN;
            if (e != NULL && frozen && m->tail_sure[i] && e->state != ENTRY_BOUNCE_DUE)
                assert_true(e->tail);
            m->tail[i] = m->tail_sure[i] = e != NULL && e->tail && frozen;
            m->expect[i] = e == NULL ? MUST_NOT : MUST_BE;
            if (e != NULL && m->copy)
                assert_true(e->state == ENTRY_REPLICA);
        }
    }
}

static void restart(void)
{
    sim_disk_crash();
    sim_disk_heal();
    stop();
    now_ms += 1000;
    for (uint32_t i = 0; i < LANES; i++)
        master[i].under_way = master[i].ready_asked = false;
    start();
    check_counts();
    for (int i = 0; i < (brief ? 100 : 400); i++) { /* the log catches up with the master */
        turn();
        sim_disk_run();
        check_counts();
    }
    for (uint32_t i = 0; i < LANES; i++) {
        assert_int_equal(lane_of(i)->role, master[i].role);
        assert_int_equal(lane_of(i)->epoch, master[i].epoch);
        if (master[i].role == LANE_AWAY && !master[i].heard) {
            if (master[i].gives)
                expect_lane(i, false, master[i].epoch - 1, MUST_NOT);
            expect_lane(i, true, 0, MUST_NOT);
        }
        if (master[i].role == LANE_OWNER)
            forget_tails(i);
        master[i].ready = master[i].role == LANE_REPLICA && lane_of(i)->ready;
        master[i].heard = true;
    }
    resync();
}

static void run(uint64_t seed)
{
    rng_seed(&dice, seed);
    rng_seed(&queue_rng, seed + 1000);
    sim_disk_init(seed);
    sent_count = 0;
    next_sequence = 1;
    now_ms = 1;
    for (uint32_t i = 0; i < LANES; i++)
        master[i] = (struct master){.role = LANE_OWNER, .epoch = 1, .heard = true};
    start();
    for (unsigned lives = 0; lives < (brief ? 3 : 5); lives++) {
        sim_disk_fault(rng_below(&dice, 4) == 0 ? SIM_EIO : SIM_CUT, 1 + rng_below(&dice, 900));
        for (unsigned i = 0; i < STEPS && !sim_disk_is_down(); i++) {
            uint64_t n = rng_below(&dice, 10);
            if (rng_below(&dice, brief ? 4000 : 200) == 0)
                garbage();
            if (n < 6)
                act((uint32_t)rng_below(&dice, LANES));
            else if (n < 8)
                sim_disk_step();
            else
                turn();
            check_counts();
        }
        restart();
    }
    stop();
    sim_disk_fini();
}

/* ROLE_SEEDS=10000 ROLE_FROM=1: so many, from there on. */
static void test_walks(void **state)
{
    (void)state;
    copied = segments_left = 0;
    gave = took = dropped = aborted = tails_kept = rerouted = 0;
    const char *count = getenv("ROLE_SEEDS"), *from = getenv("ROLE_FROM");
    uint64_t seeds = count != NULL ? strtoull(count, NULL, 10) : SEEDS;
    brief = seeds > SEEDS;
    for (uint64_t seed = from != NULL ? strtoull(from, NULL, 10) : 1; seeds-- > 0; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
    print_message("gave %u took %u dropped %u aborted %u tails %u rerouted %u copied %llu\n", gave,
                  took, dropped, aborted, tails_kept, rerouted, (unsigned long long)copied);
    if (from != NULL)
        return;
    assert_true(gave > 50);
    assert_true(took > 20);
    assert_true(dropped > 20);
    assert_true(aborted > 20);
    assert_true(tails_kept > 20);
    assert_true(rerouted > 20);
    assert_true(copied > 100); /* by compaction: the rule holds for them too */
    assert_true(segments_left > 20);
}

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(simulated); i++)
        assert_non_null(simulated[i]);
    config = good(yaml);
    stats = calloc(1, sizeof *stats);
    return stats == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    config_free(&config);
    free(stats);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
