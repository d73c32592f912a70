/*
 * view - where people read: a stream, its width, whether it has colours; units; safe text.
 *
 * What a remote host said may hold escape sequences: everything that came from outside goes to the
 * terminal through view_put, which lets no control character pass.
 */
#ifndef CTL_VIEW_H
#define CTL_VIEW_H

#include "base/text.h"

#include <jansson.h>
#include <stdio.h>

enum { VIEW_NUMBER_BYTES = 48 };

enum view_colour { COLOUR_NONE, COLOUR_BOLD, COLOUR_DIM, COLOUR_RED, COLOUR_YELLOW, COLOUR_GREEN };

struct view {
    FILE *out;
    unsigned width; /* columns; 0 = no terminal, nothing is cut */
    bool colour;
};

/* For stdout: width and colours only on a terminal, and colours not under NO_COLOR or TERM=dumb. */
struct view view_of_stdout(void);
/* Text from outside; control characters, and those that reverse the writing direction, become '?'.
 */
void view_put(const struct view *v, const char *s);
void view_put_span(const struct view *v, struct span s);
void view_fmt(const struct view *v, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Switches the colour; COLOUR_NONE ends it. Nothing without colours. */
void view_colour(const struct view *v, enum view_colour c);
/* Copies s into out, made safe, cut to cap; returns columns on a terminal. */
unsigned view_clean(struct span s, char *out, size_t cap);
/* Bytes of the longest start of a clean text that takes at most `columns`. */
size_t view_fit(const char *clean, unsigned columns);
unsigned view_columns(const char *clean);

/* Units for people. All write NUL-terminated text and return out. */
char *unit_count(double n, char out[VIEW_NUMBER_BYTES]);     /* 1,234,567 */
char *unit_rate(double per_s, char out[VIEW_NUMBER_BYTES]);  /* 0, 0.5, 12.3, 1,234 */
char *unit_bytes(double bytes, char out[VIEW_NUMBER_BYTES]); /* 1.5 MiB */
char *unit_seconds(double s, char out[VIEW_NUMBER_BYTES]);   /* 0.2s 45s 3m20s 2h05m 3d04h */
char *unit_us(double us, char out[VIEW_NUMBER_BYTES]);       /* 0.2ms 14ms 1.5s */
char *unit_date(double unix_s, char out[VIEW_NUMBER_BYTES]); /* local time */
char *unit_time(double unix_s, char out[VIEW_NUMBER_BYTES]); /* local time with ms */

/* Reading answers: presets instead of errors, since an older node may lack a field. */
double json_number(const json_t *o, const char *field, double preset);
const char *json_word(const json_t *o, const char *field, const char *preset);

#endif
