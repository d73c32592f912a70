/*
 * orders - the operator's words about moves; see move.h.
 *
 * What another node owns is that node's to move: the order goes there once, and is never passed on
 * a second time.
 */
#include "master/move/move_impl.h"

#include "base/log.h"
#include "base/text.h"
#include "master/cluster.h"
#include "master/forward.h"
#include "master/move/report.h"
#include "master/netd_client.h"
#include "master/state_moves.h"
#include "master/verbs.h"
#include "proto/verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LANES_TEXT_BYTES = 48 << 10,
    /* What a copy without a limit is believed to reach, when no move has shown better or worse. */
    RATE_BELIEVED = 50 << 20,
    RATE_KNOWN_BYTES = 64 << 20, /* a move of less says nothing */
};

struct order {
    struct master *m;
    const struct control_frame *f;
    int status;
    char forward[LIMIT_NAME_BYTES + 1];
    char why[200];
    uint64_t rate, parallel;
    bool dry_run;
    struct ip *lanes; /* room for LIMIT_LANES */
    uint32_t count;
    char pool[LIMIT_NAME_BYTES + 1];
};

static const struct config *config_of(const struct master *m)
{
    return m->current->source->config;
}

static json_t *fail(struct order *o, int status, const char *why)
{
    o->status = status;
    return json_pack("{s:s}", "error", why);
}

static bool flag(const struct control_frame *f, const char *key)
{
    const char *v = control_arg(f, key);
    return v != NULL && strcmp(v, "0") != 0 && strcmp(v, "false") != 0;
}

static bool numbers(struct order *o)
{
    const char *rate = control_arg(o->f, "rate"), *parallel = control_arg(o->f, "parallel");
    o->rate = config_of(o->m)->cluster.move_rate;
    o->parallel = config_of(o->m)->cluster.move_lanes;
    if (rate != NULL && span_to_u64(span_str(rate), &o->rate) < 0)
        return false;
    if (parallel != NULL && span_to_u64(span_str(parallel), &o->parallel) < 0)
        return false;
    o->dry_run = flag(o->f, "dry_run");
    if (o->parallel > LIMIT_LANES)
        o->parallel = LIMIT_LANES;
    return o->parallel > 0;
}

/* --- which lanes --- */

static int named_lanes(struct order *o, const char *list)
{
    char word[IP_TEXT];
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        if (n >= sizeof word || o->count == LIMIT_LANES)
            return -EINVAL;
        memcpy(word, list, n);
        word[n] = '\0';
        if (ip_parse(span_str(word), &o->lanes[o->count]) < 0 ||
            lane_by_address(o->m, &o->lanes[o->count]) == NULL) {
            snprintf(o->why, sizeof o->why, "there is no lane %s", word);
            return -ENOENT;
        }
        o->count++;
        list += n + (list[n] == ',');
    }
    return o->count > 0 ? 0 : -EINVAL;
}

static int pool_lanes(struct order *o, const char *pool)
{
    for (uint32_t i = 0; i < o->m->lanes.count; i++) {
        const struct lane_record *r = o->m->lanes.records[i];
        if (r->configured && strcmp(r->pool, pool) == 0 && o->count < LIMIT_LANES)
            o->lanes[o->count++] = r->address;
    }
    if (o->count == 0)
        snprintf(o->why, sizeof o->why, "there is no pool %s, or it has no lanes", pool);
    return o->count > 0 ? 0 : -ENOENT;
}

/* Those of one owner that are not where they are to go: ours if there are any. */
static void pick_owner(struct order *o, const char *to, char owner[LIMIT_NAME_BYTES + 1])
{
    const char *us = config_of(o->m)->node;
    uint32_t kept = 0;
    owner[0] = '\0';
    for (uint32_t i = 0; i < o->count; i++) {
        const struct lane_record *r = lane_by_address(o->m, &o->lanes[i]);
        if (strcmp(r->owner, to) != 0 && (owner[0] == '\0' || strcmp(r->owner, us) == 0))
            memcpy(owner, r->owner, LIMIT_NAME_BYTES + 1);
    }
    for (uint32_t i = 0; i < o->count; i++) {
        const struct lane_record *r = lane_by_address(o->m, &o->lanes[i]);
        if (strcmp(r->owner, owner) == 0)
            o->lanes[kept++] = o->lanes[i];
    }
    o->count = kept;
}

static bool leaves(const struct cluster_node *n)
{
    static const char *const words[] = {"draining", "drained", "stopping"};
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (strcmp(n->status.health, words[i]) == 0)
            return true;
    }
    return false;
}

/* NULL, or why nothing can be moved to that node now. */
static const char *unfit(struct master *m, const char *to, char why[200])
{
    const struct cluster_node *n = cluster_find(m, to), *us = cluster_find(m, config_of(m)->node);
    if (n == NULL || us == NULL) {
        snprintf(why, 200, "there is no node %s in cluster.peers", to);
        return why;
    }
    if (n->self)
        return "the lanes are here already";
    if (!n->up) {
        snprintf(why, 200, "node %s cannot be reached: %s", to,
                 n->why[0] != '\0' ? n->why : "it was not heard");
        return why;
    }
    if (leaves(n)) {
        snprintf(why, 200, "node %s is about to stop: it is %s", to, n->status.health);
        return why;
    }
    if (n->status.driver != us->status.driver)
        return "the two nodes have different cluster.driver";
    if (n->status.layout != us->status.layout)
        return "the releases of the two nodes lay out records differently: update one first";
    return NULL;
}

/* Of copies on their way to us, this one included: what the disk must hold. */
static uint64_t bytes_coming(const struct moves *s, const struct move_item *item)
{
    uint64_t bytes = item->bytes;
    for (uint32_t i = 0; i < s->room.active_count; i++) {
        const struct lane_move *l = s->room.active[i];
        if (l->side == MOVE_TAKER && l->state < TAKE_OWNING && !ip_eq(&l->address, &item->lane))
            bytes += l->bytes;
    }
    return bytes;
}

const char *move_refuses(struct master *m, const char *node, const struct move_item *item)
{
    const struct cluster_node *us = cluster_find(m, config_of(m)->node);
    struct ip host;
    if (netd_drives(m) && cluster_address_of(m, node, &host) == 0 &&
        ip_is_v4(&host) != ip_is_v4(&item->lane))
        return "open connections could not be forwarded: lane and node (cluster.peers) must both"
               " have IPv4 addresses, or both IPv6";
    if (us != NULL && us->status.disk_free != 0 &&
        bytes_coming(m->moves, item) > us->status.disk_free / 2)
        return "there is not room enough on the other node's disk";
    if (m->mode != MODE_RUNNING)
        return "the other node is about to stop";
    return NULL;
}

/* The first lane that the target has not in its configuration, or NULL. */
static const char *unknown_there(const struct order *o, const char *to, char why[200])
{
    const struct cluster_node *n = cluster_find(o->m, to);
    for (uint32_t i = 0; n->status.lane_count > 0 && i < o->count; i++) {
        char text[IP_TEXT];
        if (cluster_lane_at(o->m, to, &o->lanes[i]) != NULL)
            continue;
        ip_format(&o->lanes[i], text);
        snprintf(why, 200, "lane %s is not configured on node %s", text, to);
        return why;
    }
    return NULL;
}

/* --- move --- */

static json_t *answer_move(struct order *o, json_t *report)
{
    o->status = 200;
    return json_pack("{s:o, s:b}", "move", report, "dry_run", o->dry_run);
}

/* Seconds that a copy of so much takes: by the limit, or as the last moves did. */
static uint64_t copy_seconds(const struct order *o, uint64_t bytes)
{
    const struct room *r = &o->m->moves->room;
    uint64_t rate = RATE_BELIEVED;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct move *v = r->moves[i];
        struct move_sums s;
        move_sum(v, &s);
        if (v->side == MOVE_GIVER && v->ended > v->started && s.bytes_sent > RATE_KNOWN_BYTES)
            rate = s.bytes_sent / (uint64_t)(v->ended - v->started);
    }
    if (o->rate != 0 && o->rate < rate)
        rate = o->rate;
    return bytes / rate + 1;
}

static uint64_t bytes_of(const struct order *o)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < o->count; i++)
        bytes += lane_by_address(o->m, &o->lanes[i])->bytes;
    return bytes;
}

/* What would happen, without a trace of it. */
static json_t *predict(struct order *o, const char *to)
{
    struct move v = {.side = MOVE_GIVER, .started = 0, .rate = o->rate, .parallel = 1};
    uint64_t messages = 0, bytes = bytes_of(o);
    snprintf(v.pool, sizeof v.pool, "%s", o->pool);
    snprintf(v.giver, sizeof v.giver, "%s", config_of(o->m)->node);
    snprintf(v.taker, sizeof v.taker, "%s", to);
    json_t *report = move_report(&v, false), *lanes = json_array();
    for (uint32_t i = 0; i < o->count; i++) {
        char text[IP_TEXT], reason[200] = "";
        const struct lane_move *other = room_lane(&o->m->moves->room, &o->lanes[i]);
        const struct lane_record *r = lane_by_address(o->m, &o->lanes[i]);
        ip_format(&o->lanes[i], text);
        if (other != NULL)
            snprintf(reason, sizeof reason, "its last move is not over: %s",
                     move_state_word(other->state));
        messages += r->queued;
        (void)json_array_append_new(
            lanes, json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:i, s:s}", "lane", text, "state",
                             reason[0] != '\0' ? "refused" : "waiting", "step", 0, "pause_us", 0,
                             "messages_left", (json_int_t)r->queued, "bytes_left",
                             (json_int_t)r->bytes, "tails", 0, "reason", reason));
    }
    (void)json_object_set_new(report, "id", json_string(""));
    (void)json_object_set_new(report, "state", json_string("preparing"));
    (void)json_object_set_new(report, "lanes", lanes);
    (void)json_object_set_new(report, "lanes_total", json_integer(o->count));
    (void)json_object_set_new(report, "messages_total", json_integer((json_int_t)messages));
    (void)json_object_set_new(report, "bytes_total", json_integer((json_int_t)bytes));
    (void)json_object_set_new(report, "eta_s", json_integer((json_int_t)copy_seconds(o, bytes)));
    return answer_move(o, report);
}

/* --- holds of messages --- */

static void on_held_there(struct master *m, void *ctx, int status, struct span body)
{
    (void)m;
    (void)ctx;
    if (status != 200)
        log_warn("move: a hold of a message did not go along: %d %.*s", status,
                 (int)(body.n < 200 ? body.n : 200), (const char *)body.p);
}

/*
 * The mail that a hold of a single message keeps goes with its lane, and nobody here knows which
 * it is: the taker gets all of them, on the way that PREPARE takes after them.
 */
static int pass_holds(struct order *o, const char *to)
{
    enum { HOLDS_MAX = 48 }; /* questions that may be under way, less some for others */
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->m->hold_count; i++)
        count += strcmp(o->m->holds[i].kind, "message") == 0;
    if (count > HOLDS_MAX) {
        snprintf(o->why, sizeof o->why,
                 "%u single messages are on hold here, more than the %d that can go along: hold"
                 " their lane or tenant instead",
                 count, HOLDS_MAX);
        return -E2BIG;
    }
    for (uint32_t i = 0; i < o->m->hold_count; i++) {
        const struct control_hold *h = &o->m->holds[i];
        char value[sizeof h->value + 8], why[sizeof h->why + 8], kind[] = "kind=message";
        char *args[] = {kind, value, why};
        const struct cluster_verb hold = {.name = "hold", .args = args, .arg_count = 3};
        if (strcmp(h->kind, "message") != 0)
            continue;
        snprintf(value, sizeof value, "value=%s", h->value);
        snprintf(why, sizeof why, "why=%s", h->why);
        if (cluster_ask(o->m, to, &hold, on_held_there, NULL) < 0) {
            snprintf(o->why, sizeof o->why, "too many questions are under way: try again");
            return -ENOBUFS;
        }
    }
    return 0;
}

static int start(struct order *o, const char *to, bool drain, struct move **out)
{
    int held = pass_holds(o, to);
    if (held < 0)
        return held;
    char why[160] = "state.db cannot be written";
    uint64_t number;
    struct move_wish w = {.lanes = o->lanes,
                          .count = o->count,
                          .parallel = (uint32_t)o->parallel,
                          .rate = o->rate,
                          .drain = drain,
                          .pool = o->pool,
                          .to = to};
    int rc = state_move_number(o->m->state, &number);
    if (rc == 0) {
        w.id = (uint64_t)config_of(o->m)->node_id << 48 | number;
        rc = room_start(&o->m->moves->room, &w, out, why);
    }
    if (rc < 0)
        snprintf(o->why, sizeof o->why, "%s", why);
    return rc;
}

static void on_other(struct master *m, void *ctx, int status, struct span body)
{
    (void)m, (void)ctx;
    if (status != 200)
        log_warn("the part of a pool that another node owns does not move: %.*s",
                 (int)(body.n < 300 ? body.n : 300), (const char *)body.p);
}

/* The pool's lanes of one other owner, as an order to that node; their number, 0: not sent. */
static uint32_t order_other(struct order *o, const char *owner, const char *to)
{
    static char lanes[LANES_TEXT_BYTES];
    char target[LIMIT_NAME_BYTES + 8], rate[40], parallel[40], text[IP_TEXT];
    char *args[] = {lanes, target, rate, parallel};
    size_t n = (size_t)snprintf(lanes, sizeof lanes, "lane=");
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->m->lanes.count && n + IP_TEXT + 1 < sizeof lanes; i++) {
        const struct lane_record *r = o->m->lanes.records[i];
        if (!r->configured || strcmp(r->pool, o->pool) != 0 || strcmp(r->owner, owner) != 0)
            continue;
        ip_format(&r->address, text);
        n += (size_t)snprintf(lanes + n, sizeof lanes - n, "%s%s", count > 0 ? "," : "", text);
        count++;
    }
    snprintf(target, sizeof target, "to=%s", to);
    snprintf(rate, sizeof rate, "rate=%llu", (unsigned long long)o->rate);
    snprintf(parallel, sizeof parallel, "parallel=%llu", (unsigned long long)o->parallel);
    const struct cluster_verb verb = {
        .name = "move", .args = args, .arg_count = ARRAY_COUNT(args)};
    return cluster_ask(o->m, owner, &verb, on_other, NULL) == 0 ? count : 0;
}

/* A pool may have several owners: each other one that is up is told to move what it has. Only
   lanes by name are ordered so, hence nobody passes it on. */
static void order_others(struct order *o, const char *to, json_t *report)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list != NULL && i < LIMIT_PEERS + 1; i++) {
        const struct cluster_node *n = cluster_at(o->m, i);
        if (n == NULL)
            break;
        bool owns = false;
        for (uint32_t k = 0; !owns && k < o->m->lanes.count; k++) {
            const struct lane_record *r = o->m->lanes.records[k];
            owns = r->configured && strcmp(r->pool, o->pool) == 0 && strcmp(r->owner, n->name) == 0;
        }
        if (n->self || !owns || strcmp(n->name, to) == 0)
            continue;
        uint32_t count = n->up ? order_other(o, n->name, to) : 0;
        (void)json_array_append_new(
            list, json_pack("{s:s, s:i}", "node", n->name, "lanes", (int)count));
    }
    (void)json_object_set_new(report, "others", list);
}

static json_t *move(struct order *o)
{
    const char *pool = control_arg(o->f, "pool"), *lane = control_arg(o->f, "lane");
    const char *to = control_arg(o->f, "to"), *us = config_of(o->m)->node;
    char owner[LIMIT_NAME_BYTES + 1], why[200];
    struct move *v;
    if (to == NULL || (pool == NULL) == (lane == NULL))
        return fail(o, 400, "expected to, and one of pool and lane");
    if (!numbers(o))
        return fail(o, 400, "rate and parallel: expected numbers, parallel from 1");
    int rc = pool != NULL ? pool_lanes(o, pool) : named_lanes(o, lane);
    if (rc < 0)
        return fail(o, rc == -ENOENT ? 404 : 400, rc == -ENOENT ? o->why : "lane: no address");
    snprintf(o->pool, sizeof o->pool, "%s", lane_by_address(o->m, &o->lanes[0])->pool);
    if (cluster_find(o->m, to) == NULL) {
        snprintf(why, sizeof why, "there is no node %s in cluster.peers", to);
        return fail(o, 404, why);
    }
    pick_owner(o, to, owner);
    if (o->count == 0)
        return fail(o, 409, "all of it is there already");
    if (strcmp(owner, us) != 0) {
        snprintf(o->forward, sizeof o->forward, "%s", owner);
        snprintf(why, sizeof why, "node %s owns it: ask there", owner);
        return fail(o, 421, why);
    }
    const char *no = unfit(o->m, to, why);
    if (no == NULL)
        no = unknown_there(o, to, why);
    if (no == NULL && bytes_of(o) > cluster_find(o->m, to)->status.disk_free / 2)
        no = "there is not room enough on the other node's disk";
    if (no != NULL)
        return fail(o, 409, no);
    if (o->dry_run)
        return predict(o, to);
    if (start(o, to, false, &v) < 0)
        return fail(o, 409, o->why);
    json_t *report = move_report(v, true);
    if (pool != NULL && report != NULL)
        order_others(o, to, report);
    return answer_move(o, report);
}

/* --- abort, moves --- */

/* "a-17" into the node's name and the number: false when it is no such text. */
static bool split_id(const char *id, char node[LIMIT_NAME_BYTES + 1], uint64_t *number)
{
    const char *dash = strrchr(id, '-');
    if (dash == NULL || dash == id || (size_t)(dash - id) > LIMIT_NAME_BYTES)
        return false;
    memcpy(node, id, (size_t)(dash - id));
    node[dash - id] = '\0';
    return span_to_u64(span_str(dash + 1), number) == 0;
}

static struct move *find(struct order *o, const char *id)
{
    struct room *r = &o->m->moves->room;
    char text[LIMIT_NAME_BYTES + 24];
    for (uint32_t i = r->count; i > 0; i--) {
        move_id_text(r->moves[i - 1], text);
        if (strcmp(text, id) == 0)
            return r->moves[i - 1];
    }
    return NULL;
}

/* The move is the business of the node that it is named after. */
static json_t *elsewhere(struct order *o, const char *id)
{
    char node[LIMIT_NAME_BYTES + 1];
    uint64_t number;
    if (!split_id(id, node, &number))
        return fail(o, 400, "id: expected the id of a move, as a-17");
    if (strcmp(node, config_of(o->m)->node) == 0 || cluster_find(o->m, node) == NULL)
        return fail(o, 404, "there is no such move");
    snprintf(o->forward, sizeof o->forward, "%s", node);
    return fail(o, 421, "another node gives these lanes: ask there");
}

static json_t *move_abort(struct order *o)
{
    const char *id = control_arg(o->f, "id");
    struct move *v = id != NULL ? find(o, id) : NULL;
    if (id == NULL)
        return fail(o, 400, "expected id");
    if (v == NULL || v->side == MOVE_TAKER)
        return elsewhere(o, id);
    if (v->outcome != MOVE_OPEN)
        return fail(o, 409, "the move is over already");
    room_abort(&o->m->moves->room, v, "aborted by the operator");
    return answer_move(o, move_report(v, true));
}

static json_t *moves(struct order *o)
{
    struct room *r = &o->m->moves->room;
    const char *id = control_arg(o->f, "id"), *node = control_arg(o->f, "node");
    if (node != NULL && cluster_find(o->m, node) == NULL)
        return fail(o, 404, "there is no such node in cluster.peers");
    if (node != NULL && strcmp(node, config_of(o->m)->node) != 0) {
        snprintf(o->forward, sizeof o->forward, "%s", node);
        return fail(o, 421, "ask the node itself");
    }
    json_t *list = json_array();
    if (id != NULL) {
        struct move *v = find(o, id);
        if (v == NULL) {
            json_decref(list);
            return elsewhere(o, id);
        }
        (void)json_array_append_new(list, move_report(v, true));
    }
    for (uint32_t i = r->count; id == NULL && i > 0; i--)
        (void)json_array_append_new(list, move_report(r->moves[i - 1], false));
    o->status = 200;
    return json_pack("{s:o}", "moves", list);
}

/* --- drain --- */

static uint32_t owned_by(const struct master *m, const char *node)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        const struct lane_record *r = m->lanes.records[i];
        count += r->configured && strcmp(r->owner, node) == 0;
    }
    return count;
}

/* The fittest node for one more lane: by free disk for each lane it has and is to get. */
static uint32_t fittest(struct master *m, const uint32_t *planned)
{
    uint32_t best = UINT32_MAX;
    double best_score = 0;
    char why[200];
    for (uint32_t i = 0; i < LIMIT_PEERS + 1; i++) {
        const struct cluster_node *n = cluster_at(m, i);
        if (n == NULL)
            break;
        if (n->self || unfit(m, n->name, why) != NULL)
            continue;
        double room = (double)n->status.disk_free + 1;
        double load = 1.0 + owned_by(m, n->name) + planned[i] + (double)n->status.queued / 10000.0;
        if (best == UINT32_MAX || room / load > best_score) {
            best = i;
            best_score = room / load;
        }
    }
    return best;
}

/* A lane or more of a pool that stay, as a move that was refused. */
static void put_refused(struct order *o, const char *pool, const char *to, const char *why,
                        json_t *list)
{
    (void)json_array_append_new(
        list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:i, s:i}", "id", "", "pool", pool,
                        "from", config_of(o->m)->node, "to", to, "state", "refused", "reason", why,
                        "lanes", json_array(), "lanes_total", 0, "lanes_done", 0));
}

/* It is in a move: on its way out, or still bound by the last one. NULL: it goes anyway. */
static bool put_bound(struct order *o, const struct lane_record *r, json_t *list)
{
    const struct lane_move *l = room_lane(&o->m->moves->room, &r->address);
    char why[160], text[IP_TEXT];
    if (l == NULL)
        return false;
    ip_format(&r->address, text);
    snprintf(why, sizeof why, "lane %s has open connections of its last move: try again when they"
             " end", text);
    if (l->side == MOVE_TAKER)
        put_refused(o, r->pool, l->peer, why, list);
    return true;
}

/* All lanes of ours, spread over the others: targets[k] for lanes[k]; in `list` those that stay. */
static int plan(struct order *o, uint32_t *targets, json_t *list)
{
    uint32_t planned[LIMIT_PEERS + 1] = {0};
    for (uint32_t i = 0; i < o->m->lanes.count; i++) {
        const struct lane_record *r = o->m->lanes.records[i];
        if (r->role != LANE_OWNER || !r->configured || put_bound(o, r, list))
            continue;
        uint32_t at = fittest(o->m, planned);
        if (at == UINT32_MAX)
            return -ENOENT;
        planned[at]++;
        targets[o->count] = at;
        o->lanes[o->count++] = r->address;
    }
    return 0;
}

/* The lanes of one pool that go to one node are one move. */
static void start_planned(struct order *o, const uint32_t *targets, uint32_t from, json_t *list)
{
    const struct cluster_node *n = cluster_at(o->m, targets[from]);
    struct order part = *o;
    struct move *v;
    part.lanes = calloc(LIMIT_LANES, sizeof *part.lanes);
    part.count = 0;
    snprintf(part.pool, sizeof part.pool, "%s", lane_by_address(o->m, &o->lanes[from])->pool);
    for (uint32_t i = from; part.lanes != NULL && i < o->count; i++) {
        const struct lane_record *r = lane_by_address(o->m, &o->lanes[i]);
        if (targets[i] == targets[from] && strcmp(r->pool, part.pool) == 0)
            part.lanes[part.count++] = r->address;
    }
    json_t *report = NULL;
    if (part.count > 0 && o->dry_run) {
        json_t *answer = predict(&part, n->name);
        report = json_incref(json_object_get(answer, "move"));
        json_decref(answer);
    } else if (part.count > 0 && start(&part, n->name, true, &v) == 0) {
        report = move_report(v, false);
    } else if (part.count > 0) {
        put_refused(&part, part.pool, n->name, part.why, list);
    }
    if (report != NULL)
        (void)json_array_append_new(list, report);
    free(part.lanes);
}

/* The reason of the first, which mostly is the only one. */
static const char *no_taker(struct master *m, char out[300])
{
    char why[200];
    const char *first = NULL;
    const struct cluster_node *n;
    for (uint32_t i = 0; first == NULL && (n = cluster_at(m, i)) != NULL; i++)
        first = n->self ? NULL : unfit(m, n->name, why);
    snprintf(out, 300, "no other node can take lanes%s%s", first != NULL ? ": " : "",
             first != NULL ? first : "");
    return out;
}

static json_t *node_drain(struct order *o)
{
    static uint32_t targets[LIMIT_LANES];
    char why[300];
    const char *node = control_arg(o->f, "node");
    if (node == NULL || !numbers(o))
        return fail(o, 400, "expected node; rate: a number of bytes a second");
    if (cluster_find(o->m, node) == NULL)
        return fail(o, 404, "there is no such node in cluster.peers");
    if (strcmp(node, config_of(o->m)->node) != 0) {
        snprintf(o->forward, sizeof o->forward, "%s", node);
        return fail(o, 421, "ask the node itself");
    }
    json_t *list = json_array();
    if (plan(o, targets, list) < 0) {
        json_decref(list);
        return fail(o, 409, no_taker(o->m, why));
    }
    for (uint32_t i = 0; i < o->count; i++) {
        bool first = true;
        const char *pool = lane_by_address(o->m, &o->lanes[i])->pool;
        for (uint32_t k = 0; k < i && first; k++)
            first = targets[k] != targets[i] ||
                    strcmp(lane_by_address(o->m, &o->lanes[k])->pool, pool) != 0;
        if (first)
            start_planned(o, targets, i, list);
    }
    o->status = 200;
    return json_pack("{s:o, s:b}", "moves", list, "dry_run", o->dry_run);
}

/* What the owner says of it stands in its own audit log, and in `moves` there and here. */
static void on_undrain(struct master *m, void *ctx, int status, struct span body)
{
    (void)ctx;
    if (status != 200)
        log_warn("undrain: a node does not give lanes back: %d %.*s", status,
                 (int)(body.n < 200 ? body.n : 200), (const char *)body.p);
    (void)m;
}

/* Each lane that a drain took from here and that is not here now: its owner is asked to give it. */
static json_t *node_undrain(struct order *o)
{
    const char *node = control_arg(o->f, "node"), *us = config_of(o->m)->node;
    struct room *r = &o->m->moves->room;
    if (node == NULL || cluster_find(o->m, node) == NULL)
        return fail(o, 404, "there is no such node in cluster.peers");
    if (strcmp(node, us) != 0) {
        snprintf(o->forward, sizeof o->forward, "%s", node);
        return fail(o, 421, "ask the node itself");
    }
    json_t *list = json_array();
    for (uint32_t i = r->count; i > 0; i--) {
        const struct move *v = r->moves[i - 1];
        char text[LANES_TEXT_BYTES] = "lane=", to[LIMIT_NAME_BYTES + 8];
        size_t n = strlen(text);
        if (v->side != MOVE_GIVER || !v->drain)
            continue;
        for (uint32_t k = 0; k < v->count && n + IP_TEXT + 2 < sizeof text; k++) {
            const struct lane_record *rec = lane_by_address(o->m, &v->lanes[k]->address);
            char address[IP_TEXT];
            if (rec == NULL || strcmp(rec->owner, v->taker) != 0)
                continue;
            ip_format(&rec->address, address);
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n > 5 ? "," : "", address);
        }
        snprintf(to, sizeof to, "to=%s", us);
        char *args[] = {text, to};
        struct cluster_verb verb = {.name = "move", .args = args, .arg_count = 2};
        if (n > 5 && cluster_ask(o->m, v->taker, &verb, on_undrain, NULL) == 0)
            (void)json_array_append_new(
                list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", "", "pool", v->pool, "from",
                                v->taker, "to", us, "state", "preparing"));
    }
    o->status = 200;
    return json_pack("{s:o, s:b}", "moves", list, "dry_run", 0);
}

static const struct {
    const char *name;
    json_t *(*handle)(struct order *o);
    bool changes;
} verbs[] = {
    {"move", move, true},
    {"move_abort", move_abort, true},
    {"moves", moves, false},
    {"node_drain", node_drain, true},
    {"node_undrain", node_undrain, true},
};

bool moves_has_verb(const char *verb)
{
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, verb) == 0)
            return true;
    }
    return false;
}

json_t *moves_answer(struct master *m, const struct control_frame *f, int *status,
                     char forward[LIMIT_NAME_BYTES + 1])
{
    struct order o = {.m = m, .f = f, .status = 500};
    json_t *answer = NULL;
    if (forward != NULL)
        forward[0] = '\0';
    if (config_of(m)->cluster.name[0] == '\0') {
        *status = 409;
        return json_pack("{s:s}", "error", "this node is in no cluster: cluster.name is not set");
    }
    o.lanes = calloc(LIMIT_LANES, sizeof *o.lanes);
    for (size_t i = 0; o.lanes != NULL && i < ARRAY_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, f->verb) == 0)
            answer = verbs[i].handle(&o);
    }
    free(o.lanes);
    *status = o.status;
    if (forward != NULL)
        memcpy(forward, o.forward, sizeof o.forward);
    return answer;
}

/* --- to and from the api --- */

/* Ids of what was begun, or why nothing was. */
static void put_result(const json_t *answer, int status, char *out, size_t cap)
{
    struct text t = text_of(out, cap);
    const json_t *one = json_object_get(answer, "move"), *list = json_object_get(answer, "moves");
    const char *error = json_string_value(json_object_get(answer, "error"));
    size_t i;
    const json_t *move;
    if (status != 200) {
        text_fmt(&t, "refused: %s", error != NULL ? error : "no memory");
        return;
    }
    text_puts(&t, "taken");
    if (one != NULL)
        text_fmt(&t, " %s", json_string_value(json_object_get(one, "id")));
    json_array_foreach(list, i, move)
    {
        const char *id = json_string_value(json_object_get(move, "id"));
        if (id != NULL && id[0] != '\0')
            text_fmt(&t, " %s", id);
    }
}

static void audit(struct master *m, const char *who, const struct control_frame *f,
                  const json_t *answer, int status)
{
    char what[VERBS_WHAT_BYTES], result[256];
    const struct verb *v = verb_find(f->verb);
    if (v == NULL || !v->changes || flag(f, "dry_run"))
        return;
    verbs_describe(f, what, sizeof what);
    put_result(answer, status, result, sizeof result);
    verbs_audit(m, who, what, result);
}

json_t *moves_asked(struct master *m, const char *who, const struct control_frame *f, int *status)
{
    json_t *answer = moves_answer(m, f, status, NULL);
    audit(m, who, f, answer, *status);
    return answer;
}

void moves_verb(struct master *m, const struct control_frame *f)
{
    char node[LIMIT_NAME_BYTES + 1];
    int status;
    json_t *answer = moves_answer(m, f, &status, node);
    if (node[0] != '\0') {
        json_decref(answer);
        forward_order(m, node, f);
        return;
    }
    audit(m, "api", f, answer, status);
    verbs_answer(m, f->id, status, answer);
}
