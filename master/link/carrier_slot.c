/*
 * carrier_slot - see carrier_slot.h.
 *
 * Invariant: `queued` is the sum of what the chunks hold; no chunk is empty. A frame never spans
 * two chunks, but for the first one's beginning, which the socket has taken already.
 */
#include "master/link/carrier_slot.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20, CHUNKS_PER_WRITE = 64 };

static void drop_chunk(struct carrier_slot *s)
{
    struct carrier_chunk *k = s->first;
    s->queued -= k->to - k->from;
    s->first = k->next;
    if (s->first == NULL)
        s->last = NULL;
    free(k);
}

void carrier_slot_close(struct carrier_slot *s)
{
    while (s->first != NULL)
        drop_chunk(s);
    MUST(s->queued == 0);
    if (s->fd >= 0)
        close(s->fd);
    free(s->in);
    *s = (struct carrier_slot){.fd = -1, .number = s->number, .poll_at = -1};
}

int carrier_slot_open(struct carrier_slot *s, int fd, uint64_t now_ms)
{
    carrier_slot_close(s);
    s->in = malloc(CARRIER_IN_BYTES);
    if (s->in == NULL) {
        close(fd);
        return -ENOMEM;
    }
    s->fd = fd;
    s->moved_ms = now_ms;
    return 0;
}

int carrier_slot_read(struct carrier_slot *s)
{
    if (s->from > 0) {
        memmove(s->in, s->in + s->from, s->to - s->from);
        s->to -= s->from;
        s->from = 0;
    }
    size_t room = CARRIER_IN_BYTES - s->to;
    if (room > READ_BYTES)
        room = READ_BYTES;
    if (room == 0)
        return 0;
    ssize_t n = recv(s->fd, s->in + s->to, room, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    s->to += (size_t)n;
    return n == 0 ? -EPIPE : 0;
}

static int write_some(struct carrier_slot *s, struct iovec *pieces, size_t count, size_t *n)
{
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = count};
    ssize_t r = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    *n = r > 0 ? (size_t)r : 0;
    if (r < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    return 0;
}

int carrier_slot_flush(struct carrier_slot *s, uint64_t now_ms)
{
    while (s->first != NULL) {
        struct iovec pieces[CHUNKS_PER_WRITE];
        size_t count = 0, n;
        for (struct carrier_chunk *k = s->first; k != NULL && count < CHUNKS_PER_WRITE; k = k->next)
            pieces[count++] = (struct iovec){k->bytes + k->from, k->to - k->from};
        int r = write_some(s, pieces, count, &n);
        if (r < 0)
            return r;
        if (n == 0)
            return 0;
        s->moved_ms = now_ms;
        while (n > 0) {
            struct carrier_chunk *k = s->first;
            size_t part = n < k->to - k->from ? n : k->to - k->from;
            k->from += part;
            s->queued -= part;
            n -= part;
            if (k->from == k->to)
                drop_chunk(s);
        }
    }
    s->moved_ms = now_ms;
    return 0;
}

/* Bytes of the frame of which `done` bytes are sent: the pieces are heads and payloads in turn, or
 * heads alone. */
static size_t rest_of_frame(const struct iovec *pieces, unsigned count, size_t done)
{
    for (unsigned i = 0; i < count;) {
        struct carrier_head h;
        int r = carrier_head_read(pieces[i].iov_base, &h);
        MUST(r == 0);
        size_t frame = CARRIER_HEAD_BYTES + h.bytes;
        if (done < frame)
            return done == 0 ? 0 : frame - done;
        done -= frame;
        i += h.bytes > 0 ? 2 : 1;
    }
    MUST(done == 0);
    return 0;
}

static int keep(struct carrier_slot *s, const struct iovec *pieces, unsigned count, size_t done)
{
    size_t n = 0, skip = done;
    for (unsigned i = 0; i < count; i++)
        n += pieces[i].iov_len;
    if (done == n)
        return 0;
    struct carrier_chunk *k = malloc(sizeof *k + n - done);
    if (k == NULL)
        return -ENOMEM;
    *k = (struct carrier_chunk){.split = rest_of_frame(pieces, count, done)};
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *p = pieces[i].iov_base;
        size_t part = pieces[i].iov_len;
        size_t before = skip < part ? skip : part;
        skip -= before;
        if (part > before)
            memcpy(k->bytes + k->to, p + before, part - before);
        k->to += part - before;
    }
    MUST(k->to == n - done);
    *(s->last != NULL ? &s->last->next : &s->first) = k;
    s->last = k;
    s->queued += k->to;
    return 0;
}

int carrier_slot_send(struct carrier_slot *s, struct iovec *pieces, unsigned count, uint64_t now_ms)
{
    size_t done = 0;
    MUST(count > 0);
    MUST(count <= CARRIER_SLOT_PIECES);
    if (s->first == NULL) {
        int r = write_some(s, pieces, count, &done);
        if (r < 0)
            return r;
        s->moved_ms = now_ms;
    }
    return keep(s, pieces, count, done);
}

/* Where the frame ends that is half sent; frames are whole from `split` on. */
static size_t end_of_frame(const struct carrier_chunk *k)
{
    size_t at = k->split;
    while (at < k->from) {
        struct carrier_head h;
        int r = carrier_head_read(k->bytes + at, &h);
        MUST(r == 0);
        at += CARRIER_HEAD_BYTES + h.bytes;
    }
    MUST(at <= k->to);
    return at;
}

void carrier_slot_discard(struct carrier_slot *s)
{
    struct carrier_chunk *k = s->first;
    if (k == NULL)
        return;
    size_t end = end_of_frame(k);
    s->first = k->next;
    while (s->first != NULL)
        drop_chunk(s);
    s->queued -= k->to - end;
    k->to = end;
    k->next = NULL;
    s->first = s->last = k;
    if (k->from == k->to)
        drop_chunk(s);
    MUST(s->first != NULL || s->queued == 0);
}
