/*
 * message - what the source sends: contents, sizes and domains as pure functions of the number.
 *
 * Owner:  one source; made once at start, then only read.
 * Input:  the size list or a directory of .eml files, and the list of recipient domains.
 * Never:  allocates per message. A message is a short head, written anew for each (identity,
 *         Message-ID), and a rest that all messages of one template share.
 */
#ifndef BENCH_MESSAGE_H
#define BENCH_MESSAGE_H

#include "bench/identity.h"

enum {
    MESSAGE_HEAD_BYTES_MAX = 160,
    MESSAGE_SIZE_MIN = 400,
    MESSAGE_TEMPLATE_MAX = 100000,
    MESSAGE_DOMAIN_MAX = 1000000,
};

struct message_template {
    struct span plain; /* the rest as it is, for BDAT; ends with CRLF */
    struct span wire;  /* the same with stuffed dots, for DATA; often the same bytes */
    uint32_t weight;
    bool own_headers; /* from a file: the head is the identity alone */
};

struct message_plan;

struct message_spec {
    const char *sizes;     /* `2k`, `2k:9,100k:1`; with eml_dir ignored */
    const char *eml_dir;   /* or NULL */
    const char *domains;   /* `a.test:3,b.test:1`, or NULL */
    uint64_t domain_count; /* d000.test .. when domains is NULL */
    const char *from;      /* envelope and header sender */
};

/* 0, or -errno after saying on stderr what is wrong with the specification. */
NODISCARD int message_plan_create(const struct message_spec *spec, struct message_plan **out);
void message_plan_destroy(struct message_plan **p);
const struct message_template *message_plan_template(const struct message_plan *p, uint64_t number);
/* The domain of the recipient's address. */
struct span message_plan_domain(const struct message_plan *p, uint64_t number);
/* Bytes of the largest message, head included. */
size_t message_plan_bytes_max(const struct message_plan *p);
/* Writes the head of one message and returns its length, the same for all of one template. */
size_t message_head(char out[MESSAGE_HEAD_BYTES_MAX], const struct message_template *t,
                    struct identity id);

#endif
