/* client - see client.h. */
#include "ctl/client.h"

#include "proto/verb.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_S = 5, SLACK_S = 5, URL_BYTES = 256 };

struct client {
    CURL *curl;
    char *path;
};

struct client *client_create(const char *socket_path)
{
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(c);
        return NULL;
    }
    c->curl = curl_easy_init();
    c->path = strdup(socket_path);
    if (c->curl == NULL || c->path == NULL)
        client_destroy(&c);
    return c;
}

void client_destroy(struct client **c)
{
    if (*c == NULL)
        return;
    if ((*c)->curl != NULL)
        curl_easy_cleanup((*c)->curl);
    free((*c)->path);
    free(*c);
    *c = NULL;
    curl_global_cleanup();
}

void call_set(struct call *c, const char *key, const char *value)
{
    for (unsigned i = 0; i < c->count; i++) {
        if (strcmp(c->args[i].key, key) == 0) {
            c->args[i].value = value;
            return;
        }
    }
    MUST(c->count < CALL_ARGS_MAX);
    c->args[c->count++] = (struct call_arg){key, value};
}

const char *call_get(const struct call *c, const char *key)
{
    for (unsigned i = 0; i < c->count; i++) {
        if (strcmp(c->args[i].key, key) == 0)
            return c->args[i].value;
    }
    return NULL;
}

void reply_free(struct reply *r)
{
    free(r->body);
    json_decref(r->json);
    *r = (struct reply){0};
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct reply *r = ctx;
    size_t n = size * count;
    if (n > CLIENT_BODY_BYTES_MAX - r->n)
        return 0;
    char *bigger = realloc(r->body, r->n + n + 1);
    if (bigger == NULL)
        return 0;
    memcpy(bigger + r->n, data, n);
    r->body = bigger;
    r->n += n;
    r->body[r->n] = '\0';
    return n;
}

/* "key=value&..." url-encoded, malloc'd; NULL without memory. */
static char *encode(struct client *c, const struct call *call)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    bool ok = f != NULL;
    for (unsigned i = 0; ok && i < call->count; i++) {
        const char *value = call->args[i].value;
        char *escaped = curl_easy_escape(c->curl, value, (int)strlen(value));
        ok = escaped != NULL;
        if (ok)
            fprintf(f, "%s%s=%s", i > 0 ? "&" : "", call->args[i].key, escaped);
        curl_free(escaped);
    }
    if (f != NULL && fclose(f) != 0)
        ok = false;
    if (!ok) {
        free(out);
        return NULL;
    }
    return out;
}

static long seconds_of(const struct verb *v, const struct call *call)
{
    const char *more = call_get(call, "seconds");
    long seconds = (long)v->seconds + SLACK_S;
    return more != NULL ? seconds + strtol(more, NULL, 10) : seconds;
}

static int explain(struct client *c, CURLcode code, long seconds, char error[CLIENT_ERROR_BYTES])
{
    long os_errno = 0;
    (void)curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &os_errno);
    if (code == CURLE_COULDNT_CONNECT && os_errno == EACCES) {
        (void)snprintf(error, CLIENT_ERROR_BYTES,
                       "no permission to use %s: it takes the user or the group of the node",
                       c->path);
        return -EACCES;
    }
    if (code == CURLE_COULDNT_CONNECT) {
        (void)snprintf(error, CLIENT_ERROR_BYTES,
                       "no mochila node answers at %s: is it running? (mochilad -f ...)", c->path);
        return -ECONNREFUSED;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        (void)snprintf(error, CLIENT_ERROR_BYTES,
                       "the node at %s gave no answer within %ld seconds", c->path, seconds);
        return -ETIMEDOUT;
    }
    (void)snprintf(error, CLIENT_ERROR_BYTES, "talking to %s failed: %s", c->path,
                   curl_easy_strerror(code));
    return -EIO;
}

static void prepare(struct client *c, const char *url, const char *post, long seconds,
                    struct reply *out)
{
    curl_easy_reset(c->curl);
    (void)curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->path);
    (void)curl_easy_setopt(c->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http");
    (void)curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, seconds);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, out);
    if (post != NULL)
        (void)curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, post);
}

int client_call(struct client *c, const struct call *call, struct reply *out,
                char error[CLIENT_ERROR_BYTES])
{
    const struct verb *v = verb_find(call->verb);
    MUST(v != NULL);
    *out = (struct reply){0};
    char *form = encode(c, call);
    size_t url_bytes = URL_BYTES + (form != NULL ? strlen(form) : 0);
    char *url = form != NULL ? malloc(url_bytes) : NULL;
    if (url == NULL) {
        free(form);
        (void)snprintf(error, CLIENT_ERROR_BYTES, "no memory");
        return -ENOMEM;
    }
    bool in_url = !v->changes && form[0] != '\0';
    (void)snprintf(url, url_bytes, "http://localhost/v1/%s%s%s", v->name, in_url ? "?" : "",
                   in_url ? form : "");
    long seconds = seconds_of(v, call);
    prepare(c, url, v->changes ? form : NULL, seconds, out);
    CURLcode code = curl_easy_perform(c->curl);
    int r = 0;
    if (code != CURLE_OK) {
        r = explain(c, code, seconds, error);
        reply_free(out);
    } else {
        long status = 0;
        json_error_t where;
        (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
        out->status = (int)status;
        if (out->body != NULL)
            out->json = json_loadb(out->body, out->n, JSON_ALLOW_NUL, &where);
    }
    free(url);
    free(form);
    return r;
}
