/*
 * channel - one of a peer's two channels: its session, and the pair and tunnel under it.
 *
 * Invariant: pair and session's wire exist exactly while the tunnel carries.
 */
#ifndef LINK_CHANNEL_H
#define LINK_CHANNEL_H

#include "master/link/link.h"

void channel_init(struct channel *c, struct link *l, struct peer *p, enum link_channel which);
void channel_fini(struct channel *c);
/* Begins to connect when it is this side that dials, and the time has come. */
void channel_dial(struct channel *c);
/* Takes a tunnel whose peer is known in place of the one it has; it is the channel's from now on.
 */
void channel_adopt(struct channel *c, struct tunnel *t);
/* Moves bytes and frames, both ways; due beats and silence. */
void channel_run(struct channel *c);
/* Entries to poll; *timeout_ms is lowered to what is due. */
unsigned channel_polls(const struct channel *c, struct pollfd *out, int *timeout_ms);

#endif
