/*
 * node_uri - a node's identity in the cluster, as the certificate's subjectAltName carries it.
 *
 * Pure. mochila://CLUSTER/node/NAME; CLUSTER and NAME are 1..32 of a-z, 0-9 and -, which is not the
 * first. No other form is an identity: no escapes, no upper case, nothing after the name.
 */
#ifndef PROTO_NODE_URI_H
#define PROTO_NODE_URI_H

#include "base/span.h"
#include "proto/limits.h"

enum { NODE_URI_BYTES = 2 * LIMIT_NAME_BYTES + 32, NODE_ROLE_BYTES = 16 };

struct node_uri {
    char cluster[LIMIT_NAME_BYTES + 1];
    char role[NODE_ROLE_BYTES + 1]; /* "node"; certificates of other roles are no peers */
    char name[LIMIT_NAME_BYTES + 1];
};

/* A name of a cluster or node. */
bool node_name_ok(struct span s);
/* Any role of 1..16 of a-z; -EINVAL for all that is no such identity. */
NODISCARD int node_uri_parse(struct span s, struct node_uri *out);
/* Writes the URI of a node; both names must be valid. */
void node_uri_format(const char *cluster, const char *name, char out[NODE_URI_BYTES]);

#endif
