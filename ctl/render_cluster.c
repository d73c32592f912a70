/* render_cluster - the cluster's nodes, lanes, moves and common ledger; see render.h. */
#include "ctl/grid.h"
#include "ctl/move_view.h"
#include "ctl/render.h"

enum { LANES_ALL_MAX = 24 }; /* more lanes than this are told pool by pool, unless asked for */

static const struct grid_column node_columns[] = {
    {"NODE", "node", GRID_TEXT, GRID_FIXED},
    {"", "here", GRID_TEXT, GRID_OPTIONAL},
    {"LINK", "link", GRID_TEXT, GRID_FIXED},
    {"FOR", "since_s", GRID_SECONDS, GRID_FIXED},
    {"HEALTH", "health", GRID_TEXT, GRID_FLEX},
    {"LANES", "lanes", GRID_COUNT, GRID_FIXED},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"DELIVER/S", "delivered_per_s", GRID_RATE, GRID_FIXED},
    {"DISK FREE", "disk_free_bytes", GRID_BYTES, GRID_FIXED},
    {"VERSION", "version", GRID_TEXT, GRID_FIXED},
    {"ADDRESS", "address", GRID_TEXT, GRID_OPTIONAL},
    {"WHY", "why", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};
static const struct grid_column lane_columns[] = {
    {"LANE", "lane", GRID_TEXT, GRID_FIXED},
    {"POOL", "pool", GRID_TEXT, GRID_FLEX},
    {"OWNER", "owner", GRID_TEXT, GRID_FIXED},
    {"EPOCH", "epoch", GRID_INDEX, GRID_FIXED},
    {"ROLE HERE", "role", GRID_TEXT, 0},
    {"RUNS", "run", GRID_TEXT, GRID_FIXED},
    {"QUEUED", "queued", GRID_COUNT, 0},
    {"MOVE", "move", GRID_TEXT, GRID_OPTIONAL},
    {"WHY", "why", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};
static const struct grid_column pool_columns[] = {{"POOL", "pool", GRID_TEXT, GRID_FLEX},
                                                  {"OWNER", "owner", GRID_TEXT, GRID_FIXED},
                                                  {"LANES", "lanes", GRID_COUNT, GRID_FIXED},
                                                  {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
                                                  {"MOVING", "moving", GRID_COUNT, GRID_FIXED}};

static void put_nodes(const struct view *v, const json_t *answer)
{
    json_t *rows = json_array();
    size_t i;
    const json_t *node;
    json_array_foreach(json_object_get(answer, "nodes"), i, node)
    {
        if (!json_is_object(node))
            continue;
        bool self = json_is_true(json_object_get(node, "self"));
        bool up = json_is_true(json_object_get(node, "up"));
        json_t *row = json_copy((json_t *)(uintptr_t)node);
        (void)json_object_set_new(row, "here", json_string(self ? "*" : ""));
        (void)json_object_set_new(row, "link", json_string(self ? "-" : up ? "up" : "DOWN"));
        (void)json_array_append_new(rows, row);
    }
    (void)grid_print(v, node_columns, ARRAY_COUNT(node_columns), rows);
    json_decref(rows);
}

/* The group of (pool, owner), made when it is not there yet. Groups are few. */
static json_t *group_of(json_t *groups, const char *pool, const char *owner)
{
    size_t i;
    json_t *g;
    json_array_foreach(groups, i, g)
    {
        if (strcmp(json_word(g, "pool", ""), pool) == 0 &&
            strcmp(json_word(g, "owner", ""), owner) == 0)
            return g;
    }
    g = json_pack("{s:s, s:s}", "pool", pool, "owner", owner);
    (void)json_array_append_new(groups, g);
    return g;
}

static void add_to(json_t *group, const char *field, double n)
{
    (void)json_object_set_new(group, field, json_real(json_number(group, field, 0) + n));
}

static void put_pools(const struct view *v, const json_t *lanes)
{
    json_t *groups = json_array();
    size_t i;
    const json_t *lane;
    json_array_foreach(lanes, i, lane)
    {
        json_t *g = group_of(groups, json_word(lane, "pool", ""), json_word(lane, "owner", "?"));
        add_to(g, "lanes", 1);
        add_to(g, "queued", json_number(lane, "queued", 0));
        add_to(g, "moving", json_word(lane, "move", "")[0] != '\0');
    }
    (void)grid_print(v, pool_columns, ARRAY_COUNT(pool_columns), groups);
    json_decref(groups);
}

static void warn_of_nodes(const struct view *v, const json_t *nodes)
{
    size_t i;
    const json_t *node;
    json_array_foreach(nodes, i, node)
    {
        char number[VIEW_NUMBER_BYTES];
        if (json_is_true(json_object_get(node, "up")) ||
            json_is_true(json_object_get(node, "self")))
            continue;
        view_colour(v, COLOUR_YELLOW);
        view_fmt(v, "node ");
        view_put(v, json_word(node, "node", "?"));
        view_fmt(v, " cannot be reached");
        if (json_number(node, "since_s", 0) > 0)
            view_fmt(v, " for %s", unit_seconds(json_number(node, "since_s", 0), number));
        view_fmt(v, ": its lanes stay with it, and mail for them waits here\n");
        view_colour(v, COLOUR_NONE);
    }
}

int render_cluster(struct cli *c, const json_t *answer)
{
    const struct view *v = &c->view;
    const json_t *lanes = json_object_get(answer, "lanes");
    const char *name = json_word(answer, "cluster", "");
    bool all = cli_given(c, "lanes") != NULL || json_array_size(lanes) <= LANES_ALL_MAX;

    if (name[0] == '\0') {
        view_fmt(v, "this node is in no cluster: `cluster.name` is not in its configuration\n");
        return CLI_OK;
    }
    view_fmt(v, "cluster ");
    view_colour(v, COLOUR_BOLD);
    view_put(v, name);
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "   seen from ");
    view_put(v, json_word(answer, "node", "?"));
    view_fmt(v, "\n\n");
    put_nodes(v, answer);
    if (json_array_size(lanes) > 0)
        view_fmt(v, "\n");
    if (all)
        (void)grid_print(v, lane_columns, ARRAY_COUNT(lane_columns), lanes);
    else
        put_pools(v, lanes);
    warn_of_nodes(v, json_object_get(answer, "nodes"));
    return CLI_OK;
}

static const struct grid_column move_columns[] = {
    {"ID", "id", GRID_TEXT, GRID_FIXED},
    {"POOL", "pool", GRID_TEXT, GRID_FLEX},
    {"FROM", "from", GRID_TEXT, GRID_FIXED},
    {"TO", "to", GRID_TEXT, GRID_FIXED},
    {"STATE", "state", GRID_TEXT, GRID_FIXED},
    {"LANES", "lane_count", GRID_TEXT, GRID_FIXED},
    {"MESSAGES", "messages_sent", GRID_COUNT, GRID_FIXED},
    {"BYTES", "bytes_sent", GRID_BYTES, GRID_FIXED},
    {"STARTED", "started", GRID_TIME, GRID_FIXED},
    {"TAILS", "tails", GRID_COUNT, GRID_OPTIONAL},
    {"OWED", "owed", GRID_COUNT, GRID_OPTIONAL},
    {"IN DOUBT", "in_doubt", GRID_COUNT, GRID_OPTIONAL},
    {"REASON", "reason", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};

static void put_move_list(const struct view *v, const json_t *moves)
{
    json_t *rows = json_array();
    size_t i;
    const json_t *move;
    json_array_foreach(moves, i, move)
    {
        char count[64];
        if (!json_is_object(move))
            continue;
        json_t *row = json_copy((json_t *)(uintptr_t)move);
        (void)snprintf(count, sizeof count, "%.0f/%.0f", json_number(move, "lanes_done", 0),
                       json_number(move, "lanes_total", 0));
        (void)json_object_set_new(row, "lane_count", json_string(count));
        (void)json_array_append_new(rows, row);
    }
    (void)grid_print(v, move_columns, ARRAY_COUNT(move_columns), rows);
    json_decref(rows);
}

/* All of them as rows; the one that was asked for in full. */
int render_moves(struct cli *c, const json_t *answer)
{
    const json_t *moves = json_object_get(answer, "moves");
    const json_t *move = json_array_get(moves, 0);
    if (c->word_count == 0) {
        if (json_array_size(moves) == 0)
            view_fmt(&c->view, "no lane has been moved yet\n");
        put_move_list(&c->view, moves);
        return CLI_OK;
    }
    if (move == NULL) {
        view_fmt(&c->view, "there is no move ");
        view_put(&c->view, c->words[0]);
        view_fmt(&c->view, "\n");
        return CLI_NOT_FOUND;
    }
    if (!move_view_over(move)) {
        move_view_block(&c->view, move, c->view.width > 0 ? MOVE_VIEW_LANES : UINT32_MAX);
        return CLI_OK;
    }
    move_view_report(&c->view, move);
    return move_view_good(move) ? CLI_OK : CLI_ERROR;
}

int render_abort(struct cli *c, const json_t *answer)
{
    const json_t *move = json_object_get(answer, "move");
    const char *id = json_word(move, "id", c->words[0] != NULL ? c->words[0] : "?");
    if (!json_is_object(move))
        return render_done(c, answer);
    view_fmt(&c->view, "move ");
    view_put(&c->view, id);
    view_fmt(&c->view, " ends: %.0f of %.0f lanes are over and stay, the others go on at ",
             json_number(move, "lanes_done", 0), json_number(move, "lanes_total", 0));
    view_put(&c->view, json_word(move, "from", "?"));
    view_fmt(&c->view, "; see mochila move status ");
    view_put(&c->view, id);
    view_fmt(&c->view, "\n");
    return CLI_OK;
}

static const struct grid_column ledger_columns[] = {
    {"NODE", "node", GRID_TEXT, GRID_FIXED},
    {"ACCEPTED", "accepted", GRID_COUNT, GRID_FIXED},
    {"TAKEN OVER", "taken_over", GRID_COUNT, GRID_FIXED},
    {"DELIVERED", "delivered", GRID_COUNT, GRID_FIXED},
    {"BOUNCED", "bounced", GRID_COUNT, GRID_FIXED},
    {"EXPIRED", "expired", GRID_COUNT, GRID_FIXED},
    {"DELETED", "deleted", GRID_COUNT, GRID_FIXED},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"HANDED OVER", "handed_over", GRID_COUNT, GRID_FIXED},
    {"", "error", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};

/*
 * What entered the cluster, less what ended or is queued; what one node gave and the other has not
 * counted yet is in transit. Summed from the nodes' rows: the node's own sum is a second opinion.
 */
static double sum_of(const json_t *nodes, const char *field)
{
    double sum = 0;
    size_t i;
    const json_t *node;
    json_array_foreach(nodes, i, node)
    {
        sum += json_number(node, field, 0);
    }
    return sum;
}

static bool differ(double a, double b)
{
    return a > b || a < b;
}

/* Nodes, or workers of theirs, that gave no figures: true if there are any. */
static bool put_silent(const struct view *v, const json_t *nodes)
{
    bool silent = false;
    size_t i;
    const json_t *node;
    json_array_foreach(nodes, i, node)
    {
        bool whole = json_number(node, "accepted", -1) >= 0;
        size_t missing = json_array_size(json_object_get(node, "missing"));
        if (whole && missing == 0)
            continue;
        silent = true;
        if (whole)
            view_fmt(v, "no figures from %zu workers of node ", missing);
        else
            view_fmt(v, "no figures from node ");
        view_put(v, json_word(node, "node", "?"));
        view_fmt(v, ": there is no sum without them\n");
    }
    return silent;
}

int render_cluster_ledger(struct cli *c, const json_t *answer)
{
    static const char *const ends[] = {"delivered", "bounced", "expired", "deleted", "queued"};
    const struct view *v = &c->view;
    const json_t *nodes = json_object_get(answer, "nodes");
    char number[VIEW_NUMBER_BYTES];
    double taken = sum_of(nodes, "taken_over");
    double have = sum_of(nodes, "accepted") - taken;
    double transit = sum_of(nodes, "handed_over") - taken;
    double sum = transit;

    (void)grid_print(v, ledger_columns, ARRAY_COUNT(ledger_columns), nodes);
    if (put_silent(v, nodes))
        return CLI_ERROR; /* what is missing cannot be told from what was lost */
    view_fmt(v, "accepted by the cluster %s", unit_count(have, number));
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        double n = sum_of(nodes, ends[i]);
        sum += n;
        view_fmt(v, "%s%s %s", i == 0 ? " = " : " + ", ends[i], unit_count(n, number));
    }
    view_fmt(v, " + in transit %s%s\n", unit_count(transit, number),
             transit < 0 ? " (taken over, and its giver has yet to hear of it)" : "");
    bool says_so = !json_is_false(json_object_get(answer, "balanced"));
    bool balances = says_so && !differ(have, sum) && json_array_size(nodes) > 0;
    view_colour(v, balances ? COLOUR_GREEN : COLOUR_RED);
    if (balances)
        view_fmt(v, "balanced\n");
    else
        view_fmt(v, "NOT balanced: %s recipients are %s\n",
                 unit_count(have > sum ? have - sum : sum - have, number),
                 have > sum ? "unaccounted for" : "too many");
    view_colour(v, COLOUR_NONE);
    return balances ? CLI_OK : CLI_ERROR;
}
