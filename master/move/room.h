/*
 * room - all moves that this node takes part in, and what they share: turns, limits, numbers.
 *
 * Owner:  move.c in the master; a simulation in tests.
 * Input:  orders, frames, answers, and room_turn once a turn.
 * Output: through struct room_ops.
 * Never:  does I/O, reads a clock, or has a lane in two moves at once.
 *
 * Changes of records are gathered within a turn and made together; items for a node travel in as
 * few frames as possible. A move is durable before its first word leaves.
 */
#ifndef MASTER_MOVE_ROOM_H
#define MASTER_MOVE_ROOM_H

#include "base/log.h"
#include "base/table.h"
#include "master/move/machine.h"

enum {
    MOVES_KEPT = 64,         /* that are over, for `moves` */
    MOVES_OPEN_MAX = 256,
    MOVE_FREEZES_MAX = 32,   /* lanes between FROZEN and TAKEN */
    MOVE_BUDGET_US = 100000, /* a freeze is expected to last less than this */
    MOVE_FIXED_US = 35000,   /* of it: sync, two round trips, swap, address */
    MOVE_CALM_SAMPLES = 3,
    MOVE_TRIES_MAX = 3,      /* freezes of a lane that a restart undid */
    MOVE_RATE_MIN = 1 << 20, /* bytes/s that an idle copy is believed to reach */
    MOVE_NEWS_MS = 1000,
};
struct move {
    uint64_t id;
    enum move_side side;
    bool dirty, cutover, drain, aborting, told;
    enum move_outcome outcome;
    int64_t started, ended; /* Unix time */
    uint64_t rate;
    uint32_t parallel;
    char pool[LIMIT_NAME_BYTES + 1], giver[LIMIT_NAME_BYTES + 1], taker[LIMIT_NAME_BYTES + 1];
    char reason[160];
    struct lane_move **lanes;
    uint32_t count, room;
    uint64_t news_us;
    uint32_t news_bytes;
    char news[MOVE_NEWS_BYTES]; /* taker: what the giver said of it last */
};
/* What room_start is asked to do. */
struct move_wish {
    const struct ip *lanes;
    uint32_t count, parallel; /* parallel: lanes copied at a time, 1.. */
    uint64_t id, rate;        /* id: node_id << 48 | number, never used before */
    bool drain;
    const char *pool, *to;
};
struct room_ops {
    uint64_t (*now_us)(void *ctx);
    int64_t (*unix_s)(void *ctx);
    struct lane_record *(*record)(void *ctx, const struct ip *address);
    struct lane_record *(*record_of)(void *ctx, uint32_t number);
    int (*swap)(void *ctx, const struct lane_change *changes, uint32_t count);
    /* Rows of a move, durable: 0 or -errno. */
    int (*save)(void *ctx, const struct move *v);
    void (*order)(void *ctx, const struct lane_record *r, const struct control_lane_order *o);
    void (*order_set)(void *ctx, struct lane_record *r);
    void (*run)(void *ctx, struct lane_record *r);
    void (*send)(void *ctx, const char *node, struct span frame);
    /* -errno: at once not; else room_on_netd follows. */
    int (*ask)(void *ctx, struct lane_move *l, enum netd_action action);
    uint32_t (*slot)(void *ctx, const struct lane_record *r);
    /* A lane that another node wants to give: NULL, or why not. */
    const char *(*refuses)(void *ctx, const char *node, const struct move_item *item);
    /*
     * The operator's hold of a lane goes with it. hold_of: is it held, and why. hold_put: on a
     * taker before the record names it, and on the giver (held false) when it was taken; 0 when
     * durable. Both may be NULL.
     */
    bool (*hold_of)(void *ctx, const struct ip *lane, char why[160]);
    int (*hold_put)(void *ctx, const struct lane_move *l, bool held, const char *why);
    void (*fault)(void *ctx, const struct lane_move *l, unsigned step, bool after);
    /* Told once for each lane and for the whole of a move: audit and log. */
    void (*lane_over)(void *ctx, const struct move *v, const struct lane_move *l);
    void (*move_over)(void *ctx, const struct move *v);
};
struct room_change {
    struct lane_move *lane;
    struct lane_change change;
};
struct room_outbox {
    char node[LIMIT_NAME_BYTES + 1];
    struct move_frame *frame;
};
struct room {
    const struct room_ops *ops;
    void *ctx;
    char node[LIMIT_NAME_BYTES + 1];
    struct move_env env;
    struct move **moves; /* oldest first */
    uint32_t count, capacity;
    struct lane_move *active[LIMIT_LANES];
    uint32_t active_count;
    struct table by_lane; /* index in active + 1 */
    struct room_change *changes;
    uint32_t change_count;
    struct room_outbox outboxes[LIMIT_PEERS];
    struct log_calm nonsense;
    uint32_t freezes;
    uint64_t due_us;
};

NODISCARD int room_init(struct room *r, const struct room_ops *ops, void *ctx, const char *node);
void room_fini(struct room *r);
/* A move of ours begins: 0 with *out, or -errno with one sentence in why. */
NODISCARD int room_start(struct room *r, const struct move_wish *w, struct move **out,
                         char why[160]);
/* All lanes that are still ours stay here; what was given stays given. */
void room_abort(struct room *r, struct move *v, const char *why);
struct move *room_find(struct room *r, uint64_t id);
/* The open part of a lane in a move, or NULL. */
struct lane_move *room_lane(const struct room *r, const struct ip *address);
void room_on_lane(struct room *r, const struct control_lane_order *o);
void room_on_frame(struct room *r, const char *node, struct span bytes);
void room_on_worker(struct room *r, uint32_t slot);
/* Answer of netd to `ask`: NETD_OK, NETD_RETRY (also: netd ended), NETD_FAILED. */
void room_on_netd(struct lane_move *l, enum netd_result result, const char *why);
void room_turn(struct room *r);
/* When room_turn is due, 0: no matter when. */
uint64_t room_due_us(const struct room *r);

/* From rows of an earlier life: moves as they began, then room_resume. NULL: no memory. */
struct move *room_add(struct room *r, const struct move *row);
struct lane_move *room_add_lane(struct room *r, struct move *v, const struct ip *address);
/* Every lane that is not over goes on from its record. */
void room_resume(struct room *r);

/* room_count.c: numbers for people. */
struct move_sums {
    uint32_t lanes, over, waiting, tails, in_doubt;
    uint64_t messages_sent, messages_left, bytes_sent, bytes_left, owed;
    double bytes_per_s;
    uint64_t pause_p50, pause_p99, pause_max; /* microseconds */
};
void move_sum(const struct move *v, struct move_sums *out);
/* How it ended for the operator: all lanes are across, or stay, though tails may still be open. */
enum move_outcome move_across(const struct move *v);
const char *move_word(const struct move *v);
/* 0 with the id, or -EINVAL: "a-17"; `number` of node_id << 48 | n and the giver's name. */
void move_id_text(const struct move *v, char out[LIMIT_NAME_BYTES + 24]);

#endif
