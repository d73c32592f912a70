#include "worker/lane/store.h"

#include <assert.h>
#include <errno.h>

/* Invariants: an entry belongs to exactly one message and stands in at most one list; a message is
 * in by_id as long as it exists; indices never move. */

static_assert(sizeof(struct qmsg) <= 64, "a queued message stays small");
static_assert(offsetof(struct qentry, state) >= 8,
              "a free pool object keeps its link in its first bytes");
static_assert(sizeof(struct qentry) <= 40, "a queued recipient stays small");

const char *entry_state_word(enum entry_state s)
{
    static const char *const words[ENTRY_STATE_COUNT] = {
        [ENTRY_FREE] = "free",       [ENTRY_NEW] = "new",         [ENTRY_RESOLVING] = "resolving",
        [ENTRY_READY] = "ready",     [ENTRY_WAITING] = "waiting",
        [ENTRY_IN_FLIGHT] = "in-flight", [ENTRY_HELD] = "held",
        [ENTRY_PARKED] = "parked",   [ENTRY_BOUNCE_DUE] = "bounce-due",
        [ENTRY_STRAY] = "stray",     [ENTRY_REPLICA] = "replica",
        [ENTRY_TAIL] = "tail",
    };
    MUST(s < ENTRY_STATE_COUNT);
    return words[s];
}

int store_init(struct store *s, uint32_t entries_max)
{
    memset(s, 0, sizeof *s);
    int r = pool_init(&s->msgs, "messages", sizeof(struct qmsg), entries_max);
    if (r != 0)
        return r;
    r = pool_init(&s->entries, "entries", sizeof(struct qentry), entries_max);
    if (r != 0)
        pool_fini(&s->msgs);
    return r;
}

void store_fini(struct store *s)
{
    table_fini(&s->by_id);
    pool_fini(&s->entries);
    pool_fini(&s->msgs);
}

static bool msg_has_id(const void *ctx, uint32_t value, const void *key)
{
    const struct store *s = ctx;
    return id_eq(store_msg(s, value)->id, *(const struct msg_id *)key);
}

struct qmsg *store_find(const struct store *s, struct msg_id id)
{
    uint32_t i = table_find(&s->by_id, id_hash(id), msg_has_id, s, &id);
    return i == 0 ? NULL : store_msg(s, i);
}

struct qmsg *store_add(struct store *s, struct msg_id id)
{
    struct qmsg *m = pool_get(&s->msgs);
    if (m == NULL)
        return NULL;
    m->id = id;
    if (table_add(&s->by_id, id_hash(id), pool_index(&s->msgs, m)) != 0) {
        pool_put(&s->msgs, m);
        return NULL;
    }
    return m;
}

struct qentry *store_add_entry(struct store *s, struct qmsg *m, uint16_t index)
{
    struct qentry *e = pool_get(&s->entries);
    if (e == NULL)
        return NULL;
    e->state = ENTRY_NEW;
    e->msg = pool_index(&s->msgs, m);
    e->index = index;
    uint32_t *at = &m->first;
    /* recipients come in order: a walk from the first would be quadratic */
    if (s->added_last != 0) {
        struct qentry *last = store_entry(s, s->added_last);
        if (last->msg == e->msg && last->index < index)
            at = &last->sibling;
    }
    while (*at != 0 && store_entry(s, *at)->index < index)
        at = &store_entry(s, *at)->sibling;
    e->sibling = *at;
    *at = s->added_last = store_entry_index(s, e);
    m->live++;
    return e;
}

struct qentry *store_find_entry(const struct store *s, const struct qmsg *m, uint16_t index)
{
    for (uint32_t i = m->first; i != 0; i = store_entry(s, i)->sibling) {
        struct qentry *e = store_entry(s, i);
        if (e->index == index)
            return e;
    }
    return NULL;
}

bool store_drop_entry(struct store *s, struct qentry *e)
{
    MUST(e->next == 0);
    MUST(e->prev == 0);
    struct qmsg *m = store_msg(s, e->msg);
    uint32_t self = store_entry_index(s, e);
    uint32_t *at = &m->first;
    while (*at != self) {
        MUST(*at != 0);
        at = &store_entry(s, *at)->sibling;
    }
    *at = e->sibling;
    MUST(m->live > 0);
    m->live--;
    if (s->added_last == self)
        s->added_last = 0;
    e->state = ENTRY_FREE;
    pool_put(&s->entries, e);
    return m->live == 0;
}

void store_remove(struct store *s, struct qmsg *m)
{
    MUST(m->live == 0);
    MUST(m->content_bits == 0);
    bool was = table_remove(&s->by_id, id_hash(m->id), pool_index(&s->msgs, m));
    MUST(was);
    pool_put(&s->msgs, m);
}

/* Reads one byte of a place that may be free, which a sanitizer build has poisoned. */
__attribute__((no_sanitize("address"))) struct qentry *store_peek(const struct store *s, uint32_t i)
{
    struct qentry *e = store_entry(s, i);
    return e->state == ENTRY_FREE ? NULL : e;
}

void qlist_push(const struct store *s, struct qlist *l, struct qentry *e)
{
    MUST(e->next == 0);
    MUST(e->prev == 0);
    uint32_t self = store_entry_index(s, e);
    e->prev = l->tail;
    if (l->tail != 0)
        store_entry(s, l->tail)->next = self;
    else
        l->head = self;
    l->tail = self;
    l->count++;
}

void qlist_push_front(const struct store *s, struct qlist *l, struct qentry *e)
{
    MUST(e->next == 0);
    MUST(e->prev == 0);
    uint32_t self = store_entry_index(s, e);
    e->next = l->head;
    if (l->head != 0)
        store_entry(s, l->head)->prev = self;
    else
        l->tail = self;
    l->head = self;
    l->count++;
}

void qlist_remove(const struct store *s, struct qlist *l, struct qentry *e)
{
    MUST(l->count > 0);
    if (e->prev != 0)
        store_entry(s, e->prev)->next = e->next;
    else
        l->head = e->next;
    if (e->next != 0)
        store_entry(s, e->next)->prev = e->prev;
    else
        l->tail = e->prev;
    e->next = 0;
    e->prev = 0;
    l->count--;
}

struct qentry *qlist_first(const struct store *s, const struct qlist *l)
{
    return l->head == 0 ? NULL : store_entry(s, l->head);
}
