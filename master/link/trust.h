/*
 * trust - who may speak with us: TLS 1.3 with certificates of the cluster's own authority.
 *
 * Owner:  the process; made before privileges are dropped, since key files may be root's.
 * Both sides show a certificate. A peer is who its URI in subjectAltName says, and nothing else of
 * the certificate counts as a name. No tickets, no resumption, no early data, no older TLS.
 */
#ifndef LINK_TRUST_H
#define LINK_TRUST_H

#include "base/text.h"
#include "proto/node_uri.h"

#include <openssl/ssl.h>

struct trust;
struct trust_files {
    const char *cluster, *node; /* what our own certificate must say */
    const char *ca, *certificate, *key;
};
enum { TRUST_WHY_BYTES = 256 };

/* Reads the files. -EINVAL with a text for the operator: which file, and what is wrong with it. */
NODISCARD int trust_create(const struct trust_files *files, struct trust **out, struct text *why);
void trust_destroy(struct trust **t);

/* Days until our own certificate ends; it was good when it was read. */
int trust_days_left(const struct trust *t);
/* One end of a connection on fd (still the caller's); NULL: no memory. */
SSL *trust_end(struct trust *t, int fd, bool dialled);
void trust_end_free(SSL **ssl);
/* After the handshake: is the peer a node of our cluster? -EACCES with the reason. */
NODISCARD int trust_identify(const struct trust *t, const SSL *ssl, char name[LIMIT_NAME_BYTES + 1],
                             struct text *why);
/* Why an operation on ssl failed with `error` of SSL_get_error, for people. */
void trust_explain(const SSL *ssl, int error, struct text *why);

#endif
