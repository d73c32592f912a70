/* move_view - see move_view.h. */
#include "ctl/move_view.h"

#include "base/span.h"
#include "ctl/grid.h"

#include <time.h>

enum {
    REASONS_MAX = 8, /* different reasons of lanes that a report tells apart */
    STEP_COPY = 3,   /* from this step on a lane is copied, not only planned */
};

/* The first row whose word is in the reason counts: narrow ones stand above wide ones. */
static const struct {
    const char *word;
    const char *text;
} advice[] = {
    {"nf_tables", "load the kernel's modules nf_tables and nft_fwd_netdev on the target"},
    {"here already", "nothing, it is on the target"},
    {"over already", "nothing; `mochila move status ID` tells how it ended"},
    {"cannot be asked", "the nodes do not see each other: `mochila cluster status` on both, and "
                        "mochila.log"},
    {"last move is not over", "wait until the earlier move is over: `mochila move status`"},
    {"open connections", "deliveries of an earlier move are still open at the old node: `mochila "
                         "move status` counts them; try again when there are none"},
    {"not over there", "wait until the earlier move is over on both nodes: `mochila move status`"},
    {"catch up", "copy faster (--rate, `cluster.move_rate`), or move when less mail comes in"},
    {"tail", "deliveries of an earlier move are still open at the old node: `mochila move status` "
             "counts them; try again when there are none"},
    {"in use by", "another host answers for this address: find it (arping -D), take the address "
                  "away there, and try again"},
    {"and is not ours",
     "take the address off the interface there (ip addr del): mochila puts it there "
     "itself"},
    {"state.db", "make room on the disk of that node; its mochila.log has the error"},
    {"disk", "make room on the target's spool, or move fewer lanes"},
    {"room", "make room on the target's spool, or move fewer lanes"},
    {"capacity", "move fewer lanes, or choose another target: `mochila cluster status`"},
    {"version", "update the older of the two nodes: `mochila cluster status` shows the versions"},
    {"protocol", "update the older of the two nodes: `mochila cluster status` shows the versions"},
    {"releases", "update the older of the two nodes: `mochila cluster status` shows the versions"},
    {"pool there", "all nodes have the same pools and lanes: compare mochila.yaml of both"},
    {"configured", "all nodes have the same pools and lanes: add it to mochila.yaml of the node "
                   "that lacks it, and `mochila reload` there"},
    {"interface", "the target cannot carry the address: look at `cluster.interface` and `nic` of "
                  "the lane in mochila.yaml there"},
    {"hook", "run the hook by hand on the target; what it printed is in mochila.log there"},
    {"driver", "the target cannot carry the address: look at `cluster.driver` in mochila.yaml "
               "there"},
    {"netd", "look at mochila-netd in `mochila status` and in mochila.log of that node"},
    {"not ready in time", "mail went on at the old node; order the move again when disk and link "
                          "have less to do"},
    {"too many moves", "wait until some are over: `mochila move status`"},
    {"already", "wait for the other move, or end it with `mochila move abort ID`; `mochila move "
                "status` lists the moves"},
    {"another move", "wait for it, or end it with `mochila move abort ID`; `mochila move status` "
                     "lists the moves"},
    {"changed meanwhile", "look at `mochila cluster status`, and order it again if that is still "
                          "what you want"},
    {"any more", "order the move where the lanes are: `mochila cluster status` shows their owners"},
    {"owner", "order the move where the lanes are: `mochila cluster status` shows their owners"},
    {"owns", "order the move where the lanes are: `mochila cluster status` shows their owners"},
    {"started anew", "order the move again: what was copied is still there"},
    {"reach", "the nodes do not see each other: `mochila cluster status` on both, and mochila.log"},
    {"not answer", "the nodes do not see each other: `mochila cluster status` on both, and "
                   "mochila.log"},
    {"is down", "the nodes do not see each other: `mochila cluster status` on both, and "
                "mochila.log"},
    {"connect", "the nodes do not see each other: `mochila cluster status` on both, and "
                "mochila.log"},
};

static bool contains(const char *text, const char *word)
{
    struct span w = span_str(word);
    for (struct span s = span_str(text); s.n >= w.n; s = span_skip(s, 1)) {
        if (span_ihas_prefix(s, w))
            return true;
    }
    return false;
}

const char *move_view_advice(const char *reason)
{
    for (size_t i = 0; i < ARRAY_COUNT(advice); i++) {
        if (contains(reason, advice[i].word))
            return advice[i].text;
    }
    return NULL;
}

static const char *state_of(const json_t *move)
{
    return json_word(move, "state", "?");
}

static bool is_under_way(const char *state)
{
    return strcmp(state, "preparing") == 0 || strcmp(state, "copying") == 0 ||
           strcmp(state, "moving") == 0;
}

/* "over" is a lane's own word. A state that this command does not know counts as under way: a newer
 * node may have more. */
bool move_view_over(const json_t *move)
{
    static const char *const ends[] = {"done", "aborted", "refused", "failed", "over"};
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        if (strcmp(state_of(move), ends[i]) == 0)
            return true;
    }
    return false;
}

bool move_view_across(const json_t *move)
{
    double total = json_number(move, "lanes_total", 0);
    return !move_view_over(move) && total > 0 && json_number(move, "lanes_done", 0) >= total;
}

bool move_view_good(const json_t *move)
{
    return strcmp(state_of(move), "done") == 0 &&
           json_number(move, "lanes_done", 0) >= json_number(move, "lanes_total", 0);
}

/* "pool x" or, when one lane moves alone, "lane 192.0.2.1 of pool x". */
static void put_subject(const struct view *v, const json_t *move)
{
    const json_t *lanes = json_object_get(move, "lanes");
    const char *pool = json_word(move, "pool", "");
    const char *lane = json_word(json_array_get(lanes, 0), "lane", "");
    bool alone = json_array_size(lanes) == 1 && lane[0] != '\0';
    if (alone) {
        view_fmt(v, "lane ");
        view_put(v, lane);
    }
    if (pool[0] != '\0') {
        view_fmt(v, "%spool ", alone ? " of " : "");
        view_put(v, pool);
    } else if (!alone) {
        view_fmt(v, "lanes");
    }
}

static double duration_of(const json_t *move)
{
    double from = json_number(move, "started", 0);
    double to = json_number(move, "ended", 0);
    if (!(to > 0))
        to = (double)time(NULL);
    return from > 0 && to > from ? to - from : 0;
}

static void put_volume(const struct view *v, const json_t *move)
{
    char sent[VIEW_NUMBER_BYTES], total[VIEW_NUMBER_BYTES];
    view_fmt(v, "%s of %s", unit_bytes(json_number(move, "bytes_sent", 0), sent),
             unit_bytes(json_number(move, "bytes_total", 0), total));
}

static void put_messages(const struct view *v, const json_t *move)
{
    char sent[VIEW_NUMBER_BYTES], total[VIEW_NUMBER_BYTES];
    view_fmt(v, "%s of %s messages", unit_count(json_number(move, "messages_sent", 0), sent),
             unit_count(json_number(move, "messages_total", 0), total));
}

static void put_speed(const struct view *v, const json_t *move)
{
    char number[VIEW_NUMBER_BYTES];
    double rate = json_number(move, "rate_bytes_per_s", 0);
    double eta = json_number(move, "eta_s", -1);
    if (rate > 0)
        view_fmt(v, "  %s/s", unit_bytes(rate, number));
    if (eta > 0)
        view_fmt(v, "  ETA %s", unit_seconds(eta, number));
}

static bool has_pause(const json_t *move)
{
    return json_number(json_object_get(move, "pause_us"), "max", 0) > 0;
}

static void put_pause(const struct view *v, const json_t *move)
{
    const json_t *pause = json_object_get(move, "pause_us");
    char p50[VIEW_NUMBER_BYTES], p99[VIEW_NUMBER_BYTES], most[VIEW_NUMBER_BYTES];
    view_fmt(v, "p50 %s, p99 %s, max %s", unit_us(json_number(pause, "p50", 0), p50),
             unit_us(json_number(pause, "p99", 0), p99),
             unit_us(json_number(pause, "max", 0), most));
}

static void put_lane_count(const struct view *v, const json_t *move)
{
    view_fmt(v, "lanes %.0f/%.0f", json_number(move, "lanes_done", 0),
             json_number(move, "lanes_total", 0));
}

/* A move that another node was asked for has no id until it begins. */
static void put_asked(const struct view *v, const json_t *move)
{
    put_subject(v, move);
    view_fmt(v, "  ");
    view_put(v, json_word(move, "from", "?"));
    view_fmt(v, " is asked to begin\n");
}

void move_view_line(const struct view *v, const json_t *move)
{
    char number[VIEW_NUMBER_BYTES];
    const char *when = unit_date((double)time(NULL), number);
    const char *clock = strchr(when, ' ');
    view_fmt(v, "%s  ", clock != NULL ? clock + 1 : when);
    if (json_word(move, "id", "")[0] == '\0') {
        put_asked(v, move);
        return;
    }
    view_put(v, json_word(move, "id", "?"));
    view_fmt(v, "  ");
    view_put(v, state_of(move));
    view_fmt(v, "  ");
    put_lane_count(v, move);
    view_fmt(v, "  ");
    put_volume(v, move);
    view_fmt(v, "  ");
    put_messages(v, move);
    put_speed(v, move);
    if (has_pause(move))
        view_fmt(v, "  pause max %s",
                 unit_us(json_number(json_object_get(move, "pause_us"), "max", 0), number));
    view_fmt(v, "\n");
}

/* "3 copying, 12 done": most frequent states are few; {"state": count} keeps their order. */
static json_t *count_states(const json_t *lanes)
{
    json_t *counts = json_object();
    size_t i;
    const json_t *lane;
    json_array_foreach(lanes, i, lane)
    {
        const char *state = state_of(lane);
        double n = json_number(counts, state, 0);
        (void)json_object_set_new(counts, state, json_real(n + 1));
    }
    return counts;
}

static void put_states(const struct view *v, const json_t *move)
{
    json_t *counts = count_states(json_object_get(move, "lanes"));
    const char *state;
    json_t *n;
    bool first = true;
    json_object_foreach(counts, state, n)
    {
        view_fmt(v, "%s%.0f ", first ? "   " : ", ", json_number_value(n));
        view_put(v, state);
        first = false;
    }
    json_decref(counts);
}

static const struct grid_column lane_columns[] = {
    {"LANE", "lane", GRID_TEXT, GRID_FIXED},
    {"STATE", "state", GRID_TEXT, GRID_FIXED},
    {"STEP", "step", GRID_COUNT, GRID_FIXED},
    {"MESSAGES LEFT", "messages_left", GRID_COUNT, GRID_FIXED},
    {"BYTES LEFT", "bytes_left", GRID_BYTES, GRID_FIXED},
    {"PAUSE", "pause", GRID_TEXT, GRID_OPTIONAL},
    {"TAILS", "tails", GRID_COUNT, GRID_OPTIONAL},
    {"REASON", "reason", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};

static void add_lane(json_t *shown, const json_t *lane)
{
    char pause[VIEW_NUMBER_BYTES] = "";
    json_t *row = json_copy((json_t *)(uintptr_t)lane);
    if (json_number(lane, "pause_us", 0) > 0)
        (void)unit_us(json_number(lane, "pause_us", 0), pause);
    (void)json_object_set_new(row, "pause", json_string(pause));
    (void)json_array_append_new(shown, row);
}

/*
 * Lanes that are under way, or all that are not over once the move is: at most `rows` of them, and
 * those that were begun before those that wait for their turn.
 */
static void put_lanes(const struct view *v, const json_t *move, unsigned rows)
{
    json_t *shown = json_array();
    size_t more = 0;
    for (int begun = 1; begun >= 0; begun--) {
        size_t i;
        const json_t *lane;
        json_array_foreach(json_object_get(move, "lanes"), i, lane)
        {
            bool first = json_number(lane, "step", 0) >= STEP_COPY;
            if (!json_is_object(lane) || move_view_over(lane) || first != (begun == 1))
                continue;
            if (json_array_size(shown) < rows)
                add_lane(shown, lane);
            else
                more++;
        }
    }
    (void)grid_print(v, lane_columns, ARRAY_COUNT(lane_columns), shown);
    if (more > 0)
        view_fmt(v, "... and %zu more\n", more);
    json_decref(shown);
}

static void put_title(const struct view *v, const json_t *move)
{
    char number[VIEW_NUMBER_BYTES];
    const char *state = state_of(move);
    bool bad = move_view_over(move) && !move_view_good(move);
    if (json_word(move, "id", "")[0] == '\0') {
        put_asked(v, move);
        return;
    }
    view_fmt(v, "move ");
    view_colour(v, COLOUR_BOLD);
    view_put(v, json_word(move, "id", "?"));
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "   ");
    put_subject(v, move);
    view_fmt(v, "   ");
    view_put(v, json_word(move, "from", "?"));
    view_fmt(v, " -> ");
    view_put(v, json_word(move, "to", "?"));
    view_fmt(v, "   ");
    view_colour(v, bad ? COLOUR_RED : is_under_way(state) ? COLOUR_YELLOW : COLOUR_GREEN);
    view_put(v, state);
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "   %s\n", unit_seconds(duration_of(move), number));
}

void move_view_block(const struct view *v, const json_t *move, unsigned lane_rows)
{
    put_title(v, move);
    if (json_word(move, "id", "")[0] == '\0')
        return;
    view_fmt(v, "  ");
    put_lane_count(v, move);
    put_states(v, move);
    view_fmt(v, "\n  copied ");
    put_volume(v, move);
    view_fmt(v, "  ");
    put_messages(v, move);
    put_speed(v, move);
    view_fmt(v, "\n  pause ");
    if (has_pause(move))
        put_pause(v, move);
    else
        view_fmt(v, "-");
    view_fmt(v, "   tails %.0f   owed %.0f   in doubt %.0f\n", json_number(move, "tails", 0),
             json_number(move, "owed", 0), json_number(move, "in_doubt", 0));
    if (json_word(move, "reason", "")[0] != '\0') {
        view_fmt(v, "  ");
        view_put(v, json_word(move, "reason", ""));
        view_fmt(v, "\n");
    }
    if (lane_rows > 0)
        put_lanes(v, move, lane_rows);
}

static void put_reason(const struct view *v, const char *reason)
{
    const char *what = move_view_advice(reason);
    view_put(v, reason);
    view_fmt(v, "\n");
    if (what != NULL)
        view_fmt(v, "    what to do: %s\n", what);
}

/* Lanes that did not get over, one line for each different reason. */
static void put_refusals(const struct view *v, const json_t *move)
{
    json_t *first = json_object(); /* {reason: its first lane} */
    json_t *counts = json_object();
    const char *own = json_word(move, "reason", "");
    size_t i, shown = 0;
    const json_t *lane;
    const char *reason;
    json_t *name;

    if (own[0] != '\0') {
        view_fmt(v, "  ");
        put_reason(v, own);
    }
    json_array_foreach(json_object_get(move, "lanes"), i, lane)
    {
        reason = json_word(lane, "reason", "");
        if (strcmp(state_of(lane), "done") == 0 || reason[0] == '\0' || strcmp(reason, own) == 0)
            continue;
        double n = json_number(counts, reason, 0);
        (void)json_object_set_new(counts, reason, json_real(n + 1));
        if (!(n > 0))
            (void)json_object_set_new(first, reason, json_string(json_word(lane, "lane", "?")));
    }
    json_object_foreach(first, reason, name)
    {
        double more = json_number(counts, reason, 1) - 1;
        if (shown++ == REASONS_MAX)
            break;
        view_fmt(v, "  ");
        view_put(v, json_string_value(name) != NULL ? json_string_value(name) : "?");
        if (more > 0)
            view_fmt(v, " and %.0f more", more);
        view_fmt(v, ": ");
        put_reason(v, reason);
    }
    if (json_object_size(first) > REASONS_MAX)
        view_fmt(v, "  ... and other reasons: --json shows all\n");
    json_decref(first);
    json_decref(counts);
}

static void put_figures(const struct view *v, const json_t *move)
{
    char number[VIEW_NUMBER_BYTES], speed[VIEW_NUMBER_BYTES];
    double seconds = duration_of(move);
    double bytes = json_number(move, "bytes_sent", 0);
    double tails = json_number(move, "tails", 0), owed = json_number(move, "owed", 0);

    view_fmt(v, "  messages  %s\n", unit_count(json_number(move, "messages_sent", 0), number));
    view_fmt(v, "  bytes     %s\n", unit_bytes(bytes, number));
    view_fmt(v, "  duration  %s", unit_seconds(seconds, number));
    if (seconds > 0 && bytes > 0)
        view_fmt(v, " (%s/s)", unit_bytes(bytes / seconds, speed));
    view_fmt(v, "\n  pause     ");
    if (has_pause(move))
        put_pause(v, move);
    else
        view_fmt(v, "none");
    view_fmt(v, "\n  tails     %s", unit_count(tails, number));
    if (tails > 0) {
        view_fmt(v, " (open deliveries that still finish on ");
        view_put(v, json_word(move, "from", "?"));
        view_fmt(v, ")");
    }
    if (owed > 0)
        view_fmt(v, "\n  owed      %s (messages that still have to go over)",
                 unit_count(owed, number));
    view_fmt(v, "\n  in doubt  %s\n", unit_count(json_number(move, "in_doubt", 0), number));
}

void move_view_report(const struct view *v, const json_t *move)
{
    double missing = json_number(move, "lanes_total", 0) - json_number(move, "lanes_done", 0);
    bool done = strcmp(state_of(move), "done") == 0;
    put_title(v, move);
    view_fmt(v, "  lanes     %.0f of %.0f\n", json_number(move, "lanes_done", 0),
             json_number(move, "lanes_total", 0));
    if (done || json_number(move, "lanes_done", 0) > 0)
        put_figures(v, move);
    if (missing > 0 || !done) {
        view_fmt(v, "  %.0f lanes stay on ", missing);
        view_put(v, json_word(move, "from", "?"));
        view_fmt(v, ", and go on there\n");
        put_refusals(v, move);
    }
}

void move_view_plan(const struct view *v, const json_t *move)
{
    char messages[VIEW_NUMBER_BYTES], bytes[VIEW_NUMBER_BYTES], eta[VIEW_NUMBER_BYTES];
    bool fine = !move_view_over(move) || move_view_good(move);
    view_fmt(v, fine ? "would move " : "would NOT move ");
    put_subject(v, move);
    view_fmt(v, " from ");
    view_put(v, json_word(move, "from", "?"));
    view_fmt(v, " to ");
    view_put(v, json_word(move, "to", "?"));
    view_fmt(v, ": %.0f lanes, %s messages", json_number(move, "lanes_total", 0),
             unit_count(json_number(move, "messages_total", 0), messages));
    if (json_number(move, "bytes_total", 0) > 0)
        view_fmt(v, ", %s", unit_bytes(json_number(move, "bytes_total", 0), bytes));
    if (json_number(move, "eta_s", 0) > 0)
        view_fmt(v, ", about %s", unit_seconds(json_number(move, "eta_s", 0), eta));
    view_fmt(v, "\n");
    put_refusals(v, move);
}
