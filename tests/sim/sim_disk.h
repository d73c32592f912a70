/*
 * sim_disk - disk.h in memory, with a power switch: one simulated device for the process.
 *
 * A program links tests/sim/sim_disk.o in place of worker/io/disk*.o. Each file has two images:
 * `written` is what reads see, `durable` what survives for certain. An operation is done when
 * sim_disk_step() executes it, and only then its on_done is called. A write that succeeded is in
 * both images (RWF_DSYNC); one that failed, or was in flight when the power went, leaves any of its
 * 512-byte sectors in any state. Everything follows from the seed.
 *
 * What counts as an operation (for faults and cuts): an executed write, a piece or the end of
 * making a zeroed file, a rename, an unlink, making a directory's first file included. Reads are
 * counted apart.
 *
 * Use: sim_disk_init(seed); disk_open(&d, NULL, "shard0"); ... ; sim_disk_fault(SIM_CUT, i); run
 * until sim_disk_is_down(); sim_disk_crash(); destroy the dead objects (their handles are
 * harmless); disk_open again: recovery.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "base/span.h"
#include "worker/io/disk.h"

enum sim_fault {
    SIM_EIO,    /* the operation fails; any sectors of a write may have changed */
    SIM_ENOSPC, /* the operation fails, nothing has changed */
    SIM_SHORT,  /* a write stops after some sectors: -EIO, as disk.h says */
    SIM_CUT     /* the power goes in the middle of the operation */
};

/* An empty device of 1 GiB, power on, no faults planned. Forgets everything before. */
void sim_disk_init(uint64_t seed);
/* Frees all memory; for the end of a test. */
void sim_disk_fini(void);
void sim_disk_capacity(uint64_t bytes);
/* Operations are executed in any order (preset) or in the order of their submission. */
void sim_disk_in_order(bool in_order);

/* The nth operation from now (1 = the next) meets the fault; up to 16 may be planned. */
void sim_disk_fault(enum sim_fault fault, uint64_t nth);
/* From now on every operation meets it, until sim_disk_heal. Not SIM_CUT. */
void sim_disk_fault_all(enum sim_fault fault);
/* The nth read from now fails with -EIO. */
void sim_disk_fault_read(uint64_t nth);
void sim_disk_heal(void);

/* Executes one waiting operation and calls its on_done. False when none waits or the power is off.
 */
bool sim_disk_step(void);
/* Steps until nothing waits (at most 1,000,000 steps). */
void sim_disk_run(void);
uint32_t sim_disk_waiting(void);
uint64_t sim_disk_operations(void);
bool sim_disk_is_down(void);

/*
 * Power off (if still on) and on again: each operation that waits is dropped, done or torn, each
 * uncertain sector decided, temporary files swept, all handles dead. No on_done comes any more for
 * what was before.
 */
void sim_disk_crash(void);
/* The same for one directory alone: the device is two hosts' then. */
void sim_disk_crash_one(const char *path);

/* The file's bytes as reads see them, valid until it changes; empty when there is no such file. */
struct span sim_disk_peek(const char *path, const char *name);
/* Damages or cuts a file in both images, as a bad medium would. The file must exist. */
void sim_disk_poke(const char *path, const char *name, uint64_t offset, struct span bytes);
void sim_disk_truncate(const char *path, const char *name, uint64_t bytes);

#endif
