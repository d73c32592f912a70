/*
 * Invariants: an entity is a span of whole lines, or ends where the message ends; what is copied
 * keeps its doubled dots, what is encoded loses them and never begins a line with a dot again.
 */
#include "proto/mime_downgrade.h"

#include <errno.h>

enum { QP_LINE_MAX = 76, BASE64_LINE_BYTES = 57, BOUNDARY_MAX = 70, PART_GROWTH = 128 };

struct down {
    struct writer *out;
    unsigned depth;
    unsigned parts;
};

enum encoding { ENCODING_NONE, ENCODING_IDENTITY /* 7bit, 8bit, binary */, ENCODING_OTHER };
enum kind {
    KIND_TEXT,
    KIND_MULTIPART,
    KIND_OPAQUE, /* may not be changed: message/..., multipart/signed and encrypted */
    KIND_OTHER
};

/* What the header of an entity says. */
struct entity {
    struct span header; /* with the empty line, if there is one */
    struct span body;
    enum encoding encoding;
    enum kind kind;
    bool has_type, has_version;
    char boundary[BOUNDARY_MAX + 1];
    size_t boundary_bytes;
};

size_t mime_downgrade_room(size_t n)
{
    return 4 * n +
           PART_GROWTH * (MIME_PARTS_MAX + 1); /* =XX, soft breaks, and fields of each part */
}

static bool has_8bit(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 0x80)
            return true;
    return false;
}

/* Takes one line off *s, with its CRLF; the last may lack it. */
static struct span take_line(struct span *s)
{
    size_t n = 0;
    while (n < s->n) {
        const uint8_t *lf = memchr(s->p + n, '\n', s->n - n);
        if (lf == NULL) {
            n = s->n;
            break;
        }
        n = (size_t)(lf - s->p) + 1;
        if (n >= 2 && lf[-1] == '\r')
            break;
    }
    struct span line = span_of(s->p, n);
    *s = span_skip(*s, n);
    return line;
}

static bool ends_crlf(struct span s)
{
    return s.n >= 2 && s.p[s.n - 2] == '\r' && s.p[s.n - 1] == '\n';
}

static struct span without_crlf(struct span s)
{
    return ends_crlf(s) ? span_of(s.p, s.n - 2) : s;
}

/* The line as it was before its dot was doubled. */
static struct span undotted(struct span line)
{
    return line.n > 0 && line.p[0] == '.' ? span_skip(line, 1) : line;
}

/* --- structured field bodies: tokens, comments and quoted strings (RFC 2045 5.1) --- */

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_comment(struct span *s)
{
    unsigned depth = 0;
    while (s->n > 0) {
        uint8_t c = s->p[0];
        *s = span_skip(*s, c == '\\' && s->n > 1 ? 2 : 1);
        if (c == '(')
            depth++;
        else if (c == ')' && --depth == 0)
            return;
    }
}

static void skip_space(struct span *s)
{
    while (s->n > 0 && (is_space(s->p[0]) || s->p[0] == '('))
        if (s->p[0] == '(')
            skip_comment(s);
        else
            *s = span_skip(*s, 1);
}

static bool is_token(uint8_t c)
{
    return c > ' ' && c < 0x7f && memchr("()<>@,;:\\\"/[]?=", c, 15) == NULL;
}

static struct span take_token(struct span *s)
{
    skip_space(s);
    size_t n = 0;
    while (n < s->n && is_token(s->p[n]))
        n++;
    struct span t = span_of(s->p, n);
    *s = span_skip(*s, n);
    return t;
}

static bool take_char(struct span *s, uint8_t c)
{
    skip_space(s);
    if (s->n == 0 || s->p[0] != c)
        return false;
    *s = span_skip(*s, 1);
    return true;
}

/* A token or quoted string into out; SIZE_MAX when it is neither or does not fit. */
static size_t take_value(struct span *s, char *out, size_t cap)
{
    size_t n = 0;
    if (!take_char(s, '"')) {
        struct span t = take_token(s);
        if (t.n == 0 || t.n > cap)
            return SIZE_MAX;
        memcpy(out, t.p, t.n);
        return t.n;
    }
    while (s->n > 0 && s->p[0] != '"') {
        if (s->p[0] == '\\' && s->n > 1)
            *s = span_skip(*s, 1);
        if (n == cap)
            return SIZE_MAX;
        out[n++] = (char)s->p[0];
        *s = span_skip(*s, 1);
    }
    return take_char(s, '"') ? n : SIZE_MAX;
}

/* --- the header of an entity --- */

static void read_type(struct entity *e, struct span value)
{
    struct span type = take_token(&value);
    bool slash = take_char(&value, '/');
    struct span subtype = take_token(&value);
    e->has_type = true;
    e->kind = KIND_OTHER;
    if (!slash || type.n == 0 || subtype.n == 0)
        return;
    if (span_ieq(type, span_str("text")))
        e->kind = KIND_TEXT;
    else if (span_ieq(type, span_str("message")))
        e->kind = KIND_OPAQUE;
    else if (span_ieq(type, span_str("multipart")))
        e->kind = span_ieq(subtype, span_str("signed")) || span_ieq(subtype, span_str("encrypted"))
                      ? KIND_OPAQUE
                      : KIND_MULTIPART;
    while (take_char(&value, ';')) {
        char other[1024];
        struct span name = take_token(&value);
        if (!take_char(&value, '='))
            continue;
        bool is_boundary = span_ieq(name, span_str("boundary"));
        size_t n = take_value(&value, is_boundary ? e->boundary : other,
                              is_boundary ? BOUNDARY_MAX : sizeof other);
        if (n == SIZE_MAX)
            return;
        if (is_boundary)
            e->boundary_bytes = n;
    }
}

static enum encoding encoding_of(struct span value)
{
    struct span t = take_token(&value);
    bool identity = span_ieq(t, span_str("7bit")) || span_ieq(t, span_str("8bit")) ||
                    span_ieq(t, span_str("binary"));
    return identity ? ENCODING_IDENTITY : ENCODING_OTHER;
}

/* Takes one field with its folded lines. */
static struct span take_field(struct span *s)
{
    struct span field = take_line(s);
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        field.n += take_line(s).n;
    return field;
}

static bool is_field(struct span field, const char *name, struct span *value)
{
    size_t n = strlen(name);
    if (!span_ihas_prefix(field, span_str(name)))
        return false;
    struct span rest = span_skip(field, n);
    while (rest.n > 0 && (rest.p[0] == ' ' || rest.p[0] == '\t'))
        rest = span_skip(rest, 1);
    if (rest.n == 0 || rest.p[0] != ':')
        return false;
    *value = span_skip(rest, 1);
    return true;
}

static bool is_empty_line(struct span line)
{
    return line.n == 2 && ends_crlf(line);
}

/* Reads the header; e->body is what follows its empty line. */
static void entity_read(struct span s, struct entity *e)
{
    memset(e, 0, sizeof *e);
    e->kind = KIND_TEXT; /* RFC 2045 5.2 */
    const uint8_t *start = s.p;
    while (s.n > 0) {
        struct span value, field = take_field(&s);
        if (is_empty_line(field))
            break;
        if (is_field(field, "Content-Type", &value))
            read_type(e, value);
        else if (is_field(field, "Content-Transfer-Encoding", &value) &&
                 e->encoding == ENCODING_NONE)
            e->encoding = encoding_of(value);
        else if (is_field(field, "MIME-Version", &value))
            e->has_version = true;
    }
    e->body = s;
    e->header = span_of(start, s.p == NULL ? 0 : (size_t)(s.p - start));
}

/* The header with this encoding in place of the one it has, or added at its end; NULL: as it is. */
static void put_header(struct down *d, const struct entity *e, const char *encoding, bool top)
{
    struct span s = e->header, value;
    bool said = encoding == NULL;
    while (s.n > 0) {
        struct span field = take_field(&s);
        if (is_empty_line(field))
            break;
        if (encoding == NULL || !is_field(field, "Content-Transfer-Encoding", &value)) {
            put_bytes(d->out, field);
            if (!ends_crlf(field))
                put_bytes(d->out, span_str("\r\n"));
            continue;
        }
        if (!said) {
            put_bytes(d->out, span_str("Content-Transfer-Encoding: "));
            put_bytes(d->out, span_str(encoding));
            put_bytes(d->out, span_str("\r\n"));
        }
        said = true;
    }
    if (top && !e->has_version && encoding != NULL)
        put_bytes(d->out, span_str("MIME-Version: 1.0\r\n"));
    if (top && !e->has_type && encoding != NULL)
        put_bytes(d->out, span_str("Content-Type: text/plain; charset=unknown-8bit\r\n"));
    if (!said) {
        put_bytes(d->out, span_str("Content-Transfer-Encoding: "));
        put_bytes(d->out, span_str(encoding));
        put_bytes(d->out, span_str("\r\n"));
    }
    put_bytes(d->out, span_str("\r\n"));
}

/* --- leaf parts --- */

static void put_qp_line(struct down *d, struct span line)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t column = 0;
    for (size_t i = 0; i < line.n; i++) {
        uint8_t c = line.p[i];
        bool last = i + 1 == line.n;
        bool plain = (c > ' ' && c < 0x7f && c != '=') || ((c == ' ' || c == '\t') && !last);
        plain = plain && !(c == '.' && column == 0);
        size_t width = plain ? 1 : 3;
        if (column + width > (size_t)QP_LINE_MAX - !last) {
            put_bytes(d->out, span_str("=\r\n"));
            column = 0;
            if (c == '.') {
                plain = false;
                width = 3;
            }
        }
        if (plain) {
            put_u8(d->out, c);
        } else {
            put_u8(d->out, '=');
            put_u8(d->out, (uint8_t)hex[c >> 4]);
            put_u8(d->out, (uint8_t)hex[c & 15]);
        }
        column += width;
    }
}

static void put_quoted_printable(struct down *d, struct span body)
{
    while (body.n > 0) {
        struct span line = take_line(&body);
        put_qp_line(d, undotted(without_crlf(line)));
        if (ends_crlf(line))
            put_bytes(d->out, span_str("\r\n"));
    }
}

struct base64 {
    uint8_t held[BASE64_LINE_BYTES];
    size_t n;
    bool broke; /* a line is complete, its CRLF not yet written */
};

static void base64_flush(struct down *d, struct base64 *b)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (b->broke && b->n > 0)
        put_bytes(d->out, span_str("\r\n"));
    for (size_t i = 0; i < b->n; i += 3) {
        size_t have = b->n - i < 3 ? b->n - i : 3;
        uint32_t v = (uint32_t)b->held[i] << 16;
        v |= have > 1 ? (uint32_t)b->held[i + 1] << 8 : 0;
        v |= have > 2 ? b->held[i + 2] : 0;
        put_u8(d->out, (uint8_t)set[v >> 18]);
        put_u8(d->out, (uint8_t)set[v >> 12 & 63]);
        put_u8(d->out, (uint8_t)(have > 1 ? set[v >> 6 & 63] : '='));
        put_u8(d->out, (uint8_t)(have > 2 ? set[v & 63] : '='));
    }
    b->broke = true;
    b->n = 0;
}

static void put_base64(struct down *d, struct span body)
{
    struct base64 b = {.n = 0};
    while (body.n > 0) {
        struct span line = undotted(take_line(&body));
        for (size_t i = 0; i < line.n; i++) {
            b.held[b.n++] = line.p[i];
            if (b.n == sizeof b.held)
                base64_flush(d, &b);
        }
    }
    if (b.n > 0)
        base64_flush(d, &b);
}

/* The last CRLF of a part belongs to the delimiter after it (RFC 2046 5.1.1), that of a message to
 * the message. */
static int put_leaf(struct down *d, const struct entity *e, bool top)
{
    if (e->kind == KIND_OPAQUE || e->encoding == ENCODING_OTHER)
        return -ENOTSUP;
    bool text = e->kind == KIND_TEXT;
    put_header(d, e, text ? "quoted-printable" : "base64", top);
    struct span content = top ? e->body : without_crlf(e->body);
    if (text)
        put_quoted_printable(d, content);
    else
        put_base64(d, content);
    if (!text || content.n < e->body.n)
        put_bytes(d->out, span_str("\r\n"));
    return 0;
}

/* --- multipart --- */

enum line_is { LINE_OTHER, LINE_DELIMITER, LINE_CLOSE };

static enum line_is delimiter(const struct entity *e, struct span line)
{
    line = without_crlf(line);
    if (line.n < 2 + e->boundary_bytes || line.p[0] != '-' || line.p[1] != '-' ||
        memcmp(line.p + 2, e->boundary, e->boundary_bytes) != 0)
        return LINE_OTHER;
    line = span_skip(line, 2 + e->boundary_bytes);
    bool close = line.n >= 2 && line.p[0] == '-' && line.p[1] == '-';
    if (close)
        line = span_skip(line, 2);
    for (size_t i = 0; i < line.n; i++)
        if (!is_space(line.p[i]))
            return LINE_OTHER; /* another boundary that begins with this one */
    return close ? LINE_CLOSE : LINE_DELIMITER;
}

/* Before the first and after the last part stands what nobody reads. */
static void put_idle_text(struct down *d, struct span line)
{
    for (size_t i = 0; i < line.n; i++)
        put_u8(d->out, line.p[i] < 0x80 ? line.p[i] : '?');
}

static int put_entity(struct down *d, struct span s);

static int put_multipart(struct down *d, const struct entity *e, bool top)
{
    bool identity = e->encoding == ENCODING_IDENTITY;
    if (e->boundary_bytes == 0 || e->encoding == ENCODING_OTHER)
        return -ENOTSUP;
    put_header(d, e, identity || top ? "7bit" : NULL, top);
    struct span s = e->body, part = {0};
    bool in_part = false, closed = false, seen = false;
    while (s.n > 0) {
        struct span line = take_line(&s);
        enum line_is is = closed ? LINE_OTHER : delimiter(e, line);
        if (is == LINE_OTHER) {
            if (in_part)
                part.n += line.n;
            else
                put_idle_text(d, line);
            continue;
        }
        int r = in_part ? put_entity(d, part) : 0;
        if (r != 0)
            return r;
        put_idle_text(d, line);
        seen = true;
        closed = is == LINE_CLOSE;
        in_part = !closed;
        part = span_of(s.p, 0);
    }
    if (!seen)
        return -ENOTSUP;
    return in_part && part.n > 0 ? put_entity(d, part) : 0;
}

/* One entity: as it is when it holds no 8-bit octet. Recursion is bounded by MIME_DEPTH_MAX. */
static int put_entity(struct down *d, struct span s)
{
    bool top = d->depth == 0;
    if (!has_8bit(s)) {
        put_bytes(d->out, s);
        return 0;
    }
    if (d->depth == MIME_DEPTH_MAX || ++d->parts > MIME_PARTS_MAX)
        return -ENOTSUP;
    struct entity e;
    entity_read(s, &e);
    if (has_8bit(e.header))
        return -ENOTSUP;
    d->depth++;
    int r = e.kind == KIND_MULTIPART ? put_multipart(d, &e, top) : put_leaf(d, &e, top);
    d->depth--;
    return r;
}

static uint64_t count_dots(struct span s)
{
    uint64_t n = 0;
    while (s.n > 0) {
        struct span line = take_line(&s);
        n += line.n > 0 && line.p[0] == '.';
    }
    return n;
}

int mime_downgrade(struct span message, struct writer *out, uint64_t *dots)
{
    struct down d = {.out = out};
    MUST(out->n == 0);
    int r = put_entity(&d, message);
    if (r != 0)
        return r;
    if (out->bad)
        return -ENOSPC;
    *dots = count_dots(span_of(out->p, out->n));
    return 0;
}
