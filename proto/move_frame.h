/*
 * move_frame - what masters say to each other about moves, decoded into our own structs.
 *
 * Pure. protobuf-c stops here: unpacked with a byte budget, every range checked; what a newer
 * release added is ignored, also items of a kind that is not known. move.proto has the contract.
 */
#ifndef PROTO_MOVE_FRAME_H
#define PROTO_MOVE_FRAME_H

#include "base/net.h"
#include "proto/limits.h"

enum {
    MOVE_VERSION = 1,
    MOVE_LAYOUT = 1, /* of the records that a copy carries */
    MOVE_ITEMS = 128,
    MOVE_NEWS_BYTES = 4096,
    MOVE_NO_SLOT = -1,
};
enum move_kind {
    MOVE_PREPARE = 1,
    MOVE_PREPARE_OK,
    MOVE_NO,
    MOVE_COMMITREQ,
    MOVE_COMMITTED,
    MOVE_NACK,
    MOVE_TAKEN,
    MOVE_ABORTED_NOW,
    MOVE_TAIL_END,
    MOVE_TAIL_ENDED,
    MOVE_KIND_COUNT
};
struct move_item {
    enum move_kind kind;
    struct ip lane;
    uint64_t move; /* never 0 */
    uint32_t epoch;
    int32_t slot; /* MOVE_NO_SLOT: not known */
    uint32_t driver, layout;
    uint64_t bytes;
    bool held; /* COMMITTED: by an operator; `why` is his */
    char pool[LIMIT_NAME_BYTES + 1];
    char why[160];
};
struct move_frame {
    struct move_item items[MOVE_ITEMS];
    uint32_t item_count;
    uint64_t news_move; /* 0: no news */
    char news[MOVE_NEWS_BYTES];
    uint32_t news_bytes;
};

/* 0 with *n bytes in out, or -E2BIG. MOVE_ITEMS items, or news without items, fit a payload of the
   link. */
NODISCARD int move_encode(const struct move_frame *f, uint8_t *out, size_t cap, size_t *n);
/* 0, -EBADMSG, or -EPROTO: of a version that has nothing in common with ours. */
NODISCARD int move_decode(struct span bytes, struct move_frame *out);

#endif
