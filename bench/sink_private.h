/* sink_private - what the files of the sink share: sink, sink_session, sink_policy, sink_peers. */
#ifndef BENCH_SINK_PRIVATE_H
#define BENCH_SINK_PRIVATE_H

#include "base/pool.h"
#include "base/rng.h"
#include "base/table.h"
#include "bench/book.h"
#include "bench/histogram.h"
#include "bench/sink.h"
#include "bench/sink_content.h"
#include "bench/timer.h"

#include <jansson.h>
#include <stdio.h>

enum {
    SINK_READ_BYTES = 256 << 10, /* one recv */
    SINK_OUT_BYTES = 8192,
    SINK_LINE_BYTES_MAX = 4096,
    SINK_RCPT_MAX = 1000,
    SINK_EHLO_BYTES = 512,
    SINK_LOST_SHOWN = 10,
};

/* A client's address and what came from it. */
struct sink_peer {
    struct ip ip;
    uint32_t open;
    uint64_t connections;
    uint64_t turned_away;
    uint64_t messages;
    uint64_t recipients;
};
struct sink_peers {
    struct sink_peer *items; /* index 1.. */
    uint32_t count;
    uint32_t cap;
    struct table by_ip;
};
/* The index of a peer, made when new; 0 when there is no memory. */
uint32_t sink_peers_have(struct sink_peers *p, const struct ip *ip);
void sink_peers_fini(struct sink_peers *p);

/* When a (client, sender, recipient) was seen first. */
struct greylist;
NODISCARD struct greylist *greylist_create(void);
void greylist_destroy(struct greylist **g);
/* True when the key has waited for delay_ms; its first call starts the wait. */
bool greylist_passes(struct greylist *g, uint64_t key, uint64_t at_ns, uint64_t delay_ms);
uint64_t greylist_key(const struct ip *ip, struct span sender, struct span rcpt);

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

struct sink_stats {
    uint64_t sessions;
    uint64_t messages;
    uint64_t recipients;
    uint64_t duplicated;
    uint64_t unidentified;
    uint64_t bytes;
    uint64_t closed_after_dot;
    uint64_t dropped; /* connections gone within a message */
    uint64_t answered_4xx;
    uint64_t answered_5xx;
    uint64_t first_ns;
    uint64_t last_ns;
    struct histogram latency;
};

struct sink {
    const struct sink_options *options;
    struct watch listeners[SINK_LISTEN_MAX];
    struct endpoint endpoints[SINK_LISTEN_MAX];
    uint32_t listener_count;
    struct watch signals;
    struct sink_script script;
    struct greylist *greylist;
    struct book *book;
    struct sink_peers peers;
    struct sink_stats stats;
    struct pool sessions;
    struct timer_heap timers;
    struct rng rng;
    FILE *record;
    uint64_t at_ns;
    uint64_t end_ns; /* when to end; UINT64_MAX = not yet known */
    int epoll;
    char ehlo[SINK_EHLO_BYTES];
    char banner[SINK_EHLO_BYTES];
    char first_duplicate[SINK_EHLO_BYTES];
    uint8_t *in; /* shared: a session's rest, then what is received */
};

/* sink_policy.c */
struct verdict sink_policy_decide(struct sink *s, enum stage stage, struct span subject);
struct verdict sink_policy_rcpt(struct sink *s, const struct sink_session *c, struct span rcpt);

/* sink_session.c: bytes and time */
void sink_session_open(struct sink *s, int fd, const struct ip *ip);
void sink_session_event(struct sink_session *c, uint32_t events);
void sink_session_due(struct sink_session *c);
/* Adds a reply to what goes out with the next flush. */
void sink_session_say(struct sink_session *c, const char *reply);
/* Says it after the verdict's delay, or closes: nothing more is read until then. */
void sink_session_answer(struct sink_session *c, const struct verdict *v, const char *accept);

/* sink_dialog.c: what is said. Uses bytes from the front of *s until it needs more, or a pause. */
void sink_dialog_feed(struct sink_session *c, struct span *s);

/* sink_result.c */
void sink_count_message(struct sink_session *c);
json_t *sink_result(struct sink *s, int *status);

#endif
