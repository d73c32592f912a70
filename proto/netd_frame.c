/* netd_frame - see netd_frame.h. */
#include "proto/netd_frame.h"

#include "proto/budget.h"
#include "proto/netd.pb-c.h"
#include "proto/pb_bytes.h"

#include <errno.h>

enum {
    /* NETD_HELD_PER_FRAME entries of some 200 bytes each, pointers to them, and a START. */
    BUDGET_BYTES = 192 << 10,
    ADDRESS_BYTES = 16,
};

/* Text without control characters that fits, with its NUL. Absent is empty. */
static int take_text(const ProtobufCBinaryData *in, char *out, size_t cap)
{
    if (in->len >= cap)
        return -EBADMSG;
    for (size_t i = 0; i < in->len; i++) {
        if (in->data[i] < ' ' || in->data[i] == 0x7f)
            return -EBADMSG;
    }
    if (in->len > 0)
        memcpy(out, in->data, in->len);
    out[in->len] = '\0';
    return 0;
}

/* Unicast, and of no special meaning: what a lane may send from, and a host be reached at. */
static bool address_ok(const struct ip *a)
{
    static const struct ip none;
    if (ip_is_v4(a))
        return a->b[12] != 0 && a->b[12] != 127 && a->b[12] < 224;
    return !ip_eq(a, &none) && a->b[0] != 0xff && memcmp(a->b, none.b, 10) != 0;
}

static int take_address(const ProtobufCBinaryData *in, struct ip *out)
{
    if (in->len != ADDRESS_BYTES)
        return -EBADMSG;
    memcpy(out->b, in->data, ADDRESS_BYTES);
    return address_ok(out) ? 0 : -EBADMSG;
}

/* The fields that NetdHeld and NetdRequest have in common. */
struct place_in {
    const ProtobufCBinaryData *address, *interface, *peer;
    bool has_peer;
    uint32_t lane, epoch, driver, port_low, port_high;
    bool tail;
};

static int take_forward(const struct place_in *in, struct netd_place *out)
{
    out->has_peer = in->has_peer;
    if (in->has_peer && take_address(in->peer, &out->forward.peer) < 0)
        return -EBADMSG;
    if (in->has_peer && ip_is_v4(&out->forward.peer) != ip_is_v4(&out->address))
        return -EBADMSG; /* a packet cannot be handed on over the other family */
    if (in->port_low == 0 && in->port_high == 0)
        return 0;
    if (!in->has_peer || in->port_low == 0 || in->port_high < in->port_low ||
        in->port_high > UINT16_MAX)
        return -EBADMSG;
    out->forward.port_low = (uint16_t)in->port_low;
    out->forward.port_high = (uint16_t)in->port_high;
    return 0;
}

static int take_place(const struct place_in *in, struct netd_place *out)
{
    *out = (struct netd_place){.lane = in->lane, .epoch = in->epoch, .tail = in->tail};
    if (in->driver == 0 || in->driver >= NETD_DRIVER_COUNT || in->epoch == 0)
        return -EBADMSG;
    out->driver = (enum netd_driver)in->driver;
    if (take_address(in->address, &out->address) < 0 ||
        take_text(in->interface, out->interface, sizeof out->interface) < 0)
        return -EBADMSG;
    return take_forward(in, out);
}

static int take_held(const Mochila__NetdHeld *in, struct netd_place *out)
{
    struct place_in place = {&in->address, &in->interface, &in->peer,    in->has_peer,  in->lane,
                             in->epoch,    in->driver,     in->port_low, in->port_high, in->tail};
    return take_place(&place, out);
}

static int take_start(const Mochila__NetdStart *in, struct netd_start *out)
{
    if (in->n_held > NETD_HELD_PER_FRAME || in->hook_ms > NETD_HOOK_MS_MAX)
        return -EBADMSG;
    out->version = in->version;
    out->uid = in->uid;
    out->gid = in->gid;
    out->hook_ms = in->hook_ms;
    out->last = in->last;
    if (take_text(&in->hook, out->hook, sizeof out->hook) < 0)
        return -EBADMSG;
    if (out->hook[0] != '\0' && out->hook[0] != '/')
        return -EBADMSG;
    out->held_count = (uint32_t)in->n_held;
    for (size_t i = 0; i < in->n_held; i++) {
        if (take_held(in->held[i], &out->held[i]) < 0)
            return -EBADMSG;
    }
    return 0;
}

static int take_request(const Mochila__NetdRequest *in, struct netd_request *out)
{
    struct place_in place = {&in->address, &in->interface, &in->peer,    in->has_peer,  in->lane,
                             in->epoch,    in->driver,     in->port_low, in->port_high, in->tail};
    if (in->id == 0 || in->action == 0 || in->action >= NETD_ACTION_COUNT)
        return -EBADMSG;
    if (in->deadline_ms == 0 || in->deadline_ms > NETD_DEADLINE_MS_MAX ||
        in->probe_ms > NETD_PROBE_MS_MAX)
        return -EBADMSG;
    out->id = in->id;
    out->action = (enum netd_action)in->action;
    out->deadline_ms = in->deadline_ms;
    out->probe_ms = in->probe_ms;
    if (take_text(&in->pool, out->pool, sizeof out->pool) < 0 ||
        take_text(&in->from, out->from, sizeof out->from) < 0 ||
        take_text(&in->to, out->to, sizeof out->to) < 0)
        return -EBADMSG;
    return take_place(&place, &out->place);
}

static int take_answer(const Mochila__NetdAnswer *in, struct netd_answer *out)
{
    if (in->id == 0 || in->result == 0 || in->result >= NETD_RESULT_COUNT)
        return -EBADMSG;
    out->id = in->id;
    out->microseconds = in->microseconds;
    out->result = (enum netd_result)in->result;
    return take_text(&in->reason, out->reason, sizeof out->reason);
}

static int take_notice(const Mochila__NetdNotice *in, struct netd_notice *out)
{
    if (in->what == 0 || in->what >= NETD_WHAT_COUNT)
        return -EBADMSG;
    out->what = (enum netd_what)in->what;
    out->lane = in->lane;
    out->epoch = in->epoch;
    return take_text(&in->reason, out->reason, sizeof out->reason);
}

static int take_frame(const Mochila__NetdFrame *m, struct netd_frame *out)
{
    unsigned kinds = (m->start != NULL) + (m->request != NULL) + (m->ready != NULL) +
                     (m->answer != NULL) + (m->notice != NULL);
    if (kinds != 1)
        return -EBADMSG;
    memset(out, 0, sizeof *out);
    if (m->start != NULL) {
        out->kind = NETD_START;
        return take_start(m->start, &out->start);
    }
    if (m->request != NULL) {
        out->kind = NETD_REQUEST;
        return take_request(m->request, &out->request);
    }
    if (m->answer != NULL) {
        out->kind = NETD_ANSWER;
        return take_answer(m->answer, &out->answer);
    }
    if (m->notice != NULL) {
        out->kind = NETD_NOTICE;
        return take_notice(m->notice, &out->notice);
    }
    out->kind = NETD_READY;
    out->ready.version = m->ready->version;
    out->ready.pid = m->ready->pid;
    out->ready.dropped = m->ready->dropped;
    return 0;
}

int netd_decode(struct span bytes, struct netd_frame *out)
{
    if (bytes.n == 0 || bytes.n > LIMIT_FRAME_BYTES)
        return -EBADMSG;
    struct budget budget = {BUDGET_BYTES};
    ProtobufCAllocator allocator = budget_allocator(&budget);
    Mochila__NetdFrame *m = mochila__netd_frame__unpack(&allocator, bytes.n, bytes.p);
    if (m == NULL)
        return -EBADMSG;
    int r = take_frame(m, out);
    mochila__netd_frame__free_unpacked(m, &allocator);
    return r;
}

static void fill_held(const struct netd_place *in, Mochila__NetdHeld *out)
{
    mochila__netd_held__init(out);
    out->has_lane = out->has_epoch = out->has_address = out->has_interface = 1;
    out->has_driver = out->has_tail = 1;
    out->lane = in->lane;
    out->epoch = in->epoch;
    out->address = bytes_of(in->address.b, ADDRESS_BYTES);
    out->interface = text_bytes(in->interface);
    out->driver = in->driver;
    out->tail = in->tail;
    out->has_peer = in->has_peer;
    out->peer = bytes_of(in->forward.peer.b, ADDRESS_BYTES);
    out->has_port_low = out->has_port_high = in->forward.port_low != 0;
    out->port_low = in->forward.port_low;
    out->port_high = in->forward.port_high;
}

static void fill_start(const struct netd_start *in, Mochila__NetdStart *out)
{
    out->has_version = out->has_uid = out->has_gid = out->has_hook = out->has_hook_ms = 1;
    out->has_last = 1;
    out->version = in->version;
    out->uid = in->uid;
    out->gid = in->gid;
    out->hook = text_bytes(in->hook);
    out->hook_ms = in->hook_ms;
    out->last = in->last;
}

static void fill_request(const struct netd_request *in, Mochila__NetdRequest *out)
{
    const struct netd_place *p = &in->place;
    out->has_id = out->has_action = out->has_driver = out->has_lane = out->has_epoch = 1;
    out->has_address = out->has_interface = out->has_pool = out->has_from = out->has_to = 1;
    out->has_tail = out->has_deadline_ms = out->has_probe_ms = 1;
    out->id = in->id;
    out->action = in->action;
    out->driver = p->driver;
    out->lane = p->lane;
    out->epoch = p->epoch;
    out->address = bytes_of(p->address.b, ADDRESS_BYTES);
    out->interface = text_bytes(p->interface);
    out->pool = text_bytes(in->pool);
    out->from = text_bytes(in->from);
    out->to = text_bytes(in->to);
    out->tail = p->tail;
    out->has_peer = p->has_peer;
    out->peer = bytes_of(p->forward.peer.b, ADDRESS_BYTES);
    out->has_port_low = out->has_port_high = p->forward.port_low != 0;
    out->port_low = p->forward.port_low;
    out->port_high = p->forward.port_high;
    out->deadline_ms = in->deadline_ms;
    out->probe_ms = in->probe_ms;
}

static void fill_answer(const struct netd_answer *in, Mochila__NetdAnswer *out)
{
    out->has_id = out->has_result = out->has_reason = out->has_microseconds = 1;
    out->id = in->id;
    out->result = in->result;
    out->reason = text_bytes(in->reason);
    out->microseconds = in->microseconds;
}

static void fill_notice(const struct netd_notice *in, Mochila__NetdNotice *out)
{
    out->has_what = out->has_lane = out->has_epoch = out->has_reason = 1;
    out->what = in->what;
    out->lane = in->lane;
    out->epoch = in->epoch;
    out->reason = text_bytes(in->reason);
}

static int pack(const Mochila__NetdFrame *m, uint8_t *out, size_t cap, size_t *n)
{
    *n = mochila__netd_frame__get_packed_size(m);
    if (*n > cap || *n > LIMIT_FRAME_BYTES)
        return -E2BIG;
    size_t packed = mochila__netd_frame__pack(m, out);
    MUST(packed == *n);
    return 0;
}

static int encode_start(const struct netd_start *in, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__NetdFrame m = MOCHILA__NETD_FRAME__INIT;
    Mochila__NetdStart start = MOCHILA__NETD_START__INIT;
    Mochila__NetdHeld held[NETD_HELD_PER_FRAME];
    Mochila__NetdHeld *list[NETD_HELD_PER_FRAME];

    MUST(in->held_count <= NETD_HELD_PER_FRAME);
    for (uint32_t i = 0; i < in->held_count; i++) {
        fill_held(&in->held[i], &held[i]);
        list[i] = &held[i];
    }
    fill_start(in, &start);
    start.n_held = in->held_count;
    start.held = list;
    m.start = &start;
    return pack(&m, out, cap, n);
}

int netd_encode(const struct netd_frame *f, uint8_t *out, size_t cap, size_t *n)
{
    Mochila__NetdFrame m = MOCHILA__NETD_FRAME__INIT;
    Mochila__NetdRequest request = MOCHILA__NETD_REQUEST__INIT;
    Mochila__NetdReady ready = MOCHILA__NETD_READY__INIT;
    Mochila__NetdAnswer answer = MOCHILA__NETD_ANSWER__INIT;
    Mochila__NetdNotice notice = MOCHILA__NETD_NOTICE__INIT;

    switch (f->kind) {
    case NETD_START:
        return encode_start(&f->start, out, cap, n);
    case NETD_REQUEST:
        fill_request(&f->request, &request);
        m.request = &request;
        break;
    case NETD_READY:
        ready.has_version = ready.has_pid = ready.has_dropped = 1;
        ready.version = f->ready.version;
        ready.pid = f->ready.pid;
        ready.dropped = f->ready.dropped;
        m.ready = &ready;
        break;
    case NETD_ANSWER:
        fill_answer(&f->answer, &answer);
        m.answer = &answer;
        break;
    case NETD_NOTICE:
        fill_notice(&f->notice, &notice);
        m.notice = &notice;
        break;
    }
    return pack(&m, out, cap, n);
}

int netd_send(int fd, const struct netd_frame *f)
{
    uint8_t bytes[LIMIT_FRAME_BYTES];
    size_t n;
    int r = netd_encode(f, bytes, sizeof bytes, &n);
    if (r < 0)
        return r;
    for (;;) {
        ssize_t sent = send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0)
            return (size_t)sent == n ? 0 : -EIO;
        if (errno == ECONNRESET)
            return -EPIPE;
        if (errno != EINTR)
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
}

int netd_receive(int fd, struct netd_frame *out)
{
    uint8_t bytes[LIMIT_FRAME_BYTES + 1];
    ssize_t n;
    /* Descriptors that come along are not taken, so the kernel closes them. */
    do
        n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == ECONNRESET)
        return 0;
    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if (n == 0)
        return 0;
    if ((size_t)n > LIMIT_FRAME_BYTES)
        return -EBADMSG;
    int r = netd_decode(span_of(bytes, (size_t)n), out);
    return r < 0 ? r : 1;
}
