#include "worker/lane/content.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t total_bytes;

struct content *content_create(uint32_t rest_cap)
{
    struct content *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->refs = 1;
    if (rest_cap > 0 && content_reserve(c, rest_cap) != 0) {
        free(c);
        return NULL;
    }
    return c;
}

int content_reserve(struct content *c, uint32_t cap)
{
    if (cap <= c->rest_cap)
        return 0;
    uint8_t *p = realloc(c->rest, cap);
    if (p == NULL)
        return -ENOMEM;
    c->rest = p;
    total_bytes += cap - c->rest_cap;
    c->rest_cap = cap;
    return 0;
}

int content_set_meta(struct content *c, struct span meta)
{
    MUST(c->meta == NULL);
    c->meta = malloc(meta.n);
    if (c->meta == NULL)
        return -ENOMEM;
    memcpy(c->meta, meta.p, meta.n);
    c->meta_bytes = (uint32_t)meta.n;
    total_bytes += c->meta_bytes;
    return 0;
}

struct content *content_ref(struct content *c)
{
    MUST(c->refs > 0);
    c->refs++;
    return c;
}

void content_unref(struct content **c)
{
    struct content *x = *c;
    *c = NULL;
    if (x == NULL)
        return;
    MUST(x->refs > 0);
    if (--x->refs > 0)
        return;
    MUST(total_bytes >= x->rest_cap + x->meta_bytes);
    total_bytes -= x->rest_cap + x->meta_bytes;
    free(x->meta);
    free(x->rest);
    free(x);
}

uint64_t content_total(void)
{
    return total_bytes;
}
