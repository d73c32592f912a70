/*
 * outbuf - what one connection has still to send: own text and borrowed bodies, in one send.
 *
 * Owner:  one connection. Borrowed bytes must live until they are sent.
 * Never:  allocates; the caller asks for room first.
 */
#ifndef BENCH_OUTBUF_H
#define BENCH_OUTBUF_H

#include "base/span.h"

#include <sys/uio.h>

enum { OUTBUF_PARTS = 128, OUTBUF_TEXT_BYTES = 48 << 10 };

struct outbuf {
    uint32_t first; /* part */
    uint32_t count; /* parts in use from `first` on */
    uint32_t text_used;
    struct iovec parts[OUTBUF_PARTS];
    char text[OUTBUF_TEXT_BYTES]; /* last: untouched pages cost nothing */
};

static inline bool outbuf_is_empty(const struct outbuf *o)
{
    return o->count == 0;
}
/* True when `texts` text calls of `text_bytes` in all, and one borrow for each, still fit. */
bool outbuf_has_room(const struct outbuf *o, uint32_t texts, size_t text_bytes);
/* Copies; there must be room. */
void outbuf_text(struct outbuf *o, struct span s);
void outbuf_puts(struct outbuf *o, const char *s);
/* Names bytes that stay where they are; there must be room. */
void outbuf_borrow(struct outbuf *o, struct span s);
void outbuf_reset(struct outbuf *o);
/*
 * One sendmsg of at most `limit` bytes. Returns bytes sent (0 = the socket is full), or -errno of a
 * dead connection.
 */
NODISCARD ssize_t outbuf_send(struct outbuf *o, int fd, size_t limit);

#endif
