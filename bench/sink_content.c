#include "bench/sink_content.h"

enum { END_BYTES = 5 };

void content_begin(struct content *c)
{
    c->bytes = 0;
    c->identity = (struct identity){0};
    c->header = CONTENT_SEEKING;
    c->matched = 2; /* the line end of the DATA command counts as the first CRLF */
    c->line_bytes = 0;
}

/* One step of the automaton for CRLF.CRLF. */
static uint32_t step(uint32_t matched, uint8_t byte)
{
    static const uint8_t wanted[END_BYTES] = {'\r', '\n', '.', '\r', '\n'};

    MUST(matched < END_BYTES);
    if (byte == wanted[matched])
        return matched + 1;
    return byte == '\r' ? 1 : 0;
}

/* How much of the end mark the last bytes are, when no dot is near. */
static uint32_t matched_at_end(const uint8_t *p, const uint8_t *end)
{
    if (end - p >= 2 && end[-2] == '\r' && end[-1] == '\n')
        return 2;
    return end > p && end[-1] == '\r';
}

/*
 * Where the end mark ends, or NULL. Dots are rare, so looking for them is looking at nearly no
 * byte one by one; only what crosses the border of two pieces goes through the automaton.
 */
static const uint8_t *find_end(struct content *c, const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        while (c->matched > 0 && p < end) {
            c->matched = step(c->matched, *p++);
            if (c->matched == END_BYTES)
                return p;
        }
        const uint8_t *dot = memchr(p, '.', (size_t)(end - p));
        if (dot == NULL)
            break;
        if (dot - p >= 2 && dot[-2] == '\r' && dot[-1] == '\n')
            c->matched = 3;
        p = dot + 1;
    }
    if (p < end)
        c->matched = matched_at_end(p, end);
    return NULL;
}

/* One header line without its end; true when the search is over. */
static bool take_header(struct content *c, struct span line)
{
    struct span value;

    if (line.n == 0) {
        c->header = CONTENT_ABSENT;
        return true;
    }
    if (!identity_field(line, &value))
        return false;
    c->header = identity_parse(value, &c->identity) == 0 ? CONTENT_FOUND : CONTENT_ABSENT;
    return true;
}

static void keep(struct content *c, struct span s)
{
    size_t room = CONTENT_LINE_BYTES - c->line_bytes;
    size_t n = s.n < room ? s.n : room;

    memcpy(c->line + c->line_bytes, s.p, n);
    c->line_bytes += (uint32_t)n;
}

static struct span without_cr(struct span s)
{
    if (s.n > 0 && s.p[s.n - 1] == '\r')
        s.n--;
    return s;
}

static void seek_identity(struct content *c, struct span s)
{
    while (s.n > 0) {
        const uint8_t *lf = memchr(s.p, '\n', s.n);
        struct span piece = span_of(s.p, lf != NULL ? (size_t)(lf - s.p) : s.n);
        struct span line = piece;
        if (lf == NULL || c->line_bytes > 0) {
            keep(c, piece);
            line = span_of(c->line, c->line_bytes);
        }
        if (lf == NULL)
            return;
        c->line_bytes = 0;
        if (take_header(c, without_cr(line)))
            return;
        s = span_of(lf + 1, s.n - piece.n - 1);
    }
}

size_t content_feed(struct content *c, struct span s, bool *ended)
{
    const uint8_t *end = find_end(c, s.p, s.p + s.n);
    size_t n = end != NULL ? (size_t)(end - s.p) : s.n;

    *ended = end != NULL;
    if (c->header == CONTENT_SEEKING)
        seek_identity(c, span_of(s.p, n));
    c->bytes += n;
    return n;
}

void content_feed_chunk(struct content *c, struct span s)
{
    if (c->header == CONTENT_SEEKING)
        seek_identity(c, s);
    c->bytes += s.n;
}
