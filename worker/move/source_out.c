/*
 * Frames of a stream into payloads, payloads to the carrier, acknowledgements back.
 *
 * Invariant: target->unacked is the sum over its streams of bytes - acked_bytes; a mark says how
 * many bytes of the stream end at its position, marks rise.
 */
#include "worker/move/source_impl.h"

#include "worker/lane/adopted.h"
#include "worker/lane/flow_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ITEM_BYTES = 64, /* at most, of an item in a head */
    END_ITEMS = 2048,
    WAITING_MAX = 2 * SOURCE_WINDOW_BYTES, /* outcomes do not wait for the window */
    BURST_MS = 250,
};

/* --- targets --- */

struct source_target *source_target_get(struct source *s, const char *node, uint32_t slot)
{
    struct source_target *t = s->targets;
    while (t != NULL && (t->slot != slot || strcmp(t->node, node) != 0))
        t = t->next;
    if (t == NULL) {
        t = calloc(1, sizeof *t);
        if (t == NULL)
            return NULL;
        snprintf(t->node, sizeof t->node, "%s", node);
        t->slot = slot;
        t->next = s->targets;
        s->targets = t;
    }
    t->streams++;
    return t;
}

void source_target_put(struct source *s, struct source_target **target)
{
    struct source_target *t = *target;
    *target = NULL;
    if (t == NULL || --t->streams > 0)
        return;
    MUST(t->unacked == 0);
    source_target_drop(s, t);
    struct source_target **at = &s->targets;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
}

static void payload_put(struct source *s, struct source_payload *p)
{
    if (s->spare == NULL)
        s->spare = p;
    else
        free(p);
}

static void pop(struct source *s, struct source_target *t)
{
    struct source_payload *p = t->head;
    t->waiting -= p->n;
    t->head = p->next;
    if (t->head == NULL)
        t->tail = NULL;
    payload_put(s, p);
}

void source_target_drop(struct source *s, struct source_target *t)
{
    while (t->head != NULL)
        pop(s, t);
    MUST(t->waiting == 0);
    t->blocked = false;
}

/* --- frames --- */

static bool payload_add(struct source *s, struct source_target *t)
{
    struct source_payload *p = s->spare != NULL ? s->spare : malloc(sizeof *p);
    if (p == NULL)
        return false;
    if (p == s->spare)
        s->spare = NULL;
    p->next = NULL;
    p->n = 0;
    if (t->tail != NULL)
        t->tail->next = p;
    else
        t->head = p;
    t->tail = p;
    return true;
}

static struct source_payload *payload_for(struct source *s, struct source_target *t, size_t bytes)
{
    if (t->waiting + bytes > WAITING_MAX)
        return NULL;
    const struct source_payload *p = t->tail;
    bool full = p == NULL || (p->n > 0 && p->n + bytes > SOURCE_PAYLOAD_BYTES);
    if (full && !payload_add(s, t))
        return NULL;
    return t->tail;
}

static void mark(struct source_stream *st)
{
    if (st->mark_count == SOURCE_MARKS)
        st->mark_count--; /* the last one reaches further: acknowledged a little later */
    uint32_t i = (st->mark_at + st->mark_count++) % SOURCE_MARKS;
    st->marks[i] = (struct source_mark){st->position, st->bytes};
}

static uint64_t marked_bytes(const struct source_stream *st)
{
    if (st->mark_count == 0)
        return st->acked_bytes;
    return st->marks[(st->mark_at + st->mark_count - 1) % SOURCE_MARKS].bytes;
}

bool source_emit(struct source_stream *st, struct lane_frame *f)
{
    struct source *s = st->source;
    struct source_target *t = st->target;
    f->lane = st->lane->address;
    f->move = st->order.move;
    f->epoch = st->order.epoch;
    f->position = st->position + 1;
    size_t room = LANE_FRAME_HEAD_BYTES + (size_t)f->item_count * ITEM_BYTES;
    room += f->meta.n + f->rest.n;
    struct source_payload *p = payload_for(s, t, room);
    size_t n;
    if (p == NULL || lane_frame_head(f, p->bytes + p->n, sizeof p->bytes - p->n, &n) != 0)
        return false;
    struct writer w = writer_of(p->bytes + p->n + n, sizeof p->bytes - p->n - n);
    put_bytes(&w, f->meta);
    put_bytes(&w, f->rest);
    if (w.bad)
        return false;
    n += w.n;
    p->n += (uint32_t)n;
    t->waiting += n;
    t->unacked += n;
    st->position++;
    st->bytes += n;
    st->tokens -= (double)n;
    s->turn_bytes += (uint32_t)n;
    if (st->bytes - marked_bytes(st) >= SOURCE_MARK_BYTES)
        mark(st);
    return true;
}

void source_marks_turn(struct source *s)
{
    for (struct source_stream *st = s->streams; st != NULL; st = st->next)
        if (st->bytes != marked_bytes(st))
            mark(st);
}

void source_acked(struct source_stream *st, uint64_t position)
{
    uint64_t bytes = st->acked_bytes;
    while (st->mark_count > 0 && st->marks[st->mark_at].position <= position) {
        bytes = st->marks[st->mark_at].bytes;
        st->mark_at = (st->mark_at + 1) % SOURCE_MARKS;
        st->mark_count--;
    }
    if (position == st->position)
        bytes = st->bytes;
    st->target->unacked -= bytes - st->acked_bytes;
    st->acked_bytes = bytes;
    st->acked = position;
}

void source_out_begin(struct source_stream *st)
{
    if (st->target != NULL)
        st->target->unacked -= st->bytes - st->acked_bytes;
    st->acked_before += st->acked_bytes;
    st->bytes = st->acked_bytes = 0;
    st->mark_at = st->mark_count = 0;
    /* the low half counts frames, the high half beginnings */
    st->position = ((st->position >> 32) + 1) << 32;
    st->acked = st->position;
}

void source_flush(struct source *s)
{
    for (struct source_target *t = s->targets; t != NULL; t = t->next) {
        int r = 0;
        while (t->head != NULL && r == 0) {
            struct span bytes = span_of(t->head->bytes, t->head->n);
            r = bytes.n == 0 ? 0 : carrier_send(s->set.carrier, t->node, t->slot, bytes);
            if (r == 0)
                pop(s, t);
        }
        t->blocked = r != 0;
        if (r == -ENOTCONN)
            source_target_drop(s, t); /* on_down is on its way */
    }
}

/* --- how much --- */

bool source_window_open(const struct source_stream *st)
{
    const struct source_target *t = st->target;
    return !t->blocked && t->unacked + t->reading < SOURCE_WINDOW_BYTES;
}

bool source_rate_allows(struct source_stream *st)
{
    uint64_t now = queue_now_ms(st->source->set.queue);
    if (st->order.rate == 0 || st->lane->role == LANE_FROZEN) {
        st->tokens = 0;
        st->tokens_ms = now;
        return true;
    }
    double rate = (double)st->order.rate, most = rate * BURST_MS / 1000.0;
    st->tokens += rate * (double)(now - st->tokens_ms) / 1000.0;
    st->tokens_ms = now;
    if (st->tokens > most)
        st->tokens = most;
    return st->tokens > 0;
}

/* --- END --- */

struct end_items {
    struct lane_item items[END_ITEMS];
    uint32_t count;
    bool ok;
};

static void end_flush(struct source_stream *st, struct end_items *x)
{
    struct lane_frame f = {
        .kind = LANE_FRAME_END, .items = x->items, .item_count = x->count};
    x->ok = x->ok && (x->count == 0 || source_emit(st, &f));
    x->count = 0;
}

static struct lane_item *end_item(struct source_stream *st, struct end_items *x)
{
    if (x->count == END_ITEMS)
        end_flush(st, x);
    struct lane_item *it = &x->items[x->count++];
    memset(it, 0, sizeof *it);
    return it;
}

static void end_tail(struct source_stream *st, struct end_items *x, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&st->source->set.queue->store, e->msg);
    if (!e->tail || m->lane != st->lane->index)
        return;
    struct lane_item *it = end_item(st, x);
    it->id = m->id;
    it->index = e->index;
}

static void end_list(struct source_stream *st, struct end_items *x, const struct qlist *list)
{
    const struct store *store = &st->source->set.queue->store;
    for (uint32_t i = list->head; i != 0; i = store_entry(store, i)->next)
        end_tail(st, x, store_entry(store, i));
}

/* What was in flight at the freeze: is still, or was parked or held since; or it came back, and is
   a stray. */
static void end_tails(struct source_stream *st, struct end_items *x)
{
    end_list(st, x, &st->lane->open_tails);
    end_list(st, x, &st->lane->strays);
}

static void end_adopted(struct source_stream *st, struct end_items *x)
{
    const struct queue *q = st->source->set.queue;
    struct adopted_item a;
    uint32_t at = 0;
    while (q->adopted != NULL && adopted_next(q, &at, &a)) {
        if (a.lane != st->lane->number)
            continue;
        struct lane_item *it = end_item(st, x);
        it->id = a.id;
        snprintf(it->origin, sizeof it->origin, "%s", a.origin);
    }
}

/* What could not be put together for want of memory is not said: the time of END begins it anew. */
void source_emit_end(struct source_stream *st)
{
    struct end_items *x = calloc(1, sizeof *x);
    uint8_t *state = NULL;
    size_t n = 0;
    if (x != NULL) {
        x->ok = flow_state_export(st->source->set.queue, st->lane, &state, &n) == 0;
        end_tails(st, x);
        end_adopted(st, x);
        end_flush(st, x);
        struct lane_frame last = {
            .kind = LANE_FRAME_END, .last = true, .rest = span_of(state, n)};
        if (x->ok)
            (void)source_emit(st, &last);
    }
    free(state);
    free(x);
}
