/*
 * The real shard and queue over a simulated disk: what was promised to a sender is found again
 * after any crash, what was recorded stays recorded, the ledger adds up, and the living bytes of
 * the log are those of the messages in the index.
 *
 * Everything is held (queue.hold), so nothing leaves by itself: the test plays the deliveries.
 */
#include "tests/sim/sim_conn.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/config_support.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"
#include "worker/lane/site.h"

/* A crash loses what waits for the disk, as it does in life: that is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

enum { SEEDS = 60, MESSAGES = 200, RCPTS = 3, STEPS = 400, LANES = 3, CHUNK_BYTES = 3000 };

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.12, ehlo: out%d.example.net}]}}\n"
    "tenants:\n"
    "  again: {pool: p, in_doubt: retry}\n"
    "  held: {pool: p, in_doubt: hold}\n"
    "  fails: {pool: p, in_doubt: fail}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

/* Named here, so that the linker takes the simulated side before it meets the real one. */
typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)disk_open, (any_function *)conn_connect,
                                          (any_function *)listener_start};

/* What the test knows of a recipient. */
enum known {
    NOTHING,    /* not accepted */
    MAYBE,      /* appended, not durable, or failed while the power went */
    QUEUED,     /* acknowledged */
    MAYBE_DONE, /* a fate was decided, its record may be lost */
    DONE        /* a fate is durable */
};
struct sent {
    struct enqueue enqueue;
    struct spool_wait chunk_wait[2];
    struct record_place place[2];
    struct msg_id id;
    unsigned tenant, rcpts, chunks, chunks_durable;
    struct content *content;
    enum known known[RCPTS];
    bool dot[RCPTS];      /* a DOT may be in the log without a fate behind it */
    bool dot_sure[RCPTS]; /* it is */
    bool settled[RCPTS];  /* an outcome follows it, perhaps not durable yet */
    uint16_t attempts[RCPTS], attempts_sure[RCPTS];
    enum fate fate[RCPTS];
    bool null_sender;
    bool failed_chunk;
};
struct heard {
    struct spool_wait wait;
    struct sent *m;
    unsigned mask;
    bool dot;
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
static uint64_t next_sequence;
static uint64_t now_ms;
static uint64_t found_in_doubt;

static struct sent *sent_of(struct msg_id id)
{
    for (unsigned i = 0; i < sent_count; i++)
        if (id_eq(sent[i].id, id))
            return &sent[i];
    return NULL;
}

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
        lanes[i] =
            (struct control_lane){.lane = 100 + i, .epoch = 1, .address = config->lanes[i].address};
    assert_int_equal(route_set_lanes(&queue, lanes, LANES, 0), 0);
    assert_int_equal(shard_open(&shard, &queue, "shard-0", 0), 0);
}

static void stop(void)
{
    shard_close(&shard);
    queue.shard_count = 0;
    for (uint32_t i = 1; i < store_entry_end(&queue.store); i++) {
        struct qentry *e = store_peek(&queue.store, i);
        if (e != NULL)
            shard_uncache(&queue, store_msg(&queue.store, e->msg));
    }
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

/* --- mail in --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct sent *m = (struct sent *)((char *)x - offsetof(struct sent, enqueue));
    for (unsigned i = 0; i < m->rcpts; i++)
        if (m->known[i] == MAYBE)
            m->known[i] = res == 0 ? QUEUED : MAYBE;
    if (res == 0)
        assert_non_null(store_find(&queue.store, m->id));
    content_unref(&m->content);
}

static void put_envelope(struct sent *m)
{
    uint8_t buf[2000];
    struct writer w = writer_of(buf, sizeof buf);
    const struct tenant *t = &queue.tenants[m->tenant];
    struct enq e = {.id = m->id,
                    .received_unix_ms = io_now_unix_ms(io),
                    .lifetime_s = 86400,
                    .tenant = span_str(t->name),
                    .helo = span_str("c.example"),
                    .sender = span_str(m->null_sender ? "" : "s@example.org"),
                    .trace_bytes = 0,
                    .body_bytes = m->chunks > 0 ? m->chunks * CHUNK_BYTES : m->content->rest_bytes,
                    .rcpt_count = (uint16_t)m->rcpts,
                    .chunk_count = (uint16_t)m->chunks};
    enq_put(&w, &e);
    for (unsigned i = 0; i < m->rcpts; i++) {
        char address[64];
        snprintf(address, sizeof address, "u%u@d%u.example", i, (unsigned)(m->id.lo % 5 + i / 2));
        enq_put_rcpt(&w, &(struct enq_rcpt){.index = (uint16_t)i, .address = span_str(address)});
    }
    for (unsigned i = 0; i < m->chunks; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = m->place[i], .body_bytes = CHUNK_BYTES});
    assert_false(w.bad);
    assert_int_equal(content_set_meta(m->content, span_of(buf, w.n)), 0);
}

static void enqueue_now(struct sent *m)
{
    put_envelope(m);
    struct record_place *places = NULL;
    if (m->chunks > 0) {
        places = malloc(m->chunks * sizeof *places);
        memcpy(places, m->place, m->chunks * sizeof *places);
    }
    m->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = &queue.lanes[m->id.lo % LANES],
                                  .content = m->content,
                                  .chunks = places,
                                  .chunk_count = (uint16_t)m->chunks,
                                  .rcpt_count = (uint16_t)m->rcpts};
    int r = shard_enqueue(shard, &m->enqueue);
    if (r == 0) {
        for (unsigned i = 0; i < m->rcpts; i++)
            m->known[i] = MAYBE;
        return;
    }
    shard_drop_chunks(shard, m->place, (uint16_t)m->chunks);
    free(places);
    content_unref(&m->content);
}

static void on_chunk(struct spool_wait *w, int res)
{
    struct sent *m = NULL;
    for (unsigned i = 0; m == NULL; i++) {
        assert_true(i < sent_count);
        if (w == &sent[i].chunk_wait[0] || w == &sent[i].chunk_wait[1])
            m = &sent[i];
    }
    m->chunks_durable++;
    if (res != 0)
        m->failed_chunk = true;
    if (m->chunks_durable < m->chunks)
        return;
    if (!m->failed_chunk) {
        enqueue_now(m);
        return;
    }
    shard_drop_chunks(shard, m->place, (uint16_t)m->chunks);
    content_unref(&m->content);
}

static void send_one(void)
{
    if (sent_count == MESSAGES)
        return;
    struct sent *m = &sent[sent_count++];
    memset(m, 0, sizeof *m);
    m->id = id_make(1, 1, next_sequence++);
    m->tenant = (unsigned)rng_below(&dice, 3);
    m->rcpts = 1 + (unsigned)rng_below(&dice, RCPTS);
    m->null_sender = rng_below(&dice, 4) == 0;
    m->chunks = rng_below(&dice, 5) == 0 ? 2 : 0;
    uint32_t body = rng_below(&dice, 10) == 0 ? 200 << 10 : 100 + (uint32_t)rng_below(&dice, 3000);
    m->content = content_create(body);
    memset(m->content->rest, 'x', body);
    m->content->rest_bytes = m->chunks > 0 ? 0 : body;
    static uint8_t chunk[CHUNK_BYTES];
    for (unsigned i = 0; i < m->chunks; i++) {
        m->chunk_wait[i].on_durable = on_chunk;
        int r = shard_put_chunk(&queue.lanes[m->id.lo % LANES], m->id, span_of(chunk, sizeof chunk),
                                &m->chunk_wait[i], &m->place[i]);
        if (r == 0)
            continue;
        m->chunks = i; /* the rest is not wanted any more */
        m->failed_chunk = true;
        if (i == 0)
            content_unref(&m->content);
        return;
    }
    if (m->chunks == 0)
        enqueue_now(m);
}

/* --- outcomes --- */

static void on_heard(struct spool_wait *w, int res)
{
    struct heard *h = (struct heard *)w;
    assert_int_equal(res, 0);
    for (unsigned i = 0; i < h->m->rcpts; i++) {
        if (!(h->mask & 1u << i))
            continue;
        if (h->dot)
            h->m->dot_sure[i] = !h->m->settled[i];
        else
            h->m->known[i] = DONE;
    }
    free(h);
}

static struct heard *hear(struct sent *m, unsigned mask, bool dot)
{
    struct heard *h = calloc(1, sizeof *h);
    *h = (struct heard){.wait.on_durable = on_heard, .m = m, .mask = mask, .dot = dot};
    return h;
}

static void take(struct qentry *e)
{
    struct flow *f = flow_at(&queue, e->flow);
    uint32_t flow = e->flow;
    flow_take(&queue, f, e);
    entry_set_state(&queue, e, ENTRY_IN_FLIGHT);
    e->flow = flow;
    f->in_flight++;
}

static void note_dot(struct sent *m, const struct qentry *e)
{
    uint8_t index[2] = {(uint8_t)e->index, 0};
    struct note_facts n = {.type = RECORD_DOT, .lane = entry_lane(&queue, e)};
    n.outcome = (struct outcome){
        .id = m->id, .at_unix_ms = io_now_unix_ms(io), .count = 1, .indices = span_of(index, 2)};
    m->dot[e->index] = true;
    m->dot_sure[e->index] = m->settled[e->index] = false;
    struct qentry *live = store_entry(&queue.store, store_entry_index(&queue.store, e));
    live->in_doubt = 1;
    shard_note(shard, &n, &hear(m, 1u << e->index, true)->wait);
}

/* One attempt: a dot, and perhaps an outcome. In flight without one: that is what a crash leaves in
 * doubt. */
static void attempt(struct qentry *e)
{
    struct sent *m = sent_of(store_msg(&queue.store, e->msg)->id);
    assert_non_null(m);
    unsigned i = e->index;
    if (e->state == ENTRY_READY) {
        take(e);
        if (rng_below(&dice, 2) == 0)
            note_dot(m, e);
        if (rng_below(&dice, 3) == 0)
            return;
    }
    flow_at(&queue, e->flow)->in_flight--;
    struct fate_facts f = {
        .reason = REASON_DELIVERED, .status = {2, 0, 0}, .reply = span_str("250 ok")};
    struct fate_set one = {.entries = &e, .count = 1};
    switch (rng_below(&dice, 4)) {
    case 0:
        f.reason = REASON_REMOTE_TEMP;
        f.status.class_ = 4;
        m->settled[i] = m->dot[i]; /* as soon as the DEFER is in the log */
        m->dot_sure[i] = false;
        m->attempts[i]++;
        fates_apply(&queue, &one, VERDICT_TEMP, &f, NULL);
        return;
    case 1:
        f.reason = REASON_REMOTE_PERM;
        f.status.class_ = 5;
        m->fate[i] = FATE_BOUNCED;
        m->known[i] = MAYBE_DONE;
        fates_apply(&queue, &one, VERDICT_PERM, &f, &hear(m, 1u << i, false)->wait);
        return;
    default:
        m->fate[i] = FATE_DELIVERED;
        m->known[i] = MAYBE_DONE;
        fates_apply(&queue, &one, VERDICT_OK, &f, &hear(m, 1u << i, false)->wait);
    }
}

static void attempt_some(void)
{
    uint32_t end = store_entry_end(&queue.store);
    if (end <= 1)
        return;
    uint32_t from = 1 + (uint32_t)rng_below(&dice, end - 1);
    for (uint32_t k = 0; k < end - 1; k++) {
        struct qentry *e = store_peek(&queue.store, 1 + (from + k) % (end - 1));
        if (e == NULL)
            continue;
        if (e->state == ENTRY_READY || e->state == ENTRY_IN_FLIGHT) {
            attempt(e);
            return;
        }
    }
}

/* --- what must be true --- */

static void check_ledger(void)
{
    struct ledger l;
    shards_ledger(&queue, &l);
    uint64_t queued = queue.store.entries.used - queue.counts[ENTRY_BOUNCE_DUE];
    assert_int_equal(l.accepted,
                     l.delivered + l.bounced + l.expired + l.deleted + l.handed_over + queued);
}

static int64_t living_bytes(void)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < sent_count; i++) {
        const struct qmsg *m = store_find(&queue.store, sent[i].id);
        if (m == NULL)
            continue;
        const struct record_place *c;
        sum += m->bytes;
        for (uint16_t k = 0, n = shard_chunks(&queue, m, &c); k < n; k++)
            sum += c[k].bytes;
    }
    return sum;
}

static void check_live(void)
{
    struct spool_usage u;
    spool_usage(shard->spool, &u);
    assert_int_equal(u.live_bytes, living_bytes());
}

static void check_found(struct sent *m, unsigned i, const struct qentry *e)
{
    assert_int_not_equal(m->known[i], NOTHING);
    if (m->known[i] == DONE) {
        assert_int_equal(e->state, ENTRY_BOUNCE_DUE);
        assert_int_equal(m->fate[i], FATE_BOUNCED);
        assert_false(m->null_sender);
        return;
    }
    if (e->state == ENTRY_BOUNCE_DUE)
        return; /* decided, or by the policy for doubt */
    assert_true(e->attempts <= m->attempts[i]);
    if (m->known[i] == QUEUED && m->dot_sure[i]) {
        found_in_doubt++;
        assert_int_not_equal(m->tenant, 2); /* the policy is to fail */
        assert_int_equal(e->state, m->tenant == 0 ? ENTRY_WAITING : ENTRY_HELD);
        assert_int_equal(e->reason, REASON_IN_DOUBT);
    }
}

/* After a recovery: the truth becomes what was found, if it may be so. */
static void check_recovered(void)
{
    for (unsigned k = 0; k < sent_count; k++) {
        struct sent *m = &sent[k];
        const struct qmsg *q = store_find(&queue.store, m->id);
        for (unsigned i = 0; i < m->rcpts; i++) {
            const struct qentry *e =
                q == NULL ? NULL : store_find_entry(&queue.store, q, (uint16_t)i);
            if (e != NULL) {
                check_found(m, i, e);
                bool decided = e->state == ENTRY_BOUNCE_DUE;
                m->known[i] = decided ? DONE : QUEUED;
                m->fate[i] = decided ? FATE_BOUNCED : FATE_NONE;
                m->attempts[i] = e->attempts;
                m->settled[i] = false;
                m->dot[i] = m->dot_sure[i] = e->in_doubt || e->state == ENTRY_HELD;
                continue;
            }
            bool by_doubt = m->dot[i] && m->tenant == 2 && m->null_sender;
            if (m->known[i] == QUEUED && !by_doubt)
                fail_msg("message %u recipient %u was acknowledged and is lost", k, i);
            if (m->known[i] == DONE && m->fate[i] == FATE_BOUNCED && !m->null_sender)
                fail_msg("message %u recipient %u: the notification it owes is lost", k, i);
            m->known[i] = m->known[i] == MAYBE ? NOTHING : m->known[i] == NOTHING ? NOTHING : DONE;
        }
        content_unref(&m->content);
    }
    check_ledger();
    check_live();
}

static void run(uint64_t seed)
{
    rng_seed(&dice, seed);
    rng_seed(&queue_rng, seed + 1000);
    sim_disk_init(seed);
    sent_count = 0;
    next_sequence = 1;
    now_ms = 1;
    start();
    for (unsigned lives = 0; lives < 4; lives++) {
        if (lives < 3)
            sim_disk_fault(SIM_CUT, 1 + rng_below(&dice, 150));
        if (rng_below(&dice, 3) == 0)
            sim_disk_fault(SIM_EIO, 1 + rng_below(&dice, 60));
        for (unsigned i = 0; i < STEPS && !sim_disk_is_down(); i++) {
            uint64_t n = rng_below(&dice, 10);
            if (n < 2)
                send_one();
            else if (n < 6)
                attempt_some();
            else if (n < 8)
                sim_disk_step();
            else
                turn();
            if (!shard->unwritten)
                check_ledger();
        }
        sim_disk_crash();
        sim_disk_heal();
        stop();
        now_ms += 60 * 60 * 1000;
        start();
        check_recovered();
    }
    for (unsigned i = 0; i < sent_count; i++)
        content_unref(&sent[i].content);
    stop();
    sim_disk_fini();
}

static void test_crashes(void **state)
{
    (void)state;
    found_in_doubt = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed);
    }
    assert_true(found_in_doubt > 10);
}

/* --- one thing at a time --- */

static void begin(void)
{
    rng_seed(&dice, 7);
    rng_seed(&queue_rng, 7);
    sim_disk_init(7);
    sent_count = 0;
    next_sequence = 1;
    now_ms = 1;
    start();
}

static void end(void)
{
    for (unsigned i = 0; i < sent_count; i++)
        content_unref(&sent[i].content);
    stop();
    sim_disk_fini();
}

static void again(void)
{
    sim_disk_crash();
    stop();
    now_ms += 1000;
    start();
}

static void settle(void)
{
    for (int i = 0; i < 20; i++) {
        turn();
        sim_disk_run();
    }
}

static struct sent *mail(unsigned tenant, unsigned rcpts, uint32_t body)
{
    struct sent *m = &sent[sent_count++];
    memset(m, 0, sizeof *m);
    m->id = id_make(1, 1, next_sequence++);
    m->tenant = tenant;
    m->rcpts = rcpts;
    m->content = content_create(body);
    memset(m->content->rest, 'x', body);
    m->content->rest_bytes = body;
    enqueue_now(m);
    return m;
}

static struct qentry *entry_of(const struct sent *m, uint16_t i)
{
    struct qmsg *q = store_find(&queue.store, m->id);
    return q == NULL ? NULL : store_find_entry(&queue.store, q, i);
}

static void deliver(struct sent *m, uint16_t i)
{
    struct qentry *e = entry_of(m, i);
    struct fate_facts f = {.reason = REASON_DELIVERED, .status = {2, 0, 0}};
    struct fate_set one = {.entries = &e, .count = 1};
    if (e->state == ENTRY_READY)
        take(e);
    flow_at(&queue, e->flow)->in_flight--;
    fates_apply(&queue, &one, VERDICT_OK, &f, NULL);
}

/* So much is delivered that the first segment is copied and leaves. */
static void push_out_the_oldest(void)
{
    struct spool_usage u;
    spool_usage(shard->spool, &u);
    uint64_t first = u.oldest_segment;
    for (int i = 0; u.oldest_segment == first; i++) {
        assert_true(i < 500);
        sent_count = sent_count > 150 ? 150 : sent_count;
        struct sent *m = mail(0, 1, 200 << 10);
        settle();
        deliver(m, 0);
        settle();
        spool_usage(shard->spool, &u);
    }
    assert_true(u.copied_messages > 0);
    check_live();
}

static void test_copy_keeps_doubt(void **state)
{
    (void)state;
    begin();
    struct sent *held = mail(1, 2, 500), *fails = mail(2, 1, 500), *again_ = mail(0, 1, 500);
    settle();
    for (int i = 0; i < 3; i++) {
        struct qentry *e = entry_of(i == 0 ? held : i == 1 ? fails : again_, 0);
        take(e);
        note_dot(i == 0 ? held : i == 1 ? fails : again_, e);
    }
    settle();
    push_out_the_oldest();
    again();
    assert_int_equal(entry_of(held, 0)->state, ENTRY_HELD);
    assert_int_equal(entry_of(held, 0)->reason, REASON_IN_DOUBT);
    assert_int_equal(entry_of(held, 1)->state, ENTRY_READY);
    assert_int_equal(entry_of(fails, 0)->state, ENTRY_BOUNCE_DUE);
    assert_int_equal(entry_of(again_, 0)->state, ENTRY_WAITING);
    check_ledger();
    push_out_the_oldest(); /* a copy of what is held because of doubt keeps that */
    again();
    assert_int_equal(entry_of(held, 0)->state, ENTRY_HELD);
    assert_int_equal(entry_of(fails, 0)->state, ENTRY_BOUNCE_DUE);
    check_ledger();
    check_live();
    end();
}

/* Another hold comes and goes: what the policy for doubt holds stays held. */
static void test_holds_leave_doubt_alone(void **state)
{
    (void)state;
    begin();
    struct sent *m = mail(1, 2, 500);
    settle();
    take(entry_of(m, 0));
    note_dot(m, entry_of(m, 0));
    settle();
    again();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_HELD);
    struct control_hold lane = {.kind = "lane", .value = "192.0.2.10"};
    queue_set_holds(&queue, &lane, 1);
    settle();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_HELD);
    struct control_hold message = {.kind = "message"};
    id_format(m->id, message.value);
    queue_set_holds(&queue, &message, 1);
    assert_int_equal(entry_of(m, 1)->state, ENTRY_HELD); /* at once */
    settle();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_HELD);
    assert_int_equal(entry_of(m, 1)->state, ENTRY_HELD);
    assert_int_equal(entry_of(m, 1)->reason, REASON_HELD_MESSAGE);
    queue_set_holds(&queue, NULL, 0);
    assert_false(queue.held_all); /* the master's list is the truth, with queue.hold in it */
    settle();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_HELD);
    assert_int_equal(entry_of(m, 0)->reason, REASON_IN_DOUBT);
    assert_int_equal(entry_of(m, 1)->state, ENTRY_READY);
    end();
}

/* A copy was written while the operator held the message; the hold is gone when the worker comes
 * back. */
static void test_hold_lifted_while_down(void **state)
{
    (void)state;
    begin();
    struct sent *m = mail(0, 1, 500);
    settle();
    struct control_hold message = {.kind = "message"};
    id_format(m->id, message.value);
    queue_set_holds(&queue, &message, 1);
    settle();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_HELD);
    push_out_the_oldest();
    again();
    assert_int_equal(entry_of(m, 0)->state, ENTRY_READY);
    end();
}

/* When a commit fails, a client may have its next message ready at once: the totals in the new
 * segment must not count what failed. */
static struct sent *chained;

static void on_failed_send_next(struct enqueue *x, int res)
{
    on_enqueued(x, res);
    if (res != 0 && chained == NULL)
        chained = mail(0, 1, 700);
}

static void test_mail_right_after_a_failed_commit(void **state)
{
    (void)state;
    begin();
    struct sent *before = mail(0, 2, 500);
    settle();
    assert_int_equal(before->known[0], QUEUED);
    chained = NULL;
    struct sent *a = mail(0, 1, 500);
    a->enqueue.on_done = on_failed_send_next;
    mail(0, 3, 500);
    deliver(before, 0);
    sim_disk_fault(SIM_EIO, 1);
    settle();
    settle();
    assert_non_null(chained);
    check_ledger();
    again();
    check_ledger();
    struct ledger l;
    shards_ledger(&queue, &l);
    assert_int_equal(l.delivered, 1);
    end();
}

/* Mail is refused before its recipients' domains find no room; names that nobody needs any more
 * make room. */
static void test_no_room_for_names(void **state)
{
    (void)state;
    begin();
    queue.domains.count_max = 4; /* each message brings its own, d0 to d4 */
    unsigned refused = 0;
    for (int i = 0; i < 10; i++) {
        struct sent *m = mail(0, 1, 300);
        refused += m->known[0] == NOTHING;
        settle();
    }
    assert_true(refused > 0);
    assert_true(refused < 10);
    for (unsigned i = 0; i < sent_count; i++) {
        assert_int_equal(sent[i].known[0] == QUEUED, entry_of(&sent[i], 0) != NULL);
        if (sent[i].known[0] == QUEUED)
            deliver(&sent[i], 0);
    }
    settle();
    for (int i = 0; i < 10; i++) {
        struct sent *m = mail(0, 1, 300);
        assert_int_equal(m->known[0], MAYBE);
        settle();
        assert_non_null(entry_of(m, 0));
        deliver(m, 0);
    }
    check_ledger();
    end();
}

/* With less room than there is mail the shard is not opened: what is not in the index would leave
 * with its segment. */
static void test_recovery_without_room(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 20; i++)
        mail(0, 2, 300);
    settle();
    uint32_t entries_max = config->queue.entries_max;
    shard_close(&shard);
    queue.shard_count = 0;
    config->queue.entries_max = 16;
    struct queue small;
    assert_int_equal(queue_init(&small, &queue.env), 0);
    assert_int_equal(shard_open(&shard, &small, "shard-0", 0), -ENOSPC);
    queue_fini(&small);
    config->queue.entries_max = entries_max;
    stop();
    start();
    for (unsigned i = 0; i < sent_count; i++)
        assert_non_null(entry_of(&sent[i], 1));
    check_ledger();
    end();
}

/* Each 250 has a text of its own: the table of last replies is for those who wait. */
static void test_replies_of_delivered_are_not_kept(void **state)
{
    (void)state;
    begin();
    struct sent *m = mail(0, 2, 300);
    settle();
    struct qentry *e = entry_of(m, 0);
    struct fate_facts f = {
        .reason = REASON_DELIVERED, .status = {2, 0, 0}, .reply = span_str("250 queued as 4711")};
    struct fate_set one = {.entries = &e, .count = 1};
    take(e);
    flow_at(&queue, e->flow)->in_flight--;
    fates_apply(&queue, &one, VERDICT_OK, &f, NULL);
    assert_int_equal(queue.reply_count, 0);
    end();
}

static void test_recipients_in_any_order(void **state)
{
    (void)state;
    struct store s;
    rng_seed(&dice, 3);
    assert_int_equal(store_init(&s, 4000), 0);
    for (int round = 0; round < 20; round++) {
        struct qmsg *m = store_add(&s, id_make(1, 1, 1 + (uint64_t)round));
        bool there[200] = {false};
        for (int i = 0; i < 400; i++) {
            uint16_t index = (uint16_t)rng_below(&dice, 200);
            if (!there[index])
                store_add_entry(&s, m, index);
            else
                store_drop_entry(&s, store_find_entry(&s, m, index));
            there[index] = !there[index];
        }
        uint32_t i = m->first;
        for (uint16_t index = 0; index < 200; index++) {
            if (!there[index])
                continue;
            assert_int_not_equal(i, 0);
            assert_int_equal(store_entry(&s, i)->index, index);
            i = store_entry(&s, i)->sibling;
        }
        assert_int_equal(i, 0);
    }
    store_fini(&s);
}

/* The remembered choice of a lane is the one that would be made anew, whatever holds come and go.
 */
static void test_lane_choice(void **state)
{
    (void)state;
    begin();
    unsigned lanes_seen = 0;
    for (int i = 0; i < 5000; i++) {
        char name[32];
        if (rng_below(&dice, 50) == 0) {
            struct control_hold h[2] = {{.kind = "lane"}, {.kind = "lane"}};
            for (int k = 0; k < 2; k++)
                snprintf(h[k].value, sizeof h[k].value, "%s",
                         queue.lanes[rng_below(&dice, 3)].name);
            queue_set_holds(&queue, h, (uint32_t)rng_below(&dice, 3));
        }
        snprintf(name, sizeof name, "d%u.example", (unsigned)rng_below(&dice, 200));
        uint16_t tenant = (uint16_t)rng_below(&dice, 3);
        struct lane *l = route_lane(&queue, tenant, span_str(name));
        memset(queue.memos, 0, sizeof queue.memos);
        assert_ptr_equal(l, route_lane(&queue, tenant, span_str(name)));
        assert_ptr_equal(l, route_lane(&queue, tenant, span_str(name)));
        lanes_seen |= 1u << l->index;
    }
    assert_int_equal(lanes_seen, 7);
    end();
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
        cmocka_unit_test(test_copy_keeps_doubt),
        cmocka_unit_test(test_holds_leave_doubt_alone),
        cmocka_unit_test(test_hold_lifted_while_down),
        cmocka_unit_test(test_mail_right_after_a_failed_commit),
        cmocka_unit_test(test_no_room_for_names),
        cmocka_unit_test(test_recovery_without_room),
        cmocka_unit_test(test_replies_of_delivered_are_not_kept),
        cmocka_unit_test(test_recipients_in_any_order),
        cmocka_unit_test(test_lane_choice),
        cmocka_unit_test(test_crashes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
