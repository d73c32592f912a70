/*
 * pages - the workers' counters pages, mapped read-only, and what is made of them.
 *
 * Owner:  the api process; mapped from the descriptors of START, replaced by the next START.
 * Input:  shared memory that a worker writes at any moment; every number is read once.
 * Never:  writes to a page, or believes a count in it as an array bound.
 */
#ifndef API_PAGES_H
#define API_PAGES_H

#include "base/net.h"
#include "proto/control.h"
#include "proto/stats.h"

#include <jansson.h>

struct pages {
    unsigned count;
    const struct stats_page *page[LIMIT_WORKERS]; /* by slot */
    char node[LIMIT_NAME_BYTES + 1];
    struct control_lane *lanes; /* sorted by number; names the lanes of the pages */
    uint32_t lane_count;
};

/*
 * Maps one page per descriptor (not closed). -EINVAL when one is too small or of another version:
 * then nothing is mapped.
 */
NODISCARD int pages_map(struct pages *p, const int *fds, unsigned count);
void pages_unmap(struct pages *p);
/* Remembers a copy of lane numbers and addresses, adding to those known. 0 or -ENOMEM. */
NODISCARD int pages_name_lanes(struct pages *p, const struct control_lane *lanes, uint32_t count);
/* The address of a lane, or its number when the master did not name it. */
void pages_lane_text(const struct pages *p, uint32_t lane, char out[IP_TEXT]);

/*
 * Prometheus text exposition, version 0.0.4: a malloc'd text or NULL. Labels are worker, lane and
 * le, all bounded by limits.h. `now_ns` is CLOCK_MONOTONIC, as the heartbeat of a worker.
 */
char *pages_metrics(const struct pages *p, uint64_t now_ns, size_t *n);
/* The same for programs: {"workers":[..],"total":{..},"lanes":[..]}, or NULL. */
json_t *pages_stats(const struct pages *p, uint64_t now_ns);

#endif
