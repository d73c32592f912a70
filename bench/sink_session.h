/*
 * sink_session - one inbound SMTP dialog of the sink.
 *
 * Owner:  the sink's pool; gone when finish in sink_session.c has run.
 * Input:  epoll events, deadlines, and bytes of anybody.
 */
#ifndef BENCH_SINK_SESSION_H
#define BENCH_SINK_SESSION_H

#include "bench/sink_content.h"
#include "bench/timer.h"

enum {
    SINK_READ_BYTES = 256 << 10, /* one recv */
    SINK_OUT_BYTES = 8192,
    SINK_LINE_BYTES_MAX = 4096,
    SINK_RCPT_MAX = 1000,
    SINK_EHLO_BYTES = 512,
    SINK_LOST_SHOWN = 10,
};

enum verdict_kind { VERDICT_ACCEPT, VERDICT_REPLY, VERDICT_CLOSE };
struct verdict {
    enum verdict_kind kind;
    uint32_t delay_ms;
    const char *reply; /* lives as long as the sink */
};

enum session_state {
    SESSION_NEW, /* before EHLO */
    SESSION_READY,
    SESSION_MAIL,
    SESSION_RCPT,
    SESSION_CHUNKS, /* between two BDAT of a message */
    SESSION_DATA,   /* content up to the dot */
    SESSION_CHUNK,  /* content of one BDAT */
    SESSION_CLOSING,
    SESSION_STATE_COUNT
};

/* Who ended a connection, and how. */
enum session_end { END_OURS, END_EOF, END_RESET, END_COUNT };

/* Why a session does not read. */
enum session_pause { PAUSE_NONE, PAUSE_DELAY, PAUSE_OUTPUT, PAUSE_SLOW };

enum watch_kind { WATCH_LISTENER, WATCH_SESSION, WATCH_SIGNAL };
struct watch {
    enum watch_kind kind;
    int fd;
};

/* One transaction, wiped in one statement. */
struct sink_transaction {
    uint32_t rcpt_count; /* accepted */
    uint32_t rcpt_asked;
    uint32_t addresses_used; /* bytes of session.addresses */
    uint64_t chunk_left;
    bool chunk_is_last;
    bool chunk_is_refused; /* BDAT out of place: its bytes are read and dropped */
    struct content content;
};

struct sink;
struct sink_session {
    struct watch watch; /* first: epoll gives back its address */
    struct sink *sink;
    enum session_state state;
    enum session_pause pause;
    uint32_t events; /* armed in epoll */
    uint32_t peer;
    uint16_t port; /* the client's */
    uint64_t messages;
    struct timer timer;
    const char *held_reply; /* said when the delay is over */
    bool held_close;
    struct sink_transaction tx;
    char *addresses; /* the sender, then the accepted recipients, each with its NUL */
    uint32_t addresses_cap;
    uint8_t *rest; /* input not yet used */
    size_t rest_bytes;
    size_t rest_cap;
    uint32_t out_bytes;
    uint32_t out_sent;
    uint16_t rcpts[SINK_RCPT_MAX]; /* book indices */
    char out[SINK_OUT_BYTES];
};

/* sink_session.c: bytes and time */
void sink_session_open(struct sink *s, int fd, const struct ip *ip, uint16_t port);
void sink_session_event(struct sink_session *c, uint32_t events);
void sink_session_due(struct sink_session *c);
/* Adds a reply to what goes out with the next flush. */
void sink_session_say(struct sink_session *c, const char *reply);
/* Says it after the verdict's delay, or closes: nothing more is read until then. */
void sink_session_answer(struct sink_session *c, const struct verdict *v, const char *accept);

/* sink_dialog.c: what is said. Uses bytes from the front of *s until it needs more, or a pause. */
void sink_dialog_feed(struct sink_session *c, struct span *s);

#endif
