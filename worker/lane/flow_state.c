/*
 * Invariant: what was told of a site is applied once. A flow that is made again later begins fresh:
 * it was let go because nothing was left to remember.
 */
#include "worker/lane/flow_state.h"

#include "base/log.h"
#include "proto/budget.h"
#include "proto/lane.pb-c.h"
#include "proto/pb_bytes.h"
#include "worker/lane/flow.h"

#include <errno.h>
#include <stdlib.h>

enum {
    STATE_BYTES_MAX = 384 << 10, /* a record and a frame hold it, with what else they carry */
    /* Unpacked: some 120 bytes for a site that takes at least 10 on the wire. */
    BUDGET_BYTES = 16 << 20,
    DURATION_MS_MAX = 7 * 86400 * 1000, /* longer ones are not believed */
    COUNT_MAX = 1000,
};
static_assert(STATE_BYTES_MAX + 4096 <= LIMIT_RECORD_BYTES, "a record holds the state");

/* What was told of one site, its times by our clock. */
struct remembered {
    char *site;
    uint32_t failures, complaints;
    uint64_t backoff_until_ms, suspended_until_ms, failed_ms, complained_ms;
    double message_tokens, connect_tokens;
    char *last_reply;
    uint8_t why, turns;
    bool used;
};
struct flow_memory {
    struct remembered *sites; /* 0 is not used */
    uint32_t count;
    uint64_t written_ms;      /* by our monotonic clock */
    struct table by_site;
};

/* --- out --- */

static uint64_t left(uint64_t until_ms, uint64_t now_ms)
{
    return until_ms > now_ms ? until_ms - now_ms : 0;
}

/* It says something that a fresh flow would not know. */
static bool is_troubled(const struct flow *f, uint64_t now)
{
    return f->failures > 0 || f->complaints > 0 || f->suspended_until_ms > now ||
           f->backoff_until_ms > now;
}

static bool is_spent(const struct queue *q, const struct flow *f)
{
    const struct config_limits *lim = site_at(q, f->site)->limits;
    return (lim->messages_per_s > 0 && f->message_tokens < lim->messages_per_s) ||
           (lim->new_connections_per_s > 0 && f->connect_tokens < lim->new_connections_per_s);
}

static void fill(const struct queue *q, const struct flow *f, Mochila__FlowState *m)
{
    uint64_t now = queue_now_ms(q);
    mochila__flow_state__init(m);
    m->has_site = m->has_message_tokens = m->has_connect_tokens = 1;
    m->site = text_bytes(site_at(q, f->site)->key);
    m->message_tokens = f->message_tokens;
    m->connect_tokens = f->connect_tokens;
    m->has_failures = m->has_failed_ago_ms = f->failures > 0;
    m->failures = f->failures;
    m->failed_ago_ms = left(now, f->failed_ms);
    m->has_complaints = m->has_complained_ago_ms = f->complaints > 0;
    m->complaints = f->complaints;
    m->complained_ago_ms = left(now, f->complained_ms);
    m->backoff_ms = left(f->backoff_until_ms, now);
    m->has_backoff_ms = m->backoff_ms > 0;
    m->suspended_ms = left(f->suspended_until_ms, now);
    m->has_suspended_ms = m->suspended_ms > 0;
    m->has_last_reply = f->last_reply != 0;
    if (m->has_last_reply)
        m->last_reply = text_bytes(reply_text(q, f->last_reply));
    m->has_why = m->has_turns = 1;
    m->why = f->why;
    m->turns = f->turns;
}

struct exported {
    Mochila__FlowState *flows;
    size_t count, cap, bytes;
    bool full;
};

static int add(struct exported *x, const struct queue *q, const struct flow *f)
{
    if (x->count == x->cap) {
        size_t cap = x->cap > 0 ? 2 * x->cap : 64;
        void *p = realloc(x->flows, cap * sizeof *x->flows);
        if (p == NULL)
            return -ENOMEM;
        x->flows = p;
        x->cap = cap;
    }
    Mochila__FlowState *m = &x->flows[x->count];
    fill(q, f, m);
    size_t n = mochila__flow_state__get_packed_size(m) + 4; /* tag and length */
    x->full = x->full || x->bytes + n > STATE_BYTES_MAX;
    if (x->full)
        return 0;
    x->bytes += n;
    x->count++;
    return 0;
}

/* Troubled flows first: should there be too many, only the tokens of others are not told. */
static int collect(struct exported *x, struct queue *q, const struct lane *l)
{
    uint64_t now = queue_now_ms(q);
    for (int troubled = 1; troubled >= 0; troubled--) {
        uint32_t at = 0;
        for (uint32_t i; (i = table_next(&q->flow_by_pair, &at)) != 0;) {
            const struct flow *f = flow_at(q, i);
            if (f->lane != l->index || is_troubled(f, now) != (troubled == 1))
                continue;
            if (troubled == 0 && !is_spent(q, f))
                continue;
            int r = add(x, q, f);
            if (r != 0)
                return r;
        }
    }
    return 0;
}

static int pack(const struct exported *x, uint64_t now_unix_ms, uint8_t **out, size_t *n)
{
    Mochila__FlowStates m = MOCHILA__FLOW_STATES__INIT;
    Mochila__FlowState **list = calloc(x->count + 1, sizeof *list);
    if (list == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < x->count; i++)
        list[i] = &x->flows[i];
    m.n_flow = x->count;
    m.flow = list;
    m.has_at_unix_ms = 1;
    m.at_unix_ms = now_unix_ms;
    size_t bytes = mochila__flow_states__get_packed_size(&m);
    *out = malloc(bytes);
    if (*out != NULL)
        *n = mochila__flow_states__pack(&m, *out);
    free(list);
    return *out != NULL ? 0 : -ENOMEM;
}

int flow_state_export(struct queue *q, const struct lane *l, uint8_t **out, size_t *n)
{
    struct exported x = {0};
    *out = NULL;
    *n = 0;
    int r = collect(&x, q, l);
    if (x.full)
        log_warn("lane %s: it knows too many sites, not all of them are told to its next owner",
                 l->name);
    if (r == 0)
        r = pack(&x, io_now_unix_ms(q->env.io), out, n);
    free(x.flows);
    return r;
}

/* --- in --- */

static bool has_site(const void *ctx, uint32_t value, const void *key)
{
    const struct flow_memory *mem = ctx;
    return strcmp(mem->sites[value].site, key) == 0;
}

static char *owned_text(const ProtobufCBinaryData *d, size_t max)
{
    size_t n = d->len < max ? d->len : max;
    char *s = malloc(n + 1);
    if (s == NULL)
        return NULL;
    if (n > 0)
        memcpy(s, d->data, n);
    s[n] = '\0';
    return s;
}

static uint32_t count_of(uint32_t n)
{
    return n < COUNT_MAX ? n : COUNT_MAX;
}

/* Times as durations from `then` (ours, monotonic), when the state was written. */
static void place_times(struct remembered *r, const Mochila__FlowState *m, uint64_t then)
{
    uint64_t max = DURATION_MS_MAX;
    uint64_t backoff = m->backoff_ms < max ? m->backoff_ms : max;
    uint64_t suspended = m->suspended_ms < max ? m->suspended_ms : max;
    r->backoff_until_ms = backoff > 0 ? then + backoff : 0;
    r->suspended_until_ms = suspended > 0 ? then + suspended : 0;
    r->failed_ms = left(then, m->failed_ago_ms);
    r->complained_ms = left(then, m->complained_ago_ms);
}

static int remember(struct flow_memory *mem, const Mochila__FlowState *m)
{
    struct remembered *r = &mem->sites[mem->count + 1];
    r->site = owned_text(&m->site, SIZE_MAX);
    r->last_reply = m->has_last_reply ? owned_text(&m->last_reply, LIMIT_REPLY_KEPT_BYTES) : NULL;
    if (r->site == NULL)
        return -ENOMEM;
    r->failures = count_of(m->failures);
    r->complaints = count_of(m->complaints);
    place_times(r, m, mem->written_ms);
    r->message_tokens = m->message_tokens;
    r->connect_tokens = m->connect_tokens;
    r->why = m->why < REASON_COUNT ? (uint8_t)m->why : REASON_NONE;
    r->turns = (uint8_t)(m->turns % 10);
    mem->count++;
    if (table_find(&mem->by_site, hash_bytes(span_str(r->site)), has_site, mem, r->site) != 0)
        return 0; /* told twice: the first counts */
    return table_add(&mem->by_site, hash_bytes(span_str(r->site)), mem->count);
}

static void memory_free(struct flow_memory **mem)
{
    struct flow_memory *x = *mem;
    *mem = NULL;
    if (x == NULL)
        return;
    for (uint32_t i = 1; x->sites != NULL && i <= x->count + 1; i++) {
        free(x->sites[i].site);
        free(x->sites[i].last_reply);
    }
    table_fini(&x->by_site);
    free(x->sites);
    free(x);
}

/* When the state was written, by our monotonic clock. Clocks of two hosts differ: one that is ahead
   shortens a pause by that much, never lengthens it. */
static uint64_t written_ms(const struct queue *q, const Mochila__FlowStates *m)
{
    uint64_t now = queue_now_ms(q), passed = left(io_now_unix_ms(q->env.io), m->at_unix_ms);
    return left(now, m->has_at_unix_ms ? passed : 0);
}

static int make_memory(const struct queue *q, const Mochila__FlowStates *m,
                       struct flow_memory **out)
{
    struct flow_memory *mem = calloc(1, sizeof *mem);
    if (mem == NULL)
        return -ENOMEM;
    int r = 0;
    mem->written_ms = written_ms(q, m);
    mem->sites = calloc(m->n_flow + 2, sizeof *mem->sites);
    if (mem->sites == NULL)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < m->n_flow; i++)
        r = remember(mem, m->flow[i]);
    if (r != 0)
        memory_free(&mem);
    *out = mem;
    return r;
}

static int read_state(const struct queue *q, struct lane *l)
{
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__FlowStates *m = mochila__flow_states__unpack(&allocator, l->state_bytes, l->state);
    if (m == NULL)
        return -EBADMSG;
    int r = make_memory(q, m, &l->memory);
    mochila__flow_states__free_unpacked(m, &allocator);
    return r;
}

static double tokens_of(double told, uint32_t rate)
{
    double most = rate > 0 ? rate : 1;
    return told >= -most && told <= most ? told : most; /* false for NaN too */
}

/* What was left then; the time since fills the buckets. */
static void take_tokens(const struct queue *q, struct flow *f, const struct remembered *r,
                        uint64_t then)
{
    const struct config_limits *lim = site_at(q, f->site)->limits;
    double messages = tokens_of(r->message_tokens, lim->messages_per_s);
    double connects = tokens_of(r->connect_tokens, lim->new_connections_per_s);
    if (messages >= f->message_tokens && connects >= f->connect_tokens)
        return;
    f->message_tokens = messages < f->message_tokens ? messages : f->message_tokens;
    f->connect_tokens = connects < f->connect_tokens ? connects : f->connect_tokens;
    f->tokens_at_ms = then < f->tokens_at_ms ? then : f->tokens_at_ms;
}

/* Only what makes the flow more careful: what it has learned itself is not forgotten. */
static void apply(struct queue *q, struct flow *f, struct remembered *r)
{
    uint64_t now = queue_now_ms(q), longest = 1000ull * q->env.config->client.host_retry_max_s;
    r->used = true;
    if (r->failures > f->failures && r->backoff_until_ms + longest > now) {
        f->failures = r->failures;
        f->failed_ms = r->failed_ms;
    }
    if (r->complaints > f->complaints && r->suspended_until_ms + longest > now) {
        f->complaints = r->complaints;
        f->complained_ms = r->complained_ms;
    }
    if (r->backoff_until_ms > f->backoff_until_ms)
        f->backoff_until_ms = r->backoff_until_ms;
    if (r->suspended_until_ms > f->suspended_until_ms)
        f->suspended_until_ms = r->suspended_until_ms;
    f->turns = r->turns;
    if (f->why == REASON_NONE)
        f->why = r->why;
    if (f->last_reply == 0 && r->last_reply != NULL)
        f->last_reply = reply_intern(q, span_str(r->last_reply));
}

void flow_state_new(struct queue *q, struct flow *f)
{
    struct flow_memory *mem = q->lanes[f->lane].memory;
    if (mem == NULL)
        return;
    const char *key = site_at(q, f->site)->key;
    uint32_t i = table_find(&mem->by_site, hash_bytes(span_str(key)), has_site, mem, key);
    if (i != 0 && !mem->sites[i].used) {
        take_tokens(q, f, &mem->sites[i], mem->written_ms);
        apply(q, f, &mem->sites[i]);
    }
}

void flow_state_apply(struct queue *q, struct lane *l)
{
    memory_free(&l->memory);
    if (l->state_bytes == 0)
        return;
    int r = read_state(q, l);
    if (r != 0) {
        log_warn("lane %s: what its last owner knew of sites cannot be read: %s", l->name,
                 strerror(-r));
        return;
    }
    uint32_t at = 0;
    for (uint32_t i; (i = table_next(&q->flow_by_pair, &at)) != 0;) {
        struct flow *f = flow_at(q, i);
        if (f->lane != l->index)
            continue;
        flow_state_new(q, f);
        flow_mark(q, f);
    }
}

void flow_state_free(struct lane *l)
{
    memory_free(&l->memory);
    free(l->state);
    l->state = NULL;
    l->state_bytes = 0;
}
