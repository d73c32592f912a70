/* verb - see verb.h. */
#include "proto/verb.h"

#include "base/suggest.h"

#define FILTERS "lane", "site", "tenant", "domain", "state", "reason"

static const char *const filters[] = {FILTERS, "id"};

static const struct verb verbs[] = {
    /* The master's own. */
    {.name = "status", .scope = VERB_MASTER, .seconds = 10},
    {.name = "version", .scope = VERB_MASTER, .seconds = 10},
    {.name = "holds", .scope = VERB_MASTER, .seconds = 10},
    {.name = "audit", .scope = VERB_MASTER, .seconds = 10, .args = {"limit"}},
    {.name = "hold",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 10,
     .args = {"kind", "value", "why"},
     .required = {"kind"}},
    {.name = "release",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 10,
     .args = {"kind", "value", "why"},
     .required = {"kind"}},
    {.name = "reload", .scope = VERB_MASTER, .changes = true, .seconds = 90},
    {.name = "drain", .scope = VERB_MASTER, .changes = true, .seconds = 10, .args = {"seconds"}},
    {.name = "stop", .scope = VERB_MASTER, .changes = true, .seconds = 90},
    {.name = "cluster", .scope = VERB_MASTER, .seconds = 10},
    {.name = "moves", .scope = VERB_MASTER, .seconds = 10, .args = {"id", "node"}},
    {.name = "move",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 30,
     .args = {"pool", "lane", "to", "dry_run", "rate", "parallel"},
     .required = {"to"}},
    {.name = "move_abort",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 10,
     .args = {"id"},
     .required = {"id"}},
    {.name = "node_drain",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 30,
     .args = {"node", "dry_run", "rate"},
     .required = {"node"}},
    {.name = "node_undrain",
     .scope = VERB_MASTER,
     .changes = true,
     .seconds = 30,
     .args = {"node"},
     .required = {"node"}},
    /* The workers'. */
    {.name = "queue",
     .scope = VERB_WORKERS,
     .sums = true,
     .seconds = 10,
     .args = {"by", FILTERS, "id", "limit"}},
    {.name = "why",
     .scope = VERB_WORKERS,
     .sums = true,
     .seconds = 10,
     .args = {"what", "limit"},
     .required = {"what"}},
    {.name = "show",
     .scope = VERB_WORKERS,
     .seconds = 10,
     .args = {"id", "headers", "body"},
     .required = {"id"}},
    {.name = "retry",
     .scope = VERB_WORKERS,
     .changes = true,
     .needs_a_filter = true,
     .sums = true,
     .seconds = 10,
     .args = {FILTERS, "id", "all"}},
    {.name = "delete",
     .scope = VERB_WORKERS,
     .changes = true,
     .needs_a_filter = true,
     .sums = true,
     .seconds = 10,
     .args = {FILTERS, "id", "all", "preview", "why"}},
    {.name = "ledger", .scope = VERB_WORKERS, .sums = true, .seconds = 10, .args = {"cluster"}},
    {.name = "sites",
     .scope = VERB_WORKERS,
     .sums = true,
     .seconds = 10,
     .args = {FILTERS, "limit"}},
    {.name = "lanes",
     .scope = VERB_WORKERS,
     .sums = true,
     .seconds = 10,
     .args = {FILTERS, "limit"}},
    /* The api process's. */
    {.name = "stats", .scope = VERB_API, .seconds = 10},
    {.name = "trace",
     .scope = VERB_API,
     .seconds = 10,
     .args = {"id", "limit"},
     .required = {"id"}},
    {.name = "events",
     .scope = VERB_API,
     .seconds = 10,
     .args = {"cursor", "limit", "event", "lane", "tenant", "id"}},
};

const struct verb *verb_table(size_t *count)
{
    *count = ARRAY_COUNT(verbs);
    return verbs;
}

const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

const char *verb_suggest(const char *name)
{
    const char *names[ARRAY_COUNT(verbs)];
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        names[i] = verbs[i].name;
    return suggest_nearest(name, names, ARRAY_COUNT(verbs));
}

bool verb_takes(const struct verb *v, const char *arg)
{
    for (size_t i = 0; i < VERB_ARGS_MAX && v->args[i] != NULL; i++) {
        if (strcmp(v->args[i], arg) == 0)
            return true;
    }
    return false;
}

bool verb_arg_is_filter(const char *arg)
{
    for (size_t i = 0; i < ARRAY_COUNT(filters); i++) {
        if (strcmp(filters[i], arg) == 0)
            return true;
    }
    return false;
}
