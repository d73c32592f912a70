#include "bench/report.h"

#include "bench/timer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES_MAX = 128, TTY_STEP_MS = 500, FILE_STEP_MS = 5000 };

static void put_us(json_t *o, const char *name, double ns)
{
    json_object_set_new(o, name, json_real((double)(uint64_t)(ns / 100 + 0.5) / 10));
}

json_t *report_latency(const struct histogram *h)
{
    json_t *o = json_object();

    json_object_set_new(o, "count", json_integer((json_int_t)h->count));
    put_us(o, "mean_us", histogram_mean_ns(h));
    put_us(o, "p50_us", (double)histogram_percentile_ns(h, 50000));
    put_us(o, "p90_us", (double)histogram_percentile_ns(h, 90000));
    put_us(o, "p99_us", (double)histogram_percentile_ns(h, 99000));
    put_us(o, "p999_us", (double)histogram_percentile_ns(h, 99900));
    put_us(o, "max_us", (double)h->max_ns);
    return o;
}

int report_write(json_t *result, const char *path)
{
    int rc = 0;
    bool to_stdout = strcmp(path, "-") == 0;
    FILE *f = to_stdout ? stdout : fopen(path, "we");

    if (f == NULL) {
        rc = -errno;
        goto out;
    }
    if (json_dumpf(result, f, JSON_INDENT(2) | JSON_PRESERVE_ORDER) < 0 || fputc('\n', f) == EOF)
        rc = -EIO;
    if ((to_stdout ? fflush(f) : fclose(f)) != 0)
        rc = -errno;
out:
    if (rc < 0)
        fprintf(stderr, "mochila-bench: %s: %s\n", path, strerror(-rc));
    json_decref(result);
    return rc;
}

json_t *report_read(const char *path)
{
    json_error_t error;
    json_t *o = json_load_file(path, 0, &error);

    if (o == NULL)
        fprintf(stderr, "mochila-bench: %s:%d: %s\n", path, error.line, error.text);
    return o;
}

double report_number(const json_t *o, const char *path)
{
    char part[PATH_BYTES_MAX];
    const char *dot;

    while ((dot = strchr(path, '.')) != NULL) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        o = json_object_get(o, part);
        path = dot + 1;
    }
    return json_number_value(json_object_get(o, path));
}

void progress_init(struct progress *p, bool quiet, uint64_t at_ns)
{
    p->is_tty = isatty(2) == 1;
    p->step_ns = (p->is_tty ? TTY_STEP_MS : FILE_STEP_MS) * ns_per_ms;
    p->next_ns = quiet ? UINT64_MAX : at_ns + p->step_ns;
    p->is_shown = false;
}

bool progress_due(struct progress *p, uint64_t at_ns)
{
    if (at_ns < p->next_ns)
        return false;
    p->next_ns = at_ns + p->step_ns;
    return true;
}

void progress_line(struct progress *p, const char *fmt, ...)
{
    va_list args;

    if (p->is_tty)
        fputs("\r\033[K", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    if (!p->is_tty)
        fputc('\n', stderr);
    p->is_shown = true;
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->is_tty && p->is_shown)
        fputc('\n', stderr);
}
