/* pages - see pages.h: mapping and names. The outputs are in metrics.c and stats_json.c. */
#include "master/api/pages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int map_one(int fd, const struct stats_page **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size < (off_t)sizeof(struct stats_page))
        return -EINVAL;
    void *m = mmap(NULL, sizeof(struct stats_page), PROT_READ, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return -errno;
    const struct stats_page *page = m;
    /* A page that no worker has opened yet is all zeroes: that is a page of this version too. */
    if (page->version != STATS_VERSION && page->version != 0) {
        (void)munmap(m, sizeof(struct stats_page));
        return -EINVAL;
    }
    *out = page;
    return 0;
}

int pages_map(struct pages *p, const int *fds, unsigned count)
{
    struct pages fresh = {0};

    if (count > LIMIT_WORKERS)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        int r = map_one(fds[i], &fresh.page[i]);
        if (r < 0) {
            pages_unmap(&fresh);
            return r;
        }
        fresh.count++;
    }
    memcpy(fresh.node, p->node, sizeof fresh.node);
    pages_unmap(p);
    *p = fresh;
    return 0;
}

void pages_unmap(struct pages *p)
{
    for (unsigned i = 0; i < p->count; i++)
        (void)munmap((void *)(uintptr_t)p->page[i], sizeof(struct stats_page));
    free(p->lanes);
    *p = (struct pages){0};
}

static int by_number(const void *a, const void *b)
{
    const struct control_lane *x = a;
    const struct control_lane *y = b;
    return (x->lane > y->lane) - (x->lane < y->lane);
}

int pages_name_lanes(struct pages *p, const struct control_lane *lanes, uint32_t count)
{
    if (count == 0)
        return 0;
    if (count > LIMIT_LANES || p->lane_count + count > 2 * LIMIT_LANES)
        return -EINVAL;
    size_t n = p->lane_count + count;
    struct control_lane *all = realloc(p->lanes, n * sizeof *all);
    if (all == NULL)
        return -ENOMEM;
    memcpy(all + p->lane_count, lanes, count * sizeof *all);
    p->lanes = all;
    p->lane_count = (uint32_t)n;
    qsort(all, n, sizeof *all, by_number);
    return 0;
}

void pages_lane_text(const struct pages *p, uint32_t lane, char out[IP_TEXT])
{
    struct control_lane key = {.lane = lane};
    const struct control_lane *found = NULL;
    if (p->lane_count > 0)
        found = bsearch(&key, p->lanes, p->lane_count, sizeof key, by_number);
    if (found != NULL)
        ip_format(&found->address, out);
    else
        (void)snprintf(out, IP_TEXT, "%u", lane);
}
