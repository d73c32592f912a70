/* cluster_impl - what the files of cluster share; nobody else includes this. */
#ifndef MASTER_CLUSTER_IMPL_H
#define MASTER_CLUSTER_IMPL_H

#include "base/log.h"
#include "master/cluster.h"
#include "master/master.h"

enum {
    CLUSTER_FLIGHT_MAX = 240,   /* frames that a peer has not acknowledged: below the credit */
    CLUSTER_FLIGHT_STATUS = 32, /* with more under way a STATUS waits */
    CLUSTER_QUESTIONS = 64,
    CLUSTER_ANSWER_BYTES = 4 << 20,
};
static_assert((CLUSTER_FLIGHT_MAX + 2) * (LIMIT_LINK_PAYLOAD_BYTES + 256) <=
                  LIMIT_LINK_CREDIT_BYTES,
              "a stream is never full");

struct cluster_lanes {
    struct cluster_lane *list;
    uint32_t count, room;
};
struct cluster_peer {
    struct cluster_node node;
    bool wire;                      /* the link reaches the other link */
    uint64_t stream, next, acked;   /* ours */
    uint64_t peer_stream, received; /* theirs: durable is what was received */
    bool status_due;
    struct log_calm nonsense; /* what it sends and cannot be read, or believed */
    struct cluster_lanes lanes, coming; /* as told last; the list that is being told */
};
enum question_state { QUESTION_FREE, QUESTION_ASKED, QUESTION_DONE };
struct cluster_question {
    enum question_state state;
    uint64_t id, deadline_ms;
    struct cluster_peer *peer; /* NULL: this node */
    cluster_answer *done;
    void *ctx;
    int status;
    char *body;
    size_t n;
};
struct cluster {
    struct cluster_node self;
    struct cluster_peer *peers[LIMIT_PEERS];
    uint32_t peer_count;
    bool link; /* the link process is READY */
    bool changed;
    uint64_t status_ms; /* of the next STATUS */
    uint64_t delivered, delivered_ms;
    uint64_t question_id;
    struct cluster_question questions[CLUSTER_QUESTIONS];
};

struct cluster_peer *cluster_peer_of(const struct master *m, const char *node);
/* One frame into the peer's stream. As cluster_send. */
NODISCARD int cluster_put(struct master *m, struct cluster_peer *p, const struct cluster_frame *f);
void cluster_peer_down(struct master *m, struct cluster_peer *p, const char *why);

/* cluster_status.c */
void cluster_status_refresh(struct master *m);
void cluster_status_send(struct master *m, struct cluster_peer *p);
void cluster_status_take(struct master *m, struct cluster_peer *p, const struct cluster_frame *f);

/* cluster_ask.c */
void cluster_query_take(struct master *m, struct cluster_peer *p, const struct cluster_query *q);
void cluster_answer_take(struct master *m, struct cluster_peer *p, const struct cluster_reply *r);
void cluster_ask_lost(struct master *m, const struct cluster_peer *p);
void cluster_ask_tick(struct master *m);
uint64_t cluster_ask_deadline(const struct cluster *c);

#endif
