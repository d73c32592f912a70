/*
 * sim_disk_device - inside the simulated disk: what sim_disk_device.c (files, images, faults,
 * execution) and sim_disk.c (disk.h) share. Tests include sim_disk.h only.
 */
#ifndef TESTS_SIM_DISK_DEVICE_H
#define TESTS_SIM_DISK_DEVICE_H

#include "base/rng.h"
#include "tests/sim/sim_disk.h"

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
    uint64_t opening; /* which one of its directory */
    int dir;
};

struct disk_file {
    struct disk *disk;
    struct sim_file *file;
    uint64_t epoch;
    uint64_t opening;
    int dir;
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

struct sim_device {
    struct rng rng;
    struct sim_file *files;
    struct sim_op *ops;
    char *paths[DIRS];
    bool locked[DIRS];
    uint64_t opening[DIRS]; /* the last one; handles of others are dead */
    uint64_t epoch, birth; /* power cycles; the one in which the device was made */
    uint64_t capacity;
    uint64_t operations, reads, read_fault_at;
    struct plan plans[PLANS];
    bool fault_all_on;
    enum sim_fault fault_all;
    bool in_order;
    bool down;
    bool ready;
};
extern struct sim_device sim;

enum image { IN_WRITTEN = 1, IN_DURABLE = 2, IN_BOTH = 3 };

/* Of all files, those without a name included. */
uint64_t sim_used_bytes(void);
/* By name; NULL when there is none. */
struct sim_file *sim_find_file(int dir, const char *name);
void sim_set_size(struct sim_file *f, uint64_t bytes);
struct sim_file *sim_add_file(int dir, const char *name);
/* One reference less. */
void sim_drop_file(struct sim_file *f);
/* Unlinked: gone with its last handle. */
void sim_drop_name(struct sim_file *f);
void sim_put_sectors(struct sim_file *f, const uint8_t *p, size_t n, uint64_t offset,
                     enum image where);
/* For operations without data: 0 = do it, else what to return; `*half` says that it happened all
 * the same. */
int sim_plain_fault(bool *half);
ssize_t sim_read_file(struct sim_file *f, void *buf, size_t n, uint64_t offset);
/* Renames, over an older one if need be. */
void sim_give_name(struct sim_file *f, int dir, const char *name);
/* The power of one directory's host goes. */
void sim_crash_dir(int dir);
/* The operation is over, whether its owner heard of it or not. */
void sim_forget_op(struct sim_op *o);

#endif
