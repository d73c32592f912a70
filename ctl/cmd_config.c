/* cmd_config - check, show config, show keys: no node is needed. */
#include "ctl/cmd.h"

#include "base/text.h"
#include "config/config.h"
#include "config/keys.h"

#include <stdlib.h>
#include <string.h>

enum { ERRORS_BYTES = 64 << 10, SHOW_BYTES = 4 << 20 };

static const char file_preset[] = "/etc/mochila/mochila.yaml";

static const char *file_of(const struct cli *c)
{
    if (c->words[0] != NULL)
        return c->words[0];
    return c->config != NULL ? c->config : file_preset;
}

/* One error a line; what they quote comes from a file that may hold anything. */
static void put_errors(const struct text *errors)
{
    struct view v = {.out = stderr};
    struct span s = text_span(errors);
    while (s.n > 0) {
        const uint8_t *end = memchr(s.p, '\n', s.n);
        size_t n = end != NULL ? (size_t)(end - s.p) : s.n;
        size_t step = n < s.n ? n + 1 : n;
        view_put_span(&v, span_of(s.p, n));
        fputc('\n', stderr);
        s = span_of(s.p + step, s.n - step);
    }
}

/* Loads and reports; 0 with *out, or CLI_BAD_CONFIG after printing every error. */
static int load(const char *file, struct config **out)
{
    char *text = malloc(ERRORS_BYTES);
    if (text == NULL)
        return cli_fail(CLI_ERROR, "no memory");
    struct text errors = text_of(text, ERRORS_BYTES);
    int r = config_load_file(file, &errors, out) < 0 ? CLI_BAD_CONFIG : 0;
    if (r != 0)
        put_errors(&errors);
    free(text);
    return r;
}

int run_check(struct cli *c)
{
    struct config *config;
    const char *file = file_of(c);
    int r = load(file, &config);
    if (r != 0)
        return r;
    if (c->json)
        printf("{\"ok\":true,\"listeners\":%u,\"pools\":%u,\"lanes\":%u,\"tenants\":%u,"
               "\"routes\":%u}\n",
               config->listener_count, config->pool_count, config->lane_count, config->tenant_count,
               config->route_count);
    else
        printf("%s: good: node %s, listeners %u, pools %u, lanes %u, tenants %u, routes %u\n", file,
               config->node, config->listener_count, config->pool_count, config->lane_count,
               config->tenant_count, config->route_count);
    config_free(&config);
    return CLI_OK;
}

/* Fills `errors` and `shown`; 0 or CLI_BAD_CONFIG. */
static int show_file(const char *file, struct text *errors, struct text *shown)
{
    char *yaml = NULL;
    size_t n = 0;
    int r = config_read_file(file, errors, &yaml, &n);
    if (r == 0) {
        struct config_input in = {.yaml = yaml, .n = n, .file = file};
        r = config_show(&in, errors, shown);
    }
    free(yaml);
    return r < 0 ? CLI_BAD_CONFIG : 0;
}

int run_show_config(struct cli *c)
{
    char *errors_text = malloc(ERRORS_BYTES);
    char *shown_text = malloc(SHOW_BYTES);
    int r;

    if (errors_text == NULL || shown_text == NULL) {
        r = cli_fail(CLI_ERROR, "no memory");
    } else {
        struct text errors = text_of(errors_text, ERRORS_BYTES);
        struct text shown = text_of(shown_text, SHOW_BYTES);
        r = show_file(file_of(c), &errors, &shown);
        if (r == 0)
            fputs(shown_text, stdout);
        else
            put_errors(&errors);
        if (shown.cut)
            r = cli_fail(CLI_ERROR, "there is more than %d MiB to show: cut", SHOW_BYTES >> 20);
    }
    free(errors_text);
    free(shown_text);
    return r;
}

int run_show_keys(struct cli *c)
{
    char *shown = malloc(SHOW_BYTES);
    (void)c;
    if (shown == NULL)
        return cli_fail(CLI_ERROR, "no memory");
    struct text out = text_of(shown, SHOW_BYTES);
    config_keys_print(&out);
    fputs(shown, stdout);
    free(shown);
    return CLI_OK;
}
