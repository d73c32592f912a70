/* server_impl - the dialog, and what the files server*.c ask of each other; for them alone. */
#ifndef WORKER_SMTP_SERVER_IMPL_H
#define WORKER_SMTP_SERVER_IMPL_H

#include "base/pool.h"
#include "worker/smtp/clients.h"
#include "worker/smtp/server.h"
#include "worker/smtp/server_txn.h"

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

/* server.c; SV_CLOSING is never left. */
void server_enter(struct smtp_server *s, enum server_state st);
void server_reply(struct smtp_server *s, const char *line);
void server_error(struct smtp_server *s, const char *line); /* counts towards errors_max */
void server_close(struct smtp_server *s);
/* Hangs up at once: there is nobody to say anything to. */
void server_drop(struct smtp_server *s);
/* Takes up again after SV_WAIT: uses the input that was kept. */
void server_resume(struct smtp_server *s, enum server_state st);
/* Logs "client ADDRESS what": some lines a second, then their number. */
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
