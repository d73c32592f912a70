/*
 * table - hash table from caller-owned keys to 32-bit values; 8 bytes a slot.
 *
 * The table stores (hash, value) only: equality is asked of the caller, who looks at the object
 * that the value names. Value 0 means "no value" and cannot be stored. Grows by doubling at 7/8
 * load.
 */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include "base/span.h"

struct table_slot {
    uint32_t hash;
    uint32_t value;
};
struct table {
    struct table_slot *slots;
    uint32_t mask;      /* slot count - 1, or 0 when empty */
    uint32_t used;
};

/* True when the object named by `value` has the key that `key` points to. `ctx` is the caller's. */
typedef bool table_eq(const void *ctx, uint32_t value, const void *key);

void table_fini(struct table *t);
/* The value stored for key, or 0. */
uint32_t table_find(const struct table *t, uint32_t hash, table_eq *eq, const void *ctx,
                    const void *key);
/* Adds a value; the key must not be in the table. 0 or -ENOMEM (table unchanged). */
NODISCARD int table_add(struct table *t, uint32_t hash, uint32_t value);
/* Removes exactly this (hash, value); false when it was not there. */
bool table_remove(struct table *t, uint32_t hash, uint32_t value);

/* Walks all values: *at begins at 0; returns 0 at the end. The table must not change meanwhile. */
static inline uint32_t table_next(const struct table *t, uint32_t *at)
{
    while (t->slots != NULL && *at <= t->mask) {
        uint32_t value = t->slots[*at].value;
        ++*at;
        if (value != 0)
            return value;
    }
    return 0;
}

/* 32-bit hashes for keys: well mixed, not cryptographic, seeded once per process at random. */
uint32_t hash_bytes(struct span s);
uint32_t hash_bytes_ifold(struct span s); /* ASCII case-folded */
uint32_t hash_u64(uint64_t a);

#endif
