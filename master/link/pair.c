/* pair - see pair.h. */
#include "master/link/pair.h"

#include "proto/limits.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <stdio.h>
#include <unistd.h>

/* Larger buffers only grow what is lost without notice when a connection ends. */
enum { BUFFER_BYTES = 1 << 20 };

static int set_int(int socket, int option, int value)
{
    return nn_setsockopt(socket, NN_SOL_SOCKET, option, &value, sizeof value);
}

static int get_fd(int socket, int option, int *fd)
{
    size_t n = sizeof *fd;
    return nn_getsockopt(socket, NN_SOL_SOCKET, option, fd, &n);
}

int pair_open(struct pair *p, const char *name)
{
    char url[128];
    int n = snprintf(url, sizeof url, "ipc://%s", name);
    if (n < 0 || (size_t)n >= sizeof url)
        return -ENAMETOOLONG;
    *p = PAIR_CLOSED;
    p->socket = nn_socket(AF_SP, NN_PAIR);
    if (p->socket < 0)
        return -nn_errno();
    /* A file of a process that was killed; the directory is ours alone. */
    (void)unlink(name);
    if (set_int(p->socket, NN_RCVMAXSIZE, LIMIT_LINK_MESSAGE_BYTES) < 0 ||
        set_int(p->socket, NN_SNDBUF, BUFFER_BYTES) < 0 ||
        set_int(p->socket, NN_RCVBUF, BUFFER_BYTES) < 0 || nn_bind(p->socket, url) < 0 ||
        get_fd(p->socket, NN_RCVFD, &p->receive_fd) < 0 ||
        get_fd(p->socket, NN_SNDFD, &p->send_fd) < 0) {
        int r = -nn_errno();
        pair_close(p);
        return r;
    }
    return 0;
}

void pair_close(struct pair *p)
{
    if (p->socket >= 0)
        (void)nn_close(p->socket);
    *p = PAIR_CLOSED;
}

void *pair_buffer(size_t n)
{
    return nn_allocmsg(n, 0);
}

void *pair_shrink(void *buffer, size_t n)
{
    void *same = nn_reallocmsg(buffer, n);
    MUST(same != NULL);
    return same;
}

void pair_drop(void *buffer)
{
    if (buffer != NULL)
        (void)nn_freemsg(buffer);
}

int pair_send(struct pair *p, void *buffer)
{
    if (p->socket >= 0 && nn_send(p->socket, &buffer, NN_MSG, NN_DONTWAIT) >= 0)
        return 0;
    int r = p->socket < 0 ? -ENOTCONN : -nn_errno();
    pair_drop(buffer);
    return r;
}

int pair_receive(struct pair *p, struct span *out)
{
    void *buffer = NULL;
    *out = span_of(NULL, 0);
    if (p->socket < 0)
        return 0;
    int n = nn_recv(p->socket, &buffer, NN_MSG, NN_DONTWAIT);
    if (n < 0)
        return nn_errno() == EAGAIN ? 0 : -nn_errno();
    *out = span_of(buffer, (size_t)n);
    return 1;
}
