/* run - asking the node and explaining what goes wrong; see cli.h. */
#include "ctl/cli.h"

#include "base/text.h"
#include "config/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ERRORS_TEXT_BYTES = 16 << 10 };

static const char socket_preset[] = "/run/mochila/api.sock";

int cli_fail(int status, const char *fmt, ...)
{
    char line[1024];
    struct view v = {.out = stderr};
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    (void)fflush(stdout);
    fputs("mochila: ", stderr);
    view_put(&v, line);
    fputc('\n', stderr);
    return status;
}

/* api.socket of the file given with -f. */
static int socket_from_config(struct cli *c)
{
    char errors_text[ERRORS_TEXT_BYTES];
    struct text errors = text_of(errors_text, sizeof errors_text);
    struct config *config;
    if (config_load_file(c->config, &errors, &config) < 0) {
        fputs(errors_text, stderr);
        return CLI_BAD_CONFIG;
    }
    c->socket_of_config = strdup(config->api.socket);
    config_free(&config);
    return c->socket_of_config != NULL ? 0 : cli_fail(CLI_ERROR, "no memory");
}

int cli_connect(struct cli *c)
{
    const char *path = c->socket;
    if (c->client != NULL)
        return 0;
    if (path == NULL && c->config != NULL) {
        int r = socket_from_config(c);
        if (r != 0)
            return r;
        path = c->socket_of_config;
    }
    if (path == NULL)
        path = getenv("MOCHILA_SOCKET");
    if (path == NULL || path[0] == '\0')
        path = socket_preset;
    c->client = client_create(path);
    return c->client != NULL ? 0 : cli_fail(CLI_ERROR, "no memory");
}

bool cli_note_missing(const json_t *answer)
{
    const json_t *missing = json_object_get(answer, "missing");
    size_t i;
    const json_t *slot;
    if (json_array_size(missing) == 0)
        return false;
    (void)fflush(stdout);
    fputs("mochila: no answer from worker", stderr);
    json_array_foreach(missing, i, slot)
    {
        fprintf(stderr, "%s %lld", i > 0 ? "," : "", (long long)json_integer_value(slot));
    }
    fputs(": the figures are without it\n", stderr);
    return true;
}

/* The node's text, which may have lines: a refused reload lists every error of the file. */
static void put_error(const char *text)
{
    struct view v = {.out = stderr};
    (void)fflush(stdout);
    for (bool first = true; *text != '\0'; first = false) {
        size_t n = strcspn(text, "\n");
        fputs(first ? "mochila: " : "  ", stderr);
        view_put_span(&v, span_of(text, n));
        fputc('\n', stderr);
        text += n + (text[n] == '\n' ? 1 : 0);
    }
}

/* The reply is an error: explain it, and show what arrived all the same. */
static int explain(struct cli *c, struct reply *r)
{
    int status = r->status == 404 ? CLI_NOT_FOUND : CLI_ERROR;
    const char *text = json_word(r->json, "error", NULL);
    if (c->json && r->body != NULL)
        fputs(r->body, stdout);
    if (text != NULL)
        put_error(text);
    else
        (void)cli_fail(status, "the node answered with HTTP status %d", r->status);
    if (text != NULL && c->command->advise != NULL)
        c->command->advise(c, text);
    bool rows = json_object_get(r->json, "rows") != NULL;
    if (!c->json && r->status == 504 && rows && c->command->render != NULL) {
        (void)c->command->render(c, r->json);
        (void)cli_note_missing(r->json);
    }
    return status;
}

int cli_ask(struct cli *c, const struct call *call, struct reply *out)
{
    char error[CLIENT_ERROR_BYTES];
    int r = cli_connect(c);
    if (r != 0)
        return r;
    r = client_call(c->client, call, out, error);
    if (r == -ECONNREFUSED || r == -EACCES)
        return cli_fail(CLI_NOT_RUNNING, "%s", error);
    if (r < 0)
        return cli_fail(CLI_ERROR, "%s", error);
    if (out->status >= 400)
        r = explain(c, out);
    else if (out->json == NULL)
        r = cli_fail(CLI_ERROR, "the node's answer is no JSON object");
    if (r != 0)
        reply_free(out);
    return r;
}

int run_verb(struct cli *c)
{
    struct reply reply;
    int r = cli_ask(c, &c->call, &reply);
    if (r != 0)
        return r;
    if (c->json)
        fputs(reply.body, stdout);
    else
        r = c->command->render(c, reply.json);
    /* Half an answer is no success: a script that adds up must notice. */
    if (cli_note_missing(reply.json) && r == 0)
        r = CLI_ERROR;
    reply_free(&reply);
    return r;
}
