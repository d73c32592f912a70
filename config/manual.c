/*
 * manual - the table of keys for people: as plain text, and as the manual page has it.
 *
 * The page docs/man/mochila.yaml.5 holds the output of config_keys_man between two marks; a unit
 * test fails when they differ.
 */
#include "base/text.h"
#include "config/keys.h"
#include "config/value.h"

enum { ALLOWED_BYTES = 256 };

static const struct {
    enum key_scope scope;
    const char *title;
} chapters[] = {
    {SCOPE_TOP, "Top level"},
    {SCOPE_LISTENER, "listen: a list of"},
    {SCOPE_POOL, "pools: names, each with"},
    {SCOPE_LANE, "pools.NAME.lanes: a list of"},
    {SCOPE_TENANT, "tenants: names, each with"},
    {SCOPE_ROUTE, "routes: a list of"},
    {SCOPE_LIMITS, "limits, routes[].limits, providers.NAME.limits"},
    {SCOPE_PROVIDER, "providers: names, each with"},
    {SCOPE_SMTP, "smtp"},
    {SCOPE_QUEUE, "queue"},
    {SCOPE_CLIENT, "client"},
    {SCOPE_SPOOL, "spool_options"},
    {SCOPE_DNS, "dns"},
    {SCOPE_API, "api"},
    {SCOPE_CLUSTER, "cluster"},
};
static_assert(ARRAY_COUNT(chapters) == SCOPE_COUNT, "a chapter for each scope");

/* What is allowed, without article and without the remark in brackets, which the page has once. */
static void put_kind(const struct config_key *k, struct text *out)
{
    char allowed[ALLOWED_BYTES];
    struct text t = text_of(allowed, sizeof allowed);

    value_allowed(k, &t);
    struct span s = text_span(&t);
    size_t article = span_ihas_prefix(s, span_str("a "))    ? 2
                     : span_ihas_prefix(s, span_str("an ")) ? 3
                                                            : 0;
    const char *remark = strstr(allowed, " (");
    size_t end = remark == NULL ? s.n : (size_t)(remark - allowed);
    text_put(out, span_of(allowed + article, end - article));
    if (k->type == KEY_FLAGS) {
        text_puts(out, " of");
        for (unsigned i = 0; k->words[i] != NULL; i++)
            text_fmt(out, "%s %s", i == 0 ? "" : ",", k->words[i]);
    }
}

static void put_preset(const struct config_key *k, struct text *out)
{
    if (k->required)
        text_puts(out, "; required");
    else if (k->preset_note != NULL)
        text_fmt(out, "; preset: %s", k->preset_note);
    else if (k->type == KEY_FLAGS)
        text_puts(out, "; preset: all");
    else if (k->preset != NULL)
        text_fmt(out, "; preset: %s", k->preset[0] == '\0' ? "\"\"" : k->preset);
    else if (k->type != KEY_SECTION)
        text_puts(out, "; preset: none");
    if (k->preset_via != NULL)
        text_fmt(out, ", with via %s", k->preset_via);
    if (k->needs_restart)
        text_puts(out, "; changes at a restart only");
}

void config_keys_print(struct text *out)
{
    size_t count;
    for (size_t i = 0; i < ARRAY_COUNT(chapters); i++) {
        const struct config_key *keys = config_keys_of(chapters[i].scope, &count);
        for (size_t j = 0; j < count; j++) {
            text_fmt(out, "%s%s: ", config_scope_path(chapters[i].scope), keys[j].name);
            put_kind(&keys[j], out);
            put_preset(&keys[j], out);
            text_fmt(out, "\n    %s\n", keys[j].help);
        }
    }
}

/* Text in roff: no escapes, no hyphens that become dashes, no line that is a request. */
static void put_roff(const char *s, struct text *out)
{
    if (*s == '.' || *s == '\'')
        text_puts(out, "\\&");
    for (; *s != '\0'; s++) {
        if (*s == '\\')
            text_puts(out, "\\e");
        else if (*s == '-')
            text_puts(out, "\\-");
        else
            text_putc(out, *s);
    }
}

void config_keys_man(struct text *out)
{
    size_t count;
    for (size_t i = 0; i < ARRAY_COUNT(chapters); i++) {
        const struct config_key *keys = config_keys_of(chapters[i].scope, &count);
        text_fmt(out, ".SS \"%s\"\n", chapters[i].title);
        for (size_t j = 0; j < count; j++) {
            char kind[ALLOWED_BYTES * 2];
            struct text t = text_of(kind, sizeof kind);
            put_kind(&keys[j], &t);
            put_preset(&keys[j], &t);
            text_fmt(out, ".TP\n.B %s\n", keys[j].name);
            put_roff(keys[j].help, out);
            text_puts(out, "\n.br\n(");
            put_roff(kind, out);
            text_puts(out, ")\n");
        }
    }
}
