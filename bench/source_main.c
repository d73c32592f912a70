/* The source's command line. */
#include "bench/options.h"
#include "bench/rcpt_set.h"
#include "bench/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int set_to(void *target, const char *text)
{
    struct source_options *o = target;

    return endpoint_parse(span_str(text), &o->to);
}

static int set_mode(void *target, const char *text)
{
    static const char *const names[] = {"bare", "pipelined", "chunking"};
    struct source_options *o = target;

    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            o->mode = (enum source_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* A number means d000.test and so on; anything else is a list of names. */
static int set_domains(void *target, const char *text)
{
    struct source_options *o = target;

    if (options_count(text, 1000, &o->domain_count) < 0)
        o->domains = text;
    return 0;
}

static int set_addresses(void *target, const char *text)
{
    struct source_options *o = target;
    struct span left = span_str(text);

    while (left.n > 0) {
        const uint8_t *comma = memchr(left.p, ',', left.n);
        size_t n = comma != NULL ? (size_t)(comma - left.p) : left.n;
        if (o->address_count == SOURCE_ADDRESS_MAX ||
            ip_parse(span_of(left.p, n), &o->addresses[o->address_count]) < 0)
            return -EINVAL;
        o->address_count++;
        n += comma != NULL;
        left = span_of(left.p + n, left.n - n);
    }
    return 0;
}

static int set_run(void *target, const char *text)
{
    struct source_options *o = target;
    char *end;

    o->run = strtoull(text, &end, 16);
    return *end != '\0' || o->run == 0 || o->run > UINT32_MAX ? -EINVAL : 0;
}

#define FIELD(f) offsetof(struct source_options, f)
/* clang-format off */
static const struct option options[] = {
    {"to", OPTION_CALL, 0, "HOST:PORT",
     .help = "server under test; [::1]:25 for IPv6", .parse = set_to},
    {"connections", OPTION_U64, FIELD(connections), "N",
     .help = "connections at once (50)",
     .max = SOURCE_CONNECTION_MAX},
    {"count", OPTION_U64, FIELD(count), "N",
     .help = "messages to send", .max = UINT32_MAX},
    {"duration", OPTION_MS, FIELD(duration_ms), "TIME",
     .help = "send for so long: 10, 10s, 500ms, 2m"},
    {"rate", OPTION_NUMBER, FIELD(rate), "N",
     .help = "new messages a second; without it: closed loop"},
    {"size", OPTION_TEXT, FIELD(sizes), "LIST",
     .help = "whole message: 2k (preset), 2k:9,100k:1"},
    {"eml", OPTION_TEXT, FIELD(eml_dir), "DIR",
     .help = "send the .eml files of DIR instead"},
    {"rcpts", OPTION_U64, FIELD(rcpts), "N",
     .help = "recipients of a message (1)", .max = RCPT_SET_MAX},
    {"domains", OPTION_CALL, 0, "N|LIST",
     .help = "d000.test .. (100), or a.test:3,b.test:1",
     .parse = set_domains},
    {"from", OPTION_TEXT, FIELD(from), "ADDRESS",
     .help = "envelope sender (load@bench.test)"},
    {"ehlo", OPTION_TEXT, FIELD(ehlo), "NAME",
     .help = "name to greet with (bench.test)"},
    {"mode", OPTION_CALL, 0, "MODE",
     .help = "bare, pipelined (preset) or chunking", .parse = set_mode},
    {"window", OPTION_U64, FIELD(window), "N",
     .help = "chunking: messages under way a connection (1)",
     .max = SOURCE_WINDOW_MAX},
    {"per-connection", OPTION_U64, FIELD(per_connection), "N",
     .help = "messages, then QUIT and anew"},
    {"source-addresses", OPTION_CALL, 0, "LIST",
     .help = "local addresses, bound in turn",
     .parse = set_addresses},
    {"idle", OPTION_FLAG, FIELD(idle), NULL,
     .help = "open the connections, greet and hold them"},
    {"slow-drip", OPTION_NUMBER, FIELD(drip), "BYTES",
     .help = "bytes a second and connection, not more"},
    {"retry", OPTION_FLAG, FIELD(retry), NULL,
     .help = "send again after 4xx or a lost connection"},
    {"retry-delay", OPTION_MS, FIELD(retry_delay_ms), "TIME",
     .help = "first back-off, doubling (200ms)",
     .bare_ms = 1},
    {"timeout", OPTION_MS, FIELD(timeout_ms), "TIME",
     .help = "of one reply (300s)"},
    {"give-up", OPTION_MS, FIELD(give_up_ms), "TIME",
     .help = "end when nothing is accepted (60s; 0: never)"},
    {"run", OPTION_CALL, 0, "HEX",
     .help = "identity of this run, 8 hex digits (random)", .parse = set_run},
    {"record", OPTION_TEXT, FIELD(record), "FILE",
     .help = "a line for each acknowledged message"},
    {"json", OPTION_TEXT, FIELD(json), "FILE",
     .help = "result, - for stdout (preset)"},
    {"quiet", OPTION_FLAG, FIELD(quiet), NULL,
     .help = "no progress on stderr"},
};
/* clang-format on */

static const struct option_table table = {
    .command = "source",
    .summary = "send load to an SMTP server",
    .example = "mochila-bench source --to 127.0.0.1:2525 --count 100k --size 2k --retry",
    .options = options,
    .count = ARRAY_COUNT(options),
};

static int fault(const char *text)
{
    fprintf(stderr, "mochila-bench source: %s\nTry: mochila-bench source --help\n", text);
    return -EINVAL;
}

static int check(const struct source_options *o)
{
    if (o->to.port == 0)
        return fault("--to HOST:PORT is missing");
    if (o->count == 0 && o->duration_ms == 0 && !o->idle)
        return fault("--count N, --duration TIME or --idle is missing");
    if (o->connections == 0 || o->rcpts == 0 || o->window == 0)
        return fault("--connections, --rcpts and --window are at least 1");
    if (strlen(o->from) > 256 || strlen(o->ehlo) > 255)
        return fault("--from and --ehlo are at most 255 letters");
    return 0;
}

int source_main(int argc, char **argv)
{
    struct source_options *o = calloc(1, sizeof *o);
    int status = EXIT_FAILURE;

    if (o == NULL)
        return status;
    source_options_init(o);
    int rc = options_parse(&table, argc, argv, o);
    if (rc == OPTIONS_HELP_SHOWN)
        status = EXIT_SUCCESS;
    else if (rc < 0 || check(o) < 0)
        status = 2;
    else if (source_run(o) == 0)
        status = EXIT_SUCCESS;
    free(o);
    return status;
}
