/*
 * The worker's end of the control socket. End of file means that the master died: finish what is in
 * flight, and leave.
 */
#include "worker/worker.h"

#include "base/log.h"
#include "worker/admin.h"
#include "worker/move/move.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SEND_TRIES = 200,
    SEND_WAIT_MS = 10,
    /* nobody tells us of dead peers any more, and a new node waits for our shards */
    ORPHAN_DRAIN_S = 5
};

void control_link_send(struct worker *w, const struct control_frame *f)
{
    (void)w;
    int r = -EAGAIN;
    for (int i = 0; i < SEND_TRIES && r == -EAGAIN; i++) {
        r = control_send(CONTROL_FD, f, NULL, 0);
        if (r == -EAGAIN) {
            struct pollfd p = {.fd = CONTROL_FD, .events = POLLOUT};
            poll(&p, 1, SEND_WAIT_MS);
        }
    }
    if (r != 0 && r != -EPIPE)
        log_warn("a frame to the master was not sent: %s", strerror(-r));
}

static void on_peer_up(struct worker *w, const struct control_frame *f, int *fds, unsigned count)
{
    if (count != 4) {
        log_err("PEER_UP came with %u descriptors instead of 4", count);
        return;
    }
    int r = exchange_peer_up(w->exchange, f->incarnation, f->slot, fds);
    if (r != 0)
        log_err("a worker cannot be reached through the exchange: %s", strerror(-r));
    for (unsigned i = 0; i < count; i++)
        fds[i] = -1; /* taken */
}

/* The whole list comes in pieces: to apply the first alone would release what the others hold. */
static void collect_holds(struct worker *w, const struct control_frame *f)
{
    uint32_t sum = w->hold_count + f->hold_count;
    if (f->hold_count > 0) {
        struct control_hold *all = realloc(w->holds, sum * sizeof *all);
        MUST(all != NULL); /* a hold must not be forgotten */
        memcpy(all + w->hold_count, f->holds, f->hold_count * sizeof *all);
        w->holds = all;
        w->hold_count = sum;
    }
    if (!f->last)
        return;
    queue_set_holds(&w->queue, w->holds, w->hold_count);
    free(w->holds);
    w->holds = NULL;
    w->hold_count = 0;
}

static void on_carrier(struct worker *w, int *fds, unsigned count)
{
    if (count != 1) {
        log_err("CARRIER came with %u descriptors instead of 1", count);
        return;
    }
    if (w->move == NULL)
        return;
    move_attach(w->move, fds[0]);
    fds[0] = -1; /* taken */
}

static void on_lane(struct worker *w, const struct control_lane_order *o)
{
    if (w->move == NULL)
        log_warn("an order about lane %u came, and there is no cluster", o->lane);
    else
        move_order(w->move, o);
}

static void on_frame(struct worker *w, struct control_frame *f, int *fds, unsigned count)
{
    switch (f->kind) {
    case CONTROL_HOLDS:
        collect_holds(w, f);
        return;
    case CONTROL_PEER_UP:
        on_peer_up(w, f, fds, count);
        return;
    case CONTROL_PEER_DOWN:
        exchange_peer_down(w->exchange, f->incarnation);
        return;
    case CONTROL_DRAIN:
        log_note("draining, at most %u s", f->seconds);
        worker_drain(w, f->seconds);
        return;
    case CONTROL_QUERY:
        admin_query(w->admin, f);
        return;
    case CONTROL_CARRIER:
        on_carrier(w, fds, count);
        return;
    case CONTROL_LANE:
        on_lane(w, &f->order);
        return;
    case CONTROL_READY:
    case CONTROL_START:
    case CONTROL_DRAINED:
    case CONTROL_ANSWER:
    case CONTROL_RECOVERED:
    case CONTROL_LINK:
    case CONTROL_KIND_COUNT:
        break;
    }
    log_warn("a frame of kind %d from the master is not for a worker", (int)f->kind);
}

static void on_ready(struct io_watch *watch, unsigned events)
{
    struct worker *w = (struct worker *)((char *)watch - offsetof(struct worker, control));
    (void)events;
    for (;;) {
        struct control_frame f;
        int fds[CONTROL_FDS_MAX];
        unsigned count = CONTROL_FDS_MAX;
        int r = control_receive(CONTROL_FD, &f, fds, &count);
        if (r == -EAGAIN)
            return;
        if (r <= 0) {
            log_warn("the master is gone: finishing what is in flight");
            io_watch_stop(w->io, &w->control);
            intake_orphan(w->intake);
            worker_drain(w, w->config->smtp.drain_s < ORPHAN_DRAIN_S ? w->config->smtp.drain_s
                                                                     : ORPHAN_DRAIN_S);
            return;
        }
        on_frame(w, &f, fds, count);
        for (unsigned i = 0; i < count; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        control_free(&f);
    }
}

int control_link_start(struct worker *w)
{
    w->control.on_ready = on_ready;
    return io_watch_start(w->io, &w->control, CONTROL_FD, POLLIN);
}
