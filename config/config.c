/* config - the doors of this room; see config.h. */
#include "config/config.h"

#include "base/text.h"
#include "config/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/embed.h"

int config_load_with(const struct config_input *in, struct text *errors, struct config **out)
{
    struct loader l;

    *out = NULL;
    int rc = load_run(&l, in, errors);
    if (rc == 0) {
        *out = l.c;
        l.c = NULL;
    }
    load_fini(&l);
    return rc;
}

int config_load(const char *yaml, size_t n, const char *file, struct text *errors,
                struct config **out)
{
    const struct config_input in = {.yaml = yaml, .n = n, .file = file};
    return config_load_with(&in, errors, out);
}

int config_load_file(const char *path, struct text *errors, struct config **out)
{
    char *yaml;
    size_t n;

    *out = NULL;
    int rc = config_read_file(path, errors, &yaml, &n);
    if (rc < 0)
        return rc;
    rc = config_load(yaml, n, path, errors, out);
    free(yaml);
    return rc;
}

/* Everything up to the end of file or the limit and one byte more, which says that it was passed.
 */
static int read_all(int fd, char *p, size_t *n)
{
    *n = 0;
    while (*n <= CONFIG_FILE_BYTES_MAX) {
        ssize_t got = read(fd, p + *n, CONFIG_FILE_BYTES_MAX + 1 - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        *n += (size_t)got;
    }
    return -EFBIG;
}

int config_read_file(const char *path, struct text *errors, char **yaml, size_t *n)
{
    int rc;

    *yaml = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        rc = -errno;
        goto report;
    }
    char *p = malloc(CONFIG_FILE_BYTES_MAX + 1);
    rc = p == NULL ? -ENOMEM : read_all(fd, p, n);
    close(fd);
    if (rc == 0) {
        /* Most of what was asked for was never touched. */
        char *small = realloc(p, *n > 0 ? *n : 1);
        *yaml = small != NULL ? small : p;
        return 0;
    }
    free(p);
report:
    if (rc == -EFBIG)
        text_fmt(errors, "%s: is larger than %d MiB\n", path, CONFIG_FILE_BYTES_MAX >> 20);
    else
        text_fmt(errors, "%s: cannot be read: %s\n", path, strerror(-rc));
    return rc;
}

void config_free(struct config **c)
{
    if (*c == NULL)
        return;
    struct config *x = *c;
    lookup_free(&x->lookup);
    free(x->listeners);
    free(x->relay_from);
    free(x->refuse_from);
    free(x->relay_domains);
    free(x->pools);
    free(x->lanes);
    free(x->tenants);
    free(x->tenant_nets);
    free(x->routes);
    free(x->providers);
    free(x);
    *c = NULL;
}

struct span config_default_yaml(void)
{
    return span_of(embed_default_yaml, embed_default_yaml_bytes);
}

static uint32_t differing(const struct config *a, const struct config *b, enum key_scope scope,
                          bool all, struct text *keys)
{
    uint32_t differ = 0;
    size_t count;
    const struct config_key *rows = config_keys_of(scope, &count);

    for (size_t i = 0; i < count; i++) {
        const struct config_key *k = &rows[i];
        if (k->type == KEY_SECTION && k->child != SCOPE_LIMITS)
            differ += differing(a, b, k->child, all || k->needs_restart, keys);
        if (k->bytes == 0 || !(all || k->needs_restart))
            continue;
        /* Fields are wiped before they are written, so that equal values have equal bytes. */
        if (memcmp((const uint8_t *)a + k->offset, (const uint8_t *)b + k->offset, k->bytes) == 0)
            continue;
        text_fmt(keys, "%s%s%s", keys->n == 0 ? "" : ", ", config_scope_path(scope), k->name);
        differ++;
    }
    return differ;
}

uint32_t config_needs_restart(const struct config *running, const struct config *next,
                              struct text *keys)
{
    return differing(running, next, SCOPE_TOP, false, keys);
}
