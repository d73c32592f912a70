/*
 * server_txn - the states of an inbound dialog and its one mail transaction.
 *
 * Owner:  the dialog; taken from a pool at MAIL, or for a chunk out of order, and wiped as one.
 * Never:  outlives its dialog.
 */
#ifndef WORKER_SMTP_SERVER_TXN_H
#define WORKER_SMTP_SERVER_TXN_H

#include "proto/data_scan.h"
#include "proto/smtp_command.h"
#include "worker/intake.h"

struct smtp_server;

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

#endif
