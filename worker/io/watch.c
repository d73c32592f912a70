/*
 * Readiness of foreign descriptors: one-shot polls, armed in the sync phase. A slot outlives its
 * watch until the last completion has come, so a watch may be freed right after io_watch_stop.
 */
#include "worker/io/io_private.h"

#include <errno.h>
#include <stdlib.h>

int watches_init(struct io *io)
{
    io->watches = calloc(IO_WATCHES_MAX + 1, sizeof *io->watches);
    return io->watches == NULL ? -ENOMEM : 0;
}

void watches_fini(struct io *io)
{
    free(io->watches);
}

static void mark_dirty(struct io *io, uint32_t index)
{
    struct watch_slot *s = &io->watches[index];
    if (s->dirty)
        return;
    s->dirty = true;
    s->next = io->watch_dirty;
    io->watch_dirty = index;
}

static uint32_t take_slot(struct io *io)
{
    uint32_t index = io->watch_free;
    if (index != 0)
        io->watch_free = io->watches[index].next;
    else if (io->watch_touched < IO_WATCHES_MAX)
        index = ++io->watch_touched;
    return index;
}

static void release_slot(struct io *io, uint32_t index)
{
    struct watch_slot *s = &io->watches[index];
    MUST(!s->posted && !s->dirty);
    s->generation++;
    s->next = io->watch_free;
    io->watch_free = index;
}

int io_watch_start(struct io *io, struct io_watch *w, int fd, unsigned events)
{
    MUST(w->on_ready != NULL);
    MUST(fd >= 0);
    uint32_t index = take_slot(io);
    if (index == 0)
        return -EMFILE;
    struct watch_slot *s = &io->watches[index];
    s->watch = w;
    s->fd = fd;
    s->events = events;
    w->fd = fd;
    w->events = events;
    w->slot = index;
    w->generation = s->generation;
    mark_dirty(io, index);
    return 0;
}

void io_watch_stop(struct io *io, struct io_watch *w)
{
    if (w->slot == 0)
        return;
    struct watch_slot *s = &io->watches[w->slot];
    MUST(s->watch == w);
    s->watch = NULL;
    mark_dirty(io, w->slot);
    w->slot = 0;
}

/* False: the kernel takes no entry now, the slot stays dirty. */
static bool sync_slot(struct io *io, uint32_t index)
{
    struct watch_slot *s = &io->watches[index];
    uint64_t tag = ring_tag(RING_WATCH, s->generation, index);
    if (s->watch != NULL && !s->posted) {
        struct io_uring_sqe *sqe = ring_sqe(&io->ring, tag);
        if (sqe == NULL)
            return false;
        io_uring_prep_poll_add(sqe, s->fd, s->events);
        s->posted = true;
    } else if (s->watch == NULL && s->posted) {
        struct io_uring_sqe *sqe = ring_sqe(&io->ring, ring_tag(RING_IGNORED, 0, 0));
        if (sqe == NULL)
            return false;
        io_uring_prep_cancel64(sqe, tag, 0);
    }
    return true;
}

void watches_sync(struct io *io)
{
    uint32_t index = io->watch_dirty;
    io->watch_dirty = 0;
    while (index != 0) {
        struct watch_slot *s = &io->watches[index];
        uint32_t next = s->next;
        s->dirty = false;
        if (!sync_slot(io, index))
            mark_dirty(io, index);
        else if (s->watch == NULL && !s->posted)
            release_slot(io, index);
        index = next;
    }
}

void watch_on_event(struct io *io, const struct ring_event *e)
{
    MUST(e->slot >= 1 && e->slot <= io->watch_touched);
    struct watch_slot *s = &io->watches[e->slot];
    MUST((s->generation & RING_GENERATION_MASK) == e->generation);
    MUST(s->posted);
    s->posted = false;
    mark_dirty(io, e->slot);
    if (s->watch == NULL)
        return;
    unsigned events = e->res < 0 ? POLLERR : (unsigned)e->res;
    s->watch->on_ready(s->watch, events);
}
