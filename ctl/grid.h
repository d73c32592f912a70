/*
 * grid - rows of JSON objects as a table of aligned columns.
 *
 * Numbers stand right, texts left. On a terminal, flexible columns give way, and end in "…",
 * until a line fits; without one nothing is cut.
 */
#ifndef CTL_GRID_H
#define CTL_GRID_H

#include "ctl/view.h"

enum { GRID_COLUMNS_MAX = 16, GRID_CELL_BYTES = 1024, GRID_FLEX_MIN = 10 };

enum grid_kind {
    GRID_TEXT,
    GRID_COUNT,
    GRID_INDEX, /* a number that counts nothing; below 0: none */
    GRID_RATE,
    GRID_BYTES,
    GRID_SECONDS,
    GRID_TIME,
    GRID_REASONS, /* {"word": count} as "word 12, other 3", most first */
};
enum {
    GRID_FIXED = 0,
    GRID_FLEX = 1,     /* may be cut */
    GRID_OPTIONAL = 2, /* left out when no row has it, or all have zero or an empty text */
};
struct grid_column {
    const char *title;
    const char *field;
    enum grid_kind kind;
    unsigned give; /* GRID_FLEX, GRID_OPTIONAL */
};

/* Prints a heading and the rows; nothing at all for no rows. Returns the number of lines. */
unsigned grid_print(const struct view *v, const struct grid_column *columns, unsigned count,
                    const json_t *rows);
/* One cell's text, safe for a terminal. Returns its columns. */
unsigned grid_cell(const json_t *value, enum grid_kind kind, char out[GRID_CELL_BYTES]);

#endif
