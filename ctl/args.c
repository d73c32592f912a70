/* args - see args.h. */
#include "ctl/args.h"

#include "base/suggest.h"

#include <string.h>

enum global { GLOBAL_SOCKET, GLOBAL_CONFIG, GLOBAL_JSON, GLOBAL_HELP, GLOBAL_VERSION };

static const struct cli_option globals[] = {
    [GLOBAL_SOCKET] = {.name = "socket", .meta = "PATH", .help = "the node's API socket"},
    [GLOBAL_CONFIG] = {.name = "config",
                       .letter = 'f',
                       .meta = "FILE",
                       .help = "take the socket from this configuration file"},
    [GLOBAL_JSON] = {.name = "json", .help = "print the answer as JSON"},
    [GLOBAL_HELP] = {.name = "help", .letter = 'h', .help = "explain"},
    [GLOBAL_VERSION] = {.name = "version", .letter = 'V', .help = "print the version"},
};

/* Where the parser stands. */
struct walk {
    struct cli *c;
    char **argv;
    int argc, i;
};

const struct cli_option *args_globals(size_t *count)
{
    *count = ARRAY_COUNT(globals);
    return globals;
}

static const struct cli_option *find(const struct cli_option *list, size_t count, const char *name,
                                     size_t n, char letter)
{
    for (size_t i = 0; i < count && list[i].name != NULL; i++) {
        bool same = letter != 0 ? list[i].letter == letter
                                : strlen(list[i].name) == n && strncmp(list[i].name, name, n) == 0;
        if (same)
            return &list[i];
    }
    return NULL;
}

/* The command's own options come first: `events -f` follows, elsewhere -f names a file. */
static const struct cli_option *find_any(const struct cli *c, const char *name, size_t n,
                                         char letter)
{
    const struct cli_option *o = NULL;
    if (c->command != NULL)
        o = find(c->command->options, CLI_OPTIONS_MAX, name, n, letter);
    return o != NULL ? o : find(globals, ARRAY_COUNT(globals), name, n, letter);
}

static int usage_error(const struct cli *c)
{
    if (c->command != NULL)
        command_usage(c->command, stderr);
    else
        fputs("usage: mochila [options] COMMAND ...; `mochila help` lists the commands\n", stderr);
    return CLI_USAGE;
}

static int refuse_option(const struct cli *c, const char *given, size_t n)
{
    const char *names[CLI_OPTIONS_MAX + ARRAY_COUNT(globals)];
    char word[SUGGEST_WORD_BYTES + 1];
    size_t count = 0;
    for (size_t i = 0; c->command != NULL && i < CLI_OPTIONS_MAX; i++) {
        if (c->command->options[i].name != NULL)
            names[count++] = c->command->options[i].name;
    }
    for (size_t i = 0; i < ARRAY_COUNT(globals); i++)
        names[count++] = globals[i].name;
    (void)snprintf(word, sizeof word, "%.*s", (int)n, given);
    const char *near = suggest_nearest(word, names, count);
    char hint[SUGGEST_WORD_BYTES + 32] = "";
    if (near != NULL)
        (void)snprintf(hint, sizeof hint, ": did you mean --%s?", near);
    (void)cli_fail(CLI_USAGE, "unknown option --%s%s", word, hint);
    return usage_error(c);
}

static void set_global(struct cli *c, enum global which, const char *value)
{
    switch (which) {
    case GLOBAL_SOCKET:
        c->socket = value;
        return;
    case GLOBAL_CONFIG:
        c->config = value;
        return;
    case GLOBAL_JSON:
        c->json = true;
        return;
    case GLOBAL_HELP:
        c->help = true;
        return;
    case GLOBAL_VERSION:
        c->version = true;
        return;
    }
}

static int set_option(struct cli *c, const struct cli_option *o, const char *value)
{
    if (o >= globals && o < globals + ARRAY_COUNT(globals)) {
        set_global(c, (enum global)(o - globals), value);
        return 0;
    }
    if (cli_given(c, o->name) != NULL) {
        (void)cli_fail(CLI_USAGE, "--%s is given twice", o->name);
        return usage_error(c);
    }
    c->given[c->given_count] = o;
    c->values[c->given_count++] = value != NULL ? value : "";
    if (o->arg != NULL)
        call_set(&c->call, o->arg, value != NULL ? value : "1");
    return 0;
}

/* The option's value: after '=', or the next word. */
static int take_option(struct walk *w, const struct cli_option *o, const char *attached)
{
    const char *value = attached;
    if (o->meta == NULL && attached != NULL) {
        (void)cli_fail(CLI_USAGE, "--%s takes no value", o->name);
        return usage_error(w->c);
    }
    if (o->meta != NULL && value == NULL) {
        if (w->i + 1 >= w->argc) {
            (void)cli_fail(CLI_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->meta);
            return usage_error(w->c);
        }
        value = w->argv[++w->i];
    }
    return set_option(w->c, o, value);
}

static int take_long(struct walk *w, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t n = equals != NULL ? (size_t)(equals - word) : strlen(word);
    const struct cli_option *o = find_any(w->c, word, n, 0);
    if (o == NULL)
        return refuse_option(w->c, word, n);
    return take_option(w, o, equals != NULL ? equals + 1 : NULL);
}

static int take_short(struct walk *w, const char *word)
{
    const struct cli_option *o = find_any(w->c, NULL, 0, word[0]);
    if (o == NULL) {
        (void)cli_fail(CLI_USAGE, "unknown option -%c", word[0]);
        return usage_error(w->c);
    }
    if (o->meta == NULL && word[1] != '\0') {
        (void)cli_fail(CLI_USAGE, "-%c takes no value: write options apart", word[0]);
        return usage_error(w->c);
    }
    return take_option(w, o, word[1] != '\0' ? word + 1 : NULL);
}

/* `next` is the word after it or NULL: names have up to two words. */
static int refuse_command(const char *word, const char *next)
{
    size_t count;
    const struct command *table = command_table(&count);
    const char *names[64];
    MUST(count <= ARRAY_COUNT(names));
    for (size_t i = 0; i < count; i++)
        names[i] = table[i].name;
    char both[SUGGEST_WORD_BYTES + 1];
    (void)snprintf(both, sizeof both, "%s %s", word, next != NULL ? next : "");
    const char *near = next != NULL ? suggest_nearest(both, names, count) : NULL;
    bool two = near != NULL && strchr(near, ' ') != NULL;
    if (!two)
        near = suggest_nearest(word, names, count);
    if (near != NULL)
        return cli_fail(CLI_USAGE, "unknown command \"%s\": did you mean %s?", two ? both : word,
                        near);
    return cli_fail(CLI_USAGE, "unknown command \"%s\": `mochila help` lists them", word);
}

static unsigned positional_max(const struct command *c)
{
    unsigned n = 0;
    while (n < CLI_POSITIONALS_MAX && c->positional[n] != NULL)
        n++;
    return n;
}

static int take_word(struct walk *w, const char *word)
{
    struct cli *c = w->c;
    if (c->command == NULL) {
        int taken = 0;
        c->command = command_find(w->argv + w->i, w->argc - w->i, &taken);
        if (c->command == NULL)
            return refuse_command(word, w->i + 1 < w->argc ? w->argv[w->i + 1] : NULL);
        c->call.verb = c->command->verb;
        w->i += taken - 1;
        return 0;
    }
    if (c->word_count == positional_max(c->command)) {
        (void)cli_fail(CLI_USAGE, "%s: one word too many: \"%s\"", c->command->name, word);
        return usage_error(c);
    }
    const char *arg = c->command->positional[c->word_count];
    if (strcmp(arg, "-") != 0)
        call_set(&c->call, arg, word);
    c->words[c->word_count++] = word;
    return 0;
}

/* After the last word: is everything there? */
static int finish(struct cli *c)
{
    if (c->help || c->version)
        return 0;
    if (c->command == NULL) {
        command_list(stderr);
        return CLI_USAGE;
    }
    if (c->word_count >= c->command->positional_min)
        return 0;
    (void)cli_fail(CLI_USAGE, "%s: something is missing", c->command->name);
    return usage_error(c);
}

int args_parse(struct cli *c, int argc, char **argv)
{
    struct walk w = {.c = c, .argv = argv, .argc = argc, .i = 1};
    bool words_only = false;
    int r = 0;

    for (; w.i < argc && r == 0; w.i++) {
        const char *word = argv[w.i];
        bool option = !words_only && word[0] == '-' && word[1] != '\0';
        if (option && strcmp(word, "--") == 0)
            words_only = true;
        else if (option && word[1] == '-')
            r = take_long(&w, word + 2);
        else if (option)
            r = take_short(&w, word + 1);
        else
            r = take_word(&w, word);
    }
    return r == 0 ? finish(c) : r;
}

const char *cli_given(const struct cli *c, const char *name)
{
    for (unsigned i = 0; i < c->given_count; i++) {
        if (strcmp(c->given[i]->name, name) == 0)
            return c->values[i];
    }
    return NULL;
}
