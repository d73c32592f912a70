/* carriers - see carriers.h. */
#include "master/carriers.h"

#include "base/log.h"
#include "master/proc.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4 << 20 };

/* Root may have more than the system's limit; others get what there is. */
static void enlarge(int fd)
{
    int bytes = BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

static void connect_slot(struct proc *link, struct proc *worker)
{
    int ends[2];
    struct control_frame f = {.kind = CONTROL_CARRIER, .slot = worker->index};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
        log_err("%s cannot reach other nodes: no stream: %s", worker->slot.name, strerror(errno));
        return;
    }
    enlarge(ends[0]);
    enlarge(ends[1]);
    proc_send(link, &f, &ends[0], 1);
    proc_send(worker, &f, &ends[1], 1);
    close(ends[0]);
    close(ends[1]);
}

void carriers_link_ready(struct master *m)
{
    for (uint32_t slot = 0; slot < m->workers; slot++) {
        struct proc *holder = master_holder(m, slot);
        if (holder != NULL)
            connect_slot(m->link, holder);
    }
}

void carriers_worker_ready(struct proc *p)
{
    struct master *m = p->master;
    if (m->link != NULL && slot_serves(&m->link->slot))
        connect_slot(m->link, p);
}
