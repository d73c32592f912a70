/*
 * Outcomes on their way into the log. A note lives until its record is durable: when the spool
 * refuses or fails it, it is written again; meanwhile no new attempt starts, since an outcome that
 * is not on disk would be repeated after a crash.
 */
#include "worker/lane/shard_impl.h"

#include "base/log.h"

#include <stdlib.h>

struct note {
    struct spool_wait wait;
    struct note *next;
    struct shard *shard;
    struct spool_wait *user;
    struct lane *lane;
    enum record_type type;
    bool taken;             /* DEFER that the ledger counts as accepted and taken over */
    enum fate fate;         /* FATE_NONE: the ledger does not count it */
    uint32_t fate_count;
    uint32_t meta_bytes, reply_bytes;
    uint8_t data[];
};

/* The ledger counts a fate when it is decided, a snapshot only what precedes it in the log: the
   append itself may begin a segment and take one. */
static void count_unlogged(struct note *n, int sign)
{
    struct ledger *l = &n->shard->unlogged;
    if (n->taken) {
        l->accepted += (uint64_t)((int64_t)n->fate_count * sign);
        l->taken_over += (uint64_t)((int64_t)n->fate_count * sign);
    }
    if (n->fate != FATE_NONE)
        ledger_count(&n->shard->unlogged, n->fate, (uint64_t)((int64_t)n->fate_count * sign));
}

static void postpone(struct note *n)
{
    n->next = n->shard->unwritten;
    n->shard->unwritten = n;
    n->shard->queue->paused = true;
    spool_keep(n->shard->spool, true);
}

static void on_note_durable(struct spool_wait *w, int res)
{
    struct note *n = (struct note *)((char *)w - offsetof(struct note, wait));
    if (res != 0) {
        n->shard->queue->env.stats->commit_failures++;
        count_unlogged(n, 1);
        postpone(n);
        return;
    }
    struct spool_wait *user = n->user;
    free(n);
    if (user != NULL)
        user->on_durable(user, 0);
}

static int note_write(struct note *n)
{
    struct spool_append a = {.type = (uint8_t)n->type,
                             .lane = n->lane->number,
                             .epoch = n->lane->epoch,
                             .position = n->lane->position + 1,
                             .flags = n->taken ? DEFER_HEAD_TAKEN : 0,
                             .meta = span_of(n->data, n->meta_bytes),
                             .rest = {span_of(n->data + n->meta_bytes, n->reply_bytes)},
                             .rest_count = n->reply_bytes > 0 ? 1u : 0u,
                             .fate = true};
    struct record_place p;
    int r = spool_append(n->shard->spool, &a, &n->wait, &p);
    if (r == 0) {
        n->lane->position++;
        count_unlogged(n, -1);
    }
    return r;
}

void shard_note(struct shard *s, const struct note_facts *f, struct spool_wait *user)
{
    struct copy_hooks *hooks = &s->queue->copy_hooks;
    if (f->lane->copying && f->type != RECORD_DOT && hooks->on_outcome != NULL)
        hooks->on_outcome(hooks->ctx, f->lane, f);
    struct span reply = f->outcome.reply;
    if (reply.n > LIMIT_REPLY_KEPT_BYTES)
        reply.n = LIMIT_REPLY_KEPT_BYTES;
    size_t room = 160 + f->outcome.remote_name.n + f->outcome.indices.n;
    struct note *n = malloc(sizeof *n + room + reply.n);
    MUST(n != NULL); /* an outcome must not be lost; a restart recovers */
    *n = (struct note){.shard = s, .user = user, .lane = f->lane, .type = f->type};
    n->taken = f->taken;
    if (f->type == RECORD_DONE)
        n->fate = (enum fate)f->outcome.fate;
    n->fate_count = f->outcome.count;
    count_unlogged(n, 1);
    n->wait.on_durable = on_note_durable;
    struct writer w = writer_of(n->data, room);
    outcome_put(&w, &f->outcome);
    MUST(!w.bad);
    n->meta_bytes = (uint32_t)w.n;
    n->reply_bytes = (uint32_t)reply.n;
    if (reply.n > 0)
        memcpy(n->data + w.n, reply.p, reply.n);
    if (s->unwritten != NULL || note_write(n) != 0)
        postpone(n); /* in order: a DOT must not come to stand behind its outcome */
}

void shard_tell_copy(struct queue *q, const struct qentry *e)
{
    struct lane *l = entry_lane(q, e);
    if (!l->copying || q->copy_hooks.on_outcome == NULL)
        return;
    uint8_t index[2] = {(uint8_t)e->index, (uint8_t)(e->index >> 8)};
    struct note_facts n = {.type = RECORD_DEFER, .lane = l};
    n.outcome = (struct outcome){
        .id = store_msg(&q->store, e->msg)->id,
        .reason = e->state == ENTRY_HELD ? e->reason : REASON_NONE,
        .attempts = e->attempts,
        .at_unix_ms = io_now_unix_ms(q->env.io),
        .due_unix_s = e->due_s,
        .count = 1,
        .indices = span_of(index, sizeof index)};
    q->copy_hooks.on_outcome(q->copy_hooks.ctx, l, &n);
}

/* Oldest first: what is said later about a recipient stands later in the log. */
static struct note *reversed(struct note *n)
{
    struct note *out = NULL;
    while (n != NULL) {
        struct note *next = n->next;
        n->next = out;
        out = n;
        n = next;
    }
    return out;
}

static void write_again(struct shard *s)
{
    struct note *n = reversed(s->unwritten);
    s->unwritten = NULL;
    bool full = false;
    while (n != NULL) {
        struct note *next = n->next;
        /* the rest waits: order, and no attempt for each of a million */
        full = full || note_write(n) != 0;
        if (full) {
            n->next = s->unwritten;
            s->unwritten = n;
        }
        n = next;
    }
}

void shard_turn_notes(struct queue *q)
{
    bool left = false;
    for (uint32_t i = 0; i < q->shard_count; i++) {
        struct shard *s = q->shards[i];
        if (s->unwritten != NULL)
            write_again(s);
        spool_keep(s->spool, s->unwritten != NULL);
        left = left || s->unwritten != NULL || spool_health(s->spool) == SPOOL_SICK;
    }
    if (q->paused && !left)
        log_note("outcomes are recorded again, delivery goes on");
    if (!q->paused && left)
        log_warn("outcomes cannot be recorded: no new attempts until the disk takes them");
    q->paused = left;
}
