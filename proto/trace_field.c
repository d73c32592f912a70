/* trace_field - our own Received field; see trace_field.h. */
#include "proto/trace_field.h"

#include "proto/limits.h"
#include "proto/smtp_address.h"

#include <time.h>

enum {
    FOLD_COLUMN = 78,
    TAB_COLUMNS = 8,
    /* The longest piece: a name, its brackets and an address. */
    PIECE_BYTES = LIMIT_DOMAIN_BYTES + IP_TEXT + 16 + LIMIT_ADDRESS_BYTES,
};

static_assert(LIMIT_TRACE_BYTES >= 3 * LIMIT_DOMAIN_BYTES + LIMIT_ADDRESS_BYTES + IP_TEXT + 200,
              "the longest field fits");

const char *trace_with(bool esmtp, bool tls, bool auth, bool utf8)
{
    static const char *const words[2][2][2] = {
        /* plain                   auth         tls          both */
        {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
        {{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}},
    };
    /* HELO gives neither STARTTLS nor AUTH, but both may have come before a second greeting. */
    if (!esmtp && !tls && !auth && !utf8)
        return "SMTP";
    return words[utf8][tls][auth];
}

/* A name out of foreign hands: what is in no host name or literal becomes '?'. */
static void put_name(struct text *t, struct span name)
{
    size_t n = name.n < LIMIT_DOMAIN_BYTES ? name.n : LIMIT_DOMAIN_BYTES;
    if (n == 0)
        text_puts(t, "unknown");
    for (size_t i = 0; i < n; i++) {
        uint8_t c = name.p[i];
        uint8_t letter = c | 0x20;
        bool ok = (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') ||
                  (c != '\0' && strchr("-._:[]", c) != NULL);
        text_putc(t, ok ? (char)c : '?');
    }
}

static void put_client(struct text *t, const struct trace_facts *f)
{
    char ip[IP_TEXT];
    ip_format(&f->client, ip);
    text_putc(t, '(');
    if (f->rdns.n > 0) {
        put_name(t, f->rdns);
        text_putc(t, ' ');
    }
    text_fmt(t, ip_is_v4(&f->client) ? "[%s])" : "[IPv6:%s])", ip);
}

/* True when the address is one and may stand in this field: UTF-8 only in a UTF8SMTP one. */
static bool for_ok(struct span address, const char *with)
{
    struct smtp_address parsed;
    struct span rest;
    unsigned flags = ADDRESS_ALLOW_NO_BRACKETS | ADDRESS_ALLOW_BARE_POSTMASTER;
    if (strncmp(with, "UTF8", 4) == 0)
        flags |= ADDRESS_ALLOW_UTF8;
    return address.n > 0 && address.p[0] != '<' &&
           smtp_path_parse(address, flags, &parsed, &rest) == ADDRESS_OK && rest.n == 0;
}

/* Appends the piece on this line, or on a new one when it would pass the fold or `fold` says so. */
static void put_piece(struct text *t, size_t *column, struct text *piece, bool fold)
{
    if (fold || *column + 1 + piece->n > FOLD_COLUMN) {
        text_puts(t, "\r\n\t");
        *column = TAB_COLUMNS;
    } else {
        text_putc(t, ' ');
        *column += 1;
    }
    text_put(t, text_span(piece));
    *column += piece->n;
    *piece = text_of(piece->p, piece->cap);
}

void trace_field_put(struct text *t, const struct trace_facts *f)
{
    char room[PIECE_BYTES];
    struct text piece = text_of(room, sizeof room);
    char id[ID_TEXT + 1];
    size_t before = t->n;

    /* Never folded right after the colon, however long the name: old software trips over it. */
    text_puts(t, "Received: from ");
    put_name(t, f->helo);
    size_t column = t->n - before;
    put_client(&piece, f);
    put_piece(t, &column, &piece, false);
    text_puts(&piece, "by ");
    put_name(&piece, f->by);
    put_piece(t, &column, &piece, true);
    text_fmt(&piece, "with %s", f->with);
    put_piece(t, &column, &piece, false);
    id_format(f->id, id);
    bool has_for = for_ok(f->only_rcpt, f->with);
    text_fmt(&piece, has_for ? "id %s" : "id %s;", id);
    put_piece(t, &column, &piece, false);
    if (has_for) {
        text_puts(&piece, "for <");
        text_put(&piece, f->only_rcpt);
        text_puts(&piece, ">;");
        put_piece(t, &column, &piece, false);
    }
    date_put(&piece, f->time_unix_s);
    put_piece(t, &column, &piece, false);
    text_puts(t, "\r\n");
    MUST(t->n - before <= LIMIT_TRACE_BYTES);
}

void date_put(struct text *t, uint64_t unix_s)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const uint64_t end_of_9999 = UINT64_C(253402300799);
    time_t when = (time_t)(unix_s < end_of_9999 ? unix_s : end_of_9999);
    struct tm tm;

    MUST(gmtime_r(&when, &tm) != NULL);
    text_fmt(t, "%s, %d %s %04d %02d:%02d:%02d +0000", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}
