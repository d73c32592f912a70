/*
 * control - frames between the master and its children, decoded into our own structs.
 *
 * protobuf-c structs stop here: decode with a byte budget, check every range, free. One
 * SOCK_SEQPACKET message is one frame, with up to CONTROL_FDS_MAX descriptors beside it.
 */
#ifndef PROTO_CONTROL_H
#define PROTO_CONTROL_H

#include "base/id.h"
#include "base/net.h"
#include "proto/limits.h"

enum { CONTROL_FDS_MAX = 96, CONTROL_VERSION = 1, CONTROL_FD = 3, CONTROL_LOG_FD = 4 };

enum control_kind {
    CONTROL_READY = 1,
    CONTROL_START,
    CONTROL_HOLDS,
    CONTROL_PEER_UP,
    CONTROL_PEER_DOWN,
    CONTROL_DRAIN,
    CONTROL_DRAINED,
    CONTROL_QUERY,
    CONTROL_ANSWER,
    CONTROL_RECOVERED,
    CONTROL_LINK,
    CONTROL_CARRIER,
    CONTROL_LANE,
    CONTROL_KIND_COUNT
};
/* What a node is to a lane; the epoch says since which change of owner. */
enum lane_role {
    LANE_OWNER = 1, /* ours; attempts start while `run` says that the address is here */
    LANE_FROZEN,    /* ours, but nothing new starts: it is about to be given away */
    LANE_AWAY,      /* another node's: what is accepted here is handed over to it */
    LANE_REPLICA,   /* another node's, which copies it to us */
    LANE_ROLE_COUNT
};
struct control_lane {
    uint32_t lane, shard, worker, epoch;
    struct ip address;
    enum lane_role role;
    bool run;
    uint32_t owner_slot; /* worker on the owner's node, CONTROL_NO_SLOT: not known */
    uint64_t move;       /* of a frozen lane or a replica, 0: none */
    char owner[LIMIT_NAME_BYTES + 1]; /* node; "": this one */
};
/*
 * What a LANE frame says. Every order may be repeated. From the master:
 *   SET        role, epoch, run, node and slot (the owner; of a frozen lane: the target), move:
 *              from now on this is so. SET_DONE follows when it is durable and in force.
 *   COPY       move, epoch, node, slot, rate: send the lane to its replica there; it goes on over
 *              losses of the link and of the peer until COPY_STOP or the lane's next role. Again
 *              with another rate: from now on that rate.
 *   COPY_STOP  -
 *   REPORT     asks for PROGRESS of any lane at once.
 * From the worker:
 *   SET_DONE   role, epoch, run, result. Of FROZEN: tails; of a REPLICA: complete when READY(epoch)
 *              is durable here already. -EBUSY as result: later; other results: refused, why.
 *   PROGRESS   of a lane that is copied, about every 100 ms, and when it is asked for: messages and
 *              bytes sent and left (left includes what is not acknowledged); of one that is away:
 *              owed (recipients to be handed over) and tails (attempts that are open). Of one that
 *              is ours, tails: connections that an earlier epoch of ours left open.
 *   READY      epoch, move: on the replica's side, all of it is durable here.
 *   TAIL       tails: of a lane that is frozen or away, open attempts and connections left; sent
 *              when it changes to 0, and with SET_DONE.
 *   COPY_FAILED why: a copy cannot go on without help (no room there, it does not know the lane).
 */
enum lane_op {
    LANE_OP_SET = 1,
    LANE_OP_COPY,
    LANE_OP_COPY_STOP,
    LANE_OP_REPORT,
    LANE_OP_SET_DONE,
    LANE_OP_PROGRESS,
    LANE_OP_READY,
    LANE_OP_TAIL,
    LANE_OP_COPY_FAILED,
    LANE_OP_COUNT
};
struct control_lane_order {
    enum lane_op op;
    uint32_t lane, epoch, slot; /* slot: CONTROL_NO_SLOT when not known */
    uint64_t move, rate;        /* rate: bytes a second, 0: no limit */
    enum lane_role role;        /* 0: none said */
    bool run, complete;
    char node[LIMIT_NAME_BYTES + 1];
    int result;                 /* 0 or -errno */
    uint32_t tails;
    uint64_t messages_sent, messages_left, bytes_sent, bytes_left, owed;
    /* SET_DONE of FROZEN: since the order came, from which on no attempt starts */
    uint64_t paused_us;
    char why[160];
};
struct control_hold {
    char kind[12]; /* lane tenant site message all */
    char value[256];
    char why[128];
    uint64_t since;
};
/* What a LINK frame says: see master/link/control_link.h, where each op has its fields. */
enum control_link_op {
    CONTROL_LINK_OPEN = 1,
    CONTROL_LINK_SEND,
    CONTROL_LINK_ACK,
    CONTROL_LINK_UP,
    CONTROL_LINK_DOWN,
    CONTROL_LINK_RECEIVED,
    CONTROL_LINK_ACKED,
    CONTROL_LINK_WANT,
    CONTROL_LINK_OP_COUNT
};
struct control_link {
    enum control_link_op op;
    uint32_t channel; /* enum link_channel */
    char peer[LIMIT_NAME_BYTES + 1];
    uint64_t stream, seq, peer_stream, received, durable, incarnation;
    uint32_t version;
    char why[160];
};
#define CONTROL_NO_SLOT UINT32_MAX

/* One frame; pointers are owned by the frame until control_free. */
struct control_frame {
    enum control_kind kind;
    uint64_t generation, boot;
    uint64_t incarnation; /* PEER_*: the peer's; START: your own, never reused within a boot */
    uint64_t id, messages, milliseconds, damaged;
    uint32_t pid, version, slot, workers, seconds, open;
    int32_t core, status;
    bool held, last;
    char config_name[256];
    char verb[24];
    uint32_t *shards;
    uint32_t shard_count;
    uint32_t *listeners;
    uint32_t listener_count;
    struct control_lane *lanes;
    uint32_t lane_count;
    struct control_hold *holds;
    uint32_t hold_count;
    struct msg_id *poison;
    uint32_t poison_count;
    char **args;
    uint32_t arg_count; /* "key=value" */
    struct control_link link; /* of LINK; its payload is the body */
    struct control_lane_order order; /* of LANE; CARRIER says slot only */
    uint8_t *body;
    size_t body_bytes;
};

/* Sends one frame with descriptors (not closed). 0 or -errno (-EAGAIN: full, -EPIPE: the peer is
   gone, -E2BIG: over LIMIT_FRAME_BYTES). A START with thousands of lanes may exceed a frame: it is
   sent as several START frames, `last` true on the final one; receivers add lists up. */
NODISCARD int control_send(int fd, const struct control_frame *f, const int *fds,
                           unsigned fd_count);
/* Receives one frame without blocking. 1 = got one (*fd_count in: room, out: received; CLOEXEC), 0
 * = end of file, -EAGAIN, -EBADMSG (malformed). */
NODISCARD int control_receive(int fd, struct control_frame *out, int *fds, unsigned *fd_count);
void control_free(struct control_frame *f);
/* Value of args[] key, or NULL. */
const char *control_arg(const struct control_frame *f, const char *key);
/* Is `kind` one of the scopes of a hold? */
bool control_hold_kind_ok(const char *kind);

/* The same without descriptors and sockets. Encode: 0 with *n bytes in out, or -E2BIG, -ENOMEM. */
NODISCARD int control_encode(const struct control_frame *f, uint8_t *out, size_t cap, size_t *n);
/* One whole frame: 0, -EBADMSG (malformed) or -ENOMEM; on failure *out holds nothing. */
NODISCARD int control_decode(struct span bytes, struct control_frame *out);
/* Sends an encoded frame, for a sender with a queue of its own. Results as control_send. */
NODISCARD int control_send_bytes(int fd, struct span bytes, const int *fds, unsigned fd_count);

#endif
