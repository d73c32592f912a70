/* verbs - see verbs.h. */
#include "master/verbs.h"

#include "base/log.h"
#include "base/text.h"
#include "master/cluster.h"
#include "master/forward.h"
#include "master/holds.h"
#include "master/lifecycle.h"
#include "master/move/move.h"
#include "master/proc.h"
#include "proto/verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECE_BYTES = 48 << 10, AUDIT_PRESET = 100, AUDIT_MAX = 10000, ERRORS_BYTES = 16 << 10 };

void verbs_audit(struct master *m, const char *who, const char *what, const char *result)
{
    log_note("order who=%s what=\"%s\" result=\"%s\"", who, what, result);
    if (state_audit_add(m->state, who, what, result) < 0)
        log_err("the audit log could not be written");
}

void verbs_describe(const struct control_frame *f, char *out, size_t cap)
{
    struct text t = text_of(out, cap);
    text_puts(&t, f->verb);
    for (uint32_t i = 0; i < f->arg_count; i++) {
        text_putc(&t, ' ');
        text_put_clean(&t, span_str(f->args[i]));
    }
}

static void audit_order(struct master *m, const struct control_frame *f, const char *result)
{
    char what[VERBS_WHAT_BYTES];
    verbs_describe(f, what, sizeof what);
    verbs_audit(m, "api", what, result);
}

void verbs_answer_text(struct master *m, uint64_t id, int status, struct span text)
{
    size_t done = 0;
    do {
        size_t piece = text.n - done < PIECE_BYTES ? text.n - done : PIECE_BYTES;
        struct control_frame f = {.kind = CONTROL_ANSWER,
                                  .id = id,
                                  .status = status,
                                  .slot = CONTROL_NO_SLOT,
                                  .body = (uint8_t *)(uintptr_t)text.p + done,
                                  .body_bytes = piece};
        done += piece;
        f.last = done == text.n;
        proc_send(m->api, &f, NULL, 0);
    } while (done < text.n);
}

void verbs_answer(struct master *m, uint64_t id, int status, json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL)
        proc_answer_error(m->api, id, 500, "no memory for the answer");
    else
        verbs_answer_text(m, id, status, span_str(text));
    free(text);
}

static void on_status(struct master *m, const struct control_frame *f)
{
    verbs_answer(m, f->id, 200, status_json(m));
}

static void on_version(struct master *m, const struct control_frame *f)
{
    verbs_answer(m, f->id, 200,
                 json_pack("{s:s, s:s, s:I}", "version", MOCHILA_VERSION, "node",
                           m->current->source->config->node, "generation",
                           (json_int_t)m->current->number));
}

static void on_holds(struct master *m, const struct control_frame *f)
{
    verbs_answer(m, f->id, 200, json_pack("{s:o}", "holds", status_holds(m)));
}

/* --- holds --- */

static json_t *hold_failed(int rc, const char *why, int *status)
{
    *status = rc == -EINVAL ? 400 : rc == -ENOENT ? 404 : rc == -E2BIG ? 409 : 500;
    return json_pack("{s:s}", "error", why);
}

/* Checks, changes, writes it down: the answer. */
static json_t *change_hold(struct master *m, const char *who, const struct control_frame *f,
                           int *status)
{
    char text[512], what[VERBS_WHAT_BYTES];
    struct text error = text_of(text, sizeof text);
    struct control_hold h;
    struct hold_request wanted = {.kind = control_arg(f, "kind"),
                                  .value = control_arg(f, "value"),
                                  .why = control_arg(f, "why")};
    bool add = strcmp(f->verb, "hold") == 0;
    /* Releasing what is no longer configured must be possible: there only the name counts. */
    const struct control_hold *known = add ? NULL : holds_find(m, wanted.kind, wanted.value);
    int rc = 0;
    if (known != NULL)
        h = *known;
    else
        rc = holds_parse(m->current->source->config, &wanted, &h, &error);
    if (rc == 0)
        rc = add ? holds_add(m, &h, &error) : holds_remove(m, &h, &error);
    verbs_describe(f, what, sizeof what);
    verbs_audit(m, who, what, rc == 0 ? "done" : text);
    if (rc < 0)
        return hold_failed(rc, text, status);
    *status = 200;
    return json_pack("{s:i, s:o}", "changed", 1, "holds", status_holds(m));
}

/* The record of the lane that the order names, or NULL. */
static const struct lane_record *lane_of_hold(struct master *m, const struct control_frame *f)
{
    const char *kind = control_arg(f, "kind"), *value = control_arg(f, "value");
    struct ip ip;
    if (kind == NULL || value == NULL || strcmp(kind, "lane") != 0 ||
        ip_parse(span_str(value), &ip) < 0)
        return NULL;
    return lane_by_address(m, &ip);
}

static bool is_elsewhere(const struct master *m, const struct lane_record *r)
{
    const struct config *c = m->current->source->config;
    return r != NULL && r->configured && c->cluster.name[0] != '\0' &&
           strcmp(r->owner, c->node) != 0;
}

json_t *verbs_hold_asked(struct master *m, const char *who, const struct control_frame *f,
                         int *status)
{
    char why[200];
    const struct lane_record *r = lane_of_hold(m, f);
    const char *kind = control_arg(f, "kind");
    bool message = kind != NULL && strcmp(kind, "message") == 0 && strcmp(f->verb, "hold") == 0;
    if (message || (r != NULL && !is_elsewhere(m, r)))
        return change_hold(m, who, f, status);
    if (r == NULL)
        snprintf(why, sizeof why, "there is no such lane");
    else
        snprintf(why, sizeof why, "node %s owns the lane: ask there", r->owner);
    *status = r == NULL ? 404 : 421;
    return json_pack("{s:s}", "error", why);
}

/* A hold on a lane belongs to its owner, and goes where the lane goes. */
static void on_hold(struct master *m, const struct control_frame *f)
{
    int status = 500;
    const struct lane_record *r = lane_of_hold(m, f);
    if (is_elsewhere(m, r)) {
        forward_order(m, r->owner, f);
        return;
    }
    json_t *answer = change_hold(m, "api", f, &status);
    verbs_answer(m, f->id, status, answer);
}

static void on_reload(struct master *m, const struct control_frame *f)
{
    char *text = malloc(ERRORS_BYTES);
    if (text == NULL) {
        proc_answer_error(m->api, f->id, 500, "no memory");
        return;
    }
    struct text errors = text_of(text, ERRORS_BYTES);
    int rc = lifecycle_reload(m, &errors);
    audit_order(m, f, rc == 0 ? "under way" : "refused");
    if (rc < 0) {
        log_err("reload refused: %s", text);
        verbs_answer(m, f->id, rc == -EBUSY ? 409 : 400, json_pack("{s:s}", "error", text));
    } else {
        m->reload_query.active = true;
        m->reload_query.api_incarnation = m->api->incarnation;
        m->reload_query.id = f->id;
    }
    free(text);
}

void verbs_reload_done(struct master *m, int status)
{
    verbs_audit(m, "mochilad", "reload", m->reload_text);
    if (!m->reload_query.active)
        return;
    m->reload_query.active = false;
    if (m->reload_query.api_incarnation != m->api->incarnation)
        return;
    if (status != 200)
        proc_answer_error(m->api, m->reload_query.id, status, m->reload_text);
    else
        verbs_answer(m, m->reload_query.id, status,
                     json_pack("{s:I, s:s}", "generation", (json_int_t)m->current->number, "text",
                               m->reload_text));
}

static void on_drain(struct master *m, const struct control_frame *f)
{
    uint64_t seconds = m->current->source->config->smtp.drain_s;
    const char *given = control_arg(f, "seconds");
    if (given != NULL &&
        (span_to_u64(span_str(given), &seconds) < 0 || seconds > MASTER_DRAIN_S_MAX)) {
        char text[128];
        snprintf(text, sizeof text, "seconds: expected 0 to %d", MASTER_DRAIN_S_MAX);
        proc_answer_error(m->api, f->id, 400, text);
        return;
    }
    if (m->next != NULL) {
        proc_answer_error(m->api, f->id, 409, "a reload is under way: try again when it is over");
        return;
    }
    lifecycle_drain(m, (uint32_t)seconds);
    audit_order(m, f, "under way");
    verbs_answer(
        m, f->id, 200,
        json_pack("{s:I, s:i}", "seconds", (json_int_t)seconds, "workers", (int)m->workers));
}

static void on_stop(struct master *m, const struct control_frame *f)
{
    audit_order(m, f, "under way");
    verbs_answer(m, f->id, 200,
                 json_pack("{s:b, s:I}", "stopping", 1, "seconds",
                           (json_int_t)m->current->source->config->smtp.drain_s));
    lifecycle_stop(m);
}

static void on_audit(struct master *m, const struct control_frame *f)
{
    uint64_t limit = AUDIT_PRESET;
    const char *given = control_arg(f, "limit");
    if (given != NULL &&
        (span_to_u64(span_str(given), &limit) < 0 || limit < 1 || limit > AUDIT_MAX)) {
        proc_answer_error(m->api, f->id, 400, "limit: expected 1 to 10000");
        return;
    }
    struct state_audit *list;
    uint32_t count;
    json_t *rows = json_array();
    int rc = state_audit_list(m->state, (uint32_t)limit, &list, &count);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        (void)json_array_append_new(
            rows, json_pack("{s:I, s:s, s:s, s:s}", "time", (json_int_t)list[i].unix_s, "who",
                            list[i].who, "what", list[i].what, "result", list[i].result));
    free(list);
    if (rc < 0) {
        json_decref(rows);
        proc_answer_error(m->api, f->id, 500, state_error(m->state));
        return;
    }
    verbs_answer(m, f->id, 200, json_pack("{s:o}", "rows", rows));
}

static void on_cluster(struct master *m, const struct control_frame *f)
{
    verbs_answer(m, f->id, 200, cluster_json(m));
}

static const struct {
    const char *name;
    void (*handle)(struct master *m, const struct control_frame *f);
} own[] = {
    {"status", on_status},      {"version", on_version},
    {"holds", on_holds},        {"hold", on_hold},
    {"release", on_hold},    {"reload", on_reload},
    {"drain", on_drain},        {"stop", on_stop},
    {"audit", on_audit},        {"move", moves_verb},
    {"move_abort", moves_verb}, {"moves", moves_verb},
    {"node_drain", moves_verb}, {"node_undrain", moves_verb},
    {"cluster", on_cluster},
};

static void query_own(struct master *m, const struct control_frame *f)
{
    for (size_t i = 0; i < ARRAY_COUNT(own); i++) {
        if (strcmp(own[i].name, f->verb) == 0) {
            own[i].handle(m, f);
            return;
        }
    }
    proc_answer_error(m->api, f->id, 404, "the master does not know this verb");
}

/* Who retries a parked message by its id means it, also after the next restart. */
static void forget_poison(struct master *m, const struct control_frame *f)
{
    struct msg_id id;
    const char *text = control_arg(f, "id");
    if (strcmp(f->verb, "retry") != 0 || text == NULL || id_parse(span_str(text), &id) < 0)
        return;
    if (state_poison_forget(m->state, id) < 0)
        log_err("message %s stays parked: %s", text, state_error(m->state));
}

static bool is_set(const struct control_frame *f, const char *arg)
{
    const char *value = control_arg(f, arg);
    return value != NULL && strcmp(value, "0") != 0;
}

void verbs_query(struct master *m, const struct control_frame *f)
{
    const struct verb *v = verb_find(f->verb);
    if (v == NULL) {
        proc_answer_error(m->api, f->id, 404, "there is no such verb");
    } else if (v->scope == VERB_MASTER) {
        query_own(m, f);
    } else if (strcmp(f->verb, "ledger") == 0 && is_set(f, "cluster")) {
        cluster_ledger(m, f->id);
    } else {
        if (v->changes && !is_set(f, "preview")) {
            audit_order(m, f, "passed on to the workers");
            forget_poison(m, f);
        }
        fanout_begin(m, f);
    }
}
