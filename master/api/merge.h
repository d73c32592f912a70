/*
 * merge - one answer out of the workers' answers to the same question.
 *
 * Arrays are joined; rows that have a "key" are merged by it. Numbers of such rows are added,
 * except for ages and times (largest or smallest, see merge.c) and for settings. At the top of the
 * answer numbers are added when the verb says so; everything else: the first worker wins. Pure.
 */
#ifndef API_MERGE_H
#define API_MERGE_H

#include "base/span.h"
#include "master/api/answer.h"

#include <jansson.h>

/* What one worker said. */
struct merge_part {
    uint32_t slot;
    int status;       /* HTTP-like */
    bool complete;    /* its last piece has come */
    struct span body; /* JSON, one object */
};
struct merge_how {
    bool sums;          /* add up the numbers at the top */
    uint32_t row_limit; /* rows kept after sorting; 0 = all */
    uint32_t workers;   /* slots 0..workers-1 are expected to answer */
    const char *late;   /* why the rest is missing, when the question was given up; else NULL */
};

/*
 * Merges into `out`. The status is 200 when one worker answered with success; else the first error
 * that is not "not found"; 404 only when all said so. Slots that did not answer, whose answer is no
 * JSON object, or for which the master answered 503 or 504, are listed in "missing"; "errors" has
 * the texts. When `late` is set the status is 504 and "error" says
 * so, beside what did arrive.
 */
void merge_parts(const struct merge_part *parts, unsigned count, const struct merge_how *how,
                 struct answer *out);
/* Adds object `from` to object `into` by the rules above. 0 or -ENOMEM. Exposed for its tests. */
NODISCARD int merge_object(json_t *into, json_t *from, bool sums);

#endif
