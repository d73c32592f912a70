/*
 * driver_l2 - the address itself, on an Ethernet segment that both hosts are on.
 *
 * Invariants:
 *  - the forward rule stands before the address is here: no packet of the tail is answered by us;
 *  - the address is on lo before it leaves the interface: no open connection is without it;
 *  - nobody hears of the address from us before the kernel has finished adding it (IPv6: the
 *    answer to RTM_NEWADDR comes before its local route exists);
 *  - an address on lo is not answered for: arp_ignore is 1 on every interface that lanes are on,
 *    and neighbour discovery looks at the interface's own addresses anyway.
 */
#include "master/netd/driver.h"

#include "base/log.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>

enum { CLASH_AGAIN_S = 10 /* RFC 5227 2.4 (b): one defence in that time */ };

/* RFC 5227 2.3 wants two announcements; a switch that was busy may hear the third. */
static const uint64_t announce_after_ns[] = {100 * 1000000ull, 1000 * 1000000ull,
                                             5000 * 1000000ull};

static enum driver_result verdict(struct lane *l, int e, const char *what)
{
    bool passing = e == -EAGAIN || e == -ENOBUFS || e == -ENOMEM || e == -EINTR || e == -EBUSY;
    return driver_say(l, passing ? DRIVER_RETRY : DRIVER_FAILED, "%s: %s", what, strerror(-e));
}

/* --- announcing and listening --- */

static void announce_now(struct netd *n, const struct lane *l)
{
    const struct nic *nic = nic_by_index(&n->nics, l->ifindex);
    if (nic == NULL)
        return;
    nic_say(nic, ARP_ANNOUNCE_ASK, &l->place.address);
    if (ip_is_v4(&l->place.address))
        nic_say(nic, ARP_ANNOUNCE_ANSWER, &l->place.address);
}

static void announce(struct netd *n, struct lane *l)
{
    announce_now(n, l);
    l->announce_ns = l->announce_step < ARRAY_COUNT(announce_after_ns)
                         ? n->now_ns + announce_after_ns[l->announce_step++]
                         : 0;
}

static enum driver_result probe_begin(struct netd *n, struct lane *l, const struct nic *nic)
{
    const struct netd_request *r = &l->request;
    l->probe = (struct probe){.until_ns = n->now_ns + r->probe_ms * 1000000ull};
    l->phase = PHASE_PROBE;
    nic_say(nic, ARP_PROBE, &r->place.address);
    if (r->place.has_peer)
        nic_say(nic, ARP_PROBE, &r->place.forward.peer);
    return DRIVER_PENDING;
}

static enum driver_result in_use(struct lane *l)
{
    char text[IP_TEXT], mac[MAC_TEXT];
    ip_format(&l->request.place.address, text);
    mac_format(&l->probe.mac, mac);
    return driver_say(l, DRIVER_FAILED, "%s is in use by %s", text, mac);
}

/* DRIVER_OK: nobody but the peer has the address, as far as one can hear. */
static enum driver_result probe_step(struct netd *n, struct lane *l)
{
    const struct probe *p = &l->probe;
    bool stranger = p->heard && !(p->heard_peer && mac_eq(&p->mac, &p->peer_mac));
    bool over = n->now_ns >= p->until_ns;

    /* Until the peer has spoken, the one that was heard may be the peer. */
    if (stranger && (over || !l->request.place.has_peer || p->heard_peer))
        return in_use(l);
    return over ? DRIVER_OK : DRIVER_PENDING;
}

/* Tells the master at most once in CLASH_AGAIN_S, and defends the address as often. */
static void clash(struct netd *n, struct lane *l, const struct mac *mac)
{
    struct netd_frame f = {.kind = NETD_NOTICE};
    char text[IP_TEXT], who[MAC_TEXT];

    if (l->clash_ns != 0 && n->now_ns - l->clash_ns < CLASH_AGAIN_S * 1000000000ull)
        return;
    l->clash_ns = n->now_ns;
    ip_format(&l->place.address, text);
    mac_format(mac, who);
    log_err("lane=%u address=%s is answered for by another host mac=%s", l->place.lane, text, who);
    f.notice =
        (struct netd_notice){.what = NETD_CLASH, .lane = l->place.lane, .epoch = l->place.epoch};
    (void)snprintf(f.notice.reason, sizeof f.notice.reason, "%s is in use by %s", text, who);
    if (netd_send(n->control_fd, &f) < 0)
        log_warn("lane=%u: the master did not take a notice", l->place.lane);
    announce_now(n, l);
}

void driver_l2_claim(struct netd *n, struct lane *l, const struct arp_claim *c)
{
    const struct netd_place *wanted = &l->request.place;
    bool probing = l->state == LANE_BUSY && l->phase == PHASE_PROBE;
    struct probe *p = &l->probe;

    if (probing && wanted->has_peer && ip_eq(&c->ip, &wanted->forward.peer)) {
        p->heard_peer = true;
        p->peer_mac = c->mac;
        l->stirred = true;
    } else if (probing && ip_eq(&c->ip, &wanted->address)) {
        /* Of several that answer, the peer is the one that does not matter. */
        if (!p->heard || (p->heard_peer && !mac_eq(&c->mac, &p->peer_mac)))
            p->mac = c->mac;
        p->heard = true;
        l->stirred = true;
    } else if (l->state == LANE_HELD && ip_eq(&c->ip, &l->place.address)) {
        clash(n, l, &c->mac);
    }
}

/* --- the tail's way back --- */

static bool same_tail(const struct netd_tail *a, const struct netd_tail *b)
{
    return ip_eq(&a->peer, &b->peer) && a->port_low == b->port_low && a->port_high == b->port_high;
}

static enum driver_result forward_on(struct netd *n, struct lane *l, const struct nic *nic)
{
    const struct netd_place *wanted = &l->request.place;
    const struct netd_tail *had = &l->place.forward;

    if (wanted->forward.port_low == 0)
        return DRIVER_OK;
    if (!n->can_forward)
        return driver_say(l, DRIVER_FAILED, "this kernel forwards no tails: nf_tables is missing");
    if (had->port_low != 0 && !same_tail(had, &wanted->forward))
        return driver_say(l, DRIVER_FAILED, "the tail of an earlier move is still open");
    forward_begin(&n->forward);
    forward_rule_add(&n->forward, (struct forward_nic){nic->ifindex, nic->name}, &wanted->address,
                     &wanted->forward);
    if (l->request.action == NETD_ACQUIRE)
        forward_lane_add(&n->forward, &wanted->address, &wanted->forward);
    int e = forward_commit(&n->forward);
    if (e < 0)
        return verdict(l, e, "the tail cannot be forwarded (nf_tables, netdev ingress, fwd)");
    if (l->request.action == NETD_ACQUIRE)
        l->place.forward = wanted->forward;
    return DRIVER_OK;
}

static int forward_off(struct netd *n, struct lane *l)
{
    if (l->place.forward.port_low == 0)
        return 0;
    forward_begin(&n->forward);
    forward_lane_remove(&n->forward, &l->place.address, &l->place.forward);
    int e = forward_commit(&n->forward);
    if (e < 0 && e != -ENOENT)
        return e;
    l->place.forward = (struct netd_tail){.port_low = 0};
    return 0;
}

int driver_l2_restore(struct netd *n)
{
    char reason[NETD_REASON_BYTES];
    forward_begin(&n->forward);
    forward_flush(&n->forward);
    for (uint32_t i = 0; i < n->lane_count; i++) {
        struct lane *l = &n->lanes[i];
        const struct netd_tail *tail = &l->place.forward;
        if (l->place.driver != NETD_L2 || l->state != LANE_HELD)
            continue;
        struct nic *nic = nic_get(&n->nics, l->place.interface, reason, sizeof reason);
        if (nic == NULL) {
            log_warn("lane=%u %s", l->place.lane, reason);
            continue;
        }
        if (tail->port_low == 0)
            continue;
        forward_rule_add(&n->forward, (struct forward_nic){nic->ifindex, nic->name},
                         &l->place.address, tail);
        forward_lane_add(&n->forward, &l->place.address, tail);
    }
    return forward_commit(&n->forward);
}

/* --- actions --- */

/* The interface, set to answer for its own addresses only; NULL with the reason in the lane. */
static struct nic *ready_nic(struct netd *n, struct lane *l)
{
    char foreign[IF_NAMESIZE] = "?";
    const struct netd_place *wanted = &l->request.place;
    struct nic *nic = nic_get(&n->nics, wanted->interface, l->reason, sizeof l->reason);
    if (nic == NULL)
        return NULL;
    int e = rtnl_watch(&n->rtnl);
    unsigned index = rtnl_foreign(&n->rtnl, &wanted->address);
    if (index != 0) {
        (void)if_indextoname(index, foreign);
        (void)driver_say(l, DRIVER_FAILED, "the address is on interface %s and is not ours",
                         foreign);
        return NULL;
    }
    if (e == 0 && !nic->strict)
        e = rtnl_arp_strict(&n->rtnl, nic->ifindex);
    if (e < 0) {
        (void)verdict(l, e, "interface settings");
        return NULL;
    }
    nic->strict = true;
    return nic;
}

static enum driver_result prepare(struct netd *n, struct lane *l)
{
    struct nic *nic = ready_nic(n, l);
    if (nic == NULL)
        return DRIVER_FAILED;
    enum driver_result r = forward_on(n, l, nic);
    if (r != DRIVER_OK || l->request.probe_ms == 0)
        return r;
    return probe_begin(n, l, nic);
}

static enum driver_result finish_acquire(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->request.place.address;
    l->announce_step = 0;
    l->clash_ns = 0;
    announce(n, l);
    if (l->from != LANE_TAIL)
        return DRIVER_OK;
    /* It came back while its tail was open: the connections go on over the interface. */
    int e = rtnl_remove(&n->rtnl, ip, NL_LOOPBACK);
    return e < 0 ? verdict(l, e, "removing the address from lo") : DRIVER_OK;
}

static enum driver_result add(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->request.place.address;
    struct nic *nic = nic_by_index(&n->nics, l->ifindex);
    if (nic == NULL)
        return driver_say(l, DRIVER_RETRY, "the interface has gone");
    enum driver_result r = forward_on(n, l, nic);
    if (r != DRIVER_OK)
        return r;
    int e = rtnl_add(&n->rtnl, ip, l->ifindex, NETD_LIFETIME_S);
    if (e < 0)
        return verdict(l, e, "adding the address");
    l->phase = PHASE_WAIT;
    return rtnl_ours(&n->rtnl, ip, l->ifindex) ? finish_acquire(n, l) : DRIVER_PENDING;
}

static enum driver_result acquire(struct netd *n, struct lane *l)
{
    struct nic *nic = ready_nic(n, l);
    if (nic == NULL)
        return DRIVER_FAILED;
    l->ifindex = nic->ifindex;
    l->place.address = l->request.place.address;
    bool here = rtnl_ours(&n->rtnl, &l->place.address, nic->ifindex);
    if (l->request.probe_ms == 0 || here)
        return add(n, l);
    return probe_begin(n, l, nic);
}

static enum driver_result leave(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->place.address;
    l->announce_ns = 0;
    int e = rtnl_remove(&n->rtnl, ip, l->ifindex);
    if (e == 0 && !l->request.place.tail)
        e = rtnl_remove(&n->rtnl, ip, NL_LOOPBACK);
    if (e == 0)
        e = forward_off(n, l);
    return e < 0 ? verdict(l, e, "removing the address") : DRIVER_OK;
}

static enum driver_result release(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->place.address;
    if (!l->request.place.tail)
        return leave(n, l);
    int e = rtnl_add(&n->rtnl, ip, NL_LOOPBACK, NETD_LIFETIME_S);
    if (e < 0)
        return verdict(l, e, "adding the address to lo");
    l->phase = PHASE_WAIT_LO;
    return rtnl_ours(&n->rtnl, ip, NL_LOOPBACK) ? leave(n, l) : DRIVER_PENDING;
}

static enum driver_result verify(struct netd *n, struct lane *l)
{
    char text[IP_TEXT];
    struct nic *nic = ready_nic(n, l);
    if (nic == NULL)
        return DRIVER_FAILED;
    ip_format(&l->place.address, text);
    if (!rtnl_ours(&n->rtnl, &l->place.address, nic->ifindex))
        return driver_say(l, DRIVER_FAILED, "%s is not on interface %s", text, nic->name);
    return l->request.probe_ms == 0 ? DRIVER_OK : probe_begin(n, l, nic);
}

static enum driver_result end_tail(struct netd *n, struct lane *l)
{
    int e = l->from == LANE_TAIL ? rtnl_remove(&n->rtnl, &l->place.address, NL_LOOPBACK)
                                 : forward_off(n, l);
    return e < 0 ? verdict(l, e, "ending the tail") : DRIVER_OK;
}

static enum driver_result step(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->place.address;
    enum driver_result r;

    switch (l->phase) {
    case PHASE_PROBE:
        r = probe_step(n, l);
        return r == DRIVER_OK && l->request.action == NETD_ACQUIRE ? add(n, l) : r;
    case PHASE_WAIT:
        return rtnl_ours(&n->rtnl, ip, l->ifindex) ? finish_acquire(n, l) : DRIVER_PENDING;
    case PHASE_WAIT_LO:
        return rtnl_ours(&n->rtnl, ip, NL_LOOPBACK) ? leave(n, l) : DRIVER_PENDING;
    case PHASE_NONE:
        break;
    }
    return DRIVER_PENDING;
}

static void abandon(struct netd *n, struct lane *l)
{
    const struct ip *ip = &l->place.address;
    int e = 0;

    if (l->request.action == NETD_ACQUIRE && l->from != LANE_HELD) {
        l->announce_ns = 0;
        e = rtnl_remove(&n->rtnl, ip, l->ifindex);
        if (e == 0)
            e = forward_off(n, l);
    } else if (l->request.action == NETD_RELEASE && rtnl_ours(&n->rtnl, ip, l->ifindex)) {
        e = rtnl_remove(&n->rtnl, ip, NL_LOOPBACK);
    }
    if (e < 0)
        log_warn("lane=%u: undoing failed, the address ends by itself: %s", l->place.lane,
                 strerror(-e));
}

static bool holds(struct netd *n, const struct lane *l)
{
    return rtnl_ours(&n->rtnl, &l->place.address, l->state == LANE_TAIL ? NL_LOOPBACK : l->ifindex);
}

static void renew(struct netd *n, struct lane *l)
{
    const unsigned places[] = {l->ifindex, NL_LOOPBACK};
    for (unsigned i = 0; i < ARRAY_COUNT(places); i++) {
        if (places[i] == 0 || !rtnl_ours(&n->rtnl, &l->place.address, places[i]))
            continue;
        int e = rtnl_add(&n->rtnl, &l->place.address, places[i], NETD_LIFETIME_S);
        if (e < 0)
            log_err("lane=%u: the address cannot be renewed: %s", l->place.lane, strerror(-e));
    }
}

const struct driver driver_l2 = {
    .name = "l2",
    .begin = {[NETD_PREPARE] = prepare,
              [NETD_RELEASE] = release,
              [NETD_ACQUIRE] = acquire,
              [NETD_VERIFY] = verify,
              [NETD_END_TAIL] = end_tail},
    .step = step,
    .abandon = abandon,
    .holds = holds,
    .renew = renew,
    .announce = announce,
};
