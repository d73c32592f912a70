/*
 * smtp_command - one SMTP command line into verb and arguments (RFC 5321 4.1, 1870, 6152, 3030,
 * 6531).
 *
 * Pure. Input is the line without CRLF, at most LIMIT_COMMAND_LINE_BYTES; the caller decides what
 * ends a line. Spans in the result point into the line.
 * Never:  knows the state of a session, or which extensions are switched on (it reports what was
 *         given).
 */
#ifndef PROTO_SMTP_COMMAND_H
#define PROTO_SMTP_COMMAND_H

#include "proto/smtp_address.h"

enum smtp_verb {
    SMTP_EHLO, SMTP_HELO, SMTP_MAIL, SMTP_RCPT, SMTP_DATA, SMTP_BDAT, SMTP_RSET, SMTP_NOOP,
    SMTP_QUIT, SMTP_VRFY, SMTP_HELP, SMTP_STARTTLS, SMTP_AUTH,
    SMTP_NOT_IMPLEMENTED, /* EXPN TURN SEND SOML SAML ETRN: 502 5.5.1 */
    SMTP_UNKNOWN,         /* 500 5.5.1 */
    SMTP_VERB_COUNT
};

/* What is wrong with the arguments; the session turns it into a reply. */
enum smtp_fault {
    SMTP_FAULT_NONE,
    SMTP_FAULT_SYNTAX,          /* 501 5.5.4 */
    SMTP_FAULT_CONTROL,         /* NUL or control character: 501 5.5.2 */
    SMTP_FAULT_ADDRESS,         /* 501 5.1.7 (MAIL) or 5.1.3 (RCPT) */
    SMTP_FAULT_ADDRESS_UTF8,    /* 550 5.6.7 (MAIL) or 553 5.6.7 (RCPT) */
    SMTP_FAULT_PARAM_UNKNOWN,   /* 555 5.5.4 */
    SMTP_FAULT_PARAM_REPEATED,  /* 501 5.5.4 */
    SMTP_FAULT_PARAM_VALUE      /* 501 5.5.4 */
};

enum smtp_body { SMTP_BODY_UNSET, SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };

/* Parameters that were given; one bit each. A session answers 555 to those it does not offer. */
enum smtp_param {
    SMTP_PARAM_SIZE = 1 << 0,
    SMTP_PARAM_BODY = 1 << 1,
    SMTP_PARAM_SMTPUTF8 = 1 << 2,
    SMTP_PARAM_AUTH = 1 << 3,
    SMTP_PARAM_RET = 1 << 4,
    SMTP_PARAM_ENVID = 1 << 5,
    SMTP_PARAM_NOTIFY = 1 << 6,
    SMTP_PARAM_ORCPT = 1 << 7
};

struct smtp_command {
    enum smtp_verb verb;
    enum smtp_fault fault;
    struct span args;           /* everything after the verb and one space */
    struct smtp_address path;   /* MAIL, RCPT */
    unsigned params;            /* bits of enum smtp_param */
    uint64_t size;              /* SIZE=, BDAT chunk size */
    enum smtp_body body;
    bool last;                  /* BDAT ... LAST */
    struct span envid, orcpt, notify, ret; /* as given, checked for syntax (RFC 3461 4) */
};

enum smtp_parse_flags {
    /* spaces after the verb, FROM: and TO: are let pass; missing <> never */
    SMTP_PARSE_TOLERANT = 1
};

/*
 * Always fills *out. UTF-8 in a path is accepted when MAIL carries SMTPUTF8; for RCPT the session
 * says so by `utf8`.
 */
void smtp_command_parse(struct span line, unsigned flags, bool utf8, struct smtp_command *out);
const char *smtp_verb_name(enum smtp_verb v);

#endif
