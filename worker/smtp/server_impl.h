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
    struct data_scan scan;
    struct msg_id id;
    uint64_t end_ns;          /* when the end of data arrived */
    uint64_t size_declared;
    uint64_t body_bytes;      /* of the stored form, chunks included */
    uint64_t chunk_left;      /* BDAT: bytes of this chunk still to come */
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
    bool begun;               /* id and trace exist */
    bool bdat;
    bool bdat_last;
    bool bdat_failed;         /* answered with an error: further chunks are swallowed */
    bool orphan;              /* exists only to swallow a chunk that came out of order */
    bool skip;                /* over a limit: read to the end, then refuse */
    bool submitted;           /* submission_open has been done */
    const char *refusal;      /* reply when skip */
    char text_inline[TXN_TEXT_BYTES];
    struct txn_rcpt rcpts_inline[TXN_RCPTS];
};

struct smtp_server {
    struct smtp_servers *set;
    struct smtp_server *next, **link;  /* all dialogs */
    struct conn *conn;
    const struct config_listener *listener;
    struct timer timer;
    struct txn *txn;
    char *helo;
    uint8_t *in;              /* input not used yet */
    uint32_t in_bytes, in_room;
    struct ip client;
    struct client_count *count;
    uint64_t rate_bytes;      /* received in the present period of a message */
    uint16_t tenant;
    uint16_t errors;
    enum server_state state;
    bool esmtp;
    bool may_relay;
    bool skip_line;           /* the rest of a line that was too long */
    bool direct;              /* body bytes go straight into the content */
    bool paused;
    bool taking;              /* input is being used: an answer from within must not start again */
    struct dns_query query;
    void (*after_lookup)(struct smtp_server *s, const struct dns_answer *a);
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
    bool draining;
};

/* server.c */
void server_enter(struct smtp_server *s, enum server_state st);
void server_reply(struct smtp_server *s, const char *line);
void server_error(struct smtp_server *s, const char *line); /* counts towards errors_max */
void server_close(struct smtp_server *s);
/* Takes up again after SV_WAIT: uses the input that was kept. */
void server_resume(struct smtp_server *s, enum server_state st);
void server_wipe_txn(struct smtp_server *s);
struct txn *server_need_txn(struct smtp_server *s);
/* Keeps input for later. */
void server_keep(struct smtp_server *s, struct span in);

/* server_commands.c */
void server_command(struct smtp_server *s, struct span line);

/* server_data.c: message bytes. Return how many bytes of `in` were used. */
size_t server_take_data(struct smtp_server *s, struct span in);
size_t server_take_chunk(struct smtp_server *s, struct span in);
void server_begin_data(struct smtp_server *s);
void server_begin_chunk(struct smtp_server *s, const struct smtp_command *c);
void server_on_filled(struct smtp_server *s, size_t n);
/* A long body, all input used: the next receives go straight into the content. */
void server_go_direct(struct smtp_server *s);
bool server_no_room(const struct smtp_server *s);

#endif
