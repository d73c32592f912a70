/* value - words, names and addresses of the configuration; numbers are in number.c. See value.h. */
#include "config/value.h"

#include "base/text.h"
#include "config/number.h"

#include <errno.h>
#include <stdio.h>

typedef int parse_fn(const struct config_key *k, const char *text, void *field);
typedef void allowed_fn(const struct config_key *k, struct text *out);
typedef void format_fn(const struct config_key *k, const void *field, struct text *out);

enum { PORT_MAX = 65535, LABEL_BYTES_MAX = 63, DOMAIN_BYTES_MAX = 253 };

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Copies text with its NUL into a field of k->bytes, wiped first; -EINVAL when it does not fit. */
static int put_text(const struct config_key *k, const char *text, void *field)
{
    size_t n = strlen(text);
    if (n >= k->bytes)
        return -EINVAL;
    memset(field, 0, k->bytes);
    memcpy(field, text, n);
    return 0;
}

static void lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = (char)(*s >= 'A' && *s <= 'Z' ? *s + ('a' - 'A') : *s);
}

static int put_lower(const struct config_key *k, const char *text, void *field)
{
    int rc = put_text(k, text, field);
    if (rc == 0)
        lower(field);
    return rc;
}

bool value_domain_ok(struct span s)
{
    size_t label = 0;

    if (s.n == 0 || s.n > DOMAIN_BYTES_MAX)
        return false;
    for (size_t i = 0; i <= s.n; i++) {
        if (i == s.n || s.p[i] == '.') {
            if (label == 0 || label > LABEL_BYTES_MAX || s.p[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        bool hyphen = s.p[i] == '-' && label > 0;
        if (!is_alnum((char)s.p[i]) && !hyphen)
            return false;
        label++;
    }
    return true;
}

/* 10.0.0.1 is a domain by its letters alone; no top level domain is a number (RFC 3696 2). */
static bool ends_in_number(const char *s)
{
    const char *dot = strrchr(s, '.');
    for (s = dot == NULL ? s : dot + 1; *s != '\0'; s++) {
        if (!is_digit(*s))
            return false;
    }
    return true;
}

bool value_name_ok(const char *s)
{
    size_t n = strlen(s);
    if (n > 0 && !is_alnum(s[0]))
        return false;
    for (size_t i = 0; i < n; i++) {
        bool lower_case = is_alnum(s[i]) && !(s[i] >= 'A' && s[i] <= 'Z');
        if (!lower_case && s[i] != '-')
            return false;
    }
    return n >= 1 && n <= LIMIT_NAME_BYTES;
}

int value_word_index(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
    }
    return -EINVAL;
}

/* Words and names. */
static int parse_enum(const struct config_key *k, const char *text, void *field)
{
    int i = value_word_index(k->words, text);
    if (i >= 0)
        value_store(field, k->bytes, (uint64_t)i);
    return i < 0 ? i : 0;
}

static int parse_name(const struct config_key *k, const char *text, void *field)
{
    if (text[0] == '\0' && k->preset != NULL)
        return put_text(k, text, field);
    return value_name_ok(text) ? put_text(k, text, field) : -EINVAL;
}

static int parse_host(const struct config_key *k, const char *text, void *field)
{
    if (text[0] == '\0' && k->preset != NULL)
        return put_text(k, text, field);
    bool ok = value_domain_ok(span_str(text)) && strchr(text, '.') != NULL && !ends_in_number(text);
    return ok ? put_lower(k, text, field) : -EINVAL;
}

/* %d stays in place: the lanes know their octets. Whether a dot is needed depends on the address.
 */
static int parse_ehlo(const struct config_key *k, const char *text, void *field)
{
    char probe[LIMIT_DOMAIN_BYTES + 1];
    size_t n = strlen(text);

    if (n >= sizeof probe)
        return -EINVAL;
    memcpy(probe, text, n + 1);
    char *place = strstr(probe, "%d");
    if (place != NULL)
        memcpy(place, "00", 2);
    bool ok = value_domain_ok(span_str(probe)) && !ends_in_number(probe);
    return ok ? put_lower(k, text, field) : -EINVAL;
}

static int parse_domain(const struct config_key *k, const char *text, void *field)
{
    bool ok = value_domain_ok(span_str(text)) && !ends_in_number(text);
    return ok ? put_lower(k, text, field) : -EINVAL;
}

static int parse_pattern(const struct config_key *k, const char *text, void *field)
{
    const char *domain = text[0] == '.' ? text + 1 : text;
    bool ok = value_domain_ok(span_str(domain)) && !ends_in_number(domain);
    return ok ? put_lower(k, text, field) : -EINVAL;
}

static int parse_route(const struct config_key *k, const char *text, void *field)
{
    return strcmp(text, "*") == 0 ? put_text(k, text, field) : parse_pattern(k, text, field);
}

static int parse_path(const struct config_key *k, const char *text, void *field)
{
    bool may_be_empty = strcmp(k->name, "log") == 0 || strcmp(k->name, "socket") == 0 ||
                        strcmp(k->name, "hook") == 0;
    bool ok = text[0] != '\0' ? strlen(text) <= k->max : may_be_empty;
    return ok ? put_text(k, text, field) : -EINVAL;
}

static int parse_account(const struct config_key *k, const char *text, void *field)
{
    for (const char *s = text; *s != '\0'; s++) {
        bool first = s == text;
        if (!is_alnum(*s) && *s != '_' && (first || (*s != '-' && *s != '.')))
            return -EINVAL;
    }
    return put_text(k, text, field);
}

static int parse_nic(const struct config_key *k, const char *text, void *field)
{
    for (const char *s = text; *s != '\0'; s++) {
        if (*s <= ' ' || *s >= 0x7f || *s == '/' || *s == ':')
            return -EINVAL;
    }
    return put_text(k, text, field);
}

/* Addresses. */
static int parse_address(const struct config_key *k, const char *text, void *field)
{
    (void)k;
    return ip_parse(span_str(text), field);
}

static int parse_net(const struct config_key *k, const char *text, void *field)
{
    (void)k;
    return ip_net_parse(span_str(text), field);
}

/* An address of a host: neither 0.0.0.0 nor ::, nor multicast, nor broadcast. */
static bool is_host_address(const struct ip *a)
{
    static const struct ip zero;
    if (ip_is_v4(a))
        return a->b[12] != 0 && a->b[12] < 224;
    return !ip_eq(a, &zero) && a->b[0] != 0xff;
}

static int parse_range(const struct config_key *k, const char *text, void *field)
{
    struct ip_range r;
    const char *dash = strchr(text, '-');
    size_t n = dash == NULL ? strlen(text) : (size_t)(dash - text);

    (void)k;
    if (ip_parse(span_of(text, n), &r.first) < 0 || !is_host_address(&r.first))
        return -EINVAL;
    r.last = r.first;
    if (dash != NULL) {
        if (ip_parse(span_str(dash + 1), &r.last) < 0)
            return -EINVAL;
        if (!ip_is_v4(&r.first) || memcmp(r.first.b, r.last.b, 15) != 0)
            return -EINVAL;
        if (r.last.b[15] < r.first.b[15])
            return -EINVAL;
    }
    memcpy(field, &r, sizeof r);
    return 0;
}

static void format_range(const struct config_key *k, const void *field, struct text *out)
{
    const struct ip_range *r = field;
    char first[IP_TEXT], last[IP_TEXT];

    (void)k;
    ip_format(&r->first, first);
    ip_format(&r->last, last);
    if (ip_eq(&r->first, &r->last))
        value_put_word(out, first);
    else
        text_fmt(out, "%s-%s", first, last);
}

/*
 * Splits host:port, address:port, [address]:port and [address]; *port stays as it is without one.
 * The host is left as written, brackets and all.
 */
static int split_port(const char *text, struct span *host, uint16_t *port)
{
    const char *end = text[0] == '[' ? strchr(text, ']') : strchr(text, ':');
    uint64_t n;

    if (text[0] == '[' && end == NULL)
        return -EINVAL;
    if (text[0] == '[')
        end++;
    *host = end == NULL ? span_str(text) : span_of(text, (size_t)(end - text));
    if (end == NULL || *end == '\0')
        return 0;
    if (*end != ':' || span_to_u64(span_str(end + 1), &n) < 0 || n == 0 || n > PORT_MAX)
        return -EINVAL;
    *port = (uint16_t)n;
    return 0;
}

/* An address in brackets or an IPv4 address without them. */
static int address_of(struct span host, struct ip *out)
{
    if (host.n > 2 && host.p[0] == '[')
        return ip_parse(span_of(host.p + 1, host.n - 2), out);
    return ip_parse(host, out);
}

static void put_endpoint(const struct ip *a, uint16_t port, struct text *out)
{
    char text[IP_TEXT];
    ip_format(a, text);
    text_fmt(out, ip_is_v4(a) ? "%s:%u" : "[%s]:%u", text, (unsigned)port);
}

static int parse_endpoint(const struct config_key *k, const char *text, void *field)
{
    char normal[IP_TEXT + 16];
    struct text out = text_of(normal, sizeof normal);
    struct ip ip;
    struct span host;
    uint16_t port = 0;

    if (text[0] == '\0')
        return put_text(k, text, field);
    if (split_port(text, &host, &port) < 0 || port == 0 || address_of(host, &ip) < 0)
        return -EINVAL;
    put_endpoint(&ip, port, &out);
    MUST(!out.cut);
    return put_text(k, normal, field);
}

enum { DNS_PORT = 53 };

/* One resolver, as "address:port" into a text of IP_TEXT + 16 bytes. */
static int parse_server(const struct config_key *k, const char *text, void *field)
{
    struct text out = text_of(field, IP_TEXT + 16);
    struct ip ip;
    struct span host;
    uint16_t port = DNS_PORT;

    (void)k;
    if (ip_parse(span_str(text), &ip) < 0 &&
        (split_port(text, &host, &port) < 0 || address_of(host, &ip) < 0))
        return -EINVAL;
    put_endpoint(&ip, port, &out);
    MUST(!out.cut);
    return 0;
}

/* field is the route itself: host and port are two members of it. */
static int parse_via(const struct config_key *k, const char *text, void *field)
{
    struct config_route *r = (void *)((char *)field - offsetof(struct config_route, host));
    char literal[IP_TEXT + 2];
    struct span host;
    struct ip ip;
    uint16_t port = 0;

    MUST(k->offset == offsetof(struct config_route, host));
    if (split_port(text, &host, &port) < 0 || host.n >= sizeof r->host)
        return -EINVAL;
    if (address_of(host, &ip) == 0) {
        char bare[IP_TEXT];
        if (!is_host_address(&ip))
            return -EINVAL;
        ip_format(&ip, bare);
        snprintf(literal, sizeof literal, "[%s]", bare);
        host = span_str(literal);
    } else if (!value_domain_ok(host)) {
        return -EINVAL;
    }
    memset(r->host, 0, sizeof r->host);
    memcpy(r->host, host.p, host.n);
    lower(r->host);
    if (r->host[0] != '[' && ends_in_number(r->host))
        return -EINVAL;
    r->port = port;
    return 0;
}

static void format_via(const struct config_key *k, const void *field, struct text *out)
{
    const struct config_route *r =
        (const void *)((const char *)field - offsetof(struct config_route, host));
    char text[sizeof r->host + 16];
    MUST(k->offset == offsetof(struct config_route, host));
    snprintf(text, sizeof text, "%s:%u", r->host, (unsigned)r->port);
    value_put_word(out, r->host[0] == '\0' ? "" : text);
}

/* Descriptions. */
static void put_words(const struct config_key *k, struct text *out)
{
    text_puts(out, "one of ");
    for (int i = 0; k->words[i] != NULL; i++)
        text_fmt(out, "%s%s", i == 0 ? "" : ", ", k->words[i]);
}

static void allow_path(const struct config_key *k, struct text *out)
{
    text_fmt(out, "a path of at most %u bytes", (unsigned)k->max);
}

static const char *const allowed_texts[KEY_TYPE_COUNT] = {
    [KEY_BOOL] = "true or false",
    [KEY_NAME] = "a name (1 to 32 of a-z, 0-9 and -, which is not the first)",
    [KEY_HOST] = "a full host name such as mail.example.net",
    [KEY_EHLO] = "a host name such as out10.example.net",
    [KEY_DOMAIN] = "a domain such as example.net",
    [KEY_PATTERN] = "a domain such as example.net, or .example.net for all below it",
    [KEY_ROUTE] = "a domain, .domain for all below it, or \"*\" for all others",
    [KEY_ACCOUNT] = "a name of the system's accounts",
    [KEY_NIC] = "an interface name (at most 15 bytes, no blanks, / or :)",
    [KEY_ADDRESS] = "an IPv4 or IPv6 address",
    [KEY_RANGE] = "an IPv4 or IPv6 address of a host, or a range within the last octet of IPv4 "
                  "such as 192.0.2.10-192.0.2.25",
    [KEY_NET] = "a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32 (all bits after the "
                "prefix 0)",
    [KEY_ENDPOINT] = "address:port or [address]:port",
    [KEY_SERVER] = "an address, address:port or [address]:port",
    [KEY_VIA] = "a next hop: host, host:port, [address] or [address]:port (port 1 to 65535)",
    [KEY_POOL] = "the name of a pool",
    [KEY_TENANT] = "the name of a tenant",
    [KEY_SERVERS] = "a list",
    [KEY_PEERS] = "a mapping of names of nodes to address:port or [address]:port",
    [KEY_FLAGS] = "a list",
    [KEY_NETS] = "a list",
    [KEY_DOMAINS] = "a list",
    [KEY_PATTERNS] = "a list",
    [KEY_RECORDS] = "a list",
    [KEY_SECTION] = "a mapping of keys to values",
    [KEY_LIMITS] = "a mapping of keys to values",
    [KEY_NAMED] = "a mapping of names to their settings",
};

static void format_text(const struct config_key *k, const void *field, struct text *out)
{
    (void)k;
    value_put_word(out, field);
}

static void format_enum(const struct config_key *k, const void *field, struct text *out)
{
    uint64_t v = value_load(field, k->bytes);
    MUST(v <= k->max);
    text_puts(out, k->words[v]);
}

static void format_address(const struct config_key *k, const void *field, struct text *out)
{
    char text[IP_TEXT];
    (void)k;
    ip_format(field, text);
    value_put_word(out, text);
}

static void format_net(const struct config_key *k, const void *field, struct text *out)
{
    const struct ip_net *n = field;
    char address[IP_TEXT], text[IP_TEXT + 8];
    bool v4 = ip_is_v4(&n->ip) && n->bits >= 96;

    (void)k;
    ip_format(&n->ip, address);
    snprintf(text, sizeof text, "%s/%u", address, (unsigned)(v4 ? n->bits - 96 : n->bits));
    value_put_word(out, text);
}

struct type_ops {
    parse_fn *parse;
    allowed_fn *allowed; /* NULL: allowed_texts */
    format_fn *format;
};
static const struct type_ops ops[KEY_TYPE_COUNT] = {
    [KEY_BOOL] = {number_parse_bool, NULL, number_format_bool},
    [KEY_COUNT] = {number_parse_count, number_allow_count, number_format_count},
    [KEY_SIZE] = {number_parse_size, number_allow_size, number_format_size},
    [KEY_SECONDS] = {number_parse_duration, number_allow_duration, number_format_duration},
    [KEY_MILLISECONDS] = {number_parse_duration, number_allow_duration, number_format_duration},
    [KEY_ENUM] = {parse_enum, put_words, format_enum},
    [KEY_NAME] = {parse_name, NULL, format_text},
    [KEY_HOST] = {parse_host, NULL, format_text},
    [KEY_EHLO] = {parse_ehlo, NULL, format_text},
    [KEY_DOMAIN] = {parse_domain, NULL, format_text},
    [KEY_PATTERN] = {parse_pattern, NULL, format_text},
    [KEY_ROUTE] = {parse_route, NULL, format_text},
    [KEY_PATH] = {parse_path, allow_path, format_text},
    [KEY_ACCOUNT] = {parse_account, NULL, format_text},
    [KEY_NIC] = {parse_nic, NULL, format_text},
    [KEY_ADDRESS] = {parse_address, NULL, format_address},
    [KEY_RANGE] = {parse_range, NULL, format_range},
    [KEY_NET] = {parse_net, NULL, format_net},
    [KEY_ENDPOINT] = {parse_endpoint, NULL, format_text},
    [KEY_SERVER] = {parse_server, NULL, format_text},
    [KEY_VIA] = {parse_via, NULL, format_via},
};

bool value_is_single(enum key_type type)
{
    MUST(type < KEY_TYPE_COUNT);
    return ops[type].parse != NULL;
}

int value_parse(const struct config_key *k, const char *text, void *field)
{
    MUST(value_is_single(k->type));
    return ops[k->type].parse(k, text, field);
}

void value_allowed(const struct config_key *k, struct text *out)
{
    MUST(k->type < KEY_TYPE_COUNT);
    if (ops[k->type].allowed != NULL) {
        ops[k->type].allowed(k, out);
        return;
    }
    MUST(allowed_texts[k->type] != NULL);
    text_puts(out, allowed_texts[k->type]);
}

void value_format(const struct config_key *k, const void *field, struct text *out)
{
    MUST(value_is_single(k->type));
    ops[k->type].format(k, field, out);
}

void value_put_word(struct text *out, const char *word)
{
    bool plain = is_alnum(word[0]) || word[0] == '/' || word[0] == '.';
    for (const char *s = word; *s != '\0'; s++)
        plain = plain && (is_alnum(*s) || strchr("./_-", *s) != NULL);
    if (plain)
        text_puts(out, word);
    else
        text_json(out, span_str(word));
}
