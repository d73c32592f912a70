/* replica_impl - shared by replica*.c only. */
#ifndef WORKER_REPLICA_IMPL_H
#define WORKER_REPLICA_IMPL_H

#include "worker/lane/role.h"
#include "worker/move/replica.h"

/* What no honest source needs; without them another node would have our memory. */
enum {
    REPLICA_PARTS_MAX = 256,       /* large messages that are coming in, of one lane */
    REPLICA_TAILS_MAX = 1 << 20,
    REPLICA_LATE_BYTES = 128 << 20, /* frames that wait for the log, of all lanes */
};
enum replica_state {
    REPLICA_IDLE,    /* no stream */
    REPLICA_LISTING, /* says what is here; takes already what comes */
    REPLICA_TAKING,
    REPLICA_ENDING,  /* END is here, READY on its way into the log */
    REPLICA_REFUSED, /* said so; nothing is taken before the next BEGIN */
    REPLICA_STATE_COUNT
};

/* A frame that could not be applied at once. */
struct replica_late {
    struct replica_late *next;
    struct lane_frame frame; /* spans and items in data */
    size_t bytes;
    uint8_t data[];
};
/* Pieces of a large body whose message has not come yet. */
struct replica_part {
    struct replica_part *next;
    struct msg_id id;
    struct record_place *places;
    uint32_t *bytes;
    uint16_t count;
};
struct replica_stream {
    struct replica_stream *next;
    struct replica *replica;
    struct lane *lane;
    enum replica_state state;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot, epoch;
    uint64_t move;
    uint64_t position; /* of the last frame taken; the high half names the beginning */
    uint64_t applied;  /* up to here it is in the log, perhaps not durable */
    uint64_t acked;
    struct replica_late *late, **late_end;
    struct replica_part *parts;
    unsigned part_count;
    struct tail_item *tails;
    uint32_t tail_count;
    uint32_t list_at; /* next entry to be listed */
    struct lane_item *items;
    uint32_t item_count;
    bool syncing, readying; /* the waits below are with the spool */
    uint64_t sync_position;
    struct spool_wait sync_wait, ready_wait;
};
/* A chunk or a message that the log is to hold: in the list while it is with the spool. */
struct replica_put {
    struct replica_put *next, **link;
    struct replica_stream *stream;
    struct msg_id id;
    struct enqueue enqueue;
    struct spool_wait chunk_wait;
    struct record_place chunk_place;
    struct content *content;
};
struct replica {
    struct replica_settings set;
    struct replica_stream *streams;
    struct replica_stream **by_lane; /* by index of the lane */
    struct replica_put *puts;
    size_t late_bytes; /* in late frames of all streams */
    bool starved;
};

/* replica.c */
/* Ends the stream: `again` when a new beginning may be better. */
void replica_refuse(struct replica_stream *st, bool again, const char *why);

/* replica_apply.c: one frame into the log. 0; -EAGAIN: later; other: the stream cannot go on. */
NODISCARD int replica_apply(struct replica_stream *st, const struct lane_frame *f);
void replica_parts_drop(struct replica_stream *st);
void replica_put_free(struct replica_put *p);

#endif
