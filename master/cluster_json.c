/* cluster_json - the cluster as this node sees it, and its ledger, for the api; see cluster.h. */
#include "master/cluster_impl.h"

#include "master/proc.h"
#include "master/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static json_t *node_json(const struct master *m, const struct cluster_node *n, uint32_t lanes)
{
    const struct cluster_status *s = &n->status;
    uint64_t since = n->up && m->now_ms >= n->up_since_ms ? (m->now_ms - n->up_since_ms) / 1000 : 0;
    json_t *o = json_pack("{s:s, s:b, s:b, s:s, s:I, s:i, s:I, s:I, s:f, s:s, s:s}", "node",
                          n->name, "self", n->self, "up", n->up, "version", s->version, "since_s",
                          (json_int_t)since, "lanes", (int)lanes, "queued", (json_int_t)s->queued,
                          "disk_free_bytes", (json_int_t)s->disk_free, "delivered_per_s",
                          (double)s->delivered_milli / 1000.0, "health",
                          n->up        ? s->health
                          : n->refused ? "refused"
                                       : "down",
                          "address", n->endpoint);
    if (o != NULL && n->why[0] != '\0')
        (void)json_object_set_new(o, "why", json_string(n->why));
    return o;
}

/* Lanes that the node says are its own. */
static uint32_t owned_by(const struct master *m, const struct cluster_node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        const struct lane_record *r = m->lanes.records[i];
        count += r->configured && strcmp(r->owner, n->name) == 0;
    }
    return count;
}

/* As people name it: the node that gives, and its count. */
static void put_move(const struct master *m, uint64_t number, char *out, size_t cap)
{
    const struct cluster_node *n;
    uint16_t id = (uint16_t)(number >> 48);
    uint64_t count = number & ((1ull << 48) - 1);
    for (uint32_t i = 0; (n = cluster_at(m, i)) != NULL; i++) {
        uint32_t of = n->self ? m->current->source->config->node_id : n->status.node_id;
        if (of == id) {
            snprintf(out, cap, "%s-%llu", n->name, (unsigned long long)count);
            return;
        }
    }
    snprintf(out, cap, "%u-%llu", id, (unsigned long long)count);
}

static json_t *lane_json(const struct master *m, const struct lane_record *r)
{
    char address[IP_TEXT], move[LIMIT_NAME_BYTES + 24] = "";
    /* Its owner knows best what is queued for it, and whether it runs. */
    const struct cluster_lane *told =
        lane_is_ours(r) ? NULL : cluster_lane_at(m, r->owner, &r->address);
    bool run = told != NULL ? told->run : r->run;
    uint64_t queued = told != NULL ? told->queued : lane_is_ours(r) ? r->queued : 0;
    uint64_t number = told != NULL && r->move == 0 ? told->move : r->move;
    ip_format(&r->address, address);
    if (number != 0)
        put_move(m, number, move, sizeof move);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:I, s:s}", "lane", address, "pool", r->pool,
                  "owner", r->owner, "epoch", (json_int_t)r->epoch, "role", lane_role_word(r->role),
                  "run", run, "queued", (json_int_t)queued, "move", move);
    if (o != NULL && r->why[0] != '\0' && r->role == LANE_OWNER)
        (void)json_object_set_new(o, "why", json_string(r->why));
    return o;
}

json_t *cluster_json(struct master *m)
{
    json_t *nodes = json_array(), *lanes = json_array();
    const struct cluster_node *n;
    cluster_status_refresh(m);
    for (uint32_t i = 0; (n = cluster_at(m, i)) != NULL; i++)
        (void)json_array_append_new(nodes, node_json(m, n, owned_by(m, n)));
    for (uint32_t i = 0; i < m->lanes.count; i++) {
        if (m->lanes.records[i]->configured)
            (void)json_array_append_new(lanes, lane_json(m, m->lanes.records[i]));
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "cluster", m->current->source->config->cluster.name,
                     "node", m->cluster->self.name, "nodes", nodes, "lanes", lanes);
}

/* --- the ledger of all nodes --- */

struct books {
    uint64_t id, api_incarnation; /* who asked */
    uint32_t owed;
    bool whole;
    json_t *nodes, *sum;
};
struct page {
    struct books *books;
    char node[LIMIT_NAME_BYTES + 1];
};
static const char *const columns[] = {"accepted",    "delivered",  "bounced",
                                      "expired",     "deleted",    "queued",
                                      "handed_over", "taken_over", "bounce_due"};

static json_int_t column(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

/*
 * What one node handed over and another took over counts once: the difference is under way between
 * them, and belongs to those that were accepted and have no fate yet.
 */
static void close_books(struct master *m, struct books *b)
{
    json_t *s = b->sum;
    json_int_t in_transit = column(s, "handed_over") - column(s, "taken_over");
    json_int_t fates =
        column(s, "delivered") + column(s, "bounced") + column(s, "expired") + column(s, "deleted");
    json_int_t left =
        column(s, "accepted") - column(s, "taken_over") - fates - column(s, "queued") - in_transit;
    (void)json_object_set_new(s, "in_transit", json_integer(in_transit));
    (void)json_object_set_new(s, "balance", json_integer(left));
    json_t *all = json_pack("{s:o, s:o, s:b, s:b}", "nodes", b->nodes, "sum", s, "complete",
                            b->whole, "balanced", b->whole && left == 0);
    if (m->api->incarnation == b->api_incarnation)
        verbs_answer(m, b->id, 200, all);
    else
        json_decref(all);
    free(b);
}

static void on_page(struct master *m, void *ctx, int status, struct span body)
{
    struct page *page = ctx;
    struct books *b = page->books;
    json_t *got = status < 300 ? json_loadb((const char *)body.p, body.n, 0, NULL) : NULL;
    json_t *row = json_pack("{s:s, s:b}", "node", page->node, "answered", status == 200);
    for (size_t i = 0; json_is_object(got) && i < ARRAY_COUNT(columns); i++) {
        json_int_t before = column(b->sum, columns[i]), n = column(got, columns[i]);
        (void)json_object_set_new(row, columns[i], json_integer(n));
        (void)json_object_set_new(b->sum, columns[i], json_integer(before + n));
    }
    /* A worker that does not answer now has a part of the books. */
    bool all = json_array_size(json_object_get(got, "missing")) == 0;
    b->whole = b->whole && status == 200 && json_is_object(got) && all;
    if (!all)
        (void)json_object_set_new(row, "missing", json_incref(json_object_get(got, "missing")));
    (void)json_array_append_new(b->nodes, row);
    json_decref(got);
    free(page);
    if (--b->owed == 0)
        close_books(m, b);
}

static void ask_page(struct master *m, struct books *b, const char *node)
{
    const struct cluster_verb ledger = {.name = "ledger"};
    struct page *page = calloc(1, sizeof *page);
    b->whole = b->whole && page != NULL;
    if (page == NULL)
        return;
    page->books = b;
    snprintf(page->node, sizeof page->node, "%s", node);
    b->owed++;
    if (cluster_ask(m, node, &ledger, on_page, page) < 0)
        on_page(m, page, 503, span_of(NULL, 0));
}

void cluster_ledger(struct master *m, uint64_t id)
{
    struct books *b = calloc(1, sizeof *b);
    const struct cluster_node *n;
    if (b == NULL) {
        proc_answer_error(m->api, id, 503, "no memory");
        return;
    }
    *b = (struct books){.id = id,
                        .api_incarnation = m->api->incarnation,
                        .owed = 1, /* ours, until all are asked */
                        .whole = true,
                        .nodes = json_array(),
                        .sum = json_object()};
    for (uint32_t i = 0; (n = cluster_at(m, i)) != NULL; i++)
        ask_page(m, b, n->name);
    if (--b->owed == 0)
        close_books(m, b);
}
