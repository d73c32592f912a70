/*
 * fuzz_config - any bytes as a configuration, or as an override on top of a good one.
 *
 * The first byte chooses. What loads must be shown, load again from that, and show the same: the
 * master hands it to its children in that form. What does not load must say why, line by line.
 */
#include "base/text.h"
#include "config/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SHOWN_BYTES = 1 << 20 };

static char errors[CONFIG_ERRORS_BYTES];
static char once[SHOWN_BYTES], twice[SHOWN_BYTES];

static const char good[] = "node: a\nlisten: [{address: 0.0.0.0, port: 25}]\n"
                           "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: o.example.net}]}}\n"
                           "tenants: {x: {pool: p}}\nroutes: [{domain: \"*\", via: 192.0.2.1}]\n";

static void check_errors(const struct text *t)
{
    unsigned lines = 0;
    MUST(t->n > 0);
    for (size_t i = 0; i < t->n; i++) {
        lines += t->p[i] == '\n';
        MUST(t->p[i] == '\n' || (t->p[i] >= 0x20 && t->p[i] < 0x7f));
    }
    MUST(lines <= CONFIG_ERRORS_MAX + 1);
    MUST(t->cut || t->p[t->n - 1] == '\n');
}

/* Comments differ: they name the source. */
static void strip(char *p)
{
    char *to = p;
    while (*p != '\0') {
        char *end = strchr(p, '\n');
        char *comment = strstr(p, "  # ");
        size_t kept = (size_t)((comment != NULL && comment < end ? comment : end) - p);
        memmove(to, p, kept);
        to += kept;
        *to++ = '\n';
        p = end + 1;
    }
    *to = '\0';
}

static void show_again(const struct config_input *in)
{
    struct text e = text_of(errors, sizeof errors);
    struct text t = text_of(once, sizeof once);
    MUST(config_show(in, &e, &t) == 0);
    if (t.cut)
        return;
    const struct config_input shown = {.yaml = once, .n = t.n, .file = "shown"};
    struct text u = text_of(twice, sizeof twice);
    MUST(config_show(&shown, &e, &u) == 0);
    if (u.cut)
        return;
    strip(once);
    strip(twice);
    MUST(strcmp(once, twice) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct text t = text_of(errors, sizeof errors);
    struct config *c;
    char set[256];
    const char *sets = set;
    struct config_input in = {.yaml = (const char *)data, .n = n, .file = "f"};

    if (n > 1 && data[0] == '!') {
        size_t bytes = n - 1 < sizeof set - 1 ? n - 1 : sizeof set - 1;
        memcpy(set, data + 1, bytes);
        set[bytes] = '\0';
        in = (struct config_input){good, sizeof good - 1, "f", &sets, 1};
    }
    int rc = config_load_with(&in, &t, &c);
    if (rc < 0) {
        MUST(c == NULL);
        check_errors(&t);
        return 0;
    }
    MUST(t.n == 0);
    (void)config_route_for(c, span_of(data, n < 300 ? n : 300));
    config_free(&c);
    show_again(&in);
    return 0;
}
