/* The sink's command line. */
#include "bench/options.h"
#include "bench/sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int set_listen(void *target, const char *text)
{
    struct sink_options *o = target;

    if (o->listen_count == SINK_LISTEN_MAX)
        return -EINVAL;
    return endpoint_parse(span_str(text), &o->listen[o->listen_count++]);
}

/* One `[stage=]value` of a list; the value is left in *value. */
static int take_part(const char **text, enum stage preset, enum stage *stage, char value[32])
{
    const char *comma = strchr(*text, ',');
    size_t n = comma != NULL ? (size_t)(comma - *text) : strlen(*text);
    const char *equals = memchr(*text, '=', n);
    const char *from = equals != NULL ? equals + 1 : *text;
    size_t value_bytes = n - (size_t)(from - *text);

    *stage = preset;
    if (equals != NULL && stage_parse(span_of(*text, (size_t)(equals - *text)), stage) < 0)
        return -EINVAL;
    if (value_bytes == 0 || value_bytes > 31)
        return -EINVAL;
    memcpy(value, from, value_bytes);
    value[value_bytes] = '\0';
    *text += n + (comma != NULL);
    return 0;
}

static int parse_delay(const char *text, struct delay_range *out)
{
    char *end;
    unsigned long low = strtoul(text, &end, 10);
    unsigned long high = low;

    if (end == text)
        return -EINVAL;
    if (*end == '-') {
        const char *from = end + 1;
        high = strtoul(from, &end, 10);
        if (end == from)
            return -EINVAL;
    }
    if (*end != '\0' || low > high || high > SCRIPT_DELAY_MS_MAX)
        return -EINVAL;
    *out = (struct delay_range){(uint32_t)low, (uint32_t)high};
    return 0;
}

static int set_delay(void *target, const char *text)
{
    struct sink_options *o = target;
    enum stage stage;
    char value[32];

    while (*text != '\0')
        if (take_part(&text, STAGE_DOT, &stage, value) < 0 ||
            parse_delay(value, &o->delay[stage]) < 0)
            return -EINVAL;
    return 0;
}

static int set_shares(double shares[STAGE_COUNT], const char *text)
{
    enum stage stage;
    char value[32];
    char *end;

    while (*text != '\0') {
        if (take_part(&text, STAGE_RCPT, &stage, value) < 0)
            return -EINVAL;
        shares[stage] = strtod(value, &end);
        if (*end != '\0' || !(shares[stage] >= 0 && shares[stage] <= 1))
            return -EINVAL;
    }
    return 0;
}

static int set_tempfail(void *target, const char *text)
{
    return set_shares(((struct sink_options *)target)->tempfail, text);
}

static int set_fail(void *target, const char *text)
{
    return set_shares(((struct sink_options *)target)->fail, text);
}

#define FIELD(f) offsetof(struct sink_options, f)
/* clang-format off */
static const struct option options[] = {
    {"listen", OPTION_CALL, 0, "ADDR:PORT",
     .help = "where to listen; may be given several times", .parse = set_listen},
    {"expect", OPTION_U64, FIELD(expect), "N",
     .help = "end when N different recipients' copies are here"},
    {"settle", OPTION_MS, FIELD(settle_ms), "TIME",
     .help = "then wait so long for duplicates (500ms)", .bare_ms = 1},
    {"against", OPTION_TEXT, FIELD(against), "FILE",
     .help = "at the end, look for all of a source's record"},
    {"record", OPTION_TEXT, FIELD(record), "FILE",
     .help = "a line for each recipient's copy: identity, recipient, client, time"},
    {"record-connections", OPTION_TEXT, FIELD(record_connections), "FILE",
     .help = "a line for each begin and end of a connection"},
    {"json", OPTION_TEXT, FIELD(json), "FILE", .help = "result, - for stdout (preset)"},
    {"delay", OPTION_CALL, 0, "LIST",
     .help = "ms before a reply: 20, or dot=300-5000,rcpt=5", .parse = set_delay},
    {"tempfail", OPTION_CALL, 0, "LIST",
     .help = "share answered 4xx: 0.1 (of rcpt), or mail=0.1,dot=0.05", .parse = set_tempfail},
    {"fail", OPTION_CALL, 0, "LIST",
     .help = "share answered 5xx, as for --tempfail", .parse = set_fail},
    {"close-after-dot", OPTION_NUMBER, FIELD(close_after_dot), "SHARE",
     .help = "0..1 of messages dropped with the connection, unanswered", .max = 1},
    {"greylist", OPTION_MS, FIELD(greylist_ms), "TIME",
     .help = "450 to a new (client, sender, recipient) for so long"},
    {"accept-one-of", OPTION_U64, FIELD(accept_one_of), "N",
     .help = "accept one recipient of N, 452 to the others"},
    {"max-connections-per-source", OPTION_U64, FIELD(per_source_max), "N",
     .help = "421 to further ones of one client address"},
    {"close-after", OPTION_U64, FIELD(close_after), "N",
     .help = "421 to the message after the N-th of a connection"},
    {"slow-reader", OPTION_NUMBER, FIELD(slow_reader), "BYTES",
     .help = "read so many bytes a second and connection"},
    {"script", OPTION_TEXT, FIELD(script), "FILE",
     .help = "rules `stage pattern [share%] [delay=MS] answer`"},
    {"hostname", OPTION_TEXT, FIELD(hostname), "NAME", .help = "in the greeting (sink.test)"},
    {"size-max", OPTION_U64, FIELD(size_max), "BYTES", .help = "announced with SIZE"},
    {"no-pipelining", OPTION_FLAG_OFF, FIELD(offer_pipelining), NULL, .help = "do not offer it"},
    {"no-chunking", OPTION_FLAG_OFF, FIELD(offer_chunking), NULL, .help = "do not offer it"},
    {"no-8bitmime", OPTION_FLAG_OFF, FIELD(offer_8bitmime), NULL, .help = "do not offer it"},
    {"no-size", OPTION_FLAG_OFF, FIELD(offer_size), NULL, .help = "do not offer it"},
    {"no-smtputf8", OPTION_FLAG_OFF, FIELD(offer_smtputf8), NULL, .help = "do not offer it"},
    {"no-enhanced", OPTION_FLAG_OFF, FIELD(offer_enhanced), NULL, .help = "do not offer it"},
    {"no-ehlo", OPTION_FLAG_OFF, FIELD(offer_ehlo), NULL, .help = "know only HELO"},
    {"stats-every", OPTION_MS, FIELD(stats_every_ms), "TIME", .help = "a live line on stderr"},
    {"seed", OPTION_U64, FIELD(seed), "N", .help = "of the ratios (random)"},
    {"quiet", OPTION_FLAG, FIELD(quiet), NULL, .help = "no progress on stderr"},
};
/* clang-format on */

static const struct option_table table = {
    .command = "sink",
    .summary = "accept mail, answer as told, count by identity",
    .example = "mochila-bench sink --listen 127.0.0.1:2526 --listen [::1]:2526 --expect 100k",
    .options = options,
    .count = ARRAY_COUNT(options),
};

static int check(const struct sink_options *o)
{
    if (o->listen_count == 0 && o->listen_fd < 0) {
        fprintf(stderr, "mochila-bench sink: --listen ADDR:PORT is missing\n"
                        "Try: mochila-bench sink --help\n");
        return -EINVAL;
    }
    return strlen(o->hostname) <= 255 ? 0 : -EINVAL;
}

int sink_main(int argc, char **argv)
{
    struct sink_options *o = calloc(1, sizeof *o);
    int status = EXIT_FAILURE;

    if (o == NULL)
        return status;
    sink_options_init(o);
    int rc = options_parse(&table, argc, argv, o);
    if (rc == OPTIONS_HELP_SHOWN)
        status = EXIT_SUCCESS;
    else if (rc < 0 || check(o) < 0)
        status = 2;
    else if (sink_run(o) == 0)
        status = EXIT_SUCCESS;
    free(o);
    return status;
}
