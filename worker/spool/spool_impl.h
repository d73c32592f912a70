/*
 * spool_impl - what the files of worker/spool share; nobody else includes it.
 *
 * spool.c    open, append, turn, health      batch.c    buffers and the one commit in flight
 * segment.c  files, switching, spares        footer.c   the index of a sealed segment
 * recovery.c from a directory to records     compact.c  copying the living of the oldest segment
 * scan.c     one segment file read back
 * read.c     records read back
 *
 * A segment file, in blocks of LIMIT_BLOCK_BYTES:
 *   header | batch | batch | ... | footer (entries without their bodies) | ... | trailer
 * The trailer is in the last block. The header is written in one operation with the first batch.
 * Footer and trailer are written once, when all batches of the segment are durable; without them
 * the segment is scanned. Nothing is ever rewritten.
 */
#ifndef WORKER_SPOOL_IMPL_H
#define WORKER_SPOOL_IMPL_H

#include "worker/spool/spool.h"

enum {
    SEGMENT_VERSION = 1,
    SEGMENT_BYTES_FLOOR =
        64 << 10, /* what works at all; the configured minimum is LIMIT_SEGMENT_BYTES_MIN */
    SEGMENT_HEADER_BYTES = LIMIT_BLOCK_BYTES,
    SEGMENT_TRAILER_BYTES = LIMIT_BLOCK_BYTES,
    SEGMENT_NAME_BYTES = 32,
    SPARES_MAX = 16 + 1, /* spare_count at most 16, and the reserve */

    BATCH_META_BYTES = 8 + 4 + 4,
    BATCH_HEAD_BYTES = RECORD_HEAD_BYTES + BATCH_META_BYTES,
    BATCH_QUEUE_MAX =
        64, /* full buffers that wait behind the commit in flight; beyond: -ENOBUFS ... */
    BATCH_QUEUE_FATE_MAX = 80, /* ... and here for fates and snapshots */
    BATCH_KEPT_MAX = 4,        /* free buffers kept for the next commits */

    FOOTER_ENTRY_BYTES = 8, /* before head and meta: u32 offset, u32 zero */
    FOOTER_PIECE_BYTES = LIMIT_BATCH_BYTES,
    FOOTER_SHARE = 3, /* a footer above a third of its segment saves nothing over a scan: dropped */
    FOOTER_PIECES_MAX = LIMIT_SEGMENT_BYTES_MAX / FOOTER_SHARE / FOOTER_PIECE_BYTES + 1,

    COPY_WINDOW = 64, /* messages copied at once, so that their copies share commits */
    READS_MAX = 256,
    READ_BYTES_MAX = 64 << 20, /* of all reads in flight */
    RETRY_MS = 1000,           /* sick disk, failed spare, failed copy; and the age of disk_free */
};
static_assert(BATCH_HEAD_BYTES % 8 == 0, "records begin at multiples of 8");
static_assert((int)LIMIT_RECORD_BYTES + (int)BATCH_HEAD_BYTES + (int)SEGMENT_HEADER_BYTES <=
                  (int)LIMIT_BATCH_BYTES,
              "the largest record fits the first batch of a segment");
static_assert(BATCH_QUEUE_MAX < BATCH_QUEUE_FATE_MAX, "fates may wait where mail may not");

enum segment_state {
    SEGMENT_CURRENT, /* takes batches */
    SEGMENT_FILLED,  /* takes no more; its footer is kept in memory until it is written or not worth
                        it */
    SEGMENT_SEALED,  /* footer and trailer are durable */
    SEGMENT_BARE     /* without a footer: abandoned, recovered by a scan, or the footer failed */
};

struct footer {
    uint8_t *pieces[FOOTER_PIECES_MAX];
    uint32_t bytes;
    uint32_t records;
    bool dropped;
};

struct segment {
    uint64_t id;
    struct disk_file *file;
    enum segment_state state;
    uint32_t bytes;           /* of the file */
    uint32_t end;             /* where the next batch begins; places below it are taken */
    uint32_t durable_end;     /* records below it may be read */
    uint64_t first_sequence;  /* 0: holds no batch */
    uint64_t next_sequence;   /* one beyond its last durable record */
    uint64_t record_bytes;    /* of all records, without batch heads and padding to blocks */
    int64_t live_bytes;       /* of these, what the owner still needs */
    uint64_t needed_sequence; /* what was appended before it ended what lived here: durable before
                                 the segment leaves */
    uint32_t lasting;         /* records other than snapshots */
    uint32_t reads;           /* in flight */
    uint32_t footer_at;       /* SEALED */
    uint32_t footer_bytes;
    bool suspect;         /* a write to it failed: never used again */
    struct footer footer; /* CURRENT and FILLED */
};

struct waits {
    struct spool_wait *head;
    struct spool_wait **tail;
};

struct batch {
    struct batch *next;
    struct segment *segment;
    uint8_t *buf;     /* LIMIT_BATCH_BYTES */
    uint32_t offset;  /* of buf[0] in the file */
    uint32_t head_at; /* of the batch head in buf: behind the segment header in the first batch */
    uint32_t bytes;   /* used of buf */
    uint32_t records;
    uint64_t first_sequence;
    struct waits waits;
};

/* Everything below the trailer of one segment that is being sealed. */
struct seal {
    struct disk_op op;
    struct segment *segment; /* NULL: none */
    uint8_t *trailer;        /* one block */
    uint32_t written;        /* of the footer */
    uint32_t crc;
};

struct compact {
    struct disk_op op;
    struct segment *segment; /* NULL: none */
    uint8_t *buf;            /* LIMIT_BATCH_BYTES while a segment is being walked */
    uint32_t buf_at, buf_n;  /* what of the file it holds */
    uint32_t at, end;        /* walk */
    bool reading, failed;
    struct msg_id window[COPY_WINDOW];
    unsigned issued, outstanding;
    uint64_t retry_ms;
};

enum { READ_CLASSES = 4 };
struct read_cache {
    void *head[READ_CLASSES]; /* chained through their first bytes */
    uint32_t kept[READ_CLASSES];
    struct spool_read *in_flight;
    uint32_t count; /* of them */
    size_t bytes;
};

struct spool {
    struct disk *disk;
    struct spool_settings settings;
    struct spool_owner owner;
    struct spool_facts facts;
    uint64_t now_ms;

    uint64_t shard;            /* random, secret, the same in all segments */
    uint32_t salt;             /* of shard */
    struct segment **segments; /* ascending ids */
    uint32_t segment_count, segment_room;
    uint32_t filled_count;   /* of them, in state SEGMENT_FILLED */
    struct segment *current; /* NULL: the next append begins one */
    uint64_t next_segment, next_sequence, durable_sequence;
    uint64_t needed_sequence; /* of all segments, see spool_keep */
    bool keep;

    uint32_t spares[SPARES_MAX];
    uint32_t spare_count, spare_next;
    struct disk_op spare_op;
    uint32_t spare_making; /* number in its name */
    bool spare_busy;
    uint64_t spare_retry_ms, recycle_retry_ms;

    struct batch *queue; /* oldest first; the first may be in flight, the last open */
    struct batch **queue_tail;
    uint32_t queue_count;
    struct batch *open; /* takes records; in the queue */
    bool in_flight;
    struct disk_op commit_op;
    uint32_t commit_bytes;
    uint8_t *arena; /* BATCH_KEPT_MAX buffers */
    uint8_t *kept[BATCH_KEPT_MAX];
    uint32_t kept_count;
    struct waits sync_now; /* spool_sync with nothing pending */

    bool starved, free_short; /* the reasons for SPOOL_FULL besides a missing reserve */
    uint64_t free_bytes, free_at_ms;
    bool sick, probing;
    bool telling; /* of a failed commit: nothing is appended before all have heard */
    uint32_t failed_in_row;
    uint64_t sick_retry_ms;

    bool in_snapshot, snapshot_bad;
    uint64_t snapshot_segment, snapshot_sequence; /* appended; 0 = none */
    uint64_t snapshot_retry_ms;
    uint64_t snapshot_durable; /* segment of the last durable one */

    struct seal seal;
    struct compact compact;
    struct read_cache reads;
    int64_t live_bytes;
    uint64_t record_bytes, file_bytes;
    struct spool_usage usage; /* counters only */
};

static inline uint32_t pad8(uint32_t n)
{
    return (n + 7u) & ~7u;
}
static inline uint32_t pad_block(uint32_t n)
{
    return (n + LIMIT_BLOCK_BYTES - 1u) & ~(LIMIT_BLOCK_BYTES - 1u);
}

/* --- segment.c --- */
void segment_name(char out[SEGMENT_NAME_BYTES], uint64_t id);
void spare_name(char out[SEGMENT_NAME_BYTES], uint32_t n);
/* Exactly the forms written by the two above; false otherwise. */
bool segment_name_read(const char *name, uint64_t *id);
bool spare_name_read(const char *name, uint32_t *n);
struct segment *segment_find(const struct spool *s, uint64_t id);
/* A new element of the list, above all others. NULL: out of memory. */
struct segment *segment_add(struct spool *s, uint64_t id, struct disk_file *file, uint64_t bytes);
void segment_state_set(struct spool *s, struct segment *seg, enum segment_state state);
/* Closes the file and forgets the segment. */
void segment_remove(struct spool *s, struct segment *seg);
/* Fills the header block. */
void segment_header_write(const struct spool *s, const struct segment *seg, uint8_t *block);
struct segment_header {
    uint64_t shard, id, segment_bytes, created_unix_s, first_sequence;
    uint64_t snapshot_durable; /* as known when the segment began */
};
/* 0; -EBADMSG: no header; -EILSEQ: of a newer version. */
NODISCARD int segment_header_read(struct span block, struct segment_header *out);
/* Begins a segment out of a spare and lets the owner put its snapshot there. `fate`: the reserve
 * may be used. */
NODISCARD int segment_switch(struct spool *s, bool fate);
/* A write to it failed: no batch goes there any more, what was durable is served. */
void segment_abandon(struct spool *s, struct segment *seg);
/* Removes abandoned segments that hold nothing durable. */
void segment_sweep(struct spool *s);
/* Nothing is written until RETRY_MS from now. */
void spool_sicken(struct spool *s, const char *what, int err);
/* Spares wanted and made, oldest segments recycled, room measured. */
void segment_turn(struct spool *s);
/* Blocking: makes spares until there are `count`. */
NODISCARD int segment_spares_now(struct spool *s, uint32_t count);

/* --- batch.c --- */
/* True when a record of `padded` bytes with `entry` bytes in the footer fits the open batch (or a
 * new one) and its segment. */
bool batch_fits(const struct spool *s, uint32_t padded, uint32_t entry);
/* The open batch with room for `padded` bytes; NULL: no buffer. batch_fits must be true. */
struct batch *batch_for(struct spool *s, uint32_t padded);
void batch_close(struct spool *s);
void batch_commit(struct spool *s);
void batch_free_all(struct spool *s);
void waits_add(struct waits *l, struct spool_wait *w);
void waits_call(struct waits *l, int res);

/* --- footer.c --- */
/* Bytes that the footer will take with `entry` more; 0 when it is or will be dropped. */
uint32_t footer_room(const struct segment *seg, uint32_t entry);
static inline uint32_t footer_entry_bytes(uint32_t meta_bytes)
{
    return FOOTER_ENTRY_BYTES + pad8(meta_bytes);
}
/* Adds a record: its head with meta. */
void footer_add(struct spool *s, struct segment *seg, uint32_t offset, struct span head_and_meta);
void footer_drop(struct spool *s, struct segment *seg);
/* Writes footers of filled segments, one operation at a time. */
void footer_turn(struct spool *s);
struct trailer {
    uint64_t shard, first_sequence, next_sequence, record_bytes;
    uint32_t log_end, footer_at, footer_bytes, footer_crc, records, lasting;
};
NODISCARD int trailer_read(struct span block, uint64_t segment, struct trailer *out);
struct footer_entry {
    uint32_t offset;
    struct record_head head;
    struct span meta; /* without the head */
};
/* Takes the next entry; 0, -ENOENT at the end, -EBADMSG. */
NODISCARD int footer_next(struct span *left, struct footer_entry *out);

/* --- recovery.c --- */
NODISCARD int recovery_run(struct spool *s);

/* --- compact.c --- */
void compact_turn(struct spool *s);

/* --- read.c --- */
void read_free_all(struct spool *s);

/* Records that only repeat what the owner knows: they are written again at the start of each
 * segment. */
static inline bool record_is_snapshot(uint8_t type)
{
    return type == RECORD_LEDGER || type == RECORD_OWN || type == RECORD_STATE;
}
/* True for a head of this shard and segment. */
static inline bool record_is_ours(const struct spool *s, const struct segment *seg,
                                  const struct record_head *h)
{
    return h->segment == seg->id && h->salt == s->salt;
}

#endif
