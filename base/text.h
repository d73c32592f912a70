/*
 * text - builds text in a fixed buffer; cuts instead of overflowing, and says so.
 *
 * The result is always NUL-terminated when cap > 0. JSON strings are escaped here and nowhere else:
 * bytes outside printable ASCII that are not valid UTF-8 become \u00XX, so that hostile input can
 * break neither a log line nor an API answer.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/span.h"

struct text {
    char *p;
    size_t n;
    size_t cap;
    bool cut;
};

static inline struct text text_of(char *p, size_t cap)
{
    if (cap > 0)
        p[0] = '\0';
    return (struct text){p, 0, cap, false};
}
static inline struct span text_span(const struct text *t)
{
    return span_of(t->p, t->n);
}
void text_put(struct text *t, struct span s);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);
void text_put_u64(struct text *t, uint64_t v);
void text_fmt(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "..." with JSON escapes, quotes included. */
void text_json(struct text *t, struct span s);
/* Replaces control characters and 8-bit by '?': for our own reply lines and Received comments. */
void text_put_clean(struct text *t, struct span s);

#endif
