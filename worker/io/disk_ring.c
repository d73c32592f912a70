/*
 * Operations of the spool on the ring. An operation has a slot from the call to its completion; the
 * slot names the operation, the ring names the slot, so an operation whose file was closed is
 * simply forgotten.
 */
#include "worker/io/disk_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

static const struct disk_region *find_region(const struct disk_engine *e, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < RING_FIXED_BUFFERS; i++) {
        const struct disk_region *r = &e->regions[i];
        if (r->base != NULL && b >= r->base && b + n <= r->base + r->bytes)
            return r;
    }
    return NULL;
}

static void prepare(const struct disk_engine *e, struct io_uring_sqe *sqe,
                    const struct disk_slot *s)
{
    unsigned n = (unsigned)s->bytes;
    const struct disk_region *r = NULL;
    switch (s->verb) {
    case DISK_VERB_FSYNC:
        io_uring_prep_fsync(sqe, s->fd, 0);
        return;
    case DISK_VERB_WRITE:
        r = find_region(e, s->buf, s->bytes);
        if (r != NULL)
            io_uring_prep_write_fixed(sqe, s->fd, s->buf, n, s->offset, r->index);
        else
            io_uring_prep_write(sqe, s->fd, s->buf, n, s->offset);
        break;
    case DISK_VERB_READ:
        r = find_region(e, s->buf, s->bytes);
        if (r != NULL)
            io_uring_prep_read_fixed(sqe, s->fd, s->buf, n, s->offset, r->index);
        else
            io_uring_prep_read(sqe, s->fd, s->buf, n, s->offset);
        break;
    }
    sqe->rw_flags = s->rw_flags;
}

static void engine_sync(void *ctx)
{
    struct disk_engine *e = ctx;
    while (e->waiting_head != 0) {
        struct disk_slot *s = pool_at(&e->slots, e->waiting_head);
        if (s->op == NULL) { /* its descriptor is closed and may be somebody else's by now */
            e->waiting_head = s->next;
            pool_put(&e->slots, s);
            continue;
        }
        struct io_uring_sqe *sqe = ring_sqe(&e->io->ring, ring_tag(RING_DISK, 0, e->waiting_head));
        if (sqe == NULL)
            return;
        prepare(e, sqe, s);
        e->waiting_head = s->next;
    }
    e->waiting_tail = 0;
}

static bool engine_has_waiting(void *ctx)
{
    const struct disk_engine *e = ctx;
    return e->waiting_head != 0;
}

static void engine_free(struct disk_engine *e)
{
    pool_fini(&e->slots);
    e->io->disk_hooks = (struct io_disk_hooks){0};
    e->io->disk_ctx = NULL;
    free(e);
}

static void leave_file(struct disk_slot *s)
{
    if (s->link_of_file == NULL)
        return;
    *s->link_of_file = s->next_of_file;
    if (s->next_of_file != NULL)
        s->next_of_file->link_of_file = s->link_of_file;
    s->link_of_file = NULL;
    s->file = NULL;
}

static void join_file(struct disk_slot *s)
{
    s->next_of_file = s->file->slots;
    s->link_of_file = &s->file->slots;
    if (s->next_of_file != NULL)
        s->next_of_file->link_of_file = &s->next_of_file;
    s->file->slots = s;
}

static void engine_on_event(void *ctx, const struct ring_event *event)
{
    struct disk_engine *e = ctx;
    struct disk_slot *s = pool_at(&e->slots, event->slot);
    struct disk_op *op = s->op;
    ssize_t res = event->res;
    /* A short write of spool data is a failed write: there is no second try. */
    if (s->verb == DISK_VERB_WRITE && res >= 0 && (size_t)res != s->bytes)
        res = -EIO;
    leave_file(s);
    pool_put(&e->slots, s);
    if (op == NULL) {
        if (e->user_count == 0 && e->slots.used == 0)
            engine_free(e);
        return;
    }
    op->slot = 0;
    op->on_done(op, res);
}

static void engine_destroy(void *ctx)
{
    engine_free(ctx);
}

int disk_engine_get(struct io *io, struct disk_engine **out)
{
    if (io->disk_ctx == NULL) {
        struct disk_engine *e = calloc(1, sizeof *e);
        if (e == NULL)
            return -ENOMEM;
        e->io = io;
        int err = pool_init(&e->slots, "disk operations", sizeof(struct disk_slot), DISK_OPS_MAX);
        if (err < 0) {
            free(e);
            return err;
        }
        io->disk_ctx = e;
        io->disk_hooks = (struct io_disk_hooks){.on_event = engine_on_event,
                                                .sync = engine_sync,
                                                .has_waiting = engine_has_waiting,
                                                .destroy = engine_destroy};
    }
    *out = io->disk_ctx;
    (*out)->user_count++;
    return 0;
}

void disk_engine_put(struct disk_engine **ep)
{
    struct disk_engine *e = *ep;
    *ep = NULL;
    if (e == NULL)
        return;
    MUST(e->user_count > 0);
    if (--e->user_count == 0 && e->slots.used == 0)
        engine_free(e);
}

void disk_submit(struct disk_engine *e, struct disk_op *op, const struct disk_slot *want)
{
    MUST(op->on_done != NULL);
    MUST(want->bytes <= 1u << 30);
    struct disk_slot *s = pool_get(&e->slots);
    MUST(s != NULL);
    *s = *want;
    s->op = op;
    s->next = 0;
    if (s->file != NULL)
        join_file(s);
    op->slot = pool_index(&e->slots, s);
    if (e->waiting_tail == 0)
        e->waiting_head = op->slot;
    else
        ((struct disk_slot *)pool_at(&e->slots, e->waiting_tail))->next = op->slot;
    e->waiting_tail = op->slot;
}

void disk_orphan_op(struct disk_engine *e, struct disk_op *op)
{
    if (op->slot == 0)
        return;
    struct disk_slot *s = pool_at(&e->slots, op->slot);
    MUST(s->op == op);
    leave_file(s);
    s->op = NULL;
    op->slot = 0;
}

void disk_orphan_file(struct disk_file *f)
{
    while (f->slots != NULL)
        disk_orphan_op(f->disk->engine, f->slots->op);
}

static void submit_rw(struct disk_file *f, struct disk_op *op, struct disk_slot *s)
{
    MUST(f->disk->engine != NULL);
    MUST(s->offset % LIMIT_BLOCK_BYTES == 0 && s->bytes % LIMIT_BLOCK_BYTES == 0);
    MUST((uintptr_t)s->buf % LIMIT_BLOCK_BYTES == 0);
    s->file = f;
    s->fd = f->fd;
    disk_submit(f->disk->engine, op, s);
}

void disk_write(struct disk_file *f, struct disk_op *op, const void *buf, size_t n, uint64_t offset)
{
    struct iovec v;
    memcpy(&v.iov_base, &buf, sizeof v.iov_base); /* the ring's interface has no const */
    struct disk_slot s = {.buf = v.iov_base,
                          .bytes = n,
                          .offset = offset,
                          .verb = DISK_VERB_WRITE,
                          .rw_flags = RWF_DSYNC};
    submit_rw(f, op, &s);
}

void disk_read(struct disk_file *f, struct disk_op *op, void *buf, size_t n, uint64_t offset)
{
    struct disk_slot s = {.buf = buf, .bytes = n, .offset = offset, .verb = DISK_VERB_READ};
    submit_rw(f, op, &s);
}
