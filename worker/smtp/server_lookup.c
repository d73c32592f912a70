/*
 * What a dialog asks the DNS: may this sender be, does this recipient's domain take mail, what is
 * the client called.
 *
 * Invariants: one check at a time, during which the dialog is in SV_WAIT; the transaction is open
 * already and is taken back on a no. No answer of the resolver is no reason to refuse a recipient:
 * that is the queue's work.
 */
#include "worker/smtp/server_impl.h"

#include <stdlib.h>

static void on_answer(struct dns_query *q, const struct dns_answer *a)
{
    struct smtp_server *s = (struct smtp_server *)((char *)q - offsetof(struct smtp_server, query));
    s->after_lookup(s, a);
}

/* True: the answer is awaited, or has been dealt with. */
static bool look_up(struct smtp_server *s, enum dns_type type, struct span domain,
                    void (*then)(struct smtp_server *, const struct dns_answer *))
{
    char name[LIMIT_DOMAIN_BYTES + 1];
    const struct dns_answer *a = NULL;
    if (s->set->env.dns == NULL || domain.n == 0 || domain.n > LIMIT_DOMAIN_BYTES ||
        domain.p[0] == '[')
        return false;
    memcpy(name, domain.p, domain.n);
    name[domain.n] = '\0';
    s->query.on_answer = on_answer;
    s->after_lookup = then;
    int r = dns_ask(s->set->env.dns, &s->query, type, name, &a);
    if (r < 0)
        return false;
    server_enter(s, SV_WAIT);
    if (r == 1)
        then(s, a);
    return true;
}

static bool is_null_mx(const struct dns_answer *a)
{
    return a->status == DNS_OK && a->mx_count == 1 && a->mx[0].name[0] == '\0';
}

/* --- the sender (SRV-39, SRV-40) --- */

static struct span sender_domain(const struct txn *t)
{
    const char *p = t->text + t->sender_offset;
    size_t at = t->sender_bytes;
    while (at > 0 && p[at - 1] != '@')
        at--;
    return at == 0 ? span_of(NULL, 0) : span_of(p + at, t->sender_bytes - at);
}

static void sender_verdict(struct smtp_server *s, const char *no)
{
    if (no == NULL) {
        server_reply(s, "250 2.1.0 Sender ok\r\n");
        server_resume(s, SV_MAIL);
        return;
    }
    server_wipe_txn(s);
    server_reply(s, no);
    server_resume(s, SV_READY);
}

static const char *const no_such_sender = "550 5.1.8 Sender domain does not exist\r\n";
static const char *const sender_unknown = "451 4.1.8 Sender domain cannot be looked up now\r\n";

static void after_sender_address(struct smtp_server *s, const struct dns_answer *a)
{
    if (a->status == DNS_TEMP)
        sender_verdict(s, sender_unknown);
    else
        sender_verdict(s, a->status == DNS_OK ? NULL : no_such_sender);
}

static void after_sender_mx(struct smtp_server *s, const struct dns_answer *a)
{
    if (a->status == DNS_TEMP)
        sender_verdict(s, sender_unknown);
    else if (is_null_mx(a))
        sender_verdict(s, "550 5.7.27 Sender domain accepts no mail (null MX)\r\n");
    else if (a->status == DNS_NXDOMAIN)
        sender_verdict(s, no_such_sender);
    else if (a->status == DNS_OK ||
             !look_up(s, DNS_ADDRESS, sender_domain(s->txn), after_sender_address))
        sender_verdict(s, NULL);
}

bool server_check_sender(struct smtp_server *s)
{
    return s->set->env.config->smtp.check_sender_domain &&
           look_up(s, DNS_MX, sender_domain(s->txn), after_sender_mx);
}

/* --- a recipient (SRV-39) --- */

static void after_rcpt_mx(struct smtp_server *s, const struct dns_answer *a)
{
    struct txn *t = s->txn;
    if (!is_null_mx(a)) {
        server_reply(s, "250 2.1.5 Recipient ok\r\n");
        server_resume(s, SV_RCPT);
        return;
    }
    t->rcpt_count--;
    s->set->env.stats->rejected_recipients++;
    server_reply(s, "556 5.1.10 Recipient domain accepts no mail (null MX)\r\n");
    server_resume(s, t->rcpt_count > 0 ? SV_RCPT : SV_MAIL);
}

bool server_check_rcpt(struct smtp_server *s, struct span domain)
{
    const struct config *c = s->set->env.config;
    return c->smtp.check_recipient_null_mx && config_route_for(c, domain) == NULL &&
           look_up(s, DNS_MX, domain, after_rcpt_mx);
}

/* --- the client's name (TRC-03): only one that leads back to the address --- */

static struct smtp_server *of_name_query(struct dns_query *q)
{
    return (struct smtp_server *)((char *)q - offsetof(struct smtp_server, name_query));
}

static void take_name(struct smtp_server *s, const struct dns_answer *a)
{
    for (uint16_t i = 0; a->status == DNS_OK && i < a->address_count; i++)
        s->client_name_leads_back |= ip_eq(&a->addresses[i], &s->client);
}

static void on_name_addresses(struct dns_query *q, const struct dns_answer *a)
{
    take_name(of_name_query(q), a);
}

static void confirm_name(struct smtp_server *s, const struct dns_answer *a)
{
    const struct dns_answer *again = NULL;
    if (a->status != DNS_OK || a->ptr[0] == '\0')
        return;
    s->client_name = strdup(a->ptr);
    if (s->client_name == NULL)
        return;
    s->name_query.on_answer = on_name_addresses;
    int r = dns_ask(s->set->env.dns, &s->name_query, DNS_ADDRESS, s->client_name, &again);
    if (r == 1)
        take_name(s, again);
}

static void on_name(struct dns_query *q, const struct dns_answer *a)
{
    confirm_name(of_name_query(q), a);
}

void server_find_client_name(struct smtp_server *s)
{
    const struct dns_answer *a = NULL;
    if (!s->set->env.config->smtp.lookup_client_name || s->set->env.dns == NULL)
        return;
    s->name_query.on_answer = on_name;
    if (dns_ask_ptr(s->set->env.dns, &s->name_query, &s->client, &a) == 1)
        confirm_name(s, a);
}
