#include "bench/outbuf.h"

#include <errno.h>
#include <sys/socket.h>

bool outbuf_has_room(const struct outbuf *o, uint32_t texts, size_t text_bytes)
{
    return o->first + o->count + 2 * texts <= OUTBUF_PARTS &&
           o->text_used + text_bytes <= OUTBUF_TEXT_BYTES;
}

void outbuf_text(struct outbuf *o, struct span s)
{
    MUST(s.n <= OUTBUF_TEXT_BYTES - o->text_used);
    char *at = o->text + o->text_used;
    uint32_t end = o->first + o->count;

    memcpy(at, s.p, s.n);
    o->text_used += (uint32_t)s.n;
    if (o->count > 0) {
        struct iovec *last = &o->parts[end - 1];
        if ((char *)last->iov_base + last->iov_len == at) {
            last->iov_len += s.n;
            return;
        }
    }
    MUST(end < OUTBUF_PARTS);
    o->parts[end] = (struct iovec){at, s.n};
    o->count++;
}

void outbuf_puts(struct outbuf *o, const char *s)
{
    outbuf_text(o, span_str(s));
}

void outbuf_borrow(struct outbuf *o, struct span s)
{
    MUST(o->first + o->count < OUTBUF_PARTS);
    o->parts[o->first + o->count++] = (struct iovec){(void *)(uintptr_t)s.p, s.n};
}

void outbuf_reset(struct outbuf *o)
{
    o->first = 0;
    o->count = 0;
    o->text_used = 0;
}

static void forget(struct outbuf *o, size_t sent)
{
    while (sent > 0) {
        struct iovec *part = &o->parts[o->first];
        MUST(o->count > 0);
        if (sent < part->iov_len) {
            part->iov_base = (char *)part->iov_base + sent;
            part->iov_len -= sent;
            return;
        }
        sent -= part->iov_len;
        o->first++;
        o->count--;
    }
    if (o->count == 0)
        outbuf_reset(o);
}

/* One part cut to the limit: only slow-drip connections come here. */
static ssize_t send_some(struct outbuf *o, int fd, size_t limit)
{
    struct iovec *part = &o->parts[o->first];
    size_t n = part->iov_len < limit ? part->iov_len : limit;

    return send(fd, part->iov_base, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

ssize_t outbuf_send(struct outbuf *o, int fd, size_t limit)
{
    struct msghdr msg = {.msg_iov = &o->parts[o->first], .msg_iovlen = o->count};
    ssize_t n;

    MUST(o->count > 0);
    if (limit < SIZE_MAX)
        n = send_some(o, fd, limit);
    else
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    forget(o, (size_t)n);
    return n;
}
