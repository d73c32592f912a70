/* suggest - see suggest.h. */
#include "base/suggest.h"

#include <string.h>

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

unsigned suggest_distance(const char *a, const char *b)
{
    size_t n = strlen(a);
    size_t m = strlen(b);
    /* Three rows of the matrix are enough: this one, the last, and the one before for swaps. */
    unsigned row[3][SUGGEST_WORD_BYTES + 1];

    if (n > SUGGEST_WORD_BYTES || m > SUGGEST_WORD_BYTES)
        return (unsigned)(n > m ? n : m);
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = row[i % 3];
        const unsigned *last = row[(i + 2) % 3];
        const unsigned *before = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned differ = a[i - 1] != b[j - 1] ? 1 : 0;
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + differ);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
    }
    return row[n % 3][m];
}

/* The name that begins with `word`, when there is exactly one. */
static const char *only_completion(const char *word, const char *const *names, size_t count)
{
    const char *found = NULL;
    size_t n = strlen(word);
    for (size_t i = 0; i < count && n > 0; i++) {
        if (names[i] == NULL || strncmp(names[i], word, n) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = names[i];
    }
    return found;
}

const char *suggest_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t n = strlen(word);
    unsigned limit = n < 3 ? 1 : (unsigned)(n + 2) / 3;
    for (size_t i = 0; i < count; i++) {
        if (names[i] == NULL)
            continue;
        unsigned d = suggest_distance(word, names[i]);
        /* A word of one letter is one edit away from any other: that helps nobody. */
        if (d >= strlen(names[i]) || d > limit)
            continue;
        limit = d > 0 ? d - 1 : 0;
        best = names[i];
        if (d == 0)
            break;
    }
    return best != NULL ? best : only_completion(word, names, count);
}
