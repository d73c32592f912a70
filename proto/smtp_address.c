/*
 * smtp_address - see smtp_address.h.
 *
 * Everything is read as if UTF-8 were allowed, and judged at the end: so invalid UTF-8 is always a
 * syntax error, and NEEDS_UTF8 means that SMTPUTF8 alone was missing. Too long is likewise said
 * only of what is otherwise well-formed.
 */
#include "proto/smtp_address.h"

#include "base/net.h"
#include "proto/limits.h"

enum { LABEL_CHARS_MAX = 63 };

struct scan {
    struct span left;
    bool utf8;
    bool too_long;
};

static bool next_is(const struct scan *s, uint8_t c)
{
    return s->left.n > 0 && s->left.p[0] == c;
}

static struct span take(struct scan *s, size_t n)
{
    struct span taken = span_of(s->left.p, n);
    s->left = span_skip(s->left, n);
    return taken;
}

static bool take_if(struct scan *s, uint8_t c)
{
    if (!next_is(s, c))
        return false;
    take(s, 1);
    return true;
}

static bool is_alnum(uint8_t c)
{
    uint8_t letter = c | 0x20;
    return (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9');
}

/* RFC 5322 3.2.3 */
static bool is_atext(uint8_t c)
{
    return is_alnum(c) || (c > 0x20 && c < 0x7f && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Bytes of the character beyond ASCII that `s` begins with; 0 for none. C1 controls are refused. */
static size_t wide_char_bytes(struct span s)
{
    size_t n = utf8_sequence(s);
    if (n < 2 || (s.p[0] == 0xc2 && s.p[1] < 0xa0))
        return 0;
    return n;
}

static bool take_wide_char(struct scan *s)
{
    size_t n = wide_char_bytes(s->left);
    if (n == 0)
        return false;
    s->utf8 = true;
    take(s, n);
    return true;
}

static bool scan_atom(struct scan *s)
{
    size_t before = s->left.n;
    while (s->left.n > 0) {
        if (is_atext(s->left.p[0]))
            take(s, 1);
        else if (!take_wide_char(s))
            break;
    }
    return s->left.n < before;
}

static bool scan_dot_string(struct scan *s)
{
    do {
        if (!scan_atom(s))
            return false;
    } while (take_if(s, '.'));
    return true;
}

/* Quoted-string of RFC 5321 4.1.2: no folding white space, no controls. */
static bool scan_quoted(struct scan *s)
{
    if (!take_if(s, '"'))
        return false;
    while (s->left.n > 0 && !next_is(s, '"')) {
        if (take_if(s, '\\') && s->left.n == 0)
            return false;
        if (s->left.p[0] >= 0x20 && s->left.p[0] < 0x7f)
            take(s, 1);
        else if (!take_wide_char(s))
            return false;
    }
    return take_if(s, '"');
}

static bool scan_local(struct scan *s, struct span *out)
{
    const uint8_t *from = s->left.p;
    if (!(next_is(s, '"') ? scan_quoted(s) : scan_dot_string(s)))
        return false;
    *out = span_of(from, (size_t)(s->left.p - from));
    if (out->n > LIMIT_LOCAL_PART_BYTES)
        s->too_long = true;
    return true;
}

/* One label: letters, digits and inner hyphens; counted in characters, which is octets in ASCII. */
static bool scan_label(struct scan *s, bool underscore)
{
    size_t chars = 0;
    bool ends_in_hyphen = false;
    while (s->left.n > 0) {
        uint8_t c = s->left.p[0];
        if (c == '-' && chars == 0)
            return false;
        if (is_alnum(c) || c == '-' || (underscore && c == '_'))
            take(s, 1);
        else if (!take_wide_char(s))
            break;
        ends_in_hyphen = c == '-';
        chars++;
    }
    if (chars > LABEL_CHARS_MAX)
        s->too_long = true;
    return chars > 0 && !ends_in_hyphen;
}

static bool scan_labels(struct scan *s, bool underscore, struct span *out)
{
    const uint8_t *from = s->left.p;
    do {
        if (!scan_label(s, underscore))
            return false;
    } while (take_if(s, '.'));
    *out = span_of(from, (size_t)(s->left.p - from));
    if (out->n > LIMIT_DOMAIN_BYTES)
        s->too_long = true;
    return true;
}

/* [192.0.2.1] or [IPv6:2001:db8::1]; no other tag was ever registered. */
static bool scan_literal(struct scan *s, struct span *out)
{
    const uint8_t *end = s->left.n == 0 ? NULL : memchr(s->left.p, ']', s->left.n);
    struct span tag = span_str("IPv6:");
    struct ip ip;

    if (!next_is(s, '[') || end == NULL)
        return false;
    struct span whole = span_of(s->left.p, (size_t)(end - s->left.p) + 1);
    struct span inner = span_of(whole.p + 1, whole.n - 2);
    bool v6 = span_ihas_prefix(inner, tag);
    if (v6)
        inner = span_of(inner.p + tag.n, inner.n - tag.n);
    if (ip_parse(inner, &ip) < 0 || (memchr(inner.p, ':', inner.n) != NULL) != v6)
        return false;
    *out = take(s, whole.n);
    return true;
}

static bool scan_domain(struct scan *s, struct span *out, bool *is_literal)
{
    *is_literal = next_is(s, '[');
    return *is_literal ? scan_literal(s, out) : scan_labels(s, false, out);
}

/* @a.example,@b.example: - obsolete since RFC 5321 app. C, to be read and thrown away. */
static bool scan_route(struct scan *s)
{
    struct span domain;
    bool literal;

    if (!next_is(s, '@'))
        return true;
    do {
        if (!take_if(s, '@') || !scan_domain(s, &domain, &literal))
            return false;
    } while (take_if(s, ','));
    return take_if(s, ':');
}

static bool scan_mailbox(struct scan *s, unsigned flags, struct smtp_address *out)
{
    const uint8_t *from = s->left.p;
    if (!scan_local(s, &out->local))
        return false;
    if (take_if(s, '@')) {
        if (!scan_domain(s, &out->domain, &out->is_literal))
            return false;
    } else if (!(flags & ADDRESS_ALLOW_BARE_POSTMASTER) ||
               !span_ieq(out->local, span_str("postmaster"))) {
        return false;
    }
    out->text = span_of(from, (size_t)(s->left.p - from));
    return true;
}

static bool scan_path(struct scan *s, unsigned flags, struct smtp_address *out)
{
    if (!take_if(s, '<'))
        return (flags & ADDRESS_ALLOW_NO_BRACKETS) && scan_mailbox(s, flags, out);
    if ((flags & ADDRESS_ALLOW_NULL) && take_if(s, '>')) {
        out->is_null = true;
        return true;
    }
    return scan_route(s) && scan_mailbox(s, flags, out) && take_if(s, '>');
}

enum address_error smtp_path_parse(struct span in, unsigned flags, struct smtp_address *out,
                                   struct span *rest)
{
    struct scan s = {.left = in};

    *out = (struct smtp_address){0};
    *rest = in;
    if (!scan_path(&s, flags, out)) {
        *out = (struct smtp_address){0};
        return ADDRESS_SYNTAX;
    }
    /* 8-bit octets of a dropped source route count as well: they came over the wire. */
    out->is_utf8 = s.utf8;
    *rest = s.left;
    if (s.too_long)
        return ADDRESS_TOO_LONG;
    if (s.utf8 && !(flags & ADDRESS_ALLOW_UTF8))
        return ADDRESS_NEEDS_UTF8;
    MUST(out->text.n <= LIMIT_ADDRESS_BYTES);
    return ADDRESS_OK;
}

bool smtp_domain_ok(struct span in, bool utf8)
{
    struct scan s = {.left = in};
    struct span domain;
    bool literal;
    return scan_domain(&s, &domain, &literal) && s.left.n == 0 && !s.too_long && (utf8 || !s.utf8);
}

bool smtp_ehlo_name_ok(struct span in)
{
    struct scan s = {.left = in};
    struct span name;
    bool ok = next_is(&s, '[') ? scan_literal(&s, &name) : scan_labels(&s, true, &name);
    return ok && s.left.n == 0 && !s.too_long && !s.utf8;
}
