/*
 * DATA: bytes up to CRLF.CRLF, by spans at first, and straight into the message when it is long.
 *
 * Invariant: with `direct` set a receive into the content is posted, or a chunk is on its way to
 * the log and the next receive is posted after it.
 */
#include "worker/smtp/server_impl.h"

enum {
    DIRECT_FROM = 32 << 10 /* bytes of a body after which receives go straight into the content */
};

void server_begin_data(struct smtp_server *s)
{
    if (server_no_room(s)) {
        server_reply(s, "452 4.3.1 No room for mail now, try again later\r\n");
        return;
    }
    if (!body_begin(s)) {
        server_wipe_txn(s);
        server_enter(s, SV_READY);
        server_reply(s, "451 4.3.0 Out of memory, try again later\r\n");
        return;
    }
    server_enter(s, SV_DATA);
    server_reply(s, "354 End data with <CR><LF>.<CR><LF>\r\n");
}

/* Bytes of the end mark that came in earlier spans are taken back. */
static void cut_excess(struct smtp_server *s, size_t excess)
{
    /* Normalised, the mark's dot was withheld, and its CR is a CRLF already. */
    if (server_normalises(s) && excess == 1)
        excess = 0;
    s->txn->content->rest_bytes -= (uint32_t)excess;
}

static void leave_direct(struct smtp_server *s)
{
    s->direct = false;
    if (s->state != SV_CLOSING)
        conn_recv(s->conn);
}

size_t server_take_data(struct smtp_server *s, struct span in)
{
    struct txn *t = s->txn;
    if (!t->skip) {
        size_t room = server_normalises(s) ? body_room(t) / 2 : body_room(t);
        if (in.n > room)
            in.n = room;
    }
    struct data_scan_result r = data_scan_feed(&t->scan, in);
    if (!t->skip)
        body_add(s, span_of(in.p, r.message_bytes), false);
    if (!t->skip)
        cut_excess(s, r.excess);
    if (r.done) {
        if (s->direct)
            leave_direct(s);
        body_finish(s);
        return r.consumed;
    }
    body_check_limits(s);
    (void)body_give_chunk(s);
    return r.consumed;
}

void server_go_direct(struct smtp_server *s)
{
    const struct txn *t = s->txn;
    if (s->state != SV_DATA || s->direct || s->in_bytes > 0 || t->skip || server_normalises(s) ||
        t->content->rest_bytes < DIRECT_FROM)
        return;
    s->direct = true;
    server_on_filled(s, 0);
}

/* Bytes have come straight behind the content. True: there is nothing more to be received for now.
 */
static bool take_filled(struct smtp_server *s, size_t n)
{
    struct txn *t = s->txn;
    const uint8_t *at = t->content->rest + t->content->rest_bytes;
    struct data_scan_result r = data_scan_feed(&t->scan, span_of(at, n));
    t->content->rest_bytes += (uint32_t)r.message_bytes;
    t->content->rest_bytes -= (uint32_t)r.excess;
    if (r.done) {
        server_keep(s, span_of(at + r.consumed, n - r.consumed));
        leave_direct(s);
        body_finish(s);
        return true;
    }
    body_check_limits(s);
    return body_give_chunk(s);
}

/* n == 0: the next receive is to be posted. */
void server_on_filled(struct smtp_server *s, size_t n)
{
    struct txn *t = s->txn;
    MUST(s->state == SV_DATA);
    if (n > 0 && take_filled(s, n))
        return;
    if (!t->skip && !body_reserve(t, body_room(t)))
        body_skip(t, "451 4.3.0 Out of memory, try again later\r\n");
    if (t->skip)
        leave_direct(s);
    else
        conn_recv_into(s->conn, t->content->rest + t->content->rest_bytes, body_room(t), false);
}
