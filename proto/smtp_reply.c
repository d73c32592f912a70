/*
 * smtp_reply - see smtp_reply.h.
 *
 * A reply ends with the first line whose code is followed by anything but "-". A line without a
 * code is the end of the talk when it comes first; inside a reply it is kept as text and ignored,
 * since some servers wrap their texts.
 */
#include "proto/smtp_reply.h"

#include <stddef.h>

enum { CODE_DIGITS = 3, ENHANCED_DIGITS_MAX = 3 };

enum line_kind { LINE_TEXT, LINE_MORE, LINE_LAST };

void smtp_reply_reader_reset(struct smtp_reply_reader *r)
{
    /* The line buffer needs no clearing: line_bytes says what of it counts. */
    memset(r, 0, offsetof(struct smtp_reply_reader, line));
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct span skip_blanks(struct span s)
{
    while (s.n > 0 && is_blank(s.p[0]))
        s = span_skip(s, 1);
    return s;
}

/* The code that a line begins with, 200..599, or 0. */
static uint16_t line_code(struct span line)
{
    if (line.n < CODE_DIGITS || line.p[0] < '2' || line.p[0] > '5' || !is_digit(line.p[1]) ||
        !is_digit(line.p[2]))
        return 0;
    if (line.n > CODE_DIGITS && is_digit(line.p[CODE_DIGITS]))
        return 0;
    return (uint16_t)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0'));
}

/* What follows the code and its separator; the whole line when it has no code. */
static struct span line_text(struct span line)
{
    if (line_code(line) == 0)
        return line;
    line = span_skip(line, CODE_DIGITS);
    if (line.n > 0 && (line.p[0] == '-' || is_blank(line.p[0])))
        line = span_skip(line, 1);
    return line;
}

/* Up to three digits; false without any, or with more. */
static bool take_number(struct span *s, uint16_t *out)
{
    size_t n = 0;
    *out = 0;
    while (n < s->n && is_digit(s->p[n])) {
        if (n == ENHANCED_DIGITS_MAX)
            return false;
        *out = (uint16_t)(*out * 10 + (s->p[n++] - '0'));
    }
    *s = span_skip(*s, n);
    return n > 0;
}

static bool take_dot(struct span *s)
{
    if (s->n == 0 || s->p[0] != '.')
        return false;
    *s = span_skip(*s, 1);
    return true;
}

/* class.subject.detail at the start of `s`, not running on into a longer word (RFC 3463 2). */
static bool parse_enhanced(struct span s, struct smtp_enhanced *out)
{
    uint16_t class_, subject, detail;
    if (!take_number(&s, &class_) || !take_dot(&s) || !take_number(&s, &subject) || !take_dot(&s) ||
        !take_number(&s, &detail))
        return false;
    if (class_ != 2 && class_ != 4 && class_ != 5)
        return false;
    if (s.n > 0 && (is_digit(s.p[0]) || ((s.p[0] | 0x20) >= 'a' && (s.p[0] | 0x20) <= 'z')))
        return false;
    if (s.n > 1 && s.p[0] == '.' && is_digit(s.p[1]))
        return false;
    *out = (struct smtp_enhanced){(uint8_t)class_, subject, detail};
    return true;
}

/* At the start of the text, or anywhere after a '#', as qmail and its kin write it: "(#5.1.1)". */
static bool find_enhanced(struct span text, struct smtp_enhanced *out)
{
    text = skip_blanks(text);
    if (parse_enhanced(text, out))
        return true;
    for (;;) {
        const uint8_t *hash = text.n == 0 ? NULL : memchr(text.p, '#', text.n);
        if (hash == NULL)
            return false;
        text = span_skip(text, (size_t)(hash - text.p) + 1);
        if (parse_enhanced(text, out))
            return true;
    }
}

/* Keeps the line in the reply's text, as far as there is room. */
static void keep_text(struct smtp_reply *r, struct span line)
{
    size_t room = LIMIT_REPLY_KEPT_BYTES - r->text_bytes;
    if (r->lines > 0 && room > 0) {
        r->text[r->text_bytes++] = '\n';
        room--;
    }
    size_t n = line.n < room ? line.n : room;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = line.p[i];
        bool control = (c < 0x20 && c != '\t') || c == 0x7f;
        r->text[r->text_bytes++] = control ? '?' : (char)c;
    }
    r->text[r->text_bytes] = '\0';
}

static enum line_kind take_line(struct smtp_reply_reader *r, struct span line)
{
    struct smtp_reply *reply = &r->reply;
    struct smtp_enhanced enhanced;

    while (line.n > 0 && (line.p[line.n - 1] == '\r' || is_blank(line.p[line.n - 1])))
        line.n--;
    line = skip_blanks(line);
    keep_text(reply, line);
    reply->lines++;
    uint16_t code = line_code(line);
    if (code == 0)
        return LINE_TEXT;
    reply->code = code;
    if (find_enhanced(line_text(line), &enhanced) && r->seen[enhanced.class_].class_ == 0)
        r->seen[enhanced.class_] = enhanced;
    if (line.n > CODE_DIGITS && line.p[CODE_DIGITS] == '-')
        return LINE_MORE;
    reply->enhanced = r->seen[code / 100];
    return LINE_LAST;
}

/* Moves bytes up to and including the next LF into the line; true when the line is whole. */
static bool fill_line(struct smtp_reply_reader *r, struct span *in)
{
    size_t room = sizeof r->line - r->line_bytes;
    size_t n = in->n < room ? in->n : room;
    const uint8_t *lf = n == 0 ? NULL : memchr(in->p, '\n', n);
    if (lf != NULL)
        n = (size_t)(lf - in->p) + 1;
    if (n > 0)
        memcpy(r->line + r->line_bytes, in->p, n);
    r->line_bytes = (uint16_t)(r->line_bytes + n);
    r->bytes += (uint32_t)n;
    *in = span_skip(*in, n);
    return lf != NULL;
}

enum smtp_reply_result smtp_reply_feed(struct smtp_reply_reader *r, struct span *in)
{
    if (r->done)
        smtp_reply_reader_reset(r);
    while (in->n > 0) {
        bool whole = fill_line(r, in);
        if (r->bytes > LIMIT_REMOTE_REPLY_BYTES)
            return SMTP_REPLY_BROKEN;
        if (!whole) {
            if (r->line_bytes == sizeof r->line)
                return SMTP_REPLY_BROKEN;
            return SMTP_REPLY_MORE;
        }
        bool first = r->reply.lines == 0;
        enum line_kind kind = take_line(r, span_of(r->line, (size_t)r->line_bytes - 1));
        r->line_bytes = 0;
        if (kind == LINE_LAST) {
            r->done = true;
            return SMTP_REPLY_DONE;
        }
        if ((first && kind == LINE_TEXT) || r->reply.lines >= LIMIT_REMOTE_REPLY_LINES)
            return SMTP_REPLY_BROKEN;
    }
    return SMTP_REPLY_MORE;
}

/* Cuts the next line off a kept text; false when there is none. */
static bool next_line(struct span *text, struct span *line)
{
    if (text->p == NULL)
        return false;
    const uint8_t *lf = text->n == 0 ? NULL : memchr(text->p, '\n', text->n);
    *line = lf == NULL ? *text : span_of(text->p, (size_t)(lf - text->p));
    *text = lf == NULL ? (struct span){NULL, 0} : span_skip(*text, line->n + 1);
    return true;
}

struct span smtp_reply_text_line(const struct smtp_reply *r, unsigned i)
{
    struct span text = span_of(r->text, r->text_bytes);
    struct span line;
    while (next_line(&text, &line)) {
        if (i-- == 0)
            return line_text(line);
    }
    return (struct span){NULL, 0};
}

/* ---- EHLO ---- */

static struct span take_word(struct span *s)
{
    size_t n = 0;
    *s = skip_blanks(*s);
    while (n < s->n && !is_blank(s->p[n]))
        n++;
    struct span word = span_of(s->p, n);
    *s = span_skip(*s, n);
    return word;
}

static void parse_limit(struct span word, const char *name, uint32_t *out)
{
    struct span lead = span_str(name);
    uint64_t v;
    if (span_ihas_prefix(word, lead) && span_to_u64(span_skip(word, lead.n), &v) == 0)
        *out = v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static void parse_keyword(struct span line, struct smtp_offer *out)
{
    static const struct {
        const char *name;
        size_t offset;
    } keywords[] = {
        {"PIPELINING", offsetof(struct smtp_offer, pipelining)},
        {"CHUNKING", offsetof(struct smtp_offer, chunking)},
        {"8BITMIME", offsetof(struct smtp_offer, eightbitmime)},
        {"SMTPUTF8", offsetof(struct smtp_offer, smtputf8)},
        {"SIZE", offsetof(struct smtp_offer, size)},
        {"STARTTLS", offsetof(struct smtp_offer, starttls)},
        {"DSN", offsetof(struct smtp_offer, dsn)},
        {"ENHANCEDSTATUSCODES", offsetof(struct smtp_offer, enhanced)},
    };
    struct span word = take_word(&line);

    for (size_t i = 0; i < ARRAY_COUNT(keywords); i++) {
        if (span_ieq(word, span_str(keywords[i].name)))
            *(bool *)((uint8_t *)out + keywords[i].offset) = true;
    }
    uint64_t size;
    if (span_ieq(word, span_str("SIZE")) && span_to_u64(take_word(&line), &size) == 0)
        out->size_max = size;
    if (!span_ieq(word, span_str("LIMITS")))
        return;
    while ((word = take_word(&line)).n > 0) {
        parse_limit(word, "RCPTMAX=", &out->rcpt_max);
        parse_limit(word, "MAILMAX=", &out->mail_max);
    }
}

void smtp_offer_parse(const struct smtp_reply *ehlo, struct smtp_offer *out)
{
    struct span text = span_of(ehlo->text, ehlo->text_bytes);
    struct span line;

    *out = (struct smtp_offer){0};
    /* The first line is the server's name. */
    for (unsigned i = 0; i < LIMIT_EHLO_LINES && next_line(&text, &line); i++) {
        if (i > 0)
            parse_keyword(line_text(line), out);
    }
}
