/*
 * netd_client - see netd_client.h.
 *
 * Invariant: a request in `asks` is answered exactly once: by netd, by its deadline, or by netd's
 * end. The low bits of a request's id are its place.
 */
#include "master/netd_client.h"

#include "base/log.h"
#include "master/cluster.h"
#include "master/move/move.h"
#include "master/proc.h"
#include "proto/port_slice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ASKS_MAX = 2 * LIMIT_LANES,
    PLACE_BITS = 16,
    GRACE_MS = 1000, /* netd keeps the deadline itself */
    ACQUIRE_MS = 5000,
    PROBE_MS = 200,
    RETRY_MS_MIN = 500,
    RETRY_MS_MAX = 30000,
};
static_assert(ASKS_MAX < 1 << PLACE_BITS, "a place fits the id");

struct ask {
    uint64_t id; /* 0: free */
    netd_done *done;
    void *ctx;
    uint64_t deadline_ms;
    uint32_t lane, epoch;
    enum netd_action action;
    bool tail;
};
struct netd_client {
    struct ask asks[ASKS_MAX];
    uint32_t free[ASKS_MAX];
    uint32_t free_count;
    uint64_t count;       /* requests so far */
    uint64_t deadline_ms; /* none before; 0: none at all */
};

static const struct config *config_of(const struct master *m)
{
    return m->current->source->config;
}

bool netd_drives(const struct master *m)
{
    return config_of(m)->cluster.driver != CLUSTER_DRIVER_NONE;
}

static bool serves(const struct master *m)
{
    return m->netd != NULL && slot_serves(&m->netd->slot);
}

static struct netd_client *client(struct master *m)
{
    if (m->netd_client != NULL)
        return m->netd_client;
    struct netd_client *c = calloc(1, sizeof *c);
    for (uint32_t i = 0; c != NULL && i < ASKS_MAX; i++)
        c->free[c->free_count++] = ASKS_MAX - 1 - i;
    m->netd_client = c;
    return c;
}

void netd_client_fini(struct master *m)
{
    free(m->netd_client);
    m->netd_client = NULL;
}

void netd_place_of(const struct master *m, const struct lane_record *r, struct netd_place *out)
{
    static const enum netd_driver drivers[] = {[CLUSTER_DRIVER_NONE] = NETD_NONE,
                                               [CLUSTER_DRIVER_L2] = NETD_L2,
                                               [CLUSTER_DRIVER_EXEC] = NETD_EXEC};
    const struct config *c = config_of(m);
    *out = (struct netd_place){.lane = r->number,
                               .epoch = r->epoch,
                               .driver = drivers[c->cluster.driver],
                               .address = r->address};
    snprintf(out->interface, sizeof out->interface, "%s", c->cluster.interface);
    for (uint32_t i = 0; i < c->lane_count; i++) {
        if (c->lanes[i].nic[0] != '\0' && ip_eq(&c->lanes[i].address, &r->address))
            snprintf(out->interface, sizeof out->interface, "%s", c->lanes[i].nic);
    }
}

static void send_frame(struct proc *p, const struct netd_frame *f)
{
    uint8_t bytes[LIMIT_FRAME_BYTES];
    size_t n;
    int rc = netd_encode(f, bytes, sizeof bytes, &n);
    MUST(rc == 0);
    proc_send_bytes(p, span_of(bytes, n));
}

/* --- START --- */

/* Where the open connections of the lane's former owner are. */
static void put_tail(const struct master *m, const struct lane_record *r, struct netd_place *out)
{
    struct move_tail tail;
    if (!moves_tail_of(m, r->number, &tail))
        return;
    if (tail.giver) {
        out->tail = true;
        return;
    }
    struct port_slice slice = port_slice_of(tail.epoch);
    if (cluster_address_of(m, tail.peer, &out->forward.peer) < 0 ||
        ip_is_v4(&out->forward.peer) != ip_is_v4(&r->address))
        return; /* nothing could be sent on to it: such a lane does not move */
    out->has_peer = true;
    out->forward.port_low = slice.low;
    out->forward.port_high = slice.high;
}

/* May this host still have the lane's address? */
static bool hold(const struct master *m, const struct lane_record *r, struct netd_place *out)
{
    if (!r->configured || !netd_drives(m))
        return false;
    netd_place_of(m, r, out);
    put_tail(m, r, out);
    if (r->role == LANE_FROZEN)
        out->tail = r->netd_tail;
    return lane_is_ours(r) || out->tail;
}

void netd_client_start(struct proc *p)
{
    static struct netd_frame f; /* large */
    const struct master *m = p->master;
    const struct config *c = config_of(m);
    uint32_t i = 0;
    do {
        f = (struct netd_frame){.kind = NETD_START,
                                .start = {.version = NETD_VERSION,
                                          .uid = m->paths.user,
                                          .gid = m->paths.group,
                                          .hook_ms = c->cluster.hook_time_ms}};
        snprintf(f.start.hook, sizeof f.start.hook, "%s", c->cluster.hook);
        for (; i < m->lanes.count && f.start.held_count < NETD_HELD_PER_FRAME; i++) {
            if (hold(m, m->lanes.records[i], &f.start.held[f.start.held_count]))
                f.start.held_count++;
        }
        f.start.last = i == m->lanes.count;
        send_frame(p, &f);
    } while (!f.start.last);
}

/* --- requests --- */

int netd_ask(struct master *m, const struct netd_request *request, netd_done *done, void *ctx)
{
    struct netd_client *c = client(m);
    if (!serves(m))
        return -ENOTCONN;
    if (c == NULL || c->free_count == 0)
        return -ENOBUFS;
    uint32_t at = c->free[--c->free_count];
    struct netd_frame f = {.kind = NETD_REQUEST, .request = *request};
    f.request.id = ++c->count << PLACE_BITS | at;
    MUST(request->deadline_ms >= 1);
    uint64_t deadline = m->now_ms + request->deadline_ms + GRACE_MS;
    c->asks[at] = (struct ask){.id = f.request.id,
                               .done = done,
                               .ctx = ctx,
                               .deadline_ms = deadline,
                               .lane = request->place.lane,
                               .epoch = request->place.epoch,
                               .action = request->action,
                               .tail = request->place.tail};
    if (c->deadline_ms == 0 || deadline < c->deadline_ms)
        c->deadline_ms = deadline;
    send_frame(m->netd, &f);
    return 0;
}

/* An address of ours did not come: said once for each reason, tried again for ever. */
static void acquire_failed(struct master *m, struct lane_record *r, int rc, const char *reason)
{
    char text[IP_TEXT];
    uint64_t wait = RETRY_MS_MIN;
    for (uint32_t i = 0; i < r->acquire_failures && wait < RETRY_MS_MAX; i++)
        wait *= 2;
    r->acquire_failures++;
    r->acquire_ms = m->now_ms + (wait < RETRY_MS_MAX ? wait : RETRY_MS_MAX);
    if (rc == -ECONNRESET || rc == -EAGAIN || rc == -ETIMEDOUT)
        return; /* nobody says that it is not here: what runs goes on */
    ip_format(&r->address, text);
    if (strcmp(r->why, reason) != 0)
        log_err("lane %s does not run: its address could not be had: %s", text, reason);
    lane_run(m, r, false, reason);
}

/* What an answer means for the lane, whoever asked. */
static void note(struct master *m, const struct ask *a, int rc, const char *reason)
{
    struct lane_record *r = lane_by_number(m, a->lane);
    if (r == NULL)
        return;
    if (a->action == NETD_RELEASE && rc == 0)
        r->netd_tail = a->tail;
    if (a->action == NETD_END_TAIL && rc == 0)
        r->netd_tail = false;
    if (a->action != NETD_ACQUIRE)
        return;
    if (a->done == NULL)
        r->acquiring = false;
    if (r->role != LANE_OWNER || r->epoch != a->epoch)
        return;
    if (rc == 0) {
        r->netd_tail = false;
        r->acquire_failures = 0;
        r->acquire_ms = 0;
        if (!moves_bring(m, r))
            lane_run(m, r, true, "");
    } else {
        acquire_failed(m, r, rc, reason);
    }
}

static void finish(struct master *m, struct ask *a, int rc, const struct netd_answer *answer)
{
    struct netd_client *c = m->netd_client;
    struct ask was = *a;
    a->id = 0;
    c->free[c->free_count++] = (uint32_t)(a - c->asks);
    note(m, &was, rc, answer->reason);
    if (was.done != NULL)
        was.done(m, was.ctx, rc, answer);
}

static void finish_alone(struct master *m, struct ask *a, int rc, const char *reason)
{
    struct netd_answer answer = {.id = a->id, .result = NETD_RETRY};
    snprintf(answer.reason, sizeof answer.reason, "%s", reason);
    finish(m, a, rc, &answer);
}

static int on_answer(struct master *m, const struct netd_answer *answer)
{
    static const int results[NETD_RESULT_COUNT] = {
        [NETD_OK] = 0, [NETD_RETRY] = -EAGAIN, [NETD_FAILED] = -EREMOTEIO};
    uint32_t at = answer->id & ((1 << PLACE_BITS) - 1);
    if (m->netd_client == NULL || at >= ASKS_MAX)
        return -EBADMSG;
    struct ask *a = &m->netd_client->asks[at];
    if (a->id == answer->id) /* else it was given up in the meantime */
        finish(m, a, results[answer->result], answer);
    return 0;
}

static void on_notice(struct master *m, const struct netd_notice *n)
{
    char text[IP_TEXT];
    struct lane_record *r = lane_by_number(m, n->lane);
    if (r == NULL || n->epoch < r->epoch)
        return;
    ip_format(&r->address, text);
    if (n->what == NETD_CLASH) {
        log_err("lane %s: another host answers for its address: %s", text, n->reason);
        return;
    }
    log_err("lane %s: its address has gone: %s", text, n->reason);
    if (r->role != LANE_OWNER)
        return;
    lane_run(m, r, false, n->reason);
    r->acquire_ms = m->now_ms + 1;
}

/* --- the process --- */

static int on_ready(struct proc *p, uint32_t version, uint32_t pid)
{
    struct master *m = p->master;
    if (version != NETD_VERSION || pid != (uint32_t)p->pid || p->slot.state != SLOT_STARTING)
        return -EBADMSG;
    proc_event(p, SLOT_EV_READY);
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        struct lane_record *r = m->lanes.records[i];
        if (r->role == LANE_OWNER && r->configured && netd_drives(m))
            r->acquire_ms = m->now_ms;
    }
    return 0;
}

int netd_client_take(struct proc *p)
{
    static struct netd_frame f; /* large */
    int rc = netd_receive(p->control_fd, &f);
    if (rc <= 0)
        return rc;
    rc = -EBADMSG;
    if (f.kind == NETD_READY)
        rc = on_ready(p, f.ready.version, f.ready.pid);
    else if (f.kind == NETD_ANSWER)
        rc = on_answer(p->master, &f.answer);
    else if (f.kind == NETD_NOTICE)
        rc = (on_notice(p->master, &f.notice), 0);
    return rc < 0 ? rc : 1;
}

void netd_client_gone(struct master *m)
{
    struct netd_client *c = m->netd_client;
    for (uint32_t i = 0; c != NULL && i < ASKS_MAX; i++) {
        if (c->asks[i].id != 0)
            finish_alone(m, &c->asks[i], -ECONNRESET, "netd has ended");
    }
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        struct lane_record *r = m->lanes.records[i];
        if (r->role == LANE_OWNER && !r->run && r->configured)
            snprintf(r->why, sizeof r->why, "netd does not run: %s", m->netd->slot.last_exit);
    }
}

/* --- time --- */

static void acquire(struct master *m, struct lane_record *r)
{
    struct netd_request q = {.action = NETD_ACQUIRE, .deadline_ms = ACQUIRE_MS};
    netd_place_of(m, r, &q.place);
    put_tail(m, r, &q.place);
    q.place.tail = false;
    /* A host that gave it to us, or we ourselves: nobody else needs to be looked for. */
    q.probe_ms = r->run || q.place.has_peer ? 0 : PROBE_MS;
    memcpy(q.pool, r->pool, sizeof q.pool);
    memcpy(q.to, config_of(m)->node, sizeof q.to);
    if (netd_ask(m, &q, NULL, NULL) == 0) {
        r->acquiring = true;
        r->acquire_ms = 0;
    }
}

static void acquire_due(struct master *m)
{
    if (!serves(m) || m->mode == MODE_STOPPING)
        return;
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        struct lane_record *r = m->lanes.records[i];
        if (r->acquire_ms == 0 || r->acquire_ms > m->now_ms || r->acquiring)
            continue;
        if (r->role != LANE_OWNER || !r->configured || !netd_drives(m))
            r->acquire_ms = 0;
        else if (moves_bring(m, r))
            r->acquire_ms = m->now_ms + RETRY_MS_MIN; /* its move asks */
        else
            acquire(m, r);
    }
}

void netd_client_tick(struct master *m)
{
    struct netd_client *c = m->netd_client;
    acquire_due(m);
    if (c == NULL || c->deadline_ms == 0 || c->deadline_ms > m->now_ms)
        return;
    c->deadline_ms = 0;
    for (uint32_t i = 0; i < ASKS_MAX; i++) {
        struct ask *a = &c->asks[i];
        if (a->id != 0 && a->deadline_ms <= m->now_ms)
            finish_alone(m, a, -ETIMEDOUT, "netd does not answer");
        if (a->id != 0 && (c->deadline_ms == 0 || a->deadline_ms < c->deadline_ms))
            c->deadline_ms = a->deadline_ms;
    }
}

uint64_t netd_client_deadline(const struct master *m)
{
    const struct netd_client *c = m->netd_client;
    uint64_t first = c != NULL ? c->deadline_ms : 0;
    for (uint32_t i = 0; serves(m) && i < m->lanes.count; i++) {
        const struct lane_record *r = m->lanes.records[i];
        if (r->acquire_ms != 0 && !r->acquiring && (first == 0 || r->acquire_ms < first))
            first = r->acquire_ms;
    }
    return first;
}
