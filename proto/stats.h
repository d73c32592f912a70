/*
 * stats - the counters page of a worker: shared memory, written by one process, read by any.
 *
 * Plain 64-bit loads and stores; a reader may see a page between two additions, never a torn
 * number. The page lives as long as the master does, so counters go on over restarts of the worker;
 * gauges are set anew by each worker.
 */
#ifndef PROTO_STATS_H
#define PROTO_STATS_H

#include "base/id.h"
#include "proto/limits.h"

#define STATS_COUNTERS(X)                                                                          \
    X(accepted_messages) X(accepted_recipients) X(accepted_bytes) X(rejected_recipients)          \
    X(delivered) X(deferred) X(bounced) X(expired) X(deleted) X(handed_over) X(taken_over)         \
    X(attempts) X(in_doubt) X(connections_in) X(connections_out) X(connect_failures)              \
    X(commands) X(command_errors) X(tempfailed) X(exchange_out) X(exchange_in) X(commits)          \
    X(commit_bytes) X(commit_failures) X(dns_lookups) X(dns_failures) X(turns) X(read_backs)       \
    X(cache_hits) X(events_dropped)
#define STATS_GAUGES(X)                                                                            \
    X(queued) X(ready) X(waiting) X(held) X(in_flight) X(bounce_due) X(parked) X(open_in)          \
    X(open_out) X(sessions_data) X(cache_bytes) X(spool_total_bytes) X(spool_live_bytes)           \
    X(spool_free_bytes) X(spool_health) X(body_bytes) X(recovery_ms) X(recovered) X(damaged)       \
    X(sites) X(domains) X(lanes_running)

struct stats_lane {
    uint32_t lane; /* 0 = unused */
    uint32_t state;
    uint64_t delivered, deferred, bounced, attempts, queued, open_out;
    uint64_t bytes; /* of its messages, as they were counted last: within ten seconds */
};
/* What the worker is working on, so that the master can tell which message killed it. */
struct stats_marker {
    struct msg_id id; /* none = nothing in particular */
    uint32_t stage;
    uint32_t pad;
};
struct stats_page {
    uint64_t version;
    uint64_t pid;
    uint64_t generation;
    uint64_t heartbeat_ns;
#define STATS_FIELD(name) uint64_t name;
    STATS_COUNTERS(STATS_FIELD)
    STATS_GAUGES(STATS_FIELD)
    struct stats_marker marker;
    uint64_t
        accept_us[64]; /* histogram: time from end of data to 250, bucket i = below 2^(i/2) us */
    struct stats_lane lanes[LIMIT_LANES];
};
enum { STATS_VERSION = 2 };

#endif
