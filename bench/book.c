/* One growing bitmap for each (run, recipient index); runs are few, so they are searched in line.
 */
#include "bench/book.h"

#include "base/table.h"

#include <errno.h>
#include <stdlib.h>

enum { NUMBERED_MAX = 128, NUMBERED_DIGITS_MAX = 3, WORDS_MIN = 1024 };

struct bitmap {
    uint64_t *words;
    uint64_t word_count;
};
struct run {
    uint32_t id;
    struct bitmap maps[BOOK_RECIPIENT_MAX];
};
struct book {
    struct run *runs[BOOK_RUN_MAX];
    uint32_t run_count;
    uint32_t last; /* the run found last */
    uint64_t unique;
    struct table names;
    struct span addresses[BOOK_RECIPIENT_MAX]; /* from NUMBERED_MAX on; owned */
    uint32_t address_count;
};

struct book *book_create(void)
{
    struct book *b = calloc(1, sizeof *b);

    if (b != NULL)
        b->address_count = NUMBERED_MAX;
    return b;
}

static void run_free(struct run *r)
{
    for (uint32_t i = 0; i < BOOK_RECIPIENT_MAX; i++)
        free(r->maps[i].words);
    free(r);
}

void book_destroy(struct book **b)
{
    if (*b == NULL)
        return;
    for (uint32_t i = 0; i < (*b)->run_count; i++)
        run_free((*b)->runs[i]);
    for (uint32_t i = NUMBERED_MAX; i < (*b)->address_count; i++)
        free((void *)(uintptr_t)(*b)->addresses[i].p);
    table_fini(&(*b)->names);
    free(*b);
    *b = NULL;
}

/* N of `rN@`, or -1. */
static int numbered(struct span a)
{
    int n = 0;

    if (a.n < 3 || a.p[0] != 'r')
        return -1;
    for (size_t i = 1; i < a.n && i <= NUMBERED_DIGITS_MAX + 1; i++) {
        if (a.p[i] == '@')
            return i > 1 && n < NUMBERED_MAX ? n : -1;
        if (a.p[i] < '0' || a.p[i] > '9')
            return -1;
        n = n * 10 + (a.p[i] - '0');
    }
    return -1;
}

static bool same_address(const void *ctx, uint32_t value, const void *key)
{
    const struct book *b = ctx;

    return span_eq(b->addresses[value], *(const struct span *)key);
}

static int remember(struct book *b, struct span address, uint32_t hash)
{
    if (b->address_count == BOOK_RECIPIENT_MAX)
        return -ENOSPC;
    uint8_t *copy = malloc(address.n + 1);
    if (copy == NULL)
        return -ENOSPC;
    if (table_add(&b->names, hash, b->address_count) < 0) {
        free(copy);
        return -ENOSPC;
    }
    memcpy(copy, address.p, address.n);
    b->addresses[b->address_count] = span_of(copy, address.n);
    return (int)b->address_count++;
}

int book_recipient(struct book *b, struct span address)
{
    int n = numbered(address);

    if (n >= 0)
        return n;
    uint32_t hash = hash_bytes(address);
    uint32_t known = table_find(&b->names, hash, same_address, b, &address);
    return known != 0 ? (int)known : remember(b, address, hash);
}

/* The place of a run, or run_count when it is not known. */
static uint32_t find_run(const struct book *b, uint32_t id)
{
    if (b->last < b->run_count && b->runs[b->last]->id == id)
        return b->last;
    for (uint32_t i = 0; i < b->run_count; i++)
        if (b->runs[i]->id == id)
            return i;
    return b->run_count;
}

static struct run *have_run(struct book *b, uint32_t id)
{
    uint32_t place = find_run(b, id);

    if (place < b->run_count) {
        b->last = place;
        return b->runs[place];
    }
    if (b->run_count == BOOK_RUN_MAX)
        return NULL;
    struct run *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->id = id;
    b->last = b->run_count;
    b->runs[b->run_count++] = r;
    return r;
}

static bool grow(struct bitmap *m, uint64_t word)
{
    uint64_t count = m->word_count == 0 ? WORDS_MIN : m->word_count;

    while (count <= word)
        count *= 2;
    uint64_t *words = realloc(m->words, count * sizeof *words);
    if (words == NULL)
        return false;
    memset(words + m->word_count, 0, (count - m->word_count) * sizeof *words);
    m->words = words;
    m->word_count = count;
    return true;
}

enum book_answer book_mark(struct book *b, uint32_t run, uint64_t number, uint32_t recipient)
{
    struct run *r = have_run(b, run);
    uint64_t word = number / 64;
    uint64_t bit = 1ULL << number % 64;

    MUST(number <= UINT32_MAX);
    if (r == NULL || recipient >= BOOK_RECIPIENT_MAX)
        return BOOK_FULL;
    struct bitmap *m = &r->maps[recipient];
    if (word >= m->word_count && !grow(m, word))
        return BOOK_FULL;
    if (m->words[word] & bit)
        return BOOK_AGAIN;
    m->words[word] |= bit;
    b->unique++;
    return BOOK_NEW;
}

bool book_has(const struct book *b, uint32_t run, uint64_t number, uint32_t recipient)
{
    uint32_t place = find_run(b, run);

    if (place == b->run_count || recipient >= BOOK_RECIPIENT_MAX)
        return false;
    const struct bitmap *m = &b->runs[place]->maps[recipient];
    uint64_t word = number / 64;
    return word < m->word_count && (m->words[word] >> number % 64 & 1) != 0;
}

uint64_t book_unique(const struct book *b)
{
    return b->unique;
}
