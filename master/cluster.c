/*
 * cluster - see cluster.h: nodes, streams, frames.
 *
 * Our stream begins anew with each link process: what was under way is not kept. The peer's stream
 * goes on, since every frame is done with when it is acknowledged.
 */
#include "master/cluster_impl.h"

#include "base/log.h"
#include "base/rng.h"
#include "master/move/move.h"
#include "master/proc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct config *config_of(const struct master *m)
{
    return m->current->source->config;
}

struct cluster_peer *cluster_peer_of(const struct master *m, const char *node)
{
    const struct cluster *c = m->cluster;
    for (uint32_t i = 0; c != NULL && i < c->peer_count; i++) {
        if (strcmp(c->peers[i]->node.name, node) == 0)
            return c->peers[i];
    }
    return NULL;
}

const struct cluster_node *cluster_find(const struct master *m, const char *node)
{
    const struct cluster_peer *p = cluster_peer_of(m, node);
    if (p != NULL)
        return &p->node;
    return m->cluster != NULL && strcmp(m->cluster->self.name, node) == 0 ? &m->cluster->self
                                                                          : NULL;
}

const struct cluster_node *cluster_at(const struct master *m, uint32_t i)
{
    const struct cluster *c = m->cluster;
    if (c == NULL || i > c->peer_count)
        return NULL;
    return i == 0 ? &c->self : &c->peers[i - 1]->node;
}

const struct cluster_lane *cluster_lane_at(const struct master *m, const char *node,
                                           const struct ip *address)
{
    const struct cluster_peer *p = cluster_peer_of(m, node);
    for (uint32_t i = 0; p != NULL && i < p->lanes.count; i++) {
        if (ip_eq(&p->lanes.list[i].address, address))
            return &p->lanes.list[i];
    }
    return NULL;
}

int cluster_address_of(const struct master *m, const char *node, struct ip *out)
{
    const struct cluster_peer *p = cluster_peer_of(m, node);
    const char *end = p != NULL ? strrchr(p->node.endpoint, ':') : NULL;
    if (end == NULL)
        return -ENOENT;
    struct span s = span_of(p->node.endpoint, (size_t)(end - p->node.endpoint));
    if (s.n >= 2 && s.p[0] == '[')
        s = span_of(s.p + 1, s.n - 2);
    return ip_parse(s, out) < 0 ? -ENOENT : 0;
}

/* --- nodes --- */

static void peer_free(struct cluster_peer *p)
{
    free(p->lanes.list);
    free(p->coming.list);
    free(p);
}

/* True when it was up before. */
void cluster_peer_down(struct master *m, struct cluster_peer *p, const char *why)
{
    bool was_up = p->node.up;
    p->node.up = false;
    snprintf(p->node.why, sizeof p->node.why, "%s", why);
    p->coming.count = 0;
    if (!was_up)
        return;
    log_warn("node %s is not reached: %s", p->node.name, why);
    cluster_ask_lost(m, p);
    moves_on_peer(m, p->node.name, false);
}

static void remove_others(struct master *m, const struct config *c)
{
    struct cluster *k = m->cluster;
    for (uint32_t i = k->peer_count; i-- > 0;) {
        struct cluster_peer *p = k->peers[i];
        bool kept = false;
        for (uint32_t j = 0; c->cluster.name[0] != '\0' && j < c->cluster.peers.count; j++)
            kept = kept || strcmp(c->cluster.peers.item[j].name, p->node.name) == 0;
        if (kept)
            continue;
        cluster_peer_down(m, p, "it is not configured any more");
        cluster_ask_lost(m, p);
        k->peer_count--;
        memmove(&k->peers[i], &k->peers[i + 1],
                (k->peer_count - i) * sizeof(struct cluster_peer *));
        peer_free(p);
    }
}

static int add_peer(struct master *m, const struct config_peer *from)
{
    struct cluster_peer *p = cluster_peer_of(m, from->name);
    if (p == NULL) {
        p = calloc(1, sizeof *p);
        if (p == NULL)
            return -ENOMEM;
        memcpy(p->node.name, from->name, sizeof p->node.name);
        snprintf(p->node.why, sizeof p->node.why, "not heard since the start");
        m->cluster->peers[m->cluster->peer_count++] = p;
    }
    memcpy(p->node.endpoint, from->endpoint, sizeof p->node.endpoint);
    return 0;
}

int cluster_configure(struct master *m)
{
    const struct config *c = config_of(m);
    if (m->cluster == NULL)
        m->cluster = calloc(1, sizeof *m->cluster);
    if (m->cluster == NULL)
        return -ENOMEM;
    struct cluster_node *self = &m->cluster->self;
    self->self = self->up = true;
    memcpy(self->name, c->node, sizeof self->name);
    memcpy(self->endpoint, c->cluster.listen, sizeof self->endpoint);
    remove_others(m, c);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && c->cluster.name[0] != '\0' && i < c->cluster.peers.count; i++)
        rc = add_peer(m, &c->cluster.peers.item[i]);
    cluster_changed(m);
    return rc;
}

void cluster_fini(struct master *m)
{
    struct cluster *c = m->cluster;
    if (c == NULL)
        return;
    for (uint32_t i = 0; i < c->peer_count; i++)
        peer_free(c->peers[i]);
    for (uint32_t i = 0; i < CLUSTER_QUESTIONS; i++)
        free(c->questions[i].body);
    free(c);
    m->cluster = NULL;
}

/* --- streams --- */

static void send_link(struct master *m, const struct cluster_peer *p, struct control_frame *f)
{
    f->kind = CONTROL_LINK;
    f->link.channel = 0;
    memcpy(f->link.peer, p->node.name, sizeof f->link.peer);
    proc_send(m->link, f, NULL, 0);
}

static void open_stream(struct master *m, struct cluster_peer *p)
{
    p->stream = rng_entropy() | 1;
    p->next = 1;
    p->acked = 0;
    p->wire = false;
    struct control_frame f = {.link = {.op = CONTROL_LINK_OPEN,
                                       .stream = p->stream,
                                       .seq = p->next,
                                       .peer_stream = p->peer_stream,
                                       .received = p->received,
                                       .durable = p->received}};
    send_link(m, p, &f);
}

void cluster_link_ready(struct master *m)
{
    struct cluster *c = m->cluster;
    c->link = true;
    for (uint32_t i = 0; i < c->peer_count; i++)
        open_stream(m, c->peers[i]);
}

void cluster_link_gone(struct master *m)
{
    struct cluster *c = m->cluster;
    if (c == NULL)
        return;
    c->link = false;
    for (uint32_t i = 0; i < c->peer_count; i++) {
        c->peers[i]->wire = false;
        cluster_peer_down(m, c->peers[i], "the link process of this node has ended");
    }
}

int cluster_put(struct master *m, struct cluster_peer *p, const struct cluster_frame *f)
{
    static uint8_t bytes[LIMIT_LINK_PAYLOAD_BYTES];
    size_t n;
    if (!m->cluster->link || !p->wire)
        return -ENOTCONN;
    if (p->next - 1 - p->acked >= CLUSTER_FLIGHT_MAX)
        return -ENOBUFS;
    int rc = cluster_encode(f, bytes, sizeof bytes, &n);
    if (rc < 0)
        return rc;
    struct control_frame out = {
        .link = {.op = CONTROL_LINK_SEND, .seq = p->next++}, .body = bytes, .body_bytes = n};
    send_link(m, p, &out);
    return 0;
}

int cluster_send(struct master *m, const char *node, enum cluster_kind kind, struct span payload)
{
    struct cluster_peer *p = cluster_peer_of(m, node);
    struct cluster_frame f = {.kind = kind, .move = payload};
    MUST(kind == CLUSTER_MOVE);
    if (p == NULL)
        return -ENOENT;
    if (payload.n > CLUSTER_PAYLOAD_BYTES)
        return -E2BIG;
    return p->node.refused ? -ENOTCONN : cluster_put(m, p, &f);
}

/* --- what the link says --- */

static int on_up(struct master *m, struct cluster_peer *p, const struct control_frame *f)
{
    (void)m;
    p->wire = true;
    p->status_due = true;
    if (p->peer_stream != f->link.peer_stream) {
        p->peer_stream = f->link.peer_stream;
        p->received = 0;
        p->coming.count = 0;
    }
    return 0;
}

static int on_down(struct master *m, struct cluster_peer *p, const struct control_frame *f)
{
    p->wire = false;
    cluster_peer_down(m, p, f->link.why);
    return 0;
}

static void nonsense(const struct master *m, struct cluster_peer *p)
{
    uint64_t before;
    if (log_calm_may(&p->nonsense, m->now_ms, &before))
        log_err("node %s sends a frame that cannot be read: dropped, as %llu before it",
                p->node.name, (unsigned long long)before);
}

static void take_payload(struct master *m, struct cluster_peer *p, struct span payload)
{
    static struct cluster_lane lanes[CLUSTER_LANES_PER_FRAME];
    static uint8_t scratch[LIMIT_LINK_PAYLOAD_BYTES];
    static struct cluster_frame f;
    int rc = cluster_decode(payload, lanes, scratch, &f);
    if (rc == -ENOTSUP)
        return; /* of a newer release */
    if (rc < 0) {
        nonsense(m, p);
        return;
    }
    switch (f.kind) {
    case CLUSTER_STATUS:
        cluster_status_take(m, p, &f);
        break;
    case CLUSTER_MOVE:
        if (!p->node.refused)
            move_on_frame(m, p->node.name, f.move);
        break;
    case CLUSTER_QUERY:
        cluster_query_take(m, p, &f.query);
        break;
    case CLUSTER_ANSWER:
        cluster_answer_take(m, p, &f.answer);
        break;
    case CLUSTER_KIND_COUNT:
        MUST(!"a kind that exists");
    }
}

static int on_received(struct master *m, struct cluster_peer *p, const struct control_frame *f)
{
    if (f->link.peer_stream != p->peer_stream || f->link.seq > p->received + 1)
        return -EBADMSG;
    if (f->link.seq <= p->received)
        return 0;
    p->received = f->link.seq;
    struct control_frame ack = {
        .link = {.op = CONTROL_LINK_ACK, .stream = p->peer_stream, .seq = p->received}};
    send_link(m, p, &ack);
    take_payload(m, p, span_of(f->body, f->body_bytes));
    return 0;
}

static int on_acked(struct master *m, struct cluster_peer *p, const struct control_frame *f)
{
    (void)m;
    if (f->link.stream == p->stream && f->link.seq > p->acked && f->link.seq < p->next)
        p->acked = f->link.seq;
    return 0;
}

/* What was dropped stays so: whoever wanted it says it again. */
static int on_want(struct master *m, struct cluster_peer *p, const struct control_frame *f)
{
    (void)m;
    if (f->link.stream != p->stream || f->link.seq == 0)
        return 0;
    p->next = f->link.seq;
    if (p->acked >= p->next)
        p->acked = p->next - 1;
    p->status_due = true;
    return 0;
}

int cluster_on_link(struct master *m, const struct control_frame *f)
{
    static int (*const handlers[CONTROL_LINK_OP_COUNT])(struct master *, struct cluster_peer *,
                                                        const struct control_frame *) = {
        [CONTROL_LINK_UP] = on_up,
        [CONTROL_LINK_DOWN] = on_down,
        [CONTROL_LINK_RECEIVED] = on_received,
        [CONTROL_LINK_ACKED] = on_acked,
        [CONTROL_LINK_WANT] = on_want,
    };
    struct cluster_peer *p = cluster_peer_of(m, f->link.peer);
    if (f->link.channel != 0 || handlers[f->link.op] == NULL)
        return -EBADMSG;
    return p != NULL ? handlers[f->link.op](m, p, f) : 0; /* one that a reload took away */
}

/* --- time --- */

void cluster_changed(struct master *m)
{
    if (m->cluster != NULL)
        m->cluster->changed = true;
}

void cluster_tick(struct master *m)
{
    struct cluster *c = m->cluster;
    for (uint32_t i = 0; i < c->peer_count; i++) {
        struct cluster_peer *p = c->peers[i];
        if (p->node.up && m->now_ms - p->node.heard_ms > CLUSTER_SILENCE_MS)
            cluster_peer_down(m, p, "its master is silent");
    }
    cluster_ask_tick(m);
}

void cluster_flush(struct master *m)
{
    struct cluster *c = m->cluster;
    bool all = c->changed || c->status_ms <= m->now_ms;
    if (c->status_ms <= m->now_ms || c->changed)
        cluster_status_refresh(m);
    if (c->status_ms <= m->now_ms)
        c->status_ms = m->now_ms + CLUSTER_STATUS_MS;
    c->changed = false;
    for (uint32_t i = 0; i < c->peer_count; i++) {
        struct cluster_peer *p = c->peers[i];
        p->status_due = p->status_due || all;
        if (p->status_due && p->wire && p->next - 1 - p->acked < CLUSTER_FLIGHT_STATUS)
            cluster_status_send(m, p);
    }
}

uint64_t cluster_deadline(const struct master *m)
{
    const struct cluster *c = m->cluster;
    uint64_t first = cluster_ask_deadline(c);
    if (c->peer_count > 0 && (first == 0 || c->status_ms < first))
        first = c->status_ms;
    return first;
}
