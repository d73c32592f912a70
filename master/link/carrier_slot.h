/*
 * carrier_slot - the stream socket to one worker: what it sent, and what it has yet to take.
 *
 * Never:  knows peers or sessions.
 */
#ifndef LINK_CARRIER_SLOT_H
#define LINK_CARRIER_SLOT_H

#include "master/link/carrier.h"

#include <sys/uio.h>

enum { CARRIER_SLOT_PIECES = 2 * LINK_BULK_PARTS };

/* Takes the descriptor over, in place of the one it has. 0 or -ENOMEM (fd closed). */
NODISCARD int carrier_slot_open(struct carrier_slot *s, int fd, uint64_t now_ms);
void carrier_slot_close(struct carrier_slot *s);
/* Reads what fits. 0; -EPIPE: the worker is gone; -errno. */
NODISCARD int carrier_slot_read(struct carrier_slot *s);
/*
 * Whole frames for the worker, 1..CARRIER_SLOT_PIECES pieces (changed by the call); what its socket
 * does not take is copied. 0; -EPIPE; -errno: the socket is of no use any more.
 */
NODISCARD int carrier_slot_send(struct carrier_slot *s, struct iovec *pieces, unsigned count,
                                uint64_t now_ms);
/* Sends what waits; results as above. */
NODISCARD int carrier_slot_flush(struct carrier_slot *s, uint64_t now_ms);
/* Forgets what waits, but for the rest of the frame that is half sent. */
void carrier_slot_discard(struct carrier_slot *s);

#endif
