/*
 * New files of zeroes. A file grows under a name of its own (".new"), is synced, and only then gets
 * its name; so a file that has its name is complete, and what a crash leaves behind is swept by
 * disk_open.
 *
 * In the background it is a chain of operations, one at a time: pieces, fsync of the file, rename,
 * fsync of the directory.
 */
#include "worker/io/disk_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum zero_state { ZERO_WRITING, ZERO_SYNCING_FILE, ZERO_SYNCING_DIRECTORY, ZERO_FAILING };

struct zero_job {
    struct zero_job *next, **link;
    struct disk *disk;
    struct disk_op *asker;
    struct disk_op op;
    enum zero_state state;
    int err;
    int fd;
    uint64_t bytes;
    uint64_t done_bytes;
    char name[DISK_NAME_BYTES];
    char new_name[DISK_NAME_BYTES];
};

void *disk_zeroes(struct disk *d)
{
    /* One read-only mapping of the zero page serves every disk of the process. */
    static void *zeroes;
    if (zeroes == NULL) {
        void *p = mmap(NULL, DISK_PIECE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        zeroes = p == MAP_FAILED ? NULL : p;
    }
    d->zeroes = zeroes;
    return zeroes;
}

static void make_new_name(char out[DISK_NAME_BYTES], const char *name)
{
    int n = snprintf(out, DISK_NAME_BYTES, "%s" DISK_NEW_SUFFIX, name);
    MUST(n > 0 && n < DISK_NAME_BYTES);
}

/* A new, empty file with its room reserved where the file system can. A descriptor or -errno. */
static int start_file(struct disk *d, const char *new_name, uint64_t bytes)
{
    MUST(bytes > 0 && bytes % LIMIT_BLOCK_BYTES == 0);
    int fd = disk_open_at(d, new_name, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0)
        return fd;
    if (fallocate(fd, 0, 0, (off_t)bytes) < 0 && errno != EOPNOTSUPP) {
        int err = -errno;
        close(fd);
        (void)unlinkat(d->dir_fd, new_name, 0);
        return err;
    }
    return fd;
}

static int write_zeroes(struct disk *d, int fd, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        uint64_t left = bytes - done;
        size_t n = left < DISK_PIECE_BYTES ? (size_t)left : DISK_PIECE_BYTES;
        ssize_t r = pwrite(fd, d->zeroes, n, (off_t)done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        done += (uint64_t)r;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int disk_make_zeroed_now(struct disk *d, const char *name, uint64_t bytes)
{
    char new_name[DISK_NAME_BYTES];
    make_new_name(new_name, name);
    int fd = start_file(d, new_name, bytes);
    if (fd < 0)
        return fd;
    int err = write_zeroes(d, fd, bytes);
    close(fd);
    if (err == 0 && renameat(d->dir_fd, new_name, d->dir_fd, name) < 0)
        err = -errno;
    if (err < 0)
        (void)unlinkat(d->dir_fd, new_name, 0);
    else if (fsync(d->dir_fd) < 0)
        err = -errno;
    return err;
}

static void leave_list(struct zero_job *j)
{
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
}

/* Ends the job; nothing is left behind when it failed. */
static void finish(struct zero_job *j, int err)
{
    struct disk_op *asker = j->asker;
    if (err < 0 && j->state != ZERO_SYNCING_DIRECTORY)
        (void)unlinkat(j->disk->dir_fd, j->new_name, 0);
    if (j->fd >= 0)
        close(j->fd);
    leave_list(j);
    free(j);
    asker->on_done(asker, err);
}

static void post_sync(struct zero_job *j, int fd, enum zero_state state)
{
    j->state = state;
    struct disk_slot s = {.fd = fd, .verb = DISK_VERB_FSYNC};
    disk_submit(j->disk->engine, &j->op, &s);
}

static void post_piece(struct zero_job *j)
{
    uint64_t left = j->bytes - j->done_bytes;
    struct disk_slot s = {.fd = j->fd,
                          .buf = j->disk->zeroes,
                          .bytes = left < DISK_PIECE_BYTES ? (size_t)left : DISK_PIECE_BYTES,
                          .offset = j->done_bytes,
                          .verb = DISK_VERB_WRITE};
    disk_submit(j->disk->engine, &j->op, &s);
}

/* A start that failed is told from the ring as well: one no-cost sync of the directory carries it.
 */
static void post_failure(struct zero_job *j, int err)
{
    j->err = err;
    post_sync(j, j->disk->dir_fd, ZERO_FAILING);
}

static void on_piece(struct zero_job *j, ssize_t res)
{
    if (res < 0) {
        finish(j, (int)res);
        return;
    }
    j->done_bytes += (uint64_t)res;
    if (j->done_bytes < j->bytes)
        post_piece(j);
    else
        post_sync(j, j->fd, ZERO_SYNCING_FILE);
}

static void on_file_synced(struct zero_job *j, ssize_t res)
{
    int err = (int)res;
    if (err == 0 && renameat(j->disk->dir_fd, j->new_name, j->disk->dir_fd, j->name) < 0)
        err = -errno;
    if (err < 0)
        finish(j, err);
    else
        post_sync(j, j->disk->dir_fd, ZERO_SYNCING_DIRECTORY);
}

static void on_step(struct disk_op *op, ssize_t res)
{
    struct zero_job *j = (struct zero_job *)(void *)((char *)op - offsetof(struct zero_job, op));
    switch (j->state) {
    case ZERO_WRITING:
        on_piece(j, res);
        return;
    case ZERO_SYNCING_FILE:
        on_file_synced(j, res);
        return;
    case ZERO_SYNCING_DIRECTORY:
        finish(j, (int)res);
        return;
    case ZERO_FAILING:
        finish(j, j->err);
        return;
    }
}

void disk_make_zeroed(struct disk *d, struct disk_op *op, const char *name, uint64_t bytes)
{
    MUST(d->engine != NULL);
    struct zero_job *j = calloc(1, sizeof *j);
    MUST(j != NULL);
    j->disk = d;
    j->asker = op;
    j->op.on_done = on_step;
    j->bytes = bytes;
    j->next = d->jobs;
    j->link = &d->jobs;
    if (j->next != NULL)
        j->next->link = &j->next;
    d->jobs = j;
    make_new_name(j->new_name, name);
    memcpy(j->name, name, strlen(name) + 1);
    j->fd = start_file(d, j->new_name, bytes);
    if (j->fd < 0)
        post_failure(j, j->fd);
    else
        post_piece(j);
}

void disk_zero_abandon(struct disk *d)
{
    while (d->jobs != NULL) {
        struct zero_job *j = d->jobs;
        disk_orphan_op(d->engine, &j->op);
        (void)unlinkat(d->dir_fd, j->new_name, 0);
        if (j->fd >= 0)
            close(j->fd);
        leave_list(j);
        free(j);
    }
}
