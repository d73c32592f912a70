/*
 * placement - which shard a lane lives in, which worker holds a shard, which core a worker runs on.
 *
 * Pure functions over arrays: no disk, no system call. A lane's shard is for ever (its queue lies
 * there); only new lanes are placed. Worker w holds shard w and, when there were more workers once,
 * the higher shards s with s % workers = w.
 *
 * NICs: the distinct `nic` values of the configured lanes, in their order, are dealt out to the
 * workers in turn; with more NICs than workers a worker has several. Lanes without a NIC may live
 * anywhere.
 */
#ifndef MASTER_PLACEMENT_H
#define MASTER_PLACEMENT_H

#include "base/check.h"
#include "proto/limits.h"

enum { PLACEMENT_NIC_BYTES = 16, PLACEMENT_NO_SHARD = -1, PLACEMENT_ANY_NODE = -1 };

struct placement_lane {
    const char *nic; /* "" = any */
    int32_t shard;   /* in: its shard, or PLACEMENT_NO_SHARD for a new lane; out: its shard */
    bool counts;     /* an active lane: retired ones keep their shard and weigh nothing */
};

/* Worker that holds a shard; workers >= 1. */
uint32_t placement_worker_of(uint32_t shard, uint32_t workers);
/* Shards in all: one per worker, or as many as lanes were ever placed in. */
uint32_t placement_shard_count(const struct placement_lane *lanes, size_t count, uint32_t workers);
/*
 * Gives each lane without a shard the one among 0..workers-1 with the fewest active lanes, of
 * workers of the lane's NIC if it names one. Lanes are placed in the order of the array; ties go to
 * the lowest shard.
 */
void placement_assign(struct placement_lane *lanes, size_t count, uint32_t workers);

/* A core this process may run on, with its NUMA node (PLACEMENT_ANY_NODE: unknown). */
struct placement_core {
    int32_t core;
    int32_t numa_node;
};
/*
 * One core for each worker: cores[i] for worker i, but a worker whose NIC sits on a known NUMA node
 * takes a free core of that node when there is one. More workers than cores: they go round.
 */
void placement_cores(const struct placement_core *cores, size_t core_count,
                     const int32_t *nic_nodes, uint32_t workers, int32_t *out);
/* The first NIC dealt to worker w, or "" when no lane names a NIC. */
const char *placement_nic_of(const struct placement_lane *lanes, size_t count, uint32_t workers,
                             uint32_t worker);

#endif
