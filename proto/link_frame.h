/*
 * link_frame - frames between the links of two nodes, as our own struct.
 *
 * Pure. protobuf-c stops here: unpacked with a byte budget, every range checked. Fields and kinds
 * that a newer release added are ignored (see link.proto): a frame with none that we know is a
 * heartbeat.
 */
#ifndef PROTO_LINK_FRAME_H
#define PROTO_LINK_FRAME_H

#include "base/span.h"
#include "proto/limits.h"

enum { LINK_VERSION_MIN = 1, LINK_VERSION_MAX = 1 };
enum link_channel { LINK_CONTROL, LINK_BULK, LINK_CHANNEL_COUNT };
enum link_kind { LINK_BEAT, LINK_HELLO, LINK_DATA };

struct link_hello {
    char node[LIMIT_NAME_BYTES + 1], cluster[LIMIT_NAME_BYTES + 1];
    uint32_t version_min, version_max; /* 1 <= min <= max */
    uint64_t stream;                   /* never 0 */
    uint64_t peer_stream, durable;     /* durable is 0 where peer_stream is */
    enum link_channel channel;
};
struct link_frame {
    enum link_kind kind;
    uint64_t incarnation; /* never 0 */
    uint64_t ack, credit;
    struct link_hello hello; /* of LINK_HELLO */
    uint64_t seq;            /* of LINK_DATA: from 1 */
    struct span payload;     /* of LINK_DATA; decoded: until link_frame_free */
    void *unpacked;          /* decoded: what the payload lies in */
};

/* Bytes that a frame needs at most. */
size_t link_frame_room(const struct link_frame *f);
/* 0 with *n bytes in out, or -E2BIG: over cap or over LIMIT_LINK_FRAME_BYTES. */
NODISCARD int link_frame_encode(const struct link_frame *f, uint8_t *out, size_t cap, size_t *n);
/* One whole frame; -EBADMSG (then there is nothing to free). */
NODISCARD int link_frame_decode(struct span bytes, struct link_frame *out);
void link_frame_free(struct link_frame *f);
/*
 * The version that two sides speak: the lower of their highest ones. -EPROTONOSUPPORT when their
 * ranges have none in common.
 */
NODISCARD int link_version_agree(const struct link_hello *theirs, uint32_t *version);

#endif
