/*
 * control_link - the link process's end of descriptor 3: the contract with the master.
 *
 * The master starts mochila-link like mochila-api: descriptor 3 control (SOCK_SEQPACKET), 4 log.
 * It sends one START: one descriptor (the configuration), boot and incarnation (never reused within
 * a boot), and config_name; slot 0 of 1 worker. The answer is READY. A new configuration is a new
 * process: end this one (SIGTERM, DRAIN, or by closing descriptor 3), then start another. Only one
 * process at a time works in RUN/link. DRAIN is answered by DRAINED, and the process ends.
 *
 * CARRIER brings one descriptor, a stream socket to the worker of that slot (carrier.h); what is
 * said there goes over the bulk channel, with which the master has nothing to do.
 *
 * All else is LINK frames, by peer; channel is 0. From the master:
 *   OPEN      stream (a number that names what this node sends on this channel; a new random one
 *             when earlier frames cannot be had again), seq (the next that will be sent: the last
 *             one acknowledged + 1, 1 at first), peer_stream with received (the last RECEIVED) and
 *             durable (the last ACKed): all three 0 when nothing is known. Before it the channel
 *             rests. A second OPEN cuts the connection and begins as told.
 *   SEND      seq, payload (at most LIMIT_LINK_PAYLOAD_BYTES). Kept here until acknowledged, at
 *             most LIMIT_LINK_CREDIT_BYTES of a channel; the master keeps its own copy, or can make
 *             it again from its log, until ACKED.
 *   ACK       stream (the peer's), seq: everything up to it is durable here. To be sent only then.
 * To the master:
 *   UP        peer_stream, incarnation, version. Where peer_stream is not the one known before, the
 *             peer begins anew with 1: received and durable are 0.
 *   DOWN      why. Frames are kept; nothing needs to be done.
 *   RECEIVED  peer_stream, seq, payload: the next one, each once for as long as OPEN told the
 *             truth.
 *   ACKED     seq: durable at the peer up to here.
 *   WANT      seq, why: the next SEND must be this one; others that are on their way were dropped.
 *             "full": try again after an ACKED. If it cannot be had any more: OPEN a new stream.
 *
 * Never:  survives a malformed frame or the master's end.
 */
#ifndef LINK_CONTROL_LINK_H
#define LINK_CONTROL_LINK_H

#include "master/link/link.h"

/* Reads frames until there are none. 0; 1 when it is time to end; -errno: cannot go on. */
NODISCARD int control_link_read(struct link *l);
/* Sends what waits. 0, 1 when the master is gone, or -errno. */
NODISCARD int control_link_flush(struct link *l);
void control_link_fini(struct link *l);

void control_link_up(struct channel *c);
void control_link_down(struct channel *c, const char *why);
/* 0, or -ENOBUFS: the master takes nothing for so long that there is no more room. */
NODISCARD int control_link_deliver(struct channel *c, uint64_t seq, struct span payload);
void control_link_acked(struct channel *c, uint64_t seq);
void control_link_want(struct channel *c, uint64_t seq, const char *why);

#endif
