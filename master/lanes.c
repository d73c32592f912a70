/*
 * lanes - configured lanes meet those that state.db remembers.
 *
 * A lane is its address. A known one keeps number and shard for ever; a new one is placed and
 * written down before any worker hears of it; one that is no longer configured is retired, and
 * workers still learn its place, since its queue may live on.
 */
#include "base/log.h"
#include "base/table.h"
#include "base/text.h"
#include "master/generation.h"
#include "master/placement.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct merge {
    struct state_lane *lanes; /* known ones, then new ones */
    size_t count, known;
    struct placement_lane *places;
    bool changed;
};

static uint32_t ip_hash(const struct ip *a)
{
    return hash_bytes(span_of(a->b, sizeof a->b));
}

static bool same_address(const void *ctx, uint32_t value, const void *key)
{
    const struct merge *m = ctx;
    return ip_eq(&m->lanes[value - 1].address, key);
}

static void merge_fini(struct merge *m)
{
    free(m->lanes);
    free(m->places);
}

/* Who owns a lane that nobody has owned: its home. */
static void take_home(struct state_lane *l, const struct config *c, const struct config_lane *from)
{
    const char *home = from->home[0] != '\0' ? from->home : c->node;
    snprintf(l->owner, sizeof l->owner, "%s", home);
    l->owner_slot = CONTROL_NO_SLOT;
    l->role = strcmp(home, c->node) == 0 ? LANE_OWNER : LANE_AWAY;
}

/* Everything that is remembered, with room for all that may be new. */
static int merge_load(struct merge *m, struct state *s, const struct config *c)
{
    *m = (struct merge){0};
    int rc = state_lanes(s, &m->lanes, &m->known);
    if (rc < 0)
        return rc;
    m->count = m->known;
    size_t room = m->known + c->lane_count + 1;
    struct state_lane *more = realloc(m->lanes, room * sizeof *more);
    if (more == NULL)
        return -ENOMEM;
    m->lanes = more;
    m->places = calloc(room, sizeof *m->places);
    if (m->places == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < m->known; i++) {
        struct state_lane *l = &m->lanes[i];
        bool ours = l->role == LANE_OWNER || l->role == LANE_FROZEN;
        m->places[i] = (struct placement_lane){.nic = "", .shard = l->shard};
        /* Also after this node got another name. */
        if (!ours || strcmp(l->owner, c->node) == 0)
            continue;
        memcpy(l->owner, c->node, sizeof l->owner);
        m->changed = true;
    }
    return 0;
}

static void take_pool(struct merge *m, size_t at, const char *pool)
{
    struct state_lane *l = &m->lanes[at];
    if (strcmp(l->pool, pool) != 0 || l->retired)
        m->changed = true;
    memcpy(l->pool, pool, sizeof l->pool);
    l->retired = false;
}

/* Finds or adds each configured lane. */
static int merge_config(struct merge *m, const struct config *c)
{
    struct table known = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < m->known; i++)
        rc = table_add(&known, ip_hash(&m->lanes[i].address), (uint32_t)i + 1);
    for (uint32_t i = 0; rc == 0 && i < c->lane_count; i++) {
        const struct config_lane *l = &c->lanes[i];
        uint32_t at = table_find(&known, ip_hash(&l->address), same_address, m, &l->address);
        if (at == 0) {
            m->lanes[m->count] =
                (struct state_lane){.shard = PLACEMENT_NO_SHARD, .epoch = 1, .address = l->address};
            take_home(&m->lanes[m->count], c, l);
            m->places[m->count].shard = PLACEMENT_NO_SHARD;
            at = (uint32_t)++m->count;
            m->changed = true;
        }
        take_pool(m, at - 1, c->pools[l->pool].name);
        m->places[at - 1].nic = l->nic;
        m->places[at - 1].counts = true;
    }
    table_fini(&known);
    return rc;
}

static void retire_others(struct merge *m)
{
    for (size_t i = 0; i < m->count; i++) {
        struct state_lane *l = &m->lanes[i];
        char text[IP_TEXT];
        if (m->places[i].counts || l->retired)
            continue;
        l->retired = true;
        m->changed = true;
        ip_format(&l->address, text);
        log_note("lane %s is no longer configured: retired lane=%u shard=%d", text, l->id,
                 l->shard);
    }
}

static void put_lanes(const struct merge *m, struct generation *g, bool active)
{
    for (size_t i = 0; i < m->count && g->lane_count < LIMIT_LANES; i++) {
        const struct state_lane *l = &m->lanes[i];
        if (m->places[i].counts != active)
            continue;
        g->lanes[g->lane_count++] =
            (struct control_lane){.lane = l->id,
                                  .shard = (uint32_t)l->shard,
                                  .worker = placement_worker_of((uint32_t)l->shard, g->workers),
                                  .epoch = l->epoch,
                                  .address = l->address};
    }
}

static void log_new(const struct merge *m)
{
    for (size_t i = m->known; i < m->count; i++) {
        char text[IP_TEXT];
        ip_format(&m->lanes[i].address, text);
        log_note("lane %s is new lane=%u shard=%d pool=%s", text, m->lanes[i].id, m->lanes[i].shard,
                 m->lanes[i].pool);
    }
}

static int settle(struct merge *m, struct state *s, struct generation *g)
{
    placement_assign(m->places, m->count, g->workers);
    for (size_t i = 0; i < m->count; i++)
        m->lanes[i].shard = m->places[i].shard;
    g->shards = placement_shard_count(m->places, m->count, g->workers);
    int rc = m->changed ? state_lanes_save(s, m->lanes, m->count) : 0;
    if (rc < 0)
        return rc;
    g->lanes = calloc(m->count > 0 ? m->count : 1, sizeof *g->lanes);
    if (g->lanes == NULL)
        return -ENOMEM;
    put_lanes(m, g, true);
    put_lanes(m, g, false);
    if (g->lane_count < m->count)
        log_warn("%zu retired lanes are too many: their old mail stays where it is",
                 m->count - g->lane_count);
    return 0;
}

int lanes_place(struct master *m, const struct config *c, struct generation *g, struct text *errors)
{
    struct merge merge;
    int rc = merge_load(&merge, m->state, c);
    if (rc == 0)
        rc = merge_config(&merge, c);
    if (rc == 0) {
        retire_others(&merge);
        rc = settle(&merge, m->state, g);
    }
    if (rc == 0)
        log_new(&merge);
    else if (rc == -ENOMEM)
        text_puts(errors, "lanes: no memory\n");
    else
        text_fmt(errors, "lanes: %s\n", state_error(m->state));
    merge_fini(&merge);
    return rc;
}
