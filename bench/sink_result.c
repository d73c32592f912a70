/* What the sink counts, and what it says about it in the end. */
#include "bench/sink_private.h"

#include "bench/cpu.h"
#include "bench/report.h"

#include <errno.h>
#include <stdlib.h>

enum { RECORD_LINE_BYTES = 1 << 16 };

static void write_record(struct sink_session *c, struct span rcpt)
{
    struct sink *s = c->sink;
    char key[IDENTITY_KEY_BYTES];
    char ip[IP_TEXT];

    if (s->record == NULL)
        return;
    identity_write_key(key, c->tx.content.identity.run, c->tx.content.identity.number);
    ip_format(&s->peers.items[c->peer].ip, ip);
    fwrite(key, 1, sizeof key, s->record);
    fprintf(s->record, " %.*s %s %u %llu\n", (int)rcpt.n, (const char *)rcpt.p, ip, c->port,
            (unsigned long long)s->at_ns);
}

static void note_duplicate(struct sink *s, const struct identity *id, struct span rcpt)
{
    if (s->stats.duplicated++ == 0)
        snprintf(s->first_duplicate, sizeof s->first_duplicate, "%08x-%010llu %.*s", id->run,
                 (unsigned long long)id->number, (int)rcpt.n, (const char *)rcpt.p);
}

static void count_recipients(struct sink_session *c)
{
    struct sink *s = c->sink;
    const struct identity *id = &c->tx.content.identity;
    const char *address = c->addresses + strlen(c->addresses) + 1;

    for (uint32_t i = 0; i < c->tx.rcpt_count; i++) {
        struct span rcpt = span_str(address);
        enum book_answer answer = book_mark(s->book, id->run, id->number, c->rcpts[i]);
        if (answer == BOOK_AGAIN)
            note_duplicate(s, id, rcpt);
        else if (answer == BOOK_FULL)
            s->stats.unidentified++;
        write_record(c, rcpt);
        address += rcpt.n + 1;
    }
}

void sink_count_message(struct sink_session *c)
{
    struct sink *s = c->sink;
    struct sink_peer *peer = &s->peers.items[c->peer];
    uint64_t at_ns = now_ns();

    c->messages++;
    peer->messages++;
    peer->recipients += c->tx.rcpt_count;
    s->stats.messages++;
    s->stats.recipients += c->tx.rcpt_count;
    s->stats.bytes += c->tx.content.bytes;
    s->stats.first_ns = s->stats.first_ns != 0 ? s->stats.first_ns : at_ns;
    s->stats.last_ns = at_ns;
    if (c->tx.content.header != CONTENT_FOUND) {
        s->stats.unidentified += c->tx.rcpt_count;
        return;
    }
    if (at_ns > c->tx.content.identity.time_ns)
        histogram_add(&s->stats.latency, at_ns - c->tx.content.identity.time_ns);
    count_recipients(c);
}

/* ---- lost: against a source's record ---- */

struct against {
    uint64_t acknowledged;
    uint64_t lost;
    uint64_t bad_lines;
    json_t *examples;
};

static void check_recipient(struct sink *s, struct against *a, const struct identity *id,
                            struct span rcpt)
{
    char text[SINK_EHLO_BYTES];
    int index = book_recipient(s->book, rcpt);

    a->acknowledged++;
    if (index >= 0 && book_has(s->book, id->run, id->number, (uint32_t)index))
        return;
    if (a->lost++ >= SINK_LOST_SHOWN)
        return;
    snprintf(text, sizeof text, "%08x-%010llu %.*s", id->run, (unsigned long long)id->number,
             (int)rcpt.n, (const char *)rcpt.p);
    json_array_append_new(a->examples, json_string(text));
}

static void check_line(struct sink *s, struct against *a, char *line)
{
    struct identity id;
    char *rest = line;
    const char *key = strsep(&rest, " \n");

    if (identity_parse_key(span_str(key), &id) < 0 || rest == NULL) {
        a->bad_lines++;
        return;
    }
    for (const char *word; (word = strsep(&rest, " \n")) != NULL;)
        if (word[0] != '\0')
            check_recipient(s, a, &id, span_str(word));
}

/* 0 and *a filled, or -errno after saying why. */
static int check_against(struct sink *s, struct against *a)
{
    const char *path = s->options->against;
    FILE *f = fopen(path, "re");
    char *line = malloc(RECORD_LINE_BYTES);
    int rc = 0;

    if (f == NULL || line == NULL) {
        rc = -errno;
        fprintf(stderr, "sink: --against: %s: %s\n", path, strerror(errno));
        goto out;
    }
    while (fgets(line, RECORD_LINE_BYTES, f) != NULL)
        check_line(s, a, line);
out:
    if (f != NULL)
        fclose(f);
    free(line);
    return rc;
}

/* ---- the result ---- */

static void put(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

static json_t *by_source(const struct sink *s)
{
    json_t *all = json_object();
    char ip[IP_TEXT];

    for (uint32_t i = 1; i <= s->peers.count; i++) {
        const struct sink_peer *p = &s->peers.items[i];
        json_t *o = json_object();
        put(o, "connections", p->connections);
        put(o, "turned_away", p->turned_away);
        put(o, "messages", p->messages);
        put(o, "recipients", p->recipients);
        ip_format(&p->ip, ip);
        json_object_set_new(all, ip, o);
    }
    return all;
}

static void put_lost(struct sink *s, json_t *o, int *status)
{
    const struct sink_options *options = s->options;
    uint64_t unique = book_unique(s->book);
    struct against a = {0};

    if (options->expect != 0) {
        uint64_t lost = options->expect > unique ? options->expect - unique : 0;
        put(o, "expected", options->expect);
        put(o, "lost", lost);
        *status = lost > 0 ? -ENODATA : 0;
    }
    if (options->against == NULL)
        return;
    a.examples = json_array();
    if (check_against(s, &a) < 0)
        *status = -EINVAL;
    else if (a.lost > 0)
        *status = -ENODATA;
    put(o, "acknowledged", a.acknowledged);
    put(o, "lost", a.lost);
    put(o, "bad_lines", a.bad_lines);
    json_object_set_new(o, "lost_examples", a.examples);
}

json_t *sink_result(struct sink *s, int *status)
{
    const struct sink_stats *stats = &s->stats;
    json_t *o = json_object();
    uint64_t unique = book_unique(s->book);
    double seconds = (double)(stats->last_ns - stats->first_ns) / 1e9;

    *status = 0;
    json_object_set_new(o, "role", json_string("sink"));
    put(o, "first_ns", stats->first_ns);
    put(o, "last_ns", stats->last_ns);
    json_object_set_new(o, "seconds", json_real(seconds));
    put(o, "sessions", stats->sessions);
    put(o, "messages", stats->messages);
    put(o, "recipients", stats->recipients);
    put(o, "unique", unique);
    put(o, "duplicated", stats->duplicated);
    put(o, "unidentified", stats->unidentified);
    put_lost(s, o, status);
    put(o, "bytes", stats->bytes);
    json_object_set_new(o, "delivered_per_s",
                        json_real(seconds > 0 ? (double)unique / seconds : 0));
    put(o, "answered_4xx", stats->answered_4xx);
    put(o, "answered_5xx", stats->answered_5xx);
    put(o, "closed_after_dot", stats->closed_after_dot);
    put(o, "dropped_in_message", stats->dropped);
    put(o, "connections_reset", stats->reset);
    put(o, "cut_in_transaction", stats->cut);
    if (stats->duplicated > 0)
        json_object_set_new(o, "first_duplicate", json_string(s->first_duplicate));
    json_object_set_new(o, "latency", report_latency(&stats->latency));
    json_object_set_new(o, "sources", by_source(s));
    json_object_set_new(o, "cpu_s", json_real(cpu_seconds_self()));
    return o;
}
