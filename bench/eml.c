#include "bench/eml.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 64 << 20 };

/* Worst case each byte is a bare line end: it doubles. */
static size_t normalise(struct span raw, uint8_t *out)
{
    size_t n = 0;

    for (size_t i = 0; i < raw.n; i++) {
        uint8_t c = raw.p[i];
        if (c == '\r' && i + 1 < raw.n && raw.p[i + 1] == '\n')
            continue;
        if (c == '\r' || c == '\n') {
            out[n++] = '\r';
            out[n++] = '\n';
        } else if (c != '\0') {
            out[n++] = c;
        }
    }
    if (n < 2 || out[n - 1] != '\n') {
        out[n++] = '\r';
        out[n++] = '\n';
    }
    return n;
}

static size_t count_dots(struct span s)
{
    size_t dots = s.n > 0 && s.p[0] == '.';

    for (size_t i = 1; i < s.n; i++)
        dots += s.p[i] == '.' && s.p[i - 1] == '\n';
    return dots;
}

static int stuff(struct span plain, size_t dots, struct span *wire)
{
    uint8_t *out = malloc(plain.n + dots);
    size_t n = 0;

    if (out == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < plain.n; i++) {
        if (plain.p[i] == '.' && (i == 0 || plain.p[i - 1] == '\n'))
            out[n++] = '.';
        out[n++] = plain.p[i];
    }
    MUST(n == plain.n + dots);
    *wire = span_of(out, n);
    return 0;
}

static struct span without_mbox_line(struct span raw)
{
    if (raw.n < 5 || memcmp(raw.p, "From ", 5) != 0)
        return raw;
    const uint8_t *end = memchr(raw.p, '\n', raw.n);
    if (end == NULL)
        return raw;
    return span_of(end + 1, raw.n - (size_t)(end + 1 - raw.p));
}

int eml_template(struct span raw, struct message_template *out)
{
    struct span s = without_mbox_line(raw);
    uint8_t *text = malloc(2 * s.n + 2);

    if (text == NULL)
        return -ENOMEM;
    *out = (struct message_template){.weight = 1, .own_headers = true};
    out->plain = span_of(text, normalise(s, text));
    out->wire = out->plain;
    size_t dots = count_dots(out->plain);
    if (dots == 0)
        return 0;
    int rc = stuff(out->plain, dots, &out->wire);
    if (rc < 0) {
        free(text);
        *out = (struct message_template){0};
    }
    return rc;
}

void eml_template_free(struct message_template *t)
{
    if (t->wire.p != t->plain.p)
        free((void *)(uintptr_t)t->wire.p);
    free((void *)(uintptr_t)t->plain.p);
    *t = (struct message_template){0};
}

static int read_whole(int fd, size_t bytes, uint8_t *out)
{
    for (size_t n = 0; n < bytes;) {
        ssize_t got = read(fd, out + n, bytes - n);
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        n += (size_t)got;
    }
    return 0;
}

static int load_file(int dir_fd, const char *name, struct message_template *out)
{
    struct stat st;
    uint8_t *raw = NULL;
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return -errno;
    rc = fstat(fd, &st) < 0 ? -errno : 0;
    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX))
        rc = -EFBIG;
    if (rc < 0)
        goto out;
    raw = malloc((size_t)st.st_size + 1);
    rc = raw == NULL ? -ENOMEM : read_whole(fd, (size_t)st.st_size, raw);
    if (rc == 0)
        rc = eml_template(span_of(raw, (size_t)st.st_size), out);
out:
    free(raw);
    close(fd);
    return rc;
}

static int is_eml(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return n > 4 && strcmp(e->d_name + n - 4, ".eml") == 0;
}

static int load_all(const char *dir, struct dirent **names, int n, struct message_template *out)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = dir_fd < 0 ? -errno : 0;

    for (int i = 0; i < n && rc == 0; i++) {
        rc = load_file(dir_fd, names[i]->d_name, &out[i]);
        if (rc < 0)
            fprintf(stderr, "mochila-bench: %s/%s: %s\n", dir, names[i]->d_name, strerror(-rc));
    }
    if (dir_fd >= 0)
        close(dir_fd);
    return rc;
}

int eml_load(const char *dir, struct message_template **out, uint32_t *count)
{
    struct dirent **names = NULL;
    /* Sorted, so that the n-th message is the same file in every run. */
    int n = scandir(dir, &names, is_eml, alphasort);
    int rc = -EINVAL;

    if (n < 0) {
        fprintf(stderr, "mochila-bench: --eml: %s: %s\n", dir, strerror(errno));
        return -EINVAL;
    }
    if (n == 0 || n > MESSAGE_TEMPLATE_MAX) {
        fprintf(stderr, "mochila-bench: --eml: %s: %d files end in .eml; 1 to %d are allowed\n",
                dir, n, MESSAGE_TEMPLATE_MAX);
        goto out;
    }
    *out = calloc((size_t)n, sizeof **out);
    if (*out == NULL) {
        rc = -ENOMEM;
        goto out;
    }
    *count = (uint32_t)n;
    rc = load_all(dir, names, n, *out);
out:
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return rc;
}
