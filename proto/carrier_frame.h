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
enum { CARRIER_HEAD_BYTES = 48 };

struct carrier_head {
    enum carrier_op op;
    uint32_t slot;  /* 0..LIMIT_WORKERS-1 */
    /* Of the payload that follows: 1..LIMIT_CARRIER_PAYLOAD_BYTES of DATA, else 0. */
    uint32_t bytes;
    /* Of UP: counts them, for this peer. Of DATA to the link: of the last UP that the sender knows,
       so that what it sent before it heard of a loss goes no further. */
    uint32_t wave;
    char node[LIMIT_NAME_BYTES + 1];
};

void carrier_head_write(uint8_t out[CARRIER_HEAD_BYTES], const struct carrier_head *h);
/* -EBADMSG: out of range. */
NODISCARD int carrier_head_read(const uint8_t in[CARRIER_HEAD_BYTES], struct carrier_head *out);

#endif
