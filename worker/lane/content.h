/*
 * content - the bytes of one message in memory: encoded envelope, and trace field + body in wire
 * form.
 *
 * Counted references: the SMTP server, the queue's cache and a delivery may hold the same content.
 * What is in memory is bounded by the caller through content_total().
 */
#ifndef WORKER_CONTENT_H
#define WORKER_CONTENT_H

#include "proto/spool_record.h"

struct content {
    uint32_t refs;
    uint32_t meta_bytes;
    uint32_t rest_bytes;  /* trace + body, or trace alone when the body is in chunks */
    uint32_t rest_cap;
    uint8_t *meta;        /* encoded ENQ meta, NULL until known */
    uint8_t *rest;
};

/* One reference; room for rest_cap bytes. NULL when memory is short. */
struct content *content_create(uint32_t rest_cap);
/* Grows the room for the rest to at least cap, keeping what is there; -ENOMEM. */
NODISCARD int content_reserve(struct content *c, uint32_t cap);
NODISCARD int content_set_meta(struct content *c, struct span meta);
struct content *content_ref(struct content *c);
/* Drops *c and sets it to NULL; NULL is fine. */
void content_unref(struct content **c);
/* Bytes held by all contents of this process. */
uint64_t content_total(void);

#endif
