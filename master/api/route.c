/* route - see route.h. */
#include "master/api/route.h"

#include "base/text.h"
#include "master/api/control_link.h"
#include "master/api/events.h"
#include "master/api/trace.h"

#include <errno.h>
#include <string.h>

static const char prefix[] = "/v1/";

/* GET / : what there is to ask, for people with curl. */
static void serve_index(struct answer *out)
{
    size_t count;
    const struct verb *verbs = verb_table(&count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *args = json_array();
        for (size_t j = 0; j < VERB_ARGS_MAX && verbs[i].args[j] != NULL; j++)
            (void)json_array_append_new(args, json_string(verbs[i].args[j]));
        (void)json_array_append_new(
            list, json_pack("{s:s+, s:s, s:o}", "path", prefix, verbs[i].name, "method",
                            verbs[i].changes ? "POST" : "GET", "args", args));
    }
    answer_json(out, 200,
                json_pack("{s:s, s:s, s:o}", "program", "mochila", "version", MOCHILA_VERSION,
                          "verbs", list));
}

static void serve_metrics(const struct api *a, struct answer *out)
{
    size_t n = 0;
    char *body = pages_metrics(&a->pages, clock_ns(), &n);
    answer_take(out, 200, "text/plain; version=0.0.4; charset=utf-8", body, n);
}

static void serve_stats(const struct api *a, struct request *r)
{
    if (a->pages.count == 0)
        answer_error(&r->answer, 503, "the master has passed no counters yet: try again");
    else
        answer_json(&r->answer, 200, pages_stats(&a->pages, clock_ns()));
}

/* Event files are kept only with a log directory. */
static bool has_events(const struct api *a, struct request *r)
{
    if (a->config != NULL && a->config->log[0] != '\0')
        return true;
    answer_error(&r->answer, 404, "this node keeps no event files: set `log` to a directory");
    return false;
}

static void serve_trace(const struct api *a, struct request *r)
{
    const char *text = args_get(&r->args, "id");
    struct msg_id id;
    if (id_parse(span_str(text), &id) < 0) {
        answer_error(&r->answer, 400, "\"%s\" is not a message id: ids are %d letters and digits",
                     text, ID_TEXT);
        return;
    }
    if (!has_events(a, r))
        return;
    uint32_t limit = (uint32_t)args_number(&r->args, "limit", TRACE_EVENTS_MAX, TRACE_EVENTS_MAX);
    int e = trace_create(a->config->log, id, limit, clock_ms(), &r->trace);
    if (e < 0)
        answer_error(&r->answer, 500, "cannot read the event files in %s: %s", a->config->log,
                     strerror(-e));
    else
        r->wait = WAIT_TRACE;
}

static void serve_events(const struct api *a, struct request *r)
{
    if (has_events(a, r))
        events_answer(a->config->log, &r->args, &r->answer);
}

static const struct {
    const char *verb;
    void (*serve)(const struct api *a, struct request *r);
} own[] = {{"stats", serve_stats}, {"events", serve_events}, {"trace", serve_trace}};

static void serve_own(const struct api *a, struct request *r, const struct verb *v)
{
    for (size_t i = 0; i < ARRAY_COUNT(own); i++) {
        if (strcmp(own[i].verb, v->name) == 0) {
            own[i].serve(a, r);
            return;
        }
    }
    answer_error(&r->answer, 500, "%s is served nowhere", v->name);
}

static void ask_master(struct api *a, struct request *r, const struct verb *v)
{
    query_init(&r->query, a->next_id++, v, &r->args, clock_ms());
    int e = a->ended ? -EPIPE : control_link_ask(a, r);
    if (e == 0) {
        r->wait = WAIT_QUERY;
        return;
    }
    query_fini(&r->query);
    if (e == -EAGAIN)
        answer_error(&r->answer, 503, "the master is busy: try again");
    else if (e == -E2BIG)
        answer_error(&r->answer, 413, "the arguments are too long altogether");
    else
        answer_error(&r->answer, 503, "the master cannot be asked: %s", strerror(-e));
}

static void serve_verb(struct api *a, struct request *r, const struct verb *v)
{
    char error[ARGS_ERROR_BYTES];
    if (args_check(&r->args, v, error) < 0)
        answer_error(&r->answer, 400, "%s", error);
    else if (v->scope == VERB_API)
        serve_own(a, r, v);
    else
        ask_master(a, r, v);
}

static void refuse_method(struct request *r, const char *what, bool post)
{
    answer_error(&r->answer, 405, "%s wants %s", what, post ? "POST: it changes something" : "GET");
    r->answer.allow = post ? "POST" : "GET, HEAD";
}

static void refuse_path(struct request *r, const char *path)
{
    const char *name =
        strncmp(path, prefix, sizeof prefix - 1) == 0 ? path + sizeof prefix - 1 : path + 1;
    const char *near = verb_suggest(name);
    if (near != NULL)
        answer_error(&r->answer, 404, "there is no %.64s: did you mean %s%s?", path, prefix, near);
    else
        answer_error(&r->answer, 404, "there is no %.64s: GET / lists what there is", path);
}

void route_request(struct api *a, struct request *r, const char *method, const char *path)
{
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    bool post = strcmp(method, "POST") == 0;
    bool metrics = strcmp(path, "/metrics") == 0;
    const struct verb *v = NULL;

    if (strncmp(path, prefix, sizeof prefix - 1) == 0)
        v = verb_find(path + sizeof prefix - 1);
    if (metrics || strcmp(path, "/") == 0) {
        if (!get)
            refuse_method(r, path, false);
        else if (metrics)
            serve_metrics(a, &r->answer);
        else
            serve_index(&r->answer);
        return;
    }
    if (v == NULL)
        refuse_path(r, path);
    else if (v->changes ? !post : !get)
        refuse_method(r, path, v->changes);
    else
        serve_verb(a, r, v);
}
