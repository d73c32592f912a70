/* sink_private - what the files of the sink share. */
#ifndef BENCH_SINK_PRIVATE_H
#define BENCH_SINK_PRIVATE_H

#include "base/pool.h"
#include "base/rng.h"
#include "bench/book.h"
#include "bench/histogram.h"
#include "bench/sink.h"
#include "bench/sink_peers.h"
#include "bench/sink_session.h"

#include <jansson.h>
#include <stdio.h>

struct sink_stats {
    uint64_t sessions;
    uint64_t messages;
    uint64_t recipients;
    uint64_t duplicated;
    uint64_t unidentified;
    uint64_t bytes;
    uint64_t closed_after_dot;
    uint64_t dropped; /* connections gone within a message */
    uint64_t reset;   /* ended by a RST, anywhere */
    uint64_t cut;     /* ended by the client between MAIL and the answer to its message */
    uint64_t answered_4xx;
    uint64_t answered_5xx;
    uint64_t first_ns;
    uint64_t last_ns;
    struct histogram latency;
};

struct sink {
    const struct sink_options *options;
    struct watch listeners[SINK_LISTEN_MAX];
    struct endpoint endpoints[SINK_LISTEN_MAX];
    uint32_t listener_count;
    struct watch signals;
    struct sink_script script;
    struct greylist *greylist;
    struct book *book;
    struct sink_peers peers;
    struct sink_stats stats;
    struct pool sessions;
    struct timer_heap timers;
    struct rng rng;
    FILE *record;
    FILE *record_connections;
    uint64_t at_ns;
    uint64_t end_ns; /* when to end; UINT64_MAX = not yet known */
    int epoll;
    char ehlo[SINK_EHLO_BYTES];
    char banner[SINK_EHLO_BYTES];
    char first_duplicate[SINK_EHLO_BYTES];
    uint8_t *in; /* shared: a session's rest, then what is received */
};

/* sink_policy.c */
struct verdict sink_policy_decide(struct sink *s, enum stage stage, struct span subject);
struct verdict sink_policy_rcpt(struct sink *s, const struct sink_session *c, struct span rcpt);

/* sink_result.c */
void sink_count_message(struct sink_session *c);
json_t *sink_result(struct sink *s, int *status);

#endif
