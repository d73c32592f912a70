/*
 * cluster - this node among the others: what each master says of itself, and messages between them.
 *
 * Owner:  the master, while cluster.name is set; it speaks through mochila-link (channel 0).
 * Input:  LINK frames of the link process. What comes from another node is checked like anything
 *         from the network; a frame that cannot be read is told and dropped.
 * Never:  gives up a lane of ours on hearsay.
 *
 * Frames are in order between two lives of masters and links; with a death on either side those
 * under way may be lost. So whoever wants something says it until it is answered.
 */
#ifndef MASTER_CLUSTER_H
#define MASTER_CLUSTER_H

#include "proto/cluster_frame.h"
#include "proto/control.h"

#include <jansson.h>

struct master;
struct proc;
struct cluster;

/* What a node said of itself last; of this node: what it says. */
struct cluster_node {
    char name[LIMIT_NAME_BYTES + 1];
    bool self;
    bool up;       /* its master was heard within CLUSTER_SILENCE_MS; of us: true */
    bool refused;  /* it has our node_id, or cannot be understood */
    char why[160]; /* not up: since, or the reason */
    char endpoint[64];
    struct cluster_status status;
    uint64_t heard_ms, up_since_ms;
};
enum {
    CLUSTER_SILENCE_MS = 3500,
    CLUSTER_STATUS_MS = 1000,
    CLUSTER_QUERY_MS = 8000,
};

/* Peers of the configuration; called at start and after each reload. 0 or -ENOMEM. */
NODISCARD int cluster_configure(struct master *m);
void cluster_fini(struct master *m);
/* The link process is READY: its streams are opened. */
void cluster_link_ready(struct master *m);
void cluster_link_gone(struct master *m);
/* A LINK frame of it. -EBADMSG: it broke the contract. */
NODISCARD int cluster_on_link(struct master *m, const struct control_frame *f);
/* Silence of nodes, questions without an answer. */
void cluster_tick(struct master *m);
/* Once a turn, at its end: STATUS, each second and after a change. */
void cluster_flush(struct master *m);
/* The next deadline, 0: none. */
uint64_t cluster_deadline(const struct master *m);
/* Something that STATUS tells has changed: it goes out at the end of the turn. */
void cluster_changed(struct master *m);

/* NULL: no such node in the configuration. */
const struct cluster_node *cluster_find(const struct master *m, const char *node);
/* All nodes, this one first; NULL at the end. */
const struct cluster_node *cluster_at(const struct master *m, uint32_t i);
/* The host address of a peer, as cluster.peers has it. -ENOENT. */
NODISCARD int cluster_address_of(const struct master *m, const char *node, struct ip *out);
/* The lane as that node told it last, or NULL. */
const struct cluster_lane *cluster_lane_at(const struct master *m, const char *node,
                                           const struct ip *address);

/*
 * One message to the master of `node` (CLUSTER_MOVE; at most CLUSTER_PAYLOAD_BYTES). -ENOTCONN: it
 * is not reached now; -ENOBUFS: it does not read; -ENOENT: no such node.
 */
NODISCARD int cluster_send(struct master *m, const char *node, enum cluster_kind kind,
                           struct span payload);

/* A verb of the admin interface; `args` are "key=value". */
struct cluster_verb {
    const char *name;
    char *const *args;
    uint32_t arg_count;
    const char *from; /* the node that asked us; of our own questions: NULL */
};
/* A whole answer: HTTP-like status, JSON text. 504: no answer in time, 503: not reached. */
typedef void cluster_answer(struct master *m, void *ctx, int status, struct span body);
/*
 * Asks the master of `node`, or with our own name this one, a verb. The answer comes in any case,
 * never from inside this call. 0 or -ENOBUFS (too many under way). A verb of the workers is
 * answered by the sum of the numbers of all of them, and "missing"; one about moves as move.h says.
 */
NODISCARD int cluster_ask(struct master *m, const char *node, const struct cluster_verb *verb,
                          cluster_answer *done, void *ctx);

/* cluster_json.c: the answer of the verb "cluster". */
json_t *cluster_json(struct master *m);
/* Answers question `id` of the api: the ledgers of all nodes, and their sum. */
void cluster_ledger(struct master *m, uint64_t id);

#endif
