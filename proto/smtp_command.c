/*
 * smtp_command - see smtp_command.h.
 *
 * Two tables: verbs with the function that reads their arguments, and ESMTP parameters with the
 * function that checks their value. The first fault found is the one reported; the bit of a
 * parameter is set before its value is judged, so that a session can answer 555 for what it does
 * not offer, whatever the value.
 */
#include "proto/smtp_command.h"

#include "proto/limits.h"

enum {
    ENVID_BYTES_MAX = 100, /* RFC 3461 4.4 */
    ORCPT_BYTES_MAX = 500, /* RFC 3461 4.2 */
    AUTH_BYTES_MAX = 500,  /* RFC 4954 5 */
    SIZE_DIGITS_MAX = 20,  /* RFC 1870 5 */
};

struct parse {
    unsigned flags;
    bool utf8;
    struct smtp_command *out;
};

static bool is_alnum(uint8_t c)
{
    uint8_t letter = c | 0x20;
    return (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9');
}

/* The run up to the next `c`, or all. */
static struct span until(struct span s, uint8_t c)
{
    const uint8_t *at = s.n == 0 ? NULL : memchr(s.p, c, s.n);
    return at == NULL ? s : span_of(s.p, (size_t)(at - s.p));
}

static struct span skip_spaces(struct span s)
{
    while (s.n > 0 && s.p[0] == ' ')
        s = span_skip(s, 1);
    return s;
}

static bool is_word(struct span s, const char *word)
{
    return span_ieq(s, span_str(word));
}

/* Decimal digits alone; what does not fit 64 bits becomes UINT64_MAX, which is over every limit. */
static bool parse_size(struct span s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *out = v;
    return true;
}

/* ---- values of parameters ---- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/*
 * xtext (RFC 3461 4), which must decode to printable ASCII and blanks: the decoded text goes into
 * header fields of a DSN, where a CR or LF would start a field of the sender's choice.
 */
static bool is_xtext(struct span s, bool utf8)
{
    while (s.n > 0) {
        size_t n = 1;
        if (s.p[0] == '+') {
            int high = s.n >= 3 ? hex_digit(s.p[1]) : -1;
            int low = s.n >= 3 ? hex_digit(s.p[2]) : -1;
            if (high < 2 || high > 7 || low < 0 || (high == 7 && low == 15))
                return false;
            n = 3;
        } else if (s.p[0] >= 0x80) {
            n = utf8 ? utf8_sequence(s) : 0;
            if (n == 0)
                return false;
        } else if (s.p[0] < '!' || s.p[0] > '~' || s.p[0] == '=') {
            return false;
        }
        s = span_skip(s, n);
    }
    return true;
}

static bool value_size(struct parse *p, struct span v)
{
    return v.n <= SIZE_DIGITS_MAX && parse_size(v, &p->out->size);
}

static bool value_body(struct parse *p, struct span v)
{
    static const char *const words[] = {[SMTP_BODY_7BIT] = "7BIT",
                                        [SMTP_BODY_8BITMIME] = "8BITMIME",
                                        [SMTP_BODY_BINARYMIME] = "BINARYMIME"};
    for (size_t i = SMTP_BODY_7BIT; i < ARRAY_COUNT(words); i++) {
        if (is_word(v, words[i])) {
            p->out->body = (enum smtp_body)i;
            return true;
        }
    }
    return false;
}

static bool value_none(struct parse *p, struct span v)
{
    (void)p;
    return v.p == NULL;
}

static bool value_auth(struct parse *p, struct span v)
{
    (void)p;
    return v.n > 0 && v.n <= AUTH_BYTES_MAX && is_xtext(v, false);
}

static bool value_ret(struct parse *p, struct span v)
{
    p->out->ret = v;
    return is_word(v, "FULL") || is_word(v, "HDRS");
}

static bool value_envid(struct parse *p, struct span v)
{
    p->out->envid = v;
    return v.n > 0 && v.n <= ENVID_BYTES_MAX && is_xtext(v, false);
}

static bool value_notify(struct parse *p, struct span v)
{
    p->out->notify = v;
    if (is_word(v, "NEVER"))
        return true;
    for (;;) {
        struct span word = until(v, ',');
        if (!is_word(word, "SUCCESS") && !is_word(word, "FAILURE") && !is_word(word, "DELAY"))
            return false;
        if (word.n == v.n)
            return true;
        v = span_skip(v, word.n + 1);
    }
}

/* type ";" xtext; for type utf-8 the address may hold UTF-8 as it is (RFC 6533 3). */
static bool value_orcpt(struct parse *p, struct span v)
{
    struct span type = until(v, ';');
    p->out->orcpt = v;
    if (v.n > ORCPT_BYTES_MAX || type.n == 0 || type.n + 1 >= v.n)
        return false;
    for (size_t i = 0; i < type.n; i++) {
        if (!is_alnum(type.p[i]) && type.p[i] != '-')
            return false;
    }
    return is_xtext(span_skip(v, type.n + 1), p->utf8 && is_word(type, "utf-8"));
}

struct param {
    const char *name;
    enum smtp_verb verb;
    enum smtp_param bit;
    bool (*value)(struct parse *p, struct span v); /* v.p is NULL when there was no "=" */
};

static const struct param params[] = {
    {"SIZE", SMTP_MAIL, SMTP_PARAM_SIZE, value_size},
    {"BODY", SMTP_MAIL, SMTP_PARAM_BODY, value_body},
    {"SMTPUTF8", SMTP_MAIL, SMTP_PARAM_SMTPUTF8, value_none},
    {"AUTH", SMTP_MAIL, SMTP_PARAM_AUTH, value_auth},
    {"RET", SMTP_MAIL, SMTP_PARAM_RET, value_ret},
    {"ENVID", SMTP_MAIL, SMTP_PARAM_ENVID, value_envid},
    {"NOTIFY", SMTP_RCPT, SMTP_PARAM_NOTIFY, value_notify},
    {"ORCPT", SMTP_RCPT, SMTP_PARAM_ORCPT, value_orcpt},
};

/* esmtp-keyword of RFC 5321 4.1.2 */
static bool is_keyword(struct span s)
{
    if (s.n == 0 || s.p[0] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && s.p[i] != '-')
            return false;
    }
    return true;
}

static enum smtp_fault parse_param(struct parse *p, struct span param)
{
    struct span name = until(param, '=');
    struct span value = name.n == param.n ? (struct span){NULL, 0} : span_skip(param, name.n + 1);

    if (!is_keyword(name))
        return SMTP_FAULT_SYNTAX;
    for (size_t i = 0; i < ARRAY_COUNT(params); i++) {
        if (params[i].verb != p->out->verb || !is_word(name, params[i].name))
            continue;
        if (p->out->params & params[i].bit)
            return SMTP_FAULT_PARAM_REPEATED;
        p->out->params |= params[i].bit;
        return params[i].value(p, value) ? SMTP_FAULT_NONE : SMTP_FAULT_PARAM_VALUE;
    }
    return SMTP_FAULT_PARAM_UNKNOWN;
}

static enum smtp_fault parse_params(struct parse *p, struct span s)
{
    if (s.n > 0 && s.p[0] != ' ')
        return SMTP_FAULT_SYNTAX;
    for (s = skip_spaces(s); s.n > 0; s = skip_spaces(s)) {
        struct span param = until(s, ' ');
        enum smtp_fault fault = parse_param(p, param);
        if (fault != SMTP_FAULT_NONE)
            return fault;
        s = span_skip(s, param.n);
    }
    return SMTP_FAULT_NONE;
}

/* ---- arguments of verbs ---- */

static enum smtp_fault parse_path(struct parse *p, const char *lead, unsigned address_flags)
{
    struct span s = p->out->args;
    struct span prefix = span_str(lead);

    if (!span_ihas_prefix(s, prefix))
        return SMTP_FAULT_SYNTAX;
    s = span_skip(s, prefix.n);
    if (p->flags & SMTP_PARSE_TOLERANT)
        s = skip_spaces(s);
    /* SMTPUTF8 comes after the path: whether UTF-8 was allowed is judged when all is read. */
    struct span rest;
    enum address_error error =
        smtp_path_parse(s, address_flags | ADDRESS_ALLOW_UTF8, &p->out->path, &rest);
    if (error != ADDRESS_OK)
        return SMTP_FAULT_ADDRESS;
    enum smtp_fault fault = parse_params(p, rest);
    if (fault != SMTP_FAULT_NONE)
        return fault;
    bool utf8 = p->out->verb == SMTP_MAIL ? p->out->params & SMTP_PARAM_SMTPUTF8 : p->utf8;
    return p->out->path.is_utf8 && !utf8 ? SMTP_FAULT_ADDRESS_UTF8 : SMTP_FAULT_NONE;
}

static enum smtp_fault args_mail(struct parse *p)
{
    return parse_path(p, "FROM:", ADDRESS_ALLOW_NULL);
}

static enum smtp_fault args_rcpt(struct parse *p)
{
    return parse_path(p, "TO:", ADDRESS_ALLOW_BARE_POSTMASTER);
}

static enum smtp_fault args_name(struct parse *p)
{
    return smtp_ehlo_name_ok(p->out->args) ? SMTP_FAULT_NONE : SMTP_FAULT_SYNTAX;
}

/* RFC 3030 2: chunk-size, then LAST or nothing. */
static enum smtp_fault args_bdat(struct parse *p)
{
    struct span size = until(p->out->args, ' ');
    struct span rest = skip_spaces(span_skip(p->out->args, size.n));
    if (!parse_size(size, &p->out->size))
        return SMTP_FAULT_SYNTAX;
    p->out->last = is_word(rest, "LAST");
    return p->out->last || rest.n == 0 ? SMTP_FAULT_NONE : SMTP_FAULT_SYNTAX;
}

static enum smtp_fault args_none(struct parse *p)
{
    return p->out->args.n == 0 ? SMTP_FAULT_NONE : SMTP_FAULT_SYNTAX;
}

static enum smtp_fault args_some(struct parse *p)
{
    return p->out->args.n > 0 ? SMTP_FAULT_NONE : SMTP_FAULT_SYNTAX;
}

static enum smtp_fault args_any(struct parse *p)
{
    (void)p;
    return SMTP_FAULT_NONE;
}

struct verb {
    const char *name;
    enum smtp_verb verb;
    enum smtp_fault (*args)(struct parse *p);
};

static const struct verb verbs[] = {
    {"EHLO", SMTP_EHLO, args_name},
    {"HELO", SMTP_HELO, args_name},
    {"MAIL", SMTP_MAIL, args_mail},
    {"RCPT", SMTP_RCPT, args_rcpt},
    {"DATA", SMTP_DATA, args_none},
    {"BDAT", SMTP_BDAT, args_bdat},
    {"RSET", SMTP_RSET, args_none},
    {"NOOP", SMTP_NOOP, args_any},
    {"QUIT", SMTP_QUIT, args_none},
    {"VRFY", SMTP_VRFY, args_some},
    {"HELP", SMTP_HELP, args_any},
    {"STARTTLS", SMTP_STARTTLS, args_none},
    {"AUTH", SMTP_AUTH, args_some},
    {"EXPN", SMTP_NOT_IMPLEMENTED, args_any},
    {"TURN", SMTP_NOT_IMPLEMENTED, args_any},
    {"SEND", SMTP_NOT_IMPLEMENTED, args_any},
    {"SOML", SMTP_NOT_IMPLEMENTED, args_any},
    {"SAML", SMTP_NOT_IMPLEMENTED, args_any},
    {"ETRN", SMTP_NOT_IMPLEMENTED, args_any},
};

static bool has_control(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    }
    return false;
}

/* RFC 5321 4.1.1: white space at the end of a line is let pass. */
static struct span without_trailing_blanks(struct span s)
{
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

void smtp_command_parse(struct span line, unsigned flags, bool utf8, struct smtp_command *out)
{
    struct parse p = {flags, utf8, out};

    MUST(line.n <= LIMIT_COMMAND_LINE_BYTES);
    line = without_trailing_blanks(line);
    struct span name = until(line, ' ');
    *out = (struct smtp_command){.verb = SMTP_UNKNOWN};
    if (name.n < line.n)
        out->args = span_skip(line, name.n + 1);
    if (flags & SMTP_PARSE_TOLERANT)
        out->args = skip_spaces(out->args);
    enum smtp_fault (*args)(struct parse *) = args_any;
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (is_word(name, verbs[i].name)) {
            out->verb = verbs[i].verb;
            args = verbs[i].args;
            break;
        }
    }
    out->fault = has_control(line) ? SMTP_FAULT_CONTROL : args(&p);
}

const char *smtp_verb_name(enum smtp_verb v)
{
    MUST((size_t)v < SMTP_VERB_COUNT);
    if (v == SMTP_NOT_IMPLEMENTED)
        return "not-implemented";
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (verbs[i].verb == v)
            return verbs[i].name;
    }
    return "unknown";
}
