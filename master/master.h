/*
 * master - what the parts of mochilad work on together.
 *
 * One thread, one poll loop (loop.c). A `proc` is one supervised child: a worker's place in a
 * generation, or the api. Procs are made and freed at the end of a turn only (reload.c), so that a
 * pointer is good for the whole turn. Descriptors: all are close-on-exec; children get theirs by
 * dup2 (control, log) and by SCM_RIGHTS (the rest).
 */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include "config/config.h"
#include "master/fanout.h"
#include "master/lane_table.h"
#include "master/listeners.h"
#include "master/options.h"
#include "master/outbox.h"
#include "master/paths.h"
#include "master/source.h"
#include "master/state.h"
#include "master/supervise.h"
#include "proto/stats.h"

struct master;
struct generation;

enum {
    MASTER_GENERATIONS = 3,                                /* serving, coming, leaving */
    MASTER_PROCS = MASTER_GENERATIONS * LIMIT_WORKERS + 3, /* and api, link, netd */
    MASTER_DRAIN_S_MAX = LIMIT_DRAIN_S,
};
enum proc_kind { PROC_WORKER, PROC_API, PROC_LINK, PROC_NETD, PROC_KIND_COUNT };
enum master_mode {
    MODE_RUNNING,
    MODE_DRAINED, /* the workers were told to finish and leave; a reload brings new ones */
    MODE_STOPPING,
};

struct proc {
    struct slot slot;
    struct master *master;
    struct generation *generation; /* NULL: no worker; it lives through reloads */
    enum proc_kind kind;
    uint32_t index; /* worker number */
    pid_t pid;
    int control_fd;  /* -1: none, or closed by the child */
    int wake_fd;     /* eventfd that its peers write to; -1: none */
    int exit_status; /* of waitpid, before SLOT_EV_EXIT */
    uint64_t incarnation;
    uint64_t acknowledged; /* generation of its last READY */
    uint64_t configured;   /* generation whose configuration it was started with */
    uint64_t lanes_told;   /* version of the lane table that its START told */
    struct outbox outbox;
    bool broken; /* must be punished at the next opportunity: protocol, or it does not read */
};

struct generation {
    uint64_t number;
    struct source *source;
    uint32_t workers;
    struct proc *procs[LIMIT_WORKERS];
    int32_t cores[LIMIT_WORKERS]; /* -1: not pinned */
    uint32_t shards;
    struct control_lane *lanes; /* active ones first */
    uint32_t lane_count;
};

struct master {
    const struct options *options;
    struct paths paths;
    struct state *state;
    uint64_t boot, incarnation, generation; /* the last one given out */
    uint64_t started_ms, now_ms;            /* monotonic; now_ms is set once a turn */
    uint64_t watch_ms;                      /* of the next look at the heartbeats */
    enum master_mode mode;
    unsigned stop_signals;
    bool notified_ready;

    struct generation *current, *next, *leaving;
    struct proc *api;
    struct proc *link, *netd; /* places; a process is there when the configuration needs one */
    struct proc *procs[MASTER_PROCS];
    unsigned proc_count;

    uint64_t cluster_since; /* generation that last changed what link and netd are told */
    struct lane_table lanes;
    struct cluster *cluster;
    struct netd_client *netd_client;
    struct moves *moves;
    struct listeners listeners;
    uint32_t workers;
    struct stats_page *pages[LIMIT_WORKERS];
    int page_fds[LIMIT_WORKERS];
    struct control_hold *holds;
    uint32_t hold_count;
    uint32_t poisoned; /* messages parked since the start */
    struct fanout fanout;
    struct { /* an operator waits for the outcome */
        bool active;
        uint64_t api_incarnation, id;
    } reload_query;
    char reload_text[1024]; /* outcome of the last reload */
    bool reload_failed;
    int signal_fd, log_fd;
};

uint64_t clock_monotonic_ms(void);
/* Free-running number of a process; never reused within a boot. */
uint64_t master_next_incarnation(struct master *m);
/* The process that holds the shards of this slot, or NULL. */
struct proc *master_holder(const struct master *m, uint32_t slot);

#endif
