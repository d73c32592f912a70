/*
 * fuzz_dns - any bytes as an answer to "a.test". The first byte chooses the type asked for.
 *
 * Whatever comes back must be within its bounds, in order, and made of names that could be asked
 * for again.
 */
#include "worker/io/dns_parse.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_name(const char *name)
{
    char clean[LIMIT_DOMAIN_BYTES + 1];
    MUST(strlen(name) <= LIMIT_DOMAIN_BYTES);
    if (name[0] == '\0')
        return;
    MUST(dns_name_normalise(name, clean) == 0);
    MUST(strcmp(name, clean) == 0);
}

static void check_answer(const struct dns_answer *a, int r)
{
    MUST(r == 0 || r == -EBADMSG);
    MUST(r == 0 || a->status == DNS_TEMP);
    MUST(a->mx_count <= LIMIT_MX_HOSTS);
    MUST(a->address_count <= LIMIT_ADDRESSES_TRIED);
    bool any = a->mx_count > 0 || a->address_count > 0 || a->ptr[0] != '\0';
    MUST(any == (a->status == DNS_OK) || (a->status == DNS_OK && a->ptr[0] == '\0'));
    MUST(a->status == DNS_OK || a->error != NULL);
    MUST(a->ttl_s <= INT32_MAX);
    for (size_t i = 0; i < a->mx_count; i++) {
        check_name(a->mx[i].name);
        MUST(i == 0 || a->mx[i - 1].preference <= a->mx[i].preference);
    }
    check_name(a->ptr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const enum dns_rr types[] = {DNS_RR_MX, DNS_RR_A, DNS_RR_AAAA, DNS_RR_PTR};
    static struct dns_answer a;
    if (n == 0)
        return 0;
    int r = dns_parse(span_of(data + 1, n - 1), "a.test", types[data[0] % 4], &a);
    check_answer(&a, r);
    return 0;
}
