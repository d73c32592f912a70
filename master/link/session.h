/*
 * session - one channel to one peer: what makes a lossy pipe of datagrams into a sure one.
 *
 * Owner:  the channel of a peer (peers.c), or a test with a simulated wire.
 * Input:  frames of the peer, the user's frames and acknowledgements, and the time.
 * Never:  a descriptor, a socket or the clock; a new wire from within its calls; memory beyond
 * LIMIT_LINK_CREDIT_BYTES to send.
 *
 * A stream is a sequence of frames of one user (the master): a number that names it, and frames
 * that count from 1. It outlives wires and link processes: what is not acknowledged is sent again,
 * what came already is dropped, and the order stays. An acknowledgement comes from the user on the
 * other side and means durable there.
 */
#ifndef LINK_SESSION_H
#define LINK_SESSION_H

#include "proto/link_bulk.h"
#include "proto/link_frame.h"

/* A thin channel may be late on a wire that another one fills: where the peer's other channel is
   heard the owner allows SESSION_LATE_MS. */
enum { SESSION_BEAT_MS = 100, SESSION_SILENCE_MS = 1000, SESSION_LATE_MS = 5000 };

enum session_state { SESSION_IDLE, SESSION_GREETING, SESSION_UP, SESSION_STATE_COUNT };
enum session_event {
    SESSION_EV_WIRE_UP,
    SESSION_EV_WIRE_DOWN,
    SESSION_EV_HELLO,
    SESSION_EV_DATA,
    SESSION_EV_BEAT,
    SESSION_EV_TICK,
    SESSION_EVENT_COUNT
};

struct session;
struct session_ops {
    /* Hands a frame to the wire: 0, -EAGAIN (full: session_flush later), or -errno. */
    int (*send)(struct session *s, const struct link_frame *f);
    /* The wire is of no use: close it. The session is idle already. */
    void (*cut)(struct session *s);
    /* Both have greeted; version, peer_stream and peer_incarnation are known. */
    void (*up)(struct session *s);
    /* The wire is lost, `why` for people; `was_up` false: it never came to be. */
    void (*down)(struct session *s, const char *why, bool was_up);
    /* The next frame of the peer's stream. 0, or -errno: it is sent again on another wire. */
    int (*deliver)(struct session *s, uint64_t seq, struct span payload);
    /* Durable at the peer, up to here. */
    void (*acked)(struct session *s, uint64_t seq);
    /* The next frame that session_submit takes; frames on their way with other numbers are lost. */
    void (*want)(struct session *s, uint64_t seq, const char *why);
};
struct session_names {
    char node[LIMIT_NAME_BYTES + 1], peer[LIMIT_NAME_BYTES + 1], cluster[LIMIT_NAME_BYTES + 1];
    enum link_channel channel;
    uint64_t incarnation; /* of this process */
};
struct session_place { /* where the user's two streams stand; all 0: no streams yet */
    uint64_t stream, next;
    uint64_t peer_stream, received, durable; /* received >= durable */
};

struct session_unit;
struct session {
    struct session_names names;
    const struct session_ops *ops;
    void *owner;
    enum session_state state;
    struct session_place at;
    /* Sending. */
    struct session_unit *first, *last, *cursor; /* unacknowledged; cursor: the next for the wire */
    uint64_t queued_bytes, flight_bytes;
    uint64_t acked; /* by the peer */
    uint64_t peer_credit;
    const char *why; /* of the wire's end, while it is told */
    bool wanting;    /* told the user what is wanted, and it has not come yet */
    /* The peer, on this wire. */
    uint64_t peer_incarnation;
    uint32_t version;
    uint64_t heard_ms, said_ms, said_ack;
    uint32_t silence_ms; /* that is allowed; the owner may change it */
};

void session_init(struct session *s, const struct session_names *names,
                  const struct session_ops *ops, void *owner);
void session_fini(struct session *s);
/* The user's streams; a wire is cut, since the peer has to learn it. -EINVAL: cannot be. */
NODISCARD int session_open(struct session *s, const struct session_place *at);
/*
 * One frame to send. 0 (also for one that the peer has already); -ENOBUFS: too much is
 * unacknowledged; -ERANGE: not the next one (in both cases `want` says what is); -E2BIG; -ENOMEM.
 */
NODISCARD int session_submit(struct session *s, uint64_t seq, struct span payload);
/* The next frame of the stream, put together from parts. 0; -ENOBUFS (nobody is told), -E2BIG,
   -ENOMEM. */
NODISCARD int session_append(struct session *s, const struct span *parts, unsigned count);
/* Would session_append take so many bytes now? */
bool session_has_room(const struct session *s, size_t bytes);
/* Frames of the peer's stream are durable up to seq. -ERANGE: they were not delivered. */
NODISCARD int session_ack(struct session *s, uint64_t stream, uint64_t seq);

void session_wire_up(struct session *s, uint64_t now_ms);
void session_wire_down(struct session *s, const char *why);
/* A frame of the peer; NULL: malformed. */
void session_input(struct session *s, const struct link_frame *f, uint64_t now_ms);
/* Sends what may be sent; -EAGAIN: more waits for the wire. */
int session_flush(struct session *s, uint64_t now_ms);
/* Heartbeat and silence; to be called when session_due says so. */
void session_tick(struct session *s, uint64_t now_ms);
/* Milliseconds until session_tick has something to do, or -1. */
int session_due(const struct session *s, uint64_t now_ms);

#endif
