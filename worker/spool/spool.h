/*
 * spool - the durable log of one shard: append with group commit, read back, recover, compact.
 *
 * Owner:  a shard of a worker. Physical form: segment files of one size, written with zeroes once,
 * recycled by rename; one commit in flight, what arrives meanwhile is the next; a commit is at most
 * LIMIT_BATCH_BYTES, ends on a block and is never rewritten. Segments leave oldest first: the
 * living of the oldest are copied to the head, so no fate can be lost before the message that it
 * concerns.
 * Input:  records (head fields, meta, rest), completions of the disk.
 * Never:  knows SMTP, decides what lives, retries a failed write, or says "durable" before the
 *         completion of the commit.
 */
#ifndef WORKER_SPOOL_H
#define WORKER_SPOOL_H

#include "proto/spool_record.h"
#include "worker/io/disk.h"

struct spool;

struct spool_settings {
    uint64_t
        segment_bytes;    /* all segments of a shard have the size in their header; new ones this */
    uint32_t spare_count; /* zeroed segments kept ready, 1..16 */
    uint64_t reserve_bytes;   /* stop accepting mail when the file system has less than this */
    bool defective_ack_early; /* test builds only: acknowledges before the commit, so that a crash
                                 test can be seen to catch it */
};

/* A record as recovery and reads see it; spans are valid during the call only. */
struct record_view {
    struct record_head head;
    struct record_place place;
    struct span meta; /* without the head */
    struct span rest; /* empty during recovery from an index */
};

/*
 * What the owner must know of the log's order:
 *  - A DONE may be applied whose ENQ has left the log: it counts in the ledger all the same.
 *  - An ENQ_COPY replaces what the index has of the message; it counts nothing, and a copy is never
 * appended behind the fates of all its recipients: it would bring the message back.
 *  - Living bytes are subtracted when the fate is durable, not when it is appended.
 *  - What failed (-EIO) may be there after a crash, until something later has become durable.
 */
struct spool_owner {
    void *ctx;
    /* Recovery: every surviving record in the order of the log, except private ones. May call
       spool_live. */
    void (*apply)(void *ctx, const struct record_view *v);
    /* Bytes that are damaged in the middle of the log; whatever was there is reported, the rest is
       served. A record with a whole meta and damaged contents comes to apply as well. */
    void (*damage)(void *ctx, const struct record_place *where, const char *why);
    /* A new segment begins: append LEDGER, OWN and STATE so that older ones can leave. Called from
       within spool_append and spool_turn; they describe all that was appended, durable or not. */
    void (*snapshot)(void *ctx);
    /* Compaction wants message `id`, all or part of which lies in segment `segment`, to leave it:
       if it lives there, copy it (ENQ_COPY, all its chunks) and call spool_copied when the copy is
       durable, or, when nothing is left to do for it, as soon as its fates are; return true. False:
       dead or elsewhere, nothing to do. Up to 64 distinct messages are asked for at once. */
    bool (*copy)(void *ctx, struct msg_id id, uint64_t segment);
};

struct spool_facts {
    uint64_t recovered_records, recovered_segments, indexed_segments, damaged_ranges,
        torn_tail_bytes;
    uint64_t recovery_ms;
};

/*
 * Opens the log in `disk` and recovers it: calls owner->apply before it returns, with *out already
 * set. Makes the segment that it will write to and the reserve; appends nothing. 0 or -errno
 * (-EILSEQ: written by a newer version or by another shard; -ENOSPC: no room even for one segment).
 */
NODISCARD int spool_open(struct spool **out, struct disk *disk, const struct spool_settings *s,
                         const struct spool_owner *owner);
/*
 * Frees memory, closes files; writes nothing: turns until spool_idle are the caller's. Operations
 * of the disk must not complete any more: close when idle, or when the disk is dead. Waiters are
 * not called.
 */
void spool_close(struct spool **s);
const struct spool_facts *spool_facts(const struct spool *s);

/* Called when the record is durable (0) or will never be (-EIO, -ENOSPC). Embedded in what waits.
 */
struct spool_wait {
    void (*on_durable)(struct spool_wait *w, int res);
    struct spool_wait *next; /* private */
};

struct spool_append {
    uint8_t type;
    uint8_t flags;
    uint32_t lane;
    uint32_t epoch;
    uint64_t position;
    struct span meta;
    struct span rest[3];
    unsigned rest_count;
    bool fate; /* may use the reserved room: fates, DSNs, copies, snapshots */
};
/*
 * Puts a record into the next commit; copies everything. *place is final. `w` may be NULL (nobody
 * waits). 0; -ENOSPC: full for mail (or entirely); -EIO: no segment can be written now; -ENOBUFS:
 * too much waits for the disk, try in a later turn; -E2BIG. On an error nothing was appended
 * and w is not called.
 */
NODISCARD int spool_append(struct spool *s, const struct spool_append *a, struct spool_wait *w,
                           struct record_place *place);
/* Once a turn: starts the next commit if none is in flight and something waits; drives spares and
 * compaction. */
void spool_turn(struct spool *s, uint64_t now_ms);
/* Nothing appended is waiting and nothing is in flight. */
bool spool_idle(const struct spool *s);
/* Waits for everything appended so far, then calls back: also when nothing is pending (on the next
 * spool_turn). */
void spool_sync(struct spool *s, struct spool_wait *w);

enum spool_health {
    SPOOL_OK,
    SPOOL_FULL, /* fates only: MAIL gets 452 */
    SPOOL_SICK  /* writes fail: MAIL gets 452, no new attempts; a new segment is tried every second
                 */
};
enum spool_health spool_health(const struct spool *s);

/* Bytes of living messages by segment: the owner adds when a record begins to matter and subtracts
 * when it no longer does. */
void spool_live(struct spool *s, uint64_t segment, int64_t bytes);
/* True: the owner has fates that it could not append. No segment leaves until they are in the log
 * and durable. */
void spool_keep(struct spool *s, bool keep);
/* The copy asked for by owner->copy is durable (0) or failed; the next one follows. */
void spool_copied(struct spool *s, int res);

/* Reads a record back and checks it. */
struct spool_read {
    /* res 0: `v` is valid during the call; -EBADMSG: damaged; -EIO. */
    void (*on_read)(struct spool_read *r, int res, const struct record_view *v);
    struct disk_op op; /* private from here */
    struct spool *spool;
    struct record_place place;
    void *buf;
    size_t buf_bytes;
    struct spool_read *next, *prev;
};
/* -ENOBUFS: too many reads at once, or not yet durable: try later. -ENOENT: no such place. */
NODISCARD int spool_read(struct spool *s, struct spool_read *r, const struct record_place *place);

struct spool_usage {
    uint64_t segments, spares, total_bytes, live_bytes, disk_free_bytes;
    uint64_t commits, commit_bytes, records, copied_messages, failed_commits;
    uint64_t oldest_segment, head_segment;
    bool direct;
};
void spool_usage(const struct spool *s, struct spool_usage *out);

#endif
