/*
 * The simulated network. A connection is a state, what the session wants, and output; its peer
 * holds the bytes on their way. Each turn moves each connection a little; `busy` says that
 * something moved.
 */
#include "tests/sim/sim_conn.h"

#include "base/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPAN_BYTES = 2048,
    PUT_BYTES_MAX = 65536,
    REFS_MAX = 8,
    FLUSH_MS = 30000,
    LINGER_MS = 2000,
    TURNS_MAX = 100000,
};

enum sim_state { CONNECTING, OPEN, FLUSHING, LINGERING, CLOSED };
enum sim_want { WANT_NOTHING, WANT_COMMANDS, WANT_BODY };
enum verdict { UNDECIDED, ACCEPTED, REFUSED };

struct bytes {
    uint8_t *p;
    size_t n;
};

struct sim_peer {
    struct io *io;
    struct conn *c; /* NULL: closed */
    struct sim_peer *next;
    struct listener *listener;
    struct conn_target target;
    char device[32];
    enum verdict verdict;
    int refusal;
    bool shown; /* by sim_next_connect */
    struct ip ip;
    uint16_t port;
    struct bytes in;  /* towards the session */
    struct bytes out; /* from it */
    size_t window;
    bool in_eof, reset, ended;
};

struct piece {
    struct piece *next;
    bool is_ref;
    const uint8_t *ref;
    size_t n;
    size_t sent;
    uint8_t own[];
};

struct conn {
    struct io *io;
    struct conn *next;
    struct sim_peer *peer;
    const struct conn_events *events;
    void *owner;
    struct listener *listener;
    enum sim_state state;
    enum sim_want want;
    uint64_t deadline_ns; /* of connect, flush, linger; 0 = none */
    struct piece *out;
    size_t in_flight; /* bytes of a posted send */
    uint8_t *body;
    size_t body_left, body_got;
    bool body_exact;
    bool eof_told;
    bool broken;
    int open_err;
    struct ip local;
};

struct io {
    struct rng rng;
    bool calm, no_slots, no_memory, busy;
    uint64_t now_ns, now_unix_ms;
    struct conn *conns;
    struct sim_peer *peers;
    struct listener *listeners[64];
    struct io_watch *watches[256];
    unsigned ready[256];
    void (*script)(void *ctx, struct sim_peer *p);
    void *script_ctx;
    uint8_t scratch[4096];
    struct io_counts counts;
};

static void add_bytes(struct bytes *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    b->p = realloc(b->p, b->n + n);
    MUST(b->p != NULL);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void drop_bytes(struct bytes *b, size_t n)
{
    MUST(n <= b->n);
    if (n > 0)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

/* How much of n happens now: at least 1. */
static size_t some(struct io *io, size_t n)
{
    MUST(n > 0);
    if (io->calm || rng_below(&io->rng, 3) == 0)
        return n;
    uint64_t small = n < 8 ? n : 8;
    return 1 + (size_t)rng_below(&io->rng, rng_below(&io->rng, 2) == 0 ? small : n);
}

static bool chance(struct io *io, uint64_t one_in)
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

/* Connections */

static struct conn *add_conn(struct io *io, struct sim_peer *p)
{
    struct conn *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->io = io;
    c->peer = p;
    p->c = c;
    struct conn **link = &io->conns;
    while (*link != NULL)
        link = &(*link)->next;
    *link = c;
    io->counts.conns_open++;
    return c;
}

static struct sim_peer *add_peer(struct io *io)
{
    struct sim_peer *p = calloc(1, sizeof *p);
    MUST(p != NULL);
    p->io = io;
    p->window = SIZE_MAX;
    struct sim_peer **link = &io->peers;
    while (*link != NULL)
        link = &(*link)->next;
    *link = p;
    return p;
}

static void drop_output(struct conn *c)
{
    while (c->out != NULL) {
        struct piece *o = c->out;
        c->out = o->next;
        free(o);
    }
    c->in_flight = 0;
}

static void remove_conn(struct conn *c)
{
    struct conn **link = &c->io->conns;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    drop_output(c);
    if (c->peer != NULL) {
        c->peer->ended = true;
        c->peer->c = NULL;
    }
    c->io->counts.conns_open--;
    free(c);
}

int listener_start(struct io *io, struct listener *l, int fd)
{
    for (uint32_t i = 1; i < ARRAY_COUNT(io->listeners); i++) {
        if (io->listeners[i] != NULL)
            continue;
        io->listeners[i] = l;
        l->io = io;
        l->fd = fd;
        l->slot = i;
        return 0;
    }
    return -EMFILE;
}

void listener_stop(struct listener *l)
{
    if (l->slot == 0)
        return;
    l->io->listeners[l->slot] = NULL;
    l->slot = 0;
}

struct conn *conn_connect(struct io *io, const struct conn_target *t, const struct conn_events *ev,
                          void *owner)
{
    MUST(t->timeout_ms >= 1 && t->timeout_ms <= 300000);
    if (io->no_slots)
        return NULL;
    struct sim_peer *p = add_peer(io);
    p->target = *t;
    if (t->device != NULL) {
        strncpy(p->device, t->device, sizeof p->device - 1);
        p->target.device = p->device;
    }
    p->ip = t->to;
    p->port = t->to_port;
    struct conn *c = add_conn(io, p);
    c->state = CONNECTING;
    c->local = t->from;
    c->deadline_ns = io->now_ns + t->timeout_ms * 1000000ull;
    conn_attach(c, ev, owner);
    io->counts.connects++;
    return c;
}

void conn_attach(struct conn *c, const struct conn_events *ev, void *owner)
{
    MUST(ev->on_data != NULL && ev->on_eof != NULL && ev->on_closed != NULL);
    c->events = ev;
    c->owner = owner;
}

static bool is_usable(const struct conn *c)
{
    return c->state == OPEN || c->state == CONNECTING;
}

void conn_recv(struct conn *c)
{
    if (is_usable(c))
        c->want = WANT_COMMANDS;
}

void conn_recv_into(struct conn *c, void *buf, size_t n, bool exact)
{
    MUST(buf != NULL && n > 0);
    if (!is_usable(c))
        return;
    c->want = WANT_BODY;
    c->body = buf;
    c->body_left = n;
    c->body_got = 0;
    c->body_exact = exact;
}

void conn_recv_pause(struct conn *c)
{
    if (is_usable(c) && c->want == WANT_COMMANDS)
        c->want = WANT_NOTHING;
}

static void add_piece(struct conn *c, struct piece *o)
{
    struct piece **link = &c->out;
    while (*link != NULL)
        link = &(*link)->next;
    *link = o;
}

uint8_t *conn_put(struct conn *c, size_t n)
{
    MUST(n >= 1 && n <= 4096);
    if (!is_usable(c) || c->broken)
        return c->io->scratch;
    size_t own = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        own += o->is_ref ? 0 : o->n;
    if (c->io->no_memory || own + n > PUT_BYTES_MAX)
        return NULL;
    struct piece *o = calloc(1, sizeof *o + n);
    MUST(o != NULL);
    o->n = n;
    memset(o->own, 0xee, n); /* what the session forgets to write is seen */
    add_piece(c, o);
    return o->own;
}

int conn_put_ref(struct conn *c, struct span s)
{
    if (s.n == 0 || !is_usable(c) || c->broken)
        return 0;
    int refs = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        refs += o->is_ref;
    if (refs == REFS_MAX)
        return -ENOBUFS;
    struct piece *o = calloc(1, sizeof *o);
    MUST(o != NULL);
    o->is_ref = true;
    o->ref = s.p;
    o->n = s.n;
    add_piece(c, o);
    return 0;
}

size_t conn_out_bytes(const struct conn *c)
{
    size_t n = 0;
    for (const struct piece *o = c->out; o != NULL; o = o->next)
        n += o->n - o->sent;
    return n;
}

void conn_close(struct conn *c, bool now)
{
    if (c->state == CLOSED)
        return;
    if (now || c->state == CONNECTING || c->broken) {
        c->state = CLOSED;
    } else if (c->state == OPEN) {
        c->state = FLUSHING;
        c->deadline_ns = c->io->now_ns + FLUSH_MS * 1000000ull;
    }
}

void conn_peer(const struct conn *c, struct ip *ip, uint16_t *port)
{
    *ip = c->peer->ip;
    *port = c->peer->port;
}

void conn_local(const struct conn *c, struct ip *ip, uint16_t *port)
{
    *ip = c->local;
    *port = c->listener != NULL ? 25 : 40000;
}

struct listener *conn_listener(const struct conn *c)
{
    return c->listener;
}

/* A turn of one connection, by state */

static void fail_open(struct conn *c, int err)
{
    c->state = CLOSED;
    c->io->busy = true;
    c->events->on_open(c->owner, c, err);
}

static void turn_connecting(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (p->verdict == UNDECIDED && c->io->script != NULL)
        c->io->script(c->io->script_ctx, p);
    if (p->verdict == REFUSED) {
        fail_open(c, p->refusal);
    } else if (p->verdict == ACCEPTED) {
        c->state = OPEN;
        c->deadline_ns = 0;
        c->io->busy = true;
        c->events->on_open(c->owner, c, 0);
    } else if (c->io->now_ns >= c->deadline_ns) {
        fail_open(c, -ETIMEDOUT);
    }
}

static void tell_eof(struct conn *c, int res)
{
    if (c->eof_told || c->state != OPEN)
        return;
    c->eof_told = true;
    c->io->busy = true;
    c->events->on_eof(c->owner, c, res);
}

/* Moves up to n bytes of output to the peer. */
static void send_bytes(struct conn *c, size_t n)
{
    while (n > 0) {
        struct piece *o = c->out;
        size_t k = o->n - o->sent < n ? o->n - o->sent : n;
        add_bytes(&c->peer->out, (o->is_ref ? o->ref : o->own) + o->sent, k);
        o->sent += k;
        n -= k;
        c->io->counts.bytes_out += k;
        if (o->sent < o->n)
            return;
        c->out = o->next;
        free(o);
    }
}

/* A posted send completes in a later turn, in parts; what was queued after it is another send. */
static void turn_output(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (c->out == NULL)
        return;
    if (p->reset) {
        drop_output(c);
        c->broken = true;
        c->io->busy = true;
        if (c->state != OPEN)
            c->state = CLOSED;
        else if (c->want == WANT_NOTHING)
            tell_eof(c, -EPIPE);
        return;
    }
    if (c->in_flight == 0) {
        c->in_flight = conn_out_bytes(c);
        c->io->busy = true;
        return;
    }
    size_t n = c->in_flight < p->window ? c->in_flight : p->window;
    if (n == 0 || chance(c->io, 3))
        return;
    n = some(c->io, n);
    c->io->busy = true;
    send_bytes(c, n);
    c->in_flight -= n;
    if (p->window != SIZE_MAX)
        p->window -= n;
    if (c->out == NULL && c->state == OPEN && c->events->on_sent != NULL)
        c->events->on_sent(c->owner, c);
}

static void tell_filled(struct conn *c)
{
    size_t got = c->body_got;
    c->body_got = 0;
    c->want = WANT_NOTHING;
    c->events->on_filled(c->owner, c, got);
}

static void fill_body(struct conn *c, const uint8_t *p, size_t n)
{
    memcpy(c->body, p, n);
    c->body += n;
    c->body_left -= n;
    c->body_got += n;
    if (!c->body_exact || c->body_left == 0)
        tell_filled(c);
}

/* Bytes that the kernel "had taken" reach the session in the way it wants at each moment. */
static void deliver(struct conn *c, const uint8_t *p, size_t n)
{
    while (n > 0 && c->state == OPEN) {
        if (c->want == WANT_BODY) {
            size_t k = n < c->body_left ? n : c->body_left;
            fill_body(c, p, k);
            p += k;
            n -= k;
            continue;
        }
        size_t k = some(c->io, n < SPAN_BYTES ? n : SPAN_BYTES);
        uint8_t *span = malloc(k); /* of its own, so that a use after the call is seen */
        MUST(span != NULL);
        memcpy(span, p, k);
        c->events->on_data(c->owner, c, span_of(span, k));
        free(span);
        p += k;
        n -= k;
    }
}

static void turn_input(struct conn *c)
{
    struct sim_peer *p = c->peer;
    if (c->want == WANT_NOTHING || c->eof_told)
        return;
    if (p->in.n > 0) {
        if (chance(c->io, 4))
            return;
        size_t n = some(c->io, p->in.n);
        if (c->want == WANT_BODY && n > c->body_left)
            n = c->body_left;
        uint8_t *taken = malloc(n);
        MUST(taken != NULL);
        memcpy(taken, p->in.p, n);
        drop_bytes(&p->in, n);
        c->io->busy = true;
        c->io->counts.bytes_in += n;
        deliver(c, taken, n);
        free(taken);
        return;
    }
    if (!p->in_eof && !p->reset && !c->broken)
        return;
    if (c->want == WANT_BODY && c->body_got > 0)
        tell_filled(c);
    tell_eof(c, p->reset ? -ECONNRESET : 0);
}

static void turn_open(struct conn *c)
{
    turn_output(c);
    if (c->state == OPEN)
        turn_input(c);
}

static void turn_flushing(struct conn *c)
{
    c->peer->in.n = 0;
    turn_output(c);
    if (c->state == CLOSED)
        return;
    if (c->out == NULL) {
        c->peer->ended = true;
        c->io->busy = true;
        c->state = c->listener != NULL && !c->peer->in_eof ? LINGERING : CLOSED;
        c->deadline_ns = c->io->now_ns + LINGER_MS * 1000000ull;
    } else if (c->io->now_ns >= c->deadline_ns) {
        c->state = CLOSED;
    }
}

static void turn_lingering(struct conn *c)
{
    c->peer->in.n = 0;
    if (c->peer->in_eof || c->peer->reset || c->io->now_ns >= c->deadline_ns) {
        c->state = CLOSED;
        c->io->busy = true;
    }
}

static void turn_closed(struct conn *c)
{
    const struct conn_events *events = c->events;
    void *owner = c->owner;
    c->io->busy = true;
    remove_conn(c);
    if (events != NULL)
        events->on_closed(owner);
}

static void (*const turns[])(struct conn *c) = {
    [CONNECTING] = turn_connecting, [OPEN] = turn_open,     [FLUSHING] = turn_flushing,
    [LINGERING] = turn_lingering,   [CLOSED] = turn_closed,
};

static void turn_listeners(struct io *io)
{
    for (struct sim_peer *p = io->peers; p != NULL; p = p->next) {
        struct listener *l = p->listener;
        if (l == NULL || p->verdict != UNDECIDED || l->slot == 0)
            continue;
        p->verdict = ACCEPTED;
        struct conn *c = add_conn(io, p);
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
                turns[c->state](c);
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
        remove_conn(io->conns);
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
    struct sim_peer *p = add_peer(io);
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
    add_bytes(&p->in, bytes.p, bytes.n);
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
    drop_bytes(&p->out, bytes);
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
