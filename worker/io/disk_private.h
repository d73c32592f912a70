/*
 * disk_private - what disk.c (directory, files, memory), disk_ring.c (operations) and disk_zero.c
 * (new files) share.
 */
#ifndef WORKER_IO_DISK_PRIVATE_H
#define WORKER_IO_DISK_PRIVATE_H

#include "proto/limits.h"
#include "worker/io/disk.h"
#include "worker/io/io_private.h"

enum {
    DISK_OPS_MAX = 65536,       /* in flight or waiting, all shards of a worker */
    DISK_PIECE_BYTES = 1 << 20, /* of the zeroes for a new file */
    DISK_NAME_BYTES = 64,
    DISK_HUGE_BYTES = 2 << 20,
    DISK_REGISTER_BYTES_MIN =
        256 << 10, /* smaller memory is not worth one of the few registered places */
};

#define DISK_NEW_SUFFIX ".new" /* a file that is still being zeroed; removed by disk_open */

/* Memory registered with the ring. */
struct disk_region {
    const uint8_t *base; /* NULL: free */
    size_t bytes;
    int index;
};

enum disk_verb { DISK_VERB_WRITE, DISK_VERB_READ, DISK_VERB_FSYNC };

/* One operation, waiting for a submission entry or in flight. */
struct disk_slot {
    struct disk_op *op;     /* NULL: its file or directory was closed meanwhile */
    struct disk_file *file; /* NULL for those of a zeroing job */
    void *buf;
    size_t bytes;
    uint64_t offset;
    struct disk_slot *next_of_file, **link_of_file;
    uint32_t next; /* in the waiting list */
    int fd;
    enum disk_verb verb;
    int rw_flags;
};

/* The disk side of one ring, shared by all shards of the worker. */
struct disk_engine {
    struct io *io;
    struct pool slots;
    uint32_t waiting_head, waiting_tail; /* indices, 0 = none */
    uint32_t user_count;
    struct disk_region regions[RING_FIXED_BUFFERS];
};

struct disk_file {
    struct disk *disk;
    struct disk_slot *slots; /* list */
    int fd;
};

struct disk {
    struct disk_engine *engine; /* NULL without a ring */
    int dir_fd;
    enum disk_mode mode;
    void *zeroes;
    struct zero_job *jobs; /* list */
    char path[4096];
};

/* The engine of a ring, made at the first use. 0 or -ENOMEM. */
NODISCARD int disk_engine_get(struct io *io, struct disk_engine **out);
void disk_engine_put(struct disk_engine **e);
/* Queues an operation; *s is copied. */
void disk_submit(struct disk_engine *e, struct disk_op *op, const struct disk_slot *s);
/* No completion of this file reaches its operations any more. */
void disk_orphan_file(struct disk_file *f);
void disk_orphan_op(struct disk_engine *e, struct disk_op *op);

/* Opens `name` of the directory, O_DIRECT where the mode says so. A descriptor or -errno. */
NODISCARD int disk_open_at(const struct disk *d, const char *name, int flags);
/* Zero bytes to write from: DISK_PIECE_BYTES, or NULL. */
void *disk_zeroes(struct disk *d);
/* Forgets jobs under way; their operations end in the background. */
void disk_zero_abandon(struct disk *d);

#endif
