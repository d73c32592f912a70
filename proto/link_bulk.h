/*
 * link_bulk - what one frame on the bulk channel between two links holds: parts of one worker for
 * one worker, or the beginning of a wave.
 *
 * Pure. Its payload is a head in protobuf (link.proto: LinkBulk), and the parts as they are: they
 * are read where they lie. Fields that a newer release added are ignored.
 */
#ifndef PROTO_LINK_BULK_H
#define PROTO_LINK_BULK_H

#include "base/span.h"
#include "proto/limits.h"

enum {
    LINK_BULK_PARTS = 256,
    LINK_BULK_BYTES_MAX = LIMIT_LINK_FRAME_BYTES - 4096, /* head and parts together */
    LINK_BULK_HEAD_BYTES = 2 + 64 + 5 * LINK_BULK_PARTS, /* at most */
};
static_assert(LINK_BULK_HEAD_BYTES + LIMIT_CARRIER_PAYLOAD_BYTES <= LINK_BULK_BYTES_MAX + 0,
              "every carrier frame fits");

struct link_bulk {
    uint32_t begin;                  /* 0: does not begin a wave */
    uint32_t wave;                   /* of the receiver; not 0 where there are parts */
    uint32_t from_slot, to_slot;     /* 0..LIMIT_WORKERS-1 */
    uint32_t count;                  /* 0..LINK_BULK_PARTS */
    uint32_t bytes[LINK_BULK_PARTS]; /* of each part, 1..LIMIT_CARRIER_PAYLOAD_BYTES */
};

/* The head alone; returns its bytes. The parts follow. */
size_t link_bulk_encode(const struct link_bulk *b, uint8_t out[LINK_BULK_HEAD_BYTES]);
/* A whole payload; *parts: the bytes of all parts, within it. 0, or -EBADMSG. */
NODISCARD int link_bulk_decode(struct span payload, struct link_bulk *out, struct span *parts);

#endif
