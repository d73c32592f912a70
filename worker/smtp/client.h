/*
 * smtp_client - one outgoing SMTP dialog: greeting, EHLO, transactions, QUIT (RFC 5321, 2920, 3030,
 * 1870, 6531).
 *
 * Owner:  a delivery, which opens it, gives it one job at a time and hears what became of it.
 * Input:  replies from the connection, jobs, time.
 * Never:  chooses mail or hosts, decides what a reply means for a message, or sends a dot before
 * the owner allowed it.
 */
#ifndef WORKER_SMTP_CLIENT_H
#define WORKER_SMTP_CLIENT_H

#include "config/config.h"
#include "proto/classify.h"
#include "worker/io/conn.h"
#include "worker/io/wheel.h"

struct smtp_client;
struct client_failure;

enum { CLIENT_RCPTS_MAX = 1000 };

/* One transaction. All memory stays valid until on_done or on_closed. */
struct client_job {
    struct span sender;
    const struct span *rcpts;
    unsigned rcpt_count; /* 1..CLIENT_RCPTS_MAX */
    bool utf8;           /* SMTPUTF8 must be given */
    bool body_8bit;      /* BODY=8BITMIME */
    uint64_t raw_bytes;  /* for SIZE=: without stuffing */
    uint64_t wire_bytes; /* of all pieces: equal to raw_bytes when nothing is stuffed */
    bool stuffed;        /* holds doubled dots: DATA must be used */
    struct span piece;   /* the first piece of the content; with trailing CRLF at the very end */
    bool last;           /* it is the only one */
};

struct client_events {
    /* Ready for a job: after the handshake, and after each transaction that left the connection
     * usable. */
    void (*on_idle)(void *owner);
    /* Reply to RCPT i. */
    void (*on_rcpt)(void *owner, unsigned i, const struct smtp_reply *r);
    /* The final dot (or last chunk) is about to be sent. True: go; false: wait for smtp_client_go.
     */
    bool (*on_dot)(void *owner);
    /* A piece has left; give the next by smtp_client_more. */
    void (*on_more)(void *owner);
    /* The transaction is over: the reply that decided it, and at what stage. */
    void (*on_done)(void *owner, enum smtp_stage stage, const struct smtp_reply *r);
    /* The connection failed or the peer ended it; only on_closed follows. `r` is the reply that
       ended it, or NULL. `dot_sent`: the reply to the dot is unknown. err: -errno, 0 = closed by
       the peer. */
    void (*on_failed)(void *owner, const struct client_failure *f);
    void (*on_closed)(void *owner);
};
struct client_failure {
    enum smtp_stage stage;
    int err;
    const struct smtp_reply *reply;
    bool dot_sent;
    bool in_job;
};

struct client_settings {
    const struct config *config;
    struct io *io;
    struct wheel *wheel;
    const char *ehlo;
    struct conn_target target;
};
/* Connects and greets. NULL: no connection slot or memory, try later. */
struct smtp_client *smtp_client_open(const struct client_settings *s,
                                     const struct client_events *ev, void *owner);
/* Only after on_idle. */
void smtp_client_send(struct smtp_client *c, const struct client_job *job);
void smtp_client_more(struct smtp_client *c, struct span piece, bool last);
void smtp_client_go(struct smtp_client *c);
/* The content cannot be had (disk): the connection is closed without a dot; on_closed follows. */
void smtp_client_abort(struct smtp_client *c);
/* Ends politely when idle, at once otherwise. on_closed follows. */
void smtp_client_quit(struct smtp_client *c);
const struct smtp_offer *smtp_client_offer(const struct smtp_client *c);
void smtp_client_local(const struct smtp_client *c, struct ip *ip);
const char *smtp_client_state(const struct smtp_client *c);

#endif
