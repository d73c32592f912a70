/*
 * dns - asynchronous lookups for delivery and for the SMTP server: c-ares on ring watches, a TTL
 * cache in front.
 *
 * Owner:  the worker. A query is embedded in what asks; its answer comes from io_turn or
 * wheel_advance, never from inside dns_ask, except from the cache when `dns_ask` returns 1.
 * on_answer may ask, forget and flush.
 * Cache:  by TTL (30 s .. 1 day), negative answers by SOA minimum (5 s .. 1 h), failures 5 s. Equal
 *         questions share one lookup.
 * AD:     `secure` is set only when the resolver is on loopback and set the AD bit.
 */
#ifndef WORKER_IO_DNS_H
#define WORKER_IO_DNS_H

#include "base/net.h"
#include "proto/limits.h"
#include "worker/io/io.h"
#include "worker/io/wheel.h"

enum dns_status {
    DNS_OK,
    DNS_NODATA, /* the name exists, no record of this type */
    DNS_NXDOMAIN,
    DNS_TEMP /* SERVFAIL, timeout, refused, malformed */
};
enum dns_type { DNS_MX, DNS_ADDRESS /* A and AAAA, in resolver order */, DNS_PTR };

struct dns_mx {
    uint16_t preference;
    char name[LIMIT_DOMAIN_BYTES + 1]; /* lower case, no trailing dot; "" is the null MX */
};
struct dns_answer {
    enum dns_status status;
    bool secure;
    uint32_t ttl_s;
    uint16_t mx_count;
    uint16_t address_count;
    struct dns_mx mx[LIMIT_MX_HOSTS]; /* DNS_MX: sorted by preference; equal ones in answer order */
    struct ip addresses[2 * LIMIT_ADDRESSES_TRIED];
    char ptr[LIMIT_DOMAIN_BYTES + 1];
    const char *error; /* short text for diagnostics, e.g. "SERVFAIL", "timeout" */
};
struct dns_query {
    void (*on_answer)(struct dns_query *q,
                      const struct dns_answer *a); /* the answer is valid during the call */
    struct dns_query *next, **link;                /* private */
};
struct dns_settings {
    const char *servers; /* "127.0.0.1:53,..." or NULL: /etc/resolv.conf */
    uint32_t query_ms;   /* per try, 100..30000 */
    uint32_t total_ms;   /* per lookup */
    uint32_t cache_count_max;
    uint32_t ttl_min_s, ttl_max_s;
};
struct dns;
NODISCARD int dns_create(struct dns **out, struct io *io, struct wheel *wheel,
                         const struct dns_settings *s);
void dns_destroy(struct dns **d);
/*
 * Asks; name in ASCII (A-labels), no trailing dot. 0: on_answer will come from io_turn. 1: answered
 * from the cache, *answer points to it until the next call, on_answer does not come. -errno: not
 * asked (-EINVAL: no legal name).
 */
NODISCARD int dns_ask(struct dns *d, struct dns_query *q, enum dns_type type, const char *name,
                      const struct dns_answer **answer);
/* For DNS_PTR. */
NODISCARD int dns_ask_ptr(struct dns *d, struct dns_query *q, const struct ip *ip,
                          const struct dns_answer **answer);
/* After this on_answer does not come for q. Harmless on a zeroed or answered query. */
void dns_forget(struct dns_query *q);
/* Drops cached answers for a name (all types), or everything when NULL. */
void dns_flush(struct dns *d, const char *name);

#endif
