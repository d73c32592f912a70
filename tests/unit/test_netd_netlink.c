/* netlink, arp_frame, request: what netd writes to the kernel and the wire, byte for byte, and what
 * it makes of what comes from there. */
#include "master/netd/arp_frame.h"
#include "master/netd/netlink.h"
#include "master/netd/request.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(span_str(text), &ip), 0);
    return ip;
}

static void expect_bytes(const uint8_t *got, size_t got_n, const char *hex)
{
    size_t n = 0;
    for (; hex[0] != '\0'; hex += hex[0] == ' ' ? 1 : 2) {
        char two[3] = {hex[0], hex[1], '\0'};
        if (hex[0] == ' ')
            continue;
        assert_true(n < got_n);
        if (got[n] != strtoul(two, NULL, 16))
            fail_msg("byte %zu is %02x, not %s", n, got[n], two);
        n++;
    }
    assert_int_equal(n, got_n);
}

static const struct mac ours = {{2, 0, 0, 0, 0, 1}};

/* RFC 826, RFC 5227 1.1: a probe has no sender address; an announcement has it twice. */
static void test_arp_frames(void **state)
{
    (void)state;
    struct ip ip = ip_of("10.0.0.5");
    uint8_t f[ND_FRAME_BYTES];
    size_t n = arp_frame_write(ARP_ANNOUNCE_ASK, &ip, &ours, f);
    expect_bytes(f, n,
                 "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 "
                 "020000000001 0a000005 000000000000 0a000005");
    n = arp_frame_write(ARP_ANNOUNCE_ANSWER, &ip, &ours, f);
    expect_bytes(f, n,
                 "ffffffffffff 020000000001 0806 0001 0800 06 04 0002 "
                 "020000000001 0a000005 020000000001 0a000005");
    n = arp_frame_write(ARP_PROBE, &ip, &ours, f);
    expect_bytes(f, n,
                 "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 "
                 "020000000001 00000000 000000000000 0a000005");
}

/* RFC 4861 4.4: override, target's link-layer address; RFC 4862 5.4.2: a probe comes from ::. */
static void test_nd_frames(void **state)
{
    (void)state;
    struct ip ip = ip_of("2001:db8::5");
    uint8_t f[ND_FRAME_BYTES];
    size_t n = arp_frame_write(ARP_ANNOUNCE_ASK, &ip, &ours, f);
    expect_bytes(f, n,
                 "333300000001 020000000001 86dd 60000000 0020 3a ff "
                 "20010db8000000000000000000000005 ff020000000000000000000000000001 "
                 "88 00 f922 20000000 20010db8000000000000000000000005 02 01 020000000001");
    n = arp_frame_write(ARP_PROBE, &ip, &ours, f);
    expect_bytes(f, n,
                 "3333ff000005 020000000001 86dd 60000000 0018 3a ff "
                 "00000000000000000000000000000000 ff0200000000000000000001ff000005 "
                 "87 00 4ce5 00000000 20010db8000000000000000000000005");
}

static void test_claims(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.5", "2001:db8::5"};
    uint8_t f[ND_FRAME_BYTES + 32];
    struct arp_claim c;

    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        struct ip ip = ip_of(texts[i]);
        size_t n = arp_frame_write(ARP_ANNOUNCE_ANSWER, &ip, &ours, f);
        assert_true(arp_frame_read(span_of(f, n), &c));
        assert_true(ip_eq(&c.ip, &ip));
        assert_true(mac_eq(&c.mac, &ours));
        for (size_t cut = 0; cut < n; cut++) {
            if (arp_frame_read(span_of(f, cut), &c))
                fail_msg("%s cut to %zu bytes was believed", texts[i], cut);
        }
        memset(f + n, 0x55, 20); /* padding of the wire */
        assert_true(arp_frame_read(span_of(f, n + 20), &c));
        n = arp_frame_write(ARP_PROBE, &ip, &ours, f);
        assert_false(arp_frame_read(span_of(f, n), &c));
    }
}

/* Whatever is wrong in an advertisement, it is not believed: each single bit of what is checked. */
static void test_damaged_advertisement(void **state)
{
    (void)state;
    struct ip ip = ip_of("2001:db8::5");
    uint8_t f[ND_FRAME_BYTES];
    struct arp_claim c;
    size_t n = arp_frame_write(ARP_ANNOUNCE_ASK, &ip, &ours, f);
    for (size_t i = 14; i < n; i++) {
        if (i > 14 && i < 18)
            continue; /* traffic class and flow label mean nothing here */
        for (unsigned bit = 0; bit < 8; bit++) {
            f[i] ^= (uint8_t)(1u << bit);
            if (arp_frame_read(span_of(f, n), &c) && (i != 14 || bit >= 4))
                fail_msg("bit %u of byte %zu", bit, i);
            f[i] ^= (uint8_t)(1u << bit);
        }
    }
}

static void test_address_messages(void **state)
{
    (void)state;
    uint8_t b[512];
    struct nl_out o = nl_out_of(b, sizeof b, 9);
    struct nl_address a = {.ip = ip_of("10.0.0.5"), .ifindex = 3};
    nl_address_add(&o, &a, 10, false);
    assert_false(o.bad);
    expect_bytes(b, o.n,
                 "4c000000 1400 0506 09000000 00000000 02 20 00 00 03000000 "
                 "0800 0200 0a000005 0800 0100 0a000005 0800 0800 00000000 "
                 "1400 0600 0a000000 0a000000 00000000 00000000 0500 0b00 6d000000");
    o = nl_out_of(b, sizeof b, 9);
    a.ip = ip_of("2001:db8::5");
    nl_address_add(&o, &a, 10, true);
    expect_bytes(b, o.n,
                 "64000000 1400 0501 09000000 00000000 0a 80 02 00 03000000 "
                 "1400 0200 20010db8000000000000000000000005 "
                 "1400 0100 20010db8000000000000000000000005 0800 0800 02000000 "
                 "1400 0600 0a000000 0a000000 00000000 00000000 0500 0b00 6d000000");
    for (size_t cap = 0; cap < o.n; cap++) {
        struct nl_out small = nl_out_of(b, cap, 9);
        nl_address_add(&small, &a, 10, true);
        assert_true(small.bad);
        assert_true(small.n <= cap);
    }
}

/* What was written comes back as what it was; every shorter piece is refused or shorter. */
static void test_parse_address(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.5", "2001:db8::5"};
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        uint8_t b[512];
        struct nl_out o = nl_out_of(b, sizeof b, 9);
        struct nl_address a = {.ip = ip_of(texts[i]), .ifindex = 3}, got;
        struct nl_in m;
        nl_address_add(&o, &a, 10, false);
        nl_address_delete(&o, &a);
        struct span rest = span_of(b, o.n);
        assert_true(nl_next(&rest, &m));
        assert_int_equal(m.type, RTM_NEWADDR);
        assert_int_equal(m.seq, 9);
        assert_int_equal(nl_parse_address(&m, &got), 0);
        assert_true(ip_eq(&got.ip, &a.ip));
        assert_int_equal(got.ifindex, 3);
        assert_int_equal(got.tag, NL_TAG);
        assert_false(got.gone);
        assert_false(got.tentative);
        assert_true(nl_next(&rest, &m));
        assert_int_equal(nl_parse_address(&m, &got), 0);
        assert_true(got.gone);
        assert_int_equal(got.tag, 0);
        assert_false(nl_next(&rest, &m));
        for (size_t cut = 0; cut < 16; cut++) {
            struct span piece = span_of(b, cut);
            assert_false(nl_next(&piece, &m));
        }
        m = (struct nl_in){.type = RTM_NEWADDR, .payload = span_of(b + 16, 8)};
        assert_int_equal(nl_parse_address(&m, &got), -EBADMSG);
    }
}

static void test_tentative(void **state)
{
    (void)state;
    uint8_t b[256];
    struct ifaddrmsg h = {.ifa_family = AF_INET6, .ifa_index = 4};
    struct nl_out o = nl_out_of(b, sizeof b, 1);
    struct ip ip = ip_of("2001:db8::5"), other = ip_of("2001:db8::9");
    struct nl_address got;
    struct nl_in m;
    nl_begin(&o, RTM_NEWADDR, 0, span_of(&h, sizeof h));
    nl_put(&o, IFA_LOCAL, span_of(ip.b, 16));
    nl_put(&o, IFA_ADDRESS, span_of(other.b, 16)); /* the far end of a tunnel */
    nl_put_u32(&o, IFA_FLAGS, IFA_F_TENTATIVE | IFA_F_NODAD);
    nl_end(&o);
    struct span rest = span_of(b, o.n);
    assert_true(nl_next(&rest, &m));
    assert_int_equal(nl_parse_address(&m, &got), 0);
    assert_true(got.tentative);
    assert_true(ip_eq(&got.ip, &ip));
    assert_int_equal(got.tag, 0);
}

static void test_errors(void **state)
{
    (void)state;
    const struct {
        struct nlmsghdr h;
        int32_t error;
    } refused = {{.nlmsg_len = 20, .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = 5}, -EEXIST},
      absurd = {{.nlmsg_len = 20, .nlmsg_type = NLMSG_ERROR}, 7};
    struct nl_in m;
    struct span rest = span_of(&refused, sizeof refused);
    assert_true(nl_next(&rest, &m));
    assert_int_equal(m.error, -EEXIST);
    assert_int_equal(m.seq, 5);
    assert_int_equal(rest.n, 0);
    rest = span_of(&absurd, sizeof absurd);
    assert_false(nl_next(&rest, &m));
}

/* The whole table, so that a change of it is a change here. */
static void test_every_cell(void **state)
{
    (void)state;
    static const char *const want[LANE_STATE_COUNT][LANE_EVENT_COUNT] = {
        [LANE_ABSENT] = {"begin", "already", "begin", "absent", "already", "never", "never",
                         "nothing"},
        [LANE_HELD] = {"already", "begin", "begin", "begin", "begin", "never", "never", "gone"},
        [LANE_TAIL] = {"begin", "already", "begin", "absent", "begin", "never", "never", "gone"},
        [LANE_BUSY] = {"later", "later", "later", "later", "later", "done", "undone", "nothing"},
    };
    for (unsigned s = 0; s < LANE_STATE_COUNT; s++) {
        for (unsigned e = 0; e < LANE_EVENT_COUNT; e++)
            assert_string_equal(request_cell_name((enum lane_state)s, (enum lane_event)e),
                                want[s][e]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arp_frames),       cmocka_unit_test(test_nd_frames),
        cmocka_unit_test(test_claims),           cmocka_unit_test(test_damaged_advertisement),
        cmocka_unit_test(test_address_messages), cmocka_unit_test(test_parse_address),
        cmocka_unit_test(test_tentative),        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_every_cell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
