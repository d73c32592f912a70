#include "bench/workdir.h"

#include "bench/endpoint.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DESCRIPTORS = 32 };

static const char prefix[] = "mochila-bench.";

int workdir_make(const char *parent, char out[WORKDIR_BYTES])
{
    char real[PATH_MAX];

    if (realpath(parent, real) == NULL) {
        fprintf(stderr, "mochila-bench: --dir %s: %s\n", parent, strerror(errno));
        return -errno;
    }
    if (snprintf(out, WORKDIR_BYTES, "%s/%sXXXXXX", real, prefix) >= WORKDIR_BYTES) {
        fprintf(stderr, "mochila-bench: --dir %s: the path is too long\n", parent);
        return -ENAMETOOLONG;
    }
    if (mkdtemp(out) != NULL)
        return 0;
    fprintf(stderr, "mochila-bench: %s: %s\n", out, strerror(errno));
    return -errno;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

void workdir_remove(const char *path)
{
    MUST(strstr(path, prefix) != NULL);
    if (nftw(path, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        fprintf(stderr, "mochila-bench: %s could not be removed: %s\n", path, strerror(errno));
}

uint16_t workdir_free_port(void)
{
    struct endpoint e = {.port = 0};

    if (ip_parse(span_str("127.0.0.1"), &e.ip) < 0)
        return 0;
    int fd = endpoint_listen(&e, 0);
    if (fd < 0)
        return 0;
    close(fd);
    return e.port;
}
