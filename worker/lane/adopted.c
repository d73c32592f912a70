/*
 * Invariant: an item stands in `items` exactly while its place + 1 is in `by_id`; free places are
 * chained through `next_free` and have the id 0. Names of nodes are few and never forgotten.
 */
#include "worker/lane/adopted.h"

#include "base/log.h"
#include "worker/lane/shard.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ORIGINS_MAX = 255, /* more names than a cluster has nodes; 0 stands for none */
    RECORD_ITEMS = 1024,
    ITEM_BYTES = ID_BYTES + 4,
    RECORD_ROOM = 1 + LIMIT_NAME_BYTES + 2 + RECORD_ITEMS * ITEM_BYTES
};

struct item {
    struct msg_id id;
    uint32_t lane;
    uint32_t next_free; /* place + 1 */
    uint8_t origin;
};
struct adopted {
    struct table by_id; /* place + 1 */
    struct item *items;
    uint32_t end, room, free_head, count;
    char (*origins)[LIMIT_NAME_BYTES + 1];
    unsigned origin_count;
};

struct item_key {
    struct msg_id id;
    uint8_t origin; /* 0: any */
};

static bool is_item(const void *ctx, uint32_t value, const void *key)
{
    const struct adopted *a = ctx;
    const struct item_key *k = key;
    const struct item *it = &a->items[value - 1];
    return id_eq(it->id, k->id) && (k->origin == 0 || k->origin == it->origin);
}

static uint32_t find(const struct adopted *a, struct msg_id id, uint8_t origin)
{
    struct item_key key = {id, origin};
    return a == NULL ? 0 : table_find(&a->by_id, id_hash(id), is_item, a, &key);
}

/* The name's number, 1..; 0: nothing came from there. */
static uint8_t origin_find(const struct adopted *a, const char *name)
{
    for (unsigned i = 0; a != NULL && i < a->origin_count; i++)
        if (strcmp(a->origins[i], name) == 0)
            return (uint8_t)(i + 1);
    return 0;
}

/* 0: no memory, or more names than there can be. */
static uint8_t origin_intern(struct adopted *a, const char *name)
{
    uint8_t known = origin_find(a, name);
    if (known != 0)
        return known;
    if (a->origin_count == ORIGINS_MAX)
        return 0;
    void *bigger = realloc(a->origins, (a->origin_count + 1) * sizeof *a->origins);
    if (bigger == NULL)
        return 0;
    a->origins = bigger;
    snprintf(a->origins[a->origin_count], sizeof *a->origins, "%s", name);
    return (uint8_t)++a->origin_count;
}

/* A free place + 1, or 0. */
static uint32_t place_get(struct adopted *a)
{
    if (a->free_head != 0) {
        uint32_t i = a->free_head;
        a->free_head = a->items[i - 1].next_free;
        return i;
    }
    if (a->end == a->room) {
        uint32_t room = a->room == 0 ? 64 : 2 * a->room;
        struct item *bigger = realloc(a->items, room * sizeof *bigger);
        if (bigger == NULL)
            return 0;
        a->items = bigger;
        a->room = room;
    }
    return ++a->end;
}

static void place_put(struct adopted *a, uint32_t i)
{
    a->items[i - 1] = (struct item){.next_free = a->free_head};
    a->free_head = i;
}

int adopted_add(struct queue *q, const struct adopted_item *item)
{
    MUST(!id_is_none(item->id));
    if (q->adopted == NULL)
        q->adopted = calloc(1, sizeof *q->adopted);
    struct adopted *a = q->adopted;
    if (a == NULL)
        return -ENOMEM;
    uint8_t origin = origin_intern(a, item->origin);
    if (origin != 0 && find(a, item->id, origin) != 0)
        return 0;
    uint32_t i = origin == 0 ? 0 : place_get(a);
    if (i == 0)
        return -ENOMEM;
    a->items[i - 1] = (struct item){.id = item->id, .lane = item->lane, .origin = origin};
    if (table_add(&a->by_id, id_hash(item->id), i) != 0) {
        place_put(a, i);
        return -ENOMEM;
    }
    a->count++;
    return 0;
}

bool adopted_has(const struct queue *q, struct msg_id id)
{
    return find(q->adopted, id, 0) != 0;
}

bool adopted_from(const struct queue *q, struct msg_id id, const char *origin)
{
    uint8_t o = origin_find(q->adopted, origin);
    return o != 0 && find(q->adopted, id, o) != 0;
}

void adopted_remove(struct queue *q, struct msg_id id, const char *origin)
{
    struct adopted *a = q->adopted;
    uint8_t o = origin_find(a, origin);
    uint32_t i = o == 0 ? 0 : find(a, id, o);
    if (i == 0)
        return;
    bool was_there = table_remove(&a->by_id, id_hash(id), i);
    MUST(was_there);
    MUST(a->count > 0);
    a->count--;
    place_put(a, i);
}

int adopted_room(struct queue *q, const struct adopted_item *item)
{
    if (find(q->adopted, item->id, origin_find(q->adopted, item->origin)) != 0 &&
        origin_find(q->adopted, item->origin) != 0)
        return 0;
    int r = adopted_add(q, item); /* its place, its name and the table's room stay */
    if (r == 0)
        adopted_remove(q, item->id, item->origin);
    return r;
}

static void item_tell(const struct adopted *a, const struct item *it, struct adopted_item *out)
{
    *out = (struct adopted_item){.id = it->id, .lane = it->lane};
    memcpy(out->origin, a->origins[it->origin - 1], sizeof out->origin);
}

bool adopted_next(const struct queue *q, uint32_t *at, struct adopted_item *out)
{
    const struct adopted *a = q->adopted;
    while (a != NULL && *at < a->end) {
        const struct item *it = &a->items[(*at)++];
        if (id_is_none(it->id))
            continue;
        item_tell(a, it, out);
        return true;
    }
    return false;
}

uint32_t adopted_count(const struct queue *q)
{
    return q->adopted == NULL ? 0 : q->adopted->count;
}

/* --- RECORD_ADOPTED: the name of the origin, a count, then ids with the numbers of their lanes ---
 */

static int record_write(struct shard *s, const char *origin, struct span items, unsigned count)
{
    if (count == 0)
        return 0;
    MUST(items.n == (size_t)count * ITEM_BYTES);
    uint8_t *meta = malloc(RECORD_ROOM);
    if (meta == NULL)
        return -ENOMEM;
    struct writer w = writer_of(meta, RECORD_ROOM);
    put_str8(&w, span_str(origin));
    put_u16(&w, (uint16_t)count);
    put_bytes(&w, items);
    MUST(!w.bad);
    struct spool_append a = {.type = RECORD_ADOPTED, .meta = span_of(meta, w.n), .fate = true};
    struct record_place place;
    int r = spool_append(s->spool, &a, NULL, &place);
    free(meta);
    return r;
}

static bool is_of_shard(struct shard *s, const struct item *it)
{
    const struct lane *l = lane_by_number(s->queue, it->lane);
    return l != NULL && l->shard == s;
}

static int origin_write(struct shard *s, const struct adopted *a, unsigned origin, uint8_t *buf)
{
    int r = 0;
    unsigned count = 0;
    struct writer w = writer_of(buf, RECORD_ITEMS * ITEM_BYTES);
    for (uint32_t i = 0; r == 0 && i < a->end; i++) {
        const struct item *it = &a->items[i];
        if (it->origin != origin || !is_of_shard(s, it))
            continue;
        put_id(&w, it->id);
        put_u32(&w, it->lane);
        if (++count < RECORD_ITEMS)
            continue;
        r = record_write(s, a->origins[origin - 1], span_of(buf, w.n), count);
        w = writer_of(buf, RECORD_ITEMS * ITEM_BYTES);
        count = 0;
    }
    return r != 0 ? r : record_write(s, a->origins[origin - 1], span_of(buf, w.n), count);
}

int adopted_keep(struct shard *s, const struct adopted_item *item)
{
    uint8_t buf[ITEM_BYTES];
    struct writer w = writer_of(buf, sizeof buf);
    put_id(&w, item->id);
    put_u32(&w, item->lane);
    int r = adopted_add(s->queue, item);
    return r != 0 ? r : record_write(s, item->origin, span_of(buf, w.n), 1);
}

int adopted_snapshot(struct shard *s)
{
    const struct adopted *a = s->queue->adopted;
    if (a == NULL || a->count == 0)
        return 0;
    uint8_t *buf = malloc(RECORD_ITEMS * ITEM_BYTES);
    if (buf == NULL)
        return -ENOMEM;
    int r = 0;
    for (unsigned o = 1; r == 0 && o <= a->origin_count; o++)
        r = origin_write(s, a, o, buf);
    free(buf);
    return r;
}

void adopted_apply(struct shard *s, const struct record_view *v)
{
    struct cursor c = cursor_of(v->meta);
    struct span origin = cursor_str8(&c);
    unsigned count = cursor_u16(&c);
    struct adopted_item item = {.lane = 0};
    bool whole = !c.bad && origin.n <= LIMIT_NAME_BYTES && cursor_left(&c) == count * ITEM_BYTES;
    if (!whole) {
        s->damaged++;
        return;
    }
    memcpy(item.origin, origin.p, origin.n);
    for (unsigned i = 0; i < count; i++) {
        item.id = cursor_id(&c);
        item.lane = cursor_u32(&c);
        if (id_is_none(item.id))
            s->damaged++;
        else if (adopted_add(s->queue, &item) != 0)
            s->left_out++; /* forgetting one may deliver it twice: the shard is not opened */
    }
}

void adopted_free(struct queue *q)
{
    struct adopted *a = q->adopted;
    q->adopted = NULL;
    if (a == NULL)
        return;
    table_fini(&a->by_id);
    free(a->items);
    free(a->origins);
    free(a);
}
