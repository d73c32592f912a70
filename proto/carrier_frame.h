/*
 * carrier_frame - the head of a frame on the stream socket between a worker and the link process of
 * its node. Both are of one build and one host: integers little-endian, fixed layout, no versions.
 */
#ifndef PROTO_CARRIER_FRAME_H
#define PROTO_CARRIER_FRAME_H

#include "base/span.h"
#include "proto/limits.h"

enum carrier_op {
    CARRIER_DATA = 1, /* payload; slot: to the link the receiver's, from the link the sender's */
    CARRIER_UP,       /* from the link: the peer is reached; what was under way is lost */
    CARRIER_DOWN,     /* from the link: it is not */
    CARRIER_OP_COUNT
};
enum { CARRIER_HEAD_BYTES = 44 };

struct carrier_head {
    enum carrier_op op;
    uint32_t slot;  /* 0..LIMIT_WORKERS-1 */
    uint32_t bytes; /* of the payload that follows, 0..LIMIT_CARRIER_PAYLOAD_BYTES */
    char node[LIMIT_NAME_BYTES + 1];
};

void carrier_head_write(uint8_t out[CARRIER_HEAD_BYTES], const struct carrier_head *h);
/* -EBADMSG: out of range. */
NODISCARD int carrier_head_read(const uint8_t in[CARRIER_HEAD_BYTES], struct carrier_head *out);

#endif
