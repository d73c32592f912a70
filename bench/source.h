/*
 * source - the load generator's sending side: many SMTP connections, one process, one thread.
 *
 * Input:  options; replies of the server under test.
 * Output: a JSON result, a record of what was acknowledged, progress on stderr.
 */
#ifndef BENCH_SOURCE_H
#define BENCH_SOURCE_H

#include "base/net.h"
#include "bench/endpoint.h"

enum source_mode { SOURCE_BARE, SOURCE_PIPELINED, SOURCE_CHUNKING };

enum {
    SOURCE_CONNECTION_MAX = 200000,
    SOURCE_ADDRESS_MAX = 4096,
    SOURCE_WINDOW_MAX = 32,
};

struct source_options {
    struct endpoint to;
    struct ip addresses[SOURCE_ADDRESS_MAX]; /* local, bound in turn */
    uint32_t address_count;
    enum source_mode mode;
    uint64_t connections;
    uint64_t count;       /* 0 = no limit */
    uint64_t duration_ms; /* 0 = no limit */
    double rate;          /* 0 = closed loop */
    uint64_t rcpts;
    uint64_t domain_count;
    const char *domains;
    const char *sizes;
    const char *eml_dir;
    const char *from;
    const char *ehlo;
    uint64_t window;
    uint64_t per_connection; /* messages, then QUIT and connect again; 0 = no limit */
    double drip;             /* bytes a second and connection; 0 = no limit */
    bool idle;
    bool retry;
    uint64_t retry_delay_ms;
    uint64_t timeout_ms;
    uint64_t give_up_ms; /* nothing accepted for so long; 0 = never */
    uint64_t run;        /* 0 = random */
    const char *record;
    const char *json;
    bool quiet;
};

void source_options_init(struct source_options *o);
/* Runs to the end. 0, or -errno after saying why on stderr. */
NODISCARD int source_run(const struct source_options *o);
/* The subcommand; returns the exit status. */
int source_main(int argc, char **argv);

#endif
