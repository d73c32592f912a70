/*
 * A lane is copied from one node to another in one process: two queues with logs on a simulated
 * disk, joined by a carrier that may lose everything. Mail comes, is delivered, deferred, held,
 * deleted and expires meanwhile; either node may lose its power. In the end the lane is frozen, and
 * the replica must be what the owner has: recipient by recipient, body by body, and nothing else.
 */
#include "tests/sim/sim_conn.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/config_support.h"
#include "worker/lane/adopted.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/role_impl.h"
#include "worker/lane/route.h"
#include "worker/lane/site.h"
#include "worker/move/digest.h"
#include "worker/move/replica.h"
#include "worker/move/source.h"

/* A crash loses what waits for the disk, as it does in life: that is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

enum {
    SEEDS = 150, /* COPY_SEEDS in the environment: another number */
    MESSAGES = 400,
    RCPTS = 3,
    LANES = 2,
    STEPS = 500,
    CHUNK_BYTES = 3000,
    MOVE = 77,
    CARRIER_BYTES = 1 << 20
};

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10-192.0.2.11, ehlo: out%d.example.net}]}}\n"
    "tenants: {t: {pool: p}}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true}\n"
    "spool_options: {segment: 4M, reserve: 0, spares: 1}\n";

/* Named here, so that the linker takes the simulated side before it meets the real one. */
typedef void any_function(void);
static any_function *const simulated[] = {(any_function *)disk_open, (any_function *)conn_connect,
                                          (any_function *)listener_start};

struct parcel {
    struct parcel *next;
    size_t n;
    uint8_t bytes[];
};
struct carrier {
    struct node *to;
    struct parcel *head, **tail;
    size_t bytes;
    bool up;
};
struct node {
    const char *name, *path;
    struct node *peer;
    struct carrier carrier; /* what it sends */
    struct io *io;
    struct wheel wheel;
    struct stats_page *stats;
    struct events *events;
    struct queue *queue;
    struct shard *shard;
    struct source *source;
    struct replica *replica;
    bool ready;
    struct role_change change;
    int change_res; /* 1: not over */
};
struct mail {
    struct enqueue enqueue;
    struct content *content;
    uint32_t body, chunks;
};

static struct node a, b;
static struct config *config;
static struct rng dice, queue_rng;
static struct mail mails[MESSAGES];
static uint32_t mail_count;
static uint64_t now_ms;
static unsigned seen_sent, seen_failed;
static uint64_t last_left;
static char last_why[160];

/* --- the carrier --- */

int carrier_send(struct carrier *c, const char *node, uint32_t slot, struct span payload)
{
    assert_string_equal(node, c->to->name);
    assert_int_equal(slot, 0);
    assert_true(payload.n > 0);
    assert_true(payload.n <= LIMIT_CARRIER_PAYLOAD_BYTES);
    if (!c->up)
        return -ENOTCONN;
    if (c->bytes >= CARRIER_BYTES)
        return -EAGAIN;
    struct parcel *p = malloc(sizeof *p + payload.n);
    p->next = NULL;
    p->n = payload.n;
    memcpy(p->bytes, payload.p, payload.n);
    *c->tail = p;
    c->tail = &p->next;
    c->bytes += p->n;
    return 0;
}

bool carrier_is_up(const struct carrier *c, const char *node)
{
    (void)node;
    return c->up;
}

static void carrier_lose(struct carrier *c)
{
    while (c->head != NULL) {
        struct parcel *p = c->head;
        c->head = p->next;
        free(p);
    }
    c->tail = &c->head;
    c->bytes = 0;
}

static void hand_frame(struct node *to, const struct lane_frame *f)
{
    const char *from = to->peer->name;
    if (f->kind == LANE_FRAME_REFUSED) /* no loss is a reason for this one */
        assert_string_not_equal(f->why, "a frame cannot be used");
    if (f->kind == LANE_FRAME_INVENTORY || f->kind == LANE_FRAME_ACK ||
        f->kind == LANE_FRAME_REFUSED)
        source_frame(to->source, from, 0, f);
    else
        replica_frame(to->replica, from, 0, f);
}

/* One payload arrives. */
static bool carry(struct carrier *c)
{
    struct parcel *p = c->head;
    if (p == NULL || c->to->queue == NULL)
        return false;
    c->head = p->next;
    if (c->head == NULL)
        c->tail = &c->head;
    c->bytes -= p->n;
    struct span s = span_of(p->bytes, p->n);
    struct lane_frame f;
    int r;
    while ((r = lane_frame_next(&s, &f)) == 1) {
        hand_frame(c->to, &f);
        lane_frame_free(&f);
    }
    assert_int_equal(r, 0);
    free(p);
    return true;
}

static void link_down(void)
{
    carrier_lose(&a.carrier);
    carrier_lose(&b.carrier);
    a.carrier.up = b.carrier.up = false;
    source_down(a.source, b.name);
    replica_down(b.replica, a.name);
}

static void link_up(void)
{
    a.carrier.up = b.carrier.up = true;
    source_up(a.source, b.name);
    replica_up(b.replica, a.name);
}

/* --- nodes --- */

static void on_progress(void *ctx, const struct control_lane_order *o)
{
    (void)ctx;
    assert_int_equal(o->op, LANE_OP_PROGRESS);
    seen_sent += o->messages_sent > 0;
    last_left = o->bytes_left;
    if (!a.carrier.up) /* or somebody freezes a lane whose copy is who knows where */
        assert_true(o->bytes_left > 1 << 20);
}

static void on_failed(void *ctx, const struct control_lane_order *o)
{
    (void)ctx;
    assert_int_equal(o->op, LANE_OP_COPY_FAILED);
    memcpy(last_why, o->why, sizeof last_why);
    seen_failed++;
}

static void on_ready(void *ctx, const struct control_lane_order *o)
{
    struct node *n = ctx;
    assert_int_equal(o->move, MOVE);
    assert_int_equal(o->epoch, 1);
    n->ready = true;
}

static struct lane *lane_of(struct node *n, unsigned i)
{
    return &n->queue->lanes[i];
}

/* Lane 0 is the one that is copied. Its numbers differ, as on two nodes. */
static void make_lanes(struct node *n, enum lane_role role)
{
    struct control_lane lanes[LANES] = {{0}};
    for (uint32_t i = 0; i < LANES; i++) {
        lanes[i] = (struct control_lane){.lane = (n == &a ? 100 : 200) + i,
                                         .epoch = 1,
                                         .role = i == 0 ? role : LANE_OWNER,
                                         .owner_slot = CONTROL_NO_SLOT,
                                         .address = config->lanes[i].address};
        if (lanes[i].role == LANE_REPLICA || lanes[i].role == LANE_AWAY) {
            snprintf(lanes[i].owner, sizeof lanes[i].owner, "a");
            lanes[i].move = MOVE;
        }
    }
    assert_int_equal(route_set_lanes(n->queue, lanes, LANES, 0), 0);
}

static void node_start(struct node *n, enum lane_role role)
{
    struct io_settings set = {.conn_count_max = 16, .recv_buffer_count = 64};
    assert_int_equal(io_create(&n->io, &set), 0);
    assert_int_equal(io_enable(n->io), 0);
    sim_clock_advance(n->io, now_ms);
    wheel_init(&n->wheel, io_now_ns(n->io) / 1000000);
    memset(n->stats, 0, sizeof *n->stats);
    assert_int_equal(events_create(&n->events, -1), 0);
    struct queue_env env = {.config = config,
                            .io = n->io,
                            .wheel = &n->wheel,
                            .stats = n->stats,
                            .events = n->events,
                            .rng = &queue_rng};
    n->queue = malloc(sizeof *n->queue);
    assert_int_equal(queue_init(n->queue, &env), 0);
    make_lanes(n, role);
    struct source_settings ss = {
        .queue = n->queue, .carrier = &n->carrier, .events = {n, on_progress, on_failed}};
    struct replica_settings rs = {
        .queue = n->queue, .carrier = &n->carrier, .events = {n, on_ready}};
    assert_int_equal(source_create(&n->source, &ss), 0);
    assert_int_equal(replica_create(&n->replica, &rs), 0);
    assert_int_equal(shard_open(&n->shard, n->queue, n->path, 0), 0);
}

static void node_stop(struct node *n)
{
    source_destroy(&n->source);
    replica_destroy(&n->replica);
    shard_close(&n->shard);
    n->queue->shard_count = 0;
    for (uint32_t i = 1; i < store_entry_end(&n->queue->store); i++) {
        struct qentry *e = store_peek(&n->queue->store, i);
        if (e != NULL)
            shard_uncache(n->queue, store_msg(&n->queue->store, e->msg));
    }
    queue_fini(n->queue);
    free(n->queue);
    n->queue = NULL;
    events_destroy(&n->events);
    io_destroy(&n->io);
}

static void turn(struct node *n)
{
    sim_clock_advance(n->io, 1);
    wheel_advance(&n->wheel, io_now_ns(n->io) / 1000000);
    io_turn(n->io, 0);
    queue_turn(n->queue);
    source_turn(n->source);
    replica_turn(n->replica);
    shard_turn(n->shard);
}

static void turn_both(void)
{
    now_ms++;
    turn(&a);
    turn(&b);
}

static void on_change(struct role_change *c, int res)
{
    struct node *n = (struct node *)((char *)c - offsetof(struct node, change));
    n->change_res = res;
}

static void settle(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        while (carry(&a.carrier) || carry(&b.carrier)) {
        }
        turn_both();
        sim_disk_run();
    }
}

static void set_role(struct node *n, enum lane_role role)
{
    for (int tries = 0; tries < 200; tries++) {
        n->change_res = 1;
        n->change = (struct role_change){.on_done = on_change,
                                         .lane = lane_of(n, 0)->number,
                                         .role = role,
                                         .epoch = 1,
                                         .slot = 0,
                                         .move = MOVE};
        snprintf(n->change.node, sizeof n->change.node, "%s", n->peer->name);
        role_set(n->queue, &n->change);
        for (int i = 0; i < 200 && n->change_res == 1; i++)
            settle(1);
        if (n->change_res == 0)
            return;
        assert_int_equal(n->change_res, -EBUSY);
    }
    fail_msg("the role cannot be set");
}

static void order_copy(void)
{
    struct control_lane_order o = {
        .op = LANE_OP_COPY, .lane = lane_of(&a, 0)->number, .epoch = 1, .move = MOVE, .slot = 0};
    snprintf(o.node, sizeof o.node, "%s", b.name);
    assert_int_equal(source_copy(a.source, &o), 0);
}

/* --- mail --- */

/* Byte i of the body of message `number`. */
static uint8_t body_byte(uint64_t number, uint64_t i)
{
    return (uint8_t)('a' + (number * 7 + i * 31 + (i >> 8)) % 26);
}

static void fill_body(uint8_t *out, uint64_t number, uint64_t from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = body_byte(number, from + i);
}

static void on_enqueued(struct enqueue *x, int res)
{
    struct mail *m = (struct mail *)((char *)x - offsetof(struct mail, enqueue));
    (void)res;
    content_unref(&m->content);
}

static void put_envelope(struct mail *m, struct msg_id id, unsigned rcpts,
                         const struct record_place *places)
{
    uint8_t buf[2000];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = id,
                    .received_unix_ms = io_now_unix_ms(a.io),
                    .lifetime_s = rng_below(&dice, 8) == 0 ? 1 + (uint32_t)rng_below(&dice, 3)
                                                            : 86400,
                    .tenant = span_str("t"),
                    .helo = span_str("c.example"),
                    .sender = span_str(rng_below(&dice, 4) == 0 ? "" : "s@example.org"),
                    .body_bytes = m->body,
                    .rcpt_count = (uint16_t)rcpts,
                    .chunk_count = (uint16_t)m->chunks};
    enq_put(&w, &e);
    for (unsigned i = 0; i < rcpts; i++) {
        char address[64];
        snprintf(address, sizeof address, "u%u@d%u.example", i, (unsigned)(id.lo % 5 + i / 2));
        enq_put_rcpt(&w, &(struct enq_rcpt){.index = (uint16_t)i, .address = span_str(address)});
    }
    for (unsigned i = 0; i < m->chunks; i++)
        enq_put_chunk(&w, &(struct enq_chunk){.place = places[i], .body_bytes = CHUNK_BYTES});
    assert_false(w.bad);
    assert_int_equal(content_set_meta(m->content, span_of(buf, w.n)), 0);
}

static struct record_place *put_chunks(struct lane *l, struct msg_id id, unsigned chunks)
{
    static uint8_t chunk[CHUNK_BYTES];
    struct record_place *places = calloc(chunks + 1, sizeof *places);
    for (unsigned i = 0; i < chunks; i++) {
        fill_body(chunk, id.lo, (uint64_t)i * CHUNK_BYTES, sizeof chunk);
        if (shard_put_chunk(l, id, span_of(chunk, sizeof chunk), NULL, &places[i]) == 0)
            continue;
        shard_drop_chunks(l->shard, places, (uint16_t)i);
        free(places);
        return NULL;
    }
    return places;
}

static void send_one(void)
{
    if (mail_count == MESSAGES)
        return;
    struct mail *m = &mails[mail_count];
    struct msg_id id = id_make(1, 1, ++mail_count);
    struct lane *l = lane_of(&a, rng_below(&dice, 4) == 0 ? 1 : 0);
    unsigned rcpts = 1 + (unsigned)rng_below(&dice, RCPTS);
    m->chunks = rng_below(&dice, 6) == 0 ? 1 + (uint32_t)rng_below(&dice, 4) : 0;
    m->body = rng_below(&dice, 12) == 0 ? 200 << 10 : 100 + (uint32_t)rng_below(&dice, 3000);
    if (m->chunks > 0)
        m->body = m->chunks * CHUNK_BYTES;
    struct record_place *places = m->chunks > 0 ? put_chunks(l, id, m->chunks) : NULL;
    if (m->chunks > 0 && places == NULL)
        return;
    m->content = content_create(m->body);
    m->content->rest_bytes = m->chunks > 0 ? 0 : m->body;
    fill_body(m->content->rest, id.lo, 0, m->content->rest_bytes);
    put_envelope(m, id, rcpts, places);
    m->enqueue = (struct enqueue){.on_done = on_enqueued,
                                  .lane = l,
                                  .content = m->content,
                                  .chunks = places,
                                  .chunk_count = (uint16_t)m->chunks,
                                  .rcpt_count = (uint16_t)rcpts};
    if (shard_enqueue(a.shard, &m->enqueue) == 0)
        return;
    shard_drop_chunks(a.shard, places, (uint16_t)m->chunks);
    free(places);
    content_unref(&m->content);
}

/* --- outcomes --- */

static void take(struct queue *q, struct qentry *e)
{
    struct flow *f = flow_at(q, e->flow);
    uint32_t flow = e->flow;
    flow_take(q, f, e);
    entry_set_state(q, e, ENTRY_IN_FLIGHT);
    e->flow = flow;
    f->in_flight++;
}

static void outcome(struct queue *q, struct qentry *e)
{
    struct fate_facts f = {.reason = REASON_DELIVERED, .status = {2, 0, 0}};
    struct fate_set one = {.entries = &e, .count = 1};
    flow_at(q, e->flow)->in_flight--;
    f.reply = span_str("reply of the peer");
    switch (rng_below(&dice, 4)) {
    case 0:
        f.reason = REASON_REMOTE_TEMP;
        f.status.class_ = 4;
        fates_apply(q, &one, VERDICT_TEMP, &f, NULL);
        return;
    case 1:
        f.reason = REASON_REMOTE_PERM;
        f.status.class_ = 5;
        fates_apply(q, &one, VERDICT_PERM, &f, NULL);
        return;
    default:
        fates_apply(q, &one, VERDICT_OK, &f, NULL);
    }
}

static struct qentry *any_entry(struct queue *q)
{
    uint32_t end = store_entry_end(&q->store);
    if (end <= 1)
        return NULL;
    uint32_t from = (uint32_t)rng_below(&dice, end - 1);
    for (uint32_t k = 0; k < end - 1; k++) {
        struct qentry *e = store_peek(&q->store, 1 + (from + k) % (end - 1));
        if (e != NULL && role_may_end(q, e))
            return e;
    }
    return NULL;
}

static void attempt(void)
{
    struct queue *q = a.queue;
    struct qentry *e = any_entry(q);
    if (e == NULL)
        return;
    if (e->state == ENTRY_READY && entry_lane(q, e)->role == LANE_OWNER)
        take(q, e);
    else if (e->state == ENTRY_IN_FLIGHT)
        outcome(q, e);
}

static void delete_one(void)
{
    struct qentry *e = any_entry(a.queue);
    struct fate_facts f = {.reason = REASON_DELETED};
    if (e != NULL && e->state != ENTRY_IN_FLIGHT)
        fates_end(a.queue, e, FATE_DELETED, &f);
}

/* Holds one message, or none. */
static void hold_one(void)
{
    struct qentry *e = any_entry(a.queue);
    struct control_hold h = {.kind = "message"};
    if (e != NULL)
        id_format(store_msg(&a.queue->store, e->msg)->id, h.value);
    queue_set_holds(a.queue, &h, e != NULL && rng_below(&dice, 2) == 0 ? 1 : 0);
}

/* --- what must be true --- */

static uint32_t count_here(struct node *n, unsigned lane)
{
    uint32_t count = 0;
    for (uint32_t i = 1; i < store_entry_end(&n->queue->store); i++) {
        const struct qentry *e = store_peek(&n->queue->store, i);
        if (e != NULL && store_msg(&n->queue->store, e->msg)->lane == lane_of(n, lane)->index)
            count++;
    }
    return count;
}

struct check_read {
    struct spool_read read;
    uint64_t number, from;
    size_t bytes;
    bool done;
};

static void on_check_read(struct spool_read *read, int res, const struct record_view *v)
{
    struct check_read *c = (struct check_read *)read;
    assert_int_equal(res, 0);
    assert_int_equal(v->rest.n, c->bytes);
    for (size_t i = 0; i < v->rest.n; i++)
        if (v->rest.p[i] != body_byte(c->number, c->from + i))
            fail_msg("message %u: byte %u of its body differs", (unsigned)c->number, (unsigned)i);
    c->done = true;
}

static void check_record(const struct record_place *at, uint64_t number, uint64_t from,
                         size_t bytes)
{
    struct check_read c = {
        .read.on_read = on_check_read, .number = number, .from = from, .bytes = bytes};
    assert_int_equal(spool_read(b.shard->spool, &c.read, at), 0);
    sim_disk_run();
    assert_true(c.done);
}

static void check_body(const struct qmsg *m)
{
    const struct mail *sent = &mails[m->id.lo - 1];
    const struct record_place *c;
    uint16_t n = shard_chunks(b.queue, m, &c);
    struct record_place at = msg_place(m);
    assert_int_equal(n, sent->chunks);
    for (uint16_t i = 0; i < n; i++)
        check_record(&c[i], m->id.lo, (uint64_t)i * CHUNK_BYTES, CHUNK_BYTES);
    check_record(&at, m->id.lo, 0, n > 0 ? 0 : sent->body);
}

static void check_entry(const struct qentry *x, const struct qmsg *there)
{
    const struct qentry *y = store_find_entry(&b.queue->store, there, x->index);
    if (y == NULL)
        fail_msg("message %u recipient %u is not at the replica", (unsigned)there->id.lo, x->index);
    assert_int_equal(y->state, x->tail ? ENTRY_TAIL : ENTRY_REPLICA);
    assert_int_equal(y->attempts, x->attempts);
    enum rcpt_state s = role_written_state(x);
    if (!x->tail)
        assert_int_equal(role_written_state(y), s);
    if (x->state == ENTRY_WAITING)
        assert_int_equal(y->due_s, x->due_s);
}

/* All of the owner's are there; who else is? */
static void check_no_more(uint32_t entries)
{
    uint32_t count = 0;
    for (uint32_t i = 1; i < store_entry_end(&b.queue->store); i++) {
        const struct qentry *e = store_peek(&b.queue->store, i);
        const struct qmsg *m = e == NULL ? NULL : store_msg(&b.queue->store, e->msg);
        if (m == NULL || m->lane != lane_of(&b, 0)->index)
            continue;
        count++;
        const struct qmsg *here = store_find(&a.queue->store, m->id);
        if (here == NULL || store_find_entry(&a.queue->store, here, e->index) == NULL)
            fail_msg("message %u recipient %u is at the replica only, state %s",
                     (unsigned)m->id.lo, e->index, entry_state_word((enum entry_state)e->state));
    }
    assert_int_equal(count, entries);
}

static void check_same(void)
{
    uint32_t entries = 0;
    for (uint32_t i = 1; i < store_entry_end(&a.queue->store); i++) {
        const struct qentry *e = store_peek(&a.queue->store, i);
        if (e == NULL)
            continue;
        const struct qmsg *m = store_msg(&a.queue->store, e->msg);
        if (m->lane != lane_of(&a, 0)->index || (m->flags & MSG_LATE))
            continue;
        entries++;
        const struct qmsg *there = store_find(&b.queue->store, m->id);
        if (there == NULL)
            fail_msg("message %u is not at the replica", (unsigned)m->id.lo);
        assert_int_equal(there->live, m->live);
        assert_int_equal(there->expires_s, m->expires_s);
        assert_int_equal(there->flags & (MSG_NULL_SENDER | 15), m->flags & (MSG_NULL_SENDER | 15));
        check_entry(e, there);
        if (m->first == i)
            check_body(there);
    }
    check_no_more(entries);
    assert_int_equal(count_here(&b, 1), 0);
}

/* --- the runs --- */

static void crash(struct node *n)
{
    bool heard = rng_below(&dice, 2) == 0;
    bool was_up = a.carrier.up;
    if (heard && was_up)
        link_down();
    carrier_lose(&a.carrier);
    carrier_lose(&b.carrier);
    enum lane_role role = n == &a ? lane_of(&a, 0)->role : LANE_REPLICA;
    sim_disk_crash_one(n->path);
    node_stop(n);
    if (n == &a)
        for (uint32_t i = 0; i < mail_count; i++)
            content_unref(&mails[i].content);
    node_start(n, role);
    if (n == &a)
        order_copy();
    if (heard && was_up)
        link_up();
}

static void step(void)
{
    switch (rng_below(&dice, 16)) {
    case 0:
    case 1:
        send_one();
        return;
    case 2:
    case 3:
    case 4:
        attempt();
        return;
    case 5:
        if (rng_below(&dice, 4) == 0)
            delete_one();
        else if (rng_below(&dice, 4) == 0)
            hold_one();
        return;
    case 6:
    case 7:
    case 8:
        sim_disk_step();
        return;
    case 9:
    case 10:
        carry(&a.carrier);
        return;
    case 11:
        carry(&b.carrier);
        return;
    default:
        turn_both();
    }
}

static void mishap(void)
{
    switch (rng_below(&dice, 6)) {
    case 0:
        crash(&a);
        return;
    case 1:
        crash(&b);
        return;
    case 2:
        if (a.carrier.up)
            link_down();
        return;
    case 3:
        if (a.carrier.up) { /* the peer's link began anew */
            carrier_lose(&a.carrier);
            carrier_lose(&b.carrier);
        }
        link_up();
        return;
    case 4:
        now_ms += 3000;
        sim_clock_advance(a.io, 3000);
        sim_clock_advance(b.io, 3000);
        return;
    default:
        if (!a.carrier.up)
            link_up();
    }
}

static void make_nodes(uint64_t seed)
{
    rng_seed(&dice, seed);
    rng_seed(&queue_rng, seed + 1000);
    sim_disk_init(seed);
    mail_count = 0;
    memset(mails, 0, sizeof mails);
    now_ms = 1;
    a = (struct node){.name = "a", .path = "spool-a", .peer = &b, .stats = a.stats};
    b = (struct node){.name = "b", .path = "spool-b", .peer = &a, .stats = b.stats};
    a.carrier = (struct carrier){.to = &b, .tail = &a.carrier.head};
    b.carrier = (struct carrier){.to = &a, .tail = &b.carrier.head};
    node_start(&a, LANE_OWNER);
    node_start(&b, LANE_AWAY);
    set_role(&b, LANE_REPLICA);
}

static void unmake_nodes(void)
{
    carrier_lose(&a.carrier);
    carrier_lose(&b.carrier);
    settle(5);
    carrier_lose(&a.carrier);
    carrier_lose(&b.carrier);
    node_stop(&a);
    node_stop(&b);
    for (uint32_t i = 0; i < mail_count; i++)
        content_unref(&mails[i].content);
    sim_disk_fini();
}

/* What is in flight comes to its end or, as a tail, stays open. */
static void finish_attempts(void)
{
    struct queue *q = a.queue;
    for (uint32_t i = 1; i < store_entry_end(&q->store); i++) {
        struct qentry *e = store_peek(&q->store, i);
        if (e == NULL || e->state != ENTRY_IN_FLIGHT)
            continue;
        if (entry_lane(q, e) == lane_of(&a, 0) && rng_below(&dice, 3) == 0)
            role_set_tail(lane_of(&a, 0), e, true);
        else
            outcome(q, e);
    }
}

/* Seconds of the clock, so that what is tried again is. */
static void until_ready(void)
{
    for (int i = 0; i < 20000 && !b.ready; i++)
        settle(1);
    if (!b.ready)
        fail_msg("the copy does not come to its end");
}

static void run(uint64_t seed)
{
    make_nodes(seed);
    for (unsigned i = 0; i < STEPS / 5; i++)
        step(); /* there is something before the copy begins */
    order_copy();
    link_up();
    bool calm = rng_below(&dice, 3) == 0;
    for (unsigned i = 0; i < STEPS; i++) {
        step();
        if (!calm && rng_below(&dice, 60) == 0)
            mishap();
    }
    if (!a.carrier.up)
        link_up();
    finish_attempts();
    set_role(&a, LANE_FROZEN);
    if (rng_below(&dice, 4) == 0)
        crash(&b);
    until_ready();
    check_same();
    settle(20);
    assert_true(source_report(a.source, lane_of(&a, 0)->number));
    assert_int_equal(last_left, 0);
    unmake_nodes();
}

static void test_copies(void **state)
{
    (void)state;
    const char *env = getenv("COPY_SEEDS"), *from = getenv("COPY_FROM");
    uint64_t seeds = env != NULL ? strtoull(env, NULL, 10) : SEEDS;
    for (uint64_t seed = from != NULL ? strtoull(from, NULL, 10) : 1; seeds-- > 0; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed);
    }
    assert_true(seen_sent > 0);
    assert_int_equal(seen_failed, 0);
}

/* A message that cannot be read stops the copy and is named; ordered again, it goes on. */
static void test_unreadable(void **state)
{
    (void)state;
    make_nodes(5);
    for (int i = 0; i < 30; i++) {
        send_one();
        settle(1);
    }
    seen_failed = 0;
    order_copy();
    link_up();
    sim_disk_fault_read(1);
    settle(300);
    assert_int_equal(seen_failed, 1);
    assert_non_null(strstr(last_why, "mochila delete "));
    sim_disk_heal();
    order_copy();
    set_role(&a, LANE_FROZEN);
    until_ready();
    check_same();
    assert_int_equal(seen_failed, 1);
    unmake_nodes();
}

/* The replica's index is full: the copy stops, says why, and goes on when it is ordered again. */
static void test_no_room(void **state)
{
    (void)state;
    make_nodes(6);
    for (int i = 0; i < 30; i++) {
        send_one();
        settle(1);
    }
    uint32_t most = b.queue->store.entries.count_max;
    b.queue->store.entries.count_max = 5;
    seen_failed = 0;
    order_copy();
    link_up();
    settle(300);
    assert_int_equal(seen_failed, 1);
    assert_non_null(strstr(last_why, "no room for it"));
    b.queue->store.entries.count_max = most;
    order_copy();
    set_role(&a, LANE_FROZEN);
    until_ready();
    check_same();
    assert_int_equal(seen_failed, 1);
    unmake_nodes();
}

static int setup(void **state)
{
    (void)state;
    (void)simulated;
    config = good(yaml);
    a.stats = calloc(1, sizeof *a.stats);
    b.stats = calloc(1, sizeof *b.stats);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(a.stats);
    free(b.stats);
    config_free(&config);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
