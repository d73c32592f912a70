#include "bench/options.h"

#include "base/span.h"
#include "base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 64, LEFT_BYTES = 80, HELP_COLUMN = 30 };

void options_help(const struct option_table *t)
{
    printf("mochila-bench %s - %s\n\n", t->command, t->summary);
    if (t->example != NULL)
        printf("Example:\n  %s\n\n", t->example);
    printf("Options:\n");
    for (size_t i = 0; i < t->count; i++) {
        const struct option *o = &t->options[i];
        char left[LEFT_BYTES];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->arg != NULL ? " " : "",
                 o->arg != NULL ? o->arg : "");
        printf("  %-*s %s\n", HELP_COLUMN, left, o->help);
    }
    printf("  %-*s %s\n", HELP_COLUMN, "--help", "this text");
}

int options_count(const char *text, uint64_t kilo, uint64_t *out)
{
    char digits[24];
    size_t n = strlen(text);
    uint64_t unit = 1;

    if (n == 0 || n >= sizeof digits)
        return -EINVAL;
    char last = text[n - 1];
    if (last == 'k' || last == 'K')
        unit = kilo;
    else if (last == 'M' || last == 'm')
        unit = kilo * kilo;
    if (unit > 1)
        n--;
    if (span_to_u64(span_of(text, n), out) < 0 || *out > UINT64_MAX / unit)
        return -EINVAL;
    *out *= unit;
    return 0;
}

static int parse_ms(const struct option *o, const char *text, uint64_t *out)
{
    static const struct {
        const char *suffix;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    double value = strtod(text, &end);
    double unit = (double)(o->bare_ms != 0 ? o->bare_ms : 1000);

    if (end == text || !(value >= 0) || value > 1e9)
        return -EINVAL;
    if (*end != '\0')
        unit = 0;
    for (size_t i = 0; i < ARRAY_COUNT(units); i++)
        if (strcmp(end, units[i].suffix) == 0)
            unit = units[i].ms;
    if (unit <= 0)
        return -EINVAL;
    *out = (uint64_t)(value * unit + 0.5);
    return 0;
}

static int parse_number(const struct option *o, const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0))
        return -EINVAL;
    if (o->max != 0 && value > (double)o->max)
        return -EINVAL;
    *out = value;
    return 0;
}

static int store(const struct option *o, const char *text, void *target)
{
    void *field = (char *)target + o->offset;

    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_FLAG_OFF:
        *(bool *)field = false;
        return 0;
    case OPTION_U64:
        if (options_count(text, 1000, field) < 0)
            return -EINVAL;
        return o->max != 0 && *(uint64_t *)field > o->max ? -EINVAL : 0;
    case OPTION_MS:
        return parse_ms(o, text, field);
    case OPTION_NUMBER:
        return parse_number(o, text, field);
    case OPTION_TEXT:
        *(const char **)field = text;
        return 0;
    case OPTION_CALL:
        return o->parse(target, text);
    }
    return -EINVAL;
}

static const struct option *find(const struct option_table *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->count; i++)
        if (strlen(t->options[i].name) == n && memcmp(t->options[i].name, name, n) == 0)
            return &t->options[i];
    return NULL;
}

static int unknown(const struct option_table *t, const char *given)
{
    const char *names[OPTIONS_MAX];
    const char *word = strncmp(given, "--", 2) == 0 ? given + 2 : given;

    MUST(t->count <= OPTIONS_MAX);
    for (size_t i = 0; i < t->count; i++)
        names[i] = t->options[i].name;
    const char *near = suggest_nearest(word, names, t->count);

    fprintf(stderr, "mochila-bench %s: unknown option \"%s\"", t->command, given);
    if (near != NULL)
        fprintf(stderr, "; did you mean --%s?", near);
    fprintf(stderr, "\nTry: mochila-bench %s --help\n", t->command);
    return -EINVAL;
}

static int refuse(const struct option_table *t, const struct option *o, const char *text)
{
    fprintf(stderr, "mochila-bench %s: --%s: \"%s\" is not %s (%s)", t->command, o->name, text,
            o->arg, o->help);
    if (o->max != 0)
        fprintf(stderr, "; at most %llu", (unsigned long long)o->max);
    fprintf(stderr, "\n");
    return -EINVAL;
}

static bool wants_value(const struct option *o)
{
    return o->kind != OPTION_FLAG && o->kind != OPTION_FLAG_OFF;
}

/* Takes one option and its value; returns how many words it used, or -EINVAL. */
static int take(const struct option_table *t, int left, char **argv, void *target)
{
    const char *word = argv[0];
    if (strncmp(word, "--", 2) != 0)
        return unknown(t, word);
    const char *equals = strchr(word, '=');
    size_t n = equals != NULL ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    const struct option *o = find(t, word + 2, n);
    const char *value = equals != NULL ? equals + 1 : NULL;
    int used = 1;

    if (o == NULL)
        return unknown(t, word);
    if (!wants_value(o) && value != NULL) {
        fprintf(stderr, "mochila-bench %s: --%s takes no value\n", t->command, o->name);
        return -EINVAL;
    }
    if (wants_value(o) && value == NULL) {
        if (left < 2) {
            fprintf(stderr, "mochila-bench %s: --%s wants a value: %s\n", t->command, o->name,
                    o->help);
            return -EINVAL;
        }
        value = argv[1];
        used = 2;
    }
    return store(o, value, target) < 0 ? refuse(t, o, value) : used;
}

int options_parse(const struct option_table *t, int argc, char **argv, void *target)
{
    for (int i = 1; i < argc;) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            options_help(t);
            return OPTIONS_HELP_SHOWN;
        }
        int used = take(t, argc - i, argv + i, target);
        if (used < 0)
            return used;
        i += used;
    }
    return 0;
}
