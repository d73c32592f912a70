/* Any line: spans stay within it, saturation and faults agree, and re-reading says the same. */
#include "proto/limits.h"
#include "proto/smtp_command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(struct span s, struct span line)
{
    if (s.n == 0)
        return;
    MUST(s.p >= line.p);
    MUST(s.p + s.n <= line.p + line.n);
}

static void check_command(struct span line, unsigned flags, bool utf8)
{
    struct smtp_command c;
    smtp_command_parse(line, flags, utf8, &c);
    MUST((unsigned)c.verb < SMTP_VERB_COUNT);
    MUST((unsigned)c.fault <= SMTP_FAULT_PARAM_VALUE);
    check_within(c.args, line);
    check_within(c.path.text, line);
    check_within(c.path.local, c.path.text);
    check_within(c.path.domain, c.path.text);
    check_within(c.envid, line);
    check_within(c.orcpt, line);
    check_within(c.notify, line);
    check_within(c.ret, line);
    if (c.fault != SMTP_FAULT_NONE)
        return;
    MUST(c.envid.n <= 100);
    MUST(c.orcpt.n <= 500);
    for (size_t i = 0; i < line.n; i++) {
        bool blank_at_end = line.p[i] == '\t';
        MUST((line.p[i] >= 0x20 && line.p[i] != 0x7f) || blank_at_end);
    }
    if (c.path.is_utf8)
        MUST(c.verb == SMTP_MAIL ? c.params & SMTP_PARAM_SMTPUTF8 : utf8);
    if (c.verb == SMTP_MAIL || c.verb == SMTP_RCPT)
        MUST(c.path.is_null || c.path.local.n > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size - 1 > LIMIT_COMMAND_LINE_BYTES)
        return 0;
    check_command(span_of(data + 1, size - 1), data[0] & 1 ? SMTP_PARSE_TOLERANT : 0, data[0] & 2);
    return 0;
}
