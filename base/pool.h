/*
 * pool - fixed-size objects out of one reserved range of addresses.
 *
 * The whole range is reserved at init and touched only as it is used, so an unused pool costs
 * nothing and an object is named by a 32-bit index as well as by its pointer. An empty pool is a
 * normal answer (NULL), not an error path. Index 0 is never handed out: it means "none".
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/check.h"

struct pool {
    uint8_t *base;
    size_t object_bytes;    /* rounded up to 8 */
    uint32_t count_max;     /* highest index */
    uint32_t touched;       /* indices 1..touched have been used at least once */
    uint32_t free_head;     /* 0 = none */
    uint32_t used;
    const char *name;
};

/* Reserves room for count_max objects (1..2^31). 0 or -ENOMEM. */
NODISCARD int pool_init(struct pool *p, const char *name, size_t object_bytes, uint32_t count_max);
void pool_fini(struct pool *p);
/* A zeroed object, or NULL when all count_max are in use. */
void *pool_get(struct pool *p);
/* Gives back an object of this pool; it must not be NULL. */
void pool_put(struct pool *p, void *object);

static inline void *pool_at(const struct pool *p, uint32_t index)
{
    return p->base + (size_t)index * p->object_bytes;
}
static inline uint32_t pool_index(const struct pool *p, const void *object)
{
    return (uint32_t)((size_t)((const uint8_t *)object - p->base) / p->object_bytes);
}

#endif
