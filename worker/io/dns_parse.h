/*
 * dns_parse - DNS packets: builds questions, reads answers. Pure: bytes in, struct out; no socket,
 * no clock, no memory.
 *
 * Follows CNAME chains inside the answer (the resolver has done the asking). Everything is bounded:
 * names to 255 bytes, compression pointers must point back, chains to 8 links, records to 512. RFC
 * 1035, 2181 (TTL), 2308 (negative answers), 3596, 6891.
 */
#ifndef WORKER_IO_DNS_PARSE_H
#define WORKER_IO_DNS_PARSE_H

#include "base/span.h"
#include "worker/io/dns.h"

enum {
    DNS_QUESTION_BYTES_MAX = 12 + 255 + 4 + 11,
    DNS_UDP_BYTES = 1232, /* told to the resolver: no fragments */
    DNS_CHAIN_MAX = 8,
    DNS_RECORDS_MAX = 512, /* of one answer that are looked at */
};
enum dns_rr {
    DNS_RR_A = 1,
    DNS_RR_CNAME = 5,
    DNS_RR_SOA = 6,
    DNS_RR_PTR = 12,
    DNS_RR_MX = 15,
    DNS_RR_AAAA = 28
};

/*
 * Checks and lower-cases a name: labels of letters, digits, '-' and '_', 1..63 bytes, together at
 * most 253; no trailing dot. -EINVAL otherwise.
 */
NODISCARD int dns_name_normalise(const char *name, char out[LIMIT_DOMAIN_BYTES + 1]);
/* The name under in-addr.arpa or ip6.arpa. */
void dns_name_reverse(const struct ip *ip, char out[LIMIT_DOMAIN_BYTES + 1]);

/* A question with RD and AD set and EDNS0; `name` is normalised. Returns its bytes. */
size_t dns_build_question(uint16_t id, const char *name, enum dns_rr type,
                          uint8_t out[DNS_QUESTION_BYTES_MAX]);

/*
 * Reads the answer to (name, type) into *out, of which only the parts that the counts cover are
 * written. `secure` is the AD bit as it came; ttl_s is that of the records used, or the negative
 * one (0 when there is no SOA). Returns 0, also for NXDOMAIN and SERVFAIL; -EBADMSG when the packet
 * is malformed or answers something else, and then status is DNS_TEMP.
 */
NODISCARD int dns_parse(struct span packet, const char *name, enum dns_rr type,
                        struct dns_answer *out);

#endif
