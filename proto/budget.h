/*
 * budget - an allocator for protobuf-c that gives out a bounded number of bytes.
 *
 * A small frame can describe a great many empty messages: unpacking it must not cost more memory
 * than any honest frame of its kind. Never: used for anything but unpacking and its free.
 */
#ifndef PROTO_BUDGET_H
#define PROTO_BUDGET_H

#include "base/check.h"

#include <protobuf-c/protobuf-c.h>

struct budget {
    size_t left; /* bytes that may still be given out; freeing gives nothing back */
};
/* Draws on *b, which must outlive it. */
ProtobufCAllocator budget_allocator(struct budget *b);

#endif
