/* generation - see generation.h. */
#include "master/generation.h"

#include "base/text.h"
#include "master/placement.h"
#include "master/proc.h"

#include <errno.h>
#include <stdlib.h>

static int make_shards(const struct master *m, const struct generation *g, struct text *errors)
{
    for (uint32_t shard = 0; shard < g->shards; shard++) {
        int rc = paths_make_shard(&m->paths, shard);
        if (rc < 0) {
            text_fmt(errors, "spool %s: the directory of shard %u: %s\n", m->paths.spool, shard,
                     strerror(-rc));
            return rc;
        }
    }
    return 0;
}

int generation_create(struct master *m, struct source **source, struct generation **out,
                      struct text *errors)
{
    struct generation *g = calloc(1, sizeof *g);
    *out = g;
    if (g == NULL) {
        source_free(source);
        return -ENOMEM;
    }
    g->source = *source;
    *source = NULL;
    g->number = ++m->generation;
    g->workers = m->workers;
    int rc = lanes_place(m, g->source->config, g, errors);
    if (rc == 0)
        rc = lane_table_load(m);
    if (rc == 0)
        rc = make_shards(m, g, errors);
    cores_assign(g->source->config, g);
    for (uint32_t w = 0; rc == 0 && w < g->workers; w++) {
        g->procs[w] = proc_create(m, g, PROC_WORKER, w);
        if (g->procs[w] == NULL)
            rc = -ENOMEM;
    }
    if (rc < 0)
        generation_free(out);
    return rc;
}

void generation_free(struct generation **gp)
{
    struct generation *g = *gp;
    if (g == NULL)
        return;
    for (uint32_t w = 0; w < g->workers; w++)
        proc_free(&g->procs[w]);
    source_free(&g->source);
    free(g->lanes);
    free(g);
    *gp = NULL;
}

void generation_event(struct generation *g, enum slot_event e)
{
    for (uint32_t w = 0; w < g->workers; w++)
        proc_event(g->procs[w], e);
}

void generation_drain(struct generation *g, uint32_t seconds)
{
    for (uint32_t w = 0; w < g->workers; w++) {
        g->procs[w]->slot.drain_s = seconds;
        proc_event(g->procs[w], SLOT_EV_DRAIN);
    }
}

bool generation_all_ready(const struct generation *g)
{
    for (uint32_t w = 0; w < g->workers; w++) {
        if (g->procs[w]->slot.state != SLOT_READY)
            return false;
    }
    return true;
}

bool generation_is_empty(const struct generation *g)
{
    for (uint32_t w = 0; w < g->workers; w++) {
        if (g->procs[w]->slot.state != SLOT_EMPTY)
            return false;
    }
    return true;
}
