/* config: every class of error, with its exact text. */
#include "config/config.h"

#include "tests/unit/config_support.h"

static void bad_set(const char *set, const char *expected)
{
    struct config *c = (struct config *)errors;
    assert_int_equal(load_set(LEAST, set, &c), -EINVAL);
    assert_null(c);
    assert_string_equal(errors, expected);
}

static void test_lane_errors(void **state)
{
    (void)state;
#define LANES(text) \
    "node: a\nlisten: [{address: 0.0.0.0, port: 25}]\npools:\n  p:\n    lanes:\n" text
#define RANGE                                                                                     \
    "is not an IPv4 or IPv6 address of a host, or a range within the last octet of IPv4 such as " \
    "192.0.2.10-192.0.2.25\n"
    bad(LANES("    - {address: 10.0.0, ehlo: a.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0].address: \"10.0.0\" " RANGE);
    bad(LANES("    - {address: 10.0.0.9-10.0.0.8, ehlo: a.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0].address: \"10.0.0.9-10.0.0.8\" " RANGE);
    bad(LANES("    - {address: 10.0.0.9-10.0.1.10, ehlo: a.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0].address: \"10.0.0.9-10.0.1.10\" " RANGE);
    bad(LANES("    - {address: 0.0.0.0, ehlo: a.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0].address: \"0.0.0.0\" " RANGE);
    bad(LANES("    - {address: 10.0.0.1, ehlo: out}\n"),
        "f.yaml:6: pools.p.lanes[0].ehlo: \"out\" is not a full host name such as "
        "out10.example.net (only lanes on loopback may do with less)\n");
    bad(LANES("    - {address: 10.0.0.1, ehlo: 10.0.0.1}\n"),
        "f.yaml:6: pools.p.lanes[0].ehlo: \"10.0.0.1\" is not a host name such as "
        "out10.example.net\n");
    bad(LANES("    - {address: \"2001:db8::1\", ehlo: o%d.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0].ehlo: %d stands for the last octet of an IPv4 address\n");
    bad(LANES("    - {address: 10.0.0.1, ehlo: a.example.net}\n"
              "    - {address: 10.0.0.1, ehlo: b.example.net}\n"),
        "f.yaml:7: pools.p.lanes[1].address: 10.0.0.1 is a lane already (line 6)\n");
    bad(LANES("    - {address: 10.0.0.7, ehlo: a.example.net}\n"
              "    - {address: 10.0.0.6-10.0.0.8, ehlo: b%d.example.net}\n"),
        "f.yaml:7: pools.p.lanes[1].address: 10.0.0.7 is a lane already (line 6)\n");
    bad(LANES("    - {ehlo: a.example.net}\n"),
        "f.yaml:6: pools.p.lanes[0]: address is missing; it "
        "must be an IPv4 or IPv6 address of a host, or a "
        "range within the last octet of IPv4 such as "
        "192.0.2.10-192.0.2.25\n");
    bad(LANES("    - {address: 10.0.0.1, ehlo: a.example.net, weight: 0}\n"),
        "f.yaml:6: pools.p.lanes[0].weight: \"0\" is not a whole number from 1 to 1000\n");
    bad(LANES("    - {address: 10.0.0.1, ehlo: a.example.net, nic: ab/c}\n"),
        "f.yaml:6: pools.p.lanes[0].nic: \"ab/c\" is not an interface name (at most 15 bytes, no "
        "blanks, / or :)\n");
    bad(LANES("    - 10.0.0.1\n"),
        "f.yaml:6: pools.p.lanes[0]: \"10.0.0.1\" is not a mapping of keys to values\n");
    bad(LANES("     []\n"), "f.yaml:5: pools.p.lanes: has 0 items; 1 to 4096 are allowed\n");
    bad(LANES("     {}\n"), "f.yaml:5: pools.p.lanes: a mapping is not a list\n");
    bad("node: a\nlisten: [{address: 0.0.0.0, port: 25}]\npools:\n  p:\n",
        "f.yaml:4: pools.p: lanes is missing; it must be a list\n");
    bad("node: a\nlisten: [{address: 0.0.0.0, port: 25}]\npools:\n",
        "f.yaml:3: pools: nothing is not a mapping of names to their settings\n");
    bad("node: a\nlisten: [{address: 0.0.0.0, port: 25}]\npools: {}\n",
        "f.yaml:3: pools: has 0 names; 1 to 1024 are allowed\n");
}

static void test_keys_and_types(void **state)
{
    (void)state;
    bad(LEAST "tennants: {}\n", "f.yaml:4: tennants: unknown key; did you mean \"tenants\"?\n");
    bad(LEAST "smtp:\n  zzzzzzzz: 1\n",
        "f.yaml:5: smtp.zzzzzzzz: unknown key; known here: size_max, recipients_max, "
        "connections_max, connections_per_ip, connections_per_net, accept_per_s_per_ip, command, "
        "data_idle, data_bytes_per_min, errors_max, received_max, drain, allow_address_literals, "
        "check_sender_domain, check_recipient_null_mx, lookup_client_name\n");
    bad(LEAST "queue: {lifetime_s: 5d}\n",
        "f.yaml:4: queue.lifetime_s: unknown key; did you mean \"lifetime\"?\n");
    bad(LEAST "node: b\n", "f.yaml:4: node: given twice (first on line 1)\n");
    bad(LEAST "queue: {hold: true, hold: false}\n",
        "f.yaml:4: queue.hold: given twice (first on line 4)\n");
    bad("listen: [{address: 0.0.0.0, port: 25}]\n"
        "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: out10.example.net}]}}\n",
        "f.yaml:1: node is missing; it must be a name (1 to 32 of a-z, 0-9 and -, which is not the "
        "first)\n");
    bad(LEAST "smtp: 5\n", "f.yaml:4: smtp: \"5\" is not a mapping of keys to values\n");
    bad(LEAST "smtp: []\n", "f.yaml:4: smtp: a list is not a mapping of keys to values\n");
    bad(LEAST "relay_from: 10.0.0.0/8\n", "f.yaml:4: relay_from: \"10.0.0.0/8\" is not a list\n");
    bad(LEAST "workers: [1]\n", "f.yaml:4: workers: a list is not a whole number from 0 to 64\n");
    bad(LEAST "workers:\n", "f.yaml:4: workers: nothing is not a whole number from 0 to 64\n");
    bad(LEAST "pin: yes\n", "f.yaml:4: pin: \"yes\" is not true or false\n");
    bad(LEAST "client: {family: v4}\n",
        "f.yaml:4: client.family: \"v4\" is not one of any, v4_first, v6_first, v4_only, "
        "v6_only\n");
    bad(LEAST "client: {family: v4_frist}\n",
        "f.yaml:4: client.family: \"v4_frist\" is not one of any, v4_first, v6_first, v4_only, "
        "v6_only; did you mean \"v4_first\"?\n");
    struct config *c = good(LEAST "smtp:\nrelay_from:\nroutes:\ntenants:\nlimits: {}\n");
    assert_int_equal(c->route_count, 0);
    config_free(&c);
}

static void test_values(void **state)
{
    (void)state;
    bad(LEAST "queue: {lifetime: 5}\n", "f.yaml:4: queue.lifetime: \"5\" is not a duration from 1s "
                                        "to 60d (a number with s, m, h or d)\n");
    bad(LEAST "queue: {lifetime: 1500ms}\n", "f.yaml:4: queue.lifetime: \"1500ms\" is not a "
                                             "duration from 1s to 60d (a number with s, m, h or "
                                             "d)\n");
    bad(LEAST "client: {dot: 2h}\n", "f.yaml:4: client.dot: \"2h\" is not a duration from 10ms to "
                                     "1h (a number with ms, s, m, h or d)\n");
    bad(LEAST "smtp: {size_max: 999999999999G}\n",
        "f.yaml:4: smtp.size_max: \"999999999999G\" is not a size from 64K to 128M (bytes, or a "
        "number with K, M or G)\n");
    bad(LEAST "smtp: {size_max: 50m}\n",
        "f.yaml:4: smtp.size_max: \"50m\" is not a size from 64K to 128M (bytes, or a number with "
        "K, M or G)\n");
    bad(LEAST "relay_from: [10.0.0.0/8, 10.0.0.1/8]\n",
        "f.yaml:4: relay_from[1]: \"10.0.0.1/8\" is not a network such as 10.0.0.0/8, 192.0.2.1 or "
        "2001:db8::/32 (all bits after the prefix 0)\n");
    bad(LEAST "relay_domains: [example.net.]\n",
        "f.yaml:4: relay_domains[0]: \"example.net.\" is not a domain such as example.net\n");
    bad(LEAST "hostname: mail\n",
        "f.yaml:4: hostname: \"mail\" is not a full host name such as mail.example.net\n");
    bad(LEAST "spool: \"\"\n", "f.yaml:4: spool: \"\" is not a path of at most 255 bytes\n");
    bad(LEAST "user: a b\n", "f.yaml:4: user: \"a b\" is not a name of the system's accounts\n");
    bad(LEAST "dns: {servers: [9.9.9.9, x]}\n",
        "f.yaml:4: dns.servers[1]: \"x\" is not an address, address:port or [address]:port\n");
    bad(LEAST "api: {listen: localhost}\n",
        "f.yaml:4: api.listen: \"localhost\" is not address:port or [address]:port\n");
    bad(LEAST "cluster: {name: x, listen: \"1.2.3.4:5\", peers: {B: \"1.2.3.4:5\", b: \"c:5\", "
              "a: \"1.2.3.4:5\"}, source: 192.0.2.10}\n",
        "f.yaml:4: cluster.peers.B: its key is not a name of a node (1 to 32 of a-z, 0-9 and -)\n"
        "f.yaml:4: cluster.peers.b: \"c:5\" is not address:port or [address]:port\n"
        "f.yaml:4: cluster.peers: a is this node itself\n"
        "f.yaml:4: cluster.source: is the address of a lane\n");
    bad(LEAST "cluster: {name: x, peers: {b: \"1.2.3.4:5\"}}\n",
        "f.yaml:4: cluster: listen is missing: peers whose names sort after a connect to this "
        "node\n");
    bad(LEAST "cluster: {name: x, listen: \"192.0.2.10:5\", peers: {b: \"[::ffff:c000:20a]:5\"}}\n",
        "f.yaml:4: cluster.listen: is the address of a lane\n"
        "f.yaml:4: cluster.peers: b is at the address of a lane, which may move\n");
    bad(LEAST "cluster: {driver: l2}\n",
        "f.yaml:4: cluster.driver: driver l2 needs cluster.interface: where lanes' addresses "
        "belong\n");
    bad(LEAST "cluster: {driver: exec}\n", "f.yaml:4: cluster.driver: driver exec needs "
                                           "cluster.hook: the program that moves addresses\n");
    bad(LEAST "cluster: {hook: x}\n", "f.yaml:4: cluster.hook: is no absolute path\n");
    struct config *c = good(LEAST "client: {connect: 250ms, dot: 1h, rset: 90s}\n"
                                  "smtp: {size_max: 1048576, data_idle: 1h}\n"
                                  "dns: {servers: [127.0.0.1, \"[::1]:5353\", \"::2\"]}\n"
                                  "api: {listen: \"[::1]:8080\"}\n"
                                  "relay_domains: [Example.NET]\nlog: \"\"\n");
    assert_int_equal(c->client.connect_ms, 250);
    assert_int_equal(c->client.dot_ms, 3600000);
    assert_int_equal(c->client.rset_ms, 90000);
    assert_int_equal(c->smtp.size_max, 1 << 20);
    assert_int_equal(c->smtp.data_idle_s, 3600);
    assert_string_equal(c->dns.servers, "127.0.0.1:53,[::1]:5353,[::2]:53");
    assert_string_equal(c->api.listen, "[::1]:8080");
    assert_string_equal(c->relay_domains[0], "example.net");
    assert_string_equal(c->log, "");
    config_free(&c);
}

static void test_listeners(void **state)
{
    (void)state;
    bad(LEAST "tenants: {x: {pool: p}}\ndefault_tenant: y\n",
        "f.yaml:5: default_tenant: there is no tenant \"y\"\n");
#define LISTEN(text) \
    "node: a\npools: {p: {lanes: [{address: 192.0.2.10, ehlo: o.example.net}]}}\n" text
    bad(LISTEN("listen:\n"), "f.yaml:3: listen: nothing is not a list\n");
    bad(LISTEN("listen: []\n"), "f.yaml:3: listen: has 0 items; 1 to 64 are allowed\n");
    bad(LISTEN(
            "listen: [{address: 1.2.3.4, port: 25},\n {address: 1.2.3.4, port: 25, role: mx}]\n"),
        "f.yaml:4: listen[1]: address and port are listened on already (line 3)\n");
    bad(LISTEN("listen: [{address: 1.2.3.4, port: 25, tenant: z}]\n"),
        "f.yaml:3: listen[0].tenant: there is no tenant \"z\"\n");
    bad(LISTEN("listen: [{address: 1.2.3.4, port: 70000, role: rely}]\n"),
        "f.yaml:3: listen[0].port: \"70000\" is not a whole number from 1 to 65535\n"
        "f.yaml:3: listen[0].role: \"rely\" is not one of relay, submission, mx; did you mean "
        "\"relay\"?\n");
    bad(LISTEN("listen: [{address: 1.2.3.4, port: 25, offers: [size, chunkin]}]\n"),
        "f.yaml:3: listen[0].offers[1]: \"chunkin\" is not one of pipelining, 8bitmime, size, "
        "enhancedstatuscodes, chunking, smtputf8; did you mean \"chunking\"?\n");
    struct config *c =
        good(LISTEN("listen:\n- {address: 1.2.3.4, port: 25, offers: [], bare: normalise}\n"
                    "- {address: 1.2.3.4, port: 587, role: submission, tenant: default,\n"
                    "   offers: [size, chunking], bare: reject}\n"));
    assert_int_equal(c->listeners[0].offers, 0);
    assert_int_equal(c->listeners[0].bare, BARE_NORMALISE);
    assert_int_equal(c->listeners[1].offers, OFFER_SIZE | OFFER_CHUNKING);
    assert_int_equal(c->listeners[1].bare, BARE_REJECT);
    assert_string_equal(c->listeners[1].tenant, "default");
    config_free(&c);
}

static void test_tenants(void **state)
{
    (void)state;
    bad(LEAST "tenants: {x: {pool: q}}\n", "f.yaml:4: tenants.x.pool: there is no pool \"q\"\n");
    bad("node: a\nlisten: [{address: 0.0.0.0, port: 25}]\n"
        "tenants: {x: {pool: blk}}\n"
        "pools: {bulk: {lanes: [{address: 192.0.2.10, ehlo: o.example.net}]}}\n",
        "f.yaml:3: tenants.x.pool: there is no pool \"blk\"; did you mean \"bulk\"?\n");
    bad(LEAST "tenants: {x: }\n",
        "f.yaml:4: tenants.x: pool is missing; it must be the name of a pool\n");
    bad(LEAST "tenants: {X: {pool: p}}\n",
        "f.yaml:4: tenants.X: its key is not a name (1 to 32 of a-z, 0-9 and -, which is not the "
        "first)\n");
    bad(LEAST "tenants:\n  x: {pool: p, from: [10.0.0.0/8]}\n"
              "  y:\n    pool: p\n    from: [192.0.2.1,\n      10.1.0.0/16]\n",
        "f.yaml:9: tenants.y.from[1]: overlaps with a network of tenant x (line 5)\n");
    bad(LEAST "tenants:\n  x: {pool: p, from: [2001:db8:1::/48]}\n"
              "  y: {pool: p, from: [10.0.0.0/8]}\n"
              "  z: {pool: p, from: [\"::/0\"]}\n",
        "f.yaml:7: tenants.z.from[0]: overlaps with a network of tenant x (line 5)\n");
    struct config *c = good(LEAST "tenants:\n"
                                  "  x: {pool: p, from: [10.0.0.0/8, 10.1.0.0/16], lifetime: 30m}\n"
                                  "  default: {pool: p, class: transactional, in_doubt: hold}\n");
    assert_int_equal(c->tenant_count, 2);
    assert_int_equal(c->default_tenant, 1);
    assert_int_equal(c->tenants[0].lifetime_s, 1800);
    assert_int_equal(c->tenants[0].net_count, 2);
    assert_int_equal(c->tenants[1].class_, CLASS_TRANSACTIONAL);
    assert_int_equal(c->tenants[1].in_doubt, IN_DOUBT_HOLD);
    config_free(&c);
    c = good(LEAST "tenants: {x: {pool: p}}\n");
    assert_int_equal(c->tenant_count, 2);
    assert_string_equal(c->tenants[c->default_tenant].name, "default");
    assert_int_equal(c->tenants[c->default_tenant].weight, 1);
    config_free(&c);
    c = good(LEAST "tenants: {x: {pool: p}}\ndefault_tenant: x\n");
    assert_int_equal(c->tenant_count, 1);
    assert_int_equal(c->default_tenant, 0);
    config_free(&c);
}

static void test_route_errors(void **state)
{
    (void)state;
    bad(LEAST "routes: [{domain: \"*\"}]\n",
        "f.yaml:4: routes[0].domain: a route of all domains needs via; for limits and family of "
        "all others see `limits` and `client.family`\n");
    bad(LEAST "routes: [{domain: a.example}]\n",
        "f.yaml:4: routes[0]: says nothing: give it via, limits or family\n");
    bad(LEAST "routes:\n- {domain: a.example, via: h}\n- {domain: A.example, via: h}\n",
        "f.yaml:6: routes[1].domain: a.example has a route already (line 5)\n");
    bad(LEAST "routes: [{via: h}]\n",
        "f.yaml:4: routes[0]: domain is missing; it must be a domain, .domain for all below it, or "
        "\"*\" for all others\n");
    bad(LEAST "dns: {enabled: false}\nroutes: [{domain: a.example, via: h.example}]\n",
        "f.yaml:5: routes[0].via: \"h.example\" cannot be looked up while dns.enabled is false; "
        "write an address\n");
    bad(LEAST "routes: [{domain: a.example, via: h, limits: {connection: 1}}]\n",
        "f.yaml:4: routes[0].limits.connection: unknown key; did you mean \"connections\"?\n");
    bad(LEAST "providers: {x: {limits: {idle: 1s}}}\n",
        "f.yaml:4: providers.x: mx is missing: names of mail exchangers such as "
        "[.mx.example.net]\n");
    bad(LEAST "providers: {x: {mx: [.a.example]}, y: {mx: [b.example, .A.example]}}\n",
        "f.yaml:4: providers.y.mx[1]: .a.example belongs to provider x already\n");
}

static void test_relations(void **state)
{
    (void)state;
    bad(LEAST "queue: {retry_first: 2h, retry_max: 1h}\n",
        "f.yaml:4: queue.retry_first: retry_first (2h) is longer than retry_max (1h)\n");
    bad(LEAST "queue: {retry_max: 10m}\n",
        "f.yaml:4: queue: retry_first (15m) is longer than retry_max (10m)\n");
    bad(LEAST "dns: {total: 100ms}\n", "f.yaml:4: dns: query (5s) is longer than total (100ms)\n");
    bad(LEAST "spool_options: {segment: 5000000}\n",
        "f.yaml:4: spool_options.segment: is not a multiple of 1M\n");
    char yaml[1024], expected[512], path[201];
    memset(path, 'r', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    snprintf(yaml, sizeof yaml, LEAST "run: /%s\n", path);
    snprintf(expected, sizeof expected,
             "f.yaml:4: run: is too long for a socket below it (at most 98 bytes)\n");
    bad(yaml, expected);
}

static void test_yaml_errors(void **state)
{
    (void)state;
    bad("", "f.yaml: holds no keys; a configuration is lines such as `node: a`\n");
    bad("# nothing\n", "f.yaml: holds no keys; a configuration is lines such as `node: a`\n");
    bad("- a\n", "f.yaml:1: holds no keys; a configuration is lines such as `node: a`\n");
    bad(LEAST "hostname: &x mx.example.net\n",
        "f.yaml:4: hostname: anchors (&name) are not taken; write the value where it is used\n");
    bad(LEAST "spool: &x /a\nrun: *x\n",
        "f.yaml:4: spool: anchors (&name) are not taken; write the value where it is used\n"
        "f.yaml:5: run: aliases (*name) are not taken; a value that begins with * needs quotes\n");
    bad(LEAST "workers: !!int 3\n", "f.yaml:4: workers: tags (!name) are not taken\n");
    bad(LEAST "---\nnode: b\n", "f.yaml:4: one document only (--- stands twice)\n");
    bad(LEAST "routes: [{domain: *, via: h}]\n",
        "f.yaml:4: YAML: while scanning an alias: did not find expected alphabetic or numeric "
        "character; a value that begins with * needs quotes\n");
    bad(LEAST "smtp:\n\tcommand: 5m\n",
        "f.yaml:5: YAML: while scanning for the next token: found character that cannot start any "
        "token; indent with blanks, not tabs, and quote values that begin with % @ or `\n");
    bad(LEAST "? [a]\n: b\n", "f.yaml:4: a key is one word, not a list or mapping\n");
    bad(LEAST "spool: \"/a\\nb\"\n", "f.yaml:4: spool: holds a character other than printable "
                                     "ASCII, or runs over several lines\n");
    bad(LEAST "spool: \"/\\0\"\n", "f.yaml:4: spool: holds a character other than printable ASCII, "
                                   "or runs over several lines\n");
    bad(LEAST "x: [[[[[[[[[[[[[1]]]]]]]]]]]]]\n", "f.yaml:4: nested too deep\n");
    assert_int_equal(load(LEAST "spool: \xff\n", &(struct config *){NULL}), -EINVAL);
    assert_non_null(strstr(errors, "the file must be UTF-8 text\n"));
}

static void test_error_count(void **state)
{
    (void)state;
    char yaml[8192];
    struct text t = text_of(yaml, sizeof yaml);
    text_puts(&t, LEAST "relay_from:\n");
    for (unsigned i = 0; i < 60; i++)
        text_fmt(&t, "- x%u\n", i);
    assert_int_equal(load(yaml, &(struct config *){NULL}), -EINVAL);
    unsigned lines = 0;
    for (const char *p = errors; *p != '\0'; p++)
        lines += *p == '\n';
    assert_int_equal(lines, CONFIG_ERRORS_MAX + 1);
    assert_non_null(strstr(errors, "f.yaml:54: relay_from[49]: \"x49\""));
    assert_null(strstr(errors, "\"x50\""));
    assert_non_null(strstr(errors, "\nf.yaml: more than 50 errors; the rest is not shown\n"));
    /* Long and hostile texts are cut and quoted. */
    char word[400], expected[512];
    memset(word, 'w', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    snprintf(yaml, sizeof yaml, LEAST "workers: %s\n", word);
    snprintf(expected, sizeof expected,
             "f.yaml:4: workers: \"%.60s\"... is not a whole number from 0 to 64\n", word);
    bad(yaml, expected);
    bad(LEAST "workers: 'a\"b'\n",
        "f.yaml:4: workers: \"a\\\"b\" is not a whole number from 0 to 64\n");
}

static void test_overrides(void **state)
{
    (void)state;
    struct config *c;
    static const char *const sets[] = {
        "spool=/tmp/s",
        "smtp.size_max=1M",
        "queue.hold=true",
        "listen.0.port=2525",
        "relay_from=[10.0.0.0/8, 127.0.0.0/8]",
        "tenants.x={pool: p}",
        "tenants.x.weight=7",
        "pools.q={lanes: [{address: 192.0.2.99, ehlo: b.example.net}]}",
        "log=",
        "node=b",
        "pools.p.home=b",
    };
    const struct config_input in = {LEAST "smtp: {size_max: 2M, command: 1m}\n",
                                    strlen(LEAST "smtp: {size_max: 2M, command: 1m}\n"), "f.yaml",
                                    sets, ARRAY_COUNT(sets)};
    struct text t = text_of(errors, sizeof errors);
    int rc = config_load_with(&in, &t, &c);
    assert_string_equal(errors, "");
    assert_int_equal(rc, 0);
    assert_string_equal(c->node, "b");
    assert_string_equal(c->spool, "/tmp/s");
    assert_string_equal(c->log, "");
    assert_int_equal(c->smtp.size_max, 1 << 20);
    assert_int_equal(c->smtp.command_s, 60);
    assert_true(c->queue.hold);
    assert_int_equal(c->listeners[0].port, 2525);
    assert_int_equal(c->relay_from_count, 2);
    assert_int_equal(c->tenants[0].weight, 7);
    assert_int_equal(c->pool_count, 2);
    config_free(&c);

    bad_set("workers=x", "--set: workers: \"x\" is not a whole number from 0 to 64\n");
    bad_set("smtp.sizemax=1M", "--set: smtp.sizemax: unknown key; did you mean \"size_max\"?\n");
    bad_set("workers", "--set workers: write key=value, such as smtp.size_max=10M\n");
    bad_set("=1", "--set =1: write key=value, such as smtp.size_max=10M\n");
    bad_set("listen.1.port=1",
            "--set listen.1.port=1: there is no such place in the configuration\n");
    bad_set("listen.1={port: 1}", "--set listen.1={port: 1}: the list has no such item\n");
    bad_set("node.x=1", "--set node.x=1: there is no such place in the configuration\n");
    bad_set("workers=[1", "--set workers=[1: YAML: while parsing a flow sequence: did not find "
                          "expected ',' or ']'\n");
    bad_set("a.b.c.d.e.f.g.h.i.j.k.l.m=1",
            "--set a.b.c.d.e.f.g.h.i.j.k.l.m=1: there is no such place in the configuration\n");
    bad_set("queue.retry_max=1s",
            "--set: queue: retry_first (15m) is longer than retry_max (1s)\n"
            "--set: queue: retry_greylist (5m) is longer than retry_max (1s)\n");
}

static void test_files(void **state)
{
    (void)state;
    struct config *c;
    struct text t = text_of(errors, sizeof errors);
    assert_int_equal(config_load_file("/nonexistent/f.yaml", &t, &c), -ENOENT);
    assert_string_equal(errors, "/nonexistent/f.yaml: cannot be read: No such file or directory\n");
    t = text_of(errors, sizeof errors);
    assert_int_equal(config_load_file("/", &t, &c), -EISDIR);
    assert_string_equal(errors, "/: cannot be read: Is a directory\n");
    t = text_of(errors, sizeof errors);
    assert_int_equal(config_load_file("/dev/zero", &t, &c), -EFBIG);
    assert_string_equal(errors, "/dev/zero: is larger than 8 MiB\n");
    t = text_of(errors, sizeof errors);
    assert_int_equal(config_load("", CONFIG_FILE_BYTES_MAX + 1, "f.yaml", &t, &c), -EINVAL);
    assert_string_equal(errors, "f.yaml: is larger than 8 MiB\n");
}

#define NODE_A "node: a\nlisten: [{address: 0.0.0.0, port: 25}]\n"
#define IN_X   "cluster: {name: x, listen: \"1.2.3.4:5\", peers: {b: \"1.2.3.5:5\"}}\n"
#define LANE   "address: 192.0.2.1, ehlo: o.example"
#define LANE_2 "address: 192.0.2.2-192.0.2.3, ehlo: o%d.example"

/* Every lane of a cluster has a home among its nodes; a lane's own goes before the pool's. */
static void test_homes(void **state)
{
    (void)state;
    bad(NODE_A "pools: {p: {lanes: [{" LANE "}, {" LANE_2 "}]}}\n" IN_X,
        "f.yaml:3: pools.p: home is missing: in a cluster every lane has one, which is a or one of "
        "cluster.peers\n");
    bad(NODE_A "pools: {p: {home: c, lanes: [{" LANE ", home: b}, {" LANE_2 "}]}}\n" IN_X,
        "f.yaml:3: pools.p.home: c is neither this node (a) nor one of cluster.peers\n");
    bad(NODE_A "pools: {p: {home: b, lanes: [{" LANE ", home: c}]}}\n" IN_X,
        "f.yaml:3: pools.p.lanes[0].home: c is neither this node (a) nor one of cluster.peers\n");
    bad(NODE_A "pools: {p: {home: b, lanes: [{" LANE "}]}}\n",
        "f.yaml:3: pools.p.home: home is b, but without cluster.name there is no node but a\n");
    struct config *c =
        good(NODE_A "pools: {p: {home: b, lanes: [{" LANE ", home: a}, {" LANE_2 "}]}}\n" IN_X);
    assert_string_equal(c->lanes[0].home, "a");
    assert_string_equal(c->lanes[1].home, "b");
    assert_string_equal(c->lanes[2].home, "b");
    config_free(&c);
    c = good(NODE_A "pools: {p: {lanes: [{" LANE "}]}}\n");
    assert_string_equal(c->lanes[0].home, "");
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_homes),
        cmocka_unit_test(test_lane_errors), cmocka_unit_test(test_keys_and_types),
        cmocka_unit_test(test_values),      cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_tenants),     cmocka_unit_test(test_route_errors),
        cmocka_unit_test(test_relations),   cmocka_unit_test(test_yaml_errors),
        cmocka_unit_test(test_error_count), cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
