/*
 * sink - the load generator's receiving side: accepts mail, answers as told, counts by identity.
 *
 * Input:  anything that speaks SMTP to it.
 * Output: JSON on SIGTERM, SIGINT or when all that was expected is there; a record of what came.
 * Never:  keeps a message; memory is a bit a recipient and message.
 */
#ifndef BENCH_SINK_H
#define BENCH_SINK_H

#include "bench/endpoint.h"
#include "bench/sink_script.h"

enum { SINK_LISTEN_MAX = 64, SINK_SESSION_MAX = 200000 };

struct delay_range {
    uint32_t low_ms;
    uint32_t high_ms;
};

struct sink_options {
    struct endpoint listen[SINK_LISTEN_MAX];
    uint32_t listen_count;
    int listen_fd; /* already listening, of whoever started us; -1 = none */
    bool offer_pipelining;
    bool offer_chunking;
    bool offer_8bitmime;
    bool offer_size;
    bool offer_smtputf8;
    bool offer_enhanced;
    bool offer_ehlo; /* false: only HELO is known */
    bool quiet;
    const char *hostname;
    uint64_t size_max;
    struct delay_range delay[STAGE_COUNT];
    double tempfail[STAGE_COUNT]; /* share answered 4xx */
    double fail[STAGE_COUNT];     /* share answered 5xx */
    double close_after_dot;       /* share of messages dropped without an answer */
    uint64_t greylist_ms;
    uint64_t accept_one_of;
    uint64_t per_source_max;
    uint64_t close_after; /* messages of one session */
    double slow_reader;   /* bytes a second and connection */
    const char *script;
    const char *record;
    const char *record_connections;
    const char *against; /* a source's record */
    const char *json;
    uint64_t expect;
    uint64_t settle_ms;
    uint64_t stats_every_ms;
    uint64_t seed; /* 0 = random */
};

void sink_options_init(struct sink_options *o);
/* Runs to the end. 0, -ENODATA when mail was lost, or -errno after saying why on stderr. */
NODISCARD int sink_run(const struct sink_options *o);
/* The subcommand; returns the exit status. */
int sink_main(int argc, char **argv);

#endif
