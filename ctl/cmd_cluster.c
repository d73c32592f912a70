/*
 * cmd_cluster - cluster init, issue, join: the certificates by which nodes know each other.
 *
 * No node is needed. The authority's key stays where `init` was run; `issue` makes one file for a
 * node, and `join` installs it there. Nothing that exists is overwritten, but for a node's own
 * certificate when it is renewed.
 */
#include "ctl/certificate.h"
#include "ctl/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 512, CA_DAYS = 3650, NODE_DAYS = 730, DAYS_MAX = 36500, BACKDATE_S = 3600 };
static const char dir_preset[] = "/etc/mochila/cluster";

static const char *dir_of(const struct cli *c)
{
    const char *dir = cli_given(c, "dir");
    return dir != NULL ? dir : dir_preset;
}

static int path_in(const struct cli *c, const char *name, char out[PATH_BYTES])
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", dir_of(c), name);
    return n > 0 && n < PATH_BYTES ? 0 : cli_fail(CLI_USAGE, "--dir is too long");
}

/* Makes the directory if its parent is there. */
static int make_dir(const struct cli *c)
{
    if (mkdir(dir_of(c), 0700) < 0 && errno != EEXIST)
        return cli_fail(CLI_ERROR, "cannot make %s: %s", dir_of(c), strerror(errno));
    return 0;
}

static int name_of(const struct cli *c, const char *what)
{
    if (node_name_ok(span_str(c->words[0])))
        return 0;
    return cli_fail(CLI_USAGE, "\"%s\" is no name of a %s: 1 to 32 of a-z, 0-9 and -", c->words[0],
                    what);
}

/* From an hour ago, since clocks of hosts differ. */
static int span_of_days(const struct cli *c, uint64_t days, struct certificate_span *out)
{
    const char *given = cli_given(c, "days");
    if (given != NULL && (span_to_u64(span_str(given), &days) < 0 || days < 1 || days > DAYS_MAX))
        return cli_fail(CLI_USAGE, "--days is a number from 1 to %d", DAYS_MAX);
    *out = (struct certificate_span){.from = (int64_t)time(NULL) - BACKDATE_S,
                                     .to = (int64_t)time(NULL) + (int64_t)days * 86400};
    return 0;
}

static int cannot_write(const char *file, int r)
{
    if (r == -EEXIST)
        return cli_fail(CLI_ERROR, "%s is there already; remove it if you mean it", file);
    return cli_fail(CLI_ERROR, "cannot write %s: %s", file, strerror(-r));
}

int run_cluster_init(struct cli *c)
{
    char cert_file[PATH_BYTES], key_file[PATH_BYTES], until[16];
    struct certificate ca = {0};
    struct certificate_span valid;
    int r = name_of(c, "cluster");

    if (r == 0)
        r = span_of_days(c, CA_DAYS, &valid);
    if (r == 0)
        r = path_in(c, "ca.pem", cert_file);
    if (r == 0)
        r = path_in(c, "ca.key", key_file);
    if (r == 0)
        r = make_dir(c);
    if (r != 0)
        return r;
    if (access(cert_file, F_OK) == 0)
        return cannot_write(cert_file, -EEXIST);
    if (certificate_authority(c->words[0], valid, &ca) < 0)
        return cli_fail(CLI_ERROR, "OpenSSL cannot make a certificate");
    const char *file = key_file;
    r = certificate_write_key(key_file, ca.key);
    if (r == 0) {
        file = cert_file;
        r = certificate_write(cert_file, ca.cert);
    }
    certificate_until(ca.cert, until);
    certificate_free(&ca);
    if (r < 0)
        return cannot_write(file, r);
    printf("cluster %s: its authority is %s, good until %s\n"
           "Keep %s on this host only. Next, for each node: mochila cluster issue NODE\n",
           c->words[0], cert_file, until, key_file);
    return CLI_OK;
}

/* Reads the authority of the directory and its cluster's name. */
static int read_authority(const struct cli *c, struct certificate *ca,
                          char cluster[LIMIT_NAME_BYTES + 1])
{
    char cert_file[PATH_BYTES], key_file[PATH_BYTES], reason[PATH_BYTES * 2];
    struct text why = text_of(reason, sizeof reason);
    int r = path_in(c, "ca.pem", cert_file);
    if (r == 0)
        r = path_in(c, "ca.key", key_file);
    if (r != 0)
        return r;
    if (certificate_read(cert_file, key_file, ca, &why) < 0)
        return cli_fail(CLI_ERROR, "%s (is this where `mochila cluster init` was run?)", reason);
    if (certificate_cluster(ca->cert, cluster) == 0 && certificate_check(ca, ca->cert, &why) == 0)
        return 0;
    certificate_free(ca);
    return cli_fail(CLI_ERROR, "%s is no authority of a cluster%s%s", cert_file,
                    why.n > 0 ? ": " : "", reason);
}

int run_cluster_issue(struct cli *c)
{
    char cluster[LIMIT_NAME_BYTES + 1], uri[NODE_URI_BYTES], file[PATH_BYTES], until[16];
    const char *out = cli_given(c, "out");
    struct certificate ca = {0}, node = {0};
    struct certificate_span valid;
    int r = name_of(c, "node");

    if (r == 0)
        r = span_of_days(c, NODE_DAYS, &valid);
    if (r == 0)
        r = read_authority(c, &ca, cluster);
    if (r != 0)
        return r;
    (void)snprintf(file, sizeof file, "%s%s", out != NULL ? out : c->words[0],
                   out != NULL ? "" : ".bundle.pem");
    node_uri_format(cluster, c->words[0], uri);
    if (certificate_issue(&ca, uri, valid, &node) < 0) {
        certificate_free(&ca);
        return cli_fail(CLI_ERROR, "OpenSSL cannot make a certificate");
    }
    r = certificate_write_bundle(file, &node, ca.cert);
    certificate_until(node.cert, until);
    certificate_free(&node);
    certificate_free(&ca);
    if (r < 0)
        return cannot_write(file, r);
    printf("%s: %s, good until %s\n"
           "It holds the node's key: carry it to the node by a safe way (scp), run there\n"
           "  mochila cluster join %s\nand delete it.\n",
           file, uri, until, file);
    return CLI_OK;
}

/* Writes beside it and renames, so that a renewal is whole or not at all. */
static int replace(const struct cli *c, const char *name, const X509 *cert, EVP_PKEY *key)
{
    char file[PATH_BYTES], fresh[PATH_BYTES + 8];
    int r = path_in(c, name, file);
    if (r != 0)
        return r;
    (void)snprintf(fresh, sizeof fresh, "%s.new", file);
    (void)unlink(fresh);
    r = key != NULL ? certificate_write_key(fresh, key) : certificate_write(fresh, cert);
    if (r == 0 && rename(fresh, file) < 0)
        r = -errno;
    return r < 0 ? cannot_write(file, r) : 0;
}

/* The authority that is there must be the same one: two clusters do not mix. */
static int install_authority(const struct cli *c, X509 *ca)
{
    char file[PATH_BYTES], reason[PATH_BYTES];
    struct text why = text_of(reason, sizeof reason);
    struct certificate old;
    int r = path_in(c, "ca.pem", file);
    if (r != 0)
        return r;
    if (access(file, F_OK) < 0)
        return replace(c, "ca.pem", ca, NULL);
    if (certificate_read(file, NULL, &old, &why) < 0)
        return cli_fail(CLI_ERROR, "%s", reason);
    bool same = X509_cmp(old.cert, ca) == 0;
    certificate_free(&old);
    return same ? 0
                : cli_fail(CLI_ERROR,
                           "%s is the authority of another cluster: this node belongs to one "
                           "already",
                           file);
}

static void print_joined(const struct cli *c, const struct node_uri *id, const X509 *cert)
{
    char until[16];
    certificate_until(cert, until);
    printf("node %s of cluster %s: %s/node.pem, good until %s\n"
           "Now delete %s, and have in mochila.yaml:\n\n"
           "node: %s\ncluster:\n  name: %s\n  listen: ADDRESS:7525\n"
           "  peers: {NAME: \"ADDRESS:7525\"}\n"
           "  driver: l2\n  interface: NIC\n\n"
           "and in each pool `home: NODE`, the first owner of its lanes.\n",
           id->name, id->cluster, dir_of(c), until, c->words[0], id->name, id->cluster);
    if (strcmp(dir_of(c), dir_preset) != 0)
        printf("  ca: %s/ca.pem\n  certificate: %s/node.pem\n  key: %s/node.key\n", dir_of(c),
               dir_of(c), dir_of(c));
}

int run_cluster_join(struct cli *c)
{
    char reason[PATH_BYTES * 2];
    struct text why = text_of(reason, sizeof reason);
    struct certificate node = {0};
    struct node_uri id;
    X509 *ca = NULL;

    if (certificate_read_bundle(c->words[0], &node, &ca, &why) < 0)
        return cli_fail(CLI_ERROR, "%s", reason);
    int r = certificate_check(&node, ca, &why);
    if (r == 0 && (certificate_identity(node.cert, &id) < 0 || strcmp(id.role, "node") != 0)) {
        text_puts(&why, "the certificate is not a node's");
        r = -EINVAL;
    }
    if (r < 0)
        r = cli_fail(CLI_ERROR, "%s: %s", c->words[0], reason);
    if (r == 0)
        r = make_dir(c);
    if (r == 0)
        r = install_authority(c, ca);
    if (r == 0)
        r = replace(c, "node.key", NULL, node.key);
    if (r == 0)
        r = replace(c, "node.pem", node.cert, NULL);
    if (r == 0)
        print_joined(c, &id, node.cert);
    certificate_free(&node);
    X509_free(ca);
    return r;
}
