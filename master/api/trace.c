/*
 * trace - see trace.h.
 *
 * Invariant: bytes of the current file from `end` on have been scanned, and `end` is the start of a
 * line (or the end of the file). Each step reads the block before `end`; the line that begins
 * before that block is left to the next one.
 */
#include "master/api/trace.h"

#include "master/api/event_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An event with its place, which orders events of the same time. */
struct found {
    double t;
    unsigned file;
    off_t offset;
    json_t *event;
};

struct trace {
    char id[ID_TEXT + 1];
    uint32_t limit;
    uint64_t deadline_ms;
    uint64_t scanned_bytes;
    bool cut;
    struct event_files files;
    unsigned current; /* index of the file that is scanned */
    int fd;           /* of it, or -1 */
    off_t end;
    struct found *found; /* room for `limit` */
    uint32_t count;
    uint8_t *block;
};

int trace_create(const char *log_dir, struct msg_id id, uint32_t limit, uint64_t now_ms,
                 struct trace **out)
{
    MUST(limit > 0);
    MUST(limit <= TRACE_EVENTS_MAX);
    struct trace *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t == NULL)
        return -ENOMEM;
    t->fd = -1;
    t->limit = limit;
    t->deadline_ms = now_ms + TRACE_MS_MAX;
    id_format(id, t->id);
    t->block = malloc(TRACE_BLOCK_BYTES);
    t->found = calloc(limit, sizeof *t->found);
    int r = t->block != NULL && t->found != NULL ? 0 : -ENOMEM;
    if (r == 0)
        r = event_files_list(log_dir, &t->files);
    t->cut = t->files.cut;
    if (r < 0)
        trace_destroy(&t);
    *out = t;
    return r;
}

void trace_destroy(struct trace **t)
{
    if (*t == NULL)
        return;
    if ((*t)->fd >= 0)
        close((*t)->fd);
    event_files_free(&(*t)->files);
    for (uint32_t i = 0; i < (*t)->count; i++)
        json_decref((*t)->found[i].event);
    free((*t)->found);
    free((*t)->block);
    free(*t);
    *t = NULL;
}

/* Keeps the line when it is an event of this message, and not just one that mentions its id. */
static void keep_line(struct trace *t, struct span line, off_t offset)
{
    json_error_t where;
    if (t->count == t->limit) {
        t->cut = true;
        return;
    }
    json_t *event = json_loadb((const char *)line.p, line.n, JSON_ALLOW_NUL, &where);
    const char *id = json_string_value(json_object_get(event, "id"));
    if (id == NULL || strcmp(id, t->id) != 0) {
        json_decref(event);
        return;
    }
    double when = json_number_value(json_object_get(event, "t"));
    t->found[t->count++] = (struct found){when, t->current, offset, event};
}

/* Lines of `text` that mention the id; the order within the file is made good by sorted(). */
static void scan_lines(struct trace *t, struct span text, off_t offset)
{
    const uint8_t *end = text.p + text.n;
    const uint8_t *from = text.p;
    const uint8_t *hit;
    while (from < end && (hit = memmem(from, (size_t)(end - from), t->id, ID_TEXT)) != NULL) {
        const uint8_t *before = memrchr(from, '\n', (size_t)(hit - from));
        const uint8_t *start = before != NULL ? before + 1 : from;
        const uint8_t *stop = memchr(hit, '\n', (size_t)(end - hit));
        if (stop == NULL)
            stop = end;
        keep_line(t, span_of(start, (size_t)(stop - start)), offset + (start - text.p));
        from = stop;
    }
}

static void close_file(struct trace *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
    t->current++;
}

/* Reads and scans the block before t->end. */
static void scan_block(struct trace *t)
{
    off_t start = t->end > TRACE_BLOCK_BYTES ? t->end - TRACE_BLOCK_BYTES : 0;
    size_t n = (size_t)(t->end - start);
    ssize_t got = event_file_read(t->fd, t->block, n, start);
    if (got < 0 || (size_t)got < n) {
        t->cut = true; /* unreadable, or truncated under our hands */
        close_file(t);
        return;
    }
    t->scanned_bytes += n;
    size_t skip = 0;
    if (start > 0) {
        const uint8_t *newline = memchr(t->block, '\n', n);
        /* No line end in a whole block, or only its last byte: a line longer than any event. */
        skip = newline != NULL ? (size_t)(newline - t->block) + 1 : n;
        if (skip == n) {
            t->cut = true;
            t->end = start;
            return;
        }
    }
    t->end = start + (off_t)skip;
    scan_lines(t, span_of(t->block + skip, n - skip), t->end);
    if (t->end == 0)
        close_file(t);
}

static void open_file(struct trace *t)
{
    const struct event_file *f = &t->files.file[t->current];
    t->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    t->end = f->bytes;
    if (t->fd < 0 || t->end == 0) {
        t->cut = t->cut || (t->fd < 0 && errno != ENOENT);
        close_file(t);
    }
}

bool trace_step(struct trace *t, uint64_t now_ms)
{
    uint64_t stop = t->scanned_bytes + TRACE_STEP_BYTES;
    while (t->current < t->files.count && t->scanned_bytes < stop) {
        if (t->scanned_bytes >= TRACE_BYTES_MAX || now_ms > t->deadline_ms ||
            t->count == t->limit) {
            t->cut = true;
            return true;
        }
        if (t->fd < 0)
            open_file(t);
        else
            scan_block(t);
    }
    return t->current >= t->files.count;
}

static int by_time(const void *a, const void *b)
{
    const struct found *x = a;
    const struct found *y = b;
    if (x->t < y->t || x->t > y->t)
        return x->t < y->t ? -1 : 1;
    if (x->file != y->file)
        return x->file > y->file ? -1 : 1; /* the files are newest first */
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static json_t *sorted(struct trace *t)
{
    json_t *out = json_array();
    qsort(t->found, t->count, sizeof *t->found, by_time);
    for (uint32_t i = 0; i < t->count; i++)
        (void)json_array_append(out, t->found[i].event);
    return out;
}

void trace_answer(struct trace *t, struct answer *out)
{
    if (t->count == 0 && !t->cut) {
        answer_error(out, 404,
                     "no event of %s in %u event file%s (%llu bytes): the message is "
                     "unknown here, or its events were rotated away",
                     t->id, t->files.count, t->files.count == 1 ? "" : "s",
                     (unsigned long long)t->scanned_bytes);
        return;
    }
    answer_json(out, 200,
                json_pack("{s:s, s:o, s:b, s:I, s:i}", "id", t->id, "events", sorted(t), "cut",
                          t->cut, "scanned_bytes", (json_int_t)t->scanned_bytes, "files",
                          (int)t->files.count));
}
