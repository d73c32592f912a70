/* Any path: what is accepted is accepted again when it is written out, and says the same. */
#include "proto/limits.h"
#include "proto/smtp_address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct smtp_address *a)
{
    uint8_t again[LIMIT_ADDRESS_BYTES + 2];
    struct smtp_address b;
    struct span rest;

    MUST(a->text.n <= LIMIT_ADDRESS_BYTES);
    again[0] = '<';
    if (a->text.n > 0)
        memcpy(again + 1, a->text.p, a->text.n);
    again[a->text.n + 1] = '>';
    enum address_error error = smtp_path_parse(
        span_of(again, a->text.n + 2),
        ADDRESS_ALLOW_NULL | ADDRESS_ALLOW_BARE_POSTMASTER | ADDRESS_ALLOW_UTF8, &b, &rest);
    MUST(error == ADDRESS_OK);
    MUST(rest.n == 0);
    MUST(span_eq(a->text, b.text));
    MUST(span_eq(a->local, b.local));
    MUST(span_eq(a->domain, b.domain));
    MUST(a->is_null == b.is_null);
    MUST(a->is_literal == b.is_literal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_address a;
    struct span rest;
    if (size == 0)
        return 0;
    struct span in = span_of(data + 1, size - 1);
    enum address_error error = smtp_path_parse(in, data[0] & 15, &a, &rest);
    MUST((unsigned)error <= ADDRESS_NEEDS_UTF8);
    MUST(rest.n <= in.n);
    for (size_t i = 0; i < a.text.n; i++)
        MUST(a.text.p[i] >= 0x20 && a.text.p[i] != 0x7f);
    if (error == ADDRESS_OK) {
        MUST(a.local.n <= LIMIT_LOCAL_PART_BYTES);
        MUST(a.domain.n == 0 || smtp_domain_ok(a.domain, true));
        check_again(&a);
    }
    if (smtp_domain_ok(in, false)) {
        MUST(smtp_domain_ok(in, true));
        MUST(smtp_ehlo_name_ok(in));
    }
    return 0;
}
