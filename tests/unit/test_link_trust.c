/*
 * link_trust: handshakes between a node and peers with certificates of every kind: only a node of
 * the cluster's own authority, in its time, with one URI, is somebody.
 */
#include "ctl/certificate.h"
#include "master/link/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct certificate west, foreign;

static const char *file(const char *name)
{
    static char paths[8][128];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    (void)snprintf(path, 128, "%s/%s", dir, name);
    return path;
}

static struct certificate_span days(int from, int to)
{
    return (struct certificate_span){time(NULL) + from * 86400, time(NULL) + to * 86400};
}

static void write_node(const char *name, const struct certificate *ca, const char *uri,
                       struct certificate_span valid)
{
    struct certificate c;
    char text[96];
    assert_int_equal(certificate_issue(ca, uri, valid, &c), 0);
    (void)snprintf(text, sizeof text, "%s.pem", name);
    assert_int_equal(certificate_write(file(text), c.cert), 0);
    (void)snprintf(text, sizeof text, "%s.key", name);
    assert_int_equal(certificate_write_key(file(text), c.key), 0);
    certificate_free(&c);
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/mochila-trust-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(certificate_authority("west", days(-1, 10), &west), 0);
    assert_int_equal(certificate_authority("west", days(-1, 10), &foreign), 0);
    assert_int_equal(certificate_write(file("ca.pem"), west.cert), 0);
    write_node("a", &west, "mochila://west/node/a", days(-1, 1));
    write_node("b", &west, "mochila://west/node/b", days(-1, 1));
    write_node("expired", &west, "mochila://west/node/b", days(-2, -1));
    write_node("early", &west, "mochila://west/node/b", days(1, 2));
    write_node("foreign", &foreign, "mochila://west/node/b", days(-1, 1));
    write_node("east", &west, "mochila://east/node/b", days(-1, 1));
    write_node("operator", &west, "mochila://west/operator/b", days(-1, 1));
    write_node("nobody", &west, "https://b.example/", days(-1, 1));
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"a",       "b",    "expired",  "early",
                                        "foreign", "east", "operator", "nobody"};
    char text[96];
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(text, sizeof text, "%s.pem", names[i]);
        (void)unlink(file(text));
        (void)snprintf(text, sizeof text, "%s.key", names[i]);
        (void)unlink(file(text));
    }
    (void)unlink(file("ca.pem"));
    certificate_free(&west);
    certificate_free(&foreign);
    return rmdir(dir);
}

static int create(const char *cluster, const char *node, const char *cert, struct trust **out,
                  char why[TRUST_WHY_BYTES])
{
    char pem[96], key[96];
    struct text t = text_of(why, TRUST_WHY_BYTES);
    (void)snprintf(pem, sizeof pem, "%s.pem", cert);
    (void)snprintf(key, sizeof key, "%s.key", cert);
    const struct trust_files f = {cluster, node, file("ca.pem"), file(pem), file(key)};
    return trust_create(&f, out, &t);
}

static void test_own_files(void **state)
{
    static const struct {
        const char *cluster, *node, *cert, *why; /* NULL: good */
    } cases[] = {
        {"west", "a", "a", NULL},
        {"west", "b", "a", "it is not for node b of cluster west, but for mochila://west/node/a"},
        {"east", "a", "a", "it is not for node a of cluster east"},
        {"west", "b", "expired", "certificate has expired"},
        {"west", "b", "early", "certificate is not yet valid"},
        {"west", "b", "foreign", "unable to get local issuer certificate"},
        {"west", "b", "operator", "it is not for node b"},
        {"west", "b", "nobody", "it is not for node b"},
        {"west", "b", "missing", "missing.pem: "},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct trust *t;
        char why[TRUST_WHY_BYTES];
        int r = create(cases[i].cluster, cases[i].node, cases[i].cert, &t, why);
        assert_int_equal(r, cases[i].why == NULL ? 0 : -EINVAL);
        if (r == 0)
            assert_in_range(trust_days_left(t), 0, 1);
        if (cases[i].why != NULL && strstr(why, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].cert, why);
        trust_destroy(&t);
    }
}

static void test_key_mode(void **state)
{
    (void)state;
    struct trust *t;
    char why[TRUST_WHY_BYTES];
    struct stat st;
    assert_int_equal(stat(file("a.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(chmod(file("a.key"), 0640), 0);
    assert_int_equal(create("west", "a", "a", &t, why), -EINVAL);
    assert_non_null(strstr(why, "chmod 600"));
    assert_int_equal(chmod(file("a.key"), 0600), 0);
}

/* A peer that checks nothing and shows what it is told to; NULL: no certificate at all. */
static SSL_CTX *careless(const char *cert, int version)
{
    char text[96];
    SSL_CTX *c = SSL_CTX_new(TLS_method());
    assert_non_null(c);
    assert_int_equal(SSL_CTX_set_max_proto_version(c, version), 1);
    if (cert == NULL)
        return c;
    (void)snprintf(text, sizeof text, "%s.pem", cert);
    assert_int_equal(SSL_CTX_use_certificate_file(c, file(text), SSL_FILETYPE_PEM), 1);
    (void)snprintf(text, sizeof text, "%s.key", cert);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(c, file(text), SSL_FILETYPE_PEM), 1);
    return c;
}

/* Both ends in turn until ours has an end: 1, or what SSL_get_error says. */
static int shake(SSL *ours, SSL *theirs)
{
    for (unsigned i = 0; i < 20; i++) {
        int r = SSL_do_handshake(ours);
        if (r == 1)
            return 1;
        int error = SSL_get_error(ours, r);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            return -error;
        (void)SSL_do_handshake(theirs);
    }
    return 0;
}

struct guest {
    const char *cert, *why; /* why NULL: let in */
    int version;
};

static void meet(struct trust *t, const struct guest *g, bool dialled)
{
    int fds[2];
    char name[LIMIT_NAME_BYTES + 1], reason[TRUST_WHY_BYTES] = "";
    struct text why = text_of(reason, sizeof reason);
    SSL_CTX *context = careless(g->cert, g->version);
    SSL *theirs = SSL_new(context);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    SSL *ours = trust_end(t, fds[0], dialled);
    assert_non_null(ours);
    SSL_set_fd(theirs, fds[1]);
    if (dialled)
        SSL_set_accept_state(theirs);
    else
        SSL_set_connect_state(theirs);
    int r = shake(ours, theirs);
    int let_in = -EACCES;
    if (r == 1)
        let_in = trust_identify(t, ours, name, &why);
    else
        trust_explain(ours, -r, &why);
    if (g->why == NULL) {
        if (let_in != 0)
            fail_msg("%s is refused: %s", g->cert, reason);
        assert_string_equal(name, "b");
        assert_int_equal(SSL_version(ours), TLS1_3_VERSION);
    } else if (let_in == 0 || strstr(reason, g->why) == NULL) {
        fail_msg("%s: not \"%s\" but \"%s\"", g->cert != NULL ? g->cert : "none", g->why, reason);
    }
    trust_end_free(&ours);
    SSL_free(theirs);
    SSL_CTX_free(context);
    close(fds[0]);
    close(fds[1]);
}

static void test_guests(void **state)
{
    static const struct guest guests[] = {
        {"b", NULL, TLS1_3_VERSION},
        {"expired", "certificate has expired mochila://west/node/b", TLS1_3_VERSION},
        {"early", "certificate is not yet valid", TLS1_3_VERSION},
        {"foreign", "certificate is not good: ", TLS1_3_VERSION},
        {"east", "of cluster east, not west", TLS1_3_VERSION},
        {"operator", "is not a node's: mochila://west/operator/b", TLS1_3_VERSION},
        {"nobody", "is not a node's: https://b.example/", TLS1_3_VERSION},
        {"b", "TLS", TLS1_2_VERSION},
    };
    static const struct guest none = {NULL, "did not return a certificate", TLS1_3_VERSION};
    struct trust *t;
    char why[TRUST_WHY_BYTES];
    (void)state;
    assert_int_equal(create("west", "a", "a", &t, why), 0);
    for (size_t i = 0; i < ARRAY_COUNT(guests); i++) {
        meet(t, &guests[i], false);
        meet(t, &guests[i], true);
    }
    meet(t, &none, false);
    trust_destroy(&t);
}

/* Bytes that are no TLS: a reason for people, and no crash. */
static void test_garbage(void **state)
{
    (void)state;
    struct trust *t;
    char reason[TRUST_WHY_BYTES];
    int fds[2];
    assert_int_equal(create("west", "a", "a", &t, reason), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    SSL *ours = trust_end(t, fds[0], false);
    assert_int_equal(send(fds[1], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    int r = SSL_do_handshake(ours);
    struct text why = text_of(reason, sizeof reason);
    trust_explain(ours, SSL_get_error(ours, r), &why);
    assert_string_equal(reason, "it does not speak the link's TLS: http request");
    trust_end_free(&ours);
    trust_destroy(&t);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_files),
        cmocka_unit_test(test_key_mode),
        cmocka_unit_test(test_guests),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
