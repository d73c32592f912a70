/*
 * pb_bytes - bytes of ours as a protobuf-c field that is about to be packed. The field borrows them:
 * they must outlive the pack. For codecs only; protobuf-c structs go no further.
 */
#ifndef PROTO_PB_BYTES_H
#define PROTO_PB_BYTES_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>
#include <string.h>

static inline ProtobufCBinaryData bytes_of(const void *p, size_t n)
{
    return (ProtobufCBinaryData){.len = n, .data = (uint8_t *)(uintptr_t)p};
}

static inline ProtobufCBinaryData text_bytes(const char *s)
{
    return bytes_of(s, strlen(s));
}

#endif
