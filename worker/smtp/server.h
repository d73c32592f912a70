/*
 * smtp_server - the inbound side: listeners, limits per client, and the dialogs (RFC 5321, 1870,
 * 2034, 2920, 3030, 6152, 6531).
 *
 * Owner:  the worker. A dialog is one slot of a pool; it is reused when its connection has said its
 * last word.
 * Input:  connections from the listeners, bytes, time, drain.
 * Never:  blocks; knows the spool's layout; answers 250 to a message before the intake said that it
 *         is durable.
 */
#ifndef WORKER_SMTP_SERVER_H
#define WORKER_SMTP_SERVER_H

#include "worker/intake.h"
#include "worker/io/conn.h"

struct smtp_servers;

struct smtp_servers_settings {
    const struct config *config;
    struct io *io;
    struct wheel *wheel;
    struct queue *queue;
    struct intake *intake;
    struct dns *dns; /* NULL: no checks that need lookups */
    struct events *events;
    struct stats_page *stats;
    struct rng *rng;
};

NODISCARD int smtp_servers_create(struct smtp_servers **out, const struct smtp_servers_settings *s);
void smtp_servers_destroy(struct smtp_servers **s);
/* Accepts on fd for the configuration's listener `index`. */
NODISCARD int smtp_servers_listen(struct smtp_servers *s, uint32_t index, int fd);
/* No new connections; idle dialogs get 421 4.3.2; those with a transaction finish it. */
void smtp_servers_drain(struct smtp_servers *s);
/* Dialogs that exist. */
uint32_t smtp_servers_open(const struct smtp_servers *s);
/* Of these, those that receive a body now. */
uint32_t smtp_servers_in_data(const struct smtp_servers *s);

#endif
