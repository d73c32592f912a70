#include "worker/events.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { EVENTS_BUFFER_BYTES = 1 << 20, EVENTS_WRITE_BYTES = 32 << 10, EVENT_LINE_BYTES = 8 << 10 };

struct events {
    int fd;
    uint64_t dropped;
    size_t n;
    bool torn; /* the last byte that was written is not the end of a line */
    char buffer[EVENTS_BUFFER_BYTES];
};

int events_create(struct events **out, int fd)
{
    struct events *e = malloc(sizeof *e);
    if (e == NULL)
        return -ENOMEM;
    e->fd = fd;
    e->dropped = 0;
    e->n = 0;
    e->torn = false;
    *out = e;
    return 0;
}

void events_destroy(struct events **e)
{
    if (*e != NULL)
        events_flush(*e, true);
    free(*e);
    *e = NULL;
}

static void put_key(struct text *t, const char *key)
{
    text_puts(t, ",\"");
    text_puts(t, key);
    text_puts(t, "\":");
}

static void put_span(struct text *t, const char *key, struct span s)
{
    if (s.n == 0)
        return;
    put_key(t, key);
    text_json(t, s);
}

static void put_word(struct text *t, const char *key, const char *s)
{
    if (s != NULL)
        put_span(t, key, span_str(s));
}

static void put_number(struct text *t, const char *key, uint64_t v)
{
    if (v == 0)
        return;
    put_key(t, key);
    text_put_u64(t, v);
}

static void put_ip(struct text *t, const char *key, const struct ip *ip)
{
    static const struct ip none;
    if (ip == NULL || ip_eq(ip, &none))
        return;
    char a[IP_TEXT];
    ip_format(ip, a);
    put_word(t, key, a);
}

static void put_time(struct text *t, uint64_t now_unix_ms)
{
    text_puts(t, "{\"t\":");
    text_put_u64(t, now_unix_ms / 1000);
    char ms[5] = {'.', (char)('0' + now_unix_ms / 100 % 10), (char)('0' + now_unix_ms / 10 % 10),
                  (char)('0' + now_unix_ms % 10), '\0'};
    text_puts(t, ms);
}

static void put_facts(struct text *t, const struct event *v)
{
    put_word(t, "event", v->what);
    if (!id_is_none(v->id)) {
        char id[ID_TEXT + 1];
        id_format(v->id, id);
        put_word(t, "id", id);
    }
    put_span(t, "rcpt", v->rcpt);
    if (v->index >= 0) {
        put_key(t, "index");
        text_put_u64(t, (uint64_t)v->index);
    }
    put_span(t, "sender", v->sender);
    put_span(t, "lane", v->lane);
    put_span(t, "tenant", v->tenant);
    put_span(t, "mx", v->mx);
    put_ip(t, "remote_ip", v->remote);
    put_ip(t, "local_ip", v->local);
    put_ip(t, "client_ip", v->client);
    put_span(t, "helo", v->helo);
    put_word(t, "stage", v->stage);
    put_word(t, "status", v->status);
    put_word(t, "reason", v->reason);
    put_number(t, "attempt", v->attempt);
    put_number(t, "bytes", v->bytes);
    put_number(t, "recipients", v->count);
    put_number(t, "delay_ms", v->delay_ms);
    put_number(t, "due", v->due_s);
    put_span(t, "reply", v->reply);
}

void events_put(struct events *e, uint64_t now_unix_ms, const struct event *v)
{
    if (e->fd < 0)
        return;
    if (e->n + EVENT_LINE_BYTES > EVENTS_BUFFER_BYTES)
        events_flush(e, true);
    if (e->n + EVENT_LINE_BYTES > EVENTS_BUFFER_BYTES) {
        e->dropped++;
        return;
    }
    struct text t = text_of(e->buffer + e->n, EVENT_LINE_BYTES);
    put_time(&t, now_unix_ms);
    put_facts(&t, v);
    text_puts(&t, "}\n");
    if (t.cut) {
        e->dropped++;
        return;
    }
    e->n += t.n;
}

void events_flush(struct events *e, bool force)
{
    if (e->n == 0 || (!force && e->n < EVENTS_WRITE_BYTES))
        return;
    ssize_t w = write(e->fd, e->buffer, e->n);
    if (w < 0)
        w = errno == EINTR || errno == EAGAIN ? 0 : -1;
    if (w < 0) {
        /* The end of a torn line that is written for its own sake is no line. */
        for (size_t i = e->torn && e->buffer[0] == '\n' ? 1 : 0; i < e->n; i++)
            e->dropped += e->buffer[i] == '\n';
        e->n = 0;
        if (e->torn) /* what comes next begins a line of its own */
            e->buffer[e->n++] = '\n';
        return;
    }
    if (w > 0)
        e->torn = e->buffer[w - 1] != '\n';
    memmove(e->buffer, e->buffer + w, e->n - (size_t)w);
    e->n -= (size_t)w;
}

uint64_t events_dropped(const struct events *e)
{
    return e->dropped;
}
