/* cluster_status - what nodes say of themselves, and what follows from it; see cluster.h. */
#include "master/cluster_impl.h"

#include "base/log.h"
#include "master/move/move.h"
#include "master/placement.h"
#include "master/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

enum { RATE_MS = 1000 };

/* --- this node --- */

static uint64_t disk_free(const struct master *m)
{
    struct statvfs v;
    if (statvfs(m->paths.spool, &v) < 0)
        return 0;
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    uint64_t reserve = m->current->source->config->spool_options.reserve_bytes;
    return room > reserve ? room - reserve : 0;
}

/* Queued recipients of each lane, from the workers' pages. */
static void count_lanes(struct master *m)
{
    for (uint32_t i = 0; i < m->lanes.count; i++)
        m->lanes.records[i]->queued = m->lanes.records[i]->bytes = 0;
    for (uint32_t w = 0; w < m->workers; w++) {
        for (uint32_t i = 0; i < LIMIT_LANES; i++) {
            const struct stats_lane *l = &m->pages[w]->lanes[i];
            struct lane_record *r = l->lane != 0 ? lane_by_number(m, l->lane) : NULL;
            if (r == NULL)
                continue;
            r->queued += l->queued;
            r->bytes += l->bytes;
        }
    }
}

void cluster_status_refresh(struct master *m)
{
    struct cluster *c = m->cluster;
    struct cluster_status *s = &c->self.status;
    const struct config *config = m->current->source->config;
    uint64_t delivered = 0, queued = 0;
    for (uint32_t w = 0; w < m->workers; w++) {
        delivered += m->pages[w]->delivered;
        queued += m->pages[w]->queued;
    }
    uint64_t rate = s->delivered_milli;
    uint64_t passed = m->now_ms - c->delivered_ms;
    if (passed >= RATE_MS) {
        bool known = c->delivered_ms != 0 && delivered >= c->delivered;
        rate = known ? (delivered - c->delivered) * 1000000 / passed : 0;
        c->delivered = delivered;
        c->delivered_ms = m->now_ms;
        s->disk_free = disk_free(m);
        count_lanes(m);
    }
    *s = (struct cluster_status){.node_id = config->node_id,
                                 .layout = CLUSTER_RECORD_LAYOUT,
                                 .workers = m->workers,
                                 .driver = (enum netd_driver)(config->cluster.driver + NETD_NONE),
                                 .boot = m->boot,
                                 .queued = queued,
                                 .disk_free = s->disk_free,
                                 .delivered_milli = rate,
                                 .uptime_s = (m->now_ms - m->started_ms) / 1000};
    snprintf(s->version, sizeof s->version, "%s", MOCHILA_VERSION);
    snprintf(s->health, sizeof s->health, "%s", status_word(m));
    c->self.heard_ms = m->now_ms;
    c->self.up_since_ms = m->started_ms;
}
static_assert((int)NETD_L2 == (int)CLUSTER_DRIVER_L2 + 1 &&
                  (int)NETD_EXEC == (int)CLUSTER_DRIVER_EXEC + 1,
              "drivers have one order");

static void describe_lane(const struct master *m, const struct lane_record *r,
                          struct cluster_lane *out)
{
    *out = (struct cluster_lane){.address = r->address,
                                 .epoch = r->epoch,
                                 .slot = placement_worker_of(r->shard, m->workers),
                                 .role = r->role,
                                 .run = r->run,
                                 .queued = r->queued,
                                 .move = r->move};
    memcpy(out->pool, r->pool, sizeof out->pool);
    memcpy(out->owner, r->owner, sizeof out->owner);
}

void cluster_status_send(struct master *m, struct cluster_peer *p)
{
    static struct cluster_lane lanes[CLUSTER_LANES_PER_FRAME];
    struct cluster_frame f = {
        .kind = CLUSTER_STATUS, .status = m->cluster->self.status, .lanes = lanes};
    uint32_t at = 0;
    f.status.first = true;
    do {
        f.status.lane_count = 0;
        for (; at < m->lanes.count && f.status.lane_count < CLUSTER_LANES_PER_FRAME; at++) {
            if (m->lanes.records[at]->configured)
                describe_lane(m, m->lanes.records[at], &lanes[f.status.lane_count++]);
        }
        f.status.last = at == m->lanes.count;
        if (cluster_put(m, p, &f) < 0)
            return; /* said again in a second */
        f.status.first = false;
    } while (!f.status.last);
    p->status_due = false;
}

/* --- other nodes --- */

/* Two that hold themselves for the owner: a matter for people, said once for each epoch. */
static void alarm_of_two(struct lane_record *r, const struct cluster_peer *p,
                         const struct cluster_lane *told)
{
    char text[IP_TEXT];
    if (r->alarmed_epoch == told->epoch)
        return;
    r->alarmed_epoch = told->epoch;
    ip_format(&r->address, text);
    log_err("lane %s has two owners: this node by epoch %u, and %s says it is its own by epoch %u; "
            "was a state.db restored, or are the homes configured differently?",
            text, r->epoch, p->node.name, told->epoch);
}

/* What another node says of a lane that is not ours: the younger epoch is right. True: it is news,
   and `c` what follows from it. */
static bool follow(const struct master *m, const struct lane_record *r,
                   const struct cluster_peer *p, const struct cluster_lane *told,
                   struct lane_change *c)
{
    bool claims = strcmp(told->owner, p->node.name) == 0 &&
                  (told->role == LANE_OWNER || told->role == LANE_FROZEN);
    uint32_t slot = claims ? told->slot : CONTROL_NO_SLOT;
    bool same = told->epoch == r->epoch && strcmp(told->owner, r->owner) == 0;
    bool moved = told->epoch > r->epoch;
    bool slot_known = same && claims && slot != r->owner_slot;
    if ((!moved && !slot_known) || strcmp(told->owner, m->cluster->self.name) == 0)
        return false;
    lane_change_of(r, c);
    c->epoch = told->epoch;
    c->owner_slot = slot;
    memcpy(c->owner, told->owner, sizeof c->owner);
    return true;
}

/* True: the lane's record is to be changed. */
static bool hear(struct master *m, const struct cluster_peer *p, const struct cluster_lane *told,
                 struct lane_change *c)
{
    struct lane_record *r = lane_by_address(m, &told->address);
    if (r == NULL)
        return false;
    bool claims = strcmp(told->owner, p->node.name) == 0 &&
                  (told->role == LANE_OWNER || told->role == LANE_FROZEN);
    if (lane_is_ours(r)) {
        /* Of an elder epoch: the last owner, who has not heard of it yet. */
        if (claims && told->epoch >= r->epoch)
            alarm_of_two(r, p, told);
        return false;
    }
    return r->role == LANE_AWAY && follow(m, r, p, told, c);
}

/* All that it says in one transaction: many lanes move at once, and the disk may be slow. */
static void hear_all(struct master *m, const struct cluster_peer *p)
{
    static struct lane_change changes[LIMIT_LANES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->lanes.count; i++)
        n += hear(m, p, &p->lanes.list[i], &changes[n]) ? 1 : 0;
    if (n > 0 && lane_table_change(m, changes, n) < 0) {
        log_err("what %s says of lanes cannot be written: %s", p->node.name,
                state_error(m->state));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct lane_record *r = lane_by_number(m, changes[i].number);
        struct control_lane_order order;
        lane_order_set(m, r, &order);
        /* Nobody there: START or lane_table_tell will say it. */
        (void)(lane_order(m, r, &order) < 0);
    }
}

static int add_lanes(struct cluster_lanes *to, const struct cluster_lane *lanes, uint32_t count)
{
    if (to->count + count > to->room) {
        uint32_t room = (to->count + count) * 2;
        struct cluster_lane *more = realloc(to->list, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        to->list = more;
        to->room = room;
    }
    if (count > 0)
        memcpy(to->list + to->count, lanes, count * sizeof *lanes);
    to->count += count;
    return 0;
}

/* False: it says what no node of this cluster may say. */
static bool acceptable(struct master *m, struct cluster_peer *p, const struct cluster_status *s)
{
    const struct cluster *c = m->cluster;
    const char *other = s->node_id == c->self.status.node_id ? c->self.name : NULL;
    for (uint32_t i = 0; other == NULL && i < c->peer_count; i++) {
        const struct cluster_peer *q = c->peers[i];
        if (q != p && q->node.up && q->node.status.node_id == s->node_id)
            other = q->node.name;
    }
    if (other == NULL) {
        p->node.refused = false;
        return true;
    }
    if (!p->node.refused)
        log_err("node %s is refused: it has the node_id of %s, %u: give each node its own", //
                p->node.name, other, s->node_id);
    cluster_peer_down(m, p, "it has the node_id of another node");
    p->node.refused = true;
    return false;
}

void cluster_status_take(struct master *m, struct cluster_peer *p, const struct cluster_frame *f)
{
    const struct cluster_status *s = &f->status;
    if (!acceptable(m, p, s))
        return;
    p->node.heard_ms = m->now_ms;
    if (s->first)
        p->coming.count = 0;
    if (p->coming.count + s->lane_count > LIMIT_LANES ||
        add_lanes(&p->coming, f->lanes, s->lane_count) < 0) {
        uint64_t before;
        if (log_calm_may(&p->nonsense, m->now_ms, &before))
            log_warn("node %s has too many lanes: its STATUS is not believed", p->node.name);
        p->coming.count = 0;
        return;
    }
    if (!s->last)
        return;
    struct cluster_lanes before = p->lanes;
    p->lanes = p->coming;
    p->coming = before;
    p->coming.count = 0;
    p->node.status = *s;
    if (!p->node.up) {
        p->node.up = true;
        p->node.why[0] = '\0';
        p->node.up_since_ms = m->now_ms;
        log_note("node %s is up version=%s boot=%llu lanes=%u", p->node.name, s->version,
                 (unsigned long long)s->boot, p->lanes.count);
        moves_on_peer(m, p->node.name, true);
    }
    hear_all(m, p);
}
