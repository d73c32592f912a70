/*
 * Invariants: an entry is in exactly the list that its state names (RESOLVING: its domain; READY:
 * its flow; WAITING: the due wheel; others: none). counts[] and the queued counters of lane and
 * tenant follow every change of state, here and nowhere else.
 */
#include "worker/lane/queue.h"

#include "base/log.h"
#include "worker/lane/adopted.h"
#include "worker/lane/deliver.h"
#include "worker/lane/fates.h"
#include "worker/lane/flow.h"
#include "worker/lane/flow_state.h"
#include "worker/lane/role_impl.h"
#include "worker/lane/route.h"
#include "worker/lane/shard.h"
#include "worker/lane/site.h"

#include <errno.h>
#include <stdlib.h>

enum {
    DUE_PER_TURN = 512,      /* entries that become ready in one turn */
    SWEEP_EVERY_MS = 100,
    SWEEP_LEAST = 1024,      /* entries looked at per step; a sweep takes at most 10 s */
    SWEEP_PARTS = 100,
    SWEEP_ENDS = 2000,       /* entries that expire in one step */
    DOMAINS_MAX = 4 << 20,
    SITES_MAX = 1 << 20,
    FLOWS_MAX = 4 << 20,
    LANE_GONE_FIRST_S = 1,
    LANE_GONE_RETRY_S = 60,
    HELD_RECHECK_S = 3600,
    TOGETHER_S = 2,
    DOMAINS_KEPT = 200000    /* remembered beyond those that are needed */
};

uint64_t queue_now_ms(const struct queue *q)
{
    return io_now_ns(q->env.io) / 1000000;
}

uint32_t queue_now_unix_s(const struct queue *q)
{
    return (uint32_t)(io_now_unix_ms(q->env.io) / 1000);
}

static int make_pools(struct queue *q)
{
    int r = store_init(&q->store, q->env.config->queue.entries_max);
    if (r == 0)
        r = pool_init(&q->domains, "domains", sizeof(struct domain), DOMAINS_MAX);
    if (r == 0)
        r = pool_init(&q->sites, "sites", sizeof(struct site), SITES_MAX);
    if (r == 0)
        r = pool_init(&q->flows, "flows", sizeof(struct flow), FLOWS_MAX);
    if (r == 0)
        r = pool_init(&q->shares, "shares", sizeof(struct share), FLOWS_MAX);
    return r;
}

static int make_tenants(struct queue *q)
{
    const struct config *c = q->env.config;
    q->tenants = calloc(LIMIT_TENANTS, sizeof *q->tenants); /* in place: names are pointed to */
    if (q->tenants == NULL)
        return -ENOMEM;
    q->tenant_count = c->tenant_count;
    for (uint32_t i = 0; i < c->tenant_count; i++) {
        const struct config_tenant *from = &c->tenants[i];
        struct tenant *t = &q->tenants[i];
        snprintf(t->name, sizeof t->name, "%s", from->name);
        t->pool = from->pool;
        t->class_ = (uint8_t)from->class_;
        t->in_doubt = (uint8_t)from->in_doubt;
        t->weight = from->weight > 0 ? from->weight : 1;
        t->lifetime_s = from->lifetime_s > 0 ? from->lifetime_s : c->queue.lifetime_s;
        if (table_add(&q->tenant_by_name, hash_bytes(span_str(t->name)), i + 1) != 0)
            return -ENOMEM;
    }
    return 0;
}

static void on_due(void *ctx, struct qentry *e);

int queue_init(struct queue *q, const struct queue_env *env)
{
    memset(q, 0, sizeof *q);
    q->env = *env;
    int r = make_pools(q);
    if (r == 0)
        r = make_tenants(q);
    if (r == 0)
        r = roles_create(&q->roles);
    if (r != 0)
        return r;
    q->lanes = calloc(LIMIT_LANES, sizeof *q->lanes);
    if (q->lanes == NULL)
        return -ENOMEM;
    due_init(&q->due, queue_now_unix_s(q), on_due, q);
    q->held_all = env->config->queue.hold;
    return deliver_create(&q->deliver, q);
}

void queue_fini(struct queue *q)
{
    deliver_destroy(&q->deliver);
    for (uint32_t i = 0; i < q->lane_count; i++)
        flow_state_free(&q->lanes[i]);
    adopted_free(q);
    free(q->roles);
    for (uint32_t at = 0, i; (i = table_next(&q->domain_by_name, &at)) != 0;)
        free(domain_at(q, i)->name);
    for (uint32_t at = 0, i; (i = table_next(&q->site_by_key, &at)) != 0;) {
        free(site_at(q, i)->key);
        free(site_at(q, i)->hosts);
    }
    for (uint32_t i = 1; i <= q->reply_count; i++)
        free(q->replies[i]);
    free(q->replies);
    table_fini(&q->domain_by_name);
    table_fini(&q->site_by_key);
    table_fini(&q->flow_by_pair);
    table_fini(&q->share_by_key);
    table_fini(&q->lane_by_number);
    table_fini(&q->reply_by_text);
    table_fini(&q->tenant_by_name);
    shard_lists_free(q);
    pool_fini(&q->domains);
    pool_fini(&q->sites);
    pool_fini(&q->flows);
    pool_fini(&q->shares);
    store_fini(&q->store);
    free(q->tenants);
    free(q->lanes);
    free(q->holds);
    free(q->poison);
}

struct lane *entry_lane(const struct queue *q, const struct qentry *e)
{
    return &q->lanes[store_msg(&q->store, e->msg)->lane];
}

void entry_set_state(struct queue *q, struct qentry *e, enum entry_state s)
{
    MUST(e->state < ENTRY_STATE_COUNT);
    struct lane *l = entry_lane(q, e);
    role_count(l, e, (enum entry_state)e->state, -1);
    if (e->state != ENTRY_NEW)
        q->counts[e->state]--;
    if (s != ENTRY_NEW)
        q->counts[s]++;
    e->state = (uint8_t)s;
    role_count(l, e, s, 1);
}

void entry_unlist(struct queue *q, struct qentry *e)
{
    switch ((enum entry_state)e->state) {
    case ENTRY_RESOLVING:
        qlist_remove(&q->store, &domain_at(q, e->domain)->resolving, e);
        break;
    case ENTRY_READY:
        flow_remove(q, flow_at(q, e->flow), e);
        e->flow = 0;
        break;
    case ENTRY_WAITING:
        due_remove(&q->due, &q->store, e);
        break;
    case ENTRY_STRAY: {
        struct lane *l = entry_lane(q, e);
        qlist_remove(&q->store, e->cancel ? &l->handing : &l->strays, e);
        e->cancel = 0;
        e->flow = 0;
        break;
    }
    case ENTRY_NEW:
    case ENTRY_HELD:
    case ENTRY_PARKED:
    case ENTRY_BOUNCE_DUE:
    case ENTRY_REPLICA:
    case ENTRY_TAIL:
        break;
    case ENTRY_FREE:
    case ENTRY_IN_FLIGHT:
    case ENTRY_STATE_COUNT:
        MUST(!"an entry that is in no list");
    }
    entry_set_state(q, e, ENTRY_NEW);
}

void entry_wait(struct queue *q, struct qentry *e, uint32_t due_s, enum reason reason)
{
    e->due_s = due_s;
    e->reason = (uint8_t)reason;
    if (role_stray(q, e))
        return;
    due_add(&q->due, &q->store, e);
    entry_set_state(q, e, ENTRY_WAITING);
}

static void make_ready(struct queue *q, struct qentry *e, uint32_t site)
{
    struct flow *f = flow_for(q, store_msg(&q->store, e->msg)->lane, site);
    if (f == NULL || flow_push(q, f, e, false) != 0) {
        entry_wait(q, e, queue_now_unix_s(q) + 10, REASON_DNS_WAIT);
        return;
    }
    entry_set_state(q, e, ENTRY_READY);
    flow_mark(q, f);
}

void entry_place(struct queue *q, struct qentry *e)
{
    MUST(e->state == ENTRY_NEW);
    struct lane *lane = entry_lane(q, e);
    bool held = q->held_some && hold_applies_to_message(q, store_msg(&q->store, e->msg)->id);
    /* a hold here does not keep what the owner waits for: its own holds decide */
    if ((!held || lane->role == LANE_FROZEN || e->tail) && role_stray(q, e))
        return;
    if (e->due_s > queue_now_unix_s(q)) {
        entry_wait(q, e, e->due_s, (enum reason)e->reason);
        return;
    }
    if (lane->shard != NULL && shard_is_moving(lane->shard, store_msg(&q->store, e->msg)->id)) {
        entry_wait(q, e, queue_now_unix_s(q) + SHARD_MOVE_WAIT_S, (enum reason)e->reason);
        return;
    }
    if (lane->gone || lane->shard == NULL) { /* another lane is looked for when it is due */
        uint32_t wait_s = e->reason == REASON_LANE_GONE ? LANE_GONE_RETRY_S : LANE_GONE_FIRST_S;
        entry_wait(q, e, queue_now_unix_s(q) + wait_s, REASON_LANE_GONE);
        return;
    }
    if (store_msg(&q->store, e->msg)->expires_s <= queue_now_unix_s(q) && role_may_end(q, e)) {
        entry_expire(q, e);
        return;
    }
    if (held) {
        e->reason = REASON_HELD_MESSAGE;
        entry_set_state(q, e, ENTRY_HELD);
        shard_tell_copy(q, e);
        return;
    }
    struct domain *d = domain_at(q, e->domain);
    if (d->held) {
        entry_wait(q, e, queue_now_unix_s(q) + HELD_RECHECK_S, REASON_HELD_SITE);
        return;
    }
    struct resolve_failure no;
    switch (site_resolve(q, d, &no)) {
    case RESOLVE_KNOWN:
        make_ready(q, e, d->site);
        break;
    case RESOLVE_WAIT:
        e->reason = REASON_DNS_WAIT;
        qlist_push(&q->store, &d->resolving, e);
        entry_set_state(q, e, ENTRY_RESOLVING);
        break;
    case RESOLVE_FAILED:
        fates_local(q, e, no.verdict, &no.facts);
        break;
    }
}

void entry_end(struct queue *q, struct qentry *e)
{
    MUST(e->state == ENTRY_NEW || e->state == ENTRY_IN_FLIGHT);
    entry_set_state(q, e, ENTRY_NEW);
    struct qmsg *m = store_msg(&q->store, e->msg);
    q->lanes[m->lane].queued--;
    q->tenants[m->tenant].queued--;
    domain_at(q, e->domain)->entries--;
    if (store_drop_entry(&q->store, e))
        shard_forget(q, m);
}

/*
 * Recipients of one domain that were deferred together are tried together: a second between their
 * due times must not make two transactions of one (CLI-23).
 */
static void wake_siblings(struct queue *q, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    for (uint32_t i = m->live > 1 ? m->first : 0; i != 0;) {
        struct qentry *s = store_entry(&q->store, i);
        i = s->sibling;
        if (s->state != ENTRY_WAITING || s->domain != e->domain || s->reason != e->reason ||
            s->due_s > e->due_s + TOGETHER_S)
            continue;
        entry_unlist(q, s);
        s->due_s = 0;
        entry_place(q, s);
    }
}

static void on_due(void *ctx, struct qentry *e)
{
    struct queue *q = ctx;
    entry_set_state(q, e, ENTRY_NEW);
    wake_siblings(q, e);
    if (entry_lane(q, e)->gone &&
        (route_again(q, e) || (q->take_away != NULL && q->take_away(q->take_away_ctx, e))))
        return;
    entry_place(q, e);
}

void entry_expire(struct queue *q, struct qentry *e)
{
    static const char text[] = "not delivered within its lifetime";
    struct fate_facts f = {.reason = REASON_EXPIRED, .status = {5, 4, 7}};
    f.reply = e->reply != 0 ? span_str(reply_text(q, e->reply)) : span_str(text);
    fates_end(q, e, FATE_EXPIRED, &f);
}

/* What a copy of the lane would send, with what is ours of it: for people, and for who is to take
   it. */
static void count_bytes(struct queue *q, const struct qentry *e)
{
    const struct qmsg *m = store_msg(&q->store, e->msg);
    if (m->first == q->sweep_at && e->state != ENTRY_REPLICA && e->state != ENTRY_TAIL)
        q->lanes[m->lane].bytes_so_far += store_msg_bytes(m);
}

static void count_bytes_anew(struct queue *q)
{
    for (uint32_t i = 0; i < q->lane_count; i++) {
        q->lanes[i].bytes = q->lanes[i].bytes_so_far;
        q->lanes[i].bytes_so_far = 0;
    }
}

/* Expiry in every state: a sweep over all entries, so that no list can be forgotten. */
static void sweep(struct queue *q)
{
    uint32_t end = store_entry_end(&q->store);
    uint32_t now_s = queue_now_unix_s(q);
    uint32_t steps = end / SWEEP_PARTS + SWEEP_LEAST, ended = 0;
    if (steps > end)
        steps = end;
    for (uint32_t i = 0; i < steps; i++) {
        q->sweep_at = q->sweep_at + 1 < end ? q->sweep_at + 1 : 1;
        if (q->sweep_at == 1)
            count_bytes_anew(q);
        if (q->sweep_at >= end)
            break;
        struct qentry *e = store_peek(&q->store, q->sweep_at);
        if (e != NULL)
            count_bytes(q, e);
        if (e == NULL || e->state == ENTRY_PARKED || e->state == ENTRY_BOUNCE_DUE ||
            !role_may_end(q, e))
            continue;
        if (store_msg(&q->store, e->msg)->expires_s > now_s)
            continue;
        entry_expire(q, e);
        if (++ended == SWEEP_ENDS)
            break; /* the rest in the next step */
    }
    if (q->domains.used > DOMAINS_KEPT + q->store.entries.used)
        domains_evict(q, 256);
}

/* Gauges and counters by lane; a few times a second, as many lanes would make it costly every
   turn. */
static void publish(struct queue *q)
{
    struct stats_page *p = q->env.stats;
    if (q->draining)
        return; /* the gauges are our successor's */
    uint64_t ready = q->counts[ENTRY_READY] + q->counts[ENTRY_RESOLVING];
    p->ready = ready;
    p->waiting = q->counts[ENTRY_WAITING];
    p->held = q->counts[ENTRY_HELD];
    p->in_flight = q->counts[ENTRY_IN_FLIGHT];
    p->parked = q->counts[ENTRY_PARKED];
    p->bounce_due = q->counts[ENTRY_BOUNCE_DUE];
    p->queued = ready + p->waiting + p->held + p->in_flight + p->parked + q->counts[ENTRY_STRAY] +
                q->owed_in - q->owed_out;
    p->cache_bytes = q->cache_bytes;
    p->sites = q->sites.used;
    p->domains = q->domains.used;
    for (uint32_t i = 0; i < q->lane_count; i++) {
        const struct lane *l = &q->lanes[i];
        if (l->stats == NULL)
            continue;
        l->stats->queued = l->queued - l->replicas - l->tails_there.count;
        l->stats->bytes = l->bytes;
    }
}

void queue_turn(struct queue *q)
{
    due_advance(&q->due, &q->store, queue_now_unix_s(q), DUE_PER_TURN);
    uint64_t now = queue_now_ms(q);
    if (now >= q->sweep_ms) {
        q->sweep_ms = now + SWEEP_EVERY_MS;
        sweep(q);
        publish(q);
    }
    holds_turn(q);
    role_turn(q);
    shard_turn_notes(q);
    if (!q->paused)
        flow_run_marked(q);
}

uint64_t queue_next_ms(const struct queue *q, uint64_t max)
{
    if ((q->marked != 0 && !q->paused) || q->hold_sweep_at != 0 || role_busy(q))
        return 0;
    uint32_t s = due_next_s(&q->due, 1);
    uint64_t ms = s == 0 && q->due.count > 0 ? 50 : max;
    if (q->store.entries.used > 0 && ms > SWEEP_EVERY_MS)
        ms = SWEEP_EVERY_MS;
    return ms < max ? ms : max;
}
