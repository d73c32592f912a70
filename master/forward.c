/* forward - see forward.h. */
#include "master/forward.h"

#include "master/cluster.h"
#include "master/proc.h"
#include "master/verbs.h"
#include "proto/verb.h"

#include <stdio.h>
#include <stdlib.h>

struct asked {
    uint64_t id, api_incarnation;
    bool changes;
    char node[LIMIT_NAME_BYTES + 1];
    char what[VERBS_WHAT_BYTES];
};

/* The sentence of an error, for the audit log. */
static void put_result(const struct asked *a, int status, struct span body, char *out, size_t cap)
{
    json_t *answer = json_loadb((const char *)body.p, body.n, 0, NULL);
    const char *error = json_string_value(json_object_get(answer, "error"));
    if (status == 200)
        snprintf(out, cap, "node %s: taken", a->node);
    else
        snprintf(out, cap, "node %s: %s", a->node, error != NULL ? error : "no answer");
    json_decref(answer);
}

static void answer_nothing(struct master *m, const struct asked *a, int status)
{
    char text[300] = "the other node's master does not answer";
    const struct cluster_node *n = cluster_find(m, a->node);
    if (n != NULL && !n->up)
        snprintf(text, sizeof text, "node %s cannot be reached: %s", a->node,
                 n->why[0] != '\0' ? n->why : "it was not heard");
    proc_answer_error(m->api, a->id, status, text);
}

static void on_answer(struct master *m, void *ctx, int status, struct span body)
{
    char result[256];
    struct asked *a = ctx;
    put_result(a, status, body, result, sizeof result);
    if (a->changes)
        verbs_audit(m, "api", a->what, result);
    if (a->api_incarnation == m->api->incarnation) {
        if (body.n > 0)
            verbs_answer_text(m, a->id, status, body);
        else
            answer_nothing(m, a, status);
    }
    free(a);
}

void forward_order(struct master *m, const char *node, const struct control_frame *f)
{
    const struct verb *v = verb_find(f->verb);
    const struct cluster_verb verb = {.name = f->verb, .args = f->args, .arg_count = f->arg_count};
    struct asked *a = calloc(1, sizeof *a);
    if (a != NULL) {
        a->id = f->id;
        a->api_incarnation = m->api->incarnation;
        a->changes = v != NULL && v->changes;
        snprintf(a->node, sizeof a->node, "%s", node);
        verbs_describe(f, a->what, sizeof a->what);
    }
    if (a != NULL && cluster_ask(m, node, &verb, on_answer, a) == 0)
        return;
    free(a);
    proc_answer_error(m->api, f->id, 503, "the owner's node cannot be asked now");
}
