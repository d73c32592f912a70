/* Entries live in a pool, are found by a table and chained by use; the records are packed behind
 * the name. */
#include "worker/io/dns_cache.h"

#include <stdlib.h>
#include <string.h>

/* The largest packing: 30 MX of 3 + 255 bytes, 20 addresses, a name and a PTR. */
enum { PACKED_BYTES_MAX = LIMIT_MX_HOSTS * 258 + 2 * LIMIT_ADDRESSES_TRIED * 16 + 2 * 256 };

struct entry {
    uint64_t expires_ms;
    uint8_t *packed; /* name, MX, addresses, PTR */
    const char *error;
    uint32_t hash;
    uint32_t newer, older;
    uint32_t packed_bytes;
    uint16_t mx_count;
    uint16_t address_count;
    uint8_t type;
    uint8_t status;
    bool secure;
};

struct key {
    enum dns_type type;
    const char *name;
};

uint32_t dns_key_hash(enum dns_type type, const char *name)
{
    return hash_bytes(span_str(name)) + 0x9e3779b9u * (uint32_t)type;
}

static struct entry *entry_at(const struct dns_cache *c, uint32_t index)
{
    return pool_at(&c->entries, index);
}

static struct span name_of(const struct entry *e)
{
    struct cursor in = cursor_of(span_of(e->packed, e->packed_bytes));
    return cursor_str8(&in);
}

static bool eq(const void *ctx, uint32_t value, const void *key)
{
    const struct entry *e = entry_at(ctx, value);
    const struct key *k = key;
    return e->type == (uint8_t)k->type && span_eq(name_of(e), span_str(k->name));
}

int dns_cache_init(struct dns_cache *c, uint32_t count_max)
{
    memset(c, 0, sizeof *c);
    return pool_init(&c->entries, "dns cache", sizeof(struct entry), count_max);
}

static void leave_chain(struct dns_cache *c, const struct entry *e)
{
    if (e->newer != 0)
        entry_at(c, e->newer)->older = e->older;
    else
        c->newest = e->older;
    if (e->older != 0)
        entry_at(c, e->older)->newer = e->newer;
    else
        c->oldest = e->newer;
}

static void become_newest(struct dns_cache *c, struct entry *e)
{
    uint32_t index = pool_index(&c->entries, e);
    e->newer = 0;
    e->older = c->newest;
    if (c->newest != 0)
        entry_at(c, c->newest)->newer = index;
    else
        c->oldest = index;
    c->newest = index;
}

static void drop(struct dns_cache *c, uint32_t index)
{
    struct entry *e = entry_at(c, index);
    MUST(table_remove(&c->table, e->hash, index));
    leave_chain(c, e);
    free(e->packed);
    pool_put(&c->entries, e);
}

void dns_cache_fini(struct dns_cache *c)
{
    dns_cache_flush(c, NULL);
    table_fini(&c->table);
    pool_fini(&c->entries);
}

static uint32_t find(const struct dns_cache *c, enum dns_type type, const char *name)
{
    struct key k = {type, name};
    return table_find(&c->table, dns_key_hash(type, name), eq, c, &k);
}

static void copy_text(char *out, struct span s)
{
    MUST(s.n <= LIMIT_DOMAIN_BYTES);
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

static void unpack(const struct entry *e, struct dns_answer *out)
{
    struct cursor in = cursor_of(span_of(e->packed, e->packed_bytes));
    (void)cursor_str8(&in);
    out->mx_count = e->mx_count;
    for (size_t i = 0; i < e->mx_count; i++) {
        out->mx[i].preference = cursor_u16(&in);
        copy_text(out->mx[i].name, cursor_str8(&in));
    }
    out->address_count = e->address_count;
    struct span addresses = cursor_bytes(&in, e->address_count * sizeof(struct ip));
    if (addresses.n > 0)
        memcpy(out->addresses, addresses.p, addresses.n);
    copy_text(out->ptr, cursor_str8(&in));
    MUST(!in.bad && cursor_left(&in) == 0);
}

bool dns_cache_get(struct dns_cache *c, enum dns_type type, const char *name, uint64_t now_ms,
                   struct dns_answer *out)
{
    uint32_t index = find(c, type, name);
    if (index == 0)
        return false;
    struct entry *e = entry_at(c, index);
    if (e->expires_ms <= now_ms) {
        drop(c, index);
        return false;
    }
    leave_chain(c, e);
    become_newest(c, e);
    out->status = (enum dns_status)e->status;
    out->secure = e->secure;
    out->error = e->error;
    out->ttl_s = (uint32_t)((e->expires_ms - now_ms) / 1000);
    unpack(e, out);
    return true;
}

static size_t pack(const char *name, const struct dns_answer *a, uint8_t out[PACKED_BYTES_MAX])
{
    struct writer w = writer_of(out, PACKED_BYTES_MAX);
    put_str8(&w, span_str(name));
    for (size_t i = 0; i < a->mx_count; i++) {
        put_u16(&w, a->mx[i].preference);
        put_str8(&w, span_str(a->mx[i].name));
    }
    put_bytes(&w, span_of(a->addresses, a->address_count * sizeof a->addresses[0]));
    put_str8(&w, span_str(a->ptr));
    MUST(!w.bad);
    return w.n;
}

void dns_cache_put(struct dns_cache *c, enum dns_type type, const char *name, uint64_t now_ms,
                   const struct dns_answer *a)
{
    uint8_t packed[PACKED_BYTES_MAX];
    uint32_t old = find(c, type, name);
    if (old != 0)
        drop(c, old);
    if (c->entries.used == c->entries.count_max)
        drop(c, c->oldest);
    size_t n = pack(name, a, packed);
    struct entry *e = pool_get(&c->entries);
    MUST(e != NULL);
    e->packed = malloc(n);
    e->hash = dns_key_hash(type, name);
    if (e->packed == NULL || table_add(&c->table, e->hash, pool_index(&c->entries, e)) < 0) {
        free(e->packed);
        pool_put(&c->entries, e);
        return;
    }
    memcpy(e->packed, packed, n);
    e->packed_bytes = (uint32_t)n;
    e->type = (uint8_t)type;
    e->status = (uint8_t)a->status;
    e->secure = a->secure;
    e->error = a->error;
    e->mx_count = a->mx_count;
    e->address_count = a->address_count;
    e->expires_ms = now_ms + (uint64_t)a->ttl_s * 1000;
    become_newest(c, e);
}

void dns_cache_flush(struct dns_cache *c, const char *name)
{
    if (name == NULL) {
        while (c->newest != 0)
            drop(c, c->newest);
        return;
    }
    static const enum dns_type types[] = {DNS_MX, DNS_ADDRESS, DNS_PTR};
    for (size_t i = 0; i < ARRAY_COUNT(types); i++) {
        uint32_t index = find(c, types[i], name);
        if (index != 0)
            drop(c, index);
    }
}

uint32_t dns_cache_count(const struct dns_cache *c)
{
    return c->entries.used;
}
