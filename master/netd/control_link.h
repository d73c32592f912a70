/*
 * control_link - netd's end of descriptor 3.
 *
 * In:  START (one or more), then requests. Out: READY, answers, notices.
 * Never: survives a malformed frame; the addresses do, for NETD_LIFETIME_S.
 */
#ifndef NETD_CONTROL_LINK_H
#define NETD_CONTROL_LINK_H

#include "master/netd/netd.h"

/* Reads frames until there are none. 0; 1 when the master is gone; -errno. */
NODISCARD int control_link_read(struct netd *n);

#endif
