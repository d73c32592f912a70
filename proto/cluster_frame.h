/*
 * cluster_frame - frames between the masters of two nodes, decoded into our own struct.
 *
 * Pure. protobuf-c stops here: unpacked with a byte budget, every range checked; what a newer
 * release added is ignored. A decoded frame holds no memory of its own: spans point into the bytes
 * that it was decoded from, lanes into an array of the caller.
 */
#ifndef PROTO_CLUSTER_FRAME_H
#define PROTO_CLUSTER_FRAME_H

#include "proto/control.h"
#include "proto/netd_frame.h"

enum cluster_kind {
    CLUSTER_STATUS = 1,
    CLUSTER_MOVE,
    CLUSTER_QUERY,
    CLUSTER_ANSWER,
    CLUSTER_KIND_COUNT
};
enum {
    CLUSTER_LANES_PER_FRAME = 256,
    CLUSTER_ARGS_MAX = LIMIT_QUERY_ARGS,
    CLUSTER_PAYLOAD_BYTES = LIMIT_LINK_PAYLOAD_BYTES - 64,
    CLUSTER_WORD_BYTES = 24,
    /* Of the log's records: a node that is behind cannot keep a replica. Raised with them. */
    CLUSTER_RECORD_LAYOUT = 1,
    CLUSTER_VERB_BYTES = 24, /* as control_frame.verb */
};

struct cluster_lane {
    struct ip address;
    char pool[LIMIT_NAME_BYTES + 1], owner[LIMIT_NAME_BYTES + 1];
    uint32_t epoch, slot; /* slot: CONTROL_NO_SLOT when none was said */
    enum lane_role role;
    bool run;
    uint64_t queued, move;
};
struct cluster_status {
    uint32_t node_id, layout, workers;
    enum netd_driver driver;
    uint64_t boot, queued, disk_free, delivered_milli, uptime_s;
    char version[CLUSTER_WORD_BYTES], health[CLUSTER_WORD_BYTES];
    bool first, last;
    uint32_t lane_count;
};
struct cluster_query {
    uint64_t id;
    char verb[CLUSTER_VERB_BYTES];
    struct span args[CLUSTER_ARGS_MAX]; /* "key=value" */
    uint32_t arg_count;
};
struct cluster_reply {
    uint64_t id;
    uint32_t status;
    bool last;
    struct span body;
};
struct cluster_frame {
    enum cluster_kind kind;
    union {
        struct cluster_status status;
        struct span move;
        struct cluster_query query;
        struct cluster_reply answer;
    };
    const struct cluster_lane *lanes; /* of STATUS, to encode; decoded ones: the caller's array */
};

/* 0 with *n bytes in out, or -E2BIG. */
NODISCARD int cluster_encode(const struct cluster_frame *f, uint8_t *out, size_t cap, size_t *n);
/*
 * One whole frame; `lanes` has room for CLUSTER_LANES_PER_FRAME. 0; -EBADMSG; -ENOTSUP: of a kind
 * that only newer releases know. Spans point into `scratch`, of at least bytes.n bytes.
 */
NODISCARD int cluster_decode(struct span bytes, struct cluster_lane *lanes, uint8_t *scratch,
                             struct cluster_frame *out);

#endif
