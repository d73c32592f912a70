/* render_queue - queue, why, show, sites, lanes; see render.h. */
#include "ctl/grid.h"
#include "ctl/render.h"
#include "proto/verb.h"

#include <stdlib.h>

static const struct grid_column queue_columns[] = {
    {"", "key", GRID_TEXT, GRID_FLEX},
    {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"READY", "ready", GRID_COUNT, GRID_FIXED},
    {"WAITING", "waiting", GRID_COUNT, GRID_FIXED},
    {"HELD", "held", GRID_COUNT, GRID_OPTIONAL},
    {"IN FLIGHT", "in_flight", GRID_COUNT, GRID_FIXED},
    {"BOUNCE DUE", "bounce_due", GRID_COUNT, GRID_OPTIONAL},
    {"PARKED", "parked", GRID_COUNT, GRID_OPTIONAL},
    {"OLDEST", "oldest_s", GRID_SECONDS, GRID_FIXED},
    {"NEXT", "next_due_s", GRID_SECONDS, GRID_OPTIONAL},
    {"REASONS", "reasons", GRID_REASONS, GRID_FLEX | GRID_OPTIONAL},
};

static const struct grid_column message_columns[] = {
    {"ID", "id", GRID_TEXT, GRID_FIXED},
    {"/", "index", GRID_COUNT, GRID_FIXED},
    {"RECIPIENT", "rcpt", GRID_TEXT, GRID_FLEX},
    {"SENDER", "sender", GRID_TEXT, GRID_FLEX},
    {"LANE", "lane", GRID_TEXT, GRID_FIXED},
    {"STATE", "state", GRID_TEXT, GRID_FIXED},
    {"REASON", "reason", GRID_TEXT, GRID_FIXED},
    {"TRIES", "attempts", GRID_COUNT, GRID_FIXED},
    {"AGE", "age_s", GRID_SECONDS, GRID_FIXED},
    {"DUE IN", "due_in_s", GRID_SECONDS, GRID_OPTIONAL},
    {"SIZE", "bytes", GRID_BYTES, GRID_FIXED},
    {"LAST REPLY", "last_reply", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};

void render_messages(const struct view *v, const json_t *rows)
{
    (void)grid_print(v, message_columns, ARRAY_COUNT(message_columns), rows);
}

/* Each worker sends at most the limit, so how many more there are is not known. */
static void note_cut(const struct cli *c, const json_t *answer)
{
    const char *given = call_get(&c->call, "limit");
    size_t limit = given != NULL ? strtoul(given, NULL, 10) : VERB_LIMIT_PRESET;
    bool full = json_array_size(json_object_get(answer, "rows")) >= limit;
    if (full || json_number(answer, "rows_cut", 0) > 0)
        view_fmt(&c->view, "... there may be more: --limit N shows N\n");
}

int render_queue(struct cli *c, const json_t *answer)
{
    const json_t *rows = json_object_get(answer, "rows");
    const char *by = call_get(&c->call, "by");
    struct grid_column columns[ARRAY_COUNT(queue_columns)];
    char title[32];

    if (by == NULL)
        by = "site";
    if (json_array_size(rows) == 0) {
        view_fmt(&c->view, "nothing is queued%s\n", c->given_count > 0 ? " that matches" : "");
        return CLI_OK;
    }
    if (strcmp(by, "message") == 0) {
        render_messages(&c->view, rows);
    } else {
        size_t n = view_fit(by, sizeof title - 1);
        for (size_t i = 0; i < n; i++)
            title[i] = (char)(by[i] >= 'a' && by[i] <= 'z' ? by[i] - 'a' + 'A' : by[i]);
        title[n] = '\0';
        memcpy(columns, queue_columns, sizeof columns);
        columns[0].title = title;
        (void)grid_print(&c->view, columns, ARRAY_COUNT(columns), rows);
    }
    note_cut(c, answer);
    return CLI_OK;
}

static void put_line(const struct view *v, const char *label, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    view_fmt(v, "  %-11s ", label);
    view_put(v, value);
    view_fmt(v, "\n");
}

static void put_cell(const struct view *v, const char *label, const json_t *value,
                     enum grid_kind kind)
{
    char cell[GRID_CELL_BYTES];
    if (value == NULL || json_is_null(value))
        return;
    (void)grid_cell(value, kind, cell);
    put_line(v, label, cell);
}

static void put_limits(const struct view *v, const json_t *limits)
{
    const char *name;
    json_t *value;
    bool first = true;
    json_object_foreach((json_t *)(uintptr_t)limits, name, value)
    {
        char cell[GRID_CELL_BYTES];
        (void)grid_cell(value, GRID_COUNT, cell);
        view_fmt(v, "%s", first ? "  limits      " : ", ");
        view_put(v, name);
        view_fmt(v, " %s", cell);
        first = false;
    }
    if (!first)
        view_fmt(v, "\n");
}

/* "lane -> site (domain)", or the domain alone for what no lane has taken up yet. */
static void put_subject(const struct view *v, const json_t *row)
{
    const char *lane = json_word(row, "lane", "");
    const char *site = json_word(row, "site", "");
    const char *domain = json_word(row, "domain", "");
    const char *to = site[0] != '\0' ? site : domain;

    view_colour(v, COLOUR_BOLD);
    view_put(v, lane);
    view_fmt(v, "%s", lane[0] != '\0' && to[0] != '\0' ? " -> " : "");
    view_put(v, to);
    view_colour(v, COLOUR_NONE);
    if (domain[0] != '\0' && strcmp(domain, to) != 0) {
        view_fmt(v, " (");
        view_put(v, domain);
        view_fmt(v, ")");
    }
    if (json_word(row, "id", "")[0] != '\0')
        view_fmt(v, " recipient %.0f", json_number(row, "index", 0));
    view_fmt(v, "\n");
}

/* Two recipients of a message may wait for the same lane and site: that is told once. */
static bool was_shown(const json_t *rows, size_t index)
{
    const char *key = json_word(json_array_get(rows, index), "key", NULL);
    for (size_t i = 0; key != NULL && i < index; i++) {
        if (strcmp(json_word(json_array_get(rows, i), "key", ""), key) == 0)
            return true;
    }
    return false;
}

int render_why(struct cli *c, const json_t *answer)
{
    const json_t *rows = json_object_get(answer, "rows");
    const struct view *v = &c->view;
    size_t i;
    const json_t *row;

    if (json_array_size(rows) == 0) {
        view_fmt(v, "nothing is queued for ");
        view_put(v, c->words[0] != NULL ? c->words[0] : "this");
        view_fmt(v, "\n");
        return CLI_NOT_FOUND;
    }
    json_array_foreach(rows, i, row)
    {
        if (was_shown(rows, i))
            continue;
        put_subject(v, row);
        put_line(v, "reason", json_word(row, "reason", NULL));
        put_line(v, "", json_word(row, "text", NULL));
        if (json_number(row, "until_s", 0) > 0)
            put_cell(v, "goes on in", json_object_get(row, "until_s"), GRID_SECONDS);
        put_cell(v, "next try in", json_object_get(row, "due_in_s"), GRID_SECONDS);
        put_cell(v, "queued", json_object_get(row, "queued"), GRID_COUNT);
        put_cell(v, "connections", json_object_get(row, "connections"), GRID_COUNT);
        put_line(v, "last reply", json_word(row, "last_reply", NULL));
        put_limits(v, json_object_get(row, "limits"));
    }
    note_cut(c, answer);
    return CLI_OK;
}

/* Header or body text: lines stay lines, everything else is made safe. */
static void put_lines(const struct view *v, const json_t *text)
{
    struct span s = span_of(json_string_value(text), json_string_length(text));
    while (s.n > 0) {
        const uint8_t *end = memchr(s.p, '\n', s.n);
        size_t n = end != NULL ? (size_t)(end - s.p) : s.n;
        size_t shown = n > 0 && s.p[n - 1] == '\r' ? n - 1 : n;
        size_t tab;
        /* Folded header lines begin with a tab. */
        for (tab = 0; tab < shown && s.p[tab] == '\t'; tab++)
            view_fmt(v, "\t");
        view_put_span(v, span_of(s.p + tab, shown - tab));
        view_fmt(v, "\n");
        size_t step = n < s.n ? n + 1 : n;
        s = span_of(s.p + step, s.n - step);
    }
}

static const struct grid_column recipient_columns[] = {
    {"/", "index", GRID_COUNT, GRID_FIXED},
    {"RECIPIENT", "address", GRID_TEXT, GRID_OPTIONAL},
    {"RECIPIENT", "rcpt", GRID_TEXT, GRID_OPTIONAL},
    {"STATE", "state", GRID_TEXT, GRID_FIXED},
    {"REASON", "reason", GRID_TEXT, GRID_OPTIONAL},
    {"TRIES", "attempts", GRID_COUNT, GRID_FIXED},
    {"DUE IN", "due_in_s", GRID_SECONDS, GRID_OPTIONAL},
    {"LAST REPLY", "last_reply", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};

static const struct {
    const char *label;
    const char *field;
    enum grid_kind kind;
} show_fields[] = {
    {"sender", "sender", GRID_TEXT},     {"lane", "lane", GRID_TEXT},
    {"tenant", "tenant", GRID_TEXT},     {"damage", "damage", GRID_TEXT},
    {"received", "received", GRID_TIME}, {"age", "age_s", GRID_SECONDS},
    {"expires", "expires", GRID_TIME},   {"size", "bytes", GRID_BYTES},
    {"client", "client", GRID_TEXT},     {"helo", "helo", GRID_TEXT},
    {"envid", "envid", GRID_TEXT},
};

int render_show(struct cli *c, const json_t *answer)
{
    const struct view *v = &c->view;
    const json_t *headers = json_object_get(answer, "headers");
    const json_t *body = json_object_get(answer, "body");

    view_colour(v, COLOUR_BOLD);
    view_put(v, json_word(answer, "id", "?"));
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "\n");
    for (size_t i = 0; i < ARRAY_COUNT(show_fields); i++) {
        const json_t *value = json_object_get(answer, show_fields[i].field);
        /* The null sender is a fact about a message, not a missing field. */
        if (json_is_string(value) && json_string_length(value) == 0 && i == 0)
            put_line(v, "sender", "<>");
        else
            put_cell(v, show_fields[i].label, value, show_fields[i].kind);
    }
    view_fmt(v, "\n");
    (void)grid_print(v, recipient_columns, ARRAY_COUNT(recipient_columns),
                     json_object_get(answer, "recipients"));
    if (json_string_length(headers) > 0) {
        view_fmt(v, "\n");
        put_lines(v, headers);
    }
    if (json_string_length(body) > 0) {
        view_fmt(v, "\n");
        put_lines(v, body);
    }
    return CLI_OK;
}

static const struct grid_column site_columns[] = {
    {"LANE", "lane", GRID_TEXT, GRID_FIXED},
    {"SITE", "site", GRID_TEXT, GRID_FLEX},
    {"PROVIDER", "provider", GRID_TEXT, GRID_OPTIONAL},
    {"READY", "queued", GRID_COUNT, GRID_FIXED},
    {"IN FLIGHT", "in_flight", GRID_COUNT, GRID_FIXED},
    {"CONNECTIONS", "connections", GRID_COUNT, GRID_FIXED},
    {"OPENING", "opening", GRID_COUNT, GRID_OPTIONAL},
    {"FAILURES", "failures", GRID_COUNT, GRID_OPTIONAL},
    {"REASON", "reason", GRID_TEXT, GRID_OPTIONAL},
    {"FOR", "until_s", GRID_SECONDS, GRID_OPTIONAL},
    {"LAST REPLY", "last_reply", GRID_TEXT, GRID_FLEX | GRID_OPTIONAL},
};
static const struct grid_column lane_columns[] = {
    {"LANE", "key", GRID_TEXT, GRID_FIXED},     {"NUMBER", "number", GRID_INDEX, GRID_FIXED},
    {"EHLO", "ehlo", GRID_TEXT, GRID_FLEX},     {"QUEUED", "queued", GRID_COUNT, GRID_FIXED},
    {"HELD", "held", GRID_TEXT, GRID_OPTIONAL}, {"GONE", "gone", GRID_TEXT, GRID_OPTIONAL},
    {"EPOCH", "epoch", GRID_INDEX, GRID_FIXED}, {"POSITION", "position", GRID_INDEX, GRID_FIXED},
};

static int render_rows(struct cli *c, const struct grid_column *columns, unsigned count,
                       const json_t *answer)
{
    if (grid_print(&c->view, columns, count, json_object_get(answer, "rows")) == 0)
        view_fmt(&c->view, "there are none\n");
    note_cut(c, answer);
    return CLI_OK;
}

int render_sites(struct cli *c, const json_t *answer)
{
    return render_rows(c, site_columns, ARRAY_COUNT(site_columns), answer);
}

int render_lanes(struct cli *c, const json_t *answer)
{
    return render_rows(c, lane_columns, ARRAY_COUNT(lane_columns), answer);
}
