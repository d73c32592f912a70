/*
 * The choice of lanes: sticky, by weight, the same in every process; and what is never connected
 * to.
 */
#include "tests/sim/sim_conn.h"
#include "tests/unit/lane_support.h"

#define YAML                                                                      \
    "node: a\n"                                                                   \
    "listen: [{address: 0.0.0.0, port: 25}]\n"                                    \
    "pools:\n"                                                                    \
    "  p: {lanes: [{address: 192.0.2.10-192.0.2.17, ehlo: out%d.example.net}]}\n" \
    "  w: {lanes: [{address: 192.0.2.31, ehlo: w1.example.net}, "                 \
    "{address: 192.0.2.32, ehlo: w2.example.net, weight: 3}]}\n"                  \
    "tenants:\n"                                                                  \
    "  one: {pool: p}\n"                                                          \
    "  two: {pool: p}\n"                                                          \
    "  heavy: {pool: w}\n"

enum { DOMAINS = 4000 };
#define PINNED 0xb075ad2eu

static int set_up(void **state)
{
    (void)state;
    queue_make(YAML);
    lanes_make(NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_unmake();
    return 0;
}

static uint16_t tenant(const char *name)
{
    for (uint16_t i = 0; i < queue.tenant_count; i++)
        if (strcmp(queue.tenants[i].name, name) == 0)
            return i;
    fail_msg("no tenant %s", name);
    return 0;
}

static uint32_t lane_of(const char *name, unsigned domain)
{
    char text[32];
    snprintf(text, sizeof text, "d%u.test", domain);
    struct lane *l = route_lane(&queue, tenant(name), span_str(text));
    assert_non_null(l);
    return l->number;
}

/* Choices are remembered until a lane changes. */
static void set_gone(unsigned lane, bool gone)
{
    queue.lanes[lane].gone = gone;
    queue.lanes_version++;
}

static void set_held(unsigned lane)
{
    queue.lanes[lane].held = true;
    queue.lanes_version++;
}

static void choices_spread_and_stay(void **state)
{
    (void)state;
    unsigned count[16] = {0};
    for (unsigned i = 0; i < DOMAINS; i++) {
        uint32_t l = lane_of("one", i);
        assert_in_range(l, 1, 8);
        assert_int_equal(l, lane_of("one", i));
        count[l]++;
    }
    for (unsigned l = 1; l <= 8; l++)
        assert_in_range(count[l], 400, 600); /* 500 each; sigma is 21 */
}

/* The case of a domain is no other domain. */
static void case_does_not_matter(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        char upper[32];
        snprintf(upper, sizeof upper, "D%u.TEST", i);
        assert_int_equal(route_lane(&queue, tenant("one"), span_str(upper))->number,
                         lane_of("one", i));
    }
}

/* These numbers must never change: mail in the field would change its address at an upgrade. */
static void the_choice_is_pinned(void **state)
{
    (void)state;
    unsigned sum = 0;
    for (unsigned i = 0; i < 1000; i++)
        sum = sum * 31 + lane_of("one", i);
    assert_int_equal(sum, PINNED);
}

static void removing_a_lane_moves_only_its_share(void **state)
{
    (void)state;
    static uint32_t before[DOMAINS];
    for (unsigned i = 0; i < DOMAINS; i++)
        before[i] = lane_of("one", i);
    set_gone(2, true);
    unsigned moved = 0;
    for (unsigned i = 0; i < DOMAINS; i++) {
        uint32_t now = lane_of("one", i);
        assert_true(now != 3);
        if (before[i] != 3)
            assert_int_equal(now, before[i]);
        else
            moved++;
    }
    assert_in_range(moved, 400, 600);
    set_gone(2, false);
    for (unsigned i = 0; i < DOMAINS; i++)
        assert_int_equal(lane_of("one", i), before[i]); /* and it all comes back */
}

static void held_lanes_are_left_out_unless_all_are(void **state)
{
    (void)state;
    for (unsigned l = 0; l < 7; l++)
        set_held(l);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(lane_of("one", i), 8);
    set_held(7);
    unsigned seen = 0;
    for (unsigned i = 0; i < 200; i++)
        seen |= 1u << lane_of("one", i);
    assert_int_equal(seen, 0x1fe);
}

static void tenants_spread_apart(void **state)
{
    (void)state;
    unsigned same = 0;
    for (unsigned i = 0; i < DOMAINS; i++)
        same += lane_of("one", i) == lane_of("two", i);
    assert_in_range(same, 400, 600); /* one in eight, as chance has it */
}

static void weights_count(void **state)
{
    (void)state;
    unsigned heavier = 0;
    for (unsigned i = 0; i < DOMAINS; i++) {
        uint32_t l = lane_of("heavy", i);
        assert_in_range(l, 9, 10);
        heavier += l == 10;
    }
    assert_in_range(heavier, 2850, 3150); /* 3 in 4 */
}

/* --- sites --- */

static uint32_t site_of(const char *a, uint16_t pa, const char *b, uint16_t pb)
{
    struct site_host h[2] = {{.preference = pa}, {.preference = pb}};
    snprintf(h[0].name, sizeof h[0].name, "%s", a);
    snprintf(h[1].name, sizeof h[1].name, "%s", b);
    return site_intern(&queue, h, 2, NULL);
}

/* DNS-12: any order of answers and any numbers are one site, as long as they mean the same order of
 * trying. */
static void one_mx_set_is_one_site(void **state)
{
    (void)state;
    uint32_t s = site_of("a.mx.test", 10, "b.mx.test", 10);
    assert_true(s != 0);
    assert_int_equal(site_of("b.mx.test", 10, "a.mx.test", 10), s);
    assert_int_equal(site_of("b.mx.test", 77, "a.mx.test", 77), s);
    assert_string_equal(site_at(&queue, s)->key, "a.mx.test,b.mx.test");
    uint32_t ordered = site_of("a.mx.test", 10, "b.mx.test", 20);
    assert_int_not_equal(ordered, s);
    assert_int_equal(site_of("a.mx.test", 1, "b.mx.test", 2), ordered);
    assert_int_not_equal(site_of("b.mx.test", 10, "a.mx.test", 20), ordered);
    assert_string_equal(site_at(&queue, ordered)->key, "a.mx.test;b.mx.test");
}

static bool may(uint32_t site, const char *address)
{
    struct ip ip;
    assert_int_equal(ip_parse(span_str(address), &ip), 0);
    return site_address_ok(&queue, site_at(&queue, site), &ip);
}

static void addresses_that_are_never_contacted(void **state)
{
    (void)state;
    static const char *const never[] = {
        "0.0.0.0",         "0.1.2.3",     "127.0.0.1",  "127.255.0.1", "10.0.0.1",
        "172.16.0.1",      "192.168.1.1", "100.64.0.1", "224.0.0.1",   "239.1.1.1",
        "255.255.255.255", "169.254.0.1", "::",         "::1",         "fe80::1",
        "ff02::1",         "fc00::1",     "192.0.2.12" /* our lane; the listener is on all */};
    static const char *const fine[] = {"192.0.2.99",  "8.8.8.8",       "172.15.0.1", "172.32.0.1",
                                       "100.128.0.1", "223.255.255.1", "2001:db8::1"};
    uint32_t s = site_make("mx.dest.test");
    for (size_t i = 0; i < ARRAY_COUNT(never); i++)
        if (may(s, never[i]))
            fail_msg("%s would be contacted", never[i]);
    for (size_t i = 0; i < ARRAY_COUNT(fine); i++)
        if (!may(s, fine[i]))
            fail_msg("%s would not be contacted", fine[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(choices_spread_and_stay),
        T(case_does_not_matter),
        T(the_choice_is_pinned),
        T(removing_a_lane_moves_only_its_share),
        T(held_lanes_are_left_out_unless_all_are),
        T(tenants_spread_apart),
        T(weights_count),
        T(one_mx_set_is_one_site),
        T(addresses_that_are_never_contacted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
