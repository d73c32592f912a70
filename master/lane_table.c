/*
 * lane_table - see lane_table.h.
 *
 * Invariant: number, owner, epoch, role, slot and move of a record are those of state.db, after
 * each call. A record is freed with the table only.
 */
#include "master/lane_table.h"

#include "base/log.h"
#include "master/cluster.h"
#include "master/move/move.h"
#include "master/netd_client.h"
#include "master/placement.h"
#include "master/proc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t hash_ip(const struct ip *a)
{
    return hash_bytes(span_of(a->b, sizeof a->b));
}

static bool has_address(const void *ctx, uint32_t value, const void *key)
{
    const struct lane_table *t = ctx;
    return ip_eq(&t->records[value - 1]->address, key);
}

static bool has_number(const void *ctx, uint32_t value, const void *key)
{
    const struct lane_table *t = ctx;
    return t->records[value - 1]->number == *(const uint32_t *)key;
}

struct lane_record *lane_by_address(struct master *m, const struct ip *address)
{
    struct lane_table *t = &m->lanes;
    uint32_t i = table_find(&t->by_address, hash_ip(address), has_address, t, address);
    return i != 0 ? t->records[i - 1] : NULL;
}

struct lane_record *lane_by_number(struct master *m, uint32_t number)
{
    struct lane_table *t = &m->lanes;
    uint32_t i = table_find(&t->by_number, hash_u64(number), has_number, t, &number);
    return i != 0 ? t->records[i - 1] : NULL;
}

bool lane_is_ours(const struct lane_record *r)
{
    return r->role == LANE_OWNER || r->role == LANE_FROZEN;
}

const char *lane_role_word(enum lane_role role)
{
    static const char *const words[LANE_ROLE_COUNT] = {
        "", [LANE_OWNER] = "owner", [LANE_FROZEN] = "frozen", [LANE_AWAY] = "away",
        [LANE_REPLICA] = "replica"};
    MUST(role < LANE_ROLE_COUNT);
    return words[role];
}

static const char *own_name(const struct master *m)
{
    return m->current->source->config->node;
}

/* A new record at the end; NULL: no memory. */
static struct lane_record *add(struct lane_table *t, const struct state_lane *l)
{
    struct lane_record *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->number = l->id;
    r->address = l->address;
    t->records[t->count] = r;
    uint32_t value = t->count + 1;
    if (table_add(&t->by_address, hash_ip(&r->address), value) < 0) {
        free(r);
        return NULL;
    }
    if (table_add(&t->by_number, hash_u64(r->number), value) < 0) {
        (void)table_remove(&t->by_address, hash_ip(&r->address), value);
        free(r);
        return NULL;
    }
    t->count++;
    return r;
}

/*
 * What an owner's lane needs before it may run. The processes of now do not know a new lane: those
 * of the next generation hear of it by START.
 */
static void begin_to_run(struct master *m, struct lane_record *r)
{
    if (r->role != LANE_OWNER || r->run)
        return;
    if (r->configured && netd_drives(m)) {
        r->acquire_ms = m->now_ms + 1;
        snprintf(r->why, sizeof r->why, "waits for its address");
    } else {
        r->run = true;
    }
}

static void take(struct master *m, struct lane_record *r, const struct state_lane *l)
{
    bool known = r->epoch != 0;
    bool same = known && r->configured == !l->retired && strcmp(r->pool, l->pool) == 0;
    r->shard = (uint32_t)l->shard;
    r->configured = !l->retired;
    memcpy(r->pool, l->pool, sizeof r->pool);
    memcpy(r->owner, l->owner, sizeof r->owner);
    r->epoch = l->epoch;
    r->role = l->role;
    r->owner_slot = l->owner_slot;
    r->move = l->move;
    if (!same)
        r->version = ++m->lanes.version;
    begin_to_run(m, r);
}

int lane_table_load(struct master *m)
{
    struct lane_table *t = &m->lanes;
    struct state_lane *lanes;
    size_t count;
    int rc = state_lanes(m->state, &lanes, &count);
    if (rc == 0 && count > t->count) {
        struct lane_record **more = realloc(t->records, count * sizeof(struct lane_record *));
        if (more == NULL)
            rc = -ENOMEM;
        else
            t->records = more;
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct lane_record *r = lane_by_number(m, lanes[i].id);
        if (r == NULL)
            r = add(t, &lanes[i]);
        if (r == NULL)
            rc = -ENOMEM;
        else
            take(m, r, &lanes[i]);
    }
    free(lanes);
    cluster_changed(m);
    return rc;
}

void lane_table_configured(struct master *m)
{
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        struct lane_record *r = m->lanes.records[i];
        if (r->role != LANE_OWNER || !r->configured)
            continue;
        if (netd_drives(m))
            r->acquire_ms = m->now_ms + 1; /* also of one that runs: netd must hold it */
        else if (!moves_bring(m, r))
            lane_run(m, r, true, "");
    }
    cluster_changed(m);
}

void lane_table_fini(struct lane_table *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        free(t->records[i]);
    free(t->records);
    table_fini(&t->by_address);
    table_fini(&t->by_number);
    *t = (struct lane_table){0};
}

void lane_change_of(const struct lane_record *r, struct lane_change *c)
{
    *c = (struct lane_change){.number = r->number,
                              .epoch_before = r->epoch,
                              .epoch = r->epoch,
                              .owner_slot = r->owner_slot,
                              .role = r->role,
                              .move = r->move};
    memcpy(c->owner_before, r->owner, sizeof c->owner_before);
    memcpy(c->owner, r->owner, sizeof c->owner);
}

static void put_in_force(struct master *m, const struct lane_change *c)
{
    struct lane_record *r = lane_by_number(m, c->number);
    MUST(r != NULL);
    bool was_ours = lane_is_ours(r);
    memcpy(r->owner, c->owner, sizeof r->owner);
    if (r->epoch != c->epoch || c->role != LANE_OWNER) {
        r->run = false;
        r->acquire_ms = 0;
        r->why[0] = '\0';
    }
    r->epoch = c->epoch;
    r->owner_slot = c->owner_slot;
    r->role = c->role;
    r->move = c->move;
    r->version = ++m->lanes.version;
    char text[IP_TEXT];
    ip_format(&r->address, text);
    if (was_ours != lane_is_ours(r))
        log_note("lane %s is %s's now epoch=%u", text, r->owner, r->epoch);
}

int lane_table_change(struct master *m, const struct lane_change *changes, uint32_t n)
{
    int rc = 0;
    if (n == 0)
        return 0;
    struct state_swap *swaps = calloc(n, sizeof *swaps);
    if (swaps == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        const struct lane_change *c = &changes[i];
        bool ours = c->role == LANE_OWNER || c->role == LANE_FROZEN;
        if (c->epoch < c->epoch_before || ours != (strcmp(c->owner, own_name(m)) == 0))
            rc = -EINVAL;
        swaps[i] = (struct state_swap){.id = c->number,
                                       .epoch_before = c->epoch_before,
                                       .epoch = c->epoch,
                                       .owner_slot = c->owner_slot,
                                       .owner_before = c->owner_before,
                                       .owner = c->owner,
                                       .role = c->role,
                                       .move = c->move};
    }
    if (rc == 0)
        rc = state_lanes_swap(m->state, swaps, n);
    free(swaps);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        put_in_force(m, &changes[i]);
    if (rc == 0)
        cluster_changed(m);
    return rc;
}

void lane_run(struct master *m, struct lane_record *r, bool run, const char *why)
{
    MUST(!run || r->role == LANE_OWNER);
    snprintf(r->why, sizeof r->why, "%s", why);
    if (r->run == run)
        return;
    r->run = run;
    r->version = ++m->lanes.version;
    cluster_changed(m);
    struct control_lane_order order;
    lane_order_set(m, r, &order);
    /* Nobody there: START or lane_table_tell will say it. */
    (void)(lane_order(m, r, &order) < 0);
}

void lane_order_set(const struct master *m, const struct lane_record *r,
                    struct control_lane_order *out)
{
    (void)m;
    *out = (struct control_lane_order){.op = LANE_OP_SET,
                                       .lane = r->number,
                                       .epoch = r->epoch,
                                       .slot = r->owner_slot,
                                       .move = r->move,
                                       .role = r->role,
                                       .run = r->run};
    memcpy(out->node, r->owner, sizeof out->node);
}

static void send_order(struct proc *p, const struct lane_record *r,
                       const struct control_lane_order *order)
{
    struct control_frame f = {.kind = CONTROL_LANE, .slot = CONTROL_NO_SLOT, .order = *order};
    f.order.lane = r->number;
    proc_send(p, &f, NULL, 0);
}

int lane_order(struct master *m, const struct lane_record *r,
               const struct control_lane_order *order)
{
    struct proc *p = master_holder(m, placement_worker_of(r->shard, m->workers));
    if (p == NULL)
        return -EAGAIN;
    send_order(p, r, order);
    return 0;
}

void lane_table_tell(struct master *m, struct proc *p)
{
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        const struct lane_record *r = m->lanes.records[i];
        struct control_lane_order order;
        if (r->version <= p->lanes_told || placement_worker_of(r->shard, m->workers) != p->index)
            continue;
        lane_order_set(m, r, &order);
        send_order(p, r, &order);
    }
    p->lanes_told = m->lanes.version;
}

void lane_place_of(const struct master *m, const struct lane_record *r, struct control_lane *out)
{
    out->lane = r->number;
    out->shard = r->shard;
    out->worker = placement_worker_of(r->shard, m->workers);
    out->epoch = r->epoch;
    out->address = r->address;
    out->role = r->role;
    out->run = r->run;
    out->owner_slot = r->owner_slot;
    out->move = r->move;
    memcpy(out->owner, r->owner, sizeof out->owner);
    if (lane_is_ours(r))
        out->owner[0] = '\0';
}
