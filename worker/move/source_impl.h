/* source_impl - shared by source*.c only. */
#ifndef WORKER_SOURCE_IMPL_H
#define WORKER_SOURCE_IMPL_H

#include "worker/lane/shard.h"
#include "worker/move/source.h"

enum source_state {
    SOURCE_WAIT_UP,   /* the peer is not reached */
    SOURCE_CLEARING,  /* MSG_SENT of an earlier stream is being wiped */
    SOURCE_INVENTORY, /* BEGIN is sent, the replica says what it has */
    SOURCE_SENDING,
    SOURCE_ENDED,     /* END is sent */
    SOURCE_REFUSED,   /* tried again soon */
    SOURCE_FAILED,    /* rests until it is ordered again */
    SOURCE_STATE_COUNT
};
enum source_event {
    SOURCE_EV_UP,
    SOURCE_EV_DOWN,
    SOURCE_EV_CLEARED,
    SOURCE_EV_LISTED,  /* the inventory is complete */
    SOURCE_EV_ALL_SENT, /* of a frozen lane */
    SOURCE_EV_REFUSED,
    SOURCE_EV_BROKEN,  /* it cannot go on without help: stream->why */
    SOURCE_EV_LATE,    /* the state's time is over */
    SOURCE_EVENT_COUNT
};

enum {
    SOURCE_READS_MAX = 32,
    SOURCE_LISTED_MAX = 1024, /* messages found by the sweep, to be read in the order of the log */
    SOURCE_FRESH_MAX = 65536, /* new ones; more: the sweep finds them */
    SOURCE_MARKS = 256,
    SOURCE_PAYLOAD_BYTES = 256 << 10,
    SOURCE_MARK_BYTES = 64 << 10,
    SOURCE_TURN_BYTES = 1 << 20,
    SOURCE_SWEEP_STEP = 16384, /* entries a turn */
};
static_assert(SOURCE_MARKS * SOURCE_MARK_BYTES >= SOURCE_WINDOW_BYTES, "marks cover the window");

/* A message that is to be sent. */
struct source_item {
    struct msg_id id;
    uint32_t segment, offset;
    uint32_t bytes; /* about, of all its records */
};
struct source_list {
    struct source_item *items; /* at .. count-1 are left */
    uint32_t at, count, cap;
    uint64_t bytes;
};
/* A payload that is being filled, or waits for the carrier. */
struct source_payload {
    struct source_payload *next;
    uint32_t n;
    uint8_t bytes[LIMIT_CARRIER_PAYLOAD_BYTES];
};
/* A worker of another node, for all streams to it. */
struct source_target {
    struct source_target *next;
    char node[LIMIT_NAME_BYTES + 1];
    uint32_t slot;
    uint32_t streams;
    uint64_t unacked; /* bytes, those in payloads included */
    uint64_t reading; /* bytes of reads under way */
    uint64_t waiting; /* bytes in payloads */
    struct source_payload *head, *tail;
    bool blocked; /* the carrier takes nothing now */
};
/* Bytes of the stream up to a position. */
struct source_mark {
    uint64_t position, bytes;
};
struct source_stream {
    struct source_stream *next;
    struct source *source;
    struct lane *lane;
    struct source_target *target;
    struct control_lane_order order;
    enum source_state state;
    uint32_t generation; /* counts beginnings: reads of an earlier one are for nothing */
    uint64_t due_ms;     /* SOURCE_EV_LATE, 0: never */
    uint64_t progress_ms;
    bool counted;         /* the index was gone over once: total_bytes */
    uint64_t total_bytes; /* of the lane, about */
    char why[160];
    /* one beginning's */
    uint64_t position, acked, bytes, acked_bytes;
    uint64_t acked_before; /* bytes of earlier beginnings */
    struct source_mark marks[SOURCE_MARKS];
    uint32_t mark_at, mark_count;
    uint32_t sweep_from;
    bool swept, wrapped, unsorted;
    uint32_t reads;
    uint64_t unswept_messages, unswept_bytes; /* about */
    uint64_t reading_bytes;
    struct source_list listed, fresh;
    double tokens; /* bytes that the rate allows */
    uint64_t tokens_ms;
    uint64_t messages_sent;
};
/* A message being read from the log, chunks first. */
struct source_read {
    struct spool_read read;
    struct source *source;
    struct source_read *next_free;
    struct source_stream *stream; /* NULL: it has gone */
    uint32_t generation;
    struct source_target *target;
    struct source_item item;
    struct record_place place;
    uint16_t chunk, chunk_count;
    uint32_t *chunk_bytes;
};
struct source {
    struct source_settings set;
    struct source_stream *streams;
    struct source_stream **by_lane; /* by index of the lane */
    struct source_target *targets;
    struct source_read reads[SOURCE_READS_MAX];
    struct source_read *free_reads;
    struct source_payload *spare;
    uint32_t hand;          /* the next entry of the sweep */
    uint32_t turn_bytes;    /* sent in this turn */
    bool starved;           /* work is left, and waits for nobody */
};

/* source.c */
void source_event(struct source_stream *st, enum source_event ev);
/* The event BROKEN with its reason. */
void source_break(struct source_stream *st, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct source_stream *source_stream_of(const struct source *s, const struct ip *lane);

/* source_sweep.c: what is to be sent, and reading it */
void source_sweep_restart(struct source_stream *st);
void source_sweep_turn(struct source *s);
void source_send_turn(struct source *s);
/* Everything that a stream has is sent; reads included. */
bool source_all_sent(const struct source_stream *st);
void source_lists_clear(struct source_stream *st);
void source_fresh(struct source_stream *st, const struct qmsg *m);
/* The bytes of a message's records, about. */
uint32_t source_msg_bytes(const struct qmsg *m);
/* Reads of a stream that ends. */
void source_orphan_reads(struct source_stream *st);

/* source_out.c: frames on their way */
struct source_target *source_target_get(struct source *s, const char *node, uint32_t slot);
void source_target_put(struct source *s, struct source_target **t);
/* Puts a frame into the stream: lane, move, epoch and position are filled in. False: no memory, the
   stream is to begin anew. */
bool source_emit(struct source_stream *st, struct lane_frame *f);
void source_emit_end(struct source_stream *st);
void source_acked(struct source_stream *st, uint64_t position);
void source_marks_turn(struct source *s);
void source_flush(struct source *s);
bool source_window_open(const struct source_stream *st);
/* What waits for the carrier is forgotten: the peer is gone, or the stream begins anew. */
void source_target_drop(struct source *s, struct source_target *t);
void source_out_begin(struct source_stream *st);
/* The rate, which a frozen lane does not have. */
bool source_rate_allows(struct source_stream *st);

#endif
