/*
 * spool_model - an owner of a spool whose memory is checked against what it was promised.
 *
 * Two memories: the truth (what was acknowledged, what may or may not be there; survives crashes)
 * and the index (what an owner knows from recovery and its own appends; lost in a crash, rebuilt by
 * apply). After a recovery the index must say what the truth demands; what was open is decided
 * then, and must stay so.
 *
 * Everything follows from the seed of the generator passed to model_create. The first contradiction
 * is kept in `failure` and ends the run.
 */
#ifndef TESTS_CRASH_SPOOL_MODEL_H
#define TESTS_CRASH_SPOOL_MODEL_H

#include "base/rng.h"
#include "worker/spool/spool.h"

enum { MODEL_MESSAGES = 1024, MODEL_CHUNKS = 16, MODEL_RCPTS = 4, MODEL_FAILURE_BYTES = 200 };

enum truth {
    TRUTH_NONE,
    TRUTH_OPEN,   /* appended, not acknowledged */
    TRUTH_FAILED, /* told that it will never be durable: gone as soon as anything later is
                     acknowledged */
    TRUTH_IN,     /* acknowledged, or found by a recovery */
    TRUTH_OUT     /* decided: must never be seen again */
};

enum copy_state {
    COPY_NONE,
    COPY_WANTED,   /* the spool asked; not yet appended */
    COPY_APPENDED, /* durable soon */
    COPY_FATE      /* nothing outstanding: dead as soon as its fates are durable */
};

struct model_message {
    uint32_t body_bytes, chunk_bytes; /* chunk_bytes 0: body in the ENQ */
    uint8_t rcpts;                    /* set of recipients */
    bool hostile;                     /* the body is full of forged records */
    /* truth */
    enum truth truth;
    uint8_t done_tried, done_failed, done_acked; /* sets of recipients */
    /* index */
    bool known;
    enum copy_state copy;
    uint8_t outstanding;
    uint8_t redo; /* recipients whose fate failed and is to be appended again (eager) */
    struct record_place enq, chunks[MODEL_CHUNKS];
    unsigned chunk_count;
};

struct model_wait;
struct read_check;

/* Bodies full of forged records: of some messages, of none, of all. */
enum model_bodies { BODIES_MIXED, BODIES_TAME, BODIES_HOSTILE };

struct model {
    struct rng rng;
    struct spool_settings settings;
    struct disk *disk;
    struct spool *spool;
    uint64_t now_ms;
    struct model_message messages[MODEL_MESSAGES]; /* message id - 1 is the index */
    unsigned count;
    struct ledger ledger;      /* the owner's */
    struct model_wait *waits;  /* appended, not answered */
    unsigned copies;           /* messages whose copy is not COPY_NONE */
    struct read_check *checks; /* reads in flight */
    unsigned reads;            /* of them */
    unsigned damages;          /* reported by the spool */
    unsigned records;          /* applied by the last recovery */
    uint64_t acked, refused, failed;
    bool damage_expected; /* the test harmed the log: losses are counted, not failures */
    unsigned lost;
    enum model_bodies bodies;
    /* Two kinds of owner: one keeps a message until its fates are durable; the eager one lets it go
       when they are appended, leaves their durability to the spool, and appends what failed again
       under spool_keep. */
    bool eager;
    bool sticky;    /* every eighth message is not delivered before the end */
    unsigned redos; /* messages with a redo */
    char failure[MODEL_FAILURE_BYTES];
};

struct model *model_create(uint64_t seed, const struct spool_settings *s);
void model_destroy(struct model **m);
/* Opens the disk and the spool: 0 or -errno. */
NODISCARD int model_open(struct model *m);
/* Forgets the index and the handles; the spool must not be able to complete anything (after
 * sim_disk_crash), or idle. */
void model_close(struct model *m);
/* Settles what was open by what recovery found, and checks index and ledger against the truth. */
void model_settle(struct model *m);

/* One random action: mail, dot, done, defer, read, turn, a step of the disk. */
void model_step(struct model *m);
/* Appends one message of `bytes` in chunks of `chunk_bytes` (0: none): 0 or -errno. */
int model_enqueue(struct model *m, uint32_t bytes, uint32_t chunk_bytes);
/* Records an outcome for these recipients: RECORD_DONE, DOT or DEFER. 0 or -errno. */
int model_outcome(struct model *m, enum record_type type, unsigned message, uint8_t rcpts);
/* Turns and disk steps until nothing waits, `turns_max` at most. */
void model_drain(struct model *m, unsigned turns_max);
/* Reads every known message back and compares it. */
void model_read_all(struct model *m);

void model_fail(struct model *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
unsigned model_bits(uint8_t set);

/* --- spool_model_owner.c: the owner's side --- */
extern const struct spool_owner model_owner; /* ctx to be set */
/* The contents of a message's body from `offset` on. */
void model_body(unsigned message, bool hostile, uint32_t offset, uint8_t *out, uint32_t n);
/* Appends what copies still want; once a step. */
void model_copies_turn(struct model *m);
/* Forgets what waited for durability: the spool is gone. */
void model_waits_free(struct model *m);

#endif
