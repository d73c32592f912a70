/*
 * args - the arguments of one request as "key=value" texts, from the query string or the body.
 *
 * Input is hostile: every count and length is bounded here, and a value with a control character is
 * refused, so that nothing behind this module needs to look again.
 */
#ifndef API_ARGS_H
#define API_ARGS_H

#include "base/span.h"
#include "proto/verb.h"

enum {
    ARGS_MAX = 32,
    ARGS_KEY_BYTES = 32,
    ARGS_VALUE_BYTES = 4096,
    ARGS_ERROR_BYTES = 512,
    ARGS_SECONDS_MAX = 86400,
};

struct args {
    unsigned count;
    char *item[ARGS_MAX]; /* malloc'd "key=value" */
};

void args_free(struct args *a);
/*
 * All of these return 0 or -EINVAL (-ENOMEM) with a text for people in `error`. A key that comes
 * twice is refused: nobody could know which one counts.
 */
NODISCARD int args_add(struct args *a, struct span key, struct span value,
                       char error[ARGS_ERROR_BYTES]);
/* application/x-www-form-urlencoded */
NODISCARD int args_add_form(struct args *a, struct span body, char error[ARGS_ERROR_BYTES]);
/* One flat JSON object: texts, integers and booleans (1 / 0). */
NODISCARD int args_add_json(struct args *a, struct span body, char error[ARGS_ERROR_BYTES]);
/* Only arguments of the verb, all that it requires, and a filter where it needs one. */
NODISCARD int args_check(const struct args *a, const struct verb *v, char error[ARGS_ERROR_BYTES]);
/* NULL when it was not given. */
const char *args_get(const struct args *a, const char *key);
/* A decimal number; `preset` when absent, max when larger or no number (see args_check). */
uint64_t args_number(const struct args *a, const char *key, uint64_t preset, uint64_t max);

#endif
