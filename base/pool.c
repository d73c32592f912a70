/*
 * pool - see pool.h.
 *
 * Invariants: indices 1..touched were handed out at least once; the free ones among them are
 * chained through their first four bytes, 0 ends the chain; used counts the rest.
 */
#include "base/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Under ASan a free object is poisoned, so that use after pool_put is reported like use after free.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_POISONS 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define POOL_POISONS 1
#endif
#ifdef POOL_POISONS
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   ((void)(p))
#define UNPOISON(p, n) ((void)(p))
#endif

static size_t range_bytes(const struct pool *p)
{
    return ((size_t)p->count_max + 1) * p->object_bytes;
}

int pool_init(struct pool *p, const char *name, size_t object_bytes, uint32_t count_max)
{
    MUST(object_bytes > 0);
    MUST(object_bytes <= SIZE_MAX >> 33);
    MUST(count_max >= 1);
    MUST(count_max <= UINT32_C(1) << 31);
    *p = (struct pool){
        .object_bytes = (object_bytes + 7) & ~(size_t)7, .count_max = count_max, .name = name};
    void *base = mmap(NULL, range_bytes(p), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        *p = (struct pool){.name = name};
        return -ENOMEM;
    }
    p->base = base;
    return 0;
}

void pool_fini(struct pool *p)
{
    if (p->base == NULL)
        return;
    /* Not the whole range: its shadow would be touched, and be larger than the memory. */
    UNPOISON(p->base, ((size_t)p->touched + 1) * p->object_bytes);
    MUST(munmap(p->base, range_bytes(p)) == 0);
    *p = (struct pool){.name = p->name};
}

void *pool_get(struct pool *p)
{
    MUST(p->used <= p->touched);
    if (p->free_head != 0) {
        void *object = pool_at(p, p->free_head);
        UNPOISON(object, p->object_bytes);
        memcpy(&p->free_head, object, sizeof p->free_head);
        MUST(p->free_head <= p->touched);
        memset(object, 0, p->object_bytes);
        p->used++;
        return object;
    }
    if (p->touched == p->count_max)
        return NULL;
    /* Never touched before: the kernel's pages are zero already. */
    p->used++;
    return pool_at(p, ++p->touched);
}

void pool_put(struct pool *p, void *object)
{
    MUST(object != NULL);
    MUST((uint8_t *)object > p->base);
    MUST((size_t)((uint8_t *)object - p->base) % p->object_bytes == 0);
    MUST((size_t)((uint8_t *)object - p->base) / p->object_bytes <= p->touched);
    MUST(p->used > 0);
    memcpy(object, &p->free_head, sizeof p->free_head);
    p->free_head = pool_index(p, object);
    MUST(p->free_head != 0);
    p->used--;
    POISON(object, p->object_bytes);
}
