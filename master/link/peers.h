/*
 * peers - the channels to all peers: who dials, who listens, and what becomes of lost connections.
 *
 * Of two nodes the one whose name sorts first listens, the other one dials. The control
 * channel dials or takes connections only when the master has opened its streams.
 */
#ifndef LINK_PEERS_H
#define LINK_PEERS_H

#include "master/link/link.h"

enum { PEERS_POLLS = 2 + LINK_STRANGERS + LIMIT_PEERS * LINK_CHANNEL_COUNT * (TUNNEL_POLLS + 2) };

/* Makes the peers of the configuration, and listens. */
void peers_start(struct link *l);
void peers_fini(struct link *l);
/* NULL when there is no such peer. */
struct channel *peers_channel(struct link *l, const char *peer, unsigned channel);

/* Entries to poll for, at most PEERS_POLLS; *timeout_ms is lowered to what is due. */
unsigned peers_polls(struct link *l, struct pollfd *out, int *timeout_ms);
/* After poll: takes what came, sends what may be sent, ends what is due. */
void peers_run(struct link *l, const struct pollfd *polled);

#endif
