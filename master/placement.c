/* placement - see placement.h. */
#include "master/placement.h"

#include <string.h>

struct nics {
    const char *name[LIMIT_LANES];
    uint32_t count;
};

static uint32_t nic_index(const struct nics *n, const char *name)
{
    uint32_t i = 0;
    while (i < n->count && strcmp(n->name[i], name) != 0)
        i++;
    return i;
}

static void nics_collect(struct nics *n, const struct placement_lane *lanes, size_t count)
{
    n->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!lanes[i].counts || lanes[i].nic[0] == '\0')
            continue;
        if (nic_index(n, lanes[i].nic) == n->count && n->count < LIMIT_LANES)
            n->name[n->count++] = lanes[i].nic;
    }
}

/* NICs are dealt to workers in turn; with fewer workers than NICs, the workers go round instead. */
static bool worker_has_nic(const struct nics *n, uint32_t worker, uint32_t workers, uint32_t nic)
{
    if (n->count <= workers)
        return worker % n->count == nic;
    return nic % workers == worker;
}

uint32_t placement_worker_of(uint32_t shard, uint32_t workers)
{
    MUST(workers >= 1);
    return shard % workers;
}

uint32_t placement_shard_count(const struct placement_lane *lanes, size_t count, uint32_t workers)
{
    uint32_t shards = workers;
    for (size_t i = 0; i < count; i++) {
        if (lanes[i].shard >= 0 && (uint32_t)lanes[i].shard >= shards)
            shards = (uint32_t)lanes[i].shard + 1;
    }
    return shards;
}

static int32_t lightest(const struct nics *n, const char *nic, const uint32_t *load,
                        uint32_t workers)
{
    int32_t best = PLACEMENT_NO_SHARD;
    uint32_t wanted = nic[0] == '\0' ? n->count : nic_index(n, nic);
    for (uint32_t w = 0; w < workers; w++) {
        if (wanted < n->count && !worker_has_nic(n, w, workers, wanted))
            continue;
        if (best < 0 || load[w] < load[best])
            best = (int32_t)w;
    }
    return best;
}

void placement_assign(struct placement_lane *lanes, size_t count, uint32_t workers)
{
    MUST(workers >= 1);
    MUST(workers <= LIMIT_WORKERS);
    struct nics nics;
    uint32_t load[LIMIT_WORKERS] = {0};
    nics_collect(&nics, lanes, count);
    /* A worker carries its own shard and those it adopted; new lanes go to its own. */
    for (size_t i = 0; i < count; i++) {
        if (lanes[i].counts && lanes[i].shard >= 0)
            load[placement_worker_of((uint32_t)lanes[i].shard, workers)]++;
    }
    for (size_t i = 0; i < count; i++) {
        if (!lanes[i].counts || lanes[i].shard >= 0)
            continue;
        lanes[i].shard = lightest(&nics, lanes[i].nic, load, workers);
        MUST(lanes[i].shard >= 0);
        load[lanes[i].shard]++;
    }
}

const char *placement_nic_of(const struct placement_lane *lanes, size_t count, uint32_t workers,
                             uint32_t worker)
{
    struct nics nics;
    nics_collect(&nics, lanes, count);
    for (uint32_t i = 0; i < nics.count; i++) {
        if (worker_has_nic(&nics, worker, workers, i))
            return nics.name[i];
    }
    return "";
}

/* Takes a core of this node that no other worker of this round has; -1 when there is none. */
static int32_t take_core(const struct placement_core *cores, size_t count, int32_t node,
                         bool *taken)
{
    for (size_t i = 0; i < count; i++) {
        if (taken[i] || (node != PLACEMENT_ANY_NODE && cores[i].numa_node != node))
            continue;
        taken[i] = true;
        return cores[i].core;
    }
    return -1;
}

void placement_cores(const struct placement_core *cores, size_t core_count,
                     const int32_t *nic_nodes, uint32_t workers, int32_t *out)
{
    enum { CORES_MAX = 1024 };
    bool taken[CORES_MAX] = {false};
    MUST(core_count >= 1);
    MUST(core_count <= CORES_MAX);
    uint32_t first = 0;
    while (first < workers) {
        uint32_t round = workers - first < core_count ? workers - first : (uint32_t)core_count;
        memset(taken, 0, sizeof taken);
        /* Those with a wish choose first, so that nobody without one takes their core. */
        for (uint32_t w = first; w < first + round; w++)
            out[w] = nic_nodes[w] == PLACEMENT_ANY_NODE
                         ? -1
                         : take_core(cores, core_count, nic_nodes[w], taken);
        for (uint32_t w = first; w < first + round; w++) {
            if (out[w] < 0)
                out[w] = take_core(cores, core_count, PLACEMENT_ANY_NODE, taken);
        }
        first += round;
    }
}
