/* survey - see survey.h. */
#include "master/survey.h"

#include "master/master.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECES_BYTES_MAX = 1 << 20 }; /* of one worker */

struct survey {
    survey_done *done;
    uint64_t number;
    struct {
        char *text;
        size_t n;
        int status;
    } slots[LIMIT_WORKERS];
};

static void survey_free(struct survey **sp)
{
    struct survey *s = *sp;
    for (uint32_t i = 0; i < LIMIT_WORKERS; i++)
        free(s->slots[i].text);
    free(s);
    *sp = NULL;
}

static void add_up(json_t *sum, json_t *part)
{
    const char *key;
    json_t *value;
    json_object_foreach(part, key, value)
    {
        if (!json_is_integer(value))
            continue;
        json_int_t before = json_integer_value(json_object_get(sum, key));
        (void)json_object_set_new(sum, key, json_integer(before + json_integer_value(value)));
    }
}

static void finish(struct master *m, struct survey *s)
{
    json_t *sum = json_object(), *missing = json_array();
    uint32_t answered = 0;
    for (uint32_t slot = 0; slot < m->workers; slot++) {
        json_t *part = s->slots[slot].status == 200
                           ? json_loadb(s->slots[slot].text, s->slots[slot].n, 0, NULL)
                           : NULL;
        if (json_is_object(part)) {
            add_up(sum, part);
            answered++;
        } else {
            (void)json_array_append_new(missing, json_integer(slot));
        }
        json_decref(part);
    }
    if (json_array_size(missing) > 0)
        (void)json_object_set(sum, "missing", missing);
    json_decref(missing);
    char *text = json_dumps(sum, JSON_COMPACT);
    json_decref(sum);
    int status = answered == m->workers ? 200 : answered > 0 ? 206 : 503;
    survey_done *done = s->done;
    uint64_t number = s->number;
    survey_free(&s);
    done(m, number, text != NULL ? status : 500, text != NULL ? span_str(text) : span_of(NULL, 0));
    free(text);
}

/* A piece of a worker's answer, or the end. */
static void on_piece(struct master *m, void *ctx, const struct control_frame *f)
{
    struct survey *s = ctx;
    if (f->slot == CONTROL_NO_SLOT) {
        finish(m, s);
        return;
    }
    MUST(f->slot < LIMIT_WORKERS);
    s->slots[f->slot].status = f->status;
    if (f->body_bytes > PIECES_BYTES_MAX - s->slots[f->slot].n)
        return;
    char *more = realloc(s->slots[f->slot].text, s->slots[f->slot].n + f->body_bytes + 1);
    if (more == NULL)
        return;
    if (f->body_bytes > 0)
        memcpy(more + s->slots[f->slot].n, f->body, f->body_bytes);
    s->slots[f->slot].text = more;
    s->slots[f->slot].n += f->body_bytes;
}

void survey_begin(struct master *m, const struct cluster_verb *verb, survey_done *done,
                  uint64_t number)
{
    struct survey *s = calloc(1, sizeof *s);
    if (s == NULL) {
        done(m, number, 503, span_str("{\"error\":\"no memory\"}"));
        return;
    }
    s->done = done;
    s->number = number;
    char *copy[LIMIT_QUERY_ARGS];
    MUST(verb->arg_count <= LIMIT_QUERY_ARGS);
    for (uint32_t i = 0; i < verb->arg_count; i++)
        copy[i] = verb->args[i];
    struct control_frame query = {
        .kind = CONTROL_QUERY, .args = copy, .arg_count = verb->arg_count};
    snprintf(query.verb, sizeof query.verb, "%s", verb->name);
    if (fanout_ask(m, &query, on_piece, s) < 0) {
        survey_free(&s);
        done(m, number, 503, span_str("{\"error\":\"too many questions are under way\"}"));
    }
}
