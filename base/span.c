/* span - comparisons, cursors and writers; see span.h. */
#include "base/span.h"

#include <errno.h>

static uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool span_ieq(struct span a, struct span b)
{
    return a.n == b.n && span_ihas_prefix(a, b);
}

bool span_ihas_prefix(struct span a, struct span prefix)
{
    if (a.n < prefix.n)
        return false;
    for (size_t i = 0; i < prefix.n; i++) {
        if (fold(a.p[i]) != fold(prefix.p[i]))
            return false;
    }
    return true;
}

int span_to_u64(struct span a, uint64_t *out)
{
    enum { DIGITS_MAX = 19 }; /* 10^19 - 1 still fits 64 bits */
    uint64_t v = 0;

    if (a.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < a.n; i++) {
        if (a.p[i] < '0' || a.p[i] > '9')
            return -EINVAL;
        if (i < DIGITS_MAX)
            v = v * 10 + (uint64_t)(a.p[i] - '0');
    }
    if (a.n > DIGITS_MAX)
        return -ERANGE;
    *out = v;
    return 0;
}

/*
 * The table of Unicode 15, 3-7: only the second byte of a sequence has a range that depends on the
 * first one; that range is what keeps out overlong forms, surrogates and everything over U+10FFFF.
 */
size_t utf8_sequence(struct span s)
{
    if (s.n == 0)
        return 0;
    uint8_t a = s.p[0];
    if (a < 0x80)
        return 1;
    if (a < 0xc2 || a > 0xf4)
        return 0;
    size_t n = a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
    if (s.n < n)
        return 0;
    uint8_t low = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80;
    uint8_t high = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
    if (s.p[1] < low || s.p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((s.p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

struct span cursor_bytes(struct cursor *c, size_t n)
{
    if (c->bad || cursor_left(c) < n) {
        c->bad = true;
        return (struct span){NULL, 0};
    }
    struct span s = {c->p, n};
    if (n > 0)
        c->p += n;
    return s;
}

/* The next `n` bytes as a little-endian number; 0 once the cursor is bad. */
static uint64_t cursor_number(struct cursor *c, size_t n)
{
    struct span s = cursor_bytes(c, n);
    uint64_t v = 0;
    for (size_t i = s.n; i > 0; i--)
        v = v << 8 | s.p[i - 1];
    return v;
}

uint8_t cursor_u8(struct cursor *c)
{
    return (uint8_t)cursor_number(c, 1);
}
uint16_t cursor_u16(struct cursor *c)
{
    return (uint16_t)cursor_number(c, 2);
}
uint32_t cursor_u32(struct cursor *c)
{
    return (uint32_t)cursor_number(c, 4);
}
uint64_t cursor_u64(struct cursor *c)
{
    return cursor_number(c, 8);
}
struct span cursor_str8(struct cursor *c)
{
    return cursor_bytes(c, cursor_u8(c));
}
struct span cursor_str16(struct cursor *c)
{
    return cursor_bytes(c, cursor_u16(c));
}

/* Room for n more bytes, or NULL and `bad`. */
static uint8_t *writer_room(struct writer *w, size_t n)
{
    if (w->bad || w->cap - w->n < n) {
        w->bad = true;
        return NULL;
    }
    uint8_t *at = w->p + w->n;
    w->n += n;
    return at;
}

static void put_number(struct writer *w, uint64_t v, size_t n)
{
    uint8_t *at = writer_room(w, n);
    if (at == NULL)
        return;
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

void put_u8(struct writer *w, uint8_t v)
{
    put_number(w, v, 1);
}
void put_u16(struct writer *w, uint16_t v)
{
    put_number(w, v, 2);
}
void put_u32(struct writer *w, uint32_t v)
{
    put_number(w, v, 4);
}
void put_u64(struct writer *w, uint64_t v)
{
    put_number(w, v, 8);
}

void put_bytes(struct writer *w, struct span s)
{
    if (s.n == 0)
        return;
    uint8_t *at = writer_room(w, s.n);
    if (at != NULL)
        memcpy(at, s.p, s.n);
}

/* Length and bytes together or not at all, so that a full writer never ends in a lone length. */
static void put_str(struct writer *w, struct span s, size_t length_bytes)
{
    size_t length_max = length_bytes == 1 ? UINT8_MAX : UINT16_MAX;
    if (w->bad || s.n > length_max || w->cap - w->n < length_bytes + s.n) {
        w->bad = true;
        return;
    }
    put_number(w, s.n, length_bytes);
    put_bytes(w, s);
}

void put_str8(struct writer *w, struct span s)
{
    put_str(w, s, 1);
}
void put_str16(struct writer *w, struct span s)
{
    put_str(w, s, 2);
}
