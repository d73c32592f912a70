/* cores - which core a worker is pinned to: reads the machine, placement decides. */
#include "base/log.h"
#include "master/generation.h"
#include "master/placement.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { CORES_MAX = 1024, PATH_MAX_HERE = 128 };

/* The NUMA node of a core: a directory entry named node<N>. */
static int32_t node_of_core(int core)
{
    char path[PATH_MAX_HERE];
    int32_t node = PLACEMENT_ANY_NODE;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", core);
    DIR *d = opendir(path);
    if (d == NULL)
        return node;
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        uint64_t n;
        if (strncmp(e->d_name, "node", 4) == 0 && span_to_u64(span_str(e->d_name + 4), &n) == 0 &&
            n < CORES_MAX)
            node = (int32_t)n;
    }
    closedir(d);
    return node;
}

/* -1 in sysfs, and no file at all for virtual devices, both mean: any. */
static int32_t node_of_nic(const char *nic)
{
    char path[PATH_MAX_HERE];
    int node = PLACEMENT_ANY_NODE;
    if (nic[0] == '\0')
        return node;
    snprintf(path, sizeof path, "/sys/class/net/%s/device/numa_node", nic);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return node;
    if (fscanf(f, "%d", &node) != 1)
        node = PLACEMENT_ANY_NODE;
    fclose(f);
    return node;
}

static size_t allowed_cores(struct placement_core *out)
{
    cpu_set_t set;
    size_t count = 0;
    if (sched_getaffinity(0, sizeof set, &set) < 0) {
        log_warn("cores: %s: workers are not pinned", strerror(errno));
        return 0;
    }
    for (int core = 0; core < CPU_SETSIZE && count < CORES_MAX; core++) {
        if (CPU_ISSET(core, &set))
            out[count++] = (struct placement_core){core, node_of_core(core)};
    }
    return count;
}

uint32_t cores_count(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) < 0 ? 1 : CPU_COUNT(&set);
    return count < LIMIT_WORKERS ? (uint32_t)count : LIMIT_WORKERS;
}

void cores_assign(const struct config *c, struct generation *g)
{
    struct placement_core cores[CORES_MAX];
    int32_t nodes[LIMIT_WORKERS];
    for (uint32_t w = 0; w < g->workers; w++)
        g->cores[w] = -1;
    size_t count = c->pin ? allowed_cores(cores) : 0;
    if (count == 0)
        return;
    struct placement_lane *lanes = calloc(c->lane_count + 1, sizeof *lanes);
    for (uint32_t i = 0; lanes != NULL && i < c->lane_count; i++)
        lanes[i] = (struct placement_lane){.nic = c->lanes[i].nic, .counts = true};
    for (uint32_t w = 0; w < g->workers; w++)
        nodes[w] = lanes == NULL
                       ? PLACEMENT_ANY_NODE
                       : node_of_nic(placement_nic_of(lanes, c->lane_count, g->workers, w));
    placement_cores(cores, count, nodes, g->workers, g->cores);
    free(lanes);
}
