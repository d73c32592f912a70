/*
 * A round walks the adopted ids and then the entries that are tails, in slices, and collects ids by
 * lane and origin; a group that is full, or the end of the round, is an ASK.
 *
 * Which worker holds a lane at another node is not told to us but for owners: frames that came from
 * there teach it, and while it is not known the question goes to some slots a round, in turn. Only
 * the holder answers.
 */
#include "worker/move/ask.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ROUND_MS = 1000,
    ROUND_MANY_MS = 100, /* while many ids wait, as new ones are not taken at some number */
    MANY = 4096,
    GROUP_IDS = 512,
    GROUPS_MAX = 64,
    SLICE = 20000,  /* items or entries looked at in one turn */
    PROBES = 8,     /* slots asked a round when the holder is not known */
    MISSES_MAX = 3, /* rounds without an answer after which it is not known any more */
    HOLDERS = 1024, /* a power of two: what is remembered of lanes' holders */
    ANSWERS_MAX = 64
};

struct holder {
    struct ip lane;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot, misses;
    bool known;
    uint64_t asked_ms; /* first question that nothing from there has followed; 0: none */
};
/* A message, or one recipient of it whose attempt is open there: it may end while others of the
   message are left. */
struct asked {
    struct msg_id id;
    uint16_t index;
    bool tail;
};
struct group {
    uint32_t lane; /* index */
    char node[LIMIT_NAME_BYTES + 1];
    struct asked *ids;
    uint32_t count;
};
/* An answer that waits for the log. */
struct gone {
    struct gone *next;
    struct ask *ask;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot;
    uint32_t lane; /* index */
    struct asked *ids;
    uint32_t count;
    struct spool_wait wait;
};
enum round_stage { ROUND_PAUSE, ROUND_ADOPTED, ROUND_TAILS };
struct ask {
    struct queue *queue;
    struct carrier *carrier;
    struct timer timer;
    enum round_stage stage;
    uint32_t at; /* of the walk */
    uint64_t next_ms;
    uint32_t probe; /* first slot of this round's probes */
    struct group groups[GROUPS_MAX];
    unsigned group_count;
    struct holder holders[HOLDERS];
    struct gone *answers;
    unsigned answer_count;
};

static void on_timer(struct timer *t)
{
    (void)t; /* the turn that follows does the work */
}

int ask_create(struct ask **out, struct queue *q, struct carrier *c)
{
    struct ask *a = calloc(1, sizeof *a);
    if (a == NULL)
        return -ENOMEM;
    a->queue = q;
    a->carrier = c;
    a->timer.on_due = on_timer;
    *out = a;
    return 0;
}

void ask_destroy(struct ask **ap)
{
    struct ask *a = *ap;
    *ap = NULL;
    if (a == NULL)
        return;
    timer_stop(a->queue->env.wheel, &a->timer);
    for (unsigned i = 0; i < a->group_count; i++)
        free(a->groups[i].ids);
    while (a->answers != NULL) {
        struct gone *g = a->answers;
        a->answers = g->next;
        free(g->ids);
        free(g);
    }
    free(a);
}

/* --- who holds a lane there --- */

/* A place may be taken by another lane: then the holder is looked for again, no more. */
static struct holder *holder_at(struct ask *a, const char *node, const struct ip *lane)
{
    uint32_t h = hash_bytes(span_of(lane->b, sizeof lane->b)) ^ hash_bytes(span_str(node));
    return &a->holders[h & (HOLDERS - 1)];
}

static struct holder *holder_get(struct ask *a, const char *node, const struct ip *lane)
{
    struct holder *h = holder_at(a, node, lane);
    if (ip_eq(&h->lane, lane) && strcmp(h->node, node) == 0)
        return h;
    *h = (struct holder){.lane = *lane};
    snprintf(h->node, sizeof h->node, "%s", node);
    return h;
}

void ask_learn(struct ask *a, const struct lane_from *from, const struct ip *lane)
{
    struct holder *h = holder_get(a, from->node, lane);
    h->slot = from->slot;
    h->known = true;
    h->misses = 0;
    h->asked_ms = 0;
}

void ask_on_up(struct ask *a)
{
    if (a->stage == ROUND_PAUSE)
        a->next_ms = 0;
}

static void send_items(struct ask *a, const struct lane_from *to, struct lane_frame *f,
                       const struct asked *ids)
{
    size_t room = LANE_FRAME_HEAD_BYTES + 64 * (size_t)f->item_count;
    struct lane_item *items = calloc(f->item_count + 1, sizeof *items);
    uint8_t *head = malloc(room);
    size_t n = 0;
    int r = items == NULL || head == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; r == 0 && i < f->item_count; i++)
        items[i] = (struct lane_item){
            .id = ids[i].id, .index = ids[i].index, .digest = ids[i].tail ? LANE_ITEM_TAIL : 0};
    f->items = items;
    if (r == 0)
        r = lane_frame_head(f, head, room, &n);
    if (r == 0)
        r = carrier_send(a->carrier, to->node, to->slot, span_of(head, n));
    if (r != 0 && r != -EAGAIN && r != -ENOTCONN) /* the next round says it again */
        log_dbg("a question to %s was not sent: %s", to->node, strerror(-r));
    free(head);
    free(items);
}

/* --- answers that we give --- */

/* May an entry be handed over to another node, now or after a crash? One that failed for good, and
   of which only the notification is left, may not. */
static bool is_open(const struct qentry *e)
{
    return e->state != ENTRY_REPLICA && e->state != ENTRY_TAIL && e->state != ENTRY_BOUNCE_DUE;
}

static bool may_repeat(const struct queue *q, const struct asked *x)
{
    const struct qmsg *m = store_find(&q->store, x->id);
    if (m == NULL)
        return false;
    if (x->tail) {
        const struct qentry *e = store_find_entry(&q->store, m, x->index);
        return e != NULL && is_open(e);
    }
    for (uint32_t i = m->first; i != 0; i = store_entry(&q->store, i)->sibling)
        if (is_open(store_entry(&q->store, i)))
            return true;
    return false;
}

static void gone_free(struct gone *g)
{
    struct gone **at = &g->ask->answers;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    g->ask->answer_count--;
    free(g->ids);
    free(g);
}

static void answer(struct gone *g, const struct lane *l)
{
    struct queue *q = g->ask->queue;
    struct lane_frame f = {.kind = LANE_FRAME_GONE, .lane = l->address};
    const struct lane_from to = {g->node, g->slot};
    bool own = strcmp(g->node, q->env.config->node) == 0;
    for (uint32_t i = 0; i < g->count; i++) {
        if (may_repeat(q, &g->ids[i]))
            continue;
        if (own && !g->ids[i].tail) /* it was ours, went, and came back with its lane */
            adopted_remove(q, g->ids[i].id, g->node);
        g->ids[f.item_count++] = g->ids[i];
    }
    if (!own)
        send_items(g->ask, &to, &f, g->ids);
}

static void on_synced(struct spool_wait *w, int res)
{
    struct gone *g = (struct gone *)((char *)w - offsetof(struct gone, wait));
    const struct lane *l = &g->ask->queue->lanes[g->lane];
    if (res == 0 && l->shard->unwritten == NULL)
        answer(g, l);
    gone_free(g);
}

/* What is not here is said when its end is durable; without ids too: it tells that we live. */
static void answer_prepare(struct ask *a, const struct lane_from *to, const struct asked *ids,
                           uint32_t count, const struct lane *l)
{
    struct gone *g = a->answer_count < ANSWERS_MAX ? calloc(1, sizeof *g) : NULL;
    if (g == NULL)
        return;
    g->ids = malloc((count + 1) * sizeof *g->ids);
    if (g->ids == NULL) {
        free(g);
        return;
    }
    g->ask = a;
    snprintf(g->node, sizeof g->node, "%s", to->node);
    g->slot = to->slot;
    g->lane = l->index;
    g->wait.on_durable = on_synced;
    for (uint32_t i = 0; i < count; i++)
        if (!may_repeat(a->queue, &ids[i]))
            g->ids[g->count++] = ids[i];
    g->next = a->answers;
    a->answers = g;
    a->answer_count++;
    spool_sync(l->shard->spool, &g->wait);
}

static void on_ask(struct ask *a, const struct lane_from *from, const struct lane_frame *f,
                   const struct lane *l)
{
    struct asked *ids = malloc((f->item_count + 1) * sizeof *ids);
    if (ids == NULL)
        return;
    for (uint32_t i = 0; i < f->item_count; i++)
        ids[i] = (struct asked){.id = f->items[i].id,
                                .index = f->items[i].index,
                                .tail = f->items[i].digest == LANE_ITEM_TAIL};
    answer_prepare(a, from, ids, f->item_count, l);
    free(ids);
}

/* --- questions --- */

static void group_ask(struct ask *a, struct group *g)
{
    const struct lane *l = &a->queue->lanes[g->lane];
    struct holder *h = holder_get(a, g->node, &l->address);
    struct lane_frame f = {.kind = LANE_FRAME_ASK, .lane = l->address, .item_count = g->count};
    struct lane_from to = {g->node, h->slot};
    if (h->asked_ms == 0)
        h->asked_ms = queue_now_ms(a->queue);
    if (g->count > 0 && strcmp(g->node, a->queue->env.config->node) == 0)
        answer_prepare(a, &to, g->ids, g->count, l);
    else if (g->count > 0 && carrier_is_up(a->carrier, g->node)) {
        if (h->known && ++h->misses > MISSES_MAX)
            h->known = false;
        for (uint32_t i = 0; i < (h->known ? 1 : PROBES); i++) {
            if (!h->known)
                to.slot = (a->probe + i) % LIMIT_WORKERS;
            send_items(a, &to, &f, g->ids);
        }
    }
    g->count = 0;
}

static void groups_ask(struct ask *a)
{
    for (unsigned i = 0; i < a->group_count; i++) {
        group_ask(a, &a->groups[i]);
        free(a->groups[i].ids);
    }
    a->group_count = 0;
}

static struct group *group_get(struct ask *a, uint32_t lane, const char *node)
{
    for (unsigned i = 0; i < a->group_count; i++)
        if (a->groups[i].lane == lane && strcmp(a->groups[i].node, node) == 0)
            return &a->groups[i];
    if (a->group_count == GROUPS_MAX)
        groups_ask(a);
    struct group *g = &a->groups[a->group_count];
    *g = (struct group){.lane = lane, .ids = malloc(GROUP_IDS * sizeof *g->ids)};
    if (g->ids == NULL)
        return NULL; /* the next round */
    snprintf(g->node, sizeof g->node, "%s", node);
    a->group_count++;
    return g;
}

static void collect(struct ask *a, const struct lane *l, const char *node, const struct asked *x)
{
    struct group *g = group_get(a, l->index, node);
    if (g == NULL)
        return;
    g->ids[g->count++] = *x;
    if (g->count == GROUP_IDS)
        group_ask(a, g);
}

static void adopted_ask(struct ask *a, const struct adopted_item *item)
{
    const struct lane *l = lane_by_number(a->queue, item->lane);
    if (l != NULL && l->shard != NULL)
        collect(a, l, item->origin, &(struct asked){.id = item->id});
}

/* True: the walk is at its end. */
static bool adopted_slice(struct ask *a)
{
    struct adopted_item item;
    for (unsigned i = 0; i < SLICE; i++) {
        if (!adopted_next(a->queue, &a->at, &item))
            return true;
        adopted_ask(a, &item);
    }
    return false;
}

/* --- tails --- */

static bool any_tails(const struct queue *q)
{
    for (uint32_t i = 0; i < q->lane_count; i++)
        if (q->lanes[i].tails_there.count > 0 && q->lanes[i].role == LANE_OWNER)
            return true;
    return false;
}

static bool is_lost(struct ask *a, const struct lane *l)
{
    const struct holder *h = holder_get(a, l->given_by, &l->address);
    uint64_t most_ms = 1000ull * a->queue->env.config->cluster.tail_timeout_s;
    return h->asked_ms != 0 && queue_now_ms(a->queue) >= h->asked_ms + most_ms;
}

static void give_up_tail(struct lane *l, struct msg_id id, uint16_t index)
{
    struct adopted_item item = {.id = id, .lane = l->number};
    memcpy(item.origin, l->given_by, sizeof item.origin);
    if (adopted_keep(l->shard, &item) != 0)
        return; /* its last owner may still hand it over: not before that is in the log */
    tail_in_doubt(l, id, index);
}

static void tail_ask(struct ask *a, const struct qentry *e)
{
    struct queue *q = a->queue;
    const struct qmsg *m = store_msg(&q->store, e->msg);
    struct lane *l = &q->lanes[m->lane];
    if (l->role != LANE_OWNER || l->given_by[0] == '\0' || l->shard == NULL)
        return;
    if (is_lost(a, l))
        give_up_tail(l, m->id, e->index);
    else
        collect(a, l, l->given_by,
                &(struct asked){.id = m->id, .index = e->index, .tail = true});
}

static bool tails_slice(struct ask *a)
{
    struct queue *q = a->queue;
    if (a->at == 0 && !any_tails(q))
        return true;
    uint32_t end = store_entry_end(&q->store);
    for (unsigned i = 0; i < SLICE; i++) {
        if (++a->at >= end)
            return true;
        const struct qentry *e = store_peek(&q->store, a->at);
        if (e != NULL && e->state == ENTRY_TAIL)
            tail_ask(a, e);
    }
    return false;
}

/* --- answers that we get --- */

static void forget_tails(struct queue *q, struct lane *l, struct msg_id id)
{
    const struct qmsg *m = store_find(&q->store, id);
    for (uint32_t i = m == NULL || &q->lanes[m->lane] != l ? 0 : m->first; i != 0;) {
        const struct qentry *e = store_entry(&q->store, i);
        uint16_t index = e->index;
        i = e->sibling;
        if (e->state == ENTRY_TAIL)
            tail_done(l, id, index);
    }
}

static void on_gone(struct ask *a, const struct lane_from *from, const struct lane_frame *f,
                    struct lane *l)
{
    for (uint32_t i = 0; i < f->item_count; i++) {
        const struct lane_item *it = &f->items[i];
        bool tails = l->role == LANE_OWNER && strcmp(l->given_by, from->node) == 0;
        if (it->digest != LANE_ITEM_TAIL)
            adopted_remove(a->queue, it->id, from->node);
        if (tails && it->digest == LANE_ITEM_TAIL)
            tail_done(l, it->id, it->index);
        else if (tails)
            forget_tails(a->queue, l, it->id);
    }
}

void ask_on_frame(struct ask *a, const struct lane_from *from, const struct lane_frame *f,
                  bool recovered)
{
    struct lane *l = lane_by_address(a->queue, &f->lane);
    if (l == NULL || l->shard == NULL || !recovered)
        return;
    if (f->kind == LANE_FRAME_ASK)
        on_ask(a, from, f, l);
    else
        on_gone(a, from, f, l);
}

/* --- turns --- */

static void round_end(struct ask *a)
{
    groups_ask(a);
    bool many = adopted_count(a->queue) >= MANY;
    a->next_ms = queue_now_ms(a->queue) + (many ? ROUND_MANY_MS : ROUND_MS);
    a->probe = (a->probe + PROBES) % LIMIT_WORKERS;
    a->stage = ROUND_PAUSE;
}

void ask_turn(struct ask *a)
{
    struct queue *q = a->queue;
    switch (a->stage) {
    case ROUND_PAUSE:
        if (queue_now_ms(q) < a->next_ms)
            break;
        a->at = 0;
        a->stage = ROUND_ADOPTED;
        break;
    case ROUND_ADOPTED:
        if (!adopted_slice(a))
            break;
        a->at = 0;
        a->stage = ROUND_TAILS;
        break;
    case ROUND_TAILS:
        if (tails_slice(a))
            round_end(a);
        break;
    }
    if (!timer_is_set(&a->timer))
        timer_set(q->env.wheel, &a->timer, a->stage == ROUND_PAUSE ? ROUND_MANY_MS : 0);
}
