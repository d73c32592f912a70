/* intake_impl - shared by intake.c and intake_remote.c only. */
#ifndef WORKER_INTAKE_IMPL_H
#define WORKER_INTAKE_IMPL_H

#include "base/pool.h"
#include "base/table.h"
#include "worker/intake.h"
#include "worker/lane/shard.h"

enum part_state {
    PART_OPEN,     /* nothing under way */
    PART_WAITING,  /* its owner is not there, or full: tried again */
    PART_SENT,     /* a chunk or the message is with the owner */
    PART_DONE
};
enum part_work { WORK_NONE, WORK_CHUNK, WORK_COMMIT };

/* One lane's share of a submission, on the side of the speaker. */
struct intake_part {
    struct intake_part *next;          /* of the submission */
    struct intake_part *next_waiting, **waiting_link;
    struct intake_part *next_all, **all_link;
    /* NULL: the speaker has given up; freed when the answer is in */
    struct submission *submission;
    struct intake *intake;
    enum part_state state;
    enum part_work work;
    struct lane *lane;
    struct peer *peer;                 /* where it was sent, NULL = here */
    uint64_t token;
    uint64_t waiting_since_ms;         /* 0: the present work has not waited yet */
    struct span chunk;
    struct content *content;           /* meta of this part, rest shared */
    uint16_t rcpt_count;
    uint16_t ordinal;                  /* chunks given to the peer; 0: nothing of ours lies there */
    struct enqueue enqueue;
    struct spool_wait chunk_wait;
    struct record_place chunk_place;
    struct record_place *chunks;       /* of a local part */
    uint32_t *chunk_bytes;
    uint16_t chunk_count;
};

/* A message on its way from another worker, on the side of the owner. */
struct remote_part {
    struct remote_part *next, **link;
    struct intake *intake;
    struct peer *peer;                 /* NULL: gone */
    uint64_t token;
    struct lane *lane;
    struct content *content;
    struct enqueue enqueue;
    struct spool_wait chunk_wait;
    struct record_place chunk_place;
    uint32_t chunk_size;
    struct record_place *chunks;
    uint32_t *chunk_bytes;
    uint16_t chunk_count;
    bool busy;                         /* with the spool */
    bool dropped;
};

struct intake {
    struct intake_settings set;
    uint64_t next_sequence;
    uint64_t next_token;
    struct pool parts, remotes;
    struct table by_token;
    struct intake_part *all;
    struct intake_part *waiting;
    struct remote_part *remote_list;
    struct table remote_by_token;
    struct timer timer;
    bool orphaned;
};

void intake_on_ack(struct intake *in, struct peer *from, const struct exchange_frame *f);
void intake_fail_peer(struct intake *in, struct peer *peer);
/* The outcome of what a part was doing. */
void part_done(struct intake_part *p, int res);
/* Appends the chunk list to an encoded meta. NULL: no memory. */
struct content *content_with_chunks(struct content *c, const struct record_place *places,
                                    const uint32_t *bytes, uint16_t count);
/* Do trace, rest and chunks make the body that the envelope announces? Or it is not committed. */
bool content_is_whole(const struct content *c, const uint32_t *chunk_bytes, uint16_t count);
/* Grows the two lists by one; false: no memory or LIMIT_BODY_CHUNKS reached. */
bool chunk_append(struct record_place **places, uint32_t **bytes, uint16_t *count,
                  const struct enq_chunk *c);

#endif
