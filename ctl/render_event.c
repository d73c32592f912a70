/* render_event - trace and events: one line per event, see render.h. */
#include "ctl/render.h"

static enum view_colour colour_of(const char *event)
{
    static const struct {
        const char *event;
        enum view_colour colour;
    } colours[] = {
        {"delivered", COLOUR_GREEN}, {"deferred", COLOUR_YELLOW}, {"failed", COLOUR_RED},
        {"expired", COLOUR_RED},     {"parked", COLOUR_RED},      {"held", COLOUR_YELLOW},
    };
    for (size_t i = 0; i < ARRAY_COUNT(colours); i++) {
        if (strcmp(colours[i].event, event) == 0)
            return colours[i].colour;
    }
    return COLOUR_DIM;
}

static void put_field(const struct view *v, const json_t *event, const char *field,
                      const char *label)
{
    char cell[256];
    const json_t *value = json_object_get(event, field);
    if (json_is_integer(value))
        view_fmt(v, " %s%lld", label, (long long)json_integer_value(value));
    if (json_string_length(value) == 0)
        return;
    (void)view_clean(span_str(json_string_value(value)), cell, sizeof cell);
    view_fmt(v, " %s%s", label, cell);
}

void render_event(const struct view *v, const json_t *event)
{
    char when[VIEW_NUMBER_BYTES];
    const char *word = json_word(event, "event", "?");

    view_fmt(v, "%s ", unit_time(json_number(event, "t", 0), when));
    view_colour(v, colour_of(word));
    view_fmt(v, "%-9.20s", word);
    view_colour(v, COLOUR_NONE);
    view_fmt(v, " ");
    view_put(v, json_word(event, "id", "-"));
    const json_t *index = json_object_get(event, "index");
    if (json_is_integer(index))
        view_fmt(v, "/%lld", (long long)json_integer_value(index));
    put_field(v, event, "rcpt", "to ");
    put_field(v, event, "sender", "from ");
    put_field(v, event, "lane", "lane ");
    put_field(v, event, "mx", "mx ");
    put_field(v, event, "attempt", "attempt ");
    put_field(v, event, "reason", "reason ");
    const char *reply = json_word(event, "reply", "");
    if (reply[0] != '\0') {
        view_fmt(v, " reply \"");
        view_put(v, reply);
        view_fmt(v, "\"");
    }
    view_fmt(v, "\n");
}

int render_trace(struct cli *c, const json_t *answer)
{
    const json_t *events = json_object_get(answer, "events");
    const struct view *v = &c->view;
    char scanned[VIEW_NUMBER_BYTES];
    size_t i;
    const json_t *event;

    json_array_foreach(events, i, event)
    {
        render_event(v, event);
    }
    if (!json_is_true(json_object_get(answer, "cut")))
        return CLI_OK;
    (void)unit_bytes(json_number(answer, "scanned_bytes", 0), scanned);
    (void)cli_fail(CLI_OK,
                   "only the newest %s of the event files were scanned: older events may be "
                   "missing",
                   scanned);
    return json_array_size(events) > 0 ? CLI_OK : CLI_NOT_FOUND;
}
