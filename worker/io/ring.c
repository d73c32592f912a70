/*
 * The ring. Constants and calls are those of liburing 2.3, which declares io_uring_enable_rings and
 * io_uring_register_restrictions but does not export them: io_uring_register is called raw for
 * both.
 */
#include "worker/io/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    BUFFER_GROUP = 0,
    RING_CQ_MODEST = 8192,
    RING_CQ_SHORTEST = 2048,
    RING_PLENTY_BYTES = 64 << 20
};

static size_t buffer_ring_bytes(uint32_t count)
{
    return count * sizeof(struct io_uring_buf);
}

static void *map_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int make_buffers(struct ring *r, uint32_t count)
{
    MUST(count >= 64 && count <= 32768);
    MUST((count & (count - 1)) == 0);
    r->buffers = map_memory(buffer_ring_bytes(count));
    r->buffer_memory = map_memory((size_t)count * RING_BUFFER_BYTES);
    r->buffer_count = count;
    if (r->buffers == NULL || r->buffer_memory == NULL)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)r->buffers, .ring_entries = count, .bgid = BUFFER_GROUP};
    int err = io_uring_register_buf_ring(&r->uring, &reg, 0);
    if (err < 0)
        return err;
    io_uring_buf_ring_init(r->buffers);
    for (uint32_t i = 0; i < count; i++)
        ring_buffer_return(r, i << IORING_CQE_BUFFER_SHIFT);
    ring_buffers_publish(r);
    return 0;
}

/* Opcodes that the worker uses; everything else is refused once the ring is enabled. */
static const uint8_t allowed_ops[] = {
    IORING_OP_ACCEPT,  IORING_OP_CONNECT, IORING_OP_RECV,         IORING_OP_SEND,
    IORING_OP_SENDMSG, IORING_OP_CLOSE,   IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD,
    IORING_OP_READ,    IORING_OP_WRITE,   IORING_OP_READ_FIXED,   IORING_OP_WRITE_FIXED,
    IORING_OP_FSYNC,
};
/* What is registered after the ring was enabled. */
static const uint8_t allowed_registers[] = {
    IORING_REGISTER_RING_FDS,       IORING_UNREGISTER_RING_FDS,   IORING_REGISTER_IOWQ_MAX_WORKERS,
    IORING_REGISTER_BUFFERS_UPDATE, IORING_REGISTER_ENABLE_RINGS,
};

static int restrict_ring(struct ring *r)
{
    struct io_uring_restriction list[ARRAY_COUNT(allowed_ops) + ARRAY_COUNT(allowed_registers) + 1];
    memset(list, 0, sizeof list);
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_COUNT(allowed_ops); i++) {
        list[n].opcode = IORING_RESTRICTION_SQE_OP;
        list[n++].sqe_op = allowed_ops[i];
    }
    for (size_t i = 0; i < ARRAY_COUNT(allowed_registers); i++) {
        list[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        list[n++].register_op = allowed_registers[i];
    }
    list[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    list[n++].sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS;
    return io_uring_register((unsigned)r->uring.ring_fd, IORING_REGISTER_RESTRICTIONS, list, n);
}

/*
 * Without privilege rings and registered memory are charged to the user's lockable memory, 8 MB on
 * a usual host, of which every worker needs a part. Then a short completion queue has to do (the
 * kernel keeps what does not fit), and nothing is registered that is only a gain.
 */
static bool lockable_is_plenty(void)
{
    struct rlimit l;
    return geteuid() == 0 || getrlimit(RLIMIT_MEMLOCK, &l) != 0 || l.rlim_cur >= RING_PLENTY_BYTES;
}

static int make_ring(struct ring *r, uint32_t cq_entries)
{
    int err;
    if (!lockable_is_plenty() && cq_entries > RING_CQ_MODEST)
        cq_entries = RING_CQ_MODEST;
    do {
        struct io_uring_params p = {
            .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                     IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP,
            .cq_entries = cq_entries,
        };
        err = io_uring_queue_init_params(RING_SQ_ENTRIES, &r->uring, &p);
        cq_entries /= 2;
    } while (err == -ENOMEM && cq_entries >= RING_CQ_SHORTEST);
    return err;
}

int ring_init(struct ring *r, const struct ring_settings *s)
{
    memset(r, 0, sizeof *r);
    int err = make_ring(r, s->cq_entries);
    if (err < 0) {
        r->uring.ring_fd = -1;
        return err;
    }
    err = make_buffers(r, s->buffer_count);
    /* Without the table of registered memory plain writes are used; no reason to fail. */
    if (err == 0)
        r->has_fixed = lockable_is_plenty() &&
                       io_uring_register_buffers_sparse(&r->uring, RING_FIXED_BUFFERS) == 0;
    if (err == 0 && s->restrict_ops)
        err = restrict_ring(r);
    if (err < 0)
        ring_fini(r);
    return err;
}

int ring_enable(struct ring *r)
{
    int err = io_uring_register((unsigned)r->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (err < 0)
        return err;
    /* Both are gains only: an older kernel may refuse them. */
    (void)io_uring_register_ring_fd(&r->uring);
    unsigned workers[2] = {RING_IOWQ_WORKERS, RING_IOWQ_WORKERS};
    (void)io_uring_register_iowq_max_workers(&r->uring, workers);
    return 0;
}

void ring_fini(struct ring *r)
{
    if (r->uring.ring_fd >= 0)
        io_uring_queue_exit(&r->uring);
    r->uring.ring_fd = -1;
    if (r->buffers != NULL)
        munmap(r->buffers, buffer_ring_bytes(r->buffer_count));
    if (r->buffer_memory != NULL)
        munmap(r->buffer_memory, (size_t)r->buffer_count * RING_BUFFER_BYTES);
    r->buffers = NULL;
    r->buffer_memory = NULL;
}

struct io_uring_sqe *ring_sqe(struct ring *r, uint64_t tag)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    if (__builtin_expect(sqe == NULL, 0)) {
        (void)io_uring_submit(&r->uring);
        sqe = io_uring_get_sqe(&r->uring);
        if (sqe == NULL)
            return NULL;
    }
    sqe->user_data = tag;
    return sqe;
}

uint32_t ring_submit_and_wait(struct ring *r, uint64_t wait_ns)
{
    struct __kernel_timespec ts = {.tv_sec = (long long)(wait_ns / 1000000000u),
                                   .tv_nsec = (long long)(wait_ns % 1000000000u)};
    struct io_uring_cqe *cqe;
    uint32_t before = io_uring_sq_ready(&r->uring);
    int err = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
    /* Time is up, interrupted, or the kernel is short of something: the turn goes on, the rest is
       submitted in the next one. Anything else is a bug of ours. */
    MUST(err >= 0 || err == -ETIME || err == -EINTR || err == -EBUSY || err == -EAGAIN ||
         err == -ENOMEM);
    return before - io_uring_sq_ready(&r->uring);
}

void ring_buffer_return(struct ring *r, uint32_t flags)
{
    uint32_t id = flags >> IORING_CQE_BUFFER_SHIFT;
    MUST(id < r->buffer_count);
    io_uring_buf_ring_add(r->buffers, r->buffer_memory + (size_t)id * RING_BUFFER_BYTES,
                          RING_BUFFER_BYTES, (uint16_t)id, io_uring_buf_ring_mask(r->buffer_count),
                          r->returned);
    r->returned++;
}

void ring_buffers_publish(struct ring *r)
{
    if (r->returned == 0)
        return;
    io_uring_buf_ring_advance(r->buffers, r->returned);
    r->returned = 0;
}

int ring_fix_memory(struct ring *r, void *p, size_t bytes)
{
    int index = 0;
    while (index < RING_FIXED_BUFFERS && r->fixed_used[index])
        index++;
    if (!r->has_fixed || index == RING_FIXED_BUFFERS)
        return -ENOBUFS;
    struct iovec v = {p, bytes};
    int err = io_uring_register_buffers_update_tag(&r->uring, (unsigned)index, &v, NULL, 1);
    if (err < 0)
        return err;
    r->fixed_used[index] = true;
    return index;
}

void ring_unfix_memory(struct ring *r, int index)
{
    MUST(index >= 0 && index < RING_FIXED_BUFFERS);
    struct iovec none = {NULL, 0};
    (void)io_uring_register_buffers_update_tag(&r->uring, (unsigned)index, &none, NULL, 1);
    r->fixed_used[index] = false;
}
