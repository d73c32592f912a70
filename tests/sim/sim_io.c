/* io.h, the clock, and the test's side of the simulated network. */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sim_add_bytes(struct bytes *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    b->p = realloc(b->p, b->n + n);
    MUST(b->p != NULL);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void sim_drop_bytes(struct bytes *b, size_t n)
{
    MUST(n <= b->n);
    if (n > 0)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

size_t sim_some(struct io *io, size_t n)
{
    MUST(n > 0);
    if (io->calm || rng_below(&io->rng, 3) == 0)
        return n;
    uint64_t small = n < 8 ? n : 8;
    return 1 + (size_t)rng_below(&io->rng, rng_below(&io->rng, 2) == 0 ? small : n);
}

bool sim_chance(struct io *io, uint64_t one_in)
{
    return !io->calm && rng_below(&io->rng, one_in) == 0;
}

/* io.h */

int io_create(struct io **out, const struct io_settings *settings)
{
    (void)settings;
    struct io *io = calloc(1, sizeof *io);
    MUST(io != NULL);
    rng_seed(&io->rng, 1);
    io->now_ns = 1000ull * 1000000000;
    io->now_unix_ms = 1795276800000;
    *out = io;
    return 0;
}

int io_enable(struct io *io)
{
    (void)io;
    return 0;
}

const char *io_explain(int err)
{
    return strerror(err < 0 ? -err : err);
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_now_unix_ms(const struct io *io)
{
    return io->now_unix_ms;
}

const struct io_counts *io_counts(const struct io *io)
{
    return &io->counts;
}

int io_watch_start(struct io *io, struct io_watch *w, int fd, unsigned events)
{
    for (uint32_t i = 1; i < ARRAY_COUNT(io->watches); i++) {
        if (io->watches[i] != NULL)
            continue;
        io->watches[i] = w;
        io->ready[i] = 0;
        w->fd = fd;
        w->events = events;
        w->slot = i;
        return 0;
    }
    return -EMFILE;
}

void io_watch_stop(struct io *io, struct io_watch *w)
{
    if (w->slot == 0)
        return;
    MUST(io->watches[w->slot] == w);
    io->watches[w->slot] = NULL;
    w->slot = 0;
}

void sim_watch_ready(struct io *io, struct io_watch *w, unsigned events)
{
    MUST(io->watches[w->slot] == w);
    io->ready[w->slot] |= events;
}

static void turn_watches(struct io *io)
{
    for (uint32_t i = 1; i < ARRAY_COUNT(io->watches); i++) {
        struct io_watch *w = io->watches[i];
        unsigned events = io->ready[i];
        if (w == NULL || events == 0)
            continue;
        io->ready[i] = 0;
        io->busy = true;
        w->on_ready(w, events);
    }
}

static void turn_listeners(struct io *io)
{
    for (struct sim_peer *p = io->peers; p != NULL; p = p->next) {
        struct listener *l = p->listener;
        if (l == NULL || p->verdict != UNDECIDED || l->slot == 0)
            continue;
        p->verdict = ACCEPTED;
        struct conn *c = sim_add_conn(io, p);
        c->listener = l;
        c->local.b[10] = c->local.b[11] = 0xff; /* 127.0.0.1 */
        c->local.b[12] = 127;
        c->local.b[15] = 1;
        c->state = OPEN;
        io->counts.accepts++;
        io->busy = true;
        l->on_accept(l, c);
        MUST(c->events != NULL || c->state != OPEN);
    }
}

void io_turn(struct io *io, uint64_t wait_ns_max)
{
    (void)wait_ns_max;
    io->busy = false;
    io->counts.turns++;
    turn_watches(io);
    turn_listeners(io);
    /* Once round the list from a random place. A turn may end its own connection only, and add
     * others. */
    size_t n = 0;
    for (struct conn *c = io->conns; c != NULL; c = c->next)
        n++;
    size_t skip = n == 0 || io->calm ? 0 : (size_t)rng_below(&io->rng, n);
    for (int half = 0; half < 2; half++) {
        size_t i = 0;
        for (struct conn *c = io->conns, *next; c != NULL && i < n; c = next, i++) {
            next = c->next;
            if ((i >= skip) == (half == 0))
                sim_turn(c);
        }
    }
}

void io_destroy(struct io **iop)
{
    struct io *io = *iop;
    *iop = NULL;
    if (io == NULL)
        return;
    while (io->conns != NULL)
        sim_remove_conn(io->conns);
    for (struct sim_peer *p = io->peers; p != NULL; p = p->next)
        p->io = NULL;
    free(io);
}

/* The test's side */

void sim_seed(struct io *io, uint64_t seed)
{
    rng_seed(&io->rng, seed);
}

void sim_calm(struct io *io, bool calm)
{
    io->calm = calm;
}

void sim_clock_advance(struct io *io, uint64_t ms)
{
    io->now_ns += ms * 1000000;
    io->now_unix_ms += ms;
}

void sim_clock_set_unix_ms(struct io *io, uint64_t ms)
{
    io->now_unix_ms = ms;
}

/* Bytes may rest for a turn by chance: only several quiet turns are an end. */
int sim_run(struct io *io)
{
    int quiet = 0;
    int n = 0;
    while (quiet < 16 && n < TURNS_MAX) {
        io_turn(io, 0);
        n++;
        quiet = io->busy ? 0 : quiet + 1;
    }
    MUST(n < TURNS_MAX);
    return n;
}

void sim_run_for(struct io *io, struct wheel *wheel, uint64_t ms)
{
    uint64_t end_ns = io->now_ns + ms * 1000000;
    for (;;) {
        sim_run(io);
        wheel_advance(wheel, io->now_ns / 1000000);
        sim_run(io);
        if (io->now_ns >= end_ns)
            return;
        uint64_t step = wheel_next_ms(wheel, (end_ns - io->now_ns) / 1000000);
        for (const struct conn *c = io->conns; c != NULL; c = c->next) {
            if (c->deadline_ns > io->now_ns && (c->deadline_ns - io->now_ns) / 1000000 < step)
                step = (c->deadline_ns - io->now_ns) / 1000000;
        }
        sim_clock_advance(io, step > 0 ? step : 1);
    }
}

struct sim_peer *sim_client(struct io *io, struct listener *l, const char *ip, uint16_t port)
{
    struct sim_peer *p = sim_add_peer(io);
    p->listener = l;
    p->port = port;
    int err = ip_parse(span_str(ip), &p->ip);
    MUST(err == 0);
    return p;
}

struct sim_peer *sim_next_connect(struct io *io)
{
    for (struct sim_peer *p = io->peers; p != NULL; p = p->next) {
        if (p->listener != NULL || p->shown || p->c == NULL || p->verdict != UNDECIDED)
            continue;
        p->shown = true;
        return p;
    }
    return NULL;
}

void sim_on_connect(struct io *io, void (*script)(void *ctx, struct sim_peer *p), void *ctx)
{
    io->script = script;
    io->script_ctx = ctx;
}

const struct conn_target *sim_target(const struct sim_peer *p)
{
    return &p->target;
}

void sim_accept(struct sim_peer *p)
{
    p->verdict = ACCEPTED;
}

void sim_refuse(struct sim_peer *p, int err)
{
    MUST(err < 0);
    p->verdict = REFUSED;
    p->refusal = err;
}

void sim_push(struct sim_peer *p, struct span bytes)
{
    MUST(!p->in_eof && !p->reset);
    sim_add_bytes(&p->in, bytes.p, bytes.n);
}

void sim_push_text(struct sim_peer *p, const char *text)
{
    sim_push(p, span_str(text));
}

void sim_eof(struct sim_peer *p)
{
    p->in_eof = true;
}

void sim_reset(struct sim_peer *p)
{
    p->reset = true;
}

struct span sim_output(const struct sim_peer *p)
{
    return span_of(p->out.p, p->out.n);
}

void sim_take(struct sim_peer *p, size_t bytes)
{
    sim_drop_bytes(&p->out, bytes);
}

void sim_window(struct sim_peer *p, size_t bytes)
{
    p->window = bytes;
}

bool sim_peer_ended(const struct sim_peer *p)
{
    return p->ended;
}

bool sim_peer_closed(const struct sim_peer *p)
{
    return p->ended && p->c == NULL;
}

void sim_peer_free(struct sim_peer *p)
{
    MUST(p->c == NULL);
    if (p->io != NULL) {
        struct sim_peer **link = &p->io->peers;
        while (*link != p)
            link = &(*link)->next;
        *link = p->next;
    }
    free(p->in.p);
    free(p->out.p);
    free(p);
}

void sim_no_slots(struct io *io, bool on)
{
    io->no_slots = on;
}

void sim_no_output_memory(struct io *io, bool on)
{
    io->no_memory = on;
}
