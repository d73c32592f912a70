/*
 * START: may come in several frames when there are many lanes; the descriptors come with the first
 * one: configuration text, counters page, event log, one listener per entry of `listeners`.
 */
#include "worker/worker.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { START_WAIT_MS = 30000, FDS_BEFORE_LISTENERS = 3 };

static int wait_readable(void)
{
    struct pollfd p = {.fd = CONTROL_FD, .events = POLLIN};
    int r;
    do {
        r = poll(&p, 1, START_WAIT_MS);
    } while (r < 0 && errno == EINTR);
    return r == 1 ? 0 : -ETIMEDOUT;
}

static int append(void **list, uint32_t *count, const void *more, uint32_t n, size_t size)
{
    if (n == 0)
        return 0;
    void *p = realloc(*list, (*count + n) * size);
    if (p == NULL)
        return -ENOMEM;
    memcpy((char *)p + *count * size, more, n * size);
    *list = p;
    *count += n;
    return 0;
}

#define APPEND(to, from, list, count)                                                              \
    append((void **)&(to)->list, &(to)->count, (from)->list, (from)->count, sizeof *(to)->list)

static int add_frame(struct start *s, const struct control_frame *f)
{
    int r = APPEND(&s->frame, f, lanes, lane_count);
    if (r == 0)
        r = APPEND(&s->frame, f, holds, hold_count);
    if (r == 0)
        r = APPEND(&s->frame, f, poison, poison_count);
    if (r == 0)
        r = APPEND(&s->frame, f, shards, shard_count);
    if (r == 0)
        r = APPEND(&s->frame, f, listeners, listener_count);
    return r;
}

static int take_fds(struct start *s, const int *fds, unsigned count)
{
    if (count < FDS_BEFORE_LISTENERS || count - FDS_BEFORE_LISTENERS > LIMIT_LISTENERS)
        return -EBADMSG;
    s->config_fd = fds[0];
    s->stats_fd = fds[1];
    s->events_fd = fds[2];
    s->listener_fd_count = count - FDS_BEFORE_LISTENERS;
    for (uint32_t i = 0; i < s->listener_fd_count; i++)
        s->listener_fds[i] = fds[FDS_BEFORE_LISTENERS + i];
    return 0;
}

static int take_one(struct start *s, bool first, bool *last)
{
    struct control_frame f;
    int fds[CONTROL_FDS_MAX];
    unsigned count = CONTROL_FDS_MAX;
    int r = wait_readable();
    if (r == 0)
        r = control_receive(CONTROL_FD, &f, fds, &count);
    if (r <= 0)
        return r == 0 ? -EPIPE : r;
    if (f.kind != CONTROL_START) {
        control_free(&f);
        return -EBADMSG;
    }
    *last = f.last;
    if (first) {
        s->frame = f; /* its lists are owned by s from here */
        return take_fds(s, fds, count);
    }
    r = add_frame(s, &f);
    control_free(&f);
    return r;
}

int start_receive(struct start *s)
{
    memset(s, 0, sizeof *s);
    s->config_fd = s->stats_fd = s->events_fd = -1;
    bool last = false;
    int r = 0;
    for (bool first = true; r == 0 && !last; first = false)
        r = take_one(s, first, &last);
    if (r == 0 && (s->frame.listener_count != s->listener_fd_count ||
                   s->frame.shard_count > LIMIT_WORKERS))
        r = -EBADMSG;
    return r;
}

void start_free(struct start *s)
{
    control_free(&s->frame);
    if (s->config_fd >= 0)
        close(s->config_fd);
    if (s->stats_fd >= 0)
        close(s->stats_fd);
}
