#include "proto/budget.h"

#include <stdlib.h>

static void *budget_alloc(void *ctx, size_t n)
{
    struct budget *b = ctx;
    if (n > b->left)
        return NULL;
    b->left -= n;
    return malloc(n);
}

static void budget_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

ProtobufCAllocator budget_allocator(struct budget *b)
{
    return (ProtobufCAllocator){budget_alloc, budget_free, b};
}
