/*
 * worker - composition root of mochila-worker: one loop that owns SMTP in, the shards, the lanes
 * and SMTP out.
 *
 * Owner:  main(). Everything a worker has hangs here; the modules below know only what they were
 *         given.
 * Input:  frames of the master (control descriptor), descriptors that came with START.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "worker/exchange/exchange.h"
#include "worker/intake.h"
#include "worker/lane/deliver.h"
#include "worker/lane/shard.h"
#include "worker/smtp/server.h"

struct admin;
struct move;
struct rehome;

enum worker_phase {
    WORKER_STARTING, /* shards not all recovered yet */
    WORKER_SERVING,
    WORKER_DRAINING, /* finishes what is in flight, accepts nothing */
    WORKER_STOPPED
};

struct worker {
    enum worker_phase phase;
    struct config *config;
    struct stats_page *stats;
    struct io *io;
    struct wheel wheel;
    struct rng rng;
    struct events *events;
    struct dns *dns;
    struct exchange *exchange;
    struct intake *intake;
    struct rehome *rehome;
    struct move *move;          /* NULL: no cluster */
    struct smtp_servers *servers;
    struct admin *admin;
    struct queue queue;
    struct io_watch control;
    struct control_hold *holds; /* of HOLDS frames before the last one */
    uint32_t hold_count;
    struct timer shard_timer;   /* tries the locks of shards that another process still holds */
    struct timer drain_timer;
    uint64_t generation, incarnation;
    uint32_t slot;
    uint32_t shards[LIMIT_WORKERS];
    uint32_t shard_want;        /* how many of shards[] are to be opened */
    bool open[LIMIT_WORKERS];   /* shards[i] is ours */
    bool told_recovered;
    uint64_t recovery_ms;
    int listener_fds[LIMIT_LISTENERS];
    uint32_t listener_index[LIMIT_LISTENERS];
    uint32_t listener_count;
};

struct start;
/* Reads the configuration that came with START; before anything else. */
NODISCARD int worker_config(struct worker *w, const struct start *s);
/* Builds everything from the START frames. 0 or -errno, said in the log. */
NODISCARD int worker_create(struct worker *w, struct start *s);
/* Runs until drained, stopped, or the master is gone; returns the exit status. */
int worker_run(struct worker *w);
void worker_destroy(struct worker *w);
/* Stops accepting; leaves when nothing is in flight, at the latest after `seconds`. */
void worker_drain(struct worker *w, uint32_t seconds);

/* control_link.c: frames from and to the master */
NODISCARD int control_link_start(struct worker *w);
void control_link_send(struct worker *w, const struct control_frame *f);

/* start.c: the START frames and what came with them */
struct start {
    struct control_frame frame; /* lists of all START frames, added up */
    int config_fd, stats_fd, events_fd;
    int listener_fds[LIMIT_LISTENERS];
    uint32_t listener_fd_count;
};
/* Blocks until the last START frame; -errno. */
NODISCARD int start_receive(struct start *s);
void start_free(struct start *s);

#endif
