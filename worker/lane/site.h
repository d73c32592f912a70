/*
 * site - from a recipient's domain to the site that is throttled: static routes, or the MX set (RFC
 * 5321 5.1).
 */
#ifndef WORKER_SITE_H
#define WORKER_SITE_H

#include "worker/lane/fates.h"

enum resolve_result {
    RESOLVE_KNOWN, /* domain_at(...)->site is fresh */
    RESOLVE_WAIT,  /* a lookup is under way: put the entry into d->resolving */
    RESOLVE_FAILED /* *no says why, and whether for good */
};
struct resolve_failure {
    enum verdict verdict;
    struct fate_facts facts;
    char text[160];
};
/* Finds the site of a domain, from the table, a route, or by asking. */
enum resolve_result site_resolve(struct queue *q, struct domain *d, struct resolve_failure *no);
/* The site of a set of hosts, made when new; 0 when the pool is exhausted. Hosts are sorted by
 * preference. */
uint32_t site_intern(struct queue *q, struct site_host *hosts, uint16_t count,
                     const struct config_route *route);
/* May this address be contacted (DNS-06)? Static routes may go anywhere. */
bool site_address_ok(const struct queue *q, const struct site *s, const struct ip *a);
/* Is mail to this domain held by name? For domains that have just become known. */
bool hold_applies_to_domain(const struct queue *q, const struct domain *d);
/* Is this one message held? */
bool hold_applies_to_message(const struct queue *q, struct msg_id id);
/* Is a site with this key or provider held? For sites that have just become known. */
bool hold_applies_to_site(const struct queue *q, const struct site *s);

#endif
