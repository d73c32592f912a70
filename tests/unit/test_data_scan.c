/* data_scan against the naive reference: tricky inputs in every split at one and two places. */
#include "base/rng.h"
#include "proto/data_scan.h"
#include "tests/naive_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { INPUT_BYTES_MAX = 512 };

struct sample {
    const char *p;
    size_t n;
};
#define SAMPLE(s)          \
    {                      \
        "" s, sizeof s - 1 \
    }

static const struct sample samples[] = {
    SAMPLE(""),
    SAMPLE(".\r\n"),
    SAMPLE(".\r\nQUIT\r\n"),
    SAMPLE("\r\n.\r\n"),
    SAMPLE("a\r\n.\r\nMAIL FROM:<evil@x>\r\n"),
    SAMPLE("S: x\r\n\r\nbody\r\n.\r\n"),
    /* Smuggling (RFC 5321 2.3.8): none of these ends the message before the real one does. */
    SAMPLE("t\n.\nevil\r\n.\r\n"),
    SAMPLE("t\n.\r\nevil\r\n.\r\n"),
    SAMPLE("t\r\n.\nevil\r\n.\r\n"),
    SAMPLE("t\r.\revil\r\n.\r\n"),
    SAMPLE("t\r\n.\revil\r\n.\r\n"),
    SAMPLE("t\r.\r\nevil\r\n.\r\n"),
    SAMPLE("t\r.\nevil\r\n.\r\n"),
    SAMPLE("t\n.\revil\r\n.\r\n"),
    SAMPLE("t\r\n\0.\r\nevil\r\n.\r\n"),
    SAMPLE("t\r\n.\0\r\nevil\r\n.\r\n"),
    SAMPLE("t\r\0\n.\r\nevil\r\n.\r\n"),
    SAMPLE("t\0\r\n.\r\n"),
    SAMPLE("t\r\r\n.\r\n"),
    SAMPLE("t\r\n.\r\r\n.\r\n"),
    SAMPLE("t\r\n..\r\n.\r\n"),
    SAMPLE("t\r\n.x\r\n..y\r\n.\r\n"),
    SAMPLE("..\r\n.\r\n"),
    SAMPLE("\r.\r\n.\r\n"),
    SAMPLE("\n.\r\n.\r\n"),
    SAMPLE("t\r\n. \r\n.\t\r\n.\r\n."),
    SAMPLE("no end at all"),
    SAMPLE("ends in cr\r"),
    SAMPLE("ends in dot\r\n."),
    SAMPLE("ends in dot cr\r\n.\r"),
    /* Header facts. */
    SAMPLE("Received: a\r\nRECEIVED : b\r\nreceived\t:c\r\nX-Received: d\r\nReceivedx: e\r\n\r\n"
           "Received: body\r\n.\r\n"),
    SAMPLE("Delivered-To: a\r\ndelivered-TO:b\r\n folded Received: c\r\n\r\n.\r\n"),
    SAMPLE(".Received: a\r\n..Received: b\r\nReceived: c\r\n\r\n.\r\n"),
    SAMPLE("A-name-longer-than-sixteen: x\r\nA-name-of-16-char: y\r\nDelivered-To: z\r\n\r\n.\r\n"),
    SAMPLE(" folded first\r\nReceived: x\r\n\r\n.\r\n"),
    SAMPLE("no colon\r\nReceived: x\r\n\r\n.\r\n"),
    SAMPLE("nocolon\r\nReceived: x\r\n\r\n.\r\n"),
    SAMPLE(": empty name\r\nReceived: x\r\n\r\n.\r\n"),
    SAMPLE("A: b\r\n\tc\r\nd e: f\r\nReceived: x\r\n.\r\n"),
    SAMPLE("A: b\nReceived: x\r\nReceived: y\r\n\r\n.\r\n"),
    SAMPLE("A: b\rReceived: x\r\nRecei\rved: y\r\n\r\n.\r\n"),
    SAMPLE("Rec\neived: x\r\nReceived: y\r\n\r\n.\r\n"),
    SAMPLE("A: \xc3\xa9\r\n\r\nb\r\n.\r\n"),
    SAMPLE("A\xc3\xa9: b\r\nC: \xff\r\n\r\nb\r\n.\r\n"),
    SAMPLE("A: b\r\n\r\n\xc3\xa9\r\n.\r\n"),
    SAMPLE("A: b\r\n.\r\n"),
    SAMPLE("A: b\r\nReceived: c\r\nReceived"),
    SAMPLE("0123456789abcdef\r\n0123456789abcde\r\n0123456789abcdefg\r\n.\r\n"),
    SAMPLE("0123456789abcde\xff\r\n0123456789abcde\0f\r\n.\r\n"),
    SAMPLE("A: 0123456789abcdef0123456789abcdef\n0123456789abcdef0123456789abcde\r0\r\n.\r\n"),
};

/* Feeds in[0..n) cut at the places given; checks the result and the facts against the reference. */
static void check_split(struct span in, const size_t *cuts, size_t cut_count)
{
    struct naive want = naive_scan(in, true);
    struct data_scan s;
    uint8_t stored[INPUT_BYTES_MAX];
    size_t stored_bytes = 0, consumed = 0;
    bool done = false;

    assert_true(in.n <= sizeof stored);
    data_scan_init(&s);
    for (size_t i = 0; i <= cut_count && !done; i++) {
        size_t to = i == cut_count ? in.n : cuts[i];
        struct span part = span_of(in.p + consumed, to - consumed);
        struct data_scan_result r = data_scan_feed(&s, part);
        if (r.message_bytes > 0)
            memcpy(stored + stored_bytes, part.p, r.message_bytes);
        stored_bytes += r.message_bytes;
        assert_true(r.excess <= 2);
        assert_true(r.excess <= stored_bytes);
        stored_bytes -= r.excess;
        consumed += r.consumed;
        done = r.done;
    }
    const char *difference = naive_difference(&s, &want.facts);
    if (difference != NULL || done != want.done || stored_bytes != want.message_bytes ||
        consumed != want.consumed || memcmp(stored, in.p, stored_bytes) != 0) {
        print_error("input \"%.*s\" cut at %zu, %zu: %s differs; %zu stored, %zu wanted\n",
                    (int)in.n, (const char *)in.p, cut_count > 0 ? cuts[0] : 0,
                    cut_count > 1 ? cuts[1] : 0, difference, stored_bytes, want.message_bytes);
        fail();
    }
}

static void every_split(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        struct span in = span_of(samples[i].p, samples[i].n);
        check_split(in, NULL, 0);
        for (size_t a = 0; a <= in.n; a++) {
            check_split(in, &a, 1);
            for (size_t b = a; b <= in.n; b++)
                check_split(in, (size_t[]){a, b}, 2);
        }
    }
}

/* Every prefix is an input of its own: facts must be right at any time, not at the end alone. */
static void every_prefix(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        for (size_t n = 0; n < samples[i].n; n++) {
            size_t middle = n / 2;
            check_split(span_of(samples[i].p, n), &middle, 1);
        }
    }
}

static void single_bytes(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        size_t cuts[INPUT_BYTES_MAX];
        for (size_t k = 0; k < samples[i].n; k++)
            cuts[k] = k + 1;
        check_split(span_of(samples[i].p, samples[i].n), cuts, samples[i].n);
    }
}

static void random_inputs(void **unused)
{
    static const char letters[] = "\r\n\r\n\r\n..: \tRa\0\xc3";
    uint64_t seed = rng_entropy();
    struct rng r;

    (void)unused;
    rng_seed(&r, seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 100000; round++) {
        uint8_t in[64];
        size_t n = rng_below(&r, sizeof in + 1);
        for (size_t i = 0; i < n; i++)
            in[i] = (uint8_t)letters[rng_below(&r, sizeof letters - 1)];
        size_t a = rng_below(&r, n + 1);
        size_t b = a + rng_below(&r, n - a + 1);
        check_split(span_of(in, n), (size_t[]){a, b}, 2);
    }
}

/* The same lists through BDAT, where nothing ends and dots are not stuffed. */
static void bdat_every_split(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        struct span in = span_of(samples[i].p, samples[i].n);
        struct naive want = naive_scan(in, false);
        for (size_t a = 0; a <= in.n; a++) {
            struct data_scan s;
            data_scan_init(&s);
            bdat_scan_feed(&s, span_of(in.p, a));
            bdat_scan_feed(&s, span_of(in.p + a, in.n - a));
            const char *difference = naive_difference(&s, &want.facts);
            if (difference != NULL) {
                print_error("bdat sample %zu cut at %zu: %s differs\n", i, a, difference);
                fail();
            }
        }
    }
}

static void bdat_end(void **unused)
{
    static const struct {
        const char *text;
        bool whole;
        uint32_t bare_cr;
    } rows[] = {{"", true, 0},     {"a\r\n", true, 0},  {"a", false, 0},
                {"a\r", false, 1}, {"a\n", false, 0},   {"\r\n", true, 0},
                {".", false, 0},   {"a\r\r", false, 2}, {"a\r\n.", false, 0}};
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct data_scan s;
        data_scan_init(&s);
        bdat_scan_feed(&s, span_str(rows[i].text));
        assert_int_equal(bdat_scan_end(&s), rows[i].whole);
        assert_int_equal(s.bare_cr, rows[i].bare_cr);
    }
}

static size_t form(const char *in, bool normalise, bool stuff, size_t cut, uint8_t *out)
{
    uint8_t state = 0;
    size_t n = wire_form(span_of(in, cut), normalise, stuff, &state, out);
    return n + wire_form(span_str(in + cut), normalise, stuff, &state, out + n);
}

static void wire_forms(void **unused)
{
    static const struct {
        const char *in;
        bool normalise, stuff;
        const char *out;
    } rows[] = {
        {"", true, true, ""},
        {"a\r\nb\r\n", true, true, "a\r\nb\r\n"},
        {"a\nb\rc\r\nd", true, true, "a\r\nb\r\nc\r\nd"},
        {"a\n\nb\r\rc", true, true, "a\r\n\r\nb\r\n\r\nc"},
        {"a\n\rb", true, true, "a\r\n\r\nb"},
        {"a\r\r\nb", true, true, "a\r\n\r\nb"},
        {".a\r\n.b\r\n..c", false, true, "..a\r\n..b\r\n...c"},
        {".a\r\n.b\n.c\r.d", false, true, "..a\r\n..b\n.c\r.d"},
        {".a\r\n.b\n.c\r.d", false, false, ".a\r\n.b\n.c\r.d"},
        {".a\r\n.b\n.c\r.d", true, true, "..a\r\n..b\r\n..c\r\n..d"},
        /* From DATA: dots after CRLF are stuffed already, those after bare ends are not. */
        {"..a\r\n..b\n.c\r.d", true, false, "..a\r\n..b\r\n..c\r\n..d"},
        {"t\r\n.\nevil\r\n", true, false, "t\r\n\r\nevil\r\n"},
        {"t\r\n.\revil\r\n", true, false, "t\r\n\r\nevil\r\n"},
        {"t\r\n.x\r\n", true, false, "t\r\n.x\r\n"},
        {"t\n.\nevil\r\n", true, false, "t\r\n..\r\nevil\r\n"},
        {"t\n.\r\nevil\r\n", true, false, "t\r\n..\r\nevil\r\n"},
        {"t\r.\r\nevil\r\n", true, false, "t\r\n..\r\nevil\r\n"},
        {"t\r\n.\revil\r\n", false, true, "t\r\n..\revil\r\n"},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        for (size_t cut = 0; cut <= strlen(rows[i].in); cut++) {
            uint8_t out[128];
            size_t n = form(rows[i].in, rows[i].normalise, rows[i].stuff, cut, out);
            assert_true(n <= 2 * strlen(rows[i].in) + 2);
            assert_int_equal(n, strlen(rows[i].out));
            assert_memory_equal(out, rows[i].out, n);
        }
    }
}

/* What is stuffed and unstuffed is what it was; what is normalised and stuffed ends nowhere. */
static void wire_round_trip(void **unused)
{
    static const char letters[] = "\r\n\r\n\r\n...a\0";
    struct rng r;
    (void)unused;
    rng_seed(&r, 7);
    for (int round = 0; round < 100000; round++) {
        uint8_t in[40], out[82], state = 0;
        size_t n = rng_below(&r, sizeof in + 1);
        for (size_t i = 0; i < n; i++)
            in[i] = (uint8_t)letters[rng_below(&r, sizeof letters - 1)];
        size_t m = wire_form(span_of(in, n), false, true, &state, out);
        assert_false(naive_scan(span_of(out, m), true).done);
        assert_int_equal(wire_unstuff(span_of(out, m), out), n);
        assert_memory_equal(out, in, n);
        state = 0;
        m = wire_form(span_of(in, n), true, true, &state, out);
        struct naive facts = naive_scan(span_of(out, m), true);
        assert_false(facts.done);
        assert_int_equal(facts.facts.bare_lf, 0);
        assert_int_equal(facts.facts.bare_cr, 0);
    }
}

/*
 * From DATA, normalised without stuffing again: every line that could end the message was stuffed
 * by the sender or is made by us. Smuggling is what this must not do.
 */
static void normalised_data_never_ends(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        struct span in = span_of(samples[i].p, samples[i].n);
        struct naive message = naive_scan(in, true);
        if (!message.done)
            continue;
        uint8_t out[2 * INPUT_BYTES_MAX + 2], state = 0;
        size_t m = wire_form(span_of(in.p, message.message_bytes), true, false, &state, out);
        struct naive facts = naive_scan(span_of(out, m), true);
        assert_false(facts.done);
        assert_int_equal(facts.facts.bare_lf + facts.facts.bare_cr, 0);
        if (m > 0)
            assert_memory_equal(out + m - 2, "\r\n", 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split),
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(single_bytes),
        cmocka_unit_test(random_inputs),
        cmocka_unit_test(bdat_every_split),
        cmocka_unit_test(bdat_end),
        cmocka_unit_test(wire_forms),
        cmocka_unit_test(wire_round_trip),
        cmocka_unit_test(normalised_data_never_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
