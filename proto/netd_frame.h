/*
 * netd_frame - frames between the master and netd, decoded into our own struct.
 *
 * Pure but for the two functions at the end. protobuf-c stops here: unpacked with a byte budget,
 * every range checked; what a newer release added is ignored. A frame holds no memory of its own.
 * Never: a frame with an address of no lane (0.0.0.0, ::, loopback, multicast), or a slice of ports
 * without its peer.
 */
#ifndef PROTO_NETD_FRAME_H
#define PROTO_NETD_FRAME_H

#include "base/net.h"
#include "proto/limits.h"

enum {
    NETD_VERSION = 1,
    NETD_HELD_PER_FRAME = 256,
    NETD_INTERFACE_BYTES = 16, /* IFNAMSIZ */
    NETD_REASON_BYTES = 200,
    NETD_DEADLINE_MS_MAX = 600000,
    NETD_PROBE_MS_MAX = 10000,
    NETD_HOOK_MS_MAX = 600000,
    NETD_PATH_BYTES = 256,
};
enum netd_kind { NETD_START = 1, NETD_REQUEST, NETD_READY, NETD_ANSWER, NETD_NOTICE };
enum netd_action {
    NETD_PREPARE = 1,
    NETD_RELEASE,
    NETD_ACQUIRE,
    NETD_VERIFY,
    NETD_END_TAIL,
    NETD_ACTION_COUNT
};
enum netd_driver { NETD_NONE = 1, NETD_L2, NETD_EXEC, NETD_DRIVER_COUNT };
enum netd_result { NETD_OK = 1, NETD_RETRY, NETD_FAILED, NETD_RESULT_COUNT };
enum netd_what { NETD_GONE = 1, NETD_CLASH, NETD_WHAT_COUNT };

/* Where the open connections of a lane's former owner go: port_low is 0 when there is no such host.
 */
struct netd_tail {
    struct ip peer;
    uint16_t port_low, port_high;
};
/* A lane's address, as every driver needs it. */
struct netd_place {
    uint32_t lane, epoch;
    enum netd_driver driver;
    struct ip address;
    char interface[NETD_INTERFACE_BYTES];
    bool tail; /* held: it is on lo; request: leave it there */
    struct netd_tail forward;
    bool has_peer; /* forward.peer is set; its ports may be 0 (prepare) */
};
struct netd_start {
    uint32_t version, uid, gid, hook_ms;
    char hook[NETD_PATH_BYTES];
    bool last;
    uint32_t held_count;
    struct netd_place held[NETD_HELD_PER_FRAME];
};
struct netd_request {
    uint64_t id; /* never 0 */
    enum netd_action action;
    struct netd_place place;
    char pool[LIMIT_NAME_BYTES + 1], from[LIMIT_NAME_BYTES + 1], to[LIMIT_NAME_BYTES + 1];
    uint32_t deadline_ms; /* 1.. */
    uint32_t probe_ms;
};
struct netd_answer {
    uint64_t id, microseconds;
    enum netd_result result;
    char reason[NETD_REASON_BYTES];
};
struct netd_notice {
    enum netd_what what;
    uint32_t lane, epoch;
    char reason[NETD_REASON_BYTES];
};
struct netd_frame {
    enum netd_kind kind;
    union {
        struct netd_start start;
        struct netd_request request;
        struct {
            uint32_t version, pid, dropped;
        } ready;
        struct netd_answer answer;
        struct netd_notice notice;
    };
};

/* 0 with *n bytes in out, or -E2BIG: over cap or over LIMIT_FRAME_BYTES. */
NODISCARD int netd_encode(const struct netd_frame *f, uint8_t *out, size_t cap, size_t *n);
/* One whole frame: 0, or -EBADMSG. */
NODISCARD int netd_decode(struct span bytes, struct netd_frame *out);

/* One frame over a SOCK_SEQPACKET descriptor, never waiting. 0 or -errno (-EAGAIN: full, -EPIPE).
 */
NODISCARD int netd_send(int fd, const struct netd_frame *f);
/* 1 = got one, 0 = end of file, -EAGAIN, -EBADMSG. */
NODISCARD int netd_receive(int fd, struct netd_frame *out);

#endif
