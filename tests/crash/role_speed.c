/*
 * What a change of role costs when its lane holds many entries: the longest turn of the worker,
 * with the disk's own work left out. Measures only: make role-speed ROLE_ENTRIES=1000000
 */
#include "tests/unit/cluster_support.h"
#include "worker/lane/role_impl.h"
#include "worker/move/source_impl.h"

#include <time.h>

static const char yaml[] =
    "node: a\n"
    "listen: [{address: 0.0.0.0, port: 25}]\n"
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: a.example.net}]}}\n"
    "tenants: {t: {pool: p}}\n"
    "routes: [{domain: '*', via: '192.0.2.1:25'}]\n"
    "dns: {enabled: false}\n"
    "queue: {hold: true, entries_max: 2000000}\n"
    "spool_options: {segment: 64M, reserve: 0, spares: 2}\n";

static struct cnode *node = &cnodes[0];
static uint32_t entries, in_log;
static bool done;
static struct qentry *in_flight;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct lane *lane(void)
{
    return &node->queue.lanes[0];
}

/* Turns until `over`, the longest of them in microseconds of this thread: others work here too. */
static uint64_t turns(bool (*over)(void), unsigned *count)
{
    uint64_t longest = 0;
    for (*count = 0; !over() || *count == 0; (*count)++) {
        cnodes_pass_ms(1);
        io_turn(node->io, 0);
        uint64_t from = now_us();
        queue_turn(&node->queue);
        uint64_t took = now_us() - from;
        longest = took > longest ? took : longest;
        shard_turn(node->shard); /* the simulated disk zeroes segments by hand */
        sim_disk_run();
    }
    return longest;
}

static bool all_in(void)
{
    return in_log == 0;
}

static bool role_done(void)
{
    return done;
}

static bool is_ready(void)
{
    return lane()->ready;
}

static bool at_rest(void)
{
    return done && lane()->sweep == SWEEP_NONE;
}

static void on_enqueued(struct enqueue *x, int res)
{
    struct content *c = x->content;
    if (res != 0)
        fprintf(stderr, "a message was not taken: %s\n", strerror(-res));
    MUST(res == 0);
    content_unref(&c);
    free(x);
    in_log--;
}

static void mail(uint32_t i, bool replica)
{
    uint8_t buf[300];
    struct writer w = writer_of(buf, sizeof buf);
    struct enq e = {.id = id_make(1, replica ? 2 : 1, i + 1),
                    .received_unix_ms = io_now_unix_ms(node->io),
                    .lifetime_s = 864000,
                    .tenant = span_str("t"),
                    .sender = span_str("s@example.org"),
                    .body_bytes = 40,
                    .rcpt_count = 1};
    enq_put(&w, &e);
    enq_put_rcpt(&w, &(struct enq_rcpt){.address = span_str("u@d.example")});
    struct enqueue *x = calloc(1, sizeof *x);
    *x = (struct enqueue){.on_done = on_enqueued,
                          .lane = lane(),
                          .content = content_create(40),
                          .rcpt_count = 1,
                          .replica = replica};
    memset(x->content->rest, 'x', 40);
    x->content->rest_bytes = 40;
    int r = content_set_meta(x->content, span_of(buf, w.n));
    MUST(r == 0);
    r = shard_enqueue(node->shard, x);
    MUST(r == 0);
    in_log++;
}

static void fill(bool replica)
{
    unsigned count;
    for (uint32_t i = 0; i < entries; i++) {
        mail(i, replica);
        if (i % 2000 == 1999)
            (void)turns(all_in, &count);
    }
    (void)turns(all_in, &count);
}

static void on_role(struct role_change *c, int res)
{
    if (res != 0)
        printf("role %d: %s\n", (int)c->role, strerror(-res));
    MUST(res == 0);
    done = true;
}

static void set_role(const char *what, enum lane_role role, uint32_t epoch, bool (*over)(void))
{
    static struct role_change c;
    unsigned count;
    done = false;
    c = (struct role_change){
        .on_done = on_role, .lane = 100, .role = role, .epoch = epoch, .run = true, .node = "b"};
    uint64_t from = now_us();
    role_set(&node->queue, &c);
    uint64_t call = now_us() - from, longest = turns(over, &count);
    printf("%-22s the call %6llu us, %5u turns, the longest %6llu us\n", what,
           (unsigned long long)call, count, (unsigned long long)longest);
}

/* One attempt is open, the worst case: what was in flight is looked for among all. */
static void open_one(void)
{
    struct qentry *e = store_peek(&node->queue.store, store_entry_end(&node->queue.store) - 1);
    struct flow *f = flow_at(&node->queue, e->flow);
    flow_take(&node->queue, f, e);
    entry_set_state(&node->queue, e, ENTRY_IN_FLIGHT);
    role_set_tail(lane(), e, true);
    in_flight = e;
}

/* What END says, put together in one go. */
static void end_of_copy(void)
{
    struct source *source = NULL;
    struct carrier *c;
    cnode_making = node;
    int r = carrier_create(&c, node->io, &(struct carrier_events){0}, NULL);
    MUST(r == 0);
    r = source_create(&source, &(struct source_settings){.queue = &node->queue, .carrier = c});
    MUST(r == 0);
    struct control_lane_order o = {.lane = 100, .epoch = lane()->epoch, .move = 1, .node = "b"};
    r = source_copy(source, &o);
    MUST(r == 0);
    struct source_stream *st = source_stream_of(source, &lane()->address);
    uint64_t from = now_us();
    source_emit_end(st);
    printf("%-22s the call %6llu us\n", "END, an open attempt",
           (unsigned long long)(now_us() - from));
    source_destroy(&source);
    carrier_destroy(&c);
}

static void tails_there(void)
{
    struct tail_item t = {.id = id_make(1, 2, entries / 2)};
    for (int i = 0; i < 2; i++) { /* the second makes the first void */
        uint64_t from = now_us();
        int r = replica_tails(lane(), &t, 1);
        MUST(r == 0);
        printf("%-22s the call %6llu us\n", i == 0 ? "tails" : "tails again",
               (unsigned long long)(now_us() - from));
    }
}

static void node_start(void)
{
    struct control_lane l = {.lane = 100,
                             .epoch = 1,
                             .role = LANE_OWNER,
                             .run = true,
                             .owner_slot = CONTROL_NO_SLOT,
                             .address = node->config->lanes[0].address};
    cnode_start(node, &l, 1);
}

int main(int argc, char **argv)
{
    unsigned count;
    entries = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    setvbuf(stdout, NULL, _IOLBF, 0);
    sim_disk_init(1);
    sim_disk_capacity(16ull << 30);
    cnode_now_ms = 1;
    cnode_add(yaml);
    node_start();
    fill(false);
    open_one();
    set_role("freeze", LANE_FROZEN, 1, role_done);
    end_of_copy();
    set_role("give", LANE_AWAY, 2, at_rest);
    role_set_tail(lane(), in_flight, false); /* its attempt ends */
    entry_set_state(&node->queue, in_flight, ENTRY_NEW);
    entry_end(&node->queue, in_flight);
    set_role("replica", LANE_REPLICA, 2, role_done);
    fill(true);
    tails_there();
    int r = replica_ready(lane(), NULL);
    MUST(r == 0);
    (void)turns(is_ready, &count);
    set_role("own", LANE_OWNER, 3, at_rest);
    tail_done(lane(), id_make(1, 2, entries / 2), 0);
    set_role("freeze, abort", LANE_FROZEN, 3, role_done);
    set_role("own again", LANE_OWNER, 4, at_rest);
    return 0;
}
