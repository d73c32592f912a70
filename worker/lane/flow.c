/*
 * Invariants: an entry is in the share (flow, tenant, class) of its message and nowhere else; a share exists while
 * its list is not empty and stands in the ring of its flow and class; ready[class] counts the entries of that ring.
 */
#include "worker/lane/flow.h"

#include "worker/lane/deliver.h"

#include <errno.h>

struct share_key {
    uint32_t flow;
    uint16_t tenant;
    uint8_t class_;
};

uint32_t flow_index(const struct queue *q, const struct flow *f)
{
    return pool_index(&q->flows, f);
}

static uint32_t share_hash(const struct share_key *k)
{
    return hash_u64((uint64_t)k->flow << 32 | (uint64_t)k->tenant << 1 | k->class_);
}

static bool share_has_key(const void *ctx, uint32_t value, const void *key)
{
    const struct share *s = share_at(ctx, value);
    const struct share_key *k = key;
    return s->flow == k->flow && s->tenant == k->tenant && s->class_ == k->class_;
}

static struct share_key key_of(const struct queue *q, const struct flow *f, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    return (struct share_key){flow_index(q, f), m->tenant, m->class_ != 0};
}

static struct share *share_find(const struct queue *q, const struct share_key *k)
{
    uint32_t i = table_find(&q->share_by_key, share_hash(k), share_has_key, q, k);
    return i == 0 ? NULL : share_at(q, i);
}

static struct share *share_add(struct queue *q, struct flow *f, const struct share_key *k)
{
    struct share *s = pool_get(&q->shares);
    if (s == NULL)
        return NULL;
    uint32_t i = pool_index(&q->shares, s);
    if (table_add(&q->share_by_key, share_hash(k), i) != 0) {
        pool_put(&q->shares, s);
        return NULL;
    }
    s->flow = k->flow;
    s->tenant = k->tenant;
    s->class_ = k->class_;
    s->deficit = (int32_t)q->tenants[k->tenant].weight;
    uint32_t *ring = &f->ring[k->class_];
    if (*ring == 0) {
        s->next = s->prev = i;
        *ring = i;
    } else {
        struct share *at = share_at(q, *ring);
        s->next = *ring;
        s->prev = at->prev;
        share_at(q, at->prev)->next = i;
        at->prev = i;
    }
    return s;
}

static void share_drop(struct queue *q, struct flow *f, struct share *s)
{
    uint32_t i = pool_index(&q->shares, s);
    struct share_key k = {s->flow, s->tenant, s->class_};
    table_remove(&q->share_by_key, share_hash(&k), i);
    uint32_t *ring = &f->ring[s->class_];
    if (s->next == i) {
        *ring = 0;
    } else {
        share_at(q, s->prev)->next = s->next;
        share_at(q, s->next)->prev = s->prev;
        if (*ring == i)
            *ring = s->next;
    }
    pool_put(&q->shares, s);
}

int flow_push(struct queue *q, struct flow *f, struct qentry *e, bool front)
{
    struct share_key k = key_of(q, f, e);
    struct share *s = share_find(q, &k);
    if (s == NULL)
        s = share_add(q, f, &k);
    if (s == NULL)
        return -ENOMEM;
    e->flow = k.flow;
    if (front)
        qlist_push_front(&q->store, &s->list, e);
    else
        qlist_push(&q->store, &s->list, e);
    f->ready[k.class_]++;
    return 0;
}

static void remove_from(struct queue *q, struct flow *f, struct qentry *e, int32_t charge)
{
    struct share_key k = key_of(q, f, e);
    struct share *s = share_find(q, &k);
    MUST(s != NULL);
    s->deficit -= charge;
    qlist_remove(&q->store, &s->list, e);
    MUST(f->ready[k.class_] > 0);
    f->ready[k.class_]--;
    if (s->list.count == 0)
        share_drop(q, f, s);
}

void flow_remove(struct queue *q, struct flow *f, struct qentry *e)
{
    remove_from(q, f, e, 0);
}

void flow_take(struct queue *q, struct flow *f, struct qentry *e)
{
    remove_from(q, f, e, 1);
}

/* Deficit round robin over the tenants of one class; a held tenant is passed over. */
static struct qentry *next_of_class(struct queue *q, struct flow *f, unsigned class_)
{
    uint32_t start = f->ring[class_];
    if (start == 0)
        return NULL;
    for (int laps = 0; laps < 2;) {
        struct share *s = share_at(q, f->ring[class_]);
        if (s->deficit > 0 && !q->tenants[s->tenant].held)
            return qlist_first(&q->store, &s->list);
        f->ring[class_] = s->next;
        struct share *after = share_at(q, s->next);
        if (after->deficit <= 0)
            after->deficit += (int32_t)q->tenants[after->tenant].weight;
        laps += f->ring[class_] == start;
    }
    return NULL;
}

struct qentry *flow_next(struct queue *q, struct flow *f)
{
    unsigned first = CLASS_TRANSACTIONAL;
    if (f->ready[CLASS_BULK] > 0 && f->ready[CLASS_TRANSACTIONAL] > 0) {
        f->turns = (uint8_t)((f->turns + 1) % 10);
        if (f->turns >= q->env.config->queue.transactional_share)
            first = CLASS_BULK;
    }
    struct qentry *e = next_of_class(q, f, first);
    return e != NULL ? e : next_of_class(q, f, 1 - first);
}

void flow_mark(struct queue *q, struct flow *f)
{
    if (f->marked)
        return;
    f->marked = true;
    f->next_marked = q->marked;
    q->marked = flow_index(q, f);
}

void flow_run_marked(struct queue *q)
{
    uint32_t at = q->marked;
    q->marked = 0;
    while (at != 0) {
        struct flow *f = flow_at(q, at);
        at = f->next_marked;
        f->marked = false;
        f->next_marked = 0;
        deliver_run(q->deliver, f);
        flow_release(q, f);
    }
}

bool flow_is_held(const struct queue *q, const struct flow *f)
{
    return q->held_all || q->lanes[f->lane].held || site_at(q, f->site)->held;
}

static const struct config_limits *limits_of(const struct queue *q, const struct flow *f)
{
    return site_at(q, f->site)->limits;
}

static void refill(const struct queue *q, struct flow *f)
{
    uint64_t now = queue_now_ms(q);
    if (now <= f->tokens_at_ms)
        return;
    double passed = (double)(now - f->tokens_at_ms) / 1000.0;
    const struct config_limits *lim = limits_of(q, f);
    f->tokens_at_ms = now;
    f->message_tokens += passed * lim->messages_per_s;
    if (f->message_tokens > lim->messages_per_s)
        f->message_tokens = lim->messages_per_s > 0 ? lim->messages_per_s : 1;
    f->connect_tokens += passed * lim->new_connections_per_s;
    if (f->connect_tokens > lim->new_connections_per_s)
        f->connect_tokens = lim->new_connections_per_s > 0 ? lim->new_connections_per_s : 1;
}

static enum flow_permit wait_for(struct queue *q, struct flow *f, enum reason why, uint64_t ms)
{
    f->why = (uint8_t)why;
    if (!timer_is_set(&f->timer))
        timer_set(q->env.wheel, &f->timer, ms > 0 ? ms : 1);
    return FLOW_WAIT;
}

static enum flow_permit may_start(struct queue *q, struct flow *f)
{
    uint64_t now = queue_now_ms(q);
    if (f->suspended_until_ms > now)
        return wait_for(q, f, REASON_SUSPENDED, f->suspended_until_ms - now);
    if (f->backoff_until_ms > now)
        return wait_for(q, f, REASON_BACKOFF, f->backoff_until_ms - now);
    return FLOW_GO;
}

enum flow_permit flow_may_send(struct queue *q, struct flow *f)
{
    if (may_start(q, f) == FLOW_WAIT)
        return FLOW_WAIT;
    uint32_t rate = limits_of(q, f)->messages_per_s;
    if (rate == 0)
        return FLOW_GO;
    refill(q, f);
    if (f->message_tokens >= 1.0)
        return FLOW_GO;
    return wait_for(q, f, REASON_RATE, (uint64_t)((1.0 - f->message_tokens) * 1000.0 / rate) + 1);
}

enum flow_permit flow_may_connect(struct queue *q, struct flow *f)
{
    if (may_start(q, f) == FLOW_WAIT)
        return FLOW_WAIT;
    const struct config_limits *lim = limits_of(q, f);
    if (lim->connections > 0 && f->open + f->opening >= lim->connections) {
        f->why = REASON_CONNECTIONS;
        return FLOW_WAIT;
    }
    uint32_t rate = lim->new_connections_per_s;
    if (rate == 0)
        return FLOW_GO;
    refill(q, f);
    if (f->connect_tokens >= 1.0)
        return FLOW_GO;
    return wait_for(q, f, REASON_CONNECT_RATE,
                    (uint64_t)((1.0 - f->connect_tokens) * 1000.0 / rate) + 1);
}

void flow_took_message(struct queue *q, struct flow *f)
{
    if (limits_of(q, f)->messages_per_s > 0)
        f->message_tokens -= 1.0;
}

void flow_took_connect(struct queue *q, struct flow *f)
{
    if (limits_of(q, f)->new_connections_per_s > 0)
        f->connect_tokens -= 1.0;
}

void flow_suspend(struct queue *q, struct flow *f, uint64_t ms, enum reason why)
{
    uint64_t until = queue_now_ms(q) + ms;
    if (until > f->suspended_until_ms)
        f->suspended_until_ms = until;
    f->why = (uint8_t)why;
    timer_set(q->env.wheel, &f->timer, ms);
}

void flow_failed(struct queue *q, struct flow *f, enum reason why, struct span reply)
{
    const struct config *c = q->env.config;
    uint64_t s = c->client.host_retry_s;
    for (uint32_t i = 0; i < f->failures && s < c->client.host_retry_max_s; i++)
        s *= 2;
    if (s > c->client.host_retry_max_s)
        s = c->client.host_retry_max_s;
    f->failures++;
    uint64_t ms = s * 1000;
    ms = ms - ms / 5 + rng_below(q->env.rng, ms * 2 / 5 + 1);
    f->backoff_until_ms = queue_now_ms(q) + ms;
    f->last_reply = reply_intern(q, reply);
    f->why = (uint8_t)why;
    timer_set(q->env.wheel, &f->timer, ms);
}

void flow_succeeded(struct queue *q, struct flow *f)
{
    (void)q;
    f->failures = 0;
    f->backoff_until_ms = 0;
}

static bool buckets_full(struct queue *q, struct flow *f)
{
    const struct config_limits *lim = limits_of(q, f);
    refill(q, f);
    return f->message_tokens >= lim->messages_per_s && f->connect_tokens >= lim->new_connections_per_s;
}

void flow_release(struct queue *q, struct flow *f)
{
    if (f->ready[0] + f->ready[1] + f->in_flight + f->opening + f->open > 0 || f->marked)
        return;
    uint64_t now = queue_now_ms(q);
    if (f->backoff_until_ms > now || f->suspended_until_ms > now || f->failures > 0)
        return; /* what it learned outlives its mail */
    if (!buckets_full(q, f)) {
        timer_set(q->env.wheel, &f->timer, 1000);
        return;
    }
    timer_stop(q->env.wheel, &f->timer);
    uint32_t i = flow_index(q, f);
    table_remove(&q->flow_by_pair, hash_u64((uint64_t)f->site << 16 | f->lane), i);
    site_at(q, f->site)->flows--;
    pool_put(&q->flows, f);
}
