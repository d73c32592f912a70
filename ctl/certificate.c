/* certificate - see certificate.h. */
#include "ctl/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { SERIAL_BYTES = 16 };

static const char *last_error(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason != NULL ? reason : "unknown error";
}

void certificate_free(struct certificate *c)
{
    X509_free(c->cert);
    EVP_PKEY_free(c->key);
    *c = (struct certificate){0};
}

/* Random, as CAs do it: nobody has to remember the last one. */
static int set_serial(X509 *x)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return -EIO;
    bytes[0] &= 0x7f;
    bytes[0] |= 0x40;
    BIGNUM *n = BN_bin2bn(bytes, sizeof bytes, NULL);
    int ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
    BN_free(n);
    return ok ? 0 : -EIO;
}

static int add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    int ok = e != NULL && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok ? 0 : -EIO;
}

/* A certificate with names, times and key, without extensions and signature. */
static int begin(X509 *x, EVP_PKEY *key, const char *common, struct certificate_span valid)
{
    X509_NAME *name = X509_get_subject_name(x);
    bool ok = X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) == 0 &&
              ASN1_TIME_adj(X509_getm_notBefore(x), (time_t)valid.from, 0, 0) != NULL &&
              ASN1_TIME_adj(X509_getm_notAfter(x), (time_t)valid.to, 0, 0) != NULL &&
              X509_set_pubkey(x, key) == 1 &&
              X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common,
                                         -1, -1, 0) == 1;
    return ok ? 0 : -EIO;
}

static int make(struct certificate *out)
{
    *out = (struct certificate){.cert = X509_new(), .key = EVP_EC_gen("P-256")};
    return out->cert != NULL && out->key != NULL ? 0 : -EIO;
}

int certificate_authority(const char *cluster, struct certificate_span valid,
                          struct certificate *out)
{
    char common[96], uri[128];
    (void)snprintf(common, sizeof common, "mochila cluster %s", cluster);
    (void)snprintf(uri, sizeof uri, "URI:mochila://%s/authority/%s", cluster, cluster);
    int r = make(out);
    if (r == 0)
        r = begin(out->cert, out->key, common, valid);
    if (r == 0 && X509_set_issuer_name(out->cert, X509_get_subject_name(out->cert)) != 1)
        r = -EIO;
    if (r == 0)
        r = add_extension(out->cert, out->cert, NID_basic_constraints,
                          "critical,CA:TRUE,pathlen:0");
    if (r == 0)
        r = add_extension(out->cert, out->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (r == 0)
        r = add_extension(out->cert, out->cert, NID_subject_key_identifier, "hash");
    if (r == 0)
        r = add_extension(out->cert, out->cert, NID_subject_alt_name, uri);
    if (r == 0 && X509_sign(out->cert, out->key, EVP_sha256()) == 0)
        r = -EIO;
    if (r < 0)
        certificate_free(out);
    return r;
}

int certificate_issue(const struct certificate *ca, const char *uri, struct certificate_span valid,
                      struct certificate *out)
{
    static const struct {
        int nid;
        const char *value;
    } extensions[] = {
        {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},
        {NID_ext_key_usage, "serverAuth,clientAuth"}, {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid"},
    };
    char name[NODE_URI_BYTES + 8];
    (void)snprintf(name, sizeof name, "URI:%s", uri);
    int r = make(out);
    /* The common name is for people who look: only the URI counts. */
    if (r == 0)
        r = begin(out->cert, out->key, "mochila node", valid);
    if (r == 0 && X509_set_issuer_name(out->cert, X509_get_subject_name(ca->cert)) != 1)
        r = -EIO;
    for (size_t i = 0; r == 0 && i < ARRAY_COUNT(extensions); i++)
        r = add_extension(out->cert, ca->cert, extensions[i].nid, extensions[i].value);
    if (r == 0)
        r = add_extension(out->cert, ca->cert, NID_subject_alt_name, name);
    if (r == 0 && X509_sign(out->cert, ca->key, EVP_sha256()) == 0)
        r = -EIO;
    if (r < 0)
        certificate_free(out);
    return r;
}

/* Files. */
static FILE *open_new(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL && fd >= 0)
        close(fd);
    return f;
}

/* What was written must be on disk before anybody relies on it. */
static int close_new(FILE *f, bool ok, const char *file)
{
    if (ok && (fflush(f) != 0 || fsync(fileno(f)) != 0))
        ok = false;
    if (fclose(f) != 0)
        ok = false;
    if (ok)
        return 0;
    (void)unlink(file);
    return -EIO;
}

int certificate_write_key(const char *file, EVP_PKEY *key)
{
    FILE *f = open_new(file);
    if (f == NULL)
        return -errno;
    return close_new(f, PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1, file);
}

int certificate_write(const char *file, const X509 *cert)
{
    FILE *f = open_new(file);
    if (f == NULL)
        return -errno;
    return close_new(f, PEM_write_X509(f, cert) == 1, file);
}

int certificate_write_bundle(const char *file, const struct certificate *c, const X509 *ca)
{
    FILE *f = open_new(file);
    if (f == NULL)
        return -errno;
    bool ok = PEM_write_PKCS8PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL) == 1 &&
              PEM_write_X509(f, c->cert) == 1 && PEM_write_X509(f, ca) == 1;
    return close_new(f, ok, file);
}

static int no_password(char *buffer, int n, int writing, void *ctx)
{
    (void)buffer;
    (void)n;
    (void)writing;
    (void)ctx;
    return 0;
}

static FILE *open_old(const char *file, struct text *why)
{
    FILE *f = fopen(file, "re");
    if (f == NULL)
        text_fmt(why, "%s: %s", file, strerror(errno));
    return f;
}

int certificate_read(const char *cert_file, const char *key_file, struct certificate *out,
                     struct text *why)
{
    *out = (struct certificate){0};
    FILE *f = open_old(cert_file, why);
    if (f == NULL)
        return -EINVAL;
    out->cert = PEM_read_X509(f, NULL, no_password, NULL);
    (void)fclose(f);
    if (out->cert == NULL) {
        text_fmt(why, "%s: no certificate in PEM form: %s", cert_file, last_error());
        return -EINVAL;
    }
    f = key_file != NULL ? open_old(key_file, why) : NULL;
    if (f != NULL) {
        out->key = PEM_read_PrivateKey(f, NULL, no_password, NULL);
        (void)fclose(f);
        if (out->key == NULL)
            text_fmt(why, "%s: no key in PEM form: %s", key_file, last_error());
    }
    if (key_file == NULL || out->key != NULL)
        return 0;
    certificate_free(out);
    return -EINVAL;
}

int certificate_read_bundle(const char *file, struct certificate *out, X509 **ca, struct text *why)
{
    *out = (struct certificate){0};
    *ca = NULL;
    FILE *f = open_old(file, why);
    if (f == NULL)
        return -EINVAL;
    out->key = PEM_read_PrivateKey(f, NULL, no_password, NULL);
    if (out->key != NULL)
        out->cert = PEM_read_X509(f, NULL, no_password, NULL);
    if (out->cert != NULL)
        *ca = PEM_read_X509(f, NULL, no_password, NULL);
    (void)fclose(f);
    if (*ca != NULL)
        return 0;
    text_fmt(why, "%s: no bundle of `mochila cluster issue` (key, certificate, authority)", file);
    certificate_free(out);
    return -EINVAL;
}

/* Looking. */
int certificate_identity(const X509 *cert, struct node_uri *out)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int r = -EINVAL;
    if (sk_GENERAL_NAME_num(names) == 1) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, 0);
        if (g->type == GEN_URI) {
            const ASN1_IA5STRING *uri = g->d.uniformResourceIdentifier;
            r = node_uri_parse(span_of(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri)),
                               out);
        }
    }
    GENERAL_NAMES_free(names);
    return r;
}

int certificate_cluster(const X509 *ca, char out[LIMIT_NAME_BYTES + 1])
{
    struct node_uri id;
    if (certificate_identity(ca, &id) < 0 || strcmp(id.role, "authority") != 0)
        return -EINVAL;
    memcpy(out, id.cluster, sizeof id.cluster);
    return 0;
}

int certificate_check(const struct certificate *c, X509 *ca, struct text *why)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int r = -EINVAL;

    if (store == NULL || ctx == NULL || X509_STORE_add_cert(store, ca) != 1 ||
        X509_STORE_CTX_init(ctx, store, c->cert, NULL) != 1)
        text_puts(why, "no memory");
    else if (X509_verify_cert(ctx) != 1)
        text_fmt(why, "the certificate is not good: %s",
                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    else if (X509_check_private_key(c->cert, c->key) != 1)
        text_puts(why, "the key is not that of the certificate");
    else
        r = 0;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return r;
}

void certificate_until(const X509 *cert, char out[16])
{
    struct tm tm;
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1 ||
        strftime(out, 16, "%Y-%m-%d", &tm) == 0)
        (void)snprintf(out, 16, "unknown");
}
