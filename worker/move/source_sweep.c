/*
 * What is to be sent: one hand goes over all entries for all streams, new mail comes by itself.
 * Messages are read in the order of the log, some at once; what the cache has is not read.
 *
 * Invariants: a stream is swept when the hand has come round to where the stream joined. A message
 * may be listed twice: MSG_SENT decides. A read belongs to one beginning of its stream.
 */
#include "worker/move/source_impl.h"

#include <errno.h>
#include <stdlib.h>

/* --- lists --- */

static uint32_t list_left(const struct source_list *l)
{
    return l->count - l->at;
}

static void list_free(struct source_list *l)
{
    free(l->items);
    *l = (struct source_list){0};
}

static bool list_add(struct source_list *l, const struct source_item *it)
{
    if (l->at > 0 && l->count == l->cap) {
        memmove(l->items, l->items + l->at, list_left(l) * sizeof *l->items);
        l->count -= l->at;
        l->at = 0;
    }
    if (l->count == l->cap) {
        uint32_t cap = l->cap > 0 ? 2 * l->cap : 64;
        struct source_item *p = realloc(l->items, cap * sizeof *p);
        if (p == NULL)
            return false;
        l->items = p;
        l->cap = cap;
    }
    l->items[l->count++] = *it;
    l->bytes += it->bytes;
    return true;
}

static void list_pop(struct source_list *l)
{
    l->bytes -= l->items[l->at++].bytes;
    if (l->at == l->count)
        l->at = l->count = 0;
}

void source_lists_clear(struct source_stream *st)
{
    list_free(&st->listed);
    list_free(&st->fresh);
    st->reads = 0; /* those under way are of an earlier generation now */
    st->reading_bytes = 0;
}

uint32_t source_msg_bytes(const struct qmsg *m)
{
    return store_msg_bytes(m);
}

static struct source_item item_of(const struct qmsg *m)
{
    return (struct source_item){m->id, m->segment, m->offset, source_msg_bytes(m)};
}

void source_fresh(struct source_stream *st, const struct qmsg *m)
{
    struct source_item it = item_of(m);
    if (list_left(&st->fresh) >= SOURCE_FRESH_MAX || !list_add(&st->fresh, &it))
        source_sweep_restart(st);
}

/* --- the sweep --- */

void source_sweep_restart(struct source_stream *st)
{
    st->sweep_from = st->source->hand;
    st->swept = st->wrapped = false;
}

static bool wants_sweep(const struct source_stream *st)
{
    return !st->swept && (st->state == SOURCE_CLEARING || st->state == SOURCE_SENDING);
}

/* False: no room in the list, the hand waits here. */
static bool note_unsent(struct source_stream *st, const struct qmsg *m)
{
    if (m->flags & (MSG_SENT | MSG_LATE))
        return true;
    if (list_left(&st->listed) >= SOURCE_LISTED_MAX)
        return false;
    struct source_item it = item_of(m);
    const struct source_list *l = &st->listed;
    if (list_left(l) > 0 && id_eq(l->items[l->count - 1].id, it.id))
        return true; /* another recipient of the same message */
    if (!list_add(&st->listed, &it))
        return false;
    st->unsorted = true;
    st->unswept_bytes -= it.bytes < st->unswept_bytes ? it.bytes : st->unswept_bytes;
    st->unswept_messages -= st->unswept_messages > 0 ? 1 : 0;
    return true;
}

static void wipe(struct source_stream *st, struct qmsg *m, uint32_t entry)
{
    m->flags &= (uint8_t)~MSG_SENT;
    if (m->first != entry || (m->flags & MSG_LATE))
        return;
    st->unswept_messages++;
    st->unswept_bytes += source_msg_bytes(m);
}

static bool visit(struct source *s, uint32_t i)
{
    struct queue *q = s->set.queue;
    const struct qentry *e = store_peek(&q->store, i);
    if (e == NULL)
        return true;
    struct qmsg *m = store_msg(&q->store, e->msg);
    struct source_stream *st = s->by_lane[m->lane];
    if (st == NULL || !wants_sweep(st))
        return true;
    if (st->state == SOURCE_SENDING)
        return note_unsent(st, m);
    wipe(st, m, i);
    return true;
}

static void arrived(struct source *s, bool wrapped)
{
    for (struct source_stream *st = s->streams; st != NULL; st = st->next) {
        if (!wants_sweep(st))
            continue;
        st->wrapped = st->wrapped || wrapped;
        st->swept = st->wrapped && s->hand >= st->sweep_from;
        if (st->swept && st->state == SOURCE_SENDING)
            st->unswept_messages = st->unswept_bytes = 0; /* what is left of a guess */
    }
}

/* To where the next stream is done, at most *steps, which are counted down. False: the list of a
   stream is full, the hand waits there. */
static bool advance(struct source *s, uint32_t *steps)
{
    uint32_t end = store_entry_end(&s->set.queue->store), from = s->hand;
    uint32_t to = end - from < *steps ? end : from + *steps;
    for (const struct source_stream *st = s->streams; st != NULL; st = st->next)
        if (wants_sweep(st) && st->wrapped && st->sweep_from > from && st->sweep_from < to)
            to = st->sweep_from;
    while (s->hand < to && visit(s, s->hand))
        s->hand++;
    uint32_t made = s->hand > from ? s->hand - from : 1;
    *steps -= made < *steps ? made : *steps;
    if (s->hand < to)
        return false;
    bool wrapped = s->hand >= end;
    if (wrapped)
        s->hand = 1;
    arrived(s, wrapped);
    return true;
}

static bool any_wants(const struct source *s)
{
    for (const struct source_stream *st = s->streams; st != NULL; st = st->next)
        if (wants_sweep(st))
            return true;
    return false;
}

static int by_place(const void *a, const void *b)
{
    const struct source_item *x = a, *y = b;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void sort_lists(struct source *s)
{
    for (struct source_stream *st = s->streams; st != NULL; st = st->next) {
        struct source_list *l = &st->listed;
        if (st->unsorted && list_left(l) > 1)
            qsort(l->items + l->at, list_left(l), sizeof *l->items, by_place);
        st->unsorted = false;
    }
}

void source_sweep_turn(struct source *s)
{
    uint32_t steps = SOURCE_SWEEP_STEP;
    bool moves = true;
    while (moves && steps > 0 && any_wants(s))
        moves = advance(s, &steps);
    sort_lists(s);
    if (moves && any_wants(s))
        s->starved = true;
}

/* --- reading --- */

static struct source_read *read_get(struct source_stream *st, const struct source_item *it)
{
    struct source *s = st->source;
    struct source_read *r = s->free_reads;
    if (r == NULL)
        return NULL;
    s->free_reads = r->next_free;
    r->next_free = NULL;
    r->stream = st;
    r->generation = st->generation;
    r->target = st->target;
    r->item = *it;
    r->chunk = r->chunk_count = 0;
    r->target->reading += it->bytes;
    r->target->streams++; /* it stays until the read is over */
    st->reads++;
    st->reading_bytes += it->bytes;
    return r;
}

/* Is the stream still the one that wanted this? */
static bool is_current(const struct source_read *r)
{
    return r->stream != NULL && r->stream->generation == r->generation &&
           r->stream->state == SOURCE_SENDING;
}

static void read_put(struct source_read *r)
{
    struct source *s = r->source;
    if (r->stream != NULL && r->stream->generation == r->generation) {
        r->stream->reads--;
        r->stream->reading_bytes -= r->item.bytes;
    }
    r->stream = NULL;
    r->target->reading -= r->item.bytes;
    source_target_put(s, &r->target);
    free(r->chunk_bytes);
    r->chunk_bytes = NULL;
    r->next_free = s->free_reads;
    s->free_reads = r;
}

void source_orphan_reads(struct source_stream *st)
{
    for (unsigned i = 0; i < SOURCE_READS_MAX; i++)
        if (st->source->reads[i].stream == st)
            st->source->reads[i].stream = NULL;
}

/* The message as it is to be copied now, or NULL: it has ended, or is on its way already. */
static struct qmsg *wanted(const struct source_stream *st, struct msg_id id)
{
    struct qmsg *m = store_find(&st->source->set.queue->store, id);
    bool here = m != NULL && m->lane == st->lane->index && m->live > 0;
    return here && (m->flags & (MSG_SENT | MSG_LATE)) == 0 ? m : NULL;
}

static void put_chunks(struct writer *w, const uint32_t *bytes, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++) {
        struct enq_chunk c = {.place.bytes = bytes[i], .body_bytes = bytes[i]};
        enq_put_chunk(w, &c);
    }
}

/* States are taken here, in the step that sets MSG_SENT. */
static int emit_message(struct source_stream *st, struct qmsg *m, struct span meta,
                        struct span rest, const struct source_read *r)
{
    struct enq old;
    if (enq_read(meta, &old) != 0)
        return -EBADMSG;
    old.flags &= (uint16_t)~ENQ_COPY;
    old.chunk_count = r != NULL ? r->chunk_count : 0;
    size_t room = meta.n + 64;
    uint8_t *buf = malloc(room);
    struct writer w = writer_of(buf, buf != NULL ? room : 0);
    msg_put_meta(st->source->set.queue, m, &old, false, &w);
    if (r != NULL)
        put_chunks(&w, r->chunk_bytes, r->chunk_count);
    struct lane_frame f = {.kind = LANE_FRAME_ENQ, .meta = span_of(buf, w.n), .rest = rest};
    bool ok = !w.bad && source_emit(st, &f);
    free(buf);
    if (!ok)
        return -ENOMEM;
    m->flags |= MSG_SENT;
    st->messages_sent++;
    return 0;
}

static int next_record(struct source_read *r, const struct qmsg *m);

static int take_chunk(struct source_read *r, struct qmsg *m, const struct record_view *v)
{
    struct lane_item it = {.id = r->item.id, .index = r->chunk};
    struct lane_frame f = {
        .kind = LANE_FRAME_CHUNK, .items = &it, .item_count = 1, .rest = v->rest};
    if (!source_emit(r->stream, &f))
        return -ENOMEM;
    r->chunk_bytes[r->chunk++] = (uint32_t)v->rest.n;
    return next_record(r, m);
}

/* 0: another read is under way; 1: done; -errno. */
static int take_record(struct source_read *r, struct qmsg *m, const struct record_view *v)
{
    if (r->chunk < r->chunk_count)
        return take_chunk(r, m, v);
    int res = emit_message(r->stream, m, v->meta, v->rest, r);
    return res != 0 ? res : 1;
}

static void read_failed(struct source_stream *st, struct msg_id id, int res)
{
    char text[ID_TEXT + 1];
    id_format(id, text);
    if (res == -ENOMEM || res == -EAGAIN)
        source_event(st, SOURCE_EV_REFUSED); /* begins anew soon */
    else
        source_break(st, "message %s %s: `mochila delete %s`, or restore it", text,
                     res == -EBADMSG ? "is damaged on disk" : "cannot be read from disk", text);
}

/* Its records lie where this read began to look for them. */
static bool is_in_place(const struct source_read *r, const struct qmsg *m)
{
    return m->segment == r->item.segment && m->offset == r->item.offset;
}

static void on_read(struct spool_read *read, int res, const struct record_view *v)
{
    struct source_read *r =
        (struct source_read *)((char *)read - offsetof(struct source_read, read));
    struct source_stream *st = r->stream;
    struct qmsg *m = is_current(r) ? wanted(st, r->item.id) : NULL;
    if (m == NULL) {
        read_put(r);
        return;
    }
    bool moved = !is_in_place(r, m);
    if (res == 0)
        res = take_record(r, m, v);
    if (res == 0)
        return;
    struct msg_id id = r->item.id;
    read_put(r);
    if (res < 0 && (moved || res == -ENOBUFS))
        source_fresh(st, m); /* compaction was there first, or too much is read: once more */
    else if (res < 0)
        read_failed(st, id, res);
}

static int next_record(struct source_read *r, const struct qmsg *m)
{
    const struct queue *q = r->source->set.queue;
    const struct record_place *places;
    uint16_t n = shard_chunks(q, m, &places);
    if (n != r->chunk_count)
        return -EAGAIN;
    struct record_place at = r->chunk < n ? places[r->chunk] : msg_place(m);
    r->read.on_read = on_read;
    return spool_read(q->lanes[m->lane].shard->spool, &r->read, &at);
}

/* Pieces of one message from two reads would be mixed up. */
static bool is_read_already(const struct source_stream *st, struct msg_id id)
{
    for (unsigned i = 0; i < SOURCE_READS_MAX; i++) {
        const struct source_read *r = &st->source->reads[i];
        if (r->stream == st && r->generation == st->generation && id_eq(r->item.id, id))
            return true;
    }
    return false;
}

/* 0: under way; -ENOBUFS: later. */
static int read_start(struct source_stream *st, const struct qmsg *m)
{
    const struct record_place *places;
    struct source_item it = item_of(m);
    if (is_read_already(st, m->id))
        return 0;
    struct source_read *r = read_get(st, &it);
    if (r == NULL)
        return -ENOBUFS;
    r->chunk_count = shard_chunks(st->source->set.queue, m, &places);
    r->chunk_bytes = calloc(r->chunk_count + 1u, sizeof *r->chunk_bytes);
    int res = r->chunk_bytes != NULL ? next_record(r, m) : -ENOBUFS;
    if (res != 0)
        read_put(r);
    return res;
}

/* --- sending --- */

/* False: it waits, and all behind it. */
static bool send_one(struct source_stream *st, const struct source_item *it)
{
    struct qmsg *m = wanted(st, it->id);
    if (m == NULL)
        return true;
    const struct content *c = msg_content(m);
    int res;
    if (c != NULL && m->chunks == 0) {
        res = emit_message(st, m, span_of(c->meta, c->meta_bytes),
                           span_of(c->rest, c->rest_bytes), NULL);
    } else {
        res = read_start(st, m);
        st->source->turn_bytes += it->bytes;
    }
    if (res == -ENOBUFS)
        return false;
    if (res != 0)
        read_failed(st, it->id, res);
    return true;
}

static void send_some(struct source_stream *st)
{
    struct source *s = st->source;
    while (st->state == SOURCE_SENDING) {
        struct source_list *l = list_left(&st->fresh) > 0 ? &st->fresh : &st->listed;
        if (list_left(l) == 0 || !source_window_open(st) || !source_rate_allows(st))
            return;
        if (s->turn_bytes >= SOURCE_TURN_BYTES) {
            s->starved = true;
            return;
        }
        struct source_item it = l->items[l->at];
        if (!send_one(st, &it))
            return;
        if (st->state == SOURCE_SENDING) /* or its lists are gone */
            list_pop(l);
    }
}

/* The first in the list of streams is the last next time. */
static void rotate(struct source *s)
{
    struct source_stream *first = s->streams, **end = &s->streams;
    if (first == NULL || first->next == NULL)
        return;
    s->streams = first->next;
    while (*end != NULL)
        end = &(*end)->next;
    *end = first;
    first->next = NULL;
}

void source_send_turn(struct source *s)
{
    rotate(s);
    for (struct source_stream *st = s->streams; st != NULL; st = st->next)
        send_some(st);
}

bool source_all_sent(const struct source_stream *st)
{
    return st->swept && st->reads == 0 && list_left(&st->listed) == 0 &&
           list_left(&st->fresh) == 0;
}
