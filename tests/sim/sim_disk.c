/*
 * The simulated device. Files live in one list; a handle points to its file, so a file that was
 * unlinked or renamed over stays until its last handle goes. `epoch` counts power cycles: a handle
 * of an earlier one is dead.
 */
#include "tests/sim/sim_disk.h"

#include "base/rng.h"
#include "proto/limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, PIECE = 1 << 20, PLANS = 16, NAME = 64, DIRS = 64 };

struct sim_file {
    struct sim_file *next;
    uint32_t refs; /* handles, plus one while it has a name */
    int dir;
    char name[NAME]; /* "" once unlinked */
    bool is_new;     /* still being zeroed */
    uint64_t bytes;
    uint8_t *written;
    uint8_t *durable;
    uint8_t *uncertain; /* one byte a sector */
};

struct disk {
    uint64_t epoch;
    int dir;
};

struct disk_file {
    struct disk *disk;
    struct sim_file *file;
    uint64_t epoch;
};

enum verb { VERB_WRITE, VERB_READ, VERB_ZERO };

struct sim_op {
    struct sim_op *next;
    struct disk_op *op; /* NULL: forgotten */
    struct disk_file *handle;
    struct disk *disk;     /* VERB_ZERO */
    struct sim_file *file; /* referenced */
    enum verb verb;
    void *buf;
    size_t n;
    uint64_t offset;
    uint64_t target_bytes; /* VERB_ZERO */
    char name[NAME];
    int failed; /* VERB_ZERO: refused at the start */
};

struct plan {
    uint64_t at; /* 0: free */
    enum sim_fault fault;
};

static struct {
    struct rng rng;
    struct sim_file *files;
    struct sim_op *ops;
    char *paths[DIRS];
    bool locked[DIRS];
    uint64_t epoch, birth; /* power cycles; the one in which the device was made */
    uint64_t capacity;
    uint64_t operations, reads, read_fault_at;
    struct plan plans[PLANS];
    bool fault_all_on;
    enum sim_fault fault_all;
    bool in_order;
    bool down;
    bool ready;
} sim;

/* Files */

static uint64_t used_bytes(void)
{
    uint64_t n = 0;
    for (const struct sim_file *f = sim.files; f != NULL; f = f->next)
        n += f->bytes;
    return n;
}

static struct sim_file *find_file(int dir, const char *name)
{
    for (struct sim_file *f = sim.files; f != NULL; f = f->next) {
        if (f->dir == dir && !f->is_new && strcmp(f->name, name) == 0)
            return f;
    }
    return NULL;
}

static void set_size(struct sim_file *f, uint64_t bytes)
{
    size_t room = (size_t)(bytes > 0 ? bytes : 1);
    size_t sectors = room / SECTOR + 1;
    size_t had = (size_t)(f->bytes / SECTOR + 1);
    f->written = realloc(f->written, room);
    f->durable = realloc(f->durable, room);
    bool fresh = f->uncertain == NULL;
    f->uncertain = realloc(f->uncertain, sectors);
    MUST(f->written != NULL && f->durable != NULL && f->uncertain != NULL);
    if (fresh)
        had = 0;
    if (bytes > f->bytes) {
        memset(f->written + f->bytes, 0, (size_t)(bytes - f->bytes));
        memset(f->durable + f->bytes, 0, (size_t)(bytes - f->bytes));
    }
    if (sectors > had)
        memset(f->uncertain + had, 0, sectors - had);
    f->bytes = bytes;
}

static struct sim_file *add_file(int dir, const char *name)
{
    struct sim_file *f = calloc(1, sizeof *f);
    MUST(f != NULL);
    f->refs = 1;
    f->dir = dir;
    snprintf(f->name, sizeof f->name, "%s", name);
    f->next = sim.files;
    sim.files = f;
    set_size(f, 0);
    return f;
}

static void free_file(struct sim_file *f)
{
    struct sim_file **link = &sim.files;
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    free(f->written);
    free(f->durable);
    free(f->uncertain);
    free(f);
}

static void drop_file(struct sim_file *f)
{
    MUST(f->refs > 0);
    if (--f->refs == 0)
        free_file(f);
}

static void drop_name(struct sim_file *f)
{
    f->name[0] = '\0';
    f->dir = -1;
    drop_file(f);
}

/* Writing, sector by sector */

enum image { IN_WRITTEN = 1, IN_DURABLE = 2, IN_BOTH = 3 };

static void put_sectors(struct sim_file *f, const uint8_t *p, size_t n, uint64_t offset,
                        enum image where)
{
    if (offset + n > f->bytes)
        set_size(f, offset + n);
    if (where & IN_WRITTEN)
        memcpy(f->written + offset, p, n);
    if (where & IN_DURABLE)
        memcpy(f->durable + offset, p, n);
    for (uint64_t s = offset / SECTOR; s <= (offset + n - 1) / SECTOR; s++)
        f->uncertain[s] = where != IN_BOTH;
}

/* A write that nobody can rely on: every sector is new or old for readers, and open for the next
 * crash. */
static void put_uncertain(struct sim_file *f, const uint8_t *p, size_t n, uint64_t offset)
{
    for (size_t i = 0; i < n; i += SECTOR) {
        size_t piece = n - i < SECTOR ? n - i : SECTOR;
        if (rng_below(&sim.rng, 2) == 0)
            put_sectors(f, p + i, piece, offset + i, IN_WRITTEN);
    }
}

/* What the device did of a write when the power went: nothing, all, a beginning, or any of its
 * sectors. */
static void put_torn(struct sim_file *f, const uint8_t *p, size_t n, uint64_t offset)
{
    uint64_t how = rng_below(&sim.rng, 4);
    size_t prefix = (size_t)rng_below(&sim.rng, n / SECTOR + 1) * SECTOR;
    for (size_t i = 0; i < n; i += SECTOR) {
        size_t piece = n - i < SECTOR ? n - i : SECTOR;
        bool take =
            how == 1 || (how == 2 && i < prefix) || (how == 3 && rng_below(&sim.rng, 2) == 0);
        if (take)
            put_sectors(f, p + i, piece, offset + i, IN_BOTH);
    }
}

static void settle(struct sim_file *f)
{
    for (uint64_t s = 0; s * SECTOR < f->bytes; s++) {
        uint64_t at = s * SECTOR;
        size_t n = f->bytes - at < SECTOR ? (size_t)(f->bytes - at) : SECTOR;
        if (f->uncertain[s] && rng_below(&sim.rng, 2) == 0)
            memcpy(f->durable + at, f->written + at, n);
        else
            memcpy(f->written + at, f->durable + at, n);
        f->uncertain[s] = 0;
    }
}

/* Faults */

static bool take_fault(enum sim_fault *out)
{
    sim.operations++;
    for (size_t i = 0; i < PLANS; i++) {
        if (sim.plans[i].at != sim.operations)
            continue;
        *out = sim.plans[i].fault;
        sim.plans[i].at = 0;
        return true;
    }
    *out = sim.fault_all;
    return sim.fault_all_on;
}

/* For operations without data: 0 = do it, else what to return; `*half` says that it happened all
 * the same. */
static int plain_fault(bool *half)
{
    enum sim_fault fault;
    *half = false;
    if (sim.down)
        return -EIO;
    if (!take_fault(&fault))
        return 0;
    if (fault == SIM_ENOSPC)
        return -ENOSPC;
    *half = rng_below(&sim.rng, 2) == 0;
    if (fault == SIM_CUT)
        sim.down = true;
    return -EIO;
}

void sim_disk_fault(enum sim_fault fault, uint64_t nth)
{
    MUST(nth >= 1);
    for (size_t i = 0; i < PLANS; i++) {
        if (sim.plans[i].at == 0) {
            sim.plans[i] = (struct plan){sim.operations + nth, fault};
            return;
        }
    }
    check_failed("too many faults planned", __FILE__, __LINE__);
}

void sim_disk_fault_all(enum sim_fault fault)
{
    MUST(fault != SIM_CUT);
    sim.fault_all = fault;
    sim.fault_all_on = true;
}

void sim_disk_fault_read(uint64_t nth)
{
    sim.read_fault_at = sim.reads + nth;
}

void sim_disk_heal(void)
{
    memset(sim.plans, 0, sizeof sim.plans);
    sim.fault_all_on = false;
    sim.read_fault_at = 0;
}

/* The device */

void sim_disk_init(uint64_t seed)
{
    sim_disk_fini();
    rng_seed(&sim.rng, seed);
    sim.capacity = 1ull << 30;
    sim.ready = true;
}

static void forget_op(struct sim_op *o)
{
    struct sim_op **link = &sim.ops;
    while (*link != o)
        link = &(*link)->next;
    *link = o->next;
    drop_file(o->file);
    free(o);
}

void sim_disk_fini(void)
{
    while (sim.ops != NULL)
        forget_op(sim.ops);
    while (sim.files != NULL)
        free_file(sim.files);
    for (int i = 0; i < DIRS; i++)
        free(sim.paths[i]);
    uint64_t epoch = sim.epoch;
    memset(&sim, 0, sizeof sim);
    sim.epoch = epoch + 1;
    sim.birth = sim.epoch;
}

void sim_disk_capacity(uint64_t bytes)
{
    sim.capacity = bytes;
}

void sim_disk_in_order(bool in_order)
{
    sim.in_order = in_order;
}

uint32_t sim_disk_waiting(void)
{
    uint32_t n = 0;
    for (const struct sim_op *o = sim.ops; o != NULL; o = o->next)
        n++;
    return n;
}

uint64_t sim_disk_operations(void)
{
    return sim.operations;
}

bool sim_disk_is_down(void)
{
    return sim.down;
}

void sim_disk_crash(void)
{
    for (struct sim_op *o = sim.ops; o != NULL; o = o->next) {
        if (o->verb == VERB_WRITE)
            put_torn(o->file, o->buf, o->n, o->offset);
    }
    while (sim.ops != NULL)
        forget_op(sim.ops);
    for (struct sim_file *f = sim.files, *next; f != NULL; f = next) {
        next = f->next;
        if (f->is_new)
            drop_name(f);
        else
            settle(f);
    }
    memset(sim.locked, 0, sizeof sim.locked);
    sim.down = false;
    sim.epoch++;
}

/* Executing operations */

static ssize_t do_write(struct sim_op *o)
{
    enum sim_fault fault;
    if (!take_fault(&fault)) {
        if (o->offset + o->n > o->file->bytes &&
            used_bytes() + o->offset + o->n - o->file->bytes > sim.capacity)
            return -ENOSPC;
        put_sectors(o->file, o->buf, o->n, o->offset, IN_BOTH);
        return (ssize_t)o->n;
    }
    switch (fault) {
    case SIM_ENOSPC:
        return -ENOSPC;
    case SIM_EIO:
        put_uncertain(o->file, o->buf, o->n, o->offset);
        return -EIO;
    case SIM_SHORT: {
        size_t n = (size_t)rng_below(&sim.rng, o->n / SECTOR) * SECTOR;
        if (n > 0)
            put_sectors(o->file, o->buf, n, o->offset, IN_BOTH);
        return -EIO;
    }
    case SIM_CUT:
        put_torn(o->file, o->buf, o->n, o->offset);
        sim.down = true;
        return -EIO;
    }
    check_failed("no such fault", __FILE__, __LINE__);
}

static ssize_t read_file(struct sim_file *f, void *buf, size_t n, uint64_t offset)
{
    sim.reads++;
    if (sim.down || sim.reads == sim.read_fault_at)
        return -EIO;
    if (offset >= f->bytes)
        return 0;
    if (n > f->bytes - offset)
        n = (size_t)(f->bytes - offset);
    memcpy(buf, f->written + offset, n);
    return (ssize_t)n;
}

static void give_name(struct sim_file *f, int dir, const char *name)
{
    struct sim_file *old = find_file(dir, name);
    if (old != NULL && old != f)
        drop_name(old);
    f->is_new = false;
    f->dir = dir;
    snprintf(f->name, sizeof f->name, "%s", name);
}

/* One piece, or the end, of a new file. True when the whole operation is over. */
static bool step_zero(struct sim_op *o, ssize_t *res)
{
    bool half;
    *res = o->failed;
    if (o->failed < 0)
        return true;
    int err = plain_fault(&half);
    if (err == 0 && o->offset < o->target_bytes) {
        o->offset += PIECE;
        return false;
    }
    if (err == 0 || (half && o->offset >= o->target_bytes))
        give_name(o->file, o->disk->dir, o->name);
    else if (!sim.down)
        drop_name(o->file);
    *res = err;
    return true;
}

static struct sim_op *pick(void)
{
    uint32_t n = sim_disk_waiting();
    if (n == 0 || sim.down)
        return NULL;
    uint64_t skip = sim.in_order || rng_below(&sim.rng, 2) == 0 ? 0 : rng_below(&sim.rng, n);
    struct sim_op *o = sim.ops;
    while (skip-- > 0)
        o = o->next;
    return o;
}

bool sim_disk_step(void)
{
    MUST(sim.ready);
    struct sim_op *o = pick();
    if (o == NULL)
        return false;
    ssize_t res = 0;
    if (o->verb == VERB_WRITE)
        res = do_write(o);
    else if (o->verb == VERB_READ)
        res = read_file(o->file, o->buf, o->n, o->offset);
    else if (!step_zero(o, &res))
        return true;
    struct disk_op *op = o->op;
    if (sim.down)
        return false; /* nobody hears of it any more */
    forget_op(o);
    if (op != NULL) {
        op->slot = 0;
        op->on_done(op, res);
    }
    return true;
}

void sim_disk_run(void)
{
    for (int i = 0; i < 1000000 && sim_disk_step(); i++) {
    }
}

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
    *out = d;
    return 0;
}

void disk_close(struct disk **dp)
{
    struct disk *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    if (d->epoch == sim.epoch) {
        sim.locked[d->dir] = false;
        for (struct sim_op *o = sim.ops, *next; o != NULL; o = next) {
            next = o->next;
            if (o->disk != d)
                continue;
            if (o->file->is_new)
                drop_name(o->file);
            forget_op(o);
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
    if (sim.down || d->epoch != sim.epoch)
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
    uint64_t used = used_bytes();
    return used < sim.capacity ? sim.capacity - used : 0;
}

int disk_file_open(struct disk *d, const char *name, struct disk_file **out)
{
    *out = NULL;
    if (sim.down || d->epoch != sim.epoch)
        return -EIO;
    struct sim_file *f = find_file(d->dir, name);
    if (f == NULL)
        return -ENOENT;
    struct disk_file *h = calloc(1, sizeof *h);
    MUST(h != NULL);
    f->refs++;
    *h = (struct disk_file){.disk = d, .file = f, .epoch = sim.epoch};
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
        drop_file(h->file);
    free(h);
}

ssize_t disk_pread(struct disk_file *f, void *buf, size_t n, uint64_t offset)
{
    if (f->epoch != sim.epoch)
        return -EIO;
    return read_file(f->file, buf, n, offset);
}

int disk_file_sync(struct disk_file *f)
{
    bool half;
    if (f->epoch != sim.epoch)
        return -EIO;
    int err = plain_fault(&half);
    if (err == 0) {
        memcpy(f->file->durable, f->file->written, (size_t)f->file->bytes);
        memset(f->file->uncertain, 0, (size_t)(f->file->bytes / SECTOR + 1));
    }
    return err;
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    bool half;
    if (d->epoch != sim.epoch)
        return -EIO;
    struct sim_file *f = find_file(d->dir, from);
    if (f == NULL)
        return -ENOENT;
    int err = plain_fault(&half);
    if (err == 0 || half)
        give_name(f, d->dir, to);
    return err;
}

int disk_unlink(struct disk *d, const char *name)
{
    bool half;
    if (d->epoch != sim.epoch)
        return -EIO;
    struct sim_file *f = find_file(d->dir, name);
    if (f == NULL)
        return -ENOENT;
    int err = plain_fault(&half);
    if (err == 0 || half)
        drop_name(f);
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
    if (f->epoch != sim.epoch)
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
    *err = used_bytes() + bytes > sim.capacity ? -ENOSPC : 0;
    struct sim_file *f = add_file(d->dir, "");
    f->is_new = true;
    set_size(f, *err < 0 ? 0 : bytes);
    return f;
}

void disk_make_zeroed(struct disk *d, struct disk_op *op, const char *name, uint64_t bytes)
{
    if (d->epoch != sim.epoch)
        return;
    int err;
    struct sim_file *f = new_file(d, bytes, &err);
    struct sim_op *o = add_op(op, VERB_ZERO, f);
    o->disk = d;
    o->failed = err;
    o->target_bytes = bytes;
    snprintf(o->name, sizeof o->name, "%s", name);
    if (err < 0) {
        drop_name(f); /* the operation keeps it until it has told */
        f->is_new = false;
    }
}

int disk_make_zeroed_now(struct disk *d, const char *name, uint64_t bytes)
{
    bool half;
    if (d->epoch != sim.epoch)
        return -EIO;
    int err;
    struct sim_file *f = new_file(d, bytes, &err);
    half = false;
    if (err == 0)
        err = plain_fault(&half);
    if (err == 0 || half)
        give_name(f, d->dir, name);
    else
        drop_name(f);
    return err;
}

void *disk_alloc(struct disk *d, size_t bytes)
{
    (void)d;
    size_t n = (bytes + LIMIT_BLOCK_BYTES - 1) / LIMIT_BLOCK_BYTES * LIMIT_BLOCK_BYTES;
    void *p = aligned_alloc(LIMIT_BLOCK_BYTES, n);
    if (p != NULL)
        memset(p, 0, n);
    return p;
}

void disk_free(struct disk *d, void *p, size_t bytes)
{
    (void)d;
    (void)bytes;
    free(p);
}

/* For tests that look inside */

struct span sim_disk_peek(const char *path, const char *name)
{
    const struct sim_file *f = find_file(dir_index(path), name);
    return f == NULL ? span_of(NULL, 0) : span_of(f->written, (size_t)f->bytes);
}

void sim_disk_poke(const char *path, const char *name, uint64_t offset, struct span bytes)
{
    struct sim_file *f = find_file(dir_index(path), name);
    MUST(f != NULL);
    MUST(offset + bytes.n <= f->bytes);
    if (bytes.n > 0)
        put_sectors(f, bytes.p, bytes.n, offset, IN_BOTH);
}

void sim_disk_truncate(const char *path, const char *name, uint64_t bytes)
{
    struct sim_file *f = find_file(dir_index(path), name);
    MUST(f != NULL);
    MUST(bytes <= f->bytes);
    f->bytes = bytes;
}
