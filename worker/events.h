/*
 * events - one JSON line per fact of a message's life: accepted, attempt, delivered, deferred,
 * failed, ...
 *
 * Lines are collected and written with one write a turn. A descriptor that does not take them (full
 * disk) costs lines, which are counted, never mail.
 */
#ifndef WORKER_EVENTS_H
#define WORKER_EVENTS_H

#include "base/id.h"
#include "base/net.h"
#include "base/text.h"

struct events;

/* Facts of one line; empty spans and NULL are left out. */
struct event {
    const char *what;
    struct msg_id id;
    struct span rcpt, sender, tenant, lane, mx, reply, helo;
    const struct ip *client, *local, *remote;
    const char *reason, *stage, *status;
    int index;              /* recipient index, -1 = none */
    unsigned attempt;       /* 0 = none */
    uint64_t bytes;         /* 0 = none */
    uint64_t delay_ms;      /* since acceptance; 0 = none */
    uint64_t due_s;         /* next attempt, unix; 0 = none */
    unsigned count;         /* recipients, 0 = none */
};

/* fd may be -1: nothing is written. */
NODISCARD int events_create(struct events **out, int fd);
void events_destroy(struct events **e);
void events_put(struct events *e, uint64_t now_unix_ms, const struct event *v);
/* Writes what is collected; called once a turn. `force`: also a small amount. */
void events_flush(struct events *e, bool force);
uint64_t events_dropped(const struct events *e);

#endif
