/* outbox - see outbox.h. */
#include "master/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct outbox_frame {
    struct outbox_frame *next;
    unsigned fd_count;
    size_t n;
    int *fds; /* duplicates */
    uint8_t bytes[];
};

static void frame_free(struct outbox_frame *f)
{
    for (unsigned i = 0; i < f->fd_count; i++)
        close(f->fds[i]);
    free(f->fds);
    free(f);
}

static struct outbox_frame *frame_make(struct span bytes, const int *fds, unsigned fd_count)
{
    struct outbox_frame *f = malloc(sizeof *f + bytes.n);
    if (f == NULL)
        return NULL;
    *f = (struct outbox_frame){.n = bytes.n};
    memcpy(f->bytes, bytes.p, bytes.n);
    f->fds = calloc(fd_count > 0 ? fd_count : 1, sizeof *f->fds);
    if (f->fds == NULL) {
        frame_free(f);
        return NULL;
    }
    for (unsigned i = 0; i < fd_count; i++) {
        f->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (f->fds[i] < 0) {
            frame_free(f);
            return NULL;
        }
        f->fd_count++;
    }
    return f;
}

static int enqueue(struct outbox *o, struct span bytes, const int *fds, unsigned fd_count)
{
    if (bytes.n > OUTBOX_BYTES_MAX - o->bytes)
        return -ENOBUFS;
    struct outbox_frame *f = frame_make(bytes, fds, fd_count);
    if (f == NULL)
        return -ENOMEM;
    if (o->tail != NULL)
        o->tail->next = f;
    else
        o->head = f;
    o->tail = f;
    o->bytes += f->n;
    return 0;
}

int outbox_send(struct outbox *o, int fd, const struct control_frame *f, const int *fds,
                unsigned fd_count)
{
    uint8_t bytes[LIMIT_FRAME_BYTES];
    size_t n;
    int rc = control_encode(f, bytes, sizeof bytes, &n);
    return rc < 0 ? rc : outbox_send_bytes(o, fd, span_of(bytes, n), fds, fd_count);
}

int outbox_send_bytes(struct outbox *o, int fd, struct span bytes, const int *fds,
                      unsigned fd_count)
{
    int rc = o->head == NULL ? control_send_bytes(fd, bytes, fds, fd_count) : -EAGAIN;
    if (rc == -EAGAIN)
        rc = enqueue(o, bytes, fds, fd_count);
    return rc;
}

int outbox_flush(struct outbox *o, int fd)
{
    while (o->head != NULL) {
        struct outbox_frame *f = o->head;
        int rc = control_send_bytes(fd, span_of(f->bytes, f->n), f->fds, f->fd_count);
        if (rc < 0)
            return rc == -EAGAIN ? 0 : rc;
        o->head = f->next;
        if (o->head == NULL)
            o->tail = NULL;
        MUST(o->bytes >= f->n);
        o->bytes -= f->n;
        frame_free(f);
    }
    return 0;
}

void outbox_fini(struct outbox *o)
{
    while (o->head != NULL) {
        struct outbox_frame *f = o->head;
        o->head = f->next;
        frame_free(f);
    }
    *o = (struct outbox){0};
}
