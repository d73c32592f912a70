/*
 * book - which recipients of which messages have been seen, in a bit each.
 *
 * Owner:  a sink, or the check of two records.
 * Input:  run, number (below 2^32) and the index of the recipient within its message.
 * Never:  keeps a message; a million messages of one run are 125 KB.
 */
#ifndef BENCH_BOOK_H
#define BENCH_BOOK_H

#include "base/span.h"

struct book;

enum book_answer { BOOK_NEW, BOOK_AGAIN, BOOK_FULL };

enum { BOOK_RECIPIENT_MAX = 1024, BOOK_RUN_MAX = 256 };

NODISCARD struct book *book_create(void);
void book_destroy(struct book **b);
/*
 * The index of a recipient within its message: N of the generator's own `rN@...` (N < 128), else
 * the place of the address in the list of all addresses seen (case kept). -ENOSPC when full.
 */
NODISCARD int book_recipient(struct book *b, struct span address);
/* Marks one; BOOK_FULL when it cannot (too many runs, or no memory). */
NODISCARD enum book_answer book_mark(struct book *b, uint32_t run, uint64_t number,
                                     uint32_t recipient);
bool book_has(const struct book *b, uint32_t run, uint64_t number, uint32_t recipient);
/* How many bits are set. */
uint64_t book_unique(const struct book *b);

#endif
