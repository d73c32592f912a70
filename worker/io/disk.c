/*
 * The directory of a shard, its files and its memory: everything that is not an operation on the
 * ring.
 *
 * Two locks. The directory is locked for the life of the process. Each file is locked as well: a
 * request of a dead process keeps its open file, and with it the file's lock, until the request has
 * ended. So whoever opens a file after a crash has waited for the last write of the dead one.
 */
#include "worker/io/disk_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FILE_LOCK_TRIES = 5000, FILE_LOCK_PAUSE_NS = 1000000 };

static bool name_is_legal(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n + sizeof DISK_NEW_SUFFIX <= DISK_NAME_BYTES && strchr(name, '/') == NULL &&
           name[0] != '.';
}

static bool is_new(const char *name)
{
    size_t n = strlen(name);
    size_t suffix = strlen(DISK_NEW_SUFFIX);
    return n >= suffix && strcmp(name + n - suffix, DISK_NEW_SUFFIX) == 0;
}

/*
 * Direct I/O is what the file system does, not what it says: one block is written the way the spool
 * writes. Without room for the block the open alone has to do, as a full disk must not change the
 * mode.
 */
static enum disk_mode probe_mode(int dir_fd, void *block)
{
    static const char name[] = "probe" DISK_NEW_SUFFIX;
    enum disk_mode mode = DISK_CACHED;
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        struct iovec v = {block, LIMIT_BLOCK_BYTES};
        ssize_t n = pwritev2(fd, &v, 1, 0, RWF_DSYNC);
        if (n == LIMIT_BLOCK_BYTES || (n < 0 && (errno == ENOSPC || errno == EDQUOT)))
            mode = DISK_DIRECT;
        close(fd);
    }
    (void)unlinkat(dir_fd, name, 0);
    return mode;
}

static int open_dir(const char *path)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0) {
        (void)fsync(parent); /* the name of a directory that was just made; not ours to insist on */
        close(parent);
    }
    return fd;
}

static int for_each_entry(struct disk *d, void (*fn)(void *ctx, const char *name, uint64_t bytes),
                          void *ctx, bool new_ones)
{
    int fd = openat(d->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        int err = -errno;
        if (fd >= 0)
            close(fd);
        return err;
    }
    errno = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (is_new(e->d_name) != new_ones || e->d_name[0] == '.')
            continue;
        if (fstatat(d->dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            fn(ctx, e->d_name, (uint64_t)st.st_size);
        errno = 0;
    }
    int err = -errno;
    closedir(dir);
    return err;
}

static void remove_new(void *ctx, const char *name, uint64_t bytes)
{
    (void)bytes;
    const struct disk *d = ctx;
    (void)unlinkat(d->dir_fd, name, 0);
}

int disk_open(struct disk **out, struct io *io, const char *path)
{
    *out = NULL;
    struct disk *d = calloc(1, sizeof *d);
    if (d == NULL)
        return -ENOMEM;
    int err = open_dir(path);
    d->dir_fd = err;
    if (err >= 0)
        err = disk_zeroes(d) == NULL ? -ENOMEM : 0;
    if (err == 0) {
        d->mode = probe_mode(d->dir_fd, d->zeroes);
        err = for_each_entry(d, remove_new, d, true);
    }
    if (err == 0 && io != NULL)
        err = disk_engine_get(io, &d->engine);
    if (err < 0) {
        disk_close(&d);
        return err;
    }
    *out = d;
    return 0;
}

void disk_close(struct disk **dp)
{
    struct disk *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    disk_zero_abandon(d);
    disk_engine_put(&d->engine);
    if (d->dir_fd >= 0)
        close(d->dir_fd);
    free(d);
}

enum disk_mode disk_mode(const struct disk *d)
{
    return d->mode;
}

int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name, uint64_t bytes), void *ctx)
{
    return for_each_entry(d, fn, ctx, false);
}

uint64_t disk_free_bytes(struct disk *d)
{
    struct statvfs v;
    if (fstatvfs(d->dir_fd, &v) < 0)
        return 0;
    return (uint64_t)v.f_bavail * v.f_frsize;
}

int disk_open_at(const struct disk *d, const char *name, int flags)
{
    int direct = d->mode == DISK_DIRECT ? O_DIRECT : 0;
    int fd = openat(d->dir_fd, name, flags | direct | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

/* Waits until no request of a dead process holds the file; see above. */
static int lock_file(int fd)
{
    const struct timespec pause = {.tv_nsec = FILE_LOCK_PAUSE_NS};
    for (int i = 0; i < FILE_LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        nanosleep(&pause, NULL);
    }
    return -EWOULDBLOCK;
}

int disk_file_open(struct disk *d, const char *name, struct disk_file **out)
{
    *out = NULL;
    if (!name_is_legal(name))
        return -EINVAL;
    struct disk_file *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -ENOMEM;
    f->disk = d;
    f->fd = disk_open_at(d, name, O_RDWR);
    int err = f->fd < 0 ? f->fd : lock_file(f->fd);
    if (err < 0) {
        disk_file_close(&f);
        return err;
    }
    *out = f;
    return 0;
}

void disk_file_close(struct disk_file **fp)
{
    struct disk_file *f = *fp;
    *fp = NULL;
    if (f == NULL)
        return;
    disk_orphan_file(f);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

ssize_t disk_pread(struct disk_file *f, void *buf, size_t n, uint64_t offset)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(f->fd, (uint8_t *)buf + got, n - got, (off_t)(offset + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        got += (size_t)r;
        /* The end of the file, or a length from which direct reads cannot go on. */
        if (r == 0 || r % LIMIT_BLOCK_BYTES != 0)
            break;
    }
    return (ssize_t)got;
}

int disk_file_sync(struct disk_file *f)
{
    return fdatasync(f->fd) < 0 ? -errno : 0;
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    if (!name_is_legal(from) || !name_is_legal(to))
        return -EINVAL;
    if (renameat(d->dir_fd, from, d->dir_fd, to) < 0 || fsync(d->dir_fd) < 0)
        return -errno;
    return 0;
}

int disk_unlink(struct disk *d, const char *name)
{
    if (!name_is_legal(name))
        return -EINVAL;
    if (unlinkat(d->dir_fd, name, 0) < 0 || fsync(d->dir_fd) < 0)
        return -errno;
    return 0;
}

static void register_memory(struct disk_engine *e, uint8_t *p, size_t bytes)
{
    if (e == NULL || bytes < DISK_REGISTER_BYTES_MIN)
        return;
    int index = ring_fix_memory(&e->io->ring, p, bytes);
    if (index >= 0)
        e->regions[index] = (struct disk_region){.base = p, .bytes = bytes, .index = index};
}

static void forget_memory(struct disk_engine *e, const uint8_t *p)
{
    for (int i = 0; e != NULL && i < RING_FIXED_BUFFERS; i++) {
        if (e->regions[i].base != p)
            continue;
        ring_unfix_memory(&e->io->ring, i);
        e->regions[i].base = NULL;
    }
}

/* Whole pages, or whole huge pages. */
static size_t mapped_bytes(size_t bytes)
{
    size_t unit = bytes >= DISK_HUGE_BYTES ? DISK_HUGE_BYTES : LIMIT_BLOCK_BYTES;
    return (bytes + unit - 1) / unit * unit;
}

static uint8_t *map_aligned(size_t bytes, size_t align)
{
    size_t slack = align > LIMIT_BLOCK_BYTES ? align : 0;
    uint8_t *p =
        mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (slack == 0)
        return p;
    size_t before = (align - (uintptr_t)p % align) % align;
    if (before > 0)
        munmap(p, before);
    if (slack > before)
        munmap(p + before + bytes, slack - before);
    return p + before;
}

void *disk_alloc(struct disk *d, size_t bytes)
{
    MUST(bytes > 0);
    size_t n = mapped_bytes(bytes);
    bool huge = n >= DISK_HUGE_BYTES;
    uint8_t *p = map_aligned(n, huge ? DISK_HUGE_BYTES : LIMIT_BLOCK_BYTES);
    if (p == NULL)
        return NULL;
    if (huge)
        (void)madvise(p, n, MADV_HUGEPAGE);
    register_memory(d->engine, p, n);
    return p;
}

void disk_free(struct disk *d, void *p, size_t bytes)
{
    if (p == NULL)
        return;
    forget_memory(d->engine, p);
    MUST(munmap(p, mapped_bytes(bytes)) == 0);
}
