/*
 * netd_client - the master's end of netd: requests with their answers, and what netd must hold.
 *
 * Owner:  the master. netd is a child like others (PROC_NETD), but speaks frames of its own.
 * After each start of netd it hears what this host holds, and is asked again for the address of
 * each lane that is ours. A lane whose address it has got runs; with driver none it runs at once.
 * Never:  stops a lane because netd died: the addresses live on for a while.
 */
#ifndef MASTER_NETD_CLIENT_H
#define MASTER_NETD_CLIENT_H

#include "master/lane_table.h"
#include "proto/netd_frame.h"

struct master;
struct proc;

/* 0: done; -EAGAIN: the same may succeed soon; -EREMOTEIO: refused, `reason` says why; -ETIMEDOUT;
   -ECONNRESET: netd ended or is not there. `microseconds` as netd measured them. */
typedef void netd_done(struct master *m, void *ctx, int rc, const struct netd_answer *answer);

/*
 * Asks; the id is filled in. The answer comes in any case, and never from inside this call, unless
 * this call failed: -ENOBUFS (too many under way), -ENOTCONN (netd does not run).
 */
NODISCARD int netd_ask(struct master *m, const struct netd_request *request, netd_done *done,
                       void *ctx);
/* Address, interface, driver, epoch and number of a lane, as every request needs them. */
void netd_place_of(const struct master *m, const struct lane_record *r, struct netd_place *out);
/* Does some process have to bring addresses (driver l2, exec)? */
bool netd_drives(const struct master *m);

/* --- the master's loop --- */
/* It was spawned: START. */
void netd_client_start(struct proc *p);
/* The next frame of it: 1; 0: end of file; -EAGAIN; -EBADMSG. */
NODISCARD int netd_client_take(struct proc *p);
void netd_client_gone(struct master *m);
void netd_client_fini(struct master *m);
void netd_client_tick(struct master *m);
uint64_t netd_client_deadline(const struct master *m);

#endif
