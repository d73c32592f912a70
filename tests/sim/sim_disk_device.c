/*
 * The simulated device. Files live in one list; a handle points to its file, so a file that was
 * unlinked or renamed over stays until its last handle goes. `epoch` counts power cycles: a handle
 * of an earlier one is dead.
 */
#include "tests/sim/sim_disk_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_device sim;

/* Files */

uint64_t sim_used_bytes(void)
{
    uint64_t n = 0;
    for (const struct sim_file *f = sim.files; f != NULL; f = f->next)
        n += f->bytes;
    return n;
}

struct sim_file *sim_find_file(int dir, const char *name)
{
    for (struct sim_file *f = sim.files; f != NULL; f = f->next) {
        if (f->dir == dir && !f->is_new && strcmp(f->name, name) == 0)
            return f;
    }
    return NULL;
}

void sim_set_size(struct sim_file *f, uint64_t bytes)
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

struct sim_file *sim_add_file(int dir, const char *name)
{
    struct sim_file *f = calloc(1, sizeof *f);
    MUST(f != NULL);
    f->refs = 1;
    f->dir = dir;
    snprintf(f->name, sizeof f->name, "%s", name);
    f->next = sim.files;
    sim.files = f;
    sim_set_size(f, 0);
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

void sim_drop_file(struct sim_file *f)
{
    MUST(f->refs > 0);
    if (--f->refs == 0)
        free_file(f);
}

void sim_drop_name(struct sim_file *f)
{
    f->name[0] = '\0';
    f->dir = -1;
    sim_drop_file(f);
}

/* Writing, sector by sector */

void sim_put_sectors(struct sim_file *f, const uint8_t *p, size_t n, uint64_t offset,
                     enum image where)
{
    if (offset + n > f->bytes)
        sim_set_size(f, offset + n);
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
            sim_put_sectors(f, p + i, piece, offset + i, IN_WRITTEN);
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
            sim_put_sectors(f, p + i, piece, offset + i, IN_BOTH);
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

int sim_plain_fault(bool *half)
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

void sim_forget_op(struct sim_op *o)
{
    struct sim_op **link = &sim.ops;
    while (*link != o)
        link = &(*link)->next;
    *link = o->next;
    sim_drop_file(o->file);
    free(o);
}

void sim_disk_fini(void)
{
    while (sim.ops != NULL)
        sim_forget_op(sim.ops);
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
    for (int dir = 0; dir < DIRS; dir++)
        sim_crash_dir(dir);
    while (sim.ops != NULL) /* of files that nobody has open any more */
        sim_forget_op(sim.ops);
    sim.down = false;
    sim.epoch++;
}

static int op_dir(const struct sim_op *o)
{
    return o->disk != NULL ? o->disk->dir : o->handle != NULL ? o->handle->dir : o->file->dir;
}

void sim_crash_dir(int dir)
{
    for (struct sim_op *o = sim.ops, *next; o != NULL; o = next) {
        next = o->next;
        if (op_dir(o) != dir)
            continue;
        if (o->verb == VERB_WRITE)
            put_torn(o->file, o->buf, o->n, o->offset);
        sim_forget_op(o);
    }
    for (struct sim_file *f = sim.files, *next; f != NULL; f = next) {
        next = f->next;
        if (f->dir != dir)
            continue;
        if (f->is_new)
            sim_drop_name(f);
        else
            settle(f);
    }
    sim.locked[dir] = false;
    sim.opening[dir]++;
}

/* Executing operations */

static ssize_t do_write(struct sim_op *o)
{
    enum sim_fault fault;
    if (!take_fault(&fault)) {
        if (o->offset + o->n > o->file->bytes &&
            sim_used_bytes() + o->offset + o->n - o->file->bytes > sim.capacity)
            return -ENOSPC;
        sim_put_sectors(o->file, o->buf, o->n, o->offset, IN_BOTH);
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
            sim_put_sectors(o->file, o->buf, n, o->offset, IN_BOTH);
        return -EIO;
    }
    case SIM_CUT:
        put_torn(o->file, o->buf, o->n, o->offset);
        sim.down = true;
        return -EIO;
    }
    check_failed("no such fault", __FILE__, __LINE__);
}

ssize_t sim_read_file(struct sim_file *f, void *buf, size_t n, uint64_t offset)
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

void sim_give_name(struct sim_file *f, int dir, const char *name)
{
    struct sim_file *old = sim_find_file(dir, name);
    if (old != NULL && old != f)
        sim_drop_name(old);
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
    int err = sim_plain_fault(&half);
    if (err == 0 && o->offset < o->target_bytes) {
        o->offset += PIECE;
        return false;
    }
    if (err == 0 || (half && o->offset >= o->target_bytes))
        sim_give_name(o->file, o->disk->dir, o->name);
    else if (!sim.down)
        sim_drop_name(o->file);
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
        res = sim_read_file(o->file, o->buf, o->n, o->offset);
    else if (!step_zero(o, &res))
        return true;
    struct disk_op *op = o->op;
    if (sim.down)
        return false; /* nobody hears of it any more */
    sim_forget_op(o);
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
