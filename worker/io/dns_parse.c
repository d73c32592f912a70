/*
 * Reading DNS packets. All reads go through a cursor with a sticky error; names are expanded to
 * their lower-case wire form, in which they are compared, and become text only when they leave.
 */
#include "worker/io/dns_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { WIRE_NAME_MAX = 255, LABEL_MAX = 63, TEXT_NAME_MAX = 253, CLASS_IN = 1, RR_OPT = 41 };
enum { RCODE_OK = 0, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3, RCODE_REFUSED = 5 };

struct wire_name {
    uint8_t n;
    uint8_t b[WIRE_NAME_MAX];
};

/* A packet being read. Integers are big-endian here, unlike everywhere else in the program. */
struct packet {
    struct span all;
    size_t at;
    bool bad;
};

struct record {
    uint16_t type;
    uint32_t ttl_s;
    size_t owner_at;
    size_t data_at;
    size_t data_n;
};

static bool has(struct packet *p, size_t n)
{
    if (p->bad || p->all.n - p->at < n) {
        p->bad = true;
        return false;
    }
    return true;
}

static uint16_t read_u16(struct packet *p)
{
    if (!has(p, 2))
        return 0;
    const uint8_t *b = p->all.p + p->at;
    p->at += 2;
    return (uint16_t)(b[0] << 8 | b[1]);
}

static uint32_t read_u32(struct packet *p)
{
    uint32_t high = read_u16(p);
    return high << 16 | read_u16(p);
}

static uint8_t to_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

static void append_label(struct packet *p, size_t at, size_t n, struct wire_name *out)
{
    /* The root label that ends the name has to fit as well. */
    if (p->all.n - at < n || out->n + 1u + n + 1u > WIRE_NAME_MAX) {
        p->bad = true;
        return;
    }
    out->b[out->n++] = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        out->b[out->n++] = to_lower(p->all.p[at + i]);
}

/* Reads a name and moves past it. Each pointer must point before the last one, which ends every
 * loop. */
static void read_name(struct packet *p, struct wire_name *out)
{
    size_t at = p->at;
    size_t barrier = p->at;
    size_t end = 0; /* behind the first pointer */
    out->n = 0;
    while (!p->bad) {
        if (at >= p->all.n)
            break;
        uint8_t c = p->all.p[at];
        if (c == 0) {
            out->b[out->n++] = 0;
            p->at = end != 0 ? end : at + 1;
            return;
        }
        if (c <= LABEL_MAX) {
            append_label(p, at + 1, c, out);
            at += 1u + c;
            continue;
        }
        if (c < 0xc0 || at + 1 >= p->all.n)
            break;
        size_t target = (size_t)(c & 0x3f) << 8 | p->all.p[at + 1];
        if (end == 0)
            end = at + 2;
        if (target >= barrier)
            break;
        barrier = target;
        at = target;
    }
    p->bad = true;
}

static bool name_eq(const struct wire_name *a, const struct wire_name *b)
{
    return a->n == b->n && memcmp(a->b, b->b, a->n) == 0;
}

static bool is_host_char(uint8_t c)
{
    return isalnum(c) || c == '-' || c == '_';
}

/* Text of a name that is fit to be a host's; false otherwise. The root is "". */
static bool name_to_text(const struct wire_name *w, char out[LIMIT_DOMAIN_BYTES + 1])
{
    size_t n = 0;
    for (size_t at = 0; w->b[at] != 0; at += 1u + w->b[at]) {
        if (n > 0)
            out[n++] = '.';
        for (size_t i = 1; i <= w->b[at]; i++) {
            if (!is_host_char(w->b[at + i]))
                return false;
            out[n++] = (char)w->b[at + i];
        }
    }
    out[n] = '\0';
    return n <= TEXT_NAME_MAX;
}

static void name_from_text(const char *text, struct wire_name *out)
{
    out->n = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, ".");
        MUST(n >= 1 && n <= LABEL_MAX);
        MUST(out->n + 1u + n + 1u <= WIRE_NAME_MAX);
        out->b[out->n++] = (uint8_t)n;
        memcpy(out->b + out->n, text, n);
        out->n = (uint8_t)(out->n + n);
        text += n + (text[n] == '.');
    }
    out->b[out->n++] = 0;
}

int dns_name_normalise(const char *name, char out[LIMIT_DOMAIN_BYTES + 1])
{
    size_t n = strnlen(name, TEXT_NAME_MAX + 1);
    size_t label = 0;
    if (n == 0 || n > TEXT_NAME_MAX)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)name[i];
        if (c == '.' && label == 0)
            return -EINVAL;
        if (c != '.' && (!is_host_char(c) || ++label > LABEL_MAX))
            return -EINVAL;
        if (c == '.')
            label = 0;
        out[i] = (char)to_lower(c);
    }
    out[n] = '\0';
    return label == 0 ? -EINVAL : 0;
}

void dns_name_reverse(const struct ip *ip, char out[LIMIT_DOMAIN_BYTES + 1])
{
    if (ip_is_v4(ip)) {
        snprintf(out, LIMIT_DOMAIN_BYTES + 1, "%u.%u.%u.%u.in-addr.arpa", ip->b[15], ip->b[14],
                 ip->b[13], ip->b[12]);
        return;
    }
    size_t n = 0;
    for (size_t i = 0; i < sizeof ip->b; i++) {
        uint8_t b = ip->b[sizeof ip->b - 1 - i];
        n += (size_t)snprintf(out + n, LIMIT_DOMAIN_BYTES + 1 - n, "%x.%x.", b & 15u, b >> 4);
    }
    snprintf(out + n, LIMIT_DOMAIN_BYTES + 1 - n, "ip6.arpa");
}

static size_t add_u16(uint8_t *out, size_t n, uint16_t v)
{
    out[n] = (uint8_t)(v >> 8);
    out[n + 1] = (uint8_t)v;
    return n + 2;
}

size_t dns_build_question(uint16_t id, const char *name, enum dns_rr type,
                          uint8_t out[DNS_QUESTION_BYTES_MAX])
{
    struct wire_name w;
    name_from_text(name, &w);
    size_t n = add_u16(out, 0, id);
    n = add_u16(out, n, 0x0120); /* RD; AD asks for the bit in the answer (RFC 6840 5.7) */
    n = add_u16(out, n, 1);
    n = add_u16(out, n, 0);
    n = add_u16(out, n, 0);
    n = add_u16(out, n, 1);
    memcpy(out + n, w.b, w.n);
    n += w.n;
    n = add_u16(out, n, (uint16_t)type);
    n = add_u16(out, n, CLASS_IN);
    out[n++] = 0; /* OPT: the root, our size, no extended code, no flags, no data */
    n = add_u16(out, n, RR_OPT);
    n = add_u16(out, n, DNS_UDP_BYTES);
    memset(out + n, 0, 6);
    return n + 6;
}

/* The head of a record; the cursor goes past its data. */
static struct record read_record(struct packet *p)
{
    struct wire_name owner;
    struct record r = {.owner_at = p->at};
    read_name(p, &owner);
    r.type = read_u16(p);
    uint16_t class = read_u16(p);
    if (class != CLASS_IN && r.type != RR_OPT)
        r.type = 0; /* nobody asks for that type */
    r.ttl_s = read_u32(p);
    if (r.ttl_s > INT32_MAX)
        r.ttl_s = 0;
    r.data_n = read_u16(p);
    r.data_at = p->at;
    if (has(p, r.data_n))
        p->at += r.data_n;
    return r;
}

static struct wire_name owner_of(const struct packet *p, const struct record *r)
{
    struct packet at = {.all = p->all, .at = r->owner_at};
    struct wire_name n;
    read_name(&at, &n);
    MUST(!at.bad); /* read_record has read it before */
    return n;
}

/* A name that is all of a record's data from `skip` on; false when it is not. */
static bool data_name(const struct packet *p, const struct record *r, size_t skip,
                      struct wire_name *out)
{
    struct packet at = {.all = p->all, .at = r->data_at + skip};
    if (r->data_n < skip)
        return false;
    read_name(&at, out);
    return !at.bad && at.at == r->data_at + r->data_n;
}

/* Inserts by preference, behind its equals; of too many the least preferred goes. */
static void insert_mx(struct dns_answer *out, uint16_t preference, const char *name)
{
    size_t i = out->mx_count;
    while (i > 0 && out->mx[i - 1].preference > preference)
        i--;
    if (i == LIMIT_MX_HOSTS)
        return;
    size_t tail = out->mx_count - i;
    if (out->mx_count == LIMIT_MX_HOSTS)
        tail--;
    else
        out->mx_count++;
    memmove(&out->mx[i + 1], &out->mx[i], tail * sizeof out->mx[0]);
    out->mx[i].preference = preference;
    memcpy(out->mx[i].name, name, strlen(name) + 1);
}

static void add_address(struct dns_answer *out, const uint8_t *data, size_t n)
{
    if (out->address_count == LIMIT_ADDRESSES_TRIED)
        return;
    struct ip *ip = &out->addresses[out->address_count++];
    memset(ip, 0, sizeof *ip);
    if (n == 4)
        ip->b[10] = ip->b[11] = 0xff;
    memcpy(ip->b + sizeof ip->b - n, data, n);
}

/* Takes the data of a record of the type asked for; what makes no sense is left out. */
static void take_record(const struct packet *p, const struct record *r, struct dns_answer *out)
{
    struct wire_name w;
    char name[LIMIT_DOMAIN_BYTES + 1];
    const uint8_t *data = p->all.p + r->data_at;
    switch (r->type) {
    case DNS_RR_A:
    case DNS_RR_AAAA:
        if (r->data_n == (r->type == DNS_RR_A ? 4u : 16u))
            add_address(out, data, r->data_n);
        break;
    case DNS_RR_MX:
        if (data_name(p, r, 2, &w) && name_to_text(&w, name))
            insert_mx(out, (uint16_t)(data[0] << 8 | data[1]), name);
        break;
    case DNS_RR_PTR:
        if (out->ptr[0] == '\0' && data_name(p, r, 0, &w) && name_to_text(&w, name))
            memcpy(out->ptr, name, strlen(name) + 1);
        break;
    default: /* a number off the wire, not an enum: whatever else was asked for */
        break;
    }
}

static void lower_ttl(struct dns_answer *out, uint32_t ttl_s)
{
    if (ttl_s < out->ttl_s)
        out->ttl_s = ttl_s;
}

static bool is_empty(const struct dns_answer *a)
{
    return a->mx_count == 0 && a->address_count == 0 && a->ptr[0] == '\0';
}

struct records {
    struct record r[DNS_RECORDS_MAX];
    size_t n;
};

/* Follows the chain from `name`. 1: records found; 0: none; -EBADMSG: chain too long, or only
 * nonsense found. */
static int follow(const struct packet *p, const struct records *rs, struct wire_name *name,
                  uint16_t type, struct dns_answer *out)
{
    for (int link = 0; link <= DNS_CHAIN_MAX; link++) {
        const struct record *cname = NULL;
        bool found = false;
        for (size_t i = 0; i < rs->n; i++) {
            const struct record *r = &rs->r[i];
            if (r->type != type && r->type != DNS_RR_CNAME)
                continue;
            struct wire_name owner = owner_of(p, r);
            if (!name_eq(&owner, name))
                continue;
            if (r->type == type) {
                found = true;
                lower_ttl(out, r->ttl_s);
                take_record(p, r, out);
            } else if (cname == NULL) {
                cname = r;
            }
        }
        if (found)
            return is_empty(out) ? -EBADMSG : 1;
        if (cname == NULL)
            return 0;
        lower_ttl(out, cname->ttl_s);
        if (!data_name(p, cname, 0, name))
            return -EBADMSG;
    }
    return -EBADMSG;
}

/* RFC 2308: how long the absence is known, 0 when the answer does not say. */
static uint32_t negative_ttl(struct packet *p, uint16_t authority_count)
{
    for (uint16_t i = 0; i < authority_count && !p->bad; i++) {
        struct record r = read_record(p);
        if (p->bad || r.type != DNS_RR_SOA || r.data_n < 20)
            continue;
        struct packet at = {.all = p->all, .at = r.data_at + r.data_n - 4};
        uint32_t minimum = read_u32(&at);
        return minimum < r.ttl_s ? minimum : r.ttl_s;
    }
    return 0;
}

static const char *rcode_text(unsigned rcode)
{
    static const char *const texts[] = {[1] = "FORMERR",
                                        [RCODE_SERVFAIL] = "SERVFAIL",
                                        [4] = "NOTIMP",
                                        [RCODE_REFUSED] = "REFUSED"};
    return rcode < ARRAY_COUNT(texts) && texts[rcode] != NULL ? texts[rcode]
                                                              : "error of the resolver";
}

static int malformed(struct dns_answer *out)
{
    out->status = DNS_TEMP;
    out->secure = false;
    out->ttl_s = 0;
    out->mx_count = out->address_count = 0;
    out->ptr[0] = '\0';
    out->error = "malformed answer";
    return -EBADMSG;
}

/* The question must be ours. */
static bool question_fits(struct packet *p, uint16_t count, const struct wire_name *name,
                          uint16_t type)
{
    struct wire_name asked;
    if (count != 1)
        return false;
    read_name(p, &asked);
    uint16_t asked_type = read_u16(p);
    uint16_t class = read_u16(p);
    return !p->bad && name_eq(&asked, name) && asked_type == type && class == CLASS_IN;
}

int dns_parse(struct span packet, const char *name, enum dns_rr type, struct dns_answer *out)
{
    struct packet p = {.all = packet};
    struct wire_name w;
    struct records rs;
    name_from_text(name, &w);
    (void)read_u16(&p); /* the id: whoever asked has checked it */
    uint16_t flags = read_u16(&p);
    uint16_t counts[4];
    for (size_t i = 0; i < 4; i++)
        counts[i] = read_u16(&p);
    unsigned rcode = flags & 15u;
    out->mx_count = out->address_count = 0;
    out->ptr[0] = '\0';
    out->ttl_s = UINT32_MAX;
    out->secure = flags & 0x20;
    out->error = NULL;
    /* TC here: truncated over TCP too. It cannot be told from "no such data", and mail would bounce
       (RFC 2181 9). */
    if (p.bad || !(flags & 0x8000) || (flags & 0x0200) != 0 ||
        !question_fits(&p, counts[0], &w, (uint16_t)type))
        return malformed(out);
    if (rcode != RCODE_OK && rcode != RCODE_NXDOMAIN) {
        (void)malformed(out);
        out->error = rcode_text(rcode);
        return 0;
    }
    rs.n = 0;
    for (uint16_t i = 0; i < counts[1]; i++) {
        struct record r = read_record(&p);
        if (!p.bad && rs.n < DNS_RECORDS_MAX)
            rs.r[rs.n++] = r;
    }
    if (p.bad)
        return malformed(out);
    int found = follow(&p, &rs, &w, (uint16_t)type, out);
    if (found < 0)
        return malformed(out);
    out->status = found > 0 ? DNS_OK : rcode == RCODE_NXDOMAIN ? DNS_NXDOMAIN : DNS_NODATA;
    if (found > 0)
        return 0;
    out->error = out->status == DNS_NXDOMAIN ? "NXDOMAIN" : "no data";
    out->ttl_s = negative_ttl(&p, counts[2]);
    return 0;
}
