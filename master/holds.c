/* holds - see holds.h. */
#include "master/holds.h"

#include "base/log.h"
#include "base/text.h"
#include "master/proc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HOLDS_IN_FRAME = 100 };
static_assert(HOLDS_IN_FRAME * 430 <= LIMIT_FRAME_BYTES, "a HOLDS frame fits");

static int read_again(struct master *m)
{
    struct control_hold *fresh;
    uint32_t count;
    int rc = state_holds(m->state, &fresh, &count);
    if (rc < 0) {
        free(fresh);
        return rc;
    }
    free(m->holds);
    m->holds = fresh;
    m->hold_count = count;
    return 0;
}

static void push(struct master *m)
{
    uint32_t done = 0;
    do {
        uint32_t left = m->hold_count - done;
        struct control_frame f = {.kind = CONTROL_HOLDS,
                                  .holds = m->holds + done,
                                  .hold_count = left < HOLDS_IN_FRAME ? left : HOLDS_IN_FRAME};
        done += f.hold_count;
        f.last = done == m->hold_count;
        for (unsigned i = 0; i < m->proc_count; i++) {
            struct proc *p = m->procs[i];
            if (p->kind == PROC_WORKER && slot_has_process(&p->slot))
                proc_send(p, &f, NULL, 0);
        }
    } while (done < m->hold_count);
}

int holds_init(struct master *m, const struct config *c)
{
    int rc = read_again(m);
    if (rc < 0 || !c->queue.hold)
        return rc;
    struct control_hold all = {
        .kind = "all", .why = "queue.hold of the configuration", .since = (uint64_t)time(NULL)};
    for (uint32_t i = 0; i < m->hold_count; i++) {
        if (strcmp(m->holds[i].kind, "all") == 0)
            return 0;
    }
    rc = state_hold_add(m->state, &all);
    return rc < 0 ? rc : read_again(m);
}

/* Printable UTF-8: it goes to JSON, logs and other processes. */
static bool is_text(const char *s)
{
    struct span left = span_str(s);
    while (left.n > 0) {
        size_t n = utf8_sequence(left);
        if (n == 0 || left.p[0] < 0x20 || left.p[0] == 0x7f)
            return false;
        left = span_of(left.p + n, left.n - n);
    }
    return true;
}

static void put_lower(char *out, size_t cap, const char *in)
{
    size_t i = 0;
    for (; in[i] != '\0' && i + 1 < cap; i++)
        out[i] = in[i] >= 'A' && in[i] <= 'Z' ? (char)(in[i] + 32) : in[i];
    out[i] = '\0';
}

static int parse_lane(const struct config *c, const char *value, struct control_hold *out,
                      struct text *error)
{
    struct ip ip;
    char text[IP_TEXT];
    if (ip_parse(span_str(value), &ip) < 0) {
        text_fmt(error, "\"%s\" is not an IP address: a lane is named by its address", value);
        return -EINVAL;
    }
    ip_format(&ip, text);
    snprintf(out->value, sizeof out->value, "%s", text);
    for (uint32_t i = 0; i < c->lane_count; i++) {
        if (ip_eq(&c->lanes[i].address, &ip))
            return 0;
    }
    text_fmt(error, "no lane has the address %s; mochila status shows the lanes", text);
    return -EINVAL;
}

static int parse_tenant(const struct config *c, struct control_hold *out, struct text *error)
{
    for (uint32_t i = 0; i < c->tenant_count; i++) {
        if (strcmp(c->tenants[i].name, out->value) == 0)
            return 0;
    }
    text_fmt(error, "there is no tenant \"%s\" in the configuration", out->value);
    return -EINVAL;
}

static int parse_message(struct control_hold *out, struct text *error)
{
    struct msg_id id;
    char text[ID_TEXT + 1];
    if (id_parse(span_str(out->value), &id) < 0) {
        text_fmt(error, "\"%s\" is not a message id: it has %d letters, as mochila queue shows",
                 out->value, ID_TEXT);
        return -EINVAL;
    }
    id_format(id, text);
    snprintf(out->value, sizeof out->value, "%s", text);
    return 0;
}

int holds_parse(const struct config *c, const struct hold_request *r, struct control_hold *out,
                struct text *error)
{
    const char *kind = r->kind != NULL ? r->kind : "";
    const char *value = r->value != NULL ? r->value : "";
    const char *why = r->why != NULL ? r->why : "";
    *out = (struct control_hold){.since = (uint64_t)time(NULL)};
    if (!control_hold_kind_ok(kind)) {
        text_fmt(error, "kind \"%s\": expected lane, tenant, site, message or all", kind);
        return -EINVAL;
    }
    snprintf(out->kind, sizeof out->kind, "%s", kind);
    bool all = strcmp(kind, "all") == 0;
    if (all == (value[0] != '\0')) {
        text_fmt(error, "kind %s %s", kind, all ? "takes no value" : "needs a value");
        return -EINVAL;
    }
    if (strlen(value) >= sizeof out->value) {
        text_fmt(error, "the value is longer than %zu bytes", sizeof out->value - 1);
        return -EINVAL;
    }
    if (!is_text(value) || !is_text(why)) {
        text_puts(error, "value and why must be UTF-8 without control characters");
        return -EINVAL;
    }
    if (strlen(why) >= sizeof out->why) {
        text_fmt(error, "why is longer than %zu bytes", sizeof out->why - 1);
        return -EINVAL;
    }
    memcpy(out->why, why, strlen(why) + 1);
    put_lower(out->value, sizeof out->value, value);
    if (strcmp(kind, "lane") == 0)
        return parse_lane(c, value, out, error);
    if (strcmp(kind, "tenant") == 0)
        return parse_tenant(c, out, error);
    if (strcmp(kind, "message") == 0)
        return parse_message(out, error);
    return 0;
}

int holds_add(struct master *m, const struct control_hold *h, struct text *error)
{
    int rc = state_hold_add(m->state, h);
    if (rc == 0)
        rc = read_again(m);
    if (rc < 0) {
        text_puts(error, state_error(m->state));
        return rc;
    }
    push(m);
    return 0;
}

const struct control_hold *holds_find(const struct master *m, const char *kind, const char *value)
{
    for (uint32_t i = 0; kind != NULL && i < m->hold_count; i++) {
        const struct control_hold *h = &m->holds[i];
        if (strcmp(h->kind, kind) == 0 && strcmp(h->value, value != NULL ? value : "") == 0)
            return h;
    }
    return NULL;
}

const struct control_hold *holds_of_lane(const struct master *m, const struct ip *address)
{
    char text[IP_TEXT];
    ip_format(address, text);
    const struct control_hold *h = holds_find(m, "lane", text);
    return h != NULL ? h : holds_find(m, "all", "");
}

int holds_replace_lane(struct master *m, const struct ip *address, const struct control_hold *h)
{
    char name[IP_TEXT], room[160];
    struct text error = text_of(room, sizeof room);
    ip_format(address, name);
    const struct control_hold *have = holds_find(m, "lane", name);
    if (h == NULL && have == NULL)
        return 0;
    struct control_hold copy = h != NULL ? *h : *have;
    snprintf(copy.kind, sizeof copy.kind, "lane");
    snprintf(copy.value, sizeof copy.value, "%s", name);
    int rc = h != NULL ? holds_add(m, &copy, &error) : holds_remove(m, &copy, &error);
    if (rc < 0)
        log_err("hold of lane %s cannot be changed: %s", name, room);
    return rc;
}

int holds_remove(struct master *m, const struct control_hold *h, struct text *error)
{
    uint32_t removed = 0;
    int rc = state_hold_remove(m->state, h->kind, h->value, &removed);
    if (rc == 0)
        rc = read_again(m);
    if (rc < 0) {
        text_puts(error, state_error(m->state));
        return rc;
    }
    if (removed == 0) {
        text_fmt(error, "there is no hold on %s %s; mochila status shows the holds", h->kind,
                 h->value);
        return -ENOENT;
    }
    push(m);
    return 0;
}
