/*
 * cluster_support - several nodes in one process: each with a queue, a shard on the simulated disk,
 * clocks, and a carrier of a network that the test owns. Includes the fake of worker/carrier.h.
 *
 * A node's crash is a kill: what was handed to the disk is done, what was in memory is gone. Loss
 * of power is sim_disk_crash, and meets all nodes at once.
 */
#ifndef TESTS_UNIT_CLUSTER_SUPPORT_H
#define TESTS_UNIT_CLUSTER_SUPPORT_H

#include "tests/sim/sim_conn.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/config_support.h"
#include "worker/carrier.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/role.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"

#include <errno.h>

enum { CNODES_MAX = 4 };

struct carrier {
    struct carrier_events events;
    void *ctx;
    struct cnode *node;
};
struct cnode {
    char name[LIMIT_NAME_BYTES + 1];
    unsigned number;
    bool alive;
    struct config *config;
    struct io *io;
    struct wheel wheel;
    struct stats_page *stats;
    struct events *events;
    struct rng rng;
    struct queue queue;
    struct shard *shard;
    struct carrier *carrier;
};
struct cmessage {
    struct cmessage *next;
    unsigned from, to;
    size_t bytes;
    uint8_t payload[];
};

static struct cnode cnodes[CNODES_MAX];
static unsigned cnode_count;
static struct cmessage *cnet, **cnet_tail = &cnet; /* all under way, in order */
static size_t cnet_bytes;
static bool cnet_linked[CNODES_MAX][CNODES_MAX];
static struct cnode *cnode_making; /* whose carrier is created */
static uint64_t cnode_now_ms;

/* Named here, so that the linker takes the simulated side before it meets the real one. */
typedef void any_function(void);
static any_function *const volatile cnode_simulated[] = {
    (any_function *)disk_open, (any_function *)conn_connect, (any_function *)listener_start};

/* --- the carrier --- */

int carrier_create(struct carrier **out, struct io *io, const struct carrier_events *ev, void *ctx)
{
    (void)io;
    struct carrier *c = calloc(1, sizeof *c);
    assert_non_null(c);
    *c = (struct carrier){*ev, ctx, cnode_making};
    cnode_making->carrier = c;
    *out = c;
    return 0;
}

void carrier_destroy(struct carrier **c)
{
    if (*c != NULL)
        (*c)->node->carrier = NULL;
    free(*c);
    *c = NULL;
}

void carrier_attach(struct carrier *c, int fd)
{
    (void)c;
    (void)fd;
}

static inline struct cnode *cnode_named(const char *name)
{
    for (unsigned i = 0; i < cnode_count; i++)
        if (strcmp(cnodes[i].name, name) == 0)
            return &cnodes[i];
    return NULL;
}

bool carrier_is_up(const struct carrier *c, const char *node)
{
    const struct cnode *n = cnode_named(node);
    return n != NULL && cnet_linked[c->node->number][n->number];
}

int carrier_send_parts(struct carrier *c, const char *node, uint32_t slot, const struct span *parts,
                       unsigned count)
{
    size_t bytes = 0, at = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += parts[i].n;
    if (!carrier_is_up(c, node))
        return -ENOTCONN;
    if (bytes > LIMIT_CARRIER_PAYLOAD_BYTES)
        return -E2BIG;
    if (cnet_bytes > CARRIER_WAITING_BYTES)
        return -EAGAIN;
    if (slot != 0)
        return 0; /* nobody has this slot */
    struct cmessage *m = calloc(1, sizeof *m + bytes);
    assert_non_null(m);
    const struct cnode *to = cnode_named(node);
    MUST(to != NULL);
    m->from = c->node->number;
    m->to = to->number;
    m->bytes = bytes;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].n > 0)
            memcpy(m->payload + at, parts[i].p, parts[i].n);
        at += parts[i].n;
    }
    *cnet_tail = m;
    cnet_tail = &m->next;
    cnet_bytes += bytes;
    return 0;
}

int carrier_send(struct carrier *c, const char *node, uint32_t slot, struct span payload)
{
    return carrier_send_parts(c, node, slot, &payload, 1);
}

void carrier_flush(struct carrier *c)
{
    (void)c;
}

/* --- the network --- */

static inline void cnet_unlink(struct cmessage **at)
{
    struct cmessage *m = *at;
    *at = m->next;
    if (cnet_tail == &m->next)
        cnet_tail = at;
    cnet_bytes -= m->bytes;
}

/* The oldest message of one direction, drawn by dice; nobody hears it when its node is dead. */
static inline bool cnet_step(struct rng *dice)
{
    if (cnet == NULL)
        return false;
    unsigned skip = (unsigned)rng_below(dice, 4);
    struct cmessage *first = cnet;
    while (skip-- > 0 && first->next != NULL)
        first = first->next;
    struct cmessage **at = &cnet;
    while ((*at)->from != first->from || (*at)->to != first->to)
        at = &(*at)->next;
    struct cmessage *m = *at;
    cnet_unlink(at);
    struct carrier *to = cnodes[m->to].carrier;
    if (to != NULL && cnodes[m->to].alive)
        to->events.on_frame(to->ctx, cnodes[m->from].name, 0, span_of(m->payload, m->bytes));
    free(m);
    return true;
}

static inline void cnet_lose(unsigned a, unsigned b)
{
    for (struct cmessage **at = &cnet; *at != NULL;) {
        struct cmessage *m = *at;
        bool its = (m->from == a && m->to == b) || (m->from == b && m->to == a);
        if (!its) {
            at = &m->next;
            continue;
        }
        cnet_unlink(at);
        free(m);
    }
}

static inline void cnet_tell(unsigned who, unsigned of, bool up)
{
    struct carrier *c = cnodes[who].carrier;
    if (c == NULL || !cnodes[who].alive)
        return;
    if (up)
        c->events.on_up(c->ctx, cnodes[of].name);
    else
        c->events.on_down(c->ctx, cnodes[of].name);
}

static inline void cnet_link(unsigned a, unsigned b, bool up)
{
    if (a == b || cnet_linked[a][b] == up)
        return;
    cnet_lose(a, b);
    cnet_linked[a][b] = cnet_linked[b][a] = up;
    cnet_tell(a, b, up);
    cnet_tell(b, a, up);
}

/* --- nodes --- */

static inline void cnode_add(const char *yaml)
{
    for (unsigned i = 0; i < sizeof cnode_simulated / sizeof *cnode_simulated; i++)
        assert_non_null(cnode_simulated[i]);
    struct cnode *n = &cnodes[cnode_count];
    memset(n, 0, sizeof *n);
    n->number = cnode_count++;
    n->config = good(yaml);
    n->stats = calloc(1, sizeof *n->stats);
    assert_non_null(n->stats);
    snprintf(n->name, sizeof n->name, "%s", n->config->node);
    rng_seed(&n->rng, n->number + 77);
}

/* Starts with these lanes, all of one shard. */
static inline void cnode_start(struct cnode *n, const struct control_lane *lanes, uint32_t count)
{
    struct io_settings set = {.conn_count_max = 16, .recv_buffer_count = 64};
    char dir[64];
    assert_int_equal(io_create(&n->io, &set), 0);
    assert_int_equal(io_enable(n->io), 0);
    sim_clock_advance(n->io, cnode_now_ms);
    wheel_init(&n->wheel, io_now_ns(n->io) / 1000000);
    memset(n->stats, 0, sizeof *n->stats);
    assert_int_equal(events_create(&n->events, -1), 0);
    struct queue_env env = {.config = n->config,
                            .io = n->io,
                            .wheel = &n->wheel,
                            .stats = n->stats,
                            .events = n->events,
                            .rng = &n->rng};
    assert_int_equal(queue_init(&n->queue, &env), 0);
    assert_int_equal(route_set_lanes(&n->queue, lanes, count, 0), 0);
    snprintf(dir, sizeof dir, "%s-shard-0", n->name);
    assert_int_equal(shard_open(&n->shard, &n->queue, dir, 0), 0);
    n->alive = true;
    cnode_making = n;
}

/* Its memory goes; the caller has destroyed what it built upon the queue. Nothing of the disk may
   be under way, or it is dead. */
static inline void cnode_stop(struct cnode *n)
{
    n->alive = false;
    shard_close(&n->shard);
    n->queue.shard_count = 0;
    for (uint32_t i = 1; i < store_entry_end(&n->queue.store); i++) {
        struct qentry *e = store_peek(&n->queue.store, i);
        if (e != NULL)
            shard_uncache(&n->queue, store_msg(&n->queue.store, e->msg));
    }
    queue_fini(&n->queue);
    events_destroy(&n->events);
    io_destroy(&n->io);
}

static inline void cnodes_free(void)
{
    for (unsigned i = 0; i < cnode_count; i++) {
        free(cnodes[i].stats);
        config_free(&cnodes[i].config);
        for (unsigned k = 0; k < cnode_count; k++)
            cnet_linked[i][k] = false;
    }
    cnode_count = 0;
}

/* One turn of the loop but for what is built upon the queue: `rest` does that. */
static inline void cnode_turn(struct cnode *n, void (*rest)(struct cnode *n))
{
    if (!n->alive)
        return;
    io_turn(n->io, 0);
    wheel_advance(&n->wheel, io_now_ns(n->io) / 1000000);
    queue_turn(&n->queue);
    rest(n);
    shard_turn(n->shard);
}

static inline void cnodes_pass_ms(uint64_t ms)
{
    cnode_now_ms += ms;
    for (unsigned i = 0; i < cnode_count; i++)
        if (cnodes[i].alive)
            sim_clock_advance(cnodes[i].io, ms);
}

#endif
