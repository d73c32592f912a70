/* trust - see trust.h. */
#include "master/link/trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/stat.h>

struct trust {
    SSL_CTX *context;
    char cluster[LIMIT_NAME_BYTES + 1];
};
/* What verification found wrong, kept until somebody asks why the handshake failed. */
struct verdict {
    char why[TRUST_WHY_BYTES];
};

static void drop_errors(void)
{
    ERR_clear_error();
}

static const char *last_error(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e != 0 ? ERR_reason_error_string(e) : NULL;
    return reason != NULL ? reason : "unknown error";
}

/* The only identity that a certificate may have: one URI. -EINVAL: none, several, or no URI. */
static int identity_of(X509 *x, struct node_uri *out, struct text *shown)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    int found = 0, r = -EINVAL;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type != GEN_URI)
            continue;
        const ASN1_IA5STRING *uri = g->d.uniformResourceIdentifier;
        struct span s = span_of(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
        if (found == 0)
            r = node_uri_parse(s, out);
        if (shown != NULL && found < 2)
            text_putc(shown, ' ');
        if (shown != NULL && found < 2)
            text_put_clean(shown, span_of(s.p, s.n < 80 ? s.n : 80));
        found++;
    }
    GENERAL_NAMES_free(names);
    return found == 1 ? r : -EINVAL;
}

static int on_verify(int ok, X509_STORE_CTX *store)
{
    if (ok)
        return ok;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct verdict *v = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    struct node_uri unused;
    if (v != NULL) {
        struct text t = text_of(v->why, sizeof v->why);
        text_fmt(&t, "its certificate is not good: %s",
                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
        if (leaf != NULL)
            (void)identity_of(leaf, &unused, &t);
    }
    return 0;
}

/* Our own files. */
static int check_key_mode(const char *path, struct text *why)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        text_fmt(why, "%s: %s", path, strerror(errno));
        return -EINVAL;
    }
    if ((st.st_mode & 077) != 0) {
        text_fmt(why, "%s: others may read this key: chmod 600 it", path);
        return -EINVAL;
    }
    return 0;
}

static int load_files(SSL_CTX *c, const struct trust_files *f, struct text *why)
{
    const char *file = NULL;
    drop_errors();
    if (SSL_CTX_load_verify_file(c, f->ca) != 1)
        file = f->ca;
    else if (SSL_CTX_use_certificate_file(c, f->certificate, SSL_FILETYPE_PEM) != 1)
        file = f->certificate;
    else if (SSL_CTX_use_PrivateKey_file(c, f->key, SSL_FILETYPE_PEM) != 1)
        file = f->key;
    else if (SSL_CTX_check_private_key(c) != 1)
        file = f->key;
    if (file == NULL)
        return check_key_mode(f->key, why);
    text_fmt(why, "%s: %s", file, last_error());
    drop_errors();
    return -EINVAL;
}

/* The peers would refuse it: better to hear it here, once, with the name of the file. */
static int check_own(SSL_CTX *c, const struct trust_files *f, struct text *why)
{
    X509 *own = SSL_CTX_get0_certificate(c);
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    struct node_uri id;
    char shown_bytes[200];
    struct text shown = text_of(shown_bytes, sizeof shown_bytes);
    int r = store != NULL && X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(c), own, NULL) == 1
                ? 0
                : -ENOMEM;
    if (r == 0 && X509_verify_cert(store) != 1) {
        text_fmt(why, "%s: %s", f->certificate,
                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
        r = -EINVAL;
    }
    X509_STORE_CTX_free(store);
    if (r < 0)
        return r;
    if (identity_of(own, &id, &shown) < 0 || strcmp(id.cluster, f->cluster) != 0 ||
        strcmp(id.role, "node") != 0 || strcmp(id.name, f->node) != 0) {
        text_fmt(why, "%s: it is not for node %s of cluster %s, but for%s", f->certificate, f->node,
                 f->cluster, shown.n > 0 ? shown_bytes : " nobody");
        return -EINVAL;
    }
    return 0;
}

static int set_up(SSL_CTX *c)
{
    if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_num_tickets(c, 0) != 1 || SSL_CTX_set_max_early_data(c, 0) != 1)
        return -EINVAL;
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    SSL_CTX_set_verify_depth(c, 1);
    return 0;
}

int trust_create(const struct trust_files *files, struct trust **out, struct text *why)
{
    struct trust *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t == NULL)
        return -ENOMEM;
    (void)strncpy(t->cluster, files->cluster, sizeof t->cluster - 1);
    t->context = SSL_CTX_new(TLS_method());
    int r = t->context != NULL ? set_up(t->context) : -ENOMEM;
    if (r == 0)
        r = load_files(t->context, files, why);
    if (r == 0)
        r = check_own(t->context, files, why);
    if (r < 0)
        trust_destroy(&t);
    *out = t;
    return r;
}

int trust_days_left(const struct trust *t)
{
    int days = 0, seconds = 0;
    const ASN1_TIME *end = X509_get0_notAfter(SSL_CTX_get0_certificate(t->context));
    if (ASN1_TIME_diff(&days, &seconds, NULL, end) != 1)
        return 0;
    return days;
}

void trust_destroy(struct trust **t)
{
    if (*t == NULL)
        return;
    SSL_CTX_free((*t)->context);
    free(*t);
    *t = NULL;
}

SSL *trust_end(struct trust *t, int fd, bool dialled)
{
    SSL *ssl = SSL_new(t->context);
    struct verdict *v = calloc(1, sizeof *v);
    if (ssl == NULL || v == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        free(v);
        return NULL;
    }
    SSL_set_app_data(ssl, v);
    if (dialled)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
    return ssl;
}

void trust_end_free(SSL **ssl)
{
    if (*ssl == NULL)
        return;
    free(SSL_get_app_data(*ssl));
    SSL_free(*ssl);
    *ssl = NULL;
    drop_errors();
}

int trust_identify(const struct trust *t, const SSL *ssl, char name[LIMIT_NAME_BYTES + 1],
                   struct text *why)
{
    X509 *x = SSL_get0_peer_certificate(ssl);
    char shown_bytes[200];
    struct text shown = text_of(shown_bytes, sizeof shown_bytes);
    struct node_uri id;

    if (x == NULL || SSL_get_verify_result(ssl) != X509_V_OK) {
        text_puts(why, "it has shown no good certificate");
        return -EACCES;
    }
    if (identity_of(x, &id, &shown) < 0 || strcmp(id.role, "node") != 0) {
        text_fmt(why, "its certificate is not a node's:%s",
                 shown.n > 0 ? shown_bytes : " it has no URI");
        return -EACCES;
    }
    if (strcmp(id.cluster, t->cluster) != 0) {
        text_fmt(why, "its certificate is of cluster %s, not %s", id.cluster, t->cluster);
        return -EACCES;
    }
    memcpy(name, id.name, sizeof id.name);
    return 0;
}

void trust_explain(const SSL *ssl, int error, struct text *why)
{
    const struct verdict *v = SSL_get_app_data(ssl);
    int system_error = errno;

    if (v->why[0] != '\0')
        text_puts(why, v->why);
    else if (error == SSL_ERROR_SSL &&
             ERR_GET_REASON(ERR_peek_last_error()) >= SSL_AD_REASON_OFFSET)
        text_fmt(why, "it refuses our certificate or our TLS: %s", last_error());
    else if (error == SSL_ERROR_SSL &&
             ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        text_puts(why, "it closed the connection");
    else if (error == SSL_ERROR_SSL)
        text_fmt(why, "it does not speak the link's TLS: %s", last_error());
    else if (error == SSL_ERROR_SYSCALL && system_error != 0)
        text_puts(why, strerror(system_error));
    else
        text_puts(why, "it closed the connection");
    drop_errors();
}
