/*
 * Two workers' intakes with an exchange, shards and a clock of the test: what is told durable is
 * durable as a whole at every owner, and whatever goes wrong, no chunk is counted as living without
 * a message.
 *
 * Side 0 speaks with clients, side 1 owns the lanes 1 and 3; lane 2 belongs to side 0.
 */
#include "base/rng.h"
#include "worker/intake_impl.h"
#include "worker/lane/queue.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LANES = 3, PLACES = 4096, WAITS = 4096, FRAMES = 4096, SUBMISSIONS = 64, SEEDS = 300 };

struct peer {
    unsigned to; /* the side that gets what is sent */
    bool up;
};
static struct peer peers[2]; /* peers[i]: how the other side is seen from side i */
static struct intake *side[2];
static struct queue queues[2];
static struct lane lanes[2][LANES];
static struct shard shards[2];
static struct stats_page *pages[2];
static struct wheel wheel;
static struct rng dice;
static uint64_t now_ms;
static unsigned busy_percent; /* how often a ring or a spool is full */

/* --- exchange --- */

struct frame {
    unsigned to;
    struct exchange_frame f;
    uint8_t *bytes;
};
static struct frame frames[FRAMES];
static unsigned frame_count;

static bool is_full(void)
{
    return busy_percent > 0 && rng_below(&dice, 100) < busy_percent;
}

int exchange_send(struct peer *p, const struct exchange_frame *f)
{
    bool answer = f->kind == EXCHANGE_ACK || f->kind == EXCHANGE_DROP;
    assert_true(p->up);
    if (!answer && is_full())
        return -ENOBUFS;
    assert_true(frame_count < FRAMES);
    struct frame *x = &frames[frame_count++];
    *x = (struct frame){.to = p->to, .f = *f, .bytes = malloc(f->meta.n + f->rest.n + 1)};
    memcpy(x->bytes, f->meta.p, f->meta.n);
    if (f->rest.n > 0)
        memcpy(x->bytes + f->meta.n, f->rest.p, f->rest.n);
    x->f.meta = span_of(x->bytes, f->meta.n);
    x->f.rest = span_of(x->bytes + f->meta.n, f->rest.n);
    return 0;
}

struct peer *exchange_holder(struct exchange *x, uint32_t slot)
{
    struct peer *p = (struct peer *)(void *)x;
    return p->up && slot == p->to ? p : NULL;
}

static bool carry_one(void)
{
    if (frame_count == 0)
        return false;
    struct frame x = frames[0];
    frame_count--;
    memmove(frames, frames + 1, frame_count * sizeof *frames);
    if (peers[x.to].up)
        intake_on_frame(side[x.to], &peers[x.to], &x.f);
    free(x.bytes);
    return true;
}

/* --- shard --- */

struct place {
    struct msg_id id;
    uint8_t first; /* byte of the chunk */
    uint32_t bytes;
    bool live, owned;
};
static struct place places[PLACES];
static uint32_t place_count;
static struct waiting {
    struct spool_wait *chunk;
    struct enqueue *enqueue;
} waits[WAITS];
static unsigned wait_count;
static int commit_answer; /* what shard_enqueue says at once */
struct stored {
    struct msg_id id;
    uint16_t chunk_count;
    uint64_t bytes;
    unsigned rcpts;
};
static struct stored stored[WAITS];
static unsigned stored_count;

int shard_put_chunk(struct lane *lane, struct msg_id id, struct span chunk,
                    struct spool_wait *wait, struct record_place *place)
{
    assert_non_null(lane->shard);
    if (is_full())
        return -ENOBUFS;
    assert_true(place_count + 1 < PLACES);
    *place = (struct record_place){
        .segment = 1, .offset = 8 * ++place_count, .bytes = (uint32_t)chunk.n};
    places[place_count] =
        (struct place){.id = id, .first = chunk.p[0], .bytes = (uint32_t)chunk.n, .live = true};
    waits[wait_count++] = (struct waiting){.chunk = wait};
    return 0;
}

void shard_drop_chunks(struct shard *s, const struct record_place *p, uint16_t count)
{
    assert_non_null(s);
    for (uint16_t i = 0; i < count; i++) {
        assert_true(places[p[i].offset / 8].live);
        assert_false(places[p[i].offset / 8].owned);
        places[p[i].offset / 8].live = false;
    }
}

int shard_enqueue(struct shard *s, struct enqueue *x)
{
    if (commit_answer != 0)
        return commit_answer;
    if (is_full())
        return -ENOBUFS;
    x->shard = s;
    content_ref(x->content);
    waits[wait_count++] = (struct waiting){.enqueue = x};
    return 0;
}

static void commit_now(struct enqueue *x, int res)
{
    struct enq e;
    struct content *c = x->content;
    assert_int_equal(enq_read(span_of(c->meta, c->meta_bytes), &e), 0);
    if (res == 0) {
        struct stored *m = &stored[stored_count++];
        *m = (struct stored){.id = e.id, .chunk_count = e.chunk_count, .rcpts = e.rcpt_count};
        assert_int_equal(e.chunk_count, x->chunk_count);
        m->bytes = c->rest_bytes;
        for (uint16_t i = 0; i < x->chunk_count; i++) {
            const struct place *p = &places[x->chunks[i].offset / 8];
            assert_true(p->live);
            assert_true(id_eq(p->id, e.id));
            assert_int_equal(p->first, 'a' + i); /* in order, none missing */
            places[x->chunks[i].offset / 8].owned = true;
            m->bytes += p->bytes;
        }
        assert_int_equal(m->bytes, e.trace_bytes + e.body_bytes);
        free(x->chunks);
    } else if (x->chunk_count > 0) {
        shard_drop_chunks(x->shard, x->chunks, x->chunk_count);
        free(x->chunks);
    }
    x->on_done(x, res);
    content_unref(&c);
}

static bool commit_one(int res)
{
    if (wait_count == 0)
        return false;
    struct waiting w = waits[0];
    wait_count--;
    memmove(waits, waits + 1, wait_count * sizeof *waits);
    if (w.chunk != NULL)
        w.chunk->on_durable(w.chunk, res);
    else
        commit_now(w.enqueue, res);
    return true;
}

uint64_t queue_now_ms(const struct queue *q)
{
    (void)q;
    return now_ms;
}

struct lane *lane_by_number(struct queue *q, uint32_t number)
{
    return number >= 1 && number <= LANES ? &lanes[q == &queues[1]][number - 1] : NULL;
}

/* --- clients --- */

struct client {
    struct submission s;
    struct submission_rcpt rcpts[4];
    struct content *content;
    uint8_t chunk[100];
    unsigned chunks_left, chunks_given;
    bool busy, done, closed, chunked;
    int res;
};
static struct client clients[SUBMISSIONS];
static unsigned client_count;

static void on_done(struct submission *s, int res)
{
    struct client *c = (struct client *)(void *)s;
    assert_false(c->done);
    c->busy = false;
    c->done = true;
    c->res = res;
}

static void on_chunk(struct submission *s, int res)
{
    struct client *c = (struct client *)(void *)s;
    c->busy = false;
    memset(c->chunk, '!', sizeof c->chunk); /* the memory is the caller's again */
    if (res != 0) {
        c->done = true;
        c->res = res;
    }
}

static void close_client(struct client *c)
{
    if (c->closed)
        return;
    submission_close(&c->s);
    content_unref(&c->content);
    memset(&c->s, 0xee, sizeof c->s);
    c->closed = true;
}

static struct client *client(unsigned first_lane, unsigned rcpts, unsigned chunks)
{
    struct client *c = &clients[client_count++];
    memset(c, 0, sizeof *c);
    c->chunks_left = chunks;
    c->chunked = chunks > 0;
    c->content = content_create(64);
    memcpy(c->content->rest, "tracebody", 9);
    c->content->rest_bytes = chunks > 0 ? 5 : 9;
    for (unsigned i = 0; i < rcpts; i++)
        c->rcpts[i] = (struct submission_rcpt){.address = span_str("u@example.org"),
                                               .lane = &lanes[0][(first_lane + i) % LANES],
                                               .index = (uint16_t)i};
    c->s = (struct submission){.on_done = on_done, .on_chunk = on_chunk, .rcpts = c->rcpts,
                               .rcpt_count = rcpts, .content = c->content};
    c->s.enq = (struct enq){.id = intake_id(side[0]),
                            .tenant = span_str("t"),
                            .helo = span_str("h"),
                            .sender = span_str("s@example.org"),
                            .trace_bytes = 5};
    assert_int_equal(submission_open(side[0], &c->s), 0);
    return c;
}

static void go_on(struct client *c)
{
    if (c->busy || c->done || c->closed)
        return;
    c->busy = true;
    if (c->chunks_left == 0) {
        c->s.enq.body_bytes = c->chunked ? c->chunks_given * sizeof c->chunk : 4;
        submission_commit(&c->s);
        return;
    }
    memset(c->chunk, 'a' + (int)c->chunks_given, sizeof c->chunk);
    c->chunks_left--;
    c->chunks_given++;
    submission_chunk(&c->s, span_of(c->chunk, sizeof c->chunk));
}

/* --- the stage --- */

static void begin(uint64_t seed)
{
    rng_seed(&dice, seed);
    now_ms = 1000;
    busy_percent = 0;
    commit_answer = 0;
    frame_count = wait_count = stored_count = client_count = 0;
    place_count = 0;
    wheel_init(&wheel, now_ms);
    for (unsigned i = 0; i < 2; i++) {
        peers[i] = (struct peer){.to = 1 - i, .up = true};
        memset(&queues[i], 0, sizeof queues[i]);
        queues[i].env.stats = pages[i];
        for (uint32_t k = 0; k < LANES; k++) {
            unsigned owner = k != 1;
            lanes[i][k] = (struct lane){.number = k + 1, .index = (uint16_t)k, .owner = owner,
                                        .shard = owner == i ? &shards[i] : NULL};
        }
        struct intake_settings set = {.queue = &queues[i],
                                      .wheel = &wheel,
                                      .exchange = (struct exchange *)(void *)&peers[i],
                                      .node_id = 1,
                                      .boot = 1,
                                      .incarnation = i + 1,
                                      .slot = i};
        assert_int_equal(intake_create(&side[i], &set), 0);
    }
}

static void pass(uint64_t ms)
{
    now_ms += ms;
    wheel_advance(&wheel, now_ms);
}

static void settle(void)
{
    busy_percent = 0;
    for (int i = 0; i < 1000; i++) {
        while (carry_one() || commit_one(0))
            ;
        pass(20);
    }
}

static void expect_nothing_left(void)
{
    for (unsigned i = 0; i < client_count; i++)
        close_client(&clients[i]);
    settle();
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(intake_open_count(side[i]), 0);
    for (uint32_t i = 1; i <= place_count; i++)
        if (places[i].live && !places[i].owned)
            fail_msg("chunk %u lives without a message", i);
    assert_int_equal(content_total(), 0);
}

static void end(void)
{
    expect_nothing_left();
    for (unsigned i = 0; i < 2; i++)
        intake_destroy(&side[i]);
}

static void peer_down(void)
{
    peers[0].up = peers[1].up = false;
    intake_on_down(side[0], &peers[0]);
    intake_on_down(side[1], &peers[1]);
    while (frame_count > 0)
        free(frames[--frame_count].bytes);
}

/* --- tests --- */

static void test_all_owners_commit(void **state)
{
    (void)state;
    begin(1);
    struct client *c = client(0, 3, 0);
    go_on(c);
    assert_false(c->done);
    assert_true(commit_one(0)); /* ours */
    assert_false(c->done);
    while (carry_one())
        ;
    assert_int_equal(wait_count, 2);
    commit_one(0);
    while (carry_one())
        ;
    assert_false(c->done);
    commit_one(0);
    while (carry_one())
        ;
    assert_true(c->done);
    assert_int_equal(c->res, 0);
    assert_int_equal(stored_count, 3);
    assert_false(id_eq(stored[0].id, stored[1].id));
    end();
}

static void test_refused_commit_drops_chunks(void **state)
{
    (void)state;
    for (unsigned lane = 0; lane < 2; lane++) {
        begin(1);
        struct client *c = client(lane, 1, 2);
        go_on(c);
        settle();
        go_on(c);
        settle();
        commit_answer = -ENOSPC;
        go_on(c);
        settle();
        assert_true(c->done);
        assert_int_equal(c->res, -ENOSPC);
        assert_int_equal(stored_count, 0);
        end();
    }
}

static void test_failed_commit_drops_chunks(void **state)
{
    (void)state;
    for (unsigned lane = 0; lane < 2; lane++) {
        begin(1);
        struct client *c = client(lane, 1, 1);
        go_on(c);
        settle();
        go_on(c);
        while (carry_one())
            ;
        commit_one(-EIO);
        settle();
        assert_true(c->done);
        assert_int_equal(c->res, -EIO);
        end();
    }
}

/* An owner that is full for a moment, or not ready yet, is asked again: the client does not hear of
   it. */
static void test_owner_says_later(void **state)
{
    (void)state;
    static const int answers[] = {-ENOBUFS, -EAGAIN};
    for (unsigned k = 0; k < 4; k++) {
        begin(1);
        struct client *c = client(0, 1, k / 2);
        if (k / 2 > 0) {
            go_on(c);
            settle();
        }
        if (answers[k % 2] == -ENOBUFS)
            commit_answer = -ENOBUFS;
        else
            lanes[1][0].shard = NULL;
        go_on(c);
        for (int i = 0; i < 20; i++) {
            while (carry_one())
                ;
            pass(20);
        }
        assert_false(c->done);
        commit_answer = 0;
        lanes[1][0].shard = &shards[1];
        settle();
        assert_true(c->done);
        assert_int_equal(c->res, 0);
        assert_int_equal(stored_count, 1);
        end();
    }
}

static void test_owner_never_ready(void **state)
{
    (void)state;
    begin(1);
    struct client *c = client(0, 1, 0);
    lanes[1][0].shard = NULL;
    go_on(c);
    settle();
    assert_true(c->done);
    assert_int_not_equal(c->res, 0);
    end();
}

/* The first chunk went to the owner before; then the lane is ours. What is committed must be
   whole. */
static void test_lane_comes_home_between_chunks(void **state)
{
    (void)state;
    begin(1);
    struct client *c = client(0, 1, 2);
    go_on(c);
    settle();
    assert_false(c->done);
    peer_down();
    lanes[0][0].shard = &shards[0];
    go_on(c);
    settle();
    if (!c->done) {
        go_on(c);
        settle();
    }
    assert_true(c->done);
    assert_int_not_equal(c->res, 0);
    assert_int_equal(stored_count, 0);
    end();
}

static void test_client_leaves(void **state)
{
    (void)state;
    for (unsigned when = 0; when < 4; when++) {
        begin(1);
        struct client *c = client(0, 2, 2); /* one part there, one here */
        go_on(c);
        if (when > 0)
            carry_one();
        if (when > 1)
            commit_one(0);
        if (when > 2)
            settle();
        close_client(c);
        settle();
        assert_int_equal(stored_count, 0);
        end();
    }
}

static void test_owner_dies(void **state)
{
    (void)state;
    for (unsigned when = 0; when < 3; when++) {
        begin(1);
        struct client *c = client(0, 2, 1);
        go_on(c);
        settle();
        go_on(c);
        if (when > 0)
            carry_one();
        if (when > 1)
            settle();
        peer_down();
        settle();
        assert_true(c->done);
        assert_int_equal(c->res, when > 1 ? 0 : -ECONNRESET);
        end();
    }
}

static void run(uint64_t seed)
{
    begin(seed);
    busy_percent = (unsigned)rng_below(&dice, 60);
    for (int i = 0; i < 600; i++) {
        uint64_t n = rng_below(&dice, 12);
        struct client *c = client_count > 0 ? &clients[rng_below(&dice, client_count)] : NULL;
        if (n == 0 && client_count < SUBMISSIONS && side[0] != NULL)
            client((unsigned)rng_below(&dice, LANES), 1 + (unsigned)rng_below(&dice, 3),
                   (unsigned)rng_below(&dice, 4));
        else if (n < 5 && c != NULL)
            go_on(c);
        else if (n < 8)
            carry_one();
        else if (n < 10)
            commit_one(rng_below(&dice, 12) == 0 ? -EIO : 0);
        else if (n == 10)
            pass(rng_below(&dice, 50));
        else if (c != NULL && rng_below(&dice, 6) == 0)
            close_client(c);
        if (rng_below(&dice, 400) == 0) {
            peer_down();
            peers[0].up = peers[1].up = rng_below(&dice, 2) == 0;
            intake_on_up(side[0], &peers[0]);
        }
    }
    peers[0].up = peers[1].up = true;
    settle();
    for (unsigned i = 0; i < client_count; i++)
        assert_false(clients[i].busy && !clients[i].closed);
    end();
}

static void test_chance(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        run(seed);
    }
}

static int set_up(void **state)
{
    (void)state;
    pages[0] = calloc(1, sizeof *pages[0]);
    pages[1] = calloc(1, sizeof *pages[1]);
    return pages[0] == NULL || pages[1] == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(pages[0]);
    free(pages[1]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_owners_commit),
        cmocka_unit_test(test_refused_commit_drops_chunks),
        cmocka_unit_test(test_failed_commit_drops_chunks),
        cmocka_unit_test(test_owner_says_later),
        cmocka_unit_test(test_owner_never_ready),
        cmocka_unit_test(test_lane_comes_home_between_chunks),
        cmocka_unit_test(test_client_leaves),
        cmocka_unit_test(test_owner_dies),
        cmocka_unit_test(test_chance),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
