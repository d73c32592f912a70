/* source_private - what the files of the source share. */
#ifndef BENCH_SOURCE_PRIVATE_H
#define BENCH_SOURCE_PRIVATE_H

#include "base/pool.h"
#include "bench/histogram.h"
#include "bench/message.h"
#include "bench/source_conn.h"

#include <stdio.h>

enum { SOURCE_CODES = 600, SOURCE_ERROR_BYTES = 200 };

struct source_stats {
    uint64_t messages_accepted;
    uint64_t recipients_accepted;
    uint64_t bytes_accepted;
    uint64_t messages_temporary; /* answers, so one message may count again at each retry */
    uint64_t messages_permanent;
    uint64_t recipients_temporary;
    uint64_t recipients_permanent;
    uint64_t retries;
    uint64_t given_up; /* messages that were neither accepted nor tried again */
    uint64_t connections_opened;
    uint64_t connect_errors;
    uint64_t connections_lost;
    uint64_t in_doubt; /* connection lost between the end of data and its reply */
    uint64_t protocol_errors;
    uint64_t up_max;
    uint64_t first_ns;
    uint64_t last_ns;
    uint64_t codes[SOURCE_CODES];
    char first_error[SOURCE_ERROR_BYTES];
    struct histogram latency;
};

struct source {
    const struct source_options *options;
    struct message_plan *plan;
    struct source_work work;
    struct source_stats stats;
    struct pool conns;
    struct timer_heap timers;
    struct source_conn *parked; /* head of a ring list, first in first out */
    FILE *record;
    size_t group_bytes_max; /* envelope commands of one transaction */
    uint64_t at_ns;         /* the clock of this turn of the loop */
    uint32_t run;
    uint32_t connecting;
    uint32_t up;
    int epoll;
    bool is_ending;
    bool has_warned; /* an extension that was asked for is not offered */
};

/* Keeps the first thing that went wrong, in clean letters, for the result. */
void source_note_error(struct source *s, struct span text);

#endif
