/* grid - see grid.h. */
#include "ctl/grid.h"

#include <stdlib.h>

enum { GAP = 2, REASONS_SHOWN = 4, REASONS_MAX = 64 };

struct layout {
    const struct grid_column *column[GRID_COLUMNS_MAX];
    unsigned width[GRID_COLUMNS_MAX];
    unsigned count;
};

struct reason_count {
    const char *word;
    double n;
};

static int most_first(const void *a, const void *b)
{
    const struct reason_count *x = a;
    const struct reason_count *y = b;
    if (x->n > y->n || x->n < y->n)
        return x->n > y->n ? -1 : 1;
    return strcmp(x->word, y->word);
}

static void put_reasons(json_t *value, struct text *t)
{
    struct reason_count list[REASONS_MAX];
    unsigned count = 0;
    const char *word;
    json_t *n;
    json_object_foreach(value, word, n)
    {
        if (count < REASONS_MAX && json_number_value(n) > 0)
            list[count++] = (struct reason_count){word, json_number_value(n)};
    }
    qsort(list, count, sizeof list[0], most_first);
    for (unsigned i = 0; i < count && i < REASONS_SHOWN; i++) {
        char number[VIEW_NUMBER_BYTES];
        text_fmt(t, "%s%s %s", i > 0 ? ", " : "", list[i].word, unit_count(list[i].n, number));
    }
    if (count > REASONS_SHOWN)
        text_puts(t, ", ...");
}

static void put_number(double n, enum grid_kind kind, struct text *t)
{
    char number[VIEW_NUMBER_BYTES];
    switch (kind) {
    case GRID_INDEX:
        if (n < 0)
            text_putc(t, '-');
        else
            text_fmt(t, "%.0f", n);
        return;
    case GRID_COUNT:
        text_puts(t, unit_count(n, number));
        return;
    case GRID_RATE:
        text_puts(t, unit_rate(n, number));
        return;
    case GRID_BYTES:
        text_puts(t, unit_bytes(n, number));
        return;
    case GRID_SECONDS:
        text_puts(t, unit_seconds(n, number));
        return;
    case GRID_TIME:
        text_puts(t, unit_date(n, number));
        return;
    case GRID_TEXT:
    case GRID_REASONS:
        text_fmt(t, "%.15g", n);
        return;
    }
}

unsigned grid_cell(const json_t *value, enum grid_kind kind, char out[GRID_CELL_BYTES])
{
    char raw[GRID_CELL_BYTES];
    struct text t = text_of(raw, sizeof raw);
    if (json_is_string(value)) {
        text_put(&t, span_of(json_string_value(value), json_string_length(value)));
    } else if (json_is_number(value)) {
        put_number(json_number_value(value), kind, &t);
    } else if (json_is_boolean(value)) {
        text_puts(&t, json_is_true(value) ? "yes" : "no");
    } else if (json_is_object(value) && kind == GRID_REASONS) {
        put_reasons((json_t *)(uintptr_t)value, &t);
    }
    return view_clean(text_span(&t), out, GRID_CELL_BYTES);
}

static bool says_nothing(const json_t *value)
{
    if (value == NULL || json_is_null(value) || json_is_false(value))
        return true;
    if (json_is_string(value))
        return json_string_length(value) == 0;
    if (json_is_object(value))
        return json_object_size(value) == 0;
    return json_is_number(value) && !(json_number_value(value) > 0 || json_number_value(value) < 0);
}

static void measure(struct layout *l, const struct grid_column *columns, unsigned count,
                    const json_t *rows)
{
    l->count = 0;
    for (unsigned c = 0; c < count; c++) {
        unsigned width = (unsigned)strlen(columns[c].title);
        bool useful = (columns[c].give & GRID_OPTIONAL) == 0;
        size_t i;
        const json_t *row;
        json_array_foreach(rows, i, row)
        {
            char cell[GRID_CELL_BYTES];
            const json_t *value = json_object_get(row, columns[c].field);
            unsigned w = grid_cell(value, columns[c].kind, cell);
            width = w > width ? w : width;
            useful = useful || !says_nothing(value);
        }
        if (!useful)
            continue;
        l->column[l->count] = &columns[c];
        l->width[l->count++] = width;
    }
}

/* The widest flexible column gives way first, down to GRID_FLEX_MIN. */
static void squeeze(struct layout *l, unsigned available)
{
    for (;;) {
        unsigned total = 0;
        unsigned widest = GRID_COLUMNS_MAX;
        for (unsigned c = 0; c < l->count; c++) {
            total += l->width[c] + (c > 0 ? GAP : 0);
            bool can = (l->column[c]->give & GRID_FLEX) != 0 && l->width[c] > GRID_FLEX_MIN;
            if (can && (widest == GRID_COLUMNS_MAX || l->width[c] > l->width[widest]))
                widest = c;
        }
        if (total <= available || widest == GRID_COLUMNS_MAX)
            return;
        l->width[widest]--;
    }
}

static void put_cell(const struct view *v, const struct layout *l, unsigned c, char *cell)
{
    unsigned columns = view_columns(cell);
    unsigned width = l->width[c];
    bool right = l->column[c]->kind != GRID_TEXT && l->column[c]->kind != GRID_REASONS;
    bool last = c + 1 == l->count;

    if (last && !right && columns == 0)
        return; /* no trailing blanks */
    if (c > 0)
        view_fmt(v, "%*s", GAP, "");
    if (columns > width) {
        cell[view_fit(cell, width - 1)] = '\0';
        view_fmt(v, "%s…", cell);
        columns = view_columns(cell) + 1;
        if (columns < width && !last)
            view_fmt(v, "%*s", (int)(width - columns), "");
        return;
    }
    unsigned pad = width - columns;
    if (right)
        view_fmt(v, "%*s%s", (int)pad, "", cell);
    else if (last)
        view_fmt(v, "%s", cell);
    else
        view_fmt(v, "%s%*s", cell, (int)pad, "");
}

static void put_heading(const struct view *v, const struct layout *l)
{
    view_colour(v, COLOUR_BOLD);
    for (unsigned c = 0; c < l->count; c++) {
        char title[GRID_CELL_BYTES];
        (void)snprintf(title, sizeof title, "%s", l->column[c]->title);
        put_cell(v, l, c, title);
    }
    view_colour(v, COLOUR_NONE);
    view_fmt(v, "\n");
}

unsigned grid_print(const struct view *v, const struct grid_column *columns, unsigned count,
                    const json_t *rows)
{
    struct layout l;
    size_t i;
    const json_t *row;

    MUST(count <= GRID_COLUMNS_MAX);
    if (json_array_size(rows) == 0)
        return 0;
    measure(&l, columns, count, rows);
    if (v->width > 0)
        squeeze(&l, v->width);
    put_heading(v, &l);
    json_array_foreach(rows, i, row)
    {
        for (unsigned c = 0; c < l.count; c++) {
            char cell[GRID_CELL_BYTES];
            const json_t *value = json_object_get(row, l.column[c]->field);
            (void)grid_cell(value, l.column[c]->kind, cell);
            put_cell(v, &l, c, cell);
        }
        view_fmt(v, "\n");
    }
    return (unsigned)json_array_size(rows) + 1;
}
