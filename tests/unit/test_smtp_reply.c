/* smtp_reply: what remote servers send, in any split; and what EHLO offers. */
#include "proto/smtp_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
    const char *in;
    enum smtp_reply_result result;
    uint16_t code;
    struct smtp_enhanced enhanced;
    uint16_t lines;
    const char *text;
    const char *rest;
} rows[] = {
    {"250 ok\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250 ok", ""},
    {"250\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250", ""},
    {"250 \r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250", ""},
    {"250\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250", ""},
    {"250 ok\r\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250 ok", ""},
    {"  250 ok\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250 ok", ""},
    {"250\tok\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250\tok", ""},
    {"250:ok\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250:ok", ""},
    {"299 x\r\n", SMTP_REPLY_DONE, 299, {0, 0, 0}, 1, "299 x", ""},
    {"250 a\r\n354 b\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250 a", "354 b\r\n"},
    {"250-a\r\n250-b\r\n250 c\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 3, "250-a\n250-b\n250 c", ""},
    {"250-a\r\n250\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 2, "250-a\n250", ""},
    {"250-a\r\n550 5.1.1 no\r\n", SMTP_REPLY_DONE, 550, {5, 1, 1}, 2, "250-a\n550 5.1.1 no", ""},
    {"450-a\r\nwrapped text\r\n\r\n450 b\r\n",
     SMTP_REPLY_DONE,
     450,
     {0, 0, 0},
     4,
     "450-a\nwrapped text\n\n450 b",
     ""},
    {"550 5.1.1 no\r\n", SMTP_REPLY_DONE, 550, {5, 1, 1}, 1, "550 5.1.1 no", ""},
    {"550 5.7.515 no\r\n", SMTP_REPLY_DONE, 550, {5, 7, 515}, 1, "550 5.7.515 no", ""},
    {"550-5.7.26 a\r\n550-5.7.1 b\r\n550 c\r\n",
     SMTP_REPLY_DONE,
     550,
     {5, 7, 26},
     3,
     "550-5.7.26 a\n550-5.7.1 b\n550 c",
     ""},
    {"550-2.0.0 a\r\n550 5.7.1 b\r\n",
     SMTP_REPLY_DONE,
     550,
     {5, 7, 1},
     2,
     "550-2.0.0 a\n550 5.7.1 b",
     ""},
    {"550 4.7.1 b\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 4.7.1 b", ""},
    {"354 2.0.0 go\r\n", SMTP_REPLY_DONE, 354, {0, 0, 0}, 1, "354 2.0.0 go", ""},
    {"550 5.1.1\r\n", SMTP_REPLY_DONE, 550, {5, 1, 1}, 1, "550 5.1.1", ""},
    {"550 5.1.1: no\r\n", SMTP_REPLY_DONE, 550, {5, 1, 1}, 1, "550 5.1.1: no", ""},
    {"550  5.1.1  no\r\n", SMTP_REPLY_DONE, 550, {5, 1, 1}, 1, "550  5.1.1  no", ""},
    {"554 sorry (#5.1.1)\r\n", SMTP_REPLY_DONE, 554, {5, 1, 1}, 1, "554 sorry (#5.1.1)", ""},
    {"554 ticket #12, #5.7.1 no\r\n",
     SMTP_REPLY_DONE,
     554,
     {5, 7, 1},
     1,
     "554 ticket #12, #5.7.1 no",
     ""},
    {"550 5.1 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 5.1 x", ""},
    {"550 5.1.1.2 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 5.1.1.2 x", ""},
    {"550 5.1.1x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 5.1.1x", ""},
    {"550 5.1.1234 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 5.1.1234 x", ""},
    {"550 3.1.1 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 3.1.1 x", ""},
    {"550 host 5.1.1 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 host 5.1.1 x", ""},
    {"550 a\x01\x1b[2J\x7f\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, 1, "550 a??[2J?", ""},
    {"250 a\rb\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, 1, "250 a?b", ""},
    {"250 ok", SMTP_REPLY_MORE, 0, {0, 0, 0}, 0, "", ""},
    {"250-ok\r\n", SMTP_REPLY_MORE, 250, {0, 0, 0}, 1, "250-ok", ""},
    {"", SMTP_REPLY_MORE, 0, {0, 0, 0}, 0, "", ""},
    {"\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "", ""},
    {"hello\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "hello", ""},
    {"HTTP/1.1 400 Bad\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "HTTP/1.1 400 Bad", ""},
    {"25 x\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "25 x", ""},
    {"2500 x\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "2500 x", ""},
    {"150 x\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "150 x", ""},
    {"600 x\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "600 x", ""},
    {"-50 x\r\n", SMTP_REPLY_BROKEN, 0, {0, 0, 0}, 1, "-50 x", ""},
};

static struct smtp_reply_reader reader;

static void check_row(size_t i, size_t cut)
{
    struct span in = span_of(rows[i].in, cut);
    struct span tail = span_str(rows[i].in + cut);

    smtp_reply_reader_reset(&reader);
    enum smtp_reply_result result = smtp_reply_feed(&reader, &in);
    if (result == SMTP_REPLY_MORE) {
        assert_int_equal(in.n, 0);
        in = tail;
        result = smtp_reply_feed(&reader, &in);
    } else {
        in = span_of(in.p, in.n + tail.n);
    }
    if (result != rows[i].result)
        print_error("row %zu cut at %zu: \"%s\"\n", i, cut, rows[i].in);
    assert_int_equal(result, rows[i].result);
    assert_int_equal(reader.reply.code, rows[i].code);
    assert_int_equal(reader.reply.lines, rows[i].lines);
    assert_string_equal(reader.reply.text, rows[i].text);
    assert_int_equal(reader.reply.text_bytes, strlen(rows[i].text));
    if (result != SMTP_REPLY_DONE)
        return;
    assert_int_equal(reader.reply.enhanced.class_, rows[i].enhanced.class_);
    assert_int_equal(reader.reply.enhanced.subject, rows[i].enhanced.subject);
    assert_int_equal(reader.reply.enhanced.detail, rows[i].enhanced.detail);
    assert_true(span_eq(in, span_str(rows[i].rest)));
}

static void replies(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        for (size_t cut = 0; cut <= strlen(rows[i].in); cut++)
            check_row(i, cut);
    }
}

/* Many replies of one pipeline in one span; then the same byte by byte. */
static void pipelined(void **unused)
{
    static const char stream[] = "250 2.1.0 a\r\n550-x\r\n550 5.1.1 b\r\n250 2.1.5 c\r\n354 d\r\n";
    static const uint16_t codes[] = {250, 550, 250, 354};
    (void)unused;
    for (size_t step = 1; step < sizeof stream; step++) {
        size_t seen = 0;
        smtp_reply_reader_reset(&reader);
        for (size_t at = 0; at < sizeof stream - 1; at += step) {
            size_t left = sizeof stream - 1 - at;
            struct span in = span_of(stream + at, left < step ? left : step);
            while (in.n > 0) {
                if (smtp_reply_feed(&reader, &in) != SMTP_REPLY_DONE)
                    continue;
                assert_true(seen < ARRAY_COUNT(codes));
                assert_int_equal(reader.reply.code, codes[seen++]);
                assert_int_equal(reader.reply.enhanced.class_,
                                 codes[seen - 1] == 354 ? 0 : codes[seen - 1] / 100);
            }
        }
        assert_int_equal(seen, ARRAY_COUNT(codes));
    }
}

static enum smtp_reply_result feed_many(const char *line, size_t count, size_t *fed)
{
    enum smtp_reply_result result = SMTP_REPLY_MORE;
    smtp_reply_reader_reset(&reader);
    for (*fed = 0; *fed < count && result == SMTP_REPLY_MORE; (*fed)++) {
        struct span in = span_str(line);
        result = smtp_reply_feed(&reader, &in);
    }
    return result;
}

static void bounds(void **unused)
{
    size_t fed;
    char line[LIMIT_REMOTE_LINE_BYTES + 1];
    (void)unused;
    assert_int_equal(feed_many("250-a\r\n", LIMIT_REMOTE_REPLY_LINES - 1, &fed), SMTP_REPLY_MORE);
    struct span last = span_str("250 a\r\n");
    assert_int_equal(smtp_reply_feed(&reader, &last), SMTP_REPLY_DONE);
    assert_int_equal(reader.reply.lines, LIMIT_REMOTE_REPLY_LINES);
    assert_int_equal(feed_many("250-a\r\n", 1000, &fed), SMTP_REPLY_BROKEN);
    assert_int_equal(fed, LIMIT_REMOTE_REPLY_LINES);
    /* One line may fill its buffer, and not a byte more. */
    memset(line, 'x', sizeof line);
    memcpy(line, "250 ", 4);
    line[LIMIT_REMOTE_LINE_BYTES - 1] = '\n';
    struct span in = span_of(line, LIMIT_REMOTE_LINE_BYTES);
    smtp_reply_reader_reset(&reader);
    assert_int_equal(smtp_reply_feed(&reader, &in), SMTP_REPLY_DONE);
    assert_int_equal(reader.reply.text_bytes, LIMIT_REPLY_KEPT_BYTES);
    assert_int_equal(strlen(reader.reply.text), LIMIT_REPLY_KEPT_BYTES);
    line[LIMIT_REMOTE_LINE_BYTES - 1] = 'x';
    line[LIMIT_REMOTE_LINE_BYTES] = '\n';
    in = span_of(line, LIMIT_REMOTE_LINE_BYTES + 1);
    assert_int_equal(smtp_reply_feed(&reader, &in), SMTP_REPLY_BROKEN);
    /* A flood without any line end. */
    memset(line, 'y', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    assert_int_equal(feed_many(line, 100, &fed), SMTP_REPLY_BROKEN);
    assert_int_equal(fed, 1);
    /* Long lines over the bytes of one reply, before the count of lines is reached. */
    memcpy(line, "250-", 4);
    line[1000] = '\n';
    line[1001] = '\0';
    assert_int_equal(feed_many(line, 100, &fed), SMTP_REPLY_BROKEN);
    assert_in_range(fed, LIMIT_REMOTE_REPLY_BYTES / 1001, LIMIT_REMOTE_REPLY_BYTES / 1001 + 1);
    assert_true(reader.reply.text_bytes <= LIMIT_REPLY_KEPT_BYTES);
}

static const struct smtp_reply *whole(const char *text)
{
    struct span in = span_str(text);
    smtp_reply_reader_reset(&reader);
    assert_int_equal(smtp_reply_feed(&reader, &in), SMTP_REPLY_DONE);
    return &reader.reply;
}

static void text_lines(void **unused)
{
    const struct smtp_reply *r = whole("550-5.1.1 a b\r\nloose\r\n550-\r\n550 last\r\n");
    (void)unused;
    assert_true(span_eq(smtp_reply_text_line(r, 0), span_str("5.1.1 a b")));
    assert_true(span_eq(smtp_reply_text_line(r, 1), span_str("loose")));
    assert_int_equal(smtp_reply_text_line(r, 2).n, 0);
    assert_true(span_eq(smtp_reply_text_line(r, 3), span_str("last")));
    assert_int_equal(smtp_reply_text_line(r, 4).n, 0);
    assert_int_equal(smtp_reply_text_line(r, 1000).n, 0);
}

static void offers(void **unused)
{
    struct smtp_offer o;
    (void)unused;
    smtp_offer_parse(whole("250-mx.test PIPELINING STARTTLS\r\n250-SIZE 35882577\r\n"
                           "250-8BITMIME\r\n250-starttls\r\n250-ENHANCEDSTATUSCODES\r\n"
                           "250-PIPELINING\r\n250-CHUNKING\r\n250-DSN\r\n250-X-STARTTLS\r\n"
                           "250-LIMITS RCPTMAX=3 mailmax=2 FOO=9 RCPTDOMAINMAX=1\r\n"
                           "250 SMTPUTF8\r\n"),
                     &o);
    assert_true(o.pipelining && o.chunking && o.eightbitmime && o.smtputf8 && o.size);
    assert_true(o.starttls && o.dsn && o.enhanced);
    assert_int_equal(o.size_max, 35882577);
    assert_int_equal(o.rcpt_max, 3);
    assert_int_equal(o.mail_max, 2);
    smtp_offer_parse(whole("250 mx.test PIPELINING STARTTLS SIZE 1\r\n"), &o);
    assert_false(o.pipelining || o.starttls || o.size);
    smtp_offer_parse(whole("250-STARTTLS\r\n250 DSN\r\n"), &o);
    assert_false(o.starttls);
    assert_true(o.dsn);
    smtp_offer_parse(whole("250-mx\r\n250-SIZE\r\n250-PIPELININGX\r\n250 XPIPELINING\r\n"), &o);
    assert_true(o.size);
    assert_int_equal(o.size_max, 0);
    assert_false(o.pipelining);
    smtp_offer_parse(whole("250-mx\r\n250-SIZE 99999999999999999999999\r\n"
                           "250-LIMITS RCPTMAX=99999999999 MAILMAX=x\r\n250 x\r\n"),
                     &o);
    assert_int_equal(o.size_max, 0);
    assert_int_equal(o.rcpt_max, UINT32_MAX);
    assert_int_equal(o.mail_max, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies),    cmocka_unit_test(pipelined), cmocka_unit_test(bounds),
        cmocka_unit_test(text_lines), cmocka_unit_test(offers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
