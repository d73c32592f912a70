/* ballast - see ballast.h. */
#include "master/ballast.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BALLAST_BYTES = 1 << 20, BLOCK_BYTES = 4096, PATH_BYTES = 4096 };

static bool name_of(const char *state_db, char out[PATH_BYTES])
{
    int n = snprintf(out, PATH_BYTES, "%s.room", state_db);
    return n > 0 && n < PATH_BYTES;
}

bool ballast_drop(const char *state_db)
{
    char path[PATH_BYTES];
    if (!name_of(state_db, path) || unlink(path) != 0)
        return false;
    log_warn("the disk is full: the room kept for state.db is used");
    return true;
}

/* Written, not only allocated: some file systems promise room that they do not have. */
static bool fill(int fd)
{
    static const char zeroes[BLOCK_BYTES];
    for (unsigned at = 0; at < BALLAST_BYTES; at += BLOCK_BYTES)
        if (write(fd, zeroes, BLOCK_BYTES) != BLOCK_BYTES)
            return false;
    return fsync(fd) == 0;
}

void ballast_keep(const char *state_db)
{
    char path[PATH_BYTES];
    if (!name_of(state_db, path))
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* it is there already, or there will be another start */
    if (!fill(fd)) {
        log_warn("no room is left to keep some for state.db: %s", strerror(errno));
        (void)unlink(path);
    }
    close(fd);
}
