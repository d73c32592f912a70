/*
 * dns_cache - answers by (type, name) until they expire; the least recently used one goes when it
 * is full.
 *
 * Owner:  struct dns. Pure: the time comes from the caller.
 */
#ifndef WORKER_IO_DNS_CACHE_H
#define WORKER_IO_DNS_CACHE_H

#include "base/pool.h"
#include "base/table.h"
#include "worker/io/dns.h"

struct dns_cache {
    struct pool entries;
    struct table table;
    uint32_t newest, oldest; /* by use */
};

NODISCARD int dns_cache_init(struct dns_cache *c, uint32_t count_max);
void dns_cache_fini(struct dns_cache *c);
/* Fills *out, ttl_s being what is left; false when there is nothing fresh. `name` is normalised. */
bool dns_cache_get(struct dns_cache *c, enum dns_type type, const char *name, uint64_t now_ms,
                   struct dns_answer *out);
/* Keeps a copy for a->ttl_s seconds, in place of an older one. Without memory nothing is kept. */
void dns_cache_put(struct dns_cache *c, enum dns_type type, const char *name, uint64_t now_ms,
                   const struct dns_answer *a);
/* Forgets a name (all types), or everything when NULL. */
void dns_cache_flush(struct dns_cache *c, const char *name);
uint32_t dns_cache_count(const struct dns_cache *c);

/* The key of a question, for tables. */
uint32_t dns_key_hash(enum dns_type type, const char *name);

#endif
