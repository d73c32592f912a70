/*
 * table - open addressing with linear probing; see table.h.
 *
 * Invariant: between a slot's home (hash & mask) and the slot itself no slot is empty. Removal
 * keeps it by shifting back what follows, so there are no tombstones and no slow ageing.
 */
#include "base/table.h"

#include "base/rng.h"

#include <errno.h>
#include <stdlib.h>

enum { TABLE_SLOTS_MIN = 16 };

void table_fini(struct table *t)
{
    free(t->slots);
    *t = (struct table){0};
}

uint32_t table_find(const struct table *t, uint32_t hash, table_eq *eq, const void *ctx,
                    const void *key)
{
    if (t->used == 0)
        return 0;
    for (uint32_t i = hash & t->mask; t->slots[i].value != 0; i = (i + 1) & t->mask) {
        if (t->slots[i].hash == hash && eq(ctx, t->slots[i].value, key))
            return t->slots[i].value;
    }
    return 0;
}

/* Into the first empty slot from its home on; there is one, since load stays below 7/8. */
static void place(struct table_slot *slots, uint32_t mask, struct table_slot s)
{
    uint32_t i = s.hash & mask;
    while (slots[i].value != 0)
        i = (i + 1) & mask;
    slots[i] = s;
}

static int grow(struct table *t)
{
    uint64_t count = t->slots == NULL ? TABLE_SLOTS_MIN : ((uint64_t)t->mask + 1) * 2;
    if (count > UINT64_C(1) << 32)
        return -ENOMEM;
    struct table_slot *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    uint32_t mask = (uint32_t)(count - 1);
    for (uint64_t i = 0; t->slots != NULL && i <= t->mask; i++) {
        if (t->slots[i].value != 0)
            place(slots, mask, t->slots[i]);
    }
    free(t->slots);
    t->slots = slots;
    t->mask = mask;
    return 0;
}

int table_add(struct table *t, uint32_t hash, uint32_t value)
{
    MUST(value != 0);
    uint64_t count = t->slots == NULL ? 0 : (uint64_t)t->mask + 1;
    if (((uint64_t)t->used + 1) * 8 > count * 7) {
        int rc = grow(t);
        if (rc < 0)
            return rc;
    }
    MUST(t->slots != NULL);
    place(t->slots, t->mask, (struct table_slot){hash, value});
    t->used++;
    return 0;
}

bool table_remove(struct table *t, uint32_t hash, uint32_t value)
{
    MUST(value != 0);
    if (t->used == 0)
        return false;
    uint32_t hole = hash & t->mask;
    while (t->slots[hole].value != value || t->slots[hole].hash != hash) {
        if (t->slots[hole].value == 0)
            return false;
        hole = (hole + 1) & t->mask;
    }
    for (uint32_t i = (hole + 1) & t->mask; t->slots[i].value != 0; i = (i + 1) & t->mask) {
        /* A slot may fill the hole when its way from home to here passes over the hole. */
        uint32_t from_home = (i - t->slots[i].hash) & t->mask;
        uint32_t from_hole = (i - hole) & t->mask;
        if (from_home >= from_hole) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole] = (struct table_slot){0, 0};
    MUST(t->used > 0);
    t->used--;
    return true;
}

/*
 * Hashing: a 64x64 -> 128 bit multiply, folded, for each eight bytes. The seed is secret per
 * process, so that a client cannot choose addresses that all fall into one slot.
 */
__extension__ typedef unsigned __int128 wide;

static uint64_t seed_a, seed_b;

__attribute__((constructor)) static void seed_hashes(void)
{
    seed_a = rng_entropy() | 1;
    seed_b = rng_entropy() | 1;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* 'A'..'Z' of all eight bytes to lower case; 8-bit bytes are left alone. */
static uint64_t fold_word(uint64_t w)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t low7 = w & (0x7f * ones);
    uint64_t at_least_a = low7 + (0x80 - 'A') * ones;
    uint64_t beyond_z = low7 + (0x7f - 'Z') * ones;
    uint64_t upper = (at_least_a ^ beyond_z) & ~w & (0x80 * ones);
    return w | upper >> 2;
}

static uint32_t hash_words(struct span s, bool folded)
{
    uint64_t h = seed_a ^ s.n;
    while (s.n > 0) {
        uint64_t w = 0;
        size_t n = s.n < sizeof w ? s.n : sizeof w;
        memcpy(&w, s.p, n);
        h = mix((folded ? fold_word(w) : w) ^ seed_b, h ^ UINT64_C(0x9e3779b97f4a7c15));
        s.p += n;
        s.n -= n;
    }
    h = mix(h ^ seed_b, seed_a ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint32_t)(h ^ h >> 32);
}

uint32_t hash_bytes(struct span s)
{
    return hash_words(s, false);
}
uint32_t hash_bytes_ifold(struct span s)
{
    return hash_words(s, true);
}
uint32_t hash_u64(uint64_t a)
{
    uint64_t h = mix(a ^ seed_a, seed_b ^ UINT64_C(0x9e3779b97f4a7c15));
    h = mix(h ^ seed_b, seed_a ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint32_t)(h ^ h >> 32);
}
