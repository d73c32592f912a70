/*
 * data_scan - see data_scan.h.
 *
 * A state machine over five states; ordinary bytes of a line are skipped 16 at a time, so that it
 * is entered about three times a line. Invariants: every fact is a function of the bytes seen so
 * far, whatever spans they came in; a pending CR, and a pending dot at the start of a line, are
 * counted when the next byte says what they were.
 */
#include "proto/data_scan.h"

#include <assert.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state {
    AT_START,  /* of a line: after CRLF, or before the first byte */
    AT_DOT,    /* a dot at the start of a line */
    AT_DOT_CR, /* and a CR */
    IN_LINE,
    AFTER_CR,
    ENDED
};

/* field_bytes beyond the letters of a name: */
enum {
    FIELD_LETTERS_MAX = 16,
    FIELD_BLANK = 0xfe, /* blanks between the name and its colon (RFC 5322 4.5) */
    FIELD_VALUE = 0xff  /* behind the colon, or in a continuation line */
};

static_assert(sizeof((struct data_scan *)0)->field == FIELD_LETTERS_MAX, "letters fit the field");

void data_scan_init(struct data_scan *s)
{
    *s = (struct data_scan){.state = AT_START, .in_header = true};
}

struct seen {
    bool high;
    bool nul;
};

/* Bytes before the next CR or LF; notes NUL and 8-bit among them. */
static size_t run_bytes(const uint8_t *p, size_t n, struct seen *seen)
{
    size_t i = 0;
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    __m128i high = zero; /* sign bits: an 8-bit octet */
    __m128i nul = zero;
    unsigned end_mask = 0;

    for (; n - i >= 16; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\r')),
                                    _mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
        end_mask = (unsigned)_mm_movemask_epi8(ends);
        if (end_mask != 0) {
            /* Of this block only what is before the end belongs to the run. */
            unsigned before = (end_mask ^ (end_mask - 1)) >> 1;
            seen->high |= ((unsigned)_mm_movemask_epi8(v) & before) != 0;
            seen->nul |= ((unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, zero)) & before) != 0;
            break;
        }
        high = _mm_or_si128(high, v);
        nul = _mm_or_si128(nul, _mm_cmpeq_epi8(v, zero));
    }
    seen->high |= _mm_movemask_epi8(high) != 0;
    seen->nul |= _mm_movemask_epi8(nul) != 0;
    if (end_mask != 0)
        return i + (size_t)__builtin_ctz(end_mask);
#endif
    for (; i < n && p[i] != '\r' && p[i] != '\n'; i++) {
        seen->high |= p[i] >= 0x80;
        seen->nul |= p[i] == 0;
    }
    return i;
}

/* One feed: the span and where we are in it. */
struct feed {
    const uint8_t *p;
    size_t n;
    size_t at;
    size_t header_from; /* bytes of the span that are counted in header_bytes already */
};

static void count_header(struct data_scan *s, struct feed *f)
{
    s->header_bytes += (uint32_t)(f->at - f->header_from);
    f->header_from = f->at;
}

static void leave_header(struct data_scan *s, struct feed *f)
{
    count_header(s, f);
    s->in_header = false;
}

static void end_field_name(struct data_scan *s)
{
    struct span name = span_of(s->field, s->field_bytes);
    /* A name of 16 letters and more is cut at 16; ours are shorter, so it equals none. */
    if (span_ieq(name, span_str("Received")))
        s->received_fields++;
    else if (span_ieq(name, span_str("Delivered-To")))
        s->delivered_to_fields++;
    s->header_fields++;
    s->field_bytes = FIELD_VALUE;
}

/*
 * One byte of a header line up to its colon, other than a letter of the name. False: this is no
 * header line, so the header section is over although no empty line came (RFC 5322 3.5 asks for
 * none when there is no header at all).
 */
static bool header_byte(struct data_scan *s, uint8_t c)
{
    bool blank = c == ' ' || c == '\t';
    if (s->field_bytes == 0) {
        if (c == ':' || (blank && s->header_fields == 0))
            return false;
        if (blank) {
            s->field_bytes = FIELD_VALUE;
            return true;
        }
    }
    if (blank) {
        if (s->field_bytes != FIELD_BLANK) {
            /* The name is whole: its end is marked by zeroes while blanks pass. */
            memset(s->field + s->field_bytes, 0, (size_t)FIELD_LETTERS_MAX - s->field_bytes);
            s->field_bytes = FIELD_BLANK;
        }
        return true;
    }
    if (c == ':') {
        if (s->field_bytes == FIELD_BLANK)
            s->field_bytes = (uint8_t)strnlen(s->field, FIELD_LETTERS_MAX);
        end_field_name(s);
        return true;
    }
    return false;
}

/* The letters of a name that come next are taken in one go; 0 when none may come now. */
static size_t take_name_letters(struct data_scan *s, const uint8_t *p, size_t n)
{
    size_t letters = 0;
    if (s->field_bytes == FIELD_BLANK)
        return 0;
    while (letters < n && p[letters] > 0x20 && p[letters] < 0x7f && p[letters] != ':')
        letters++;
    size_t room = (size_t)FIELD_LETTERS_MAX - s->field_bytes;
    size_t kept = letters < room ? letters : room;
    memcpy(s->field + s->field_bytes, p, kept);
    s->field_bytes = (uint8_t)(s->field_bytes + kept);
    return letters;
}

static bool in_field_name(const struct data_scan *s)
{
    return s->in_header && s->field_bytes != FIELD_VALUE;
}

/* Reads the name of a header field up to its colon, the end of the span, or what is no name. */
static void scan_field_name(struct data_scan *s, struct feed *f)
{
    while (f->at < f->n && f->p[f->at] != '\r' && in_field_name(s)) {
        size_t letters = take_name_letters(s, f->p + f->at, f->n - f->at);
        if (letters > 0) {
            f->at += letters;
            s->line_bytes += (uint32_t)letters;
            continue;
        }
        uint8_t c = f->p[f->at++];
        s->line_bytes++;
        s->has_8bit |= c >= 0x80;
        s->has_nul |= c == 0;
        if (!header_byte(s, c)) {
            s->bare_lf += c == '\n';
            leave_header(s, f);
        }
    }
}

/* A CR LF that is the end of a line has been consumed. */
static void end_line(struct data_scan *s, struct feed *f)
{
    if (s->line_bytes > s->line_bytes_max)
        s->line_bytes_max = s->line_bytes;
    s->line_bytes = 0;
    if (s->in_header) {
        if (s->field_bytes != FIELD_VALUE) /* an empty line, or a line without a colon */
            leave_header(s, f);
        s->field_bytes = 0;
    }
    s->state = AT_START;
}

/*
 * Whole lines of a body at a time: most bytes of all mail pass here. Stops before a CR or LF that
 * it leaves to the state machine, or at the dot that begins a line.
 */
static void skip_body_lines(struct data_scan *s, struct feed *f)
{
    struct seen seen = {false, false};
    uint32_t line_bytes = s->line_bytes;
    uint32_t line_bytes_max = s->line_bytes_max;
    size_t at = f->at;

    for (;;) {
        size_t run = run_bytes(f->p + at, f->n - at, &seen);
        at += run;
        line_bytes += (uint32_t)run;
        /* The byte after the line end must be there too, to see that it is no dot. */
        if (f->n - at < 3 || f->p[at] != '\r' || f->p[at + 1] != '\n')
            break;
        at += 2;
        line_bytes_max = line_bytes > line_bytes_max ? line_bytes : line_bytes_max;
        line_bytes = 0;
        if (f->p[at] == '.') {
            s->state = AT_START;
            break;
        }
    }
    f->at = at;
    s->line_bytes = line_bytes;
    s->line_bytes_max = line_bytes_max;
    s->has_8bit |= seen.high;
    s->has_nul |= seen.nul;
}

static void step_in_line(struct data_scan *s, struct feed *f)
{
    if (in_field_name(s))
        scan_field_name(s, f);
    if (!s->in_header) {
        skip_body_lines(s, f);
        if (s->state == AT_START)
            return;
    }
    struct seen seen = {false, false};
    size_t run = run_bytes(f->p + f->at, f->n - f->at, &seen);
    s->line_bytes += (uint32_t)run;
    s->has_8bit |= seen.high;
    s->has_8bit_header |= seen.high && s->in_header;
    s->has_nul |= seen.nul;
    f->at += run;
    if (f->at == f->n)
        return;
    if (f->p[f->at] == '\n') {
        f->at++;
        s->bare_lf++;
        s->line_bytes++;
    } else if (f->n - f->at >= 2 && f->p[f->at + 1] == '\n') {
        f->at += 2;
        end_line(s, f);
    } else {
        f->at++;
        s->state = AFTER_CR;
    }
}

static void step_after_cr(struct data_scan *s, struct feed *f)
{
    if (f->p[f->at] == '\n') {
        f->at++;
        end_line(s, f);
        return;
    }
    /* The CR before was bare; this byte is judged anew. */
    s->bare_cr++;
    s->line_bytes++;
    if (in_field_name(s))
        leave_header(s, f);
    if (f->p[f->at] == '\r')
        f->at++;
    else
        s->state = IN_LINE;
}

static void step_at_start(struct data_scan *s, struct feed *f, bool stuffed)
{
    uint8_t c = f->p[f->at];
    s->state = IN_LINE;
    if (c == '.' && !stuffed) {
        s->dots++;
    } else if (c == '.') {
        s->state = AT_DOT;
        f->at++;
    } else if (c == '\r') {
        s->state = AFTER_CR;
        f->at++;
    }
}

/* The dot at the start of this line did not end the message. */
static void count_dot(struct data_scan *s, enum state next)
{
    s->dots++;
    s->line_bytes++;
    s->state = (uint8_t)next;
}

/* Runs over the span; true when the end was found, with f->at on the LF that completed it. */
static bool scan(struct data_scan *s, struct feed *f, bool stuffed)
{
    while (f->at < f->n) {
        switch ((enum state)s->state) {
        case AT_START:
            step_at_start(s, f, stuffed);
            break;
        case AT_DOT:
            if (f->p[f->at] == '\r') {
                f->at++;
                s->state = AT_DOT_CR;
            } else {
                count_dot(s, IN_LINE);
            }
            break;
        case AT_DOT_CR:
            if (f->p[f->at] == '\n')
                return true;
            count_dot(s, AFTER_CR);
            break;
        case IN_LINE:
            step_in_line(s, f);
            break;
        case AFTER_CR:
            step_after_cr(s, f);
            break;
        case ENDED:
            MUST(s->state != ENDED); /* fed after its end */
            break;
        }
    }
    return false;
}

static void count_span(struct data_scan *s, struct feed *f)
{
    s->bytes += f->at;
    if (s->in_header)
        count_header(s, f);
    if (s->line_bytes > s->line_bytes_max)
        s->line_bytes_max = s->line_bytes;
}

struct data_scan_result data_scan_feed(struct data_scan *s, struct span in)
{
    enum { MARK_BYTES = 2 }; /* of the end mark ".\r\n", without the LF that f.at points to */
    struct feed f = {in.p, in.n, 0, 0};

    MUST(s->state != ENDED);
    bool done = scan(s, &f, true);
    count_span(s, &f);
    if (!done)
        return (struct data_scan_result){.message_bytes = in.n, .consumed = in.n};
    s->state = ENDED;
    MUST(s->bytes >= MARK_BYTES);
    s->bytes -= MARK_BYTES;
    if (s->in_header)
        s->header_bytes -= MARK_BYTES;
    return (struct data_scan_result){
        .message_bytes = f.at >= MARK_BYTES ? f.at - MARK_BYTES : 0,
        .consumed = f.at + 1,
        .excess = f.at >= MARK_BYTES ? 0 : MARK_BYTES - f.at,
        .done = true,
    };
}

void bdat_scan_feed(struct data_scan *s, struct span in)
{
    struct feed f = {in.p, in.n, 0, 0};
    MUST(s->state != ENDED);
    MUST(!scan(s, &f, false));
    count_span(s, &f);
}

bool bdat_scan_end(struct data_scan *s)
{
    bool whole_line = s->state == AT_START;
    MUST(s->state != ENDED);
    if (s->state == AFTER_CR) {
        s->bare_cr++;
        s->line_bytes++;
        if (s->line_bytes > s->line_bytes_max)
            s->line_bytes_max = s->line_bytes;
    }
    s->state = ENDED;
    return whole_line;
}

/* ---- wire form ---- */

enum wire_state {
    WIRE_START, /* of a line: 0, as at the beginning */
    WIRE_LINE,
    WIRE_CR,   /* when normalising, its CRLF is written already */
    WIRE_MADE, /* after a bare LF that was made a CRLF */
    WIRE_DOT   /* a sender's dot at the start of a line, not written yet */
};

/*
 * Two places where a line end that we make could make an end of the message (RFC 5321 2.3.8):
 * a line that begins because of it is stuffed always, since no sender doubled a dot in the middle
 * of a line; and a stuffed dot right before it is left away, as the line is empty without it.
 */
static size_t wire_plain(uint8_t c, enum wire_state before, bool normalise, bool stuff,
                         uint8_t *out)
{
    size_t n = 0;
    bool made = normalise && (before == WIRE_CR || before == WIRE_MADE);
    if (before == WIRE_DOT || (c == '.' && (made || (stuff && before == WIRE_START))))
        out[n++] = '.';
    out[n++] = c;
    return n;
}

size_t wire_form(struct span in, bool normalise, bool stuff, uint8_t *state, uint8_t *out)
{
    size_t n = 0;
    enum wire_state at = (enum wire_state) * state;

    for (size_t i = 0; i < in.n; i++) {
        uint8_t c = in.p[i];
        if (c == '\r') {
            out[n++] = '\r';
            if (normalise)
                out[n++] = '\n';
            at = WIRE_CR;
        } else if (c == '\n' && at == WIRE_CR) {
            if (!normalise)
                out[n++] = '\n';
            at = WIRE_START;
        } else if (c == '\n' && normalise) {
            out[n++] = '\r';
            out[n++] = '\n';
            at = WIRE_MADE;
        } else if (c == '.' && at == WIRE_START && normalise && !stuff) {
            at = WIRE_DOT;
        } else {
            n += wire_plain(c, at, normalise, stuff, out + n);
            at = WIRE_LINE;
        }
    }
    *state = (uint8_t)at;
    return n;
}

size_t wire_unstuff(struct span in, uint8_t *out)
{
    size_t n = 0;
    size_t i = 0;

    while (i < in.n) {
        if (in.p[i] == '.')
            i++;
        /* The rest of the line moves in one piece; a bare LF does not end it. */
        size_t end = i;
        do {
            const uint8_t *lf = end < in.n ? memchr(in.p + end, '\n', in.n - end) : NULL;
            end = lf == NULL ? in.n : (size_t)(lf - in.p) + 1;
        } while (end < in.n && (end < i + 2 || in.p[end - 2] != '\r'));
        memmove(out + n, in.p + i, end - i);
        n += end - i;
        i = end;
    }
    return n;
}
