/* arbiter - see arbiter.h: `static`, which rests on the lane table. */
#include "master/move/arbiter.h"

#include <errno.h>

static struct lane_record *static_read(struct arbiter *a, const struct ip *lane)
{
    return lane_by_address(a->master, lane);
}

static int static_swap(struct arbiter *a, const struct lane_change *changes, uint32_t count)
{
    MUST(count > 0);
    return lane_table_change(a->master, changes, count);
}

/* Nobody else can take a lane away, so there is no right that could run out. */
static uint64_t static_session(struct arbiter *a)
{
    (void)a;
    return 0;
}

static int static_watch(struct arbiter *a, void (*changed)(void *ctx, const struct ip *lane),
                        void *ctx)
{
    (void)a, (void)changed, (void)ctx;
    return -ENOTSUP;
}

static int static_fence(struct arbiter *a, const char *node)
{
    (void)a, (void)node;
    return -ENOTSUP;
}

void arbiter_static(struct arbiter *a, struct master *m)
{
    static const struct arbiter_ops ops = {.name = "static",
                                           .read = static_read,
                                           .swap = static_swap,
                                           .session = static_session,
                                           .watch = static_watch,
                                           .fence = static_fence};
    a->ops = &ops;
    a->master = m;
}
