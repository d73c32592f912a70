/* fanout - see fanout.h. */
#include "master/fanout.h"

#include "master/proc.h"

#include <errno.h>
#include <stdio.h>

static bool api_waits(const struct master *m, const struct fanout_question *q)
{
    return m->api->incarnation == q->api_incarnation && slot_serves(&m->api->slot);
}

static void pass_on(struct master *m, const struct fanout_question *q,
                    const struct control_frame *piece)
{
    if (q->sink != NULL)
        q->sink(m, q->ctx, piece);
    else if (api_waits(m, q))
        proc_send(m->api, piece, NULL, 0);
}

static void finish(struct master *m, struct fanout_question *q)
{
    struct control_frame end = {.kind = CONTROL_ANSWER,
                                .id = q->api_id,
                                .last = true,
                                .status = 200,
                                .slot = CONTROL_NO_SLOT};
    pass_on(m, q, &end);
    q->id = 0;
}

/* A whole answer for this slot, made here. */
static void put_error(struct master *m, const struct fanout_question *q, uint32_t slot, int status,
                      const char *what)
{
    char body[128];
    int n = snprintf(body, sizeof body, "{\"error\":\"worker %u %s\"}", slot, what);
    struct control_frame f = {.kind = CONTROL_ANSWER,
                              .id = q->api_id,
                              .last = true,
                              .status = status,
                              .slot = slot,
                              .body = (uint8_t *)body,
                              .body_bytes = (size_t)n};
    pass_on(m, q, &f);
}

/* This slot owes nothing more. */
static void settle(struct master *m, struct fanout_question *q, uint32_t slot)
{
    MUST(q->asked[slot] != 0);
    MUST(q->owed > 0);
    q->asked[slot] = 0;
    q->owed--;
    if (q->owed == 0)
        finish(m, q);
}

static struct fanout_question *free_question(struct fanout *f)
{
    for (size_t i = 0; i < ARRAY_COUNT(f->questions); i++) {
        if (f->questions[i].id == 0)
            return &f->questions[i];
    }
    return NULL;
}

static const char *why_nobody(const struct master *m, uint32_t slot)
{
    if (m->mode != MODE_RUNNING)
        return "was drained";
    if (slot_serves(&m->current->procs[slot]->slot))
        return "is still recovering its shards";
    return "is not running";
}

static void ask_all(struct master *m, struct fanout_question *q, const struct control_frame *query)
{
    struct control_frame f = *query; /* its lists stay the caller's */
    f.id = q->id;
    q->owed = 1; /* ours, until all are asked */
    for (uint32_t slot = 0; slot < m->workers; slot++) {
        struct proc *p = master_holder(m, slot);
        if (p == NULL) {
            put_error(m, q, slot, 503, why_nobody(m, slot));
            continue;
        }
        q->asked[slot] = p->incarnation;
        q->owed++;
        proc_send(p, &f, NULL, 0);
    }
    if (--q->owed == 0)
        finish(m, q);
}

void fanout_begin(struct master *m, const struct control_frame *query)
{
    struct fanout_question *q = free_question(&m->fanout);
    if (q == NULL) {
        proc_answer_error(m->api, query->id, 503, "too many questions are under way: try again");
        return;
    }
    *q = (struct fanout_question){.id = ++m->fanout.id,
                                  .api_id = query->id,
                                  .api_incarnation = m->api->incarnation,
                                  .deadline_ms = m->now_ms + FANOUT_MS};
    ask_all(m, q, query);
}

int fanout_ask(struct master *m, const struct control_frame *query, fanout_sink *sink, void *ctx)
{
    struct fanout_question *q = free_question(&m->fanout);
    if (q == NULL)
        return -EBUSY;
    *q = (struct fanout_question){
        .id = ++m->fanout.id, .sink = sink, .ctx = ctx, .deadline_ms = m->now_ms + FANOUT_MS};
    ask_all(m, q, query);
    return 0;
}

int fanout_answer(struct master *m, const struct proc *p, const struct control_frame *f)
{
    if (f->id == 0 || f->id > m->fanout.id)
        return -EBADMSG;
    for (size_t i = 0; i < ARRAY_COUNT(m->fanout.questions); i++) {
        struct fanout_question *q = &m->fanout.questions[i];
        if (q->id != f->id || q->asked[p->index] != p->incarnation)
            continue;
        struct control_frame piece = *f;
        piece.id = q->api_id;
        piece.slot = p->index;
        pass_on(m, q, &piece);
        if (f->last)
            settle(m, q, p->index);
        return 0;
    }
    return 0; /* given up in the meantime */
}

void fanout_gone(struct master *m, const struct proc *p)
{
    if (p->kind != PROC_WORKER)
        return;
    for (size_t i = 0; i < ARRAY_COUNT(m->fanout.questions); i++) {
        struct fanout_question *q = &m->fanout.questions[i];
        if (q->id == 0 || q->asked[p->index] != p->incarnation)
            continue;
        put_error(m, q, p->index, 503, "died");
        settle(m, q, p->index);
    }
}

void fanout_tick(struct master *m)
{
    for (size_t i = 0; i < ARRAY_COUNT(m->fanout.questions); i++) {
        struct fanout_question *q = &m->fanout.questions[i];
        if (q->id == 0 || q->deadline_ms > m->now_ms)
            continue;
        uint64_t id = q->id;
        for (uint32_t slot = 0; slot < m->workers && q->id == id; slot++) {
            if (q->asked[slot] == 0)
                continue;
            put_error(m, q, slot, 504, "did not answer in time");
            settle(m, q, slot);
        }
    }
}

uint64_t fanout_deadline(const struct fanout *f)
{
    uint64_t first = 0;
    for (size_t i = 0; i < ARRAY_COUNT(f->questions); i++) {
        const struct fanout_question *q = &f->questions[i];
        if (q->id != 0 && (first == 0 || q->deadline_ms < first))
            first = q->deadline_ms;
    }
    return first;
}
