/*
 * idna - U-labels of a domain into A-labels (RFC 5890, UTS 46), for everything that asks DNS
 * (RFC 6531 3.7.1).
 */
#ifndef WORKER_IDNA_H
#define WORKER_IDNA_H

#include "base/span.h"
#include "proto/limits.h"

/* Writes the ASCII form and a NUL; -EINVAL: no name that DNS could know. ASCII is copied. */
NODISCARD int idna_to_ascii(struct span name, char out[LIMIT_DOMAIN_BYTES + 1]);
/* True when some octet is above 127. */
bool idna_is_needed(struct span name);

#endif
