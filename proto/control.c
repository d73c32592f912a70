/*
 * control - one frame, one SOCK_SEQPACKET message, descriptors beside it; see control.h.
 *
 * Invariant: a descriptor that arrives is either handed to the caller or closed here; none of them
 * survives an exec.
 */
#include "proto/control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

union fd_space {
    char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
    struct cmsghdr aligned;
};

bool control_hold_kind_ok(const char *kind)
{
    static const char *const kinds[] = {"lane", "tenant", "site", "message", "all"};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        if (strcmp(kind, kinds[i]) == 0)
            return true;
    }
    return false;
}

void control_free(struct control_frame *f)
{
    MUST(f != NULL);
    for (uint32_t i = 0; f->args != NULL && i < f->arg_count; i++)
        free(f->args[i]);
    free(f->args);
    free(f->shards);
    free(f->listeners);
    free(f->lanes);
    free(f->holds);
    free(f->poison);
    free(f->body);
    *f = (struct control_frame){.core = -1, .slot = CONTROL_NO_SLOT};
}

const char *control_arg(const struct control_frame *f, const char *key)
{
    size_t n = strlen(key);
    for (uint32_t i = 0; i < f->arg_count; i++) {
        if (strncmp(f->args[i], key, n) == 0 && f->args[i][n] == '=')
            return f->args[i] + n + 1;
    }
    return NULL;
}

int control_send_bytes(int fd, struct span bytes, const int *fds, unsigned fd_count)
{
    MUST(fd_count <= CONTROL_FDS_MAX);
    MUST(bytes.n > 0);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union fd_space space;

    if (fd_count > 0) {
        memset(&space, 0, sizeof space);
        msg.msg_control = space.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            return (size_t)n == bytes.n ? 0 : -EIO;
        if (errno == EWOULDBLOCK)
            return -EAGAIN;
        /* A peer that died with unread frames of ours is just as gone as one that closed. */
        if (errno == ECONNRESET)
            return -EPIPE;
        if (errno != EINTR)
            return -errno;
    }
}

int control_send(int fd, const struct control_frame *f, const int *fds, unsigned fd_count)
{
    uint8_t bytes[LIMIT_FRAME_BYTES];
    size_t n;
    int rc = control_encode(f, bytes, sizeof bytes, &n);
    if (rc < 0)
        return rc;
    return control_send_bytes(fd, span_of(bytes, n), fds, fd_count);
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* Collects what came with the message into got[CONTROL_FDS_MAX]. */
static unsigned take_fds(struct msghdr *msg, int *got)
{
    unsigned count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        MUST(n <= CONTROL_FDS_MAX - count);
        memcpy(got + count, CMSG_DATA(c), n * sizeof(int));
        count += (unsigned)n;
    }
    return count;
}

static ssize_t receive_once(int fd, struct msghdr *msg)
{
    ssize_t n;
    do
        n = recvmsg(fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    if (errno == EWOULDBLOCK)
        return -EAGAIN;
    return errno == ECONNRESET ? 0 : -errno;
}

int control_receive(int fd, struct control_frame *out, int *fds, unsigned *fd_count)
{
    uint8_t bytes[LIMIT_FRAME_BYTES];
    union fd_space space;
    int got[CONTROL_FDS_MAX];
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space.bytes,
                         .msg_controllen = sizeof space.bytes};
    unsigned room = fd_count != NULL ? *fd_count : 0;

    if (fd_count != NULL)
        *fd_count = 0;
    *out = (struct control_frame){.core = -1, .slot = CONTROL_NO_SLOT};
    ssize_t n = receive_once(fd, &msg);
    if (n < 0)
        return (int)n;
    unsigned count = take_fds(&msg, got);
    int rc = -EBADMSG;
    if (n == 0 && count == 0)
        return 0;
    if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && count <= room)
        rc = control_decode(span_of(bytes, (size_t)n), out);
    if (rc < 0) {
        close_all(got, count);
        return rc;
    }
    if (count > 0)
        memcpy(fds, got, count * sizeof(int));
    if (fd_count != NULL)
        *fd_count = count;
    return 1;
}
