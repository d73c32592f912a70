/*
 * source_conn - one connection of the source and the transactions under way on it.
 *
 * Owner:  the source's pool, for as long as the source runs; reused for each new TCP connection.
 * Input:  epoll events, deadlines, and replies of any server.
 */
#ifndef BENCH_SOURCE_CONN_H
#define BENCH_SOURCE_CONN_H

#include "bench/outbuf.h"
#include "bench/source.h"
#include "bench/source_work.h"

enum { SOURCE_REPLY_BYTES = 2048 };

/* What the next reply of the server answers. */
enum await {
    AWAIT_NOTHING,
    AWAIT_GREETING,
    AWAIT_EHLO,
    AWAIT_MAIL,
    AWAIT_RCPT,
    AWAIT_DATA,
    AWAIT_DOT,
    AWAIT_RSET,
    AWAIT_QUIT,
    AWAIT_COUNT
};

enum link_state { LINK_WAITING, LINK_CONNECTING, LINK_UP, LINK_ENDED };

struct transaction {
    struct job job;
    struct rcpt_set accepted;
    struct rcpt_set temporary; /* refused with 4xx */
    struct rcpt_set permanent; /* refused with 5xx */
    uint64_t end_sent_ns;      /* when the end of data had gone to the kernel; 0 = not yet */
    uint32_t rcpt;             /* whose reply is next */
    uint16_t code;             /* first refusal, or 0 */
    bool mail_refused;
    bool end_queued; /* the end of data is in the outbuf, or sent */
};

struct source;
struct source_conn {
    struct source *source;
    int fd;
    enum link_state link;
    enum await await;
    bool offers_pipelining;
    bool offers_chunking;
    bool resync;    /* a chunked transaction failed: send nothing new until RSET */
    bool want_out;  /* EPOLLOUT is armed */
    bool is_parked; /* in the list of those that wait for work */
    struct source_conn *prev;
    struct source_conn *next;
    struct timer timer; /* back-off when waiting, next drip when up */
    uint32_t failures;  /* connections in a row without one accepted message */
    uint32_t address;   /* index of the local address */
    uint64_t active_ns;
    uint64_t drip_start_ns;
    uint64_t drip_bytes;
    uint64_t messages; /* started on this connection */
    uint32_t head;     /* of the ring */
    uint32_t open;     /* transactions in the ring */
    struct transaction ring[SOURCE_WINDOW_MAX];
    uint32_t in_bytes;
    char in[SOURCE_REPLY_BYTES];
    struct outbuf out;
};

/* source_conn.c: sockets, time, bytes */
void source_conn_start(struct source_conn *c);
void source_conn_event(struct source_conn *c, uint32_t events);
void source_conn_due(struct source_conn *c);
void source_conn_flush(struct source_conn *c);
/* Closes and connects again after a back-off (unless the source is ending). */
void source_conn_lost(struct source_conn *c, const char *why);
/* Closes after QUIT; connects again at once if there is more to do. */
void source_conn_end(struct source_conn *c);
void source_conn_unpark(struct source_conn *c);
void source_conn_park(struct source_conn *c);

/* source_dialog.c: what is said */
/* One whole reply: its code, and the line that ended it. */
void source_dialog_reply(struct source_conn *c, unsigned code, struct span line);
/* One line of a multi-line reply that goes on. */
void source_dialog_line(struct source_conn *c, struct span line);
/* Starts as many transactions as work and window allow; the caller flushes. */
void source_dialog_pump(struct source_conn *c);
/* The connection is gone: settles every open transaction. */
void source_dialog_settle_loss(struct source_conn *c);

#endif
