/*
 * Orders, the state of a stream, and what comes from the replica. What is sent: source_sweep.c; how
 * it leaves: source_out.c.
 *
 * Invariant: MSG_SENT says that the frame with the message is in this beginning of the stream, or
 * that the replica listed it with the same states; so whatever is recorded about it later follows
 * it as CHANGE, and what is recorded earlier is in the states that go along.
 */
#include "worker/move/source_impl.h"

#include "base/log.h"
#include "worker/move/digest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    AGAIN_MS = 100,
    PROGRESS_MS = 100,
    INVENTORY_MS = 2000, /* since its last frame */
    ACK_MS = 10000,      /* since the last one, while something is not acknowledged */
    END_MS = 1000,
    /* More than is sent within any pause: while it is not known what the replica has, nobody is to
       believe that little is left. */
    UNKNOWN_BYTES = 64 << 20,
};

static uint64_t now_ms(const struct source *s)
{
    return queue_now_ms(s->set.queue);
}

/* --- the table --- */

static struct lane_frame frame_of(enum lane_frame_kind kind)
{
    return (struct lane_frame){.kind = kind};
}

/* What was sent is unknown from here; the sweep wipes MSG_SENT before anything is said. */
static enum source_state clear(struct source_stream *st)
{
    st->generation++;
    st->due_ms = 0;
    source_lists_clear(st);
    source_out_begin(st);
    st->unswept_messages = st->unswept_bytes = 0;
    source_sweep_restart(st);
    return SOURCE_CLEARING;
}

static enum source_state wait_up(struct source_stream *st)
{
    st->generation++;
    st->due_ms = 0;
    source_lists_clear(st);
    source_out_begin(st);
    return SOURCE_WAIT_UP;
}

static enum source_state begin(struct source_stream *st)
{
    struct lane_frame f = frame_of(LANE_FRAME_BEGIN);
    st->counted = true;
    st->total_bytes = st->unswept_bytes;
    st->due_ms = now_ms(st->source) + INVENTORY_MS;
    (void)source_emit(st, &f);
    return SOURCE_INVENTORY;
}

static enum source_state send_rest(struct source_stream *st)
{
    st->due_ms = 0;
    source_sweep_restart(st);
    return SOURCE_SENDING;
}

static enum source_state end(struct source_stream *st)
{
    st->due_ms = now_ms(st->source) + END_MS;
    source_emit_end(st);
    return SOURCE_ENDED;
}

static enum source_state again_soon(struct source_stream *st)
{
    wait_up(st);
    st->due_ms = now_ms(st->source) + AGAIN_MS;
    return SOURCE_REFUSED;
}

static enum source_state fail(struct source_stream *st)
{
    struct source *s = st->source;
    wait_up(st);
    log_warn("lane %s cannot be copied to %s: %s", st->lane->name, st->order.node, st->why);
    struct control_lane_order o = st->order;
    o.op = LANE_OP_COPY_FAILED;
    snprintf(o.why, sizeof o.why, "%s", st->why);
    s->set.events.on_failed(s->set.events.ctx, &o);
    return SOURCE_FAILED;
}

static enum source_state stay(struct source_stream *st)
{
    return st->state;
}

typedef enum source_state action(struct source_stream *st);
static action *const table[SOURCE_STATE_COUNT][SOURCE_EVENT_COUNT] = {
    /*                    UP     DOWN     CLEARED LISTED     ALL_SENT REFUSED     BROKEN LATE */
    [SOURCE_WAIT_UP] = {clear, stay, stay, stay, stay, stay, fail, stay},
    [SOURCE_CLEARING] = {clear, wait_up, begin, stay, stay, stay, fail, stay},
    [SOURCE_INVENTORY] = {clear, wait_up, stay, send_rest, stay, again_soon, fail, clear},
    [SOURCE_SENDING] = {clear, wait_up, stay, stay, end, again_soon, fail, clear},
    [SOURCE_ENDED] = {clear, wait_up, stay, stay, stay, again_soon, fail, clear},
    [SOURCE_REFUSED] = {clear, wait_up, stay, stay, stay, stay, fail, clear},
    [SOURCE_FAILED] = {stay, stay, stay, stay, stay, stay, stay, stay},
};

void source_event(struct source_stream *st, enum source_event ev)
{
    MUST(ev < SOURCE_EVENT_COUNT);
    st->state = table[st->state][ev](st);
}

void source_break(struct source_stream *st, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(st->why, sizeof st->why, fmt, ap);
    va_end(ap);
    source_event(st, SOURCE_EV_BROKEN);
}

/* --- orders --- */

struct source_stream *source_stream_of(const struct source *s, const struct ip *address)
{
    const struct lane *l = lane_by_address(s->set.queue, address);
    return l == NULL ? NULL : s->by_lane[l->index];
}

static void stream_free(struct source *s, struct source_stream *st)
{
    struct source_stream **at = &s->streams;
    while (*at != st)
        at = &(*at)->next;
    *at = st->next;
    s->by_lane[st->lane->index] = NULL;
    st->lane->copying = false;
    source_orphan_reads(st);
    source_lists_clear(st);
    source_out_begin(st);
    source_target_put(s, &st->target);
    free(st);
}

static struct source_stream *stream_new(struct source *s, struct lane *l)
{
    struct source_stream *st = calloc(1, sizeof *st);
    if (st == NULL)
        return NULL;
    st->source = s;
    st->lane = l;
    st->next = s->streams;
    /* a number that a beginning before a restart of this process did not have */
    st->position = rng_below(s->set.queue->env.rng, UINT32_MAX) << 32;
    s->streams = st;
    s->by_lane[l->index] = st;
    l->copying = true;
    return st;
}

static int aim(struct source_stream *st, const struct control_lane_order *o)
{
    struct source *s = st->source;
    struct source_target *t = source_target_get(s, o->node, o->slot);
    if (t == NULL)
        return -ENOMEM;
    source_orphan_reads(st);
    wait_up(st);
    source_target_put(s, &st->target);
    st->target = t;
    st->order = *o;
    st->state = SOURCE_WAIT_UP;
    if (carrier_is_up(s->set.carrier, o->node))
        source_event(st, SOURCE_EV_UP);
    return 0;
}

static bool is_ours(const struct lane *l, uint32_t epoch)
{
    return l->shard != NULL && l->epoch == epoch &&
           (l->role == LANE_OWNER || l->role == LANE_FROZEN);
}

int source_copy(struct source *s, const struct control_lane_order *o)
{
    struct lane *l = lane_by_number(s->set.queue, o->lane);
    if (l == NULL)
        return -ENOENT;
    if (!is_ours(l, o->epoch) || o->slot >= LIMIT_WORKERS)
        return -EINVAL;
    struct source_stream *st = s->by_lane[l->index];
    if (st != NULL && st->state != SOURCE_FAILED && st->order.move == o->move &&
        st->order.slot == o->slot && strcmp(st->order.node, o->node) == 0) {
        st->order.rate = o->rate;
        return 0;
    }
    if (st == NULL)
        st = stream_new(s, l);
    int r = st == NULL ? -ENOMEM : aim(st, o);
    if (r != 0 && st != NULL)
        stream_free(s, st);
    return r;
}

void source_stop(struct source *s, uint32_t lane)
{
    const struct lane *l = lane_by_number(s->set.queue, lane);
    if (l != NULL && s->by_lane[l->index] != NULL)
        stream_free(s, s->by_lane[l->index]);
}

static void count_left(const struct source_stream *st, struct control_lane_order *o)
{
    if (st->state != SOURCE_SENDING && st->state != SOURCE_ENDED) {
        o->messages_left = st->lane->queued;
        o->bytes_left = st->total_bytes > UNKNOWN_BYTES ? st->total_bytes : UNKNOWN_BYTES;
        return;
    }
    o->messages_left = st->unswept_messages + st->reads + (st->listed.count - st->listed.at) +
                       (st->fresh.count - st->fresh.at);
    o->bytes_left = st->unswept_bytes + st->reading_bytes + st->listed.bytes + st->fresh.bytes +
                    (st->bytes - st->acked_bytes);
    o->complete = st->swept && o->messages_left == 0;
}

/* Nothing is said before the lane was counted once: a guess that is too small is believed. */
static void progress(struct source_stream *st)
{
    struct source *s = st->source;
    struct control_lane_order o = st->order;
    st->progress_ms = now_ms(s) + PROGRESS_MS;
    if (!st->counted)
        return;
    o.op = LANE_OP_PROGRESS;
    o.role = st->lane->role;
    o.tails = st->lane->role == LANE_OWNER ? st->lane->outbounds_old : st->lane->tails;
    o.messages_sent = st->messages_sent;
    o.bytes_sent = st->acked_before + st->acked_bytes;
    count_left(st, &o);
    s->set.events.on_progress(s->set.events.ctx, &o);
}

bool source_report(struct source *s, uint32_t lane)
{
    const struct lane *l = lane_by_number(s->set.queue, lane);
    if (l == NULL || s->by_lane[l->index] == NULL)
        return false;
    progress(s->by_lane[l->index]);
    return true;
}

/* --- from the replica --- */

static void has_it(struct source_stream *st, struct qmsg *m)
{
    uint32_t bytes = source_msg_bytes(m);
    m->flags |= MSG_SENT;
    st->unswept_bytes -= bytes < st->unswept_bytes ? bytes : st->unswept_bytes;
    st->unswept_messages -= st->unswept_messages > 0 ? 1 : 0;
}

/* What the replica has: the same as we; or what is over, or stands otherwise by now: that is
   dropped there at once, since it may end here before it is sent again. */
static void listed(struct source_stream *st, const struct lane_frame *f)
{
    struct queue *q = st->source->set.queue;
    struct lane_item *gone = f->item_count > 0 ? calloc(f->item_count, sizeof *gone) : NULL;
    uint32_t gone_count = 0;
    if (f->item_count > 0 && gone == NULL) {
        source_event(st, SOURCE_EV_REFUSED);
        return;
    }
    for (uint32_t i = 0; i < f->item_count; i++) {
        struct qmsg *m = store_find(&q->store, f->items[i].id);
        bool ours = m != NULL && m->lane == st->lane->index && !(m->flags & MSG_LATE);
        if (ours && (m->flags & MSG_SENT))
            continue; /* listed twice */
        if (ours && move_digest(q, m) == f->items[i].digest)
            has_it(st, m);
        else
            gone[gone_count++].id = f->items[i].id;
    }
    struct lane_frame drop = {.kind = LANE_FRAME_DROP, .items = gone, .item_count = gone_count};
    bool ok = gone_count == 0 || source_emit(st, &drop);
    free(gone);
    st->due_ms = now_ms(st->source) + INVENTORY_MS;
    if (!ok)
        source_event(st, SOURCE_EV_REFUSED);
    else if (f->last)
        source_event(st, SOURCE_EV_LISTED);
}

static void on_ack(struct source_stream *st, uint64_t position)
{
    if (position <= st->acked || position > st->position)
        return;
    source_acked(st, position);
    if (st->due_ms != 0 && (st->state == SOURCE_SENDING || st->state == SOURCE_ENDED))
        st->due_ms = st->acked == st->position ? 0 : now_ms(st->source) + ACK_MS;
}

void source_frame(struct source *s, const char *node, uint32_t slot, const struct lane_frame *f)
{
    struct source_stream *st = source_stream_of(s, &f->lane);
    if (st == NULL || strcmp(st->order.node, node) != 0 || st->order.slot != slot ||
        f->move != st->order.move || f->position >> 32 != st->position >> 32)
        return; /* an answer to something that is over */
    if (f->kind == LANE_FRAME_INVENTORY && st->state == SOURCE_INVENTORY) {
        listed(st, f);
    } else if (f->kind == LANE_FRAME_ACK) {
        on_ack(st, f->position);
    } else if (f->kind == LANE_FRAME_REFUSED && f->again) {
        source_event(st, SOURCE_EV_REFUSED);
    } else if (f->kind == LANE_FRAME_REFUSED) {
        source_break(st, "%s: %s", node, f->why[0] != '\0' ? f->why : "it refuses the copy");
    }
}

void source_up(struct source *s, const char *node)
{
    for (struct source_target *t = s->targets; t != NULL; t = t->next)
        if (strcmp(t->node, node) == 0)
            source_target_drop(s, t);
    for (struct source_stream *st = s->streams; st != NULL; st = st->next)
        if (strcmp(st->order.node, node) == 0)
            source_event(st, SOURCE_EV_UP);
}

void source_down(struct source *s, const char *node)
{
    for (struct source_target *t = s->targets; t != NULL; t = t->next)
        if (strcmp(t->node, node) == 0)
            source_target_drop(s, t);
    for (struct source_stream *st = s->streams; st != NULL; st = st->next)
        if (strcmp(st->order.node, node) == 0)
            source_event(st, SOURCE_EV_DOWN);
}

/* --- from the queue --- */

static void on_message(void *ctx, struct lane *l, struct qmsg *m)
{
    struct source *s = ctx;
    struct source_stream *st = s->by_lane[l->index];
    if (st != NULL && st->state == SOURCE_SENDING && !(m->flags & MSG_SENT))
        source_fresh(st, m); /* in other states the sweep will meet it */
}

/* Once END has named the tails, what becomes of them is told by the hand-over. */
static bool is_tail(const struct source_stream *st, const struct qmsg *m, const struct outcome *o)
{
    if (st->state != SOURCE_ENDED || o->count == 0)
        return false;
    const struct store *store = &st->source->set.queue->store;
    const struct qentry *e = store_find_entry(store, m, outcome_index(o, 0));
    return e != NULL && e->tail;
}

static void on_outcome(void *ctx, struct lane *l, const struct note_facts *n)
{
    struct source *s = ctx;
    struct source_stream *st = s->by_lane[l->index];
    if (st == NULL || (st->state != SOURCE_INVENTORY && st->state != SOURCE_SENDING &&
                       st->state != SOURCE_ENDED))
        return;
    const struct qmsg *m = store_find(&s->set.queue->store, n->outcome.id);
    if (m == NULL || !(m->flags & MSG_SENT) || is_tail(st, m, &n->outcome))
        return;
    size_t room = 160 + n->outcome.remote_name.n + n->outcome.indices.n;
    uint8_t *meta = malloc(room);
    struct writer w = writer_of(meta, meta != NULL ? room : 0);
    outcome_put(&w, &n->outcome);
    struct lane_frame f = {.kind = LANE_FRAME_CHANGE,
                           .type = (uint8_t)n->type,
                           .meta = span_of(meta, w.n),
                           .rest = n->outcome.reply};
    if (f.rest.n > LIMIT_REPLY_KEPT_BYTES)
        f.rest.n = LIMIT_REPLY_KEPT_BYTES;
    if (w.bad || !source_emit(st, &f))
        source_event(st, SOURCE_EV_REFUSED); /* no memory: it begins anew */
    free(meta);
}

/* --- turns --- */

/* The record of it is durable: END may be said. */
static bool is_frozen(const struct lane *l)
{
    return l->role == LANE_FROZEN && l->logged.role == LANE_FROZEN && l->change == NULL;
}

static void stream_turn(struct source_stream *st)
{
    struct source *s = st->source;
    uint64_t now = now_ms(s);
    if (st->state == SOURCE_CLEARING && st->swept)
        source_event(st, SOURCE_EV_CLEARED);
    if (st->state == SOURCE_SENDING && is_frozen(st->lane) && source_all_sent(st))
        source_event(st, SOURCE_EV_ALL_SENT);
    if (st->state == SOURCE_SENDING && st->due_ms == 0 && st->acked != st->position)
        st->due_ms = now + ACK_MS;
    if (st->due_ms != 0 && now >= st->due_ms)
        source_event(st, SOURCE_EV_LATE);
    if (now >= st->progress_ms && st->state != SOURCE_FAILED)
        progress(st);
}

void source_turn(struct source *s)
{
    s->turn_bytes = 0;
    s->starved = false;
    struct source_stream *next;
    for (struct source_stream *st = s->streams; st != NULL; st = next) {
        next = st->next;
        if (!is_ours(st->lane, st->order.epoch))
            stream_free(s, st); /* given away, or taken back */
    }
    source_sweep_turn(s);
    source_send_turn(s);
    for (struct source_stream *st = s->streams; st != NULL; st = st->next)
        stream_turn(st);
    source_marks_turn(s);
    source_flush(s);
}

bool source_busy(const struct source *s)
{
    return s->starved;
}

uint64_t source_next_ms(const struct source *s, uint64_t max)
{
    uint64_t now = now_ms(s);
    for (const struct source_stream *st = s->streams; st != NULL; st = st->next) {
        uint64_t at = st->progress_ms;
        if (st->state == SOURCE_FAILED)
            continue;
        if (st->due_ms != 0 && st->due_ms < at)
            at = st->due_ms;
        uint64_t in = at > now ? at - now : 0;
        max = in < max ? in : max;
    }
    return max;
}

/* --- life --- */

int source_create(struct source **out, const struct source_settings *set)
{
    struct source *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->set = *set;
    s->hand = 1;
    s->by_lane = calloc(LIMIT_LANES, sizeof *s->by_lane);
    if (s->by_lane == NULL) {
        free(s);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < SOURCE_READS_MAX; i++) {
        s->reads[i].source = s;
        s->reads[i].next_free = s->free_reads;
        s->free_reads = &s->reads[i];
    }
    set->queue->copy_hooks =
        (struct copy_hooks){.ctx = s, .on_message = on_message, .on_outcome = on_outcome};
    *out = s;
    return 0;
}

void source_destroy(struct source **s)
{
    struct source *x = *s;
    *s = NULL;
    if (x == NULL)
        return;
    while (x->streams != NULL)
        stream_free(x, x->streams);
    x->set.queue->copy_hooks = (struct copy_hooks){0};
    free(x->spare);
    free(x->by_lane);
    for (unsigned i = 0; i < SOURCE_READS_MAX; i++)
        if (x->reads[i].target != NULL)
            return; /* the spool still has it in a list: the process is about to end */
    free(x);
}
