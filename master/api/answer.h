/*
 * answer - what goes back to an HTTP client: a status and an owned body.
 *
 * Errors are always {"error": "text that teaches"}.
 */
#ifndef API_ANSWER_H
#define API_ANSWER_H

#include "base/check.h"

#include <jansson.h>

struct answer {
    int status;
    char *body; /* malloc'd, owned */
    size_t n;
    const char *type;  /* static text */
    const char *allow; /* methods, static text; with status 405 only */
};

/* Frees what is in it; it can be used again. */
void answer_free(struct answer *a);
/* Replaces the answer by an error of this HTTP status. */
void answer_error(struct answer *a, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Replaces the answer by JSON text; takes the reference, NULL (no memory) becomes a 500. */
void answer_json(struct answer *a, int status, json_t *value);
/* Replaces the answer by a malloc'd body, which it takes over; NULL becomes a 500. */
void answer_take(struct answer *a, int status, const char *type, char *body, size_t n);

#endif
