/* config: the table of keys, walked: what is shown, refused, taken, and printed in the manual. */
#include "tests/unit/config_support.h"

#include "config/keys.h"
#include "config/value.h"

static char shown[8 << 20];

/* Without comments, which tell the source. */
static void strip(char *text)
{
    char *to = text;
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        char *comment = strstr(line, "  #");
        size_t n = (size_t)((comment != NULL && comment < end ? comment : end) - line);
        memmove(to, line, n);
        to += n;
        *to++ = '\n';
        line = end + 1;
    }
    *to = '\0';
}

static char *show(const char *yaml, const char *set)
{
    const struct config_input in = {yaml, strlen(yaml), "f.yaml", &set, set == NULL ? 0 : 1};
    struct text e = text_of(errors, sizeof errors);
    struct text t = text_of(shown, sizeof shown);
    int rc = config_show(&in, &e, &t);
    assert_string_equal(errors, "");
    assert_int_equal(rc, 0);
    assert_false(t.cut);
    return strdup(shown);
}

#define FULL                                                                                    \
    LEAST "hostname: mx.example.net\nlog: \"\"\nnode_id: 7\nuser: mochila\n"                    \
          "relay_from: [10.0.0.0/8, \"2001:db8::/32\"]\nrelay_domains: [a.example]\n"           \
          "tenants:\n  x: {pool: p, from: [10.1.0.0/16, \"::1\"], weight: 4, in_doubt: fail}\n" \
          "default_tenant: x\nsmtp: {command: 90s, size_max: 70000}\n"                          \
          "dns: {servers: [127.0.0.1, \"::1\"]}\napi: {listen: \"127.0.0.1:80\"}\n"             \
          "client: {connect: 1500ms, family: v4_only}\nlimits: {connections: 9}\n"              \
          "routes:\n"                                                                           \
          "- {domain: a.example, via: h}\n"                                                     \
          "- {domain: .a.example, via: \"[2001:db8::1]:26\", limits: {idle: 1m}}\n"             \
          "- {domain: b.example, limits: {connections: 1}}\n"                                   \
          "- {domain: c.example, family: v6_first}\n"                                           \
          "- {domain: \"*\", via: \"1.2.3.4\"}\n"                                               \
          "providers:\n  yahoo: {limits: {connections: 3}}\n  own: {mx: [.google.com, "         \
          "mx.a.example]}\nrefuse_from: [192.0.2.0/24]\n"                                       \
          "cluster: {name: west, listen: \"127.0.0.1:81\", source: 192.0.2.1, peers: {b: "      \
          "\"192.0.2.2:7525\", c: \"[::1]:7525\"}, interface: eth9, hook: /x}\n"

static void test_show_sources(void **state)
{
    (void)state;
    char *text = show(FULL, "queue.hold=true");
    static const char *const lines[] = {
        "node: a  # f.yaml:1\n",
        "node_id: 7  # f.yaml:6\n",
        "spool: /var/spool/mochila  # preset\n",
        "\n  hold: true  # --set\n",
        "\n  command: 90s  # f.yaml:13\n",
        "\n  connect: 1500ms  # f.yaml:16\n",
        "\n  servers: [\"127.0.0.1:53\", \"[::1]:53\"]  # f.yaml:14\n",
        "      - {address: 192.0.2.10, ehlo: out10.example.net, nic: \"\", weight: 1, home: a}  # "
        "f.yaml:3; preset: nic, weight, home\n",
        "  - {domain: c.example, family: v6_first}  # f.yaml:22\n",
        "  - {domain: a.example, via: \"h:25\", family: v4_only, limits: {connections: 50, "
        "new_connections_per_s: 0, messages_per_connection: 1000, messages_per_s: 0, recipients: "
        "100, idle: 30s}}  # f.yaml:19; preset: family, limits\n",
        "  own: {mx: [.google.com, mx.a.example], limits: {connections: 9, new_connections_per_s: "
        "10, messages_per_connection: 100, messages_per_s: 20, recipients: 50, idle: 5s}}  # "
        "f.yaml:26\n",
        "  google: {mx: [.googlemail.com], limits: {connections: 10, new_connections_per_s: 10, "
        "messages_per_connection: 50, messages_per_s: 20, recipients: 50, idle: 5s}}  # built-in\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        if (strstr(text, lines[i]) == NULL)
            fail_msg("not shown: %s in\n%s", lines[i], text);
    }
    free(text);
}

/* What is shown loads, and shows the same again. */
static void round_trip(const char *yaml, const char *set)
{
    char *once = show(yaml, set);
    char *twice = show(once, NULL);
    struct config *a, *b;
    assert_int_equal(set == NULL ? load(yaml, &a) : load_set(yaml, set, &a), 0);
    assert_int_equal(load(once, &b), 0);
    assert_int_equal(a->route_count, b->route_count);
    for (uint32_t i = 0; i < a->route_count; i++) {
        bool via = a->routes[i].host[0] != '\0';
        assert_int_equal(a->routes[i].limits_given, b->routes[i].limits_given);
        assert_int_equal(a->routes[i].family, b->routes[i].family);
        assert_true(via == (b->routes[i].host[0] != '\0'));
        assert_memory_equal(&a->routes[i].limits, &b->routes[i].limits, sizeof a->routes[i].limits);
    }
    assert_int_equal(a->default_tenant, b->default_tenant);
    assert_int_equal(a->provider_count, b->provider_count);
    assert_int_equal(config_needs_restart(a, b, &(struct text){0}), 0);
    strip(once);
    strip(twice);
    assert_string_equal(once, twice);
    config_free(&a);
    config_free(&b);
    free(once);
    free(twice);
}

static void test_show_round_trip(void **state)
{
    (void)state;
    round_trip(LEAST, NULL);
    round_trip(FULL, NULL);
    round_trip(FULL, "routes.0.limits={recipients: 0}");
    char *text = slurp("config/default.yaml");
    round_trip(text, "spool=/tmp/x");
    free(text);
    text = slurp("config/mochila.yaml");
    round_trip(text, "default_tenant=acme");
    free(text);
}

/*
 * Every key of the table, by overrides: what is out of range is refused with its text, the bounds
 * themselves are taken and arrive in the field.
 */
static const char *const places[SCOPE_COUNT] = {
    [SCOPE_TOP] = "",
    [SCOPE_SMTP] = "smtp.",
    [SCOPE_QUEUE] = "queue.",
    [SCOPE_CLIENT] = "client.",
    [SCOPE_SPOOL] = "spool_options.",
    [SCOPE_DNS] = "dns.",
    [SCOPE_API] = "api.",
    [SCOPE_CLUSTER] = "cluster.",
    [SCOPE_LIMITS] = "limits.",
    [SCOPE_POOL] = "pools.p.",
    [SCOPE_LANE] = "pools.p.lanes.0.",
    [SCOPE_TENANT] = "tenants.x.",
    [SCOPE_LISTENER] = "listen.0.",
    [SCOPE_ROUTE] = "routes.1.",
    [SCOPE_PROVIDER] = "providers.own.",
};

/* The errors of FULL with this override that name its key; the empty text when there are none. */
static const char *errors_of(enum key_scope scope, const struct config_key *k, const char *value,
                             struct config **out)
{
    static char line[1024];
    char set[512], path[256], mark[300];
    struct config *c;

    snprintf(path, sizeof path, "%s%s", places[scope], k->name);
    snprintf(set, sizeof set, "%s=%s", path, value);
    int rc = load_set(FULL, set, &c);
    assert_int_equal(rc == 0, errors[0] == '\0');
    /* Errors name items of lists in brackets. */
    char *dot = strstr(path, ".0."), *one = strstr(path, ".1.");
    if (dot != NULL)
        memmove(dot + 3, dot + 2, strlen(dot + 2) + 1);
    if (dot != NULL)
        memcpy(dot, "[0]", 3);
    if (one != NULL)
        memmove(one + 3, one + 2, strlen(one + 2) + 1);
    if (one != NULL)
        memcpy(one, "[1]", 3);
    snprintf(mark, sizeof mark, "--set: %s: ", path);
    const char *at = strstr(errors, mark);
    line[0] = '\0';
    if (at != NULL)
        snprintf(line, sizeof line, "%.*s", (int)(strcspn(at, "\n") - strlen(mark)),
                 at + strlen(mark));
    if (out != NULL)
        *out = c;
    else
        config_free(&c);
    return line;
}

static void refused_as(enum key_scope scope, const struct config_key *k, const char *value,
                       const char *found)
{
    char allowed[256], expected[512];
    struct text t = text_of(allowed, sizeof allowed);
    value_allowed(k, &t);
    snprintf(expected, sizeof expected, "%s is not %s", found, allowed);
    const char *line = errors_of(scope, k, value, NULL);
    if (strncmp(line, expected, strlen(expected)) != 0)
        fail_msg("%s%s=%s: %s instead of: %s", places[scope], k->name, value, line, expected);
}

static void refused(enum key_scope scope, const struct config_key *k, const char *value)
{
    char found[128];
    snprintf(found, sizeof found, "\"%s\"", value);
    refused_as(scope, k, value, found);
}

static void taken(enum key_scope scope, const struct config_key *k, uint64_t v)
{
    static const struct {
        enum key_scope scope;
        size_t base;
    } direct[] = {
        {SCOPE_TOP, 0},
        {SCOPE_SMTP, 0},
        {SCOPE_QUEUE, 0},
        {SCOPE_CLIENT, 0},
        {SCOPE_SPOOL, 0},
        {SCOPE_DNS, 0},
        {SCOPE_LIMITS, offsetof(struct config, limits)},
    };
    char value[64];
    const char *unit = k->type == KEY_SECONDS ? "s" : k->type == KEY_MILLISECONDS ? "ms" : "";
    struct config *c;

    snprintf(value, sizeof value, "%llu%s", (unsigned long long)v, unit);
    const char *line = errors_of(scope, k, value, &c);
    /* A bound may be too much for another key's preset: that is another error. */
    if (strstr(line, " is longer than ") == NULL)
        assert_string_equal(line, "");
    for (size_t i = 0; c != NULL && i < ARRAY_COUNT(direct); i++) {
        bool derived = v == 0 && strcmp(k->name, "node_id") == 0;
        if (direct[i].scope == scope && !derived)
            assert_int_equal(value_load((const uint8_t *)c + direct[i].base + k->offset, k->bytes),
                             v);
    }
    config_free(&c);
}

static void taken_word(enum key_scope scope, const struct config_key *k, const char *word)
{
    assert_string_equal(errors_of(scope, k, word, NULL), "");
}

static void walk_number(enum key_scope scope, const struct config_key *k)
{
    static const char *const never[] = {"x",  "-1",   "1.5", "0x10", "1e3", "18446744073709551616",
                                        "+5", "1_000"};
    const char *unit = k->type == KEY_SECONDS ? "s" : k->type == KEY_MILLISECONDS ? "ms" : "";
    char value[64];

    for (size_t i = 0; i < ARRAY_COUNT(never); i++)
        refused(scope, k, never[i]);
    snprintf(value, sizeof value, "%llu%s", (unsigned long long)k->max + 1, unit);
    refused(scope, k, value);
    if (k->min > 0) {
        snprintf(value, sizeof value, "%llu%s", (unsigned long long)k->min - 1, unit);
        refused(scope, k, value);
    }
    taken(scope, k, k->min);
    taken(scope, k, k->max);
}

static void walk_key(enum key_scope scope, const struct config_key *k)
{
    switch (k->type) {
    case KEY_COUNT:
    case KEY_SIZE:
    case KEY_SECONDS:
    case KEY_MILLISECONDS:
        walk_number(scope, k);
        break;
    case KEY_BOOL:
        refused(scope, k, "yes");
        refused(scope, k, "1");
        taken_word(scope, k, "true");
        taken_word(scope, k, "false");
        break;
    case KEY_ENUM:
        refused(scope, k, "nothing-like-it");
        for (unsigned i = 0; k->words[i] != NULL; i++)
            taken_word(scope, k, k->words[i]);
        break;
    case KEY_FLAGS:
    case KEY_SERVERS:
    case KEY_PEERS:
    case KEY_NETS:
    case KEY_DOMAINS:
    case KEY_PATTERNS:
    case KEY_RECORDS:
    case KEY_SECTION:
    case KEY_LIMITS:
    case KEY_NAMED:
        refused(scope, k, "word");
        break;
    case KEY_PATH:
    case KEY_POOL:
        refused_as(scope, k, "{}", "a mapping");
        refused_as(scope, k, "[]", "a list");
        break;
    default: /* words and addresses, each with a syntax of its own */
        refused_as(scope, k, "{}", "a mapping");
        refused(scope, k, "a b:c/[");
        break;
    }
}

static void test_walk_keys(void **state)
{
    (void)state;
    unsigned keys_seen = 0;
    for (enum key_scope scope = 0; scope < SCOPE_COUNT; scope++) {
        size_t count;
        const struct config_key *keys = config_keys_of(scope, &count);
        for (size_t i = 0; i < count; i++, keys_seen++) {
            assert_non_null(keys[i].help);
            assert_ptr_equal(config_key_find(scope, keys[i].name), &keys[i]);
            walk_key(scope, &keys[i]);
        }
    }
    print_message("%u keys\n", keys_seen);
    assert_in_range(keys_seen, 100, 200);
}

/* A preset that its own key would refuse ends the program: it is ours. Here all of them are read.
 */
static void test_presets_are_allowed(void **state)
{
    (void)state;
    for (enum key_scope scope = 0; scope < SCOPE_COUNT; scope++) {
        size_t count;
        const struct config_key *keys = config_keys_of(scope, &count);
        for (size_t i = 0; i < count; i++) {
            const struct config_key *k = &keys[i];
            if (!value_is_single(k->type))
                continue;
            uint64_t field[64] = {0};
            assert_true(k->type == KEY_VIA || k->bytes <= sizeof field);
            if (k->preset != NULL)
                assert_int_equal(value_parse(k, k->preset, field), 0);
            if (k->preset_via != NULL)
                assert_int_equal(value_parse(k, k->preset_via, field), 0);
            assert_true(k->preset != NULL || k->preset_note != NULL || k->required);
        }
    }
}

enum { MANUAL_BYTES = 256 << 10 };
static const char manual_path[] = "docs/man/mochila.yaml.5";
static const char manual_begin[] = ".\\\" The table of keys begins; the program writes it.\n";
static const char manual_end[] = ".\\\" The table of keys ends.\n";

/* With MOCHILA_WRITE_MANUAL=1 in the environment the page is brought up to date instead. */
static void test_manual(void **state)
{
    (void)state;
    char *page = slurp(manual_path);
    char *table = malloc(MANUAL_BYTES);
    assert_non_null(table);
    struct text t = text_of(table, MANUAL_BYTES);
    config_keys_man(&t);
    assert_false(t.cut);
    char *begin = strstr(page, manual_begin);
    assert_non_null(begin);
    begin += strlen(manual_begin);
    char *end = strstr(begin, manual_end);
    assert_non_null(end);
    if (getenv("MOCHILA_WRITE_MANUAL") != NULL) {
        FILE *f = fopen(manual_path, "w");
        assert_non_null(f);
        fprintf(f, "%.*s%s%s", (int)(begin - page), page, table, end);
        assert_int_equal(fclose(f), 0);
    } else {
        *end = '\0';
        if (strcmp(begin, table) != 0)
            fail_msg("%s is not what config_keys_man writes; see test_manual", manual_path);
    }
    free(table);
    free(page);
}

static void test_print(void **state)
{
    (void)state;
    struct text t = text_of(shown, sizeof shown);
    config_keys_print(&t);
    assert_false(t.cut);
    assert_non_null(strstr(shown, "smtp.size_max: size from 64K to 128M; preset: 50M\n"
                                  "    Largest message taken; above it 552 5.3.4.\n"));
    assert_non_null(strstr(shown, "limits.messages_per_s: whole number from 0 to 1000000; preset: "
                                  "20, with via 0\n"));
    assert_non_null(strstr(shown, "pools.NAME.lanes[].weight: whole number from 1 to 1000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_show_sources), cmocka_unit_test(test_show_round_trip),
        cmocka_unit_test(test_walk_keys),    cmocka_unit_test(test_presets_are_allowed),
        cmocka_unit_test(test_manual),       cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
