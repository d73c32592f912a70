/*
 * sink_content - finds the end of one message in a byte stream, and its identity.
 *
 * Only CRLF.CRLF ends DATA (RFC 5321 4.1.1.4). Pure: bytes in, result out; works with any cut of
 * the stream into pieces.
 */
#ifndef BENCH_SINK_CONTENT_H
#define BENCH_SINK_CONTENT_H

#include "bench/identity.h"

enum { CONTENT_LINE_BYTES = 200 };

enum content_header { CONTENT_SEEKING, CONTENT_FOUND, CONTENT_ABSENT };

struct content {
    uint64_t bytes;
    struct identity identity;
    enum content_header header;
    uint32_t matched;    /* bytes of CRLF.CRLF that the stream ends with */
    uint32_t line_bytes; /* kept of a header line that goes on in the next piece */
    uint8_t line[CONTENT_LINE_BYTES];
};

/* For DATA and for the first BDAT of a message. */
void content_begin(struct content *c);
/* Takes bytes of DATA; returns how many belong to the message, and whether they end it. */
NODISCARD size_t content_feed(struct content *c, struct span s, bool *ended);
/* Takes bytes of BDAT, all of which belong to the message. */
void content_feed_chunk(struct content *c, struct span s);

#endif
