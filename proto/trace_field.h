/*
 * trace_field - our own Received field (RFC 5321 4.4, 3848, 6531 4.3).
 */
#ifndef PROTO_TRACE_FIELD_H
#define PROTO_TRACE_FIELD_H

#include "base/id.h"
#include "base/net.h"
#include "base/text.h"

struct trace_facts {
    struct span helo;        /* as given by the client, unchecked text */
    struct ip client;
    struct span rdns;        /* empty = unknown */
    struct span by;          /* our host name */
    const char *with;        /* from trace_with() */
    struct msg_id id;
    struct span
        only_rcpt; /* the address when the transaction has exactly one recipient, else empty */
    uint64_t time_unix_s;
};

/* SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA and their UTF8SMTP forms (TRC-04). */
const char *trace_with(bool esmtp, bool tls, bool auth, bool utf8);
/*
 * Appends "Received: ...CRLF", folded at 78 where possible, never a line over 998. Text of the
 * client is sanitised: it cannot break out of the field. Output is at most LIMIT_TRACE_BYTES.
 */
void trace_field_put(struct text *t, const struct trace_facts *f);
/* RFC 5322 date-time in UTC: "Sat, 21 Nov 2026 16:56:24 +0000". */
void date_put(struct text *t, uint64_t unix_s);

#endif
