/*
 * carrier_rate - a worker that does nothing but send or receive frames through its carrier.
 *
 *   carrier_rate FD NODE SLOT send BYTES COUNT   COUNT frames of BYTES to that worker; waits until
 *                                                it says that it has all, and prints MB/s
 *   carrier_rate FD NODE SLOT receive COUNT      checks that each comes once and in order
 *
 * FD is the worker's end of the stream socket to a link process. Exit status 1: something is wrong.
 */
#include "base/log.h"
#include "worker/carrier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_NS = 100000000, FILL_BYTES = 1 << 20, SECONDS_MAX = 120 };

struct rate {
    struct carrier *carrier;
    const char *node;
    uint32_t slot;
    bool sends, up, blocked, done;
    size_t bytes;
    uint64_t count, next; /* next: to send, or expected */
    uint64_t started_ns;
};

static uint64_t clock_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static _Noreturn void wrong(const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "%s: %llu, %llu\n", what, (unsigned long long)a, (unsigned long long)b);
    exit(1);
}

static void on_frame(void *ctx, const char *node, uint32_t slot, struct span payload)
{
    struct rate *r = ctx;
    struct cursor c = cursor_of(payload);
    uint64_t seq = cursor_u64(&c);
    if (strcmp(node, r->node) != 0 || slot != r->slot)
        wrong("a frame of another worker", slot, r->slot);
    if (r->sends) {
        if (seq != r->count)
            wrong("the receiver has", seq, r->count);
        r->done = true;
        return;
    }
    if (seq != r->next || payload.p[payload.n - 1] != (uint8_t)seq)
        wrong("frame, expected", seq, r->next);
    r->next++;
}

static void on_up(void *ctx, const char *node)
{
    struct rate *r = ctx;
    (void)node;
    if (r->next > 0)
        wrong("up again after frames", r->next, 0);
    r->up = true;
    r->started_ns = clock_ns();
}

static void on_down(void *ctx, const char *node)
{
    struct rate *r = ctx;
    (void)node;
    if (!r->done)
        wrong("down after frames", r->next, r->count);
}

static void on_room(void *ctx)
{
    struct rate *r = ctx;
    r->blocked = false;
}

static const struct carrier_events events = {on_frame, on_up, on_down, on_room};

static void fill(struct rate *r)
{
    static uint8_t bytes[LIMIT_CARRIER_PAYLOAD_BYTES];
    size_t filled = 0;
    while (r->up && !r->blocked && r->next < r->count && filled < FILL_BYTES) {
        struct writer w = writer_of(bytes, sizeof bytes);
        put_u64(&w, r->next);
        bytes[r->bytes - 1] = (uint8_t)r->next;
        int e = carrier_send(r->carrier, r->node, r->slot, span_of(bytes, r->bytes));
        if (e < 0 && e != -EAGAIN)
            wrong("carrier_send", (uint64_t)-e, 0);
        r->blocked = e == -EAGAIN;
        r->next += e == 0;
        filled += r->bytes;
    }
}

static void tell(struct rate *r)
{
    uint8_t bytes[8];
    struct writer w = writer_of(bytes, sizeof bytes);
    put_u64(&w, r->next);
    if (carrier_send(r->carrier, r->node, r->slot, span_of(bytes, sizeof bytes)) < 0)
        wrong("cannot tell", r->next, 0);
    r->done = true;
}

static void work(struct rate *r, struct io *io)
{
    uint64_t end_ns = clock_ns() + SECONDS_MAX * UINT64_C(1000000000);
    while (!r->done) {
        if (r->sends)
            fill(r);
        else if (r->next == r->count)
            tell(r);
        carrier_flush(r->carrier);
        bool more = r->sends && r->up && !r->blocked && r->next < r->count;
        io_turn(io, more ? 0 : WAIT_NS);
        if (clock_ns() > end_ns)
            wrong("not in time", r->next, r->count);
    }
}

int main(int argc, char **argv)
{
    static struct rate r;
    const struct io_settings settings = {.conn_count_max = 16, .recv_buffer_count = 64};
    struct io *io;

    log_open(STDERR_FILENO, LOG_WARN, "rate");
    if (argc < 6)
        return 2;
    r.node = argv[2];
    r.slot = (uint32_t)strtoul(argv[3], NULL, 10);
    r.sends = strcmp(argv[4], "send") == 0;
    if (argc != (r.sends ? 7 : 6))
        return 2;
    r.bytes = r.sends ? strtoull(argv[5], NULL, 10) : 0;
    r.count = strtoull(argv[r.sends ? 6 : 5], NULL, 10);
    if (r.sends && (r.bytes < 9 || r.bytes > LIMIT_CARRIER_PAYLOAD_BYTES))
        return 2;
    if (io_create(&io, &settings) < 0 || io_enable(io) < 0 ||
        carrier_create(&r.carrier, io, &events, &r) < 0)
        return 1;
    carrier_attach(r.carrier, (int)strtol(argv[1], NULL, 10));
    work(&r, io);
    double s = (double)(clock_ns() - r.started_ns) / 1e9;
    if (r.sends)
        printf("%.1f\n", (double)r.bytes * (double)r.count / s / 1e6);
    carrier_flush(r.carrier);
    carrier_destroy(&r.carrier);
    io_destroy(&io);
    return 0;
}
