/*
 * listeners - the sockets on which workers accept: one for each (address and port, worker),
 * SO_REUSEPORT.
 *
 * The master binds them with its privileges and keeps them open, so that connections in a backlog
 * survive the restart of a worker. A socket with nobody behind it swallows its share of the
 * connections: a worker that stays away for long has its sockets closed, and bound again when it
 * comes back.
 * Never:  accepts.
 */
#ifndef MASTER_LISTENERS_H
#define MASTER_LISTENERS_H

#include "config/config.h"

enum { LISTENERS_BACKLOG = 4096, LISTENERS_AWAY_MS = 2000 };

struct listeners_entry {
    struct ip address;
    uint16_t port;
    int fds[LIMIT_WORKERS]; /* -1: closed */
};
struct listeners {
    struct listeners_entry entries[2 * LIMIT_LISTENERS]; /* old and new ones during a reload */
    uint32_t count;
    uint32_t workers;
    int32_t
        cores[LIMIT_WORKERS]; /* steer connections that this core took to this worker; -1: none */
};

void listeners_init(struct listeners *l, uint32_t workers);
/* Binds what the configuration has and is not bound yet. On failure nothing new stays, and errors
 * has a line. */
NODISCARD int listeners_open(struct listeners *l, const struct config *c, struct text *errors);
/* Closes what the configuration does not have. */
void listeners_keep(struct listeners *l, const struct config *c);
void listeners_close_worker(struct listeners *l, uint32_t worker);
/* Binds again what was closed; what fails is logged and tried again the next time. */
void listeners_reopen_worker(struct listeners *l, uint32_t worker);
/* The worker's socket for this listener of a configuration, or -1. */
int listeners_fd(const struct listeners *l, const struct config_listener *c, uint32_t worker);
void listeners_fini(struct listeners *l);

#endif
