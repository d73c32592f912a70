/* report - see report.h. */
#include "config/report.h"

#include "base/text.h"
#include "config/config.h"
#include "config/tree.h"

#include <stdarg.h>
#include <stdio.h>

enum { MESSAGE_BYTES = 512, PATH_BYTES = 256, WORD_BYTES_SHOWN = 60 };

bool report_full(const struct report *r)
{
    return r->count > CONFIG_ERRORS_MAX;
}

/* True when this error is to be written; counts it. */
static bool take(struct report *r)
{
    r->count++;
    if (r->count == CONFIG_ERRORS_MAX + 1)
        text_fmt(r->out, "%s: more than %d errors; the rest is not shown\n", r->file,
                 CONFIG_ERRORS_MAX);
    return r->count <= CONFIG_ERRORS_MAX;
}

static void put_line(struct report *r, const char *path, const char *message)
{
    text_puts(r->out, path);
    text_puts(r->out, path[0] == '\0' ? "" : ": ");
    text_puts(r->out, message);
    text_putc(r->out, '\n');
}

void report_at(struct report *r, const struct node *at, const char *fmt, ...)
{
    char message[MESSAGE_BYTES], path[PATH_BYTES];
    struct text p = text_of(path, sizeof path);
    va_list args;

    MUST(at != NULL);
    if (!take(r))
        return;
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    MUST(n >= 0);
    node_path(at, &p);
    if (at->line == 0)
        text_puts(r->out, "--set: ");
    else
        text_fmt(r->out, "%s:%u: ", r->file, at->line);
    put_line(r, path, message);
}

void report_line(struct report *r, uint32_t line, const char *fmt, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;

    if (!take(r))
        return;
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    MUST(n >= 0);
    text_puts(r->out, r->file);
    if (line > 0)
        text_fmt(r->out, ":%u", line);
    text_puts(r->out, ": ");
    put_line(r, "", message);
}

void report_set(struct report *r, const char *assignment, const char *fmt, ...)
{
    char message[MESSAGE_BYTES];
    size_t n = strlen(assignment);
    va_list args;

    if (!take(r))
        return;
    va_start(args, fmt);
    int wanted = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    MUST(wanted >= 0);
    text_puts(r->out, "--set ");
    text_put_clean(r->out, span_of(assignment, n < WORD_BYTES_SHOWN ? n : WORD_BYTES_SHOWN));
    text_puts(r->out, ": ");
    put_line(r, "", message);
}

const char *report_found(const struct node *at, char out[REPORT_FOUND_BYTES])
{
    struct text t = text_of(out, REPORT_FOUND_BYTES);
    size_t n;

    switch (at->kind) {
    case NODE_LIST:
        return "a list";
    case NODE_MAP:
        return "a mapping";
    case NODE_BAD:
    case NODE_NOTHING:
        return "nothing";
    case NODE_WORD:
        n = strlen(at->text);
        text_json(&t, span_of(at->text, n < WORD_BYTES_SHOWN ? n : WORD_BYTES_SHOWN));
        text_puts(&t, n <= WORD_BYTES_SHOWN ? "" : "...");
        return out;
    }
    check_failed("a kind of node", __FILE__, __LINE__);
}
