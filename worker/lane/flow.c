/*
 * Invariants: an entry is in the share (flow, tenant, class) of its message and nowhere else; a
 * share exists while its list is not empty and stands in the ring of its flow and class;
 * ready[class] counts the entries of that ring.
 */
#include "worker/lane/flow.h"

#include "worker/lane/deliver.h"
#include "worker/lane/role.h"

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

/* 1 when b begins a transaction that a is not part of; 0 is "none", and nothing begins there. */
static uint32_t begins(const struct queue *q, uint32_t a, uint32_t b)
{
    if (a == 0 || b == 0)
        return b != 0;
    const struct qentry *x = store_entry(&q->store, a), *y = store_entry(&q->store, b);
    return x->msg != y->msg || x->domain != y->domain;
}

/* What e adds to the count of transactions where it stands in its list. */
static uint32_t jobs_of(const struct queue *q, const struct qentry *e)
{
    uint32_t self = store_entry_index(&q->store, e);
    return begins(q, e->prev, self) + begins(q, self, e->next) - begins(q, e->prev, e->next);
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
    f->jobs += jobs_of(q, e);
    return 0;
}

static void remove_from(struct queue *q, struct flow *f, struct qentry *e, int32_t charge)
{
    struct share_key k = key_of(q, f, e);
    struct share *s = share_find(q, &k);
    MUST(s != NULL);
    s->deficit -= charge;
    f->jobs -= jobs_of(q, e);
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

static bool may_go(const struct queue *q, const struct share *s)
{
    return !q->tenants[s->tenant].held;
}

/*
 * Every share has used up its turn: all that may go get as many rounds as the first of them needs
 * to be served. A message with many recipients can leave a share far below zero, so one round may
 * not be enough. False: none may go.
 */
static bool top_up(struct queue *q, struct flow *f, unsigned class_)
{
    int32_t rounds = INT32_MAX;
    uint32_t i = f->ring[class_];
    do {
        const struct share *s = share_at(q, i);
        int32_t weight = (int32_t)q->tenants[s->tenant].weight;
        int32_t need = s->deficit > 0 ? 0 : -s->deficit / weight + 1;
        if (may_go(q, s) && need < rounds)
            rounds = need;
        i = s->next;
    } while (i != f->ring[class_]);
    if (rounds == INT32_MAX)
        return false;
    do {
        struct share *s = share_at(q, i);
        if (may_go(q, s) && s->deficit <= 0)
            s->deficit += rounds * (int32_t)q->tenants[s->tenant].weight;
        i = s->next;
    } while (i != f->ring[class_]);
    return true;
}

/* Deficit round robin over the tenants of one class; a held tenant is passed over and saves nothing
 * up. */
static struct qentry *next_of_class(struct queue *q, struct flow *f, unsigned class_)
{
    uint32_t start = f->ring[class_];
    if (start == 0)
        return NULL;
    for (int tries = 0; tries < 2; tries++) {
        do {
            struct share *s = share_at(q, f->ring[class_]);
            if (s->deficit > 0 && may_go(q, s))
                return qlist_first(&q->store, &s->list);
            f->ring[class_] = s->next;
        } while (f->ring[class_] != start);
        if (!top_up(q, f, class_))
            break;
    }
    return NULL;
}

bool flow_has_work(const struct queue *q, const struct flow *f)
{
    for (unsigned class_ = 0; class_ < 2; class_++) {
        uint32_t i = f->ring[class_];
        if (i == 0)
            continue;
        do {
            if (may_go(q, share_at(q, i)))
                return true;
            i = share_at(q, i)->next;
        } while (i != f->ring[class_]);
    }
    return false;
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
    return q->held_all || q->lanes[f->lane].held || site_at(q, f->site)->held ||
           !lane_runs(&q->lanes[f->lane]);
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

/* One timer serves every wait: an earlier wake-up only looks again, a later one would be a stall.
 */
static void wake_in(struct queue *q, struct flow *f, uint64_t ms)
{
    if (!timer_is_set(&f->timer) || f->timer.due_ms > q->env.wheel->now_ms + ms)
        timer_set(q->env.wheel, &f->timer, ms > 0 ? ms : 1);
}

static enum flow_permit wait_for(struct queue *q, struct flow *f, enum reason why, uint64_t ms)
{
    f->why = (uint8_t)why;
    wake_in(q, f, ms);
    return FLOW_WAIT;
}

enum flow_permit flow_may_send(struct queue *q, struct flow *f)
{
    uint64_t now = queue_now_ms(q);
    if (f->suspended_until_ms > now)
        return wait_for(q, f, REASON_SUSPENDED, f->suspended_until_ms - now);
    if (f->complaints > 0 && f->in_flight > 0) {
        f->why = REASON_SUSPENDED;
        return FLOW_WAIT; /* on probation: one message at a time, until one gets through */
    }
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
    uint64_t now = queue_now_ms(q);
    if (f->backoff_until_ms > now)
        return wait_for(q, f, REASON_BACKOFF, f->backoff_until_ms - now);
    if (f->failures > 0 && f->opening > 0) {
        f->why = REASON_BACKOFF;
        return FLOW_WAIT; /* a failing site is probed by one */
    }
    const struct config_limits *lim = limits_of(q, f);
    if (lim->connections > 0 && f->open + f->opening + f->closing >= lim->connections) {
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

/* The pause after one failure more than `before` in a row: exponential with jitter. */
static uint64_t pause_ms(struct queue *q, uint32_t before)
{
    const struct config *c = q->env.config;
    uint64_t s = c->client.host_retry_s;
    for (uint32_t i = 0; i < before && s < c->client.host_retry_max_s; i++)
        s *= 2;
    if (s > c->client.host_retry_max_s)
        s = c->client.host_retry_max_s;
    uint64_t ms = s * 1000;
    return ms - ms / 5 + rng_below(q->env.rng, ms * 2 / 5 + 1);
}

bool flow_failed(struct queue *q, struct flow *f, enum reason why, struct span reply)
{
    uint64_t now = queue_now_ms(q);
    f->last_reply = reply_intern(q, reply);
    f->why = (uint8_t)why;
    if (f->backoff_until_ms > now)
        return false; /* connections that were on their way together are one failure */
    uint64_t ms = pause_ms(q, f->failures++);
    f->failed_ms = now;
    f->backoff_until_ms = now + ms;
    wake_in(q, f, ms);
    return true;
}

static void suspend(struct queue *q, struct flow *f, uint64_t ms)
{
    f->suspended_until_ms = queue_now_ms(q) + ms;
    f->why = REASON_SUSPENDED;
    wake_in(q, f, ms);
}

void flow_judge(struct queue *q, struct flow *f, const struct classification *c, struct span reply)
{
    switch (c->scope) {
    case SCOPE_PAIR:
    case SCOPE_SITE:
        break;
    case SCOPE_NONE:
    case SCOPE_RECIPIENT:
    case SCOPE_MESSAGE:
    case SCOPE_CONNECTION:
    case SCOPE_HOST:
    case SCOPE_DOMAIN:
        return;
    }
    f->last_reply = reply_intern(q, reply);
    if (f->suspended_until_ms > queue_now_ms(q))
        return; /* an answer to what was under way already */
    uint64_t longest = 1000ull * q->env.config->client.host_retry_max_s;
    uint64_t ms = pause_ms(q, f->complaints++);
    f->complained_ms = queue_now_ms(q);
    suspend(q, f, c->verdict == VERDICT_PERM || c->reason == REASON_LASTING ? longest : ms);
}

void flow_succeeded(struct queue *q, struct flow *f, uint64_t opened_ms, uint64_t started_ms)
{
    if (f->failures > 0 && opened_ms >= f->failed_ms) {
        f->failures = 0;
        f->backoff_until_ms = 0;
        flow_mark(q, f);
    }
    if (f->complaints > 0 && started_ms >= f->complained_ms) {
        f->complaints = 0;
        flow_mark(q, f);
    }
}

static bool buckets_full(struct queue *q, struct flow *f)
{
    const struct config_limits *lim = limits_of(q, f);
    refill(q, f);
    return f->message_tokens >= lim->messages_per_s &&
           f->connect_tokens >= lim->new_connections_per_s;
}

/* What a flow has learned outlives its mail, but not for ever: that would be one flow for each dead
 * domain of a list. */
static uint64_t remembered_until_ms(const struct queue *q, const struct flow *f)
{
    uint64_t longest = 1000ull * q->env.config->client.host_retry_max_s;
    uint64_t until = f->failures > 0 ? f->backoff_until_ms + longest : 0;
    uint64_t also = f->complaints > 0 ? f->suspended_until_ms + longest : f->suspended_until_ms;
    return until > also ? until : also;
}

void flow_release(struct queue *q, struct flow *f)
{
    if (f->ready[0] + f->ready[1] + f->in_flight + f->opening + f->open + f->closing > 0 ||
        f->marked)
        return;
    uint64_t now = queue_now_ms(q), until = remembered_until_ms(q, f);
    if (until > now) {
        wake_in(q, f, until - now);
        return;
    }
    if (!buckets_full(q, f)) {
        wake_in(q, f, 1000);
        return;
    }
    timer_stop(q->env.wheel, &f->timer);
    uint32_t i = flow_index(q, f);
    table_remove(&q->flow_by_pair, hash_u64((uint64_t)f->site << 16 | f->lane), i);
    site_at(q, f->site)->flows--;
    pool_put(&q->flows, f);
}
