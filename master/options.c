/* options - see options.h. */
#include "master/options.h"

#include "base/suggest.h"

#include <errno.h>
#include <getopt.h>

enum {
    OPT_ALLOW_VOLATILE = 256,
    OPT_WORKER,
    OPT_API,
    OPT_READY_MS,
    OPT_SILENCE_MS,
    OPT_VERSION,
    OPT_HELP
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'f'},
    {"check", no_argument, NULL, 'n'},
    {"set", required_argument, NULL, 's'},
    {"allow-volatile-spool", no_argument, NULL, OPT_ALLOW_VOLATILE},
    {"worker", required_argument, NULL, OPT_WORKER},
    {"api", required_argument, NULL, OPT_API},
    {"ready-ms", required_argument, NULL, OPT_READY_MS},
    {"silence-ms", required_argument, NULL, OPT_SILENCE_MS},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

const char *options_help(void)
{
    return "usage: mochilad [-f FILE] [-n] [--set KEY=VALUE ...] [--allow-volatile-spool]\n"
           "  -f, --config FILE      configuration; without it, the built-in one\n"
           "  -n, --check            check the configuration and leave (status 78: it has errors)\n"
           "      --set KEY=VALUE    replace one key of the configuration, e.g. --set workers=2,\n"
           "                         --set 'listen.0.port=2525'; may be repeated\n"
           "      --allow-volatile-spool\n"
           "                         accept a spool in memory: its mail does not survive a reboot\n"
           "      --version, --help\n"
           "For tests: --worker PROGRAM, --api PROGRAM|none, --ready-ms N, --silence-ms N\n"
           "Signals: HUP reloads, TERM and INT drain and stop, a second TERM stops at once.\n";
}

static int complain(const char *arg, struct text *errors)
{
    const char *names[ARRAY_COUNT(long_options)] = {0};
    for (size_t i = 0; i + 1 < ARRAY_COUNT(long_options); i++)
        names[i] = long_options[i].name;
    const char *near =
        strncmp(arg, "--", 2) == 0 ? suggest_nearest(arg + 2, names, ARRAY_COUNT(names)) : NULL;
    text_fmt(errors, "\"%s\" is not an option, or its value is missing", arg);
    if (near != NULL)
        text_fmt(errors, "; did you mean --%s", near);
    text_puts(errors, "; see mochilad --help\n");
    return -EINVAL;
}

static int add_set(struct options *o, const char *arg, struct text *errors)
{
    const char *eq = strchr(arg, '=');
    if (eq == NULL || eq == arg) {
        text_fmt(errors, "--set %s: expected KEY=VALUE, for example --set workers=2\n", arg);
        return -EINVAL;
    }
    if (o->set_count == OPTIONS_SETS_MAX) {
        text_fmt(errors, "--set: at most %d times\n", OPTIONS_SETS_MAX);
        return -EINVAL;
    }
    o->sets[o->set_count++] = arg;
    return 0;
}

static int take_ms(uint32_t *out, const char *arg, struct text *errors)
{
    uint64_t ms;
    if (span_to_u64(span_str(arg), &ms) < 0 || ms < 1 || ms > 600000) {
        text_fmt(errors, "\"%s\": expected 1 to 600000 milliseconds\n", arg);
        return -EINVAL;
    }
    *out = (uint32_t)ms;
    return 0;
}

static int take_option(struct options *o, int c, const char *value, struct text *errors)
{
    switch (c) {
    case 'f':
        o->file = value;
        return 0;
    case 'n':
        o->action = OPTIONS_CHECK;
        return 0;
    case 's':
        return add_set(o, value, errors);
    case OPT_ALLOW_VOLATILE:
        o->allow_volatile_spool = true;
        return 0;
    case OPT_WORKER:
        o->worker = value;
        return 0;
    case OPT_API:
        o->api = value;
        return 0;
    case OPT_READY_MS:
        return take_ms(&o->ready_ms, value, errors);
    case OPT_SILENCE_MS:
        return take_ms(&o->silence_ms, value, errors);
    case OPT_VERSION:
        o->action = OPTIONS_VERSION;
        return 0;
    case OPT_HELP:
        o->action = OPTIONS_HELP;
        return 0;
    default:
        return -EINVAL;
    }
}

int options_parse(int argc, char **argv, struct options *out, struct text *errors)
{
    *out = (struct options){.action = OPTIONS_RUN};
    optind = 1;
    opterr = 0;
    for (;;) {
        int at = optind;
        int c = getopt_long(argc, argv, "f:n", long_options, NULL);
        if (c == -1)
            break;
        if (c == '?')
            return complain(argv[at < argc ? at : argc - 1], errors);
        int rc = take_option(out, c, optarg, errors);
        if (rc < 0)
            return rc;
    }
    if (optind < argc) {
        text_fmt(errors,
                 "\"%s\": mochilad takes no further arguments; the configuration is given "
                 "with -f\n",
                 argv[optind]);
        return -EINVAL;
    }
    return 0;
}
