/*
 * privilege - keeps CAP_NET_ADMIN and CAP_NET_RAW, gives away everything else.
 *
 * Started without them (not as root) it works as far as it can: driver l2 then fails with
 * "Operation not permitted", driver exec and none work.
 */
#ifndef NETD_PRIVILEGE_H
#define NETD_PRIVILEGE_H

#include "base/check.h"

/* Becomes uid and gid (0: stays), for good. 0 or -errno, with a line in the log. */
NODISCARD int privilege_keep_net(uint32_t uid, uint32_t gid);
/* In a forked child, before execve: the program that follows has the same two rights. */
int privilege_lend(void);

#endif
