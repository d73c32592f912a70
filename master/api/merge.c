/*
 * merge - see merge.h.
 *
 * How a number is merged depends on its name alone, so that a worker can add a field without a
 * change here: what is not in the table below is a count, and counts are added.
 */
#include "master/api/merge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEY_BYTES = 512 };
enum number_rule { RULE_SUM, RULE_MAX, RULE_MIN, RULE_FIRST };

static const struct {
    const char *name;
    enum number_rule rule;
} number_rules[] = {
    {"oldest_s", RULE_MAX},   {"next_due_s", RULE_MIN},  {"until_s", RULE_MAX},
    {"backoff_s", RULE_MAX},  {"suspended_s", RULE_MAX}, {"age_s", RULE_MAX},
    {"due_in_s", RULE_MIN},   {"epoch", RULE_FIRST},     {"number", RULE_FIRST},
    {"position", RULE_FIRST}, {"index", RULE_FIRST},     {"weight", RULE_FIRST},
};
/* Objects that hold settings: equal everywhere, so adding them would lie. */
static const char *const settings[] = {"limits", "config"};

static enum number_rule rule_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(number_rules); i++) {
        if (strcmp(number_rules[i].name, name) == 0)
            return number_rules[i].rule;
    }
    return RULE_SUM;
}

static bool is_settings(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(settings); i++) {
        if (strcmp(settings[i], name) == 0)
            return true;
    }
    return false;
}

/* Integers stay integers; a sum beyond 63 bits (no worker counts that far) is pinned to the end. */
static json_t *number_merged(const char *name, const json_t *a, const json_t *b)
{
    enum number_rule rule = rule_of(name);
    if (rule == RULE_FIRST)
        return json_deep_copy(a);
    double x = json_number_value(a);
    double y = json_number_value(b);
    if (rule == RULE_MAX)
        return json_deep_copy(x >= y ? a : b);
    if (rule == RULE_MIN)
        return json_deep_copy(x <= y ? a : b);
    if (!json_is_integer(a) || !json_is_integer(b))
        return json_real(x + y);
    json_int_t sum;
    if (__builtin_add_overflow(json_integer_value(a), json_integer_value(b), &sum))
        sum = INT64_MAX;
    return json_integer(sum);
}

/*
 * What a row is merged by: its key; or, for rows about a domain as a whole (no lane, no message),
 * domain and reason. NULL: it stands for itself.
 */
static const char *key_of(const json_t *row, char buffer[KEY_BYTES])
{
    const char *key = json_string_value(json_object_get(row, "key"));
    const char *domain = json_string_value(json_object_get(row, "domain"));
    const char *reason = json_string_value(json_object_get(row, "reason"));
    bool whole = json_object_get(row, "lane") == NULL && json_object_get(row, "id") == NULL;
    if (key != NULL || domain == NULL || reason == NULL || !whole)
        return key;
    (void)snprintf(buffer, KEY_BYTES, "%s %s", domain, reason);
    return buffer;
}

/*
 * Rows of a big answer (10,000 sites of 64 workers) would make a search per row quadratic, so the
 * rows already there are found through an object {key: row} that lives as long as this call.
 */
static json_t *index_rows(json_t *rows)
{
    json_t *index = json_object();
    size_t i;
    json_t *row;
    if (index == NULL)
        return NULL;
    json_array_foreach(rows, i, row)
    {
        char buffer[KEY_BYTES];
        const char *key = key_of(row, buffer);
        if (key != NULL && json_object_set(index, key, row) < 0) {
            json_decref(index);
            return NULL;
        }
    }
    return index;
}

static int merge_array(json_t *into, json_t *from)
{
    json_t *index = index_rows(into);
    size_t i;
    json_t *row;
    int r = index != NULL ? 0 : -ENOMEM;

    json_array_foreach(from, i, row)
    {
        if (r < 0)
            break;
        char buffer[KEY_BYTES];
        const char *key = key_of(row, buffer);
        json_t *same = key != NULL ? json_object_get(index, key) : NULL;
        if (same != NULL)
            r = merge_object(same, row, true);
        else if (json_array_append(into, row) < 0)
            r = -ENOMEM;
    }
    json_decref(index);
    return r;
}

static int merge_field(json_t *into, const char *name, json_t *value, bool sums)
{
    json_t *have = json_object_get(into, name);
    if (have == NULL)
        return json_object_set(into, name, value) < 0 ? -ENOMEM : 0;
    if (json_is_array(have) && json_is_array(value))
        return merge_array(have, value);
    if (json_is_object(have) && json_is_object(value) && !is_settings(name))
        return merge_object(have, value, sums);
    if (sums && json_is_number(have) && json_is_number(value)) {
        json_t *merged = number_merged(name, have, value);
        return json_object_set_new(into, name, merged) < 0 ? -ENOMEM : 0;
    }
    return 0;
}

int merge_object(json_t *into, json_t *from, bool sums)
{
    const char *name;
    json_t *value;
    MUST(json_is_object(into));
    if (!json_is_object(from))
        return 0;
    json_object_foreach(from, name, value)
    {
        int r = merge_field(into, name, value, sums);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Most first: queued entries, then age; by name where both are equal. */
static int by_weight(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a;
    const json_t *y = *(json_t *const *)b;
    static const char *const fields[] = {"queued", "age_s"};
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        double p = json_number_value(json_object_get(x, fields[i]));
        double q = json_number_value(json_object_get(y, fields[i]));
        if (p > q || p < q)
            return p > q ? -1 : 1;
    }
    const char *k = json_string_value(json_object_get(x, "key"));
    const char *l = json_string_value(json_object_get(y, "key"));
    return strcmp(k != NULL ? k : "", l != NULL ? l : "");
}

/* Sorts the rows, keeps `limit` of them and says in "rows_cut" how many were left out. */
static int sort_rows(json_t *root, uint32_t limit)
{
    json_t *rows = json_object_get(root, "rows");
    size_t n = json_array_size(rows);
    if (n == 0)
        return 0;
    json_t **order = calloc(n, sizeof(json_t *));
    json_t *sorted = json_array();
    if (order == NULL || sorted == NULL)
        goto no_memory;
    for (size_t i = 0; i < n; i++)
        order[i] = json_array_get(rows, i);
    qsort(order, n, sizeof(json_t *), by_weight);
    size_t keep = limit > 0 && n > limit ? limit : n;
    for (size_t i = 0; i < keep; i++) {
        if (json_array_append(sorted, order[i]) < 0)
            goto no_memory;
    }
    free(order);
    if (keep < n &&
        json_object_set_new(root, "rows_cut", json_integer((json_int_t)(n - keep))) < 0) {
        json_decref(sorted);
        return -ENOMEM;
    }
    return json_object_set_new(root, "rows", sorted) < 0 ? -ENOMEM : 0;

no_memory:
    free(order);
    json_decref(sorted);
    return -ENOMEM;
}

/* The merge under way. */
struct state {
    json_t *root;   /* successful answers */
    json_t *errors; /* [{"slot", "status", "error"}] */
    json_t *missing;
    int error_status; /* of the first error; one that is not 404 wins over 404 */
    char error[512];
    unsigned good;
};

/* 503 and 504 come from the master in the place of a worker that could not answer. */
static bool is_absent(int status)
{
    return status == 503 || status == 504;
}

static int add_error(struct state *s, const struct merge_part *part, const json_t *body)
{
    const char *text = json_string_value(json_object_get(body, "error"));
    if (text == NULL)
        text = "the worker gave no reason";
    if (s->error_status == 0 || (s->error_status == 404 && part->status != 404)) {
        s->error_status = part->status;
        (void)snprintf(s->error, sizeof s->error, "%s", text);
    }
    if (part->status == 404)
        return 0;
    if (is_absent(part->status) && json_array_append_new(s->missing, json_integer(part->slot)) < 0)
        return -ENOMEM;
    json_t *e = json_pack("{s:i, s:i, s:s}", "slot", (int)part->slot, "status", part->status,
                          "error", text);
    return json_array_append_new(s->errors, e) < 0 ? -ENOMEM : 0;
}

static int add_part(struct state *s, const struct merge_part *part, bool sums)
{
    json_error_t where;
    json_t *body = NULL;
    int r = 0;

    if (part->complete)
        body = json_loadb((const char *)part->body.p, part->body.n, JSON_ALLOW_NUL, &where);
    if (!json_is_object(body)) {
        r = json_array_append_new(s->missing, json_integer(part->slot)) < 0 ? -ENOMEM : 0;
    } else if (part->status >= 300) {
        r = add_error(s, part, body);
    } else {
        s->good++;
        r = merge_object(s->root, body, sums);
    }
    json_decref(body);
    return r;
}

static int add_silent(struct state *s, const struct merge_part *parts, unsigned count,
                      uint32_t workers)
{
    for (uint32_t slot = 0; slot < workers; slot++) {
        bool said = false;
        for (unsigned i = 0; i < count; i++)
            said = said || parts[i].slot == slot;
        if (!said && json_array_append_new(s->missing, json_integer(slot)) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Moves what is left of the state into the answer. */
static int close_state(struct state *s, const struct merge_how *how, struct answer *out)
{
    int status = 200;

    if (how->late != NULL) {
        status = 504;
        if (json_object_set_new(s->root, "error", json_string(how->late)) < 0)
            return -ENOMEM;
    } else if (s->good == 0 && s->error_status != 0) {
        status = s->error_status;
        if (json_object_set_new(s->root, "error", json_string(s->error)) < 0)
            return -ENOMEM;
    } else if (s->good == 0) {
        status = 503;
        if (json_object_set_new(s->root, "error",
                                json_string("no worker answered: see `mochila status`")) < 0)
            return -ENOMEM;
    }
    if (json_array_size(s->missing) > 0 && json_object_set(s->root, "missing", s->missing) < 0)
        return -ENOMEM;
    if (json_array_size(s->errors) > 0 && json_object_set(s->root, "errors", s->errors) < 0)
        return -ENOMEM;
    int r = sort_rows(s->root, how->row_limit);
    if (r < 0)
        return r;
    answer_json(out, status, json_incref(s->root));
    return 0;
}

void merge_parts(const struct merge_part *parts, unsigned count, const struct merge_how *how,
                 struct answer *out)
{
    struct state s = {.root = json_object(), .errors = json_array(), .missing = json_array()};
    int r = s.root != NULL && s.errors != NULL && s.missing != NULL ? 0 : -ENOMEM;

    for (unsigned i = 0; i < count && r == 0; i++)
        r = add_part(&s, &parts[i], how->sums);
    if (r == 0)
        r = add_silent(&s, parts, count, how->workers);
    if (r == 0)
        r = close_state(&s, how, out);
    if (r < 0)
        answer_error(out, 500, "no memory to merge the answers of %u workers", count);
    json_decref(s.root);
    json_decref(s.errors);
    json_decref(s.missing);
}
