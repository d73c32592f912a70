/* render_node - status, holds, audit, ledger and plain answers; see render.h. */
#include "ctl/grid.h"
#include "ctl/render.h"

int render_done(struct cli *c, const json_t *answer)
{
    view_put(&c->view, json_word(answer, "text", "done"));
    view_fmt(&c->view, "\n");
    return CLI_OK;
}

int render_leave(struct cli *c, const json_t *answer)
{
    char number[VIEW_NUMBER_BYTES];
    double seconds = json_number(answer, "seconds", -1);
    bool stop = strcmp(c->command->name, "stop") == 0;
    if (json_word(answer, "text", NULL) != NULL || seconds < 0)
        return render_done(c, answer);
    view_fmt(&c->view, "no more mail is accepted; what is in flight has %s to finish%s\n",
             unit_seconds(seconds, number), stop ? ", then the node ends" : "");
    return CLI_OK;
}

static const struct grid_column child_columns[] = {
    {"PROCESS", "name", GRID_TEXT, GRID_FIXED},
    {"SLOT", "slot", GRID_INDEX, GRID_FIXED},
    {"STATE", "state", GRID_TEXT, GRID_FIXED},
    {"PID", "pid", GRID_INDEX, GRID_FIXED},
    {"GENERATION", "generation", GRID_INDEX, GRID_OPTIONAL},
    {"CORE", "core", GRID_INDEX, GRID_FIXED},
    {"UP", "uptime_s", GRID_SECONDS, GRID_FIXED},
    {"RESTARTS", "restarts", GRID_COUNT, GRID_FIXED},
    {"LAST EXIT", "last_exit", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};
static const struct grid_column lane_columns[] = {
    {"LANE", "address", GRID_TEXT, GRID_FIXED},
    {"NUMBER", "lane", GRID_INDEX, GRID_OPTIONAL},
    {"WORKER", "worker", GRID_INDEX, GRID_FIXED},
    {"SHARD", "shard", GRID_INDEX, GRID_FIXED},
    {"EPOCH", "epoch", GRID_INDEX, GRID_OPTIONAL},
    {"CONFIGURED", "configured", GRID_TEXT, GRID_FIXED},
};
static const struct grid_column hold_columns[] = {
    {"HELD", "kind", GRID_TEXT, GRID_FIXED},
    {"WHAT", "value", GRID_TEXT, GRID_FIXED},
    {"SINCE", "since", GRID_TIME, GRID_FIXED},
    {"WHY", "why", GRID_TEXT, GRID_FLEX},
};

static void put_head(const struct view *v, const json_t *answer)
{
    char number[VIEW_NUMBER_BYTES];
    const char *state = json_word(answer, "state", "");
    view_fmt(v, "node ");
    view_colour(v, COLOUR_BOLD);
    view_put(v, json_word(answer, "node", "?"));
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "   mochila ");
    view_put(v, json_word(answer, "version", "?"));
    view_fmt(v, "   generation %.0f", json_number(answer, "generation", 0));
    view_fmt(v, "   up %s", unit_seconds(json_number(answer, "uptime_s", 0), number));
    if (state[0] != '\0') {
        view_fmt(v, "   ");
        view_colour(v, strcmp(state, "running") == 0 ? COLOUR_GREEN : COLOUR_YELLOW);
        view_put(v, state);
        view_colour(v, COLOUR_NONE);
    }
    view_fmt(v, "\n");
    if (json_word(answer, "config", "")[0] != '\0') {
        view_fmt(v, "configuration ");
        view_put(v, json_word(answer, "config", ""));
        view_fmt(v, "\n");
    }
}

static void put_block(const struct view *v, const struct grid_column *columns, unsigned count,
                      const json_t *rows)
{
    if (json_array_size(rows) == 0)
        return;
    view_fmt(v, "\n");
    (void)grid_print(v, columns, count, rows);
}

int render_status(struct cli *c, const json_t *answer)
{
    const struct view *v = &c->view;
    size_t i;
    const json_t *warning;

    put_head(v, answer);
    put_block(v, child_columns, ARRAY_COUNT(child_columns), json_object_get(answer, "children"));
    put_block(v, lane_columns, ARRAY_COUNT(lane_columns), json_object_get(answer, "lanes"));
    put_block(v, hold_columns, ARRAY_COUNT(hold_columns), json_object_get(answer, "holds"));
    json_array_foreach(json_object_get(answer, "warnings"), i, warning)
    {
        if (i == 0)
            view_fmt(v, "\n");
        view_colour(v, COLOUR_YELLOW);
        view_fmt(v, "warning: ");
        view_colour(v, COLOUR_NONE);
        view_put(v, json_string_value(warning) != NULL ? json_string_value(warning)
                                                       : json_word(warning, "text", "?"));
        view_fmt(v, "\n");
    }
    return CLI_OK;
}

int render_holds(struct cli *c, const json_t *answer)
{
    const json_t *rows = json_object_get(answer, "holds");
    if (rows == NULL)
        rows = json_object_get(answer, "rows");
    if (grid_print(&c->view, hold_columns, ARRAY_COUNT(hold_columns), rows) == 0)
        view_fmt(&c->view, "nothing is on hold\n");
    return CLI_OK;
}

int render_audit(struct cli *c, const json_t *answer)
{
    static const struct grid_column columns[] = {
        {"TIME", "time", GRID_TIME, GRID_FIXED},
        {"WHO", "who", GRID_TEXT, GRID_FIXED},
        {"WHAT", "what", GRID_TEXT, GRID_FLEX},
        {"RESULT", "result", GRID_TEXT, GRID_FLEX},
    };
    if (grid_print(&c->view, columns, ARRAY_COUNT(columns), json_object_get(answer, "rows")) == 0)
        view_fmt(&c->view, "no operator has changed anything yet\n");
    return CLI_OK;
}

static const struct {
    const char *field;
    const char *label;
} fates[] = {
    {"delivered", "delivered"}, {"bounced", "bounced"}, {"expired", "expired"},
    {"deleted", "deleted"},     {"queued", "queued"},   {"handed_over", "handed over"},
};

/*
 * accepted = delivered + bounced + expired + deleted + queued + handed over, per
 * recipient. What a shard took over from another is within accepted, as it is handed over there.
 * The node's own balance and the sum of the figures are both looked at: if only one of
 * them were off, a counter would be wrong, and that must not pass as balanced.
 */
int render_ledger(struct cli *c, const json_t *answer)
{
    const struct view *v = &c->view;
    char number[VIEW_NUMBER_BYTES];
    double taken = json_number(answer, "taken_over", 0);
    double have = json_number(answer, "accepted", 0);
    double sum = 0;

    if (json_object_get(answer, "nodes") != NULL)
        return render_cluster_ledger(c, answer);
    view_fmt(v, "accepted %s", unit_count(have, number));
    if (taken > 0)
        view_fmt(v, " (%s taken over)", unit_count(taken, number));
    for (size_t i = 0; i < ARRAY_COUNT(fates); i++) {
        double n = json_number(answer, fates[i].field, 0);
        sum += n;
        view_fmt(v, "%s%s %s", i == 0 ? " = " : " + ", fates[i].label, unit_count(n, number));
    }
    view_fmt(v, "\n");
    double due = json_number(answer, "bounce_due", 0);
    if (due > 0)
        view_fmt(v, "of the bounced, %s wait for their bounce\n", unit_count(due, number));
    double balance = json_number(answer, "balance", have - sum);
    bool balances = !(balance > 0 || balance < 0) && !(have > sum || have < sum);
    if (balances) {
        view_colour(v, COLOUR_GREEN);
        view_fmt(v, "balanced\n");
        view_colour(v, COLOUR_NONE);
        return CLI_OK;
    }
    double off = have > sum || have < sum ? have - sum : balance;
    view_colour(v, COLOUR_RED);
    view_fmt(v, "NOT balanced: %s recipients are %s\n", unit_count(off < 0 ? -off : off, number),
             off > 0 ? "unaccounted for" : "too many");
    view_colour(v, COLOUR_NONE);
    return CLI_ERROR;
}
