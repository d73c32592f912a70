#include "worker/admin_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

enum { PIECE_BYTES = 48 << 10, TASKS_MAX = 64 };

int admin_create(struct admin **out, struct worker *w)
{
    struct admin *a = calloc(1, sizeof *a);
    if (a == NULL)
        return -ENOMEM;
    a->worker = w;
    *out = a;
    return 0;
}

struct queue *task_queue(const struct task *t)
{
    return &t->admin->worker->queue;
}

static void task_free(struct task *t)
{
    task_queue(t)->domains_pinned--;
    free(t->groups);
    table_fini(&t->group_by_key);
    free(t->sample);
    free(t->sample_ids);
    json_decref(t->rows);
    free(t);
}

void admin_destroy(struct admin **a)
{
    if (*a == NULL)
        return;
    while ((*a)->tasks != NULL) {
        struct task *t = (*a)->tasks;
        (*a)->tasks = t->next;
        task_free(t);
    }
    free(*a);
    *a = NULL;
}

static void send_pieces(struct admin *a, uint64_t id, int status, struct span body)
{
    do {
        size_t n = body.n < PIECE_BYTES ? body.n : PIECE_BYTES;
        struct control_frame f = {.kind = CONTROL_ANSWER,
                                  .id = id,
                                  .slot = a->worker->slot,
                                  .status = status,
                                  .last = n == body.n,
                                  .body = malloc(n + 1),
                                  .body_bytes = n};
        if (f.body == NULL)
            return;
        memcpy(f.body, body.p, n);
        control_link_send(a->worker, &f);
        free(f.body);
        body = span_of(body.p + n, body.n - n);
    } while (body.n > 0);
}

void task_answer(struct task *t, int status, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    send_pieces(t->admin, t->id, status,
                text != NULL ? span_str(text) : span_str("{\"error\":\"out of memory\"}"));
    free(text);
    t->step = NULL; /* over */
}

void task_fail(struct task *t, int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    task_answer(t, status, json_pack("{s:s}", "error", text));
}

static void run_queue(struct task *t, const struct control_frame *f)
{
    static const struct {
        const char *word;
        enum group_by by;
    } kinds[] = {{"site", BY_SITE},     {"lane", BY_LANE},     {"tenant", BY_TENANT},
                 {"domain", BY_DOMAIN}, {"reason", BY_REASON}, {"message", BY_MESSAGE}};
    const char *by = control_arg(f, "by");
    t->by = BY_SITE;
    for (size_t i = 0; by != NULL && i <= ARRAY_COUNT(kinds); i++) {
        if (i == ARRAY_COUNT(kinds)) {
            task_fail(t, 400, "by=%s: expected site, lane, tenant, domain, reason or message", by);
            return;
        }
        if (strcmp(by, kinds[i].word) == 0) {
            t->by = kinds[i].by;
            break;
        }
    }
    t->step = admin_queue_step;
}

static void run_change(struct task *t, const struct control_frame *f)
{
    const char *preview = control_arg(f, "preview");
    t->preview = preview != NULL && strcmp(preview, "0") != 0;
    t->limit = 10;
    t->step = admin_change_step;
}

static void run_show(struct task *t, const struct control_frame *f)
{
    if (!t->filter.any_id && !t->filter.nothing) {
        const char *headers = control_arg(f, "headers");
        const char *body = control_arg(f, "body");
        t->want_headers = headers == NULL || strcmp(headers, "0") != 0;
        t->want_body = body != NULL && strcmp(body, "0") != 0;
        t->step = admin_show_step;
        return;
    }
    task_fail(t, 400, "show needs id=<message id>");
}

static void run_why(struct task *t, const struct control_frame *f)
{
    const char *what = control_arg(f, "what");
    if (what == NULL)
        task_fail(t, 400, "why needs what=<domain, address, message id or lane>");
    else
        admin_why(t, what);
}

static void run_ledger(struct task *t, const struct control_frame *f)
{
    (void)f;
    admin_ledger(t);
}

static void run_flows(struct task *t, const struct control_frame *f)
{
    (void)f;
    admin_flows(t);
}

static const struct {
    const char *verb;
    void (*run)(struct task *t, const struct control_frame *f);
} verbs[] = {
    {"queue", run_queue},   {"why", run_why},     {"show", run_show},   {"retry", run_change},
    {"delete", run_change}, {"ledger", run_ledger}, {"sites", run_flows}, {"lanes", run_flows},
};

static void read_limit(struct task *t, const struct control_frame *f)
{
    uint64_t n;
    const char *limit = control_arg(f, "limit");
    t->limit = ADMIN_ROWS_PRESET;
    if (limit != NULL && span_to_u64(span_str(limit), &n) == 0 && n > 0)
        t->limit = n > ADMIN_ROWS_MAX ? ADMIN_ROWS_MAX : (uint32_t)n;
}

void admin_query(struct admin *a, const struct control_frame *f)
{
    uint32_t open = 0;
    for (const struct task *t = a->tasks; t != NULL; t = t->next)
        open++;
    struct task *t = open < TASKS_MAX ? calloc(1, sizeof *t) : NULL;
    if (t == NULL) {
        send_pieces(a, f->id, 503, span_str("{\"error\":\"too many questions at once\"}"));
        return;
    }
    t->admin = a;
    t->id = f->id;
    t->cursor = 1;
    snprintf(t->verb, sizeof t->verb, "%s", f->verb);
    t->next = a->tasks;
    a->tasks = t;
    task_queue(t)->domains_pinned++;
    read_limit(t, f);
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (strcmp(f->verb, verbs[i].verb) != 0)
            continue;
        if (filter_read(t, f))
            verbs[i].run(t, f);
        return;
    }
    task_fail(t, 404, "a worker does not know \"%s\"", f->verb);
}

bool admin_turn(struct admin *a)
{
    bool busy = false;
    for (struct task **at = &a->tasks; *at != NULL;) {
        struct task *t = *at;
        if (t->step != NULL && !t->reading)
            t->step(t);
        if (t->step == NULL && !t->reading) {
            *at = t->next;
            task_free(t);
            continue;
        }
        busy = busy || !t->reading;
        at = &t->next;
    }
    return busy;
}
