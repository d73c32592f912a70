/*
 * events - see events.h.
 *
 * A cursor is "inode:offset" in hexadecimal, joined by dots: inodes survive rotation by renaming.
 */
#include "master/api/events.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct reading {
    const struct args *args;
    const char *cursor; /* NULL: the first call */
    uint8_t *buffer;    /* EVENTS_READ_BYTES */
    json_t *rows;
    uint64_t skipped_bytes;
    char next[ARGS_VALUE_BYTES]; /* the new cursor */
    size_t next_n;
};

int64_t events_cursor_find(const char *cursor, uint64_t inode)
{
    while (*cursor != '\0') {
        char *end;
        uint64_t number = strtoull(cursor, &end, 16);
        if (end == cursor || *end != ':')
            return -1;
        cursor = end + 1;
        uint64_t offset = strtoull(cursor, &end, 16);
        if (end == cursor || offset > INT64_MAX)
            return -1;
        if (number == inode)
            return (int64_t)offset;
        if (*end != '.')
            return -1;
        cursor = end + 1;
    }
    return -1;
}

static bool matches(const struct args *args, const json_t *event)
{
    static const char *const filters[] = {"event", "lane", "tenant", "id"};
    for (size_t i = 0; i < ARRAY_COUNT(filters); i++) {
        const char *wanted = args_get(args, filters[i]);
        const char *have = json_string_value(json_object_get(event, filters[i]));
        if (wanted != NULL && (have == NULL || strcmp(wanted, have) != 0))
            return false;
    }
    return true;
}

static void keep_lines(struct reading *r, struct span text)
{
    while (text.n > 0) {
        const uint8_t *newline = memchr(text.p, '\n', text.n);
        if (newline == NULL)
            return;
        size_t n = (size_t)(newline - text.p);
        json_error_t where;
        json_t *event = json_loadb((const char *)text.p, n, JSON_ALLOW_NUL, &where);
        if (json_is_object(event) && matches(r->args, event))
            (void)json_array_append(r->rows, event);
        json_decref(event);
        text = span_of(newline + 1, text.n - n - 1);
    }
}

/* Where to begin in this file. */
static off_t begin_at(struct reading *r, const struct event_file *f, bool *mid_line)
{
    int64_t known = r->cursor != NULL ? events_cursor_find(r->cursor, f->inode) : -1;
    off_t from = known >= 0 && known <= f->bytes ? known : 0;
    off_t behind_max = r->cursor != NULL ? EVENTS_BEHIND_BYTES : EVENTS_READ_BYTES;

    *mid_line = false;
    if (f->bytes - from > behind_max) {
        off_t to = f->bytes - EVENTS_READ_BYTES;
        if (r->cursor != NULL)
            r->skipped_bytes += (uint64_t)(to - from);
        *mid_line = true;
        from = to;
    }
    return from;
}

/* Whole lines only; returns how far the file has been read. */
static off_t read_file(struct reading *r, const struct event_file *f)
{
    bool mid_line;
    off_t from = begin_at(r, f, &mid_line);
    if (from == f->bytes)
        return from;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return from;
    ssize_t got = event_file_read(fd, r->buffer, EVENTS_READ_BYTES, from);
    close(fd);
    if (got <= 0)
        return from;
    struct span text = span_of(r->buffer, (size_t)got);
    const uint8_t *last = memrchr(text.p, '\n', text.n);
    if (last == NULL) /* a line still being written, or one longer than any event */
        return got == EVENTS_READ_BYTES ? from + got : from;
    text.n = (size_t)(last - text.p) + 1;
    off_t end = from + (off_t)text.n;
    if (mid_line) {
        const uint8_t *first = memchr(text.p, '\n', text.n);
        text = span_of(first + 1, text.n - (size_t)(first - text.p) - 1);
    }
    keep_lines(r, text);
    return end;
}

static void note_cursor(struct reading *r, const struct event_file *f, off_t offset)
{
    size_t room = sizeof r->next - r->next_n;
    int n = snprintf(r->next + r->next_n, room, "%s%" PRIx64 ":%" PRIx64, r->next_n > 0 ? "." : "",
                     f->inode, (uint64_t)offset);
    MUST(n > 0);
    if ((size_t)n < room)
        r->next_n += (size_t)n;
    else
        r->next[r->next_n] = '\0';
}

static int by_time(const void *a, const void *b)
{
    double x = json_number_value(json_object_get(*(json_t *const *)a, "t"));
    double y = json_number_value(json_object_get(*(json_t *const *)b, "t"));
    return (x > y) - (x < y);
}

/* The last `limit` of the rows by time; 0 = all. */
static json_t *newest(json_t *rows, size_t limit)
{
    size_t n = json_array_size(rows);
    json_t **order = calloc(n > 0 ? n : 1, sizeof(json_t *));
    json_t *out = json_array();
    for (size_t i = 0; order != NULL && i < n; i++)
        order[i] = json_array_get(rows, i);
    if (order != NULL)
        qsort(order, n, sizeof(json_t *), by_time);
    size_t first = limit > 0 && n > limit ? n - limit : 0;
    for (size_t i = first; order != NULL && i < n; i++)
        (void)json_array_append(out, order[i]);
    free(order);
    return out;
}

void events_answer(const char *log_dir, const struct args *args, struct answer *out)
{
    struct event_files files;
    struct reading r = {.args = args, .cursor = args_get(args, "cursor"), .rows = json_array()};
    size_t limit = (size_t)args_number(args, "limit", VERB_LIMIT_PRESET, VERB_LIMIT_MAX);

    int e = event_files_list(log_dir, &files);
    r.buffer = malloc(EVENTS_READ_BYTES);
    if (e < 0 || r.buffer == NULL) {
        answer_error(out, 500, "cannot read the event files in %s: %s", log_dir,
                     e < 0 ? strerror(-e) : "no memory");
        goto end;
    }
    for (unsigned i = 0; i < files.count && i < EVENTS_FILES_MAX; i++)
        note_cursor(&r, &files.file[i], read_file(&r, &files.file[i]));
    /* A follower gets all that is new, since its limit was for the first page. */
    json_t *rows = newest(r.rows, r.cursor == NULL ? limit : 0);
    answer_json(out, 200,
                json_pack("{s:o, s:s, s:I}", "rows", rows, "cursor", r.next, "skipped_bytes",
                          (json_int_t)r.skipped_bytes));
end:
    free(r.buffer);
    json_decref(r.rows);
    event_files_free(&files);
}
