/* smtp_command: verbs, arguments, parameters. */
#include "proto/limits.h"
#include "proto/smtp_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NONE       SMTP_FAULT_NONE
#define SYNTAX     SMTP_FAULT_SYNTAX
#define CONTROL    SMTP_FAULT_CONTROL
#define ADDRESS    SMTP_FAULT_ADDRESS
#define NEEDS_UTF8 SMTP_FAULT_ADDRESS_UTF8
#define UNKNOWN    SMTP_FAULT_PARAM_UNKNOWN
#define REPEATED   SMTP_FAULT_PARAM_REPEATED
#define VALUE      SMTP_FAULT_PARAM_VALUE

static void check_fault(const char *line, unsigned flags, bool utf8, enum smtp_verb verb,
                        enum smtp_fault fault)
{
    struct smtp_command c;
    smtp_command_parse(span_str(line), flags, utf8, &c);
    if (c.verb != verb || c.fault != fault)
        print_error("\"%s\": verb %d fault %d, want %d %d\n", line, c.verb, c.fault, verb, fault);
    assert_int_equal(c.verb, verb);
    assert_int_equal(c.fault, fault);
}

static const struct {
    const char *line;
    enum smtp_verb verb;
    enum smtp_fault fault;
} strict[] = {
    {"EHLO a.test", SMTP_EHLO, NONE},
    {"eHlO [127.0.0.1]", SMTP_EHLO, NONE},
    {"EHLO [IPv6:::1]", SMTP_EHLO, NONE},
    {"EHLO nonsense.invalid", SMTP_EHLO, NONE},
    {"EHLO a_b", SMTP_EHLO, NONE},
    {"EHLO", SMTP_EHLO, SYNTAX},
    {"EHLO ", SMTP_EHLO, SYNTAX},
    {"EHLO a b", SMTP_EHLO, SYNTAX},
    {"EHLO a)", SMTP_EHLO, SYNTAX},
    {"EHLO \xc3\xa9.test", SMTP_EHLO, SYNTAX},
    {"HELO a.test", SMTP_HELO, NONE},
    {"HELO", SMTP_HELO, SYNTAX},
    {"DATA", SMTP_DATA, NONE},
    {"data  \t", SMTP_DATA, NONE},
    {"DATA x", SMTP_DATA, SYNTAX},
    {"RSET", SMTP_RSET, NONE},
    {"RSET x", SMTP_RSET, SYNTAX},
    {"QUIT", SMTP_QUIT, NONE},
    {"QUIT now", SMTP_QUIT, SYNTAX},
    {"nOoP", SMTP_NOOP, NONE},
    {"NOOP anything at all", SMTP_NOOP, NONE},
    {"NOOP \x01", SMTP_NOOP, CONTROL},
    {"vrfy a", SMTP_VRFY, NONE},
    {"VRFY", SMTP_VRFY, SYNTAX},
    {"HELP", SMTP_HELP, NONE},
    {"HELP mail", SMTP_HELP, NONE},
    {"STARTTLS", SMTP_STARTTLS, NONE},
    {"STARTTLS x", SMTP_STARTTLS, SYNTAX},
    {"AUTH PLAIN AGEAYg==", SMTP_AUTH, NONE},
    {"AUTH", SMTP_AUTH, SYNTAX},
    {"EXPN list", SMTP_NOT_IMPLEMENTED, NONE},
    {"TURN", SMTP_NOT_IMPLEMENTED, NONE},
    {"SEND FROM:<a@b>", SMTP_NOT_IMPLEMENTED, NONE},
    {"SOML FROM:<a@b>", SMTP_NOT_IMPLEMENTED, NONE},
    {"SAML FROM:<a@b>", SMTP_NOT_IMPLEMENTED, NONE},
    {"ETRN x", SMTP_NOT_IMPLEMENTED, NONE},
    {"", SMTP_UNKNOWN, NONE},
    {" ", SMTP_UNKNOWN, NONE},
    {" NOOP", SMTP_UNKNOWN, NONE},
    {"FOO", SMTP_UNKNOWN, NONE},
    {"NOOPX", SMTP_UNKNOWN, NONE},
    {"NOO", SMTP_UNKNOWN, NONE},
    {"MAILFROM:<a@b>", SMTP_UNKNOWN, NONE},
    {"NOOP\tx", SMTP_UNKNOWN, CONTROL},
    {"\xff\xfe", SMTP_UNKNOWN, NONE},
    {"\x16\x03\x01", SMTP_UNKNOWN, CONTROL},

    {"MAIL FROM:<a@b.test>", SMTP_MAIL, NONE},
    {"mail from:<a@b.test>", SMTP_MAIL, NONE},
    {"MAIL FROM:<>", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test>  ", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test>   SIZE=1   BODY=7BIT", SMTP_MAIL, NONE},
    {"MAIL", SMTP_MAIL, SYNTAX},
    {"MAIL FROM", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:", SMTP_MAIL, ADDRESS},
    {"MAIL FROM <a@b.test>", SMTP_MAIL, SYNTAX},
    {"MAIL TO:<a@b.test>", SMTP_MAIL, SYNTAX},
    {"MAIL  FROM:<a@b.test>", SMTP_MAIL, SYNTAX},
    {"MAIL FROM: <a@b.test>", SMTP_MAIL, ADDRESS},
    {"MAIL FROM:a@b.test", SMTP_MAIL, ADDRESS},
    {"MAIL FROM:<a@b.test>SIZE=1", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:<a@b.test>>", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:<postmaster>", SMTP_MAIL, ADDRESS},
    {"MAIL FROM:<a\x01@b.test>", SMTP_MAIL, CONTROL},
    {"MAIL FROM:<a@b.test> FOO=1", SMTP_MAIL, UNKNOWN},
    {"MAIL FROM:<a@b.test> FOO", SMTP_MAIL, UNKNOWN},
    {"MAIL FROM:<a@b.test> ORCPT=rfc822;a", SMTP_MAIL, UNKNOWN},
    {"MAIL FROM:<a@b.test> =1", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:<a@b.test> -X=1", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:<a@b.test> S_E=1", SMTP_MAIL, SYNTAX},
    {"MAIL FROM:<a@b.test> SIZE=1 size=1", SMTP_MAIL, REPEATED},
    {"MAIL FROM:<a@b.test> SIZE", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SIZE=", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SIZE=abc", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SIZE=-1", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SIZE=123456789012345678901", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> BODY=8bitmime", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> BODY=BINARYMIME", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> BODY=9BIT", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> BODY", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> BODY=", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SMTPUTF8", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> SMTPUTF8=", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> SMTPUTF8=1", SMTP_MAIL, VALUE},
    {"MAIL FROM:<\xce\xb4@b.test> SMTPUTF8", SMTP_MAIL, NONE},
    {"MAIL FROM:<\xce\xb4@b.test> SIZE=1 SMTPUTF8", SMTP_MAIL, NONE},
    {"MAIL FROM:<\xce\xb4@b.test>", SMTP_MAIL, NEEDS_UTF8},
    {"MAIL FROM:<\xce@b.test> SMTPUTF8", SMTP_MAIL, ADDRESS},
    {"MAIL FROM:<a@b.test> AUTH=<>", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> AUTH=e+3Dmc2@example.com", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> AUTH=a=b", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> AUTH=", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> RET=full", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> RET=HDRS", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> RET=X", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> RET=", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> RET", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=QQ+2B1", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> ENVID=a+20b", SMTP_MAIL, NONE},
    {"MAIL FROM:<a@b.test> ENVID=a+ZZ", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=a+2b", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=a+2", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=a+0D+0ABcc:x", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=a+7F", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=a+80", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=\xc3\xa9", SMTP_MAIL, VALUE},
    {"MAIL FROM:<a@b.test> ENVID=", SMTP_MAIL, VALUE},

    {"RCPT TO:<a@b.test>", SMTP_RCPT, NONE},
    {"rcpt to:<PostMaster>", SMTP_RCPT, NONE},
    {"RCPT TO:<@x.test:a@b.test>", SMTP_RCPT, NONE},
    {"RCPT TO:<>", SMTP_RCPT, ADDRESS},
    {"RCPT FROM:<a@b.test>", SMTP_RCPT, SYNTAX},
    {"RCPT TO:<a@b.test> SIZE=1", SMTP_RCPT, UNKNOWN},
    {"RCPT TO:<a@b.test> SMTPUTF8", SMTP_RCPT, UNKNOWN},
    {"RCPT TO:<\xce\xb4@b.test>", SMTP_RCPT, NEEDS_UTF8},
    {"RCPT TO:<a@b.test> NOTIFY=never", SMTP_RCPT, NONE},
    {"RCPT TO:<a@b.test> NOTIFY=SUCCESS,failure,DELAY", SMTP_RCPT, NONE},
    {"RCPT TO:<a@b.test> NOTIFY=DELAY", SMTP_RCPT, NONE},
    {"RCPT TO:<a@b.test> NOTIFY=NEVER,SUCCESS", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY=SUCCESS,NEVER", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY=SUCCESS,", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY=,SUCCESS", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY=", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> NOTIFY=NEVER NOTIFY=NEVER", SMTP_RCPT, REPEATED},
    {"RCPT TO:<a@b.test> ORCPT=rfc822;a+2Bb@c.test", SMTP_RCPT, NONE},
    {"RCPT TO:<a@b.test> orcpt=RFC822;a", SMTP_RCPT, NONE},
    {"RCPT TO:<a@b.test> ORCPT=rfc822;", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> ORCPT=;a", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> ORCPT=rfc822", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> ORCPT=rfc822;a=b", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> ORCPT=rfc822;a+0Ab", SMTP_RCPT, VALUE},
    {"RCPT TO:<a@b.test> ORCPT=utf-8;\xce\xb4@b.test", SMTP_RCPT, VALUE},

    {"BDAT 0", SMTP_BDAT, NONE},
    {"BDAT 86 LAST", SMTP_BDAT, NONE},
    {"bdat 86  last", SMTP_BDAT, NONE},
    {"BDAT", SMTP_BDAT, SYNTAX},
    {"BDAT LAST", SMTP_BDAT, SYNTAX},
    {"BDAT -1", SMTP_BDAT, SYNTAX},
    {"BDAT 1x", SMTP_BDAT, SYNTAX},
    {"BDAT 1 LASTX", SMTP_BDAT, SYNTAX},
    {"BDAT 1 LAST LAST", SMTP_BDAT, SYNTAX},
};

static void strict_lines(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(strict); i++)
        check_fault(strict[i].line, 0, false, strict[i].verb, strict[i].fault);
}

static void tolerant_lines(void **unused)
{
    static const struct {
        const char *line;
        enum smtp_verb verb;
        enum smtp_fault fault;
    } rows[] = {
        {"MAIL FROM: <a@b.test>", SMTP_MAIL, NONE},
        {"MAIL FROM:   a@b.test SIZE=1", SMTP_MAIL, ADDRESS},
        {"MAIL  FROM:<a@b.test>", SMTP_MAIL, NONE},
        {"MAIL FROM:<a@b.test", SMTP_MAIL, ADDRESS},
        {"MAIL FROM:a@b.test>", SMTP_MAIL, ADDRESS},
        {"MAIL FROM:", SMTP_MAIL, ADDRESS},
        {"MAIL FROM: <> SIZE=1", SMTP_MAIL, NONE},
        {"RCPT TO: postmaster", SMTP_RCPT, ADDRESS},
        {"RCPT TO: a", SMTP_RCPT, ADDRESS},
        {"EHLO   a.test", SMTP_EHLO, NONE},
    };
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        check_fault(rows[i].line, SMTP_PARSE_TOLERANT, false, rows[i].verb, rows[i].fault);
    check_fault("RCPT TO:<\xce\xb4@b.test>", 0, true, SMTP_RCPT, NONE);
    check_fault("RCPT TO:<a@b> ORCPT=utf-8;\xce\xb4@b", 0, true, SMTP_RCPT, NONE);
    check_fault("RCPT TO:<a@b> ORCPT=rfc822;\xce\xb4@b", 0, true, SMTP_RCPT, VALUE);
    check_fault("RCPT TO:<a@b> ORCPT=utf-8;\xce@b", 0, true, SMTP_RCPT, VALUE);
    /* MAIL is told by its own parameter, whatever the session says. */
    check_fault("MAIL FROM:<\xce\xb4@b.test>", 0, true, SMTP_MAIL, NEEDS_UTF8);
}

static void values(void **unused)
{
    struct smtp_command c;
    (void)unused;
    smtp_command_parse(span_str("MAIL FROM:<JoHn@X.test> SIZE=18446744073709551615 body=binarymime "
                                "RET=Hdrs ENVID=q+2B1 AUTH=<> SMTPUTF8"),
                       0, false, &c);
    assert_int_equal(c.fault, NONE);
    assert_true(span_eq(c.path.text, span_str("JoHn@X.test")));
    assert_int_equal(c.size, UINT64_MAX);
    assert_int_equal(c.body, SMTP_BODY_BINARYMIME);
    assert_true(span_eq(c.ret, span_str("Hdrs")));
    assert_true(span_eq(c.envid, span_str("q+2B1")));
    assert_int_equal(c.params, SMTP_PARAM_SIZE | SMTP_PARAM_BODY | SMTP_PARAM_RET |
                                   SMTP_PARAM_ENVID | SMTP_PARAM_AUTH | SMTP_PARAM_SMTPUTF8);
    smtp_command_parse(span_str("RCPT TO:<a@b> NOTIFY=DELAY ORCPT=rfc822;x"), 0, false, &c);
    assert_true(span_eq(c.notify, span_str("DELAY")));
    assert_true(span_eq(c.orcpt, span_str("rfc822;x")));
    smtp_command_parse(span_str("MAIL FROM:<a@b> SIZE=99999999999999999999"), 0, false, &c);
    assert_int_equal(c.fault, NONE);
    assert_int_equal(c.size, UINT64_MAX);
    smtp_command_parse(span_str("MAIL FROM:<a@b> SIZE=x"), 0, false, &c);
    assert_int_equal(c.params, SMTP_PARAM_SIZE); /* given, though its value is bad */
    smtp_command_parse(span_str("MAIL FROM:<a@b>"), 0, false, &c);
    assert_int_equal(c.params, 0);
    assert_int_equal(c.body, SMTP_BODY_UNSET);
    smtp_command_parse(span_str("BDAT 99999999999999999999999999999999 LAST"), 0, false, &c);
    assert_int_equal(c.fault, NONE);
    assert_int_equal(c.size, UINT64_MAX);
    assert_true(c.last);
    smtp_command_parse(span_str("BDAT 18446744073709551614"), 0, false, &c);
    assert_int_equal(c.size, UINT64_MAX - 1);
    assert_false(c.last);
    smtp_command_parse(span_str("NOOP  two words "), 0, false, &c);
    assert_true(span_eq(c.args, span_str(" two words")));
    smtp_command_parse(span_of("MAIL FROM:<a\0@b.test>", 21), 0, false, &c);
    assert_int_equal(c.fault, CONTROL);
    smtp_command_parse(span_of(NULL, 0), 0, false, &c);
    assert_int_equal(c.verb, SMTP_UNKNOWN);
}

/* All parameters at their longest in one line (RFC 5321 4.5.3.1.4 and the growth by extensions). */
static void longest_lines(void **unused)
{
    char line[LIMIT_COMMAND_LINE_BYTES];
    char local[LIMIT_LOCAL_PART_BYTES + 1], domain[LIMIT_DOMAIN_BYTES + 1];
    char envid[101], auth[501], orcpt[494];
    struct smtp_command c;
    (void)unused;
    memset(local, 'l', sizeof local - 1);
    local[sizeof local - 1] = '\0';
    for (size_t i = 0; i < sizeof domain - 1; i++)
        domain[i] = i % 64 == 63 ? '.' : 'd';
    domain[sizeof domain - 1] = '\0';
    memset(envid, 'e', sizeof envid);
    memset(auth, 'a', sizeof auth);
    memset(orcpt, 'o', sizeof orcpt);
    int n = snprintf(line, sizeof line,
                     "MAIL FROM:<%s@%s> SIZE=18446744073709551615 BODY=BINARYMIME SMTPUTF8 "
                     "RET=FULL ENVID=%.100s AUTH=%.500s",
                     local, domain, envid, auth);
    smtp_command_parse(span_of(line, (size_t)n), 0, false, &c);
    assert_int_equal(c.fault, NONE);
    n = snprintf(line, sizeof line, "MAIL FROM:<a@b> ENVID=%.101s", envid);
    smtp_command_parse(span_of(line, (size_t)n), 0, false, &c);
    assert_int_equal(c.fault, VALUE);
    n = snprintf(line, sizeof line, "MAIL FROM:<a@b> AUTH=%.501s", auth);
    smtp_command_parse(span_of(line, (size_t)n), 0, false, &c);
    assert_int_equal(c.fault, VALUE);
    n = snprintf(line, sizeof line,
                 "RCPT TO:<%s@%s> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;%.493s", local, domain,
                 orcpt);
    smtp_command_parse(span_of(line, (size_t)n), 0, false, &c);
    assert_int_equal(c.fault, NONE);
    n = snprintf(line, sizeof line, "RCPT TO:<a@b> ORCPT=rfc822;%.494s", orcpt);
    smtp_command_parse(span_of(line, (size_t)n), 0, false, &c);
    assert_int_equal(c.fault, VALUE);
    memset(line, 'A', sizeof line);
    smtp_command_parse(span_of(line, sizeof line), 0, false, &c);
    assert_int_equal(c.verb, SMTP_UNKNOWN);
}

/* Every control byte at every place of a line is a fault of its own. */
static void controls(void **unused)
{
    static const char good[] = "MAIL FROM:<a@b.test> SIZE=10";
    (void)unused;
    for (size_t at = 0; at < sizeof good - 1; at++) {
        for (unsigned b = 0; b < 256; b++) {
            char line[sizeof good];
            struct smtp_command c;
            memcpy(line, good, sizeof good);
            line[at] = (char)b;
            smtp_command_parse(span_of(line, sizeof good - 1), 0, false, &c);
            bool control = b < 0x20 || b == 0x7f;
            bool trailing = at == sizeof good - 2 && b == '\t';
            assert_int_equal(c.fault == CONTROL, control && !trailing);
        }
    }
}

static void verb_names(void **unused)
{
    (void)unused;
    for (int v = 0; v < SMTP_VERB_COUNT; v++) {
        struct smtp_command c;
        const char *name = smtp_verb_name((enum smtp_verb)v);
        assert_non_null(name);
        smtp_command_parse(span_str(name), 0, false, &c);
        assert_int_equal(c.verb, v == SMTP_NOT_IMPLEMENTED ? SMTP_UNKNOWN : (enum smtp_verb)v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_lines), cmocka_unit_test(tolerant_lines),
        cmocka_unit_test(values),       cmocka_unit_test(longest_lines),
        cmocka_unit_test(controls),     cmocka_unit_test(verb_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
