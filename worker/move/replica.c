/*
 * The stream: beginnings, order, what waits, what is said back. What a frame does:
 * replica_apply.c.
 *
 * Invariant: applied <= position; frames between them wait in `late`, in order. What is
 * acknowledged was applied before a sync of the log that has come back.
 */
#include "worker/move/replica_impl.h"

#include "base/log.h"
#include "worker/move/digest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { LIST_STEP = 16384 /* entries a turn */ };

/* --- saying --- */

static int say(struct replica *r, const char *node, uint32_t slot, const struct lane_frame *f)
{
    size_t room = LANE_FRAME_HEAD_BYTES + (size_t)f->item_count * sizeof *f->items;
    uint8_t *buf = malloc(room);
    size_t n;
    if (buf == NULL)
        return -ENOMEM;
    int res = lane_frame_head(f, buf, room, &n);
    if (res == 0)
        res = carrier_send(r->set.carrier, node, slot, span_of(buf, n));
    free(buf);
    return res;
}

static struct lane_frame frame_of(const struct replica_stream *st, enum lane_frame_kind kind)
{
    return (struct lane_frame){.kind = kind,
                               .lane = st->lane->address,
                               .move = st->move,
                               .epoch = st->epoch,
                               .position = st->position};
}

/* An answer that does not get through is no loss: the source begins anew when it hears nothing. */
static void say_refused(struct replica *r, const char *node, uint32_t slot, struct lane_frame *f)
{
    f->kind = LANE_FRAME_REFUSED;
    if (say(r, node, slot, f) != 0)
        log_note("the source at %s could not be told that its copy is refused", node);
}

/* --- streams --- */

static void late_pop(struct replica_stream *st)
{
    struct replica_late *x = st->late;
    st->late = x->next;
    if (st->late == NULL)
        st->late_end = &st->late;
    st->replica->late_bytes -= x->bytes;
    free(x);
}

static void late_free(struct replica_stream *st)
{
    while (st->late != NULL)
        late_pop(st);
}

static void wipe(struct replica_stream *st)
{
    late_free(st);
    replica_parts_drop(st);
    free(st->tails);
    st->tails = NULL;
    st->tail_count = 0;
    free(st->items);
    st->items = NULL;
    st->item_count = 0;
}

void replica_refuse(struct replica_stream *st, bool again, const char *why)
{
    if (st->state == REPLICA_REFUSED || st->state == REPLICA_IDLE)
        return;
    struct lane_frame f = frame_of(st, LANE_FRAME_REFUSED);
    f.again = again;
    snprintf(f.why, sizeof f.why, "%s", why);
    log_note("lane %s: the copy from %s is refused: %s", st->lane->name, st->node, why);
    wipe(st);
    st->state = REPLICA_REFUSED;
    say_refused(st->replica, st->node, st->slot, &f);
}

static struct replica_stream *stream_for(struct replica *r, struct lane *l)
{
    struct replica_stream *st = r->by_lane[l->index];
    if (st != NULL)
        return st;
    st = calloc(1, sizeof *st);
    if (st == NULL)
        return NULL;
    st->replica = r;
    st->lane = l;
    st->late_end = &st->late;
    st->next = r->streams;
    r->streams = st;
    r->by_lane[l->index] = st;
    return st;
}

static bool is_replica(const struct lane *l, uint64_t move, uint32_t epoch)
{
    return l->shard != NULL && l->role == LANE_REPLICA && l->move == move && l->epoch == epoch;
}

/* --- frames --- */

static bool is_stream_of(const struct replica_stream *st, const char *node, uint32_t slot,
                         const struct lane_frame *f)
{
    return st->slot == slot && st->move == f->move && st->epoch == f->epoch &&
           st->position >> 32 == f->position >> 32 && strcmp(st->node, node) == 0;
}

static void begin(struct replica_stream *st, const char *node, uint32_t slot,
                  const struct lane_frame *f)
{
    wipe(st);
    snprintf(st->node, sizeof st->node, "%s", node);
    st->slot = slot;
    st->move = f->move;
    st->epoch = f->epoch;
    st->position = st->applied = f->position;
    st->acked = f->position - 1;
    st->list_at = 1;
    st->state = REPLICA_LISTING;
    if (!is_replica(st->lane, f->move, f->epoch))
        replica_refuse(st, true, "the lane is no replica here");
}

static size_t items_bytes(const struct lane_frame *f)
{
    return (size_t)f->item_count * sizeof *f->items;
}

/* A copy of the frame behind those that wait. */
static int keep_late(struct replica_stream *st, const struct lane_frame *f)
{
    size_t items = items_bytes(f), bytes = items + f->meta.n + f->rest.n;
    struct replica *r = st->replica;
    struct replica_late *x =
        r->late_bytes + bytes <= REPLICA_LATE_BYTES ? malloc(sizeof *x + bytes) : NULL;
    if (x == NULL)
        return -ENOMEM;
    x->next = NULL;
    x->frame = *f;
    x->frame.memory = NULL;
    x->bytes = bytes + sizeof *x;
    r->late_bytes += x->bytes;
    uint8_t *at = x->data;
    if (items > 0)
        memcpy(at, f->items, items);
    x->frame.items = (const struct lane_item *)(const void *)at;
    struct writer w = writer_of(at + items, f->meta.n + f->rest.n);
    put_bytes(&w, f->meta);
    put_bytes(&w, f->rest);
    x->frame.meta = span_of(at + items, f->meta.n);
    x->frame.rest = span_of(at + items + f->meta.n, f->rest.n);
    *st->late_end = x;
    st->late_end = &x->next;
    return 0;
}

static const char *why_not(int res)
{
    if (res == -ENOSPC)
        return "no room for it: the disk or the index is full";
    if (res == -EIO)
        return "its disk takes nothing";
    if (res == -ESTALE)
        return "the lane is no replica here";
    return res == -ENOMEM ? "no memory" : "a frame cannot be used";
}

/* False: the frame waits. */
static bool apply(struct replica_stream *st, const struct lane_frame *f)
{
    int res = replica_apply(st, f);
    if (res == -EAGAIN)
        return false;
    if (res != 0)
        replica_refuse(st, res != -ENOSPC, why_not(res));
    else
        st->applied = f->position;
    return true;
}

static void take(struct replica_stream *st, const struct lane_frame *f)
{
    if (f->position != st->position + 1) {
        replica_refuse(st, true, "a frame is missing");
        return;
    }
    st->position = f->position;
    bool waits = st->late != NULL || !apply(st, f);
    if (waits && keep_late(st, f) != 0)
        replica_refuse(st, true, why_not(-ENOMEM));
}

void replica_frame(struct replica *r, const char *node, uint32_t slot, const struct lane_frame *f)
{
    struct lane *l = lane_by_address(r->set.queue, &f->lane);
    struct replica_stream *st = l == NULL ? NULL : stream_for(r, l);
    if (st == NULL) {
        struct lane_frame no = *f;
        no.items = NULL;
        no.item_count = 0;
        no.meta = no.rest = (struct span){0};
        no.again = l != NULL;
        snprintf(no.why, sizeof no.why, "%s", l != NULL ? "no memory" : "it has no such lane");
        if (f->kind == LANE_FRAME_BEGIN)
            say_refused(r, node, slot, &no);
        return;
    }
    if (f->kind == LANE_FRAME_BEGIN) {
        begin(st, node, slot, f);
        return;
    }
    if (st->state == REPLICA_IDLE) { /* of a stream before we were started, or before a loss */
        begin(st, node, slot, f);
        replica_refuse(st, true, "the copy has to begin anew");
    }
    if (st->state != REPLICA_REFUSED && is_stream_of(st, node, slot, f))
        take(st, f);
}

void replica_down(struct replica *r, const char *node)
{
    for (struct replica_stream *st = r->streams; st != NULL; st = st->next) {
        if (st->state == REPLICA_IDLE || strcmp(st->node, node) != 0)
            continue;
        wipe(st);
        st->state = REPLICA_IDLE;
    }
}

void replica_up(struct replica *r, const char *node)
{
    replica_down(r, node);
}

/* --- what is here --- */

/* False: the carrier is full, or there is no memory now. */
static bool list_flush(struct replica_stream *st, bool last)
{
    struct lane_frame f = frame_of(st, LANE_FRAME_INVENTORY);
    f.items = st->items;
    f.item_count = st->item_count;
    f.last = last;
    if ((st->item_count > 0 || last) && say(st->replica, st->node, st->slot, &f) != 0)
        return false;
    st->item_count = 0;
    return true;
}

static void list_entry(struct replica_stream *st, const struct qentry *e)
{
    const struct queue *q = st->replica->set.queue;
    const struct qmsg *m = store_msg(&q->store, e->msg);
    if (m->lane != st->lane->index || (e->state != ENTRY_REPLICA && e->state != ENTRY_TAIL))
        return;
    if (st->item_count > 0 && id_eq(st->items[st->item_count - 1].id, m->id))
        return; /* another recipient of it */
    st->items[st->item_count++] = (struct lane_item){.id = m->id, .digest = move_digest(q, m)};
}

static void list_some(struct replica_stream *st)
{
    const struct store *store = &st->replica->set.queue->store;
    if (st->items == NULL)
        st->items = calloc(LANE_FRAME_ITEMS, sizeof *st->items);
    if (st->items == NULL)
        return;
    for (uint32_t steps = LIST_STEP; steps > 0 && st->list_at < store_entry_end(store); steps--) {
        const struct qentry *e = store_peek(store, st->list_at);
        if (e != NULL)
            list_entry(st, e);
        st->list_at++;
        if (st->item_count == LANE_FRAME_ITEMS && !list_flush(st, false)) {
            st->list_at--; /* looked at again: the list is full, an entry twice is no harm */
            st->item_count--;
            return;
        }
    }
    if (st->list_at < store_entry_end(store)) {
        st->replica->starved = true;
        return;
    }
    if (!list_flush(st, true))
        return;
    free(st->items);
    st->items = NULL;
    st->state = REPLICA_TAKING;
}

/* --- turns --- */

static void on_synced(struct spool_wait *w, int res)
{
    struct replica_stream *st =
        (struct replica_stream *)((char *)w - offsetof(struct replica_stream, sync_wait));
    st->syncing = false;
    bool over = st->state == REPLICA_REFUSED || st->state == REPLICA_IDLE;
    if (over || st->sync_position >> 32 != st->position >> 32)
        return;
    if (res != 0) {
        replica_refuse(st, true, why_not(-EIO));
        return;
    }
    struct lane_frame f = frame_of(st, LANE_FRAME_ACK);
    f.position = st->sync_position;
    if (say(st->replica, st->node, st->slot, &f) == 0)
        st->acked = st->sync_position;
}

static void sync_applied(struct replica_stream *st)
{
    if (st->syncing || st->applied <= st->acked)
        return;
    st->syncing = true;
    st->sync_position = st->applied;
    st->sync_wait.on_durable = on_synced;
    spool_sync(st->lane->shard->spool, &st->sync_wait);
}

static void stream_turn(struct replica_stream *st)
{
    if (st->state == REPLICA_REFUSED || st->state == REPLICA_IDLE)
        return;
    if (!is_replica(st->lane, st->move, st->epoch)) {
        wipe(st); /* it became ours, or the copy was dropped */
        st->state = REPLICA_IDLE;
        return;
    }
    while (st->late != NULL && apply(st, &st->late->frame)) {
        if (st->late == NULL) /* refused: all is wiped */
            return;
        late_pop(st);
    }
    if (st->state == REPLICA_LISTING)
        list_some(st);
    sync_applied(st);
}

void replica_turn(struct replica *r)
{
    r->starved = false;
    for (struct replica_stream *st = r->streams; st != NULL; st = st->next)
        stream_turn(st);
}

bool replica_busy(const struct replica *r)
{
    return r->starved;
}

/* --- life --- */

int replica_create(struct replica **out, const struct replica_settings *set)
{
    struct replica *r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->set = *set;
    r->by_lane = calloc(LIMIT_LANES, sizeof *r->by_lane);
    if (r->by_lane == NULL) {
        free(r);
        return -ENOMEM;
    }
    *out = r;
    return 0;
}

void replica_destroy(struct replica **replica)
{
    struct replica *r = *replica;
    *replica = NULL;
    if (r == NULL)
        return;
    while (r->puts != NULL)
        replica_put_free(r->puts);
    while (r->streams != NULL) {
        struct replica_stream *st = r->streams;
        r->streams = st->next;
        st->state = REPLICA_IDLE;
        wipe(st);
        free(st);
    }
    free(r->by_lane);
    free(r);
}
