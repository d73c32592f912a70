/* query - see query.h. */
#include "master/api/query.h"

#include "master/api/merge.h"

#include <errno.h>
#include <stdlib.h>

void query_init(struct query *q, uint64_t id, const struct verb *v, const struct args *args,
                uint64_t now_ms)
{
    uint64_t more_s = args_number(args, "seconds", 0, ARGS_SECONDS_MAX);
    *q = (struct query){
        .id = id,
        .verb = v,
        .deadline_ms = now_ms + 1000 * (v->seconds + more_s),
        .row_limit = verb_takes(v, "limit")
                         ? (uint32_t)args_number(args, "limit", VERB_LIMIT_PRESET, VERB_LIMIT_MAX)
                         : 0,
    };
}

void query_fini(struct query *q)
{
    for (unsigned i = 0; i < q->part_count; i++)
        free(q->parts[i].p);
    *q = (struct query){0};
}

static struct query_part *part_of(struct query *q, uint32_t slot)
{
    for (unsigned i = 0; i < q->part_count; i++) {
        if (q->parts[i].slot == slot)
            return &q->parts[i];
    }
    /* control_receive lets slots below LIMIT_WORKERS and NO_SLOT pass, so there is always room. */
    MUST(q->part_count < ARRAY_COUNT(q->parts));
    struct query_part *part = &q->parts[q->part_count++];
    *part = (struct query_part){.slot = slot};
    return part;
}

static int append(struct query_part *part, const uint8_t *p, size_t n)
{
    if (n > QUERY_BYTES_MAX - part->n)
        return -E2BIG;
    if (part->n + n > part->cap) {
        size_t cap = 2 * (part->n + n);
        uint8_t *bigger = realloc(part->p, cap);
        if (bigger == NULL)
            return -ENOMEM;
        part->p = bigger;
        part->cap = cap;
    }
    if (n > 0)
        memcpy(part->p + part->n, p, n);
    part->n += n;
    return 0;
}

int query_take(struct query *q, const struct control_frame *f)
{
    MUST(f->kind == CONTROL_ANSWER);
    MUST(f->id == q->id);
    bool masters = f->slot == CONTROL_NO_SLOT;
    /* The master closes a question to workers with an empty frame: that is no answer of its own. */
    if (masters && f->last && f->body_bytes == 0 && q->part_count > 0)
        return 1;
    struct query_part *part = part_of(q, f->slot);
    int r = append(part, f->body, f->body_bytes);
    if (r < 0)
        return r;
    part->status = f->status;
    part->complete = part->complete || f->last;
    return masters && f->last ? 1 : 0;
}

/* A master that marks only the end of the whole answer leaves the slots open: they are complete. */
static bool part_is_complete(const struct query_part *part, const char *late)
{
    return part->complete || late == NULL;
}

static void masters_answer(const struct query_part *part, struct answer *out)
{
    char *body = malloc(part->n + 1);
    if (body != NULL && part->n > 0)
        memcpy(body, part->p, part->n);
    answer_take(out, part->status, "application/json", body, part->n);
}

void query_answer(const struct query *q, uint32_t workers, const char *late, struct answer *out)
{
    struct merge_part parts[LIMIT_WORKERS + 1];
    unsigned count = 0;
    const struct query_part *masters = NULL;

    for (unsigned i = 0; i < q->part_count; i++) {
        const struct query_part *part = &q->parts[i];
        if (part->slot == CONTROL_NO_SLOT) {
            masters = part;
            continue;
        }
        parts[count++] = (struct merge_part){.slot = part->slot,
                                             .status = part->status,
                                             .complete = part_is_complete(part, late),
                                             .body = span_of(part->p, part->n)};
    }
    /* The master's word alone: its own verb, or a refusal to ask the workers at all. */
    if (masters != NULL && masters->n > 0 && count == 0 && late == NULL) {
        masters_answer(masters, out);
        return;
    }
    if (q->verb->scope == VERB_MASTER) {
        if (late != NULL)
            answer_error(out, 504, "%s: %s", q->verb->name, late);
        else
            answer_error(out, 502, "%s: the master gave an empty answer", q->verb->name);
        return;
    }
    struct merge_how how = {
        .sums = q->verb->sums, .row_limit = q->row_limit, .workers = workers, .late = late};
    merge_parts(parts, count, &how, out);
}
