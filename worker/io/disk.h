/*
 * disk - all file access of the spool: one directory of segment files.
 *
 * Durable writes are O_DIRECT with RWF_DSYNC, one operation on the ring each; where the file system
 * refuses O_DIRECT it is page cache + RWF_DSYNC (disk_mode says which). Tests link
 * tests/sim/sim_disk.c instead, which drops, keeps or tears what was not durable, fails with EIO or
 * ENOSPC, and writes short.
 *
 * Owner:  a shard. Buffers, offsets and lengths are multiples of LIMIT_BLOCK_BYTES, buffers aligned
 * so (disk_alloc).
 * Never:  retries a failed write or fsync.
 */
#ifndef WORKER_IO_DISK_H
#define WORKER_IO_DISK_H

#include "base/check.h"
#include "worker/io/io.h"

#include <sys/types.h>

struct disk; /* one directory, locked with flock */
struct disk_file;

enum disk_mode { DISK_DIRECT, DISK_CACHED };

/*
 * Opens (makes, mode 0700) the directory and takes its lock. -EWOULDBLOCK: another process owns the
 * shard. `io` may be NULL for tools that only read synchronously.
 */
NODISCARD int disk_open(struct disk **out, struct io *io, const char *path);
void disk_close(struct disk **d);
enum disk_mode disk_mode(const struct disk *d);

/* Calls fn for each regular file of the directory, in no order. */
NODISCARD int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name, uint64_t bytes),
                        void *ctx);
/* Free bytes of the file system for us. */
uint64_t disk_free_bytes(struct disk *d);

NODISCARD int disk_file_open(struct disk *d, const char *name, struct disk_file **out);
void disk_file_close(struct disk_file **f);
/* Blocking, for recovery and tools: bytes read (short at the end of the file) or -errno. */
NODISCARD ssize_t disk_pread(struct disk_file *f, void *buf, size_t n, uint64_t offset);
/*
 * Blocking, for recovery: what reads of the file see now is durable afterwards. What a dead process
 * left in the page cache or in the drive's cache is seen, but was never promised by anybody.
 */
NODISCARD int disk_file_sync(struct disk_file *f);
/* Durable rename and unlink (the directory is synced). */
NODISCARD int disk_rename(struct disk *d, const char *from, const char *to);
NODISCARD int disk_unlink(struct disk *d, const char *name);

/* An operation on the ring; embedded in what it serves. res = bytes or -errno. */
struct disk_op {
    void (*on_done)(struct disk_op *op, ssize_t res);
    uint32_t slot; /* private */
};
/* Durable when done: res == n or it failed for good (a short write is reported as -EIO). */
void disk_write(struct disk_file *f, struct disk_op *op, const void *buf, size_t n,
                uint64_t offset);
void disk_read(struct disk_file *f, struct disk_op *op, void *buf, size_t n, uint64_t offset);
/*
 * Makes a file of `bytes` zeroes, written and synced, under `name`: for spare segments. In the
 * background (pieces on the ring, no helper thread); res 0 or -errno (-ENOSPC: nothing is left
 * behind).
 */
void disk_make_zeroed(struct disk *d, struct disk_op *op, const char *name, uint64_t bytes);
/* The same, blocking: for the first segment at start. */
NODISCARD int disk_make_zeroed_now(struct disk *d, const char *name, uint64_t bytes);

/* Memory for writes and reads: aligned, on huge pages when large, registered with the ring when
 * possible. */
void *disk_alloc(struct disk *d, size_t bytes);
void disk_free(struct disk *d, void *p, size_t bytes);

#endif
