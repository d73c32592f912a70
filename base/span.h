/*
 * span - a borrowed run of bytes, and cursors that read and write fixed fields.
 *
 * A span owns nothing. A cursor has a sticky error: read all fields, test `bad` once, insist that
 * the input is used up. All integers on disk and between processes are little-endian.
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include "base/check.h"

#include <string.h>
#include <sys/types.h>

struct span {
    const uint8_t *p;
    size_t n;
};

static inline struct span span_of(const void *p, size_t n)
{
    return (struct span){(const uint8_t *)p, n};
}
static inline struct span span_str(const char *s)
{
    return span_of(s, strlen(s));
}
static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Without its first n bytes; there must be as many. */
static inline struct span span_skip(struct span s, size_t n)
{
    MUST(n <= s.n);
    return n == 0 ? s : span_of(s.p + n, s.n - n);
}
/* ASCII case-insensitive equality. */
bool span_ieq(struct span a, struct span b);
/* True when `a` begins with `prefix`, ASCII case-insensitive. */
bool span_ihas_prefix(struct span a, struct span prefix);
/* Unsigned decimal of 1..19 digits and nothing else; -EINVAL or -ERANGE otherwise. */
NODISCARD int span_to_u64(struct span a, uint64_t *out);
/* Bytes (1..4) of the valid UTF-8 sequence that s begins with (RFC 3629 4); 0 when there is none.
 */
size_t utf8_sequence(struct span s);

/* Reader with a sticky error. */
struct cursor {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

static inline struct cursor cursor_of(struct span s)
{
    return (struct cursor){s.p, s.n > 0 ? s.p + s.n : s.p, false};
}
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
/* The next n bytes, borrowed; an empty span and `bad` when there are fewer. */
struct span cursor_bytes(struct cursor *c, size_t n);
/* A span written by put_str8 / put_str16: length, then bytes. */
struct span cursor_str8(struct cursor *c);
struct span cursor_str16(struct cursor *c);
static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->p);
}

/* Writer into a fixed buffer; `bad` when it did not fit, and then nothing more is written. */
struct writer {
    uint8_t *p;
    size_t n;
    size_t cap;
    bool bad;
};

static inline struct writer writer_of(void *p, size_t cap)
{
    return (struct writer){(uint8_t *)p, 0, cap, false};
}
void put_u8(struct writer *w, uint8_t v);
void put_u16(struct writer *w, uint16_t v);
void put_u32(struct writer *w, uint32_t v);
void put_u64(struct writer *w, uint64_t v);
void put_bytes(struct writer *w, struct span s);
/* Length-prefixed bytes: at most 255 / 65535, longer sets `bad`. */
void put_str8(struct writer *w, struct span s);
void put_str16(struct writer *w, struct span s);

#endif
