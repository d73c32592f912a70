/*
 * config_support - what the tests of the configuration share: load a text, expect it to be right or
 * to give exactly these errors.
 */
#ifndef TESTS_UNIT_CONFIG_SUPPORT_H
#define TESTS_UNIT_CONFIG_SUPPORT_H

#include "base/text.h"
#include "config/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The least that loads; line 1 to 3. */
#define LEAST                                  \
    "node: a\n"                                \
    "listen: [{address: 0.0.0.0, port: 25}]\n" \
    "pools: {p: {home: a, lanes: [{address: 192.0.2.10, ehlo: Out10.example.net}]}}\n"

static char errors[CONFIG_ERRORS_BYTES];
static inline int load(const char *yaml, struct config **c)
{
    struct text t = text_of(errors, sizeof errors);
    return config_load(yaml, strlen(yaml), "f.yaml", &t, c);
}

static inline struct config *good(const char *yaml)
{
    struct config *c;
    int rc = load(yaml, &c);
    if (rc < 0)
        print_error("%s", errors);
    assert_int_equal(rc, 0);
    assert_string_equal(errors, "");
    return c;
}

static inline void bad(const char *yaml, const char *expected)
{
    struct config *c = (struct config *)errors;
    assert_int_equal(load(yaml, &c), -EINVAL);
    assert_null(c);
    assert_string_equal(errors, expected);
}

static inline int load_set(const char *yaml, const char *set, struct config **c)
{
    const struct config_input in = {yaml, strlen(yaml), "f.yaml", &set, 1};
    struct text t = text_of(errors, sizeof errors);
    return config_load_with(&in, &t, c);
}

/* The whole file as a string, malloc'ed. */
static inline char *slurp(const char *path)
{
    struct text t = text_of(errors, sizeof errors);
    char *yaml;
    size_t n;
    assert_int_equal(config_read_file(path, &t, &yaml, &n), 0);
    char *text = malloc(n + 1);
    assert_non_null(text);
    memcpy(text, yaml, n);
    text[n] = '\0';
    free(yaml);
    return text;
}

#endif
