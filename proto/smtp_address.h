/*
 * smtp_address - paths and mailboxes of RFC 5321 4.1.2, with the UTF-8 forms of RFC 6531 3.3.
 *
 * Pure: span in, result out. A source route (RFC 5321 3.3) is parsed and dropped.
 * Never: looks anything up, folds case, or judges whether a domain exists.
 */
#ifndef PROTO_SMTP_ADDRESS_H
#define PROTO_SMTP_ADDRESS_H

#include "base/span.h"

enum address_error {
    ADDRESS_OK = 0,
    ADDRESS_SYNTAX,    /* 501 5.1.7 / 5.1.3 */
    ADDRESS_TOO_LONG,  /* local part > 64, domain > 255, label > 63 octets */
    ADDRESS_NEEDS_UTF8 /* 8-bit octets although SMTPUTF8 is not in force: 550 / 553 5.6.7 */
};

struct smtp_address {
    struct span text;   /* local@domain as written, without <> and without a source route */
    struct span local;  /* as written, quotes kept */
    struct span domain; /* empty for <> and for a bare <postmaster> */
    bool is_null;       /* <> */
    bool is_literal;    /* domain is an address literal [...] */
    bool is_utf8;       /* holds valid UTF-8 beyond ASCII */
};

enum address_flags {
    ADDRESS_ALLOW_NULL = 1,            /* <> (MAIL FROM) */
    ADDRESS_ALLOW_BARE_POSTMASTER = 2, /* <postmaster> (RCPT TO) */
    ADDRESS_ALLOW_UTF8 = 4,
    ADDRESS_ALLOW_NO_BRACKETS = 8      /* tolerant submission */
};

/*
 * Reads a path at the start of `in`; *rest is what follows it. Spans point into `in`.
 */
NODISCARD enum address_error smtp_path_parse(struct span in, unsigned flags,
                                             struct smtp_address *out, struct span *rest);
/* A domain of dot-separated labels (LDH, or U-labels when utf8), or an address literal. */
bool smtp_domain_ok(struct span s, bool utf8);
/* EHLO argument: a domain or an address literal; also accepts '_' in labels, as the world sends it.
 */
bool smtp_ehlo_name_ok(struct span s);

#endif
