/* event_files - see event_files.h. */
#include "master/api/event_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool event_file_name_ok(const char *name)
{
    static const char begin[] = "events-";
    static const char middle[] = ".jsonl";
    if (strncmp(name, begin, sizeof begin - 1) != 0)
        return false;
    const char *rest = strstr(name, middle);
    if (rest == NULL)
        return false;
    rest += sizeof middle - 1;
    /* "" or ".7": what a compressor leaves (.gz, .zst) cannot be scanned. */
    if (*rest == '\0')
        return true;
    return *rest == '.' && rest[1] != '\0' && strspn(rest + 1, "0123456789") == strlen(rest + 1);
}

static int newest_first(const void *a, const void *b)
{
    const struct event_file *x = a;
    const struct event_file *y = b;
    if (x->changed_ns != y->changed_ns)
        return x->changed_ns > y->changed_ns ? -1 : 1;
    return strcmp(x->path, y->path);
}

static void add_file(const char *dir, const char *name, struct event_files *out)
{
    struct event_file *f = &out->file[out->count];
    struct stat st;
    int n = snprintf(f->path, sizeof f->path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof f->path)
        return;
    /* Gone meanwhile (rotation), or no plain file: not ours to read. */
    if (lstat(f->path, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    f->inode = st.st_ino;
    f->bytes = st.st_size;
    f->changed_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
    out->count++;
}

int event_files_list(const char *dir, struct event_files *out)
{
    *out = (struct event_files){0};
    DIR *d = opendir(dir);
    if (d == NULL)
        return -errno;
    out->file = calloc(EVENT_FILES_MAX, sizeof *out->file);
    if (out->file == NULL) {
        (void)closedir(d);
        return -ENOMEM;
    }
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (!event_file_name_ok(e->d_name))
            continue;
        if (out->count == EVENT_FILES_MAX) {
            out->cut = true;
            break;
        }
        add_file(dir, e->d_name, out);
    }
    (void)closedir(d);
    qsort(out->file, out->count, sizeof *out->file, newest_first);
    return 0;
}

void event_files_free(struct event_files *f)
{
    free(f->file);
    *f = (struct event_files){0};
}

ssize_t event_file_read(int fd, uint8_t *out, size_t n, off_t from)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd, out + got, n - got, from + (off_t)got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}
