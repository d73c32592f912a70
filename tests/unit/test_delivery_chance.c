/*
 * The whole delivery side - queue, flows, connections, client, shard - against mail exchangers and
 * a disk that misbehave by chance: no recipient is forgotten, none is delivered twice unless a
 * reply was lost, the ledger adds up and no memory is used after its end.
 */
#include "tests/sim/sim_conn.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/config_support.h"
#include "worker/lane/deliver.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"

enum {
    SEEDS = 25,
    MESSAGES = 60,
    RCPTS = 6,
    SERVERS = 400,
    LANES = 3,
    STEPS = 1500,
    CHUNK_BYTES = 30000
};

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.12, ehlo: out%d.example.net}]}}\n"
    "tenants:\n"
    "  again: {pool: p, in_doubt: retry}\n"
    "  held: {pool: p, in_doubt: hold}\n"
    "  fails: {pool: p, in_doubt: fail}\n"
    "routes:\n"
    "  - {domain: a.example, via: '198.51.100.1:25', limits: {connections: 3, "
    "messages_per_connection: 5}}\n"
    "  - {domain: '*', via: '198.51.100.2:25', limits: {connections: 2, messages_per_s: 50, "
    "recipients: 3}}\n"
    "dns: {enabled: false}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)disk_open, (any_function *)conn_connect,
                                          (any_function *)listener_start};

struct sent {
    struct enqueue enqueue;
    struct spool_wait chunk_wait[2];
    struct record_place place[2];
    struct msg_id id;
    unsigned tenant, rcpts, chunks, chunks_durable;
    struct content *content;
    bool failed, accepted;
    unsigned taken[RCPTS]; /* how often a server said 250 to the end of data for it */
    bool doubt[RCPTS];     /* a server took it and its answer may not have come */
    bool deleted;
};

/* One dialog at the other side. */
enum mode { COMMANDS, BODY_DATA, BODY_BDAT };
struct server {
    struct sim_peer *peer;
    enum mode mode;
    uint64_t bdat_left;
    bool bdat_last, mail, hangs, ended;
    unsigned rcpts[128], rcpt_count;
    char head[64]; /* first bytes of the content */
    size_t head_bytes;
    char tail[5];
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
static struct server servers[SERVERS];
static unsigned chaos; /* of a thousand answers */
static uint64_t total_taken, total_doubt;

static bool chance(unsigned of_1000)
{
    return rng_below(&dice, 1000) < of_1000;
}

/* --- servers --- */

static void on_connect(void *ctx, struct sim_peer *p)
{
    (void)ctx;
    for (unsigned i = 0; i < SERVERS; i++) {
        if (servers[i].peer != NULL)
            continue;
        servers[i] = (struct server){.peer = p};
        if (chance(chaos / 2)) {
            servers[i].ended = true;
            sim_refuse(p, -ECONNREFUSED);
            return;
        }
        sim_accept(p);
        sim_push_text(p, chance(chaos / 4) ? "554 go away\r\n" : "220 mx ESMTP\r\n");
        return;
    }
    fail(); /* more connections than the limits allow */
}

static void leave(struct server *s)
{
    s->ended = true;
    if (chance(500))
        sim_reset(s->peer);
    else
        sim_eof(s->peer);
}

/* Says `ok`, or something else; true when it was said. */
static bool answer(struct server *s, const char *ok)
{
    static const char *const odd[] = {"451 later\r\n",      "450 4.2.0 greylisted\r\n",
                                      "550 5.1.1 no\r\n",   "421 closing\r\n",
                                      "552 5.2.2 full\r\n", "500 what\r\n"};
    if (!chance(chaos)) {
        sim_push_text(s->peer, ok);
        return true;
    }
    uint64_t n = rng_below(&dice, 10);
    if (n < ARRAY_COUNT(odd)) {
        sim_push_text(s->peer, odd[n]);
        if (n == 3)
            leave(s);
    } else if (n < 8) {
        leave(s);
    } else {
        s->hangs = true;
    }
    return false;
}

static void end_of_data(struct server *s)
{
    unsigned number = 0;
    s->head[sizeof s->head - 1] = '\0';
    char *at = strstr(s->head, "ID=");
    assert_non_null(at);
    number = (unsigned)strtoul(at + 3, NULL, 10);
    assert_true(number < sent_count);
    struct sent *m = &sent[number];
    bool lost = chance(chaos / 3); /* taken, and nothing said */
    bool said = !lost && answer(s, "250 taken\r\n");
    if (lost)
        leave(s);
    for (unsigned i = 0; i < s->rcpt_count && (said || lost); i++) {
        m->taken[s->rcpts[i]]++;
        m->doubt[s->rcpts[i]] = m->doubt[s->rcpts[i]] || lost;
        total_taken++;
        total_doubt += lost;
    }
    s->mail = false;
    s->rcpt_count = 0;
    s->mode = COMMANDS;
}

static void begin_body(struct server *s, enum mode mode)
{
    s->mode = mode;
    s->head_bytes = 0;
    memset(s->head, 0, sizeof s->head);
    memcpy(s->tail, "\r\n\0\0\0", 5);
}

static void on_rcpt(struct server *s, const char *line)
{
    const char *u = strchr(line, '<');
    if (!s->mail)
        sim_push_text(s->peer, "503 mail first\r\n");
    else if (answer(s, "250 ok\r\n"))
        s->rcpts[s->rcpt_count++] = (unsigned)(u[2] - '0');
}

static void on_line(struct server *s, const char *line)
{
    if (strncmp(line, "EHLO", 4) == 0) {
        static const char *const offers[] = {
            "250 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250-mx\r\n250 CHUNKING\r\n",
            "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 0\r\n250 8BITMIME\r\n"};
        answer(s, offers[rng_below(&dice, ARRAY_COUNT(offers))]);
    } else if (strncmp(line, "MAIL", 4) == 0) {
        s->mail = answer(s, "250 ok\r\n");
        s->rcpt_count = 0;
    } else if (strncmp(line, "RCPT", 4) == 0) {
        on_rcpt(s, line);
    } else if (strcmp(line, "DATA") == 0) {
        if (s->rcpt_count == 0)
            sim_push_text(s->peer, "554 nobody\r\n");
        else if (answer(s, "354 go\r\n"))
            begin_body(s, BODY_DATA);
    } else if (strncmp(line, "BDAT", 4) == 0) {
        begin_body(s, BODY_BDAT);
        s->bdat_left = strtoull(line + 5, NULL, 10);
        assert_non_null(strstr(line, "LAST"));
    } else if (strcmp(line, "RSET") == 0) {
        s->mail = false;
        s->rcpt_count = 0;
        answer(s, "250 reset\r\n");
    } else if (strcmp(line, "QUIT") == 0) {
        answer(s, "221 bye\r\n");
    } else {
        sim_push_text(s->peer, "250 fine\r\n"); /* HELO */
    }
}

static void keep_head(struct server *s, struct span in)
{
    size_t n = sizeof s->head - 1 - s->head_bytes;
    if (n > in.n)
        n = in.n;
    memcpy(s->head + s->head_bytes, in.p, n);
    s->head_bytes += n;
}

/* Bytes used of a body. */
static size_t on_body(struct server *s, struct span in)
{
    if (s->mode == BODY_BDAT) {
        size_t n = in.n < s->bdat_left ? in.n : (size_t)s->bdat_left;
        keep_head(s, span_of(in.p, n));
        s->bdat_left -= n;
        if (s->bdat_left > 0)
            return n;
        s->mode = COMMANDS;
        if (s->rcpt_count == 0)
            sim_push_text(s->peer, "503 nobody\r\n");
        else
            end_of_data(s);
        return n;
    }
    for (size_t i = 0; i < in.n; i++) {
        memmove(s->tail, s->tail + 1, 4);
        s->tail[4] = (char)in.p[i];
        if (memcmp(s->tail, "\r\n.\r\n", 5) == 0) {
            keep_head(s, span_of(in.p, i));
            end_of_data(s);
            return i + 1;
        }
    }
    keep_head(s, in);
    if (chance(chaos / 20)) { /* in the middle of the content */
        sim_push_text(s->peer, "552 5.3.4 too much\r\n");
        s->hangs = true;
    }
    return in.n;
}

static void serve_one(struct server *s)
{
    while (!s->ended && !s->hangs) {
        struct span out = sim_output(s->peer);
        if (out.n == 0)
            return;
        if (s->mode != COMMANDS) {
            sim_take(s->peer, on_body(s, out));
            continue;
        }
        const uint8_t *nl = memchr(out.p, '\n', out.n);
        if (nl == NULL)
            return;
        char line[1000];
        size_t n = (size_t)(nl - out.p) + 1;
        snprintf(line, sizeof line, "%.*s", (int)n - 2, (const char *)out.p);
        sim_take(s->peer, n);
        on_line(s, line);
    }
}

static void serve(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        struct server *s = &servers[i];
        if (s->peer == NULL)
            continue;
        serve_one(s);
        if (!s->ended && (sim_peer_ended(s->peer) || (s->hangs && chance(5)))) {
            s->ended = true;
            sim_eof(s->peer);
        }
        if (sim_peer_closed(s->peer)) {
            sim_peer_free(s->peer);
            s->peer = NULL;
        }
    }
}

/* --- the worker --- */

static void start(uint64_t after_ms)
{
    struct io_settings set = {.conn_count_max = 512, .recv_buffer_count = 64};
    assert_int_equal(io_create(&io, &set), 0);
    assert_int_equal(io_enable(io), 0);
    sim_seed(io, rng_below(&dice, 1 << 20));
    sim_on_connect(io, on_connect, NULL);
    sim_clock_advance(io, after_ms);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    memset(stats, 0, sizeof *stats);
    assert_int_equal(events_create(&events, -1), 0);
    struct queue_env env = {.config = config, .io = io, .wheel = &wheel, .stats = stats,
                            .events = events, .rng = &queue_rng};
    assert_int_equal(queue_init(&queue, &env), 0);
    struct control_lane lanes[LANES] = {{0}};
    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = (struct control_lane){
            .lane = 100 + i, .epoch = 1, .address = config->lanes[i].address};
    assert_int_equal(route_set_lanes(&queue, lanes, LANES, 0), 0);
    assert_int_equal(shard_open(&shard, &queue, "shard-0", 0), 0);
}

static uint64_t passed_ms;

static void turn(uint64_t ms)
{
    passed_ms += ms;
    sim_clock_advance(io, ms);
    io_turn(io, 0);
    wheel_advance(&wheel, io_now_ns(io) / 1000000);
    serve();
    queue_turn(&queue);
    shard_turn(shard);
}

static void check_ledger(void)
{
    struct ledger l;
    shards_ledger(&queue, &l);
    uint64_t queued = queue.store.entries.used - queue.counts[ENTRY_BOUNCE_DUE];
    assert_int_equal(l.accepted,
                     l.delivered + l.bounced + l.expired + l.deleted + l.handed_over + queued);
}

/* --- mail in --- */

static void on_enqueued(struct enqueue *x, int res)
{
    struct sent *m = (struct sent *)((char *)x - offsetof(struct sent, enqueue));
    m->accepted = res == 0;
    content_unref(&m->content);
}

static void enqueue_now(struct sent *m)
{
    uint8_t buf[2000];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = m->id,
                    .received_unix_ms = io_now_unix_ms(io),
                    .lifetime_s = 30 * 86400,
                    .tenant = span_str(queue.tenants[m->tenant].name),
                    .helo = span_str("c.example"),
                    .sender = span_str("s@example.org"),
                    .trace_bytes = m->chunks > 0 ? m->content->rest_bytes : 11,
                    .rcpt_count = (uint16_t)m->rcpts,
                    .chunk_count = (uint16_t)m->chunks};
    e.body_bytes = m->chunks > 0 ? m->chunks * CHUNK_BYTES : m->content->rest_bytes - 11;
    enq_put(&w, &e);
    for (unsigned i = 0; i < m->rcpts; i++) {
        char address[64];
        snprintf(address, sizeof address, "u%u@%c.example", i,
                 (char)('a' + (m->id.lo + i / 3) % 3));
        enq_put_rcpt(&w, &(struct enq_rcpt){.index = (uint16_t)i, .address = span_str(address)});
    }
    for (unsigned i = 0; i < m->chunks; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = m->place[i], .body_bytes = CHUNK_BYTES});
    assert_false(w.bad);
    assert_int_equal(content_set_meta(m->content, span_of(buf, w.n)), 0);
    struct record_place *places = m->chunks > 0 ? malloc(m->chunks * sizeof *places) : NULL;
    if (places != NULL)
        memcpy(places, m->place, m->chunks * sizeof *places);
    m->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = &queue.lanes[m->id.lo % LANES],
                                  .content = m->content,
                                  .chunks = places,
                                  .chunk_count = (uint16_t)m->chunks,
                                  .rcpt_count = (uint16_t)m->rcpts};
    if (shard_enqueue(shard, &m->enqueue) == 0)
        return;
    shard_drop_chunks(shard, m->place, (uint16_t)m->chunks);
    free(places);
    content_unref(&m->content);
}

static void on_chunk(struct spool_wait *w, int res)
{
    for (unsigned i = 0; i < sent_count; i++) {
        struct sent *m = &sent[i];
        if (w != &m->chunk_wait[0] && w != &m->chunk_wait[1])
            continue;
        m->failed = m->failed || res != 0;
        if (++m->chunks_durable < m->chunks)
            return;
        if (!m->failed) {
            enqueue_now(m);
            return;
        }
        shard_drop_chunks(shard, m->place, (uint16_t)m->chunks);
        content_unref(&m->content);
        return;
    }
    fail();
}

static void send_one(void)
{
    if (sent_count == MESSAGES)
        return;
    struct sent *m = &sent[sent_count];
    memset(m, 0, sizeof *m);
    m->id = id_make(1, 1, 1000 + sent_count);
    m->tenant = (unsigned)rng_below(&dice, 3);
    m->rcpts = 1 + (unsigned)rng_below(&dice, RCPTS);
    m->chunks = chance(200) ? 2 : 0;
    uint32_t body = chance(200) ? 100000 : 200;
    m->content = content_create(body);
    memset(m->content->rest, 'x', body);
    memcpy(m->content->rest + body - 2, "\r\n", 2);
    char head[16];
    snprintf(head, sizeof head, "ID=%06u\r\n", sent_count);
    memcpy(m->content->rest, head, 11);
    m->content->rest_bytes = m->chunks > 0 ? 11 : body;
    sent_count++;
    static uint8_t chunk[CHUNK_BYTES];
    memset(chunk, 'c', sizeof chunk);
    memcpy(chunk + sizeof chunk - 2, "\r\n", 2);
    for (unsigned i = 0; i < m->chunks; i++) {
        m->chunk_wait[i].on_durable = on_chunk;
        if (shard_put_chunk(&queue.lanes[m->id.lo % LANES], m->id,
                            span_of(chunk, sizeof chunk), &m->chunk_wait[i], &m->place[i]) == 0)
            continue;
        m->chunks = i;
        m->failed = true;
        if (i == 0)
            content_unref(&m->content);
        return;
    }
    if (m->chunks == 0)
        enqueue_now(m);
}

/* --- what the operator does --- */

static void meddle(void)
{
    struct sent *m = sent_count == 0 ? NULL : &sent[rng_below(&dice, sent_count)];
    const struct qmsg *q = m == NULL ? NULL : store_find(&queue.store, m->id);
    if (q == NULL)
        return;
    struct control_hold h = {.kind = "message"};
    struct qentry *e = store_entry(&queue.store, q->first);
    switch (rng_below(&dice, 4)) {
    case 0:
        id_format(m->id, h.value);
        queue_set_holds(&queue, &h, 1);
        return;
    case 1:
        snprintf(h.kind, sizeof h.kind, "%s", chance(500) ? "lane" : "site");
        snprintf(h.value, sizeof h.value, "%s",
                 h.kind[0] == 'l' ? queue.lanes[rng_below(&dice, LANES)].name : "b.example");
        queue_set_holds(&queue, &h, 1);
        return;
    case 2:
        queue_set_holds(&queue, NULL, 0);
        return;
    default:
        if (chance(200) && e->state != ENTRY_BOUNCE_DUE) {
            struct fate_facts f = {.reason = REASON_DELETED, .status = {5, 7, 1}};
            m->deleted = true;
            fates_end(&queue, e, FATE_DELETED, &f);
        } else if (e->state == ENTRY_WAITING || e->state == ENTRY_HELD) {
            fates_try_again(&queue, e);
        }
    }
}

/* --- the run --- */

static bool is_over(void)
{
    return queue.store.entries.used == queue.counts[ENTRY_BOUNCE_DUE] &&
           deliver_open(queue.deliver) == 0;
}

static void check_all(void)
{
    struct ledger l;
    uint64_t gone = 0;
    for (unsigned k = 0; k < sent_count; k++) {
        struct sent *m = &sent[k];
        const struct qmsg *q = store_find(&queue.store, m->id);
        for (unsigned i = 0; i < m->rcpts && m->accepted; i++) {
            const struct qentry *e =
                q == NULL ? NULL : store_find_entry(&queue.store, q, (uint16_t)i);
            if (e != NULL)
                assert_int_equal(e->state, ENTRY_BOUNCE_DUE);
            else if (m->taken[i] == 0 && !m->deleted)
                fail_msg("message %u recipient %u is gone and nobody took it", k, i);
            if (m->taken[i] > 1 && !m->doubt[i])
                fail_msg("message %u recipient %u came %u times", k, i, m->taken[i]);
            gone += e == NULL;
        }
    }
    shards_ledger(&queue, &l);
    assert_int_equal(gone, l.delivered + l.deleted);
    check_ledger();
}

static void calm_down(void)
{
    chaos = 0;
    sim_disk_heal();
    queue_set_holds(&queue, NULL, 0);
    for (unsigned i = 0; i < SERVERS; i++) /* what has skipped an answer must not go on */
        if (servers[i].peer != NULL && servers[i].hangs && !servers[i].ended)
            leave(&servers[i]);
    for (int i = 0; i < 60000 && !is_over(); i++) {
        sim_disk_run();
        /* A long step only when nobody waits for an answer: it would be a time-out. */
        turn(i % 50 < 40 ? 2 : i % 50 < 49 ? 1500 : deliver_busy(queue.deliver) == 0 ? 600000 : 1);
    }
    if (!is_over())
        fail_msg("%u recipients do not move: ready %u waiting %u in flight %u held %u, %u open",
                 queue.store.entries.used, queue.counts[ENTRY_READY], queue.counts[ENTRY_WAITING],
                 queue.counts[ENTRY_IN_FLIGHT], queue.counts[ENTRY_HELD],
                 deliver_open(queue.deliver));
}

static void stop(void)
{
    for (int i = 0; i < 2000 && deliver_open(queue.deliver) > 0; i++)
        turn(1000);
    for (int i = 0; i < 50; i++) {
        sim_disk_run();
        turn(1);
    }
    for (unsigned i = 0; i < SERVERS; i++) {
        if (servers[i].peer == NULL)
            continue;
        sim_eof(servers[i].peer);
        for (int k = 0; k < 5000 && !sim_peer_closed(servers[i].peer); k++)
            turn(10);
        if (servers[i].peer != NULL)
            sim_peer_free(servers[i].peer);
        servers[i].peer = NULL;
    }
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

static void run(uint64_t seed)
{
    rng_seed(&dice, seed);
    rng_seed(&queue_rng, seed + 1000);
    sim_disk_init(seed);
    sent_count = 0;
    passed_ms = 0;
    memset(servers, 0, sizeof servers);
    start(1);
    chaos = (unsigned)rng_below(&dice, 300);
    bool bad_disk = chance(400);
    for (int i = 0; i < STEPS; i++) {
        if (chance(80))
            send_one();
        if (chance(20))
            meddle();
        if (bad_disk && chance(5))
            sim_disk_fault(chance(500) ? SIM_EIO : SIM_SHORT, 1 + rng_below(&dice, 20));
        if (bad_disk && chance(5))
            sim_disk_fault_read(1 + rng_below(&dice, 5));
        if (chance(20))
            sim_no_slots(io, chance(300));
        for (int k = 0; k < 3 && chance(700); k++)
            sim_disk_step();
        turn(rng_below(&dice, chance(20) ? 60000 : 30));
        if (shard->unwritten == NULL)
            check_ledger();
    }
    sim_no_slots(io, false);
    calm_down();
    check_all();
    stop();
    for (unsigned i = 0; i < sent_count; i++)
        content_unref(&sent[i].content);
    sim_disk_fini();
    assert_int_equal(content_total(), 0);
}

static void test_chance(void **state)
{
    (void)state;
    total_taken = total_doubt = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed);
    }
    assert_true(total_taken > 1000);
    assert_true(total_doubt > 10);
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
        cmocka_unit_test(test_chance),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
