/*
 * fanout - questions of the operator that go to all workers.
 *
 * The process that holds a slot's shards is asked; its pieces go to the api as they come, with the
 * slot's number. A slot without a holder, one whose process dies, and one that does not answer in
 * time give a piece of status 503 or 504. The end is an empty last piece of no slot.
 * Never:  reads the pieces, or keeps them.
 */
#ifndef MASTER_FANOUT_H
#define MASTER_FANOUT_H

#include "proto/control.h"

struct master;
struct proc;

enum { FANOUT_QUESTIONS = 64, FANOUT_MS = 5000 };

/* Takes the pieces of a question of the master's own; the end is an empty piece of no slot. */
typedef void fanout_sink(struct master *m, void *ctx, const struct control_frame *piece);

struct fanout_question {
    uint64_t id;     /* ours; 0 = free */
    uint64_t api_id; /* the api's */
    uint64_t api_incarnation;
    fanout_sink *sink; /* NULL: the api asked */
    void *ctx;
    uint64_t deadline_ms;
    uint64_t asked[LIMIT_WORKERS]; /* incarnation that still owes an answer; 0 = none */
    uint32_t owed;
};
struct fanout {
    struct fanout_question questions[FANOUT_QUESTIONS];
    uint64_t id; /* the last one given out */
};

/* Asks all workers what the api asked. */
void fanout_begin(struct master *m, const struct control_frame *query);
/* Asks all workers for the master; `sink` may be called from inside. -EBUSY: too many questions. */
NODISCARD int fanout_ask(struct master *m, const struct control_frame *query, fanout_sink *sink,
                         void *ctx);
/* A piece came from a worker; 0, or -EBADMSG: it answers what nobody asked. */
NODISCARD int fanout_answer(struct master *m, const struct proc *p, const struct control_frame *f);
/* The process is gone. */
void fanout_gone(struct master *m, const struct proc *p);
/* Gives up what is overdue. */
void fanout_tick(struct master *m);
/* The next deadline, or 0. */
uint64_t fanout_deadline(const struct fanout *f);

#endif
