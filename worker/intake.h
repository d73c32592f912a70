/*
 * intake - brings an accepted message to the owners of its lanes and tells when it is durable
 * everywhere.
 *
 * Owner:  the worker. A submission is embedded in the SMTP transaction; it has one part per lane
 *         concerned. A lane of this worker is a call, a lane of another worker is a frame through
 *         the exchange; the client hears 250 when every part is committed by its owner.
 * Never:  answers before that; keeps a message for an owner that does not come (451 after a while).
 */
#ifndef WORKER_INTAKE_H
#define WORKER_INTAKE_H

#include "worker/exchange/exchange.h"
#include "worker/lane/queue.h"

struct intake;

enum { INTAKE_PARTS_MAX = 256 /* lanes of one transaction */ };

struct submission_rcpt {
    struct span address;
    struct lane *lane;
    uint16_t index;
    const struct enq_rcpt *as_is; /* what the recipient has behind it; NULL: it is new */
};
/* Filled by the caller, untouched until on_done. */
struct submission {
    /* 0: durable everywhere; else the first -errno */
    void (*on_done)(struct submission *s, int res);
    void (*on_chunk)(struct submission *s, int res); /* the chunk has been taken by all */
    struct enq enq;            /* id of the first part; without recipients and chunks */
    const struct submission_rcpt *rcpts;
    unsigned rcpt_count;
    struct content *content;   /* rest: trace + body, or trace alone after chunks */
    /* private */
    struct intake *intake;
    struct intake_part *parts;
    unsigned pending;
    int res;
    bool chunked;
    bool committing;
};

struct intake_settings {
    struct queue *queue;
    struct io *io;
    struct wheel *wheel;
    struct exchange *exchange;
    uint16_t node_id;
    uint64_t boot;
    uint64_t incarnation;   /* of this process: keeps ids apart within a boot */
    uint32_t slot;
};
NODISCARD int intake_create(struct intake **out, const struct intake_settings *s);
void intake_destroy(struct intake **in);
/* A new message id, never used before. */
struct msg_id intake_id(struct intake *in);

/* Groups the recipients by lane. -E2BIG: more lanes than INTAKE_PARTS_MAX; -ENOBUFS: no room. */
NODISCARD int submission_open(struct intake *in, struct submission *s);
/* One piece of a large body; on_chunk comes later. Not before the one before was taken. */
void submission_chunk(struct submission *s, struct span chunk);
/* The rest: on_done comes later. */
void submission_commit(struct submission *s);
/* The client went away or the message is refused; no callback comes. Also after on_done with an
   error; NULL parts are fine. */
void submission_close(struct submission *s);

/* From the exchange. */
void intake_on_frame(void *ctx, struct peer *p, const struct exchange_frame *f);
void intake_on_down(void *ctx, struct peer *p);
void intake_on_up(void *ctx, struct peer *p);
/* A shard of ours has been recovered: what waited for it goes on. */
void intake_retry(struct intake *in);
/* The master is gone: owners that are not there will not come any more. */
void intake_orphan(struct intake *in);
/* Parts under way, ours and for others. */
unsigned intake_open_count(const struct intake *in);

#endif
