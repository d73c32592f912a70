/* peers - see peers.h. */
#include "master/peers.h"

#include "base/log.h"
#include "master/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Neither side can shrink or grow it under the other. */
static int make_ring(void)
{
    int fd = memfd_create("mochila-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, EXCHANGE_RING_BYTES) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static void tell(struct proc *to, const struct proc *of, uint32_t slot, int ring_to, int ring_from)
{
    int fds[4] = {ring_to, ring_from, of->wake_fd, to->wake_fd};
    struct control_frame f = {
        .kind = CONTROL_PEER_UP, .incarnation = of->incarnation, .slot = slot};
    proc_send(to, &f, fds, 4);
}

/* `sender` may send to `holder` from now on. */
static void relate(struct proc *sender, struct proc *holder)
{
    int to = make_ring();
    int from = make_ring();
    if (to < 0 || from < 0) {
        log_err("%s cannot exchange mail with %s: no ring: %s", sender->slot.name,
                holder->slot.name, strerror(to < 0 ? -to : -from));
    } else {
        tell(sender, holder, holder->index, to, from);
        tell(holder, sender, CONTROL_NO_SLOT, from, to);
    }
    if (to >= 0)
        close(to);
    if (from >= 0)
        close(from);
}

void peers_ready(struct proc *p)
{
    struct master *m = p->master;
    for (unsigned i = 0; i < m->proc_count; i++) {
        struct proc *q = m->procs[i];
        if (q != p && q->kind == PROC_WORKER && slot_serves(&q->slot) && q->slot.recovered)
            relate(p, q);
    }
}

void peers_recovered(struct proc *q)
{
    struct master *m = q->master;
    for (unsigned i = 0; i < m->proc_count; i++) {
        struct proc *p = m->procs[i];
        if (p != q && p->kind == PROC_WORKER && slot_serves(&p->slot))
            relate(p, q);
    }
}

void peers_gone(struct proc *p)
{
    struct master *m = p->master;
    if (p->acknowledged == 0)
        return; /* never READY: nobody has heard of it */
    struct control_frame f = {.kind = CONTROL_PEER_DOWN, .incarnation = p->incarnation};
    for (unsigned i = 0; i < m->proc_count; i++) {
        struct proc *q = m->procs[i];
        if (q != p && q->kind == PROC_WORKER && slot_serves(&q->slot))
            proc_send(q, &f, NULL, 0);
    }
}
