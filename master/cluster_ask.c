/*
 * cluster_ask - questions between masters; see cluster.h.
 *
 * A verb of the workers is answered for the node as a whole, by a survey: the sum of the numbers at
 * the top of its workers' answers, and `missing`, the workers that gave none.
 */
#include "master/cluster_impl.h"

#include "base/log.h"
#include "master/move/move.h"
#include "master/survey.h"
#include "master/verbs.h"
#include "proto/verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECE_BYTES = 48 << 10 };

/* An order about moves or lanes; whoever asks has followed to us already. */
static void answer_order(struct master *m, const struct cluster_verb *verb, survey_done *done,
                         uint64_t number)
{
    char who[LIMIT_NAME_BYTES + 8];
    char *args[CLUSTER_ARGS_MAX];
    int status = 500;
    for (uint32_t i = 0; i < verb->arg_count; i++)
        args[i] = verb->args[i];
    struct control_frame f = {
        .kind = CONTROL_QUERY, .args = args, .arg_count = verb->arg_count, .slot = CONTROL_NO_SLOT};
    snprintf(f.verb, sizeof f.verb, "%s", verb->name);
    snprintf(who, sizeof who, "node %s", verb->from != NULL ? verb->from : m->cluster->self.name);
    json_t *answer = moves_has_verb(verb->name) ? moves_asked(m, who, &f, &status)
                                                : verbs_hold_asked(m, who, &f, &status);
    char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT) : NULL;
    json_decref(answer);
    done(m, number, text != NULL ? status : 500, span_str(text != NULL ? text : ""));
    free(text);
}

/* `done` hears it with `number`, perhaps from inside this call. */
static void answer_here(struct master *m, const struct cluster_verb *verb, survey_done *done,
                        uint64_t number)
{
    const struct verb *v = verb_find(verb->name);
    bool hold = strcmp(verb->name, "hold") == 0 || strcmp(verb->name, "release") == 0;
    if (moves_has_verb(verb->name) || hold)
        answer_order(m, verb, done, number);
    else if (v != NULL && !v->changes && v->scope == VERB_WORKERS && v->sums)
        survey_begin(m, verb, done, number);
    else
        done(m, number, 404, span_str("{\"error\":\"not a question for another node\"}"));
}

/* --- asking --- */

static struct cluster_question *free_question(struct cluster *c)
{
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++) {
        if (c->questions[i].state == QUESTION_FREE)
            return &c->questions[i];
    }
    return NULL;
}

static struct cluster_question *question_of(struct cluster *c, uint64_t id)
{
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++) {
        if (c->questions[i].state == QUESTION_ASKED && c->questions[i].id == id)
            return &c->questions[i];
    }
    return NULL;
}

/* Adds to the answer; what does not fit ends it. */
static void take_piece(struct cluster_question *q, int status, struct span body, bool last)
{
    bool fits = body.n <= CLUSTER_ANSWER_BYTES - q->n;
    char *more = fits ? realloc(q->body, q->n + body.n + 1) : NULL;
    if (more == NULL) {
        q->status = 502;
        q->n = 0;
        q->state = QUESTION_DONE;
        return;
    }
    q->body = more;
    if (body.n > 0)
        memcpy(q->body + q->n, body.p, body.n);
    q->n += body.n;
    q->status = status;
    if (last)
        q->state = QUESTION_DONE;
}

static void fail(struct cluster_question *q, int status)
{
    q->n = 0;
    q->status = status;
    q->state = QUESTION_DONE;
}

/* Of this node's own survey: `ctx` is the question's number. */
static void on_survey(struct master *m, uint64_t id, int status, struct span body)
{
    struct cluster_question *q = m->cluster != NULL ? question_of(m->cluster, id) : NULL;
    if (q != NULL)
        take_piece(q, status, body, true);
}

static int ask_peer(struct master *m, const struct cluster_question *q,
                    const struct cluster_verb *verb)
{
    struct cluster_frame f = {.kind = CLUSTER_QUERY,
                              .query = {.id = q->id, .arg_count = verb->arg_count}};
    snprintf(f.query.verb, sizeof f.query.verb, "%s", verb->name);
    for (uint32_t i = 0; i < verb->arg_count; i++)
        f.query.args[i] = span_str(verb->args[i]);
    return q->peer->node.up ? cluster_put(m, q->peer, &f) : -ENOTCONN;
}

int cluster_ask(struct master *m, const char *node, const struct cluster_verb *verb,
                cluster_answer *done, void *ctx)
{
    struct cluster *c = m->cluster;
    struct cluster_question *q = free_question(c);
    MUST(verb->arg_count <= CLUSTER_ARGS_MAX);
    if (q == NULL)
        return -ENOBUFS;
    *q = (struct cluster_question){.state = QUESTION_ASKED,
                                   .id = ++c->question_id,
                                   .deadline_ms = m->now_ms + CLUSTER_QUERY_MS,
                                   .peer = cluster_peer_of(m, node),
                                   .done = done,
                                   .ctx = ctx};
    if (q->peer == NULL && strcmp(node, c->self.name) != 0)
        fail(q, 404);
    else if (q->peer == NULL)
        answer_here(m, verb, on_survey, q->id);
    else if (ask_peer(m, q, verb) < 0)
        fail(q, 503);
    return 0;
}

void cluster_answer_take(struct master *m, struct cluster_peer *p, const struct cluster_reply *r)
{
    struct cluster_question *q = question_of(m->cluster, r->id);
    if (q != NULL && q->peer == p)
        take_piece(q, (int)r->status, r->body, r->last);
}

void cluster_ask_lost(struct master *m, const struct cluster_peer *p)
{
    struct cluster *c = m->cluster;
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++) {
        struct cluster_question *q = &c->questions[i];
        if (q->state == QUESTION_ASKED && q->peer == p)
            fail(q, 503);
        if (q->peer == p)
            q->peer = NULL;
    }
}

void cluster_ask_tick(struct master *m)
{
    struct cluster *c = m->cluster;
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++) {
        struct cluster_question *q = &c->questions[i];
        if (q->state == QUESTION_ASKED && q->deadline_ms <= m->now_ms)
            fail(q, 504);
        if (q->state != QUESTION_DONE)
            continue;
        struct cluster_question was = *q;
        *q = (struct cluster_question){.state = QUESTION_FREE};
        was.done(m, was.ctx, was.status, span_of(was.body, was.n));
        free(was.body);
    }
}

uint64_t cluster_ask_deadline(const struct cluster *c)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++) {
        const struct cluster_question *q = &c->questions[i];
        if (q->state == QUESTION_FREE)
            continue;
        uint64_t at = q->state == QUESTION_DONE ? 1 : q->deadline_ms;
        if (first == 0 || at < first)
            first = at;
    }
    return first;
}

/* --- answering --- */

/* Who asked: small enough for a survey's number. */
enum { ANSWERS_MAX = 64 };
static struct {
    uint64_t id;
    char node[LIMIT_NAME_BYTES + 1];
} asked[ANSWERS_MAX]; /* a ring: who is forgotten hears nothing, and his time ends */
static uint64_t asked_count;

static void reply(struct master *m, struct cluster_peer *p, uint64_t id, int status,
                  struct span body)
{
    size_t done = 0;
    do {
        size_t n = body.n - done < PIECE_BYTES ? body.n - done : PIECE_BYTES;
        struct cluster_frame f = {.kind = CLUSTER_ANSWER,
                                  .answer = {.id = id,
                                             .status = (uint32_t)status,
                                             .body = span_of(body.p + done, n),
                                             .last = done + n == body.n}};
        if (n == 0)
            f.answer.body = span_of(NULL, 0);
        done += n;
        if (cluster_put(m, p, &f) < 0)
            return; /* the peer asks again, or its time ends */
    } while (done < body.n);
}

static void on_answer(struct master *m, uint64_t number, int status, struct span body)
{
    struct cluster_peer *p = cluster_peer_of(m, asked[number % ANSWERS_MAX].node);
    if (p != NULL && number + ANSWERS_MAX > asked_count)
        reply(m, p, asked[number % ANSWERS_MAX].id, status, body);
}

/* "key=value" texts of a question: one that names many lanes is long. */
static bool copy_args(const struct cluster_query *q, char *args[CLUSTER_ARGS_MAX])
{
    for (uint32_t i = 0; i < q->arg_count; i++) {
        args[i] = strndup((const char *)q->args[i].p, q->args[i].n);
        if (args[i] == NULL)
            return false;
    }
    return true;
}

void cluster_query_take(struct master *m, struct cluster_peer *p, const struct cluster_query *q)
{
    char *args[CLUSTER_ARGS_MAX] = {NULL};
    const struct cluster_verb verb = {q->verb, args, q->arg_count, p->node.name};
    uint64_t number = asked_count++;
    asked[number % ANSWERS_MAX].id = q->id;
    memcpy(asked[number % ANSWERS_MAX].node, p->node.name, sizeof p->node.name);
    if (copy_args(q, args))
        answer_here(m, &verb, on_answer, number);
    else
        reply(m, p, q->id, 503, span_str("{\"error\":\"no memory\"}"));
    for (uint32_t i = 0; i < q->arg_count; i++)
        free(args[i]);
}
