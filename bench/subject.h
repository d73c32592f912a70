/*
 * subject - the MTA under test behind a few calls: our node, or Postfix.
 *
 * Owner:  the measurement. Everything a subject writes is below its directory.
 * Never:  touches an installed mail system: own configuration, own ports, own queue.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include "bench/child.h"

enum { SUBJECT_PATH_BYTES = 256, SUBJECT_SET_MAX = 32 };

enum subject_kind { SUBJECT_NODE, SUBJECT_POSTFIX };

struct subject {
    enum subject_kind kind;
    char dir[SUBJECT_PATH_BYTES]; /* absolute, there */
    struct endpoint listen;
    struct endpoint sink;
    uint32_t lanes;                    /* our node: 127.0.0.11 and up */
    uint64_t workers;                  /* our node: 0 = one a core */
    bool hold;                         /* delivery held */
    const char *config;                /* our node: a file instead of the generated one */
    const char *sets[SUBJECT_SET_MAX]; /* our node: --set KEY=VALUE */
    uint32_t set_count;
    struct child child;
};

const char *subject_name(enum subject_kind kind);
/* Writes configuration and directories. 0, or -errno after saying why. */
NODISCARD int subject_prepare(struct subject *s);
/* Starts it and waits until it greets with 220, at most ms. 0, or -errno after saying why. */
NODISCARD int subject_start(struct subject *s, uint64_t ms);
/* Stops it with SIGTERM, at last with SIGKILL. */
void subject_stop(struct subject *s);
/* Every process of it at once, as a power cut would have it. */
void subject_kill(struct subject *s);
/* Waits until the endpoint greets with 220; -ETIMEDOUT, or -ECHILD when the process has ended. */
NODISCARD int subject_wait_greeting(struct subject *s, uint64_t ms);

/* node.c */
NODISCARD int node_prepare(struct subject *s);
NODISCARD int node_exec(const struct subject *s);
/* A program of the build directory this one is in. 0, or -errno after saying why. */
NODISCARD int node_binary(const char *name, char out[SUBJECT_PATH_BYTES]);
/* Waits until the node's lanes hold as many recipients as expected: all of them run. -ETIMEDOUT. */
NODISCARD int node_wait_lanes(const struct subject *s, uint64_t expected, uint64_t ms);
/* What `mochila ledger` answers, at best when the queue is empty; NULL without an answer. */
json_t *node_ledger(const struct subject *s, bool until_empty);

/* postfix.c */
NODISCARD int postfix_prepare(struct subject *s);
NODISCARD int postfix_exec(const struct subject *s);

#endif
