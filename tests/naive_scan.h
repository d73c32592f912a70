/*
 * naive_scan - what data_scan must say, written down the slow and obvious way.
 *
 * It sees the whole input at once and looks at each fact by itself, so that it shares neither code
 * nor idea with the state machine that it is compared with. Used by the unit test and by the
 * fuzzer.
 */
#ifndef TESTS_NAIVE_SCAN_H
#define TESTS_NAIVE_SCAN_H

#include "proto/data_scan.h"

#include <strings.h>

struct naive {
    struct data_scan facts; /* the public fields only */
    size_t message_bytes;
    size_t consumed;
    bool done;
};

/* Is there a CR LF, or the beginning of the input, right before `at`? */
static inline bool naive_line_start(struct span in, size_t at)
{
    return at == 0 || (at >= 2 && in.p[at - 2] == '\r' && in.p[at - 1] == '\n');
}

static inline bool naive_is(struct span in, size_t at, const char *what)
{
    size_t n = strlen(what);
    return at + n <= in.n && memcmp(in.p + at, what, n) == 0;
}

/* Could the input from `at` on, which is its end, still grow into `what`? */
static inline bool naive_may_become(struct span in, size_t at, const char *what)
{
    return in.n - at < strlen(what) && memcmp(in.p + at, what, in.n - at) == 0;
}

static inline void naive_lines(struct span in, size_t end, bool stuffed, struct naive *out)
{
    size_t start = 0;
    for (size_t i = 0; i <= end; i++) {
        bool at_end = i == end;
        if (!at_end && naive_line_start(in, i))
            start = i;
        if (!at_end && in.p[i] == '.' && naive_line_start(in, i) &&
            !(stuffed && naive_may_become(in, i, ".\r\n")))
            out->facts.dots++;
        bool line_ends = at_end || naive_is(in, i, "\r\n");
        if (!line_ends)
            continue;
        if (at_end && naive_line_start(in, end))
            start = end;
        size_t bytes = i - start;
        /* What is not decided yet is not counted yet. */
        if (at_end && bytes > 0 && in.p[i - 1] == '\r')
            bytes--;
        if (at_end && stuffed && bytes == 1 && in.p[start] == '.' && end == in.n &&
            naive_may_become(in, start, ".\r\n"))
            bytes = 0;
        if (bytes > out->facts.line_bytes_max)
            out->facts.line_bytes_max = (uint32_t)bytes;
    }
}

static inline void naive_octets(struct span in, size_t end, bool stuffed, struct naive *out)
{
    struct data_scan *s = &out->facts;
    for (size_t i = 0; i < end; i++) {
        s->has_nul |= in.p[i] == '\0';
        s->has_8bit |= in.p[i] >= 0x80;
        s->bare_lf += in.p[i] == '\n' && (i == 0 || in.p[i - 1] != '\r');
        s->bare_cr += in.p[i] == '\r' && i + 1 < end && in.p[i + 1] != '\n';
    }
    (void)stuffed;
}

/*
 * The field name that the line begins with: its length, or 0. *bad_at: where it turns out that this
 * is no header line (the line's end counts as such a place too).
 */
static inline size_t naive_field(struct span line, size_t *bad_at)
{
    size_t name = 0;
    while (name < line.n && line.p[name] > 0x20 && line.p[name] < 0x7f && line.p[name] != ':')
        name++;
    size_t i = name;
    while (name > 0 && i < line.n && (line.p[i] == ' ' || line.p[i] == '\t'))
        i++;
    *bad_at = i;
    return i < line.n && line.p[i] == ':' ? name : 0;
}

static inline bool naive_name_is(struct span line, size_t n, const char *name)
{
    return n == strlen(name) && strncasecmp((const char *)line.p, name, n) == 0;
}

/* Walks the header lines of in[0..end). */
static inline void naive_header(struct span in, size_t end, bool stuffed, struct naive *out)
{
    struct data_scan *s = &out->facts;
    size_t at = 0;

    s->in_header = true;
    while (at < end) {
        size_t stop = at;
        while (stop < end && !naive_is(in, stop, "\r\n"))
            stop++;
        bool whole = stop < end;
        size_t text = at;
        if (stuffed && in.p[at] == '.') {
            if (naive_may_become(in, at, ".\r\n"))
                break;
            text++;
        }
        struct span line = span_of(in.p + text, stop - text);
        /* A CR that is the last byte so far may yet end the line. */
        bool cr_pending = !whole && line.n > 0 && line.p[line.n - 1] == '\r';
        if (cr_pending)
            line.n--;
        bool folded = line.n > 0 && (line.p[0] == ' ' || line.p[0] == '\t') && s->header_fields > 0;
        size_t bad_at = 0;
        size_t name = folded ? 0 : naive_field(line, &bad_at);
        if (name > 0) {
            s->header_fields++;
            s->received_fields += naive_name_is(line, name, "received");
            s->delivered_to_fields += naive_name_is(line, name, "delivered-to");
        } else if (!folded && (whole || bad_at < line.n)) {
            s->in_header = false;
            bool by_end = bad_at >= line.n;
            s->header_bytes = (uint32_t)(by_end ? stop + 2 : text + bad_at + 1);
            return;
        }
        for (size_t i = text + (folded ? 0 : bad_at); i < stop && (folded || name > 0); i++)
            s->has_8bit_header |= in.p[i] >= 0x80;
        at = whole ? stop + 2 : end;
    }
    s->header_bytes = (uint32_t)end;
}

static inline struct naive naive_scan(struct span in, bool stuffed)
{
    struct naive out = {.message_bytes = in.n, .consumed = in.n};

    for (size_t i = 0; stuffed && i < in.n && !out.done; i++) {
        if (naive_line_start(in, i) && naive_is(in, i, ".\r\n")) {
            out.message_bytes = i;
            out.consumed = i + 3;
            out.done = true;
        }
    }
    size_t end = out.message_bytes;
    naive_lines(in, end, stuffed, &out);
    naive_octets(in, end, stuffed, &out);
    naive_header(in, end, stuffed, &out);
    out.facts.bytes = end;
    return out;
}

/* The first fact that differs, by name; NULL when all agree. */
static inline const char *naive_difference(const struct data_scan *a, const struct data_scan *b)
{
#define SAME(field)           \
    if (a->field != b->field) \
    return #field
    SAME(in_header);
    SAME(has_8bit);
    SAME(has_8bit_header);
    SAME(has_nul);
    SAME(bare_cr);
    SAME(bare_lf);
    SAME(dots);
    SAME(received_fields);
    SAME(delivered_to_fields);
    SAME(header_fields);
    SAME(header_bytes);
    SAME(line_bytes_max);
    SAME(bytes);
#undef SAME
    return NULL;
}

#endif
