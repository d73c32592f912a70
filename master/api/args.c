/* args - see args.h. */
#include "master/api/args.h"

#include "base/suggest.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int refuse(char error[ARGS_ERROR_BYTES], const char *fmt, ...) PRINTF_LIKE(2, 3);
static int refuse(char error[ARGS_ERROR_BYTES], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(error, ARGS_ERROR_BYTES, fmt, args);
    va_end(args);
    return -EINVAL;
}

void args_free(struct args *a)
{
    for (unsigned i = 0; i < a->count; i++)
        free(a->item[i]);
    *a = (struct args){0};
}

static bool key_is_sane(struct span key)
{
    if (key.n == 0 || key.n > ARGS_KEY_BYTES)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        bool letter = key.p[i] >= 'a' && key.p[i] <= 'z';
        if (!letter && key.p[i] != '_')
            return false;
    }
    return true;
}

/* Text without control characters; UTF-8, since addresses may be (RFC 6531). */
static bool value_is_sane(struct span value)
{
    while (value.n > 0) {
        size_t n = utf8_sequence(value);
        if (n == 0 || value.p[0] < 0x20 || value.p[0] == 0x7f)
            return false;
        value.p += n;
        value.n -= n;
    }
    return true;
}

/* The value of an item whose key has exactly these bytes, or NULL. */
static const char *value_of(const char *item, struct span key)
{
    bool same = strncmp(item, (const char *)key.p, key.n) == 0 && item[key.n] == '=';
    return same ? item + key.n + 1 : NULL;
}

int args_add(struct args *a, struct span key, struct span value, char error[ARGS_ERROR_BYTES])
{
    if (!key_is_sane(key))
        return refuse(error, "the name of an argument is 1..%d of a-z and _", ARGS_KEY_BYTES);
    if (value.n > ARGS_VALUE_BYTES)
        return refuse(error, "the value of %.*s is longer than %d bytes", (int)key.n, key.p,
                      ARGS_VALUE_BYTES);
    if (!value_is_sane(value))
        return refuse(error, "the value of %.*s is not UTF-8 text without control characters",
                      (int)key.n, key.p);
    if (a->count == ARGS_MAX)
        return refuse(error, "more than %d arguments", ARGS_MAX);
    for (unsigned i = 0; i < a->count; i++) {
        if (value_of(a->item[i], key) != NULL)
            return refuse(error, "%.*s is given twice", (int)key.n, key.p);
    }
    char *item = malloc(key.n + 1 + value.n + 1);
    if (item == NULL) {
        (void)refuse(error, "no memory");
        return -ENOMEM;
    }
    memcpy(item, key.p, key.n);
    item[key.n] = '=';
    if (value.n > 0)
        memcpy(item + key.n + 1, value.p, value.n);
    item[key.n + 1 + value.n] = '\0';
    a->item[a->count++] = item;
    return 0;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Writes the decoded form into out (at least s.n bytes); bytes written, or -EINVAL. */
static ssize_t url_decode(struct span s, uint8_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (c == '+')
            c = ' ';
        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return -EINVAL;
            c = (uint8_t)(high * 16 + low);
            i += 2;
        }
        out[n++] = c;
    }
    return (ssize_t)n;
}

static int add_pair(struct args *a, struct span pair, char error[ARGS_ERROR_BYTES])
{
    uint8_t key[3 * ARGS_KEY_BYTES];
    uint8_t value[3 * ARGS_VALUE_BYTES];
    const uint8_t *equals = memchr(pair.p, '=', pair.n);
    size_t key_n = equals != NULL ? (size_t)(equals - pair.p) : pair.n;
    struct span raw = span_of(pair.p + key_n, pair.n - key_n);

    if (raw.n > 0)
        raw = span_of(raw.p + 1, raw.n - 1);
    if (key_n > sizeof key || raw.n > sizeof value)
        return refuse(error, "an argument of the form is too long");
    ssize_t kn = url_decode(span_of(pair.p, key_n), key);
    ssize_t vn = url_decode(raw, value);
    if (kn < 0 || vn < 0)
        return refuse(error, "the form is not url-encoded: %% wants two hexadecimal digits");
    return args_add(a, span_of(key, (size_t)kn), span_of(value, (size_t)vn), error);
}

int args_add_form(struct args *a, struct span body, char error[ARGS_ERROR_BYTES])
{
    while (body.n > 0) {
        const uint8_t *end = memchr(body.p, '&', body.n);
        size_t n = end != NULL ? (size_t)(end - body.p) : body.n;
        int r = n > 0 ? add_pair(a, span_of(body.p, n), error) : 0;
        if (r < 0)
            return r;
        size_t step = n < body.n ? n + 1 : n;
        body = span_of(body.p + step, body.n - step);
    }
    return 0;
}

static int add_json_value(struct args *a, const char *key, const json_t *value,
                          char error[ARGS_ERROR_BYTES])
{
    char number[32];
    switch (json_typeof(value)) {
    case JSON_STRING:
        return args_add(a, span_str(key),
                        span_of(json_string_value(value), json_string_length(value)), error);
    case JSON_INTEGER:
        (void)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        return args_add(a, span_str(key), span_str(number), error);
    case JSON_TRUE:
        return args_add(a, span_str(key), span_str("1"), error);
    case JSON_FALSE:
        return args_add(a, span_str(key), span_str("0"), error);
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_REAL:
    case JSON_NULL:
        break;
    }
    return refuse(error, "the value of %.32s is neither a text nor an integer nor true or false",
                  key);
}

int args_add_json(struct args *a, struct span body, char error[ARGS_ERROR_BYTES])
{
    json_error_t where;
    json_t *root = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return refuse(error, "the body is not JSON: line %d, column %d: %s", where.line,
                      where.column, where.text);
    int r = 0;
    if (!json_is_object(root)) {
        r = refuse(error, "the body is JSON, but not one object {\"argument\": value, ...}");
    } else {
        const char *key;
        json_t *value;
        json_object_foreach(root, key, value)
        {
            r = add_json_value(a, key, value, error);
            if (r < 0)
                break;
        }
    }
    json_decref(root);
    return r;
}

/* "by, lane, site" of the arguments that the verb takes. */
static void list_args(const struct verb *v, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < VERB_ARGS_MAX && v->args[i] != NULL && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i > 0 ? ", " : "", v->args[i]);
}

static int refuse_unknown(const struct verb *v, const char *key, char error[ARGS_ERROR_BYTES])
{
    char known[ARGS_ERROR_BYTES / 2];
    const char *near = suggest_nearest(key, v->args, VERB_ARGS_MAX);
    if (near != NULL)
        return refuse(error, "%s takes no argument %s: did you mean %s?", v->name, key, near);
    if (v->args[0] == NULL)
        return refuse(error, "%s takes no arguments, but got %s", v->name, key);
    list_args(v, known, sizeof known);
    return refuse(error, "%s takes no argument %s; it takes %s", v->name, key, known);
}

/* Values that this side can judge; the others belong to who answers the verb. */
static int check_value(const char *key, const char *value, char error[ARGS_ERROR_BYTES])
{
    uint64_t n;
    if (verb_arg_is_filter(key) && value[0] == '\0')
        return refuse(error, "%s= is empty: leave it out, or say what to select", key);
    if (strcmp(key, "limit") == 0) {
        if (span_to_u64(span_str(value), &n) < 0 || n < 1 || n > VERB_LIMIT_MAX)
            return refuse(error, "limit is a number from 1 to %d, not \"%.40s\"", VERB_LIMIT_MAX,
                          value);
    }
    if (strcmp(key, "seconds") == 0) {
        if (span_to_u64(span_str(value), &n) < 0 || n > ARGS_SECONDS_MAX)
            return refuse(error, "seconds is a number from 0 to %d, not \"%.40s\"",
                          ARGS_SECONDS_MAX, value);
    }
    return 0;
}

/* Every argument is known to the verb and has a value that makes sense. */
static int check_each(const struct args *a, const struct verb *v, bool *filtered,
                      char error[ARGS_ERROR_BYTES])
{
    for (unsigned i = 0; i < a->count; i++) {
        char key[ARGS_KEY_BYTES + 1];
        size_t n = strcspn(a->item[i], "=");
        (void)snprintf(key, sizeof key, "%.*s", (int)n, a->item[i]);
        if (!verb_takes(v, key))
            return refuse_unknown(v, key, error);
        int r = check_value(key, a->item[i] + n + 1, error);
        if (r < 0)
            return r;
        *filtered = *filtered || verb_arg_is_filter(key);
    }
    return 0;
}

int args_check(const struct args *a, const struct verb *v, char error[ARGS_ERROR_BYTES])
{
    char known[ARGS_ERROR_BYTES / 2];
    bool filtered = false;

    int r = check_each(a, v, &filtered, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < VERB_ARGS_MAX && v->required[i] != NULL; i++) {
        const char *value = args_get(a, v->required[i]);
        if (value == NULL || value[0] == '\0')
            return refuse(error, "%s needs the argument %s", v->name, v->required[i]);
    }
    const char *all = args_get(a, "all");
    bool wants_all = all != NULL && strcmp(all, "1") == 0;
    if (v->needs_a_filter && !filtered && !wants_all) {
        list_args(v, known, sizeof known);
        return refuse(error,
                      "%s without a filter would concern every message: say all=1 if that "
                      "is meant, or narrow it (%s)",
                      v->name, known);
    }
    return 0;
}

const char *args_get(const struct args *a, const char *key)
{
    for (unsigned i = 0; i < a->count; i++) {
        const char *value = value_of(a->item[i], span_str(key));
        if (value != NULL)
            return value;
    }
    return NULL;
}

uint64_t args_number(const struct args *a, const char *key, uint64_t preset, uint64_t max)
{
    const char *value = args_get(a, key);
    uint64_t n;
    if (value == NULL)
        return preset;
    if (span_to_u64(span_str(value), &n) < 0 || n > max)
        return max;
    return n;
}
