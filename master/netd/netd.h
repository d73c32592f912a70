/*
 * netd - what the parts of the process share: its lanes, its drivers' state, its time.
 *
 * One thread, one struct netd, one ppoll loop (main.c). Nothing here survives the process: what
 * must be kept is in the kernel (tagged addresses, the table of forward) and in the master.
 */
#ifndef NETD_NETD_H
#define NETD_NETD_H

#include "base/table.h"
#include "master/netd/forward.h"
#include "master/netd/nic.h"
#include "master/netd/rtnl.h"

#include <signal.h>

enum {
    NETD_CONTROL_FD = 3,
    NETD_LOG_FD = 4,
    NETD_LIFETIME_S = 10, /* of an address, without us: the kernel's own fence */
    NETD_RENEW_MS = 3000,
    NETD_HOOKS_MAX = 16, /* at a time */
    NETD_LANES = LIMIT_LANES,
};
static_assert(NETD_RENEW_MS * 3 < NETD_LIFETIME_S * 1000, "two renewals may be late");

enum lane_state {
    LANE_ABSENT, /* nothing of it is here */
    LANE_HELD,   /* the address is on its interface, and answered for */
    LANE_TAIL,   /* the address is on lo, for connections that are still open */
    LANE_BUSY,   /* a request is under way; `from` is where it began */
    LANE_STATE_COUNT
};
/* What a driver said of a request. */
enum driver_result { DRIVER_OK, DRIVER_RETRY, DRIVER_FAILED, DRIVER_PENDING };

/* Who answered for an address while we listened. */
struct probe {
    uint64_t until_ns;
    bool heard, heard_peer;
    struct mac mac, peer_mac; /* mac: of a host that is not the peer, once one was heard */
};
struct lane {
    struct netd_place place; /* its epoch: the highest seen */
    enum lane_state state, from;
    struct netd_request request;
    uint64_t began_ns, deadline_ns;
    char reason[NETD_REASON_BYTES];
    bool stirred; /* something happened that its driver should look at */
    /* driver l2 */
    unsigned ifindex; /* of the interface that has the address, or is to have it */
    enum { PHASE_NONE, PHASE_PROBE, PHASE_WAIT, PHASE_WAIT_LO } phase;
    struct probe probe;
    unsigned announce_step;
    uint64_t announce_ns;
    uint64_t clash_ns; /* a clash was told last */
    /* driver exec */
    int hook_pid, hook_fd;
};
struct netd {
    int control_fd;
    bool started, ended;
    uint64_t now_ns, renew_ns;
    struct rtnl rtnl;
    struct nics nics;
    struct forward forward;
    bool can_forward;
    char hook[NETD_PATH_BYTES];
    uint32_t hook_ms;
    unsigned hook_count;
    int orphans[NETD_HOOKS_MAX]; /* killed hooks that are not reaped yet; 0: none */
    struct lane lanes[NETD_LANES];
    uint32_t lane_count;
    struct table by_number, by_address; /* index + 1 */
};

uint64_t netd_now_ns(void);

#endif
