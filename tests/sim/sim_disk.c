/* disk.h on the simulated device, and what tests see of it. */
#include "proto/limits.h"
#include "tests/sim/sim_disk_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* disk.h */

static int dir_index(const char *path)
{
    for (int i = 0; i < DIRS; i++) {
        if (sim.paths[i] == NULL) {
            sim.paths[i] = strdup(path);
            MUST(sim.paths[i] != NULL);
            return i;
        }
        if (strcmp(sim.paths[i], path) == 0)
            return i;
    }
    check_failed("too many directories", __FILE__, __LINE__);
}

static bool disk_alive(const struct disk *d)
{
    return d->epoch == sim.epoch && d->opening == sim.opening[d->dir];
}

static bool file_alive(const struct disk_file *f)
{
    return f->epoch == sim.epoch && f->opening == sim.opening[f->dir];
}

int disk_open(struct disk **out, struct io *io, const char *path)
{
    (void)io;
    MUST(sim.ready);
    *out = NULL;
    int dir = dir_index(path);
    if (sim.locked[dir])
        return -EWOULDBLOCK;
    struct disk *d = calloc(1, sizeof *d);
    MUST(d != NULL);
    sim.locked[dir] = true;
    d->dir = dir;
    d->epoch = sim.epoch;
    d->opening = ++sim.opening[dir];
    *out = d;
    return 0;
}

void disk_close(struct disk **dp)
{
    struct disk *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    if (disk_alive(d)) {
        sim.locked[d->dir] = false;
        for (struct sim_op *o = sim.ops, *next; o != NULL; o = next) {
            next = o->next;
            if (o->disk != d)
                continue;
            if (o->file->is_new)
                sim_drop_name(o->file);
            sim_forget_op(o);
        }
    }
    free(d);
}

enum disk_mode disk_mode(const struct disk *d)
{
    (void)d;
    return DISK_DIRECT;
}

int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name, uint64_t bytes), void *ctx)
{
    if (sim.down || !disk_alive(d))
        return -EIO;
    for (struct sim_file *f = sim.files, *next; f != NULL; f = next) {
        next = f->next;
        if (f->dir == d->dir && !f->is_new)
            fn(ctx, f->name, f->bytes);
    }
    return 0;
}

uint64_t disk_free_bytes(struct disk *d)
{
    (void)d;
    uint64_t used = sim_used_bytes();
    return used < sim.capacity ? sim.capacity - used : 0;
}

int disk_file_open(struct disk *d, const char *name, struct disk_file **out)
{
    *out = NULL;
    if (sim.down || !disk_alive(d))
        return -EIO;
    struct sim_file *f = sim_find_file(d->dir, name);
    if (f == NULL)
        return -ENOENT;
    struct disk_file *h = calloc(1, sizeof *h);
    MUST(h != NULL);
    f->refs++;
    *h = (struct disk_file){.disk = d,
                            .file = f,
                            .epoch = sim.epoch,
                            .opening = d->opening,
                            .dir = d->dir};
    *out = h;
    return 0;
}

void disk_file_close(struct disk_file **fp)
{
    struct disk_file *h = *fp;
    *fp = NULL;
    if (h == NULL)
        return;
    for (struct sim_op *o = sim.ops; o != NULL; o = o->next) {
        if (o->handle != h)
            continue;
        o->handle = NULL;
        o->op = NULL; /* a write goes on without its owner, as on the real ring */
    }
    if (h->epoch >= sim.birth) /* else its file went with the device */
        sim_drop_file(h->file);
    free(h);
}

ssize_t disk_pread(struct disk_file *f, void *buf, size_t n, uint64_t offset)
{
    if (!file_alive(f))
        return -EIO;
    return sim_read_file(f->file, buf, n, offset);
}

int disk_file_sync(struct disk_file *f)
{
    bool half;
    if (!file_alive(f))
        return -EIO;
    int err = sim_plain_fault(&half);
    if (err == 0) {
        memcpy(f->file->durable, f->file->written, (size_t)f->file->bytes);
        memset(f->file->uncertain, 0, (size_t)(f->file->bytes / SECTOR + 1));
    }
    return err;
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    bool half;
    if (!disk_alive(d))
        return -EIO;
    struct sim_file *f = sim_find_file(d->dir, from);
    if (f == NULL)
        return -ENOENT;
    int err = sim_plain_fault(&half);
    if (err == 0 || half)
        sim_give_name(f, d->dir, to);
    return err;
}

int disk_unlink(struct disk *d, const char *name)
{
    bool half;
    if (!disk_alive(d))
        return -EIO;
    struct sim_file *f = sim_find_file(d->dir, name);
    if (f == NULL)
        return -ENOENT;
    int err = sim_plain_fault(&half);
    if (err == 0 || half)
        sim_drop_name(f);
    return err;
}

static struct sim_op *add_op(struct disk_op *op, enum verb verb, struct sim_file *file)
{
    MUST(op->on_done != NULL);
    struct sim_op *o = calloc(1, sizeof *o);
    MUST(o != NULL);
    o->op = op;
    o->verb = verb;
    o->file = file;
    file->refs++;
    struct sim_op **link = &sim.ops;
    while (*link != NULL)
        link = &(*link)->next;
    *link = o;
    return o;
}

static void add_rw(struct disk_file *f, struct disk_op *op, const struct sim_op *want)
{
    MUST(want->offset % LIMIT_BLOCK_BYTES == 0 && want->n % LIMIT_BLOCK_BYTES == 0);
    MUST((uintptr_t)want->buf % LIMIT_BLOCK_BYTES == 0 && want->n > 0);
    if (!file_alive(f))
        return; /* of a dead process: never done */
    struct sim_op *o = add_op(op, want->verb, f->file);
    o->handle = f;
    o->buf = want->buf;
    o->n = want->n;
    o->offset = want->offset;
}

void disk_write(struct disk_file *f, struct disk_op *op, const void *buf, size_t n, uint64_t offset)
{
    struct sim_op want = {.verb = VERB_WRITE, .n = n, .offset = offset};
    memcpy(&want.buf, &buf, sizeof want.buf);
    add_rw(f, op, &want);
}

void disk_read(struct disk_file *f, struct disk_op *op, void *buf, size_t n, uint64_t offset)
{
    struct sim_op want = {.verb = VERB_READ, .buf = buf, .n = n, .offset = offset};
    add_rw(f, op, &want);
}

static struct sim_file *new_file(struct disk *d, uint64_t bytes, int *err)
{
    *err = sim_used_bytes() + bytes > sim.capacity ? -ENOSPC : 0;
    struct sim_file *f = sim_add_file(d->dir, "");
    f->is_new = true;
    sim_set_size(f, *err < 0 ? 0 : bytes);
    return f;
}

void disk_make_zeroed(struct disk *d, struct disk_op *op, const char *name, uint64_t bytes)
{
    if (!disk_alive(d))
        return;
    int err;
    struct sim_file *f = new_file(d, bytes, &err);
    struct sim_op *o = add_op(op, VERB_ZERO, f);
    o->disk = d;
    o->failed = err;
    o->target_bytes = bytes;
    snprintf(o->name, sizeof o->name, "%s", name);
    if (err < 0) {
        sim_drop_name(f); /* the operation keeps it until it has told */
        f->is_new = false;
    }
}

int disk_make_zeroed_now(struct disk *d, const char *name, uint64_t bytes)
{
    bool half;
    if (!disk_alive(d))
        return -EIO;
    int err;
    struct sim_file *f = new_file(d, bytes, &err);
    half = false;
    if (err == 0)
        err = sim_plain_fault(&half);
    if (err == 0 || half)
        sim_give_name(f, d->dir, name);
    else
        sim_drop_name(f);
    return err;
}

/*
 * Large buffers come as untouched pages: clearing megabytes of which a run uses kilobytes was a
 * quarter of the crash test. Under ASan they come from the heap, so that a write beyond the end is
 * seen.
 */
enum { MAPPED_BYTES_MIN = 256 << 10 };
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUFFERS_ON_HEAP 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define BUFFERS_ON_HEAP 1
#endif
#ifndef BUFFERS_ON_HEAP
#define BUFFERS_ON_HEAP 0
#endif

static size_t whole_blocks(size_t bytes)
{
    return (bytes + LIMIT_BLOCK_BYTES - 1) / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
}

void *disk_alloc(struct disk *d, size_t bytes)
{
    (void)d;
    size_t n = whole_blocks(bytes);
    if (n >= MAPPED_BYTES_MIN && !BUFFERS_ON_HEAP) {
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    void *p = aligned_alloc(LIMIT_BLOCK_BYTES, n);
    if (p != NULL)
        memset(p, 0, n);
    return p;
}

void disk_free(struct disk *d, void *p, size_t bytes)
{
    (void)d;
    size_t n = whole_blocks(bytes);
    if (n >= MAPPED_BYTES_MIN && !BUFFERS_ON_HEAP && p != NULL)
        MUST(munmap(p, n) == 0);
    else
        free(p);
}

void sim_disk_crash_one(const char *path)
{
    sim_crash_dir(dir_index(path));
}

/* For tests that look inside */

struct span sim_disk_peek(const char *path, const char *name)
{
    const struct sim_file *f = sim_find_file(dir_index(path), name);
    return f == NULL ? span_of(NULL, 0) : span_of(f->written, (size_t)f->bytes);
}

void sim_disk_poke(const char *path, const char *name, uint64_t offset, struct span bytes)
{
    struct sim_file *f = sim_find_file(dir_index(path), name);
    MUST(f != NULL);
    MUST(offset + bytes.n <= f->bytes);
    if (bytes.n > 0)
        sim_put_sectors(f, bytes.p, bytes.n, offset, IN_BOTH);
}

void sim_disk_truncate(const char *path, const char *name, uint64_t bytes)
{
    struct sim_file *f = sim_find_file(dir_index(path), name);
    MUST(f != NULL);
    MUST(bytes <= f->bytes);
    f->bytes = bytes;
}
