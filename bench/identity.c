/* Fixed widths when writing, so that a template is patched in place; any width when reading. */
#include "bench/identity.h"

#include <errno.h>

enum { RUN_DIGITS_MAX = 8 };

static const uint64_t number_max = UINT32_MAX;

static void put_decimal(char *out, uint32_t digits, uint64_t value)
{
    for (uint32_t i = digits; i > 0; i--) {
        out[i - 1] = (char)('0' + value % 10);
        value /= 10;
    }
}

void identity_write_key(char *out, uint32_t run, uint64_t number)
{
    static const char hex[] = "0123456789abcdef";

    MUST(number <= number_max);
    for (uint32_t i = 0; i < IDENTITY_RUN_DIGITS; i++)
        out[i] = hex[(run >> (28 - 4 * i)) & 15];
    out[IDENTITY_RUN_DIGITS] = '-';
    put_decimal(out + IDENTITY_RUN_DIGITS + 1, IDENTITY_NUMBER_DIGITS, number);
}

void identity_write(char *out, struct identity id)
{
    identity_write_key(out, id.run, id.number);
    out[IDENTITY_KEY_BYTES] = '-';
    put_decimal(out + IDENTITY_KEY_BYTES + 1, IDENTITY_TIME_DIGITS, id.time_ns);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes everything up to the next dash, or to the end, off the front of s. */
static struct span take_part(struct span *s)
{
    const uint8_t *dash = s->n > 0 ? memchr(s->p, '-', s->n) : NULL;
    size_t n = dash != NULL ? (size_t)(dash - s->p) : s->n;
    struct span part = span_of(s->p, n);
    size_t used = dash != NULL ? n + 1 : n;

    s->p += used;
    s->n -= used;
    return part;
}

static int parse_run(struct span s, uint32_t *out)
{
    uint32_t run = 0;

    if (s.n == 0 || s.n > RUN_DIGITS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        int digit = hex_digit(s.p[i]);
        if (digit < 0)
            return -EINVAL;
        run = run << 4 | (uint32_t)digit;
    }
    *out = run;
    return 0;
}

static int parse_front(struct span *s, struct identity *out)
{
    *out = (struct identity){0};
    if (parse_run(take_part(s), &out->run) < 0)
        return -EINVAL;
    if (span_to_u64(take_part(s), &out->number) < 0 || out->number > number_max)
        return -EINVAL;
    return 0;
}

static struct span trim(struct span s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] <= ' '))
        s.n--;
    return s;
}

int identity_parse_key(struct span text, struct identity *out)
{
    struct span s = trim(text);
    struct span all = s;

    if (parse_front(&s, out) < 0 || s.n > 0 || all.p[all.n - 1] == '-')
        return -EINVAL;
    return 0;
}

int identity_parse(struct span text, struct identity *out)
{
    struct span s = trim(text);

    if (parse_front(&s, out) < 0 || span_to_u64(s, &out->time_ns) < 0)
        return -EINVAL;
    return 0;
}

bool identity_field(struct span line, struct span *value)
{
    static const char field[] = IDENTITY_FIELD ":";
    size_t n = sizeof field - 1;

    /* The first letter alone rules out nearly every line of a real message. */
    if (line.n <= n || (line.p[0] | 0x20) != 'x' || !span_ihas_prefix(line, span_of(field, n)))
        return false;
    *value = span_of(line.p + n, line.n - n);
    return true;
}
