/*
 * lane_support - a queue for tests of worker/lane: configuration from a text, a simulated ring and
 * clock, no log, no deliveries.
 */
#ifndef TESTS_UNIT_LANE_SUPPORT_H
#define TESTS_UNIT_LANE_SUPPORT_H

#include "tests/sim/sim_conn.h"
#include "tests/unit/config_support.h"
#include "worker/lane/flow.h"
#include "worker/lane/route.h"
#include "worker/lane/site.h"

static struct queue queue;
static struct config *lane_config;
static struct io *lane_io;
static struct wheel lane_wheel;
static struct stats_page lane_stats;
static struct events *lane_events;
static struct rng lane_rng;
static uint64_t lane_next_id;

/* Lane i of the configuration gets number i + 1 and belongs to this worker's shard. */
static inline void lanes_make(struct shard *shard)
{
    struct control_lane *lanes = calloc(lane_config->lane_count, sizeof *lanes);
    assert_non_null(lanes);
    for (uint32_t i = 0; i < lane_config->lane_count; i++)
        lanes[i] = (struct control_lane){
            .lane = i + 1, .epoch = 1, .address = lane_config->lanes[i].address};
    assert_int_equal(route_set_lanes(&queue, lanes, lane_config->lane_count, 0), 0);
    for (uint32_t i = 0; i < queue.lane_count; i++)
        queue.lanes[i].shard = shard;
    free(lanes);
}

/* The queue is paused: flows are asked, never run. */
static inline void queue_make(const char *yaml)
{
    lane_config = good(yaml);
    const struct io_settings s = {.conn_count_max = 64, .recv_buffer_count = 64};
    assert_int_equal(io_create(&lane_io, &s), 0);
    assert_int_equal(io_enable(lane_io), 0);
    wheel_init(&lane_wheel, io_now_ns(lane_io) / 1000000);
    rng_seed(&lane_rng, 1);
    assert_int_equal(events_create(&lane_events, -1), 0);
    memset(&lane_stats, 0, sizeof lane_stats);
    const struct queue_env env = {.config = lane_config,
                                  .io = lane_io,
                                  .wheel = &lane_wheel,
                                  .stats = &lane_stats,
                                  .events = lane_events,
                                  .rng = &lane_rng};
    assert_int_equal(queue_init(&queue, &env), 0);
    queue.paused = true;
    lane_next_id = 0;
}

static inline void queue_unmake(void)
{
    queue_fini(&queue);
    events_destroy(&lane_events);
    io_destroy(&lane_io);
    config_free(&lane_config);
}

/* Both clocks and the wheel. */
static inline void pass_ms(uint64_t ms)
{
    sim_clock_advance(lane_io, ms);
    wheel_advance(&lane_wheel, io_now_ns(lane_io) / 1000000);
}

static inline struct qmsg *message_make(uint16_t tenant, enum tenant_class class_)
{
    struct qmsg *m = store_add(&queue.store, (struct msg_id){1, ++lane_next_id});
    assert_non_null(m);
    m->tenant = tenant;
    m->class_ = (uint8_t)class_;
    m->received_s = queue_now_unix_s(&queue);
    m->expires_s = m->received_s + 86400;
    return m;
}

static inline struct qentry *entry_make(struct qmsg *m, uint16_t index, uint32_t domain)
{
    struct qentry *e = store_add_entry(&queue.store, m, index);
    assert_non_null(e);
    e->domain = domain;
    domain_at(&queue, domain)->entries++;
    queue.lanes[m->lane].queued++;
    queue.tenants[m->tenant].queued++;
    return e;
}

static inline uint32_t site_make(const char *host)
{
    struct site_host h = {.preference = 10};
    snprintf(h.name, sizeof h.name, "%s", host);
    uint32_t i = site_intern(&queue, &h, 1, NULL);
    assert_true(i != 0);
    return i;
}

/* An entry of this tenant, ready in the flow. */
static inline struct qentry *ready_make(struct flow *f, uint16_t tenant, enum tenant_class class_)
{
    uint32_t domain = domain_intern(&queue, span_str("dest.test"));
    struct qentry *e = entry_make(message_make(tenant, class_), 0, domain);
    assert_int_equal(flow_push(&queue, f, e, false), 0);
    entry_set_state(&queue, e, ENTRY_READY);
    return e;
}

#endif
