/*
 * move - see move.h: the room of moves, tied to the master's workers, netd, link and state.db.
 *
 * Time is monotonic, read once for each question: pauses are measured in microseconds.
 */
#include "master/move/move_impl.h"

#include "base/log.h"
#include "base/text.h"
#include "master/cluster.h"
#include "master/holds.h"
#include "master/move/fault.h"
#include "master/move/report.h"
#include "master/netd_client.h"
#include "master/proc.h"
#include "master/state_moves.h"
#include "master/verbs.h"
#include "proto/port_slice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { NETD_DEADLINE_MS = 3000, PREPARE_PROBE_MS = 200 };

static const struct config *config_of(const struct master *m)
{
    return m->current->source->config;
}

/* --- the room's way out --- */

static uint64_t now_us(void *ctx)
{
    struct timespec t;
    (void)ctx;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t unix_s(void *ctx)
{
    (void)ctx;
    return time(NULL);
}

static struct lane_record *record(void *ctx, const struct ip *address)
{
    struct moves *s = ctx;
    return s->arbiter.ops->read(&s->arbiter, address);
}

static struct lane_record *record_of(void *ctx, uint32_t number)
{
    struct moves *s = ctx;
    return lane_by_number(s->master, number);
}

static int swap(void *ctx, const struct lane_change *changes, uint32_t count)
{
    struct moves *s = ctx;
    return s->arbiter.ops->swap(&s->arbiter, changes, count);
}

static int save(void *ctx, const struct move *v)
{
    struct moves *s = ctx;
    return state_move_save(s->master->state, v);
}

/* A worker that is not there hears it when the machine repeats it, or by its START. */
static void order(void *ctx, const struct lane_record *r, const struct control_lane_order *o)
{
    struct moves *s = ctx;
    (void)(lane_order(s->master, r, o) < 0);
}

static void order_set(void *ctx, struct lane_record *r)
{
    struct moves *s = ctx;
    struct control_lane_order o;
    lane_order_set(s->master, r, &o);
    (void)(lane_order(s->master, r, &o) < 0);
}

static void run(void *ctx, struct lane_record *r)
{
    struct moves *s = ctx;
    if (r->role == LANE_OWNER)
        lane_run(s->master, r, true, "");
}

static void send_frame(void *ctx, const char *node, struct span frame)
{
    struct moves *s = ctx;
    (void)(cluster_send(s->master, node, CLUSTER_MOVE, frame) < 0);
}

static uint32_t slot(void *ctx, const struct lane_record *r)
{
    struct moves *s = ctx;
    return s->master->workers > 0 ? r->shard % s->master->workers : CONTROL_NO_SLOT;
}

/* A hold of all mail keeps what it kept: at the other node it becomes one of the lane. */
static bool hold_of(void *ctx, const struct ip *lane, char why[160])
{
    struct moves *s = ctx;
    const struct control_hold *h = holds_of_lane(s->master, lane);
    why[0] = '\0';
    if (h != NULL && strcmp(h->kind, "all") == 0)
        snprintf(why, 160, "all mail is held at %s: %s", s->room.node, h->why);
    else if (h != NULL)
        snprintf(why, 160, "%s", h->why);
    return h != NULL;
}

static int hold_put(void *ctx, const struct lane_move *l, bool held, const char *why)
{
    struct moves *s = ctx;
    char what[160], text[IP_TEXT];
    struct control_hold h = {.since = (uint64_t)time(NULL)};
    struct span left = span_str(why);
    uint32_t before = s->master->hold_count;
    size_t n = 0, one;
    while ((one = utf8_sequence(left)) > 0 && n + one < sizeof h.why) {
        memcpy(h.why + n, left.p, one);
        n += one;
        left = span_of(left.p + one, left.n - one);
    }
    int rc = holds_replace_lane(s->master, &l->address, held ? &h : NULL);
    if (rc == 0 && before == s->master->hold_count)
        return 0;
    ip_format(&l->address, text);
    snprintf(what, sizeof what, "%s lane %s with its move %s node %s", held ? "hold" : "release",
             text, l->side == MOVE_TAKER ? "from" : "to", l->peer);
    verbs_audit(s->master, "mochilad", what, rc == 0 ? "done" : "state.db cannot be written");
    return rc;
}

static void lane_over(void *ctx, const struct move *v, const struct lane_move *l)
{
    char text[IP_TEXT], id[LIMIT_NAME_BYTES + 24];
    (void)ctx;
    ip_format(&l->address, text);
    move_id_text(v, id);
    if (l->outcome == MOVE_DONE)
        log_note("move %s lane=%s done pause_us=%llu", id, text, (unsigned long long)l->pause_us);
    else
        log_warn("move %s lane=%s did not move: %s", id, text, l->reason);
}

static void move_over(void *ctx, const struct move *v)
{
    struct moves *s = ctx;
    struct move_sums sums;
    char what[160], result[160], id[LIMIT_NAME_BYTES + 24];
    move_id_text(v, id);
    move_sum(v, &sums);
    snprintf(what, sizeof what, "move %s of pool %s from %s to %s", id, v->pool, v->giver,
             v->taker);
    int n = snprintf(result, sizeof result, "%s: %u of %u lanes", move_word(v), sums.over,
                     sums.lanes);
    if (v->side == MOVE_GIVER && n < (int)sizeof result)
        n += snprintf(result + n, sizeof result - (size_t)n, ", %llu bytes, longest pause %llu us",
                      (unsigned long long)sums.bytes_sent, (unsigned long long)sums.pause_max);
    if (v->reason[0] != '\0' && n < (int)sizeof result)
        snprintf(result + n, sizeof result - (size_t)n, ": %s", v->reason);
    verbs_audit(s->master, "mochilad", what, result);
    s->news_ms = 1; /* the end is news at once */
}

/* --- netd --- */

static void on_netd(struct master *m, void *ctx, int rc, const struct netd_answer *answer)
{
    const struct lane_move *l = ctx;
    enum netd_result result = rc == 0 ? NETD_OK : rc == -EREMOTEIO ? NETD_FAILED : NETD_RETRY;
    struct lane_record *r = lane_by_address(m, &l->address);
    if (result != NETD_OK && r != NULL && r->role == LANE_OWNER && !r->run)
        lane_run(m, r, false, answer->reason); /* `cluster status` says why it waits */
    room_on_netd(ctx, result, answer->reason);
}

/* The other node's host, and the ports of the connections that its epoch has open. */
static void put_peer(struct master *m, const struct lane_move *l, struct netd_place *place)
{
    struct port_slice slice = port_slice_of(l->epoch);
    struct ip host;
    if (l->side != MOVE_TAKER || cluster_address_of(m, l->peer, &host) < 0 ||
        ip_is_v4(&host) != ip_is_v4(&l->address))
        return;
    place->forward.peer = host;
    place->has_peer = true;
    place->forward.port_low = slice.low;
    place->forward.port_high = slice.high;
}

static int ask(void *ctx, struct lane_move *l, enum netd_action action)
{
    struct moves *s = ctx;
    struct netd_request q = {.action = action, .deadline_ms = NETD_DEADLINE_MS};
    const struct lane_record *r = record(s, &l->address);
    if (!netd_drives(s->master)) {
        if (s->answer_count == MOVE_ANSWERS_MAX)
            return -ENOBUFS;
        s->answers[s->answer_count++] = l;
        return 0;
    }
    netd_place_of(s->master, r, &q.place);
    put_peer(s->master, l, &q.place);
    q.place.tail = action == NETD_RELEASE;
    q.probe_ms = action == NETD_PREPARE ? PREPARE_PROBE_MS : 0;
    if (action == NETD_PREPARE || action == NETD_RELEASE)
        q.place.epoch = l->epoch;
    snprintf(q.pool, sizeof q.pool, "%s", l->pool);
    snprintf(q.from, sizeof q.from, "%s", l->side == MOVE_GIVER ? s->room.node : l->peer);
    snprintf(q.to, sizeof q.to, "%s", l->side == MOVE_GIVER ? l->peer : s->room.node);
    return netd_ask(s->master, &q, on_netd, l);
}

static void give_answers(struct moves *s)
{
    uint32_t n = s->answer_count;
    for (uint32_t i = 0; i < n; i++)
        room_on_netd(s->answers[i], NETD_OK, "");
    memmove(s->answers, s->answers + n, (s->answer_count - n) * sizeof(struct lane_move *));
    s->answer_count -= n;
}

/* --- the face --- */

#ifdef MOCHILA_FAULTS
static void fault(void *ctx, const struct lane_move *l, unsigned step, bool after)
{
    struct moves *s = ctx;
    fault_move(s->master, l, step, after);
}
#define FAULT fault
#else
#define FAULT NULL
#endif

static const char *refuses(void *ctx, const char *node, const struct move_item *item)
{
    struct moves *s = ctx;
    return move_refuses(s->master, node, item);
}

static const struct room_ops ops = {.now_us = now_us,
                                    .unix_s = unix_s,
                                    .record = record,
                                    .record_of = record_of,
                                    .swap = swap,
                                    .save = save,
                                    .order = order,
                                    .order_set = order_set,
                                    .run = run,
                                    .send = send_frame,
                                    .ask = ask,
                                    .slot = slot,
                                    .refuses = refuses,
                                    .hold_of = hold_of,
                                    .hold_put = hold_put,
                                    .fault = FAULT,
                                    .lane_over = lane_over,
                                    .move_over = move_over};

int moves_open(struct master *m)
{
    struct moves *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->master = m;
    arbiter_static(&s->arbiter, m);
    int rc = room_init(&s->room, &ops, s, config_of(m)->node);
    if (rc == 0)
        rc = state_moves_load(m->state, &s->room);
    if (rc < 0) {
        room_fini(&s->room);
        free(s);
        return rc;
    }
    m->moves = s;
    room_resume(&s->room);
    return 0;
}

void moves_close(struct master *m)
{
    if (m->moves == NULL)
        return;
    room_fini(&m->moves->room);
    free(m->moves);
    m->moves = NULL;
}

/* How it stands, for whoever asks the other node. */
static void send_news(struct moves *s)
{
    static uint8_t bytes[LIMIT_LINK_PAYLOAD_BYTES];
    static struct move_frame f;
    size_t n;
    for (uint32_t i = 0; i < s->room.count; i++) {
        struct move *v = s->room.moves[i];
        if (v->side != MOVE_GIVER || v->told)
            continue;
        json_t *report = move_report(v, false);
        f.item_count = 0;
        f.news_move = v->id;
        f.news_bytes =
            (uint32_t)(report != NULL ? json_dumpb(report, f.news, sizeof f.news, JSON_COMPACT)
                                      : 0);
        json_decref(report);
        if (f.news_bytes > 0 && f.news_bytes <= sizeof f.news &&
            move_encode(&f, bytes, sizeof bytes, &n) == 0)
            send_frame(s, v->taker, span_of(bytes, n));
        v->told = v->outcome != MOVE_OPEN;
    }
}

/* A giver that is gone for good would keep its last lanes where they are for ever. */
static void look_for_lost(struct moves *s)
{
    uint64_t most_ms = 1000ull * config_of(s->master)->cluster.tail_timeout_s;
    for (uint32_t i = 0; i < s->room.active_count; i++) {
        struct lane_move *l = s->room.active[i];
        const struct cluster_node *n = cluster_find(s->master, l->peer);
        uint64_t since = l->entered_us / 1000;
        char text[IP_TEXT];
        if (l->state != TAKE_TAIL || (n != NULL && n->up))
            continue;
        if (n != NULL && n->heard_ms > since)
            since = n->heard_ms;
        if (s->master->now_ms < since + most_ms)
            continue;
        ip_format(&l->address, text);
        log_warn("lane %s: node %s, which owned it, has not come back for %llu s: nothing is sent"
                 " on to its open connections any more, and what they carried is in doubt",
                 text, l->peer, (unsigned long long)most_ms / 1000);
        lane_move_event(l, EV_LOST);
    }
}

void moves_turn(struct master *m)
{
    struct moves *s = m->moves;
    if (s == NULL)
        return;
    give_answers(s);
    room_turn(&s->room);
    /* What the machine asked in this turn and nobody has to do is answered in this turn. */
    for (unsigned i = 0; s->answer_count > 0 && i < 4; i++) {
        give_answers(s);
        room_turn(&s->room);
    }
    if (s->room.active_count > 0 && s->news_ms == 0)
        s->news_ms = m->now_ms;
    if (s->news_ms != 0 || s->room.active_count > 0) {
        if (m->now_ms >= s->news_ms) {
            send_news(s);
            look_for_lost(s);
            s->news_ms = s->room.active_count > 0 ? m->now_ms + MOVE_NEWS_MS : 0;
        }
    }
}

uint64_t moves_deadline(const struct master *m)
{
    const struct moves *s = m->moves;
    if (s == NULL)
        return 0;
    if (s->answer_count > 0)
        return m->now_ms;
    uint64_t us = room_due_us(&s->room);
    if (us == 0)
        return s->room.active_count > 0 || s->room.change_count > 0 ? m->now_ms : 0;
    return us / 1000 + 1;
}

void move_on_lane(struct master *m, struct proc *p, const struct control_lane_order *o)
{
    (void)p;
    if (m->moves != NULL)
        room_on_lane(&m->moves->room, o);
}

void move_on_frame(struct master *m, const char *node, struct span bytes)
{
    if (m->moves != NULL)
        room_on_frame(&m->moves->room, node, bytes);
}

void moves_on_peer(struct master *m, const char *node, bool up)
{
    (void)node;
    if (m->moves != NULL && up)
        m->moves->room.due_us = 0;
}

void moves_on_worker(struct master *m, struct proc *p)
{
    if (m->moves != NULL)
        room_on_worker(&m->moves->room, p->index);
}

bool moves_tail_of(const struct master *m, uint32_t lane, struct move_tail *out)
{
    const struct moves *s = m->moves;
    for (uint32_t i = 0; s != NULL && i < s->room.active_count; i++) {
        const struct lane_move *l = s->room.active[i];
        const struct lane_record *r = s->room.ops->record(s->room.ctx, &l->address);
        if (r == NULL || r->number != lane)
            continue;
        bool giver = l->state >= GIVE_GIVEN && l->state <= GIVE_ENDING;
        if (!giver && (l->state < TAKE_OWNING || l->state > TAKE_TAIL))
            return false;
        *out = (struct move_tail){.giver = giver, .epoch = l->epoch};
        memcpy(out->peer, l->peer, sizeof out->peer);
        return true;
    }
    return false;
}

bool moves_bring(const struct master *m, const struct lane_record *r)
{
    const struct lane_move *l = m->moves != NULL ? room_lane(&m->moves->room, &r->address) : NULL;
    return l != NULL && (l->state == GIVE_RESUMING || l->state == TAKE_OWNING);
}
