/* view - see view.h. */
#include "ctl/view.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* Times beyond the year 9999 are no times, and converting them would be undefined. */
#define UNIX_S_MAX 253402300800.0

enum { WIDTH_MIN = 40, WIDTH_MAX = 1000, WIDTH_PRESET = 80 };

struct view view_of_stdout(void)
{
    struct view v = {.out = stdout};
    const char *term = getenv("TERM");
    const char *no_colour = getenv("NO_COLOR");
    struct winsize w;

    if (isatty(STDOUT_FILENO) == 0)
        return v;
    bool sized = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0;
    v.width = sized ? w.ws_col : WIDTH_PRESET;
    if (v.width < WIDTH_MIN)
        v.width = WIDTH_MIN;
    if (v.width > WIDTH_MAX)
        v.width = WIDTH_MAX;
    bool dumb = term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
    v.colour = !dumb && (no_colour == NULL || no_colour[0] == '\0');
    return v;
}

static uint32_t code_point(struct span s, size_t n)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = s.p[0] & masks[n];
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s.p[i] & 0x3f);
    return c;
}

static bool is_unsafe(uint32_t c)
{
    bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
    bool direction =
        (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f;
    return control || direction;
}

/* wcwidth knows characters only in a UTF-8 locale; the one of the C library is always there. */
static unsigned columns_of(uint32_t c)
{
    static bool ready;
    if (c < 0x80)
        return 1;
    if (!ready) {
        (void)setlocale(LC_CTYPE, "C.UTF-8");
        ready = true;
    }
    int w = wcwidth((wchar_t)c);
    return w < 0 ? 1 : (unsigned)w;
}

unsigned view_clean(struct span s, char *out, size_t cap)
{
    size_t used = 0;
    unsigned columns = 0;
    MUST(cap > 0);
    while (s.n > 0) {
        size_t n = utf8_sequence(s);
        bool bad = n == 0 || is_unsafe(code_point(s, n));
        size_t step = n == 0 ? 1 : n;
        size_t bytes = bad ? 1 : n;
        if (used + bytes >= cap)
            break;
        if (bad) {
            out[used] = '?';
            columns++;
        } else {
            memcpy(out + used, s.p, n);
            columns += columns_of(code_point(s, n));
        }
        used += bytes;
        s = span_of(s.p + step, s.n - step);
    }
    out[used] = '\0';
    return columns;
}

size_t view_fit(const char *clean, unsigned columns)
{
    struct span s = span_str(clean);
    while (s.n > 0) {
        size_t n = utf8_sequence(s);
        MUST(n > 0);
        unsigned w = columns_of(code_point(s, n));
        if (w > columns)
            break;
        columns -= w;
        s = span_of(s.p + n, s.n - n);
    }
    return strlen(clean) - s.n;
}

unsigned view_columns(const char *clean)
{
    struct span s = span_str(clean);
    unsigned columns = 0;
    while (s.n > 0) {
        size_t n = utf8_sequence(s);
        if (n == 0)
            n = 1;
        columns += columns_of(code_point(s, n));
        s = span_of(s.p + n, s.n - n);
    }
    return columns;
}

void view_put_span(const struct view *v, struct span s)
{
    char piece[512];
    while (s.n > 0) {
        /* Pieces end between characters: a piece is at most as long as what it came from. */
        size_t n = s.n < sizeof piece ? s.n : sizeof piece - 4;
        while (n < s.n && n > 1 && (s.p[n] & 0xc0) == 0x80)
            n--;
        (void)view_clean(span_of(s.p, n), piece, sizeof piece);
        fputs(piece, v->out);
        s = span_of(s.p + n, s.n - n);
    }
}

void view_put(const struct view *v, const char *s)
{
    view_put_span(v, span_str(s));
}

void view_fmt(const struct view *v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vfprintf(v->out, fmt, args);
    va_end(args);
}

void view_colour(const struct view *v, enum view_colour c)
{
    static const char *const codes[] = {
        [COLOUR_NONE] = "\033[0m", [COLOUR_BOLD] = "\033[1m",    [COLOUR_DIM] = "\033[2m",
        [COLOUR_RED] = "\033[31m", [COLOUR_YELLOW] = "\033[33m", [COLOUR_GREEN] = "\033[32m",
    };
    if (v->colour)
        fputs(codes[c], v->out);
}

char *unit_count(double n, char out[VIEW_NUMBER_BYTES])
{
    char digits[VIEW_NUMBER_BYTES];
    size_t o = 0;
    if (!(fabs(n) < 1e15)) {
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%g", n);
        return out;
    }
    int length = snprintf(digits, sizeof digits, "%.0f", fabs(n));
    if (n <= -0.5)
        out[o++] = '-';
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[o++] = ',';
        out[o++] = digits[i];
    }
    out[o] = '\0';
    return out;
}

char *unit_rate(double per_s, char out[VIEW_NUMBER_BYTES])
{
    if (per_s >= 99.95)
        return unit_count(per_s, out);
    (void)snprintf(out, VIEW_NUMBER_BYTES, "%.*f", per_s > 0 ? 1 : 0, per_s);
    return out;
}

char *unit_bytes(double bytes, char out[VIEW_NUMBER_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t u = 0;
    while (bytes >= 1023.95 && u + 1 < ARRAY_COUNT(units)) {
        bytes /= 1024;
        u++;
    }
    (void)snprintf(out, VIEW_NUMBER_BYTES, "%.*f %s", u > 0 && bytes < 99.95 ? 1 : 0, bytes,
                   units[u]);
    return out;
}

char *unit_seconds(double s, char out[VIEW_NUMBER_BYTES])
{
    if (s < 0)
        s = 0;
    unsigned long long n = s < 1e12 ? (unsigned long long)s : 0;
    if (s > 0 && s < 9.95)
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%.*fs", s == floor(s) ? 0 : 1, s);
    else if (n < 60)
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%llus", n);
    else if (n < 3600)
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%llum%02llus", n / 60, n % 60);
    else if (n < 86400)
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%lluh%02llum", n / 3600, n / 60 % 60);
    else
        (void)snprintf(out, VIEW_NUMBER_BYTES, "%llud%02lluh", n / 86400, n / 3600 % 24);
    return out;
}

char *unit_us(double us, char out[VIEW_NUMBER_BYTES])
{
    double ms = us > 0 ? us / 1000 : 0;
    if (ms >= 999.5)
        return unit_seconds(ms / 1000, out);
    (void)snprintf(out, VIEW_NUMBER_BYTES, "%.*fms", ms > 0 && ms < 9.95 ? 1 : 0, ms);
    return out;
}

/* Local time with milliseconds, rounded. */
char *unit_time(double unix_s, char out[VIEW_NUMBER_BYTES])
{
    double whole = floor(unix_s);
    int ms = (int)((unix_s - whole) * 1000 + 0.5);
    time_t t = (time_t)whole;
    struct tm tm;
    if (ms >= 1000) {
        ms = 0;
        t++;
    }
    if (!(fabs(unix_s) < UNIX_S_MAX) || localtime_r(&t, &tm) == NULL) {
        (void)snprintf(out, VIEW_NUMBER_BYTES, "?");
        return out;
    }
    (void)snprintf(out, VIEW_NUMBER_BYTES, "%04d-%02d-%02d %02d:%02d:%02d.%03d",
                   (tm.tm_year + 1900) % 10000, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                   tm.tm_sec, ms);
    return out;
}

char *unit_date(double unix_s, char out[VIEW_NUMBER_BYTES])
{
    (void)unit_time(floor(unix_s), out);
    out[strcspn(out, ".")] = '\0';
    return out;
}

double json_number(const json_t *o, const char *field, double preset)
{
    const json_t *v = json_object_get(o, field);
    return json_is_number(v) ? json_number_value(v) : preset;
}

const char *json_word(const json_t *o, const char *field, const char *preset)
{
    const char *s = json_string_value(json_object_get(o, field));
    return s != NULL ? s : preset;
}
