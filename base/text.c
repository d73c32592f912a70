/*
 * text - see text.h.
 *
 * Invariant: n < cap and p[n] == '\0' whenever cap > 0. Once something was cut nothing more is
 * added, so that a text never continues behind a gap.
 */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void text_put(struct text *t, struct span s)
{
    if (t->cut || s.n == 0)
        return;
    size_t room = t->cap > 0 ? t->cap - 1 - t->n : 0;
    size_t n = s.n;
    if (n > room) {
        n = room;
        t->cut = true;
    }
    if (n == 0)
        return;
    memcpy(t->p + t->n, s.p, n);
    t->n += n;
    t->p[t->n] = '\0';
}

void text_puts(struct text *t, const char *s)
{
    text_put(t, span_str(s));
}

void text_putc(struct text *t, char c)
{
    text_put(t, span_of(&c, 1));
}

void text_put_u64(struct text *t, uint64_t v)
{
    char digits[20];
    size_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    text_put(t, span_of(digits + i, sizeof digits - i));
}

void text_fmt(struct text *t, const char *fmt, ...)
{
    va_list args;

    if (t->cut)
        return;
    if (t->cap == 0) {
        t->cut = true;
        return;
    }
    size_t room = t->cap - t->n;
    va_start(args, fmt);
    int wanted = vsnprintf(t->p + t->n, room, fmt, args);
    va_end(args);
    MUST(wanted >= 0);
    t->cut = (size_t)wanted >= room;
    t->n += t->cut ? room - 1 : (size_t)wanted;
}

/* All of `s` or nothing: half an escape or half a UTF-8 sequence is worse than none. */
static void put_whole(struct text *t, struct span s)
{
    if (t->cap == 0 || t->cap - 1 - t->n < s.n)
        t->cut = true;
    text_put(t, s);
}

static void put_escaped(struct text *t, uint8_t c)
{
    static const char digits[] = "0123456789abcdef";
    static const char short_form[128] = {['"'] = '"',  ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f',
                                         ['\n'] = 'n', ['\r'] = 'r',  ['\t'] = 't'};
    if (c < 128 && short_form[c] != '\0') {
        put_whole(t, span_of((char[]){'\\', short_form[c]}, 2));
        return;
    }
    char u[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
    put_whole(t, span_of(u, sizeof u));
}

/* Bytes at the start of `s` that need no escape and are ASCII. */
static size_t plain_run(struct span s)
{
    size_t i = 0;
    while (i < s.n && s.p[i] >= 0x20 && s.p[i] < 0x7f && s.p[i] != '"' && s.p[i] != '\\')
        i++;
    return i;
}

void text_json(struct text *t, struct span s)
{
    text_putc(t, '"');
    while (s.n > 0 && !t->cut) {
        size_t n = plain_run(s);
        if (n > 0) {
            text_put(t, span_of(s.p, n));
        } else {
            n = utf8_sequence(s);
            /* U+0080..U+009F are control characters too: terminals obey some of them. */
            bool c1 = n == 2 && s.p[0] == 0xc2 && s.p[1] < 0xa0;
            if (n >= 2 && !c1) {
                put_whole(t, span_of(s.p, n));
            } else {
                put_escaped(t, c1 ? s.p[1] : s.p[0]);
                n = c1 ? 2 : 1;
            }
        }
        s.p += n;
        s.n -= n;
    }
    text_putc(t, '"');
}

void text_put_clean(struct text *t, struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        text_putc(t, s.p[i] >= 0x20 && s.p[i] < 0x7f ? (char)s.p[i] : '?');
}
