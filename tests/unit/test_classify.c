/* classify: replies of the kind that receivers send, and totality over all codes and stages. */
#include "proto/classify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define OK       VERDICT_OK
#define TEMP     VERDICT_TEMP
#define PERM     VERDICT_PERM
#define MORE     VERDICT_MORE
#define AFTER_OK 0x80

static const struct {
    unsigned stage; /* AFTER_OK: an earlier recipient was accepted */
    const char *reply;
    enum verdict verdict;
    enum verdict_scope scope;
    enum reason reason;
    const char *status;
} rows[] = {
    {STAGE_MAIL, "250 2.1.0 ok", OK, SCOPE_NONE, REASON_NONE, "2.1.0"},
    {STAGE_MAIL, "250 ok", OK, SCOPE_NONE, REASON_NONE, "2.1.0"},
    {STAGE_RCPT, "250 ok", OK, SCOPE_NONE, REASON_NONE, "2.1.5"},
    {STAGE_RCPT, "251 will forward", OK, SCOPE_NONE, REASON_NONE, "2.1.5"},
    {STAGE_DATA, "354 go", OK, SCOPE_NONE, REASON_NONE, "2.0.0"},
    {STAGE_DATA, "250 what?", TEMP, SCOPE_HOST, REASON_PROTOCOL, "2.0.0"},
    {STAGE_RCPT, "354 what?", TEMP, SCOPE_HOST, REASON_PROTOCOL, "2.0.0"},
    {STAGE_DOT, "250 2.6.0 queued, try again never", OK, SCOPE_NONE, REASON_DELIVERED, "2.6.0"},
    {STAGE_DOT, "299 x", OK, SCOPE_NONE, REASON_DELIVERED, "2.0.0"},
    {STAGE_QUIT, "421 bye", OK, SCOPE_NONE, REASON_NONE, "4.3.2"},
    {STAGE_GREETING, "220 mx", OK, SCOPE_NONE, REASON_NONE, "2.0.0"},
    /* 421 anywhere closes the connection and counts against nobody. */
    {STAGE_GREETING, "421 busy", TEMP, SCOPE_CONNECTION, REASON_REMOTE_TEMP, "4.3.2"},
    {STAGE_RCPT, "421 4.7.0 try again later", TEMP, SCOPE_CONNECTION, REASON_REMOTE_TEMP, "4.7.0"},
    {STAGE_DOT, "421 4.3.0 x", TEMP, SCOPE_CONNECTION, REASON_REMOTE_TEMP, "4.3.0"},
    /* A greeting is about the host. */
    {STAGE_GREETING, "554 no SMTP service", TEMP, SCOPE_HOST, REASON_REMOTE_TEMP, "5.3.2"},
    {STAGE_GREETING, "521 no mail here", TEMP, SCOPE_HOST, REASON_REMOTE_TEMP, "5.3.2"},
    {STAGE_GREETING, "554 5.7.1 blocked", TEMP, SCOPE_HOST, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_GREETING, "554 IP=192.0.2.1 bad reputation", TEMP, SCOPE_HOST, REASON_POLICY_BLOCK,
     "5.7.1"},
    {STAGE_GREETING, "450 later", TEMP, SCOPE_HOST, REASON_REMOTE_TEMP, "4.2.0"},
    {STAGE_EHLO, "550 5.7.1 no", TEMP, SCOPE_HOST, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_EHLO, "502 what", TEMP, SCOPE_HOST, REASON_REMOTE_TEMP, "5.5.1"},
    /* 4yz */
    {STAGE_RCPT, "450 mailbox busy", TEMP, SCOPE_RECIPIENT, REASON_REMOTE_TEMP, "4.2.0"},
    {STAGE_RCPT, "450 4.2.0 Greylisted, see https://x.test", TEMP, SCOPE_RECIPIENT,
     REASON_GREYLISTED, "4.2.0"},
    {STAGE_RCPT, "451 4.7.1 please try again in 5 minutes", TEMP, SCOPE_RECIPIENT,
     REASON_GREYLISTED, "4.7.1"},
    {STAGE_DOT, "451 gray listing in effect", TEMP, SCOPE_MESSAGE, REASON_GREYLISTED, "4.7.1"},
    {STAGE_DOT, "451 graylisting in effect", TEMP, SCOPE_MESSAGE, REASON_GREYLISTED, "4.7.1"},
    {STAGE_RCPT, "450-4.2.1 receiving mail at a rate that\n450 4.2.1 x", TEMP, SCOPE_RECIPIENT,
     REASON_REMOTE_TEMP, "4.2.1"},
    {STAGE_MAIL, "451 4.7.650 rate limited due to IP reputation (S775)", TEMP, SCOPE_PAIR,
     REASON_REMOTE_TEMP, "4.7.650"},
    {STAGE_DOT, "450 4.7.0 no", TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP, "4.7.0"},
    {STAGE_MAIL, "451 4.7.1 listed at spamhaus", TEMP, SCOPE_PAIR, REASON_POLICY_BLOCK, "4.7.1"},
    {STAGE_MAIL, "451 local error", TEMP, SCOPE_MESSAGE, REASON_REMOTE_TEMP, "4.3.0"},
    {STAGE_DOT, "451 4.3.0 x", TEMP, SCOPE_MESSAGE, REASON_REMOTE_TEMP, "4.3.0"},
    {STAGE_MAIL, "452 4.3.1 disk", TEMP, SCOPE_SITE, REASON_REMOTE_TEMP, "4.3.1"},
    {STAGE_DOT, "452 no room", TEMP, SCOPE_SITE, REASON_REMOTE_TEMP, "4.3.1"},
    {STAGE_RCPT, "452 4.2.2 full", TEMP, SCOPE_RECIPIENT, REASON_MAILBOX_FULL, "4.2.2"},
    {STAGE_RCPT, "452 mailbox is full", TEMP, SCOPE_RECIPIENT, REASON_MAILBOX_FULL, "4.2.2"},
    {STAGE_RCPT, "454 4.7.0 TLS", TEMP, SCOPE_HOST, REASON_REMOTE_TEMP, "4.7.0"},
    {STAGE_MAIL, "455 x", TEMP, SCOPE_MESSAGE, REASON_REMOTE_TEMP, "4.5.4"},
    {STAGE_RCPT, "499 x", TEMP, SCOPE_RECIPIENT, REASON_REMOTE_TEMP, "4.0.0"},
    {STAGE_DOT, "450 4.1.1 all mail permanently deferred", TEMP, SCOPE_PAIR, REASON_LASTING,
     "4.1.1"},
    /* Too many recipients. */
    {STAGE_RCPT | AFTER_OK, "452 too many recipients", MORE, SCOPE_NONE, REASON_NONE, "4.5.3"},
    {STAGE_RCPT | AFTER_OK, "452 4.5.3 x", MORE, SCOPE_NONE, REASON_NONE, "4.5.3"},
    {STAGE_RCPT | AFTER_OK, "552 too many", MORE, SCOPE_NONE, REASON_NONE, "5.5.3"},
    {STAGE_RCPT | AFTER_OK, "451 4.5.3 x", MORE, SCOPE_NONE, REASON_NONE, "4.5.3"},
    {STAGE_RCPT | AFTER_OK, "550 5.5.3 x", MORE, SCOPE_NONE, REASON_NONE, "5.5.3"},
    {STAGE_RCPT | AFTER_OK, "452 4.2.2 full", TEMP, SCOPE_RECIPIENT, REASON_MAILBOX_FULL, "4.2.2"},
    {STAGE_RCPT | AFTER_OK, "552 5.2.2 full", PERM, SCOPE_RECIPIENT, REASON_MAILBOX_FULL, "5.2.2"},
    {STAGE_RCPT | AFTER_OK, "552 user is over quota", PERM, SCOPE_RECIPIENT, REASON_MAILBOX_FULL,
     "5.2.2"},
    {STAGE_RCPT | AFTER_OK, "552 5.3.4 too big", PERM, SCOPE_MESSAGE, REASON_TOO_BIG, "5.3.4"},
    {STAGE_RCPT | AFTER_OK, "550 5.1.1 no", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "452 4.5.3 x", TEMP, SCOPE_RECIPIENT, REASON_REMOTE_TEMP, "4.5.3"},
    {STAGE_RCPT, "552 x", PERM, SCOPE_RECIPIENT, REASON_MAILBOX_FULL, "5.2.2"},
    {STAGE_DOT, "552 x", PERM, SCOPE_MESSAGE, REASON_TOO_BIG, "5.3.4"},
    {STAGE_MAIL, "552 5.3.4 x", PERM, SCOPE_MESSAGE, REASON_TOO_BIG, "5.3.4"},
    {STAGE_DOT, "552 5.2.2 quota", PERM, SCOPE_MESSAGE, REASON_MAILBOX_FULL, "5.2.2"},
    {STAGE_DOT, "552-5.2.3 too large\n552 5.2.3 x", PERM, SCOPE_MESSAGE, REASON_TOO_BIG, "5.2.3"},
    /* Recipients */
    {STAGE_RCPT, "550 5.1.1 no such user", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "550 no such user", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "554 Benutzer unbekannt", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "550", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "551 user moved", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.6"},
    {STAGE_RCPT, "553 bad name", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.3"},
    {STAGE_RCPT, "550 5.2.1 disabled", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.2.1"},
    {STAGE_RCPT, "550 account has been disabled", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM,
     "5.2.1"},
    {STAGE_RCPT, "550 5.4.1 Recipient address rejected: Access denied", PERM, SCOPE_RECIPIENT,
     REASON_REMOTE_PERM, "5.4.1"},
    {STAGE_RCPT, "550 5.5.0 mailbox unavailable", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM,
     "5.5.0"},
    {STAGE_RCPT, "556 5.1.10 null MX", PERM, SCOPE_DOMAIN, REASON_NULL_MX, "5.1.10"},
    {STAGE_RCPT, "556 domain takes no mail", PERM, SCOPE_DOMAIN, REASON_NULL_MX, "5.1.10"},
    {STAGE_RCPT, "554 (#5.1.1) sorry", PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM, "5.1.1"},
    /* Policy */
    {STAGE_MAIL, "550 5.7.1 messages weren't sent, part of their network is on our block list",
     PERM, SCOPE_PAIR, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_MAIL, "550 sender rejected", PERM, SCOPE_PAIR, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_RCPT, "550 5.7.1 relaying denied", PERM, SCOPE_MESSAGE, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_RCPT, "550 rejected, see https://www.spamhaus.org/query", PERM, SCOPE_PAIR,
     REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_DOT, "554 5.7.1 message content looks like spam", PERM, SCOPE_MESSAGE,
     REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_DOT, "550-5.7.26 unauthenticated sender\n550 5.7.26 x", PERM, SCOPE_MESSAGE,
     REASON_POLICY_BLOCK, "5.7.26"},
    {STAGE_DOT, "554 infected with a virus", PERM, SCOPE_MESSAGE, REASON_POLICY_BLOCK, "5.7.1"},
    {STAGE_MAIL, "530 5.7.0 authentication needed", TEMP, SCOPE_SITE, REASON_POLICY_BLOCK, "5.7.0"},
    {STAGE_MAIL, "535 no", TEMP, SCOPE_SITE, REASON_POLICY_BLOCK, "5.7.8"},
    /* Ours */
    {STAGE_MAIL, "555 what is that", PERM, SCOPE_MESSAGE, REASON_PROTOCOL, "5.5.4"},
    {STAGE_MAIL, "501 5.5.4 syntax", PERM, SCOPE_MESSAGE, REASON_PROTOCOL, "5.5.4"},
    {STAGE_DOT, "554 5.6.0 bad format", PERM, SCOPE_MESSAGE, REASON_PROTOCOL, "5.6.0"},
    {STAGE_DATA, "554 5.5.1 no valid recipients", PERM, SCOPE_MESSAGE, REASON_PROTOCOL, "5.5.1"},
    {STAGE_DOT, "554 5.6.3 conversion", PERM, SCOPE_MESSAGE, REASON_NO_8BIT, "5.6.3"},
    {STAGE_RCPT, "553 5.6.7 x", PERM, SCOPE_MESSAGE, REASON_NO_UTF8, "5.6.7"},
    {STAGE_DOT, "554 5.6.9 x", PERM, SCOPE_MESSAGE, REASON_NO_UTF8, "5.6.9"},
    {STAGE_DOT, "554 5.4.6 loop", PERM, SCOPE_MESSAGE, REASON_LOOP, "5.4.6"},
    {STAGE_DOT, "554 transaction failed", PERM, SCOPE_MESSAGE, REASON_REMOTE_PERM, "5.3.0"},
    {STAGE_DOT, "599 x", PERM, SCOPE_MESSAGE, REASON_REMOTE_PERM, "5.0.0"},
    /* 5yz that says itself it will pass. */
    {STAGE_DOT, "554 5.7.1 temporarily rejected", TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP, "5.7.1"},
    {STAGE_DOT, "554 service unavailable, try again later", TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP,
     "5.3.0"},
    {STAGE_MAIL, "550 ip frequency limited", TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP, "5.7.0"},
    {STAGE_RCPT, "550 5.7.1 rate limit exceeded", TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP, "5.7.1"},
    {STAGE_RCPT, "550 Greylisted", TEMP, SCOPE_MESSAGE, REASON_GREYLISTED, "5.7.1"},
    /* ... and texts that only seem to. */
    {STAGE_RCPT, "550 5.1.1 no such user, check the address and try again", PERM, SCOPE_RECIPIENT,
     REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_RCPT, "550 user unknown; check the address and try again", PERM, SCOPE_RECIPIENT,
     REASON_REMOTE_PERM, "5.1.1"},
    {STAGE_DOT, "554 5.7.1 against corporate policy", PERM, SCOPE_MESSAGE, REASON_POLICY_BLOCK,
     "5.7.1"},
    {STAGE_DOT, "554 permanently refused", PERM, SCOPE_MESSAGE, REASON_REMOTE_PERM, "5.3.0"},
    {STAGE_DOT, "554 refused, do not try again", PERM, SCOPE_MESSAGE, REASON_REMOTE_PERM, "5.3.0"},
    {STAGE_DOT, "554 5.6.0 generated by a moderated list", PERM, SCOPE_MESSAGE, REASON_PROTOCOL,
     "5.6.0"},
};

static struct smtp_reply_reader reader;

/* Reads the text as a server sends it: the enhanced code comes from the real parser. */
static const struct smtp_reply *reply_of(const char *text)
{
    char wire[512];
    int n = snprintf(wire, sizeof wire, "%s\n", text);
    struct span in = span_of(wire, (size_t)n);
    smtp_reply_reader_reset(&reader);
    assert_int_equal(smtp_reply_feed(&reader, &in), SMTP_REPLY_DONE);
    return &reader.reply;
}

static void table(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct classification c;
        char status[16];
        classify_reply((enum smtp_stage)(rows[i].stage & 0x7f), reply_of(rows[i].reply),
                       rows[i].stage & AFTER_OK, &c);
        enhanced_format(c.status, status);
        if (c.verdict != rows[i].verdict || c.scope != rows[i].scope ||
            c.reason != rows[i].reason || strcmp(status, rows[i].status) != 0) {
            print_error("\"%s\" at %s: verdict %d scope %d reason %s status %s\n", rows[i].reply,
                        stage_word((enum smtp_stage)(rows[i].stage & 0x7f)), c.verdict, c.scope,
                        reason_word(c.reason), status);
            fail();
        }
    }
}

/* What holds for every code at every stage. */
static void check_any(enum smtp_stage stage, const struct smtp_reply *r, bool after_ok)
{
    struct classification c;
    memset(&c, 0xee, sizeof c);
    classify_reply(stage, r, after_ok, &c);
    assert_in_range(c.status.class_, 2, 5);
    assert_int_equal(c.status.class_, r->code < 400 ? 2 : r->code / 100);
    assert_in_range(c.scope, 0, SCOPE_DOMAIN);
    assert_in_range(c.reason, 0, REASON_COUNT - 1);
    if (stage == STAGE_QUIT)
        assert_int_equal(c.verdict, OK);
    else if (r->code < 400)
        assert_true(c.verdict == OK || c.reason == REASON_PROTOCOL);
    else if (r->code < 500)
        assert_true(c.verdict == TEMP || c.verdict == MORE);
    else
        assert_true(c.verdict != OK);
    if (stage < STAGE_MAIL)
        assert_true(c.verdict == OK || c.verdict == TEMP); /* no message was seen yet */
    if (c.verdict == MORE)
        assert_true(stage == STAGE_RCPT && after_ok);
    if (c.verdict == TEMP && r->code != 421)
        assert_int_not_equal(c.scope, SCOPE_NONE);
    if (r->code == 421 && stage != STAGE_QUIT)
        assert_int_equal(c.scope, SCOPE_CONNECTION);
}

static void every_code(void **unused)
{
    static const char *const texts[] = {"",           "try again",    "greylisted", "spamhaus",
                                        "over quota", "no such user", "permanently"};
    (void)unused;
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        for (uint16_t code = 200; code < 600; code++) {
            for (size_t t = 0; t < ARRAY_COUNT(texts); t++) {
                static struct smtp_reply r;
                r = (struct smtp_reply){.code = code, .lines = 1};
                r.text_bytes = (uint16_t)snprintf(r.text, sizeof r.text, "%u %s", code, texts[t]);
                for (uint16_t subject = 0; subject < 9; subject++) {
                    r.enhanced = (struct smtp_enhanced){subject == 8 ? 0 : (uint8_t)(code / 100),
                                                        subject, subject};
                    if (code / 100 == 3)
                        r.enhanced = (struct smtp_enhanced){0, 0, 0};
                    check_any((enum smtp_stage)stage, &r, false);
                    check_any((enum smtp_stage)stage, &r, true);
                }
            }
        }
    }
}

static void words(void **unused)
{
    (void)unused;
    for (int a = 0; a < REASON_COUNT; a++) {
        assert_true(strlen(reason_word((enum reason)a)) > 0);
        assert_true(strlen(reason_text((enum reason)a)) > 0);
        assert_int_equal(
            strspn(reason_word((enum reason)a), "abcdefghijklmnopqrstuvwxyz0123456789-"),
            strlen(reason_word((enum reason)a)));
        for (int b = 0; b < a; b++)
            assert_string_not_equal(reason_word((enum reason)a), reason_word((enum reason)b));
    }
    for (int s = 0; s < STAGE_COUNT; s++)
        assert_non_null(stage_word((enum smtp_stage)s));
    char room[16];
    enhanced_format((struct smtp_enhanced){5, 999, 999}, room);
    assert_string_equal(room, "5.999.999");
    enhanced_format((struct smtp_enhanced){255, 65535, 65535}, room);
    assert_string_equal(room, "255.65535.65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(every_code),
        cmocka_unit_test(words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
