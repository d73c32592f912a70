/* control_link - see control_link.h. */
#include "master/netd/control_link.h"

#include "base/log.h"
#include "master/netd/privilege.h"
#include "master/netd/request.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { FRAMES_PER_TURN = 512 };

static int finish_start(struct netd *n, const struct netd_start *s)
{
    struct netd_frame ready = {.kind = NETD_READY};
    int r = privilege_keep_net(s->uid, s->gid);
    if (r < 0)
        return r;
    (void)snprintf(n->hook, sizeof n->hook, "%s", s->hook);
    n->hook_ms = s->hook_ms;
    int dropped = request_settle(n);
    if (dropped < 0) {
        /* An address that we may not hold and cannot remove ends by itself. */
        log_err("addresses that are not ours any more cannot be removed: %s", strerror(-dropped));
        return dropped;
    }
    n->started = true;
    log_note("ready lanes=%u dropped=%d tails=%s", n->lane_count, dropped,
             n->can_forward ? "forwarded" : "not forwarded");
    ready.ready.version = NETD_VERSION;
    ready.ready.pid = (uint32_t)getpid();
    ready.ready.dropped = (uint32_t)dropped;
    return netd_send(n->control_fd, &ready);
}

static int on_start(struct netd *n, const struct netd_start *s)
{
    if (n->started || s->version != NETD_VERSION) {
        log_err("START of version %u, not %d, or twice: are all programs of one build?", s->version,
                NETD_VERSION);
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < s->held_count; i++) {
        int r = request_hold(n, &s->held[i]);
        if (r < 0) {
            log_err("START: lane=%u is there twice, or its address is", s->held[i].lane);
            return r;
        }
    }
    return s->last ? finish_start(n, s) : 0;
}

int control_link_read(struct netd *n)
{
    static struct netd_frame f; /* large */
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        int r = netd_receive(n->control_fd, &f);
        if (r == -EAGAIN)
            return 0;
        if (r == 0)
            return 1;
        if (r < 0) {
            log_err("malformed frame from the master: %s", strerror(-r));
            return r;
        }
        n->now_ns = netd_now_ns();
        r = -EBADMSG;
        if (f.kind == NETD_START)
            r = on_start(n, &f.start);
        else if (f.kind == NETD_REQUEST && n->started)
            r = (request_take(n, &f.request), 0);
        else
            log_err("a frame of kind %d has no place here", f.kind);
        if (r < 0)
            return r;
    }
    return 0;
}
