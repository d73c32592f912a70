/* config: presets, records, look-ups, the files that are shipped, size. */
#include "config/config.h"

#include "tests/unit/config_support.h"

#include "base/rng.h"

#include <time.h>

static void test_presets_general(void **state)
{
    (void)state;
    struct config *c = good(LEAST);
    assert_string_equal(c->node, "a");
    assert_in_range(c->node_id, 1, 65535);
    assert_string_equal(c->hostname, "out10.example.net");
    assert_string_equal(c->spool, "/var/spool/mochila");
    assert_string_equal(c->run, "/run/mochila");
    assert_string_equal(c->log, "/var/log/mochila");
    assert_string_equal(c->api.socket, "/run/mochila/api.sock");
    assert_string_equal(c->api.listen, "");
    assert_string_equal(c->user, "");
    assert_int_equal(c->workers, 0);
    assert_true(c->pin);
    assert_int_equal(c->spool_options.segment_bytes, 64 << 20);
    assert_int_equal(c->spool_options.reserve_bytes, 64 << 20);
    assert_int_equal(c->spool_options.spares, 2);
    assert_true(c->dns.enabled);
    assert_string_equal(c->dns.servers, "");
    assert_int_equal(c->dns.query_ms, 5000);
    assert_int_equal(c->dns.total_ms, 30000);
    assert_int_equal(c->relay_from_count, 0);
    assert_int_equal(c->relay_domain_count, 0);
    config_free(&c);
    assert_null(c);
    config_free(&c);
}

static void test_presets_server(void **state)
{
    (void)state;
    struct config *c = good(LEAST);
    assert_int_equal(c->smtp.size_max, 50 << 20);
    assert_int_equal(c->smtp.recipients_max, 1000);
    assert_int_equal(c->smtp.connections_max, 20000);
    assert_int_equal(c->smtp.connections_per_ip, 1000);
    assert_int_equal(c->smtp.connections_per_net, 4000);
    assert_int_equal(c->smtp.accept_per_s_per_ip, 1000);
    assert_int_equal(c->smtp.command_s, 300);
    assert_int_equal(c->smtp.data_idle_s, 300);
    assert_int_equal(c->smtp.data_bytes_per_min, 1024);
    assert_int_equal(c->smtp.errors_max, 20);
    assert_int_equal(c->smtp.received_max, 100);
    assert_int_equal(c->smtp.drain_s, 30);
    assert_false(c->smtp.allow_address_literals);
    assert_false(c->smtp.check_sender_domain);
    assert_true(c->smtp.check_recipient_null_mx);
    const struct config_listener *l = &c->listeners[0];
    assert_int_equal(c->listener_count, 1);
    assert_int_equal(l->port, 25);
    assert_int_equal(l->role, ROLE_RELAY);
    assert_int_equal(l->offers, OFFER_ALL);
    assert_int_equal(l->bare, BARE_REJECT);
    assert_false(l->strict_syntax);
    assert_string_equal(l->tenant, "");
    config_free(&c);
}

/* RFC 5321 4.5.3.2 for each wait, 4.5.4.1 for the queue. */
static void test_presets_delivery(void **state)
{
    (void)state;
    struct config *c = good(LEAST);
    assert_int_equal(c->client.connect_ms, 30 * 1000);
    assert_int_equal(c->client.greeting_ms, 5 * 60 * 1000);
    assert_int_equal(c->client.ehlo_ms, 5 * 60 * 1000);
    assert_int_equal(c->client.mail_ms, 5 * 60 * 1000);
    assert_int_equal(c->client.rcpt_ms, 5 * 60 * 1000);
    assert_int_equal(c->client.data_ms, 2 * 60 * 1000);
    assert_int_equal(c->client.block_ms, 3 * 60 * 1000);
    assert_int_equal(c->client.dot_ms, 10 * 60 * 1000);
    assert_int_equal(c->client.rset_ms, 10 * 1000);
    assert_int_equal(c->client.quit_ms, 5 * 1000);
    assert_int_equal(c->client.port, 25);
    assert_false(c->client.allow_loopback);
    assert_false(c->client.allow_private);
    assert_true(c->client.chunking);
    assert_int_equal(c->client.family, FAMILY_ANY);
    assert_int_equal(c->queue.lifetime_s, 5 * 86400);
    assert_int_equal(c->queue.bounce_lifetime_s, 86400);
    assert_int_equal(c->queue.mailbox_full_lifetime_s, 86400);
    assert_int_equal(c->queue.retry_first_s, 15 * 60);
    assert_int_equal(c->queue.retry_greylist_s, 5 * 60);
    assert_int_equal(c->queue.retry_max_s, 4 * 3600);
    assert_int_equal(c->queue.retry_max_transactional_s, 3600);
    assert_int_equal(c->queue.retry_jitter_percent, 20);
    assert_int_equal(c->queue.entries_max, 16 << 20);
    assert_int_equal(c->queue.cache_bytes, 64 << 20);
    assert_in_range(c->queue.transactional_share, 1, 9);
    assert_false(c->queue.hold);
    config_free(&c);
}

static void assert_limits(const struct config_limits *l, const uint32_t e[6])
{
    assert_int_equal(l->connections, e[0]);
    assert_int_equal(l->new_connections_per_s, e[1]);
    assert_int_equal(l->messages_per_connection, e[2]);
    assert_int_equal(l->messages_per_s, e[3]);
    assert_int_equal(l->recipients, e[4]);
    assert_int_equal(l->idle_s, e[5]);
}

static const uint32_t usual[] = {10, 10, 100, 20, 50, 5};
static const uint32_t smarthost[] = {50, 0, 1000, 0, 100, 30};

static void test_limits(void **state)
{
    (void)state;
    const char *provider = "";
    struct config *c = good(LEAST "routes:\n"
                                  "- {domain: google.example, limits: {connections: 3}}\n"
                                  "- {domain: hub.example, via: 192.0.2.1}\n"
                                  "- {domain: slow.example, via: h.example, limits: {idle: 0}}\n"
                                  "- {domain: v6.example, family: v6_only}\n"
                                  "providers:\n"
                                  "  yahoo: {limits: {connections: 2}}\n"
                                  "  google: {mx: [mx.google.com]}\n"
                                  "  mine: {mx: [.mx.mine.example, .deep.mx.mine.example]}\n");
    assert_limits(&c->limits, usual);
    assert_limits(config_limits_for(c, NULL, NULL, &provider), usual);
    assert_null(provider);
    /* A provider by suffix; the operator's limits laid over the built-in ones. */
    assert_limits(config_limits_for(c, NULL, "MTA7.am0.YahooDNS.net", &provider),
                  (uint32_t[]){2, 10, 20, 10, 30, 5});
    assert_string_equal(provider, "yahoo");
    assert_limits(config_limits_for(c, NULL, "x.olc.protection.outlook.com", &provider),
                  (uint32_t[]){5, 10, 50, 5, 50, 5});
    assert_string_equal(provider, "outlook");
    (void)config_limits_for(c, NULL, "a-b.mail.protection.outlook.com", &provider);
    assert_string_equal(provider, "microsoft-365");
    /* mx replaces the names of the built-in provider, limits stay its own. */
    assert_limits(config_limits_for(c, NULL, "mx.google.com", &provider),
                  (uint32_t[]){10, 10, 50, 20, 50, 5});
    assert_string_equal(provider, "google");
    (void)config_limits_for(c, NULL, "aspmx.l.google.com", &provider);
    assert_null(provider);
    (void)config_limits_for(c, NULL, "a.deep.mx.mine.example", &provider);
    assert_string_equal(provider, "mine");
    /* A suffix is below its dot: not the name itself, not a name that only ends alike. */
    (void)config_limits_for(c, NULL, "mx.mine.example", &provider);
    assert_null(provider);
    (void)config_limits_for(c, NULL, "notyahoodns.net", &provider);
    assert_null(provider);
    /* A route's limits go first; a route without limits leaves them to the provider. */
    const struct config_route *r = config_route_for(c, span_str("Google.Example"));
    assert_limits(config_limits_for(c, r, "mx.google.com", &provider),
                  (uint32_t[]){3, 10, 100, 20, 50, 5});
    assert_string_equal(provider, "google");
    r = config_route_for(c, span_str("hub.example"));
    assert_limits(config_limits_for(c, r, NULL, &provider), smarthost);
    r = config_route_for(c, span_str("slow.example"));
    assert_limits(config_limits_for(c, r, NULL, &provider), (uint32_t[]){50, 0, 1000, 0, 100, 0});
    r = config_route_for(c, span_str("v6.example"));
    assert_int_equal(r->family, FAMILY_V6_ONLY);
    assert_int_equal(config_limits_for(c, r, "mta1.yahoodns.net", &provider)->connections, 2);
    config_free(&c);
}

static void test_limits_inherit(void **state)
{
    (void)state;
    const char *provider;
    struct config *c = good(LEAST "limits: {connections: 7, idle: 1m}\n"
                                  "routes: [{domain: a.example, limits: {recipients: 5}}]\n"
                                  "providers: {x: {mx: [.x.example], limits: {connections: 1}}}\n");
    assert_limits(&c->routes[0].limits, (uint32_t[]){7, 10, 100, 20, 5, 60});
    assert_limits(config_limits_for(c, NULL, "m.x.example", &provider),
                  (uint32_t[]){1, 10, 100, 20, 50, 60});
    config_free(&c);
}

static void test_routes(void **state)
{
    (void)state;
    static const struct {
        const char *domain, *route;
    } cases[] = {
        {"b.example", "b.example"},
        {"B.EXAMPLE", "b.example"},
        {"a.b.example", ".b.example"},
        {"x.a.b.example", ".b.example"},
        {"bb.example", "*"},
        {"example", "*"},
        {"deep.a.c.example", ".a.c.example"},
        {"a.c.example", ".c.example"},
        {"c.example", "*"},
        {"[192.0.2.1]", "*"},
        {"", "*"},
        {".", "*"},
    };
    struct config *c = good(LEAST "routes:\n"
                                  "- {domain: B.example, via: 1.2.3.4}\n"
                                  "- {domain: .b.example, via: 1.2.3.4}\n"
                                  "- {domain: .c.example, via: 1.2.3.4}\n"
                                  "- {domain: .a.c.example, via: 1.2.3.4}\n"
                                  "- {domain: \"*\", via: 1.2.3.4}\n");
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const struct config_route *r = config_route_for(c, span_str(cases[i].domain));
        assert_non_null(r);
        assert_string_equal(r->domain, cases[i].route);
    }
    char huge[4096];
    memset(huge, '.', sizeof huge);
    assert_string_equal(config_route_for(c, span_of(huge, sizeof huge))->domain, "*");
    config_free(&c);
    c = good(LEAST "routes: [{domain: b.example, via: 1.2.3.4}]\n");
    assert_null(config_route_for(c, span_str("c.example")));
    config_free(&c);
}

static void test_via_forms(void **state)
{
    (void)state;
    static const struct {
        const char *via, *host;
        uint16_t port;
    } cases[] = {
        {"Hub.example", "hub.example", 2525},
        {"hub.example:10025", "hub.example", 10025},
        {"hub", "hub", 2525},
        {"192.0.2.1", "[192.0.2.1]", 2525},
        {"192.0.2.1:26", "[192.0.2.1]", 26},
        {"[192.0.2.1]", "[192.0.2.1]", 2525},
        {"[192.0.2.1]:26", "[192.0.2.1]", 26},
        {"[2001:DB8::1]", "[2001:db8::1]", 2525},
        {"[2001:db8::1]:26", "[2001:db8::1]", 26},
    };
    static const char *const wrong[] = {
        "",           "::1",        "2001:db8::1:25", "hub:0",      "hub:65536", "hub:",
        "hub:x",      "[1.2.3.4",   "[hub]",          "[1.2.3.4]x", "1.2.3",     "a..b",
        "-a.example", "0.0.0.0:25", "[::]:25",        "224.0.0.1",  "[ff02::1]", "a b",
    };
    char yaml[1024];
    struct config *c;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        snprintf(yaml, sizeof yaml,
                 LEAST "client: {port: 2525}\nroutes: [{domain: d.example, via: \"%s\"}]\n",
                 cases[i].via);
        c = good(yaml);
        assert_string_equal(c->routes[0].host, cases[i].host);
        assert_int_equal(c->routes[0].port, cases[i].port);
        config_free(&c);
    }
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char expected[512];
        snprintf(yaml, sizeof yaml, LEAST "routes: [{domain: d.example, via: \"%s\"}]\n", wrong[i]);
        snprintf(expected, sizeof expected,
                 "f.yaml:4: routes[0].via: \"%s\" is not a next hop: host, host:port, [address] or "
                 "[address]:port (port 1 to 65535)\n",
                 wrong[i]);
        bad(yaml, expected);
    }
}

static void test_lanes(void **state)
{
    (void)state;
    struct config *c = good("node: a\nlisten: [{address: \"::1\", port: 25, role: submission}]\n"
                            "pools:\n"
                            "  one:\n"
                            "    lanes:\n"
                            "      - {address: 127.0.0.10-127.0.0.12, ehlo: o%d, weight: 3}\n"
                            "      - {address: 2001:db8::7, ehlo: v6.example.net, nic: eth0.7}\n"
                            "  two: {lanes: [{address: 192.0.2.200, ehlo: x%dy.example.net}]}\n");
    assert_int_equal(c->lane_count, 5);
    assert_int_equal(c->pool_count, 2);
    assert_int_equal(c->pools[0].lane_count, 4);
    assert_int_equal(c->pools[1].first_lane, 4);
    assert_int_equal(c->pools[1].lane_count, 1);
    char text[IP_TEXT];
    ip_format(&c->lanes[2].address, text);
    assert_string_equal(text, "127.0.0.12");
    assert_string_equal(c->lanes[0].ehlo, "o10");
    assert_string_equal(c->lanes[2].ehlo, "o12");
    assert_int_equal(c->lanes[2].weight, 3);
    assert_int_equal(c->lanes[2].pool, 0);
    assert_string_equal(c->lanes[3].nic, "eth0.7");
    assert_string_equal(c->lanes[4].ehlo, "x200y.example.net");
    assert_int_equal(c->lanes[4].pool, 1);
    assert_int_equal(c->listeners[0].bare, BARE_NORMALISE);
    /* The first lane has no full name, which the greeting needs. */
    assert_string_equal(c->hostname, "a.invalid");
    config_free(&c);
}

/* Against a linear search, with networks at random and one tenant's within each other. */
static void test_tenant_for(void **state)
{
    (void)state;
    static char yaml[64 << 10];
    struct rng rng;
    uint64_t seed = rng_entropy();
    rng_seed(&rng, seed);
    struct text t = text_of(yaml, sizeof yaml);
    text_puts(&t, LEAST "tenants:\n");
    for (unsigned i = 0; i < 200; i++) {
        unsigned net = i * 100 + (unsigned)rng_below(&rng, 100);
        text_fmt(&t, "  t%u: {pool: p, from: [10.%u.%u.0/24, \"2001:db8:%x::/48\"", i, net / 256,
                 net % 256, net);
        if (rng_below(&rng, 2) == 0)
            text_fmt(&t, ", 10.%u.%u.128/25, 10.%u.%u.4", net / 256, net % 256, net / 256,
                     net % 256);
        text_puts(&t, "]}\n");
    }
    struct config *c = good(yaml);
    for (unsigned n = 0; n < 20000; n++) {
        char address[IP_TEXT];
        struct ip ip;
        unsigned at = (unsigned)rng_below(&rng, 20100);
        if (rng_below(&rng, 2) == 0)
            snprintf(address, sizeof address, "10.%u.%u.%u", at / 256, at % 256,
                     (unsigned)rng_below(&rng, 256));
        else
            snprintf(address, sizeof address, "2001:db8:%x::%x", at, at);
        assert_int_equal(ip_parse(span_str(address), &ip), 0);
        uint16_t expected = c->default_tenant;
        for (uint32_t i = 0; i < c->tenant_count; i++) {
            for (uint32_t j = 0; j < c->tenants[i].net_count; j++) {
                if (ip_in_net(&ip, &c->tenant_nets[c->tenants[i].first_net + j]))
                    expected = (uint16_t)i;
            }
        }
        if (config_tenant_for(c, &ip) != expected)
            fail_msg("seed %llu: %s", (unsigned long long)seed, address);
    }
    config_free(&c);
}

static void test_samples(void **state)
{
    (void)state;
    struct config *c;
    struct text t = text_of(errors, sizeof errors);
    assert_int_equal(config_load_file("config/mochila.yaml", &t, &c), 0);
    assert_int_equal(c->lane_count, 10);
    config_free(&c);
    char *text = slurp("config/default.yaml");
    struct span s = config_default_yaml();
    assert_int_equal(s.n, strlen(text));
    assert_memory_equal(s.p, text, s.n);
    c = good(text);
    free(text);
    assert_string_equal(c->node, "demo");
    assert_false(c->dns.enabled);
    assert_int_equal(c->lane_count, 8);
    assert_int_equal(c->pool_count, 2);
    assert_string_equal(c->lanes[0].ehlo, "lane11.demo.invalid");
    assert_int_equal(c->listener_count, 2);
    const struct config_route *r = config_route_for(c, span_str("any.example"));
    assert_string_equal(r->host, "[127.0.0.1]");
    assert_int_equal(r->port, 2526);
    assert_int_equal(r->limits.messages_per_s, 0);
    struct ip ip;
    assert_int_equal(ip_parse(span_str("127.0.1.7"), &ip), 0);
    assert_string_equal(c->tenants[config_tenant_for(c, &ip)].name, "acme");
    assert_int_equal(ip_parse(span_str("127.0.0.1"), &ip), 0);
    assert_string_equal(c->tenants[config_tenant_for(c, &ip)].name, "default");
    config_free(&c);
}

static void test_needs_restart(void **state)
{
    (void)state;
    char keys[256];
    struct text t = text_of(keys, sizeof keys);
    struct config *a = good(LEAST "spool: /var/spool/a-longer-name\n");
    struct config *b = good(LEAST "spool: /x\nqueue: {hold: true}\napi: {listen: \"1.2.3.4:5\"}\n");
    assert_int_equal(config_needs_restart(a, a, &t), 0);
    assert_string_equal(keys, "");
    assert_int_equal(config_needs_restart(a, b, &t), 2);
    assert_string_equal(keys, "spool, api.listen");
    config_free(&b);
    t = text_of(keys, sizeof keys);
    b = good(LEAST "spool: /var/spool/a-longer-name\nqueue: {hold: true}\n");
    assert_int_equal(config_needs_restart(a, b, &t), 0);
    config_free(&a);
    config_free(&b);
}

/* 4096 lanes, 10,000 tenants with networks, 4000 routes. */
static void test_large(void **state)
{
    (void)state;
    size_t cap = 4 << 20;
    char *yaml = malloc(cap);
    assert_non_null(yaml);
    struct text t = text_of(yaml, cap);
    text_puts(&t, "node: a\nlisten: [{address: 0.0.0.0, port: 25}]\npools:\n  p:\n    lanes:\n");
    for (unsigned i = 0; i < 4096; i++)
        text_fmt(&t, "      - {address: 10.9.%u.%u, ehlo: out%u.example.net}\n", i / 256, i % 256,
                 i);
    text_puts(&t, "tenants:\n");
    for (unsigned i = 0; i < 10000; i++)
        text_fmt(&t, "  t%u: {pool: p, from: [10.%u.%u.0/24]}\n", i, 10 + i / 256, i % 256);
    text_puts(&t, "routes:\n");
    for (unsigned i = 0; i < 4000; i++)
        text_fmt(&t, "  - {domain: d%u.example, via: \"1.2.3.4\"}\n", i);
    assert_false(t.cut);
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    struct config *c = good(yaml);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    double s = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    print_message("4096 lanes, 10000 tenants, 4000 routes: %.3f s\n", s);
    assert_true(s < 1.0);
    assert_int_equal(c->lane_count, 4096);
    assert_int_equal(c->tenant_count, 10001);
    assert_int_equal(c->route_count, 4000);
    config_free(&c);
    text_puts(&t, "  - {domain: d3999.example, via: \"1.2.3.4\"}\n");
    assert_int_equal(load(yaml, &c), -EINVAL);
    assert_string_equal(errors, "f.yaml:18104: routes[4000].domain: d3999.example has a route "
                                "already (line 18103)\n");
    free(yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets_general),  cmocka_unit_test(test_presets_server),
        cmocka_unit_test(test_presets_delivery), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_inherit),   cmocka_unit_test(test_routes),
        cmocka_unit_test(test_via_forms),        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_tenant_for),       cmocka_unit_test(test_samples),
        cmocka_unit_test(test_needs_restart),    cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
