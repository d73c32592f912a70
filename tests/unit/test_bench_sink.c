/* The sink's pure parts: its script, and the end of a message in any cut of the stream. */
#include "bench/eml.h"
#include "bench/message.h"
#include "bench/sink_content.h"
#include "bench/sink_script.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void script_answers(void **state)
{
    static const char text[] = "# comment\n"
                               "\n"
                               "rcpt bob@*  550 5.1.1 no such user\n"
                               "rcpt *@slow.test 30% delay=200 451 4.3.0 later\r\n"
                               "RCPT *@slow.test accept\n"
                               "dot *@gone.test close\n"
                               "mail <> 501\n"
                               "connect 127.0.0.7 421 4.7.0 one\\ntwo";
    struct sink_script s = {0};

    (void)state;
    assert_int_equal(sink_script_parse(&s, span_str(text), "t"), 0);
    assert_int_equal(s.count, 6);
    const struct script_rule *r = sink_script_find(&s, STAGE_RCPT, span_str("BOB@x.test"), 0.99);
    assert_non_null(r);
    assert_string_equal(r->reply, "550 5.1.1 no such user\r\n");
    r = sink_script_find(&s, STAGE_RCPT, span_str("a@slow.test"), 0.29);
    assert_int_equal(r->act, SCRIPT_REPLY);
    assert_int_equal(r->delay_ms, 200);
    r = sink_script_find(&s, STAGE_RCPT, span_str("a@slow.test"), 0.3);
    assert_int_equal(r->act, SCRIPT_ACCEPT);
    assert_null(sink_script_find(&s, STAGE_RCPT, span_str("a@other.test"), 0));
    assert_null(sink_script_find(&s, STAGE_MAIL, span_str("bob@x.test"), 0));
    assert_int_equal(sink_script_find(&s, STAGE_DOT, span_str("a@gone.test"), 0)->act,
                     SCRIPT_CLOSE);
    assert_string_equal(sink_script_find(&s, STAGE_MAIL, span_str("<>"), 0)->reply, "501 \r\n");
    r = sink_script_find(&s, STAGE_CONNECT, span_str("127.0.0.7"), 0);
    assert_string_equal(r->reply, "421-4.7.0 one\r\n421 two\r\n");
    sink_script_fini(&s);
}

static void script_refuses(void **state)
{
    static const char *const bad[] = {
        "rcpt",
        "rcpt *",
        "recipient * 550 x",
        "rcpt * 650 x",
        "rcpt * 5500 x",
        "rcpt * 150 x",
        "rcpt * 101% 550 x",
        "rcpt * x% 550 x",
        "rcpt * delay=x 550 x",
        "rcpt * delay=99999999 550 x",
        "rcpt * reject",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct sink_script s = {0};
        assert_int_equal(sink_script_parse(&s, span_str(bad[i]), "t"), -EINVAL);
        sink_script_fini(&s);
    }
}

struct sample {
    const char *text;
    size_t message; /* bytes up to and with the end mark; 0 = there is none */
};

/* The end is found at the same byte however the stream is cut into two pieces, or into bytes. */
static void check_cuts(const struct sample *s)
{
    size_t n = strlen(s->text);

    for (size_t cut = 0; cut <= n; cut++) {
        struct content c;
        bool ended = false;
        content_begin(&c);
        size_t used = content_feed(&c, span_of(s->text, cut), &ended);
        if (!ended)
            used += content_feed(&c, span_of(s->text + cut, n - cut), &ended);
        assert_int_equal(ended, s->message > 0);
        assert_int_equal(used, ended ? s->message : n);
    }
    struct content c;
    bool ended = false;
    size_t used = 0;
    content_begin(&c);
    while (used < n && !ended)
        used += content_feed(&c, span_of(s->text + used, 1), &ended);
    assert_int_equal(used, s->message > 0 ? s->message : n);
}

static void content_ends(void **state)
{
    static const struct sample samples[] = {
        {".\r\n", 3},
        {".\r\nMAIL", 3},
        {"a\r\n.\r\nx", 6},
        {"a\n.\nb\r\n.\r\n", 10},
        {"a\r.\rb\r\n.\r\n", 10},
        {"a\n.\r\nb\r\n.\r\n", 11},
        {"a\r\n.\nb\r\n.\r\n", 11},
        {"a\r\n.\rb\r\n.\r\n", 11},
        {"a\r\n..\r\n.\r\n", 10},
        {"a\r\n.\r\r\n.\r\n", 10},
        {"\r\r\n.\r\n", 6},
        {"a.b\r\n.c.\r\n.\r\n", 13},
        {"a\r\n.\r", 0},
        {"a\r\n.", 0},
        {"", 0},
        {"x.\r\n\r\n", 0},
        {"a\r\n\r\n.\r\n.\r\n", 8},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++)
        check_cuts(&samples[i]);
}

static void content_identity(void **state)
{
    static const char text[] = "Received: from x\r\n\tby y; z\r\nX-Mochila-Seq: ab-12-34\r\n"
                               "Subject: s\r\n\r\nbody\r\n.\r\n";
    static const char in_body[] = "Subject: s\r\n\r\nX-Mochila-Seq: ab-12-34\r\n.\r\n";
    static const char broken[] = "X-Mochila-Seq: what\r\n\r\n.\r\n";
    struct content c;
    bool ended;

    (void)state;
    for (size_t cut = 0; cut < sizeof text; cut++) {
        content_begin(&c);
        size_t used = content_feed(&c, span_of(text, cut), &ended);
        if (!ended)
            used += content_feed(&c, span_of(text + cut, sizeof text - 1 - cut), &ended);
        assert_true(ended);
        assert_int_equal(used, sizeof text - 1);
        assert_int_equal(c.header, CONTENT_FOUND);
        assert_int_equal(c.identity.run, 0xab);
        assert_int_equal(c.identity.number, 12);
        assert_int_equal(c.identity.time_ns, 34);
    }
    content_begin(&c);
    assert_int_equal(content_feed(&c, span_str(in_body), &ended), sizeof in_body - 1);
    assert_int_equal(c.header, CONTENT_ABSENT);
    content_begin(&c);
    assert_int_equal(content_feed(&c, span_str(broken), &ended), sizeof broken - 1);
    assert_int_equal(c.header, CONTENT_ABSENT);
    content_begin(&c);
    content_feed_chunk(&c, span_of(text, 30));
    content_feed_chunk(&c, span_of(text + 30, sizeof text - 31));
    assert_int_equal(c.header, CONTENT_FOUND);
    assert_int_equal(c.bytes, sizeof text - 1);
}

static void eml_is_normalised(void **state)
{
    static const char raw[] = "From mbox line\nSubject: a\n.dot\r\n..two\rlast";
    struct message_template t;

    (void)state;
    assert_int_equal(eml_template(span_str(raw), &t), 0);
    assert_true(span_eq(t.plain, span_str("Subject: a\r\n.dot\r\n..two\r\nlast\r\n")));
    assert_true(span_eq(t.wire, span_str("Subject: a\r\n..dot\r\n...two\r\nlast\r\n")));
    eml_template_free(&t);
    assert_int_equal(eml_template(span_str(""), &t), 0);
    assert_true(span_eq(t.wire, span_str("\r\n")));
    eml_template_free(&t);
}

/* A message is as long as was asked, ends with CRLF, and has no line to stuff or above 78 bytes. */
static void sizes_are_exact(void **state)
{
    static const char *const sizes[] = {"400", "401", "477", "1000", "2k", "2049", "10k", "100k"};
    static const size_t bytes[] = {400, 401, 477, 1000, 2048, 2049, 10240, 102400};
    char head[MESSAGE_HEAD_BYTES_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct message_spec spec = {.sizes = sizes[i], .domain_count = 3, .from = "a@b.test"};
        struct message_plan *p;
        assert_int_equal(message_plan_create(&spec, &p), 0);
        const struct message_template *t = message_plan_template(p, 5);
        size_t n = message_head(head, t, (struct identity){1, 2, 3});
        assert_int_equal(n + t->plain.n, bytes[i]);
        assert_memory_equal(t->plain.p + t->plain.n - 2, "\r\n", 2);
        assert_null(memmem(t->plain.p, t->plain.n, "\n.", 2));
        const uint8_t *line = t->plain.p;
        const uint8_t *end = t->plain.p + t->plain.n;
        while (line < end) {
            const uint8_t *lf = memchr(line, '\n', (size_t)(end - line));
            assert_non_null(lf);
            assert_true(lf > line && lf[-1] == '\r');
            assert_true(lf - line < 78);
            line = lf + 1;
        }
        assert_true(span_eq(message_plan_domain(p, 4), span_str("d001.test")));
        message_plan_destroy(&p);
    }
}

static void plan_refuses(void **state)
{
    static const struct message_spec bad[] = {
        {.sizes = "399", .domain_count = 1, .from = "a@b"},
        {.sizes = "2x", .domain_count = 1, .from = "a@b"},
        {.sizes = "", .domain_count = 1, .from = "a@b"},
        {.sizes = "2k:0", .domain_count = 1, .from = "a@b"},
        {.sizes = "2k", .domain_count = 0, .from = "a@b"},
        {.sizes = "2k", .domains = "a.test:x", .from = "a@b"},
        {.sizes = "2k", .domains = "a.test,,b.test", .from = "a@b"},
        {.eml_dir = "/nonexistent", .domain_count = 1, .from = "a@b"},
    };
    struct message_plan *p;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(message_plan_create(&bad[i], &p), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(script_answers),    cmocka_unit_test(script_refuses),
        cmocka_unit_test(content_ends),      cmocka_unit_test(content_identity),
        cmocka_unit_test(eml_is_normalised), cmocka_unit_test(sizes_are_exact),
        cmocka_unit_test(plan_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
