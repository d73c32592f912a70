/*
 * query - one question under way to the master, and what came back so far.
 *
 * Owner:  the request that asked (request.h); dies with it.
 * Input:  ANSWER frames with its number: pieces of workers (slot set) and of the master (no slot).
 *         A slot is complete with its `last` piece; the query is, with the `last` piece of no slot.
 * Never:  holds more than QUERY_BYTES_MAX of one worker.
 */
#ifndef API_QUERY_H
#define API_QUERY_H

#include "master/api/answer.h"
#include "master/api/args.h"
#include "proto/control.h"

enum { QUERY_BYTES_MAX = 16 << 20 };

struct query_part {
    uint32_t slot; /* CONTROL_NO_SLOT: the master's */
    int status;
    bool complete;
    uint8_t *p;
    size_t n, cap;
};
struct query {
    uint64_t id;
    const struct verb *verb;
    uint64_t deadline_ms; /* CLOCK_MONOTONIC */
    uint32_t row_limit;
    struct query_part parts[LIMIT_WORKERS + 1];
    unsigned part_count;
};

void query_init(struct query *q, uint64_t id, const struct verb *v, const struct args *args,
                uint64_t now_ms);
void query_fini(struct query *q);
/* Takes one ANSWER frame: 1 when it was the last, 0 when more is to come, -E2BIG, -ENOMEM. */
NODISCARD int query_take(struct query *q, const struct control_frame *f);
/* The answer made of what came. `late`: why it was given up, or NULL. `workers`: expected slots. */
void query_answer(const struct query *q, uint32_t workers, const char *late, struct answer *out);

#endif
