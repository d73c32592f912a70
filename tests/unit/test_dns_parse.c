/* The DNS parser and the cache on packets written by hand, good and bad. */
#include "worker/io/dns_cache.h"
#include "worker/io/dns_parse.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct dns_answer a;
static uint8_t packet[65536];
static size_t n;

static void u8(unsigned v)
{
    packet[n++] = (uint8_t)v;
}

static void u16(unsigned v)
{
    u8(v >> 8);
    u8(v & 255);
}

static void u32(uint32_t v)
{
    u16(v >> 16);
    u16(v & 0xffff);
}

static void name(const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, ".");
        u8((unsigned)len);
        memcpy(packet + n, text, len);
        n += len;
        text += len + (text[len] == '.');
    }
    u8(0);
}

/* An answer to (asked, type); counts are written over later records as they come. */
static void begin(const char *asked, unsigned type, unsigned flags)
{
    n = 0;
    u16(0x1234);
    u16(0x8180 | flags);
    u16(1);
    u16(0);
    u16(0);
    u16(0);
    name(asked);
    u16(type);
    u16(1);
}

static size_t record(size_t section, const char *owner, unsigned type, uint32_t ttl)
{
    packet[4 + 2 * section + 1]++;
    name(owner);
    u16(type);
    u16(1);
    u32(ttl);
    u16(0);
    return n;
}

static void end_record(size_t data)
{
    packet[data - 2] = (uint8_t)((n - data) >> 8);
    packet[data - 1] = (uint8_t)(n - data);
}

static void mx(const char *owner, unsigned preference, const char *host)
{
    size_t d = record(1, owner, DNS_RR_MX, 300);
    u16(preference);
    name(host);
    end_record(d);
}

static void cname(const char *owner, const char *target, uint32_t ttl)
{
    size_t d = record(1, owner, DNS_RR_CNAME, ttl);
    name(target);
    end_record(d);
}

static int parse(const char *asked, enum dns_rr type)
{
    /* In memory of just this size, so that ASan sees a read beyond. */
    uint8_t *exact = malloc(n > 0 ? n : 1);
    memcpy(exact, packet, n);
    int r = dns_parse(span_of(exact, n), asked, type, &a);
    free(exact);
    return r;
}

static void test_mx_order(void **state)
{
    (void)state;
    begin("test", DNS_RR_MX, 0x20);
    mx("test", 20, "C.test");
    mx("TEST", 10, "a.test");
    mx("test", 20, "b.test");
    mx("other.test", 1, "not-ours.test");
    assert_int_equal(parse("test", DNS_RR_MX), 0);
    assert_int_equal(a.status, DNS_OK);
    assert_true(a.secure);
    assert_int_equal(a.mx_count, 3);
    assert_string_equal(a.mx[0].name, "a.test");
    assert_string_equal(a.mx[1].name, "c.test");
    assert_string_equal(a.mx[2].name, "b.test");
}

static void test_too_many_mx_keep_the_best(void **state)
{
    (void)state;
    begin("test", DNS_RR_MX, 0);
    for (unsigned i = 0; i < 100; i++) {
        char host[16];
        snprintf(host, sizeof host, "h%u.test", i);
        mx("test", (i * 37) % 100, host);
    }
    assert_int_equal(parse("test", DNS_RR_MX), 0);
    assert_int_equal(a.mx_count, LIMIT_MX_HOSTS);
    for (unsigned i = 0; i < LIMIT_MX_HOSTS; i++)
        assert_int_equal(a.mx[i].preference, i);
}

static void test_null_and_nonsense_mx(void **state)
{
    (void)state;
    begin("test", DNS_RR_MX, 0);
    mx("test", 0, "");
    assert_int_equal(parse("test", DNS_RR_MX), 0);
    assert_int_equal(a.mx_count, 1);
    assert_string_equal(a.mx[0].name, "");
    /* A host with a newline in its name is left out; with nothing else it is no answer at all. */
    begin("test", DNS_RR_MX, 0);
    mx("test", 5, "ev\nil.test");
    mx("test", 6, "good.test");
    assert_int_equal(parse("test", DNS_RR_MX), 0);
    assert_int_equal(a.mx_count, 1);
    assert_string_equal(a.mx[0].name, "good.test");
    begin("test", DNS_RR_MX, 0);
    mx("test", 5, "ev il.test");
    assert_int_equal(parse("test", DNS_RR_MX), -EBADMSG);
    assert_int_equal(a.status, DNS_TEMP);
}

static void address(const char *owner, const uint8_t *b, size_t len)
{
    size_t d = record(1, owner, len == 4 ? DNS_RR_A : DNS_RR_AAAA, 60);
    memcpy(packet + n, b, len);
    n += len;
    end_record(d);
}

static void test_addresses(void **state)
{
    (void)state;
    static const uint8_t v4[] = {192, 0, 2, 1}, v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 7};
    char text[IP_TEXT];
    begin("h.test", DNS_RR_A, 0);
    address("h.test", v4, 4);
    assert_int_equal(parse("h.test", DNS_RR_A), 0);
    assert_int_equal(a.address_count, 1);
    ip_format(&a.addresses[0], text);
    assert_string_equal(text, "192.0.2.1");
    begin("h.test", DNS_RR_AAAA, 0);
    address("h.test", v6, 16);
    assert_int_equal(parse("h.test", DNS_RR_AAAA), 0);
    ip_format(&a.addresses[0], text);
    assert_string_equal(text, "2001:db8::7");
    /* Of the wrong length; and more than we look at. */
    begin("h.test", DNS_RR_A, 0);
    size_t d = record(1, "h.test", DNS_RR_A, 60);
    u8(1);
    end_record(d);
    assert_int_equal(parse("h.test", DNS_RR_A), -EBADMSG);
    begin("h.test", DNS_RR_A, 0);
    for (int i = 0; i < 50; i++)
        address("h.test", v4, 4);
    assert_int_equal(parse("h.test", DNS_RR_A), 0);
    assert_int_equal(a.address_count, LIMIT_ADDRESSES_TRIED);
}

static void test_cname_chains(void **state)
{
    (void)state;
    for (int links = 0; links <= 12; links++) {
        begin("c0.test", DNS_RR_MX, 0);
        mx("c0x.test", 1, "wrong.test");
        for (int i = links - 1; i >= 0; i--) { /* in any order */
            char from[16], to[16];
            snprintf(from, sizeof from, "C%d.test", i);
            snprintf(to, sizeof to, "c%d.TEST", i + 1);
            cname(from, to, 100u + (unsigned)i);
        }
        char last[16];
        snprintf(last, sizeof last, "c%d.test", links);
        mx(last, 10, "mail.test");
        int r = parse("c0.test", DNS_RR_MX);
        assert_int_equal(r, links <= DNS_CHAIN_MAX ? 0 : -EBADMSG);
        assert_int_equal(a.status, links <= DNS_CHAIN_MAX ? DNS_OK : DNS_TEMP);
        if (r == 0)
            assert_int_equal(a.ttl_s, links == 0 ? 300 : 100);
    }
    begin("loop.test", DNS_RR_MX, 0);
    cname("loop.test", "loop.test", 1);
    assert_int_equal(parse("loop.test", DNS_RR_MX), -EBADMSG);
    begin("dangling.test", DNS_RR_MX, 3);
    cname("dangling.test", "gone.test", 1);
    assert_int_equal(parse("dangling.test", DNS_RR_MX), 0);
    assert_int_equal(a.status, DNS_NXDOMAIN);
}

static void soa(uint32_t ttl, uint32_t minimum)
{
    size_t d = record(2, "test", DNS_RR_SOA, ttl);
    name("ns.test");
    name("admin.test");
    for (uint32_t i = 1; i <= 4; i++)
        u32(i);
    u32(minimum);
    end_record(d);
}

static void test_negative(void **state)
{
    (void)state;
    begin("no.test", DNS_RR_MX, 3);
    soa(100, 40);
    assert_int_equal(parse("no.test", DNS_RR_MX), 0);
    assert_int_equal(a.status, DNS_NXDOMAIN);
    assert_int_equal(a.ttl_s, 40);
    begin("no.test", DNS_RR_MX, 0);
    soa(30, 40);
    assert_int_equal(parse("no.test", DNS_RR_MX), 0);
    assert_int_equal(a.status, DNS_NODATA);
    assert_int_equal(a.ttl_s, 30);
    begin("no.test", DNS_RR_MX, 0);
    assert_int_equal(parse("no.test", DNS_RR_MX), 0);
    assert_int_equal(a.ttl_s, 0);
    for (unsigned rcode = 1; rcode < 16; rcode++) {
        begin("no.test", DNS_RR_MX, rcode);
        assert_int_equal(parse("no.test", DNS_RR_MX), 0);
        assert_int_equal(a.status, rcode == 3 ? DNS_NXDOMAIN : DNS_TEMP);
        assert_non_null(a.error);
    }
    begin("no.test", DNS_RR_MX, 2);
    mx("no.test", 1, "a.test"); /* with an error code nothing counts */
    assert_int_equal(parse("no.test", DNS_RR_MX), 0);
    assert_int_equal(a.status, DNS_TEMP);
    assert_int_equal(a.mx_count, 0);
}

static void test_not_an_answer_to_us(void **state)
{
    (void)state;
    begin("other.test", DNS_RR_MX, 0);
    mx("test", 1, "a.test");
    assert_int_equal(parse("test", DNS_RR_MX), -EBADMSG);
    begin("test", DNS_RR_A, 0);
    mx("test", 1, "a.test");
    assert_int_equal(parse("test", DNS_RR_MX), -EBADMSG);
    begin("test", DNS_RR_MX, 0);
    packet[2] &= 0x7f; /* a question */
    assert_int_equal(parse("test", DNS_RR_MX), -EBADMSG);
}

/* Cut anywhere, a packet is refused; and no byte of it can be changed so that the parser falls
 * over. */
static void test_cut_and_changed(void **state)
{
    (void)state;
    begin("test", DNS_RR_MX, 0);
    cname("test", "alias.test", 9);
    mx("alias.test", 1, "a.test");
    size_t whole = n;
    for (n = 0; n < whole; n++)
        assert_int_equal(parse("test", DNS_RR_MX), -EBADMSG);
    n = whole;
    assert_int_equal(parse("test", DNS_RR_MX), 0);
    for (size_t i = 0; i < whole; i++) {
        uint8_t old = packet[i];
        for (unsigned v = 0; v < 256; v++) {
            packet[i] = (uint8_t)v;
            (void)!parse("test", DNS_RR_MX);
            assert_true(a.mx_count <= 1);
        }
        packet[i] = old;
    }
}

static void test_compression(void **state)
{
    (void)state;
    begin("long-name.test", DNS_RR_MX, 0);
    packet[7] = 1;
    u16(0xc00c); /* the question's name */
    u16(DNS_RR_MX);
    u16(1);
    u32(7);
    u16(7);
    u16(5);
    u8(2);
    u8('m');
    u8('x');
    u16(0xc00c);
    size_t whole = n;
    assert_int_equal(parse("long-name.test", DNS_RR_MX), 0);
    assert_string_equal(a.mx[0].name, "mx.long-name.test");
    /* Pointers to itself, forwards, and in a circle. */
    static const unsigned bad[] = {0, 2, 200, 0x3fff};
    for (size_t i = 0; i < 4; i++) {
        n = whole - 2;
        u16(0xc000 | (unsigned)(whole - 2 + bad[i]));
        assert_int_equal(parse("long-name.test", DNS_RR_MX), -EBADMSG);
    }
    n = whole - 2;
    u16(0xc000 | (unsigned)(whole - 5));
    assert_int_equal(parse("long-name.test", DNS_RR_MX), -EBADMSG);
}

static void test_names(void **state)
{
    (void)state;
    char out[LIMIT_DOMAIN_BYTES + 1];
    static const char *const good[] = {"a", "A.b-C_9.test", "xn--mnchen-3ya.de", "1.2.3.4"};
    static const char *const bad[] = {"",    ".",    "a.",          ".a", "a..b",
                                      "a b", "a\nb", "\303\274.de", "*"};
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_int_equal(dns_name_normalise(good[i], out), 0);
    assert_int_equal(dns_name_normalise(good[1], out), 0);
    assert_string_equal(out, "a.b-c_9.test");
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(dns_name_normalise(bad[i], out), -EINVAL);
    char longest[300];
    memset(longest, 'x', sizeof longest);
    for (size_t i = 63; i < 253; i += 64)
        longest[i] = '.';
    longest[253] = '\0';
    assert_int_equal(dns_name_normalise(longest, out), 0);
    uint8_t question[DNS_QUESTION_BYTES_MAX];
    assert_int_equal(dns_build_question(1, out, DNS_RR_MX, question), DNS_QUESTION_BYTES_MAX);
    longest[253] = 'x';
    longest[254] = '\0';
    assert_int_equal(dns_name_normalise(longest, out), -EINVAL);
    longest[63] = 'x';
    longest[100] = '\0';
    assert_int_equal(dns_name_normalise(longest, out), -EINVAL);
    struct ip ip;
    assert_int_equal(ip_parse(span_str("192.0.2.255"), &ip), 0);
    dns_name_reverse(&ip, out);
    assert_string_equal(out, "255.2.0.192.in-addr.arpa");
    assert_int_equal(ip_parse(span_str("2001:db8::567:89ab"), &ip), 0);
    dns_name_reverse(&ip, out);
    assert_string_equal(out,
                        "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

static void test_cache(void **state)
{
    (void)state;
    struct dns_cache c;
    static struct dns_answer in, out;
    assert_int_equal(dns_cache_init(&c, 10), 0);
    in.mx_count = LIMIT_MX_HOSTS;
    in.address_count = 2 * LIMIT_ADDRESSES_TRIED;
    in.ttl_s = 100;
    for (size_t i = 0; i < LIMIT_MX_HOSTS; i++) {
        in.mx[i].preference = (uint16_t)i;
        memset(in.mx[i].name, 'm', 253);
    }
    memset(in.addresses, 0x5a, sizeof in.addresses);
    memset(in.ptr, 'p', 253);
    dns_cache_put(&c, DNS_MX, "big.test", 1000, &in);
    assert_true(dns_cache_get(&c, DNS_MX, "big.test", 51000, &out));
    assert_int_equal(out.ttl_s, 50);
    assert_int_equal(out.mx_count, LIMIT_MX_HOSTS);
    assert_memory_equal(out.mx, in.mx, sizeof in.mx);
    assert_memory_equal(out.addresses, in.addresses, sizeof in.addresses);
    assert_string_equal(out.ptr, in.ptr);
    assert_false(dns_cache_get(&c, DNS_PTR, "big.test", 51000, &out));
    assert_false(dns_cache_get(&c, DNS_MX, "big.test", 101000, &out));
    assert_int_equal(dns_cache_count(&c), 0);
    memset(&in, 0, sizeof in);
    in.ttl_s = 9;
    for (int i = 0; i < 30; i++) {
        char host[8];
        snprintf(host, sizeof host, "h%d", i);
        dns_cache_put(&c, DNS_ADDRESS, host, 0, &in);
        assert_true(dns_cache_get(&c, DNS_ADDRESS, "h0", 0, &out)); /* in use: stays */
    }
    assert_int_equal(dns_cache_count(&c), 10);
    assert_true(dns_cache_get(&c, DNS_ADDRESS, "h29", 0, &out));
    assert_false(dns_cache_get(&c, DNS_ADDRESS, "h20", 0, &out));
    dns_cache_flush(&c, "h29");
    assert_false(dns_cache_get(&c, DNS_ADDRESS, "h29", 0, &out));
    in.status = DNS_NXDOMAIN;
    dns_cache_put(&c, DNS_ADDRESS, "h0", 0, &in); /* in place of the old one */
    assert_true(dns_cache_get(&c, DNS_ADDRESS, "h0", 0, &out));
    assert_int_equal(out.status, DNS_NXDOMAIN);
    dns_cache_flush(&c, NULL);
    assert_int_equal(dns_cache_count(&c), 0);
    dns_cache_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx_order),
        cmocka_unit_test(test_too_many_mx_keep_the_best),
        cmocka_unit_test(test_null_and_nonsense_mx),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_cname_chains),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_not_an_answer_to_us),
        cmocka_unit_test(test_cut_and_changed),
        cmocka_unit_test(test_compression),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
