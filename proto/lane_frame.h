/*
 * lane_frame - what workers of two nodes say to each other about a lane; payloads of the carrier.
 *
 * A payload holds one or more frames. A frame is u32 total bytes, u32 bytes of the protobuf head
 * (lane.proto), the head, then meta and rest as they are: bodies are never copied by the codec.
 * Heads follow protobuf's rules for two releases to interwork; meta and rest are the layout of
 * spool_record.h, whose number the masters agree on before a move.
 *
 *   copying          BEGIN ->  <- INVENTORY*  ENQ, CHUNK, CHANGE, DROP ->  <- ACK  END ->
 *   after the move   HAND ->  <- TAKEN | NOT_OWNER   TAIL_DONE ->   <- ASK  GONE ->
 */
#ifndef PROTO_LANE_FRAME_H
#define PROTO_LANE_FRAME_H

#include "base/id.h"
#include "base/net.h"
#include "proto/limits.h"

enum lane_frame_kind {
    /* move, epoch: a copy begins (anew). The high half of `position` names this beginning, the low
       half counts its frames from here; answers repeat the high half, so late ones are known. */
    LANE_FRAME_BEGIN = 1,
    LANE_FRAME_INVENTORY, /* items: id + digest of the entries' states; last */
    LANE_FRAME_CHUNK,     /* item.id, rest: a piece of a large body, in order before its ENQ; index:
                             which, 0 begins anew */
    LANE_FRAME_ENQ,       /* meta, rest: a message as it stands; chunk_count in meta: of pieces */
    LANE_FRAME_CHANGE,    /* type (DONE, DEFER), meta: an outcome, rest: reply */
    LANE_FRAME_DROP,      /* items: ids that are not there any more */
    LANE_FRAME_ACK,       /* position: durable up to here */
    LANE_FRAME_END,       /* epoch, items with index: tails; adopted: items with origin; rest: state
                             of the flows. Several when there are many items; last. */
    LANE_FRAME_REFUSED,   /* why, and `again` when it may be tried later */
    LANE_FRAME_HAND,      /* as ENQ (chunks before it as CHUNK with hand = true) */
    LANE_FRAME_TAKEN,     /* items: ids that are durable at the owner */
    LANE_FRAME_NOT_OWNER, /* items: ids; node, epoch: who is, as far as is known */
    LANE_FRAME_TAIL_DONE, /* items: id, index */
    LANE_FRAME_ASK,       /* items: ids, or one recipient each (digest 1); are they still yours? */
    LANE_FRAME_GONE,      /* items: those that are not, for good */
    LANE_FRAME_KIND_COUNT
};
struct lane_item {
    struct msg_id id;
    uint64_t digest;
    uint16_t index;
    char origin[LIMIT_NAME_BYTES + 1]; /* of an adopted id, else "" */
};
enum { LANE_FRAME_ITEMS = 4096 };

struct lane_frame {
    enum lane_frame_kind kind;
    struct ip lane;
    uint64_t move, position;
    uint32_t epoch;
    uint8_t type; /* enum record_type */
    bool last, again, hand;
    char node[LIMIT_NAME_BYTES + 1];
    char why[160];
    const struct lane_item *items; /* decoded ones: until lane_frame_free */
    uint32_t item_count;           /* 0..LANE_FRAME_ITEMS */
    struct span meta, rest;        /* decoded ones: in the payload */
    void *memory;                  /* private */
};

/* Appends the frame without its meta and rest to out: those follow it, in this order. 0 with *n
   bytes, -E2BIG, -ENOMEM. */
NODISCARD int lane_frame_head(const struct lane_frame *f, uint8_t *out, size_t cap, size_t *n);
/* Bytes of a head that is enough for a frame without items. */
enum { LANE_FRAME_HEAD_BYTES = 512 };
/* Takes the next frame off the payload: 1, 0 at its end, -EBADMSG, -ENOMEM. Frames of a kind that
   only newer releases know are passed over. No item has the id 0, no epoch is above LIMIT_EPOCH. */
NODISCARD int lane_frame_next(struct span *payload, struct lane_frame *out);
void lane_frame_free(struct lane_frame *f);

#endif
