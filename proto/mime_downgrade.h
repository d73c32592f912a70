/*
 * mime_downgrade - an 8-bit message for a host that takes 7 bits only (RFC 6152 3, RFC 2045 6).
 *
 * Input:  a whole message in wire form: CRLF lines, dots doubled, no final dot.
 * Output: the same, every octet below 128: text parts with 8-bit octets become quoted-printable,
 * others base64, and their Content-Transfer-Encoding follows. Parts without such octets stay as
 * they are, byte for byte.
 * Never:  touches what may not be encoded: signed or encrypted parts, messages within the message,
 *         headers.
 */
#ifndef PROTO_MIME_DOWNGRADE_H
#define PROTO_MIME_DOWNGRADE_H

#include "base/span.h"

enum { MIME_DEPTH_MAX = 16, MIME_PARTS_MAX = 1000 };

/* Room that is enough for any message of n octets. */
size_t mime_downgrade_room(size_t n);
/*
 * Writes the message to `out`, which must be empty. 0: done, and *dots says how many lines begin
 * with a doubled dot. -ENOTSUP: it holds 8-bit octets where they may not be encoded, or is no MIME
 * that can be understood; what was written is useless then. -ENOSPC: less room than
 * mime_downgrade_room.
 */
NODISCARD int mime_downgrade(struct span message, struct writer *out, uint64_t *dots);

#endif
