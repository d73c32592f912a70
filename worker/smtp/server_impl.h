/* server_impl - shared by server*.c only. */
#ifndef WORKER_SMTP_SERVER_IMPL_H
#define WORKER_SMTP_SERVER_IMPL_H

#include "base/pool.h"
#include "proto/data_scan.h"
#include "proto/smtp_command.h"
#include "worker/smtp/clients.h"
#include "worker/smtp/server.h"

enum server_state {
    SV_EARLY,   /* greeting withheld: whoever talks now is no mail server */
    SV_NEW,     /* greeted, no EHLO or HELO yet */
    SV_READY,   /* EHLO or HELO given */
    SV_MAIL,    /* sender given */
    SV_RCPT,    /* at least one recipient accepted */
    SV_BDAT,    /* between chunks */
    SV_REFUSED, /* greeted with 554: only QUIT */
    SV_DATA,    /* message bytes follow */
    SV_CHUNK,   /* bytes of a BDAT chunk follow */
    SV_WAIT,    /* an answer is awaited: commit, chunk, lookup; input is kept */
    SV_CLOSING,
    SV_STATE_COUNT
};

enum { TXN_TEXT_BYTES = 512, TXN_RCPTS = 4 };

struct txn_rcpt {
    uint32_t offset, bytes; /* of the address in txn->text */
    struct lane *lane;
};
/* One mail transaction; wiped as one. */
struct txn {
    struct submission submission;
    struct smtp_server *session;
    struct content *content;
    struct data_scan scan;   /* of the bytes as they come: finds the end */
    struct data_scan stored; /* of the bytes as they are kept, where the two differ (normalised) */
    struct msg_id id;
    uint64_t end_ns; /* when the end of data arrived */
    uint64_t size_declared;
    uint64_t body_bytes; /* of the stored form, chunks included */
    uint64_t chunk_left; /* BDAT: bytes of this chunk still to come */
    uint32_t trace_bytes;
    uint32_t sender_bytes;
    uint32_t sender_offset;
    uint32_t rcpt_count, rcpt_room;
    uint32_t text_bytes, text_room;
    char *text;
    struct txn_rcpt *rcpts;
    struct submission_rcpt *list;
    enum smtp_body body;
    uint8_t wire_state;
    bool utf8;
    bool utf8_rcpt;
    bool begun; /* id and trace exist */
    bool bdat;
    bool bdat_last;
    bool bdat_failed;       /* answered with an error: further chunks are swallowed */
    bool orphan;            /* exists only to swallow a chunk that came out of order */
    bool skip;              /* over a limit: read to the end, then refuse */
    bool submitted;         /* submission_open has been done */
    const char *refusal;    /* reply when skip or bdat_failed */
    enum server_state back; /* orphan: the state to go back to */
    char text_inline[TXN_TEXT_BYTES];
    struct txn_rcpt rcpts_inline[TXN_RCPTS];
};

struct smtp_server {
    struct smtp_servers *set;
    struct smtp_server *next, **link; /* all dialogs */
    struct conn *conn;
    const struct config_listener *listener;
    struct timer timer;
    struct txn *txn;
    char *helo;
    uint8_t *in; /* input not used yet */
    uint32_t in_bytes, in_room;
    struct ip client;
    struct client_count *count;
    uint64_t rate_bytes; /* received in the present period of a message */
    uint16_t tenant;
    uint16_t errors;
    enum server_state state;
    bool esmtp;
    bool may_relay;
    bool skip_line; /* the rest of a line that was too long */
    bool direct;    /* body bytes go straight into the content */
    bool paused;
    bool taking; /* input is being used: an answer from within must not start again */
    bool eof;    /* the client will send no more; it may still read our answer */
    bool told_of_rudeness;
    struct dns_query query;
    void (*after_lookup)(struct smtp_server *s, const struct dns_answer *a);
    struct dns_query name_query;
    char *client_name; /* what the client's address is called; NULL: unknown */
    bool client_name_leads_back;
};

struct server_listener {
    struct listener listener;
    struct smtp_servers *set;
    const struct config_listener *config;
};
struct smtp_servers {
    struct smtp_servers_settings env;
    struct pool sessions, txns;
    struct clients clients;
    struct smtp_server *list;
    struct server_listener listeners[LIMIT_LISTENERS];
    uint32_t listener_count;
    uint32_t in_data; /* dialogs that receive a body */
    bool draining;
    uint32_t note_s, notes, notes_kept_back; /* of server_note */
};

/* An envelope fits one record of the log, with the list of the chunks of a large body, whatever the
 * names. */
enum {
    SERVER_ENVELOPE_BYTES = LIMIT_RECORD_BYTES - LIMIT_BODY_CHUNKS * 32 - LIMIT_TRACE_BYTES - 8192
};
static inline uint32_t server_envelope_bytes(const struct txn *t)
{
    enum { RCPT_OVERHEAD = 24 };
    return t->text_bytes + t->rcpt_count * RCPT_OVERHEAD;
}

/* server.c */
/* SV_CLOSING is never left. */
void server_enter(struct smtp_server *s, enum server_state st);
void server_reply(struct smtp_server *s, const char *line);
void server_error(struct smtp_server *s, const char *line); /* counts towards errors_max */
void server_close(struct smtp_server *s);
/* Hangs up at once: there is nobody to say anything to. */
void server_drop(struct smtp_server *s);
/* Takes up again after SV_WAIT: uses the input that was kept. */
void server_resume(struct smtp_server *s, enum server_state st);
/* A line in the log: "client ADDRESS what". Clients cannot flood the log: some a second, then their
 * number. */
void server_note(struct smtp_server *s, const char *what);
/* When all input that can be used has been: what has waited for this moment. */
void server_settle(struct smtp_server *s);
void server_wipe_txn(struct smtp_server *s);
struct txn *server_need_txn(struct smtp_server *s);
/* Keeps input for later. */
void server_keep(struct smtp_server *s, struct span in);

/* server_commands.c; more: input follows the line already. */
void server_command(struct smtp_server *s, struct span line, bool more);
/* OFFER_* of this dialog: of the listener, and what EHLO has brought. */
unsigned server_offers(const struct smtp_server *s);

/* server_lookup.c: checks and facts that need DNS. True: an answer is awaited, or was given. */
bool server_check_sender(struct smtp_server *s);
bool server_check_rcpt(struct smtp_server *s, struct span domain);
void server_find_client_name(struct smtp_server *s);

/* server_data.c: message bytes. Return how many bytes of `in` were used. */
size_t server_take_data(struct smtp_server *s, struct span in);
void server_begin_data(struct smtp_server *s);
void server_on_filled(struct smtp_server *s, size_t n);
/* A long body, all input used: the next receives go straight into the content. */
void server_go_direct(struct smtp_server *s);

/* server_chunk.c: the same for BDAT. */
size_t server_take_chunk(struct smtp_server *s, struct span in);
void server_begin_chunk(struct smtp_server *s, const struct smtp_command *c);
/* The chunk has been read to its end. */
void server_chunk_over(struct smtp_server *s);

/* server_body.c: the message while it grows, its end, and its way to the owners of its lanes. */
enum { TAIL_KEPT = 8 /* bytes never given away before the end is known: ".CRLF" may be split */ };
bool server_no_room(const struct smtp_server *s);
bool server_normalises(const struct smtp_server *s);
/* Id, trace and room for the body; false: no memory. */
NODISCARD bool body_begin(struct smtp_server *s);
/* Room for n more bytes in memory; false: no memory. */
NODISCARD bool body_reserve(struct txn *t, size_t n);
/* How much more fits before the body in memory is a chunk of the log. */
size_t body_room(const struct txn *t);
/* Adds `in` in wire form; stuff: dots are not doubled yet. */
void body_add(struct smtp_server *s, struct span in, bool stuff);
/* Over a limit or out of luck: what comes is read and forgotten, and this is the answer to it. */
void body_skip(struct txn *t, const char *refusal);
void body_check_limits(struct smtp_server *s);
/* True: the body has grown to a chunk, which is on its way to the log; nothing is read until it is
 * there. */
bool body_give_chunk(struct smtp_server *s);
/* The message is whole. */
void body_finish(struct smtp_server *s);

#endif
