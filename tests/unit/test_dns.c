/* dns.h against a real DNS server (dns_server.py, written with dnspython) on loopback. */
#include "worker/io/dns.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static pid_t server;
static int server_in;
static char servers[64];
static struct io *io;
static struct wheel wheel;
static struct dns *dns;

struct probe {
    struct dns_query q;
    struct dns_answer a;
    int calls;
    uint64_t at_ms;
    void (*then)(struct probe *p);
};

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void on_answer(struct dns_query *q, const struct dns_answer *a)
{
    struct probe *p = (struct probe *)(void *)q;
    p->a = *a;
    p->calls++;
    p->at_ms = now_ms();
    if (p->then != NULL)
        p->then(p);
}

static void turn(void)
{
    uint64_t ms = wheel_next_ms(&wheel, 20);
    io_turn(io, ms * 1000000);
    wheel_advance(&wheel, io_now_ns(io) / 1000000);
}

static void wait_for(const struct probe *p)
{
    uint64_t until = now_ms() + 10000;
    while (p->calls == 0 && now_ms() < until)
        turn();
    assert_int_equal(p->calls, 1);
}

static int ask(struct probe *p, enum dns_type type, const char *name)
{
    const struct dns_answer *a;
    memset(p, 0, sizeof *p);
    p->q.on_answer = on_answer;
    int r = dns_ask(dns, &p->q, type, name, &a);
    assert_int_equal(p->calls, 0); /* never from inside the call */
    if (r == 1)
        p->a = *a;
    return r;
}

static const struct dns_answer *resolve(struct probe *p, enum dns_type type, const char *name)
{
    if (ask(p, type, name) == 0)
        wait_for(p);
    return &p->a;
}

static void open_dns(const char *list, uint32_t query_ms, uint32_t total_ms)
{
    struct dns_settings s = {.servers = list,
                             .query_ms = query_ms,
                             .total_ms = total_ms,
                             .cache_count_max = 100,
                             .ttl_min_s = 30,
                             .ttl_max_s = 86400};
    dns_destroy(&dns);
    assert_int_equal(dns_create(&dns, io, &wheel, &s), 0);
}

static int start_server(void **state)
{
    (void)state;
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    server = fork();
    if (server == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        execl("/usr/bin/python3", "python3", "tests/unit/dns_server.py", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server_in = in[1];
    char port[16] = "";
    size_t n = 0;
    while (n < sizeof port - 1 && read(out[0], port + n, 1) == 1 && port[n] != '\n')
        n++;
    close(out[0]);
    assert_true(n > 1);
    snprintf(servers, sizeof servers, "127.0.0.1:%d", atoi(port));
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    int status;
    close(server_in);
    return waitpid(server, &status, 0) == server ? 0 : -1;
}

static int set_up(void **state)
{
    (void)state;
    struct io_settings s = {.conn_count_max = 16, .recv_buffer_count = 64, .restrict_ops = true};
    assert_int_equal(io_create(&io, &s), 0);
    assert_int_equal(io_enable(io), 0);
    io_turn(io, 0);
    wheel_init(&wheel, io_now_ns(io) / 1000000);
    open_dns(servers, 1000, 3000);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dns_destroy(&dns);
    assert_int_equal(wheel.count, 0);
    io_destroy(&io);
    return 0;
}

static void expect_address(const struct dns_answer *a, size_t i, const char *text)
{
    char got[IP_TEXT];
    assert_true(i < a->address_count);
    ip_format(&a->addresses[i], got);
    assert_string_equal(got, text);
}

static void test_mx(void **state)
{
    (void)state;
    struct probe p;
    const struct dns_answer *a = resolve(&p, DNS_MX, "MX.test");
    assert_int_equal(a->status, DNS_OK);
    assert_true(a->secure);
    assert_int_equal(a->ttl_s, 300);
    assert_int_equal(a->mx_count, 3);
    assert_string_equal(a->mx[0].name, "a.mx.test");
    assert_int_equal(a->mx[1].preference, 20); /* the server shuffles equals */
    assert_true(strcmp(a->mx[1].name, "c.mx.test") == 0 || strcmp(a->mx[1].name, "b.mx.test") == 0);
    assert_int_equal(a->mx[2].preference, 20);
    a = resolve(&p, DNS_MX, "null.test");
    assert_int_equal(a->mx_count, 1);
    assert_string_equal(a->mx[0].name, "");
    a = resolve(&p, DNS_MX, "alias.test");
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->mx_count, 1);
    assert_int_equal(a->ttl_s, 60); /* the least of the chain */
    a = resolve(&p, DNS_MX, "insecure.test");
    assert_int_equal(a->status, DNS_OK);
    assert_false(a->secure);
}

/* The AD bit of a resolver counts only when no other machine could have set it. */
static void test_secure_only_on_loopback(void **state)
{
    (void)state;
    char list[128];
    struct probe p;
    snprintf(list, sizeof list, "%s,192.0.2.53:53", servers); /* the second is not asked */
    open_dns(list, 1000, 3000);
    const struct dns_answer *a = resolve(&p, DNS_MX, "mx.test");
    assert_int_equal(a->status, DNS_OK);
    assert_false(a->secure);
}

static void test_addresses(void **state)
{
    (void)state;
    struct probe p;
    const struct dns_answer *a = resolve(&p, DNS_ADDRESS, "addr.test");
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->address_count, 3);
    assert_int_equal(a->ttl_s, 100);
    assert_true(a->secure);
    char all[3 * IP_TEXT] = "";
    for (size_t i = 0; i < 3; i++) {
        char t[IP_TEXT];
        ip_format(&a->addresses[i], t);
        strcat(strcat(all, t), " ");
    }
    assert_non_null(strstr(all, "192.0.2.1 "));
    assert_non_null(strstr(all, "192.0.2.2 "));
    assert_non_null(strstr(all, "2001:db8::1 "));
    a = resolve(&p, DNS_ADDRESS, "v4only.test");
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->address_count, 1);
    expect_address(a, 0, "192.0.2.9");
}

/* One half fails: what is there is used, but not kept long; without it the answer is unknown. */
static void test_half_answers(void **state)
{
    (void)state;
    struct probe p;
    const struct dns_answer *a = resolve(&p, DNS_ADDRESS, "half.test");
    assert_int_equal(a->status, DNS_OK);
    expect_address(a, 0, "192.0.2.7");
    assert_false(a->secure);
    assert_int_equal(a->ttl_s, 30);
    a = resolve(&p, DNS_ADDRESS, "bad-half.test");
    assert_int_equal(a->status, DNS_TEMP);
    assert_string_equal(a->error, "SERVFAIL");
}

static void test_ptr(void **state)
{
    (void)state;
    struct probe p = {.q.on_answer = on_answer};
    const struct dns_answer *a;
    struct ip ip;
    assert_int_equal(ip_parse(span_str("192.0.2.1"), &ip), 0);
    assert_int_equal(dns_ask_ptr(dns, &p.q, &ip, &a), 0);
    wait_for(&p);
    assert_string_equal(p.a.ptr, "out1.example.net");
    assert_int_equal(dns_ask_ptr(dns, &p.q, &ip, &a), 1);
    assert_string_equal(a->ptr, "out1.example.net");
    p.calls = 0;
    assert_int_equal(ip_parse(span_str("2001:db8::5"), &ip), 0);
    assert_int_equal(dns_ask_ptr(dns, &p.q, &ip, &a), 0);
    wait_for(&p);
    assert_string_equal(p.a.ptr, "six.example.net");
}

static void test_negative(void **state)
{
    (void)state;
    struct probe p;
    const struct dns_answer *a = resolve(&p, DNS_MX, "nx.test");
    assert_int_equal(a->status, DNS_NXDOMAIN);
    assert_int_equal(a->ttl_s, 7);
    a = resolve(&p, DNS_ADDRESS, "nx.test");
    assert_int_equal(a->status, DNS_NXDOMAIN);
    a = resolve(&p, DNS_MX, "addr.test");
    assert_int_equal(a->status, DNS_NODATA);
    assert_int_equal(a->ttl_s, 9);
    assert_int_equal(a->mx_count, 0);
    a = resolve(&p, DNS_MX, "servfail.test");
    assert_int_equal(a->status, DNS_TEMP);
    assert_string_equal(a->error, "SERVFAIL");
    assert_int_equal(a->ttl_s, 5);
    a = resolve(&p, DNS_MX, "refused.test");
    assert_int_equal(a->status, DNS_TEMP);
    assert_string_equal(a->error, "REFUSED");
    assert_int_equal(ask(&p, DNS_MX, "no such.test"), -EINVAL);
    assert_int_equal(ask(&p, DNS_MX, ""), -EINVAL);
    assert_int_equal(ask(&p, DNS_MX, "dot.test."), -EINVAL);
}

static void test_timeout(void **state)
{
    (void)state;
    open_dns(servers, 150, 400);
    struct probe p;
    uint64_t start = now_ms();
    const struct dns_answer *a = resolve(&p, DNS_MX, "silent.test");
    assert_int_equal(a->status, DNS_TEMP);
    assert_string_equal(a->error, "timeout");
    assert_true(p.at_ms - start >= 290 && p.at_ms - start < 900);
    /* The answer to another question does not count. */
    a = resolve(&p, DNS_MX, "forged.test");
    assert_int_equal(a->status, DNS_TEMP);
    assert_int_equal(a->mx_count, 0);
}

/* Truncated over UDP: asked again over TCP; the best 30 of 40 are kept, in order. */
static void test_truncated_and_many(void **state)
{
    (void)state;
    struct probe p;
    const struct dns_answer *a = resolve(&p, DNS_MX, "big.test");
    assert_int_equal(a->status, DNS_OK);
    assert_int_equal(a->mx_count, LIMIT_MX_HOSTS);
    for (size_t i = 0; i < LIMIT_MX_HOSTS; i++)
        assert_int_equal(a->mx[i].preference, i + 1);
    assert_int_equal(ask(&p, DNS_MX, "big.test"), 1); /* and from the cache */
    assert_int_equal(p.a.mx_count, LIMIT_MX_HOSTS);
    assert_string_equal(p.a.mx[29].name,
                        "host-with-a-very-long-name-30.in-a-long-domain-name.test");
}

static void test_slow_name_delays_nobody(void **state)
{
    (void)state;
    struct probe slow, fast;
    assert_int_equal(ask(&slow, DNS_MX, "slow.test"), 0);
    uint64_t start = now_ms();
    resolve(&fast, DNS_MX, "mx.test");
    assert_int_equal(slow.calls, 0);
    wait_for(&slow);
    assert_true(fast.at_ms - start < 300);
    assert_true(slow.at_ms - start >= 390);
}

static void test_sharing_and_cache(void **state)
{
    (void)state;
    struct probe p[5], q;
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(&p[i], DNS_ADDRESS, i % 2 ? "once.test" : "ONCE.test"), 0);
    dns_forget(&p[2].q);
    for (int i = 0; i < 5; i++) {
        if (i != 2)
            wait_for(&p[i]);
    }
    for (int i = 0; i < 5; i++) {
        if (i != 2)
            expect_address(&p[i].a, 0, "127.0.0.1"); /* one question for all */
    }
    assert_int_equal(p[2].calls, 0);
    dns_forget(&p[0].q); /* after the answer: harmless */
    assert_int_equal(ask(&q, DNS_ADDRESS, "once.test"), 1);
    assert_true(q.a.ttl_s >= 29 && q.a.ttl_s <= 30); /* ttl_min_s, less the time since */
    dns_flush(dns, "once.test");
    resolve(&q, DNS_ADDRESS, "once.test");
    expect_address(&q.a, 0, "127.0.0.2");
    /* The clock of the wheel ages the cache. */
    wheel.now_ms += 31000;
    wheel.cursor_ms = wheel.now_ms;
    assert_int_equal(ask(&q, DNS_ADDRESS, "once.test"), 0);
    dns_forget(&q.q);
}

static int nested_result;
static struct probe nested;
static void ask_again(struct probe *p)
{
    (void)p;
    dns_flush(dns, NULL);
    nested_result = ask(&nested, DNS_MX, "mx.test");
}

static void test_ask_from_inside_an_answer(void **state)
{
    (void)state;
    struct probe p, second;
    assert_int_equal(ask(&p, DNS_MX, "alias.test"), 0);
    assert_int_equal(ask(&second, DNS_MX, "alias.test"), 0);
    p.then = ask_again;
    wait_for(&p);
    wait_for(&second);
    assert_int_equal(second.a.mx_count, 1);
    wait_for(&nested);
    assert_int_equal(nested.a.mx_count, 3);
}

/* No server at all: told soon, from the wheel or a turn, to everybody, also to those who ask again
 * at once. */
static struct probe again;
static int again_left;
static void ask_on(struct probe *p)
{
    (void)p;
    dns_flush(dns, NULL);
    if (again_left-- > 0) {
        assert_int_equal(ask(&again, DNS_MX, "mx.test"), 0);
        again.then = ask_on;
    }
}

static void expect_no_server(const char *list)
{
    open_dns(list, 300, 1000);
    struct probe p[3];
    again_left = 5;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(&p[i], i == 1 ? DNS_ADDRESS : DNS_MX, "mx.test"), 0);
    p[0].then = ask_on;
    for (int i = 0; i < 3; i++) {
        wait_for(&p[i]);
        assert_int_equal(p[i].a.status, DNS_TEMP);
        assert_non_null(p[i].a.error);
    }
    uint64_t until = now_ms() + 5000;
    while (again_left >= 0 && now_ms() < until)
        turn();
    assert_int_equal(again_left, -1);
}

static void test_no_server(void **state)
{
    (void)state;
    expect_no_server("127.0.0.1:1");        /* refused: known after a turn */
    expect_no_server("255.255.255.255:53"); /* the kernel refuses at once */
    expect_no_server("255.255.255.255:53,127.0.0.1:1");
}

static void test_destroy_with_questions_open(void **state)
{
    (void)state;
    struct probe p[4];
    assert_int_equal(ask(&p[0], DNS_MX, "silent.test"), 0);
    assert_int_equal(ask(&p[1], DNS_ADDRESS, "silent.test"), 0);
    assert_int_equal(ask(&p[2], DNS_MX, "big.test"), 0);
    for (int i = 0; i < 3; i++)
        turn();
    assert_int_equal(ask(&p[3], DNS_MX, "slow.test"), 0);
    dns_destroy(&dns);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(p[0].calls + p[1].calls + p[3].calls, 0);
}

static void test_many_at_once(void **state)
{
    (void)state;
    enum { N = 500 };
    static struct probe p[N];
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof name, "mx.d%d.test", i);
        assert_int_equal(ask(&p[i], DNS_MX, name), 0);
    }
    int ok = 0;
    for (int i = 0; i < N; i++) {
        wait_for(&p[i]);
        ok += p[i].a.status == DNS_OK && p[i].a.mx_count == 3;
    }
    assert_int_equal(ok, N);
    /* The cache holds 100: the oldest are gone, the newest are there. */
    assert_int_equal(ask(&p[0], DNS_MX, "mx.d499.test"), 1);
    assert_int_equal(ask(&p[0], DNS_MX, "mx.d0.test"), 0);
    dns_forget(&p[0].q);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_mx),
        CASE(test_secure_only_on_loopback),
        CASE(test_addresses),
        CASE(test_half_answers),
        CASE(test_ptr),
        CASE(test_negative),
        CASE(test_timeout),
        CASE(test_truncated_and_many),
        CASE(test_slow_name_delays_nobody),
        CASE(test_sharing_and_cache),
        CASE(test_ask_from_inside_an_answer),
        CASE(test_no_server),
        CASE(test_destroy_with_questions_open),
        CASE(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
