/* answer - see answer.h. */
#include "master/api/answer.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_BYTES = 1024 };

static const char content_type[] = "application/json";

void answer_free(struct answer *a)
{
    free(a->body);
    *a = (struct answer){0};
}

void answer_take(struct answer *a, int status, const char *type, char *body, size_t n)
{
    MUST(status >= 100 && status < 600);
    free(a->body);
    if (body == NULL) {
        /* The one error that needs no memory: an empty body says it all to a program. */
        *a = (struct answer){.status = 500, .type = content_type};
        return;
    }
    *a = (struct answer){.status = status, .body = body, .n = n, .type = type};
}

void answer_error(struct answer *a, int status, const char *fmt, ...)
{
    char plain[ERROR_BYTES];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(plain, sizeof plain, fmt, args);
    va_end(args);
    size_t cap = 6 * sizeof plain + 16; /* every byte may become a six-letter escape */
    char *body = malloc(cap);
    struct text t = text_of(body, body != NULL ? cap : 0);
    text_puts(&t, "{\"error\":");
    text_json(&t, span_str(plain));
    text_puts(&t, "}\n");
    MUST(body == NULL || !t.cut);
    answer_take(a, status, content_type, body, t.n);
}

void answer_json(struct answer *a, int status, json_t *value)
{
    char *body = NULL;
    size_t n = 0;

    if (value != NULL) {
        n = json_dumpb(value, NULL, 0, JSON_COMPACT);
        body = malloc(n + 1);
    }
    if (body != NULL) {
        MUST(json_dumpb(value, body, n, JSON_COMPACT) == n);
        body[n++] = '\n';
    }
    json_decref(value);
    answer_take(a, status, content_type, body, n);
}
