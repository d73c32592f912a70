/* control_link - see control_link.h. */
#include "master/link/control_link.h"

#include "base/log.h"
#include "base/rng.h"
#include "base/text.h"
#include "master/link/peers.h"
#include "master/link/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONFIG_BYTES_MAX = 16 << 20,
    ERRORS_BYTES = 16 << 10,
    FRAMES_PER_TURN = 256,
    EXPIRY_DAYS = 30,
    /* Credit bounds what comes in; this bounds what a master that hangs can cost us. */
    OUTBOX_BYTES_MAX = 8 * LIMIT_LINK_CREDIT_BYTES,
    OUTBOX_NEWS_BYTES = 1 << 20, /* on top: that a wire was cut can be told even then */
};

/* To the master. */
static int queue(struct link *l, const struct control_frame *f)
{
    static uint8_t bytes[LIMIT_FRAME_BYTES];
    struct outbox *box = &l->outbox;
    size_t n;

    int r = control_encode(f, bytes, sizeof bytes, &n);
    MUST(r == 0);
    if (box->first == NULL && !l->blocked) {
        r = control_send_bytes(l->control_fd, span_of(bytes, n), NULL, 0);
        l->blocked = r == -EAGAIN;
        if (r == 0)
            return 0;
    }
    bool news = f->link.op != CONTROL_LINK_RECEIVED;
    if (box->bytes + n > (size_t)OUTBOX_BYTES_MAX + (news ? OUTBOX_NEWS_BYTES : 0))
        return -ENOBUFS;
    struct outgoing *o = malloc(sizeof *o + n);
    if (o == NULL)
        return -ENOMEM;
    *o = (struct outgoing){.n = n};
    memcpy(o->bytes, bytes, n);
    *(box->last != NULL ? &box->last->next : &box->first) = o;
    box->last = o;
    box->bytes += n;
    return 0;
}

int control_link_flush(struct link *l)
{
    struct outbox *box = &l->outbox;
    l->blocked = false;
    while (box->first != NULL) {
        struct outgoing *o = box->first;
        int r = control_send_bytes(l->control_fd, span_of(o->bytes, o->n), NULL, 0);
        l->blocked = r == -EAGAIN;
        if (r == -EAGAIN)
            return 0;
        if (r < 0)
            return r == -EPIPE ? 1 : r;
        box->first = o->next;
        box->bytes -= o->n;
        free(o);
    }
    box->last = NULL;
    return 0;
}

void control_link_fini(struct link *l)
{
    while (l->outbox.first != NULL) {
        struct outgoing *o = l->outbox.first;
        l->outbox.first = o->next;
        free(o);
    }
    l->outbox.last = NULL;
}

static struct control_frame news(const struct channel *c, enum control_link_op op)
{
    struct control_frame f = {.kind = CONTROL_LINK};
    f.link.op = op;
    f.link.channel = c->session.names.channel;
    memcpy(f.link.peer, c->peer->name, sizeof f.link.peer);
    f.link.peer_stream = c->session.at.peer_stream;
    return f;
}

/* News must not be lost: without room for them this process ends, and the next one begins anew. */
static void tell(const struct channel *c, const struct control_frame *f)
{
    int r = queue(c->link, f);
    MUST(r == 0);
}

void control_link_up(struct channel *c)
{
    struct control_frame f = news(c, CONTROL_LINK_UP);
    f.link.incarnation = c->session.peer_incarnation;
    f.link.version = c->session.version;
    tell(c, &f);
}

void control_link_down(struct channel *c, const char *why)
{
    struct control_frame f = news(c, CONTROL_LINK_DOWN);
    (void)snprintf(f.link.why, sizeof f.link.why, "%s", why);
    tell(c, &f);
}

int control_link_deliver(struct channel *c, uint64_t seq, struct span payload)
{
    struct control_frame f = news(c, CONTROL_LINK_RECEIVED);
    if (payload.n > LIMIT_LINK_PAYLOAD_BYTES)
        return -E2BIG;
    f.link.seq = seq;
    f.body = (uint8_t *)(uintptr_t)payload.p;
    f.body_bytes = payload.n;
    return queue(c->link, &f);
}

void control_link_acked(struct channel *c, uint64_t seq)
{
    struct control_frame f = news(c, CONTROL_LINK_ACKED);
    f.link.seq = seq;
    f.link.stream = c->session.at.stream;
    tell(c, &f);
}

void control_link_want(struct channel *c, uint64_t seq, const char *why)
{
    struct control_frame f = news(c, CONTROL_LINK_WANT);
    f.link.seq = seq;
    f.link.stream = c->session.at.stream;
    (void)snprintf(f.link.why, sizeof f.link.why, "%s", why);
    tell(c, &f);
}

/* START. */
static int read_all(int fd, char *out, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = pread(fd, out + got, n - got, (off_t)got);
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        got += (size_t)r;
    }
    return 0;
}

static int read_config(int fd, const char *name, struct config **out)
{
    struct stat st;
    char *errors_text = malloc(ERRORS_BYTES);
    char *yaml = NULL;
    int r = errors_text == NULL ? -ENOMEM : fstat(fd, &st) < 0 ? -errno : 0;

    if (r == 0 && (st.st_size < 0 || st.st_size > CONFIG_BYTES_MAX))
        r = -EFBIG;
    if (r == 0) {
        yaml = malloc((size_t)st.st_size + 1);
        r = yaml == NULL ? -ENOMEM : read_all(fd, yaml, (size_t)st.st_size);
    }
    if (r == 0) {
        struct text errors = text_of(errors_text, ERRORS_BYTES);
        r = config_load(yaml, (size_t)st.st_size, name, &errors, out);
        if (r < 0)
            log_err("configuration refused: %s", errors_text);
    }
    free(yaml);
    free(errors_text);
    return r;
}

/* Certificates first: they may be root's. */
static int set_up(struct link *l)
{
    const struct config *c = l->config;
    const struct trust_files files = {.cluster = c->cluster.name,
                                      .node = c->node,
                                      .ca = c->cluster.ca,
                                      .certificate = c->cluster.certificate,
                                      .key = c->cluster.key};
    char reason[TRUST_WHY_BYTES * 2];
    struct text why = text_of(reason, sizeof reason);

    if (c->cluster.name[0] == '\0') {
        log_err("cluster.name is empty: there is nothing to link");
        return -EINVAL;
    }
    int r = trust_create(&files, &l->trust, &why);
    if (r < 0) {
        log_err("cannot link: %s", reason[0] != '\0' ? reason : strerror(-r));
        return r;
    }
    int days = trust_days_left(l->trust);
    if (days < EXPIRY_DAYS)
        log_warn("%s ends in %d days: issue a new one and join it", c->cluster.certificate, days);
    r = place_enter(c);
    if (r < 0)
        return r;
    peers_start(l);
    return 0;
}

static int on_start(struct link *l, const struct control_frame *f, const int *fds,
                    unsigned fd_count)
{
    if (l->config != NULL || fd_count < 1 || !f->last) {
        log_err("START %s", l->config != NULL ? "a second time" : "without its descriptor");
        return -EBADMSG;
    }
    int r = read_config(fds[0], f->config_name, &l->config);
    if (r < 0)
        return r;
    /* The counter makes it unique on this node, the random half tells copies of a node apart. */
    l->incarnation = (f->boot & 0xffff) << 48 | (f->incarnation & 0xffff) << 32 |
                     (rng_entropy() & 0x7fffffff) | 1;
    l->generation = f->generation;
    r = set_up(l);
    if (r < 0)
        return r;
    struct control_frame ready = {.kind = CONTROL_READY,
                                  .pid = (uint32_t)getpid(),
                                  .generation = l->generation,
                                  .version = CONTROL_VERSION};
    log_note("linking cluster=%s node=%s peers=%u incarnation=%llx", l->config->cluster.name,
             l->config->node, l->peer_count, (unsigned long long)l->incarnation);
    return queue(l, &ready);
}

static int on_open(struct channel *c, const struct control_frame *f)
{
    const struct control_link *in = &f->link;
    const struct session_place at = {.stream = in->stream,
                                     .next = in->seq,
                                     .peer_stream = in->peer_stream,
                                     .received = in->received,
                                     .durable = in->durable};
    int r = session_open(&c->session, &at);
    c->dial_ms = 0;
    if (r < 0)
        log_err("the master opens a stream that cannot be: peer=%s", in->peer);
    return r;
}

static int on_send(struct channel *c, const struct control_frame *f)
{
    int r = session_submit(&c->session, f->link.seq, span_of(f->body, f->body_bytes));
    return r == -ENOBUFS || r == -ERANGE ? 0 : r; /* the master was told what is wanted */
}

static int on_ack(struct channel *c, const struct control_frame *f)
{
    int r = session_ack(&c->session, f->link.stream, f->link.seq);
    if (r < 0)
        log_err("the master acknowledges what it never got: peer=%s seq=%llu", f->link.peer,
                (unsigned long long)f->link.seq);
    return r;
}

static int on_link(struct link *l, const struct control_frame *f)
{
    static int (*const handlers[CONTROL_LINK_OP_COUNT])(struct channel *,
                                                        const struct control_frame *) = {
        [CONTROL_LINK_OPEN] = on_open, [CONTROL_LINK_SEND] = on_send, [CONTROL_LINK_ACK] = on_ack};
    struct channel *c = peers_channel(l, f->link.peer, f->link.channel);
    if (handlers[f->link.op] == NULL || f->link.channel != LINK_CONTROL)
        return -EBADMSG;
    if (c == NULL) {
        log_warn("the master has a frame for %s, which is no peer", f->link.peer);
        return 0;
    }
    if (f->link.op != CONTROL_LINK_OPEN && c->session.at.stream == 0)
        return -EBADMSG;
    return handlers[f->link.op](c, f);
}

static int on_drain(struct link *l)
{
    struct control_frame drained = {.kind = CONTROL_DRAINED};
    int r = queue(l, &drained);
    l->drained = true;
    return r < 0 ? r : 1;
}

/* A worker's stream: from here on the descriptor is the carriers'. */
static int on_carrier(struct link *l, const struct control_frame *f, int *fds, unsigned fd_count)
{
    if (l->config == NULL || fd_count != 1) {
        log_err("CARRIER %s", fd_count != 1 ? "without its descriptor" : "before START");
        return -EBADMSG;
    }
    int r = carriers_attach(l, f->slot, fds[0]);
    fds[0] = -1;
    return r;
}

static int on_frame(struct link *l, const struct control_frame *f, int *fds, unsigned fd_count)
{
    int r = 0;
    if (f->kind == CONTROL_START)
        r = on_start(l, f, fds, fd_count);
    else if (f->kind == CONTROL_LINK)
        r = l->config != NULL ? on_link(l, f) : -EBADMSG;
    else if (f->kind == CONTROL_CARRIER)
        r = on_carrier(l, f, fds, fd_count);
    else if (f->kind == CONTROL_DRAIN)
        r = on_drain(l);
    for (unsigned i = 0; i < fd_count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return r; /* other kinds are for workers: this process has no mail */
}

int control_link_read(struct link *l)
{
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        struct control_frame f;
        int fds[CONTROL_FDS_MAX];
        unsigned fd_count = CONTROL_FDS_MAX;
        int r = control_receive(l->control_fd, &f, fds, &fd_count);
        if (r == -EAGAIN)
            return 0;
        if (r == 0)
            return 1;
        if (r < 0) {
            log_err("malformed frame from the master: %s", strerror(-r));
            return r;
        }
        r = on_frame(l, &f, fds, fd_count);
        control_free(&f);
        if (r != 0)
            return r;
    }
    return 0;
}
