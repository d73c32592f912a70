/*
 * shard - one spool and what its records mean for the queue: messages in, fates out, recovery,
 * copies.
 *
 * Owner:  the worker. A message's records are all in the shard of its lane. What is recorded here
 *         is what recovery rebuilds; the counters of the ledger follow the log record by record.
 * Never:  lets go of an outcome that could not be written: it is kept, written again, and no new
 *         attempt starts meanwhile.
 */
#ifndef WORKER_SHARD_H
#define WORKER_SHARD_H

#include "worker/lane/queue.h"
#include "worker/spool/spool.h"

struct shard {
    struct queue *queue;
    struct disk *disk;
    struct spool *spool;
    uint32_t number;
    struct ledger ledger;
    struct ledger unlogged;  /* of ledger: fates whose record is not in the log yet */
    uint64_t pending;        /* recipients appended, not yet durable */
    uint64_t pending_taken;  /* of those: taken over */
    uint64_t taking, giving; /* recipients of OWN and GIVEN records appended, not durable */
    uint64_t recovered, damaged;
    uint64_t left_out;       /* messages for which recovery found no room in the index */
    struct note *unwritten;  /* outcomes that the spool refused or failed: written again */
    struct copy_job *copies;
    uint32_t moves;          /* of those: messages that go to another lane of the shard */
    uint64_t moves_bytes;
};

/*
 * Takes the lock and recovers. -EWOULDBLOCK: another process still owns it. Lanes of the shard
 * begin to run (their entries are placed).
 */
NODISCARD int shard_open(struct shard **out, struct queue *q, const char *dir, uint32_t number);
/* Only when shard_idle. */
void shard_close(struct shard **s);
bool shard_idle(const struct shard *s);
/* Once a turn, after everything was appended. */
void shard_turn(struct shard *s);

/* A message on its way into the log; embedded in what waits for it, untouched until on_done. */
struct enqueue {
    void (*on_done)(struct enqueue *x, int res); /* 0: durable and queued; -errno: not accepted */
    struct lane *lane;
    struct content *content;   /* meta and rest; a reference is taken */
    /* or NULL; malloc'd, chunk_count of them: taken over on success of the call */
    struct record_place *chunks;
    uint16_t chunk_count;
    uint16_t rcpt_count;
    bool taken_over;           /* from another shard or node, not from a client */
    bool replica;              /* of a lane that is LANE_REPLICA: see role.h */
    /* private */
    struct spool_wait wait;
    struct record_place place;
    struct shard *shard;
    uint32_t epoch;            /* as written */
};
/* 0: on_done will come; -ENOSPC, -EIO, -ENOBUFS: try later (452 / 451), on_done does not come. A
   copy: -ESTALE when the lane is no replica, -EBUSY while an attempt for the message is open here;
   else it is in the index at once, and taken out again when on_done tells of a failure. */
NODISCARD int shard_enqueue(struct shard *s, struct enqueue *x);
/* One chunk of a large body, before its message. */
NODISCARD int shard_put_chunk(struct lane *lane, struct msg_id id, struct span chunk,
                              struct spool_wait *wait, struct record_place *place);
/* Chunks of a message that will not come. */
void shard_drop_chunks(struct shard *s, const struct record_place *places, uint16_t count);

/* --- outcomes --- */
struct note_facts {
    enum record_type type;     /* RECORD_DOT, RECORD_DONE or RECORD_DEFER */
    struct lane *lane;
    struct outcome outcome;
    bool taken; /* DEFER: its recipients are ours from now on, taken over from another node */
};
/* Writes an outcome; `user` (may be NULL) hears when it is durable, also after failures: it always
   comes. */
void shard_note(struct shard *s, const struct note_facts *n, struct spool_wait *user);
/* The entry has another state, time or hold now, and no record says so: who copies its lane hears
   it as if it had been deferred. */
void shard_tell_copy(struct queue *q, const struct qentry *e);
/* Writes again what failed; sets q->paused while something is left. */
void shard_turn_notes(struct queue *q);

/* How long an entry waits at least that cannot be placed as its message goes to another lane. */
enum { SHARD_MOVE_WAIT_S = 1 };
/* Writes the message again under another lane of this shard; it is in that lane when this is
   durable. Its entries are not tried meanwhile: those that wait for nothing else are placed in the
   new lane, or, if it came to nothing, tried again as they are. False: not now; something of it is
   in flight, a lane is moving, or too many are under way. An entry that is ENTRY_NEW is the
   caller's, to be put to wait. */
NODISCARD bool shard_move(struct shard *s, struct qmsg *m, struct lane *to);
/* Is the message on its way to another lane? */
bool shard_is_moving(const struct shard *s, struct msg_id id);

/* The last entry of a message went: content, places, index. */
void shard_forget(struct queue *q, struct qmsg *m);
/* Keeps content for the first attempt if there is room in the cache. */
void shard_cache(struct queue *q, struct qmsg *m, struct content *c);
void shard_uncache(struct queue *q, struct qmsg *m);
/* Places of a chunked body: count, *out valid until the message changes. */
uint16_t shard_chunks(const struct queue *q, const struct qmsg *m, const struct record_place **out);
/* The envelope as it stands now, with the recipients that are left and what they have behind them;
   `old` is what the log has. Handing: those alone that are under way to the owner. Chunks are to
   follow: old->chunk_count of them. */
void msg_put_meta(const struct queue *q, const struct qmsg *m, const struct enq *old, bool handing,
                  struct writer *w);
/* For the end of the queue: memory only. */
void shard_lists_free(struct queue *q);
struct record_place msg_place(const struct qmsg *m);
/* Totals over all shards of this worker. */
void shards_ledger(const struct queue *q, struct ledger *sum);

#endif
