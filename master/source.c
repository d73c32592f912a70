/* source - see source.h. */
#include "master/source.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SHOWN_BYTES_MAX = 32 << 20 };

static int copy_builtin(char **out, size_t *n)
{
    struct span s = config_default_yaml();
    *out = malloc(s.n + 1);
    if (*out == NULL)
        return -ENOMEM;
    memcpy(*out, s.p, s.n);
    *n = s.n;
    return 0;
}

static int seal(const char *text, size_t n, int *out)
{
    int fd = memfd_create("mochila-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    while (done < n) {
        ssize_t put = write(fd, text + done, n - done);
        if (put < 0 && errno != EINTR)
            break;
        if (put > 0)
            done += (size_t)put;
    }
    int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (done < n || fcntl(fd, F_ADD_SEALS, seals) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

/* What the children load must say what --set says too: the whole configuration, written out. */
static int write_out(const struct config_input *in, char **text, size_t *n, struct text *errors)
{
    char *shown = malloc(SHOWN_BYTES_MAX);
    if (shown == NULL)
        return -ENOMEM;
    struct text out = text_of(shown, SHOWN_BYTES_MAX);
    int rc = config_show(in, errors, &out);
    if (rc == 0 && out.cut) {
        text_puts(errors, "--set: the configuration is too large for it\n");
        rc = -EFBIG;
    }
    if (rc < 0) {
        free(shown);
        return rc;
    }
    free(*text);
    *text = shown;
    *n = out.n;
    return 0;
}

static int load(const struct options *o, struct source *s, char **text, size_t *n,
                struct text *errors)
{
    struct config_input in = {
        .yaml = *text, .n = *n, .file = s->name, .sets = o->sets, .set_count = o->set_count};
    int rc = config_load_with(&in, errors, &s->config);
    if (rc < 0 || o->set_count == 0)
        return rc;
    return write_out(&in, text, n, errors);
}

int source_load(const struct options *o, struct source **out, struct text *errors)
{
    char *text = NULL;
    size_t n = 0;
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (s == NULL)
        return -ENOMEM;
    s->fd = -1;
    snprintf(s->name, sizeof s->name, "%s", o->file != NULL ? o->file : "built-in configuration");
    int rc =
        o->file != NULL ? config_read_file(o->file, errors, &text, &n) : copy_builtin(&text, &n);
    if (rc == 0)
        rc = load(o, s, &text, &n, errors);
    if (rc == 0) {
        rc = seal(text, n, &s->fd);
        if (rc < 0)
            text_fmt(errors, "memfd: %s\n", strerror(-rc));
    }
    free(text);
    if (rc < 0)
        source_free(&s);
    *out = s;
    return rc;
}

void source_free(struct source **s)
{
    if (*s == NULL)
        return;
    config_free(&(*s)->config);
    if ((*s)->fd >= 0)
        close((*s)->fd);
    free(*s);
    *s = NULL;
}
