/*
 * suggest - "did you mean ...?" for words that people type: commands, options, keys, arguments.
 *
 * Pure. Restricted Damerau-Levenshtein distance over bytes: insert, delete, replace, swap of
 * neighbours. Never suggests what is farther away than a third of the word.
 */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

#include "base/check.h"

enum { SUGGEST_WORD_BYTES = 64 };

/* Edits between two words; words longer than SUGGEST_WORD_BYTES are as far away as they are long.
 */
unsigned suggest_distance(const char *a, const char *b);
/*
 * The nearest of `count` names (NULL entries are skipped), the only name that begins with `word`
 * when nothing is near, or NULL.
 */
const char *suggest_nearest(const char *word, const char *const *names, size_t count);

#endif
