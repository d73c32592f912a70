/* fields - see fields.h. */
#include "master/api/fields.h"

#include <string.h>

#define COUNTER(n) {.name = #n, .offset = offsetof(struct stats_page, n), .counter = true},
#define GAUGE(n)   {.name = #n, .offset = offsetof(struct stats_page, n)},
static struct stats_field fields[] = {STATS_COUNTERS(COUNTER) STATS_GAUGES(GAUGE)};

static const char *const helps[][2] = {
    {"accepted_messages", "Messages answered with 250 after they were durable."},
    {"accepted_recipients", "Recipients of accepted messages."},
    {"accepted_bytes", "Bytes of accepted messages."},
    {"rejected_recipients", "Recipients refused with 5xx while receiving."},
    {"delivered", "Recipients whose delivery the remote side confirmed."},
    {"deferred", "Attempts that ended with another try later."},
    {"bounced", "Recipients that failed for good."},
    {"expired", "Recipients given up at the end of their lifetime."},
    {"deleted", "Recipients removed by the operator."},
    {"handed_over", "Recipients handed to another node."},
    {"taken_over", "Recipients taken from another node."},
    {"attempts", "Delivery attempts begun."},
    {"in_doubt", "Attempts whose final dot was sent and whose reply was lost."},
    {"connections_in", "SMTP connections accepted."},
    {"connections_out", "SMTP connections established to other hosts."},
    {"connect_failures", "Connections to other hosts that failed."},
    {"commands", "SMTP commands received."},
    {"command_errors", "SMTP commands answered with 5xx."},
    {"tempfailed", "SMTP commands answered with 4xx."},
    {"exchange_out", "Messages passed to another worker."},
    {"exchange_in", "Messages taken from another worker."},
    {"commits", "Commits of the spool."},
    {"commit_bytes", "Bytes written by commits of the spool."},
    {"commit_failures", "Commits of the spool that failed."},
    {"dns_lookups", "DNS lookups sent to the resolver."},
    {"dns_failures", "DNS lookups without a usable answer."},
    {"turns", "Turns of the event loop."},
    {"read_backs", "Bodies read back from disk for an attempt."},
    {"cache_hits", "Bodies found in memory for an attempt."},
    {"events_dropped", "Event lines lost because the event log could not take them."},
    {"queued", "Recipients in the queue."},
    {"ready", "Queued recipients that may be tried now."},
    {"waiting", "Queued recipients that wait for their next attempt."},
    {"held", "Queued recipients on hold."},
    {"in_flight", "Recipients in an attempt right now."},
    {"bounce_due", "Failed recipients whose bounce is not written yet."},
    {"parked", "Recipients parked for the operator."},
    {"open_in", "Open inbound connections."},
    {"open_out", "Open outbound connections."},
    {"sessions_data", "Inbound sessions that are receiving a body."},
    {"cache_bytes", "Bytes of bodies kept in memory for their first attempt."},
    {"spool_total_bytes", "Bytes of the spool's segments."},
    {"spool_live_bytes", "Bytes of the spool's segments that are still needed."},
    {"spool_free_bytes", "Bytes free on the spool's file system."},
    {"spool_health", "State of the spool: 0 is well, more is worse."},
    {"body_bytes", "Bytes of bodies in memory."},
    {"recovery_ms", "Milliseconds that the last recovery of the spool took."},
    {"recovered", "Messages found by the last recovery."},
    {"damaged", "Damaged records found by the last recovery."},
    {"sites", "Destination sites known."},
    {"domains", "Recipient domains known."},
    {"lanes_running", "Lanes that this worker runs."},
};

const struct stats_field *stats_fields(size_t *count)
{
    *count = ARRAY_COUNT(fields);
    if (fields[0].help != NULL)
        return fields;
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        fields[i].help = fields[i].name;
        for (size_t j = 0; j < ARRAY_COUNT(helps); j++) {
            if (strcmp(helps[j][0], fields[i].name) == 0)
                fields[i].help = helps[j][1];
        }
    }
    return fields;
}

uint64_t stats_field_read(const struct stats_page *page, const struct stats_field *f)
{
    MUST(f->offset + sizeof(uint64_t) <= sizeof *page);
    const uint64_t *p = (const uint64_t *)(const void *)((const char *)page + f->offset);
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
