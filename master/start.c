/*
 * start - the START frames of a process; see proc.h.
 *
 * Thousands of lanes do not fit one frame: descriptors, shards, listeners and poison go with the
 * first, lanes and holds are spread over as many as they need.
 */
#include "base/log.h"
#include "master/netd_client.h"
#include "master/proc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { START_LANES = 250, START_HOLDS = 40 };
/* The longest encodings of one element, and of what stands in every frame. */
enum { LANE_BYTES = 104, HOLD_BYTES = 430, POISON_BYTES = 18, HEAD_BYTES = 1024 };
static_assert(START_LANES * LANE_BYTES + START_HOLDS * HOLD_BYTES + LIMIT_POISON * POISON_BYTES +
                      HEAD_BYTES <=
                  LIMIT_FRAME_BYTES,
              "the first START frame fits");
static_assert(3 + LIMIT_LISTENERS <= CONTROL_FDS_MAX, "a worker's descriptors fit a frame");
static_assert(1 + LIMIT_WORKERS <= CONTROL_FDS_MAX, "the api's descriptors fit a frame");

struct start {
    struct control_frame head;
    int fds[CONTROL_FDS_MAX];
    unsigned fd_count;
    uint32_t shards[LIMIT_WORKERS];
    uint32_t listeners[LIMIT_LISTENERS];
};

static void put_scalars(struct start *s, const struct proc *p, const struct generation *g)
{
    const struct master *m = p->master;
    s->head = (struct control_frame){.kind = CONTROL_START,
                                     .generation = g->number,
                                     .slot = p->index,
                                     .workers = g->workers,
                                     .boot = m->boot,
                                     .incarnation = p->incarnation,
                                     .core = p->kind == PROC_WORKER ? g->cores[p->index] : -1};
    snprintf(s->head.config_name, sizeof s->head.config_name, "%s", g->source->name);
    for (uint32_t i = 0; i < m->hold_count; i++)
        s->head.held = s->head.held || strcmp(m->holds[i].kind, "all") == 0;
    s->fds[s->fd_count++] = g->source->fd;
}

/* Worker w holds shard w and those that nobody has any more. */
static void put_shards(struct start *s, const struct proc *p)
{
    const struct generation *g = p->generation;
    for (uint32_t shard = p->index; shard < g->shards; shard += g->workers)
        s->shards[s->head.shard_count++] = shard;
    s->head.shards = s->shards;
}

static void put_listeners(struct start *s, const struct proc *p)
{
    const struct config *c = p->generation->source->config;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        int fd = listeners_fd(&p->master->listeners, &c->listeners[i], p->index);
        if (fd < 0)
            continue;
        s->listeners[s->head.listener_count++] = i;
        s->fds[s->fd_count++] = fd;
    }
    s->head.listeners = s->listeners;
}

static void put_poison(struct start *s, const struct master *m)
{
    if (state_poison_parked(m->state, &s->head.poison, &s->head.poison_count) < 0)
        log_err("poisoned messages cannot be read: they will be tried again");
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Sends the head, then lanes and holds until all are out. */
static void send_all(struct start *s, struct proc *p, const struct generation *g)
{
    const struct master *m = p->master;
    uint32_t lanes = 0, holds = 0;
    do {
        s->head.lanes = g->lanes + lanes;
        s->head.lane_count = least(START_LANES, g->lane_count - lanes);
        s->head.holds = m->holds + holds;
        s->head.hold_count = least(START_HOLDS, m->hold_count - holds);
        lanes += s->head.lane_count;
        holds += s->head.hold_count;
        s->head.last = lanes == g->lane_count && holds == m->hold_count;
        proc_send(p, &s->head, s->fds, s->fd_count);
        s->fd_count = 0;
        s->head.shard_count = s->head.listener_count = s->head.poison_count = 0;
    } while (!s->head.last);
}

static int start_worker(struct proc *p)
{
    struct master *m = p->master;
    struct start s = {0};
    int events = paths_open_events(&m->paths, p->index);
    if (events < 0) {
        log_err("%s: events cannot be written: %s", p->slot.name, strerror(-events));
        return events;
    }
    put_scalars(&s, p, p->generation);
    s.fds[s.fd_count++] = m->page_fds[p->index];
    s.fds[s.fd_count++] = events;
    put_shards(&s, p);
    put_listeners(&s, p);
    put_poison(&s, m);
    struct msg_id *poison = s.head.poison;
    send_all(&s, p, p->generation);
    free(poison);
    close(events);
    return 0;
}

static void start_api(struct proc *p)
{
    const struct master *m = p->master;
    struct start s = {0};
    put_scalars(&s, p, m->current);
    for (uint32_t w = 0; w < m->workers; w++)
        s.fds[s.fd_count++] = m->page_fds[w];
    send_all(&s, p, m->current);
}

/* The configuration alone: lanes are no matter of the link. */
static void start_link(struct proc *p)
{
    struct start s = {0};
    put_scalars(&s, p, p->master->current);
    s.head.slot = 0;
    s.head.workers = 1;
    s.head.last = true;
    proc_send(p, &s.head, s.fds, s.fd_count);
}

/* Owners and roles as they are now: a generation is older than its last process. */
static void refresh_lanes(struct master *m, struct generation *g)
{
    for (uint32_t i = 0; i < g->lane_count; i++) {
        const struct lane_record *r = lane_by_number(m, g->lanes[i].lane);
        MUST(r != NULL);
        lane_place_of(m, r, &g->lanes[i]);
    }
}

int start_send(struct proc *p)
{
    struct master *m = p->master;
    p->configured = m->current->number;
    switch (p->kind) {
    case PROC_WORKER:
        refresh_lanes(m, p->generation);
        p->lanes_told = m->lanes.version;
        return start_worker(p);
    case PROC_API:
        refresh_lanes(m, m->current);
        start_api(p);
        return 0;
    case PROC_LINK:
        start_link(p);
        return 0;
    case PROC_NETD:
        netd_client_start(p);
        return 0;
    case PROC_KIND_COUNT:
        break;
    }
    MUST(!"a kind of process");
    return -EINVAL;
}
