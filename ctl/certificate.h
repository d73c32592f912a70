/*
 * certificate - the cluster's own authority and the certificates of its nodes.
 *
 * Files are PEM. Keys are ECDSA on P-256 and never leave a file of mode 0600. A node's certificate
 * is its bundle: key, certificate and the authority's certificate in one file, to be carried to the
 * node and joined there.
 */
#ifndef CTL_CERTIFICATE_H
#define CTL_CERTIFICATE_H

#include "base/text.h"
#include "proto/node_uri.h"

#include <openssl/x509.h>

struct certificate {
    X509 *cert;
    EVP_PKEY *key; /* NULL: only the certificate was read */
};
struct certificate_span {
    int64_t from, to; /* seconds since 1970 */
};

/* A new authority, signed by itself. 0 or -EIO (OpenSSL). */
NODISCARD int certificate_authority(const char *cluster, struct certificate_span valid,
                                    struct certificate *out);
/* A new key with a certificate for this URI, signed by `ca`. */
NODISCARD int certificate_issue(const struct certificate *ca, const char *uri,
                                struct certificate_span valid, struct certificate *out);
void certificate_free(struct certificate *c);

/* Reads key (NULL: none) and certificate. -EINVAL with a text. */
NODISCARD int certificate_read(const char *cert_file, const char *key_file, struct certificate *out,
                               struct text *why);
/* Creates files of mode 0600, never over one that exists: -EEXIST. `also`: a second certificate. */
NODISCARD int certificate_write_key(const char *file, EVP_PKEY *key);
NODISCARD int certificate_write(const char *file, const X509 *cert);
NODISCARD int certificate_write_bundle(const char *file, const struct certificate *c,
                                       const X509 *ca);
/* Reads a bundle. -EINVAL with a text. */
NODISCARD int certificate_read_bundle(const char *file, struct certificate *out, X509 **ca,
                                      struct text *why);

/* Whose it is; -EINVAL when it has no identity of ours. */
NODISCARD int certificate_identity(const X509 *cert, struct node_uri *out);
/* The authority's cluster, from its own URI mochila://CLUSTER/authority/CLUSTER. */
NODISCARD int certificate_cluster(const X509 *ca, char out[LIMIT_NAME_BYTES + 1]);
/* Is it good now, and signed by ca, with this key? -EINVAL with a text. */
NODISCARD int certificate_check(const struct certificate *c, X509 *ca, struct text *why);
/* Last day of validity, as 2028-11-21. */
void certificate_until(const X509 *cert, char out[16]);

#endif
