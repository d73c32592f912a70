/*
 * pb_bytes - bytes of ours as a protobuf-c field that is about to be packed. They are borrowed:
 * they must outlive the pack. For codecs only.
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
