/*
 * BDAT (RFC 3030): counted bytes.
 *
 * Invariant: the octets of a chunk are consumed whatever is wrong with it, or they would run as
 * commands; its reply comes after them.
 */
#include "worker/smtp/server_impl.h"

enum { CHUNK_SWALLOWED_MAX = 1 << 30 /* bytes of a refused chunk that are read all the same */ };

static const char *const no_memory = "451 4.3.0 Out of memory, try again later\r\n";

/* From now on chunks are read and forgotten. */
static void fail(struct txn *t, const char *refusal)
{
    if (t->bdat_failed)
        return;
    t->bdat_failed = true;
    t->refusal = refusal;
}

static const char *out_of_order(enum server_state st)
{
    switch (st) {
    case SV_NEW:
        return "503 5.5.1 EHLO first\r\n";
    case SV_REFUSED:
        return "503 5.5.1 Only QUIT is possible here\r\n";
    case SV_READY:
        return "503 5.5.1 MAIL first\r\n";
    case SV_MAIL:
        return "503 5.5.1 RCPT first\r\n";
    case SV_EARLY:
    case SV_RCPT:
    case SV_BDAT:
    case SV_DATA:
    case SV_CHUNK:
    case SV_WAIT:
    case SV_CLOSING:
    case SV_STATE_COUNT:
        break;
    }
    check_failed("a state in which BDAT is out of order", __FILE__, __LINE__);
}

/* No transaction to put it into: one that only swallows the octets. */
static struct txn *orphan(struct smtp_server *s)
{
    struct txn *t = server_need_txn(s);
    if (t == NULL) {
        server_reply(s, "421 4.3.2 Too many transactions\r\n");
        server_close(s);
        return NULL;
    }
    t->orphan = true;
    t->back = s->state;
    return t;
}

void server_begin_chunk(struct smtp_server *s, const struct smtp_command *c)
{
    uint64_t size_max = s->set->env.config->smtp.size_max;
    struct txn *t = s->txn != NULL ? s->txn : orphan(s);
    if (t == NULL)
        return;
    if (c->size > size_max && c->size > CHUNK_SWALLOWED_MAX) {
        /* Nobody sends that: the connection cannot be brought back into step. */
        server_reply(s, "552 5.3.4 Chunk is larger than any limit\r\n");
        server_close(s);
        return;
    }
    if (t->orphan || s->state == SV_MAIL)
        fail(t, out_of_order(s->state));
    else if (!body_begin(s))
        fail(t, no_memory);
    else if (server_no_room(s))
        fail(t, "452 4.3.1 No room for mail now, try again later\r\n");
    else if (c->size > size_max || t->scan.bytes > size_max - c->size)
        fail(t, "552 5.3.4 Message is larger than the limit\r\n");
    t->bdat = true;
    t->bdat_last = c->last;
    t->chunk_left = c->size;
    server_enter(s, SV_CHUNK);
    if (t->chunk_left == 0)
        server_chunk_over(s);
}

/* A chunk that is not taken has been read to its end; now it is answered. */
static void swallowed(struct smtp_server *s)
{
    struct txn *t = s->txn;
    const char *no = t->refusal;
    if (t->orphan) {
        enum server_state back = t->back;
        server_wipe_txn(s);
        server_enter(s, back);
    } else if (t->rcpt_count == 0) {
        t->bdat = t->bdat_failed = false;
        server_enter(s, SV_MAIL);
    } else if (t->bdat_last) {
        server_wipe_txn(s);
        server_enter(s, SV_READY);
    } else {
        server_enter(s, SV_BDAT);
    }
    if (no[0] == '5')
        server_error(s, no);
    else
        server_reply(s, no);
}

/* Content that does not end with CRLF gets one: the final dot of DATA needs it. */
static void end_with_crlf(struct smtp_server *s)
{
    struct txn *t = s->txn;
    struct content *c = t->content;
    bool whole_line = bdat_scan_end(&t->scan); /* counts a CR at the very end */
    if (whole_line || memcmp(c->rest + c->rest_bytes - 2, "\r\n", 2) == 0)
        return;
    if (!body_reserve(t, 2)) {
        body_skip(t, no_memory);
        return;
    }
    memcpy(c->rest + c->rest_bytes, "\r\n", 2);
    c->rest_bytes += 2;
}

void server_chunk_over(struct smtp_server *s)
{
    struct txn *t = s->txn;
    MUST(t->chunk_left == 0);
    if (t->skip)
        fail(t, t->refusal);
    if (t->bdat_failed) {
        swallowed(s);
        return;
    }
    if (t->bdat_last) {
        end_with_crlf(s);
        body_finish(s);
        return;
    }
    server_enter(s, SV_BDAT);
    server_reply(s, "250 2.0.0 Chunk ok\r\n");
}

size_t server_take_chunk(struct smtp_server *s, struct span in)
{
    struct txn *t = s->txn;
    MUST(t->chunk_left > 0);
    if (in.n > t->chunk_left)
        in.n = (size_t)t->chunk_left;
    if (!t->bdat_failed && !t->skip) {
        size_t room = body_room(t) / 2; /* every octet may become two */
        MUST(room > 0);
        if (in.n > room)
            in.n = room;
        bdat_scan_feed(&t->scan, in);
        body_add(s, in, true);
        body_check_limits(s);
    }
    t->chunk_left -= in.n;
    if (!t->bdat_failed && body_give_chunk(s))
        return in.n;
    if (t->chunk_left == 0)
        server_chunk_over(s);
    return in.n;
}
